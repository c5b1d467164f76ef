"""Metrics, baselines and intervals, against scikit-learn and torchmetrics."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from conftest import composed, one_in
from sklearn import metrics
from torchmetrics.functional.classification import multiclass_calibration_error

from plumbline import tasks
from plumbline.config import ConfigError, build
from plumbline.data.core import Data, Scale, Spec, Split, Splits
from plumbline.losses import cross_entropy

CLASSES = Spec("classification", (3,), 5)
NUMBERS = Spec("regression", (3,), 2)


def answers(seed: int, n: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    y = torch.randint(5, (n,), generator=draw)
    return torch.randn(n, 5, generator=draw) + 1.5 * torch.nn.functional.one_hot(y, 5), y


@pytest.mark.parametrize("seed", range(5))
def test_classification_metrics_are_those_of_scikit_learn_and_torchmetrics(seed: int) -> None:
    logits, y = answers(seed)
    found, guess = tasks.score(CLASSES, logits, y, None), logits.argmax(1)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(y, guess), abs=1e-12)
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(y, guess), abs=1e-12)
    assert found["f1"] == pytest.approx(metrics.f1_score(y, guess, average="macro"), abs=1e-12)
    expected = multiclass_calibration_error(logits.softmax(1), y, num_classes=5, n_bins=15).item()
    assert found["calibration_error"] == pytest.approx(expected, abs=1e-6)


def test_a_class_that_never_occurs_and_is_never_guessed_counts_nowhere() -> None:
    logits, y = answers(0)
    logits[:, 4], y = -100, y.clamp(max=3)
    found, guess = tasks.score(CLASSES, logits, y, None), logits.argmax(1)
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(y, guess), abs=1e-12)
    assert found["f1"] == pytest.approx(metrics.f1_score(y, guess, average="macro"), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_regression_metrics_are_those_of_scikit_learn_in_the_original_unit(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    y, error = torch.randn(100, 2, generator=draw), torch.randn(100, 2, generator=draw)
    scale = Scale(torch.tensor([150.0, -3.0]), torch.tensor([77.0, 0.1]), "train")
    found = tasks.score(NUMBERS, y + error, y, scale)
    true, said = scale.inverse(y).double(), scale.inverse(y + error).double()
    assert found["rmse"] == pytest.approx(metrics.root_mean_squared_error(true, said), rel=1e-6)
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(true, said), rel=1e-6)
    assert found["r2"] == pytest.approx(metrics.r2_score(true, said), rel=1e-5)


def test_r2_of_a_constant_target_is_not_a_number() -> None:
    found = tasks.score(Spec("regression", (1,), 1), torch.randn(10, 1), torch.ones(10, 1), None)
    assert math.isnan(found["r2"])


@pytest.mark.parametrize(("spec", "seed"), [(CLASSES, 0), (CLASSES, 1), (NUMBERS, 0), (NUMBERS, 1)])
def test_a_weight_counts_a_sample_as_often_as_it_says(spec: Spec, seed: int) -> None:
    outputs, y = answers(seed) if spec is CLASSES else (torch.randn(400, 2), torch.randn(400, 2))
    weights = torch.randint(4, (400,), generator=torch.Generator().manual_seed(seed))
    weighed = tasks.score(spec, outputs, y, None, weights.double())
    repeated = tasks.score(spec, outputs.repeat_interleave(weights, 0), y.repeat_interleave(weights, 0), None)
    assert weighed == pytest.approx(repeated, abs=1e-9)


def data_of(y: torch.Tensor, spec: Spec) -> Data:
    train, val = (Split(torch.zeros(len(y), 3), y, torch.arange(len(y)).numpy()) for _ in range(2))
    return Data(spec, lambda: Splits(train, val, lambda: val, lambda: ""))


def test_the_baseline_of_97_to_3_has_the_accuracy_of_the_majority_and_the_loss_of_the_entropy() -> None:
    data = data_of(torch.tensor([0] * 97 + [1] * 3), Spec("classification", (3,), 2))
    found = tasks.baseline(data, cross_entropy(data.spec))
    assert found["val/accuracy"] == pytest.approx(0.97)
    assert found["val/balanced_accuracy"] == pytest.approx(0.5)
    assert found["val/loss"] == pytest.approx(0.1347, abs=5e-5)


MAJORITY = {"breast_cancer": 0.627, "digits": 0.101, "wine": 0.399, "fashion_mnist": 0.1, "iris": 0.333}


@pytest.mark.parametrize(("data",), one_in(4, [(data,) for data in MAJORITY]))
def test_the_majority_has_the_accuracy_that_is_known_of_it(data: str) -> None:
    if data == "fashion_mnist" and not Path("/usr/share/datasets/fashion-mnist").is_dir():
        pytest.skip("needs Debian's dataset-fashion-mnist")
    found = build(composed(f"data={data}").data)()
    right = tasks.baseline(found, cross_entropy(found.spec))["val/accuracy"]
    assert right == pytest.approx(
        MAJORITY[data], abs=0.5 / len(found.val) + 0.0005
    )  # the nearest that so many can have


def test_the_interval_holds_the_true_accuracy_in_about_95_of_100_samples() -> None:
    true, held = 0.8, 0
    for seed in range(100):
        draw = torch.Generator().manual_seed(seed)
        right = torch.rand(200, generator=draw) < true
        logits = torch.nn.functional.one_hot((~right).long(), 5) * 3.0
        y = torch.zeros(200, dtype=torch.long)
        low, high = tasks.interval(data_of(y, CLASSES), logits, torch.zeros(200), y, 200, None)["val/accuracy"]
        held += low <= true <= high
    assert 88 <= held <= 100


def test_auto_is_accuracy_for_classes_and_rmse_for_numbers_with_their_directions() -> None:
    assert tasks.objective(CLASSES, "auto", "auto") == ("val/accuracy", "maximise")
    assert tasks.objective(NUMBERS, "auto", "auto") == ("val/rmse", "minimise")
    assert tasks.objective(CLASSES, "val/loss", "auto") == ("val/loss", "minimise")
    assert tasks.objective(CLASSES, "val/loss", "maximise") == ("val/loss", "maximise")


@pytest.mark.parametrize("name", ["val/rmse", "accuracy", "test/accuracy", "train/accuracy", ""])
def test_an_objective_that_is_no_validation_metric_of_the_task_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="val/accuracy"):
        tasks.objective(CLASSES, name, "auto")


def test_dice_and_overlap_count_pixels_and_a_sample_of_weight_two_counts_twice():
    spec = Spec("segmentation", (1, 1, 4), 8, masks=(2, 1, 4))
    y = torch.tensor([[1.0, 1, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]])
    painted = torch.tensor([[1.0, 0, 0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0]])  # 2 of 3 and 3, in the first mask
    found = tasks.score(spec, 2 * painted - 1, y, None)
    assert found == {"dice": pytest.approx(4 / 6), "iou": pytest.approx(2 / 4), "accuracy": 14 / 16}
    twice = tasks.score(spec, 2 * painted - 1, y, None, torch.tensor([2.0, 0.0]))
    assert twice == {"dice": pytest.approx(2 / 3), "iou": pytest.approx(1 / 2), "accuracy": 7 / 8}
