"""What a network is made of: its operations, their shapes, parameters and multiply-adds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from plumbline.regularisers.layers import class_name

PRODUCTS = (
    torch.matmul, torch.bmm, torch.mm, Tensor.matmul, Tensor.bmm, Tensor.mm, Tensor.__matmul__, nn.functional.linear,
)  # fmt: skip


@torch.no_grad()
def layers(model: nn.Module, x: Tensor) -> tuple[list[dict[str, Any]], Any]:
    """The operations that hold weights or change the shape, as a batch x meets them, and what comes out.

    An operation's name, kind, output shape without the batch, parameters, and multiply-adds for one sample. What is done
    between them, as in attention, is one row more.
    """
    found: list[dict[str, Any]] = []
    between = Between(len(x))

    def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        between.inside += 1

    def note(name: str, whole: bool, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        between.inside -= whole
        output = output[0] if isinstance(output, tuple) else output  # a recurrent layer's, beside its last state
        parameters = sum(weight.numel() for weight in module.parameters(recurse=whole))
        if not isinstance(output, Tensor) or not (parameters or (inputs and output.shape != inputs[0].shape)):
            return
        shape = tuple(output.shape[1:])
        row = {"name": name, "kind": class_name(module), "output": shape, "parameters": parameters}
        found.append(row | {"multiply_adds": multiply_adds(module, inputs, shape) if whole else 0})

    parts = list(operations(model))
    hooks = [module.register_forward_hook(partial(note, name, whole)) for name, module, whole in parts]
    hooks += [module.register_forward_pre_hook(enter) for _, module, whole in parts if whole]
    try:
        with between:
            outputs = model(x)
    finally:
        for hook in hooks:
            hook.remove()
    rest = sum(weight.numel() for weight in model.parameters()) - sum(
        {row["name"]: row["parameters"] for row in found}.values()
    )
    if between.multiply_adds or rest > 0:  # of layers that are not called, but read
        row = {"name": "between them", "kind": "", "output": (), "parameters": max(rest, 0)}
        found.append(row | {"multiply_adds": between.multiply_adds})
    return found, outputs


def operations(model: nn.Module) -> Iterator[tuple[str, nn.Module, bool]]:
    """(name, module, whole) of each that has no parts, or whose parts are not called: torch's attention, what makes a weight.

    Beside these whole ones, modules with parts and weights of their own, such as a class token.
    """
    inside = None
    for name, module in model.named_modules():
        if inside is not None and name.startswith(inside):
            continue
        parts = [part for part, _ in module.named_children() if part != "parametrizations"]
        if not parts or isinstance(module, nn.MultiheadAttention):
            inside = f"{name}." if name else ""
            yield name, module, True
        elif list(module.parameters(recurse=False)):
            yield name, module, False


def multiply_adds(module: nn.Module, inputs: tuple[Any, ...], shape: tuple[int, ...]) -> int:
    """Of one sample in a layer that returns `shape`."""
    if isinstance(module, nn.Embedding):
        return 0  # a look-up
    if isinstance(module, nn.RNNBase):  # every matrix, at every step
        return shape[0] * sum(weight.numel() for weight in module.parameters() if weight.dim() == 2)
    if isinstance(module, nn.MultiheadAttention):  # four projections, then who heeds whom, and what is passed on
        steps, width = shape if module.batch_first else (inputs[0].shape[0], module.embed_dim)
        asked = inputs[1].shape[1 if module.batch_first else 0] if len(inputs) > 1 else steps
        return 2 * (steps + asked) * width**2 + 2 * steps * asked * width
    kernel = getattr(module, "weight", None)
    if not isinstance(kernel, Tensor) or kernel.dim() < 2:
        return 0
    transposed = getattr(module, "transposed", False)  # each position of its input, not its output, meets the kernel
    return math.prod(inputs[0].shape[1:] if transposed else shape) * kernel[0].numel()


class Between(TorchFunctionMode):
    """Counts the multiply-adds for one sample of what is multiplied outside of all layers: activations, mostly."""

    def __init__(self, samples: int):
        super().__init__()
        self.samples, self.inside, self.multiply_adds = samples, 0, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if self.inside:
            return output
        if func is nn.functional.scaled_dot_product_attention:
            query, key, value = args[:3]
            self.multiply_adds += (
                query[..., 0].numel() * key.shape[-2] * (key.shape[-1] + value.shape[-1]) // self.samples
            )
        elif func in PRODUCTS:
            self.multiply_adds += output.numel() * args[0].shape[-1] // self.samples
        return output
