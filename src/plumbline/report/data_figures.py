"""The pictures of the data themselves, from what the audit saw: look at them before you believe any number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from plumbline.report import Folder, grey_range
from plumbline.report.drawing import INK, MUTED, PAPER, TRAIN, VALIDATION, WIDTH, bare, canvas, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACROSS = 5  # of the oddest images, side by side
MOST_NAMED = 10  # classes that have a colour of their own in the map


def samples(folder: Folder) -> Figure | None:
    """A row a class, as the data set has them: wrong labels, broken images and shortcuts show here first."""
    from matplotlib.figure import Figure

    images, labels = folder.seen.get("images"), folder.seen.get("image_labels")
    if images is None or not len(images):
        return None
    shown = _shown(images)
    rows = [shown[labels == label] for label in np.unique(labels)]
    names, most = folder.classes(int(folder.data.get("outputs") or 0)), max(map(len, rows))
    figure = Figure(figsize=(WIDTH, 0.4 * len(rows)), layout="constrained", facecolor=PAPER)
    grid = figure.subplots(len(rows), most, squeeze=False)
    for axes, row, label in zip(grid, rows, np.unique(labels), strict=True):
        for place in axes:
            place.set_axis_off()
        for place, image in zip(axes, row, strict=False):
            place.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="none")
        named = short(names[label], 12) if names else str(label)
        axes[0].text(-0.3, 0.5, named, transform=axes[0].transAxes, fontsize=8, color=INK, ha="right", va="center")
    return figure


def oddest(folder: Folder) -> Figure | None:
    """The images of train that data.outliers names, the oddest first, with their ids and why: broken ones show here."""
    from matplotlib.figure import Figure

    images, said = folder.seen.get("odd_images"), folder.seen.get("odd_said")
    if images is None or not len(images):
        return None
    rows = -(-len(images) // ACROSS)
    figure = Figure(figsize=(WIDTH, 1.1 * rows), layout="constrained", facecolor=PAPER)
    grid = figure.subplots(rows, ACROSS, squeeze=False).flat
    for axes, image, (name, why) in zip(grid, _shown(images), said, strict=False):
        axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="none")
        axes.set_title(f"{short(name, 12)}\n{why.removeprefix('as good as ')}", fontsize=8, color=INK)
    for axes in figure.axes:
        axes.set_axis_off()
    return figure


def _shown(images: np.ndarray) -> np.ndarray:
    """(n, H, W, 1 or 3) from 0 to 1, all on one scale."""
    low, high = grey_range(images)
    shown = ((images if images.shape[1] == 3 else images[:, :1]) - low) / (high - low)
    return np.nan_to_num(shown).clip(0, 1).transpose(0, 2, 3, 1)


def classes(folder: Folder) -> Figure | None:
    """How many samples each class has in train and in validation."""
    counts = folder.seen.get("class_counts")
    if counts is None:
        return None
    share = counts / counts.sum(1, keepdims=True).clip(1)
    figure, axes = canvas("share of the samples", x="class", height=2.6)
    at = np.arange(counts.shape[1])
    for offset, values, color, text in ((-0.2, share[0], TRAIN, "train"), (0.2, share[1], VALIDATION, "validation")):
        axes.bar(at + offset, values, 0.4, color=color, label=text)
    if len(at) <= 30:
        names = [short(name, 8) for name in folder.classes(len(at))]
        axes.set_xticks(at, names, rotation=90 if sum(map(len, names)) > 45 else 0)
    axes.legend(frameon=False, fontsize=9, labelcolor=MUTED, loc="upper right", ncols=2)
    axes.set_ylim(0, 1.25 * share.max())
    return figure


def distributions(folder: Folder) -> Figure | None:
    """Each feature in train and in validation, as the network meets it; those that differ most come first."""
    from matplotlib.figure import Figure

    counts, edges, names = (folder.seen.get(key) for key in ("histograms", "edges", "histogram_names"))
    if counts is None or not len(counts):
        return None
    columns = min(3, len(counts))
    rows = -(-len(counts) // columns)
    figure = Figure(figsize=(WIDTH, 1.15 * rows + 0.3), layout="constrained", facecolor=PAPER)
    grid = figure.subplots(rows, columns, squeeze=False).flat
    for axes, pair, ends, name in zip(grid, counts, edges, names, strict=False):
        bare(axes, "", "")
        axes.set_title(short(name, 18), fontsize=9, color=INK, loc="left")
        for values, color in zip(pair, (TRAIN, VALIDATION), strict=True):
            axes.stairs(values / max(values.sum(), 1), ends, color=color, linewidth=1.4)
        axes.set_yticks([])
        axes.tick_params(labelsize=8)
    for axes in list(grid):
        axes.set_axis_off()
    return figure


def map_(folder: Folder) -> Figure | None:
    """The samples in their first two principal components: filled is train, a ring is validation."""
    from matplotlib import colormaps

    points, split, y = (folder.seen.get(key) for key in ("map", "map_split", "map_y"))
    if points is None or points.shape[1] < 2:
        return None
    figure, axes = canvas("second principal component", x="first principal component", height=3.4)
    if folder.data.get("task") == "classification":
        palette = colormaps["tab10" if y.max() < MOST_NAMED else "viridis"]
        colours = palette(y.astype(int) % 10 if y.max() < MOST_NAMED else y / y.max())
    else:
        colours = colormaps["viridis"]((y - y.min()) / max(np.ptp(y), 1e-12))
    train = split == 0
    axes.scatter(*points[train].T, s=9, color=colours[train], linewidth=0, alpha=0.7)
    axes.scatter(*points[~train].T, s=16, facecolor="none", edgecolor=colours[~train], linewidth=0.9)
    if folder.data.get("task") == "classification" and y.max() < MOST_NAMED:
        names = folder.classes(int(folder.data["outputs"]))
        for label in np.unique(y.astype(int)):
            middle = np.median(points[y == label], axis=0)
            style = {"fontsize": 10, "weight": "bold", "color": INK, "ha": "center", "va": "center"}
            axes.text(*middle, short(names[label], 10), **style)
    return figure
