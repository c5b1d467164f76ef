"""Checks of where the step goes: downhill, and on a loss that suits the task, without an end of its own."""

from __future__ import annotations

import math
from itertools import product
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F

from plumbline.checks.bench import Bench, Copy
from plumbline.checks.core import Finding
from plumbline.checks.trial import made_anew
from plumbline.loop import Batch, seed_all
from plumbline.losses import one_hot
from plumbline.ranges import NonNegative, Range

DISTANCES = {"squared": F.mse_loss, "absolute": F.l1_loss, "Huber's": F.smooth_l1_loss}
PASSES = 4  # over one batch: a network may say something else each time
SURE = 20.0  # an output that leaves no doubt: exp(-20) is 2e-9


def ascent(
    bench: Bench,
    *,
    updates: Annotated[int, Range("[1, 100000]")],
    movement: NonNegative,
    rise: NonNegative,
    sigmas: NonNegative,
) -> Finding | None:
    """Whether small steps on one batch lower its loss."""
    upside_down = prefers_wrong(bench)
    advice = ("minimise: cross-entropy is -log p",)
    if upside_down:
        good, bad = upside_down
        return Finding(
            "fail",
            f"the loss prefers wrong answers: {good:.4g} for right ones, {bad:.4g} for wrong ones",
            {"right": good, "wrong": bad},
            cause="the sign of the loss is flipped",
            advice=advice,
            source="S2: scrutinise the loss",
        )
    trial = bench.trial
    if not any(trial.moved.values()) or not trial.travelled:
        return None
    if (word := bench.left_out(updates)) is not None:
        return word
    copy = bench.fresh(quiet=True)
    multiplier = copy.peak * min(1.0, movement / trial.travelled)
    batches = softened(copy, bench.first)
    before = losses(copy, batches)
    for number in range(updates):
        copy.update(bench.first, number, multiplier)
    copy.model.train()
    after = losses(copy, batches)
    risen, unsure = after - before, float((after - before).std()) / len(after) ** 0.5
    before, after = float(before.mean()), float(after.mean())
    evidence = {"before": before, "after": after, "updates": updates, "movement": movement}
    if not risen.mean() > rise * abs(before) + sigmas * unsure:
        return Finding(
            "ok", f"{updates} small steps on one batch lower its loss from {before:.6g} to {after:.6g}", evidence
        )
    return Finding(
        "fail",
        f"{updates} small steps on one batch raise its loss from {before:.6g} to {after:.6g}",
        evidence,
        cause="the step goes uphill: the sign of the loss is flipped, or it follows another loss",
        advice=advice,
        source="S2: scrutinise the loss",
    )


def softened(copy: Copy, batches: list[Batch]) -> list[Batch]:
    """The batches with the targets that the step aims at: smoothed labels, where they are smoothed."""
    for regulariser in copy.training.regularisers:
        batches = [(x, regulariser.batch(x, y, copy.training.generator)[1]) for x, y in batches]
    return batches


def losses(copy: Copy, batches: list[Batch]) -> np.ndarray:
    """(passes,) the loss of batches, each pass with a seed of its own: what is dropped in it is dropped in it again."""
    found = []
    for number in range(PASSES):
        seed_all(copy.seed + number, copy.training.generator)
        found.append(copy.loss(batches))
    return np.array(found)


def prefers_wrong(bench: Bench) -> tuple[float, float] | None:
    """(loss of right answers, of wrong ones), if the loss is not lower for the right ones."""
    loss, y = bench.network.training.loss, bench.y
    if bench.spec.task == "classification":
        if bench.spec.outputs < 2:
            return None
        right = SURE * one_hot(y, bench.spec.outputs, torch.float32)
        wrong = SURE * one_hot((y + 1) % bench.spec.outputs, bench.spec.outputs, torch.float32)
        good, bad = float(loss(right, y)), float(loss(wrong, y))
    elif bench.spec.task == "segmentation":
        right = SURE * (2 * y - 1)
        good, bad = float(loss(right, y)), float(loss(-right, y))
    else:
        good, bad = float(loss(y, y)), min(float(loss(y + 3, y)), float(loss(y - 3, y)))
    return (good, bad) if good > bad and math.isfinite(good) else None


def task_loss(bench: Bench, *, close: NonNegative) -> Finding | None:
    """Whether the loss that the step returns is one that suits the task; distances between numbers do not suit classes."""
    if bench.spec.task != "classification" or bench.spec.outputs < 2:
        return None
    still, y = bench.still, bench.y
    returned = still.loss(bench.first)
    outputs = [one.outputs.float() for one in still.copy.passes]
    if not outputs or sum(map(len, outputs)) != len(y) or not math.isfinite(returned):
        return None
    logits, wanted = torch.cat(outputs), one_hot(y, bench.spec.outputs, torch.float32)
    said = {"outputs": logits, "probabilities": logits.softmax(1), "sigmoids": logits.sigmoid()}
    for distance, (error, of) in product(DISTANCES, said.items()):
        value, name = float(DISTANCES[distance](of, wanted)), f"{distance} error of the {error}"
        # the mean over all, the sum over the classes, or the sum over all
        if any(
            abs(value * many - returned) <= close * abs(returned) for many in (1, bench.spec.outputs, logits.numel())
        ):
            return Finding(
                "warn",
                f"the step's loss, {returned:.4g}, is the {name}: made for numbers, not for classes",
                {"loss": returned, "found": name},
                cause="a loss for regression in a classification: confident mistakes get almost no gradient",
                advice=("loss=cross_entropy",),
                source="S3: cross-entropy for classes, squared error for numbers",
            )
    return Finding("ok", "the loss is none for regression", {"loss": returned})


def loss_clipped(bench: Bench, *, factor: NonNegative) -> Finding | None:
    """Whether the loss itself is cut off: where it is, nothing is learned from the worst batches.

    Several batches, wrong in different ways, then cost the same; a loss with an upper end of its own (of probabilities)
    costs of each what share of it is wrong.
    """
    if (word := bench.left_out(6)) is not None:
        return word
    still = bench.still
    tried = [bench.first, *(made_anew(bench, bench.batches(number), number) for number in (1, 2))]
    plain, entered = [], []
    for batches in tried:
        plain.append(still.loss(batches))
        entered.append([one.inputs for one in still.copy.passes])
    if all(map(torch.equal, *entered[:2])):
        return None  # the step does not look at its batches
    large = [still.loss(batches, factor) for batches in tried]
    if not all(map(math.isfinite, plain + large)):
        return None
    evidence = {"plain": plain, "scaled": large}
    stuck = next((losses[0] for losses in (plain, large) if losses[0] != 0 and len(set(losses)) == 1), None)
    if stuck is None:
        return Finding("ok", "the loss has no upper end", evidence)
    return Finding(
        "fail" if len(set(plain)) == 1 else "warn",
        f"the loss is cut off at {stuck:.4g}: worse batches cost the same and get no gradient",
        evidence,
        cause="clamp or min on the loss, where the gradient was to be clipped",
        advice=("clip the gradient instead: grad_clip",),
        source="S3: gradient clipping",
    )


def loss_scale(bench: Bench, *, factor: NonNegative) -> Finding | None:
    """Whether the step follows a mean: the same samples twice must not give twice the loss, or twice the gradient."""
    still, seen = bench.still, []
    for batches in (bench.first, [(torch.cat([x, x]), torch.cat([y, y])) for x, y in bench.first]):
        for parameter in still.copy.model.parameters():
            parameter.grad = None
        seen.append((still.loss(batches), still.gradient()))
    (loss, gradient), (loss_twice, gradient_twice) = seen
    ratios = [
        abs(b / a)
        for a, b in ((loss, loss_twice), (gradient, gradient_twice))
        if a and math.isfinite(a) and math.isfinite(b)
    ]
    if not ratios:
        return None
    if max(ratios) < factor:
        return Finding("ok", "the step does not depend on the size of the batch", {"ratio": max(ratios)})
    return Finding(
        "warn",
        f"twice the batch gives {max(ratios):.3g} times the loss or gradient: the step follows a sum over the batch",
        {"loss": [loss, loss_twice], "gradient": [gradient, gradient_twice]},
        cause="a sum where a mean was meant, so that the learning rate depends on the batch size",
        advice=("divide by the number of samples",),
        source="S2: the first loss is ln(classes) whatever the batch size",
    )
