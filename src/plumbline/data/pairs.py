"""Pairs of items: n items are n² ordered pairs, so they are split as items and paired inside each split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, Unpack

import numpy as np
import torch

from plumbline.config import ConfigError
from plumbline.data.core import Data, Spec, Split, Splits, fingerprint
from plumbline.data.memory import Arrays, as_scale, moments, scaled
from plumbline.data.splits import DataOptions, check_options, split_indices
from plumbline.ranges import NonNegative, Range, Seed

Apart = Literal["items", "pairs", "leaking_pairs"]
MOST = 4_000_000_000  # bytes of one split's pairs: they are held in memory


def pairs(
    *,
    apart: Apart,
    items: Annotated[int, Range("[10, 10000]")],
    traits: Annotated[int, Range("[1, 10000]")],
    features: Annotated[int, Range("[1, 10000]")],
    noise: NonNegative,
    draw: Seed,
    **options: Unpack[DataOptions],
) -> Data:
    """Items with hidden traits: x (2, features) is an ordered pair, and the two bind where their traits agree.

    Traits are normal; they agree where their inner product is above 0, for half of the pairs. The features are one
    linear map of the traits, of variance 1, and normal noise. Raises ConfigError.
    """

    def load() -> Arrays:
        generator = np.random.default_rng(draw)
        hidden = generator.normal(size=(items, traits))
        x = hidden @ generator.normal(size=(traits, features)) / traits**0.5
        return Arrays(x + noise * generator.normal(size=x.shape), hidden)

    spec = Spec("classification", (2, features), 2, ("free", "bound"))
    return in_pairs(spec, load, lambda first, second: (first * second).sum(1) > 0, apart=apart, classes=(), **options)


def digit_pairs(*, apart: Apart, **options: Unpack[DataOptions]) -> Data:
    """Pairs of handwritten digits, x (2, 1, 8, 8), and whether both are the same.

    Their items are split as data=digits splits them, so that no network that learnt from pairs has met that one's val.
    """

    def load() -> Arrays:
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        return Arrays(x.reshape(-1, 1, 8, 8) / 16, y.astype(np.int64))

    spec, digits = Spec("classification", (2, 1, 8, 8), 2, ("different", "same")), tuple(map(str, range(10)))
    return in_pairs(spec, load, lambda first, second: first == second, apart=apart, classes=digits, **options)


def in_pairs(
    spec: Spec,
    load: Callable[[], Arrays],
    target: Callable[[np.ndarray, np.ndarray], np.ndarray],
    *,
    apart: Apart,
    classes: tuple[str, ...],
    **options: Unpack[DataOptions],
) -> Data:
    """All ordered pairs of the items that `load` reads, an item with itself included: n items are n² pairs.

    spec: of a pair, of shape (2, *shape of an item), with the classes of the target. load: the items, whose y (n,) or
    (n, …) is what a target is a function of: target(y of the first, y of the second) -> (N,) labels. classes: of the items, if
    their y (n,) is one, so that each split has its share of each; () if it is not. An item is in one
    of train, val and test, and its pairs with it: no pair of val has an item of train. Scales are fitted on the items
    of train, alike for both halves; subset counts items. A split's ids are `first-second`, its groups the first items.

    apart=pairs would deal out pairs instead of items: every item of val is in train, too, and a network that knows the
    items by heart looks good. So it is refused, but for who wants to see just that and says leaking_pairs; the audit calls
    it a leak (data.groups). Raises ConfigError.
    """
    if apart == "pairs":
        raise ConfigError(
            "data.apart=pairs: leaks, since every item of validation would be in train, in other pairs; say "
            "data.apart=items, or leaking_pairs to see what a leak looks like"
        )
    check_options(options, groups=False, marks=False)

    def read() -> Splits:
        source = load()
        x, y, names = np.asarray(source.x), np.asarray(source.y), np.asarray(source.names())
        if x.shape[1:] != spec.shape[1:] or spec.shape[0] != 2:
            raise ConfigError(f"data: an item is {x.shape[1:]}, but the spec says that a pair is {spec.shape}")
        n = len(x)

        def labels(both: np.ndarray) -> np.ndarray:
            return np.asarray(target(*y[both])).astype(np.int64)

        if apart == "items":
            rows = split_indices(y, options, classes=classes)
            inside = [np.stack([part.repeat(len(part)), np.tile(part, len(part))]) for part in rows]
        else:
            every = np.stack([np.arange(n).repeat(n), np.tile(np.arange(n), n)])
            rows = split_indices(labels(every), options, classes=spec.classes)
            inside = [every[:, part] for part in rows]
        room = 4 * max(part.shape[1] for part in inside) * 2 * x[0].size
        if room > MOST:
            raise ConfigError(f"data.items={n}: their pairs would take {room / 1e9:.0f} GB; data.subset takes fewer")
        seen = np.unique(inside[0])
        fitted = moments(x[seen].reshape(len(seen), -1), constant=1.0) if options["normalise"] else None
        mean, std = (0.0, 1.0) if fitted is None else (part.reshape(x.shape[1:]) for part in fitted)
        items = scaled(x, (mean, std))  # (n, *shape)

        def split(both: np.ndarray) -> Split:
            (first, second), of = both, torch.from_numpy(both.T)
            ids = np.array([f"{a}-{b}" for a, b in zip(names[first], names[second], strict=True)])
            return Split(items[of], torch.from_numpy(labels(both)), ids, names[first], items=of)

        train, val, test = inside
        identity = fingerprint(x, y, names)
        scale = None if fitted is None else as_scale(mean, std, 1.0)
        return Splits(split(train), split(val), lambda: split(test), lambda: identity, scale)

    return Data(spec, read)
