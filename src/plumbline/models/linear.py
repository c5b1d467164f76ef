"""The model to beat before any other is worth its time."""

from __future__ import annotations

from math import prod

from torch import Tensor, nn

from plumbline.data.core import Spec


class Linear(nn.Module):
    """Softmax regression of classes, linear regression of numbers, on the flattened input."""

    def __init__(self, spec: Spec):
        super().__init__()
        self.head = nn.Linear(prod(spec.shape), spec.outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1))  # (B, outputs)
