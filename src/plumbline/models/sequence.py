"""Networks for sequences (T, D): convolutions, a recurrent one, a small Transformer. An image is read row by row."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from typing import Annotated

import torch
from torch import Tensor, nn

from plumbline.config import ConfigError
from plumbline.data.core import Spec
from plumbline.models.blocks import Activation, Norm, activation, dense, norm, takes_bias
from plumbline.ranges import Depth, Range, Size


class CNN1D(nn.Module):
    """Same-padded convolutions over the steps, each halved by a max pool of two, then dense layers: `CNN` in one dimension."""

    def __init__(
        self,
        spec: Spec,
        *,
        channels: list[Size],
        kernel: Annotated[int, Range("[1, 255]")],
        hidden: list[Size],
        norm: Norm,
        activation: Activation,
    ):
        super().__init__()
        length, inputs = steps("cnn1d", spec)
        if not length >> len(channels):
            raise ConfigError(
                f"model.channels={channels}: {len(channels)} poolings leave nothing of {length} steps; "
                f"give at most {length.bit_length() - 1} channels, or longer sequences"
            )
        maps = [inputs, *channels]
        self.features = nn.Sequential(*(halved(*pair, kernel, norm, activation) for pair in pairwise(maps)))
        widths = [maps[-1] * (length >> len(channels)), *hidden]
        self.hidden = nn.Sequential(
            *(dense(*pair, norm_name=norm, activation_name=activation) for pair in pairwise(widths))
        )
        self.head = nn.Linear(widths[-1], spec.outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(rows(x).transpose(1, 2))  # (B, channels[-1], T / 2^n)
        x = self.hidden(x.flatten(1))  # (B, hidden[-1])
        return self.head(x)  # (B, outputs)


def halved(inputs: int, outputs: int, kernel: int, norm_name: Norm, activation_name: Activation) -> nn.Sequential:
    """(B, inputs, T) -> (B, outputs, T // 2): convolution, norm, activation, pool."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv1d(inputs, outputs, kernel, padding="same", bias=takes_bias(norm_name)),
            norm=norm(norm_name, outputs, dims=1),
            activation=activation(activation_name),
            pool=nn.MaxPool1d(2),
        )
    )


class LSTM(nn.Module):
    """Recurrent layers that remember (Hochreiter and Schmidhuber 1997); the last step's state is what is judged."""

    def __init__(self, spec: Spec, *, width: Size, layers: Depth):
        super().__init__()
        _, inputs = steps("lstm", spec)
        self.recurrent = nn.LSTM(inputs, width, layers, batch_first=True)
        self.head = nn.Linear(width, spec.outputs)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.recurrent(rows(x))  # (B, T, width)
        return self.head(states[:, -1])  # (B, outputs)


class Transformer(nn.Module):
    """Steps that attend to one another, norms first, the mean judged; positions start as waves (Vaswani et al. 2017)."""

    def __init__(self, spec: Spec, *, width: Size, layers: Depth, heads: Size, activation: Activation):
        super().__init__()
        if width % heads:
            raise ConfigError(f"model.heads={heads}: must divide model.width={width}")
        length, inputs = steps("transformer", spec)
        self.embed = nn.Linear(inputs, width)
        self.position = nn.Parameter(waves(length, width))
        self.blocks = nn.Sequential(*(Attending(width, heads, activation) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, spec.outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(rows(x)) + self.position  # (B, T, width)
        x = self.norm(self.blocks(x))
        return self.head(x.mean(1))  # (B, outputs)


class Attending(nn.Module):
    """x + attention(norm(x)), then x + dense(norm(x)): (B, T, width) -> (B, T, width)."""

    def __init__(self, width: int, heads: int, activation_name: Activation):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.asked = nn.Linear(width, 3 * width)  # queries, keys, values
        self.told = nn.Linear(width, width)
        self.dense = nn.Sequential(
            nn.Linear(width, 4 * width), activation(activation_name), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = self.asked(self.norm1(x)).unflatten(2, (3, self.heads, -1))  # (B, T, 3, heads, width / heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each (B, heads, T, width / heads)
        told = nn.functional.scaled_dot_product_attention(query, key, value)
        x = x + self.told(told.transpose(1, 2).flatten(2))
        return x + self.dense(self.norm2(x))


def waves(length: int, width: int) -> Tensor:
    """Positions (T, width) as sines and cosines: near ones are alike, and a distance is the same turn everywhere."""
    turns = torch.arange(length)[:, None] / 10000 ** (torch.arange(0, width, 2) / width)
    return torch.stack([turns.sin(), turns.cos()], 2).flatten(1)[:, :width]


def rows(x: Tensor) -> Tensor:
    """(B, T, D) as it is; images (B, C, H, W) as H steps of C * W numbers."""
    return x if x.dim() == 3 else x.transpose(1, 2).flatten(2)


def steps(option: str, spec: Spec) -> tuple[int, int]:
    """(T, D) of one input, or ConfigError: a table has no order."""
    if len(spec.shape) == 2:
        return spec.shape[0], spec.shape[1]
    if len(spec.shape) == 3:
        channels, height, width = spec.shape
        return height, channels * width
    raise ConfigError(
        f"model={option}: needs sequences (T, D) or images (C, H, W), but one input of these data has shape "
        f"{spec.shape}; choose model=mlp, or data with an order"
    )
