"""What a data set is to the rest of the house: facts (`Spec`), two splits to train with, and a sealed one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from plumbline.ledger import Opening


@dataclass(frozen=True)
class Spec:
    """The facts of a data set that a model, a loss or a metric may need. Known before anything is read."""

    task: str  # "classification", "regression", "reconstruction" or "segmentation"
    shape: tuple[int, ...]  # of one input as the model sees it: (features,) or (C, H, W)
    outputs: int  # number of classes, of target columns, or of all numbers in the masks
    classes: tuple[str, ...] = ()  # their names, in the order of the labels; empty without classes
    features: tuple[str, ...] = ()  # the names of a table's columns, in the order of the inputs; empty for images
    masks: tuple[int, ...] = ()  # (masks, H, W) of a segmentation, whose targets are 0 and 1; empty for others
    categories: tuple[tuple[int, int], ...] = ()  # (first input, number of inputs) of each one-hot column of a table


@dataclass(frozen=True)
class Scale:
    """An affine scale `(x - mean) / std`, fitted on the split that `fitted_on` names.

    mean, std: (C, 1, 1) for images, (features,) for tables, (outputs,) for targets.
    """

    mean: Tensor
    std: Tensor
    fitted_on: str

    def __call__(self, x: Tensor) -> Tensor:
        return (x - self.mean.to(x.device)) / self.std.to(x.device)

    def inverse(self, x: Tensor) -> Tensor:
        return x * self.std.to(x.device) + self.mean.to(x.device)


@dataclass(frozen=True)
class Selection:
    """Which columns of a table are inputs, of how many, and what chose them: a split, or `columns`, the user's list."""

    columns: tuple[str, ...]
    of: int
    fitted_on: str


class Split:
    """Samples in memory. x: (N, *shape) float; y: (N,) int64 classes or (N, outputs) float targets; ids: (N,).

    left_out: what could not be used when a test split was opened, by name; all other samples are there.
    items: (N, 2) numbers of the two items that each sample is made of; samples that share one are not independent.
    """

    def __init__(
        self, x: Tensor, y: Tensor, ids: np.ndarray, groups: np.ndarray | None = None, left_out: Sequence[str] = (),
        items: Tensor | None = None,
    ):  # fmt: skip
        assert len(x) == len(y) == len(ids), (len(x), len(y), len(ids))
        self.x, self.y, self.ids, self.groups = x, y, np.asarray(ids), groups
        self.left_out, self.items = list(left_out), items

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def targets(self) -> Tensor:
        """All y, in order: known without reading an input."""
        return self.y

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (x, y) of at most `size` samples: in storage order, or the samples that `order` (int64) lists."""
        if order is None:
            yield from zip(self.x.split(size), self.y.split(size), strict=True)
            return
        order = order.to(self.y.device)
        last = self.x.dim() == 4 and self.x.is_contiguous(memory_format=torch.channels_last)
        rows = (
            self.x.permute(0, 2, 3, 1) if last else self.x
        )  # index_select is twice as fast as x[…], but forgets layouts
        for start in range(0, len(order), size):  # not order.split, which yields one empty batch of an empty order
            chosen = order[start : start + size]
            x = rows.index_select(0, chosen)
            yield (x.permute(0, 3, 1, 2) if last else x), self.y.index_select(0, chosen)

    def to(self, device: torch.device, channels_last: bool) -> None:
        """Move the samples, once, to where the network is."""
        layout = torch.channels_last if channels_last and self.x.dim() == 4 else torch.preserve_format
        self.x, self.y = self.x.to(device, memory_format=layout), self.y.to(device)

    def fingerprint(self) -> str:
        """A short hash of every input, target and id."""
        return fingerprint(self.x, self.y, self.ids)


@dataclass
class Splits:
    """What loading yields. `test` is a function, so that nothing of it is read until it is opened.

    `identity` hashes the whole source (test included): two runs that share it share a test set, whatever their split.
    """

    train: Split
    val: Split
    test: Callable[[], Split]
    identity: Callable[[], str]
    scale: Scale | None = None  # of the inputs
    target_scale: Scale | None = None  # of a regression's targets; metrics are always in the original unit
    left_out: list[str] = field(default_factory=list)  # bad rows or files that were skipped, by name
    selection: Selection | None = None  # of a table's columns


class Data:
    """A data set: its `spec` at once; `train` and `val` when first asked for; the test split only to `evaluate`."""

    def __init__(self, spec: Spec, load: Callable[[], Splits]):
        self.spec = spec
        self._load = load

    @cached_property
    def _splits(self) -> Splits:
        return self._load()

    @property
    def train(self) -> Split:
        return self._splits.train

    @property
    def val(self) -> Split:
        return self._splits.val

    @property
    def scale(self) -> Scale | None:
        return self._splits.scale

    @property
    def target_scale(self) -> Scale | None:
        return self._splits.target_scale

    @property
    def selection(self) -> Selection | None:
        return self._splits.selection

    @property
    def left_out(self) -> list[str]:
        return self._splits.left_out

    def identity(self) -> str:
        """A hash of the whole source, test included."""
        return self._splits.identity()

    def fingerprint(self) -> str:
        """A hash of what a run trains and validates on."""
        return f"{self.train.fingerprint()}-{self.val.fingerprint()}"

    def open_test(self, opening: Opening) -> Split:
        """The test split, for an opening that already stands in the ledger. `evaluate` alone can make one."""
        assert opening.written, "an opening is written to the ledger before the seal is broken"
        return self._splits.test()


def fingerprint(*parts: Tensor | np.ndarray | str) -> str:
    """A hash of the values (16 hex digits), equal across machines."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, str):
            digest.update(part.encode())
            continue
        array = part.detach().cpu().contiguous().numpy() if isinstance(part, Tensor) else np.asarray(part)
        if array.dtype.kind in "OU":
            array = np.char.encode(array.astype(str), "utf-8")
        digest.update(f"{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
