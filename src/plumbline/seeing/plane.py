"""Networks over two features: the boundary they draw, and what each hidden unit says of the plane."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Annotated

import torch
from torch import Tensor, nn

from plumbline.config import ConfigError, nearest
from plumbline.data.core import Spec
from plumbline.ranges import Index, Items, Range
from plumbline.report.drawing import INK, canvas, short
from plumbline.seeing import Picture, Subject, need
from plumbline.seeing.network import COLOURS, grid, heard

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FINE, COARSE = 160, 48  # points a side of the plane: for the boundary, for a unit
POINTS = 600  # samples drawn over the boundary


class Plane(Picture):
    """Two features of the inputs; the others stand at their mean of train."""

    figure = ""

    def __init__(self, *, features: Annotated[list[str | Index], Items(2, 2, distinct=True)]):
        self.features = features

    def check(self, spec: Spec, model: nn.Module) -> None:
        need(
            len(spec.shape) == 1 and spec.shape[0] > 1, self.figure, f"needs a table, not inputs of shape {spec.shape}"
        )
        self.axes(spec)

    def axes(self, spec: Spec) -> list[int]:
        """The columns of the two features."""
        found = []
        for feature in self.features:
            names = list(spec.features)
            place = names.index(feature) if feature in names else feature
            if not isinstance(place, int) or not 0 <= place < spec.shape[0]:
                accepted = ", ".join(names) or f"0 to {spec.shape[0] - 1}"
                raise ConfigError(
                    f"figures.{self.figure}.features: there is no {feature}{nearest(str(feature), names)}; accepted: {accepted}"
                )
            found.append(place)
        return found

    def plane(self, subject: Subject, side: int) -> tuple[Tensor, tuple[float, float, float, float], list[int]]:
        """(inputs (side², features) over the plane, its edges as the network sees them, the two columns)."""
        at = self.axes(subject.spec)
        x = torch.cat([x for x, _ in subject.data.train.batches(1000)])
        low, high = x[:, at].amin(0), x[:, at].amax(0)
        margin = 0.08 * (high - low)
        ends = [torch.linspace(float(a), float(b), side) for a, b in zip(low - margin, high + margin, strict=True)]
        down, across = torch.meshgrid(ends[1], ends[0], indexing="ij")
        points = x.mean(0).expand(side * side, -1).clone()
        points[:, at[0]], points[:, at[1]] = across.flatten().to(x.device), down.flatten().to(x.device)
        return points, tuple(float(v) for end in ends for v in (end[0], end[-1])), at

    def words(self, subject: Subject, at: list[int]) -> list[str]:
        names = subject.spec.features
        return [short(names[k] if names else f"x{k + 1}", 24) for k in at]


class Boundary(Plane):
    """What the network says everywhere in the plane, with train (filled) and validation (rings) on it."""

    figure = "boundary"

    def draw(self, subject: Subject) -> Figure:
        from matplotlib.colors import to_rgb

        points, edges, at = self.plane(subject, FINE)
        said = subject.said(points)
        figure, axes = canvas(self.words(subject, at)[1], x=self.words(subject, at)[0], height=3.8)
        axes.grid(False)
        classes = subject.spec.task == "classification"
        if classes:
            colours = torch.tensor([to_rgb(COLOURS[k % 10]) for k in range(said.shape[1])])
            (surest, next_), winner = said.topk(2).values.T, said.argmax(1)
            sure = (0.1 + 0.5 * (surest - 1 / said.shape[1]) / (1 - 1 / said.shape[1]))[:, None]  # a tie is pale
            tint = 1 - sure * (1 - colours[winner])
            axes.imshow(tint.view(FINE, FINE, 3).clamp(0, 1).numpy(), extent=edges, origin="lower", aspect="auto")
            for known in winner.unique():  # where it comes first, and where another does
                lead = torch.where(winner == known, surest - next_, said[:, known] - surest).view(FINE, FINE).numpy()
                axes.contour(lead, [0.0], extent=edges, colors=INK, linewidths=0.8)
        else:
            axes.imshow(
                said[:, 0].view(FINE, FINE).numpy(), extent=edges, origin="lower", aspect="auto", cmap="viridis"
            )
        for split, filled in ((subject.data.train, True), (subject.data.val, False)):
            x, y, _ = subject.samples(split, POINTS)
            x, y = x.cpu()[:, at], y.cpu()
            colour = [COLOURS[int(k) % 10] for k in y] if classes else ["#ffffff"] * len(y)
            edge = "#ffffff" if filled else colour
            style = {"facecolors": colour if filled else "none", "edgecolors": edge, "linewidth": 0.4 if filled else 1}
            axes.scatter(*x.T.numpy(), s=13 if filled else 22, **style)
        axes.set(xlim=edges[:2], ylim=edges[2:])
        others = subject.spec.shape[0] - 2
        self.caption = "Filled: train. Rings: validation. Scaled as the network sees it" + (
            f"; the other {others} features stand at their mean." if others else "."
        )
        return figure


class HiddenUnits(Plane):
    """What each unit of the hidden layers says of the plane: the pieces that the boundary is made of."""

    figure = "hidden_units"

    def __init__(
        self,
        *,
        features: Annotated[list[str | Index], Items(2, 2, distinct=True)],
        most: Annotated[int, Range("[1, 1000]")],
    ):
        super().__init__(features=features)
        self.most = most

    def check(self, spec: Spec, model: nn.Module) -> None:
        super().check(spec, model)
        need(bool(activations(model)), self.figure, "this network has no hidden layer")

    def draw(self, subject: Subject) -> Figure:
        points, _, at = self.plane(subject, COARSE)
        cells = []
        for name in activations(subject.network):
            with heard(subject.network, name) as seen, torch.no_grad():
                subject.network.eval()(points)
            units = seen[0].flatten(1).float().cpu()[:, : self.most]
            reach = units.abs().max().clamp(min=1e-12)
            row = [
                (units[:, k].view(COARSE, COARSE).flip(0) / reach, short(f"{k + 1}", 10)) for k in range(units.shape[1])
            ]
            row += [(torch.full((COARSE, COARSE), float("nan")), "")] * (-len(row) % columns(self.most))
            cells += row
        self.caption = (
            f"A row (or more) a layer, over {' and '.join(self.words(subject, at))}: blue below 0, red above."
        )
        return grid(cells, columns(self.most), cmap="RdBu_r", vmin=-1, vmax=1)


def columns(most: int) -> int:
    return ceil(most / ceil(most / 8))


def activations(model: nn.Module) -> list[str]:
    """The modules after which a hidden layer's units are what they are: its activations, by the kind torch gives them."""
    return [
        name
        for name, module in model.named_modules()
        if type(module).__module__ == "torch.nn.modules.activation" and not isinstance(module, nn.MultiheadAttention)
    ]
