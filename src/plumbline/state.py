"""Everything that changes while training, and how it survives: saved whole or not at all."""

from __future__ import annotations

import json
import math
import os
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from plumbline.config import ConfigError
from plumbline.files import replacing
from plumbline.sharding import alike, gathered, optimiser_alike, whole


class NotSaved(OSError):
    """A file of the run could not be written."""


@dataclass
class State:
    """What a run needs to go on as if it had never stopped. Randomness is not in it: it follows from where we are."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None = None
    ema: torch.optim.swa_utils.AveragedModel | None = None
    swa: torch.optim.swa_utils.AveragedModel | None = None  # the mean of whole epochs' weights, once that has begun
    sharded: bool = False  # whether each process holds a part of the weights
    gathered: dict[str, Any] | None = None  # where it does: all of them, as they were when last brought together
    epoch: int = 0  # epochs done
    step: int = 0  # updates done in this one
    samples: int = 0  # seen in this epoch
    loss_sum: float | Tensor = 0.0  # over the samples of this epoch; on a GPU a tensor, since to read it is to wait
    penalty_sum: float | Tensor = 0.0
    watched: Tensor = field(
        default_factory=lambda: torch.zeros(0)
    )  # (2, layers + 1) sums: gradient norms, update ratios
    looks: int = 0  # behind these sums
    scores: list[float] = field(default_factory=list)  # validation loss by epoch, for schedules that react
    best: dict[str, float] = field(default_factory=dict)  # the record of the best epoch
    records: list[dict[str, Any]] = field(default_factory=list)  # all records: metrics.jsonl is mended from them
    lines: list[str] = field(default_factory=list)  # the same, as they are saved: to pickle one text takes no time
    saved: float = -math.inf  # the moment of the last saving
    took: float = 0.0  # seconds that it took
    behind: bool = False  # whether an epoch has ended since that is not saved

    @property
    def network(self) -> nn.Module:
        """The network that is scored and kept: the averaged one where there is one."""
        if self.swa is not None and self.swa.n_averaged > 0:
            return self.swa.module
        return self.model if self.ema is None else self.ema.module

    def gather(self, keep: bool) -> None:
        """Before saving, where weights are sharded: bring them together, in all processes at once; one keeps them."""
        if self.sharded:
            parts = {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}
            self.gathered = gathered(parts, keep)

    def weights(self) -> dict[str, Tensor]:
        """Those of the network that is scored and kept, whole."""
        return self.network.state_dict() if self.gathered is None else self.gathered["model"]

    def count(self, loss: Tensor, penalty: Tensor | float, samples: int) -> None:
        """Add one update to the epoch's sums, without waiting for the device."""
        self.loss_sum = self.loss_sum + waiting(loss) * samples
        self.penalty_sum = self.penalty_sum + waiting(penalty) * samples
        self.samples += samples
        self.step += 1

    @torch.no_grad()
    def watch(self, gradients: list[Tensor], parameters: list[nn.Parameter], before: list[Tensor]) -> None:
        """Add the gradient norms, and how far each parameter moved relative to its size (about 1e-3 is healthy)."""
        ratios = [(p - b).norm() / b.norm().clamp(min=1e-12) for p, b in zip(parameters, before, strict=True)]
        ratios = [whole(ratio) for ratio in ratios]
        row = torch.stack([torch.stack(gradients), torch.stack([*ratios, torch.zeros_like(gradients[-1])])]).cpu()
        self.watched = row if not self.looks else self.watched + row
        self.looks += 1

    def averages(self, names: list[str]) -> dict[str, float]:
        """The epoch's means: the loss as trained, the penalty in it, gradient norms and update ratios by layer."""
        sums = {"fit/loss": self.loss_sum, "fit/penalty": self.penalty_sum}
        means = {name: float(value) / self.samples for name, value in sums.items()}
        if self.looks:
            gradients, ratios = (self.watched / self.looks).tolist()
            means["fit/grad_norm"] = gradients[-1]
            means |= {f"grad_norm/{name}": value for name, value in zip(names, gradients, strict=False)}
            means |= {f"update_ratio/{name}": value for name, value in zip(names, ratios, strict=False)}
        return means

    def next_epoch(self) -> None:
        """Turn to the next epoch: its sums start at nothing."""
        self.epoch, self.step, self.samples, self.looks = self.epoch + 1, 0, 0, 0
        self.loss_sum = self.penalty_sum = 0.0

    PLAIN = (
        "epoch",
        "step",
        "samples",
        "loss_sum",
        "penalty_sum",
        "watched",
        "looks",
        "best",
    )

    def save(self, path: Path, lazily: bool = False) -> None:
        """Write the checkpoint, keeping the one before it as `<name>.before`. A full disk leaves both as they were.

        Lazily: not so soon after the last that saving would take more than a tenth of the time.
        """
        began = time.monotonic()
        self.behind = lazily and began - self.saved < 9 * self.took
        if self.behind:
            return
        self.lines += [json.dumps(record) for record in self.records[len(self.lines) :]]
        content = {key: getattr(self, key) for key in self.PLAIN} | {
            "records": "\n".join(self.lines),
            "scores": torch.tensor(self.scores, dtype=torch.float64),
            **(self.gathered or {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "swa": None if self.swa is None else self.swa.state_dict(),
        }
        write(content, path, keep=True)
        self.gathered, self.saved = None, time.monotonic()
        self.took = self.saved - began

    def load(self, path: Path) -> str | None:
        """Take up a checkpoint: the last, or the one before where that is damaged; without any, begin at the beginning.

        Returns a word where there is something to say. Raises ConfigError if none can be read, or none fits.
        """
        if not path.exists() and not before(path).exists():
            return "there is no checkpoint yet: starting from the beginning"
        content, note = read(path)
        if note is not None and path.exists():
            os.replace(
                path, path.with_name(path.name + ".damaged")
            )  # or the next save would put it in the good one's place
        if missing := [key for key in (*self.PLAIN, "records", "scores", "model", "optimiser") if key not in content]:
            raise ConfigError(f"resume: {path} is no checkpoint of a run: it has no {missing[0]}; start a new run")
        for key in self.PLAIN:
            setattr(self, key, content[key])
        records, scores = content["records"], content["scores"]  # of an earlier version both are lists
        self.records = [json.loads(line) for line in records.splitlines()] if isinstance(records, str) else records
        self.scores = scores.tolist() if isinstance(scores, Tensor) else scores
        self.lines = []
        try:
            self.model.load_state_dict(alike(content["model"], self.model.state_dict()))
            self.optimiser.load_state_dict(optimiser_alike(content["optimiser"], self.optimiser.param_groups))
            for part in ("scaler", "ema", "swa"):
                if getattr(self, part) is not None and content[part] is not None:
                    getattr(self, part).load_state_dict(content[part])
        except (RuntimeError, ValueError, KeyError) as error:
            raise ConfigError(
                f"resume: {path} was saved by another network or optimiser than this configuration builds: {error}"
            ) from error
        return note


def waiting(loss: Tensor | float) -> float | Tensor:
    """The loss as a number, where that costs nothing; as a detached tensor where it would wait for the device."""
    if not isinstance(loss, Tensor):
        return loss
    if loss.device.type == "cpu":
        return loss.item()
    return loss.detach() if loss.device.type == "mps" else loss.detach().double()


def write(content: dict[str, Any], path: Path, keep: bool = False) -> None:
    """torch.save, whole or not at all; keep: what was there stays, as `before` says."""
    try:
        with replacing(path, before(path) if keep else None) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:  # torch's own writer turns a full disk into a RuntimeError
        raise NotSaved(
            f"{path}: could not be written ({_reason(error)}); the checkpoint before it is intact"
        ) from error


def _reason(error: BaseException) -> str:
    while error.__context__ is not None and not isinstance(error, OSError):
        error = error.__context__
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def before(path: Path) -> Path:
    return path.with_name(path.name + ".before")


def read(path: Path, word: str = "resume", spare: bool = True) -> tuple[dict[str, Any], str | None]:
    """The content of a checkpoint, or of the one before it if it is damaged, with a word on that.

    spare: whether the one before serves, too. Of best weights it does not: it holds those of an earlier epoch.
    """
    broken: list[str] = []
    for candidate in (path, before(path)) if spare else (path,):
        if not candidate.exists():
            continue
        try:
            content = read_whole(candidate)
        except ValueError as error:
            broken.append(f"{candidate.name} {error}")
            continue
        return content, f"{'; '.join(broken)}; going on from {candidate.name}" if broken else None
    why = "; ".join(broken) or f"there is no {path.name}"
    cure = "start the run anew" if word == "resume" else "name another"
    raise ConfigError(f"{word}: no checkpoint can be read in {path.parent}: {why}; {cure}")


def read_whole(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, its checksums verified; raises ValueError with what is wrong with it."""
    try:
        with zipfile.ZipFile(path) as archive:  # torch's reader does not look at the checksums
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"{damaged} has a wrong checksum")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"is damaged ({why})") from error
    if not isinstance(content, dict):
        raise ValueError(f"is no checkpoint: it holds a {type(content).__name__}")
    return content
