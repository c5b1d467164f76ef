"""The five small data sets that ship with scikit-learn: nothing to download, an answer in seconds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Unpack

import numpy as np

from plumbline.data.core import Data, Spec, Split, Splits
from plumbline.data.memory import Arrays, in_memory
from plumbline.data.select import TableOptions, choosing, selected
from plumbline.data.splits import DataOptions, check_options
from plumbline.ranges import Decay, Finite, Seed

CELL = (
    "radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "concave points", "symmetry",
    "fractal dimension",
)  # fmt: skip
CANCER = (*(f"mean {name}" for name in CELL), *(f"{name} error" for name in CELL), *(f"worst {name}" for name in CELL))
WINE = (
    "alcohol", "malic_acid", "ash", "alcalinity_of_ash", "magnesium", "total_phenols", "flavanoids",
    "nonflavanoid_phenols", "proanthocyanins", "color_intensity", "hue", "od280/od315_of_diluted_wines", "proline",
)  # fmt: skip
IRIS = ("sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)")
DIABETES = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")


def digits(**options: Unpack[DataOptions]) -> Data:
    """1,797 handwritten digits, 8 by 8 grey values from 0 to 1 (Alpaydin and Kaynak 1998)."""
    spec = Spec("classification", (1, 8, 8), 10, tuple("0123456789"))
    return _bundled(spec, "load_digits", options, largest=16)


def digits_permuted(*, order: Seed, **options: Unpack[DataOptions]) -> Data:
    """`digits` with the pixels of every image in the order that `order` draws: what was near is near no more."""
    spec = Spec("classification", (1, 8, 8), 10, tuple("0123456789"))
    return _bundled(spec, "load_digits", options, largest=16, order=np.random.default_rng(order).permutation(64))


def digits_reconstruction(**options: Unpack[DataOptions]) -> Data:
    """`digits` as they are to be reproduced: the target of an image is that image, 64 numbers from 0 to 1."""
    check_options(options, groups=False, marks=False)

    def load() -> Arrays:
        from sklearn import datasets

        x = datasets.load_digits(return_X_y=True)[0] / 16
        return Arrays(x.reshape(-1, 1, 8, 8), x)

    return in_memory(Spec("reconstruction", (1, 8, 8), 64), load, standardise_target=False, **options)


def breast_cancer(**options: Unpack[TableOptions]) -> Data:
    """569 tumours, 30 measures of their cells' nuclei; malignant or benign (Street, Wolberg and Mangasarian 1993)."""
    spec = Spec("classification", (30,), 2, ("malignant", "benign"), CANCER)
    return _bundled(spec, "load_breast_cancer", options)


def wine(**options: Unpack[TableOptions]) -> Data:
    """178 wines of three growers, 13 chemical measures (Aeberhard and Forina 1992)."""
    spec = Spec("classification", (13,), 3, ("class_0", "class_1", "class_2"), WINE)
    return _bundled(spec, "load_wine", options)


def iris(**options: Unpack[TableOptions]) -> Data:
    """150 flowers of three species, 4 lengths (Fisher 1936)."""
    spec = Spec("classification", (4,), 3, ("setosa", "versicolor", "virginica"), IRIS)
    return _bundled(spec, "load_iris", options)


def diabetes(*, standardise_target: bool, **options: Unpack[TableOptions]) -> Data:
    """442 patients, 10 measures; how far the disease went in a year, 25 to 346 (Efron et al. 2004)."""
    spec = Spec("regression", (10,), 1, features=DIABETES)
    # scikit-learn would hand it out scaled by all 442 patients; the raw measures are scaled here, by train
    return _bundled(spec, "load_diabetes", options, standardise_target=standardise_target, scaled=False)


def diabetes_outliers(
    *, share: Decay, factor: Finite, draw: Seed, standardise_target: bool, **options: Unpack[TableOptions]
) -> Data:
    """`diabetes` with wrong numbers in train: a `share` of its targets, as standardised, times `factor`; val has none."""
    data = diabetes(standardise_target=standardise_target, **options)

    def load() -> Splits:
        whole = data._load()
        y = whole.train.y.clone()
        y[np.random.default_rng(draw).permutation(len(y))[: round(share * len(y))]] *= factor
        return replace(whole, train=Split(whole.train.x, y, whole.train.ids))

    return Data(data.spec, load)


def _bundled(
    spec: Spec, loader: str, options: dict[str, Any], *, largest: int = 1, order: Any = slice(None), **how: Any
) -> Data:
    choice = choosing(options)
    check_options(options, groups=False, marks=False)
    standardise_target = how.pop("standardise_target", False)

    def load() -> Arrays:
        from sklearn import datasets  # 0.7 s: not before it is needed

        x, y = getattr(datasets, loader)(return_X_y=True, **how)
        return Arrays((x / largest)[:, order].reshape(-1, *spec.shape), y)

    data = in_memory(spec, load, standardise_target=standardise_target, **options)
    return selected(data, **choice) if choice else data
