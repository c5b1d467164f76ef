"""Whether the network beats the baselines: one judgement, for the report, the terminal and the check of the result."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, Literal

from plumbline.config import MINIMISE

ZERO_INPUT = "zero input"  # the baseline that is the network itself, trained without its inputs: no rival to it


@dataclass(frozen=True)
class Margin:
    """How far the network is ahead of one baseline, in the objective's unit; behind it, where that is negative.

    error: the standard error of that difference, from a paired bootstrap on the same validation samples (Efron and
    Tibshirani 1993, An Introduction to the Bootstrap, chapter 8). choices: of how many epochs the network is the best on
    these very samples: the interval is widened for that (Bonferroni), else a network that is no better would seem so.
    """

    rank: Literal["simplest", "strongest"]
    name: str
    metric: str
    value: float  # of the network
    other: float  # of the baseline
    sign: int  # 1 where more is better, -1 where less is
    error: float
    choices: int
    better: str = ""  # of a simplest baseline: who else is the better one

    @property
    def ahead(self) -> float:
        return self.sign * (self.value - self.other)

    @property
    def half(self) -> float:
        """Half of the 95 % interval."""
        return NormalDist().inv_cdf(1 - 0.025 / self.choices) * self.error

    @property
    def beats(self) -> bool:
        """The whole interval lies on the better side."""
        return self.ahead > self.half

    @property
    def behind(self) -> bool:
        """The whole interval lies on the worse side."""
        return -self.ahead > self.half

    def __str__(self) -> str:
        if self.beats:
            said = "beats the simplest baseline" if self.rank == "simplest" else "beats every baseline"
        else:
            said = f"does not beat the {self.rank} baseline"
        said += f": {self.metric} {self.value:.4g} against {self.other:.4g} of the {self.name}"
        if not self.half:
            return said + self.better
        said += f"; {abs(self.ahead):.3g} {'ahead' if self.ahead > 0 else 'behind'}, "
        said += f"{abs(self.ahead) / self.half:.2g} of half the 95 % interval"
        if self.choices > 1:
            said += f" (for the best of {self.choices} epochs)"
        return (said if self.beats or self.behind else f"{said}: that may be chance") + self.better


def margin(run: dict[str, Any]) -> Margin | None:
    """The one that decides: the simplest baseline, if that is not beaten; then the strongest. None: nothing to compare."""
    metric, baseline, best = run["objective"], run["baseline"] or {}, run["best"] or {}
    if not _number(best.get(metric)) or not _number(baseline.get(metric)):
        return None
    rivals = [("simplest", baseline["name"], baseline[metric])]
    strong = strongest(run["baselines"], metric, run["direction"])
    if strong is not None:
        rivals.append(("strongest", strong["name"], strong["metrics"][metric]))
    for rank, name, other in rivals:
        sign = -1 if run["direction"] == MINIMISE else 1
        error, choices = (run["margins"] or {}).get(name, (0.0, 1))  # a run that has not ended has none
        found = Margin(rank, name, metric, best[metric], other, sign, error, choices)
        if not found.beats:
            break
    if (
        found.rank == "simplest"
        and strong is not None
        and sign * (other := strong["metrics"][metric]) > sign * found.value
    ):
        return replace(found, better=f"; the {strong['name']} has {other:.4g}")
    return found


def strongest(rows: list[dict[str, Any]], metric: str, direction: str) -> dict[str, Any] | None:
    """Of the baselines that look at the inputs, the best; None if none was measured."""
    scored = [row for row in rows if row["name"] != ZERO_INPUT and _number(row["metrics"].get(metric))]
    best = min if direction == MINIMISE else max
    return best(scored, key=lambda row: row["metrics"][metric]) if scored else None


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
