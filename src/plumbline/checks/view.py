"""What the audit looks at: train and validation, whole or a fixed random part of each. Never the test set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from plumbline.checks.kernel import Kernel
from plumbline.checks.oddness import Oddness, oddness
from plumbline.data.core import Data, Split
from plumbline.loop import epoch_order

LARGEST_SIDE = 64  # pixels: larger images are averaged down, so that a thousand of them fit in memory
COMPONENTS = 50  # principal ones that stand for an input where distances are compared: more are mostly noise
BATCH = 1000  # samples read at a time


@dataclass
class Part:
    """Some samples of a split on the CPU. x: (n, *shape), large images averaged down; y: (n, …); rows, ids, groups: (n,)."""

    x: Tensor
    y: Tensor
    rows: Tensor
    ids: np.ndarray
    groups: np.ndarray | None

    def __len__(self) -> int:
        return len(self.y)


@dataclass
class Sums:
    """What one pass over a split leaves: a hash of each input (n,), the rows that are not finite, moments by feature."""

    hashes: np.ndarray
    broken: list[int]
    mean: Tensor  # (features,) float64, of the finite values
    std: Tensor

    def __len__(self) -> int:
        return len(self.hashes)


class View:
    """The subject of the audit. What several checks need is computed once, when the first asks for it."""

    def __init__(self, data: Data, cfg: DictConfig, parameters: int, other: str = "validation"):
        self.data, self.spec, self.cfg, self.parameters = data, data.spec, cfg, parameters
        self.other = other  # what the second split is called: `evaluate` compares train with the test set
        self.samples = cfg.checks.samples
        self.classes = data.spec.task == "classification"
        self.images = len(data.spec.shape) == 3
        # (row of what is known, id, why): data.outliers leaves them for a picture
        self.oddest: list[tuple[int, str, str]] = []

    @cached_property
    def train(self) -> Part:
        return part(self.data.train, self.samples)

    @cached_property
    def val(self) -> Part:
        return part(self.data.val, self.samples)

    @cached_property
    def sums(self) -> dict[str, Sums]:
        """Of train and val: whole if they are in memory, else of the part that was read anyway."""
        return {
            name: summed(split.batches(BATCH) if isinstance(split, Split) else [(some.x, some.y)])
            for name, split, some in (("train", self.data.train, self.train), ("val", self.data.val, self.val))
        }

    @cached_property
    def flat(self) -> tuple[Tensor, Tensor]:
        """(train, val) as rows of features; what is not finite is 0."""
        return tuple(flattened(some.x) for some in (self.train, self.val))

    @cached_property
    def standardise(self) -> Callable[[Tensor], Tensor]:
        """Rows, centred and scaled by train: each column of a table, but images as a whole; constants are 0."""
        train = self.flat[0]
        mean, std = train.mean(0), train.std(0, correction=0)
        lost = std <= 1e-6 * (1 + mean.abs())
        if self.images:
            std = std.square().mean().sqrt().expand_as(std)
        std = torch.where(lost, torch.ones(()), std)
        return lambda rows: ((rows - mean) / std).masked_fill(lost, 0)

    @cached_property
    def standard(self) -> tuple[Tensor, Tensor]:
        """(train, val), standardised."""
        return tuple(self.standardise(x) for x in self.flat)

    @cached_property
    def axes(self) -> Tensor:
        """(features, k): the directions in which train varies most."""
        return principal(self.standard[0], COMPONENTS)

    @cached_property
    def reduced(self) -> tuple[Tensor, Tensor]:
        """(train, val) in at most fifty coordinates; distances are nearly what they were."""
        return tuple(x @ self.axes for x in self.standard)

    @cached_property
    def known(self) -> Split | Part:
        """The samples of train that are in memory: all, or the part."""
        return self.data.train if isinstance(self.data.train, Split) else self.train

    @cached_property
    def oddness(self) -> Oddness | None:
        """How odd each known sample is."""
        if isinstance(self.known, Split):
            batches, rows = (small(x.cpu()) for x, _ in self.known.batches(BATCH)), self.train.rows
        else:
            batches, rows = [self.train.x], torch.arange(len(self.train))
        return oddness(batches, lambda x: self.standardise(flattened(x)), self.axes, self.standard[0], rows)

    @cached_property
    def targets(self) -> tuple[Tensor, Tensor]:
        """(train, val) as columns (n, outputs) in float32: one-hot classes, or numbers scaled by train."""
        if self.classes:
            return tuple(
                torch.nn.functional.one_hot(some.y, self.spec.outputs).float() for some in (self.train, self.val)
            )
        mean, std = self.train.y.mean(0), self.train.y.std(0, correction=0)
        return tuple((some.y - mean) / std.clamp(min=1e-12) for some in (self.train, self.val))

    @cached_property
    def kernel(self) -> Kernel:
        """A quick learner, fitted on train."""
        return Kernel(self.standard[0], self.targets[0])

    @cached_property
    def first_batches(self) -> list[tuple[Tensor, Tensor]]:
        """(targets that the loop will meet, targets that it asked for) of its first batches, about `samples` of them."""
        split, size = self.data.train, self.cfg.batch_size
        count = min(max(self.samples // size, 2), len(split) // size)
        order = epoch_order(len(split), self.cfg.seed, 0)[: count * size]
        met = [y.cpu() for _, y in islice(split.batches(size, order), count)]
        asked = split.targets.cpu()[order]
        return list(zip(met, asked.split(size), strict=False))


def part(split: Split, samples: int) -> Part:
    """At most so many samples of a split, always the same."""
    rows = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:samples].sort().values
    xs, ys, have = [], [], 0
    for x, y in split.batches(BATCH, rows):
        xs.append(small(x.cpu())), ys.append(y.cpu())
        have += len(y)
        if have >= len(rows):  # a split that does not keep to the rows may yield more
            break
    rows = rows[:have]
    groups = getattr(split, "groups", None)
    groups = None if groups is None else np.asarray(groups)[rows.numpy()]
    count = len(rows)
    return Part(torch.cat(xs)[:count], torch.cat(ys)[:count], rows, np.asarray(split.ids)[rows.numpy()], groups)


def flattened(x: Tensor) -> Tensor:
    """Samples as rows of features; what is not finite is 0."""
    return x.flatten(1).nan_to_num(0, 0, 0)


def small(x: Tensor) -> Tensor:
    """Images, averaged down where they are large."""
    if x.dim() != 4 or max(x.shape[2:]) <= LARGEST_SIDE:
        return x
    return adaptive_avg_pool2d(x, [min(side, LARGEST_SIDE) for side in x.shape[2:]])


def summed(batches: Iterator[tuple[Tensor, Tensor]]) -> Sums:
    """One pass over the batches, in float64 where it adds up."""
    hashes, broken, start = [], [], 0
    count, total, squares, shift = 0, 0, 0, None
    for x, _ in batches:
        x = x.cpu().flatten(1)
        hashes.append(hashed(x))
        finite = x.isfinite()
        if not finite.all():
            broken += (start + (~finite.all(1)).nonzero().flatten()).tolist()
            x = x.where(finite, torch.nan)
        if shift is None:
            shift = x.nanmean(0).nan_to_num(0)  # near the mean, so that squares do not swallow the variance
        off = (x - shift).nan_to_num(0)
        count = count + finite.sum(0)
        total, squares = total + off.sum(0).double(), squares + off.square().sum(0).double()
        start += len(x)
    count = count.clamp(min=1)
    mean = total / count
    return Sums(np.concatenate(hashes), broken, shift.double() + mean, (squares / count - mean**2).clamp(min=0).sqrt())


def hashed(x: Tensor) -> np.ndarray:
    """(n,) a 64-bit number for each row of float32: equal rows have equal ones."""
    bits = np.ascontiguousarray(x.float().numpy() + np.float32(0)).view(np.int32).astype(np.int64)  # -0 becomes 0
    draws = np.random.default_rng(0).integers(-(2**62), 2**62, size=bits.shape[1], dtype=np.int64)
    with np.errstate(over="ignore"):
        return bits @ (draws | 1)


def principal(x: Tensor, count: int) -> Tensor:
    """(features, k) orthonormal: the leading principal axes of centred rows x, by random projection (Halko et al. 2011)."""
    count = min(count, *x.shape)
    if x.shape[1] <= count:
        return torch.eye(x.shape[1])
    basis = torch.randn(x.shape[1], count + min(10, x.shape[1] - count), generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        basis = torch.linalg.qr(x.T @ (x @ basis)).Q
    _, _, turned = torch.linalg.svd(x @ basis, full_matrices=False)
    return basis @ turned[:count].T


def nearest(queries: Tensor, keys: Tensor, count: int, itself: bool = False) -> tuple[Tensor, Tensor]:
    """(distances, rows of keys), each (n, count), the nearest first; itself: the sets are one, and no row is its own."""
    distances, rows, count = [], [], min(count, len(keys) - itself)
    size = max(2**24 // max(len(keys), 1), 1)
    for start in range(0, len(queries), size):
        found = torch.cdist(queries[start : start + size], keys)
        if itself:
            found.diagonal(start).fill_(torch.inf)
        best = found.topk(count, largest=False)
        distances.append(best.values), rows.append(best.indices)
    return torch.cat(distances), torch.cat(rows)


# --- what a person shall see of it -----------------------------------------------------------------------------------

EACH = 10  # images of a class in the grid
CLASSES = 20  # rows of the grid
FEATURES = 12  # whose distributions are drawn
BINS = 24


def seen(view: View) -> dict[str, np.ndarray]:
    """Small arrays for the report's pictures of the data: images by class, class counts, histograms, a map in two axes."""
    parts = (view.train, view.val)
    found: dict[str, np.ndarray] = {}
    if view.classes:
        counts = [
            torch.bincount(split.targets.cpu(), minlength=view.spec.outputs)
            for split in (view.data.train, view.data.val)
        ]
        found["class_counts"] = torch.stack(counts).numpy()
    if view.images and view.classes:
        labels = range(min(view.spec.outputs, CLASSES))
        rows = torch.cat([(view.train.y == label).nonzero()[:EACH, 0] for label in labels])
        x = view.train.x[rows]
        found["images"] = (x if view.data.scale is None else view.data.scale.inverse(x)).numpy()
        found["image_labels"] = view.train.y[rows].numpy()
    if view.images and view.oddest:
        rows = [row for row, *_ in view.oddest]
        x = small(view.known.x[rows].cpu())
        found["odd_images"] = (x if view.data.scale is None else view.data.scale.inverse(x)).numpy()
        found["odd_said"] = np.array([(name, why) for _, name, why in view.oddest])
    longest = torch.linalg.svd(view.reduced[0], full_matrices=False)[2][:2].T  # few columns are kept as they are
    two = torch.cat([x @ longest for x in view.reduced])
    if two.shape[1] == 2:
        y = torch.cat([part.y if view.classes else part.y[:, 0] for part in parts])
        found |= {"map": two.numpy(), "map_split": np.repeat([0, 1], [len(part) for part in parts]), "map_y": y.numpy()}
    return found | histograms(view)


def histograms(view: View) -> dict[str, np.ndarray]:
    """Counts (features, 2, bins) of train and validation, and edges: of all pixels, or of the columns that differ most."""
    train, val = (x.numpy() for x in view.flat)
    if view.images:
        columns, names = [(train.ravel(), val.ravel())], ["pixels"]
    else:
        apart = np.abs(train.mean(0) - val.mean(0)) / (train.std(0) + 1e-12)
        chosen = np.argsort(-apart, kind="stable")[:FEATURES]
        known = view.spec.features or [f"x{column + 1}" for column in range(train.shape[1])]
        columns, names = [(train[:, k], val[:, k]) for k in chosen], [str(known[k]) for k in chosen]
    edges = [np.histogram_bin_edges(np.concatenate(pair), BINS) for pair in columns]
    counts = [[np.histogram(one, ends)[0] for one in pair] for pair, ends in zip(columns, edges, strict=True)]
    return {"histograms": np.array(counts), "edges": np.array(edges), "histogram_names": np.array(names)}
