"""What the configured step did when it was tried: a few updates at the planned rate, and some at a rate of zero."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plumbline.loop import Batch, Diverged

if TYPE_CHECKING:
    from plumbline.checks.bench import Bench

UPDATES = 4  # a step that takes turns (a GAN's) has had each turn twice


class Trial:
    """The first updates of the run, as it will make them."""

    def __init__(self, bench: Bench):
        copy = bench.fresh()
        self.copy, self.rate = copy, copy.rate
        self.held = {id(p) for group in copy.optimiser.param_groups for p in group["params"]}
        before = self.before = copy.weights()
        buffers = {name: buffer.clone() for name, buffer in copy.model.named_buffers()}
        self.losses: list[float] = []
        self.modes: list[bool] = []  # of the network, in each pass with gradients
        self.travelled = 0.0  # the sum of the lengths of the updates, as a share of the weights' length
        self.gradients: dict[str, float] = {}  # the largest norm that was left after an update, by name
        updates = 20 if copy.training.scaler is not None else UPDATES  # fp16 leaves out the first few
        length = norm(before)  # 0 where every weight starts at zero: then shares of it say nothing
        for number in range(updates):
            last = copy.weights()
            try:
                self.losses.append(copy.update(bench.batches(number), number, copy.peak))
            except Diverged:
                self.losses.append(math.nan)
                break
            finally:
                self.modes += [one.training for one in copy.passes]
            now = copy.weights()
            self.travelled += norm({name: now[name] - last[name] for name in now}) / (length or math.inf) / updates
            for name, parameter in copy.model.named_parameters():
                if parameter.grad is not None:
                    found = float(parameter.grad.norm())
                    self.gradients[name] = max(found, self.gradients.get(name, 0.0))
        self.moved = {name: float((now - before[name]).abs().max()) for name, now in copy.weights().items()}
        self.buffers_moved = [n for n, b in copy.model.named_buffers() if not torch.equal(b, buffers[n])]


def norm(weights: dict[str, Tensor]) -> float:
    """The length of all of them together, of those with two axes or more where there are such."""
    kernels = [w for w in weights.values() if w.dim() > 1] or list(weights.values())
    return float(torch.stack([w.float().square().sum() for w in kernels]).sum().sqrt()) if kernels else 0.0


class Still:
    """A quiet copy that is stepped at a rate of zero: what the step looks at, and what it makes of it."""

    def __init__(self, bench: Bench):
        self.bench, self.copy = bench, bench.fresh(quiet=True)
        self.copy.training.grad_clip = None
        self.copy.wake()

    def loss(self, batches: list[Batch], scale: float = 1.0) -> float:
        """The loss that the step returns, the network's outputs made larger by a factor."""
        copy = self.copy
        hook = copy.model.register_forward_hook(lambda module, inputs, outputs: outputs * scale) if scale != 1 else None
        try:
            return copy.update(batches, 0, 0.0)
        except Diverged:
            return math.nan
        finally:
            if hook is not None:
                hook.remove()

    def gradient(self) -> float:
        """The norm of the gradient that the last step left behind, of what the optimiser holds where it holds any."""
        held = [p.grad for group in self.copy.optimiser.param_groups for p in group["params"] if p.grad is not None]
        found = held or [p.grad for p in self.copy.model.parameters() if p.grad is not None]
        return float(torch.stack([g.float().square().sum() for g in found]).sum().sqrt()) if found else 0.0


def elsewhere(y: Tensor, sample: int, outputs: int) -> Tensor:
    """The targets with that of one sample changed, to the next of so many classes or by one."""
    y = y.clone()
    y[sample] = y[sample] + 1 if y.is_floating_point() else (y[sample] + 1) % outputs
    return y


def made_anew(bench: Bench, batches: list[Batch], seed: int = 0) -> list[Batch]:
    """The batches with random targets of the task in place of theirs."""
    draws = torch.Generator().manual_seed(seed)

    def drawn(y: Tensor) -> Tensor:
        if bench.spec.task == "classification":
            return torch.randint(bench.spec.outputs, y.shape, generator=draws)
        values = torch.randn(y.shape, generator=draws)
        return values > 0 if bench.spec.task == "segmentation" else values

    return [(x, drawn(y).to(y)) for x, y in batches]
