"""The bench: copies of what will train, as it is before its first update, to try things on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from plumbline import tasks
from plumbline.assemble import build_all
from plumbline.card import layers
from plumbline.checks.core import Finding
from plumbline.checks.signals import Signals
from plumbline.checks.trial import Still, Trial
from plumbline.config import build
from plumbline.data.core import Data
from plumbline.loop import Batch, Schedule, Step, Training, epoch_order, groups, seed_all, updates_per_epoch, usable
from plumbline.regularisers import DropBlock, Dropout, LabelSmoothing, Regulariser

SPEED = {"cpu": 3e10}  # multiply-adds a second: of one core, in layers of a fair size; of other devices FASTER
FASTER = 3e12
LAYER = 1e-4  # seconds that a layer takes forwards and backwards, however small
SLOW = 0.2  # seconds that an update may take; if it takes longer, the probes use a part of each batch
WRONG = 10  # times the seconds that were counted: so much longer may updates take before a clock is believed instead
FEWEST = 4  # samples of a batch: fewer cannot be told apart, shuffled or normalised
HELD = 2**26  # numbers of batches that are kept to be used again
MOST = 64  # updates whose batches are kept


@dataclass
class Pass:
    """A batch that went through the network within a step, with gradients."""

    inputs: Tensor
    outputs: Tensor
    training: bool  # the network's mode


class Copy:
    """All that trains, built anew, and the step that trains it."""

    def __init__(self, training: Training, step: Step, schedule: Schedule, seed: int):
        self.training, self.step, self.schedule, self.seed = training, step, schedule, seed
        self.model, self.optimiser = training.model, training.optimiser
        self.passes: list[Pass] = []  # of the last update
        self.model.register_forward_hook(self._note)
        self.model.train()

    def _note(self, model: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        if torch.is_grad_enabled() and inputs:
            self.passes.append(Pass(inputs[0].detach(), outputs.detach(), model.training))

    @property
    def peak(self) -> float:
        """The largest multiplier that the schedule plans."""
        return max(self.schedule(k / 200, []) for k in range(201))

    @property
    def rate(self) -> float:
        """The largest learning rate that is planned, of the last layer."""
        return self.optimiser.param_groups[-1]["initial_lr"] * self.peak

    def update(self, batches: list[Batch], number: int, multiplier: float) -> float:
        """One update as the loop does it, at that multiple of the configured rates; returns the loss."""
        self.passes.clear()
        for group in self.optimiser.param_groups:
            group["lr"] = group["initial_lr"] * multiplier
        seed_all(self.seed + number, self.training.generator)
        self.training.where = f"a probe, learning rate {group['lr']:.3g}"
        loss = self.step(self.training, [(x.clone(), y.clone()) for x, y in batches])
        return float(loss.detach())

    @torch.no_grad()
    def outputs(self, batches: list[Batch]) -> Tensor:
        """What the network says of the batches, in the mode that it is in; its buffers stay as they are."""
        with self.buffers_kept(), self.training.autocast():
            return torch.cat([self.model(x.clone()).float() for x, _ in batches])

    def loss(self, batches: list[Batch]) -> float:
        """The configured loss of the batches without penalties."""
        return float(self.training.loss(self.outputs(batches), torch.cat([y for _, y in batches])))

    @contextmanager
    def buffers_kept(self) -> Iterator[None]:
        before = [buffer.clone() for buffer in self.model.buffers()]
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, old in zip(self.model.buffers(), before, strict=True):
                    buffer.copy_(old)

    def weights(self) -> dict[str, Tensor]:
        """The trained parameters as they are now, by name."""
        return {n: p.detach().clone() for n, p in self.model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def wake(self) -> None:
        """Give what starts at zero on purpose (heads, residual branches) small random values, so that signals pass."""
        draws = torch.Generator().manual_seed(0)
        for parameter in self.model.parameters():
            if not parameter.any():
                noise = torch.randn(parameter.shape, generator=draws).to(parameter)
                parameter.copy_(noise * (0.1 if parameter.dim() < 2 else parameter[0].numel() ** -0.5))


class Bench:
    """What the probes may use: copies of what will train, and the first batches that it will see."""

    def __init__(self, cfg: DictConfig, data: Data, where: torch.device):
        self.cfg, self.data, self.spec, self.where = cfg, data, data.spec, where
        self.prior = tasks.prior(data.spec, data.train).float()

    def fresh(self, *, quiet: bool = False, seed: int | None = None) -> Copy:
        """A copy as seed and data make it. quiet: without what is drawn at random (dropout, mixing, augmentation)."""
        cfg = self.cfg.copy()
        cfg.seed = cfg.seed if seed is None else seed
        if quiet:
            cfg.augment = {}
            cfg.regulariser = {name: node for name, node in cfg.regulariser.items() if not self._draws(node)}
        training, _, step, schedule = build_all(cfg, self.spec, self.prior, self.where, rehearsal=True)
        if quiet:
            silence(training.model)
        return Copy(training, step, schedule, cfg.seed)

    def _draws(self, node: DictConfig) -> bool:
        regulariser = build(node)(self.spec)
        mixes = type(regulariser).batch is not Regulariser.batch and not isinstance(regulariser, LabelSmoothing)
        return mixes or isinstance(regulariser, Dropout | DropBlock)

    @cached_property
    def network(self) -> Copy:
        """A quiet copy to look at; whoever changes anything in it puts it back."""
        return self.fresh(quiet=True)

    @cached_property
    def awake(self) -> Copy:
        """A quiet copy in which nothing is zero that was so on purpose."""
        copy = self.fresh(quiet=True)
        copy.wake()
        return copy

    @cached_property
    def noisy(self) -> Copy:
        """A copy with all that is drawn at random, to look at."""
        return self.fresh()

    @cached_property
    def signals(self) -> Signals:
        """How numbers and gradients get through the awake copy."""
        return Signals(self.awake, self.x, self.spec.outputs)

    @cached_property
    def trial(self) -> Trial:
        """The first updates of the run, made on a copy."""
        return Trial(self)

    @cached_property
    def still(self) -> Still:
        """A quiet copy that is stepped at a rate of zero."""
        return Still(self)

    def updates(self, epochs: int) -> int:
        """How many updates so many epochs make."""
        cfg = self.cfg
        return epochs * updates_per_epoch(len(self.data.train), cfg.batch_size, cfg.accumulate)

    def _clocked(self, batches: list[Batch]) -> float:
        """Seconds that an update on the batches takes, by the clock. The first try may wait for libraries."""
        times = []
        for _ in range(2):
            began = time.perf_counter()
            self.network.outputs(batches)
            times.append(3 * (time.perf_counter() - began))  # a backward takes two forwards
        return min(times)

    @cached_property
    def _sample(self) -> float:
        """Seconds that a sample takes in an update, by the clock: a small batch."""
        few = min(len(self.data.train), 2 * FEWEST)
        return self._clocked(list(islice(self.data.train.batches(few), 1))) / few

    @cached_property
    def _update(self) -> float:
        """Seconds that an update takes, by the clock."""
        return self._clocked(self.first)

    @cached_property
    def _layers(self) -> list[dict[str, Any]]:
        with torch.no_grad(), self.network.buffers_kept():
            return layers(self.network.model, next(iter(self.data.train.batches(2)))[0])[0]

    @property
    def _counted(self) -> float:
        """Seconds that a sample takes in an update, by its multiplications: the same on every machine, however busy."""
        return 3 * sum(layer["multiply_adds"] for layer in self._layers) / SPEED.get(self.where.type, FASTER)

    def affordable(self, seconds: float, most: int, least: int) -> int:
        """How many updates fit into so many seconds of work, as it is counted: what a probe finds depends on no load."""
        each = self.cfg.accumulate * (LAYER * len(self._layers) + self._counted * self.batch_size)
        return min(max(int(seconds / max(each, LAYER)), least), most)

    @cached_property
    def batch_size(self) -> int:
        """The run's own, or as much of it as can be afforded."""
        size = min(self.cfg.batch_size, len(self.data.train))
        affordable = int(SLOW / (max(self._counted, self._sample / WRONG, 1e-12) * self.cfg.accumulate))
        return min(size, max(FEWEST, affordable))

    def left_out(self, updates: int) -> Finding | None:
        """A word that a check is left out, where so many updates would take too long on this machine."""
        update = self._update
        if updates * update <= self.cfg.checks.seconds:
            return None
        said = f"left out: it needs {updates} updates, of which each takes {update:.1f} s here"
        return Finding(
            "info",
            said,
            {"seconds": update},
            advice=("checks.seconds=… gives it more", "or a smaller network"),
        )

    def batches(self, number: int) -> list[Batch]:
        """The batches of an update, from the first that the run will make; after the last that is kept, again."""
        number %= self._kept
        while len(self._drawn) <= number:
            self._drawn.append(next(self._source))
        return self._drawn[number]

    def close(self) -> None:
        """No more batches are wanted: what reads them, processes perhaps, ends now and not when memory is tidied."""
        if "_source" in vars(self):
            self._source.close()

    @cached_property
    def x(self) -> Tensor:
        """The inputs of the first update."""
        return torch.cat([x for x, _ in self.first])

    @cached_property
    def y(self) -> Tensor:
        """The targets of the first update."""
        return torch.cat([y for _, y in self.first])

    @cached_property
    def first(self) -> list[Batch]:
        """The batches of the first update."""
        return self.batches(0)

    @cached_property
    def _drawn(self) -> list[list[Batch]]:
        return []

    @cached_property
    def _kept(self) -> int:
        """How many updates' batches are kept: one epoch at most, and not more than fits."""
        cfg, samples = self.cfg, len(self.data.train)
        size = self.batch_size * int(np.prod(self.spec.shape)) * cfg.accumulate
        whole = usable(samples, self.batch_size) // (self.batch_size * cfg.accumulate)
        return max(1, min(MOST, whole, HELD // size))

    @cached_property
    def _source(self) -> Iterator[list[Batch]]:
        order = epoch_order(len(self.data.train), self.cfg.seed, 0)
        return groups(self.data.train.batches(self.batch_size, order), self.cfg.accumulate)


def silence(model: nn.Module) -> None:
    """Switch off the dropout that a network brings along, in whatever form torch and torchvision give it."""
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
        drops = "drop" in type(module).__name__.lower() or type(module).__name__ == "StochasticDepth"
        if drops and isinstance(vars(module).get("p"), float):
            module.p = 0.0
