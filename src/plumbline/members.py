"""Several networks that answer as one, several looks at each input, and confidences that can be believed.

Members are runs' best weights or weights kept at an epoch (`snapshots`); their probabilities, or values, are averaged.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from plumbline.assemble import assemble
from plumbline.config import ConfigError, check_config
from plumbline.data.core import Data, Split
from plumbline.loop import Training, predict
from plumbline.scoring import load_best
from plumbline.transfer import begun

FLATTEST, SHARPEST = 20.0, 0.05  # the temperatures among which one is sought


class Members:
    """Networks that answer together: the mean of what they say, over `looks` augmented copies of each input, too."""

    def __init__(self, data: Data, looks: int, batch_size: int):
        self.data, self.looks, self.batch_size = data, looks, batch_size
        self.classes = data.spec.task == "classification"
        self.networks: list[tuple[nn.Module, Training]] = []

    def add(self, training: Training, network: nn.Module) -> None:
        if self.looks and not training.augmentations:
            raise ConfigError(
                f"tta={self.looks}: the run was trained without augmentation, so there is nothing to vary; "
                "train it with augment=[…] first"
            )
        self.networks.append((network, training))

    def join(self, place: Path, allow: list[str], where: torch.device) -> None:
        """Add the best weights of a run's folder, or those of one file in it. Raises ConfigError if its data are others."""
        from plumbline.record import saved_config
        from plumbline.stored import read_run_file

        folder, file = (place, place / "best.pt") if place.is_dir() else (place.parent, place)
        if not file.is_file():
            raise ConfigError(
                f"beside={place}: there are no such weights; name runs' folders, or files such as epoch-6.pt"
            )
        cfg = saved_config(folder, "beside", allow)
        check_config(cfg)
        if (read_run_file(folder)["data"] or {}).get("fingerprint") != self.data.fingerprint():
            raise ConfigError(f"beside={place}: was trained on other data, or on another split of them")
        training, state, _, _ = assemble(begun(cfg, folder), self.data, where)
        load_best(state.network, file, "beside")
        self.add(training, state.network)

    def outputs(self, split: Split) -> tuple[Tensor, Tensor]:
        """(log-probabilities (N, classes) or values (N, outputs), targets), averaged over members and looks."""
        said, targets = [], None
        for network, training in self.networks:
            for look in range(1 + self.looks):
                seen = split if not look else Looks(split, training, look)
                answers, targets = predict(network, seen, self.batch_size, training.autocast)
                said.append(answers.log_softmax(1) if self.classes else answers)
        if len(said) == 1 and not self.classes:
            return said[0], targets
        stacked = torch.stack(said)
        return (stacked.logsumexp(0) - torch.tensor(len(said)).log() if self.classes else stacked.mean(0)), targets


class Looks:
    """A split whose inputs are augmented as in training, the same way each time for the same look."""

    def __init__(self, split: Split, training: Training, look: int):
        self.split, self.training, self.look = split, training, look

    def batches(self, size: int, order: Tensor | None = None) -> Any:
        self.training.generator.manual_seed(self.look)
        for x, y in self.split.batches(size, order):
            for augment in self.training.augmentations:
                x = augment(x, self.training.generator)
            yield x, y


def temperature(logits: Tensor, y: Tensor) -> float:
    """The T > 0 at which softmax(logits / T) has the least cross-entropy (Guo et al. 2017); found by golden section."""
    logits, y = logits.double(), y.to(logits.device)

    def cost(log_t: float) -> float:
        return float(nn.functional.cross_entropy(logits / torch.tensor(log_t).exp(), y))

    low, high = torch.tensor(SHARPEST).log().item(), torch.tensor(FLATTEST).log().item()
    ratio = (5**0.5 - 1) / 2
    a, b = high - ratio * (high - low), low + ratio * (high - low)
    costs = cost(a), cost(b)
    while high - low > 1e-4:  # the cost is convex in 1/T, so it has one valley
        if costs[0] < costs[1]:
            high, b = b, a
            a = high - ratio * (high - low)
            costs = cost(a), costs[0]
        else:
            low, a = a, b
            b = low + ratio * (high - low)
            costs = costs[1], cost(b)
    return float(torch.tensor((low + high) / 2).exp())


def tempered(logits: Tensor, y: Tensor) -> tuple[Tensor, list[float]]:
    """The logits of validation, each half over the temperature that the other half asks for: an honest number."""
    halves = torch.randperm(len(y), generator=torch.Generator().manual_seed(0)).to(logits.device).chunk(2)
    scaled, found = logits.clone(), []
    for mine, others in (halves, reversed(halves)):
        found.append(temperature(logits[others], y[others]))
        scaled[mine] = logits[mine] / found[-1]
    return scaled.log_softmax(1), found


def collected(
    data: Data, training: Training, network: nn.Module, request: DictConfig, cfg: DictConfig, where: torch.device
) -> Members:
    """The run's network and those beside it."""
    if request.temperature and data.spec.task != "classification":
        raise ConfigError("temperature=true: is for classes; these targets are numbers")
    members = Members(data, request.tta, cfg.eval_batch_size)
    members.add(training, network)
    for place in request.beside:
        members.join(Path(place), list(cfg.allow), where)
    return members
