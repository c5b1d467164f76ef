"""Which columns of a table are inputs: chosen by what train says, inside the split, and kept with the run."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal, TypedDict

import numpy as np
import torch

from plumbline.config import ConfigError, nearest
from plumbline.contract import require
from plumbline.data.core import Data, Scale, Selection, Spec, Split, Splits
from plumbline.data.importance import SCORES, Table, ablation, annealing, uncorrelated
from plumbline.data.splits import DataOptions
from plumbline.ranges import Count, Items, Part

Way = Literal["correlated", "f_test", "mutual_information", "linear", "forest", "permutation", "ablation", "annealing"]
MOST = 200  # columns that are tried one by one: the time grows with the fourth power


class SelectOptions(TypedDict):
    """Which columns of a table are kept. The values live in conf/data/_table.yaml."""

    select: Annotated[list[Way], Items(distinct=True)]
    keep: Count
    correlated_above: Part
    columns: Annotated[list[str], Items(least=1, distinct=True)] | None


class TableOptions(DataOptions, SelectOptions):
    """How a table is split, and which of its columns are kept."""


def choosing(options: dict[str, Any]) -> dict[str, Any]:
    """Take the options of a selection out of those of a table."""
    return {key: options.pop(key) for key in SelectOptions.__annotations__ if key in options}


def selected(data: Data, *, select: list[Way], keep: int, correlated_above: float, columns: list[str] | None) -> Data:
    """The data with some of their columns, which train is read for at once; a categorical column stays whole or goes.

    select: ways, one after the other. correlated drops a column that correlates above `correlated_above` with one before
    it. f_test, mutual_information, linear (its weights), forest (impurity) and permutation (what a forest loses on
    held-out rows) keep the best `keep`. ablation drops columns in turn as long as a linear model's held-out error does
    not rise by more than a column's price; annealing also takes back (see Judge). columns: those to keep, by name, and
    none is chosen then. Raises ConfigError.
    """
    if not select and columns is None:
        return data
    spec, inputs = data.spec, columns_of(data.spec)
    names = names_of(spec, inputs)
    if columns is not None:
        kept = [_known(name, names) for name in columns]
        kept.sort()
    else:
        if SCORES.keys() & set(select):
            require("data.keep", keep, keep <= len(names), f"at most {len(names)}, the number of columns")
        kept = chosen(data.train, spec, inputs, select, keep, correlated_above)
    taken = np.concatenate([inputs[at] for at in kept])
    selection = Selection(tuple(names[at] for at in kept), len(names), "train" if columns is None else "columns")
    features = spec.features or tuple(f"x{at + 1}" for at in range(spec.shape[0]))
    widths = [len(inputs[at]) for at in kept]
    firsts = np.cumsum([0, *widths[:-1]]).tolist()
    whole = {first for first, _ in spec.categories}
    places = zip(firsts, widths, [int(inputs[at][0]) in whole for at in kept], strict=True)
    narrow = replace(
        spec,
        shape=(len(taken),),
        features=tuple(features[at] for at in taken),
        categories=tuple((first, width) for first, width, is_category in places if is_category),
    )
    rows = torch.from_numpy(taken)

    def part(split: Split) -> Split:
        return Split(split.x[:, rows], split.y, split.ids, split.groups, split.left_out)

    def load() -> Splits:
        found = data._splits
        scale = found.scale and Scale(found.scale.mean[rows], found.scale.std[rows], found.scale.fitted_on)
        parts = {"train": part(found.train), "val": part(found.val), "test": lambda: part(found.test())}
        return replace(found, **parts, scale=scale, selection=selection)

    return Data(narrow, load)


def columns_of(spec: Spec) -> list[np.ndarray]:
    """The inputs of each column: one of a number, one a category of a categorical column."""
    widths = dict(spec.categories)
    found, at = [], 0
    while at < spec.shape[0]:
        found.append(np.arange(at, at + widths.get(at, 1)))
        at += widths.get(at, 1)
    return found


def names_of(spec: Spec, inputs: list[np.ndarray]) -> list[str]:
    """A name for each column: the feature's, without the category of a categorical one; x1, x2, … of a nameless table."""
    features = spec.features or [f"x{at + 1}" for at in range(spec.shape[0])]
    categorical = {first for first, _ in spec.categories}
    names = [features[at[0]].partition("=")[0] if int(at[0]) in categorical else features[at[0]] for at in inputs]
    return names if len(set(names)) == len(names) else [features[at[0]] for at in inputs]


def chosen(
    train: Split, spec: Spec, inputs: list[np.ndarray], select: list[Way], keep: int, correlated_above: float
) -> list[int]:
    """The numbers of the columns that are kept, sorted. Nothing but train is seen."""
    x, y = train.x.double().numpy(), train.y.numpy().reshape(len(train))
    if not np.isfinite(x).all():
        row = int(np.flatnonzero(~np.isfinite(x).all(1))[0])
        raise ConfigError(f"data.select={select}: sample {train.ids[row]} of train has a value that is not finite")
    left = list(range(len(inputs)))
    for way in select:
        table = Table(x, y, [inputs[at] for at in left], spec.task == "classification", train.groups)
        if way in ("permutation", "ablation", "annealing") and len(left) > MOST:
            raise ConfigError(
                f"data.select={select}: {way} tries columns one by one, and {len(left)} are too many (at most {MOST}); "
                f"let another choose first: data.select=[forest,{way}]"
            )
        if way == "correlated":
            kept = uncorrelated(table, correlated_above)
        elif way in ("ablation", "annealing"):
            kept = (ablation if way == "ablation" else annealing)(table)
        else:
            kept = np.argsort(-SCORES[way](table), kind="stable")[:keep].tolist()
        left = sorted(left[at] for at in kept)
    return left


def _known(name: str, names: list[str]) -> int:
    if name not in names:
        raise ConfigError(f"data.columns: there is no {name}{nearest(name, names)}; accepted: {', '.join(names[:50])}")
    return names.index(name)
