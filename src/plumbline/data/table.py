"""Your own table: a CSV file with a header, numbers and categories in, a class or a number out."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal, Unpack

import numpy as np

from plumbline.config import ConfigError, nearest
from plumbline.data.core import Data, Spec, fingerprint
from plumbline.data.memory import Arrays, assemble
from plumbline.data.rows import Kind, Table, header_of, read_table, read_text, records, several
from plumbline.data.select import TableOptions, choosing, selected
from plumbline.data.splits import check_options, split_indices
from plumbline.ranges import Items


def csv(
    *,
    file: str,
    target: str,
    task: Literal["classification", "regression"],
    categorical: Annotated[list[str], Items(distinct=True)],
    group: str | None,
    ignore: Annotated[list[str], Items(distinct=True)],
    id: str | None,
    split_column: str | None,
    separator: str,
    bad_rows: Literal["stop", "skip"],
    standardise_target: bool,
    **options: Unpack[TableOptions],
) -> Data:
    """A table: every column is an input but target, group, id, split_column and those to ignore.

    A categorical column becomes one input for each of its values in train, which the spec's categories say belong
    together (model=embedding_mlp looks them up); empty is a value too. A value that train does not have cannot be
    coded: such a row of val is a bad row, and one of test is left out and named in the test split's `left_out`. The
    classes are all labels of the file, so that one that train lacks is still a class. The file is read at once,
    since the number of inputs stands in it; ids are those of column `id`, or line numbers.
    """
    choice = choosing(options)
    check_options(options, groups=group is not None, marks=split_column is not None)
    if split_column is not None and options["split"] != "predefined":
        raise ConfigError(f"data.split_column={split_column}: is read only with data.split=predefined")
    path, separator = Path(file).expanduser(), separator.replace("\\t", "\t")
    if len(separator) != 1 or separator in '"\r\n':
        raise ConfigError(f"data.separator={separator!r}: must be one character, such as , or ; or \\t")
    text = read_text(path)
    rows = records(path, text, separator)
    header = header_of(path, rows)
    roles = {"target": [target], "group": [group], "id": [id], "split_column": [split_column]}
    roles |= {"ignore": ignore, "categorical": categorical}
    _check_roles(path, header, roles)
    inputs = _inputs(path, header, categorical, {name for key in roles if key != "categorical" for name in roles[key]})
    target_kind: dict[str, Kind] = {target: "number" if task == "regression" else "word"}
    others: dict[str, Kind] = {
        name: kind for name, kind in ((group, "word"), (id, "word"), (split_column, "part")) if name is not None
    }
    table = read_table(path, header, rows, inputs | target_kind | others)
    total = len(table.lines) + len(table.bad)
    cure = "correct them (a column of text belongs under data.categorical), or leave them out with data.bad_rows=skip"
    if table.bad and bad_rows == "stop":
        raise ConfigError(several(path, table.bad, total, cure))

    y, classes = _labels(table.columns[target]) if task == "classification" else (table.columns[target], ())
    if len(classes) == 1:
        raise ConfigError(f"data.target={target}: every row has the same label, {classes[0]!r}")
    groups, ids, marks = (None if name is None else table.columns[name] for name in (group, id, split_column))
    ids = table.lines if ids is None else _unique(path, str(id), ids, table.lines)
    train, val, test = split_indices(y, options, classes=classes, groups=groups, marks=marks)
    coder = Coder(table, list(inputs), set(categorical), train)
    spec = Spec(task, (len(coder.features),), len(classes) or 1, classes, coder.features, categories=coder.categories)

    def take(rows: np.ndarray) -> Arrays:
        x, unknown = coder(rows)
        rows = np.delete(rows, list(unknown))
        return Arrays(x, y[rows], ids[rows], None if groups is None else groups[rows], left_out=list(unknown.values()))

    validation = take(val)
    unknown = validation.left_out
    if unknown and bad_rows == "stop":
        raise ConfigError(several(path, unknown, total, cure))
    if len(unknown) == len(val):
        raise ConfigError(several(path, unknown, total, "no row of val is left"))
    identity = fingerprint(text, target)
    seal = (partial(take, test), lambda: identity)
    scaling = (table.bad + unknown, options["normalise"], standardise_target)
    return selected(Data(spec, lambda: assemble(spec, take(train), validation, *seal, *scaling)), **choice)


class Coder:
    """Makes inputs of a table's columns. What it knows of the categories, it knows from the rows of train."""

    def __init__(self, table: Table, inputs: list[str], categorical: set[str], train: np.ndarray):
        self.table, self.inputs = table, inputs
        self.values = {name: np.unique(table.columns[name][train]) for name in inputs if name in categorical}
        self.features = tuple(
            feature
            for name in inputs
            for feature in ([f"{name}={value}" for value in self.values[name]] if name in self.values else [name])
        )
        widths = [len(self.values.get(name, [name])) for name in inputs]
        places = zip(inputs, np.cumsum([0, *widths[:-1]]).tolist(), widths, strict=True)
        self.categories = tuple((first, width) for name, first, width in places if name in self.values)

    def __call__(self, rows: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
        """(x of the rows that can be coded, what is unknown in the others by their place in `rows`)."""
        parts, unknown = [], {}
        for name in self.inputs:
            column = self.table.columns[name][rows]
            if name not in self.values:
                parts.append(column[:, None])
                continue
            parts.append((column[:, None] == self.values[name]).astype(float))  # one-hot
            for place in np.flatnonzero(~parts[-1].any(1)):
                line = self.table.lines[rows[place]]
                unknown.setdefault(int(place), f"line {line}: {name}={column[place]!s}: a category that train lacks")
        return np.delete(np.hstack(parts), list(unknown), axis=0), unknown


def _check_roles(path: Path, header: list[str], roles: dict[str, list]) -> None:
    """Raise ConfigError unless each named column is there, and has one role only."""
    taken: dict[str, str] = {}
    for key, names in roles.items():
        for name in names:
            if name is None:
                continue
            if name not in header:
                hint = nearest(name, header) if len(header) > 1 else "; is data.separator the right one?"
                raise ConfigError(f"data.{key}={name}: {path} has no such column{hint}; it has: {', '.join(header)}")
            if name in taken:
                raise ConfigError(f"data.{key}={name}: is data.{taken[name]} already; a column has one role")
            taken[name] = key


def _inputs(path: Path, header: list[str], categorical: list[str], others: set) -> dict[str, Kind]:
    """The columns that are inputs, in the order of the file."""
    inputs: dict[str, Kind] = {
        name: "text" if name in categorical else "number" for name in header if name not in others
    }
    if not inputs:
        raise ConfigError(f"data.file={path}: no column is left to be an input; it has: {', '.join(header)}")
    for name in inputs:
        if name.startswith("column ") and name not in categorical:
            raise ConfigError(
                f"data.file={path}: {name} has no name (row numbers, perhaps?); list it under data.ignore as '{name}'"
            )
    return inputs


def _labels(column: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """(labels 0 …, their names): sorted as numbers if all are numbers, else as text."""
    names, labels = np.unique(column, return_inverse=True)
    try:
        order = np.argsort(names.astype(float), kind="stable")
    except ValueError:
        order = np.arange(len(names))
    return np.argsort(order)[labels], tuple(map(str, names[order]))


def _unique(path: Path, name: str, ids: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """The ids, if no two rows share one."""
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        value = str(values[counts > 1][0])
        where = ", ".join(str(line) for line in lines[ids == value][:5])
        raise ConfigError(f"data.id={name}: {path} has {value!r} more than once (lines {where}); an id names one row")
    return ids
