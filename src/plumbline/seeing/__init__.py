"""Figures of a run that look into the network: chosen by `figures=[…]`, drawn with its best weights, kept in its folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from plumbline.config import ConfigError, build
from plumbline.data.core import Data, Spec, Split
from plumbline.files import make_folder, replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from plumbline.loop import Training
    from plumbline.state import State

DOTS = 200  # an inch, of the pictures in the folder


class Subject:
    """What a picture may look at: the network, as it is kept, in evaluation mode; the data but for the test set."""

    def __init__(self, network: nn.Module, data: Data, training: Training, cfg: DictConfig, directory: Path):
        self.network, self.data, self.spec, self.cfg, self.directory = network, data, data.spec, cfg, directory
        self.training, self.where = training, training.generator.device

    def samples(self, split: Split, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """(x, y, rows) of so many samples of a split, always the same ones; of classes, as many of each as there are."""
        y = split.targets.cpu()
        rows = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
        if self.spec.task == "classification":
            turn = torch.zeros(len(y), dtype=torch.int64)  # how many of its class come before it
            for known in y.unique():
                its = rows[y[rows] == known]
                turn[its] = torch.arange(len(its))
            rows = rows[torch.argsort(turn[rows], stable=True)][:count]
            rows = rows[torch.argsort(y[rows], stable=True)]
        rows = rows[:count]
        x, y = next(iter(split.batches(len(rows), rows)))
        return x, y, rows

    def images(self, x: Tensor) -> Tensor:
        """(n, H, W, 1 or 3) as they were before they were scaled, on the CPU."""
        x = x if self.data.scale is None else self.data.scale.inverse(x)
        x = x if x.shape[1] == 3 else x[:, :1]
        return x.detach().float().cpu().permute(0, 2, 3, 1)

    def said(self, x: Tensor) -> Tensor:
        """Probabilities (n, classes), or values in their own unit (n, outputs), on the CPU."""
        with torch.no_grad(), self.training.autocast():
            outputs = self.network.eval()(x.clone()).float()
        if self.spec.task == "classification":
            return outputs.softmax(1).cpu()
        scale = self.data.target_scale
        return (outputs if scale is None else scale.inverse(outputs)).cpu()

    def name(self, label: Any) -> str:
        """A class's name, or a number."""
        if self.spec.task == "classification":
            return str(self.spec.classes[int(label)]) if self.spec.classes else str(int(label))
        return f"{float(torch.as_tensor(label).flatten()[0]):.3g}"


class Picture:
    """Subclasses draw; some also look at each epoch. `caption` is the sentence below it, set where it is drawn."""

    caption = ""

    def check(self, spec: Spec, model: nn.Module) -> None:
        """Raise ConfigError where these data or this network have nothing of the kind; asked before anything is read."""

    def watch(self, subject: Subject, epoch: int) -> None:
        """Look at the network after an epoch; what is kept must survive a stop, so in the folder."""

    def draw(self, subject: Subject) -> Figure:
        """The figure, of the best weights."""
        raise NotImplementedError


class Gallery:
    """The chosen pictures of a run. One that fails costs nothing but itself."""

    def __init__(self, cfg: DictConfig, data: Data, training: Training, directory: Path, say: Callable[[str], None]):
        self.cfg, self.data, self.training, self.directory, self.say = cfg, data, training, directory, say
        self.pictures = {name: build(node)() for name, node in cfg.figures.items()}

    def epoch(self, state: State) -> None:
        """An epoch is over."""
        for name in list(self.pictures):
            self._try(name, lambda picture, subject: picture.watch(subject, state.epoch), state)

    def draw(self, state: State) -> dict[str, Figure]:
        """The figures by name; each is written into the folder as figures/<name>.png."""
        drawn = {}
        for name in list(self.pictures):
            figure = self._try(name, lambda picture, subject: picture.draw(subject), state)
            if figure is not None:
                make_folder(self.directory, "figures")
                with replacing(self.directory / "figures" / f"{name}.png") as file:
                    figure.savefig(file, dpi=DOTS, format="png")
                drawn[name] = figure
        return drawn

    def captions(self) -> dict[str, str]:
        """What stands below each."""
        return {name: picture.caption for name, picture in self.pictures.items()}

    def _try(self, name: str, act: Callable[[Picture, Subject], Any], state: State) -> Any:
        network, modes = state.network, [(module, module.training) for module in state.network.modules()]
        try:
            with torch.random.fork_rng(devices=[]):
                return act(self.pictures[name], Subject(network, self.data, self.training, self.cfg, self.directory))
        except Exception as error:  # a picture is never worth a run
            self.say(f"figure {name} could not be drawn and is left out: {type(error).__name__}: {error}")
            del self.pictures[name]
            return None
        finally:
            for module, mode in modes:
                module.training = mode


def need(right: bool, name: str, what: str) -> None:
    """Raise ConfigError unless the figure has something to show."""
    if not right:
        raise ConfigError(f"figures=[{name}]: {what}")


def check_figures(cfg: DictConfig, spec: Spec, model: nn.Module) -> None:
    """Raise ConfigError for a figure that these data or this network cannot give."""
    for name, node in cfg.figures.items():
        picture = build(node)()
        if not isinstance(picture, Picture):
            raise ConfigError(f"figures.{name}: {type(picture).__name__} is no plumbline.seeing.Picture")
        picture.check(spec, model)
