"""Initialisations that go wrong. Each is called as ours are: (model, prior, *, head_std, final_bias)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


@torch.no_grad()
def zeros(model: nn.Module, prior: Tensor | None, **final: Any) -> None:
    """Every weight starts at zero, so all units of a layer are one unit for ever."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.zero_()


@torch.no_grad()
def standard_normal(model: nn.Module, prior: Tensor | None, **final: Any) -> None:
    """Every weight is drawn with a standard deviation of 1, whatever the number of inputs."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.normal_()


@torch.no_grad()
def dead_bias(model: nn.Module, prior: Tensor | None, **final: Any) -> None:
    """The hidden biases start at -20: no unit is ever above zero."""
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1 and name.endswith("bias") and not name.startswith("head"):
            parameter.fill_(-20)
