"""How every picture is drawn: phone width, colours for every kind of sight, no frame, no pyplot and its global state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#1c2024", "#667080", "#e2e5e9", "#ffffff"
TRAIN, VALIDATION = "#0072b2", "#d55e00"  # of Okabe & Ito: distinct for every kind of sight
ALARM = "#c0272d"
WIDTH = 4.0  # inches: over the width of a phone a text of 10 points is 11 px high

End = tuple[str, float, Any]  # a curve's label, last finite value, colour


def canvas(y: str, x: str = "", height: float = 2.6) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor=PAPER)
    axes = figure.add_subplot()
    bare(axes, y, x)
    return figure, axes


def bare(axes: Axes, y: str, x: str) -> None:
    """No frame, a faint grid, whole epochs; the name of y stands above, where it is read first."""
    from matplotlib.ticker import MaxNLocator

    axes.set_facecolor("none")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=10, labelcolor=MUTED, which="both")
    axes.set_xlabel(x, fontsize=10, color=MUTED)
    axes.set_title(y, fontsize=11, color=INK, loc="left")
    if x == "epoch":
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def logarithmic(axes: Axes) -> None:
    """A log scale with plain numbers: at powers of ten, and at 2 and 5 as well where those alone would be few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.yaxis.set_major_formatter(plain)
    axes.yaxis.set_minor_formatter(plain if high < 50 * low else NullFormatter())


def line(axes: Axes, text: str, x: np.ndarray, y: np.ndarray, color: Any, **style: Any) -> list[End]:
    """Draw a curve, and return what is needed to name its end; nothing if it has no finite value."""
    finite = y[np.isfinite(y)]
    if not len(finite):
        return []
    if len(x) == 1 and not axes.lines:
        axes.set_xlim(0, x[0] + 1)  # or matplotlib shows fractions of an epoch
    alone = {"marker": "o", "markersize": 4} if len(finite) < 3 else {}
    axes.plot(x, y, color=color, **{"linewidth": 1.8} | alone | style)
    return [(text, finite[-1], color)]


def name_ends(axes: Axes, ends: list[End], gap: float = 0.085) -> None:
    """Write the labels to the right of the curves' ends, pushed apart where they would touch."""
    axes.get_ylim()  # settles the limits
    to_height = axes.transData + axes.transAxes.inverted()
    usable = [end for end in ends if axes.get_yscale() == "linear" or end[1] > 0]
    named = sorted((float(to_height.transform((1, end[1]))[1]), end[0], end[2]) for end in usable)
    heights = [height for height, *_ in named]
    for index in range(1, len(heights)):
        heights[index] = max(heights[index], heights[index - 1] + gap)
    overflow = max(0.0, heights[-1] - 1) if heights else 0
    for height, (_, text, color) in zip(heights, named, strict=True):
        axes.text(1.02, height - overflow, text, transform=axes.transAxes, fontsize=10, color=color, va="center")


def short(text: Any, most: int = 14) -> str:
    """Somebody's name for something: one line, cut in the middle, and not taken for mathematics by matplotlib."""
    line = "".join(letter if letter.isprintable() else " " for letter in str(text)).strip()
    if len(line) > most:
        line = f"{line[: most // 2]}…{line[len(line) - (most - 1) // 2 :]}"  # names often differ at their end
    return line.replace("$", r"\$")
