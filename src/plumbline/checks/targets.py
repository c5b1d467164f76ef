"""The audit of the targets: whether there is something to learn, and whether the metric will show it."""

from __future__ import annotations

import math

import torch

from plumbline.checks.core import Finding
from plumbline.checks.view import View
from plumbline.ranges import NonNegative, Share

BALANCED = ("val/balanced_accuracy", "val/f1")  # objectives that a rare class counts in
MOST_NAMED = 10  # classes listed in a finding


def constant_target(view: View) -> Finding:
    """Whether the targets differ at all, in train and in validation: of one class, or one number, all is known."""
    common = {
        "cause": "the target was computed over the whole set instead of for each sample, or a filter left one class",
        "advice": ("look at how the target is made: one number, or one label, for each sample",),
        "source": "S1's own toy regression sums over all samples: one target for all of them",
    }
    for name, split in (("train", view.data.train), ("val", view.data.val)):
        y = split.targets.cpu()
        if len(y) < 2:
            continue
        if view.classes:
            same, columns = [0] if len(y.unique()) == 1 else [], 1
            what = f"the class {class_name(view, int(y[0]))}"
        else:
            spread, size = y.double().std(0, correction=0), y.double().abs().amax(0)
            same, columns = (spread <= 1e-6 * (1 + size)).nonzero().flatten().tolist(), y.shape[1]
            what = "the number " + ", ".join(f"{y[0, at]:g}" for at in same[:3])
        if len(same) == columns:
            return Finding(
                "fail", f"every target of {name} is {what}: there is nothing to learn", {"split": name}, **common
            )
        if same and view.spec.task == "regression":  # of masks and images, some pixels are never touched
            said = f"{len(same)} of {columns} target columns are constant in {name}"
            return Finding("warn", said, {"split": name, "columns": same[:MOST_NAMED]}, **common)
    return Finding("ok", "the targets differ")


def target_scale(
    view: View, *, far: NonNegative, high: NonNegative, low: NonNegative, gross: NonNegative
) -> Finding | None:
    """Mean and standard deviation of a regression's targets as the loss meets them."""
    if view.classes:
        return None
    y = view.data.train.targets.cpu().double()
    mean, std = y.mean(0), y.std(0, correction=0)
    worst = int(torch.maximum(mean.abs(), std).argmax())
    evidence = {"mean": mean[worst].item(), "std": std[worst].item(), "column": worst}
    said = f"the loss meets targets of mean {mean[worst]:.4g} and standard deviation {std[worst]:.4g}"
    varying = std[std > 1e-9 * (1 + mean.abs())]
    small = len(varying) > 0 and varying.max().item() < low
    if mean.abs().max() <= far and std.max() <= high and not small:
        return Finding("ok", said, evidence)
    grave = mean.abs().max() > gross * far or std.max() > gross * high
    return Finding(
        "fail" if grave else "warn", f"{said}; a network starts near 0 and its steps are made for about 1", evidence,
        cause="the targets are not standardised",
        advice=("data.standardise_target=true; or fit a Scale on train and give it as target_scale: metrics keep the unit",),
        source="Bishop 1995, Neural Networks for Pattern Recognition, 8.2",
    )  # fmt: skip


def class_missing(view: View, *, expected: NonNegative) -> Finding | None:
    """Classes that one split has and another does not."""
    if not view.classes:
        return None
    train, val = (
        torch.bincount(split.targets.cpu(), minlength=view.spec.outputs) for split in (view.data.train, view.data.val)
    )
    unlearned = ((train == 0) & (val > 0)).nonzero().flatten().tolist()
    hoped = train / train.sum() * val.sum()
    untested = ((val == 0) & (train > 0)).nonzero().flatten().tolist()
    absent = ((val == 0) & (train == 0)).nonzero().flatten().tolist()
    evidence = {
        "not_in_train": names(view, unlearned),
        "not_in_val": names(view, untested),
        "nowhere": names(view, absent),
    }
    advice = ("data.split=stratified", "look at how the samples were filtered and split")
    if unlearned:
        samples = int(val[unlearned].sum())
        few = f"{len(unlearned)} class{'es' * (len(unlearned) > 1)}"
        said = (
            f"train has no sample of {few} that validation has ({', '.join(names(view, unlearned))}; {samples} samples)"
        )
        return Finding(
            "fail",
            said,
            evidence,
            cause="the data were filtered, or split by class",
            advice=advice,
            source="S0: look at the classes of each split",
        )
    if untested and hoped[untested].max() >= expected:
        said = f"validation has no sample of {', '.join(names(view, untested))}, but {hoped[untested].max():.0f} were expected"
        return Finding(
            "warn",
            said,
            evidence,
            cause="the data were filtered, or split by class",
            advice=advice,
            source="S0: look at the classes of each split",
        )
    if untested or absent:
        said = (
            f"{len(untested)} rare classes are not in validation, {len(absent)} of {view.spec.outputs} in neither split"
        )
        return Finding("info", said, evidence)
    return Finding("ok", "train and validation have every class", evidence)


def imbalance(view: View, *, least: Share, times: NonNegative) -> Finding | None:
    """The entropy of the classes against its most, ln C: where one class is nearly all, accuracy hides the rest."""
    if not view.classes:
        return None
    counts = torch.bincount(view.data.train.targets.cpu(), minlength=view.spec.outputs).double()
    there = counts[counts > 0]
    prior = there / there.sum()
    entropy = -(prior * prior.log()).sum().item()
    share = entropy / math.log(len(there)) if len(there) > 1 else 1.0
    largest, smallest = int(counts.argmax()), int(torch.where(counts > 0, counts, torch.inf).argmin())
    evidence = {
        "prior_entropy": entropy,
        "of_even": share,
        "largest": prior.max().item(),
        "smallest": prior.min().item(),
    }
    said = (
        f"{prior.max():.1%} of train is {class_name(view, largest)}, {prior.min():.1%} is {class_name(view, smallest)}; "
        f"the prior's entropy is {entropy:.4f}, of equal classes {math.log(max(len(there), 1)):.4f}"
    )  # fmt: skip
    if share >= least and prior.max() < times * prior.min():
        return Finding("ok", said, evidence)
    hidden = share < least and view.cfg.objective not in BALANCED
    return Finding(
        "warn" if hidden else "info", said + "; the objective counts a rare class for next to nothing" * hidden, evidence,
        cause="the classes are as unequal as that, or a filter made them so",
        advice=("objective=val/balanced_accuracy", "init.final_bias=prior starts where the classes are, if the model has a head"),
        source="S0: check the class balance; S2: set the final bias",
    )  # fmt: skip


def names(view: View, labels: list[int]) -> list[str]:
    """The first names of classes."""
    return [class_name(view, label) for label in labels[:MOST_NAMED]] + ["…"] * (len(labels) > MOST_NAMED)


def class_name(view: View, label: int) -> str:
    """A class's name, or its number."""
    return str(view.spec.classes[label]) if label < len(view.spec.classes) else str(label)
