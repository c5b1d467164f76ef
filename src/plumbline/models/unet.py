"""A network that paints masks."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from typing import Annotated

import torch
from torch import Tensor, nn

from plumbline.config import ConfigError
from plumbline.data.core import Spec
from plumbline.models import blocks
from plumbline.models.blocks import Activation, Norm
from plumbline.ranges import Items, Size


class UNet(nn.Module):
    """Down by pooling, up by transposed convolutions, across by skips (Ronneberger, Fischer and Brox 2015).

    channels: of each level; the last is the bottom. Any size will do: what halving cannot divide is padded, then cut off.
    """

    def __init__(
        self, spec: Spec, *, channels: Annotated[list[Size], Items(least=1)], norm: Norm, activation: Activation
    ):
        super().__init__()
        if not spec.masks:
            raise ConfigError(
                "model=unet: paints masks, and these data ask for none; choose data=shapes, or masks of yours"
            )
        blocks.need_image("unet", spec)
        inputs = [spec.shape[0], *channels]
        self.down = nn.ModuleList(twice(*pair, norm, activation) for pair in pairwise(inputs))
        self.up = nn.ModuleList(nn.ConvTranspose2d(above, below, 2, 2) for below, above in pairwise(channels))
        self.merge = nn.ModuleList(twice(2 * below, below, norm, activation) for below in channels[:-1])
        self.head = nn.Conv2d(channels[0], spec.masks[0], 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        multiple = 2 ** len(self.up)
        x = nn.functional.pad(x, (0, -width % multiple, 0, -height % multiple))
        skips = []
        for down in self.down:
            x = down(nn.functional.max_pool2d(x, 2) if skips else x)
            skips.append(x)
        for up, merge, skip in reversed(list(zip(self.up, self.merge, skips, strict=False))):
            x = merge(torch.cat([skip, up(x)], 1))
        return self.head(x)[:, :, :height, :width].flatten(1)  # (B, masks * H * W)


def twice(inputs: int, outputs: int, norm: Norm, activation: Activation) -> nn.Sequential:
    """(B, inputs, H, W) -> (B, outputs, H, W): two convolutions, each with norm and activation."""
    bias = blocks.takes_bias(norm)
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias),
            norm1=blocks.norm(norm, outputs, dims=2),
            activation1=blocks.activation(activation),
            conv2=nn.Conv2d(outputs, outputs, 3, padding=1, bias=bias),
            norm2=blocks.norm(norm, outputs, dims=2),
            activation2=blocks.activation(activation),
        )
    )
