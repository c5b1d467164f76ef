"""A network for pairs: one branch for both halves."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn

from plumbline.config import ConfigError
from plumbline.data.core import Spec
from plumbline.models.blocks import Activation, Norm, dense
from plumbline.ranges import Size

MERGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # (B, D), (B, D) -> (B, D), or (B, 2 D)
    "concat": lambda a, b: torch.cat([a, b], 1),
    "difference": lambda a, b: (a - b).abs(),
    "product": lambda a, b: a * b,
}
Merge = Literal[*MERGES]


class Siamese(nn.Module):
    """Each half (2, *shape) of a pair goes through the same dense layers, `hidden` wide, to `embedding` numbers.

    Both embeddings are merged, and dense layers of the `joint` widths judge them (Bromley et al. 1993). The merges
    difference (absolute) and product are symmetric: swapping the halves changes no output. Raises ConfigError.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        hidden: list[Size],
        embedding: Size,
        merge: Merge,
        joint: list[Size],
        norm: Norm,
        activation: Activation,
    ):
        super().__init__()
        if len(spec.shape) < 2 or spec.shape[0] != 2:
            raise ConfigError(
                f"model=siamese: needs pairs, inputs of shape (2, …), but one input of these data has shape {spec.shape}; "
                "choose data=pairs, or model=mlp"
            )
        self.merge = merge
        style = {"norm_name": norm, "activation_name": activation}
        self.branch = branch(prod(spec.shape[1:]), hidden, embedding, norm, activation)
        widths = [2 * embedding if merge == "concat" else embedding, *joint]
        self.joint = nn.Sequential(*(dense(*pair, **style) for pair in pairwise(widths)))
        self.head = nn.Linear(widths[-1], spec.outputs)

    def forward(self, x: Tensor) -> Tensor:
        halves = x.flatten(2).flatten(0, 1)  # (2 B, features): one batch, so that a norm sees both alike
        first, second = self.branch(halves).unflatten(0, (-1, 2)).unbind(1)  # (B, embedding) each
        return self.head(self.joint(MERGES[self.merge](first, second)))  # (B, outputs)


class Branch(nn.Module):
    """One branch of a `Siamese` and a head of its own: what was learnt of pairs serves single items, by `transfer`."""

    def __init__(self, spec: Spec, *, hidden: list[Size], embedding: Size, norm: Norm, activation: Activation):
        super().__init__()
        self.branch = branch(prod(spec.shape), hidden, embedding, norm, activation)
        self.head = nn.Linear(embedding, spec.outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.branch(x.flatten(1)))  # (B, outputs)


def branch(features: int, hidden: list[int], embedding: int, norm: Norm, activation: Activation) -> nn.Sequential:
    """Dense layers from `features` to `embedding` numbers, the last without norm and activation."""
    widths = [features, *hidden]
    layers = [dense(*pair, norm_name=norm, activation_name=activation) for pair in pairwise(widths)]
    return nn.Sequential(*layers, nn.Linear(widths[-1], embedding))
