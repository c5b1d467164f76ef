"""The pictures of one run: few, in phone width, colour-blind-safe. Figure objects, no pyplot, so no global state."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from plumbline.report import MOST_COUNTS, Folder, confusion, finite, label, number, read, reliability, worst_images
from plumbline.report.data_figures import classes, distributions, map_, oddest, samples
from plumbline.report.drawing import (
    ALARM,
    INK,
    MUTED,
    PAPER,
    TRAIN,
    VALIDATION,
    WIDTH,
    End,
    bare,
    canvas,
    line,
    logarithmic,
    name_ends,
    short,
)
from plumbline.report.rate_figures import range_test

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_CLASSES = 30  # the largest confusion matrix that is drawn
MOST_LAYERS = 16  # lines in one picture; of a deeper network, evenly chosen layers with the first and the last
MOST_WORST = 12
MOST_PAINTED, MOST_CHANNELS = 6, 3


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


# --- learning --------------------------------------------------------------------------------------------------------


def loss(folder: Folder) -> Figure | None:
    figure, axes = canvas("loss", x="epoch")
    ends = line(axes, "as trained", *folder.series("fit/loss"), MUTED, linestyle=":")
    ends += line(axes, "train", *folder.series("train/loss"), TRAIN)
    ends += line(axes, "validation", *folder.series("val/loss"), VALIDATION)
    if not ends:
        return None
    values = np.concatenate([line.get_ydata() for line in axes.lines])
    if 0 < 30 * np.nanmin(values) < np.nanmax(values):
        logarithmic(axes)
    _mark_best(axes, folder, "val/loss")
    if (broken := folder.broken) is not None:
        axes.axvspan(broken - 0.5, folder.epochs + 0.5, color=ALARM, alpha=0.12, linewidth=0)
        style = {"transform": axes.transAxes, "fontsize": 10, "color": ALARM, "ha": "right", "va": "top"}
        axes.text(0.98, 0.95, f"not finite from epoch {broken}", **style)
    name_ends(axes, ends)
    return figure


def objective(folder: Folder) -> Figure | None:
    key = folder.objective
    if key == "val/loss":  # has its picture already
        key = next((key for key in ("val/accuracy", "val/r2", "val/mae") if len(folder.series(key)[0])), key)
    name = key.rpartition("/")[2]
    figure, axes = canvas(label(key), x="epoch")
    ends = line(axes, "train", *folder.series(f"train/{name}"), TRAIN)
    ends += line(axes, "validation", *folder.series(key), VALIDATION)
    if not ends or name == "loss":
        return None
    _mark_best(axes, folder, key)
    _baseline(axes, folder, key)
    name_ends(axes, ends)
    return figure


def learning_rate(folder: Folder) -> Figure | None:
    figure, axes = canvas("learning rate", x="epoch")
    plan = np.array(folder.get("lr_curve", list), dtype=float).reshape(-1, 2)
    ends = line(axes, "planned", plan[:, 0] * max(folder.planned, 1), plan[:, 1], MUTED, linewidth=5, alpha=0.35)
    ends += line(axes, "used", *folder.series("lr"), TRAIN)
    if not ends:
        return None
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    name_ends(axes, ends)
    return figure


def gradients(folder: Folder) -> Figure | None:
    return _by_layer(folder, "grad_norm", "norm of the gradient")


def updates(folder: Folder) -> Figure | None:
    """Norm of a step over the norm of the weights; about 1e-3 is healthy (Karpathy, CS231n)."""
    return _by_layer(folder, "update_ratio", "size of an update / of the weights", 1e-3)


def throughput(folder: Folder) -> Figure | None:
    epochs, rate = folder.series("samples_per_s")
    figure, axes = canvas("samples a second", x="epoch")
    if len(epochs) < 2 or not line(axes, "", epochs, rate, TRAIN):
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
    figure, axes = canvas("", x="predicted", height=4)
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
    figure, axes = canvas("share that is right", x="confidence (probability of the predicted class)", height=3.2)
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


def painted(folder: Folder) -> Figure | None:
    """A row each for the inputs of the greatest loss: the input, then what each channel should be, and what it was."""
    from matplotlib.figure import Figure

    found, shown, positions = folder.painted(), worst_images(folder), folder.predictions.get("worst")
    if found is None or shown is None or positions is None:
        return None
    channels, rows = min(found[0].shape[1], MOST_CHANNELS), min(len(shown), MOST_PAINTED)
    low, high = float(np.nanmin(found[0])), float(np.nanmax(found[0]))
    columns, (tall, wide) = 1 + 2 * channels, found[0].shape[2:]
    size = (WIDTH, rows * WIDTH / columns * tall / wide + 0.4)
    figure = Figure(figsize=size, layout="constrained", facecolor=PAPER)
    panels = figure.subplots(rows, columns, squeeze=False)
    for row, image, at in zip(panels, shown, positions, strict=False):
        row[0].imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="none")
        pictures = np.stack([found[0][at], found[1][at]], 1).reshape(-1, tall, wide)  # true, painted, true, painted, …
        for axes, picture in zip(row[1:], pictures, strict=False):
            axes.imshow(np.nan_to_num(picture), cmap="gray", vmin=low, vmax=high, interpolation="none")
    titles = [
        "input",
        *(f"{word} {k + 1}" if channels > 1 else word for k in range(channels) for word in ("true", "painted")),
    ]
    for axes, title in zip(panels[0], titles, strict=True):
        axes.set_title(title, fontsize=9, color=INK)
    for axes in figure.axes:
        axes.set_axis_off()
    return figure


def worst(folder: Folder) -> Figure | None:
    from matplotlib.figure import Figure

    shown, positions = worst_images(folder), folder.predictions.get("worst")
    if shown is None or positions is None or folder.painted() is not None:
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
    "samples": samples, "classes": classes, "map": map_, "distributions": distributions, "oddest": oddest,
    "range_test": range_test, "loss": loss, "objective": objective, "learning_rate": learning_rate, "confusion": confusion_matrix,
    "calibration": calibration, "predicted": predicted, "residuals": residuals, "painted": painted, "worst": worst,
    "gradients": gradients, "updates": updates, "throughput": throughput,
}  # fmt: skip


# --- what several pictures share ---------------------------------------------------------------------------------------


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
    figure, axes = canvas(title, x="epoch", height=3)
    if len(chosen) < len(keys):
        axes.set_xlabel(f"epoch ({len(chosen)} of {len(keys)} layers are shown)")
    ends: list[End] = []
    for place, key in enumerate(chosen):
        epochs, values = folder.series(key)
        color = colormaps["viridis"](0.3 + 0.6 * place / max(len(chosen) - 1, 1))
        text = short(key.removeprefix(prefix + "/"), 18)
        end = line(axes, text, epochs, np.where(values > 0, values, np.nan), color, linewidth=1.5)
        if len(chosen) <= 8 or place in (0, len(chosen) // 2, len(chosen) - 1):
            ends += end
    if not axes.lines:
        return None
    logarithmic(axes)
    if reference is not None:
        axes.axhline(reference, color=MUTED, linewidth=1.2, linestyle="--")
        ends.append((f"{reference:g}", reference, MUTED))
    name_ends(axes, ends)
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
        bare(axes, title if found[0].shape[1] == 1 else f"{title}, target {column + 1} of {found[0].shape[1]}", x)
        axes.scatter(across, up, s=11, alpha=0.6, color=TRAIN, linewidth=0, rasterized=len(up) > 1500)
        if x == "true":
            ends = min(across.min(), up.min()), max(across.max(), up.max())
            axes.plot(ends, ends, color=MUTED, linewidth=1.2, linestyle="--")
        else:
            axes.axhline(0, color=MUTED, linewidth=1.2, linestyle="--")
    return figure
