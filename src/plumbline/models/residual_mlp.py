"""A multilayer perceptron that stays trainable when it is deep."""

from __future__ import annotations

from math import prod

from torch import Tensor, nn

from plumbline.data.core import Spec
from plumbline.models.blocks import Activation, Norm, dense
from plumbline.models.resnet import start_at_zero
from plumbline.ranges import Depth, Size


class ResidualMLP(nn.Module):
    """Blocks of two dense layers whose input is added to what they yield (He et al. 2015), all of one width.

    The second layer of each starts at zero, so a fresh network is as easy to train as one of a single hidden layer.
    """

    def __init__(self, spec: Spec, *, width: Size, blocks: Depth, norm: Norm, activation: Activation):
        super().__init__()
        self.stem = dense(prod(spec.shape), width, norm_name=norm, activation_name=activation)
        self.blocks = nn.ModuleList(Block(width, norm, activation) for _ in range(blocks))
        self.head = nn.Linear(width, spec.outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.flatten(1))  # (B, width)
        for block in self.blocks:
            x = block(x)
        return self.head(x)  # (B, outputs)


class Block(nn.Module):
    """x + second(activation(norm(first(x)))): (B, width) -> (B, width), at first the identity."""

    def __init__(self, width: int, norm: Norm, activation: Activation):
        super().__init__()
        self.first = dense(width, width, norm_name=norm, activation_name=activation)
        self.second = nn.Linear(width, width)
        start_at_zero(self.second)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))
