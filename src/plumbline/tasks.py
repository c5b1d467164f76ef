"""What is asked of a network: how its outputs are scored, and what an uninformed one would score."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from plumbline.config import MAXIMISE, MINIMISE, ConfigError, nearest
from plumbline.data.core import Data, Scale, Spec, Split

METRICS = {  # task -> metric -> the better direction; the first after the loss is the task's own objective
    "classification": {
        "loss": MINIMISE, "accuracy": MAXIMISE, "balanced_accuracy": MAXIMISE, "f1": MAXIMISE, "calibration_error": MINIMISE,
    },
    "regression": {"loss": MINIMISE, "rmse": MINIMISE, "mae": MINIMISE, "r2": MAXIMISE},
    "reconstruction": {"loss": MINIMISE, "rmse": MINIMISE, "mae": MINIMISE, "r2": MAXIMISE},
    "segmentation": {"loss": MINIMISE, "dice": MAXIMISE, "iou": MAXIMISE, "accuracy": MAXIMISE},
}  # fmt: skip

BASELINE = {
    "classification": "majority class",
    "regression": "mean of train",
    "reconstruction": "mean of train",
    "segmentation": "mean mask of train",
}

Answers = tuple[Tensor, Tensor]  # of a network: outputs (N, outputs), and the loss of each sample (N,)

ENOUGH = 200  # draws for a standard error: more change the second digit


def objective(spec: Spec, name: str, direction: str) -> tuple[str, str]:
    """(metric, direction) with `auto` resolved: val/accuracy for classes, val/rmse for numbers, val/dice for masks."""
    known = METRICS.get(spec.task)
    if known is None:
        raise ConfigError(
            f"data: its spec says task={spec.task!r}{nearest(spec.task, METRICS)}; accepted: {', '.join(METRICS)}"
        )
    if name == "auto":
        name = f"val/{list(known)[1]}"
    split, _, metric = name.partition("/")
    if split != "val" or metric not in known:
        accepted = [f"val/{key}" for key in known]
        raise ConfigError(
            f"objective={name}: no such metric{nearest(name, accepted)}; a {spec.task} task has: {', '.join(accepted)}"
        )
    return name, known[metric] if direction == "auto" else direction


def score(
    spec: Spec, outputs: Tensor, y: Tensor, scale: Scale | None, weights: Tensor | None = None
) -> dict[str, float]:
    """The task's metrics (all but the loss) of raw outputs (N, outputs) and targets, in the targets' own unit.

    weights (N,): how often each sample counts, for the bootstrap; None counts each once.
    """
    if spec.task == "classification":
        return _classification(outputs, y, weights)
    if spec.task == "segmentation":
        return _segmentation(spec, outputs, y, weights)
    if scale is not None:
        outputs, y = scale.inverse(outputs), scale.inverse(y)
    return _regression(outputs, y, weights)


def _classification(logits: Tensor, y: Tensor, weights: Tensor | None) -> dict[str, float]:
    """Accuracy, mean recall, macro F1 (Opitz and Burst 2019) and expected calibration error in 15 bins (Guo et al. 2017)."""
    classes = logits.shape[1]
    confidence, guess = logits.softmax(1).max(1)
    counts = (
        torch.bincount(y * classes + guess, weights, minlength=classes * classes).view(classes, classes).cpu().double()
    )
    right, actual, guessed = counts.diag(), counts.sum(1), counts.sum(0)
    total = counts.sum()
    seen = (actual + guessed) > 0
    bins = (confidence * 15).long().clamp_(max=14)
    gap = (
        (guess == y).double() - confidence.double()
        if logits.device.type != "mps"
        else (guess == y).float() - confidence
    )
    gap = gap if weights is None else gap * weights
    calibration = torch.bincount(bins, gap, minlength=15).abs().sum().item() / total.item()
    return {
        "accuracy": (right.sum() / total).item(),
        "balanced_accuracy": (right / actual)[actual > 0].mean().item(),
        "f1": (2 * right / (actual + guessed))[seen].mean().item(),
        "calibration_error": calibration,
    }


def _regression(outputs: Tensor, y: Tensor, weights: Tensor | None) -> dict[str, float]:
    """RMSE, MAE and R², each the mean over the target columns; R² over those that vary, NaN if none does."""
    outputs, y = outputs.cpu().double(), y.cpu().double()
    share = (
        torch.full((len(y), 1), 1 / len(y), dtype=torch.float64)
        if weights is None
        else (weights / weights.sum()).cpu().double()[:, None]
    )
    error = outputs - y
    squared = (share * error.square()).sum(0)
    variance = (share * (y - (share * y).sum(0)).square()).sum(0)
    r2 = torch.where(variance > 0, 1 - squared / variance, torch.nan)
    return {
        "rmse": squared.sqrt().mean().item(),
        "mae": (share * error.abs()).sum(0).mean().item(),
        "r2": r2.nanmean().item(),
    }


def _segmentation(spec: Spec, logits: Tensor, y: Tensor, weights: Tensor | None) -> dict[str, float]:
    """Dice (1945) and intersection over union of all pixels together, the mean over the masks; and pixels that are right."""
    painted, true = (part.unflatten(1, spec.masks).flatten(2) for part in (logits > 0, y > 0.5))  # (N, masks, H * W)
    found = [both.sum(2).double() for both in (painted & true, painted, true, painted == true)]
    counts = torch.ones(len(y), dtype=torch.float64) if weights is None else weights.double()
    both, ours, truth, right = (counts.to(part.device) @ part for part in found)
    return {
        "dice": _mean_of_seen(2 * both, ours + truth),
        "iou": _mean_of_seen(both, ours + truth - both),
        "accuracy": (right.sum() / (counts.sum() * spec.outputs)).item(),
    }


def _mean_of_seen(above: Tensor, below: Tensor) -> float:
    """The mean of the ratios; a mask that is neither painted nor true is passed over."""
    return (above / below)[below > 0].mean().item()


def prior(spec: Spec, train: Split) -> Tensor:
    """What is known without an input: the class frequencies of train (outputs,), or the mean target, or mask, (outputs,)."""
    if spec.task == "classification":
        return torch.bincount(train.targets.cpu(), minlength=spec.outputs).double() / len(train)
    return train.targets.cpu().double().mean(0)


def uninformed(spec: Spec, train: Split, samples: int) -> Tensor:
    """The outputs (samples, outputs) of the simplest baseline: it answers the prior to everything."""
    known = prior(spec, train).float()
    if spec.task == "segmentation":
        known = known.clamp(1e-6, 1 - 1e-6).logit()
    answer = known.clamp(min=1e-12).log() if spec.task == "classification" else known
    return answer.expand(samples, -1).contiguous()


def baseline(data: Data, loss: Callable[..., Tensor]) -> dict[str, str | float]:
    """The simplest baseline's name and metrics on validation: what a network has to beat to have learned anything."""
    y = data.val.targets.cpu()
    answers = uninformed(data.spec, data.train, len(y))
    found = {"loss": loss(answers, y).item(), **score(data.spec, answers, y, data.target_scale)}
    return {"name": BASELINE[data.spec.task], **{f"val/{name}": value for name, value in found.items()}}


def interval(
    data: Data, outputs: Tensor, losses: Tensor, y: Tensor, resamples: int, items: Tensor | None, prefix: str = "val"
) -> dict[str, list[float]]:
    """The 95 % percentile bootstrap interval of each metric (Efron 1979): [low, high] by name. Always the same draws.

    items (N, 2): of the split, if its samples are pairs; then items are drawn and not pairs (see `resampled`).
    """
    outputs, losses, y = outputs.cpu(), losses.cpu().double(), y.cpu()
    found: dict[str, list[float]] = {}
    for weights in resampled(len(y), resamples, items):
        for name, value in weighted(data.spec, data.target_scale, outputs, losses, y, weights).items():
            found.setdefault(f"{prefix}/{name}", []).append(value)
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    return {
        name: torch.tensor(values, dtype=torch.float64).nanquantile(ends).tolist() for name, values in found.items()
    }


def paired_error(
    spec: Spec, metric: str, ours: Sequence[Answers], theirs: Sequence[Answers], y: Tensor, resamples: int,
    scale: Scale | None = None, items: Tensor | None = None,
) -> float:  # fmt: skip
    """The standard error of the difference in a metric between two sides, by a paired bootstrap of the samples.

    A side is one network or several, whose scores are averaged. Both are scored on the same draws, those of `interval`: what
    makes a sample hard for both is not in the difference. Of a mean over independent samples, such as accuracy, it is what
    infinitely many draws would give, without any. scale: of the targets, where the outputs are in its unit.
    """
    y, name = y.cpu(), metric.rpartition("/")[2]
    sides = [[(outputs.cpu(), losses.cpu().double()) for outputs, losses in side] for side in (ours, theirs)]
    if items is None and (name == "loss" or (name == "accuracy" and spec.task == "classification")):
        scores = [
            torch.stack(
                [(outputs.argmax(1) == y).double() if name == "accuracy" else losses for outputs, losses in side]
            )
            for side in sides
        ]
        return ((scores[0].mean(0) - scores[1].mean(0)).std(correction=0).nan_to_num(0) / len(y) ** 0.5).item()
    apart = []
    for weights in resampled(len(y), min(resamples, ENOUGH), items):
        one, other = (
            sum(weighted(spec, scale, *answers, y, weights)[name] for answers in side) / len(side) for side in sides
        )
        apart.append(one - other)
    apart = torch.tensor(apart, dtype=torch.float64)
    return apart[apart.isfinite()].std(correction=0).nan_to_num(0).item()


def resampled(count: int, resamples: int, items: Tensor | None = None) -> Iterator[Tensor]:
    """How often each sample is in each draw of a bootstrap, (count,) float64. Always the same draws.

    Pairs of n items are not n² independent samples, so their items are drawn (Snijders and Borgatti 1999, Connections 22;
    Davezies, D'Haultfœuille and Guyonvarch 2021, Annals of Statistics 49): a pair of two that were drawn a and b times is
    there a times b times, and the pair of an item with itself as often as the item is.
    """
    draws = torch.Generator().manual_seed(0)
    drawn = count
    if items is not None:
        known, of = items.unique(return_inverse=True)  # (N, 2) from 0 on
        drawn, alone = len(known), items[:, 0] == items[:, 1]
    for _ in range(resamples):
        times = torch.bincount(torch.randint(drawn, (drawn,), generator=draws), minlength=drawn).double()
        yield times if items is None else torch.where(alone, times[of[:, 0]], times[of].prod(1))


def weighted(
    spec: Spec, scale: Scale | None, outputs: Tensor, losses: Tensor, y: Tensor, weights: Tensor
) -> dict[str, float]:
    """The loss and the task's metrics where each sample counts so many times."""
    return {
        "loss": (losses * weights).sum().item() / weights.sum().item(),
        **score(spec, outputs, y, scale, weights),
    }
