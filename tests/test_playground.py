"""The TensorFlow Playground as published: what its networks do, over ten seeds, and what the checks say of their curves.

Solved is a training loss below 0.02: half the squared error of a tanh that is 0.2 away.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import mean, median
from typing import Any

import numpy as np
import pytest
from conftest import composed, noted, records
from test_options import CPU

from plumbline.assemble import assemble
from plumbline.checks.curve import noise
from plumbline.config import build, check_config
from plumbline.loop import fit
from plumbline.scoring import Scoring

TEN, FIVE = range(10), range(5)  # five where ten would take minutes: the figures of ten stand in docs/practice.md


def epochs(words: str, seed: int, last: bool = False) -> Iterator[dict[str, Any]]:
    """The records of a run, one an epoch, or the last alone; whoever has seen enough stops asking, and no more is trained."""
    cfg = composed(*words.split(), f"seed={seed}")
    check_config(cfg)
    data = build(cfg.data)()
    training, state, step, schedule = assemble(cfg, data, CPU)
    scoring = Scoring(data, training, cfg)
    options = {key: cfg[key] for key in ("seed", "epochs", "batch_size", "accumulate", "watch")}
    for record in fit(training, state, data.train, step, schedule, **options):
        if record and (not last or record["epoch"] == cfg.epochs):  # scoring takes as long as training
            yield record | scoring.epoch(state)


def solved(words: str, seed: int) -> int | None:
    """The epoch that solves it; None if none does."""
    return next((record["epoch"] for record in epochs(words, seed) if record["train/loss"] < 0.02), None)


def ends(words: str, seed: int) -> dict[str, Any]:
    """The last record."""
    return next(epochs(words, seed, last=True))


def first_solved(words: str, seeds: range = TEN) -> list[int]:
    """The epochs in which those of some seeds that solve it do, the earliest first."""
    return sorted(epoch for seed in seeds if (epoch := solved(words, seed)) is not None)


def slowly(*quick: int) -> list[Any]:
    """Ten seeds, of which all but `quick` wait for --slow."""
    return [seed if seed in quick else pytest.param(seed, marks=pytest.mark.slow) for seed in TEN]


def shakes(words: str, seed: int) -> float:
    """By how much the training loss shakes in the second half."""
    losses = np.array([record["train/loss"] for record in epochs(words, seed)])
    return noise(losses[len(losses) // 2 :])


@pytest.mark.parametrize("seed", slowly(0))
def test_a_linear_model_stays_at_chance_on_the_circle(seed: int) -> None:
    last = ends("experiment=circle model.hidden=[] epochs=30", seed)
    assert 0.48 < last["val/loss"] < 0.56
    assert last["val/accuracy"] < 0.7


@pytest.mark.parametrize(("activation", "least", "most"), [("tanh", 45, 110), ("relu", 25, 75)])
@pytest.mark.parametrize("seed", slowly(0))
def test_six_units_tell_a_disc_from_its_ring_with_every_seed(activation: str, least: int, most: int, seed: int) -> None:
    assert least < solved(f"experiment=circle model.activation={activation}", seed) < most


@pytest.mark.slow
def test_the_circle_is_learned_without_a_gap_that_matters() -> None:
    found = [ends("experiment=circle", seed) for seed in TEN]
    assert min(record["val/accuracy"] for record in found) > 0.98
    assert median(record["train/loss"] for record in found) == pytest.approx(0.0013, abs=0.0004)
    assert median(record["val/loss"] for record in found) == pytest.approx(0.0043, abs=0.001)


def test_no_check_alarms_on_the_circle_and_its_saturation_is_a_note(run) -> None:
    _, folder = run("experiment=circle", "epochs=60", "checks=quick", "report=false")
    found = {finding["id"]: finding["severity"] for finding in noted(folder)["findings"]}
    assert [name for name, severity in found.items() if severity in ("warn", "fail")] == []
    assert found["curve.saturated"] == "info"


@pytest.mark.slow
def test_a_tenth_of_the_rate_takes_ten_times_the_epochs() -> None:
    slow, usual = (first_solved(words, FIVE) for words in ("experiment=plateau epochs=1400", "experiment=circle"))
    assert (len(slow), len(usual)) == (5, 5)
    assert (median(slow), median(usual)) == pytest.approx((711, 72), rel=0.1)


@pytest.mark.slow
def test_a_plateau_on_the_way_to_a_circle_is_told_though_the_loss_falls_in_the_end(run) -> None:
    _, folder = run("experiment=plateau", "checks=quick", "report=false")
    found = {finding["id"]: finding["evidence"] for finding in noted(folder)["findings"]}["curve.plateau"]
    assert (found["from"], found["to"]) == (pytest.approx(31, abs=30), pytest.approx(409, abs=30))
    assert records(folder)[-1]["val/loss"] < 0.02


@pytest.mark.slow
def test_sigmoids_take_ten_times_the_epochs_of_tanh_and_relu_and_ten_times_the_rate_helps() -> None:
    ways = {"": (4, 663), " optimiser.lr=0.3 epochs=300": (3, 100), " model.activation=tanh": (5, 72)}
    for words, (solve, after) in (ways | {" model.activation=relu": (5, 42)}).items():
        found = first_solved(f"experiment=slow_sigmoid{words}", FIVE)
        assert len(found) == pytest.approx(solve, abs=1), words
        assert median(found) == pytest.approx(after, rel=0.15), words


@pytest.mark.parametrize("seed", slowly(0))
def test_wrong_labels_shake_the_curve_at_a_high_rate_and_not_at_a_low_one(seed: int) -> None:
    assert 0.003 < shakes("experiment=shaking epochs=40", seed) < 0.06
    assert shakes("experiment=shaking epochs=40 optimiser.lr=0.01", seed) < 0.0004


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "high", "low"),
    [("relu", 0.0094, 0.000044), ("tanh", 0.0100, 0.000096), ("sigmoid", 0.0063, 0.000003)],
)
def test_how_much_the_curves_shake(activation: str, high: float, low: float) -> None:
    words = f"experiment=shaking model.activation={activation}"
    assert median(shakes(words, seed) for seed in TEN) == pytest.approx(high, rel=0.25)
    assert median(shakes(f"{words} optimiser.lr=0.01", seed) for seed in TEN) == pytest.approx(low, rel=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("units", [1, 2, 3])
@pytest.mark.parametrize(
    ("words", "solve"),
    [("", 10), ("model.activation=relu", 8), ("model.activation=sigmoid optimiser.lr=0.3", 10)],
)
def test_a_disc_needs_three_units_to_be_closed_around(units: int, words: str, solve: int) -> None:
    briefly = "" if units == 3 else " epochs=150"
    found = first_solved(f"experiment=fewest_units model.hidden=[{units}] {words}{briefly}")
    assert abs(len(found) - (solve if units == 3 else 0)) <= (solve == 8 and units == 3)


@pytest.mark.parametrize("seed", slowly(0))
def test_six_sigmoid_layers_stay_where_they_start(seed: int) -> None:
    last = ends("experiment=deep_sigmoid epochs=20", seed)
    assert last["val/loss"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.slow
def test_four_of_ten_networks_of_six_relu_layers_learn_anything_and_none_of_sigmoids() -> None:
    shallow = first_solved("experiment=deep_sigmoid model.activation=relu model.hidden=[4,2]")
    assert len(shallow) == pytest.approx(9, abs=1)
    for activation, learned in (("relu", 4), ("sigmoid", 0)):
        found = [ends(f"experiment=deep_sigmoid model.activation={activation}", seed) for seed in TEN]
        assert abs(sum(record["val/accuracy"] > 0.95 for record in found) - learned) <= bool(learned)


@pytest.mark.parametrize("seed", slowly(0))
def test_residual_blocks_are_solved_within_forty_epochs(seed: int) -> None:
    assert 8 < solved("experiment=residual model.activation=relu", seed) <= 40


@pytest.mark.slow
def test_residual_blocks_of_sigmoids_solve_what_plain_layers_of_sigmoids_do_not() -> None:
    found = first_solved("experiment=residual")
    assert (len(found), median(found)) == (10, pytest.approx(142, rel=0.1))


@pytest.mark.slow
def test_fifty_noisy_points_of_a_spiral_are_learned_by_heart_and_less_so_with_a_penalty() -> None:
    found = []
    for words in ("", " regulariser=[l2] regulariser.l2.kernel=0.003"):
        lasts = [ends(f"experiment=spiral{words}", seed) for seed in TEN]
        found += [mean(record[part] for record in lasts) for part in ("train/loss", "val/loss")]
    assert found == pytest.approx([0.189, 0.760, 0.257, 0.673], abs=0.03)


@pytest.mark.slow
def test_three_of_five_networks_come_to_098_on_the_spiral_without_noise() -> None:
    words = "experiment=spiral data.noise=0 data.val_fraction=0.4 data.draw=0 epochs=2000"
    came = [any(record["val/accuracy"] >= 0.98 for record in epochs(words, seed)) for seed in FIVE]
    assert sum(came) == pytest.approx(3, abs=1)
