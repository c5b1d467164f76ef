"""Layers that several models share, under the names that configuration uses."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from plumbline.config import ConfigError, nearest
from plumbline.data.core import Spec

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,  # a linear network: to see what depth alone does
}


def _batch(channels: int, dims: int) -> nn.Module:
    return (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims](channels)


class MeanOnlyBatchNorm(nn.Module):
    """Takes each channel's mean over the batch away and leaves its spread alone (Salimans and Kingma 2016)."""

    mean: Tensor

    def __init__(self, channels: int, momentum: float = 0.1):
        super().__init__()
        self.momentum = momentum  # of the running mean that evaluation uses, as in torch's batch norms
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean([axis for axis in range(x.dim()) if axis != 1]) if self.training else self.mean
        if self.training:
            self.mean.lerp_(mean.detach().to(self.mean.dtype), self.momentum)
        return x + (self.bias - mean).view(-1, *[1] * (x.dim() - 2))


def _mean_only(channels: int, dims: int) -> nn.Module:
    return MeanOnlyBatchNorm(channels)


def _layer(channels: int, dims: int) -> nn.Module:
    return nn.LayerNorm(channels) if dims == 0 else nn.GroupNorm(1, channels)


def _group(channels: int, dims: int) -> nn.Module:
    # A group of two features that stand alone is normalised to (1, -1) or (-1, 1) whatever it held; on a map the
    # positions add to the sample, so two channels are enough.
    least = 8 if dims == 0 else 2
    groups = max(n for n in range(1, 33) if channels % n == 0 and (n == 1 or channels // n >= least))
    return nn.GroupNorm(groups, channels)


def _none(channels: int, dims: int) -> nn.Module:
    return nn.Identity()


NORMS: dict[str, Callable[[int, int], nn.Module]] = {
    "batch": _batch,
    "mean_only": _mean_only,
    "layer": _layer,
    "group": _group,
    "none": _none,
}

Activation = Literal[*ACTIVATIONS]  # the two registries are the only home of the names
Norm = Literal[*NORMS]


def activation(name: Activation) -> nn.Module:
    """The activation of that name, or ConfigError."""
    return _named("activation", name, ACTIVATIONS)()


def norm(name: Norm, channels: int, dims: int) -> nn.Module:
    """The normalisation of that name for (B, channels, *map), where the map has `dims` dimensions, or ConfigError.

    group: at most 32 groups (Wu & He 2018), of at least 2 channels, 8 where there is no map. layer, on a map: over
    channels and positions together, as one group.
    """
    return _named("norm", name, NORMS)(channels, dims)


def takes_bias(name: Norm) -> bool:
    """Whether a layer before this norm needs a bias: a batch's mean takes any away, and its gradient would be zero."""
    return name not in ("batch", "mean_only")


def dense(inputs: int, width: int, *, norm_name: Norm, activation_name: Activation) -> nn.Sequential:
    """(B, inputs) -> (B, width): linear, norm, activation."""
    return nn.Sequential(
        OrderedDict(
            linear=nn.Linear(inputs, width, bias=takes_bias(norm_name)),
            norm=norm(norm_name, width, dims=0),
            activation=activation(activation_name),
        )
    )


class Resize(nn.Module):
    """Bilinear resizing of a batch to (size, size); smoothed first where that makes it smaller."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        size = (self.size, self.size)
        return nn.functional.interpolate(x, size, mode="bilinear", antialias=True)  # (B, C, size, size)


# --- mistakes that any model can be asked to make --------------------------------------------------------------------


def need_image(option: str, spec: Spec) -> None:
    """Raise ConfigError unless the inputs are images."""
    if len(spec.shape) != 3:
        raise ConfigError(
            f"model={option}: needs images of shape (C, H, W), but one input of these data has shape {spec.shape}; "
            "choose model=mlp or model=linear, or data with images"
        )


def _named(key: str, name: str, registry: dict[str, Callable[..., nn.Module]]) -> Callable[..., nn.Module]:
    if name not in registry:
        accepted = ", ".join(registry)
        raise ConfigError(f"model.{key}={name!r}: no such {key}{nearest(name, registry)}; accepted: {accepted}")
    return registry[name]
