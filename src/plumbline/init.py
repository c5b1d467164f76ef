"""Where the weights start.

Each function sets, in place, the weights of every Linear, Conv and ConvTranspose, and their biases to zero (uniform: to
another number). It leaves alone what was made on purpose: modules that carry `pretrained = True`, weights that the
constructor left at exactly zero (a residual branch that starts as the identity), norms and embeddings.

The final layer is the last Linear, Conv or ConvTranspose in the order in which the modules were made.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod, sqrt
from typing import Literal, TypedDict, Unpack

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from plumbline.config import ConfigError
from plumbline.ranges import NonNegative, Positive

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
RAREST = 1e-6  # the frequency that a class without a sample is given: its logarithm must be finite


class Final(TypedDict):
    """What every initialisation takes: how the final layer starts."""

    head_std: NonNegative | None  # of its normal weights; None: as the others
    final_bias: Literal["zero", "prior", "keep"]


def own(model: nn.Module, prior: Tensor | None, **final: Unpack[Final]) -> None:
    """The weights and biases that the model's constructors made, untouched but for what `final` asks."""
    _finish(model, prior, **final)


def he(model: nn.Module, prior: Tensor | None, **final: Unpack[Final]) -> None:
    """Normal, std sqrt(2 / fan_in): keeps the signal's size through relu layers (He et al. 2015)."""
    _fill(model, lambda layer, weight: weight.normal_(0, sqrt(2 / fans(layer)[0])))
    _finish(model, prior, **final)


def glorot(model: nn.Module, prior: Tensor | None, **final: Unpack[Final]) -> None:
    """Normal, std sqrt(2 / (fan_in + fan_out)): for tanh and linear layers (Glorot & Bengio 2010)."""
    _fill(model, lambda layer, weight: weight.normal_(0, sqrt(2 / sum(fans(layer)))))
    _finish(model, prior, **final)


def truncated_normal(model: nn.Module, prior: Tensor | None, *, std: Positive, **final: Unpack[Final]) -> None:
    """Normal of that std, redrawn outside 2 std (which leaves a std of 0.88 of it)."""
    _fill(model, lambda layer, weight: nn.init.trunc_normal_(weight, 0, std, -2 * std, 2 * std))
    _finish(model, prior, **final)


def uniform(
    model: nn.Module, prior: Tensor | None, *, bound: Positive, bias: NonNegative, **final: Unpack[Final]
) -> None:
    """Weights uniform within ±bound in every layer, and one bias but for the last (Smilkov et al. 2017: 0.5 and 0.1)."""
    _fill(model, lambda layer, weight: weight.uniform_(-bound, bound), bias)
    _finish(model, prior, **final)


def orthogonal(model: nn.Module, prior: Tensor | None, *, gain: Positive, **final: Unpack[Final]) -> None:
    """Orthonormal columns (or rows, if there are fewer) times the gain (Saxe et al. 2014): for deep tanh networks."""
    _fill(model, lambda layer, weight: nn.init.orthogonal_(weight, gain))
    _finish(model, prior, **final)


def fans(layer: nn.Module) -> tuple[float, float]:
    """(inputs that reach one output, outputs that one input reaches), groups and strides counted."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    window, stride = prod(layer.kernel_size), prod(layer.stride)
    into, out = layer.in_channels / layer.groups * window, layer.out_channels / layer.groups * window
    return (into / stride, out) if isinstance(layer, TRANSPOSED) else (into, out / stride)


def layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """(path, module) of all that is initialised here, in module order."""
    kinds = (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)
    return [(path, module) for path, module in model.named_modules() if isinstance(module, kinds)]


@torch.no_grad()
def _fill(model: nn.Module, draw: Callable[[nn.Module, Tensor], Tensor], bias: float = 0.0) -> None:
    """Draw the weights of every layer that is free to be drawn; the bias of the last layer is left to `_finish`."""
    found = layers(model)
    for path, layer in found:
        if getattr(layer, "pretrained", False) or not layer.weight.any():
            continue
        _set_weight(path, layer, lambda weight, layer=layer: draw(layer, weight))
        if layer.bias is not None and layer is not found[-1][1]:
            layer.bias.fill_(bias)


@torch.no_grad()
def _finish(
    model: nn.Module, prior: Tensor | None, *, head_std: float | None, final_bias: Literal["zero", "prior", "keep"]
) -> None:
    """Start the final layer as asked, unless it is pretrained."""
    found = layers(model)
    if not found or getattr(found[-1][1], "pretrained", False):
        return
    path, last = found[-1]
    if head_std is not None:
        _set_weight(path, last, lambda weight: weight.normal_(0, head_std))
    if final_bias == "prior":
        if last.bias is None:
            raise ConfigError(f"init.final_bias=prior: the last layer, {path}, has no bias; accepted here: zero, keep")
        last.bias.copy_(indifferent(prior, path, len(last.bias)))
    elif final_bias == "zero" and last.bias is not None:
        last.bias.zero_()


def indifferent(prior: Tensor | None, path: str, outputs: int) -> Tensor:
    """The outputs that give every input the prior: logarithms of class frequencies, or the means of a regression.

    Frequencies are known by their sum, 1; a standardised target has means of 0.
    """
    if prior is None:
        raise ConfigError("init.final_bias=prior: these data have no prior; accepted here: zero, keep")
    if prior.shape != (outputs,):
        raise ConfigError(
            f"init.final_bias=prior: the last layer, {path}, has {outputs} outputs and the prior {len(prior)}; "
            "make the layer that yields the outputs last in the constructor, or say zero or keep"
        )
    frequencies = len(prior) > 1 and bool((prior >= 0).all()) and abs(float(prior.sum()) - 1) < 1e-3
    return prior.clamp_min(RAREST).log() if frequencies else prior


def _set_weight(path: str, layer: nn.Module, draw: Callable[[Tensor], Tensor]) -> None:
    """Draw a new weight; where it is parametrised, through the inverse of its parametrisation."""
    weight = draw(torch.empty_like(layer.weight))
    if not is_parametrized(layer, "weight"):
        layer.weight.copy_(weight)
        return
    try:
        layer.weight = weight
    except NotImplementedError as error:
        raise ConfigError(
            f"init: the weight of {path} is computed by a parametrisation that cannot be set ({error}); say init=own"
        ) from error
