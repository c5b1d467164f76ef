"""Losses that go wrong: `loss(spec)` gives a function of (logits, y, reduction), as ours do."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from plumbline.data import Spec
from plumbline.losses import Reduction, task

Function = Callable[..., Tensor]


def sign_flipped(spec: Spec) -> Function:
    """The loss carries a minus: the score that was to be maximised had been negated already."""
    usual = task(spec)
    return lambda logits, y, reduction="mean": -usual(logits, y, reduction)


def summed(spec: Spec) -> Function:
    """The losses of a batch are summed, so the step grows with the batch."""
    usual = task(spec)

    def loss(logits: Tensor, y: Tensor, reduction: Reduction = "mean") -> Tensor:
        each = usual(logits, y, "none")
        return each.sum() if reduction == "mean" else each

    return loss


def negative_log_of_outputs(spec: Spec) -> Function:
    """Not a mistake by itself: the log-likelihood of a network whose outputs are probabilities."""
    return lambda p, y, reduction="mean": F.nll_loss(p.clamp_min(1e-12).log(), y, reduction=reduction)


def broadcast(spec: Spec) -> Function:
    """The targets lost an axis: (B, 1) minus (B,) is (B, B), every output against every target."""

    def loss(outputs: Tensor, y: Tensor, reduction: Reduction = "mean") -> Tensor:
        squares = (outputs - y.squeeze(1)).square()  # (B, B)
        return squares.mean() if reduction == "mean" else squares.mean(1)

    return loss


def clipped(spec: Spec) -> Function:
    """The loss is clipped where the gradient was meant: what is most wrong teaches nothing."""
    usual = task(spec)

    def loss(logits: Tensor, y: Tensor, reduction: Reduction = "mean") -> Tensor:
        each = usual(logits, y, "none").clamp(max=1.0)
        return each.mean() if reduction == "mean" else each

    return loss


def of_the_mean(spec: Spec) -> Function:
    """The average over the batch is taken before the loss, not after: only the mean output is ever right."""
    usual = task(spec)

    def loss(outputs: Tensor, y: Tensor, reduction: Reduction = "mean") -> Tensor:
        if reduction == "none":
            return usual(outputs, y, "none")
        return usual(outputs.mean(0, keepdim=True), y.mean(0, keepdim=True), "mean")

    return loss


def weighted_towards_the_first(spec: Spec) -> Function:
    """The weights of the classes are those of another data set: all but the first count for nothing."""
    usual = task(spec)

    def loss(logits: Tensor, y: Tensor, reduction: Reduction = "mean") -> Tensor:
        each = usual(logits, y, "none") * (1e-3 + (y == 0) if y.dim() == 1 else 1.0)
        return each.mean() if reduction == "mean" else each

    return loss


def without_logarithm(spec: Spec) -> Function:
    """The negative likelihood without its logarithm: nll_loss of a softmax."""

    def loss(logits: Tensor, y: Tensor, reduction: Reduction = "mean") -> Tensor:
        return F.nll_loss(logits.softmax(1), y, reduction=reduction)

    return loss
