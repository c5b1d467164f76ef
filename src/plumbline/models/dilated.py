"""Convolutions that see far without pooling."""

from __future__ import annotations

from collections import OrderedDict
from typing import Annotated

from torch import Tensor, nn

from plumbline.data.core import Spec
from plumbline.models import blocks
from plumbline.models.blocks import Activation, Norm
from plumbline.ranges import Depth, Items, Range, Size


class Dilated(nn.Module):
    """Same-padded convolutions whose taps stand ever further apart, a mean over positions, a head (Yu and Koltun 2016)."""

    def __init__(
        self,
        spec: Spec,
        *,
        channels: Size,
        dilations: Annotated[list[Depth], Items(least=1)],
        kernel: Annotated[int, Range("[1, 255]")],
        norm: Norm,
        activation: Activation,
    ):
        super().__init__()
        blocks.need_image("dilated", spec)

        def layer(inputs: int, dilation: int) -> nn.Sequential:
            return nn.Sequential(
                OrderedDict(
                    conv=nn.Conv2d(
                        inputs, channels, kernel, padding="same", dilation=dilation, bias=blocks.takes_bias(norm)
                    ),
                    norm=blocks.norm(norm, channels, dims=2),
                    activation=blocks.activation(activation),
                )
            )

        inputs = [spec.shape[0], *[channels] * (len(dilations) - 1)]
        self.features = nn.Sequential(*(layer(*pair) for pair in zip(inputs, dilations, strict=True)))
        self.head = nn.Linear(channels, spec.outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)  # (B, channels, H, W)
        return self.head(x.mean(dim=(2, 3)))  # (B, outputs)
