"""The pictures of one run: few, in phone width, colour-blind-safe. Figure objects, no pyplot, so no global state."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from plumbline.report import MOST_COUNTS, Folder, confusion, finite, label, number, read, reliability, worst_images

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#1c2024", "#667080", "#e2e5e9", "#ffffff"
TRAIN, VALIDATION = "#0072b2", "#d55e00"  # of Okabe & Ito: distinct for every kind of sight
ALARM = "#c0272d"
WIDTH = 4.0  # inches: over the width of a phone a text of 10 points is 11 px high
MOST_CLASSES = 30  # the largest confusion matrix that is drawn
MOST_LAYERS = 16  # lines in one picture; of a deeper network, evenly chosen layers with the first and the last
MOST_WORST = 12


def figures(directory: Path) -> dict[str, Figure]:
    """The pictures of a run's folder by name: those whose data are there."""
    return draw(read(directory))[0]


def draw(folder: Folder) -> tuple[dict[str, Figure], dict[str, str]]:
    """(pictures by name, why a picture failed by name). A picture whose data are absent is in neither."""
    drawn, failed = {}, {}
    for name, picture in PICTURES.items():
        try:
            figure = picture(folder)
        except Exception as error:  # a value of an unforeseen kind costs its picture, not the report
            failed[name] = f"{type(error).__name__}: {error}"
        else:
            if figure is not None:
                drawn[name] = figure
    return drawn, failed


def short(text: Any, most: int = 14) -> str:
    """Somebody's name for something: one line, cut in the middle, and not taken for mathematics by matplotlib."""
    line = "".join(letter if letter.isprintable() else " " for letter in str(text)).strip()
    if len(line) > most:
        line = f"{line[: most // 2]}…{line[len(line) - (most - 1) // 2 :]}"  # names often differ at their end
    return line.replace("$", r"\$")


# --- learning --------------------------------------------------------------------------------------------------------


def loss(folder: Folder) -> Figure | None:
    figure, axes = _canvas("loss", x="epoch")
    ends = _line(axes, "as trained", *folder.series("fit/loss"), MUTED, linestyle=":")
    ends += _line(axes, "train", *folder.series("train/loss"), TRAIN)
    ends += _line(axes, "validation", *folder.series("val/loss"), VALIDATION)
    if not ends:
        return None
    values = np.concatenate([line.get_ydata() for line in axes.lines])
    if 0 < 30 * np.nanmin(values) < np.nanmax(values):
        _log(axes)
    _mark_best(axes, folder, "val/loss")
    if (broken := folder.broken) is not None:
        axes.axvspan(broken - 0.5, folder.epochs + 0.5, color=ALARM, alpha=0.12, linewidth=0)
        style = {"transform": axes.transAxes, "fontsize": 10, "color": ALARM, "ha": "right", "va": "top"}
        axes.text(0.98, 0.95, f"not finite from epoch {broken}", **style)
    _name_ends(axes, ends)
    return figure


def objective(folder: Folder) -> Figure | None:
    key = folder.objective
    if key == "val/loss":  # has its picture already
        key = next((key for key in ("val/accuracy", "val/r2", "val/mae") if len(folder.series(key)[0])), key)
    name = key.rpartition("/")[2]
    figure, axes = _canvas(label(key), x="epoch")
    ends = _line(axes, "train", *folder.series(f"train/{name}"), TRAIN)
    ends += _line(axes, "validation", *folder.series(key), VALIDATION)
    if not ends or name == "loss":
        return None
    _mark_best(axes, folder, key)
    _baseline(axes, folder, key)
    _name_ends(axes, ends)
    return figure


def learning_rate(folder: Folder) -> Figure | None:
    figure, axes = _canvas("learning rate", x="epoch")
    plan = np.array(folder.get("lr_curve", list), dtype=float).reshape(-1, 2)
    ends = _line(axes, "planned", plan[:, 0] * max(folder.planned, 1), plan[:, 1], MUTED, linewidth=5, alpha=0.35)
    ends += _line(axes, "used", *folder.series("lr"), TRAIN)
    if not ends:
        return None
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    _name_ends(axes, ends)
    return figure


def gradients(folder: Folder) -> Figure | None:
    return _by_layer(folder, "grad_norm", "norm of the gradient")


def updates(folder: Folder) -> Figure | None:
    """Norm of a step over the norm of the weights; about 1e-3 is healthy (Karpathy, CS231n)."""
    return _by_layer(folder, "update_ratio", "size of an update / of the weights", 1e-3)


def throughput(folder: Folder) -> Figure | None:
    epochs, rate = folder.series("samples_per_s")
    figure, axes = _canvas("samples a second", x="epoch")
    if len(epochs) < 2 or not _line(axes, "", epochs, rate, TRAIN):
        return None
    axes.set_ylim(bottom=0)
    return figure


# --- predictions -----------------------------------------------------------------------------------------------------


def confusion_matrix(folder: Folder) -> Figure | None:
    found = folder.classified()
    if found is None or found[1].shape[1] > MOST_CLASSES:
        return None
    counts = confusion(*found)
    classes, few = len(counts), len(counts) <= MOST_COUNTS
    names = [short(name, 14 if few else 11) for name in folder.classes(classes)]
    share = counts / counts.sum(1, keepdims=True).clip(1)
    figure, axes = _canvas("", x="predicted", height=4)
    axes.set_ylabel("true", fontsize=10, color=MUTED)
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)
    shown = np.ma.masked_equal(share, 0)  # vmin below 0: the darkest viridis would vanish on a dark page
    axes.pcolormesh(shown, cmap="viridis", vmin=-0.3, vmax=1, edgecolors=PAPER, linewidth=1)
    axes.invert_yaxis()
    style = {"fontsize": 10 if few else 7}
    axes.set_yticks(np.arange(classes) + 0.5, names, **style)
    axes.set_xticks(np.arange(classes) + 0.5, names, rotation=90 if max(map(len, names)) * classes > 40 else 0, **style)
    if not few:
        return figure
    for row, column in zip(*counts.nonzero(), strict=True):
        color = "#fefefe" if share[row, column] < 0.35 else "#101010"  # on the cell, in a light and a dark page alike
        axes.text(column + 0.5, row + 0.5, str(counts[row, column]), ha="center", va="center", fontsize=10, color=color)
    return figure


def calibration(folder: Folder) -> Figure | None:
    found = folder.classified()
    if found is None:
        return None
    confidence, right, low, high, n = reliability(*found)
    figure, axes = _canvas("share that is right", x="confidence (probability of the predicted class)", height=3.2)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1.2, linestyle="--")
    axes.vlines(confidence, low, high, color=VALIDATION, linewidth=1.2)
    axes.scatter(confidence, right, s=14 + 150 * n / n.max(), color=VALIDATION, zorder=3, clip_on=False)
    axes.set(xlim=(0, 1.03), ylim=(0, 1.03))
    for x, y, text, place in ((0.03, 0.94, "too timid", "left"), (1.0, 0.03, "too sure of itself", "right")):
        axes.text(x, y, text, fontsize=10, color=MUTED, ha=place)
    return figure


def predicted(folder: Folder) -> Figure | None:
    return _scatter(folder, "predicted", lambda target, value: (target, value), "true", 3.6)


def residuals(folder: Folder) -> Figure | None:
    return _scatter(
        folder, "residual: predicted minus true", lambda target, value: (value, value - target), "predicted", 2.8
    )


def worst(folder: Folder) -> Figure | None:
    from matplotlib.figure import Figure

    shown, positions = worst_images(folder), folder.predictions.get("worst")
    if shown is None or positions is None:
        return None
    shown, targets, outputs = shown[:MOST_WORST], folder.predictions["targets"], folder.predictions["outputs"]
    names = folder.classes(outputs.shape[1]) if folder.classified() else None
    rows = -(-len(shown) // 4)
    figure = Figure(figsize=(WIDTH, 1.45 * rows), layout="constrained", facecolor=PAPER)
    for axes, image, at in zip(figure.subplots(rows, 4, squeeze=False).flat, shown, positions, strict=False):
        axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="none")
        if names:
            guess = int(outputs[at].argmax())
            text = f"{short(names[targets[at]], 10)} as\n{short(names[guess], 10)} {outputs[at, guess]:.2f}"
        else:
            text = f"{number(np.ravel(targets[at])[0])} as\n{number(np.ravel(outputs[at])[0])}"
        axes.set_title(text, fontsize=8, color=INK)
    for axes in figure.axes:
        axes.set_axis_off()
    return figure


PICTURES = {
    "loss": loss, "objective": objective, "learning_rate": learning_rate, "confusion": confusion_matrix,
    "calibration": calibration, "predicted": predicted, "residuals": residuals, "worst": worst,
    "gradients": gradients, "updates": updates, "throughput": throughput,
}  # fmt: skip


# --- drawing ---------------------------------------------------------------------------------------------------------

End = tuple[str, float, Any]  # a curve's label, last finite value, colour


def _canvas(y: str, x: str = "", height: float = 2.6) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor=PAPER)
    axes = figure.add_subplot()
    _bare(axes, y, x)
    return figure, axes


def _bare(axes: Axes, y: str, x: str) -> None:
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


def _log(axes: Axes) -> None:
    """A log scale with plain numbers: at powers of ten, and at 2 and 5 as well where those alone would be few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.yaxis.set_major_formatter(plain)
    axes.yaxis.set_minor_formatter(plain if high < 50 * low else NullFormatter())


def _line(axes: Axes, text: str, x: np.ndarray, y: np.ndarray, color: Any, **style: Any) -> list[End]:
    """Draw a curve, and return what is needed to name its end; nothing if it has no finite value."""
    finite = y[np.isfinite(y)]
    if not len(finite):
        return []
    if len(x) == 1 and not axes.lines:
        axes.set_xlim(0, x[0] + 1)  # or matplotlib shows fractions of an epoch
    alone = {"marker": "o", "markersize": 4} if len(finite) < 3 else {}
    axes.plot(x, y, color=color, **{"linewidth": 1.8} | alone | style)
    return [(text, finite[-1], color)]


def _name_ends(axes: Axes, ends: list[End], gap: float = 0.085) -> None:
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


def _mark_best(axes: Axes, folder: Folder, key: str) -> None:
    """A dot at the best epoch on validation, with the 95 % interval where one was measured."""
    epoch, value, interval = folder.best.get("epoch"), folder.best.get(key), folder.get("interval", dict).get(key)
    if epoch is None or value is None:
        return
    if interval and None not in interval:
        axes.vlines(epoch, *interval, color=VALIDATION, linewidth=1.2)
    axes.plot([epoch], [value], marker="o", markersize=6, color=VALIDATION)
    axes.set_title(f"best at epoch {epoch}", fontsize=10, color=VALIDATION, loc="right")


def _baseline(axes: Axes, folder: Folder, key: str) -> None:
    """The baseline as a dashed line; as a word, where it lies so far away that the line would flatten the curves."""
    baseline = folder.get("baseline", dict)
    value, (low, high) = baseline.get(key), axes.get_ylim()
    if not finite(value):
        return
    text = f"{short(baseline.get('name', 'baseline'), 24)} {number(value)}"
    style = {"fontsize": 10, "color": MUTED, "ha": "right"}
    if low - (high - low) <= value <= high + (high - low):
        axes.axhline(value, color=MUTED, linewidth=1.2, linestyle="--")
        above = value < sum(axes.get_ylim()) / 2  # the text, on the side where there is room
        style |= {"xytext": (-2, 4 if above else -4), "va": "bottom" if above else "top", "textcoords": "offset points"}
        axes.annotate(text, (1, value), xycoords=("axes fraction", "data"), **style)
    else:
        axes.text(0.98, 0.04, f"{text} {'below' if value < low else 'above'}", transform=axes.transAxes, **style)


def _by_layer(folder: Folder, prefix: str, title: str, reference: float | None = None) -> Figure | None:
    """A line a layer on a log scale, first layers dark, last ones bright."""
    from matplotlib import colormaps

    keys = folder.layers(prefix)
    chosen = [keys[round(at)] for at in np.linspace(0, len(keys) - 1, min(MOST_LAYERS, len(keys)))]
    figure, axes = _canvas(title, x="epoch", height=3)
    if len(chosen) < len(keys):
        axes.set_xlabel(f"epoch ({len(chosen)} of {len(keys)} layers are shown)")
    ends: list[End] = []
    for place, key in enumerate(chosen):
        epochs, values = folder.series(key)
        color = colormaps["viridis"](0.3 + 0.6 * place / max(len(chosen) - 1, 1))
        text = short(key.removeprefix(prefix + "/"), 18)
        end = _line(axes, text, epochs, np.where(values > 0, values, np.nan), color, linewidth=1.5)
        if len(chosen) <= 8 or place in (0, len(chosen) // 2, len(chosen) - 1):
            ends += end
    if not axes.lines:
        return None
    _log(axes)
    if reference is not None:
        axes.axhline(reference, color=MUTED, linewidth=1.2, linestyle="--")
        ends.append((f"{reference:g}", reference, MUTED))
    _name_ends(axes, ends)
    return figure


def _scatter(folder: Folder, title: str, pair: Any, x: str, height: float) -> Figure | None:
    """One panel a target (three at most) of the pairs, with the line on which a perfect prediction lies."""
    from matplotlib.figure import Figure

    found = folder.regressed()
    if found is None:
        return None
    columns = min(3, found[0].shape[1])
    figure = Figure(figsize=(WIDTH, height * columns), layout="constrained", facecolor=PAPER)
    for column, axes in enumerate(figure.subplots(columns, 1, squeeze=False).flat):
        across, up = pair(found[0][:, column], found[1][:, column])
        _bare(axes, title if found[0].shape[1] == 1 else f"{title}, target {column + 1} of {found[0].shape[1]}", x)
        axes.scatter(across, up, s=11, alpha=0.6, color=TRAIN, linewidth=0, rasterized=len(up) > 1500)
        if x == "true":
            ends = min(across.min(), up.min()), max(across.max(), up.max())
            axes.plot(ends, ends, color=MUTED, linewidth=1.2, linestyle="--")
        else:
            axes.axhline(0, color=MUTED, linewidth=1.2, linestyle="--")
    return figure
