"""Weights that are computed from others: a length and a direction, or a largest singular value of 1."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from plumbline.data.core import Spec
from plumbline.ranges import Depth, Names
from plumbline.regularisers.core import Regulariser
from plumbline.regularisers.layers import choose, kernels


class WeightNorm(Regulariser):
    """w = g v / ‖v‖ for each output: length and direction are learned apart (Salimans & Kingma 2016).

    Changes no output when attached. `hidden` layers are all but the last.
    """

    option = "weight_norm"

    def __init__(self, spec: Spec, *, layers: Names) -> None:
        super().__init__(spec)
        self.layers = layers

    def attach(self, model: nn.Module) -> None:
        for name, module, kernel in _targets(self, model, self.layers):
            if (torch.linalg.vector_norm(getattr(module, kernel).detach().flatten(1), dim=1) == 0).any():
                reason = f"{name}.{kernel} has rows of zeros, which have no direction"
                raise self.wrong("layers", self.layers, f"{reason}; name other layers, or choose an init that draws it")
            parametrizations.weight_norm(module, kernel)


class SpectralNorm(Regulariser):
    """w / σ(w), σ its largest singular value, by `n_power_iterations` a training pass (Miyato et al. 2018).

    The singular vectors are buffers of the model, saved with it. `hidden` layers are all but the last.
    """

    option = "spectral_norm"

    def __init__(self, spec: Spec, *, n_power_iterations: Depth, layers: Names) -> None:
        super().__init__(spec)
        self.n_power_iterations, self.layers = n_power_iterations, layers

    def attach(self, model: nn.Module) -> None:
        for name, module, kernel in _targets(self, model, self.layers):
            if not getattr(module, kernel).detach().any():
                reason = f"{name}.{kernel} is zero and cannot be scaled to 1"
                raise self.wrong("layers", self.layers, f"{reason}; name other layers, or choose an init that draws it")
            parametrizations.spectral_norm(module, kernel, n_power_iterations=self.n_power_iterations)


def _targets(regulariser: Regulariser, model: nn.Module, layers: list[str]) -> list[tuple[str, nn.Module, str]]:
    """(name, module, tensor) of every weight of the chosen layers."""
    chosen = choose(model, layers, option=regulariser.option, leave_out=-1)
    found = [(name, module, kernel) for name, module in chosen.items() for kernel in kernels(module)]
    if not found:
        raise regulariser.wrong("layers", layers, f"these have no weights: {', '.join(chosen)}")
    for name, module, kernel in found:
        if parametrize.is_parametrized(module, kernel):
            reason = f"{name}.{kernel} is computed by another norm of weights already"
            raise regulariser.wrong("layers", layers, f"{reason}; leave one of the two out, or name other layers")
    return found
