"""Checks of a network before it trains."""

from __future__ import annotations

import torch
from omegaconf import DictConfig

from plumbline import tasks
from plumbline.assemble import build_all
from plumbline.checks.core import Finding
from plumbline.data.core import Data
from plumbline.loop import Step, Training, predict


class Bench:
    """A copy of what will train, as it is before its first update, to try things on."""

    def __init__(self, cfg: DictConfig, data: Data, where: torch.device):
        self.cfg, self.data, self.where = cfg, data, where
        self.prior = tasks.prior(data.spec, data.train).float()

    def fresh(self) -> tuple[Training, Step]:
        """The network, its optimiser and all that belongs to them, built anew as seed and data make them; and the step."""
        training, _, step, _ = build_all(self.cfg, self.data.spec, self.prior, self.where, rehearsal=True)
        return training, step


def first_loss(bench: Bench, *, within: float) -> Finding | None:
    """The loss before the first update against that of an uninformed output: ln C for cross-entropy over C classes."""
    training, _ = bench.fresh()
    expected = getattr(training.loss, "expected_first", None)  # a loss of one's own may have none
    if expected is None:
        return None
    train = bench.data.train
    part = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[: bench.cfg.train_eval]
    outputs, y = predict(training.model, train, bench.cfg.eval_batch_size, training.autocast, part)
    measured = training.loss(outputs, y).item()
    evidence = {"measured": measured, "expected": expected}
    said = f"the first loss is {measured:.4g}, where knowing nothing gives {expected:.4g}"
    if expected / within < measured < expected * within:
        return Finding("ok", said, evidence)
    return Finding(
        "warn", said, evidence,
        cause="the initial outputs are too large, or the loss is not the one that was meant",
        advice=("a smaller last layer: init.head_std=0.01", "look at the initialisation and at the scale of the inputs"),
        source="S2: classification starts at ln(classes)",
    )  # fmt: skip
