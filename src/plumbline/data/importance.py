"""What a column of a table is worth, as the rows at hand say: by itself, to a model, or beside the others."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

TREES = 300  # of a forest: fewer, and columns of equal worth are told apart by chance
FOLDS = 5  # of train, in which what is held out judges
COOLING = (0.02, 0.0005)  # of annealing, first and last: what may get worse by so much is taken a third of the time
TURNS = 12  # of annealing, for each column


@dataclass
class Table:
    """What a choice may see. x: (n, inputs) of train; y: (n,); columns: the inputs of each column; groups: (n,) or None."""

    x: np.ndarray
    y: np.ndarray
    columns: list[np.ndarray]
    classes: bool
    groups: np.ndarray | None


def uncorrelated(table: Table, above: float) -> list[int]:
    """The columns but for numbers that correlate above `above`, in absolute value, with a kept one before them."""
    numbers = [at for at, inputs in enumerate(table.columns) if len(inputs) == 1]
    z = table.x[:, [table.columns[at][0] for at in numbers]]
    z = z - z.mean(0)
    z = (z / np.maximum(np.linalg.norm(z, axis=0), 1e-12)).astype(np.float32)
    close = np.abs(z.T @ z) > above
    dropped = np.zeros(len(numbers), bool)
    for place in range(len(numbers)):
        dropped[place] = (close[place, :place] & ~dropped[:place]).any()
    return sorted(set(range(len(table.columns))) - {numbers[place] for place in np.flatnonzero(dropped)})


def f_test(table: Table) -> np.ndarray:
    """(columns,) how far apart the means of classes are, or how steep a line is, over what is left: F of the best input."""
    from sklearn.feature_selection import f_classif, f_regression

    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of constant inputs, which tell nothing
        found = np.nan_to_num((f_classif if table.classes else f_regression)(table.x, table.y)[0])
    return np.array([found[inputs].max() for inputs in table.columns])


def linear(table: Table) -> np.ndarray:
    """(columns,) the absolute weights of logistic or ridge regression on inputs of one scale, summed over inputs and classes."""
    from sklearn.linear_model import LogisticRegression, Ridge

    x = (table.x - table.x.mean(0)) / np.maximum(table.x.std(0), 1e-12)
    model = LogisticRegression(max_iter=1000) if table.classes else Ridge()
    weights = np.abs(np.atleast_2d(model.fit(x, table.y).coef_)).sum(0)
    return np.array([weights[inputs].sum() for inputs in table.columns])


def mutual_information(table: Table) -> np.ndarray:
    """(columns,) nats that a column tells of the target (Kraskov et al. 2004; Ross 2014)."""
    from sklearn.feature_selection import mutual_info_classif, mutual_info_regression

    discrete = np.array([len(inputs) > 1 for inputs in table.columns])
    codes = [table.x[:, at].argmax(1) if len(at) > 1 else table.x[:, at[0]] for at in table.columns]
    how = mutual_info_classif if table.classes else mutual_info_regression
    return how(np.stack(codes, 1), table.y, discrete_features=discrete, random_state=0)


def forest(table: Table) -> np.ndarray:
    """(columns,) by how much a random forest's splits by a column lower the impurity (Breiman 2001)."""
    importance, at = _forest(table).fit(table.x[:, _inputs(table)], table.y).feature_importances_, 0
    found = []
    for inputs in table.columns:
        found.append(importance[at : at + len(inputs)].sum())
        at += len(inputs)
    return np.array(found)


def permutation(table: Table) -> np.ndarray:
    """(columns,) by how much a forest's held-out score falls when a column is shuffled (Breiman 2001)."""
    generator, found = np.random.default_rng(0), np.zeros(len(table.columns))
    inputs = _inputs(table)
    for fit, held in folds(table):
        model = _forest(table).fit(table.x[fit][:, inputs], table.y[fit])
        x, y = table.x[held], table.y[held]
        best = model.score(x[:, inputs], y)
        for at, column in enumerate(table.columns):
            moved = x.copy()
            moved[:, column] = x[generator.permutation(len(x))][:, column]
            found[at] += best - model.score(moved[:, inputs], y)
    return found


SCORES: dict[str, Callable[[Table], np.ndarray]] = {
    "f_test": f_test, "mutual_information": mutual_information, "linear": linear, "forest": forest, "permutation": permutation,
}  # fmt: skip


def ablation(table: Table) -> list[int]:
    """Drop each column in turn, and leave it out if that is no worse; again, until all are needed."""
    generator, judge = np.random.default_rng(0), Judge(table)
    left = np.ones(len(table.columns), bool)
    best, dropped = judge(left), True
    while dropped:
        dropped = False
        for at in generator.permutation(np.flatnonzero(left)):
            if left.sum() == 1:
                break
            left[at] = False
            now = judge(left)
            if now <= best:
                best, dropped = now, True
            else:
                left[at] = True
    return np.flatnonzero(left).tolist()


def annealing(table: Table) -> list[int]:
    """Drop or take back a column at random; what is worse is taken, too, but ever more seldom.

    The best set that was met is what counts (Kirkpatrick et al. 1983).
    """
    generator, judge = np.random.default_rng(0), Judge(table)
    left = np.ones(len(table.columns), bool)
    now = best = judge(left)
    kept, turns = left.copy(), TURNS * len(left)
    for turn in range(turns):
        heat = COOLING[0] * (COOLING[1] / COOLING[0]) ** (turn / turns)
        other = left.copy()
        at = generator.integers(len(left))
        other[at] = not other[at]
        if not other.any():
            continue
        then = judge(other)
        if then <= now or generator.random() < np.exp((now - then) / heat):
            left, now = other, then
        if now < best or (now == best and left.sum() < kept.sum()):
            best, kept = now, left.copy()
    return np.flatnonzero(kept).tolist()


class Judge:
    """What a set of columns is worth, the less the better: log of a ridge regression's held-out error, and a price.

    The error is of the target, or of the classes one-hot. The price is that of Akaike (1974), 2 / n for each input, so
    that a column does not stay by chance. The sums of squares of each fold are kept: a set costs a solution of them.
    """

    def __init__(self, table: Table):
        self.columns = table.columns
        x = table.x - table.x.mean(0)
        x = x / np.maximum(x.std(0), 1e-12)
        y = table.y[:, None] == np.unique(table.y) if table.classes else table.y[:, None]
        y = y - y.mean(0)
        self.price, self.parts = 2 / len(x), []
        for fit, held in folds(table):
            sums = [x[rows].T @ x[rows] for rows in (fit, held)], [x[rows].T @ y[rows] for rows in (fit, held)]
            self.parts.append((*sums, float((y[held] ** 2).sum())))

    def __call__(self, left: np.ndarray) -> float:
        inputs = np.concatenate([self.columns[at] for at in np.flatnonzero(left)])
        square, error = np.ix_(inputs, inputs), 0.0
        for (xx, xx_held), (xy, xy_held), yy_held in self.parts:
            weights = np.linalg.solve(xx[square] + np.eye(len(inputs)), xy[inputs])
            error += yy_held - 2 * (weights * xy_held[inputs]).sum() + (weights * (xx_held[square] @ weights)).sum()
        return float(np.log(max(error, 1e-300))) + self.price * len(inputs)


def folds(table: Table) -> list[tuple[np.ndarray, np.ndarray]]:
    """(rows to fit, rows held out) of train, five times; no group is in both."""
    from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold

    if table.groups is not None:
        count = min(FOLDS, len(np.unique(table.groups)))
        return list(GroupKFold(count).split(table.x, table.y, table.groups))
    stratified = table.classes and np.unique(table.y, return_counts=True)[1].min() >= FOLDS
    splitter = (StratifiedKFold if stratified else KFold)(FOLDS, shuffle=True, random_state=0)
    return list(splitter.split(table.x, table.y))


def _forest(table: Table) -> Any:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    return (RandomForestClassifier if table.classes else RandomForestRegressor)(TREES, random_state=0)


def _inputs(table: Table) -> np.ndarray:
    return np.concatenate(table.columns)
