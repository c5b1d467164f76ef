"""From configuration and data to what trains: built once in rehearsal, before any data are read, and once for good."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

from plumbline import device, tasks
from plumbline.augment import check_targets
from plumbline.card import layers
from plumbline.config import ConfigError, build
from plumbline.contract import place
from plumbline.data.core import Data, Spec, Split
from plumbline.distributed import World
from plumbline.loop import Diverged, Schedule, Step, Training
from plumbline.regularisers import Regulariser
from plumbline.seeing import check_figures
from plumbline.sharding import shard
from plumbline.state import State
from plumbline.transfer import untrained


def assemble(
    cfg: DictConfig, data: Data, where: torch.device, world: World | None = None
) -> tuple[Training, State, Step, Schedule]:
    """Everything a run trains with, on its device, as seed and data make it."""
    with mistakes_in("data"):
        for name, split in (("train", data.train), ("val", data.val)):
            check_split(data.spec, split, name)
            split.to(where, cfg.channels_last)
        prior = tasks.prior(data.spec, data.train).float()
    if world is not None and world.sharded and len(data.train) < 2 * world.size:
        raise ConfigError(f"shard=true: {len(data.train)} samples are too few for {world.size} processes")
    return build_all(cfg, data.spec, prior, where, world=world)


def rehearse(cfg: DictConfig, spec: Spec) -> list[dict[str, Any]]:
    """Build everything and do one update on random numbers of the data's shape, so that what cannot fit fails now.

    Returns the network's layers (see `layers`). Raises ConfigError with the group at fault. Leaves no trace: random
    states are restored, what was built is dropped.
    """
    samples = 2 if cfg.batch_size == "auto" else min(2, cfg.batch_size)
    with torch.random.fork_rng(devices=[]):
        training, _, step, _ = build_all(
            cfg, spec, torch.full((spec.outputs,), 1 / spec.outputs), torch.device("cpu"), rehearsal=True
        )
        x = torch.randn(samples, *spec.shape)
        y = torch.randn(samples, spec.outputs)
        if spec.task == "classification":
            y = torch.arange(samples) % spec.outputs
        elif spec.task == "segmentation":
            y = (y > 0).float()
        with mistakes_in("model", f"cannot take inputs of shape {spec.shape}"):
            found, outputs = layers(training.model.eval(), x)
        if not isinstance(outputs, Tensor) or outputs.shape != (samples, spec.outputs):
            got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise ConfigError(
                f"model: for a batch of {samples} it gave {got}; "
                f"this data set needs ({samples}, {spec.outputs}): (batch, outputs)"
            )
        with mistakes_in("figures"):
            check_figures(cfg, spec, training.model)
        training.model.train()
        with mistakes_in("augment"):
            for name, augment in zip(cfg.augment, training.augmentations, strict=True):
                check_targets(spec.task, name, augment)
                augment(x, training.generator)
        with mistakes_in("regulariser"):
            for regulariser in training.regularisers:
                regulariser.batch(x, y, training.generator)
        with mistakes_in("loss"):
            each = training.loss(outputs.detach().float(), y, reduction="none")
        if not isinstance(each, Tensor) or each.shape != (samples,):
            raise ConfigError(f"loss: with reduction='none' it gave {shown(each)}; it must be the ({samples},) losses")
        with (
            mistakes_in("step"),
            spread(samples),
            suppress(Diverged),
        ):  # random numbers may be none that this network can take
            got = step(training, [(x, y)] * cfg.accumulate)
            if not isinstance(got, Tensor) or got.numel() != 1:
                raise ConfigError(
                    f"step: {cfg.step._target_} gave {shown(got)}; it must return the loss, a scalar tensor"
                )
    return found


@contextmanager
def spread(samples: int) -> Iterator[None]:
    """Say what torch means where a batch norm meets a batch of one."""
    try:
        yield
    except ValueError as error:
        if samples > 1 or "more than 1 value per channel" not in str(error):
            raise
        raise ConfigError(
            "batch_size=1: the network has batch norms, and one sample has no spread to be divided by; say batch_size=2 or "
            "more, or model.norm=layer"
        ) from error


def shown(value: Any) -> str:
    """What a component gave, in a few words."""
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def check_split(spec: Spec, split: Split, name: str) -> None:
    """Raise ConfigError unless a split is what the spec says: some samples, of its shape, with targets of its task."""
    if not len(split):
        raise ConfigError(f"data: {name} has no samples")
    x, _ = next(iter(split.batches(1)))
    y = split.targets
    if tuple(x.shape[1:]) != tuple(spec.shape) or x.dtype != torch.float32:
        raise ConfigError(
            f"data: {name} has inputs of shape {tuple(x.shape[1:])} and type {x.dtype}; "
            f"its spec says {tuple(spec.shape)}, and they must be torch.float32"
        )
    if spec.task == "classification":
        if y.dtype != torch.int64 or y.dim() != 1 or not 0 <= int(y.min()) <= int(y.max()) < spec.outputs:
            raise ConfigError(
                f"data: {name} has targets of shape {tuple(y.shape)} and type {y.dtype} from {y.min()} to {y.max()}; "
                f"they must be ({len(split)},) whole numbers (torch.int64) from 0 to {spec.outputs - 1}"
            )
    elif y.dtype != torch.float32 or tuple(y.shape) != (len(split), spec.outputs):
        raise ConfigError(
            f"data: {name} has targets of shape {tuple(y.shape)} and type {y.dtype}; "
            f"they must be ({len(split)}, {spec.outputs}) torch.float32"
        )
    elif not y.isfinite().all():
        row = int((~y.isfinite().all(1)).nonzero()[0])
        raise ConfigError(f"data: sample {split.ids[row]} of {name} has a target that is not a finite number")


def build_all(
    cfg: DictConfig, spec: Spec, prior: Tensor, where: torch.device, rehearsal: bool = False, world: World | None = None
) -> tuple[Training, State, Step, Schedule]:
    """The parts of a run, in the order in which they need one another."""
    cfg = untrained(cfg) if rehearsal else cfg
    torch.manual_seed(cfg.seed)
    with mistakes_in("model"):
        model = build(cfg.model)(spec)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model: {cfg.model._target_} gave a {type(model).__name__}; it must be a torch.nn.Module")
    with mistakes_in("init"):
        build(cfg.init)(model, prior)
    with mistakes_in("transfer"):
        transfer = build(cfg.transfer)(model) if cfg.transfer else None
    with mistakes_in("regulariser"):
        regularisers = [build(node)(spec) for node in cfg.regulariser.values()]
        for regulariser in regularisers:
            if not isinstance(regulariser, Regulariser):
                raise ConfigError(f"regulariser: {type(regulariser).__name__} is no plumbline.regularisers.Regulariser")
            regulariser.attach(model)
    with mistakes_in("model"):
        sharded = world is not None and world.sharded  # FSDP takes plain layouts only
        device.place(model, where, cfg.channels_last and not sharded, cfg.compile and not rehearsal)
        if sharded:
            shard(model, regularisers, where)
    with mistakes_in("optimiser"):
        optimiser = build(cfg.optimiser)(model)
        if not isinstance(optimiser, torch.optim.Optimizer):
            raise ConfigError(
                f"optimiser: {cfg.optimiser._target_} gave {shown(optimiser)}; it must be a torch optimiser"
            )
        for group in optimiser.param_groups:
            group.setdefault("initial_lr", group["lr"])
    if transfer is not None:
        transfer.at(model, 0.0)  # only now: the optimiser knows what will thaw
    with mistakes_in("loss"):
        loss = build(cfg.loss)(spec)
    with mistakes_in("schedule"):
        schedule = build(cfg.schedule)
        for progress in (k / 200 for k in range(201)):
            rate = schedule(progress, [])
            if not isinstance(rate, int | float) or not 0 <= rate < math.inf:
                raise ConfigError(f"schedule: gives {rate} at progress {progress:g}; it must be a number of at least 0")
    scaler = device.scaler(where, cfg.precision)
    ema = None if cfg.ema is None else AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(cfg.ema))
    swa = None if cfg.swa is None else AveragedModel(model, multi_avg_fn=get_swa_multi_avg_fn())
    training = Training(
        model, optimiser, loss, regularisers, augmentations=[build(node) for node in cfg.augment.values()],
        generator=torch.Generator(where), autocast=device.autocast(where, cfg.precision), scaler=scaler, grad_clip=cfg.grad_clip,
        swa_from=cfg.swa, transfer=transfer,
    )  # fmt: skip
    return training, State(model, optimiser, scaler, ema, swa, sharded=sharded), build(cfg.step), schedule


@contextmanager
def mistakes_in(group: str, what: str = "") -> Iterator[None]:
    """Turn what a component raises while it is set up into one message that names the group and the line."""
    try:
        yield
    except (ConfigError, Diverged):
        raise
    except (Exception, SystemExit) as error:
        reason = str(error).strip().splitlines() or [""]
        raise ConfigError(
            f"{group}: {what + ': ' if what else ''}{type(error).__name__}: {reason[0]}{place(error)}"
        ) from error
