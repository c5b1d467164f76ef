"""The TensorFlow Playground as published: what its networks do, over ten seeds, and what the checks say of their curves.

Solved is a validation loss below 0.02: half the squared error of a tanh that is 0.2 away.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import mean, median
from typing import Any

import numpy as np
import pytest
from conftest import composed
from test_options import CPU

from plumbline.assemble import assemble
from plumbline.checks.curve import Curve, noise
from plumbline.checks.shape import plateau
from plumbline.config import build, check_config
from plumbline.loop import fit
from plumbline.scoring import Scoring

TEN = range(10)


def epochs(words: str, seed: int) -> Iterator[dict[str, Any]]:
    """The records of a run, one an epoch; whoever has seen enough stops asking, and the rest is not trained."""
    cfg = composed(*words.split(), f"seed={seed}")
    check_config(cfg)
    data = build(cfg.data)()
    training, state, step, schedule = assemble(cfg, data, CPU)
    scoring = Scoring(data, training, cfg)
    options = {key: cfg[key] for key in ("seed", "epochs", "batch_size", "accumulate", "watch")}
    for record in fit(training, state, data.train, step, schedule, **options):
        if record:
            yield record | scoring.epoch(state)


def solved(words: str, seed: int, what: str = "val/loss", below: float = 0.02) -> int | None:
    """The epoch that solves it; None if none does."""
    return next((record["epoch"] for record in epochs(words, seed) if record[what] < below), None)


def ends(words: str, seed: int) -> dict[str, Any]:
    """The last record."""
    *_, last = epochs(words, seed)
    return last


def slowly(*least: int) -> list[Any]:
    """Ten seeds, of which those but `least` wait for --slow."""
    return [seed if seed in least else pytest.param(seed, marks=pytest.mark.slow) for seed in TEN]
