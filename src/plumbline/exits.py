"""The exit statuses of every command, and what stands at its door."""

from __future__ import annotations

import io
import os
import sys

from plumbline.output import print_traceback

DONE = 0
BUG = 1  # ours, or the machine's: a full disk
MISTAKE = 2  # in the command or the configuration, said in one message
DIVERGED = 3
CHECK_FAILED = 4  # and was asked to stop the run
TO_BE_CONTINUED = 85  # saved, wants to go on
BY_HAND = 130  # stopped by Ctrl-C, saved


class Outlasting(io.TextIOWrapper):
    """Standard output that speaks on to nobody when its reader has had enough (`--help | head -1`), and ends nothing."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            return self._to_nobody(len(text))

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            self._to_nobody(0)

    def _to_nobody(self, written: int) -> int:
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
        return written


def outlast_the_reader() -> None:
    """Called first by every command that is started as a program."""
    before = sys.stdout
    how = {key: getattr(before, key) for key in ("encoding", "errors", "line_buffering", "write_through")}
    sys.stdout = Outlasting(before.detach(), **how)
    sys.excepthook = print_traceback
