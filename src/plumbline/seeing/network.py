"""Inside a network: first-layer filters, activation maps, where it looks (Grad-CAM), and how samples lie before its head."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import TYPE_CHECKING, Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plumbline.data.core import Spec
from plumbline.ranges import Range
from plumbline.regularisers.layers import weight_layers
from plumbline.report import grey_range
from plumbline.report.drawing import INK, MUTED, PAPER, WIDTH, canvas, short
from plumbline.seeing import Picture, Subject, need

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#8c6d31", "#333333", "#a6cee3")


class Filters(Picture):
    """The weights of the first layer as pictures: smooth ones have learnt something, noise has not (Krizhevsky 2012)."""

    def __init__(self, *, most: Annotated[int, Range("[1, 1000]")]):
        self.most = most

    def check(self, spec: Spec, model: nn.Module) -> None:
        need(len(spec.shape) == 3, "filters", f"needs images (C, H, W), not inputs of shape {spec.shape}")

    def draw(self, subject: Subject) -> Figure:
        name, layer = next(iter(weight_layers(subject.network).items()))
        weights = layer.weight.detach().float().cpu()
        if weights.dim() == 2 and weights.shape[1] == torch.Size(subject.spec.shape).numel():
            weights = weights.view(-1, *subject.spec.shape)
        assert weights.dim() == 4, (
            f"the first layer, {name}, has weights {tuple(weights.shape)} and no place in an image"
        )
        few = weights[: self.most]
        shown = few if few.shape[1] == 3 else few[:, 0]
        reach = float(few.abs().max()) or 1.0
        self.caption = f"Weights of {name}, {len(few)} of {len(weights)}: blue is −{reach:.2g}, red is {reach:.2g}."
        if few.shape[1] == 3:
            self.caption = (
                f"Weights of {name}, {len(few)} of {len(weights)}, as colours; grey is 0, the ends are ±{reach:.2g}."
            )
            shown = (shown / reach / 2 + 0.5).permute(0, 2, 3, 1)
        return grid([(image, "") for image in shown], 8, cmap="RdBu_r", vmin=-reach, vmax=reach)


class Activations(Picture):
    """What the maps of a layer say of a few inputs: the input, then its strongest maps, each row on one scale."""

    def __init__(
        self, *, layer: str, samples: Annotated[int, Range("[1, 1000]")], maps: Annotated[int, Range("[1, 1000]")]
    ):
        self.layer, self.samples, self.maps = layer, samples, maps

    def check(self, spec: Spec, model: nn.Module) -> None:
        need_maps("activations", spec, model, self.layer)

    def draw(self, subject: Subject) -> Figure:
        x, y, _ = subject.samples(subject.data.val, self.samples)
        name = chosen(subject.network, x, self.layer, "activations")
        with heard(subject.network, name) as seen, torch.no_grad():
            subject.network.eval()(x.clone())
        maps, pictures = seen[0].float().cpu(), subject.images(x)
        count = min(self.maps, maps.shape[1])
        strongest = maps.flatten(2).amax(2).mean(0).argsort(descending=True)[:count]
        low, high = grey_range(pictures.numpy())
        cells: list[tuple[Any, str]] = []
        for image, own, label in zip(pictures, maps, y, strict=True):
            cells.append(((image - low) / (high - low), short(subject.name(label), 9)))
            cells += [(own[k] / own[strongest].abs().max().clamp(min=1e-12), str(int(k))) for k in strongest]
        self.caption = (
            f"Maps of {name}, the {count} strongest of {maps.shape[1]}; each row from 0 (dark) to its maximum."
        )
        return grid(cells, 1 + count, cmap="viridis", vmin=0, vmax=1, grey=range(0, len(cells), 1 + count))


class GradCam(Picture):
    """Where the network looks: the last maps, weighted by how much the predicted class leans on each (Selvaraju 2017)."""

    def __init__(self, *, layer: str, samples: Annotated[int, Range("[1, 1000]")]):
        self.layer, self.samples = layer, samples

    def check(self, spec: Spec, model: nn.Module) -> None:
        need(spec.task == "classification", "gradcam", "needs classes, not numbers")
        need_maps("gradcam", spec, model, self.layer)

    def draw(self, subject: Subject) -> Figure:
        x, y, _ = subject.samples(subject.data.val, self.samples)
        name = chosen(subject.network, x, self.layer, "gradcam")
        heat, guess = gradcam(subject.network, x, name)
        pictures = subject.images(x)
        low, high = grey_range(pictures.numpy())
        cells = []
        for image, warm, truth, said in zip(pictures, heat, y, guess, strict=True):
            grey = ((image - low) / (high - low)).clamp(0, 1).mean(2)
            right = "" if int(truth) == int(said) else f"\nis {short(subject.name(truth), 10)}"
            cells.append((torch.stack([grey, warm]), short(subject.name(said), 11) + right))
        self.caption = (
            f"What the predicted class leans on, at {name}: bright is most. A wrong answer has the truth below it."
        )
        return grid(cells, 4, overlay=True)


class Embeddings(Picture):
    """Samples of validation as they come before the last layer, on the two axes along which they differ most (PCA)."""

    def __init__(self, *, samples: Annotated[int, Range("[2, 100000]")]):
        self.samples = samples

    def check(self, spec: Spec, model: nn.Module) -> None:
        need(len(weight_layers(model)) > 1, "embeddings", "this network has no layer before its last")

    def draw(self, subject: Subject) -> Figure:
        x, y, _ = subject.samples(subject.data.val, self.samples)
        points = embedded(subject.network, x)
        points = points - points.mean(0)
        _, sizes, axes = torch.linalg.svd(points, full_matrices=False)
        share = float(sizes[:2].square().sum() / sizes.square().sum())
        places = points @ axes[:2].T
        if places.shape[1] < 2:
            places = F.pad(places, (0, 1))
        figure, plot = canvas("", height=3.6)
        plot.set_xticks([]), plot.set_yticks([])
        y = y.cpu()
        if subject.spec.task != "classification":
            plot.scatter(*places.T.numpy(), c=y.flatten(1)[:, 0].numpy(), s=9, cmap="viridis", linewidth=0)
        else:
            for place, known in enumerate(y.unique()):
                its = places[y == known]
                style = {"s": 11, "color": COLOURS[place % 10], "marker": "os^Dv"[place // 10 % 5], "linewidth": 0}
                plot.scatter(*its.T.numpy(), label=short(subject.name(known), 14), alpha=0.75, **style)
            if len(y.unique()) <= 20:
                plot.legend(fontsize=8, frameon=False, labelcolor=MUTED, loc="center left", bbox_to_anchor=(1, 0.5))
        self.caption = f"{len(y)} of validation before the last layer; the two axes hold {share:.0%} of what differs."
        return figure


def need_maps(figure: str, spec: Spec, model: nn.Module, layer: str) -> None:
    """Raise ConfigError unless the inputs are images and that layer gives maps of them."""
    need(len(spec.shape) == 3, figure, f"needs images (C, H, W), not inputs of shape {spec.shape}")
    x = torch.zeros(2, *spec.shape)
    need(bool(mapped(model, x)), figure, "no layer of this network gives maps")
    chosen(model, x, layer, figure)


def embedded(network: nn.Module, x: Tensor) -> Tensor:
    """(n, features) that go into the last layer with weights."""
    found: list[Tensor] = []
    last = list(weight_layers(network).values())[-1]
    hook = last.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0].detach()))
    try:
        with torch.no_grad():
            network.eval()(x.clone())
    finally:
        hook.remove()
    return found[0].flatten(1).float().cpu()


def gradcam(network: nn.Module, x: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """(heat (n, H, W) in [0, 1] of the predicted class, predicted class (n,)), from the maps (n, C, h, w) of that layer."""
    network.eval()
    held: list[Tensor] = []

    def branch(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        held.append(output.detach().requires_grad_())  # so that frozen layers below do not cut the graph
        return held[0].clone()  # an in-place activation may follow

    hook = network.get_submodule(layer).register_forward_hook(branch)
    try:
        with torch.enable_grad():
            logits = network(x.clone()).float()
            guess = logits.argmax(1)
            (gradient,) = torch.autograd.grad(logits.gather(1, guess[:, None]).sum(), held[0])
    finally:
        hook.remove()
    heat = (gradient.float().mean((2, 3), keepdim=True) * held[0].detach().float()).sum(1, keepdim=True).relu()
    heat = F.interpolate(heat, x.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    return (heat / heat.amax((1, 2), keepdim=True).clamp(min=1e-12)).cpu(), guess.cpu()


@torch.no_grad()
def mapped(network: nn.Module, x: Tensor) -> list[str]:
    """The names of the leaves whose output is (n, C, h, w) with h and w above 1, in the order in which they are met."""
    found: list[str] = []
    hooks = [
        module.register_forward_hook(
            lambda module, inputs, output, name=name: (
                found.append(name)
                if isinstance(output, Tensor) and output.dim() == 4 and min(output.shape[2:]) > 1
                else None
            )
        )
        for name, module in network.named_modules()
        if not list(module.children()) and name
    ]
    training = network.training
    try:
        network.eval()(x.clone().to(next(network.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
        network.train(training)
    return found


def chosen(network: nn.Module, x: Tensor, layer: str, figure: str) -> str:
    """The layer of that name; `last`: the last that gives maps but is no pool."""
    names = mapped(network, x[:2])
    if layer != "last":
        need(layer in names, figure, f"{layer}: no layer of that name gives maps; those that do: {', '.join(names)}")
        return layer
    kinds = dict(network.named_modules())
    return [name for name in names if "Pool" not in type(kinds[name]).__name__][-1]


@contextmanager
def heard(network: nn.Module, name: str) -> Iterator[list[Tensor]]:
    """What a layer gives while this is open."""
    found: list[Tensor] = []
    hook = network.get_submodule(name).register_forward_hook(lambda m, i, output: found.append(output.detach().clone()))
    try:
        yield found
    finally:
        hook.remove()


def grid(
    cells: list[tuple[Any, str]], columns: int, *, overlay: bool = False, grey: range = range(0), **style: Any
) -> Figure:
    """Images with a title each, in rows; grey: the places of those that are inputs; overlay: (2, H, W) of image and heat."""
    from matplotlib.figure import Figure

    rows, side = ceil(len(cells) / columns), WIDTH / columns
    titled = any(title for _, title in cells)
    figure = Figure(figsize=(WIDTH, rows * (side + 0.25 * titled)), layout="constrained", facecolor=PAPER)
    every = figure.subplots(rows, columns, squeeze=False).flat
    for place, axes in enumerate(every):
        axes.set_axis_off()
        if place >= len(cells):
            continue
        image, title = cells[place]
        if overlay:
            axes.imshow(image[0].numpy(), cmap="gray", vmin=0, vmax=1, interpolation="none")
            axes.imshow(image[1].numpy(), cmap="inferno", vmin=0, vmax=1, alpha=0.55, interpolation="bilinear")
        elif place in grey:
            axes.imshow(image.clamp(0, 1).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="none")
        else:
            axes.imshow(image.numpy(), interpolation="none", **style)
        if title:
            axes.set_title(title, fontsize=8 if columns < 6 else 6, color=INK, pad=2)
    return figure
