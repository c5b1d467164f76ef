"""Signals only set a flag. The loop looks at it after each update, saves, and leaves."""

from __future__ import annotations

import contextlib
import signal
from types import FrameType, TracebackType
from typing import ClassVar


class Left(Exception):
    """A run left before its end, at somebody's wish, and has saved. status: preempted, stopped or pruned."""

    def __init__(self, status: str):
        super().__init__(status)
        self.status = status


class Signals:
    """Within the context, SIGTERM and SIGUSR1 ask to be continued later; Ctrl-C asks to stop, a second one insists."""

    STATUS: ClassVar = {signal.SIGTERM: "preempted", signal.SIGUSR1: "preempted", signal.SIGINT: "stopped"}

    def __init__(self) -> None:
        self.asked: str | None = None  # the status to leave with

    def __enter__(self) -> Signals:
        self._before = {number: signal.signal(number, self._note) for number in self.STATUS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        insists = number == signal.SIGINT and self.asked is not None
        self.asked = self.STATUS[signal.Signals(number)]
        if insists:
            raise KeyboardInterrupt
        if number == signal.SIGINT:
            with contextlib.suppress(OSError, RuntimeError):  # nobody may be listening, or be spoken to right now
                print("\nsaving at the end of this step; press again to leave at once", flush=True)
