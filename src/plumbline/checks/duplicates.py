"""Samples that are there more than once, exactly or nearly: within train, and across the splits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plumbline.checks.core import Finding
from plumbline.checks.view import COMPONENTS, View, nearest, principal
from plumbline.data.core import Split
from plumbline.ranges import Count, NonNegative, Share

MOST_NAMED = 10  # pairs listed in a finding
MIDDLE, FAR = 5, 10  # of a sample's neighbours, nearest first: so many copies of it may be nearer than what is usual


class Pixels:
    """Distances between the inputs themselves. A class of one's own maps (n, *shape) to (n, features) instead."""

    def __call__(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def same_sample(view: View, *, share: Share) -> Finding | None:
    """Whether a split yields one and the same sample again and again, whatever is asked for."""
    for name, split in (("train", view.data.train), ("val", view.data.val)):
        hashes = view.sums[name].hashes
        distinct = len(np.unique(hashes))
        if len(hashes) >= 10 and distinct <= share * len(hashes):
            return Finding(
                "fail", f"{name} has {len(split):,} samples, but only {distinct} of {len(hashes):,} inputs differ",
                {"split": name, "distinct": distinct},
                cause="the data set ignores the index it is asked for, or the inputs were not read",
                advice=("look at what it returns for two indices",), source="S2: look at what the network is fed",
            )  # fmt: skip
    return Finding("ok", "the samples differ")


def overlap(view: View, *, share: Share, times: NonNegative) -> Finding:
    """Inputs of validation that are in train, too, to the last bit."""
    train, val = hashes(view, "train"), hashes(view, "val")
    inside = np.flatnonzero(np.isin(val, train))
    found = len(inside) / max(len(val), 1)
    evidence: dict[str, Any] = {"overlapping": len(inside), "of": len(val), "share": found}
    if not len(inside):
        return Finding("ok", f"none of {len(val):,} inputs of {view.other} is in train", evidence)
    ids = dict(zip(train.tolist(), _ids(view, "train"), strict=True))
    pairs = [f"{_ids(view, 'val')[at]} is train's {ids[int(val[at])]}" for at in inside[:MOST_NAMED]]
    said = f"{len(inside):,} of {len(val):,} inputs of {view.other} are in train, too ({found:.1%}): {pairs[0]}"
    grave = found >= share and found > times * coincidence(view.flat[0]) * len(train)
    return Finding(
        "fail" if grave else "info", said, evidence | {"pairs": pairs},
        cause=f"{view.other} was taken from train, or samples were repeated before they were split",
        advice=("remove duplicates before splitting", "split first; repeat, oversample or augment train afterwards"),
        source="S0: remove duplicates; similar samples across sets mislead",
    )  # fmt: skip


def duplicates(view: View, *, share: Share, times: NonNegative) -> Finding:
    """Inputs that a split holds more than once; whether their targets agree."""
    found = [repeated(view, name, share, times) for name in ("train", "val")]
    return max(found, key=lambda finding: ("ok", "info", "warn").index(finding.severity))  # train's, if both are alike


def repeated(view: View, name: str, share: float, times: float) -> Finding:
    """The inputs of one split that it holds more than once."""
    found, split = hashes(view, name), getattr(view.data, name)
    _, first, which, counts = np.unique(found, return_index=True, return_inverse=True, return_counts=True)
    again = len(found) - len(counts)
    evidence: dict[str, Any] = {"split": name, "again": again, "of": len(found), "share": again / max(len(found), 1)}
    if not again:
        return Finding("ok", "no input is there twice in its split", evidence)
    y = split.targets.cpu()
    y = y if len(y) == len(found) else getattr(view, name).y
    differs = (y.view(len(y), -1) != y[torch.from_numpy(first[which])].view(len(y), -1)).any(1)
    evidence |= {"contradicting": int(differs.sum()), "most_frequent": int(counts.max())}
    said = f"{again:,} of {len(found):,} samples of {name} repeat the input of another"
    said += f", {evidence['contradicting']:,} of them with another target" * (evidence["contradicting"] > 0)
    part = again / len(found)
    grave = part >= share and part > times * coincidence(view.flat[0]) * len(found)
    return Finding(
        "warn" if grave else "info", said, evidence, cause="samples were collected twice, or oversampled before the split",
        advice=("remove them: they count double, and land on both sides of a split",), source="S0: remove duplicates at least",
    )  # fmt: skip


def near_duplicates(
    view: View,
    *,
    embedding: Callable[[Tensor], Tensor],
    close: NonNegative,
    share: Share,
    times: NonNegative,
    rare: Share,
    least: Count,
) -> Finding | None:
    """Samples of validation or train that are nearly one of train: nearer than a small share of the usual distance."""
    train, val = embedding(view.train.x.nan_to_num(0, 0, 0)), embedding(view.val.x.nan_to_num(0, 0, 0))
    found = Neighbourhood.of(train.float(), close) if len(val) >= 10 else None
    if found is None:
        return None
    pairs = [
        at for at in found.pairs(val.float()) if at[2] > 0 or not torch.equal(view.val.x[at[0]], view.train.x[at[1]])
    ]
    part, seen = len(pairs) / len(val), len(view.train) / len(view.data.train)  # only so many of the twins are found
    named = [f"{view.val.ids[a]} is nearly train's {view.train.ids[b]} (distance {d:.3g})" for a, b, d in pairs]
    evidence: dict[str, Any] = {
        "near": len(pairs), "of": len(val), "share": part, "by_chance": found.expected, "within_train": found.within,
        "usual_distance": found.usual, "pairs": named[:MOST_NAMED],
    }  # fmt: skip
    source = "S0: define when samples are similar; Barz and Denzler 2020, Do we train on test data?"
    natural = max(found.expected, found.within) if found.expected > rare else found.expected
    if pairs:
        grave = part / seen >= share and part > times * natural and len(pairs) >= least
        said = f"{len(pairs)} of {len(val):,} samples of {view.other} are nearly samples of train: {named[0]}"
        return Finding(
            "fail" if grave else "info", f"{said}, where {found.usual:.3g} is usual", evidence,
            cause="copies with a little noise, frames of one film, crops of one image: split apart after they were made",
            advice=("keep what belongs together in one split: data.split=grouped", "split first, augment train afterwards"),
            source=source,
        )  # fmt: skip
    if found.within / seen >= share and found.within > times * found.expected and found.expected <= rare:
        said = f"about {found.within / seen:.0%} of train's samples are nearly another of its samples"
        return Finding(
            "warn", said, evidence, cause="copies with a little noise, frames of one film, crops of one image: they count twice",
            advice=("keep one of each, or name what belongs together (data.split=grouped)",), source=source,
        )  # fmt: skip
    said = f"no sample of {view.other} is nearly one of train ({len(val):,} against {len(train):,})"
    return Finding("ok", said, evidence, source=source)


class Neighbourhood:
    """What is near in train: nearer than `close` times the usual distance, the median one to the MIDDLE-th neighbour.

    By chance, the share that is so near falls with the power of the intrinsic dimension. That is read off the ratios of
    distances to neighbours (Levina and Bickel 2004), leaving out the first few: those may be the copies that are sought.
    """

    def __init__(self, train: Tensor, close: float):
        self.unit = train.double().std().item()  # of numbers near the largest, squares would be infinite
        self.train, self.close = train / self.unit, close
        self.centre = self.train.mean(0)
        self.axes = principal(self.train[:2000] - self.centre, COMPONENTS)
        self.small = (self.train - self.centre) @ self.axes
        inside = self.small[:1000]
        self.around, rows = nearest(inside, inside, FAR, itself=True)
        self.first, middle = ((self.train[: len(inside)] - self.train[rows[:, k - 1]]).norm(dim=1) for k in (1, MIDDLE))
        self.reference = middle.median().item()

    @classmethod
    def of(cls, train: Tensor, close: float) -> Neighbourhood | None:
        """None: too few, or too alike, to say what is near."""
        if len(train) < max(10, FAR + 1) or not 0 < train.double().std().item() < math.inf:
            return None
        made = cls(train, close)
        return made if made.reference > 0 else None

    @property
    def usual(self) -> float:
        """The usual distance, in the unit of the inputs."""
        return self.reference * self.unit

    @property
    def expected(self) -> float:
        """The share of other samples that is near one of train by chance."""
        ratio = self.around[:, FAR - 1] / self.around[:, MIDDLE - 1].clamp(min=1e-9)
        growth = ratio[self.around[:, MIDDLE - 1] > 0].log().clamp(0, 5).mean().nan_to_num(1).item()
        dimension = sum(1 / k for k in range(MIDDLE, FAR)) / max(growth, 1e-3)
        return 1 - math.exp(-MIDDLE * self.close**dimension)

    @property
    def within(self) -> float:
        """The share of train that is near another of it; copies to the last bit are not counted."""
        return ((self.first > 0) & (self.first < self.close * self.reference)).float().mean().item()

    def pairs(self, others: Tensor) -> list[tuple[int, int, float]]:
        """(row of the others, row of train, distance) of what is near, the nearest first."""
        others = others / self.unit
        distance, row = (found[:, 0] for found in nearest((others - self.centre) @ self.axes, self.small, 1))
        usual = self.around[:, MIDDLE - 1].median().item()  # in the leading coordinates, where distances are shorter
        candidates = (distance < self.close * max(usual, 0.1 * self.reference)).nonzero().flatten()
        exact = (others[candidates] - self.train[row[candidates]]).norm(dim=1)
        return [
            (int(candidates[at]), int(row[candidates[at]]), exact[at].item() * self.unit)
            for at in exact.argsort()
            if exact[at] < self.close * self.reference
        ]


def groups(view: View) -> Finding | None:
    """Whether what belongs together (a patient, a scene) stands on both sides of the split."""
    train, val = (getattr(split, "groups", None) for split in (view.data.train, view.data.val))
    if train is None or val is None:
        return None
    train, val = np.asarray(train), np.asarray(val)
    torn = np.intersect1d(train, val)
    samples = int(np.isin(val, torn).sum())
    evidence = {
        "groups": len(torn),
        "samples": samples,
        "of": len(val),
        "names": [str(name) for name in torn[:MOST_NAMED]],
    }
    if not len(torn):
        return Finding("ok", f"no group spans train and validation ({len(np.unique(val))} groups validate)", evidence)
    return Finding(
        "fail", f"{len(torn)} groups span train and validation, such as {torn[0]}: {samples} of {len(val)} samples of the latter",
        evidence,
        cause="samples were split without regard to their group",
        advice=("data.split=grouped; of pairs, data.apart=items",), source="S0: split by patient, not by image",
    )  # fmt: skip


def coincidence(x: Tensor) -> float:
    """The chance that two rows are equal, were their features independent: only coarse tables have a noticeable one."""
    log = 0.0
    for column in x[:1000].T:
        _, counts = column.unique(return_counts=True)
        log += math.log((counts.double() / counts.sum()).square().sum().item())
        if log < -40:
            return 0.0
    return math.exp(log)


def hashes(view: View, name: str) -> np.ndarray:
    """(n,) of a split's inputs: of all, where they are in memory or were hashed when they were read."""
    digests = getattr(getattr(view.data, name), "digests", None)
    return view.sums[name].hashes if digests is None else np.asarray(digests)


def _ids(view: View, name: str) -> list[Any]:
    split = getattr(view.data, name)
    whole = isinstance(split, Split) or hasattr(split, "digests")
    return list(split.ids) if whole else list(getattr(view, name).ids)
