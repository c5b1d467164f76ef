"""Whether the labels can be told from the inputs, in one split and from one to the other; and which look wrong."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from plumbline.checks.core import Finding
from plumbline.checks.kernel import Kernel, few_features, ridge, told
from plumbline.checks.leaks import MOST, alone
from plumbline.checks.view import View
from plumbline.ranges import Count, NonNegative, Share

MOST_NAMED = 20  # samples listed in a finding


def unlearnable(
    view: View, *, least: Count, enough: NonNegative, none: NonNegative, hardly: Share, beside: Share
) -> Finding | None:
    """Whether quick learners tell the labels of held-out train samples from their inputs: at all, and better than those of
    the samples that are stored before or after them."""
    if len(view.train) < least or not _varies(view):
        return None
    score, sigmas = _best(view, view.standard[0], view.targets[0], view.kernel.left_out)
    if math.isnan(score):
        return None  # a single class has samples worth the name
    what = "mean recall" if view.classes else "correlation"
    evidence = {what.replace(" ", "_"): score, "sigmas": sigmas, "samples": len(view.train)}
    skill = _share(view, score)
    moved = _beside(view, skill + beside, enough) if skill < 1 - beside else None
    if sigmas > enough and not moved and not (_many(view) and skill < hardly):
        return Finding("ok", f"quick learners tell held-out labels from the inputs: {what} {score:.2f}", evidence)
    said = f"quick learners can hardly tell held-out labels of train from the inputs: {what} {score:.3f}, "
    said += f"{sigmas:.1f} standard deviations from chance"
    if moved:
        near, apart, where = moved
        evidence |= {"beside": near, "beside_sigmas": apart}
        said += f"; the label of the sample stored {where} each they tell better: {near:.3f}"
    if len(view.val) >= least:
        x = view.standard[1]
        own, apart = _best(view, x, view.targets[1], Kernel(x, view.targets[1]).left_out)
        evidence |= {"val_alone": own, "val_sigmas": apart}
        said += "; those of validation can be told" if apart > 2 * enough else "; nor can those of validation"
    return Finding(
        "fail" if sigmas < none and len(view.train) >= 2 * least else "warn", said, evidence,
        cause="labels were moved on by one: a line at the head of a file, an index that begins at 1" if moved else
        "inputs and labels do not belong together: one of them was shifted, sorted or shuffled without the other",
        advice=(
            "look at twenty samples with their labels (the grid in the report)",
            "look at every step that reorders, filters or joins inputs and labels",
        ),
        source="S0: labels shifted by one; a linear model and nearest neighbours come first",
    )  # fmt: skip


def cross_labels(
    view: View, *, least: Count, sure: NonNegative, learned: Share, kept: Share, lost: Share, renamed: Share
) -> Finding | None:
    """Whether what is learned from train holds for validation, class by class."""
    if min(len(view.train), len(view.val)) < least or not _varies(view):
        return None
    x = _own_moments(view)
    here, here_sigmas = told(view.kernel.left_out, view.targets[0], _prior(view))
    if not here_sigmas >= sure or _share(view, here) < learned:
        return None  # little is learned, so little can fail to carry over
    answers = view.kernel(x)
    there, there_sigmas = told(answers, view.targets[1], _prior(view))
    evidence = {"held_out_train": here, "validation": there, "validation_sigmas": there_sigmas}
    advice = (
        "look at how each split reads its labels",
        "look at how each split reads its inputs: inverted, other channels",
    )
    common = {"advice": advice, "source": "S0: test every script that prepares data"}
    if view.classes and (others := _renamed(view, answers, renamed)):
        named = ", ".join(
            f"{_name(view, c)} looks like train's {_name(view, d)} ({k} of {n})" for c, d, k, n in others[:3]
        )
        said = f"{len(others)} classes of validation look like others of train: {named}"
        cause = "classes are numbered differently in the two splits, or the inputs of one are altered"
        return Finding("fail", said, evidence | {"classes": len(others)}, cause=cause, **common)
    if math.isnan(there):
        return None
    carried = _share(view, there) / _share(view, here)
    if carried < kept and (there_sigmas < sure or carried < lost):
        what = "mean recall" if view.classes else "correlation"
        said = f"what is learned from train does not hold for validation: {what} {there:.2f} there, {here:.2f} on held-out train"
        return Finding(
            "fail",
            said,
            evidence | {"kept": carried},
            cause="the splits differ in their labels or in their inputs",
            **common,
        )
    return Finding("ok", "what quick learners learn from train holds for validation", evidence)


def label_errors(
    view: View,
    *,
    least: Count,
    surest: Share,
    floor: Share,
    right: Share,
    learned: Share,
    gap: NonNegative,
    sure: NonNegative,
    numbers: NonNegative,
) -> Finding | None:
    """Labels of train that the inputs contradict, by confident learning (Northcutt, Jiang and Chuang 2021).

    With the extra `audit` it is cleanlab's; without it, ours, which finds fewer. An alarm needs more than hard data:
    errors among the answers that are surest, or train worse on itself than on validation.
    """
    if len(view.train) < least or not _varies(view):
        return None
    if not view.classes:
        return _noisy_numbers(view, gap, numbers)
    y, n = view.train.y, len(view.train)
    share = view.kernel.left_out.clamp(min=1e-3)
    share = share / share.sum(1, keepdim=True)
    guess = share.argmax(1)
    wrong = guess != y
    suspects, how = _suspects(share, y)
    order = share[suspects, y[suspects]].argsort()
    rows = suspects[order]
    first = share.amax(1).argsort(descending=True)[: int(surest * n)]
    bottom, told_right = wrong[first].float().mean().item(), 1 - wrong.float().mean().item()
    agreed = view.kernel(_own_moments(view)).argmax(1) == view.val.y
    ahead = agreed.float().mean().item() - told_right
    spread = math.sqrt(told_right * (1 - told_right) * (1 / n + 1 / len(view.val))) + 1e-9
    evidence = {
        "suspects": len(rows), "share": len(rows) / n, "by": how, "errors_of_the_surest": bottom, "validation_ahead": ahead,
        "samples": [f"{view.train.ids[row]}: {_name(view, int(y[row]))}, looks like {_name(view, int(guess[row]))}"
                    for row in rows[:MOST_NAMED].tolist()],
    }  # fmt: skip
    if not len(rows):
        return Finding("ok", "no label of train looks wrong", evidence)
    said = f"{len(rows)} of {n} labels of train look wrong ({len(rows) / n:.1%}), first {evidence['samples'][0]}"
    skill = (told_right - _chance(view)) / (1 - _chance(view))
    plateau = bottom > floor and bottom * len(first) >= 5 and told_right > right * (1 - bottom) and skill > learned
    behind = ahead > gap and ahead > sure * spread
    if not plateau and not behind:
        return Finding(
            "info", said, evidence, advice=("look at them: the grid of the report shows how they should look",)
        )
    why = (
        f"even the surest answers are wrong in {bottom:.1%}"
        if plateau
        else f"validation is told {ahead:.1%} better than train itself"
    )
    return Finding(
        "warn", f"{said}; {why}", evidence,
        cause="labels of train are noisy: mistakes of annotation, or of a join",
        advice=(
            "correct the listed labels, or leave them out",
            "the extra `audit` (cleanlab) finds more of them" if how == "neighbours" else "label smoothing softens the rest",
        ),
        source="S0: check labels for mistakes; Northcutt et al. 2021, Confident learning",
    )  # fmt: skip


def _noisy_numbers(view: View, gap: float, numbers: float) -> Finding | None:
    """Whether targets of train are told worse from each other than those of validation are from them."""
    val, (train, targets) = _own_moments(view), (view.standard[0], view.targets)
    learners = [(view.kernel.left_out, view.kernel(val)), ridge(train @ view.axes, targets[0], val @ view.axes)]
    scored = [
        (there, here)
        for answers in learners
        for here, there in zip(*map(_correlations, answers, targets), strict=True)
        if math.isfinite(here) and math.isfinite(there)
    ]
    if min(map(len, targets)) < 20 or not scored:
        return None
    there, here = max(scored)
    apart = (math.atanh(min(there, 0.999)) - math.atanh(max(min(here, 0.999), 0.0))) / math.sqrt(
        1 / (len(train) - 3) + 1 / (len(val) - 3)
    )  # Fisher 1921
    evidence = {"correlation_train": here, "correlation_val": there, "sigmas": apart}
    if there - here <= gap or apart <= numbers:
        return Finding("ok", "targets of train are as consistent as those of validation", evidence)
    return Finding(
        "warn",
        f"targets of train are told worse from the others (correlation {here:.2f}) than those of validation ({there:.2f}), "
        f"by {apart:.1f} standard deviations",
        evidence,
        cause="targets of train are noisy, or partly shuffled",
        advice=(
            "look at the samples that a simple model gets most wrong",
            "look at each step that joins inputs and targets",
        ),
        source="S0: check labels for mistakes",
    )


def _correlations(answers: Tensor, targets: Tensor) -> list[float]:
    """(k) of each column; NaN where one of the two does not vary."""
    a, t = answers - answers.mean(0), targets - targets.mean(0)
    return ((a * t).sum(0) / (a.norm(dim=0) * t.norm(dim=0))).tolist()


def _suspects(share: Tensor, y: Tensor) -> tuple[Tensor, str]:
    """(rows whose label is contradicted, by whom) from held-out probabilities (n, C)."""
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        own = share[torch.arange(len(y)), y]
        counts = torch.bincount(y, minlength=share.shape[1])
        usual = torch.bincount(y, own, minlength=share.shape[1]) / counts.clamp(min=1)
        usual[counts == 0] = torch.inf  # nothing can look like a class without samples
        best = share.max(1)
        return ((best.indices != y) & (best.values >= usual[best.indices])).nonzero().flatten(), "neighbours"
    there = y.unique()  # cleanlab wants each class to have samples
    compact = share[:, there] / share[:, there].sum(1, keepdim=True)
    found = find_label_issues(torch.searchsorted(there, y).numpy(), compact.double().numpy(), n_jobs=1)
    return torch.as_tensor(found).nonzero().flatten(), "cleanlab"


def _renamed(view: View, answers: Tensor, most: float) -> list[tuple[int, int, int, int]]:
    """(class, the class it looks like, in how many, of how many) of validation, where train tells both apart."""
    held_out = view.kernel.left_out.argmax(1)
    guess, y, found = answers.argmax(1), view.val.y, []
    for c in y.unique().tolist():
        mine, theirs = guess[y == c], held_out[view.train.y == c]
        counts = torch.bincount(mine, minlength=view.spec.outputs)
        other = int(counts.argmax())
        told_apart = len(theirs) >= 5 and (theirs == c).float().mean() > most
        if other != c and len(mine) >= 5 and counts[other] > most * len(mine) and told_apart:
            found.append((c, other, int(counts[other]), len(mine)))
    return found


def _best(view: View, x: Tensor, targets: Tensor, answers: Tensor) -> tuple[float, float]:
    prior = targets.mean(0) if view.classes else None
    tries = [told(answers, targets, prior)]
    if x.shape[1] > 20:
        tries.append(told(few_features(x, targets), targets, prior))
    return max(tries, key=lambda pair: pair[1])


def _beside(view: View, above: float, sure: float) -> tuple[float, float, str] | None:
    """(score, its distance from chance, where) of the labels stored after each sample, or before it, that are told so much
    better than its own."""
    whole, rows, found = view.data.train.targets.cpu(), view.train.rows, []
    for step, where in ((1, "after"), (-1, "before")):
        there = (rows + step >= 0) & (rows + step < len(whole))
        x, stored = view.standard[0][there], whole[rows[there] + step]
        targets = one_hot(stored, view.spec.outputs).float() if view.classes else stored - stored.mean(0)
        score, sigmas = told(Kernel(x, targets).left_out, targets, targets.mean(0) if view.classes else None)
        if sigmas > sure and _share(view, score) > above and not _holds_its_past(x, stored, view.classes):
            found.append((score, sigmas, where))
    return max(found, default=None)


def _holds_its_past(x: Tensor, y: Tensor, classes: bool) -> bool:
    """Whether features tell the targets stored beside them, as in series."""
    overall, each = alone(x.flatten(1)[:MOST], y[:MOST], classes)
    return max(overall.max(), each.amax(0).min()) > 0.95


def _own_moments(view: View) -> Tensor:
    """Validation inputs scaled by validation itself: another scaling is data.shift's to tell, not a matter of labels."""
    train, val = view.standard
    if len(val) < 30:
        return val
    ours, theirs = ((x.mean(0), x.std(0, correction=0)) for x in (train, val))
    if view.images:
        theirs = theirs[0], theirs[1].square().mean().sqrt().clamp(min=1e-6)
        return (val - theirs[0]) / theirs[1] * ours[1].square().mean().sqrt() + ours[0]
    return (val - theirs[0]) / theirs[1].clamp(min=1e-6) * ours[1] + ours[0]


def _share(view: View, score: float) -> float:
    """A score where 0 is chance and 1 is all."""
    chance = 1 / len(view.train.y.unique()) if view.classes else 0.0
    return (score - chance) / (1 - chance)


def _many(view: View) -> bool:
    """Several classes with samples enough, so that a quick learner should tell more than a little."""
    return view.classes and view.spec.outputs > 2 and len(view.train) >= 30 * view.spec.outputs


def _prior(view: View) -> Tensor | None:
    return view.targets[0].mean(0) if view.classes else None


def _varies(view: View) -> bool:
    """Whether there is anything to tell: other checks name inputs or targets that are all the same."""
    return bool((view.standard[0] != 0).any()) and len(view.train.y.unique(dim=0)) > 1 and len(view.val) > 0


def _chance(view: View) -> float:
    return view.targets[0].mean(0).max().item()


def _name(view: View, label: int) -> str:
    return str(view.spec.classes[label]) if label < len(view.spec.classes) else str(label)
