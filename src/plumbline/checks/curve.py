"""Reading the curve, during training and after it; of our own records or of anybody's. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from plumbline.checks.core import Finding
from plumbline.config import MAXIMISE
from plumbline.ranges import Count, NonNegative, Share

SLOWER = "a tenth of the learning rate: optimiser.lr"
FASTER = "a higher learning rate, after a range test"


@dataclass
class Curve:
    """The records of a run so far, one an epoch, with the keys of metrics.jsonl. None and NaN are not finite."""

    records: list[dict[str, Any]]
    objective: str
    direction: str
    ended: bool  # no more epochs will come
    uninformed: float | None = None  # the loss of knowing nothing
    broken: str = ""  # why the run could not go on, where it could not
    unit: str = "epoch"  # what a record stands for
    known: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, repr=False)  # series asked for

    @classmethod
    def of(cls, run: dict[str, Any], records: list[dict[str, Any]], *, ended: bool, broken: str = "") -> Curve:
        """The curve of a run of ours, from its run.json and its records."""
        return cls(records, run["objective"], run["direction"], ended, run["baseline"]["val/loss"], broken)

    def series(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """(positions, values) of the records that have the key; what is not finite is NaN."""
        if key not in self.known:
            having = [(row.get("epoch", place + 1), row[key]) for place, row in enumerate(self.records) if key in row]
            values = np.array([np.nan if value is None else value for _, value in having], dtype=float)
            at = np.array([at for at, _ in having], dtype=float)
            self.known[key] = at, np.where(np.isfinite(values), values, np.nan)
        return self.known[key]

    def finite(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """(positions, values) where both are finite."""
        at, values = self.series(key)
        return at[np.isfinite(values)], values[np.isfinite(values)]

    @cached_property
    def main(self) -> str:
        """The loss that training is read from: measured as validation is if we have it, else as trained, else validation."""
        return next((key for key in ("train/loss", "fit/loss") if len(self.finite(key)[1])), "val/loss")

    @cached_property
    def reference(self) -> float:
        """The loss that learning starts from: that of knowing nothing, or the first one on record."""
        first = self.finite(self.main)[1][:1]
        return abs(self.uninformed) if self.informed else abs(first[0]) if len(first) else 0.0

    @property
    def informed(self) -> bool:
        """Whether the loss of knowing nothing is known, and says something."""
        return self.uninformed is not None and np.isfinite(self.uninformed) and self.uninformed != 0

    def best(self) -> tuple[int, int] | None:
        """(place of the best value of the objective, number of its values), counted from 1; None if there are none."""
        _, values = self.series(self.objective)
        if not np.isfinite(values).any():
            return None
        signed = values if self.direction == MAXIMISE else -values
        return int(np.nanargmax(signed)) + 1, len(values)

    def name(self, key: str) -> str:
        words = {"train/loss": "the training loss", "fit/loss": "the training loss", "val/loss": "the validation loss"}
        return words.get(key, key)


def noise(values: np.ndarray) -> float:
    """The standard deviation of a curve around its trend, from second differences and their median: steps do not move it."""
    if len(values) < 4:
        return 0.0
    return float(np.median(np.abs(np.diff(values, 2)))) / 0.6745 / 6**0.5


def whole(position: float) -> float | int:
    """A position as one writes it: epoch 6, not 6.0."""
    return int(position) if position == int(position) else float(position)


def level(values: np.ndarray, share: float = 0.1) -> float:
    """Where a curve has come to at its end: the median of its last tenth, of three values at least."""
    return float(np.median(values[-max(3, int(share * len(values))) :]))


def nonfinite(curve: Curve) -> Finding | None:
    """Whether the losses are numbers."""
    broken = [
        (at[np.isnan(values)][0], key)
        for key in ("fit/loss", "train/loss", "val/loss")
        for at, values in [curve.series(key)]
        if np.isnan(values).any()
    ]
    if not broken and not curve.broken:
        return Finding("ok", "every loss is a finite number") if curve.ended and curve.records else None
    if broken:
        epoch, key = min(broken)
        at, values = curve.finite(key)
        before = values[at < epoch]
        said = f"{curve.name(key)} is not finite from {curve.unit} {epoch:g} on" + (
            f"; before, it was {before[-1]:.4g}" if len(before) else ""
        )
        evidence = {
            curve.unit: whole(epoch),
            "last": before[-1] if len(before) else None,
            "lowest": min(before, default=None),
        }
    else:
        said, evidence = f"the training diverged: {curve.broken}", {}
    return Finding(
        "fail", said, evidence,
        cause="the learning rate is too high, or an input or a target is not finite",
        advice=(
            SLOWER, "warm the rate up: schedule.warmup", "clip the gradient: grad_clip=1",
            "look for inputs and targets that are not finite, and for logarithms and divisions in the loss",
        ),
        source="S1: a rate that is too high diverges", symptom=True,
    )  # fmt: skip


def diverging(
    curve: Curve, *, times: NonNegative, last: Count, lost: Share, above: NonNegative, learned: Share
) -> Finding | None:
    """Whether the training loss has grown far beyond where it began; after the end, also whether it lost what it had learned."""
    at, values = curve.finite(curve.main)
    if len(values) < last + 1 or values.min() < 0:
        return None
    lowest, now = values.min(), values[-last:].min()
    start = max(curve.reference, values[0])
    evidence = {"lowest": lowest, "lowest_at": whole(at[values.argmin()]), "now": values[-1], "start": start}
    gone = (
        curve.ended
        and now > lowest + lost * (start - lowest)
        and now > above * lowest
        and lowest < (1 - learned) * start
    )
    if now <= times * start and not gone:
        return Finding("ok", f"{curve.name(curve.main)} stays below where it began", evidence) if curve.ended else None
    since = at[len(values) - next((k for k, value in enumerate(values[::-1]) if value < now), len(values))]
    return Finding(
        "fail", f"{curve.name(curve.main)} is {values[-1]:.4g} at {curve.unit} {at[-1]:g}; it began at {start:.4g} "
        f"and was {lowest:.4g} at {curve.unit} {evidence['lowest_at']:g}", evidence | {"since": whole(since)},
        cause="the learning rate is too high for this network and batch size",
        advice=(SLOWER, "warm the rate up: schedule.warmup", "clip the gradient: grad_clip=1", "a larger batch"),
        source="S1: a rate that is too high diverges", symptom=True,
    )  # fmt: skip


def unbounded(curve: Curve, *, times: NonNegative, slower: NonNegative) -> Finding | None:
    """Whether the loss falls below zero and on, ever faster: what has no floor is not a loss."""
    at, values = curve.finite(curve.main)
    if len(values) < 3:
        return None
    first, last = values[0], values[-1]
    falls = -np.diff(values)
    if last >= 0 or last > -times * max(abs(first), 1e-3) or falls[-1] < slower * falls.mean():
        return None
    return Finding(
        "fail", f"{curve.name(curve.main)} falls without a floor: {first:.4g} at {curve.unit} {at[0]:g}, "
        f"{last:.4g} at {at[-1]:g}", {"first": first, "last": last},
        cause="the sign of the loss, or of a penalty, is wrong",
        advice=("look at the sign of the loss and of each penalty", "a likelihood needs a variance that cannot shrink to 0"),
        source="Tobin: an error that rises while the loss falls is a flipped sign",
    )  # fmt: skip


def not_learning(curve: Curve, *, share: Share, known: Share, steady: Share) -> Finding | None:
    """Whether the training loss ever got better than that of knowing nothing, or, where that is unknown, moved at all."""
    _, values = curve.finite(curve.main)
    if not curve.ended or len(values) < (3 if curve.informed else 5) or values.min() < 0:
        return None
    metric = curve.finite(curve.objective)[1]
    if not curve.informed and curve.direction == MAXIMISE and len(metric) and metric.max() > known:
        return None  # it had learned before the log begins
    lowest, start = values.min(), curve.reference
    fell = 1 - lowest / start if curve.informed else np.ptp(values) / max(np.median(values), 1e-12)
    evidence = {"start": start, "lowest": lowest, "last": values[-1], f"{curve.unit}s": len(values)}
    if fell > share:
        return Finding("ok", f"{curve.name(curve.main)} fell to {lowest:.4g}, from {start:.4g}", evidence)
    classes = round(np.exp(min(np.median(values), 20)))
    uniform = classes >= 2 and abs(np.median(values) - np.log(classes)) < 0.01
    guess = f" (ln {classes}: the same guess for all of {classes} classes)" if uniform else ""
    where = "knowing nothing gives" if curve.informed else "it began at"
    if np.ptp(values) > share * start and np.mean(np.diff(values) < 0) > steady:
        return Finding(
            "warn", f"too slow: {curve.name(curve.main)} falls steadily, but ends at {values[-1]:.4g}, where {where} {start:.4g}",
            evidence, cause="the learning rate is too low, or there are too few updates, for a start this bad",
            advice=(FASTER, "train longer, or with a smaller batch", "a smaller last layer: init.head_std=0.01"),
            source="S1: too low a rate does not get beyond the mean", symptom=True,
        )  # fmt: skip
    return Finding(
        "warn", f"nothing is learned: {curve.name(curve.main)} came to {lowest:.4g}{guess}, where {where} {start:.4g}", evidence,
        cause="the rate is far too low or too high, no gradient arrives, or inputs and labels do not belong together",
        advice=(
            "overfit one batch: if that fails, the fault is in the step, not in the data",
            "look at the update ratios: below 1e-5 the rate is too low, above 0.1 too high",
            FASTER, "check that each input has its own label",
        ),
        source="S2: overfit one batch first", symptom=True,
    )  # fmt: skip


def unstable(curve: Curve, *, share: Share, least: Count, often: Share) -> Finding | None:
    """Whether the training loss leaps up again and again; one bump that heals (another optimiser, a restart) is none."""
    key = next((key for key in ("fit/loss", "train/loss", "val/loss") if len(curve.finite(key)[1])), curve.main)
    at, values = curve.finite(key)
    if not curve.ended or len(values) < 2 * least or values.min() < 0:
        return None
    rises = np.flatnonzero(np.diff(values) > share * min(curve.reference, max(values[0], values.min())))
    apart = rises[np.diff(rises, prepend=-2) > 1]
    evidence = {"leaps": len(apart), "at": at[apart + 1][:5].tolist(), "largest": float(np.diff(values).max())}
    if len(apart) < max(least, often * len(values)):
        return Finding("ok", f"{curve.name(key)} falls steadily", evidence)
    return Finding(
        "warn", f"{curve.name(key)} leaps up {len(apart)} times, by up to {evidence['largest']:.4g}", evidence,
        cause="the learning rate is too high, or the batches are too small",
        advice=(SLOWER, "a larger batch", "clip the gradient: grad_clip=1", "regularise"),
        source="S0: unstable curves want a smaller rate", symptom=True,
    )  # fmt: skip


def overfit(curve: Curve, *, sigmas: NonNegative, least: NonNegative, grave: NonNegative) -> Finding | None:
    """Whether validation loss rises from its minimum by more than its own noise; a gap to training is no overfitting."""
    at, values = curve.finite("val/loss")
    if not curve.ended or len(values) < 5:
        return None
    width = max(3, len(values) // 8)
    means = np.convolve(values, np.full(width, 1 / width), "valid")  # not the luckiest value, but the lowest stretch
    begin, place = int(means.argmin()), int(values.argmin())
    around, rise = float(means[begin]), float(means[-1] - means.min())
    spread = noise(values[begin:] if len(values) - begin > 8 else values) * (2 / width) ** 0.5  # of the difference
    evidence = {
        "lowest": values[place],
        "lowest_at": whole(at[place]),
        "last": means[-1],
        "rise": rise,
        "noise": spread,
    }
    if rise <= max(sigmas * spread, least * abs(around)) or len(means) - begin <= width:  # two stretches, not one
        said = f"the validation loss does not rise again: lowest {values[place]:.4g}, last {values[-1]:.4g}"
        return Finding("ok", said, evidence)
    if curve.main != "val/loss" and level(curve.finite(curve.main)[1]) > means[-1]:
        return None  # training rises with it: that is no overfitting
    lost = rise / max(curve.reference - around, abs(around), 1e-12)
    return Finding(
        "warn" if lost > grave else "info",
        f"{'over-fitting' if lost > grave else 'mild over-fitting'}: the validation loss rises from {values[place]:.4g} at "
        f"{curve.unit} {at[place]:g} to {means[-1]:.4g} at the end",
        evidence | {"lost": lost},
        cause="the network goes on to fit what is particular to the training samples",
        advice=(
            "regularise: regulariser=[dropout], a norm, weight decay (optimiser.weight_decay)",
            "augment the inputs, or find more data", "mixup or label smoothing",
            f"stop earlier (patience): the best weights, of {curve.unit} {at[place]:g}, are what counts",
            "shrink the network last",
        ),
        source="S1: over-fitting is a validation loss that rises; S3: regularise first, shrink last", symptom=True,
    )  # fmt: skip
