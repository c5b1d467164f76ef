"""Answers given away: by one feature, or by the border of an image."""

from __future__ import annotations

import torch
from torch import Tensor

from plumbline.checks.core import Finding
from plumbline.checks.data import feature
from plumbline.checks.kernel import Kernel
from plumbline.checks.targets import class_name
from plumbline.checks.view import View
from plumbline.ranges import Share

MOST = 1000  # samples looked at: a leak shows in fewer
PAIRS = 100_000  # of a feature and a column of the targets: a second
CHUNK = 2**22  # numbers sorted at a time
MOST_NAMED = 5  # features listed in a finding


def leak(view: View, *, classes: Share, numbers: Share, pure: Share) -> Finding | None:
    """Whether one feature alone tells the target: samples that are neighbours in it then have the same.

    For numbers, Chatterjee's coefficient (2021): 1 where the target is a function of the feature, 0 where they are
    independent; for classes, the share of neighbours that agree, 0 at what chance gives.
    """
    x, y = view.flat[0][:MOST], view.train.y[:MOST]
    if view.spec.task in ("segmentation", "reconstruction"):
        return None  # the input is meant to tell it, pixel by pixel
    if x.shape[1] < 2 or len(x) < 50 or len(y.unique(dim=0)) < 2:
        return None
    known = classes if view.classes else numbers
    told = alone(x, y, view.classes)
    overall = told[0]
    best = int(overall.argmax())
    top = overall[best].item()
    others = [feature(view, at) for at in overall.argsort(descending=True)[:MOST_NAMED].tolist() if overall[at] > known]
    evidence = {"best": feature(view, best), "known": top, "features": others}
    if top > known:
        said = f"{feature(view, best)} alone tells the target ({top:.3f}, where 1 is all of it)"
        return _given_away(said, evidence)
    each, where = told[1].max(0)
    if view.classes and len(each) > 2 and each.min() > known:
        named = ", ".join(
            f"{feature(view, int(at))} tells {class_name(view, c)}"
            for c, at in zip(y.unique().tolist(), where, strict=True)
        )
        return _given_away(
            f"each class has a feature that alone tells it: {named[:200]}", evidence | {"least": each.min().item()}
        )
    if view.images and view.classes and (found := _pure(x, y, pure)):
        at, bright = found
        some = ", ".join(class_name(view, c) for c in bright[:MOST_NAMED])
        said = f"{feature(view, at)} alone tells {some} from the other classes"
        return _given_away(said, evidence | {"pixel": feature(view, at), "classes": bright})
    return Finding("ok", f"no feature alone tells the target; {feature(view, best)} tells most ({top:.2f})", evidence)


def border(view: View, *, share: Share, kept: Share, behind: Share) -> Finding | None:
    """Whether the frame of an image tells as much as the whole: then a mark or a background is what would be learned."""
    if not (view.images and view.classes) or len(view.train) < 100 or min(view.train.x.shape[2:]) < 6:
        return None
    y = view.train.y[:MOST]
    if len(y.unique()) < 2:
        return None
    x = view.train.x[:MOST].nan_to_num(0, 0, 0)
    wide = max(round(share * min(x.shape[2:])), 1)
    inner = torch.zeros(x.shape[2:], dtype=torch.bool)
    inner[wide:-wide, wide:-wide] = True
    targets = torch.nn.functional.one_hot(y, view.spec.outputs).float()
    frame, middle = (_recall(x[:, :, mask].flatten(1), targets) for mask in (~inner, inner))
    there = torch.bincount(y, minlength=view.spec.outputs) >= 5
    if there.sum() < 2:
        return None
    outside, inside = frame[there].mean().item(), middle[there].mean().item()
    evidence = {"frame_alone": outside, "middle_alone": inside, "pixels_wide": wide}
    if outside > kept and outside > inside - behind:
        return Finding(
            "warn", f"the outer {wide} pixels tell the class as well as the rest: recall {outside:.2f}, {inside:.2f}", evidence,
            cause="a mark, a frame or a background that goes with the class",
            advice=("look at the images in full size", "crop them to what matters, or blank the border and train again"),
            source="S0: be suspicious; Zech et al. 2018 (hospital marks in x-rays)",
        )  # fmt: skip
    return Finding(
        "ok",
        f"the outer {wide} pixels alone tell less than the rest: recall {outside:.2f} against {inside:.2f}",
        evidence,
    )


def _given_away(said: str, evidence: dict) -> Finding:
    return Finding(
        "fail", said, evidence,
        cause="the target, or something that follows from it, is among the inputs",
        advice=("leave that feature out", "ask of each feature whether it will be known when a prediction is wanted"),
        source="S0: data leakage; Kaufman et al. 2012; Chatterjee 2021",
    )  # fmt: skip


def alone(x: Tensor, y: Tensor, classes: bool) -> tuple[Tensor, Tensor]:
    """How much each feature alone tells of the targets, (features,), and of each class or column of them, (features, …)."""
    return _agreement(x, y) if classes else _chatterjee(x, y)


def _by_feature(x: Tensor, y: Tensor, look: object) -> list[Tensor]:
    """What `look` says of the targets in the order of each feature; equal values are in random order."""
    mixed = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[mixed], y[mixed]
    size = max(CHUNK // y.numel(), 1)
    return [look(y[x[:, start : start + size].argsort(dim=0, stable=True)]) for start in range(0, x.shape[1], size)]


def _agreement(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(features,) and (features, classes): how much more often neighbours agree than by chance, 1 at most."""
    there, code = y.unique(return_inverse=True)
    counts = torch.bincount(code).float()
    chance, classes = (counts / len(y)), len(there)

    def look(ordered: Tensor) -> Tensor:  # (n, features)
        same = ordered[1:] == ordered[:-1]
        flat = (ordered[1:] + classes * torch.arange(ordered.shape[1]))[same]
        return torch.bincount(flat, minlength=classes * ordered.shape[1]).view(-1, classes).float()

    agree = torch.cat(_by_feature(x, code, look))
    most = (counts - 1).clamp(min=1)
    each = (agree / most - chance) / (1 - chance).clamp(min=1e-9)
    agreed, by_chance = agree.sum(1) / most.sum(), chance.square().sum()
    return (agreed - by_chance) / (1 - by_chance), each


def _chatterjee(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(features,) the largest of a column, and (features, columns); of very many columns each second, third, …"""
    y = y.flatten(1)[:, :: -(-x.shape[1] * y[0].numel() // PAIRS)].T.contiguous()
    ranks = torch.searchsorted(y.sort().values, y).T.float()  # (n, columns)
    ordered, n = ranks.sort(dim=0).values.double(), len(ranks)
    least = ordered.diff(dim=0).mean(0)  # what a perfect order gives
    most = 2 / n**2 * (2 * torch.arange(n) - n + 1).double() @ ordered  # what chance gives: the mean of all differences
    jumps = torch.cat(_by_feature(x, ranks, lambda ordered: ordered.diff(dim=0).abs().mean(0)))
    each = (1 - (jumps - least).clamp(min=0) / (most.clamp(min=1e-9) - least).clamp(min=1e-9)).float()
    return each.amax(1), each


def _pure(x: Tensor, y: Tensor, pure: float) -> tuple[int, list[int]] | None:
    """(pixel, classes) such that the pixel is bright for these classes and dark for all others, or the reverse."""
    there = [c for c in y.unique().tolist() if (y == c).sum() >= 5]
    if len(there) < 2:
        return None
    bright = x > (x.amax(0) + x.amin(0)) / 2
    share = torch.stack([bright[y == c].float().mean(0) for c in there])  # (classes, pixels)
    clear = torch.maximum(share, 1 - share).amin(0)
    clear[(share > 0.5).all(0) | (share <= 0.5).all(0)] = 0
    at = int(clear.argmax())
    if clear[at] < pure:
        return None
    some = [c for c, part in zip(there, share[:, at].tolist(), strict=True) if part > 0.5]
    rest = [c for c in there if c not in some]
    return at, min(some, rest, key=len)


def _recall(x: Tensor, targets: Tensor) -> Tensor:
    """(classes,) of held-out samples."""
    x = x - x.mean(0)
    if not (x != 0).any():
        return torch.zeros(targets.shape[1])
    right = Kernel(x / x.std().clamp(min=1e-9), targets).left_out.argmax(1) == targets.argmax(1)
    return (targets * right[:, None]).sum(0) / targets.sum(0).clamp(min=1)
