"""The loop: one update (`supervised`), a generator of epochs (`fit`), and what a network says (`predict`)."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from plumbline.averaging import refresh_norms
from plumbline.data.core import Split
from plumbline.distributed import World
from plumbline.regularisers import Regulariser
from plumbline.sharding import whole
from plumbline.state import State
from plumbline.transfer import Transfer

Batch = tuple[Tensor, Tensor]
Step = Callable[["Training", list[Batch]], Tensor]
Schedule = Callable[[float, list[float]], float]


class Diverged(ArithmeticError):
    """The loss is no longer a number."""

    status = "diverged"


@dataclass
class Training:
    """What one update needs. A step of one's own uses `clear`, `forward`, `backward` and `update`, or the parts."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    loss: Callable[[Tensor, Tensor], Tensor]
    regularisers: list[Regulariser]
    augmentations: list[Callable[[Tensor, torch.Generator], Tensor]]
    generator: torch.Generator  # seeded anew for each step, on the network's device
    autocast: Callable[[], Any] = nullcontext
    scaler: torch.amp.GradScaler | None = None
    grad_clip: float | None = None
    watching: bool = False  # whether this step's gradients are to be measured, before they are clipped
    gradients: list[Tensor] = field(default_factory=list)  # the norm of each parameter's, if watching
    penalty: Tensor | float = 0.0  # of the last forward
    where: str = ""  # epoch, step and rate, for messages
    progress: float = 0.0  # how much of the run is over, for steps that change with it
    transfer: Transfer | None = None  # what stands still, if anything does
    swa_from: float | None = None  # the progress from which whole epochs' weights are averaged
    world: World | None = None  # the other processes that train this network, if there are any

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The training loss of a batch, penalties included: augmented, regularised, in the chosen precision."""
        for augment in self.augmentations:
            x = augment(x, self.generator)
        for regulariser in self.regularisers:
            x, y = regulariser.batch(x, y, self.generator)
        with self.autocast():
            logits = self.model(x)
        loss = self.loss(logits.float(), y)
        penalties = [term for r in self.regularisers if (term := r.penalty(self.model, logits)) is not None]
        self.penalty = torch.stack(penalties).sum() if penalties else 0.0
        total = loss + self.penalty if penalties else loss
        if (
            total.device.type == "cpu" and self.world is None and not math.isfinite(total.item())
        ):  # elsewhere, to look is to wait: fit looks now and then, and several processes must leave together
            raise Diverged(self.blame(x))
        return total

    def clear(self) -> None:
        """Forget the gradients: the optimiser's zero_grad without its bookkeeping, which takes 25 µs a step."""
        for group in self.optimiser.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of the loss to the parameters', scaled where half precision needs it."""
        if self.world is not None and self.world.sharded:
            loss = loss * (self.world.share * self.world.size)  # the mean over processes is taken on the way
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def update(self) -> None:
        """Clip the gradient, the whole batch's, and let the optimiser step."""
        if self.world is not None:
            self.world.average(self.model)
        if self.scaler is not None:
            self.scaler.unscale_(self.optimiser)
        if self.watching:
            self.gradients = gradient_norms(self.model)
        if self.grad_clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.grad_clip)
        if self.scaler is None:
            self.optimiser.step()
        else:
            self.scaler.step(self.optimiser)
            self.scaler.update()

    def idle(self) -> Tensor:
        """An update of which this process has no sample; the loss it adds is nothing."""
        self.clear()
        self.update()
        self.penalty = 0.0
        return torch.zeros((), device=self.generator.device)

    @torch.no_grad()
    def blame(self, x: Tensor) -> str:
        """A sentence: where the numbers stopped being numbers, and what to try."""
        return f"the loss is not finite at {self.where}; it began in {first_nonfinite(self.model, x)}"


def supervised(training: Training, batches: list[Batch]) -> Tensor:
    """One update on the batches' mean loss; returns that loss. Several batches are one large one, in parts."""
    training.clear()
    samples = sum(len(y) for _, y in batches)
    losses = []
    for x, y in batches:
        loss = training.forward(x, y)
        loss = loss if len(batches) == 1 else loss * (len(y) / samples)
        training.backward(loss)
        losses.append(loss.detach())
    training.update()
    return losses[0] if len(losses) == 1 else torch.stack(losses).sum()


def fit(
    training: Training,
    state: State,
    train: Split,
    step: Step,
    schedule: Schedule,
    *,
    seed: int,
    epochs: int,
    batch_size: int,
    accumulate: int,
    watch: int,
) -> Iterator[dict[str, float] | None]:
    """Train from where `state` stands. Yields None after each update, and the epoch's record after each epoch.

    The order of an epoch and the randomness of a step are functions of (seed, epoch, step), so that a run which
    goes on in the middle of an epoch is the run that never stopped.
    """
    model, optimiser, world = training.model, training.optimiser, training.world
    size = batch_size if world is None else batch_size * world.size  # of the batch that all processes share
    least = 2 * world.size if world is not None and world.sharded else 2  # sharded, none can do without the others
    updates = updates_per_epoch(len(train), size, accumulate, least)
    while state.epoch < epochs:
        if training.transfer is not None:
            training.transfer.at(model, state.epoch / epochs)
        names = watched(model)
        model.train()
        order = epoch_order(len(train), seed, state.epoch)[: usable(len(train), size, least)]
        seeds = np.random.SeedSequence([seed, state.epoch]).generate_state(updates, np.uint64)
        look_at = {int((k + 0.5) * updates / watch) for k in range(min(watch, updates))} if watch else set()
        seen_before, started = state.samples, time.perf_counter()
        left, whole = order[state.step * size * accumulate :], []
        if world is not None:
            left, whole = world.rows(left, batch_size)
        turns = groups(train.batches(batch_size, left), accumulate)
        for batches in turns if world is None else world.updates(turns, whole, accumulate):
            progress = (state.epoch + state.step / updates) / epochs
            training.progress, multiplier = progress, schedule(progress, state.scores)
            for group in optimiser.param_groups:
                group["lr"] = group["initial_lr"] * multiplier
            drawn = int(seeds[state.step])
            seed_all(drawn if world is None else world.seed(drawn), training.generator)
            training.watching = state.step in look_at
            training.where = f"epoch {state.epoch + 1}, step {state.step + 1}, learning rate {group['lr']:.3g}"
            before = [parameter.detach().clone() for _, parameter in names] if training.watching else []
            loss, samples = step(training, batches) if batches else training.idle(), sum(len(y) for _, y in batches)
            if world is not None:
                (loss, training.penalty), samples = world.agree(loss, training.penalty), world.samples
            looking = training.watching or (world is not None and loss.device.type == "cpu")
            if looking and not torch.isfinite(loss):  # a step of one's own may not ask, nor does ours on a GPU
                raise Diverged(training.blame(batches[-1][0] if batches else next(train.batches(1))[0]))
            if training.watching:
                state.watch(training.gradients or gradient_norms(model), [p for _, p in names], before)
                training.gradients = []
            if state.ema is not None:
                state.ema.update_parameters(model)
            state.count(loss, training.penalty, samples)
            yield None
        if not math.isfinite(float(state.loss_sum)):
            raise Diverged(training.blame(next(train.batches(batch_size, order))[0]))
        if state.swa is not None and (state.epoch + 1) / epochs > training.swa_from:
            state.swa.update_parameters(model)
            refresh_norms(state.swa.module, train, batch_size, training.autocast)
        seconds = time.perf_counter() - started
        record = {
            "epoch": state.epoch + 1, "step": (state.epoch + 1) * updates, "lr": optimiser.param_groups[-1]["lr"],
            **state.averages([name for name, _ in names]),
            "seconds": seconds, "samples_per_s": (state.samples - seen_before) / seconds,
        }  # fmt: skip
        state.next_epoch()
        yield record


def planned(schedule: Schedule, optimiser: torch.optim.Optimizer) -> Callable[[float], float]:
    """The learning rate of the last layer at a progress in [0, 1], as far as it can be known before training."""
    initial = optimiser.param_groups[-1]["initial_lr"]
    return lambda progress: initial * schedule(progress, [])


def usable(samples: int, batch_size: int, least: int = 2) -> int:
    """How many samples an epoch visits: a last batch of one, which batch norm cannot use, or below `least` is left out."""
    rest = samples % batch_size
    return samples - rest if samples > batch_size > 1 and rest < least else samples


def updates_per_epoch(samples: int, batch_size: int, accumulate: int, least: int = 2) -> int:
    """How many updates an epoch has."""
    return math.ceil(math.ceil(usable(samples, batch_size, least) / batch_size) / accumulate)


def groups(batches: Iterator[Batch], accumulate: int) -> Iterator[list[Batch]]:
    """The batches of each update."""
    while held := list(itertools.islice(batches, accumulate)):
        yield held


def epoch_order(samples: int, seed: int, epoch: int) -> Tensor:
    """The order (samples,) in which an epoch visits its samples: a function of seed and epoch alone."""
    source = np.random.SeedSequence([seed, epoch, 1]).generate_state(1, np.uint64)[0]
    return torch.randperm(samples, generator=torch.Generator().manual_seed(int(source)))


def seed_all(seed: int, generator: torch.Generator) -> None:
    """Seed what a step may draw from: the CPU's and the device's own generators (dropout), and ours (the rest)."""
    torch.default_generator.manual_seed(seed)
    if generator.device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif generator.device.type == "mps":
        torch.mps.manual_seed(seed)
    generator.manual_seed(seed ^ 0x9E3779B97F4A7C15)


def watched(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters whose gradients and updates are recorded: trained ones with two axes or more, by layer name."""
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.dim() > 1:
            layer = name.replace("parametrizations.", "").replace(".original0", ".g").replace(".original1", ".v")
            found[layer.removesuffix(".original").removesuffix(".weight")] = parameter
    return list(found.items())


@torch.no_grad()
def gradient_norms(model: nn.Module) -> list[Tensor]:
    """The gradient's norm of each watched parameter, then that of all parameters together."""
    zero = torch.zeros((), device=next(model.parameters()).device)
    each = [zero if p.grad is None else whole(torch.linalg.vector_norm(p.grad)) for _, p in watched(model)]
    every = [p.grad for p in model.parameters() if p.grad is not None]
    return [*each, whole(nn.utils.get_total_norm(every)) if every else zero]


@torch.no_grad()
def first_nonfinite(model: nn.Module, x: Tensor) -> str:
    """The place where numbers stop being finite: the input, a parameter, or the first layer with such an output."""
    if not x.isfinite().all():
        return "the input"
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            return f"the parameter {name}"
    found: list[str] = []

    def look(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not output.isfinite().all():
                found.append(name)

        return hook

    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    hooks = [module.register_forward_hook(look(name or type(module).__name__)) for name, module in leaves]
    try:
        output = model(x)
    finally:
        for hook in hooks:
            hook.remove()
    if found:
        return f"the layer {found[0]}"
    finite = not isinstance(output, Tensor) or bool(output.isfinite().all())
    return "the loss itself: the network's outputs are finite" if finite else "the network's output"


@torch.inference_mode()
def predict(
    model: nn.Module, split: Split, batch_size: int, autocast: Callable[[], Any], order: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The raw outputs (N, outputs) in float32 and the targets, in evaluation mode; the mode is restored."""
    was_training = model.training
    model.eval()
    outputs, targets = [], []
    for x, y in split.batches(batch_size, order):
        with autocast():
            outputs.append(model(x.clone()).float())  # a model that works in place shall not change the data
        targets.append(y)
    model.train(was_training)
    return torch.cat(outputs), torch.cat(targets)
