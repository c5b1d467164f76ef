"""The fault benchmark: each mistake is really in the program, and what the checks say of it is counted rightly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache

import pytest
import torch
from conftest import ROOT, one_in
from torch import Tensor, nn

SCRIPTS = ROOT / "scripts"
sys.path.insert(0, str(SCRIPTS))

from faults import ALLOW, Outcome, honest_table, judged  # noqa: E402
from faulty.faults import LISTED  # noqa: E402
from faulty.programs import BASES, HONEST, words  # noqa: E402
from faulty.unseen import UNSEEN  # noqa: E402

from plumbline.config import build, check_config  # noqa: E402

FAULTS = {fault.id: fault for fault in [*LISTED, *UNSEEN]}
CASES = [(fault, base) for fault in FAULTS.values() for base in fault.per_base or fault.bases[0]]


@cache
def program(base: str, *more: str):
    """The configuration of a base, changed."""
    from hydra import compose, initialize_config_dir

    from plumbline import config

    config.register()
    chosen = [ALLOW, f"hydra.searchpath=[file://{SCRIPTS / 'faulty' / 'conf'}]"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", [*chosen, *words(base, list(more))])


@cache
def data(base: str, fault: str | None = None):
    """The data of a base, clean or with a fault."""
    return build(program(base, *(FAULTS[fault].planted(base) if fault else [])).data)()


def trained(base: str, fault: str | None, steps: int = 1, size: int = 32):
    """(what trains, the data) after some steps of a program, on its first samples."""
    from plumbline.assemble import assemble

    cfg = program(base, *(FAULTS[fault].planted(base) if fault else []))
    those = build(cfg.data)()
    training, _, step, _ = assemble(cfg, those, torch.device("cpu"))
    batch = next(iter(those.train.batches(size, torch.arange(size))))
    training.model.train()
    losses = []
    for number in range(steps):
        torch.manual_seed(number)
        losses.append(step(training, [batch]).item())
    return training, batch, losses


def weights(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def test_the_development_set_is_whole_and_nothing_is_planted_twice() -> None:
    assert [fault.id for fault in LISTED if int(fault.id[1:]) <= 47] == [f"X{n:02}" for n in range(1, 48)]
    assert len(UNSEEN) >= 20
    planted = [str(fault.planted(base)) + base for fault in FAULTS.values() for base in fault.bases]
    assert len(set(planted)) == len(planted)
    assert all(set(fault.bases) <= set(BASES) for fault in FAULTS.values())


def test_every_cause_is_a_check_that_there_is() -> None:
    from conftest import composed

    from plumbline.checks.core import configured
    from plumbline.config import FAMILIES

    checks = composed("checks=full").checks
    known = {name for phase in FAMILIES for name, _ in configured(checks, phase)}
    assert {cause for fault in FAULTS.values() for cause in fault.causes} <= known


def test_there_are_sixty_honest_runs_of_ten_programs_a_base() -> None:
    assert {base: len(HONEST[base]) >= 10 for base in "DFR"} == dict.fromkeys("DFR", True)
    assert 2 * sum(len(HONEST[base]) for base in "DFR") >= 60


@pytest.mark.parametrize(("fault", "base"), one_in(6, CASES))
def test_a_mistake_is_a_configuration_that_is_accepted_and_differs_from_the_clean_one(fault, base: str) -> None:
    cfg = program(base, *fault.planted(base))
    check_config(cfg)
    assert cfg != program(base)


@pytest.mark.parametrize(
    "base", [pytest.param(base, marks=[pytest.mark.slow] * (len(HONEST[base]) > 5)) for base in BASES]
)
def test_every_honest_program_is_accepted(base: str) -> None:
    for changes in HONEST[base].values():
        check_config(program(base, *changes))


# --- data: what stands in the splits ---------------------------------------------------------------------------------


def rows(x: Tensor) -> set[bytes]:
    return {row.numpy().tobytes() for row in x.flatten(1)}


def shared(it) -> float:
    """The share of validation that is in train, bit for bit."""
    known = rows(it.train.x)
    return sum(row.numpy().tobytes() in known for row in it.val.x.flatten(1)) / len(it.val)


def accuracy(it) -> float:
    """Of the nearest mean of train's classes, on validation."""
    x, y = it.train.x.flatten(1), it.train.y
    means = torch.stack([x[y == label].mean(0) for label in range(it.spec.outputs)])
    return (torch.cdist(it.val.x.flatten(1), means).argmin(1) == it.val.y).float().mean().item()


def agree(a: Tensor, b: Tensor) -> float:
    return (a == b).float().mean().item()


def nearest(it) -> Tensor:
    """The distance of each sample of validation to the nearest of train, per root of the number of inputs."""
    return torch.cdist(it.val.x.flatten(1), it.train.x.flatten(1)).min(1).values / it.val.x[0].numel() ** 0.5


DATA = [  # fault, base, what is true of (clean, faulty)
    ("X25", "D", lambda a, b: torch.equal(b.train.y[1:], a.train.y[:-1]) and torch.equal(b.val.y[1:], a.val.y[:-1])),
    ("X25", "R", lambda a, b: torch.equal(b.train.y[1:], a.train.y[:-1]) and torch.equal(b.train.x, a.train.x)),
    ("X26", "D", lambda a, b: torch.equal(b.train.y[1:], a.train.y[:-1]) and torch.equal(b.val.y, a.val.y)),
    ("X27", "D", lambda a, b: 0.25 < 1 - agree(a.train.y, b.train.y) < 0.3 and torch.equal(a.val.y, b.val.y)),
    ("X28", "D", lambda a, b: torch.equal((a.val.y + 1) % 10, b.val.y) and torch.equal(a.train.y, b.train.y)),
    ("X29", "R", lambda a, b: abs(b.train.x.mean() - 500) < 1 and abs(b.train.x.std() - 100) < 1),
    ("X30", "D", lambda a, b: b.train.x.min() >= 0 and b.train.x.max() <= 1 / 255 + 1e-6),
    ("X31", "D", lambda a, b: abs(a.val.x.mean()) < 0.05 and b.val.x.mean() < -0.5 and b.val.x.std() > 1.5),
    ("X32", "D", lambda a, b: shared(a) == 0 and shared(b) == 1),
    ("X33", "D", lambda a, b: shared(b) > 0.4 and len(rows(b.train.x)) < 0.8 * len(b.train)),
    ("X34", "D", lambda a, b: shared(b) == 0 and 0.49 < (nearest(b) < 2e-3).float().mean() < 0.51),
    ("X35", "D", lambda a, b: all(len(b.train.x[b.train.y == k, 0, 7, 7].unique()) == 1 for k in range(10))),
    ("X35", "R", lambda a, b: torch.equal(b.val.x[:, 9], b.val.y[:, 0])),
    ("X36", "F", lambda a, b: int(b.train.x.isnan().sum()) == 3 and bool(b.val.x.isfinite().all())),
    ("X39", "D", lambda a, b: b.spec.outputs == 2 and 0.025 < b.train.y.float().mean() < 0.035),
    ("X41", "D", lambda a, b: 3 not in b.train.y and 3 in b.val.y and 3 in a.train.y),
    ("X42", "R", lambda a, b: len(rows(b.train.x)) == 1 and torch.equal(a.train.y, b.train.y)),
    ("X43", "D", lambda a, b: torch.equal(b.val.x, -a.val.x) and torch.equal(a.train.x, b.train.x)),
    ("X45", "R", lambda a, b: 1400 < b.train.y.mean() < 1650 and 700 < b.train.y.std() < 840),
    ("X47", "R", lambda a, b: len(b.train.y.unique()) == len(b.val.y.unique()) == 1),
    ("X49", "D", lambda a, b: b.scale.fitted_on == "train and val" and float(abs(b.train.x.mean())) > 1e-5),
    ("X50", "D", lambda a, b: len(set(b.train.groups) & set(b.val.groups)) > 100),
    ("X58", "D", lambda a, b: bool((b.train.x[b.train.y < 2, 0, 0, 0] > 1).all()) and accuracy(b) > accuracy(a)),
    ("Y36", "C", lambda a, b: abs(b.val.x[:, 0].mean() - a.val.x[:, 0].mean() - 3) < 1e-4),
    ("Y37", "C", lambda a, b: 0.03 < (b.train.x == -999).float().mean() * 30 < 0.07),
    ("Y38", "W", lambda a, b: 0.15 < 1 - agree(a.train.y, b.train.y) < 0.3 and torch.equal(a.val.y, b.val.y)),
    ("Y39", "C", lambda a, b: len(b.train) > 1.3 * len(a.train) and len(rows(b.train.x)) == len(rows(a.train.x))),
    ("Y41", "N", lambda a, b: 0.3 < (b.train.x.flatten(1).std(1) == 0).float().mean() < 0.37),
    (
        "Y42",
        "N",
        lambda a, b: shared(b) == 0 and torch.equal(a.train.x, b.train.x) and not torch.equal(a.val.x, b.val.x),
    ),
    ("Y43", "R", lambda a, b: b.train.y.std() < 0.1 and abs(b.val.y.std() - 1) < 0.3),
    ("Y44", "R", lambda a, b: int((a.train.y != b.train.y).sum()) == 1),
    ("Y45", "R", lambda a, b: abs(torch.corrcoef(torch.stack([b.train.x[:, 2], b.train.y[:, 0]]))[0, 1]) > 0.99),
    (
        "Y46",
        "W",
        lambda a, b: torch.equal(a.val.x.sort(1).values, b.val.x.sort(1).values) and agree(a.val.x, b.val.x) < 0.5,
    ),
    ("Y47", "C", lambda a, b: accuracy(b) < 0.65 < accuracy(a)),
    ("Y48", "C", lambda a, b: b.train.x.std(0).max() > 1e4 * b.train.x.std(0).min()),
]


@pytest.mark.parametrize(("fault", "base", "law"), DATA, ids=[f"{fault}-{base}" for fault, base, _ in DATA])
def test_the_data_are_wrong_in_the_way_that_is_meant(fault: str, base: str, law) -> None:
    assert bool(law(data(base), data(base, fault))), FAULTS[fault].name


def test_sorted_data_come_sorted_whatever_the_order_asked_for() -> None:
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    (_, shuffled), (_, stored) = (next(data("D", fault).train.batches(200, order)) for fault in (None, "X38"))
    assert len(stored) == 200
    assert (stored.diff() >= 0).all()
    assert (shuffled.diff() < 0).any()


def test_the_clean_programs_hold_the_data_as_ours_load_them() -> None:
    from conftest import composed

    for base, name in (("D", "digits"), ("R", "diabetes")):
        assert data(base).fingerprint() == build(composed(f"data={name}").data)().fingerprint()


# --- what trains: networks, losses, steps ----------------------------------------------------------------------------


def test_outputs_are_what_the_mistake_makes_of_them() -> None:
    laws = {
        "X01": lambda out: torch.allclose(out.sum(1), torch.ones(len(out))),
        "X02": lambda out: torch.allclose(out.sum(0), torch.ones(10)),
        "X04": lambda out: out.min() == 0 and out.max() > 0,
        "X23": lambda out: True,
    }
    for fault, law in laws.items():
        training, (x, _), _ = trained("D", fault)
        assert law(training.model.eval()(x)), fault
    first, second = training.model(x), training.model(x)
    assert not torch.equal(first, second)  # X23: evaluation drops, too


def test_the_outputs_of_one_sample_depend_on_the_others() -> None:
    for fault, base in (("X37", "D"), ("X02", "D"), ("Y08", "W")):
        training, (x, _), _ = trained(base, fault)
        other = x.clone()
        other[1] += 1
        model = training.model.eval()
        assert not torch.allclose(model(x)[0], model(other)[0], atol=1e-6), fault


def test_the_loss_is_wrong_in_the_way_that_is_meant() -> None:
    logits, y = torch.randn(8, 10, generator=torch.Generator().manual_seed(0)), torch.arange(8)
    clean, flipped, summed, clipped = (
        build(program("D", *(FAULTS[fault].words if fault else [])).loss)(data("D").spec)
        for fault in (None, "X03", "X06", "X56")
    )
    value = clean(logits, y)
    assert torch.isclose(flipped(logits, y), -value)
    assert torch.isclose(summed(logits, y), 8 * value)
    assert clipped(logits, y) <= 1 < value
    broadcast = build(program("R", *FAULTS["X44"].words).loss)(data("R").spec)
    outputs, target = torch.zeros(4, 1), torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    assert broadcast(target, target) == 2.5  # of a perfect answer: twice the variance
    assert broadcast(outputs, target) == 7.5


STEPS = [  # fault, base, the parameters that move in a step (by index), or None for all
    ("X08", "D", []), ("Y13", "W", []), ("Y14", "C", []),
    ("X09", "D", [-2, -1]), ("X10", "D", [-2, -1]), ("Y19", "C", [-2, -1]), ("Y09", "C", [-2, -1]),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "base", "moving"), STEPS, ids=[case[0] for case in STEPS])
def test_these_parameters_move_and_no_others(fault: str, base: str, moving: list[int]) -> None:
    from plumbline.assemble import assemble

    cfg = program(base, *FAULTS[fault].planted(base))
    training, _, step, _ = assemble(cfg, data(base, fault), torch.device("cpu"))
    before = weights(training.model)
    step(training, [next(iter(data(base, fault).train.batches(32)))])
    moved = [not torch.equal(*pair) for pair in zip(before, weights(training.model), strict=True)]
    assert [place for place, it in enumerate(moved) if it] == [place % len(moved) for place in moving]


def test_gradients_add_up_where_zero_grad_is_missing() -> None:
    for fault, low, high in ((None, 0, 1.5), ("X07", 2, 9)):
        training, _, _ = trained("R", fault, steps=1)
        (once,) = [parameter.grad.norm() for parameter in list(training.model.parameters())[-1:]]
        training, _, _ = trained("R", fault, steps=4)
        (four,) = [parameter.grad.norm() for parameter in list(training.model.parameters())[-1:]]
        assert low < four / once < high, fault


def test_the_loss_rises_where_the_step_goes_uphill() -> None:
    for base, fault, rises in (("R", None, False), ("R", "Y15", True), ("N", "Y15", True)):
        _, _, losses = trained(base, fault, steps=8)
        assert (losses[-1] > losses[0]) is rises, (base, fault)


def test_the_mode_is_evaluation_after_a_step_that_forgets() -> None:
    assert trained("D", None)[0].model.training
    assert not trained("D", "X24")[0].model.training
    assert not trained("N", "Y11")[0].model.training


def test_the_weights_start_where_the_mistake_puts_them() -> None:
    from plumbline.assemble import assemble

    def start(fault: str) -> nn.Module:
        return assemble(program("D", *FAULTS[fault].planted("D")), data("D"), torch.device("cpu"))[0].model

    assert all(not w.any() for w in weights(start("X17")) if w.dim() > 1)
    assert all(abs(w.std() - 1) < 0.05 for w in weights(start("X18")) if w.dim() > 1)
    dead = start("X19").eval()
    assert dead(data("D").val.x).std(0).max() == 0
    one, other = (weights(start("X53")) for _ in range(2))
    assert not torch.equal(one[0], other[0])
    assert not any(p.requires_grad for p in start("X54").head.parameters())


def test_the_rate_is_gone_before_half_of_the_run() -> None:
    schedule = build(program("D", *FAULTS["X14"].planted("D")).schedule)
    assert schedule(0.0, []) == 1
    assert schedule(0.5, []) < 1e-3


def test_the_augmentation_leaves_less_signal_than_noise_and_another_repeats_itself() -> None:
    x = data("D").train.x[:64]
    noisy = build(program("D", *FAULTS["X40"].words).augment.own)(x, torch.Generator().manual_seed(0))
    assert (noisy - x).std() > 20 * x.std()
    same = build(program("D", *FAULTS["X52"].words).augment.own)
    draws = torch.Generator().manual_seed(0)
    assert torch.equal(same(x, draws), same(x, draws))
    assert not torch.equal(same(x, draws), x)


# --- the counting ----------------------------------------------------------------------------------------------------


def outcome(ending: str = "finished", *alarms: tuple[str, str]) -> Outcome:
    found = [{"id": name, "severity": "warn", "phase": phase, "message": ""} for name, phase in alarms]
    return Outcome("D", "", 0, "X01", [], ["data.overlap"], ending, alarms=found)


def test_seen_early_first_and_in_three_are_counted_as_they_are_defined() -> None:
    cases = [
        (outcome(), (False, False, False, False)),
        (outcome("finished", ("data.overlap", "audit")), (True, True, True, True)),
        (outcome("finished", ("curve.gap", "curve"), ("data.overlap", "audit")), (True, True, False, True)),
        (outcome("finished", ("curve.gap", "curve")), (True, False, False, False)),
        (outcome("diverged"), (True, False, False, False)),
        (outcome("refused"), (True, True, False, False)),
    ]
    for it, expected in cases:
        assert (it.seen, it.early, it.named(1), it.named(3)) == expected
    assert [sum(column) for column in judged([it for it, _ in cases])] == [5, 3, 1, 2]
    told = cases[1][0].told()
    assert [told[key] for key in ("seen", "early", "first", "in_3")] == [True] * 4
    assert [sum(column) for column in judged([outcome("broken", ("data.overlap", "audit"))])] == [0, 0, 0, 0]


def test_false_alarms_are_shown_with_their_program() -> None:
    shown = honest_table([outcome(), outcome("finished", ("data.overlap", "audit"))])
    assert "data.overlap" in shown
    assert shown.endswith("1 of 2 honest runs have an alarm")


def test_a_fault_is_run_and_its_finding_counted() -> None:
    command = [sys.executable, str(SCRIPTS / "faults.py"), "--fault", "X36", "--base", "R", "--seeds", "1"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([*command, "--checks", "quick", "--json"], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (missing,) = json.loads(done.stdout)
    assert (missing["fault"], missing["ending"]) == ("X36", "diverged")
    headline = missing["alarms"][0]
    assert (headline["id"], headline["phase"]) == ("data.nonfinite", "audit")
