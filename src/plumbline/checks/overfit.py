"""A network that cannot learn one batch by heart will not learn the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch

from plumbline import tasks
from plumbline.checks.bench import Bench, Copy
from plumbline.checks.core import Finding
from plumbline.loop import Batch, Diverged
from plumbline.losses import Loss, one_hot
from plumbline.ranges import Items, Positive, Range, Share

EVERY = 5  # updates between two looks


@dataclass
class Attempt:
    """What became of learning one batch by heart at one rate."""

    rate: float
    updates: int
    score: float  # the share that is right, or the share of the variance that is explained
    loss: float
    scored: bool  # the score is good enough
    passed: bool  # and the loss went most of its way to the floor


def few(bench: Bench, samples: int) -> list[Batch]:
    """The batches of the first update, of so many samples together."""
    each = max(samples // len(bench.first), 2)
    return [(x[:each], y[:each]) for x, y in bench.first]


def floor(bench: Bench, batches: list[Batch]) -> float | None:
    """The lowest loss that there is: the entropy of the smoothed labels, where they are smoothed; else zero."""
    training = bench.network.training
    if not isinstance(training.loss, Loss):
        return None
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    for regulariser in training.regularisers:
        _, y = regulariser.batch(x, y, training.generator)
    if bench.spec.task != "classification" or not y.is_floating_point():
        return 0.0
    if training.loss.expected_first is None or abs(training.loss.expected_first - math.log(bench.spec.outputs)) > 1e-6:
        return None
    return float(training.loss(one_hot(y, bench.spec.outputs, torch.float32).clamp(min=1e-12).log(), y))


def attempt(
    bench: Bench, batches: list[Batch], rate: float | None, updates: int, enough: float, goal: float
) -> Attempt:
    """Up to so many updates on the batches, without anything that is drawn at random; goal: the loss to get below."""
    copy = bench.fresh(quiet=True)
    multiplier = copy.peak if rate is None else rate / copy.optimiser.param_groups[-1]["initial_lr"]
    score, loss, done = 0.0, math.nan, 0
    asked = copy.rate if rate is None else rate
    for done in range(1, updates + 1):
        try:
            copy.update(batches, done, multiplier)
            if done % EVERY == 0 or done == updates:
                score, loss = scored(bench, copy, batches)
        except Diverged:
            return Attempt(asked, done, 0.0, math.nan, scored=False, passed=False)
        if score >= enough and loss <= goal:
            break
    return Attempt(asked, done, score, loss, score >= enough, passed=score >= enough and loss <= goal)


def scored(bench: Bench, copy: Copy, batches: list[Batch]) -> tuple[float, float]:
    """(share right, Dice or R², the configured loss) on the batches, with the norms as they train."""
    copy.model.train()
    outputs, y = copy.outputs(batches), torch.cat([y for _, y in batches])
    loss = float(copy.training.loss(outputs, y))
    if bench.spec.task == "classification":
        return float((outputs.argmax(1) == y).float().mean()), loss
    if bench.spec.task == "segmentation":
        return tasks.score(bench.spec, outputs, y, None)["dice"], loss
    rest, whole = (outputs - y).square().mean(), (y - y.mean(0)).square().mean()
    return (float(1 - rest / whole) if whole > 0 else 1.0), loss


def overfit(
    bench: Bench,
    *,
    samples: Annotated[int, Range("[1, 10000000]")],
    updates: Annotated[int, Range("[1, 100000]")],
    seconds: Positive,
    enough: Share,
    way: Share,
    rates: Annotated[list[Positive], Items(least=1)],
) -> Finding | None:
    """Learn a few samples by heart: at the planned rate, then at others, so that the rate is not what is judged.

    Where the floor of the loss is known, being right is not enough: the loss must go so much of its way down to it.
    """
    rate, batches, tried = bench.network.rate, few(bench, samples), list[Attempt]()
    size = sum(len(y) for _, y in batches)
    if rate <= 0 or size < 2:
        return None
    if (word := bench.left_out(updates // 20)) is not None:
        return word
    least, goal = floor(bench, batches), math.inf
    if least is not None:
        _, before = scored(bench, bench.fresh(quiet=True), batches)
        goal = before - way * (before - least) if before > least else math.inf
    afforded = bench.affordable(seconds / (1 + len(rates)), updates, min(EVERY, updates))
    for factor in (1.0, *rates):
        tried.append(attempt(bench, batches, None if factor == 1 else rate * factor, afforded, enough, goal))
        if tried[-1].passed:
            break
    return verdict(bench, tried, size, least, cut=afforded < updates)


def verdict(bench: Bench, tried: list[Attempt], size: int, least: float | None, cut: bool) -> Finding:
    """What the attempts say; one that passed is enough."""
    best = max(tried, key=lambda one: (one.passed, one.score))
    evidence = {
        "samples": size, "updates": best.updates, "score": best.score, "loss": best.loss, "floor": least, "rate": best.rate,
        "tried": [[one.rate, one.updates, one.score] for one in tried],
    }  # fmt: skip
    source = "S0, S2, S3: overfit one batch"
    if best.passed:
        low = f" (its floor is {least:.3g})" if least else ""
        said = f"learns {size} samples by heart in {best.updates} updates, to a loss of {best.loss:.3g}{low}"
        if not tried[0].passed:
            said += f", at a rate of {best.rate:.2g}; at {tried[0].rate:.2g} it did not in {tried[0].updates}"
        return Finding("ok" if tried[0].passed else "info", said, evidence, source=source, symptom=not tried[0].passed)
    if best.scored and not cut:
        return Finding(
            "warn", f"learns {size} samples by heart, but the loss stays at {best.loss:.3g}: its floor is {least:.3g}", evidence,
            cause="something between the last layer and the loss, or in the loss, keeps it up: a softmax, a clamp, a constant",
            advice=("return raw outputs (logits) to a loss that takes them", "look at what is added to the loss"),
            source=source, symptom=True,
        )  # fmt: skip
    others = "of their variance explained"
    name = {"classification": "of them right", "segmentation": "of their masks painted"}.get(bench.spec.task, others)
    said = f"after {best.updates} updates {max(best.score, 0):.0%} {name}, a loss of {best.loss:.3g}"
    trained = sum(parameter.numel() for parameter in bench.network.model.parameters() if parameter.requires_grad)
    if cut or trained < size * bench.spec.outputs:
        why = "too little time" if trained >= size * bench.spec.outputs else "too few parameters"
        return Finding("info", f"{why} to learn {size} samples by heart: {said}", evidence, source=source, symptom=True)
    return Finding(
        "warn", f"cannot learn {size} samples by heart: {said}", evidence,
        cause="the network, the loss or the step stands in the way of learning", advice=("look at the other findings first",
        "check that inputs and labels belong together", "more width, or fewer constraints"), source=source, symptom=True,
    )  # fmt: skip
