"""A plain convolutional network."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from typing import Annotated, Literal

from torch import Tensor, nn

from plumbline.config import ConfigError
from plumbline.data.core import Spec
from plumbline.models import blocks
from plumbline.models.blocks import Activation, Norm
from plumbline.ranges import Range, Size

Pool = Literal["last", "first"]


class CNN(nn.Module):
    """Same-padded convolutions, each halved by a 2x2 max pool, then dense layers: LeNet's plan (LeCun et al. 1998).

    pool=first: the pool comes before norm and activation, which then have a quarter of the work. With an activation that
    only rises and no norm, it is the same network. (Page 2019, How to train your ResNet 8: bag of tricks.)
    """

    def __init__(
        self,
        spec: Spec,
        *,
        channels: list[Size],
        kernel: Annotated[int, Range("[1, 255]")],
        hidden: list[Size],
        norm: Norm,
        activation: Activation,
        pool: Pool,
    ):
        super().__init__()
        blocks.need_image("cnn", spec)
        inputs, height, width = spec.shape
        maps = [inputs, *channels]
        self.features = nn.Sequential(*(convolution(*pair, kernel, norm, activation, pool) for pair in pairwise(maps)))
        widths = [maps[-1] * pooled(height, width, channels), *hidden]
        layers = [blocks.dense(*pair, norm_name=norm, activation_name=activation) for pair in pairwise(widths)]
        self.hidden = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], spec.outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)  # (B, channels[-1], H / 2^n, W / 2^n)
        x = self.hidden(x.flatten(1))  # (B, hidden[-1])
        return self.head(x)  # (B, outputs)


def convolution(
    inputs: int, outputs: int, kernel: int, norm: Norm, activation: Activation, pool: Pool
) -> nn.Sequential:
    """(B, inputs, H, W) -> (B, outputs, H // 2, W // 2): convolution, norm, activation, pool; or the pool before both."""
    layers = OrderedDict(
        conv=nn.Conv2d(inputs, outputs, kernel, padding="same", bias=blocks.takes_bias(norm)),
        norm=blocks.norm(norm, outputs, dims=2),
        activation=blocks.activation(activation),
        pool=nn.MaxPool2d(2),
    )
    if pool == "first":
        layers.move_to_end("norm")
        layers.move_to_end("activation")
    return nn.Sequential(layers)


def pooled(height: int, width: int, channels: list[int]) -> int:
    """The number of positions that are left after one halving for each entry of `channels`."""
    positions = (height >> len(channels)) * (width >> len(channels))
    if positions == 0:
        most = min(height, width).bit_length() - 1
        raise ConfigError(
            f"model.channels={channels}: {len(channels)} poolings leave nothing of an image of {height}x{width}; "
            f"give at most {most} channels, or larger images"
        )
    return positions
