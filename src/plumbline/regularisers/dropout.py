"""Noise that switches units off: hooks on the inputs of the chosen layers, so that any network can have it.

In evaluation the hooks return at once. Draws come from the global generator, which the loop seeds for each step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plumbline.data.core import Spec
from plumbline.ranges import Decay, Depth, Names
from plumbline.regularisers.core import Regulariser
from plumbline.regularisers.layers import choose, class_name

# called with several tensors, or with whole numbers: `all` and `hidden` do not mean them
UNFIT = (nn.MultiheadAttention, nn.Embedding, nn.EmbeddingBag, nn.Bilinear)


class Dropout(Regulariser):
    """Inputs of the chosen layers are 0 with probability `rate`, others divided by 1 - rate (Srivastava et al. 2014).

    `hidden` layers are all but the first, whose input is the data.
    """

    option = "dropout"

    def __init__(self, spec: Spec, *, rate: Decay, layers: Names) -> None:
        super().__init__(spec)
        self.rate, self.layers = rate, layers

    def attach(self, model: nn.Module) -> None:
        chosen = choose(model, self.layers, option=self.option, leave_out=0)
        fit = [module for module in chosen.values() if not isinstance(module, UNFIT)]
        if not fit:
            raise self.wrong("layers", self.layers, f"the input of these cannot be dropped: {', '.join(chosen)}")
        if self.rate > 0:
            for module in fit:
                module.register_forward_pre_hook(_OnInput(partial(F.dropout, p=self.rate)))


class DropBlock(Regulariser):
    """Squares of `block_size` are dropped from the inputs of convolutions, each channel its own (Ghiasi et al. 2018).

    rate: the share dropped, about. `hidden` layers are all convolutions but the first layer of the network.
    """

    option = "dropblock"

    def __init__(self, spec: Spec, *, rate: Decay, block_size: Depth, layers: Names) -> None:
        super().__init__(spec)
        self.rate, self.block_size, self.layers = rate, block_size, layers

    def attach(self, model: nn.Module) -> None:
        chosen = choose(model, self.layers, option=self.option, leave_out=0)
        convolutions = [module for module in chosen.values() if isinstance(module, nn.Conv2d)]
        if not convolutions:
            found = ", ".join(f"{name} ({class_name(module)})" for name, module in chosen.items())
            raise self.wrong("layers", self.layers, f"names no Conv2d, but {found}; dropout serves those")
        if self.rate > 0:
            for module in convolutions:
                module.register_forward_pre_hook(_OnInput(partial(drop_block, rate=self.rate, size=self.block_size)))


def drop_block(x: Tensor, rate: float, size: int) -> Tensor:
    """x (B, C, H, W) with squares of `size`, wholly inside, set to 0; the rest is scaled so that the mean is kept."""
    height, width = x.shape[-2:]
    size = min(size, height, width)
    corners = (height - size + 1, width - size + 1)  # where a square's first pixel may lie
    probability = rate * height * width / size**2 / (corners[0] * corners[1])
    starts = (torch.rand(*x.shape[:-2], *corners, device=x.device) < probability).float()
    dropped = F.max_pool2d(F.pad(starts, (size - 1,) * 4), size, stride=1)  # (B, C, H, W)
    kept = 1 - dropped
    return x * (kept * (kept.numel() / kept.sum().clamp(min=1))).to(x.dtype)


class _OnInput:
    """A forward pre-hook that changes the first input, in training only."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        self.change = change

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return (self.change(inputs[0]), *inputs[1:]) if module.training else None
