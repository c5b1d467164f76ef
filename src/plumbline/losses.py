"""Losses, each bound to its data by `spec`: `cross_entropy(spec)(logits, y)` is the mean over the batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from plumbline.config import ConfigError
from plumbline.data.core import Spec
from plumbline.ranges import Positive

Reduction = Literal["mean", "none"]
FITS = {
    "classification": ("cross_entropy", "binary_cross_entropy", "tanh_square", "mse", "l1", "huber"),
    "regression": ("mse", "l1", "huber"),
    "reconstruction": ("mse", "l1", "huber"),
    "segmentation": ("binary_cross_entropy", "dice", "mse", "l1", "huber"),
}


@dataclass(frozen=True)
class Loss:
    """A loss of one task.

    Called with logits (B, outputs) and y, which is (B,) classes, (B, outputs) soft classes or (B, outputs) values.
    Returns a scalar; with reduction="none" the (B,) losses of the samples. Raises ConfigError when the shapes differ.
    expected_first: what an ideal network pays before it has learned anything; None where there is no such number.
    """

    name: str
    spec: Spec
    function: Callable[[Tensor, Tensor, Reduction], Tensor]
    expected_first: float | None

    def __call__(self, logits: Tensor, y: Tensor, reduction: Reduction = "mean") -> Tensor:
        classes = self.spec.task == "classification" and not y.is_floating_point()
        if y.shape != (logits.shape[:1] if classes else logits.shape):
            raise ConfigError(
                f"loss={self.name}: targets of shape {tuple(y.shape)} do not belong to outputs of shape "
                f"{tuple(logits.shape)} (torch might broadcast them in silence); accepted: {tuple(logits.shape)}"
                + (f" values, or {tuple(logits.shape[:1])} whole numbers" if self.spec.task == "classification" else "")
            )
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()  # three digits are too few for a logarithm
        return self.function(logits, y if classes else y.to(logits.dtype), reduction)


def cross_entropy(spec: Spec) -> Loss:
    """-log p(y) of the softmax, in nats."""
    _fit("cross_entropy", spec)
    return Loss("cross_entropy", spec, _cross_entropy, math.log(spec.outputs))


def binary_cross_entropy(spec: Spec) -> Loss:
    """One against the rest: a sigmoid for each class, summed over the classes; or for each pixel, their mean. In nats."""
    _fit("binary_cross_entropy", spec)
    if spec.task == "segmentation":
        return _elementwise("binary_cross_entropy", spec, F.binary_cross_entropy_with_logits, math.log(2))
    return Loss("binary_cross_entropy", spec, _binary_cross_entropy, spec.outputs * math.log(2))


def tanh_square(spec: Spec) -> Loss:
    """Half the squared error of tanh((b - a) / √2) for classes of -1 and 1, whose outputs are a and b (Smilkov et al. 2017).

    They are the Playground's one output and another, that nothing asks for, turned by 45°: SGD does to both networks the same.
    """
    _fit("tanh_square", spec)
    if spec.outputs != 2:
        raise ConfigError(
            f"loss=tanh_square: needs two classes, and these data have {spec.outputs}; try loss=cross_entropy"
        )

    def loss(logits: Tensor, y: Tensor, reduction: Reduction) -> Tensor:
        a, b = logits.unbind(1)
        signs = y[:, 1] - y[:, 0] if y.is_floating_point() else 2 * y - 1
        losses = (torch.tanh((b - a) / math.sqrt(2)) - signs).square() / 2
        return losses.mean() if reduction == "mean" else losses

    return Loss("tanh_square", spec, loss, 0.5)


def dice(spec: Spec) -> Loss:
    """1 - 2 |painted and true| / (|painted| + |true|) of each sample, softly, the mean over its masks.

    One is added above and below, so that an empty mask left empty costs nothing.
    """
    _fit("dice", spec)

    def loss(logits: Tensor, y: Tensor, reduction: Reduction) -> Tensor:
        painted, true = (part.unflatten(1, spec.masks).flatten(2) for part in (logits.sigmoid(), y))
        losses = 1 - ((2 * (painted * true).sum(2) + 1) / ((painted + true).sum(2) + 1)).mean(1)
        return losses.mean() if reduction == "mean" else losses

    return Loss("dice", spec, loss, None)


def mse(spec: Spec) -> Loss:
    """Squared error, the mean over the outputs. Classes are compared with the raw outputs as one-hot vectors."""
    return _elementwise("mse", spec, F.mse_loss, 1.0 if spec.task == "regression" else None)


def l1(spec: Spec) -> Loss:
    """Absolute error, the mean over the outputs: less moved by outliers than the square."""
    return _elementwise("l1", spec, F.l1_loss, None)


def huber(spec: Spec, *, delta: Positive) -> Loss:
    """Half the squared error below `delta`, linear above (Huber 1964), the mean over the outputs."""
    return _elementwise("huber", spec, partial(F.huber_loss, delta=delta), None)


def task(spec: Spec) -> Loss:
    """What the task asks for: cross-entropy for classes and for masks, squared error for numbers."""
    usual = {
        "classification": cross_entropy,
        "regression": mse,
        "reconstruction": mse,
        "segmentation": binary_cross_entropy,
    }
    if spec.task not in usual:
        raise ConfigError(f"loss=task: knows no loss for {spec.task}; accepted tasks: {', '.join(usual)}")
    return usual[spec.task](spec)


def one_hot(y: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """(B,) classes as (B, classes) of 0 and 1; soft ones (B, classes) as they are. No host synchronisation."""
    if y.is_floating_point():
        return y.to(dtype)
    return torch.zeros(len(y), classes, dtype=dtype, device=y.device).scatter_(1, y[:, None], 1.0)


def _fit(name: str, spec: Spec) -> None:
    fitting = (*FITS.get(spec.task, ()), "task")
    if name not in fitting:
        raise ConfigError(f"loss={name}: does not fit {spec.task}; accepted: {', '.join(fitting)}")


def _cross_entropy(logits: Tensor, y: Tensor, reduction: Reduction) -> Tensor:
    return F.cross_entropy(logits, y, reduction=reduction)


def _binary_cross_entropy(logits: Tensor, y: Tensor, reduction: Reduction) -> Tensor:
    y = one_hot(y, logits.shape[1], logits.dtype)
    losses = F.binary_cross_entropy_with_logits(logits, y, reduction="none").sum(1)
    return losses.mean() if reduction == "mean" else losses


def _elementwise(name: str, spec: Spec, function: Callable[..., Tensor], expected_first: float | None) -> Loss:
    _fit(name, spec)

    def loss(logits: Tensor, y: Tensor, reduction: Reduction) -> Tensor:
        y = one_hot(y, logits.shape[1], logits.dtype)
        if reduction == "mean":
            return function(logits, y)
        return function(logits, y, reduction="none").mean(1)

    return Loss(name, spec, loss, expected_first)
