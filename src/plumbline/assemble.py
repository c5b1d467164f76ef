"""From configuration and data to what trains: built once in rehearsal, before any data are read, and once for good."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from plumbline import device, tasks
from plumbline.config import ConfigError, build
from plumbline.contract import place
from plumbline.data.core import Data, Spec
from plumbline.loop import Diverged, Schedule, Step, Training
from plumbline.regularisers import Regulariser
from plumbline.state import State


def assemble(cfg: DictConfig, data: Data, where: torch.device) -> tuple[Training, State, Step, Schedule]:
    """Everything a run trains with, on its device, as seed and data make it."""
    with mistakes_in("data"):
        prior = tasks.prior(data.spec, data.train).float()
        for split in (data.train, data.val):
            split.to(where, cfg.channels_last)
    return build_all(cfg, data.spec, prior, where)


def rehearse(cfg: DictConfig, spec: Spec) -> list[dict[str, Any]]:
    """Build everything and do one update on random numbers of the data's shape, so that what cannot fit fails now.

    Returns the network's layers (see `layers`). Raises ConfigError with the group at fault. Leaves no trace: random
    states are restored, what was built is dropped.
    """
    samples = min(2, cfg.batch_size)
    with torch.random.fork_rng(devices=[]):
        training, _, step, _ = build_all(
            cfg, spec, torch.full((spec.outputs,), 1 / spec.outputs), torch.device("cpu"), rehearsal=True
        )
        x = torch.randn(samples, *spec.shape)
        y = (
            torch.arange(samples) % spec.outputs
            if spec.task == "classification"
            else torch.randn(samples, spec.outputs)
        )
        with mistakes_in("model", f"cannot take inputs of shape {spec.shape}"):
            found, outputs = layers(training.model.eval(), x)
        if not isinstance(outputs, Tensor) or outputs.shape != (samples, spec.outputs):
            got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise ConfigError(
                f"model: for a batch of {samples} it gave {got}; "
                f"this data set needs ({samples}, {spec.outputs}): (batch, outputs)"
            )
        training.model.train()
        with mistakes_in("augment"):
            for augment in training.augmentations:
                augment(x, training.generator)
        with mistakes_in("regulariser"):
            for regulariser in training.regularisers:
                regulariser.batch(x, y, training.generator)
        with mistakes_in("loss"):
            training.loss(outputs.detach(), y)
        with mistakes_in("step"):
            step(training, [(x, y)] * cfg.accumulate)
    return found


@torch.no_grad()
def layers(model: nn.Module, x: Tensor) -> tuple[list[dict[str, Any]], Any]:
    """The layers that hold weights, as a batch x meets them, and what comes out.

    A layer's name, kind, output shape without the batch, parameters, and multiply-adds for one sample.
    """
    found: list[dict[str, Any]] = []

    def note(name: str, module: nn.Module, output: Any) -> None:
        own = {key: weight for key, weight in module.named_parameters(recurse=False)}
        if not isinstance(output, Tensor):
            return
        kernel = own.get("weight")
        each = 0 if kernel is None or kernel.dim() < 2 else kernel[0].numel()
        shape = tuple(output.shape[1:])
        row = {"name": name, "kind": type(module).__name__, "output": shape}
        counts = {
            "parameters": sum(weight.numel() for weight in own.values()),
            "multiply_adds": math.prod(shape) * each,
        }
        found.append(row | counts)

    hooks = [
        module.register_forward_hook(lambda module, _, output, name=name: note(name, module, output))
        for name, module in model.named_modules()
        if list(module.parameters(recurse=False))
    ]
    try:
        return found, model(x)
    finally:
        for hook in hooks:
            hook.remove()


def build_all(
    cfg: DictConfig, spec: Spec, prior: Tensor, where: torch.device, rehearsal: bool = False
) -> tuple[Training, State, Step, Schedule]:
    """The parts of a run, in the order in which they need one another."""
    torch.manual_seed(cfg.seed)
    with mistakes_in("model"):
        model = build(cfg.model)(spec)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model: {cfg.model._target_} gave a {type(model).__name__}; it must be a torch.nn.Module")
    with mistakes_in("init"):
        build(cfg.init)(model, prior)
    with mistakes_in("regulariser"):
        regularisers = [build(node)(spec) for node in cfg.regulariser.values()]
        for regulariser in regularisers:
            if not isinstance(regulariser, Regulariser):
                raise ConfigError(f"regulariser: {type(regulariser).__name__} is no plumbline.regularisers.Regulariser")
            regulariser.attach(model)
    device.place(model, where, cfg.channels_last, cfg.compile and not rehearsal)
    with mistakes_in("optimiser"):
        optimiser = build(cfg.optimiser)(model)
        for group in optimiser.param_groups:
            group.setdefault("initial_lr", group["lr"])
    with mistakes_in("loss"):
        loss = build(cfg.loss)(spec)
    with mistakes_in("schedule"):
        schedule = build(cfg.schedule)
        for progress in (0.0, 0.5, 1.0):
            schedule(progress, [])
    scaler = device.scaler(where, cfg.precision)
    ema = None if cfg.ema is None else AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(cfg.ema))
    training = Training(
        model, optimiser, loss, regularisers, augmentations=[build(node) for node in cfg.augment.values()],
        generator=torch.Generator(where), autocast=device.autocast(where, cfg.precision), scaler=scaler, grad_clip=cfg.grad_clip,
    )  # fmt: skip
    return training, State(model, optimiser, scaler, ema), build(cfg.step), schedule


@contextmanager
def mistakes_in(group: str, what: str = "") -> Iterator[None]:
    """Turn what a component raises while it is set up into one message that names the group and the line."""
    try:
        yield
    except (ConfigError, Diverged):
        raise
    except Exception as error:
        reason = str(error).strip().splitlines() or [""]
        raise ConfigError(
            f"{group}: {what + ': ' if what else ''}{type(error).__name__}: {reason[0]}{place(error)}"
        ) from error
