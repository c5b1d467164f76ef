"""What the checks read from curves: labelled ones, with noise over seeds, and curves of real runs."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from conftest import composed, noted, records
from omegaconf import OmegaConf

from plumbline import exits
from plumbline.checks import curve as reading
from plumbline.checks import inside, shape
from plumbline.checks.core import ALARMS, Finding
from plumbline.checks.curve import Curve
from plumbline.config import build

CHECKS = composed().checks.curve
BUILT = {name: build(node) for name, node in CHECKS.items()}
SEEDS = range(10)


def found(curve: Curve) -> dict[str, Finding]:
    """What each check of the curve says that is not ok, by name."""
    said = {name: check(curve) for name, check in BUILT.items()}
    return {name: finding for name, finding in said.items() if finding is not None and finding.severity != "ok"}


def alarms(curve: Curve) -> list[str]:
    return [name for name, finding in found(curve).items() if finding.severity in ALARMS]


def of(train=None, val=None, accuracy=None, uninformed: float | None = 2.3026, ended: bool = True, **more) -> Curve:
    """A curve of ours from arrays; the objective is the accuracy where there is one."""
    series = {"train/loss": train, "val/loss": val, "val/accuracy": accuracy, **more}
    series = {key.replace("__", "/"): values for key, values in series.items() if values is not None}
    length = max(map(len, series.values()))
    rows = [{"epoch": at + 1, **{key: float(values[at]) for key, values in series.items()}} for at in range(length)]
    key, direction = ("val/accuracy", "maximise") if accuracy is not None else ("val/loss", "minimise")
    return Curve(rows, key, direction, ended, uninformed)


def falling(epochs: int, start: float = 2.3, end: float = 0.3, speed: float = 6) -> np.ndarray:
    return end + (start - end) * np.exp(-speed * np.arange(1, epochs + 1) / epochs)


def noisy(seed: int, values: np.ndarray, sigma: float) -> np.ndarray:
    return values * (1 + sigma * np.random.default_rng(seed).normal(size=len(values)))


# --- honest curves ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.0, 0.01, 0.05])
@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 20, 200])
def test_an_honest_curve_raises_no_alarm(sigma: float, epochs: int) -> None:
    for seed in SEEDS:
        train, val = noisy(seed, falling(epochs), sigma), noisy(seed + 50, falling(epochs, end=0.4), sigma)
        assert alarms(of(train, val, 1 - val / 4, fit__loss=train * 1.2)) == []


def test_a_constant_gap_is_a_gap_and_no_overfitting() -> None:
    for seed in SEEDS:  # as of ResNet-34: training falls on, validation stays where it is
        train, val = noisy(seed, falling(60, end=0.2), 0.02), noisy(seed + 50, falling(60, end=0.8), 0.02)
        said = found(of(train, val))
        assert "gap" in said and "overfit" not in said
        assert said["gap"].severity == "info"


def test_a_change_of_optimiser_whose_bump_heals_is_no_alarm() -> None:
    for seed in SEEDS:  # Fashion-MNIST, Adam for 600 steps, then SGD: .364, 1.176, .439, .334
        before, after = falling(30, 2.3, 0.364), 0.334 + (1.176 - 0.334) * np.exp(-np.arange(30) / 3)
        values = noisy(seed, np.concatenate([before, after]), 0.03)
        assert alarms(of(values, values * 1.05)) == []
        for length in range(4, 60):  # nor while it trains
            assert alarms(of(values[:length], values[:length] * 1.05, ended=False)) == []


def test_a_score_that_stands_while_the_loss_falls_is_a_note() -> None:
    said = found(of(falling(30), falling(30, end=0.05, speed=4), np.minimum(0.999, np.arange(1, 31) / 10)))
    assert said["saturated"].severity == "info"


def test_a_training_loss_in_training_mode_is_told_of_others_logs_alone() -> None:
    val = falling(20)
    rows = [{"epoch": at, "fit/loss": 1.5 * loss, "val/loss": loss} for at, loss in enumerate(val)]
    assert found(Curve(rows, "val/loss", "minimise", True))["train_mode"].severity == "info"
    ours = [row | {"train/loss": row["val/loss"] * 0.9} for row in rows]
    assert "train_mode" not in found(Curve(ours, "val/loss", "minimise", True))


# --- ill ones --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.0, 0.02, 0.05])
def test_a_validation_loss_that_rises_is_overfitting(sigma: float) -> None:
    for seed in SEEDS:
        rise = np.concatenate([falling(15, end=0.9), 0.9 + 0.06 * np.arange(25)])
        said = found(of(noisy(seed, falling(40, end=0.01), sigma), noisy(seed + 50, rise, sigma)))
        assert said["overfit"].severity == "warn"
        assert 8 <= said["overfit"].evidence["lowest_at"] <= 20
        assert said["overfit"].advice[0].startswith("regularise:")
        assert said["overfit"].advice[-1].startswith("shrink")


def test_a_validation_loss_that_only_shakes_is_no_overfitting() -> None:
    for sigma in (0.005, 0.02, 0.05):
        told = [
            "overfit" in found(of(falling(epochs, end=0.1), noisy(seed, falling(epochs, end=0.8), sigma)))
            for epochs in (12, 40, 120)
            for seed in range(40)
        ]
        assert sum(told) <= 2  # of 120


def test_a_rise_is_told_through_noise() -> None:
    for seed in SEEDS:  # as Adam at a constant rate has it: .42 at the lowest, .45 at the end, each epoch .005 off
        val = 0.42 + 0.3 * np.exp(-np.arange(60) / 3) + 0.0006 * np.clip(np.arange(60) - 12, 0, None)
        assert found(of(falling(60, end=0.3), noisy(seed, val, 0.012)))["overfit"].severity == "info"


def test_a_small_rise_is_told_as_mild() -> None:
    for seed in SEEDS:  # Fashion-MNIST, softmax regression: best epoch 21 with .4410, last .4511
        at = np.arange(1, 41)
        val = 0.441 + 0.4 * np.exp(-at / 4) + 0.0101 / 19 * np.clip(at - 21, 0, None)
        said = found(of(noisy(seed, 0.38 + 0.4 * np.exp(-at / 4), 0.0005), noisy(seed + 50, val, 0.0005)))["overfit"]
        assert (said.severity, said.message[:4]) == ("info", "mild")
        assert 18 <= said.evidence["lowest_at"] <= 24


def test_a_loss_that_explodes_is_a_failure_already_while_it_trains() -> None:
    for seed in SEEDS:
        values = np.concatenate([falling(6, end=0.5), 0.5 * 3.0 ** np.arange(1, 7)])
        values = noisy(seed, values, 0.05)
        during = [length for length in range(1, 13) if "diverging" in alarms(of(values[:length], ended=False))]
        assert during and min(during) >= 9
        said = found(of(values, values))["diverging"]
        assert said.severity == "fail" and "learning rate" in said.advice[0]


def test_what_was_learned_and_lost_is_diverging() -> None:
    for seed in SEEDS:
        values = noisy(seed, np.concatenate([falling(10, end=0.3), np.full(10, 2.31)]), 0.01)
        assert "diverging" in alarms(of(values, values))


def test_a_loss_that_is_no_number_is_named_with_its_epoch() -> None:
    values = falling(10)
    values[6:] = np.nan
    for ended in (True, False):
        said = found(of(values, values, ended=ended))["nonfinite"]
        assert said.severity == "fail" and said.evidence["epoch"] == 7
        assert "tenth of the learning rate" in said.advice[0]
    assert "7" in said.message


def test_a_loss_without_a_floor_has_the_wrong_sign() -> None:
    for seed in SEEDS:
        values = noisy(seed, -(2.0 ** np.arange(1, 13)), 0.02)
        assert alarms(of(values, values, uninformed=-2.3)) == ["unbounded"]
    likelihood = -2.5 * (1 - np.exp(-np.arange(1, 21) / 4))
    assert alarms(of(likelihood, likelihood + 0.1, uninformed=1.4)) == []


def test_a_loss_that_never_moves_is_not_learning() -> None:
    for seed in SEEDS:
        flat = noisy(seed, np.full(12, 2.3026), 0.001)
        assert "not_learning" in alarms(of(flat, flat))
        foreign = found(of(flat, flat, uninformed=None))["not_learning"]
        assert "ln 10" in foreign.message


def test_a_loss_that_falls_but_does_not_come_far_is_too_slow() -> None:
    for seed in SEEDS:
        said = found(of(noisy(seed, np.linspace(4, 2.6, 20), 0.001), uninformed=2.3))["not_learning"]
        assert said.message.startswith("too slow") and said.advice[0].startswith("a higher learning rate")


def test_a_log_that_begins_after_the_learning_is_in_peace() -> None:
    flat = np.full(12, 0.05)
    assert alarms(of(flat, flat, np.full(12, 0.98), uninformed=None)) == []


def test_leaps_again_and_again_are_unstable() -> None:
    for seed in SEEDS:
        values = noisy(seed, falling(30, end=0.5), 0.02)
        values[[8, 14, 19, 25]] += 1.0
        assert "unstable" in alarms(of(values, values))
        values[[14, 19, 25]] -= 1.0
        assert "unstable" not in alarms(of(values, values))


def test_a_poor_training_loss_without_a_gap_is_underfitting() -> None:
    for seed in SEEDS:
        train = noisy(seed, falling(20, end=1.6), 0.01)
        said = found(of(train, train * 1.02))["underfit"]
        steps = [step for step in said.advice if "deeper" in step or "train longer" in step]
        assert said.severity == "info" and steps[0] == "train longer" and "before a wider" in steps[1]


def test_a_plateau_on_the_way_is_named_from_where_to_where() -> None:
    values = np.concatenate([falling(10, end=1.5, speed=20), np.full(20, 1.5), 1.5 - 0.13 * np.arange(1, 11)])
    said = found(of(values, values))["plateau"]
    assert abs(said.evidence["from"] - 4) <= 4 and abs(said.evidence["to"] - 30) <= 1
    assert "falls again" in said.message


def test_a_plateau_is_named_though_the_curve_stands_longer_where_it_is_done() -> None:
    values = np.concatenate([falling(10, end=1.5, speed=20), np.full(30, 1.5), np.full(50, 0.01)])
    said = found(of(values, values))["plateau"]
    assert 30 <= said.evidence["to"] <= 40


def dropping(seed: int, levels: list[float], rates: list[float], length: int = 12) -> Curve:
    """A loss that comes to each level within a few epochs and stands there, shaking by 2 %, each at a rate of its own."""
    values = [1.0]
    for to in levels:
        values += (to + (values[-1] - to) * np.exp(-2 * np.arange(1, length + 1))).tolist()
    return of(noisy(seed, np.array(values[1:]), 0.02), lr=np.repeat(rates, length))


def test_a_plateau_and_then_a_drop_at_each_fall_of_the_rate_is_well_and_a_fall_that_brings_nothing_is_told() -> None:
    check, rates = BUILT["drops"], [1, 0.1, 0.01, 0.001]
    for seed in SEEDS:  # three drops by ten, as of a ResNet
        said = check(dropping(seed, [0.6, 0.4, 0.3, 0.2], rates))
        assert (said.severity, said.message.count("a plateau, then a drop")) == ("ok", 3), said.message
        assert said.evidence["at"] == [13, 25, 37] and said.evidence["rates"] == rates[1:]
        said = check(dropping(seed, [0.6, 0.4, 0.4, 0.2], rates))
        assert (said.severity, said.evidence["gained"]) == ("info", [True, False, True]), said.message
        assert "epoch 25: nothing (" in said.message and said.message.count("; epoch") == 2
        early = of(noisy(seed, 0.9 ** np.arange(24), 0.01), lr=np.repeat([1, 0.5], 12))
        assert check(early).message.count("it fell before, too") == 1


def test_a_rate_that_glides_or_stays_or_rises_has_no_falls() -> None:
    loss, part = falling(40), np.arange(40) / 40
    for rate in (
        np.ones(40),
        1 - part,
        (1 + np.cos(np.pi * part)) / 2,
        0.5**part,
        np.repeat([0.1, 1], 20),
        0.5 ** np.arange(40),
    ):
        assert BUILT["drops"](of(loss, lr=rate)) is None
    assert BUILT["drops"](of(loss)) is None
    assert BUILT["drops"](of(loss, lr=np.repeat([1, 0.1], 20), ended=False)) is None


def test_an_early_best_and_a_late_best_are_told() -> None:
    late = found(of(falling(20, speed=2), falling(20, speed=2)))
    assert "improving" in late and "early_best" not in late
    early = found(of(falling(30), np.linspace(0.5, 0.6, 30)))
    assert early["early_best"].evidence["best_at"] == 1 and "improving" not in early


@pytest.mark.parametrize("epochs", [20, 40])
@pytest.mark.parametrize(
    ("share", "said"), [(0.05, "early_best"), (0.3, ""), (0.7, ""), (0.8, "improving"), (1.0, "improving")]
)
def test_a_best_in_the_last_quarter_asks_for_more_epochs_and_one_in_the_first_tenth_for_fewer(
    share, said, epochs
) -> None:
    best = round(share * epochs)
    losses = np.concatenate([np.linspace(2.0, 0.5, best + 1)[1:], np.linspace(0.5, 0.9, epochs - best + 1)[1:]])
    told = found(of(falling(epochs), losses))
    assert {name for name in ("early_best", "improving") if name in told} == ({said} if said else set())
    if said:
        assert told[said].evidence["best_at"] == best
        assert ("train longer" in told[said].advice) is (said == "improving")


def test_late_jitter_is_told_and_a_settled_curve_is_not() -> None:
    for seed in SEEDS:
        shaking = falling(60) + 0.1 * np.random.default_rng(seed).normal(size=60)
        assert "jitter" in found(of(shaking, shaking))
        assert "jitter" not in found(of(noisy(seed, falling(60), 0.005), falling(60)))


# --- inside ----------------------------------------------------------------------------------------------------------


def test_a_rate_that_dies_early_is_named_and_schedules_are_not() -> None:
    loss = falling(40)
    rate = {
        "killed": 0.1 * 0.5 ** np.arange(40), "cosine": 0.1 * (1 + np.cos(np.pi * np.arange(1, 41) / 40)) / 2,
        "three drops": 0.1 * np.repeat([1, 0.1, 0.01, 0.001], 10), "constant": np.full(40, 0.1),
        "one cycle": 0.1 * np.interp(np.arange(40), [0, 12, 39], [0.04, 1, 1e-4]),
    }  # fmt: skip
    said = {name: "lr_collapsed" in alarms(of(loss, loss, lr=values)) for name, values in rate.items()}
    assert said == {name: name == "killed" for name in rate}
    assert not found(of(loss, loss, lr=rate["killed"]))["lr_collapsed"].symptom


def test_a_gradient_that_vanishes_on_its_way_is_named() -> None:
    layers = {f"grad_norm__{k}": np.full(10, 10.0 ** (-k)) for k in (5, 4, 3, 2, 1, 0)}
    assert "vanishing" in alarms(of(falling(10), falling(10), **layers))
    even = {f"grad_norm__{k}": np.full(10, 1 + k) for k in range(6)}
    assert alarms(of(falling(10), falling(10), **even)) == []


def test_seven_sigmoids_in_training_are_told_with_what_reaches_the_first(run) -> None:
    _, folder = run("model.hidden=[64,64,64,64,64,64,64]", "model.activation=sigmoid", "epochs=2")
    (found,) = (finding for finding in noted(folder)["findings"] if finding["id"] == "curve.vanishing")
    assert found["severity"] == "warn"
    assert 1e-7 < found["evidence"]["first"] / found["evidence"]["last"] < 1e-4


def test_a_gradient_that_grows_where_nothing_is_learned_explodes() -> None:
    norms = {"fit__grad_norm": 3.0 ** np.arange(12)}
    assert "exploding" in alarms(of(np.full(12, 2.3), np.full(12, 2.3), **norms))
    assert alarms(of(falling(12), falling(12), **norms)) == []


@pytest.mark.parametrize(("ratio", "cause"), [(1e-7, "too low"), (1.0, "too high"), (0.0, "no gradient arrives")])
def test_updates_of_the_wrong_size_are_named_where_nothing_is_learned(ratio: float, cause: str) -> None:
    updates = {"update_ratio__a": np.full(10, ratio), "update_ratio__b": np.full(10, ratio)}
    assert cause in found(of(np.full(10, 2.3), np.full(10, 2.3), **updates))["updates"].cause
    assert "updates" not in found(of(falling(10), falling(10), **updates))


# --- any log at all --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows",
    [
        [], [{}], [{"epoch": 1}], [{"val/loss": None}], [{"fit/loss": float("inf")}] * 5, [{"val/loss": 0.0}] * 12,
        [{"epoch": 1, "train/loss": 1.0}, {"epoch": 2, "val/loss": 1.0}] * 6, [{"lr": 0.0}] * 9,
        [{"val/loss": -1.0, "train/loss": -2.0}] * 12, [{"grad_norm/a": None, "update_ratio/a": None}] * 12,
        [{"train/loss": 1e300, "val/loss": 1e300}] * 9, [{"train/loss": 0.0, "val/loss": 5e-324, "val/accuracy": 1.0}] * 12,
    ],
)  # fmt: skip
@pytest.mark.parametrize("objective", ["val/loss", "val/accuracy"])
def test_no_check_breaks_on_what_a_log_lacks(rows: list[dict], objective: str) -> None:
    for ended in (True, False):
        for uninformed in (None, 0.0, 2.3, float("nan")):
            with np.errstate(all="raise", under="ignore"):
                found(Curve(rows, objective, "maximise", ended, uninformed))


def test_while_it_trains_only_what_is_unambiguous_is_said() -> None:
    rise = np.concatenate([falling(15, end=0.9), 0.9 + 0.06 * np.arange(25)])
    assert found(of(falling(40), rise, ended=True)) != {}
    for length in range(1, 41):
        assert found(of(falling(40)[:length], rise[:length], ended=False)) == {}


# --- real runs -------------------------------------------------------------------------------------------------------


def test_a_diverged_run_has_its_finding_in_the_record(run) -> None:
    status, folder = run(
        "data.subset=200", "epochs=3", "optimiser=sgd", "optimiser.lr=1e6", "checks.mute=[init,lr,overfit,step]"
    )
    said = {item["id"]: item for item in noted(folder)["findings"]}
    assert status == exits.DIVERGED
    assert said["curve.nonfinite"]["severity"] == "fail"
    assert "epoch 1, step" in said["curve.nonfinite"]["message"]


def test_a_curve_that_diverges_ends_the_run_that_was_asked_to_stop(run) -> None:
    words = ["data=diabetes", "epochs=30", "optimiser=sgd", "optimiser.lr=0.12", "optimiser.momentum=0.99", "schedule=constant",
             "checks.curve.diverging.times=0.5", "checks.mute=[data,init,step,lr,overfit]"]  # fmt: skip
    status, folder = run(*words, "checks.stop_on=fail", folder="stopped")
    found = noted(folder)
    assert (status, found["status"]) == (exits.CHECK_FAILED, "failed")
    assert 3 < len(records(folder)) < 30
    assert found["error"].startswith("curve.diverging: the training loss is ")
    assert run(*words, folder="goes on")[0] == exits.DONE


def test_honest_small_runs_raise_no_alarm(run) -> None:
    for words in (["data=iris"], ["data=wine", "epochs=40"], ["optimiser=sgd", "optimiser.lr=0.1"]):
        _, folder = run(
            *words, "checks.mute=[data,init,step,lr,overfit,augment,reg]", folder=words[0] + str(len(words))
        )
        assert [item["message"] for item in noted(folder)["findings"] if item["severity"] in ALARMS] == []


# --- thresholds ------------------------------------------------------------------------------------------------------

RISING = of(falling(40, end=0.01), np.concatenate([falling(15, end=0.9), 0.9 + 0.06 * np.arange(25)]))
SHAKEN = of(falling(40, end=0.01), noisy(0, np.array([row["val/loss"] for row in RISING.records]), 0.01))
LEAPS = falling(30, end=0.5)
LEAPS[[8, 14, 19, 25]] += 1.0
FLAT = np.concatenate([falling(10, end=1.5, speed=20), np.full(20, 1.5), 1.5 - 0.13 * np.arange(1, 11)])
TINY = of(np.full(10, 2.3), np.full(10, 2.3), update_ratio__a=np.full(10, 1e-7))
HUGE = of(np.full(10, 2.3), np.full(10, 2.3), update_ratio__a=np.full(10, 1.0))
SPENT = of(falling(40), falling(40), lr=0.1 * 0.5 ** np.arange(40))
BURST = of(np.full(12, 2.3), np.full(12, 2.3), fit__grad_norm=3.0 ** np.arange(12))
BLOWN = of(np.concatenate([falling(6, end=0.5), [1, 5, 20, 30, 40]]), ended=False)
FADED = of(np.concatenate([falling(10, end=0.3), np.full(10, 2.0)]))
LATE = of(np.full(9, 0.05), np.full(9, 0.06), np.full(9, 0.99), uninformed=None)
CRAWLS = of(np.linspace(9, 3, 12))
POOR = of(falling(20, end=1.6), falling(20, end=1.6))
SHAKY = falling(60) + 0.1 * np.random.default_rng(0).normal(size=60)
STILL = of(falling(30), falling(30, end=0.05, speed=4), np.minimum(0.999, np.arange(1, 31) / 10))
FOREIGN = Curve(
    [{"epoch": k, "fit/loss": 1.5 * v, "val/loss": v} for k, v in enumerate(falling(20))], "val/loss", "minimise", True
)

MOVED = [  # the check, its threshold, another value, a curve of which it then says something else
    ("unbounded", "times", 1e9, of(-(2.0 ** np.arange(1, 13)))),
    ("unbounded", "slower", 1e9, of(-(2.0 ** np.arange(1, 13)))),
    ("lr_collapsed", "below", 1e-13, SPENT), ("lr_collapsed", "before", 0.1, SPENT),
    ("updates", "small", 1e-9, TINY), ("updates", "large", 10, HUGE), ("updates", "learned_less", -1, HUGE),
    ("vanishing", "ratio", 1e-6, of(**{f"grad_norm__{k}": np.full(10, 10.0**-k) for k in (5, 4, 0)})),
    ("diverging", "times", 100, BLOWN), ("diverging", "last", 5, BLOWN), ("diverging", "lost", 0.95, FADED),
    ("diverging", "above", 10, FADED), ("diverging", "learned", 0.95, FADED),
    ("exploding", "times", 1e9, BURST), ("exploding", "learned_less", -1, BURST),
    ("not_learning", "share", 1e-4, of(np.full(9, 2.29))),
    ("not_learning", "known", 1.1, LATE), ("not_learning", "steady", 1.0, CRAWLS),
    ("unstable", "share", 0.9, of(LEAPS)), ("unstable", "least", 5, of(LEAPS)), ("unstable", "often", 0.2, of(LEAPS)),
    ("overfit", "sigmas", 1e3, SHAKEN), ("overfit", "least", 10, RISING), ("overfit", "grave", 10, RISING),
    ("underfit", "share", 0.9, POOR), ("underfit", "gap", -0.1, POOR),
    ("plateau", "share", 1e-6, of(noisy(0, FLAT, 1e-4))), ("plateau", "stretch", 0.9, of(FLAT)),
    ("plateau", "left", 0.9, of(FLAT)),
    ("drops", "factor", 0.05, dropping(0, [0.6, 0.4], [1, 0.1])), ("drops", "gain", 0.5, dropping(0, [0.6, 0.4], [1, 0.1])),
    ("early_best", "share", 0.02, of(falling(50), np.r_[0.6, 0.5, np.linspace(0.51, 0.6, 48)])),
    ("gap", "share", 0.9, of(falling(20, end=0.2), falling(20, end=0.8))),
    ("improving", "share", 0.5, of(falling(10), np.abs(np.arange(10) - 5.0))),
    ("jitter", "share", 0.5, of(SHAKY)),
    ("saturated", "within", -1, STILL), ("saturated", "fell", 10, STILL), ("saturated", "sigmas", 1e9, STILL),
    ("train_mode", "share", 1.1, FOREIGN),
]  # fmt: skip


@pytest.mark.parametrize(("name", "key", "value", "curve"), MOVED, ids=[f"{name}.{key}" for name, key, *_ in MOVED])
def test_another_threshold_gives_another_finding(name: str, key: str, value: float, curve: Curve) -> None:
    usual = OmegaConf.to_container(CHECKS[name])
    check = next(getattr(module, name) for module in (inside, shape, reading) if hasattr(module, name))
    usual.pop("_target_")

    def said(**thresholds: float) -> tuple[str, str] | None:
        finding = partial(check, **thresholds)(curve)
        return None if finding is None else (finding.severity, finding.message)

    assert said(**usual) != said(**usual | {key: value})
