"""The page of a comparison: what each arm changes, what came of it, and the curves of all runs in one picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from plumbline.config import MAXIMISE
from plumbline.files import make_folder, write_text
from plumbline.report import label
from plumbline.report.drawing import End, canvas, line, logarithmic, name_ends
from plumbline.report.page import inline, svg, template

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from plumbline.arms import Arm

ARMS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
    "#8a8f98",
)  # Okabe & Ito; further ones share the last


def write_comparison(path: Path, rows: list[dict[str, Any]], metric: str, direction: str) -> Path:
    """Write the page, from the folders of the runs alone; return its path."""
    pictures = {}
    for key in dict.fromkeys((metric, "val/loss", "train/loss", "lr")):
        if (figure := curves(rows, key)) is not None:
            pictures[key] = inline(svg(figure, key), key)
    for place, row in enumerate(rows):
        row["colour"] = colour(place)
    shared = {"metric": label(metric), "better": "more" if direction == MAXIMISE else "less", "pictures": pictures}
    page = template("comparison.html.j2").render(rows=rows, here=path.resolve().parent, **shared)
    make_folder(path.parent)
    write_text(path, page)
    return path


def colour(place: int) -> str:
    return ARMS[min(place, len(ARMS) - 1)]


def curves(rows: list[dict[str, Any]], key: str) -> Figure | None:
    """A thin line a run and a bold one for the mean of an arm's runs, by epoch; None where nobody has the key."""
    figure, axes = canvas(f"{key.replace('/', ', ')}" if "/" in key else "learning rate", x="epoch")
    ends: list[End] = []
    for place, row in enumerate(rows):
        arm: Arm = row["arm"]
        series = [run.series(key) for run in arm.by_seed.values()]
        if len(series) > 1:
            for x, y in series:
                line(axes, "", x, y, colour(place), linewidth=0.7, alpha=0.45)
        shortest = min(len(x) for x, _ in series)  # runs may have ended early
        if shortest:
            x, y = series[0][0][:shortest], np.mean([y[:shortest] for _, y in series], axis=0)
            ends += line(axes, row["letter"], x, y, colour(place))
    if not ends:
        return None
    values = np.concatenate([drawn.get_ydata() for drawn in axes.lines])
    if key != "lr" and 0 < 30 * np.nanmin(values) < np.nanmax(values):
        logarithmic(axes)
    name_ends(axes, ends)
    return figure
