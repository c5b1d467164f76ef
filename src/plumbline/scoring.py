"""How a network does on train and validation, scored alike: evaluation mode, whole sets."""

from __future__ import annotations

import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from plumbline import tasks
from plumbline.config import ConfigError
from plumbline.data.core import Data, Scale, Split
from plumbline.distributed import World
from plumbline.files import temporary_name
from plumbline.loop import Diverged, Training, first_nonfinite, predict
from plumbline.sharding import alike
from plumbline.state import State, before, read_whole, write


class Scoring:
    """Scores networks on the data of a run: validation whole, train on a fixed random part of it."""

    def __init__(self, data: Data, training: Training, cfg: DictConfig):
        self.data, self.training, self.batch_size = data, training, cfg.eval_batch_size
        chosen = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))[: cfg.train_eval]
        self.part = chosen.sort().values

    def outputs(
        self, network: nn.Module, split: Split, order: Tensor | None = None, world: World | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(outputs (N, outputs), loss of each sample (N,), targets); each process of a world looks at a part of them."""
        rows = order
        if world is not None:
            every = torch.arange(len(split)) if order is None else order
            mine = list(world.part(len(every)))
            rows = every[mine + world.padding(len(every))]
        outputs, targets = predict(network, split, self.batch_size, self.training.autocast, rows)
        if world is not None:
            outputs, targets = outputs[: len(mine)], targets[: len(mine)]
            outputs, targets = world.gather(outputs, len(every)), world.gather(targets, len(every))
        broken = ~outputs.isfinite().all(1)
        if broken.any():
            row = int(broken.nonzero()[0]) if order is None else int(order[broken.nonzero()[0].cpu()])
            x, _ = next(iter(split.batches(1, torch.tensor([row]))))
            began = first_nonfinite(network.eval(), x)
            raise Diverged(f"the outputs are not finite for sample {split.ids[row]}; it began in {began}")
        return outputs, self.training.loss(outputs, targets, reduction="none"), targets

    def metrics(self, network: nn.Module, split: Split, prefix: str, order: Tensor | None = None) -> dict[str, float]:
        """The loss and the task's metrics on a split, named `<prefix>/<metric>`."""
        outputs, losses, targets = self.outputs(network, split, order, self.training.world)
        found = {"loss": losses.mean().item(), **tasks.score(self.data.spec, outputs, targets, self.data.target_scale)}
        return {f"{prefix}/{name}": value for name, value in found.items()}

    def epoch(self, state: State) -> dict[str, float]:
        """Train and validation metrics of the network that is kept."""
        return self.metrics(state.network, self.data.train, "train", self.part) | self.metrics(
            state.network, self.data.val, "val"
        )

    def first_loss(self, network: nn.Module) -> float:
        """The loss before any update."""
        return self.metrics(network, self.data.train, "train", self.part)["train/loss"]

    def keep(self, state: State, path: Path, epoch: dict[str, float], objective: str, spare: bool = False) -> None:
        """Write the weights of that epoch, with all that is needed to predict with them: scales, shapes, names.

        spare: keep what was at the path, as `before` names it.
        """
        content: dict[str, Any] = {
            "model": state.weights(),
            "epoch": epoch["epoch"],
            "objective": objective,
            "value": epoch[objective],
            "spec": asdict(self.data.spec),
            "scale": plain(self.data.scale),
            "target_scale": plain(self.data.target_scale),
        }
        write(content, path, keep=spare)


def better(news: dict[str, float], best: dict[str, float], objective: str, direction: str) -> bool:
    """Whether the news beat the best so far; a number always beats none."""
    if not best or not math.isfinite(best[objective]):
        return True
    return news[objective] > best[objective] if direction == tasks.MAXIMISE else news[objective] < best[objective]


def plain(scale: Scale | None) -> dict[str, Any] | None:
    """A scale as weights are saved: tensors and text."""
    return None if scale is None else {"mean": scale.mean.cpu(), "std": scale.std.cpu(), "fitted_on": scale.fitted_on}


def load_best(network: nn.Module, path: Path, word: str = "resume") -> dict[str, Any]:
    """Put the best weights into the network; return what was saved with them. Raises ConfigError where they do not fit."""
    try:
        content = read_whole(path)
        if not _fits(content, network):
            raise ValueError("holds another network's weights")
    except ValueError as error:
        raise ConfigError(f"{word}={path}: {error}; name another, or train that run again") from error
    network.load_state_dict(alike(content["model"], network.state_dict()))
    return content


def secure_best(directory: Path, state: State, scoring: Scoring, objective: str) -> str | None:
    """See to it that best.pt holds the weights of `state.best`; return a sentence where it had to be restored.

    The spare is of an earlier best, so it serves only where it is of the same epoch, as after a kill between two
    writings. Weights of an epoch after the checkpoint are right, too: the run comes to that epoch again, and writes
    them again. Raises BestLost where no file has the weights.
    """
    if not state.best:
        return None
    path, epoch = directory / "best.pt", state.best["epoch"]
    why = misfit(path, state, objective)
    if why is None:
        return None
    spare = before(path)
    if misfit(spare, state, objective) is None:
        draft = temporary_name(path)
        os.link(spare, draft)
        os.replace(draft, path)
        draft.unlink(missing_ok=True)  # if both are one file, replacing does nothing
        return f"best.pt {why}; restored from {spare.name}"
    if state.epoch == epoch and not state.step and not state.sharded:  # the checkpoint was saved at the best epoch
        scoring.keep(state, path, state.best, objective)
        return f"best.pt {why}; restored from last.pt"
    raise BestLost(f"best.pt {why}, and no other file has the weights of epoch {epoch:g}")


class BestLost(ConfigError):
    """The best weights of a run are in none of its files."""


def misfit(path: Path, state: State, objective: str) -> str | None:
    """Why a file does not hold the best weights; None if it does."""
    if not path.exists():
        return "is gone"
    try:
        content = read_whole(path)
    except ValueError as error:
        return str(error)
    if not _fits(content, state.network):
        return "holds another network's weights"
    epoch, value = content.get("epoch"), content.get("value")
    if not isinstance(epoch, int | float) or content.get("objective") != objective:
        return "is not of this run"
    if epoch > state.epoch:
        return None
    if epoch != state.best["epoch"]:
        return f"holds the weights of epoch {epoch:g}, not those of epoch {state.best['epoch']:g}"
    best = state.best.get(objective)
    if value != best and not (best is None or (math.isnan(best) and math.isnan(value))):
        return "is not of this run"
    return None


def _fits(content: dict[str, Any], network: nn.Module) -> bool:
    """Whether weights have the names and shapes of a network's."""
    given, own = content.get("model"), network.state_dict()
    return (
        isinstance(given, dict)
        and given.keys() == own.keys()
        and all(isinstance(given[key], Tensor) == isinstance(own[key], Tensor) for key in own)
        and all(given[key].shape == own[key].shape for key in own if isinstance(own[key], Tensor))
    )
