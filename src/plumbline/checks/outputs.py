"""Checks of what a network yields before it trains."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from plumbline.checks.bench import Bench, Copy
from plumbline.checks.core import Finding
from plumbline.loop import seed_all
from plumbline.losses import one_hot
from plumbline.ranges import NonNegative, Share
from plumbline.regularisers.layers import weight_layers


@contextmanager
def evaluating(copy: Copy) -> Iterator[nn.Module]:
    """The network in evaluation mode; afterwards it is as before, buffers included."""
    with copy.buffers_kept(), torch.no_grad():
        copy.model.eval()
        try:
            yield copy.model
        finally:
            copy.model.train()


def spread(outputs: Tensor) -> float:
    """The root mean square of how the outputs differ between samples."""
    return float((outputs - outputs.mean(0)).square().mean().sqrt())


def last_layer(model: nn.Module, x: Tensor) -> nn.Module | None:
    """The layer with weights that is the last to be called."""
    called: list[nn.Module] = []
    hooks = [
        layer.register_forward_hook(lambda module, *_: called.append(module)) for layer in weight_layers(model).values()
    ]
    try:
        model(x.clone())
    finally:
        for hook in hooks:
            hook.remove()
    return called[-1] if called else None


def after_last_layer(bench: Bench, sizes: tuple[float, ...]) -> list[Tensor] | None:
    """What comes out when the last layer is made to yield normal numbers of these sizes: what is done to them."""
    copy, x = bench.network, bench.x
    draws, found = torch.Generator().manual_seed(0), []
    with evaluating(copy) as model:
        layer = last_layer(model, x)
        for size in sizes if layer is not None else ():

            def replace(module: nn.Module, inputs: Any, output: Any, size: float = size) -> Any:
                if not isinstance(output, Tensor):
                    return output
                return (size * torch.randn(output.shape, generator=draws)).to(output)

            hook = layer.register_forward_hook(replace)
            try:
                found.append(model(x.clone()).float())
            finally:
                hook.remove()
    return found or None


def are_probabilities(outputs: Tensor, axis: int) -> bool:
    """Whether the outputs are never negative and sum to one along an axis."""
    sums = outputs.sum(axis)
    return bool((outputs >= 0).all() and ((sums - 1).abs() < 1e-3).all())


def wants_probabilities(bench: Bench) -> bool:
    """Whether the configured loss takes probabilities: certainty of the right class must cost about nothing."""
    certain = one_hot(bench.y, bench.spec.outputs, torch.float32).clamp(1e-6, 1 - 1e-6)
    flat = torch.full_like(certain, 1 / bench.spec.outputs)
    loss = bench.network.training.loss
    return abs(float(loss(certain, bench.y))) < 0.05 * abs(float(loss(flat, bench.y)))


def probabilities(bench: Bench) -> Finding | None:
    """Whether the outputs have been through a softmax already, which the loss does again."""
    if bench.spec.task != "classification" or bench.spec.outputs < 2 or len(bench.x) < 2:
        return None
    tail = after_last_layer(bench, (1.0, 5.0)) or []
    with evaluating(bench.network) as model:
        seen = [model(bench.x.clone()).float(), *tail]
    for axis, along in ((1, "each row"), (0, "each column, over the batch,")):
        if all(are_probabilities(outputs, axis) for outputs in seen):
            if axis == 1 and wants_probabilities(bench):
                return Finding("ok", "the outputs are probabilities, and the loss wants them so")
            floor = math.log1p((bench.spec.outputs - 1) / math.e)
            return Finding(
                "fail",
                f"the outputs are probabilities already: {along} sums to 1, and the loss takes a softmax of them again",
                {"axis": axis, "floor": floor},
                cause=f"a softmax at the end of the network: the loss cannot fall below {floor:.3g}",
                advice=("return the raw outputs (logits)", "softmax over dim=1 only where probabilities are shown"),
                source="S2: no softmax before a loss that has one",
            )
    return Finding("ok", "the outputs are raw: no probabilities yet")


def output_activation(bench: Bench, *, floor: NonNegative, beyond: NonNegative) -> Finding | None:
    """Whether something after the last layer keeps the outputs from going where the loss wants them."""
    sizes = (1.0, 10.0, 1000.0)
    tail = after_last_layer(bench, sizes)
    if tail is None or any(are_probabilities(values, axis) for values in (tail[0], tail[0].exp()) for axis in (0, 1)):
        return None  # probabilities are another check's, their logarithms are logits
    outputs = torch.cat(tail)
    low, high = float(outputs.min()), float(outputs.max())
    widest = [float(values.max() - values.min()) for values in tail]
    bounded = widest[2] < 2 * widest[1]  # a hundred times larger inputs
    one_sided = low >= 0 or high <= 0
    evidence = {"low": low, "high": high, "bounded": bounded}
    if not bounded and not one_sided:
        return Finding("ok", "nothing limits the outputs", evidence)
    kind = f"stay within {low:.3g} and {high:.3g}" if bounded else f"never go {'below' if low >= 0 else 'above'} 0"
    if bench.spec.task == "classification":
        if wants_probabilities(bench):
            return Finding("ok", f"the outputs {kind}, as the loss wants them", evidence)
        least = math.log1p((bench.spec.outputs - 1) * math.exp(low - high)) if bounded else 0.0
        evidence["floor"] = least
        if bounded and least < floor * math.log(bench.spec.outputs):
            return Finding("ok", f"the outputs {kind}, which is wide enough", evidence)
        said = f"the outputs {kind}, whatever the last layer yields" + (
            f": the loss cannot fall below {least:.3g}" if bounded else ": a class that is cut off gets no gradient"
        )
    else:
        y = bench.data.train.targets.cpu()
        outside = float(((y < low) | (y > high) if bounded else (y < 0) if low >= 0 else (y > 0)).float().mean())
        evidence["out_of_reach"] = outside
        if outside <= beyond:
            return Finding("ok", f"the outputs {kind}, and so do the targets", evidence)
        said = f"the outputs {kind}, but {outside:.0%} of the targets lie beyond"
    return Finding(
        "fail",
        said,
        evidence,
        cause="an activation function (relu, sigmoid, tanh, clip) after the last layer",
        advice=("let the last layer have no activation",),
        source="S2: logits and values are raw outputs",
    )


def dropout_on_outputs(bench: Bench, *, share: Share) -> Finding | None:
    """Whether training sets outputs to zero at random: a dropout after the last layer."""
    copy, passes = bench.noisy, []
    for seed in (1, 2):
        seed_all(seed, copy.training.generator)
        passes.append(copy.outputs([(bench.x, bench.y)]))
    gone = [((one == 0) & (other != 0)).float().mean().item() for one, other in (passes, passes[::-1])]
    if min(gone) <= share:
        return Finding("ok", "training drops no outputs", {"dropped": min(gone)})
    return Finding(
        "warn",
        f"in training, {min(gone):.0%} of the outputs are zero, now these and now those",
        {"dropped": min(gone)},
        cause="dropout after the last layer: the loss is computed of answers with holes",
        advice=("dropout before the last layer, not after it",),
        source="S1: dropout is for hidden units",
    )


def batch_mixing(bench: Bench, *, share: Share) -> Finding | None:
    """Whether the output of a sample depends on the others of its batch, in evaluation."""
    x = bench.x[:16].clone()
    if len(x) < 4:
        return None
    draws = torch.Generator().manual_seed(0)
    others = x.clone()
    others[1::2] = (x[1::2].flip(0) + torch.randn(x[1::2].shape, generator=draws).to(x)) * 3
    copy = bench.awake
    with evaluating(copy) as model:
        torch.manual_seed(0)
        before = model(x.clone()).float()
        torch.manual_seed(0)
        after = model(others).float()
    size = max(spread(before), spread(after[::2]), 1e-5 * float(before.abs().max()))  # less is rounding
    if not size or not before.isfinite().all():
        return None
    moved = float((after[::2] - before[::2]).abs().max()) / size
    evidence = {"change": moved}
    if moved <= share:
        return Finding("ok", "the output of a sample does not depend on the others of its batch", evidence)
    return Finding(
        "fail",
        f"the output of a sample changes by {moved:.2g} of the outputs' spread when other samples of its batch change",
        evidence,
        cause="a reshape, transpose, softmax or normalisation that runs over the batch axis",
        advice=(
            "keep the batch axis first: flatten(1), not view or transpose",
            "softmax and means over dim=1, not 0",
            "batch norm needs running statistics in evaluation",
        ),
        source="S2: look at reshapes; use gradients to see dependencies",
    )


def nondeterministic(bench: Bench, *, share: Share) -> Finding | None:
    """Whether evaluation gives one answer: two passes that differ in nothing but the random state."""
    copy = bench.network
    before = [buffer.clone() for buffer in copy.model.buffers()]
    with evaluating(copy) as model:
        still = [name or "the network" for name, module in model.named_modules() if module.training]
        passes = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            passes.append(model(bench.x.clone()).float())
        moved = any(not torch.equal(old, new) for old, new in zip(before, model.buffers(), strict=True))
    size = max(spread(passes[0]), 1e-5 * float(passes[0].abs().max()))
    change = float((passes[0] - passes[1]).abs().max()) / size if size else 0.0
    evidence = {"change": change, "still_training": still[:3], "buffers_moved": moved}
    if change <= share and not still and not moved:
        return Finding("ok", "evaluation gives the same answer twice", evidence)
    said = (
        f"two passes in evaluation differ by {change:.2g} of the outputs' spread"
        if change > share
        else f"eval() leaves {still[0]} in training mode"
        if still
        else "a pass in evaluation changes the network's running statistics"
    )
    return Finding(
        "warn",
        said,
        evidence,
        cause="dropout or noise that does not ask whether the network is training, or an eval() that does nothing",
        advice=("F.dropout(x, p, self.training), or a module nn.Dropout", "let train(mode) reach every part"),
        source="S2, S3: toggle train and eval",
    )


def constant_output(bench: Bench, *, share: Share) -> Finding | None:
    """Whether the outputs depend on the inputs at all, zero starts set aside, with the norms as they train."""
    outputs = bench.awake.outputs(bench.first)
    if len(bench.x) < 2 or torch.equal(bench.x, bench.x[:1].expand_as(bench.x)) or not outputs.isfinite().all():
        return None
    varied, size = spread(outputs), float(outputs.square().mean().sqrt())
    evidence = {"spread": varied, "size": size}
    if varied > share * size:
        return Finding("ok", "the outputs vary with the inputs", evidence)
    return Finding(
        "fail",
        f"the outputs are the same for every input: they vary by {varied:.2g}, at a size of {size:.2g}",
        evidence,
        cause="the inputs do not reach the outputs: dead units, saturated units, or an input that is dropped",
        advice=("look at the activations layer by layer", "start with init=he and biases of zero"),
        source="S2: look at the outputs before training",
        symptom=True,
    )
