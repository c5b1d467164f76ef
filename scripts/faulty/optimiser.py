"""Optimisers that go wrong: called as ours are, with the options of optimiser=adamw."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer

from plumbline.optimisers import adam


def of_the_head_only(model: nn.Module, **options: Any) -> Optimizer:
    """The optimiser was given model.head.parameters(): everything else keeps its first weights."""
    return adam(model.head, **options)
