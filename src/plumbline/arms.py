"""An arm: runs that are the same but for their seeds; and by how much one arm is better than another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import NormalDist, mean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np

from plumbline.changes import SEED, changes, fingerprint_of, is_validated_alike, settings
from plumbline.config import MAXIMISE
from plumbline.report import Folder, finite, read

if TYPE_CHECKING:
    from plumbline.tasks import Answers


@dataclass(frozen=True)
class Arm:
    """Runs that are the same but for their seeds."""

    runs: tuple[Folder, ...]
    settings: dict[str, Any]

    @cached_property
    def by_seed(self) -> dict[int, Folder]:
        """The latest run of each seed."""
        return {run.run.get(SEED, 0): run for run in sorted(self.runs, key=lambda run: str(run.run.get("started")))}

    def values(self, metric: str) -> dict[int, float]:
        """Of each seed, the metric at the best epoch."""
        return {seed: run.best[metric] for seed, run in self.by_seed.items()}


@dataclass(frozen=True)
class Difference:
    """By how much one arm is better than another, in the metric's unit.

    half: of the 95 % interval, from two sources whose variances add up: the validation samples, by a paired bootstrap on
    the same samples (Efron and Tibshirani 1993), and the seeds, by Student's t over their differences, or by Welch's where
    the seeds are others; a side with one seed is taken to scatter as the other does. With one seed each, what another
    seed would change is not in it. Where several arms are held against one, it is widened for that (Bonferroni).
    """

    metric: str
    before: float
    after: float
    ahead: float
    half: float
    seeds: int  # of the arm that has more

    @property
    def verdict(self) -> str:
        return "may be chance" if abs(self.ahead) <= self.half else "better" if self.ahead > 0 else "worse"

    def __str__(self) -> str:
        said = f"{self.metric} {self.after:.4g} against {self.before:.4g}"
        if self.ahead == self.half == 0:
            return f"{said}: the same"
        said += f": {abs(self.ahead):.2g} {'better' if self.ahead > 0 else 'worse'}, ± {self.half:.2g}"
        said += ", which may be chance" if self.verdict == "may be chance" else ""
        return said + (" (one seed each)" if self.seeds == 1 else "")


def difference(
    before: Arm, after: Arm, metric: str, direction: str, resamples: int, choices: int = 1
) -> Difference | None:
    """Between two arms; None where they were not validated on the same samples."""
    from plumbline import tasks
    from plumbline.data.core import Spec

    first = before.runs[0]
    sides = [[answers(run, first) for run in arm.by_seed.values()] for arm in (before, after)]
    if None in [each for side in sides for each in side]:
        return None
    import torch

    known = first.data | {key: tuple(first.data[key]) for key in ("shape", "classes", "features", "masks")}
    spec = Spec(**{key: known[key] for key in Spec.__dataclass_fields__})
    y, items = (
        torch.from_numpy(first.predictions[key]) if key in first.predictions else None for key in ("targets", "items")
    )
    of_samples = tasks.paired_error(spec, metric, sides[1], sides[0], y, resamples, items=items)
    sign = 1 if direction == MAXIMISE else -1
    values = [arm.values(metric) for arm in (before, after)]
    ahead, of_seeds = over_seeds(*values, choices)
    half = math.hypot(NormalDist().inv_cdf(1 - 0.025 / choices) * of_samples, of_seeds)
    means = [mean(each.values()) for each in values]
    return Difference(metric, *means, sign * ahead, half, max(map(len, values)))


def over_seeds(before: dict[int, float], after: dict[int, float], choices: int = 1) -> tuple[float, float]:
    """(difference of the means, half of its 95 % interval over seeds): paired where two seeds are shared, else Welch's."""
    ahead, sides = mean(after.values()) - mean(before.values()), (list(before.values()), list(after.values()))
    shared = [after[seed] - before[seed] for seed in before if seed in after]
    if max(map(len, sides)) < 2:
        return ahead, 0.0
    from scipy.stats import t

    if len(shared) > 1:
        ahead, variance, freedom = mean(shared), stdev(shared) ** 2 / len(shared), len(shared) - 1
    elif min(map(len, sides)) < 2:  # one seed scatters, too: as much as those of the other side
        many = max(sides, key=len)
        variance, freedom = stdev(many) ** 2 * (1 + 1 / len(many)), len(many) - 1
    else:
        parts = [(stdev(values) ** 2 / len(values), len(values) - 1) for values in sides]
        variance = sum(part for part, _ in parts)
        freedom = variance**2 / (sum(part**2 / less for part, less in parts) or 1)  # Welch 1947, Biometrika 34
    return ahead, float(t.ppf(1 - 0.025 / choices, freedom)) * variance**0.5 if variance else 0.0


def answers(run: Folder, like: Folder) -> Answers | None:
    """What a run's best weights said of validation, as raw outputs; None if these are not the samples of another run."""
    import torch

    said, theirs = run.predictions, like.predictions
    for key in ("ids", "targets"):
        if key not in said or key not in theirs or not np.array_equal(said[key], theirs[key]):
            return None
    outputs = torch.from_numpy(said["outputs"])
    if run.data["task"] == "classification":
        outputs = outputs.clamp(min=1e-30).log()  # their softmax is what is saved
    elif run.data["task"] == "segmentation":
        outputs = outputs.logit()
    return outputs, torch.from_numpy(said["losses"])


def outcome(change: dict[str, Any], directory: Path, metric: str, direction: str, resamples: int) -> dict[str, Any]:
    """What came of a change, for the record of the run that made it."""
    before, after = (Arm((read(folder),), {}) for folder in (Path(change["run"]), directory))
    if "loss" in change["keys"] and metric == "val/loss":
        return change | {"outcome": None}  # measured by two rulers
    if not before.runs[0].run or not finite(before.runs[0].best.get(metric)):
        return change | {"outcome": None}  # taken away meanwhile
    data = (fingerprint_of(before.runs[0].run), fingerprint_of(after.runs[0].run))
    if not is_validated_alike(data, change["keys"]):
        return change | {"outcome": None}  # the validation samples were edited
    try:
        found = difference(before, after, metric, direction, resamples)
    except Exception as error:  # of another version, or damaged: an earlier run shall not cost this one its end
        return change | {"outcome": None, "why": f"{type(error).__name__}: {error}"}
    return change | {"outcome": found and {**vars(found), "verdict": found.verdict, "said": str(found)}}


def grouped(runs: list[Folder]) -> list[Arm]:
    """Arms in the order of their first runs."""
    found: list[tuple[dict[str, Any], list[Folder]]] = []
    for run in runs:
        own, data = settings(run.path), fingerprint_of(run.run)
        for known, those in found:
            if not set(changes(known, own, (fingerprint_of(those[0].run), data))) - {SEED}:
                those.append(run)
                break
        else:
            found.append((own, [run]))
    return [Arm(tuple(those), known) for known, those in found]
