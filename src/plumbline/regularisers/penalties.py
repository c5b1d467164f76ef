"""Terms that are added to the loss: of weights, biases and activities, and of too much confidence.

Strengths follow Keras: strength * sum(|w|) or strength * sum(w²), without a factor 1/2, summed over the chosen layers;
activities are summed over a layer's outputs and divided by the batch size.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from plumbline.config import ConfigError
from plumbline.data.core import Spec
from plumbline.ranges import Names, NonNegative
from plumbline.regularisers.core import Regulariser
from plumbline.regularisers.layers import biases, choose, kernels

Strengths = tuple[float, float]  # of sum(|t|), of sum(t²)
_keys = count()


class ElasticNet(Regulariser):
    """L1 and L2 together (Zou & Hastie 2005).

    `hidden` layers are all but the last. An activity is what the layer returns in training (before the activation
    function, if that is a module of its own; after it, if it works in place or is itself among `layers`).
    """

    option = "elastic_net"

    def __init__(
        self, spec: Spec, *, kernel_l1: NonNegative, kernel_l2: NonNegative, bias_l1: NonNegative, bias_l2: NonNegative,
        activity_l1: NonNegative, activity_l2: NonNegative, layers: Names,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        self._set((kernel_l1, kernel_l2), (bias_l1, bias_l2), (activity_l1, activity_l2), layers)

    def _set(self, kernel: Strengths, bias: Strengths, activity: Strengths, layers: list[str]) -> None:
        self.kernel, self.bias, self.activity, self.layers = kernel, bias, activity, layers
        self.key = next(_keys)  # tells its taps from another's, in copies too
        self.kernels: list[tuple[str, str]] = []  # (module, tensor), by name: a copy of the model has its own
        self.biases: list[tuple[str, str]] = []
        self.tapped: list[str] = []

    def attach(self, model: nn.Module) -> None:
        chosen = choose(model, self.layers, option=self.option, leave_out=-1)
        if any(self.kernel):
            self.kernels = [(name, tensor) for name, module in chosen.items() for tensor in kernels(module)]
            if not self.kernels:
                raise self.wrong("layers", self.layers, f"these have no weights: {', '.join(chosen)}")
        if any(self.bias):
            self.biases = [(name, tensor) for name, module in chosen.items() for tensor in biases(module)]
        if any(self.activity):
            self.tapped = list(chosen)
            for module in chosen.values():
                module.register_forward_hook(_Tap(self.key))
            model.register_forward_pre_hook(_Forget(self.key, self.tapped))

    def penalty(self, model: nn.Module, logits: Tensor) -> Tensor | None:
        terms = []
        for strengths, names in ((self.kernel, self.kernels), (self.bias, self.biases)):
            tensors = [getattr(model.get_submodule(module), tensor) for module, tensor in names]
            if tensors:
                terms.append(_Norms.apply(*strengths, *tensors))
        outputs = [output for tap in _taps(model, self.tapped, self.key) for output in tap.take()]
        if outputs:
            terms.append(_Norms.apply(*self.activity, *outputs) / len(outputs[0]))
        return torch.stack(terms).sum() if terms else None

    @torch.no_grad()
    def by_layer(self, model: nn.Module) -> dict[str, dict[str, float]]:
        """What each layer adds by its kernel, its bias and its activity, the last training pass's, which is kept."""
        found: dict[str, dict[str, float]] = {}
        for part, strengths, names in (("kernel", self.kernel, self.kernels), ("bias", self.bias, self.biases)):
            for module, tensor in names:
                term = float(_Norms.apply(*strengths, getattr(model.get_submodule(module), tensor)))
                layer = found.setdefault(module, {})
                layer[part] = layer.get(part, 0.0) + term  # a recurrent layer has several of each
        for name in self.tapped:
            for tap in _taps(model, [name], self.key):
                if tap.outputs:
                    term = float(_Norms.apply(*self.activity, *tap.outputs)) / len(tap.outputs[0])
                    found.setdefault(name, {})["activity"] = term
        return found


class L1(ElasticNet):
    """Absolute values: makes weights sparse (Tibshirani 1996)."""

    option = "l1"

    def __init__(
        self, spec: Spec, *, kernel: NonNegative, bias: NonNegative, activity: NonNegative, layers: Names
    ) -> None:
        Regulariser.__init__(self, spec)
        self._set((kernel, 0.0), (bias, 0.0), (activity, 0.0), layers)


class L2(ElasticNet):
    """Squares: makes weights small. The coupled decay of an optimiser is strength * 2."""

    option = "l2"

    def __init__(
        self, spec: Spec, *, kernel: NonNegative, bias: NonNegative, activity: NonNegative, layers: Names
    ) -> None:
        Regulariser.__init__(self, spec)
        self._set((0.0, kernel), (0.0, bias), (0.0, activity), layers)


class ConfidencePenalty(Regulariser):
    """-strength * the mean entropy of the outputs, in nats: rewards doubt (Pereyra et al. 2017)."""

    option = "confidence_penalty"

    def __init__(self, spec: Spec, *, strength: NonNegative) -> None:
        super().__init__(spec)
        if spec.task != "classification":
            raise ConfigError(f"regulariser=[{self.option}]: needs classes, not {spec.task}")
        self.strength = strength

    def penalty(self, model: nn.Module, logits: Tensor) -> Tensor | None:
        if self.strength == 0:
            return None
        log_p = logits.float().log_softmax(1)  # (B, C)
        return self.strength * (log_p.exp() * log_p).sum(1).mean()


class KL(Regulariser):
    """strength * KL(code || N(0, 1)), in nats a sample, of a model with a code that is drawn (Kingma and Welling 2014).

    Such a model has a `divergence`. A strength of 1 is the bound on the likelihood where the loss is one, summed over the
    inputs; above 1 is the beta of Higgins et al. 2017. Our losses are means over the inputs: strength is 1 / inputs then.
    """

    option = "kl"

    def __init__(self, spec: Spec, *, strength: NonNegative) -> None:
        super().__init__(spec)
        self.strength = strength

    def attach(self, model: nn.Module) -> None:
        if not hasattr(model, "divergence"):
            raise ConfigError(f"regulariser=[kl]: {type(model).__name__} draws no code; choose model=vae")

    def penalty(self, model: nn.Module, logits: Tensor) -> Tensor | None:
        divergence = getattr(model, "module", model).divergence
        return None if self.strength == 0 or divergence is None else self.strength * divergence


class _Norms(torch.autograd.Function):
    """l1 * sum(|t|) + l2 * sum(t²) over tensors, with the gradient in one pass over each.

    Against sums of autograd's own operations it takes a quarter (l1) to a half (l2) off what the penalty costs.
    """

    @staticmethod
    def forward(ctx: Any, l1: float, l2: float, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        ctx.l1, ctx.l2 = l1, l2
        terms = []
        for tensor in tensors:
            tensor = tensor if tensor.dtype == torch.float64 else tensor.float()
            if l1:
                terms.append(l1 * tensor.abs().sum())
            if l2:
                terms.append(l2 * torch.linalg.vector_norm(tensor).square())
        return torch.stack(terms).sum()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradients = []
        for tensor in ctx.saved_tensors:
            gradient = tensor.sign().mul_(upstream * ctx.l1) if ctx.l1 else None
            if ctx.l2:
                scale = upstream * (2 * ctx.l2)
                gradient = tensor * scale if gradient is None else gradient.addcmul_(tensor, scale)
            gradients.append(gradient)
        return None, None, *gradients


class _Tap:
    """A forward hook that keeps its layer's outputs until the penalty takes them. A copy starts empty."""

    def __init__(self, key: int) -> None:
        self.key, self.outputs = key, []

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if module.training and torch.is_grad_enabled():
            self.outputs.append(output[0] if isinstance(output, tuple) else output)

    def take(self) -> list[Tensor]:
        outputs, self.outputs = self.outputs, []
        return outputs

    def __reduce__(self) -> tuple[type[_Tap], tuple[int]]:
        return _Tap, (self.key,)


class _Forget:
    """A pre-hook of the whole network: a training pass whose penalty nobody asked for must not enter the next one's."""

    def __init__(self, key: int, tapped: list[str]) -> None:
        self.key, self.tapped = key, tapped

    def __call__(self, model: nn.Module, inputs: Any) -> None:
        if model.training and torch.is_grad_enabled():
            for tap in _taps(model, self.tapped, self.key):
                tap.outputs = []


def _taps(model: nn.Module, names: list[str], key: int) -> Iterator[_Tap]:
    for name in names:
        hooks = model.get_submodule(name)._forward_hooks.values()
        yield from (hook for hook in hooks if isinstance(hook, _Tap) and hook.key == key)
