"""Optimisers of torch, with weight decay and learning rates that know the layers.

`optimiser(model)` takes every trained parameter; one group for each distinct (rate, decay), so that a step stays a few
large operations. Each group carries its `initial_lr`, which the schedule multiplies.
"""

from __future__ import annotations

import inspect
from typing import Any, TypedDict, Unpack

import torch
import torch._compile
from torch import nn
from torch.optim import Optimizer

from plumbline.config import ConfigError, nearest
from plumbline.contract import require
from plumbline.ranges import Count, Decay, NonNegative, Positive
from plumbline.regularisers.layers import is_norm, weight_layers

UNUSABLE = {"LBFGS": "a step of it needs a closure", "SparseAdam": "it takes sparse gradients only"}
ALWAYS_DECOUPLED = ("AdamW", "Adafactor", "Muon")  # torch gives them no other decay
SET_ELSEWHERE = ("params", "lr", "weight_decay", "decoupled_weight_decay")


class Groups(TypedDict):
    """What every optimiser takes."""

    lr: NonNegative
    weight_decay: NonNegative
    decoupled: bool  # each step multiplies the weight by 1 - lr * weight_decay; else the decay enters the gradient
    spare: bool  # norms and biases do not decay
    layer_rates: (
        tuple[Positive, Positive] | None
    )  # [low, high]: factors of lr, geometric from the first to the last layer


def sgd(model: nn.Module, *, momentum: Decay, nesterov: bool, **groups: Unpack[Groups]) -> Optimizer:
    """Stochastic gradient descent."""
    require("optimiser.nesterov", nesterov, momentum > 0 or not nesterov, "false without momentum")
    return _make(torch.optim.SGD, model, groups, momentum=momentum, nesterov=nesterov)


def adam(model: nn.Module, *, betas: tuple[Decay, Decay], eps: Positive, **groups: Unpack[Groups]) -> Optimizer:
    """Adam (Kingma & Ba 2015); with decoupled decay it is AdamW (Loshchilov & Hutter 2019)."""
    kind = torch.optim.AdamW if groups["decoupled"] else torch.optim.Adam
    return _make(kind, model, groups, **_moments(betas, eps))


def nadam(model: nn.Module, *, betas: tuple[Decay, Decay], eps: Positive, **groups: Unpack[Groups]) -> Optimizer:
    """Adam with Nesterov's momentum (Dozat 2016)."""
    return _make(torch.optim.NAdam, model, groups, **_moments(betas, eps))


def radam(model: nn.Module, *, betas: tuple[Decay, Decay], eps: Positive, **groups: Unpack[Groups]) -> Optimizer:
    """Adam that waits until its variances are known, instead of a warm-up (Liu et al. 2020)."""
    return _make(torch.optim.RAdam, model, groups, **_moments(betas, eps))


def rmsprop(model: nn.Module, *, alpha: Decay, momentum: Decay, eps: Positive, **groups: Unpack[Groups]) -> Optimizer:
    """Steps divided by a running root mean square of the gradient (Hinton 2012)."""
    return _make(torch.optim.RMSprop, model, groups, alpha=alpha, momentum=momentum, eps=eps)


def adagrad(model: nn.Module, *, eps: Positive, **groups: Unpack[Groups]) -> Optimizer:
    """Steps divided by the root of the sum of all squared gradients (Duchi et al. 2011)."""
    return _make(torch.optim.Adagrad, model, groups, eps=eps)


def adam_then_sgd(
    model: nn.Module,
    *,
    betas: tuple[Decay, Decay],
    eps: Positive,
    switch: Count,
    sgd_lr: Positive,
    momentum: Decay,
    **groups: Unpack[Groups],
) -> Optimizer:
    """Adam, fast at first, then SGD from update `switch` on, at its own rate (Wu et al. 2016 trained GNMT so)."""
    second = sgd(model, momentum=momentum, nesterov=False, **{**groups, "lr": sgd_lr})
    return Phases(adam(model, betas=betas, eps=eps, **groups), second, switch)


class Phases(Optimizer):
    """One optimiser for the first `switch` updates and another one after them; how many were made is in its state."""

    def __init__(self, first: Optimizer, second: Optimizer, switch: int):
        self.first, self.second, self.switch, self.updates = first, second, switch, 0
        super().__init__(first.param_groups, {})

    @property
    def now(self) -> Optimizer:
        """The one whose turn it is."""
        return self.first if self.updates < self.switch else self.second

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.now.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        """Torch's constructor sets them; they are those of the two."""

    @property
    def state(self) -> dict[Any, Any]:
        return self.now.state

    @state.setter
    def state(self, state: dict[Any, Any]) -> None:
        """As the groups."""

    def add_param_group(self, group: dict[str, Any]) -> None:
        """As the groups."""

    def step(self, closure: Any = None) -> Any:
        loss = self.now.step(closure)
        self.updates += 1
        return loss

    def __getstate__(self) -> dict[str, Any]:  # torch's own would copy three attributes
        return vars(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "first": self.first.state_dict(), "second": self.second.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        self.first.load_state_dict(state["first"])
        self.second.load_state_dict(state["second"])


def by_name(model: nn.Module, *, name: str, options: dict[str, Any], **groups: Unpack[Groups]) -> Optimizer:
    """Any other of torch.optim, with torch's own defaults for what `options` leaves out."""
    kinds = {
        key: kind for key, kind in vars(torch.optim).items() if isinstance(kind, type) and issubclass(kind, Optimizer)
    }
    usable = sorted(kinds.keys() - {"Optimizer"} - UNUSABLE.keys())
    if name not in usable:
        reason = UNUSABLE.get(name, f"torch.optim has no such optimiser{nearest(name, usable)}")
        raise ConfigError(f"optimiser.name={name}: {reason}; accepted: {', '.join(usable)}")
    accepted = inspect.signature(kinds[name]).parameters
    free = [key for key in accepted if key not in SET_ELSEWHERE]
    for key, value in options.items():
        if key not in free:
            reason = (
                "stands one level higher" if key in SET_ELSEWHERE else f"no such option of {name}{nearest(key, free)}"
            )
            raise ConfigError(f"optimiser.options.{key}={value}: {reason}; accepted: {', '.join(free)}")
    coupled = groups["weight_decay"] > 0 and not groups["decoupled"]
    if coupled and (name in ALWAYS_DECOUPLED or "weight_decay" not in accepted):
        raise ConfigError(f"optimiser.decoupled=False: {name} has no coupled weight decay; say true, or weight_decay=0")
    try:
        return _make(kinds[name], model, groups, **options)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optimiser.options={options}: torch's {name} refuses: {error}") from error


def parameter_groups(
    model: nn.Module,
    *,
    lr: NonNegative,
    weight_decay: NonNegative,
    spare: bool,
    layer_rates: tuple[Positive, Positive] | None,
) -> list[dict[str, Any]]:
    """Torch's groups of the trained parameters: their `lr`, `weight_decay` and `initial_lr`."""
    norms = {id(p) for module in model.modules() if is_norm(module) for p in module.parameters(recurse=False)}
    depth = depths(model)
    if not depth:
        raise ConfigError("optimiser: the network has no parameter to train")
    layers = sorted(set(depth.values()))
    rates = {layer: 1.0 for layer in layers}
    if layer_rates is not None:
        low, high = layer_rates
        steps = max(len(layers) - 1, 1)
        rates = {layer: high * (low / high) ** ((len(layers) - 1 - i) / steps) for i, layer in enumerate(layers)}
    members: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter, layer in depth.items():
        decay = 0.0 if spare and (parameter.dim() < 2 or id(parameter) in norms) else weight_decay
        members.setdefault((lr * rates[layer], decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "initial_lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in members.items()
    ]


def depths(model: nn.Module) -> dict[nn.Parameter, int]:
    """The number of each trained parameter's layer, in module order; norms and bare ones go with the layer before them."""
    numbers = {name: number for number, name in enumerate(weight_layers(model))}
    depth, current = {}, 0
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        homes = (".".join(parts[:end]) for end in range(len(parts)))  # all modules around the parameter
        current = next((numbers[home] for home in homes if home in numbers), current)
        if parameter.requires_grad:
            depth[parameter] = current
    return depth


def _make(kind: type[Optimizer], model: nn.Module, groups: Groups, **options: Any) -> Optimizer:
    """The optimiser, in its fastest form, with the decay that was asked for."""
    lr, decay, rates = groups["lr"], groups["weight_decay"], groups["layer_rates"]
    parts = parameter_groups(model, lr=lr, weight_decay=decay, spare=groups["spare"], layer_rates=rates)
    accepted = inspect.signature(kind).parameters
    if groups["decoupled"] and kind.__name__ not in ALWAYS_DECOUPLED:
        if "decoupled_weight_decay" in accepted:
            options["decoupled_weight_decay"] = True
        else:
            kind = _decoupled(kind)
            for part in parts:
                part["decay"], part["weight_decay"] = part["weight_decay"], 0.0
    # On a CPU one fused pass takes a quarter to a half of the time of torch's default; elsewhere the default is right.
    if "fused" in accepted and not options.keys() & {"fused", "foreach", "differentiable"}:
        options["fused"] = True if all(p.device.type == "cpu" for part in parts for p in part["params"]) else None
    if kind.__module__.startswith("torch.optim.") and not options.get("differentiable"):
        kind = _without_compiler(kind)
    return kind(parts, lr=lr, **options)


def _without_compiler(kind: type[Optimizer]) -> type[Optimizer]:
    """The optimiser without torch's detours to its compiler, which is only told to keep away from it.

    Loading the compiler for that, at the first step, takes a second and 100 MB.
    """
    spared = {
        name: method.__wrapped__
        for name, method in vars(Optimizer).items()
        if getattr(getattr(method, "__code__", None), "co_filename", "") == torch._compile.__file__
    }
    step = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), {**spared, "step": step, "__module__": kind.__module__})


def _decoupled(kind: type[Optimizer]) -> type[Optimizer]:
    """The optimiser with decoupled decay, which torch lacks: weights shrink just before each step, as in AdamW."""

    class Decoupled(kind):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.register_step_pre_hook(_shrink)

        def __setstate__(self, state: dict[str, Any]) -> None:
            super().__setstate__(state)
            if _shrink not in self._optimizer_step_pre_hooks.values():  # torch's copies lose their hooks
                self.register_step_pre_hook(_shrink)

    Decoupled.__name__, Decoupled.__module__ = kind.__name__, kind.__module__
    return Decoupled


@torch.no_grad()
def _shrink(optimiser: Optimizer, arguments: Any, options: Any) -> None:
    for group in optimiser.param_groups:
        with_gradient = [p for p in group["params"] if p.grad is not None]
        if group["decay"] > 0 and with_gradient:
            torch._foreach_mul_(with_gradient, 1 - group["lr"] * group["decay"])


def _moments(betas: tuple[float, float], eps: float) -> dict[str, Any]:
    return {"betas": tuple(map(float, betas)), "eps": eps}  # torch takes no whole numbers
