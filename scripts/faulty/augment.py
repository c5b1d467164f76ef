"""Augmentations that go wrong: called as ours are, (x, generator)."""

from __future__ import annotations

import torch
from torch import Tensor


def noise_for_bytes(x: Tensor, generator: torch.Generator) -> Tensor:
    """Noise of 25 was meant for pixels from 0 to 255; the inputs here have a standard deviation of 1."""
    return x + 25 * torch.randn(x.shape, generator=generator, device=generator.device).to(x.device)


def the_same_every_time(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each call seeds itself anew, as unseeded workers do: sample k of every batch is moved alike, for ever."""
    draws = torch.Generator().manual_seed(0)
    moves = torch.randint(-1, 2, (len(x),), generator=draws).tolist()
    return torch.stack([image.roll(move, -1) for image, move in zip(x, moves, strict=True)])


def rows_shuffled(x: Tensor, generator: torch.Generator) -> Tensor:
    """The batch is put into a new order by an augmentation, and the labels stay where they were."""
    order = torch.randperm(len(x), generator=generator, device=generator.device).to(x.device)
    return x[order]


def nearly_all_erased(x: Tensor, generator: torch.Generator) -> Tensor:
    """Erases 98 % of the inputs: the probability to keep and to erase were exchanged."""
    kept = torch.rand(x.shape, generator=generator, device=generator.device).to(x.device) < 0.02
    return x * kept
