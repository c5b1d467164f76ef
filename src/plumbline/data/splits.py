"""Which samples train, which validate and which stay sealed: index arrays, moved by `data.split_seed` alone."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Any, Literal, TypedDict

import numpy as np

from plumbline.config import ConfigError, nearest
from plumbline.ranges import Count, Index, Inside, Range, Seed

Kind = Literal["stratified", "grouped", "kfold", "predefined"]
Indices = tuple[np.ndarray, np.ndarray, np.ndarray]


class OwnTestOptions(TypedDict):
    """How a data set that comes with its own test set is split. The values live in conf/data/_own_test.yaml."""

    split: Kind
    split_seed: Seed
    val_fraction: Inside
    folds: Annotated[int, Range("[2, 1000]")]
    fold: Index
    subset: Count | None
    normalise: bool


class DataOptions(OwnTestOptions):
    """How a data set whose test set is carved out of it is split. The values live in conf/data/_common.yaml."""

    test_fraction: Inside


TARGET_BINS = 10  # a regression is stratified over this many quantiles of its target
FINEST_SHARE = 20  # a grouped split takes k of at most this many folds, so it meets a fraction to about 1 / 40
NO_GROUPS = (
    "nothing here says which samples belong together; data=csv says it with data.group=<column>, "
    "data=image_folder with data.group=<pattern>, a data set of yours with Arrays(groups=…); "
    "without groups use data.split=stratified"
)
NO_MARKS = (
    "nothing here marks the samples as train, val and test; data=csv does with data.split_column=<column>, "
    "data=image_folder with the folders train, val and test, a data set of yours with Arrays(marks=…); "
    "without marks use data.split=stratified"
)


def check_options(options: Mapping[str, Any], *, groups: bool = True, marks: bool = True) -> None:
    """Raise ConfigError on what no samples could satisfy. groups, marks: whether this data set can have them at all."""
    missing = OwnTestOptions.__annotations__.keys() - options.keys()
    unknown = options.keys() - DataOptions.__annotations__.keys()
    if missing or unknown:
        raise TypeError(f"the options of a split: missing {sorted(missing)}, unknown {sorted(unknown)}")
    given = {key: f"data.{key}={value}" for key, value in options.items()}
    kind = options["split"]
    if kind == "grouped" and not groups:
        raise ConfigError(f"{given['split']}: {NO_GROUPS}")
    if kind == "predefined" and not marks:
        raise ConfigError(f"{given['split']}: {NO_MARKS}")
    fractions = [key for key in ("val_fraction", "test_fraction") if key in options]
    if sum(options[key] for key in fractions) >= 1:
        both = " and ".join(given[key] for key in fractions)
        raise ConfigError(f"{both}: nothing is left to train on; their sum must be below 1")
    if options["fold"] >= options["folds"]:
        raise ConfigError(f"{given['fold']}: {given['folds']} are numbered from 0 to {options['folds'] - 1}")


def split_indices(
    y: np.ndarray,
    options: Mapping[str, Any],
    *,
    classes: Sequence[str],
    groups: np.ndarray | None = None,
    marks: np.ndarray | None = None,
) -> Indices:
    """(train, val, test): sorted row numbers. test is empty if options have no `test_fraction`: the set has its own.

    y: (N,) labels 0 … len(classes) - 1, or with no classes (N,) or (N, outputs) numbers. The test rows depend on
    `split`, `split_seed` and `test_fraction` only; val_fraction, fold and subset never move them.
    """
    kind, carved = options["split"], "test_fraction" in options
    if kind == "grouped" and groups is None:
        raise ConfigError(f"data.split=grouped: {NO_GROUPS}")
    if kind == "predefined" and marks is None:
        raise ConfigError(f"data.split=predefined: {NO_MARKS}")
    dealer = _Dealer(_strata(y, classes), None if kind == "stratified" else groups, kind, options["split_seed"])
    rest, val, test = np.arange(len(y)), np.arange(0), np.arange(0)
    folds: list[np.ndarray] = []
    if kind == "predefined":
        rest, val, test = _marked(marks, carved)
    elif carved:
        test, rest = dealer.carve(rest, round(options["test_fraction"] * len(y)), purpose=0)
    if kind == "kfold":
        folds = dealer.folds(rest, options["folds"], purpose=1)
        val = folds[options["fold"]]
    elif not len(val):  # marks may leave the choice of val to us: a share of what is not test, as for own test sets
        whole = len(rest) if kind == "predefined" else len(y)
        val, _ = dealer.carve(rest, round(options["val_fraction"] * whole), purpose=1)
    parts = {"train": np.setdiff1d(rest, val), "val": val} | ({"test": test} if carved else {})
    promised = classes if kind in ("stratified", "kfold") and dealer.groups is None else ()
    _check_parts(y, parts | {f"fold {number}": fold for number, fold in enumerate(folds)}, promised, kind)
    if options["subset"] is not None:
        few = {name: dealer.pick(parts[name], options["subset"], purpose=2) for name in ("train", "val")}
        present = len(np.unique(y[parts["train"]]))
        if classes and len(np.unique(y[few["train"]])) < present:
            raise ConfigError(
                f"data.subset={options['subset']}: too few for one of each of the {present} classes of train"
            )
        parts |= few
    return np.sort(parts["train"]), np.sort(parts["val"]), np.sort(test)


class _Dealer:
    """Deals rows out like cards: each hand has the class shares of the whole, and no group is torn apart."""

    def __init__(self, strata: np.ndarray, groups: np.ndarray | None, kind: str, seed: int):
        self.strata, self.groups, self.kind, self.seed = strata, groups, kind, seed

    def carve(self, rows: np.ndarray, count: int, purpose: int) -> tuple[np.ndarray, np.ndarray]:
        """(taken, rest): `count` of the rows; with groups, about so many."""
        if self.groups is None:
            order, count = self._order(rows, purpose), max(count, 1)
            return order[:count], order[count:]
        finest = max(min(FINEST_SHARE, len(np.unique(self.groups[rows]))), 2)
        share = Fraction(count / max(len(rows), 1)).limit_denominator(finest)
        share = min(max(share, Fraction(1, finest)), Fraction(finest - 1, finest))
        hands = self.folds(rows, share.denominator, purpose)
        return np.concatenate(hands[: share.numerator]), np.concatenate(hands[share.numerator :])

    def folds(self, rows: np.ndarray, count: int, purpose: int) -> list[np.ndarray]:
        """`count` disjoint parts that cover the rows."""
        if self.groups is None:
            return np.array_split(self._order(rows, purpose), count)
        together = self.groups[rows]
        available = len(np.unique(together))
        if available < count:
            raise ConfigError(f"data.split={self.kind}: {count} parts are asked of {available} groups; more are needed")
        from sklearn.model_selection import StratifiedGroupKFold  # 0.7 s and 110 MB: only where there are groups

        splitter = StratifiedGroupKFold(count, shuffle=True, random_state=int(self._draws(purpose).integers(2**31)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a class with few members: the audit says it of each split
            try:
                return [rows[part] for _, part in splitter.split(rows, self.strata[rows], together)]
            except ValueError as error:
                message = f"data.split={self.kind}: {len(rows)} samples cannot be dealt out: {error}"
                raise ConfigError(message) from error

    def pick(self, rows: np.ndarray, count: int, purpose: int) -> np.ndarray:
        """At most `count` rows. A larger pick contains a smaller one: a learning curve only ever adds samples."""
        return self._order(rows, purpose)[:count]

    def _order(self, rows: np.ndarray, purpose: int) -> np.ndarray:
        """The rows in an order whose every stretch has the class shares of the whole, to within a sample of each class.

        A row's place is (its random rank in its class) / (size of the class), so each class is spread evenly and every
        class, however rare, stands at the front. One such order serves test, val, folds and subsets of any size.
        (scikit-learn's stratified splitters leave rare classes to chance and refuse a subset that is nearly the whole.)
        """
        shuffled = self._draws(purpose).permutation(rows)
        _, stratum, size = np.unique(self.strata[shuffled], return_inverse=True, return_counts=True)
        by_class = np.argsort(stratum, kind="stable")
        rank = np.empty(len(rows), np.int64)
        rank[by_class] = np.arange(len(rows)) - np.repeat(np.cumsum(size) - size, size)
        return shuffled[np.argsort(rank / size[stratum], kind="stable")]

    def _draws(self, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, purpose])  # a stream each, so that the choice of val moves no test row


def _strata(y: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """(N,) what is to be spread evenly: the class, or the quantile of the (first) target."""
    if classes:
        return y
    first = y.reshape(len(y), -1)[:, 0]
    return np.argsort(np.argsort(first, kind="stable"), kind="stable") * TARGET_BINS // max(len(y), 1)


def _marked(marks: np.ndarray, carved: bool) -> Indices:
    """(train and val, val, test) as the data set marks them; val may be empty."""
    accepted = ("train", "val", "test") if carved else ("train", "val")
    marks = np.asarray(marks).astype(str)
    for mark in map(str, np.setdiff1d(marks, accepted)):
        hint = nearest(mark, accepted)
        raise ConfigError(f"data.split=predefined: a sample is marked {mark!r}{hint}; accepted: {', '.join(accepted)}")
    train, val, test = (np.flatnonzero(marks == name) for name in ("train", "val", "test"))
    for name, part in {"train": train, "test": test}.items():
        if name in accepted and not len(part):
            raise ConfigError(f"data.split=predefined: no sample is marked {name}; mark some, or data.split=stratified")
    return np.union1d(train, val), val, test


def _check_parts(y: np.ndarray, parts: dict[str, np.ndarray], classes: Sequence[str], kind: str) -> None:
    """Raise ConfigError unless each part has samples, and some of each of `classes`: a stratified split's promise."""
    cure = "data.folds" if kind == "kfold" else "data.val_fraction or data.test_fraction"
    for name, part in parts.items():
        if not len(part):
            raise ConfigError(
                f"data.split={kind}: of {len(y)} samples none is left for {name}; add some, or change {cure}"
            )
        for label in np.setdiff1d(y, y[part]) if classes else ():
            count = int((y == label).sum())
            raise ConfigError(
                f"data.split={kind}: class {classes[label]!r} has {count} sample{'s' * (count != 1)}, too few for "
                f"each part to have one: {name} has none; add some, leave the class out, or change {cure}"
            )
