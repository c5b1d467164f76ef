"""Schedules: pure functions of progress in [0, 1], multiplied onto each group's initial learning rate.

`scores` are the validation losses so far, one an epoch; only `plateau` reads them. `warmup` is the fraction of the run
in which the multiplier grows linearly. Positions (milestones, peak_at) are fractions of the whole run; shapes (cosine,
linear) span what is left after the warm-up.
"""

from __future__ import annotations

from itertools import accumulate
from math import cos, inf, pi
from typing import Annotated, Literal

from plumbline.contract import require
from plumbline.ranges import Decay, Index, Inside, Items, Part, Range, Share

LEAST = 1e-3  # of the warm-up: a multiplier of 0 would waste the first step


def constant(progress: float, scores: list[float], *, warmup: Decay) -> float:
    """The initial rate throughout."""
    ramp, _ = _warm_up(progress, warmup)
    return ramp


def linear(progress: float, scores: list[float], *, warmup: Decay, floor: Share) -> float:
    """From 1 down to `floor`."""
    ramp, rest = _warm_up(progress, warmup)
    return ramp * (1 - (1 - floor) * rest)


def cosine(progress: float, scores: list[float], *, warmup: Decay, floor: Share) -> float:
    """Half a cosine from 1 down to `floor` (Loshchilov & Hutter 2017, without restarts)."""
    ramp, rest = _warm_up(progress, warmup)
    return ramp * _glide(1, floor, rest)


def cosine_restarts(
    progress: float,
    scores: list[float],
    *,
    warmup: Decay,
    cycles: Annotated[int, Range("[1, 100]")],
    growth: Literal["add", "double"],
    floor: Share,
) -> float:
    """Cosines from 1 to `floor`, of lengths 1, 2, 3, … or 1, 2, 4, … that fill the run together.

    So that a cycle is a whole number of epochs, train for 1 + 2 + … + cycles epochs, or 2^cycles - 1.
    """
    ramp, rest = _warm_up(progress, warmup)
    lengths = [i + 1 if growth == "add" else 2**i for i in range(cycles)]
    position = rest * sum(lengths) + 1e-9  # 3/15 of 15 is 3, whatever the rounding
    start, length = max((s, n) for s, n in zip(accumulate([0, *lengths]), lengths, strict=False) if s <= position)
    return ramp * _glide(1, floor, min((position - start) / length, 1.0))


def multistep(
    progress: float,
    scores: list[float],
    *,
    warmup: Decay,
    milestones: Annotated[list[Inside], Items(increasing=True)],
    factor: Inside,
) -> float:
    """Multiplied by `factor` at each milestone, a fraction of the run (He et al. 2016: tenfold drops)."""
    ramp, _ = _warm_up(progress, warmup)
    return ramp * factor ** sum(progress >= milestone for milestone in milestones)


def one_cycle(
    progress: float, scores: list[float], *, warmup: Decay, peak_at: Inside, start: Part, floor: Share
) -> float:
    """Half a cosine up from `start` to 1 at `peak_at`, half a cosine down to `floor` (Smith 2018)."""
    require(
        "schedule.peak_at",
        peak_at,
        warmup <= peak_at and 0 < peak_at < 1,
        "between 0 and 1 and not before the warm-up ends",
    )
    ramp, _ = _warm_up(progress, warmup)
    if progress < peak_at:
        return ramp * _glide(start, 1, progress / peak_at)
    return ramp * _glide(1, floor, (progress - peak_at) / (1 - peak_at))


def plateau(
    progress: float,
    scores: list[float],
    *,
    warmup: Decay,
    factor: Inside,
    patience: Index,
    threshold: Decay,
    floor: Share,
) -> float:
    """Multiplied by `factor` when more than `patience` epochs brought no score below best * (1 - threshold).

    The whole history is replayed, so nothing has to be saved; equals torch's ReduceLROnPlateau.
    """
    ramp, _ = _warm_up(progress, warmup)
    multiplier, best, waited = 1.0, inf, 0
    for score in scores:
        if score < best * (1 - threshold):
            best, waited = score, 0
        else:
            waited += 1
        if waited > patience:
            multiplier, waited = max(multiplier * factor, floor), 0
    return ramp * multiplier


def _warm_up(progress: float, warmup: float) -> tuple[float, float]:
    """(the warm-up's factor in (0, 1], how much of the rest of the run is over)."""
    assert 0 <= progress <= 1, progress
    if progress < warmup:
        return max(progress / warmup, LEAST), 0.0
    return 1.0, (progress - warmup) / (1 - warmup)


def _glide(high: float, low: float, done: float) -> float:
    """Half a cosine from `high` (done 0) to `low` (done 1)."""
    return low + (high - low) * (1 + cos(pi * done)) / 2
