"""How odd each sample is: its distance from its neighbours; of images, how much they show, and how much they are like noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

NEIGHBOURS = 10  # the one whose distance counts: a broken sample may be there so many times, each copy near the others
MOST = 1000  # samples among which neighbours are sought: an outlier is far from any part
ROOM = 2**23  # distances held at a time
OUTER = 0.95  # the share of the samples that lies nearer than what "far out" is measured by
LEAST = math.log(1.05)  # of that distance: among many independent features, all samples are as far apart


@dataclass
class Oddness:
    """Of each sample of train. What is not finite counts as 0."""

    distance: Tensor  # (n,) to the NEIGHBOURS-th neighbour (Ramaswamy, Rastogi and Shim 2000); 1 is usual, the median
    contrast: Tensor | None = None  # (n,) the standard deviation within an image, by channel; 1 is usual
    roughness: Tensor | None = None  # (n,) squared differences of neighbouring pixels: 0 of a flat image, 1 of noise

    @property
    def apart(self) -> Tensor:
        """(n,) log distances, in units of that of the sample beyond which one in twenty lies: so tails can be compared."""
        logs = self.distance.clamp(min=1e-9).log()
        return logs / max(logs.kthvalue(math.ceil(OUTER * len(logs))).values.item(), LEAST)


def oddness(
    batches: Iterable[Tensor], standard: Callable[[Tensor], Tensor], axes: Tensor, some: Tensor, rows: Tensor
) -> Oddness | None:
    """Of the samples in `batches`, among `some` of them: (m, features) as `standard` makes them, whose `rows` are these.

    Distances are measured along the axes; what lies outside them is taken to be at right angles, as noise is: it makes
    a sample odd, and two noisy ones do not hide each other. None: too few samples, or too alike, to say what is usual.
    """
    some, rows = some[:MOST], rows[:MOST]
    if len(some) <= 2 * NEIGHBOURS or not (some != 0).any():
        return None
    distances, looks, start = [], [], 0
    keys, outside = _split(some, axes)
    for x in _few(batches, len(some)):
        queries, beside = _split(standard(x), axes)
        found = torch.cdist(queries, keys).square_().add_(beside[:, None]).add_(outside)
        itself = ((rows >= start) & (rows < start + len(x))).nonzero().flatten()
        found[rows[itself] - start, itself] = torch.inf
        distances.append(found.kthvalue(NEIGHBOURS, dim=1).values.sqrt())
        looks += [_look(x.nan_to_num(0, 0, 0))] if x.dim() == 4 else []
        start += len(x)
    distance = torch.cat(distances)
    if not distance.median() > 0 or not distance.isfinite().all():
        return None
    distance = distance / distance.median()
    if not looks:
        return Oddness(distance)
    contrast, roughness = (torch.cat(part) for part in zip(*looks, strict=True))
    return Oddness(distance, contrast / contrast.median().clamp(min=1e-9), roughness)


def _look(x: Tensor) -> tuple[Tensor, Tensor]:
    """(contrast, roughness) of images (n, C, H, W)."""
    variance = x.flatten(2).var(2, correction=0).mean(1)
    pairs = [step.flatten(1).square().mean(1) for step in (x.diff(dim=2), x.diff(dim=3)) if step.numel()]
    steps = torch.stack(pairs).mean(0) if pairs else torch.zeros(len(x))
    return variance.sqrt(), steps / (2 * variance).clamp(min=1e-12)


def _split(x: Tensor, axes: Tensor) -> tuple[Tensor, Tensor]:
    """(coordinates along the axes, squared length of what lies outside them) of rows."""
    along = x @ axes
    if axes.shape[0] == axes.shape[1]:
        return along, torch.zeros(len(x))
    return along, (x.square().sum(1) - along.square().sum(1)).clamp(min=0)


def _few(batches: Iterable[Tensor], keys: int) -> Iterator[Tensor]:
    for x in batches:
        yield from x.split(max(ROOM // keys, 1))
