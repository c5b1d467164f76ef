"""The picture of the learning-rate range test, from what its finding holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from plumbline.report import Folder, finite
from plumbline.report.drawing import ALARM, MUTED, TRAIN, VALIDATION, canvas, line

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def range_test(folder: Folder) -> Figure | None:
    """A smoothed loss a seed over the rate, with the configured rate, the suggestion and where it burst."""
    test = evidence(folder, "lr.range")
    curves = [np.array(curve, dtype=float) for curve in test.get("curves", [])]
    if not curves:
        return None
    figure, axes = canvas("loss in the range test", x="learning rate")
    axes.set_xscale("log")
    for rates, losses in curves:
        line(axes, "", rates, losses, TRAIN, alpha=1.0 if len(curves) == 1 else 0.6)
    start = max(float(losses[0]) for _, losses in curves)
    low, high = axes.get_ylim()
    axes.set_ylim(low, min(high, start + 0.5 * (start - low)))  # what bursts would flatten the rest
    marks = {
        "suggested": ("suggestion", VALIDATION),
        "configured": ("configured", MUTED),
        "bursts": ("diverged_at", ALARM),
    }
    placed = sorted(
        (test[key], word, color) for word, (key, color) in marks.items() if finite(test.get(key)) and test[key] > 0
    )
    for place, (rate, word, color) in enumerate(placed):
        axes.axvline(rate, color=color, linewidth=1.2, linestyle="--")
        style = {"fontsize": 10, "color": color, "transform": axes.transAxes}  # below the flat part there is room
        axes.text(0.02, 0.04 + 0.1 * (len(placed) - 1 - place), f"{word} {rate:.2g}", **style)
    return figure


def evidence(folder: Folder, name: str) -> dict[str, Any]:
    """The evidence of a finding, or nothing."""
    found = [item for item in folder.get("findings", list) if isinstance(item, dict) and item.get("id") == name]
    return found[0]["evidence"] if found and isinstance(found[0].get("evidence"), dict) else {}
