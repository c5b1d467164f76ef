"""Checks of a result: is it one?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import torch
from torch import Tensor

from plumbline import tasks
from plumbline.checks.core import Finding
from plumbline.checks.margin import ZERO_INPUT, margin
from plumbline.config import MAXIMISE
from plumbline.data.core import Data
from plumbline.ranges import NonNegative, Range, Share

UNSKILLED = (*tasks.BASELINE.values(), ZERO_INPUT)  # baselines that see no input


@dataclass
class Result:
    """What came out of a run: run.json so far, and what the best weights say of validation."""

    run: dict[str, Any]
    data: Data
    outputs: Tensor  # (N, outputs), raw
    losses: Tensor  # (N,)
    targets: Tensor
    trained: int  # samples of train that were scored, too

    @property
    def metric(self) -> str:
        return self.run["objective"]

    @property
    def value(self) -> float:
        return self.run["best"][self.metric]

    @cached_property
    def spread(self) -> float:
        """The standard error of the objective, from its 95 % bootstrap interval."""
        low, high = self.run["interval"][self.metric]
        return (high - low) / 3.92

    @property
    def classes(self) -> bool:
        return self.data.spec.task == "classification"

    @cached_property
    def guesses(self) -> tuple[Tensor, Tensor]:
        """(guessed class (N,), true class (N,)) on the CPU."""
        return self.outputs.argmax(1).cpu(), self.targets.cpu()

    @cached_property
    def recalls(self) -> list[tuple[str, int, float]]:
        """(name, samples, recall) of each class that validation has."""
        guess, true = self.guesses
        n = torch.bincount(true, minlength=self.data.spec.outputs)
        right = torch.bincount(true[guess == true], minlength=self.data.spec.outputs)
        names = self.data.spec.classes or tuple(str(place) for place in range(self.data.spec.outputs))
        return [(str(names[k]), int(n[k]), (right[k] / n[k]).item()) for k in range(len(n)) if n[k]]

    @property
    def measured(self) -> dict[str, dict[str, float]]:
        """The metrics of each baseline beyond the simplest, by name; empty where none was measured."""
        return {item["name"]: item["metrics"] for item in self.run.get("baselines", [])}

    @cached_property
    def baselines(self) -> list[tuple[str, float]]:
        """(name, value of the objective) of those that have a finite one, the strongest first."""
        scored = [(name, scores[self.metric]) for name, scores in self.measured.items() if self.metric in scores]
        finite = [item for item in scored if math.isfinite(item[1])]
        return sorted(finite, key=lambda item: item[1], reverse=self.run["direction"] == MAXIMISE)

    @property
    def skilled(self) -> list[tuple[str, float]]:
        """Those of them that look at the inputs."""
        return [(name, value) for name, value in self.baselines if name not in UNSKILLED]

    def behind(self, other: float) -> float:
        """By how many standard errors another value is the better one; negative where ours is."""
        difference = other - self.value if self.run["direction"] == MAXIMISE else self.value - other
        return difference / max(self.spread, 1e-12)

    def error(self, value: float) -> float:
        """A value as its distance from perfect."""
        return 1 - value if self.run["direction"] == MAXIMISE else value

    def said(self, name: str, other: float) -> str:
        """The objective beside another's, with its interval; of a regression with R², which has no unit, too."""
        low, high = self.run["interval"][self.metric]
        said = (
            f"{self.metric} {self.value:.4g} (95 % interval {low:.4g} to {high:.4g}) against {other:.4g} of the {name}"
        )
        return said + self.explained(name)

    def explained(self, name: str) -> str:
        """Of a regression, the R² of both, which has no unit, as the end of a sentence."""
        if self.metric == "val/r2" or "val/r2" not in self.measured.get(name, {}):
            return ""
        return f"; R² {self.run['best']['val/r2']:.2f} against {self.measured[name]['val/r2']:.2f}"


def metrics_disagree(result: Result, *, within: NonNegative) -> Finding:
    """Whether the best weights give again, on the same data, what was noted of them while training."""
    spec, scale = result.data.spec, result.data.target_scale
    again = {"loss": result.losses.mean().item(), **tasks.score(spec, result.outputs, result.targets, scale)}
    noted = {name: result.run["best"][f"val/{name}"] for name in again}
    off = {
        name: abs(value - noted[name]) / max(abs(noted[name]), within)
        for name, value in again.items()
        if value == value and noted[name] == noted[name]  # R² of a constant target is no number
    }
    name = max(off, key=off.__getitem__)
    evidence = {"metric": f"val/{name}", "noted": noted[name], "again": again[name]}
    if off[name] <= within:
        return Finding("ok", f"the best weights give again what was noted: val/{name} {again[name]:.4g}", evidence)
    return Finding(
        "fail", f"the best weights do not give again what was noted: val/{name} {again[name]:.4g}, "
        f"noted {noted[name]:.4g}", evidence,
        cause="the network is not the same twice in evaluation mode (dropout or batch statistics at work), or the metric was "
        "averaged over batches",
        advice=(
            "ask two passes in evaluation mode for the same outputs", "see that dropout follows self.training",
            "score the whole set at once, not the mean of batches",
        ),
        source="S3: keep the outputs, for verification", symptom=True,
    )  # fmt: skip


def hides_class(
    result: Result, *, rare: Share, recall: Share, samples: Annotated[int, Range("[1, 10000000]")]
) -> Finding | None:
    """Whether an accuracy hides a class that is hardly ever found."""
    if not result.classes or result.metric != "val/accuracy":
        return None  # balanced accuracy and F1 do not hide it
    total = sum(n for _, n, _ in result.recalls)
    even = total / result.data.spec.outputs
    judged = [item for item in result.recalls if item[1] >= samples]
    if not judged:
        return None
    name, n, found = min(judged, key=lambda item: item[2])
    balanced = sum(item[2] for item in result.recalls) / len(result.recalls)
    evidence = {"class": name, "n": n, "recall": found, "accuracy": result.value, "balanced_accuracy": balanced}
    errors = sum(n * (1 - found) for _, n, found in result.recalls)
    lost = found == 0 and n > 0.5 * errors  # most of what is wrong is this class
    hidden = found < recall * result.value and (n < rare * even or lost)
    if not hidden:
        return Finding("ok", f"no class is hidden: the least found, {name}, has recall {found:.3g}", evidence)
    return Finding(
        "warn", f"accuracy {result.value:.4g} hides class {name}: recall {found:.3g} of {n}; "
        f"balanced accuracy {balanced:.4g}", evidence,
        cause="a rare class weighs little in accuracy, and in the loss",
        advice=(
            "judge by balanced accuracy: objective=val/balanced_accuracy", "weigh the classes in the loss",
            "draw rare classes more often, after the split", "see that train has the class at all",
        ),
        source="S0: check imbalance",
    )  # fmt: skip


def constant_prediction(result: Result, *, share: Share, spread: NonNegative) -> Finding:
    """Whether the network says the same of everything."""
    if result.classes:
        guess, true = result.guesses
        counts = torch.bincount(guess, minlength=result.data.spec.outputs)
        most, truly = int(counts.argmax()), torch.bincount(true, minlength=len(counts)).max().item() / len(true)
        part = counts[most].item() / len(guess)
        evidence = {"class": most, "share": part, "of_the_largest_class": truly}
        if part < share or truly >= share:
            return Finding("ok", f"no class gets more than {part:.0%} of the predictions", evidence)
        name = result.data.spec.classes[most] if result.data.spec.classes else most
        said = f"class {name} is predicted for {part:.1%} of validation"
    else:
        outputs, targets = (
            values.float().cpu().reshape(len(values), -1) for values in (result.outputs, result.targets)
        )
        moves = (outputs.std(0) / targets.std(0).clamp(min=1e-12)).max().item()
        evidence = {"spread_of_predictions": moves}
        if moves >= spread or targets.std(0).max() == 0:
            return Finding("ok", f"predictions vary, by {moves:.2g} of what the targets do", evidence)
        said = f"predictions hardly vary: {moves:.2g} of what the targets do"
    return Finding(
        "fail", said, evidence,
        cause="nothing was learned from the inputs, or an output layer is dead",
        advice=("look for dead or saturated units", "try other learning rates", "overfit one batch"),
        source="S0: be suspicious of too bad as of too good", symptom=True,
    )  # fmt: skip


def baseline(result: Result, *, far: NonNegative, worse: NonNegative) -> Finding | None:
    """Whether the network beats the simplest baseline and the strongest, by the paired bootstrap's 95 % interval."""
    found = margin(result.run)
    if found is None:
        return None
    evidence = {
        found.metric: found.value,
        found.name: found.other,
        "ahead": found.ahead,
        "half_interval": found.half,
    }
    said, evidence = f"{found}{result.explained(found.name)}", evidence | dict(result.baselines)
    if found.beats:
        return Finding("ok", said, evidence)
    if found.rank == "simplest":
        return Finding(
            "fail", said, evidence,
            cause="nothing was learned from the inputs, or there is nothing in them to learn",
            advice=(
                "look at the training loss: if it does not fall either, try other learning rates",
                "check that inputs and labels belong together",
            ),
            source="S0: compute the naive predictor's metric first", symptom=True,
        )  # fmt: skip
    lost = -found.ahead > far * found.error and result.error(found.value) > worse * result.error(found.other)
    return Finding(
        "warn" if lost else "info", said, evidence,
        cause="the network trains badly, or the data do not ask for one",
        advice=(
            "tune the learning rate and train longer",
            "regularise, if validation loss rises; deeper before wider, if training loss stays high",
            f"take the {found.name}: it is simpler, quicker and safer",
        ),
        source="S0: often a linear model is as good", symptom=True,
    )  # fmt: skip


def no_better_than_zero_input(result: Result, *, sigmas: NonNegative) -> Finding | None:
    """Whether the network does better with its inputs than the same network with zeros in their place."""
    found = [value for name, value in result.baselines if name == ZERO_INPUT]
    if not found:
        return None
    ahead = -result.behind(found[0])
    evidence = {result.metric: result.value, ZERO_INPUT: found[0], "standard_errors": ahead}
    if ahead > sigmas:
        return Finding("ok", f"the inputs are used: {result.said('same network without them', found[0])}", evidence)
    return Finding(
        "warn", f"does no better than without its inputs: {result.said('same network with zeros for them', found[0])}", evidence,
        cause="the inputs do not reach the output, or say nothing about the target",
        advice=("follow the gradient from the output to the input", "look at what enters the network, sample by sample"),
        source="Karpathy: the input-independent baseline must be worse", symptom=True,
    )  # fmt: skip


def val_above_train(result: Result, *, sigmas: NonNegative) -> Finding | None:
    """Whether validation does better than train by more than chance, both measured in evaluation mode."""
    if result.data.spec.task == "segmentation":
        return None
    best, held = result.run["best"], len(result.targets)
    if result.classes:
        train, val = best["train/accuracy"], best["val/accuracy"]
        pooled = (train * result.trained + val * held) / (result.trained + held)
        spread = (max(pooled * (1 - pooled), 1e-12) * (1 / result.trained + 1 / held)) ** 0.5
        distance, name = (val - train) / spread, "accuracy"
    else:
        train, val, name = best["train/rmse"], best["val/rmse"], "RMSE"
        if min(train, val) <= 0:
            return None
        spread = (5 * (1 / result.trained + 1 / held)) ** 0.5 / 2  # of the logarithm, for errors with heavy tails
        distance = torch.tensor(train / val).log().item() / spread
    evidence = {"train": train, "val": val, "standard_errors": distance}
    if distance <= sigmas:
        return Finding("ok", f"train is not worse than validation: {name} {train:.4g} and {val:.4g}", evidence)
    return Finding(
        "warn", f"validation does better than train, by {distance:.0f} standard errors: {name} {val:.4g} "
        f"against {train:.4g}", evidence,
        cause="labels of train are wrong, validation is easier or leaks from train, or training feeds other inputs",
        advice=(
            "look for label errors in train", "look for samples of validation in train",
            "train without augmentation once: does train catch up?",
        ),
        source="S4: test may exceed train with dropout, not when both are measured alike", symptom=True,
    )  # fmt: skip


def too_good(
    result: Result, *, error: Share, samples: Annotated[int, Range("[1, 10000000]")], times: NonNegative
) -> Finding | None:
    """Whether the result is all but perfect where everything else is far from it."""
    if result.metric == "val/loss" or len(result.targets) < samples:
        return None
    reached = result.error(result.value)
    if not result.classes and result.run["direction"] != MAXIMISE:
        reached = result.value / max(result.run["baseline"][result.metric], 1e-12)
    evidence = {result.metric: result.value, "n": len(result.targets), **dict(result.skilled[:1])}
    if reached > error or not result.skilled:
        return Finding("ok", f"not suspiciously good: {result.metric} {result.value:.4g}", evidence)
    strong, best = result.skilled[0]
    least = 1 / len(result.targets) if result.run["direction"] == MAXIMISE else 0  # one sample more
    if result.error(best) <= times * max(result.error(result.value), least):
        return Finding(
            "info", f"{result.metric} {result.value:.4g} is all but perfect, as is {best:.4g} of the {strong}: "
            "an easy task, or a leak", evidence, advice=("look at single inputs that predict the target",),
            source="S0: be suspicious of perfect validation", symptom=True,
        )  # fmt: skip
    return Finding(
        "warn", f"too good to be true: {result.said(strong, best)}", evidence,
        cause="validation leaks into train, or an input gives the answer away",
        advice=("look for duplicates across the splits", "look at single inputs that predict the target",
                "hide the borders and the background of images, and see"),
        source="S0: be suspicious of perfect validation", symptom=True,
    )  # fmt: skip


def calibration(result: Result, *, sigmas: NonNegative, least: Share) -> Finding | None:
    """Whether the network is surer, or less sure, than it is right."""
    if not result.classes:
        return None
    confidence = result.outputs.softmax(1).max(1).values.double().mean().item()
    guess, true = result.guesses
    right = (guess == true).double().mean().item()
    chance = (max(right * (1 - right), 1e-12) / len(true)) ** 0.5
    evidence = {
        "confidence": confidence,
        "accuracy": right,
        "calibration_error": result.run["best"]["val/calibration_error"],
    }
    said = f"mean confidence {confidence:.3g}, accuracy {right:.3g}"
    if abs(confidence - right) <= max(least, sigmas * chance):
        return Finding("ok", f"about as sure as it is right: {said}", evidence)
    sure = confidence > right
    return Finding(
        "info", f"{'too sure of itself' if sure else 'less sure than it could be'}: {said}", evidence,
        cause="trained long after the validation loss was lowest" if sure else "label smoothing, mixup or a strong penalty",
        advice=("scale the logits by one temperature, fitted on validation",) + (("label smoothing",) if sure else ()),
        source="Guo et al. 2017, On calibration of modern neural networks", symptom=True,
    )  # fmt: skip
