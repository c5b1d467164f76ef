"""Which modules of a network are its layers, and how a regulariser names those it acts on."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

import torch
from torch import nn
from torch.nn.utils import parametrize

from plumbline.config import ConfigError, nearest

SHOWN = 12  # layers in a message


def weight_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Name -> module of what multiplies its input by weights, in module order; norms are none.

    A module with parameters of its own is a layer if it has no parts, so that a network with a class token is not;
    torch's attention, which reads the weights of its part without calling it, is one layer.
    """
    found: dict[str, nn.Module] = {}
    last = None
    for name, module in model.named_modules():
        inside = last is not None and (last == "" or name.startswith(last + "."))
        parts = [part for part, _ in module.named_children() if part != "parametrizations"]
        whole = not parts or isinstance(module, nn.MultiheadAttention)
        if not inside and whole and not is_norm(module) and kernels(module):
            found[name] = module
            last = name
    return found


def is_norm(module: nn.Module) -> bool:
    """Whether the module normalises: its class says so, torch's own and others'."""
    return "norm" in class_name(module).lower()


def class_name(module: nn.Module) -> str:
    return parametrize.type_before_parametrizations(module).__name__


def kernels(module: nn.Module) -> list[str]:
    """The names of the module's own tensors with two axes or more, parametrised ones included."""
    return [name for name, dim in _own(module) if dim >= 2]


def biases(module: nn.Module) -> list[str]:
    """The names of the module's own tensors with one axis."""
    return [name for name, dim in _own(module) if dim == 1]


@torch.no_grad()
def _own(module: nn.Module) -> list[tuple[str, int]]:
    if isinstance(module, parametrize.ParametrizationList):
        return []
    found = [(name, parameter.dim()) for name, parameter in module.named_parameters(recurse=False)]
    if parametrize.is_parametrized(module):
        found += [(name, parts.original0.dim() if hasattr(parts, "original0") else parts.original.dim())
                  for name, parts in module.parametrizations.items()]  # fmt: skip
    return found


def choose(model: nn.Module, patterns: Iterable[str], *, option: str, leave_out: int) -> dict[str, nn.Module]:
    """Name -> module of the layers that the patterns name, in module order.

    A pattern is `all` weight layers, `hidden` (without the first, leave_out=0, or the last, leave_out=-1), or is
    matched (*, ?, [abc]) against names and classes: of weight layers, or of any module if no weight layer matches.
    Raises ConfigError for a pattern that matches nothing.
    """
    layers = weight_layers(model)
    hidden = {name: layers[name] for name in layers if name != list(layers)[leave_out]}
    modules = dict(model.named_modules())
    chosen: set[str] = set()
    for pattern in patterns:
        words = {"all": layers, "hidden": hidden}
        matched = words[pattern] if pattern in words else _match(layers, pattern) or _match(modules, pattern)
        if not matched:
            known = {*layers, *map(class_name, layers.values()), *words}
            shown = [f"{name or 'the network itself'} ({class_name(module)})" for name, module in layers.items()]
            more = [f"and {len(shown) - SHOWN} more"] if len(shown) > SHOWN else []
            raise ConfigError(
                f"regulariser.{option}.layers={pattern}: matches no layer{nearest(pattern, known)}; accepted: all, hidden, "
                f"or a pattern of names or classes; this network has: {', '.join(shown[:SHOWN] + more) or 'no layer'}"
            )
        chosen |= set(matched)
    return {name: module for name, module in modules.items() if name in chosen}


def _match(modules: dict[str, nn.Module], pattern: str) -> dict[str, nn.Module]:
    return {
        name: module
        for name, module in modules.items()
        if fnmatchcase(name, pattern) or fnmatchcase(class_name(module), pattern)
    }
