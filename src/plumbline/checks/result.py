"""Checks of a result: is it one?"""

from __future__ import annotations

from typing import Any

from plumbline.checks.core import Finding
from plumbline.tasks import MAXIMISE


def beats_baseline(run: dict[str, Any]) -> Finding:
    """Whether the whole 95 % interval of the objective lies on the better side of the simplest baseline."""
    metric, (low, high) = run["objective"], run["interval"][run["objective"]]
    value, simplest, name = run["best"][metric], run["baseline"][metric], run["baseline"]["name"]
    evidence = {metric: value, "low": low, "high": high, "baseline": simplest}
    beats = low > simplest if run["direction"] == MAXIMISE else high < simplest
    said = f"{metric} {value:.4g} (95 % interval {low:.4g} to {high:.4g}) against {simplest:.4g} of the {name}"
    if beats:
        return Finding("result.baseline", "ok", f"beats the simplest baseline: {said}", evidence)
    return Finding(
        "result.baseline", "fail", f"does not beat the simplest baseline: {said}", evidence,
        cause="nothing was learned from the inputs, or there is nothing in them to learn",
        advice=(
            "look at the training loss: if it does not fall either, try other learning rates",
            "check that inputs and labels belong together",
        ),
        source="S0: compute the naive predictor's metric first",
    )  # fmt: skip
