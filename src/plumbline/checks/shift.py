"""Whether train and validation are of one kind."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from plumbline.checks.core import Finding
from plumbline.checks.kernel import Kernel
from plumbline.checks.view import COMPONENTS, View, principal
from plumbline.ranges import NonNegative, Range

MOST = 300  # samples of each split that the classifier sees: its cost grows with the cube
FOLDS = 4


def shift(
    view: View, *, apart: NonNegative, times: NonNegative, auc: Annotated[float, Range("[0.5, 1]")], sigmas: NonNegative
) -> Finding | None:
    """Means and spreads of the inputs and targets of both splits, and a classifier that tries to tell the splits apart.

    Its area under the curve is .5 where they are of one kind (Lopez-Paz and Oquab 2017, classifier two-sample tests).
    """
    train, val = view.standard
    if min(len(train), len(val)) < 10 or not (train.std() or val.std()):  # all constant: another check's
        return None
    common = {
        "advice": (
            "scale both splits by what was fitted on train",
            "look at how each split was made: source, order, filter",
        ),
        "source": "S0: the sets must be of one kind; Lopez-Paz and Oquab 2017",
    }
    mean, spread = (
        (val.mean() - train.mean()).item() / max(train.std().item(), 1e-9),
        (val.std() / train.std().clamp(min=1e-9)).item(),
    )
    slack = 4 / math.sqrt(min(len(train), len(val)))
    evidence = {"mean_apart": mean, "spread_ratio": spread}
    if abs(mean) > max(apart, slack) or not 1 / times < spread < times:
        said = f"validation is scaled differently: its mean lies {mean:.2f} standard deviations from train's, "
        said += f"its spread is {spread:.2f} times train's"
        return Finding("fail", said, evidence, cause="the splits were normalised with different constants", **common)
    if moved := _targets(view, apart, times, slack):
        return Finding(
            "fail", moved, evidence, cause="the targets of the splits were made or scaled differently", **common
        )
    area, deviations = told_apart(view)
    evidence |= {"auc": area, "sigmas": deviations}
    said = f"a classifier tells validation from train: area under the curve {area:.2f}"
    if area > auc and deviations > sigmas:
        return Finding(
            "warn", said, evidence, cause="the splits come from different sources, times or places", **common
        )
    if deviations > sigmas:
        return Finding("info", said, evidence, **common)
    return Finding("ok", f"no classifier tells validation from train: area under the curve {area:.2f}", evidence)


def told_apart(view: View) -> tuple[float, float]:
    """(area under the curve, its distance from .5 in standard deviations), on held-out folds; groups stay whole."""
    (train, val), count = view.standard, min(MOST, len(view.train), len(view.val))
    draws = torch.Generator().manual_seed(0)
    rows = [torch.randperm(len(x), generator=draws)[:count] for x in (train, val)]
    x = torch.cat([train[rows[0]], val[rows[1]]])
    x = x - x.mean(0)
    x = x @ principal(x, COMPONENTS)  # of both: axes of train alone would fit its noise, and tell it apart by that
    is_val = torch.arange(2 * count) >= count
    fold = torch.randperm(2 * count, generator=draws) % FOLDS
    if view.train.groups is not None and view.val.groups is not None:
        names = np.concatenate([view.train.groups[rows[0].numpy()], view.val.groups[rows[1].numpy()]])
        fold = torch.from_numpy(np.unique(names, return_inverse=True)[1]) % FOLDS
    areas, weights = [], []
    for number in range(FOLDS):
        fit, held = fold != number, fold == number
        positive = int(is_val[held].sum())
        if not 0 < positive < int(held.sum()) or not 0 < int(is_val[fit].sum()) < int(fit.sum()):
            continue
        answers = Kernel(x[fit], is_val[fit].float()[:, None])(x[held])[:, 0]
        areas.append(area(answers, is_val[held])), weights.append(int(held.sum()))
    if not areas:
        return 0.5, 0.0
    mean = float(np.average(areas, weights=weights))
    return mean, (mean - 0.5) / math.sqrt((2 * count + 1) / (12 * count * count))


def area(answers: Tensor, positive: Tensor) -> float:
    """The area under the receiver operating characteristic: how often a positive answer exceeds a negative one."""
    order = answers.argsort(stable=True)
    ranks = torch.empty(len(answers), dtype=torch.float64)
    ranks[order] = torch.arange(1, len(answers) + 1, dtype=torch.float64)
    n = int(positive.sum())
    return ((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(answers) - n))).item()


def _targets(view: View, apart: float, times: float, slack: float) -> str:
    """A sentence on targets that differ between the splits by more than chance."""
    train, val = (split.targets.cpu() for split in (view.data.train, view.data.val))
    if view.classes:
        ours, theirs = (torch.bincount(y, minlength=view.spec.outputs).double() / len(y) for y in (train, val))
        distance = (ours - theirs).abs().sum().item() / 2
        chance = math.sqrt(view.spec.outputs / min(len(train), len(val)))  # about what sampling alone may give
        there = (ours > 0).double() * (theirs > 0).double()
        if distance > apart and distance > 2 * chance and there.sum() >= min((ours > 0).sum(), (theirs > 0).sum()):
            return f"the classes have other shares in validation than in train: {distance:.0%} of it would have to change class"
        return ""
    if view.spec.task == "reconstruction":
        return ""  # they are the inputs, which have been compared
    if view.spec.masks:  # most pixels are painted too rarely to be compared: how much of a sample is, can be
        train, val = (y.mean(1, keepdim=True) for y in (train, val))
    there = train.std(0) > 1e-6
    if not there.any():
        return ""
    train, val = train[:, there], val[:, there]
    std = train.std(0)
    moved, ratio = ((val.mean(0) - train.mean(0)) / std).abs().max().item(), (val.std(0) / std)
    if moved > max(apart, slack) or (len(val) >= 30 and not (1 / times < ratio.min() and ratio.max() < times)):
        return (
            f"the targets differ: means lie {moved:.2f} standard deviations apart, spreads are {ratio.max():.2f} to 1"
        )
    return ""
