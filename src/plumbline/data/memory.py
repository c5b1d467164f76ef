"""Data sets that fit in memory: `in_memory` splits, scales and seals what a data set's own `load` returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from plumbline.config import ConfigError
from plumbline.data.core import Data, Scale, Spec, Split, Splits, fingerprint
from plumbline.data.splits import check_options, split_indices

CHUNK = 2**17  # numbers whose float64 copies are held at a time: they stay in the cache


@dataclass
class Arrays:
    """Samples as their source has them: what the `load` of a data set returns.

    x: (N, *spec.shape), numbers or uint8 images. y: (N,) labels 0 … outputs - 1, or (N,) or (N, outputs) numbers,
    or (N, *spec.masks) of 0 and 1.
    ids: (N,) names that stay the same for ever; the row numbers if None. groups: (N,) what must not be torn apart.
    marks: (N,) 'train', 'val', 'test', for split=predefined. test: reads the data set's own test samples, if it comes
    with some; it is called when the seal is broken, and then the options have no test_fraction.
    """

    x: np.ndarray
    y: np.ndarray
    ids: np.ndarray | None = None
    groups: np.ndarray | None = None
    marks: np.ndarray | None = None
    test: Callable[[], Arrays] | None = None
    left_out: list[str] = field(default_factory=list)  # what could not be read, by name

    def take(self, rows: np.ndarray) -> Arrays:
        """Those rows: a copy, so that the rest can be freed."""
        groups = None if self.groups is None else self.groups[rows]
        return Arrays(self.x[rows], self.y[rows], self.names()[rows], groups)

    def names(self) -> np.ndarray:
        return np.arange(len(self.x)) if self.ids is None else self.ids

    def fingerprint(self) -> str:
        return fingerprint(self.x, self.y, self.names())


def in_memory(spec: Spec, load: Callable[[], Arrays], *, standardise_target: bool = True, **options: Any) -> Data:
    """The data set that `load` reads when train or val are first asked for; options: DataOptions or OwnTestOptions.

    Scales are fitted on train. standardise_target matters to regressions only. Raises ConfigError.
    """
    check_options(options)

    def read() -> Splits:
        arrays = checked(spec, load(), "data")
        if ("test_fraction" in options) == (arrays.test is not None):
            raise ConfigError("data: a data set has either data.test_fraction or Arrays(test=…), its own test samples")
        train, val, test = split_indices(
            arrays.y, options, classes=spec.classes, groups=arrays.groups, marks=arrays.marks
        )
        sealed, source = arrays.test, arrays.fingerprint()
        if sealed is None:
            rows = arrays.take(test)
            sealed, identity = lambda: rows, lambda: source
        else:
            identity = lambda: fingerprint(source, sealed().fingerprint())  # noqa: E731
        splits = (arrays.take(train), arrays.take(val), sealed, identity)
        left_out = arrays.left_out
        del arrays  # before the floats are made: the peak is one copy of the source and one of the floats
        return assemble(spec, *splits, left_out, options["normalise"], standardise_target)

    return Data(spec, read)


def assemble(
    spec: Spec,
    train: Arrays,
    val: Arrays,
    test: Callable[[], Arrays],
    identity: Callable[[], str],
    left_out: list[str],
    normalise: bool,
    standardise_target: bool,
) -> Splits:
    """Splits from the rows of each, scaled by what train says; `test` is called when the test split is opened."""
    unit = 255.0 if train.x.dtype == np.uint8 and len(spec.shape) == 3 else 1.0  # an image's bytes are 0 to 1
    x_moments = moments(train.x, constant=unit) if normalise else None
    y_moments = moments(_columns(train.y), constant=1.0) if standardise_target and spec.task == "regression" else None

    def split(rows: Arrays) -> Split:
        x = scaled(rows.x, x_moments or (0.0, unit))
        if spec.task == "classification":
            y = torch.from_numpy(rows.y.astype(np.int64))
        else:
            y = scaled(_columns(rows.y), y_moments or (0.0, 1.0))
        return Split(x, y, rows.names(), rows.groups, rows.left_out)

    return Splits(
        split(train),
        split(val),
        test=lambda: split(checked(spec, test(), "data: the test set")),
        identity=identity,
        scale=x_moments and as_scale(*x_moments, unit),
        target_scale=y_moments and as_scale(*y_moments, 1.0),
        left_out=left_out,
    )


def moments(x: np.ndarray, *, constant: float) -> tuple[np.ndarray, np.ndarray]:
    """(mean, std) in float64: (features,) of a table, (C, 1, 1) of images; `constant` is the std of what is constant.

    What is not finite is passed over: the audit shall find the sample that has it, not a column made NaN by it.
    """
    axes = (0, *range(2, x.ndim))
    count, total, squares = 0, 0, 0
    for chunk in _chunks(x):
        finite = np.isfinite(chunk)
        count = count + finite.sum(axes, keepdims=True)
        total = total + chunk.sum(axes, keepdims=True, where=finite)
    mean = total / np.maximum(count, 1)
    for chunk in _chunks(x):
        squares = squares + np.square(chunk - mean).sum(axes, keepdims=True, where=np.isfinite(chunk))
    std = np.sqrt(squares / np.maximum(count, 1))
    std = np.where(std > 1e-13 * np.abs(mean), std, constant)  # below that it is the rounding of a constant
    return mean[0], std[0]


def scaled(x: np.ndarray, moments: tuple[Any, Any]) -> torch.Tensor:
    """(x - mean) / std as float32, computed in float64: a year or a time stamp keeps its digits."""
    out, start = np.empty(x.shape, np.float32), 0
    for chunk in _chunks(x):
        chunk -= moments[0]
        chunk /= moments[1]
        out[start : start + len(chunk)] = chunk
        start += len(chunk)
    return torch.from_numpy(out)


def as_scale(mean: np.ndarray, std: np.ndarray, unit: float) -> Scale:
    """The Scale of x / unit that says what was done, and can undo it."""
    return Scale(torch.from_numpy(mean / unit).float(), torch.from_numpy(std / unit).float(), fitted_on="train")


def _chunks(x: np.ndarray) -> Iterator[np.ndarray]:
    """Copies of a few rows at a time in float64."""
    rows = max(CHUNK // max(x[:1].size, 1), 1)
    for start in range(0, len(x), rows):
        yield x[start : start + rows].astype(np.float64)


def _columns(y: np.ndarray) -> np.ndarray:
    """Targets as (N, outputs)."""
    return y.reshape(len(y), -1)


def checked(spec: Spec, arrays: Arrays, where: str) -> Arrays:
    """The arrays, if they are what the spec says; else a ConfigError that shows both."""
    for name in ("x", "y", "ids", "groups", "marks"):  # lists and tensors serve, too
        part = getattr(arrays, name)
        setattr(arrays, name, None if part is None else np.asarray(part))
    if arrays.x.shape[1:] != spec.shape:
        raise ConfigError(f"{where}: x is {arrays.x.shape}, but its spec says (N, {', '.join(map(str, spec.shape))})")
    for name in ("y", "ids", "groups", "marks"):
        part = getattr(arrays, name)
        if part is not None and len(part) != len(arrays.x):
            raise ConfigError(f"{where}: {name} has {len(part)} entries, but x has {len(arrays.x)} samples")
    if spec.task == "classification":
        whole = arrays.y.dtype.kind in "iub" and arrays.y.ndim == 1
        if not whole or (len(arrays.y) and not 0 <= arrays.y.min() <= arrays.y.max() < spec.outputs):
            seen = ", ".join(map(str, np.unique(arrays.y)[:5]))
            raise ConfigError(f"{where}: labels must be whole numbers from 0 to {spec.outputs - 1}; y has {seen}, …")
    elif spec.masks and (arrays.y.shape[1:] != spec.masks or not np.isin(arrays.y, (0, 1)).all()):
        raise ConfigError(
            f"{where}: masks must be (N, {', '.join(map(str, spec.masks))}) of 0 and 1; y is {arrays.y.shape}"
        )
    elif _columns(arrays.y).shape[1] != spec.outputs:
        raise ConfigError(f"{where}: y is {arrays.y.shape}, but its spec says {spec.outputs} target columns")
    return arrays
