"""Steps beside the usual one: `sam` seeks flat minima, `progressive_resizing` starts with small images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plumbline.config import ConfigError
from plumbline.loop import Batch, Training, supervised
from plumbline.ranges import Part, Positive


def sam(training: Training, batches: list[Batch], *, rho: Positive) -> Tensor:
    """Sharpness-aware minimisation: the gradient is that at the worst point within `rho` (Foret et al. 2021).

    Two forwards and backwards an update, on the same augmented batch with the same draws; norms see the first alone.
    Of several processes, each climbs by its own gradient, and their second ones are averaged. Returns the first loss.
    """
    model, samples = training.model, sum(len(y) for _, y in batches)
    draws = torch.get_rng_state(), training.generator.get_state()

    def gradients() -> Tensor:
        training.clear()
        losses = []
        for x, y in batches:
            loss = training.forward(x.clone(), y) * (len(y) / samples)
            training.backward(loss)
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    loss = gradients()
    penalty = training.penalty
    with torch.no_grad():
        moved = [p for p in model.parameters() if p.grad is not None]
        length = nn.utils.get_total_norm([p.grad for p in moved]).clamp(min=1e-12)
        if training.scaler is not None and not torch.isfinite(length):  # scaled too far: there is no direction to climb
            training.update()  # leaves the weights, and the scale becomes smaller
            return loss
        before = [p.detach().clone() for p in moved]
        buffers = [buffer.clone() for buffer in model.buffers()]
        torch._foreach_add_(moved, torch._foreach_mul([p.grad for p in moved], rho / length))
    torch.set_rng_state(draws[0])
    training.generator.set_state(draws[1])
    gradients()
    with torch.no_grad():
        for parameter, value in zip(moved, before, strict=True):
            parameter.copy_(value)
        for buffer, value in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(value)
    training.penalty = penalty
    training.update()
    return loss


def progressive_resizing(training: Training, batches: list[Batch], *, start: Part, until: Part) -> Tensor:
    """Images begin at `start` of their side and grow, evenly, to the whole at `until` of the run (Howard 2018).

    For networks that take any size: those that average over positions. Sides are whole pixels, in at most four steps.
    """
    done = min(int(4 * training.progress / until), 4) / 4
    smaller = [(resized(x, start + (1 - start) * done), y) for x, y in batches]
    try:
        return supervised(training, smaller)
    except (RuntimeError, ConfigError) as error:
        if smaller[0][0].shape == batches[0][0].shape or isinstance(error, torch.OutOfMemoryError):
            raise
        size = "x".join(map(str, smaller[0][0].shape[2:]))
        raise ConfigError(
            f"step=progressive_resizing: this network, or what it is asked for, takes no images of {size}; choose one that "
            f"averages over positions and gives classes or numbers, such as model=resnet ({str(error).splitlines()[0]})"
        ) from error


def resized(x: Tensor, share: float) -> Tensor:
    """(B, C, H, W) -> (B, C, share * H, share * W), smoothed."""
    if x.dim() != 4:
        raise ConfigError(f"step=progressive_resizing: needs images (C, H, W), not {tuple(x.shape[1:])}")
    size = [max(round(side * share), 1) for side in x.shape[2:]]
    return x if size == list(x.shape[2:]) else F.interpolate(x, size, mode="bilinear", antialias=True)
