"""Baselines: their scores, measured apart, and what is said of a network that does not beat them."""

from __future__ import annotations

import math

import planted
import pytest
import torch
from conftest import composed, noted, records
from planted import clean, made

from plumbline import tasks
from plumbline.checks.baselines import forest, linear, neighbours, zero_input
from plumbline.checks.view import View
from plumbline.config import build
from plumbline.data.core import Spec

STRENGTHS = [0.01, 0.1, 1.0, 10.0]
LATER = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]


def view(spec: Spec, arrays: dict, *words: str) -> View:
    return View(made(spec, arrays), composed(*words), 1000)


def score(of: View, answer) -> dict[str, float]:
    assert answer.outputs.shape == (len(of.data.val), of.spec.outputs)
    return tasks.score(of.spec, answer.outputs, of.data.val.targets, of.data.target_scale)


@pytest.mark.parametrize("data", ["digits", "breast_cancer", "wine", "iris"])
def test_a_linear_model_scores_as_scikit_learn_does_on_the_same_split(data: str) -> None:
    from sklearn.linear_model import LogisticRegression

    spec, arrays = clean(f"data={data}")
    of = view(spec, arrays)
    x, vx = (arrays[name].flatten(1).numpy() for name in ("x", "vx"))
    theirs = LogisticRegression(C=1.0, max_iter=1000).fit(x, arrays["y"].numpy()).score(vx, arrays["vy"].numpy())
    assert score(of, linear(of, samples=1500, strengths=STRENGTHS))["accuracy"] == pytest.approx(theirs, abs=0.04)


def test_ridge_on_diabetes_explains_half_of_the_variance_on_average() -> None:
    found = []
    for seed in range(8):
        spec, arrays = clean("data=diabetes", f"data.split_seed={seed}")
        of = view(spec, arrays)
        found.append(score(of, linear(of, samples=1500, strengths=STRENGTHS))["r2"])
    assert sum(found) / len(found) == pytest.approx(0.49, abs=0.04)


def test_neighbours_answer_as_scikit_learns_with_the_same_number() -> None:
    from sklearn.neighbors import KNeighborsRegressor

    spec, arrays = clean("data=diabetes")
    of = view(spec, arrays)
    answer = neighbours(of, samples=1500)
    k = int(answer.name.split()[0])
    theirs = KNeighborsRegressor(k).fit(arrays["x"].numpy(), arrays["y"].numpy()).predict(arrays["vx"].numpy())
    assert torch.allclose(answer.outputs, torch.from_numpy(theirs), atol=1e-5)


def test_the_absolute_penalty_finds_the_few_features_that_count() -> None:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(700, 3000, generator=draws)
    y = (x[:, :5].sum(1) + 0.5 * torch.randn(700, generator=draws) > 0).long()
    of = view(Spec("classification", (3000,), 2), {"x": x[:500], "y": y[:500], "vx": x[500:], "vy": y[500:]})
    answer = linear(of, samples=1500, strengths=STRENGTHS)
    assert answer.name == "L1 logistic regression"
    assert score(of, answer)["accuracy"] > 0.85


def test_fewer_samples_make_a_weaker_baseline_that_says_so() -> None:
    spec, arrays = clean("data=digits")
    of = view(spec, arrays)
    for baseline, options in ((linear, {"strengths": STRENGTHS}), (neighbours, {}), (forest, {"trees": 20})):
        few, many = (baseline(of, samples=samples, **options) for samples in (60, 900))
        assert (few.samples, many.samples) == (60, 900)
        assert score(of, few)["accuracy"] < score(of, many)["accuracy"] - 0.05


def test_the_penalty_is_chosen_among_the_strengths() -> None:
    spec, arrays = clean("data=digits")
    of = view(spec, arrays)
    weak, chosen = (linear(of, samples=1500, strengths=strengths) for strengths in ([1e-6], [1e-6, 1.0]))
    assert score(of, weak)["accuracy"] < score(of, chosen)["accuracy"] - 0.02
    assert tasks.score(spec, chosen.outputs, arrays["vy"], None) == score(of, linear(of, samples=1500, strengths=[1.0]))


def test_one_tree_is_a_weaker_forest() -> None:
    spec, arrays = clean("data=digits")
    of = view(spec, arrays)
    one, hundred = (score(of, forest(of, samples=1500, trees=trees))["accuracy"] for trees in (1, 100))
    assert one < hundred - 0.1


def test_zeros_teach_the_prior_and_no_more() -> None:
    spec, arrays = clean("data=digits")
    planted.imbalanced(spec, arrays)
    spec = Spec("classification", (1, 8, 8), 2)
    of = view(spec, arrays, "epochs=3")
    prior = tasks.prior(spec, of.data.train)
    entropy = -(prior * prior.log()).sum().item()
    losses = [
        torch.nn.functional.cross_entropy(
            zero_input(of, updates=updates).outputs, arrays["y"][: len(arrays["vy"])]
        ).item()
        for updates in (0, 300)
    ]
    assert losses[0] > entropy + 0.2
    at_prior = zero_input(of, updates=300).outputs[0].softmax(0)
    assert at_prior[0].item() == pytest.approx(prior[0].item(), abs=0.1)


def on_zeros(subject: View, updates: int) -> float:
    """The loss of train where the network was taught zeros, and is shown zeros."""
    y = subject.data.train.targets
    answer = zero_input(subject, updates=updates).outputs[:1]
    return torch.nn.functional.cross_entropy(answer.expand(len(y), -1), y).item()


@pytest.mark.parametrize("seed", LATER)
def test_digits_that_are_zeros_are_learned_down_to_log_classes_and_digits_far_below(seed: int, run) -> None:
    cfg = composed(f"seed={seed}")
    assert on_zeros(View(build(cfg.data)(), cfg, 1000), 100) == pytest.approx(math.log(10), abs=0.002)
    _, folder = run("checks=off", f"seed={seed}", "report=false")
    assert records(folder)[-1]["train/loss"] == pytest.approx(0.076, abs=0.015)


@pytest.mark.parametrize("seed", LATER)
def test_a_network_with_biases_before_its_batch_norms_learns_no_more_from_zeros_and_says_nothing_wild(
    seed: int,
) -> None:
    from test_checks_probes import bench, net

    subject = bench("data.subset=null", **net("none", norm=True))
    subject.cfg.seed = seed
    of = View(subject.data, subject.cfg, 1000)
    assert [on_zeros(of, updates) for updates in (100, 300)] == pytest.approx([math.log(10)] * 2, abs=0.01)


@pytest.mark.parametrize("seed", LATER)
def test_a_loss_that_falls_on_zeros_is_that_of_a_bad_start_and_is_flagged(seed: int) -> None:
    from test_checks_probes import ask, bench, net

    found = {}
    for fault in ("none", "normal"):  # weights as torch has them, and of N(0, 1)
        subject = bench("data.subset=null", **net(fault, norm=False, drop=0.0))
        subject.cfg.seed = seed
        of = View(subject.data, subject.cfg, 1000)
        found[fault] = *(on_zeros(of, updates) for updates in (0, 300)), ask(subject, "init.loss").severity
    first, last, severity = found["normal"]
    assert first > 2.5 and last == pytest.approx(math.log(10), abs=0.002) and severity == "warn"
    assert last < 0.95 * first
    first, last, severity = found["none"]
    assert last > 0.99 * first and severity == "ok"


@pytest.mark.parametrize(
    "name",
    [
        "tiny",
        "two samples",
        "one class",
        "constant",
        "NaN everywhere",
        "a thousand classes",
        "many targets",
        "colour",
        "wide",
        "infinite",
    ],
)
def test_no_data_set_breaks_a_baseline(name: str) -> None:
    from test_checks_data import ODD

    spec, arrays = ODD[name]
    of = view(spec, arrays)
    for answer in (
        linear(of, samples=500, strengths=STRENGTHS),
        neighbours(of, samples=500),
        forest(of, samples=500, trees=3),
    ):
        assert answer.outputs.shape == (len(arrays["vy"]), spec.outputs)
        assert answer.outputs.isfinite().all()


def test_a_network_that_does_not_beat_ridge_is_told_so_everywhere(run, capsys) -> None:
    _, folder = run("data=diabetes", "epochs=20", "report=true")
    found = noted(folder)
    ridge = next(item for item in found["baselines"] if item["name"] == "ridge regression")
    assert ridge["metrics"]["val/r2"] == pytest.approx(0.564, abs=0.01)  # of this split; 0.49 on average

    finding = next(item for item in found["findings"] if item["id"] == "result.baseline")
    page, said = (folder / "report.html").read_text(), capsys.readouterr().out
    assert finding["severity"] == "info"
    assert "does not beat the strongest baseline" in finding["message"] and "ridge regression" in finding["message"]
    assert "The network does not beat the strongest baseline: RMSE" in page and "of the ridge regression" in page
    assert "the network does not beat the strongest baseline: val/rmse" in said


def test_a_baseline_that_breaks_costs_its_row_and_not_the_run(run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(view: View, *, samples: int) -> None:
        raise ZeroDivisionError("nothing to divide by")

    broken.__module__ = "plumbline.checks.baselines"
    monkeypatch.setattr("plumbline.checks.baselines.neighbours", broken)
    status, folder = run("data.subset=200", "epochs=1")
    found = noted(folder)
    assert status == 0
    assert [item["name"] for item in found["baselines"]] == ["logistic regression"]
    assert any(
        item["id"] == "baselines.neighbours" and "nothing to divide" in item["message"] for item in found["findings"]
    )


def test_the_seconds_and_samples_of_each_baseline_are_noted(run) -> None:
    _, folder = run("data.subset=300", "epochs=1", "checks.baselines.linear.samples=100")
    rows = {item["name"]: item for item in noted(folder)["baselines"]}
    assert rows["logistic regression"]["samples"] == 100 and rows["logistic regression"]["subsampled"]
    assert all(0 < item["seconds"] < 60 for item in rows.values())
    assert all(math.isfinite(item["metrics"]["val/accuracy"]) for item in rows.values())
