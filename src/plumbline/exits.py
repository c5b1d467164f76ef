"""The exit statuses of every command."""

DONE = 0
BUG = 1  # ours, or the machine's: a full disk
MISTAKE = 2  # in the command or the configuration, said in one message
DIVERGED = 3
CHECK_FAILED = 4  # and was asked to stop the run
TO_BE_CONTINUED = 85  # saved, wants to go on
BY_HAND = 130  # stopped by Ctrl-C, saved
