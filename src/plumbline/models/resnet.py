"""A residual network for small images."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from typing import Annotated

from torch import Tensor, nn

from plumbline.data.core import Spec
from plumbline.models import blocks as layers
from plumbline.models.blocks import Activation, Norm, need_image
from plumbline.ranges import Depth, Items, Size


class ResNet(nn.Module):
    """A stem, stages of residual blocks, each at half the size of the one before, a mean over positions, a linear head.

    channels: of each stage; blocks: their number in a stage. [16, 32, 64] with n blocks is the network of 6n + 2 layers
    of He et al. 2015, section 4.2, with a 1x1 convolution as shortcut where the shape changes.
    preactivation: norm and activation before each convolution (He et al. 2016) instead of after it.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        channels: Annotated[list[Size], Items(least=1)],
        blocks: Depth,
        preactivation: bool,
        norm: Norm,
        activation: Activation,
    ):
        super().__init__()
        need_image("resnet", spec)
        block = PreactivationBlock if preactivation else Block
        stem = conv(3, spec.shape[0], channels[0], 1, norm)
        self.stem = stem if preactivation else nn.Sequential(stem, *settle(channels[0], norm, activation))
        self.stages = nn.Sequential()
        for inputs, outputs in pairwise([channels[0], *channels]):
            stride = 2 if len(self.stages) else 1
            first = block(inputs, outputs, stride, norm, activation)
            self.stages.append(
                nn.Sequential(first, *(block(outputs, outputs, 1, norm, activation) for _ in range(blocks - 1)))
            )
        self.last = nn.Sequential(*settle(channels[-1], norm, activation)) if preactivation else nn.Identity()
        self.head = nn.Linear(channels[-1], spec.outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)  # (B, channels[0], H, W)
        x = self.stages(x)  # (B, channels[-1], H / 2^(stages - 1), W / 2^(stages - 1))
        x = self.last(x)
        return self.head(x.mean(dim=(2, 3)))  # (B, outputs)


class Block(nn.Module):
    """activation(shortcut(x) + branch(x)); the branch starts at zero, so depth is free at first (Goyal et al. 2017)."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm, activation: Activation):
        super().__init__()
        self.branch = nn.Sequential(
            OrderedDict(
                conv1=conv(3, inputs, outputs, stride, norm),
                norm1=layers.norm(norm, outputs, dims=2),
                activation1=layers.activation(activation),
                conv2=conv(3, outputs, outputs, 1, norm),
                norm2=layers.norm(norm, outputs, dims=2),
            )
        )
        self.shortcut = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(conv(1, inputs, outputs, stride, norm), layers.norm(norm, outputs, dims=2))
        self.activation = layers.activation(activation)
        scaled = hasattr(self.branch.norm2, "weight")
        start_at_zero(self.branch.norm2 if scaled else self.branch.conv2)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.shortcut(x) + self.branch(x))


class PreactivationBlock(nn.Module):
    """shortcut(x) + branch(x), where the branch starts at zero.

    Its last convolution is what starts there, not its last norm: a relu stands between the two, whose slope at zero is
    zero, so that a norm that starts at zero would stay there for ever.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm, activation: Activation):
        super().__init__()
        self.branch = nn.Sequential(
            OrderedDict(
                norm1=layers.norm(norm, inputs, dims=2),
                activation1=layers.activation(activation),
                conv1=conv(3, inputs, outputs, stride, norm),
                norm2=layers.norm(norm, outputs, dims=2),
                activation2=layers.activation(activation),
                conv2=conv(3, outputs, outputs, 1, norm),
            )
        )
        self.shortcut = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = conv(1, inputs, outputs, stride, norm)
        start_at_zero(self.branch.conv2)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.branch(x)


def conv(kernel: int, inputs: int, outputs: int, stride: int, norm: Norm) -> nn.Conv2d:
    """(B, inputs, H, W) -> (B, outputs, ceil(H / stride), ceil(W / stride)), for an odd kernel."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=layers.takes_bias(norm))


def settle(channels: int, norm: Norm, activation: Activation) -> tuple[nn.Module, nn.Module]:
    """The norm and the activation at an end of the trunk."""
    return layers.norm(norm, channels, dims=2), layers.activation(activation)


def start_at_zero(layer: nn.Module) -> None:
    """Let a layer yield zero until it has learnt; `init` keeps weights that a constructor left at zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
