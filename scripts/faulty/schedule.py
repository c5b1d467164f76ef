"""Schedules that go wrong: called as ours are, (progress, scores)."""

from __future__ import annotations


def decayed_each_batch(progress: float, scores: list[float], *, warmup: float, decay: float, steps: int) -> float:
    """A decay that was meant for each epoch is applied after each batch: the rate is gone before the run is half over."""
    return decay ** (progress * steps)


def whole_numbers(progress: float, scores: list[float], *, warmup: float) -> float:
    """// where / was meant: the rate is zero until the last moment."""
    return float(progress // 1)


def growing(progress: float, scores: list[float], *, warmup: float) -> float:
    """The factor of a decay is upside down: the rate grows a thousandfold."""
    return 1000**progress
