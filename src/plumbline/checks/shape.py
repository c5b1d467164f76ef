"""Reading the shape of a curve that went well enough: what is worth to know of it, and what would be better. No alarms."""

from __future__ import annotations

import numpy as np

from plumbline.checks.core import Finding
from plumbline.checks.curve import FASTER, Curve, level, noise, whole
from plumbline.config import MAXIMISE
from plumbline.ranges import NonNegative, Share


def underfit(curve: Curve, *, share: Share, gap: NonNegative) -> Finding | None:
    """Whether training itself stays poor while validation keeps up with it."""
    train, val = curve.finite(curve.main)[1], curve.finite("val/loss")[1]
    if not curve.ended or curve.main == "val/loss" or min(len(train), len(val)) < 5 or not curve.reference:
        return None
    ends = level(train), level(val)
    evidence = {"train": ends[0], "val": ends[1], "start": curve.reference}
    if ends[0] < share * curve.reference or ends[1] - ends[0] > gap * abs(ends[1]):
        return None
    return Finding(
        "info", f"under-fitting: the training loss ends at {ends[0]:.4g} of {curve.reference:.4g}, "
        "and validation is no worse", evidence,
        cause="trained too briefly or too slowly, or the network is too small, or held back by regularisation",
        advice=("train longer", FASTER, "less regularisation", "a deeper network, before a wider one", "better inputs"),
        source="S3: under-fit: deeper before wider", symptom=True,
    )  # fmt: skip


def plateau(curve: Curve, *, share: Share, stretch: Share, left: Share) -> Finding | None:
    """The longest stretch over which the training loss all but stood still, above where it could be: not where it is done."""
    at, values = curve.finite(curve.main)
    if not curve.ended or len(values) < 8 or values.min() < 0 or not curve.reference:
        return None
    fall = max(curve.reference, values[0]) - values.min()
    above = np.flatnonzero(values[:-1] >= left * curve.reference)
    runs = [(flat_from(values, begin, share * fall), begin) for begin in above]
    length, begin = max(runs, key=lambda run: run[0], default=(0, 0))
    end = begin + length
    if length < max(stretch * len(values), 1) or fall <= 0:
        return None
    slope = (values[end] - values[begin]) / max(at[end] - at[begin], 1e-12)
    stands = end == len(values) - 1
    return Finding(
        "info", f"{curve.name(curve.main)} stands at about {values[begin]:.4g} from {curve.unit} {at[begin]:g} to {at[end]:g}"
        + ("" if stands else ", and falls again after"),
        {"from": whole(at[begin]), "to": whole(at[end]), "slope": slope},
        cause="the rate is too high to settle, or the way down is flat here",
        advice=("drop the rate tenfold: schedule=multistep, or schedule=plateau", "wait: some plateaus end",
                "a higher rate, if it falls slowly but steadily"),
        source="S1: a drop of the rate after each plateau", symptom=True,
    )  # fmt: skip


def flat_from(values: np.ndarray, begin: int, most: float) -> int:
    """How many steps from `begin` a curve stays within `most` of where it was there."""
    leaves = np.flatnonzero(np.abs(values[begin:] - values[begin]) > most)
    return int(leaves[0]) - 1 if len(leaves) else len(values) - begin - 1


def drops(curve: Curve, *, factor: NonNegative, gain: NonNegative) -> Finding | None:
    """What each fall of the rate at one blow brought: a plateau, then a drop of the loss; or it fell anyway; or nothing."""
    rates, losses = (dict(zip(*curve.finite(key), strict=True)) for key in ("lr", curve.main))
    at = np.array([place for place in rates if place in losses])
    rate, loss = (np.array([series[place] for place in at]) for series in (rates, losses))
    if not curve.ended or len(at) < 4 or loss.min() <= 0 or rate.min() <= 0:
        return None
    falls = np.r_[0, np.diff(np.log(rate))]
    steady = np.abs(falls) < 0.01
    begun = [k for k in range(2, len(at) - 1) if falls[k] <= np.log(factor) and steady[k - 1] and steady[k + 1]]
    if not begun:
        return None  # it glides, or stays
    told, lost = [], []
    for since, now, until in zip([0, *begun], begun, [*begun[1:], len(at)], strict=False):
        before, after = (float(np.median(values)) for values in (loss[since:now][-3:], loss[now:until][:3]))
        first, second = np.array_split(loss[since:now], 2)
        gained, fell = 1 - after / before, 1 - second.min() / first.min()
        word = "nothing" if gained < gain else "a plateau, then a drop" if fell < gain else "it fell before, too"
        told.append(f"{curve.unit} {at[now]:g}: {word} ({before:.3g} → {after:.3g})")
        lost.append(word == "nothing")
    evidence = {"at": at[begun].tolist(), "gained": [not none for none in lost], "rates": rate[begun].tolist()}
    said = f"falls of the rate, and {curve.name(curve.main)}: {'; '.join(told[:4])}" + "; …" * (len(told) > 4)
    if not any(lost):
        return Finding("ok", said, evidence)
    return Finding(
        "info", said, evidence, cause="the loss was as low as the network brings it, or the rate had been low before",
        advice=("a fall that brings nothing can be left out, and the run ended there",
                "the first fall later, if the loss had not come to a stand"),
        source="S1: after a plateau each tenth of the rate gives a drop in error", symptom=True,
    )  # fmt: skip


def early_best(curve: Curve, *, share: Share) -> Finding | None:
    """Whether the best came so early that most of the training was for nothing."""
    found = curve.best()
    if not curve.ended or found is None or found[1] < 10:
        return None
    best, count = found
    _, values = curve.finite(curve.objective)
    evidence = {
        "best_at": best,
        f"{curve.unit}s": count,
        "best": curve.series(curve.objective)[1][best - 1],
        "last": values[-1],
    }
    if best > max(1, share * count):
        return None
    return Finding(
        "info", f"the best {curve.objective}, {evidence['best']:.4g}, came at {curve.unit} {best} of {count}; "
        f"the last is {values[-1]:.4g}", evidence,
        cause="the task is easy, the rate is too high, or it over-fits from the start",
        advice=("fewer epochs, or patience", "a lower rate", "regularise"),
        source="Tuning playbook: a best step in the first tenth", symptom=True,
    )  # fmt: skip


def improving(curve: Curve, *, share: Share) -> Finding | None:
    """Whether the best epoch came so late that more of them would have helped."""
    found = curve.best()
    if not curve.ended or found is None or found[1] < 4:
        return None
    best, count = found
    evidence = {"best_at": best, f"{curve.unit}s": count}
    if best <= (1 - share) * count:
        return Finding("ok", f"the best {curve.unit}, {best} of {count}, was not among the last", evidence)
    return Finding(
        "info", f"still improving at the end: the best {curve.unit} was {best} of {count}", evidence,
        advice=("train longer",), source="S0: let a reasonable model train", symptom=True,
    )  # fmt: skip


def gap(curve: Curve, *, share: Share) -> Finding | None:
    """Whether validation stays well above training; where it does not rise, that is no over-fitting."""
    train, val = curve.finite(curve.main)[1], curve.finite("val/loss")[1]
    if not curve.ended or curve.main == "val/loss" or min(len(train), len(val)) < 4:
        return None
    ends = level(train), level(val)
    evidence = {"train": ends[0], "val": ends[1], "gap": ends[1] - ends[0]}
    if ends[1] - ends[0] <= share * max(curve.reference, ends[1]):
        return Finding("ok", f"training and validation loss end close: {ends[0]:.4g} and {ends[1]:.4g}", evidence)
    return Finding(
        "info", f"a gap: the training loss ends at {ends[0]:.4g}, the validation loss at {ends[1]:.4g}", evidence,
        cause="the network knows its training samples better than new ones, as most do",
        advice=("nothing, while the validation loss does not rise", "more data or augmentation would narrow it"),
        source="S1: over-fitting is a validation loss that rises, not a gap", symptom=True,
    )  # fmt: skip


def jitter(curve: Curve, *, share: Share) -> Finding | None:
    """Whether the training loss still shakes late, as at a rate that never came down."""
    at, values = curve.finite(curve.main)
    if not curve.ended or len(values) < 10 or values.min() < 0 or not curve.reference:
        return None
    late = values[len(values) // 2 :]
    shakes, fall = noise(late), max(curve.reference, values[0]) - values.min()
    evidence = {"noise": shakes, "from": whole(at[len(values) // 2]), "fall": fall}
    if fall <= 0 or shakes <= share * fall:
        return Finding("ok", f"{curve.name(curve.main)} settles: late noise {shakes:.2g}", evidence)
    return Finding(
        "info", f"{curve.name(curve.main)} still shakes in the second half, by {shakes:.2g} an {curve.unit}", evidence,
        cause="the rate is high to the end, or the batches are small",
        advice=("let the rate come down: schedule=cosine", "a larger batch", "averaged weights: ema=0.999"),
        source="S1: curves fluctuate at high rates", symptom=True,
    )  # fmt: skip


def saturated(curve: Curve, *, within: NonNegative, fell: NonNegative, sigmas: NonNegative) -> Finding | None:
    """Whether the score stands still while the loss falls on: the network only grows surer of itself."""
    if not curve.ended or curve.direction != MAXIMISE:
        return None
    score, (at, loss) = curve.finite(curve.objective)[1], curve.finite("val/loss")
    if min(len(score), len(loss)) < 9:
        return None
    late, last = score[-(len(score) // 3) :], loss[-(len(loss) // 3) :]
    fallen = last[0] - last[-1]
    if np.ptp(late) > within or fallen <= max(fell * abs(last[0]), sigmas * noise(last)):
        return None
    return Finding(
        "info", f"{curve.objective} stands at {late[-1]:.4g} while the validation loss still falls, "
        f"by {fallen:.2g} over the last third",
        {"score": late[-1], "fell": fallen, "from": whole(at[-len(last)])},
        cause="what is right is only said with more confidence",
        advice=("stop here, if the score is what counts",),
        source="S1: the loss may fall after the boundary is perfect", symptom=True,
    )  # fmt: skip


def train_mode(curve: Curve, *, share: Share) -> Finding | None:
    """Whether a log's training loss stays above validation: then it was measured with dropout, or while still learning."""
    fit, val = curve.series("fit/loss"), curve.series("val/loss")
    if not curve.ended or len(curve.finite("train/loss")[1]):
        return None  # measured as validation is: whatever it says is no matter of the mode
    both = {at: loss for at, loss in zip(*fit, strict=True)}
    pairs = [
        (both[at], loss) for at, loss in zip(*val, strict=True) if at in both and np.isfinite([both[at], loss]).all()
    ][2:]
    if len(pairs) < 5:
        return None
    above = float(np.mean([train > loss for train, loss in pairs]))
    if above < share:
        return None
    return Finding(
        "info", f"the training loss is above the validation loss in {above:.0%} of the {curve.unit}s", {"above": above},
        cause="it is measured in training mode, with dropout and augmentation, as a mean over an epoch of learning",
        advice=("measure train as validation: in evaluation mode, after the epoch",
                "if it was: the training labels are noisier than validation's, or validation leaks from train"),
        source="S4: with dropout, test can exceed train", symptom=True,
    )  # fmt: skip
