"""A multilayer perceptron."""

from __future__ import annotations

from itertools import pairwise
from math import prod

from torch import Tensor, nn

from plumbline.data.core import Spec
from plumbline.models.blocks import Activation, Norm, dense
from plumbline.ranges import Size


class MLP(nn.Module):
    """Dense layers of the `hidden` widths on the flattened input; with no widths it is the linear model."""

    def __init__(self, spec: Spec, *, hidden: list[Size], norm: Norm, activation: Activation):
        super().__init__()
        widths = [prod(spec.shape), *hidden]
        layers = [dense(*pair, norm_name=norm, activation_name=activation) for pair in pairwise(widths)]
        self.hidden = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], spec.outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.hidden(x.flatten(1))  # (B, widths[-1])
        return self.head(x)  # (B, outputs)
