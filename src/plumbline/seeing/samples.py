"""Samples on their way: the batch exactly as it enters the network, and what it says of a few, epoch after epoch."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from torch import Tensor

from plumbline.files import save_arrays
from plumbline.ranges import Range
from plumbline.report import grey_range
from plumbline.report.drawing import INK, MUTED, PAPER, WIDTH, short
from plumbline.seeing import Picture, Subject
from plumbline.seeing.network import grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRAMES = "film.npz"
ROWS = 16  # epochs in the strip; of more, evenly chosen ones with the first and the last
RIGHT, WRONG = "#0072b2", "#d55e00"


class Door(Picture):
    """The first batch as it enters the network: scaled, augmented, mixed, by the very step that trains, on a copy."""

    def __init__(self, *, samples: Annotated[int, Range("[1, 1000]")]):
        self.samples = samples

    def draw(self, subject: Subject) -> Figure:
        from plumbline.checks.bench import Bench

        with closing(Bench(subject.cfg, subject.data, subject.where)) as bench:
            copy = bench.fresh()
            entered: list[Tensor] = []
            copy.model.register_forward_pre_hook(
                lambda module, inputs: entered.append(inputs[0].detach().float().cpu())
            )
            copy.update(bench.batches(0), 0, 1.0)
            targets = bench.batches(0)[0][1].cpu()
        x, y = entered[0][: self.samples], targets[: self.samples]
        low, high, mean, std = (float(v) for v in (x.min(), x.max(), entered[0].mean(), entered[0].std()))
        self.caption = f"The first batch at the network's door: values from {low:.3g} to {high:.3g}, "
        self.caption += f"mean {mean:.2g}, std {std:.2g}."
        if x.dim() == 4:
            shown = x if x.shape[1] == 3 else x[:, :1]
            shown = ((shown - low) / max(high - low, 1e-12)).permute(0, 2, 3, 1)
            cells = [(image, short(subject.name(label), 11)) for image, label in zip(shown, y, strict=True)]
            return grid(cells, 6, cmap="gray", vmin=0, vmax=1)
        return self.rows(x.flatten(1), subject)

    def rows(self, x: Tensor, subject: Subject) -> Figure:
        """A table as colours: a row a sample, a column a feature."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, 0.6 + 0.12 * len(x)), layout="constrained", facecolor=PAPER)
        axes = figure.add_subplot()
        reach = float(x.abs().max()) or 1.0
        drawn = axes.imshow(x.numpy(), cmap="RdBu_r", vmin=-reach, vmax=reach, aspect="auto", interpolation="none")
        axes.tick_params(length=0, labelsize=8, labelcolor=MUTED)
        axes.set_xlabel("feature", fontsize=10, color=MUTED)
        axes.set_ylabel("sample", fontsize=10, color=MUTED)
        figure.colorbar(drawn, ax=axes, shrink=0.8).ax.tick_params(labelsize=8, labelcolor=MUTED)
        return figure


class Film(Picture):
    """What the network says of the same few samples of validation after each epoch: a frame an epoch."""

    def __init__(self, *, samples: Annotated[int, Range("[1, 1000]")]):
        self.samples = samples

    def watch(self, subject: Subject, epoch: int) -> None:
        x, _, _ = subject.samples(subject.data.val, self.samples)
        frames = self.frames(subject)
        frames = {
            number: said for number, said in frames.items() if number < epoch
        }  # of a killed run, the rest is redone
        frames[epoch] = subject.said(x).numpy()
        save_arrays(subject.directory / FRAMES, epochs=np.array(list(frames)), outputs=np.stack(list(frames.values())))

    def frames(self, subject: Subject) -> dict[int, Any]:
        """What was said, by epoch."""
        path = subject.directory / FRAMES
        if not path.exists():
            return {}
        with np.load(path, allow_pickle=False) as saved:
            return dict(zip(saved["epochs"].tolist(), saved["outputs"], strict=True))

    def draw(self, subject: Subject) -> Figure:
        from matplotlib.figure import Figure

        x, y, _ = subject.samples(subject.data.val, self.samples)
        frames = self.frames(subject)
        epochs = list(frames)
        epochs = [epochs[round(k)] for k in np.linspace(0, len(epochs) - 1, min(ROWS, len(epochs)))]
        pictures = x.dim() == 4
        heights = [1.0] * pictures + [0.42] * (1 + len(epochs))
        figure = Figure(
            figsize=(WIDTH, sum(heights) * 4 / (self.samples + 1) + 0.2), layout="constrained", facecolor=PAPER
        )
        panels = figure.subplots(len(heights), self.samples + 1, squeeze=False, gridspec_kw={"height_ratios": heights})
        for axes in panels.flat:
            axes.set_axis_off()
        size = min(8.0, 44 / self.samples)
        if pictures:
            shown = subject.images(x)
            low, high = grey_range(shown.numpy())
            for axes, image in zip(panels[0, 1:], (shown - low) / (high - low), strict=True):
                axes.imshow(image.numpy(), cmap="gray", vmin=0, vmax=1)
        truth = y.cpu() if subject.spec.task == "classification" or subject.data.target_scale is None else (
            subject.data.target_scale.inverse(y).cpu()
        )  # fmt: skip
        for row, texts, colours in self.lines(subject, epochs, frames, truth):
            for axes, text, colour in zip(panels[row + pictures], texts, colours, strict=True):
                axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=size, color=colour)
        self.caption = f"The same {self.samples} samples after each of {len(frames)} epochs" + (
            f", {len(epochs)} of which are shown" if len(epochs) < len(frames) else ""
        )
        self.caption += ": blue is right, orange wrong." if subject.spec.task == "classification" else "."
        return figure

    def lines(self, subject: Subject, epochs: list[int], frames: dict[int, Any], truth: Tensor) -> Any:
        """(row, texts, colours): the truth, then what was said at each epoch with its probability."""
        yield 0, ["truth", *(short(subject.name(label), 9) for label in truth)], [MUTED] + [INK] * len(truth)
        for row, epoch in enumerate(epochs, 1):
            said = torch.from_numpy(frames[epoch])
            if subject.spec.task != "classification":
                yield row, [f"epoch {epoch}", *(f"{float(v):.3g}" for v in said[:, 0])], [MUTED] + [INK] * len(said)
                continue
            guess = said.argmax(1)
            texts = [f"{short(subject.name(g), 9)}\n{float(p[g]):.2f}" for g, p in zip(guess, said, strict=True)]
            colours = [RIGHT if int(g) == int(t) else WRONG for g, t in zip(guess, truth, strict=True)]
            yield row, [f"epoch {epoch}", *texts], [MUTED, *colours]
