"""Checks of the loss, before it is trained on: does it compare each output with its own target, and count every class?"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from plumbline.checks.bench import Bench
from plumbline.checks.core import Finding
from plumbline.checks.outputs import wants_probabilities
from plumbline.checks.trial import elsewhere
from plumbline.loop import predict
from plumbline.losses import one_hot
from plumbline.ranges import NonNegative, Share

MOST_CLASSES = 1000


def made_up(bench: Bench, samples: int) -> tuple[Tensor, Tensor]:
    """Random outputs and targets of the task."""
    draws, spec = torch.Generator().manual_seed(0), bench.spec
    outputs = torch.randn(samples, spec.outputs, generator=draws)
    if spec.task == "classification":
        y = torch.randint(spec.outputs, (samples,), generator=draws)
    else:
        y = torch.randn(samples, spec.outputs, generator=draws)
        y = (y > 0).float() if spec.task == "segmentation" else y
    return outputs.to(bench.where), y.to(bench.where)


def class_ignored(bench: Bench, *, share: Share) -> Finding | None:
    """Whether the loss pulls at the samples of every class: rare classes may be weighed up, none weighed away."""
    spec, loss = bench.spec, bench.network.training.loss
    if spec.task != "classification" or not 2 <= spec.outputs <= MOST_CLASSES:
        return None
    y = torch.arange(spec.outputs, device=bench.where).repeat(8)
    noise = torch.randn(len(y), spec.outputs, generator=torch.Generator().manual_seed(0)).to(bench.where)
    outputs = (
        3 * one_hot(y, spec.outputs, torch.float32) + 0.1 * noise
    )  # nearly right: a loss with an upper end pulls there
    with torch.enable_grad():
        outputs.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(outputs, y), outputs)
    pull = gradient.norm(dim=1).view(8, -1).mean(0).cpu()
    if not pull.isfinite().all() or not pull.any():
        return None
    balanced = pull * bench.prior.cpu().clamp_min(1e-12)  # what all samples of a class pull together
    least = torch.maximum(pull / pull.max(), balanced / balanced.max())
    ignored = [at for at, value in enumerate(least.tolist()) if value < share and bench.prior[at] > 0]
    evidence = {"pull": (pull / pull.max()).tolist(), "ignored": ignored}
    if not ignored:
        return Finding("ok", "the loss counts the samples of every class", evidence)
    names = ", ".join(str(spec.classes[at]) if spec.classes else str(at) for at in ignored[:5])
    return Finding(
        "fail", f"the loss hardly counts the samples of {len(ignored)} of {spec.outputs} classes: {names}"
        f"{' …' if len(ignored) > 5 else ''}", evidence,
        cause="class weights of zero, or far out of proportion", advice=("weights of 1 / frequency, or none",),
        source="S0: an imbalanced loss predicts the classes that count",
    )  # fmt: skip


def shape_broadcast(bench: Bench, *, share: Share, most: Share) -> Finding | None:
    """Whether the loss compares each output with its own target: with shuffled targets it must be another number.

    It is asked of random outputs and of right ones: of those, a loss that is cut off above still tells.
    """
    loss = bench.network.training.loss
    outputs, y = made_up(bench, 32)
    right = y.float() if y.is_floating_point() else 10 * one_hot(y, bench.spec.outputs, torch.float32)
    if float(loss(outputs.flip(0), y)) == float(loss(3 * outputs, y)) == float(loss(right, y)):
        return None  # it does not look at the outputs either
    answers = [paired(loss, answer, y, bench.spec.outputs) for answer in (outputs, right)]
    (value, change, unseen), *_ = answers
    evidence = {"paired": value, "change": change, "unseen": unseen}
    if not math.isfinite(value):
        return None
    if any(change > share and unseen < most for _, change, unseen in answers):
        return Finding("ok", "the loss compares each output with its own target", evidence)
    broadcast = "broadcast to (B, B): each output is compared with every target"
    return Finding(
        "fail",
        f"the loss is {value:.4g} whether the targets belong to the outputs or are shuffled"
        if change <= share
        else f"the loss is {value:.4g} whatever the targets of all samples but one",
        evidence,
        cause=f"outputs (B, 1) against targets (B,) are {broadcast}"
        if change <= share
        else "one target is broadcast to all outputs",
        advice=(
            "give both the same shape: y.view_as(outputs)",
            "or take the task's own loss, which refuses such shapes",
        ),
        source="S1: its own example has this fault",
    )


def paired(loss: Callable[..., Tensor], outputs: Tensor, y: Tensor, classes: int) -> tuple[float, float, float]:
    """(loss, the share of it by which shuffled targets change it, the share of samples whose target does not matter)."""
    value = float(loss(outputs, y))
    shuffled = [float(loss(outputs, y.roll(shift, 0))) for shift in (1, 2, 3)]
    change = max(abs(other - value) for other in shuffled) / max(abs(value), 1e-12)
    others = [float(loss(outputs, elsewhere(y, sample, classes))) for sample in range(0, len(y), 4)]
    return value, change, sum(other == value for other in others) / len(others)


def loss_scale(bench: Bench, *, factor: NonNegative) -> Finding | None:
    """Whether the loss is a mean: the same samples twice must not cost twice as much."""
    loss = bench.network.training.loss
    outputs, y = made_up(bench, 32)
    once, twice = float(loss(outputs, y)), float(loss(torch.cat([outputs, outputs]), torch.cat([y, y])))
    if not once or not math.isfinite(twice):
        return None
    ratio = twice / once
    if ratio < factor:
        return Finding("ok", "the loss does not depend on the size of the batch", {"ratio": ratio})
    return Finding(
        "warn",
        f"twice the batch costs {ratio:.3g} times as much: the loss is a sum over the batch",
        {"ratio": ratio},
        cause="reduction='sum', so that the learning rate depends on the batch size and the last batch counts less",
        advice=("take the mean over the batch",),
        source="S2: the first loss is ln(classes) whatever the batch size",
    )


def first_loss(bench: Bench, *, within: NonNegative) -> Finding | None:
    """The loss before the first update against that of an uninformed output: ln C, or the entropy of the classes."""
    copy, train = bench.network, bench.data.train
    loss, known = copy.training.loss, bench.prior.to(bench.where)
    if getattr(loss, "expected_first", 0.0) is None:
        return None  # the loss has no such number
    part = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[
        : min(bench.cfg.train_eval, 2 * bench.batch_size)
    ]
    with copy.buffers_kept():
        outputs, y = predict(copy.model, train, bench.batch_size, copy.training.autocast, part)
    copy.model.train()
    measured = float(loss(outputs, y))
    flat, power = torch.zeros_like(outputs), 1.0
    if bench.spec.task in ("regression", "reconstruction"):
        expected, power = (
            [float(loss(flat + known, y))],
            0.5,
        )  # the mean of the targets, wherever it lies; squares are compared by root
    elif bench.spec.task == "segmentation":
        expected = [float(loss(flat, y)), float(loss(flat + known.clamp(1e-6, 1 - 1e-6).logit(), y))]
    elif wants_probabilities(bench):
        expected = [float(loss(flat + 1 / bench.spec.outputs, y)), float(loss(flat + known, y))]
    else:
        expected = [float(loss(flat, y)), float(loss(flat + known.clamp(min=1e-6).log(), y))]
    low, high = min(expected), max(expected)
    if bench.spec.task == "classification" and high < 0:
        return Finding(
            "warn", f"the loss of knowing nothing is negative: {high:.4g}", {"expected": high},
            cause="the logarithm of a log-likelihood is missing, or the sign of the loss is wrong",
            advice=("cross-entropy is -log p; nll_loss wants log_softmax",), source="S2: scrutinise the loss",
        )  # fmt: skip
    if getattr(loss, "expected_first", None) is not None and bench.spec.task == "classification":
        high = loss.expected_first
    if not math.isfinite(low) or high <= 0:
        return None
    evidence = {"measured": measured, "expected": high, "lowest": low}
    said = f"the first loss is {measured:.4g}, where knowing nothing gives {high:.4g}"
    if low / within ** (1 / power) < measured < high * within ** (1 / power):
        return Finding("ok", said, evidence)
    return Finding(
        "warn",
        said,
        evidence,
        cause="the initial outputs are too large, or the loss is not the one that was meant",
        advice=(
            "a smaller last layer: init.head_std=0.01",
            "look at the initialisation and at the scale of the inputs",
        ),
        source="S2: classification starts at ln(classes)",
    )
