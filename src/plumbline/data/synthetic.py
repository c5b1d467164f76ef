"""Data sets that are drawn, not collected: what is to be found in them is known, so a result can be judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, Unpack

import numpy as np

from plumbline.contract import require
from plumbline.data.core import Data, Spec
from plumbline.data.memory import Arrays, in_memory
from plumbline.data.select import TableOptions, choosing, selected
from plumbline.data.splits import DataOptions, check_options
from plumbline.ranges import Index, Items, NonNegative, Range, Samples, Seed, Share

Figure = Literal["circle", "xor", "gauss", "spiral"]
Feature = Literal["x", "y", "x2", "y2", "xy", "sin_x", "sin_y"]
Labelled = tuple[np.ndarray, np.ndarray]  # points (N, 2) and their labels (N,)

FEATURES: dict[Feature, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "x": lambda x, y: x,
    "y": lambda x, y: y,
    "x2": lambda x, y: x * x,
    "y2": lambda x, y: y * y,
    "xy": lambda x, y: x * y,
    "sin_x": lambda x, y: np.sin(x),
    "sin_y": lambda x, y: np.sin(y),
}


def playground(
    *,
    figure: Figure,
    samples: Samples,
    noise: Share,
    features: Annotated[list[Feature], Items(least=1, distinct=True)],
    draw: Seed,
    **options: Unpack[DataOptions],
) -> Data:
    """Points of a plane, about 10 wide, in two classes of about equal size (Smilkov et al. 2017, the TensorFlow Playground).

    noise, 0 to 1, as there: a point of circle and xor has the label of one up to 5 noise away; the arms of spiral get thicker,
    and the clouds of gauss wider.
    """
    check_options(options, groups=False, marks=False)

    def load() -> Arrays:
        generator = np.random.default_rng(draw)
        points, label = _figures[figure](generator, np.arange(samples) % 2, noise)  # (samples, 2), (samples,)
        return Arrays(np.stack([FEATURES[name](*points.T) for name in features], 1), label)

    spec = Spec("classification", (len(features),), 2, ("outside", "inside") if figure == "circle" else ("a", "b"),
                tuple(features))  # fmt: skip
    return in_memory(spec, load, **options)


def _circle(generator: np.random.Generator, label: np.ndarray, noise: float) -> Labelled:
    radius = np.where(label == 1, generator.uniform(0, 2.5, len(label)), generator.uniform(3.5, 5, len(label)))
    angle = generator.uniform(0, 2 * np.pi, len(label))
    points = radius[:, None] * np.stack([np.sin(angle), np.cos(angle)], 1)
    seen = points + noise * generator.uniform(-5, 5, points.shape)
    return points, (np.hypot(*seen.T) < 2.5).astype(int)


def _xor(generator: np.random.Generator, label: np.ndarray, noise: float) -> Labelled:
    size = generator.uniform(0.3, 5.3, (len(label), 2))  # a gap of 0.6 along the axes
    first = generator.choice([-1, 1], len(label))
    points = size * np.stack([first, first * np.where(label == 1, 1, -1)], 1)
    seen = points + noise * generator.uniform(-5, 5, points.shape)
    return points, (seen.prod(1) >= 0).astype(int)


def _gauss(generator: np.random.Generator, label: np.ndarray, noise: float) -> Labelled:
    variance = 0.5 + 7 * noise  # 0.5 to 4 where the Playground's slider ends, at 0.5
    return np.where(label == 1, 2, -2)[:, None] + np.sqrt(variance) * generator.normal(size=(len(label), 2)), label


def _spiral(generator: np.random.Generator, label: np.ndarray, noise: float) -> Labelled:
    along = (np.arange(len(label)) // 2) / max(len(label) // 2, 1)  # 0 to 1, each arm alike
    angle = 1.75 * 2 * np.pi * along + np.pi * label
    points = 5 * along[:, None] * np.stack([np.sin(angle), np.cos(angle)], 1)
    return points + noise * generator.uniform(-1, 1, points.shape), label


_figures: dict[str, Callable[[np.random.Generator, np.ndarray, float], Labelled]] = {
    "circle": _circle, "xor": _xor, "gauss": _gauss, "spiral": _spiral,
}  # fmt: skip


def toy_regression(
    *,
    variant: Literal["fixed", "as_published"],
    samples: Samples,
    features: Annotated[int, Range("[2, 100000]")],
    draw: Seed,
    standardise_target: bool,
    **options: Unpack[DataOptions],
) -> Data:
    """y = s + s², where s is a tenth of the sum of the first half of the features, which are normal.

    as_published: as a well-known notebook has it, which sums over the samples, too, so that all have one target.
    """
    check_options(options, groups=False, marks=False)

    def load() -> Arrays:
        x = np.random.default_rng(draw).normal(size=(samples, features))
        half = x[:, : features // 2]
        total = half.sum(1) / 10 if variant == "fixed" else np.full(samples, half.sum() / 10)
        return Arrays(x, total**2 + total)

    return in_memory(Spec("regression", (features,), 1), load, standardise_target=standardise_target, **options)


def gene_expression(
    *,
    samples: Samples,
    genes: Annotated[int, Range("[2, 100000]")],
    informative: Index,
    effect: NonNegative,
    draw: Seed,
    **options: Unpack[TableOptions],
) -> Data:
    """Two classes that differ in a few of very many genes: many more inputs than samples.

    Genes vary together in pathways of 50. Half of the `informative` ones are raised by `effect` standard deviations
    in the patients, half lowered.
    """
    choice = choosing(options)
    check_options(options, groups=False, marks=False)
    require("data.informative", informative, informative <= genes, f"at most data.genes={genes}")

    def load() -> Arrays:
        generator = np.random.default_rng(draw)
        label = np.arange(samples) % 2
        x = generator.normal(size=(samples, genes))
        pathway = generator.normal(size=(samples, -(-genes // 50)))
        x = 0.9 * x + 0.44 * pathway[:, np.arange(genes) // 50]  # variance 1, correlation 0.19 in a pathway
        chosen = generator.choice(genes, informative, replace=False)
        x[:, chosen] += effect * (label[:, None] - 0.5) * np.where(np.arange(informative) % 2, 1, -1)
        return Arrays(x, label)

    return selected(in_memory(Spec("classification", (genes,), 2, ("healthy", "patient")), load, **options), **choice)
