"""What signals ask of a worker: they set a flag, and go on to the processes below it."""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType

from plumbline import exits

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Asked:
    """Signals only set a flag here, and go on to the processes below, which save."""

    def __init__(self) -> None:
        self.status: int | None = None  # to leave with
        self.below: set[int] = set()
        for number in SIGNALS:
            signal.signal(number, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # one that came while torch was imported is heeded now

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.status = exits.BY_HAND if number == signal.SIGINT else exits.TO_BE_CONTINUED
        for process in self.below:
            with contextlib.suppress(ProcessLookupError):  # it is at its end already
                os.kill(process, number)

    def fork(self) -> int:
        """os.fork, with no moment at which a signal would reach only one of the two."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        process = os.fork()
        if process:
            self.below.add(process)
        else:
            self.below.clear()
            for number in SIGNALS:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return process
