"""Schedules: ends, peaks, drops, and the same answer twice."""

import math
import statistics
from pathlib import Path

import pytest
import torch
from conftest import noted, records
from hydra import compose, initialize_config_dir

from plumbline.config import ConfigError, build, check_node
from plumbline.schedules import constant, cosine, cosine_restarts, linear, multistep, one_cycle, plateau

CONF = Path(__file__).parents[1] / "conf"
OPTIONS = sorted(path.stem for path in (CONF / "schedule").glob("[!_]*.yaml"))
GRID = [i / 400 for i in range(401)]
PLATEAU = {"factor": 0.5, "patience": 2, "threshold": 0.01, "floor": 1e-3}


def option(name, **changes):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(f"schedule/{name}", [f"schedule.{key}={value}" for key, value in changes.items()]).schedule


def curve(schedule, **values):
    return [schedule(progress, [], **values) for progress in GRID]


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_lies_in_the_half_open_unit_interval_and_is_pure(name):
    node = option(name)
    check_node("schedule", node, ["plumbline"])
    schedule, scores = build(node), [3.0, 2.0, 2.5] * 20
    first = [schedule(progress, scores) for progress in GRID]
    assert all(0 < multiplier <= 1 for multiplier in first)
    assert [schedule(progress, scores) for progress in reversed(GRID)] == first[::-1]
    assert scores == [3.0, 2.0, 2.5] * 20


@pytest.mark.parametrize("name", OPTIONS)
def test_a_warm_up_rises_and_then_leaves_the_schedule_to_itself(name):
    warm, plain = build(option(name, warmup=0.2)), build(option(name))
    rising = [warm(progress, []) for progress in GRID if progress <= 0.2]
    assert rising == sorted(rising)
    assert 0 < rising[0] <= 1e-3
    assert max(warm(progress, []) for progress in GRID) > 0.999
    assert warm(1.0, []) == pytest.approx(plain(1.0, []))


def test_a_warm_up_is_linear():
    assert constant(0.05, [], warmup=0.2) == pytest.approx(0.25)
    assert constant(0.1, [], warmup=0.2) == pytest.approx(0.5)
    assert constant(0.2, [], warmup=0.2) == 1


def test_the_cosine_is_1_then_its_middle_then_its_floor():
    values = [cosine(progress, [], warmup=0.0, floor=0.1) for progress in (0.0, 0.5, 1.0)]
    assert values == pytest.approx([1, 0.55, 0.1])
    assert cosine(0.6, [], warmup=0.2, floor=0.1) == pytest.approx(0.55)
    assert [build(option("cosine"))(progress, []) for progress in (0.0, 0.5, 1.0)] == pytest.approx([1, 0.55, 0.1])


def test_linear_is_a_straight_line_to_its_floor():
    assert [linear(p, [], warmup=0.0, floor=0.2) for p in (0, 0.25, 1)] == pytest.approx([1, 0.8, 0.2])


@pytest.mark.parametrize(
    ("growth", "cycles", "peaks"), [("add", 5, [0, 1, 3, 6, 10, 15]), ("double", 5, [0, 1, 3, 7, 15, 31])]
)
def test_restarts_peak_exactly_where_a_cycle_begins(growth, cycles, peaks):
    values, (*peaks, epochs) = {"warmup": 0.0, "cycles": cycles, "growth": growth, "floor": 0.1}, peaks
    assert [k for k in range(epochs) if cosine_restarts(k / epochs, [], **values) == 1] == peaks
    for end in [*peaks[1:], epochs]:
        assert cosine_restarts(end / epochs - 1e-6, [], **values) == pytest.approx(0.1, abs=1e-6)
    assert cosine_restarts(1.0, [], **values) == pytest.approx(0.1)


def test_restarts_peak_at_epochs_whatever_the_number_of_steps():
    for cycles in range(1, 12):
        epochs = cycles * (cycles + 1) // 2
        for steps in (1, 3, 7, 94):
            values = [
                cosine_restarts((epoch + 0 / steps) / epochs, [], warmup=0.0, cycles=cycles, growth="add", floor=0.1)
                for epoch in range(epochs)
            ]
            assert values.count(1.0) == cycles


def test_multistep_drops_at_its_milestones():
    values = {"warmup": 0.0, "milestones": [0.3, 0.6, 0.9], "factor": 0.1}
    assert [multistep(p, [], **values) for p in (0, 0.29, 0.3, 0.6, 0.9, 1)] == pytest.approx(
        [1, 1, 0.1, 0.01, 0.001, 0.001]
    )
    assert multistep(300 / 1000, [], **values) == pytest.approx(0.1)
    assert set(curve(multistep, warmup=0.0, milestones=[], factor=0.1)) == {1.0}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_where_a_high_rate_shakes_a_tenfold_drop_lowers_the_loss_at_once_and_each_later_one_by_less(seed, run):
    words = [
        "optimiser=sgd",
        "optimiser.lr=0.3",
        "batch_size=8",
        "epochs=12",
        f"seed={seed}",
        "report=false",
        "checks=quick",
    ]
    _, folder = run(*words, "schedule=multistep", "schedule.milestones=[0.5,0.67,0.84]")
    lines = records(folder)
    rates = [line["lr"] for line in lines]
    assert rates == pytest.approx([0.3] * 6 + [0.03] * 2 + [0.003] * 2 + [0.0003] * 2)
    train, val = ([line[f"{part}/loss"] for line in lines] for part in ("train", "val"))
    assert val[6] < 0.9 * statistics.fmean(val[3:6]) and train[6] < 0.5 * statistics.fmean(train[3:6])
    assert train[5] > train[7] > train[9] > train[11]
    assert train[5] - train[7] > train[7] - train[9] > train[9] - train[11]
    said = next(line for line in noted(folder)["findings"] if line["id"] == "curve.drops")
    assert said["evidence"]["at"] == [7, 9, 11] and said["evidence"]["gained"] == [True, True, False], said["message"]


def test_one_cycle_peaks_where_it_is_told():
    values = {"warmup": 0.0, "peak_at": 0.25, "start": 0.04, "floor": 0.001}
    multipliers = curve(one_cycle, **values)
    assert GRID[multipliers.index(max(multipliers))] == 0.25
    assert multipliers[100] == 1
    assert (multipliers[0], multipliers[-1]) == pytest.approx((0.04, 0.001))
    assert multipliers[:101] == sorted(multipliers[:101])
    assert multipliers[100:] == sorted(multipliers[100:], reverse=True)


@pytest.mark.parametrize("seed", range(20))
def test_plateau_equals_torchs_on_random_histories(seed):
    generator = torch.Generator().manual_seed(seed)
    scores = (1 + torch.randn(60, generator=generator) * 0.3 + 2 * torch.linspace(1, 0, 60) ** 2).tolist()
    if seed == 7:
        scores[10] = math.nan
    if seed == 8:
        scores = [score - 2 for score in scores]
    patience = seed % 5
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, factor=0.5, patience=patience, threshold=0.01, min_lr=1e-3, eps=0
    )
    for epoch, score in enumerate(scores):
        theirs.step(score)
        ours = plateau(0.5, scores[: epoch + 1], warmup=0.0, **{**PLATEAU, "patience": patience})
        assert ours == optimiser.param_groups[0]["lr"]
    assert ours < 1


def test_a_peak_inside_the_warm_up_is_refused():
    for progress in (0.0, 0.5, 1.0):
        with pytest.raises(ConfigError, match=r"schedule\.peak_at=0.3: must be"):
            one_cycle(progress, [], warmup=0.5, peak_at=0.3, start=0.1, floor=0.1)
