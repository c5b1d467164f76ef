"""The experiments on data, models and regularisers give the numbers in their headers."""

from __future__ import annotations

import math
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from conftest import affordable, composed, noted, records

from plumbline.config import ConfigError, build, check_config
from plumbline.state import read

FASHION = Path("/usr/share/datasets/fashion-mnist")

# experiment and overrides -> metric of the last epoch -> from, to
NUMBERS: list[tuple[str, dict[str, tuple[float, float]]]] = [
    ("experiment=toy_regression", {"val/loss": (0.2, 0.45)}),
    ("experiment=toy_regression optimiser.lr=1", {"val/loss": (20, 1000)}),
    ("experiment=toy_regression optimiser.lr=0.001", {"val/loss": (1.0, 1.15), "val/r2": (-0.02, 0.02)}),
    ("experiment=gene_expression", {"train/accuracy": (1.0, 1.0), "val/accuracy": (0.55, 0.67)}),
    ("experiment=gene_expression model.activation=relu", {"train/accuracy": (1.0, 1.0), "val/accuracy": (0.55, 0.67)}),
    ("experiment=diabetes", {"val/r2": (0.54, 0.62)}),
    ("experiment=permuted", {"val/accuracy": (0.88, 0.96)}),
    ("experiment=permuted data=digits", {"val/accuracy": (0.97, 1.0)}),
    ("experiment=permuted model=mlp ~model.kernel", {"val/accuracy": (0.97, 0.99)}),
    ("experiment=permuted model=mlp ~model.kernel data=digits", {"val/accuracy": (0.97, 0.99)}),
]
SLOW: list[tuple[str, dict[str, tuple[float, float]]]] = [
    *(
        (f"experiment=by_heart seed={seed}", {"train/accuracy": (1, 1), "val/accuracy": (0.965, 0.98)})
        for seed in range(3)
    ),
    *(
        (
            f"experiment=by_heart regulariser=[dropout] regulariser.dropout.rate=0.5 seed={seed}",
            {"train/accuracy": (0.995, 0.9995), "val/accuracy": (0.96, 0.985)},
        )
        for seed in range(3)
    ),
    *(
        (
            f"experiment=more_data data.subset={samples} seed={seed}",
            {"val/accuracy": (expected - 0.02, expected + 0.02)},
        )
        for samples, expected in ((100, 0.863), (200, 0.932), (400, 0.978), (800, 0.977))
        for seed in range(3)
    ),
    ("experiment=fashion_layer", {"val/accuracy": (0.865, 0.89)}),
    ("experiment=fashion_layer model.hidden=[]", {"val/accuracy": (0.835, 0.865)}),
    ("experiment=fashion_convolution", {"val/accuracy": (0.874, 0.896)}),
    ("experiment=fashion_dropout", {"val/accuracy": (0.886, 0.906)}),
    ("experiment=fashion_dropout regulariser=[]", {"val/accuracy": (0.892, 0.912)}),
    ("experiment=fashion_augmentation", {"val/accuracy": (0.887, 0.907)}),
    (
        "experiment=fashion_augmentation regulariser=[dropout] regulariser.dropout.rate=0.2",
        {"val/accuracy": (0.872, 0.892)},
    ),
    (
        "experiment=fashion_convolution regulariser=[dropout] regulariser.dropout.rate=0.1",
        {"val/accuracy": (0.874, 0.896)},
    ),
]


@pytest.fixture
def ended(run, monkeypatch: pytest.MonkeyPatch):
    """`ended(words)` runs an experiment without its page; returns (exit status, the run's folder)."""
    monkeypatch.setattr("plumbline.run.write_report", lambda directory: None)
    monkeypatch.setattr("plumbline.run.figures", lambda directory: {})
    return lambda words: run(*words.split(), folder="run")


def outside(last: dict[str, Any], expected: dict[str, tuple[float, float]]) -> dict[str, float]:
    """The metrics that are not where they should be."""
    return {name: last[name] for name, (low, high) in expected.items() if not low <= last[name] <= high}


@pytest.mark.parametrize(("words", "expected"), NUMBERS, ids=[words for words, _ in NUMBERS])
def test_an_experiment_gives_its_numbers(words: str, expected: dict, ended) -> None:
    status, folder = ended(words)
    assert status == 0
    assert outside(records(folder)[-1], expected) == {}


@pytest.mark.slow
@pytest.mark.parametrize(("words", "expected"), SLOW, ids=[words for words, _ in SLOW])
def test_a_long_experiment_gives_its_numbers(words: str, expected: dict, ended) -> None:
    if "fashion" in words and not FASHION.is_dir():
        pytest.skip("needs Debian's dataset-fashion-mnist")
    status, folder = ended(words)
    assert status == 0
    assert outside(records(folder)[-1], expected) == {}


@pytest.mark.parametrize("rate", [100, 10])
def test_a_rate_that_is_too_high_diverges(rate: int, ended) -> None:
    status, folder = ended(f"experiment=toy_regression optimiser.lr={rate}")
    assert (status, noted(folder)["status"]) == (3, "diverged")


@pytest.mark.slow
def test_over_ten_draws_a_high_rate_diverges_a_middling_one_stalls_and_a_low_one_learns_the_mean(run) -> None:
    ends = {}
    for rate in (100, 10, 1, 0.2, 0.001):
        for seed in range(10):  # of the samples and of the run
            words = f"optimiser.lr={rate} seed={seed} data.draw={seed} report=false".split()
            _, folder = run("experiment=toy_regression", *words, folder=f"{rate}-{seed}")
            known, last = noted(folder), records(folder)[-1:]
            loss = last[0]["val/loss"] if known["status"] == "finished" else math.inf
            ends.setdefault(rate, []).append((loss, known["baseline"]["val/loss"], known["status"]))
    assert {status for rate in (100, 10) for *_, status in ends[rate]} == {"diverged"}
    losses = {rate: [loss for loss, *_ in ends[rate]] for rate in (1, 0.2, 0.001)}
    mean = [known for _, known, _ in ends[0.001]]
    assert median(losses[1]) == pytest.approx(165, rel=0.2) and min(losses[1]) > 50
    assert median(losses[0.2]) == pytest.approx(0.375, abs=0.05) and max(losses[0.2]) < 0.6
    assert median(losses[0.001]) == pytest.approx(1.042, abs=0.03)
    assert median(mean) == pytest.approx(1.042, abs=0.005)
    assert losses[0.001] == pytest.approx(mean, rel=0.06)  # of the mean of train, draw by draw


def test_logistic_regression_with_l1_is_better_on_the_genes_than_the_network() -> None:
    from sklearn.linear_model import LogisticRegression

    data = build(composed("experiment=gene_expression").data)()
    model = LogisticRegression(penalty="l1", solver="liblinear", C=0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of `penalty`, which a later release names otherwise
        score = model.fit(data.train.x, data.train.y).score(data.val.x, data.val.y)
    assert score == pytest.approx(0.83, abs=0.03)


def test_the_fast_experiment_goes_from_the_data_to_the_report_in_less_than_ten_seconds_of_a_core(run) -> None:
    began = time.process_time()
    status, folder = run("experiment=fast", "checks=quick", "report=true")
    assert time.process_time() - began < affordable(10)
    assert status == 0
    assert (folder / "report.html").stat().st_size > 10_000
    assert len(noted(folder)["findings"]) > 50
    assert 0.5 < records(folder)[-1]["val/accuracy"] < 0.85


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "expected"),
    [("breast_cancer", 0.978), ("iris", 0.958), ("digits", 0.965), ("wine", 0.972), ("diabetes", 0.503)],
)
def test_a_linear_model_is_hard_to_beat_on_the_small_data_sets(data: str, expected: float, run) -> None:
    words = ["experiment=linear_first", f"data={data}", "report=false"]
    lines = [records(run(*words, f"data.fold={fold}", folder=str(fold))[1])[-1] for fold in range(5)]
    found = [line["val/r2" if data == "diabetes" else "val/accuracy"] for line in lines]
    assert sum(found) / 5 == pytest.approx(expected, abs=0.008)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_wrong_targets_mislead_squared_error_and_neither_l1_nor_huber(seed: int, run) -> None:
    errors = [
        records(run("experiment=outliers", f"loss={loss}", f"seed={seed}", "report=false", folder=loss)[1])[-1][
            "val/mae"
        ]
        for loss in ("mse", "l1", "huber")
    ]
    assert errors == pytest.approx([56.5, 38.4, 38.6], abs=5)
    assert errors[0] > max(errors[1:]) + 10


def test_ridge_regression_is_as_good_on_diabetes_as_the_network() -> None:
    from sklearn.linear_model import Ridge

    data = build(composed("experiment=diabetes").data)()
    assert Ridge(1.0).fit(data.train.x, data.train.y).score(data.val.x, data.val.y) == pytest.approx(0.56, abs=0.02)


WEIGHTS = {  # experiment=sparse: share of the first layer's weights below 0.001, and their norm
    "kernel_l1=0.001": (0.54, 0.06, 6.9),
    "kernel_l2=0.001": (0.205, 0.03, 8.45),
    "kernel_l1=0": (0.005, 0.003, 12.95),
}
PENALISED = [
    pytest.param(strength, seed, marks=[pytest.mark.slow] if seed or strength != "kernel_l1=0.001" else [])
    for strength in WEIGHTS
    for seed in range(3)
]


@pytest.mark.parametrize(("strength", "seed"), PENALISED)
def test_l1_makes_weights_sparse_and_l2_makes_them_small(strength: str, seed: int, ended) -> None:
    key = "regulariser.elastic_net"
    _, folder = ended(f"experiment=sparse {key}.kernel_l1=0 {key}.{strength} seed={seed}")
    weight = read(folder / "last.pt")[0]["model"]["hidden.0.linear.weight"]
    share, within, norm = WEIGHTS[strength]
    assert (weight.abs() < 1e-3).float().mean().item() == pytest.approx(share, abs=within)
    assert weight.norm().item() == pytest.approx(norm, abs=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_penalty_of_activities_makes_units_silent_and_leaves_the_weights_alone(seed: int, run) -> None:
    found = []
    for strength in (0, 0.001):
        words = f"kernel_l1=0 activity_l1={strength} layers=[hidden.0]"
        words = [f"regulariser.elastic_net.{word}" for word in words.split()]
        folder = run("experiment=sparse", *words, f"seed={seed}", "report=false", folder=str(strength))[1]
        cfg = composed("experiment=sparse")
        data = build(cfg.data)()
        model = build(cfg.model)(data.spec)
        model.load_state_dict(read(folder / "best.pt")[0]["model"])
        hidden = model.hidden[0](data.val.x.flatten(1))
        silent = (hidden.abs() < 1e-3).float().mean().item()
        weights = (model.hidden[0].linear.weight.abs() < 1e-3).float().mean().item()
        found.append((silent, hidden.abs().sum(1).mean().item(), weights))
    assert found[0][0] == pytest.approx(0.21, abs=0.03) and found[1][0] == pytest.approx(0.34, abs=0.03)
    assert found[0][1] == pytest.approx(61, abs=5) and found[1][1] == pytest.approx(40, abs=4)
    assert max(found[0][2], found[1][2]) < 0.03


def test_a_run_that_waits_ends_early_with_the_weights_of_its_best_epoch(ended) -> None:
    _, folder = ended("experiment=early_stopping")
    run, lines = noted(folder), records(folder)
    assert len(lines) == run["best"]["epoch"] + 20 < 150
    assert run["best"]["epoch"] == pytest.approx(12, abs=4)
    assert (run["best"]["val/r2"], lines[-1]["val/r2"]) == pytest.approx((0.59, 0.51), abs=0.03)
    assert lines[-1]["train/loss"] < run["best"]["train/loss"]
    assert lines[-1]["val/loss"] > run["best"]["val/loss"]


def test_the_end_of_a_run_that_does_not_wait_is_far_below_its_best(ended) -> None:
    _, folder = ended("experiment=early_stopping patience=null")
    last = records(folder)[-1]
    assert (last["epoch"], noted(folder)["best"]["val/r2"]) == (150, pytest.approx(0.59, abs=0.03))
    assert last["val/r2"] == pytest.approx(0.25, abs=0.06)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "epoch", "losses"), [("", 13, (0.3135, 0.3789)), (" model.hidden=[]", 12, (0.4045, 0.4220))]
)
def test_a_network_on_fashion_mnist_is_at_its_best_long_before_its_end(words, epoch, losses, ended) -> None:
    if not FASHION.is_dir():
        pytest.skip("needs Debian's dataset-fashion-mnist")
    _, folder = ended(f"experiment=fashion_best_epoch{words}")
    best, last = noted(folder)["best"], records(folder)[-1]
    assert best["epoch"] == pytest.approx(epoch, abs=6)
    assert (best["val/loss"], last["val/loss"]) == pytest.approx(losses, abs=0.02)


def test_the_network_for_mnist_composes_and_has_the_weights_of_its_sizes() -> None:
    cfg = composed("experiment=mnist")  # experiment=mnist
    check_config(cfg)
    spec = build(cfg.data)().spec  # reads no file
    weights = sum(p.numel() for p in build(cfg.model)(spec).parameters())
    assert weights == (9 * 16 + 2 * 16) + (9 * 16 * 32 + 2 * 32) + (7 * 7 * 32 * 10 + 10)


@pytest.mark.slow
def test_a_small_network_reaches_099_on_mnist(ended) -> None:
    try:
        len(build(composed("experiment=mnist", "data.download=false").data)().train)
    except ConfigError as error:
        warnings.warn(f"experiment=mnist was NOT tried: {error}", stacklevel=1)
        pytest.skip(f"needs MNIST: {error}")
    _, folder = ended("experiment=mnist data.download=false")
    assert noted(folder)["best"]["val/accuracy"] == pytest.approx(0.99, abs=0.003)
