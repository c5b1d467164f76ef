"""Checks of a network before it trains."""

from __future__ import annotations

from plumbline.checks.core import Finding


def first_loss(measured: float, expected: float | None) -> Finding | None:
    """The loss before the first update against that of an uninformed output: ln C for cross-entropy over C classes."""
    if expected is None:
        return None
    evidence = {"measured": measured, "expected": expected}
    if measured < 1.5 * expected and measured > 0.5 * expected:
        return Finding(
            "init.loss", "ok", f"the first loss is {measured:.4g}, near the {expected:.4g} of knowing nothing", evidence
        )
    return Finding(
        "init.loss", "warn", f"the first loss is {measured:.4g}, where knowing nothing gives {expected:.4g}", evidence,
        cause="the initial outputs are too large, or the loss is not the one that was meant",
        advice=("a smaller last layer: init.head_std=0.01", "look at the initialisation and at the scale of the inputs"),
        source="S2: classification starts at ln(classes)",
    )  # fmt: skip
