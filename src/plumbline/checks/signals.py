"""How numbers and gradients get through a network: one pass, forwards and backwards, with an ear at each layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from plumbline.regularisers.layers import weight_layers

if TYPE_CHECKING:
    from plumbline.checks.bench import Copy

TAILS = (50.0, 60.0)  # where a function that saturates no longer changes


@dataclass
class Layer:
    """What a layer with weights was seen to do."""

    name: str
    size: float  # root mean square of its outputs
    gradient: float  # root mean square of the gradient of its weights
    dead: float  # share of its units that no gradient reaches


class Signals:
    """Of a batch in training mode: the layers in the order in which they were called, and what no gradient reached."""

    def __init__(self, copy: Copy, x: Tensor, outputs: int):
        model, self.saturated = copy.model, dict[str, float]()
        names = {layer: name for name, layer in weight_layers(model).items()}
        held: dict[nn.Module, Tensor] = {}

        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            output = output[0] if isinstance(output, tuple) else output
            if isinstance(output, Tensor) and output.requires_grad:
                output.retain_grad()
                held[module] = output
            elif isinstance(output, Tensor):
                held[module] = output

        def listen(module: nn.Module, inputs: Any, output: Any) -> None:
            share = saturation(module, inputs, output)
            if share is not None:
                self.saturated[paths[module]] = share

        paths = {module: name or type(module).__name__ for name, module in model.named_modules()}
        plain = [m for m in model.modules() if not list(m.children()) and not list(m.parameters())]
        hooks = [layer.register_forward_hook(keep) for layer in names]
        hooks += [module.register_forward_hook(listen) for module in plain]
        x = x.detach().clone().requires_grad_()
        model.zero_grad()
        with copy.buffers_kept(), torch.enable_grad():
            try:
                found = model(x).float()
            finally:
                for hook in hooks:
                    hook.remove()
            projection = torch.randn(found.shape, generator=torch.Generator().manual_seed(0)).to(found)
            self.attached = found.requires_grad
            if self.attached:
                (found * projection).sum().div(len(found)).backward()
        self.outputs = found.detach()
        self.input_gradient = None if x.grad is None else float(x.grad.abs().max())
        self.inputs_reached = None if x.grad is None else x.grad.flatten(1).abs().amax(0)  # (features,)
        self.unreached = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        self.layers = [describe(names[module], module, output) for module, output in held.items()]
        model.zero_grad()


def describe(name: str, module: nn.Module, output: Tensor) -> Layer:
    """A layer from its output and the gradients that are still there."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None and p.dim() > 1]
    numbers = sum(gradient.numel() for gradient in gradients)
    squares = float(sum(gradient.square().sum() for gradient in gradients))
    dead = 0.0
    if output.grad is not None and output.dim() > 1:
        axis = 1 if output.dim() in (2, 4, 5) else output.dim() - 1  # units or channels
        others = [d for d in range(output.dim()) if d != axis]
        dead = float((output.grad.abs().amax(others) == 0).float().mean())
    return Layer(
        name,
        float(output.detach().float().square().mean().sqrt()),
        (squares / numbers) ** 0.5 if numbers else 0.0,
        dead,
    )


@torch.no_grad()
def saturation(module: nn.Module, inputs: Any, output: Any) -> float | None:
    """The share of what went into a bounded function at which it is flat; None for any other module. Hooks are not asked."""
    if not (len(inputs) == 1 and isinstance(inputs[0], Tensor) and isinstance(output, Tensor)):
        return None
    z = inputs[0].detach()
    if z.shape != output.shape or not z.is_floating_point():
        return None
    probe = z.flatten()[:1].repeat(len(TAILS) * 2) * 0 + z.new_tensor([*TAILS, *(-tail for tail in TAILS)])
    try:
        tails = module.forward(probe[None]).flatten()
    except Exception:  # it wants another shape: no function of single numbers
        return None
    if tails.shape != probe.shape or float((tails[0] - tails[1]).abs() + (tails[2] - tails[3]).abs()) > 1e-6:
        return None
    if float((tails[0] - tails[2]).abs()) < 1e-6:
        return None  # flat everywhere
    step = 1e-2
    slope = (module.forward(z + step) - module.forward(z - step)).abs() / (2 * step)
    return float((slope < 0.02 * float((tails[0] - tails[2]).abs())).float().mean())
