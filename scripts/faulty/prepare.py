"""Data of one's own: one of our data sets, changed after it was split and scaled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from plumbline.data import Data, Spec, Split, Splits, tabular, vision

SOURCES: dict[str, Callable[..., Data]] = {
    "digits": tabular.digits, "wine": tabular.wine, "breast_cancer": tabular.breast_cancer,
    "diabetes": tabular.diabetes, "fashion_mnist": vision.fashion_mnist,
}  # fmt: skip
Change = Callable[..., tuple[Split, Split] | Splits]


def prepared(change: Change, spec: Callable[[Spec], Spec] = lambda spec: spec) -> Callable[..., Data]:
    """A data set from a change (data, draws) -> (train, val); spec: what the change does to the facts."""

    def data(*, of: str, **options: Any) -> Data:
        source = SOURCES[of](**options)

        def load() -> Splits:
            made = change(source, np.random.default_rng(options["split_seed"]))
            if isinstance(made, Splits):
                return made
            train, val = made
            return Splits(train, val, unopened, source.identity, source.scale, source.target_scale)

        return Data(spec(source.spec), load)

    data.__name__, data.__doc__, data.__module__ = change.__name__, change.__doc__, change.__module__
    return data


def unopened() -> NoReturn:
    raise RuntimeError("these data are for the checks: their test set is never opened")


def split(x: Tensor, y: Tensor, first: int = 0, groups: np.ndarray | None = None) -> Split:
    """A split whose ids are row numbers from `first` on: a copy has an id of its own, as in anybody's table."""
    return Split(x.clone(), y.clone(), np.arange(first, first + len(y)), groups)


def both(change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], data: Data) -> tuple[Split, Split]:
    """The same change (x, y) -> (x, y) to train and to validation."""
    parts = (data.train, data.val)
    return tuple(Split(*change(part.x.clone(), part.y.clone()), part.ids, part.groups) for part in parts)


def inputs(change: Callable[[Tensor], Tensor], part: Split) -> Split:
    """A split with its inputs changed."""
    return Split(change(part.x.clone()), part.y, part.ids, part.groups)


def drawn(count: int, of: int, draws: np.random.Generator) -> Tensor:
    """`count` different row numbers below `of`."""
    return torch.from_numpy(draws.permutation(of)[:count])
