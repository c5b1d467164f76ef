"""Reading the curve, during training and after it; of our own records or of anybody's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from plumbline.checks.core import Finding
from plumbline.tasks import MAXIMISE


@dataclass
class Curve:
    """The records of a run so far, one an epoch."""

    records: list[dict[str, Any]]
    objective: str
    direction: str
    ended: bool  # no more epochs will come

    @property
    def best(self) -> int:
        """The index of the best record."""
        sign = 1 if self.direction == MAXIMISE else -1
        values = [sign * record[self.objective] for record in self.records]
        return values.index(max(values))


def improving(curve: Curve, *, share: float) -> Finding | None:
    """Whether the best epoch came so late that more of them would have helped."""
    if not curve.ended or len(curve.records) < 4:
        return None
    best, epochs = curve.best + 1, len(curve.records)
    evidence = {"best_epoch": best, "epochs": epochs}
    if best <= (1 - share) * epochs:
        return Finding("ok", f"the best epoch, {best} of {epochs}, was not among the last", evidence)
    return Finding(
        "info", f"still improving at the end: the best epoch was {best} of {epochs}", evidence,
        advice=("train longer",), source="S0: let a reasonable model train", symptom=True,
    )  # fmt: skip
