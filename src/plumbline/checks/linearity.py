"""Whether there is an activation where one belongs: between the layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from plumbline.checks.bench import Bench
from plumbline.checks.core import Finding
from plumbline.checks.outputs import evaluating, spread
from plumbline.ranges import Share
from plumbline.regularisers.layers import weight_layers

SAMPLES = 128
FEW = 16  # samples that go through two layers, some of them again where the batch is smaller: each unit is a line or bends
FAR = 3.0  # standard deviations of what is put between two layers: there every activation bends


def linear(bench: Bench, *, share: Share) -> Finding | None:
    """Whether the network is one linear map, f(.3 a + .7 b) = .3 f(a) + .7 f(b) near and far, or two of its layers are."""
    few = bench.x[torch.arange(FEW) % len(bench.x)]
    with evaluating(bench.awake) as model:
        called, bend = calls(model, few), bent(model, bench.x[:SAMPLES])
        layers = len(called)
        if layers < 2 or bend is None:
            return None  # linear by design, or constant: another check's
        pair = joined(model, few, called, share) if bend > share else None
    evidence, source = {"bend": bend, "layers": layers, "pair": pair}, "S0: its own example has this fault"
    if pair is not None:
        return Finding(
            "warn",
            f"layers {pair[0]} and {pair[1]} are together one matrix: nothing between them bends",
            evidence,
            cause="an activation function is forgotten there",
            advice=(f"put relu or gelu after {pair[0]}", "or leave it out: one layer is the same and cheaper"),
            source=source,
        )
    if bend > share:
        return Finding("ok", "the network is not linear, and no two of its layers are one", evidence)
    return Finding(
        "warn",
        f"the network is linear: its {layers} layers are together one matrix (it bends by {bend:.1g} of the outputs)",
        evidence,
        cause="no activation functions between the layers",
        advice=("put relu or gelu between the layers", "or take model=linear, which is the same and cheaper"),
        source=source,
    )


def calls(model: nn.Module, x: Tensor) -> Counter[str]:
    """How often each layer with weights is called, in the order of the first call."""
    called: Counter[str] = Counter()
    layers = weight_layers(model)
    with hooked({layer: lambda *_, name=name: called.update([name]) for name, layer in layers.items()}):
        model(x.clone())
    return called


def bent(model: nn.Module, x: Tensor) -> float | None:
    """How far the network is from linear, as a share of the outputs' spread; None where they are constant."""
    worst = 0.0
    for scale in (1.0, 30.0):
        a, b = x * scale, x.roll(1, 0) * scale * -1.5
        ends = [model(part.clone()).double() for part in (a, b, 0.3 * a + 0.7 * b)]
        size = max(map(spread, ends))
        if not size or size < 1e-5 * float(ends[0].abs().max()):
            return None
        worst = max(worst, float((ends[2] - 0.3 * ends[0] - 0.7 * ends[1]).abs().max()) / size)
    return worst


def joined(model: nn.Module, x: Tensor, called: Counter[str], share: float) -> tuple[str, str] | None:
    """The names of two layers, one called after the other, that might as well be one; None if there are none.

    They might if the second gets what the first yields, at most scaled and shifted (a norm that knows its statistics,
    dropout that is off), if nothing else gets it (a skip does), and if the first is not narrow on purpose: two layers
    with few units between them are one matrix of low rank, which saves weights.
    """
    layers = weight_layers(model)
    last: list[tuple[str, Any]] = []  # the layer that was called last, and what it yielded
    near: list[tuple[str, str]] = []

    def before(module: nn.Module, inputs: tuple[Any, ...], name: str) -> None:
        if last and inputs and called[name] == called[last[0][0]] == 1:
            first = layers[last[0][0]]
            if wasteful(first, module) and follows(first, last[0][1], inputs[0], share):
                near.append((last[0][0], name))

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Any, name: str) -> None:
        last[:] = [(name, output.clone() if isinstance(output, Tensor) else None)]  # an activation may work in place

    with (
        hooked(
            {layer: lambda *given, name=name: before(*given, name=name) for name, layer in layers.items()}, pre=True
        ),
        hooked({layer: lambda *given, name=name: after(*given, name=name) for name, layer in layers.items()}),
    ):
        ends = model(x.clone())
    return next((pair for pair in near if is_one(model, x, ends, layers[pair[0]], layers[pair[1]], share)), None)


def wasteful(first: nn.Module, second: nn.Module) -> bool:
    """Whether there are more units between them than the one matrix needs; as many as inputs may be meant (MobileNet)."""
    if not all(
        isinstance(layer, nn.Linear | _ConvNd) and getattr(layer, "groups", 1) == 1 for layer in (first, second)
    ):
        return False
    between = first.weight.shape[0]
    return between > first.weight[0].numel() or between >= second.weight.shape[0]


def follows(first: nn.Module, output: Tensor | None, inputs: Tensor, share: float) -> bool:
    """Whether the inputs of the next layer are this layer's output, each unit scaled and shifted."""
    if output is None or output.shape != inputs.shape:
        return False
    axis = 1 if isinstance(first, _ConvNd) else -1
    given, got = (part.detach().double().movedim(axis, -1).flatten(0, -2) for part in (output, inputs))
    given, got = given - given.mean(0), got - got.mean(0)
    slope = (given * got).sum(0) / given.square().sum(0).clamp_min(1e-30)
    off = (got - slope * given).square().sum(0).sqrt()
    return bool(slope.any() and (off <= share * got.square().sum(0).sqrt() + 1e-12).all())


def is_one(model: nn.Module, x: Tensor, ends: Tensor, first: nn.Module, second: nn.Module, share: float) -> bool:
    """Whether large numbers from the first reach the second as they are, and the outputs only through the second."""
    draws, seen = torch.Generator().manual_seed(0), {}

    def large(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        seen["given"] = (FAR * torch.randn(output.shape, generator=draws)).to(output)
        return seen["given"].clone()

    def as_before(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        seen["got"] = inputs[0].clone()
        return kept["output"].clone()

    kept: dict[str, Tensor] = {}
    with hooked({second: lambda module, inputs, output: kept.update(output=output.clone())}):
        model(x.clone())
    with hooked({first: large, second: as_before}):
        again = model(x.clone())
    only_way = float((again - ends).abs().max()) <= 1e-5 * float(ends.abs().max())
    return only_way and follows(first, seen["given"], seen["got"], share)


@contextmanager
def hooked(hooks: dict[nn.Module, Callable[..., Any]], *, pre: bool = False) -> Iterator[None]:
    """The modules with a hook each: after their call, or before it."""
    handles = [
        module.register_forward_pre_hook(hook) if pre else module.register_forward_hook(hook)
        for module, hook in hooks.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
