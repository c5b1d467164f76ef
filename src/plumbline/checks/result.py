"""Checks of a result: is it one?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from plumbline.checks.core import Finding
from plumbline.data.core import Data
from plumbline.tasks import MAXIMISE


@dataclass
class Result:
    """What came out of a run: run.json so far, and what the best weights say of validation."""

    run: dict[str, Any]
    data: Data
    outputs: Tensor  # (N, outputs), raw
    losses: Tensor  # (N,)
    targets: Tensor


def baseline(result: Result) -> Finding:
    """Whether the whole 95 % interval of the objective lies on the better side of the simplest baseline."""
    run = result.run
    metric, (low, high) = run["objective"], run["interval"][run["objective"]]
    value, simplest, name = run["best"][metric], run["baseline"][metric], run["baseline"]["name"]
    evidence = {metric: value, "low": low, "high": high, "baseline": simplest}
    beats = low > simplest if run["direction"] == MAXIMISE else high < simplest
    said = f"{metric} {value:.4g} (95 % interval {low:.4g} to {high:.4g}) against {simplest:.4g} of the {name}"
    if beats:
        return Finding("ok", f"beats the simplest baseline: {said}", evidence)
    return Finding(
        "fail", f"does not beat the simplest baseline: {said}", evidence,
        cause="nothing was learned from the inputs, or there is nothing in them to learn",
        advice=(
            "look at the training loss: if it does not fall either, try other learning rates",
            "check that inputs and labels belong together",
        ),
        source="S0: compute the naive predictor's metric first", symptom=True,
    )  # fmt: skip
