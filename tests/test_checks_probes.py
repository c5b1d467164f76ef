"""Probes: each fault is named by its check, honest programs are left in peace, each threshold moves its finding."""

from __future__ import annotations

import statistics
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import composed, first_of_each, one_in
from omegaconf import OmegaConf

from plumbline.checks.bench import Bench, Copy
from plumbline.checks.core import ALARMS, Finding, configured, ranked, untouched
from plumbline.checks.outputs import evaluating, spread
from plumbline.checks.overfit import few
from plumbline.checks.rate import Sweep
from plumbline.checks.signals import saturation
from plumbline.config import build
from plumbline.data.core import Data, Spec, Split, Splits

checks = cache(lambda: composed("checks=full").checks)
configuration = cache(lambda *words: composed("data.subset=400", *words))
data = cache(lambda *words: build(configuration(*words).data)())


def bench(*words: str, **parts: dict[str, Any]) -> Bench:
    """A bench for a command line, with components of one's own in place of some of its."""
    cfg = configuration(*words).copy()
    OmegaConf.set_struct(cfg, False)
    for name, node in parts.items():
        cfg[name] = {"ruined": node} if name == "augment" else node
    cfg.allow = [*cfg.allow, "programs"]
    return Bench(cfg, data(*(word for word in words if word.startswith("data"))), torch.device("cpu"))


def net(fault: str, norm: bool = True, drop: float = 0.2, hidden: tuple[int, ...] = (64, 32)) -> dict[str, Any]:
    return {"model": {"_target_": "programs.Net", "fault": fault, "norm": norm, "drop": drop, "hidden": list(hidden)}}


def loss(fault: str) -> dict[str, Any]:
    return {"loss": {"_target_": "programs.OwnLoss", "fault": fault}}


def step(fault: str) -> dict[str, Any]:
    return {"step": {"_target_": "programs.own_step", "fault": fault}}


def own(group: str, name: str, **keys: Any) -> dict[str, Any]:
    return {group: {"_target_": f"programs.{name}", **keys}}


def ask(subject: Bench, name: str, **thresholds: Any) -> Finding | None:
    family, _, check = name.partition(".")
    node = OmegaConf.to_container(checks()[family][check]) | thresholds
    with untouched():
        return build(OmegaConf.create(node))(subject)


def alarms(subject: Bench) -> list[dict[str, Any]]:
    """What the quick probes find wrong, headline first; a symptom that takes long is asked for where there is no cause."""
    found = []
    for name, node in configured(subject.cfg.checks, "probes"):
        if name == "overfit.batch" and any(not item["symptom"] for item in found):
            continue
        with untouched():
            finding = build(node)(subject)
        if finding is not None and finding.severity in ALARMS:
            found.append({"id": name, **vars(finding)})
    return ranked(found)


SGD = ("optimiser=sgd",)
TABLE = ("data=diabetes", "data.subset=null")
FAULTS: list[tuple[str, tuple[str, ...], dict[str, Any]]] = [  # the headline, the command line, what is of one's own
    ("init.outputs_are_probabilities", (), net("softmax")),
    ("init.outputs_are_probabilities", (), net("softmax_over_batch")),
    ("init.output_activation", (), net("relu")),
    ("init.output_activation", (), net("tanh")),
    ("init.output_activation", TABLE, net("relu")),
    ("init.output_activation", TABLE, net("tanh")),
    ("init.batch_mixing", (), net("reshaped")),
    ("init.batch_mixing", (), net("normalised_over_batch")),
    ("init.nondeterministic", (), net("always_dropping")),
    ("init.nondeterministic", (), net("deaf", norm=False)),
    ("init.detached", (), net("detached")),
    ("init.inputs_unused", (), net("half_blind")),
    ("init.inputs_unused", TABLE, net("half_blind")),
    ("init.dropout_on_outputs", (), net("dropped_outputs")),
    ("init.loss", (), loss("without_logarithm")),
    ("step.reseeds", (), net("none") | step("reseeded")),
    ("step.reseeds", TABLE, net("none") | step("reseeded_generator")),
    ("init.symmetric", (), net("zeros")),
    ("init.symmetric", TABLE, net("equal", norm=False, drop=0.0)),
    ("init.dead_units", (), net("dead")),
    ("init.saturated", (), net("tanh_between", norm=False)),
    ("init.linear", (), net("linear")),
    ("init.gradient_ratio", (), net("deep_sigmoid", norm=False, drop=0.0, hidden=(64,) * 7)),
    ("init.activation_scale", (), net("normal", norm=False)),
    ("init.loss", (), net("normal")),
    ("init.constant_output", (), net("blind")),
    ("init.dropout_too_high", (), net("none", drop=0.95)),
    ("init.frozen", (), net("frozen")),
    ("init.batch_norm_too_small", ("batch_size=2",), net("none")),
    ("init.reproducible", (), net("unseeded")),
    ("init.shape_broadcast", TABLE, loss("broadcast")),
    ("init.shape_broadcast", TABLE, loss("one_target")),
    ("init.shape_broadcast", TABLE, loss("summed_target")),
    ("init.loss_scale", (), loss("sum")),
    ("step.targets_paired", TABLE, step("broadcast")),
    ("step.no_update", (), step("cleared_late")),
    ("step.no_update", (), step("never_stepped")),
    ("step.batches_ignored", (), step("own_batch")),
    ("step.batches_ignored", (), step("part_of_batch")),
    ("step.ascent", (), step("uphill")),
    ("step.ascent", (), loss("upside_down")),
    ("step.ascent", TABLE, step("uphill")),
    ("step.grad_accumulates", (), step("never_cleared")),
    ("step.grad_accumulates", TABLE, step("never_cleared")),
    ("step.params_not_optimised", (), net("none") | step("head_only")),
    ("step.params_not_optimised", (), net("none") | own("optimiser", "head_only", lr=0.001)),
    ("step.params_without_gradient", (), net("none") | step("half_detached")),
    ("step.train_mode", (), net("none") | step("evaluating")),
    ("step.train_mode", (), net("none") | step("left_evaluating")),
    ("step.train_mode", (), net("still")),
    ("step.momentum", ("optimiser=sgd", "optimiser.momentum=0.999"), {}),
    ("step.momentum", ("optimiser=adam", "optimiser.betas=[0.999,0.999]"), {}),
    ("step.eps", ("optimiser=adam", "optimiser.eps=1.0"), {}),
    ("step.eps", ("optimiser=adamw", "optimiser.eps=0.1"), {}),
    ("schedule.few_updates", ("epochs=3", "batch_size=400"), {}),
    ("schedule.average", ("epochs=2", "ema=0.999"), {}),
    ("reg.labels", ("regulariser=[label_smoothing]", "regulariser.label_smoothing.smoothing=0.95"), {}),
    ("init.class_ignored", (), loss("first_only")),
    ("step.task_loss", ("loss=mse",), {}),
    ("step.task_loss", (), loss("squares")),
    ("step.task_loss", (), loss("absolute")),
    ("step.loss_scale", (), step("sum")),
    ("step.loss_clipped", (), step("clipped_loss")),
    ("step.loss_clipped", (), loss("each_clipped")),
    ("step.loss_clipped", TABLE, loss("each_clipped")),
    ("schedule.collapses", (), own("schedule", "per_batch")),
    ("schedule.warm_up", (), own("schedule", "endless")),
    ("augment.repeats", (), own("augment", "ruined", fault="the_same_always")),
    ("augment.destroys", (), own("augment", "ruined", fault="permuted")),
    ("augment.destroys", (), own("augment", "ruined", fault="noise")),
    ("augment.destroys", (), own("augment", "ruined", fault="scaled")),
    ("augment.destroys", ("regulariser=[input_noise]", "regulariser.input_noise.std=20"), {}),
    ("reg.ratio", ("regulariser=[l2]", "regulariser.l2.kernel=1"), {}),
    ("reg.ratio", ("optimiser=adam", "optimiser.weight_decay=1", "optimiser.decoupled=false"), {}),
    ("reg.ratio", (*SGD, "optimiser.weight_decay=1"), {}),
    ("reg.ratio", ("optimiser.weight_decay=100",), {}),
    ("lr.clip", ("grad_clip=1e-4",), {}),
    ("lr.clip", (), step("clipped")),
    ("lr.range", ("optimiser.lr=1",), {}),
    ("lr.range", (*SGD, "optimiser.lr=10", "optimiser.momentum=0.9"), {}),
    ("lr.range", ("optimiser.lr=1e-7",), {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "words", "parts"), first_of_each(FAULTS))
def test_a_fault_is_named_in_the_headline(name: str, words: tuple[str, ...], parts: dict[str, Any]) -> None:
    found = alarms(bench(*words, **parts))
    assert [item["id"] for item in found][:1] == [name], [(item["id"], item["message"]) for item in found]


def made(spec: Spec, x: torch.Tensor, y: torch.Tensor) -> Data:
    """A data set of these samples, the last fifth of them for validation."""
    cut, ids = len(x) * 4 // 5, np.arange(len(x))
    parts = [Split(x[:cut], y[:cut], ids[:cut]), Split(x[cut:], y[cut:], ids[cut:])]
    return Data(spec, lambda: Splits(*parts, test=lambda: parts[1], identity=lambda: "made"))


def test_a_target_that_is_one_number_for_all_does_not_hide_a_broadcast() -> None:
    x = torch.randn(1000, 5, generator=torch.Generator().manual_seed(7))
    subject = bench(*TABLE, **loss("summed_target"))
    data = made(Spec("regression", (5,), 1), x, torch.full((1000, 1), 784.617))
    found = alarms(Bench(subject.cfg, data, subject.where))
    assert "init.shape_broadcast" in [item["id"] for item in found]
    assert found[0]["id"] == "init.shape_broadcast"


def test_a_wide_network_without_activations_is_called_linear() -> None:
    x = torch.randn(200, 5000, generator=torch.Generator().manual_seed(0))
    subject = bench("model.hidden=[1000,500]", "model.activation=identity")
    data = made(Spec("classification", (5000,), 2), x, (x[:, :5].sum(1) > 0).long())
    wide = Bench(subject.cfg, data, subject.where)
    assert sum(p.numel() for p in wide.network.model.parameters()) == 5_502_502
    assert ask(wide, "init.linear").severity == "warn"
    subject.cfg.model.activation = "relu"
    assert ask(Bench(subject.cfg, data, subject.where), "init.linear").severity == "ok"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("direction", "severity"), [({}, "ok"), (step("uphill"), "fail")], ids=["down", "up"])
def test_what_a_network_drops_at_random_is_not_taken_for_ascent(seed: int, direction: dict, severity: str) -> None:
    subject = bench(**net("always_dropping", drop=0.5), **direction)
    subject.cfg.seed = seed
    assert ask(subject, "step.ascent").severity == severity


def test_what_takes_too_long_on_a_machine_is_left_out_and_says_so() -> None:
    subject = bench("checks.seconds=1e-9", **step("uphill"))
    for name in ("step.ascent", "step.grad_accumulates", "lr.range", "lr.clip", "lr.ladder", "overfit.batch"):
        found = ask(subject, name)
        assert (found.severity, found.message.partition(":")[0]) == ("info", "left out"), name


def test_a_slow_network_is_probed_with_a_part_of_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plumbline.checks.bench.SLOW", 0.0)
    assert bench().batch_size == len(bench().y) == 4
    monkeypatch.undo()
    assert bench().batch_size == 64


def test_what_a_probe_says_does_not_depend_on_how_busy_the_machine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each update takes twenty times as long the second time."""
    settings = {
        "lr.range": {"updates": 30, "seconds": 0.02},
        "lr.ladder": {"updates": 8},
        "overfit.batch": {"updates": 40},
    }
    quiet = {
        name: ask(bench(), name, **settings[name], **({"seeds": 1} if name == "lr.range" else {})) for name in settings
    }
    update = Copy.update

    def slowly(*arguments: Any) -> float:
        time.sleep(0.01)
        return update(*arguments)

    monkeypatch.setattr(Copy, "update", slowly)
    for name, finding in quiet.items():
        assert ask(bench(), name, **settings[name], **({"seeds": 1} if name == "lr.range" else {})) == finding


def test_a_network_with_more_work_gets_fewer_steps_and_never_less_than_a_few() -> None:
    small, large = bench(), bench("model.hidden=[2000,2000]")
    steps = [[subject.affordable(seconds, 200, 5) for seconds in (1e-6, 0.5, 1e6)] for subject in (small, large)]
    assert [steps[0][0], steps[1][0]] == [5, 5] and [steps[0][2], steps[1][2]] == [200, 200]
    assert steps[1][1] < steps[0][1]


def test_norms_that_have_seen_no_batch_do_not_make_a_deep_network_constant() -> None:
    deep = bench(**net("none", drop=0.0, hidden=(8,) * 40))
    with evaluating(deep.awake) as model:
        assert spread(model(deep.x)) < 1e-5  # in evaluation the running statistics are still those of nothing
    assert ask(deep, "init.constant_output").severity == "ok"


def test_a_range_test_does_not_take_the_luck_of_a_batch_for_a_fall() -> None:
    lucky = Sweep([1e-7, 1e-6, 1e-3, 1e-2, 1e-1], [0.5, 1.0, 0.9, 0.6, 0.8], idle=2, start=0.75, noise=0.3)
    assert lucky.rates[lucky.lowest] == 1e-2
    assert lucky.fall == pytest.approx(0.15)
    assert lucky.back(1e-1) == pytest.approx(0.2 / 0.15)
    assert lucky.back(1e-3) == 0


def test_a_gradient_that_is_never_cleared_grows_fourfold_in_four_steps_and_a_cleared_one_not_at_all() -> None:
    grown = [ask(bench(**way), "step.grad_accumulates").evidence["growth"] for way in (step("never_cleared"), {})]
    assert grown == pytest.approx([4.0, 1.0], abs=0.01)


FLOORS = {"softmax": np.log(1 + 9 / np.e), "sigmoid": np.log(1 + 9 / np.e), "tanh": np.log(1 + 9 / np.e**2)}


@pytest.mark.parametrize("end", ["softmax", "tanh", pytest.param("sigmoid", marks=pytest.mark.slow)])
def test_behind_what_limits_the_outputs_the_loss_of_a_batch_known_by_heart_stays_at_its_floor(end: str) -> None:
    finding = ask(bench("optimiser.lr=0.01", **net(end)), "overfit.batch", updates=600, way=1.0, rates=[])
    assert finding.evidence["score"] == 1.0
    assert finding.evidence["loss"] == pytest.approx(FLOORS[end], abs=0.01)  # 1.461 and 0.797
    assert finding.evidence["loss"] > FLOORS[end]
    said = ask(bench(**net(end)), "init.outputs_are_probabilities" if end == "softmax" else "init.output_activation")
    assert said.evidence["floor"] == pytest.approx(FLOORS[end], abs=1e-4)


@pytest.mark.parametrize("norm", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_network_that_does_not_hear_eval_is_told(norm: bool) -> None:
    found = [item["id"] for item in alarms(bench(**net("deaf", norm=norm)))]
    assert "init.nondeterministic" in found
    assert ("init.batch_mixing" in found) == norm  # its batches are still normalised


@pytest.mark.parametrize(
    ("words", "same"),
    [((), True), (("model=cnn",), True), (("model.norm=batch",), False), (("regulariser=[dropout]",), False)],
)
def test_training_and_evaluation_differ_where_there_is_dropout_or_batch_norm_and_only_there(words, same: bool) -> None:
    subject = bench(*words)
    copy, x = subject.noisy, subject.x
    with torch.no_grad(), copy.buffers_kept():
        training, evaluation = copy.model.train()(x), copy.model.eval()(x)
        assert torch.equal(training, evaluation) == same
        assert torch.equal(evaluation, copy.model(x))


@pytest.mark.slow
def test_a_bad_start_is_named_before_the_rate_that_it_spoils() -> None:
    rate = ("optimiser=sgd", "optimiser.lr=10")
    start = ("init=truncated_normal", "init.std=1", "init.head_std=null")
    assert ask(bench(*rate), "lr.range").severity == "warn"
    found = [item["id"] for item in alarms(bench(*start, *rate))]
    assert found[:2] == ["init.activation_scale", "init.loss"]


@pytest.mark.parametrize(
    ("words", "seed"),
    one_in(
        4, [(words, seed) for words in ((), ("model=cnn",), ("optimiser=sgd", "optimiser.lr=0.1")) for seed in range(3)]
    ),
)
def test_the_clip_that_is_suggested_is_the_90th_percentile_of_the_gradients_norms(
    words: tuple[str, ...], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, norms = bench("data.subset=null", *words), []
    subject.cfg.seed = seed
    median = statistics.median
    monkeypatch.setattr(statistics, "median", lambda values: norms.append(list(values)) or median(values))
    finding = ask(subject, "lr.clip", updates=16)
    measured = next(values for values in norms if len(values) == 16)
    assert finding.evidence["median"] == np.median(measured)
    suggested = float(finding.advice[0].removeprefix("grad_clip="))
    assert suggested == pytest.approx(np.percentile(measured, 90), rel=0.05)
    assert np.percentile(measured, 90) > 1.03 * np.median(measured)


SOME = ("data=fashion_mnist", "data.subset=3000")
CLOTHES = ("data=fashion_mnist", "data.subset=1500", "batch_size=32", "optimiser=adam", "schedule=constant")
fashion = pytest.mark.skipif(
    not Path("/usr/share/datasets/fashion-mnist").is_dir(), reason="needs Debian's dataset-fashion-mnist"
)


@fashion
@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "right", "sure"),
    [
        ("model=linear", 40, 230),
        ("model.hidden=[50]", 35, 100),
        ("model.hidden=[200,100]", 30, 45),
        ("model=cnn", 45, 65),
    ],
)
def test_thirty_two_clothes_are_known_by_heart_after_so_many_updates(words: str, right: int, sure: int) -> None:
    subject = bench(*CLOTHES, words)
    copy, batches = subject.fresh(quiet=True), few(subject, 32)
    (x, y), first = batches[0], {}
    for update in range(1, sure + 1):
        copy.update(batches, update, copy.peak)
        with torch.no_grad():
            outputs = copy.model(x)
        if (outputs.argmax(1) == y).all():
            first.setdefault("right", update)
        if torch.nn.functional.cross_entropy(outputs, y) < 0.01:
            first.setdefault("sure", update)
    assert len(y) == 32
    assert 5 < first["right"] <= right
    assert first["right"] < first["sure"] <= sure


@fashion
@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "low", "high"), [("optimiser=sgd", 0.3, 1.3), ("optimiser=adam", 0.02, 0.1)], ids=["sgd", "adam"]
)
def test_a_range_test_on_clothes_finds_the_rates_of_the_source(words: str, low: float, high: float) -> None:
    subject = bench("data=fashion_mnist", "data.subset=12000", "model.hidden=[200,100]", words)
    finding = ask(subject, "lr.range")
    assert low < finding.evidence["lowest_loss_at"] < high
    assert finding.evidence["suggestion"] == pytest.approx(finding.evidence["lowest_loss_at"] / 10)


@fashion
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_of_a_ladder_of_rates_the_best_is_reported_which_for_adam_is_not_the_last_that_converges(seed: int) -> None:
    found = {}
    for optimiser in ("sgd", "adam"):
        subject = bench(*SOME, "model.hidden=[200,100]", f"optimiser={optimiser}")
        subject.cfg.seed = seed
        found[optimiser] = ask(subject, "lr.ladder").evidence
    sgd, adam = found["sgd"]["losses"], found["adam"]["losses"]
    assert found["sgd"]["best"] == pytest.approx(0.1) and sgd["1"] is sgd["10"] is None  # it diverges
    assert list(sgd.values())[:6] == sorted(list(sgd.values())[:6], reverse=True)
    assert (sgd["0.01"], sgd["0.1"]) == (pytest.approx(2.1, abs=0.1), pytest.approx(0.95, abs=0.2))
    assert found["adam"]["best"] == pytest.approx(0.001) and adam["0.001"] == pytest.approx(0.68, abs=0.1)
    assert adam["0.1"] > max(adam["1e-06"], 3 * adam["0.001"]) and adam["1"] > 100


@fashion
def test_on_clothes_the_first_loss_is_that_of_knowing_nothing_unless_the_weights_are_far_too_large() -> None:
    def first(*words: str, **parts: dict[str, Any]) -> list[Finding]:
        found = []
        for seed in range(3):
            subject = bench(*SOME, "model.hidden=[200,100]", *words, **parts)
            subject.cfg.seed = seed
            found.append(ask(subject, "init.loss"))
        return found

    plain = {"norm": False, "drop": 0.0, "hidden": (200, 100)}
    for words in ((), ("init=he",)):
        assert [one.evidence["measured"] for one in first(*words)] == pytest.approx([np.log(10)] * 3, abs=0.05)
    everywhere = [one.evidence["measured"] for one in first("init=he", "init.head_std=null")]
    assert statistics.fmean(everywhere) == pytest.approx(2.8, abs=0.25)
    normal = first(**net("normal", **plain))
    assert [one.severity for one in normal] == ["warn"] * 3
    assert statistics.fmean(one.evidence["measured"] for one in normal) == pytest.approx(2430, rel=0.3)
    zeros = first(**net("zeros", **plain))
    assert [one.evidence["measured"] for one in zeros] == pytest.approx([np.log(10)] * 3, abs=1e-6)
    subject = bench(*SOME, **net("zeros", **plain))
    assert ask(subject, "init.symmetric").severity == "fail"  # which the first loss does not show


@fashion
def test_a_reshape_across_the_batch_is_told_on_clothes_as_on_digits() -> None:
    for words in ((), SOME):
        changes = [
            ask(bench(*words, **net(fault)), "init.batch_mixing").evidence["change"] for fault in ("reshaped", "none")
        ]
        assert changes[0] > 1 and changes[1] < 1e-4


@pytest.mark.parametrize("seed", range(3))
def test_the_share_of_sigmoids_above_98_or_below_2_in_a_hundred_is_reported(seed: int) -> None:
    z = 4 * torch.randn(1000, 8, generator=torch.Generator().manual_seed(seed))
    said = z.sigmoid()
    share = ((said > 0.98) | (said < 0.02)).float().mean().item()
    assert 0.2 < share < 0.5
    assert saturation(torch.nn.Sigmoid(), (z,), said) == pytest.approx(share, abs=0.005)
    subject = bench("model.activation=sigmoid")
    subject.cfg.seed = seed
    found = ask(subject, "init.saturated")
    assert found.evidence == {f"hidden.{k}.activation": 0.0 for k in range(2)}
    assert "at most 0% of an activation's inputs lie where it is flat" in found.message


SEVEN = "model.hidden=[64,64,64,64,64,64,64]"
CURES = {
    "": (2e-7, 2e-6),
    "model.activation=relu": (0.003, 0.1),
    "model.norm=batch": (0.05, 1.0),
    "model=residual_mlp model.blocks=3": (1e-3, 100.0),
}


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
@pytest.mark.parametrize("cure", CURES)
def test_the_gradient_of_seven_sigmoids_vanishes_and_what_is_advised_brings_it_back(cure: str, seed: int) -> None:
    words = ("model.activation=sigmoid",) if "residual" in cure else (SEVEN, "model.activation=sigmoid")
    subject = bench(*words, *cure.split())
    subject.cfg.seed = seed
    found, (low, high) = ask(subject, "init.gradient_ratio"), CURES[cure]
    assert found.severity == ("ok" if cure else "warn")
    assert low < found.evidence["first_to_last"] < high


@pytest.mark.slow
@pytest.mark.parametrize("width", [32, 50])
def test_six_sigmoids_between_seven_layers_let_a_hundred_thousandth_of_the_gradient_through(width: int) -> None:
    found = []
    for seed in range(3):
        subject = bench(f"model.hidden={[width] * 6}".replace(" ", ""), "model.activation=sigmoid")
        subject.cfg.seed = seed
        found.append(ask(subject, "init.gradient_ratio").evidence["first_to_last"])
    assert sum(found) / 3 == pytest.approx(7.6e-6, rel=0.4)


KERNELS = {"l1": ["kernel"], "l2": ["kernel"], "elastic_net": ["kernel_l1", "kernel_l2"]}
PENALTIES = ["l1.kernel", "l2.kernel", "l2.activity", "elastic_net.bias_l1"]


@pytest.mark.parametrize("key", PENALTIES)
def test_a_penalty_may_be_as_strong_as_is_said_and_no_more(key: str) -> None:
    option = key.partition(".")[0]
    words = (f"regulariser=[{option}]", "optimiser=adam")  # without a decay beside it
    words += tuple(f"regulariser.{option}.{name}=0" for name in KERNELS[option])

    def at(strength: float) -> Finding:
        return ask(bench(*words, f"regulariser.{key}={strength}"), "reg.ratio")

    weak = at(1e-6)
    most = 1e-6 * weak.evidence["times"]
    assert weak.severity == at(0.98 * most).severity == "ok"
    strong = at(1.02 * most)
    assert strong.severity == "warn"
    assert strong.evidence["penalty"] == pytest.approx(1.02 * strong.evidence["data_loss"], rel=0.01)  # λ R against k
    assert sum(weak.evidence["by_layer"].values()) == pytest.approx(weak.evidence["penalty"], rel=1e-3)


HONEST: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    ((), {}), (SGD, {}), (("model.activation=sigmoid",), {}), (("model.norm=batch", "batch_size=8"), {}),
    (("model=linear",), {}), (("model=cnn", "augment=[shift,rotate]", "regulariser=[cutmix]"), {}),
    (("regulariser=[label_smoothing,dropout]",), {}), (("regulariser=[spectral_norm]",), {}),
    (("schedule=one_cycle", "accumulate=3"), {}), (("init=he", "init.head_std=0"), {}), (("precision=bf16", "ema=0.9"), {}),
    (("grad_clip=1",), {}), (("loss=binary_cross_entropy",), {}), (TABLE, {}), ((*TABLE, "loss=huber", "model.norm=layer"), {}),
    ((*TABLE, "model=linear", "regulariser=[mixup]"), {}), (("data=iris", "data.subset=null", "model=linear"), {}),
    ((), net("none", drop=0.5)), ((), net("log_softmax")), ((), net("clip_wide")), ((), net("zero_head")), ((), net("unused")),
    ((), net("frozen_elsewhere", norm=False)), ((), net("softmax") | loss("of_probabilities")), ((), loss("hinge")),
    (TABLE, loss("quantile")), ((), net("none") | step("cleared_at_the_end")), ((), own("step", "sharpness_aware", radius=0.05)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "parts"),
    one_in(4, HONEST),
)
def test_an_honest_program_is_left_in_peace(words: tuple[str, ...], parts: dict[str, Any]) -> None:
    assert [(item["id"], item["message"]) for item in alarms(bench(*words, **parts))] == []


def severity(finding: Finding | None) -> str:
    return "none" if finding is None else finding.severity


LONG_GATE = ("epochs=0", "optimiser=sgd", "optimiser.momentum=0.999", "checks.epochs=100000")

MOVED: list[tuple[str, tuple[str, ...], dict[str, Any], str, dict[str, Any], str]] = [
    # check, command line, components, as configured, another value, and then
    ("schedule.collapses", (), own("schedule", "per_batch"), "fail", {"share": 1e-30}, "ok"),
    ("schedule.collapses", (), own("schedule", "per_batch"), "fail", {"before": 0.05}, "ok"),
    ("schedule.warm_up", (), own("schedule", "endless"), "warn", {"by": 0.95}, "ok"),
    ("schedule.warm_up", (), own("schedule", "endless"), "warn", {"share": 0.2}, "ok"),
    ("init.shape_broadcast", (), {}, "ok", {"share": 1e9}, "fail"),
    ("init.batch_mixing", (), net("reshaped"), "fail", {"share": 1e9}, "ok"),
    ("init.loss_scale", (), loss("sum"), "warn", {"factor": 3.0}, "ok"),
    ("init.output_activation", (), net("clip_wide"), "ok", {"floor": 0.0}, "fail"),
    ("init.output_activation", TABLE, net("relu"), "fail", {"beyond": 0.99}, "ok"),
    ("init.dead_units", (), {}, "ok", {"share": 0.0}, "warn"),
    ("init.saturated", (), net("tanh_between", norm=False), "warn", {"share": 1.01}, "ok"),
    ("init.nondeterministic", (), net("always_dropping"), "warn", {"share": 1e9}, "ok"),
    ("init.linear", (), {}, "ok", {"share": 1e9}, "warn"),
    ("init.dropout_too_high", ("regulariser=[dropout]", "regulariser.dropout.rate=0.5"), {}, "ok", {"rate": 0.3}, "warn"),
    ("init.batch_norm_too_small", ("model.norm=batch", "batch_size=16"), {}, "none", {"least": 32}, "warn"),
    ("init.gradient_ratio", (), {}, "ok", {"ratio": 1.01}, "warn"),
    ("init.activation_scale", (), {}, "ok", {"low": 10.0}, "warn"),
    ("init.activation_scale", (), {}, "ok", {"high": 0.01}, "warn"),
    ("init.constant_output", (), {}, "ok", {"share": 100.0}, "fail"),
    ("init.loss", (), net("normal"), "warn", {"within": 1e9}, "ok"),
    ("step.targets_paired", (), {}, "ok", {"share": 100.0}, "fail"),
    ("step.ascent", (), {}, "ok", {"rise": -1.0}, "fail"),
    ("step.ascent", (), step("uphill"), "fail", {"updates": 0}, "ok"),
    ("step.momentum", LONG_GATE, {}, "ok", {"share": 0.0}, "warn"),
    ("step.ascent", (), net("always_dropping", drop=0.5) | step("uphill"), "fail", {"sigmas": 1e9}, "ok"),
    ("init.shape_broadcast", (), {}, "ok", {"most": 0.0}, "fail"),
    ("init.inputs_unused", (), net("half_blind"), "warn", {"share": 0.6}, "ok"),
    ("init.inputs_unused", (), net("edge_blind"), "ok", {"share": 0.05}, "warn"),
    ("init.dropout_on_outputs", (), net("dropped_outputs"), "warn", {"share": 0.5}, "ok"),
    ("step.ascent", (), step("uphill"), "fail", {"movement": 1e-9}, "ok"),
    ("step.grad_accumulates", (), step("never_cleared"), "fail", {"growth": 9.0}, "ok"),
    ("step.task_loss", (), {}, "ok", {"close": 100.0}, "warn"),
    ("step.loss_scale", (), step("sum"), "warn", {"factor": 3.0}, "ok"),
    ("step.loss_clipped", (), step("clipped_loss"), "warn", {"factor": 1.0}, "ok"),
    ("step.update_ratio", (), {}, "ok", {"reach": 1e9}, "warn"),
    ("augment.destroys", ("augment=[shift]",), {}, "ok", {"share": 1.1}, "warn"),
    ("augment.destroys", ("augment=[shift]",), {}, "ok", {"samples": 20}, "warn"),
    ("augment.destroys", ("augment=[shift]",), {}, "ok", {"neighbours": 320}, "warn"),
    ("reg.ratio", (), {}, "ok", {"most": 0.0}, "warn"),
    ("lr.clip", ("grad_clip=0.1",), {}, "ok", {"share": 100.0}, "warn"),
    ("lr.clip", (), {}, "ok", {"updates": 3}, "none"),
    ("lr.range", ("optimiser.lr=1",), {}, "warn", {"above": 1e9, "back": 1e9}, "ok"),
    ("lr.range", ("optimiser.lr=1e-7",), {}, "warn", {"below": 1e9}, "ok"),
    ("lr.range", (), {}, "ok", {"fall": 1.0}, "info"),
    ("lr.range", (), {}, "ok", {"high": 1e-6}, "info"),
    ("lr.ladder", ("optimiser.lr=10",), {}, "warn", {"above": 1e9}, "ok"),
    ("overfit.batch", (), {}, "ok", {"updates": 2, "rates": []}, "warn"),
    ("overfit.batch", (), {}, "ok", {"enough": 1.1, "updates": 5}, "warn"),
    ("overfit.batch", ("optimiser.lr=1e-6",), {}, "warn", {"rates": [1000.0]}, "info"),
    ("overfit.batch", (), net("softmax"), "warn", {"way": 0.0}, "ok"),
    ("overfit.batch", ("data=breast_cancer", "data.subset=null"), net("softmax"), "warn", {"way": 0.5}, "ok"),
    ("step.momentum", ("optimiser=sgd", "optimiser.momentum=0.999"), {}, "warn", {"usual": 0.9995}, "ok"),
    ("step.momentum", ("optimiser=sgd", "optimiser.momentum=0.999"), {}, "warn", {"share": 1e6}, "ok"),
    ("step.eps", ("optimiser=adam", "optimiser.eps=1.0"), {}, "warn", {"times": 1e9}, "ok"),
    ("schedule.few_updates", ("epochs=2", "batch_size=100"), {}, "warn", {"least": 1}, "ok"),
    ("schedule.average", ("epochs=2", "ema=0.999"), {}, "fail", {"left": 1.0}, "ok"),
    ("schedule.average", ("epochs=0", "ema=0.99"), {}, "ok", {"left": 1e-9}, "fail"),
    ("reg.labels", ("regulariser=[label_smoothing]",), {}, "ok", {"least": 0.99}, "warn"),
    ("init.class_ignored", (), loss("first_only"), "fail", {"share": 0.0}, "ok"),
    ("step.update_ratio", ("epochs=0", "optimiser.lr=1e-8"), {}, "warn", {"reach": 1e-9}, "ok"),
    ("overfit.batch", (), step("cleared_late"), "warn", {"seconds": 1e-6}, "info"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "words", "parts", "before", "thresholds", "after"), first_of_each(MOVED))
def test_another_threshold_moves_the_finding(
    name: str, words: tuple[str, ...], parts: dict[str, Any], before: str, thresholds: dict[str, Any], after: str
) -> None:
    quick = {"seeds": 1, "updates": 60} if name == "lr.range" else {"updates": 200} if name == "overfit.batch" else {}
    subject = bench(*words, **parts)
    assert severity(ask(subject, name, **quick)) == before
    assert severity(ask(subject, name, **quick | thresholds)) == after


def swept(finding: Finding) -> tuple[int, int, float]:
    curves = finding.evidence["curves"]
    return len(curves), len(curves[0][0]), curves[0][0][0]


SETTINGS: list[tuple[str, dict[str, Any], dict[str, Any], Any]] = [
    # check, a setting, another, what of the finding shows the difference
    ("lr.range", {"updates": 60}, {"updates": 30}, swept),
    ("lr.range", {"low": 1e-7}, {"low": 1e-5}, swept),
    ("lr.range", {"seeds": 1}, {"seeds": 2}, swept),
    ("lr.range", {"burst": 4.0}, {"burst": 1.01}, swept),
    ("lr.range", {"seconds": 60.0}, {"seconds": 1e-6}, swept),
    ("lr.ladder", {"low": 1e-6}, {"low": 1e-3}, lambda finding: list(finding.evidence["losses"])),
    ("lr.ladder", {"high": 10.0}, {"high": 0.1}, lambda finding: list(finding.evidence["losses"])),
    ("lr.ladder", {"updates": 10}, {"updates": 20}, lambda finding: list(finding.evidence["losses"].values())),
    ("lr.ladder", {"seconds": 60.0}, {"seconds": 1e-6}, lambda finding: list(finding.evidence["losses"].values())),
    ("overfit.batch", {"samples": 32}, {"samples": 8}, lambda finding: finding.evidence["samples"]),
]


@pytest.mark.parametrize(("name", "one", "other", "look"), first_of_each(SETTINGS))
def test_another_setting_makes_another_measurement(
    name: str, one: dict[str, Any], other: dict[str, Any], look: Any
) -> None:
    quick = {"seeds": 1, "updates": 60} if name == "lr.range" else {"updates": 20} if name == "lr.ladder" else {}
    results = [look(ask(bench(), name, **quick | setting)) for setting in (one, one, other)]
    assert results[0] == results[1]
    assert results[0] != results[2]
