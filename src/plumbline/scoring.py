"""How a network does on train and validation, scored alike: evaluation mode, whole sets."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from plumbline import tasks
from plumbline.data.core import Data, Scale, Split
from plumbline.distributed import World
from plumbline.loop import Diverged, Training, first_nonfinite, predict
from plumbline.sharding import alike
from plumbline.state import State, read


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

    def keep(self, state: State, path: Path, epoch: dict[str, float], objective: str) -> None:
        """Write the weights of that epoch, with all that is needed to predict with them: scales, shapes, names."""
        from plumbline.state import write

        content: dict[str, Any] = {
            "model": state.weights(),
            "epoch": epoch["epoch"],
            "objective": objective,
            "value": epoch[objective],
            "spec": asdict(self.data.spec),
            "scale": plain(self.data.scale),
            "target_scale": plain(self.data.target_scale),
        }
        write(content, path)


def better(news: dict[str, float], best: dict[str, float], objective: str, direction: str) -> bool:
    """Whether the news beat the best so far; a number always beats none."""
    if not best or not math.isfinite(best[objective]):
        return True
    return news[objective] > best[objective] if direction == tasks.MAXIMISE else news[objective] < best[objective]


def plain(scale: Scale | None) -> dict[str, Any] | None:
    """A scale as weights are saved: tensors and text."""
    return None if scale is None else {"mean": scale.mean.cpu(), "std": scale.std.cpu(), "fitted_on": scale.fitted_on}


def load_best(network: nn.Module, path: Path) -> dict[str, Any]:
    """Put the best weights into the network; return what was saved with them."""
    content, _ = read(path)
    network.load_state_dict(alike(content["model"], network.state_dict()))
    return content
