"""Mirrors of the local record. One that fails is dropped with a word: it never ends a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from plumbline.config import build
from plumbline.variables import recorded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from plumbline.console import Console
    from plumbline.record import Record


class Trackers:
    """The chosen trackers of a run, told the same things in the same order.

    A tracker is built with (directory, configuration, run) and has log(record), finish(run, figures) and close().
    """

    def __init__(self, cfg: DictConfig, record: Record, console: Console):
        self.record, self.console, self.active = record, console, {}
        plain = recorded(cfg)
        for name, node in cfg.tracker.items():
            tracker = self._try(name, lambda node=node: build(node)(record.directory, plain, record.run))
            if tracker is not None:
                self.active[name] = tracker
                record.note(trackers=record.run["trackers"] | {name: tracker.identity})

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, *error: object) -> None:
        for name, tracker in list(self.active.items()):
            self._try(name, tracker.close)

    def log(self, record: dict[str, float]) -> None:
        """An epoch's record, at its number."""
        for name, tracker in list(self.active.items()):
            self._try(name, lambda tracker=tracker: tracker.log(record))

    def finish(self, figures: dict[str, Figure]) -> None:
        """The run's summary and figures."""
        for name, tracker in list(self.active.items()):
            self._try(name, lambda tracker=tracker: tracker.finish(self.record.run, figures))

    def _try(self, name: str, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except (
            Exception
        ) as error:  # network, quota, a full disk, a new version: the local record is complete without it
            self.active.pop(name, None)
            word = f"tracker {name} failed and is left out from here on: {type(error).__name__}: {error}"
            self.console.say(word)
            self.record.note(trackers=self.record.run["trackers"] | {name: word})
            return None
