"""Steps that go wrong: called as ours is, (training, batches), and they return the loss."""

from __future__ import annotations

import copy

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


def update_before_backward(training: Training, batches: list[Batch]) -> Tensor:
    """The optimiser steps before there is a gradient, and the gradient is forgotten before the next step."""
    training.clear()
    for x, y in batches:
        loss = training.forward(x, y)
    training.update()
    training.backward(loss)
    return loss.detach()


def trains_a_copy(training: Training, batches: list[Batch]) -> Tensor:
    """The network was copied for safety, and it is the copy that learns."""
    network, training.model = training.model, copy.deepcopy(training.model)
    try:
        return supervised(training, batches)
    finally:
        training.model = network


def uphill(training: Training, batches: list[Batch]) -> Tensor:
    """The gradient of minus the loss is taken; the loss that is shown has the right sign."""
    training.clear()
    for x, y in batches:
        loss = training.forward(x, y)
        training.backward(-loss)
    training.update()
    return loss.detach()


def targets_shuffled(training: Training, batches: list[Batch]) -> Tensor:
    """The inputs of a batch are put into a new order, and its targets are not."""
    return supervised(training, [(x[torch.randperm(len(x))], y) for x, y in batches])


def first_sample_only(training: Training, batches: list[Batch]) -> Tensor:
    """x[:2] from a try at overfitting is still there: of each batch two samples are used."""
    return supervised(training, [(x[:2], y[:2]) for x, y in batches])


def every_weight_shaken(training: Training, batches: list[Batch]) -> Tensor:
    """Noise that was to be added to the gradients is added to the weights, and undoes what was learned."""
    loss = supervised(training, batches)
    with torch.no_grad():
        for parameter in training.model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return loss


def head_only(training: Training, batches: list[Batch]) -> Tensor:
    """The gradients of the earlier layers are set to zero: a freeze that was meant for the first epoch."""
    training.clear()
    for x, y in batches:
        loss = training.forward(x, y)
        training.backward(loss)
    for parameter in list(training.model.parameters())[:-2]:
        parameter.grad = None
    training.update()
    return loss.detach()


def seeded_anew(training: Training, batches: list[Batch]) -> Tensor:
    """A manual_seed from the hunt for a bug is still there: each update drops the same units."""
    torch.manual_seed(0)
    return supervised(training, batches)


def one_batch_late(training: Training, batches: list[Batch]) -> Tensor:
    """The targets of the batch before: a queue that is one behind."""
    targets = [y for _, y in batches]
    held = getattr(training, "held", targets)
    training.held = targets
    late = zip(batches, held, strict=False)
    return supervised(training, [(x, old if old.shape == y.shape else y) for (x, y), old in late])
