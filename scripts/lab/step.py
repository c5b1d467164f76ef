"""Steps that go wrong: called as ours is, (training, batches), and they return the loss."""

from __future__ import annotations

import torch
from torch import Tensor

from plumbline.loop import Batch, Training, supervised


def missing_zero_grad(training: Training, batches: list[Batch]) -> Tensor:
    """zero_grad is left out: each gradient is added to all those before it."""
    for x, y in batches:
        loss = training.forward(x, y)
        training.backward(loss)
    training.update()
    return loss.detach()


def zero_grad_after_backward(training: Training, batches: list[Batch]) -> Tensor:
    """zero_grad stands between backward and step: there is never a gradient to step along."""
    for x, y in batches:
        loss = training.forward(x, y)
        training.backward(loss)
    training.clear()
    training.update()
    return loss.detach()


def evaluation_mode_stays_on(training: Training, batches: list[Batch]) -> Tensor:
    """A look at the accuracy calls model.eval() and nothing calls model.train() again."""
    loss = supervised(training, batches)
    training.model.eval()
    with torch.no_grad():
        training.model(batches[-1][0]).argmax(1)
    return loss
