"""Some classes of a data set, and few samples of each: what transfer is for."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Unpack

import numpy as np
import torch

from plumbline.config import ConfigError, nearest
from plumbline.data.core import Data, Split, Splits
from plumbline.data.splits import DataOptions, OwnTestOptions
from plumbline.data.tabular import digits
from plumbline.data.vision import fashion_mnist
from plumbline.ranges import Count, Items


def fashion_mnist_part(
    *,
    classes: Annotated[list[str], Items(least=2, distinct=True)],
    per_class: Count | None,
    root: str,
    system_root: str,
    download: bool,
    **options: Unpack[OwnTestOptions],
) -> Data:
    """Fashion-MNIST's pictures of some classes, and at most `per_class` of each in train; val and test have all of them.

    Scaled as the whole is, so that a network meets the same numbers on any part.
    """
    return of_classes(
        fashion_mnist(root=root, system_root=system_root, download=download, **options), classes, per_class
    )


def digits_part(
    *,
    classes: Annotated[list[str], Items(least=2, distinct=True)],
    per_class: Count | None,
    **options: Unpack[DataOptions],
) -> Data:
    """The digits of some classes, and at most `per_class` of each in train; val and test have all of them."""
    return of_classes(digits(**options), classes, per_class)


def of_classes(data: Data, classes: list[str], per_class: int | None) -> Data:
    """The part of a data set that holds these classes, in their order as the new labels 0, 1, …"""
    known = list(data.spec.classes)
    for name in classes:
        if name not in known:
            raise ConfigError(f"data.classes: there is no {name}{nearest(name, known)}; accepted: {', '.join(known)}")
    label = torch.full((len(known),), -1)
    label[[known.index(name) for name in classes]] = torch.arange(len(classes))

    def part(split: Split, most: int | None) -> Split:
        y = label[split.y]
        rows = torch.cat([(y == k).nonzero()[:, 0][:most] for k in range(len(classes))]).sort().values
        picked = rows.numpy()
        groups = None if split.groups is None else np.asarray(split.groups)[picked]
        return Split(split.x[rows], y[rows], split.ids[picked], groups, split.left_out)

    def load() -> Splits:
        whole = data._load()
        few, rest = part(whole.train, per_class), part(whole.val, None)
        return replace(whole, train=few, val=rest, test=lambda: part(whole.test(), None))

    return Data(replace(data.spec, outputs=len(classes), classes=tuple(classes)), load)
