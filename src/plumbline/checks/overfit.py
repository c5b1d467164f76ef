"""A network that cannot learn one batch by heart will not learn the rest."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch

from plumbline.checks.bench import Bench
from plumbline.checks.core import Finding
from plumbline.loop import Diverged
from plumbline.losses import Loss, one_hot

EVERY = 5  # updates between two looks


@dataclass
class Attempt:
    """What became of learning one batch by heart at one rate."""

    rate: float
    updates: int
    score: float  # the share that is right, or the share of the variance that is explained
    loss: float
    passed: bool
    cut: bool = False  # by the clock, not by the number of updates


def floor(bench: Bench) -> float | None:
    """The lowest loss that there is: the entropy of the smoothed labels, where they are smoothed; else zero."""
    training = bench.network.training
    if not isinstance(training.loss, Loss):
        return None
    y = bench.y
    for regulariser in training.regularisers:
        _, y = regulariser.batch(bench.x, y, training.generator)
    if bench.spec.task != "classification" or not y.is_floating_point():
        return 0.0
    if training.loss.expected_first is None or abs(training.loss.expected_first - math.log(bench.spec.outputs)) > 1e-6:
        return None
    return float(training.loss(one_hot(y, bench.spec.outputs, torch.float32).clamp(min=1e-12).log(), y))


def attempt(bench: Bench, rate: float | None, updates: int, seconds: float, enough: float) -> Attempt:
    """Up to so many updates on the first batch, without anything that is drawn at random."""
    copy = bench.fresh(quiet=True)
    multiplier = copy.peak if rate is None else rate / copy.optimiser.param_groups[-1]["initial_lr"]
    began, score, loss, done = time.perf_counter(), 0.0, math.nan, 0
    asked = copy.rate if rate is None else rate
    for done in range(1, updates + 1):
        try:
            copy.update(bench.first, done, multiplier)
            if done % EVERY == 0 or done == updates:
                score, loss = scored(bench, copy)
        except Diverged:
            return Attempt(asked, done, 0.0, math.nan, passed=False)
        if score >= enough:
            break
        if time.perf_counter() - began > seconds:
            score, loss = scored(bench, copy)
            return Attempt(asked, done, score, loss, passed=score >= enough, cut=score < enough)
    return Attempt(asked, done, score, loss, passed=score >= enough)


def scored(bench: Bench, copy) -> tuple[float, float]:
    """(share right or R², the configured loss) on the batch, with the norms as they train."""
    copy.model.train()
    outputs, y = copy.outputs(bench.first), bench.y
    loss = float(copy.training.loss(outputs, y))
    if bench.spec.task == "classification":
        return float((outputs.argmax(1) == y).float().mean()), loss
    rest, whole = (outputs - y).square().mean(), (y - y.mean(0)).square().mean()
    return (float(1 - rest / whole) if whole > 0 else 1.0), loss


def overfit(bench: Bench, *, updates: int, seconds: float, enough: float, rates: list[float]) -> Finding | None:
    """Learn the first batch by heart: at the planned rate, then at others, so that the rate is not what is judged."""
    if bench.network.rate <= 0 or len(bench.y) < 2:
        return None
    size, least = len(bench.y), floor(bench)
    name = "of the batch right" if bench.spec.task == "classification" else "of the variance explained"
    tried: list[Attempt] = []
    for factor in (None, *rates):
        tried.append(attempt(bench, None if factor is None else bench.network.rate * factor, updates, seconds / (1 + len(rates)), enough))
        if tried[-1].passed:
            break
    best = max(tried, key=lambda one: one.score)
    evidence = {
        "samples": size, "updates": best.updates, "score": best.score, "loss": best.loss, "floor": least, "rate": best.rate,
        "tried": [[one.rate, one.updates, one.score] for one in tried],
    }  # fmt: skip
    source = "S0, S2, S3: overfit one batch"
    if tried[0].passed:
        low = f" (its floor is {least:.3g})" if least else ""
        return Finding("ok", f"learns {size} samples by heart in {best.updates} updates, to a loss of {best.loss:.3g}{low}", evidence, source=source)
    if best.passed:
        return Finding(
            "info", f"learns {size} samples by heart in {best.updates} updates at a rate of {best.rate:.2g}, but not at {tried[0].rate:.2g}",
            evidence, advice=(f"try optimiser.lr={best.rate:.2g}",), source=source, symptom=True,
        )  # fmt: skip
    said = f"{max(best.score, 0):.0%} {name}, a loss of {best.loss:.3g}"
    if any(one.cut for one in tried):
        return Finding("info", f"undecided: in the time there was, {best.updates} updates on one batch gave {said}", evidence, source=source, symptom=True)
    return Finding(
        "warn", f"cannot learn {size} samples by heart: after {best.updates} updates {said}", evidence,
        cause="the network, the loss or the step stands in the way of learning", advice=("look at the other findings first",
        "check that inputs and labels belong together", "more width, or fewer constraints"), source=source, symptom=True,
    )  # fmt: skip
