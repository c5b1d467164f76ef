"""Sequences, masks and categories that are drawn, not collected: the truth of each is known."""

from __future__ import annotations

import random
from math import tau
from typing import Annotated, Unpack

import numpy as np

from plumbline.config import ConfigError
from plumbline.data.core import Data, Spec
from plumbline.data.memory import Arrays, in_memory
from plumbline.data.splits import DataOptions, OwnTestOptions, check_options
from plumbline.ranges import NonNegative, Range, Samples, Seed, Size


def sequences(
    *,
    samples: Samples,
    length: Annotated[int, Range("[8, 100000]")],
    channels: Size,
    noise: NonNegative,
    draw: Seed,
    **options: Unpack[DataOptions],
) -> Data:
    """Sequences (T, D) of a low and a high tone, one in each half: rising or falling. Only the order tells them apart."""
    check_options(options, groups=False, marks=False)

    def load() -> Arrays:
        generator = np.random.default_rng(draw)
        y = np.arange(samples) % 2
        low, high = generator.uniform(1, 2, samples), generator.uniform(3, 4, samples)  # turns in half a sequence
        halves = np.where(y == 1, np.stack([low, high]), np.stack([high, low]))  # (2, N); 1: rising
        turns = halves.T.repeat((length - length // 2, length // 2), axis=1) * 2 / length  # (N, T) a step
        phase = generator.uniform(0, tau, (samples, 1, channels))
        x = np.sin(tau * turns.cumsum(1)[:, :, None] + phase)
        return Arrays(x + noise * generator.normal(size=x.shape), y)

    return in_memory(Spec("classification", (length, channels), 2, ("falling", "rising")), load, **options)


def mnist1d(*, order: Seed | None, **options: Unpack[OwnTestOptions]) -> Data:
    """Ten digits as curves of 40 steps (T, 1), drawn by hand, then stretched, moved and made noisy (Greydanus 2020).

    The 4,000 to train with and the 1,000 to test on are those that its package makes, always the same. order: the seed
    of one permutation of the steps, for all samples; null leaves them in theirs. Raises ConfigError.
    """
    check_options(options, groups=False, marks=False)

    def load() -> Arrays:
        try:
            from mnist1d.data import make_dataset
        except ImportError as error:
            said = "needs the package mnist1d: pip install 'plumbline[sequences]', or pip install mnist1d"
            raise ConfigError(f"data=mnist1d: {said} ({error})") from error
        states = random.getstate(), np.random.get_state()  # it seeds both for all the process
        made = make_dataset()
        random.setstate(states[0])
        np.random.set_state(states[1])
        steps = slice(None) if order is None else np.random.default_rng(order).permutation(made["x"].shape[1])
        x, test = (made[part][:, steps, None] for part in ("x", "x_test"))
        return Arrays(x, made["y"], test=lambda: Arrays(test, made["y_test"]))

    return in_memory(Spec("classification", (40, 1), 10, tuple("0123456789")), load, **options)


def shapes(
    *,
    samples: Samples,
    size: Annotated[int, Range("[8, 1024]")],
    shapes: Annotated[int, Range("[1, 100]")],
    noise: NonNegative,
    draw: Seed,
    **options: Unpack[DataOptions],
) -> Data:
    """Grey pictures (1, size, size) of discs and boxes; the target is a mask (2, size, size): discs, boxes."""
    check_options(options, groups=False, marks=False)
    spec = Spec("segmentation", (1, size, size), 2 * size * size, masks=(2, size, size))

    def load() -> Arrays:
        generator = np.random.default_rng(draw)
        across, down = np.meshgrid(np.arange(size), np.arange(size))
        x, y = np.zeros((samples, 1, size, size)), np.zeros((samples, 2, size, size))
        for picture, masks in zip(x, y, strict=True):
            for _ in range(shapes):
                kind, radius = generator.integers(2), generator.uniform(size / 10, size / 5)
                dx, dy = (axis - generator.uniform(radius, size - radius) for axis in (across, down))
                inside = dx**2 + dy**2 < radius**2 if kind == 0 else np.maximum(abs(dx), abs(dy)) < radius
                masks[:, inside] = 0  # what is in front hides what is behind
                masks[kind, inside] = 1
                picture[0, inside] = generator.uniform(0.5, 1)
        return Arrays(x + noise * generator.normal(size=x.shape), y)

    return in_memory(spec, load, **options)


def shops(
    *,
    samples: Samples,
    shops: Annotated[int, Range("[2, 100000]")],
    measures: Size,
    noise: NonNegative,
    draw: Seed,
    **options: Unpack[DataOptions],
) -> Data:
    """Visitors of shops: x (shops + measures,) is the shop, one-hot, and normal measures; the target is who buys.

    Each shop weighs the measures in its own way: who buys is where their weighted sum, of variance 1, and normal noise
    are above 0. So no measure tells anything but together with the shop. Raises ConfigError.
    """
    check_options(options, groups=False, marks=False)

    def load() -> Arrays:
        generator = np.random.default_rng(draw)
        shop, x = generator.integers(shops, size=samples), generator.normal(size=(samples, measures))
        weights = generator.normal(size=(shops, measures)) / measures**0.5
        inclination = (weights[shop] * x).sum(1) + noise * generator.normal(size=samples)
        return Arrays(np.hstack([np.eye(shops)[shop], x]), (inclination > 0).astype(int))

    names = (*(f"shop={number}" for number in range(shops)), *(f"measure {number}" for number in range(measures)))
    spec = Spec("classification", (shops + measures,), 2, ("leaves", "buys"), names, categories=((0, shops),))
    return in_memory(spec, load, **options)
