"""What the checks say of a result: planted outputs, and the numbers they must name."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from conftest import composed
from omegaconf import OmegaConf

from plumbline import tasks
from plumbline.checks import result as reading
from plumbline.checks.core import ALARMS, Finding
from plumbline.checks.margin import ZERO_INPUT, margin
from plumbline.checks.result import Result
from plumbline.config import build
from plumbline.data.core import Data, Spec, Split, Splits

CHECKS = composed().checks.result
BUILT = {name: build(node) for name, node in CHECKS.items()}
SEEDS = range(3)


def of(
    outputs: torch.Tensor, targets: torch.Tensor, baselines: dict[str, float] | None = None, objective: str | None = None,
    trained: int = 1000, train: float | None = None, noted: dict[str, float] | None = None, choices: int = 1,
) -> Result:  # fmt: skip
    """The result of a run that gave these outputs; train does as well as validation where nothing else is said."""
    classes = not targets.is_floating_point()
    spec = Spec("classification" if classes else "regression", (2,), outputs.shape[1])
    split = Split(torch.zeros(len(targets), 2), targets, torch.arange(len(targets)).numpy())
    data = Data(spec, lambda: Splits(split, split, lambda: split, lambda: "made here"))
    compute = torch.nn.functional.cross_entropy if classes else torch.nn.functional.mse_loss
    losses = compute(outputs, targets, reduction="none").reshape(len(targets), -1).mean(1)
    metric, direction = tasks.objective(spec, objective or "auto", "auto")
    scores = {"loss": losses.mean().item(), **tasks.score(spec, outputs, targets, None)}
    main = "accuracy" if classes else "rmse"
    best = {"epoch": 5, **{f"val/{name}": value for name, value in scores.items()}}
    best |= {f"train/{name}": value for name, value in scores.items()} | (noted or {})
    best |= {} if train is None else {f"train/{main}": train}
    run = {
        "objective": metric, "direction": direction, "best": best, "baseline": tasks.baseline(data, compute),
        "interval": tasks.interval(data, outputs, losses, targets, 100, data.val.items),
        "baselines": [{"name": name, "metrics": {metric: value}, "seconds": 0.1} for name, value in (baselines or {}).items()],
        "margins": {},
    }  # fmt: skip
    rivals = {name: scoring(targets, value, outputs.shape[1]) for name, value in (baselines or {}).items()}
    rivals[run["baseline"]["name"]] = tasks.uninformed(spec, split, len(targets))
    for name, said in rivals.items():
        theirs = said, compute(said, targets, reduction="none").reshape(len(targets), -1).mean(1)
        run["margins"][name] = tasks.paired_error(spec, metric, [(outputs, losses)], [theirs], targets, 100), choices
    return Result(run, data, outputs, losses, targets, trained)


def scoring(targets: torch.Tensor, value: float, outputs: int) -> torch.Tensor:
    """Outputs that have an accuracy, or an RMSE, of about that value."""
    draws = torch.Generator().manual_seed(99)
    if targets.is_floating_point():
        return targets + value * torch.randn(targets.shape, generator=draws)
    wrong = torch.rand(len(targets), generator=draws) >= value
    return torch.nn.functional.one_hot(torch.where(wrong, (targets + 1) % outputs, targets), outputs).float()


def classified(n: int = 500, classes: int = 5, right: float = 0.9, seed: int = 0, sure: float | None = None) -> tuple:
    """(logits, targets) of which a share is right, with a confidence to match."""
    draws = torch.Generator().manual_seed(seed)
    targets = torch.arange(n) % classes
    wrong = torch.rand(n, generator=draws) >= right
    guess = torch.where(wrong, (targets + 1 + torch.randint(classes - 1, (n,), generator=draws)) % classes, targets)
    sure = right if sure is None else sure
    logits = torch.full((n, classes), (1 - sure) / (classes - 1)).scatter(1, guess[:, None], sure).log()
    return logits + 0.01 * torch.randn(n, classes, generator=draws), targets


def regressed(n: int = 200, noise: float = 0.5, seed: int = 0) -> tuple:
    draws = torch.Generator().manual_seed(seed)
    targets = torch.randn(n, 1, generator=draws)
    return targets + noise * torch.randn(n, 1, generator=draws), targets


def found(result: Result) -> dict[str, Finding]:
    said = {name: check(result) for name, check in BUILT.items()}
    return {name: finding for name, finding in said.items() if finding is not None and finding.severity != "ok"}


def alarms(result: Result) -> list[str]:
    return [name for name, finding in found(result).items() if finding.severity in ALARMS]


def test_an_honest_result_raises_no_alarm() -> None:
    for seed in SEEDS:
        assert alarms(of(*classified(seed=seed), {"linear": 0.85, "forest": 0.88, ZERO_INPUT: 0.2})) == []
        assert alarms(of(*regressed(seed=seed), {"linear": 0.6, "forest": 0.55})) == []
        assert alarms(of(*classified(30, 3, 1.0, seed, sure=0.9), {"linear": 0.97})) == []  # iris
        assert alarms(of(*classified(seed=seed))) == []  # no baselines


def test_a_result_within_chance_of_the_simplest_baseline_has_failed() -> None:
    for seed in SEEDS:
        said = found(of(*classified(200, 5, 0.21, seed)))
        assert said["baseline"].severity == "fail" and "majority class" in said["baseline"].message
        noise = torch.randn(200, 1, generator=torch.Generator().manual_seed(seed + 100))
        assert "baseline" in alarms(of(0.3 * noise, regressed(seed=seed)[1]))


def test_the_strongest_baseline_is_named_and_how_far_away_it_is_of_the_interval() -> None:
    result = of(*classified(right=0.9), {"linear": 0.86, "forest": 0.93, "k-NN": 0.88})
    said, decided = found(result)["baseline"], margin(result.run)
    assert (said.severity, decided.rank, decided.name, decided.choices) == ("info", "strongest", "forest", 1)
    assert decided.half == pytest.approx(1.96 * result.run["margins"]["forest"][0], rel=1e-3)
    assert f"against 0.93 of the forest; {0.93 - result.value:.3g} behind, " in said.message
    beaten = BUILT["baseline"](of(*classified(right=0.9), {"linear": 0.7, "forest": 0.75}))
    assert (beaten.severity, "beats every baseline" in beaten.message) == ("ok", True)


def test_the_error_of_a_difference_is_that_of_the_samples_on_which_the_two_differ() -> None:
    logits, targets = classified(400, 4, 0.8)
    for differing in (4, 40):
        other = logits.clone()
        other[:differing] = torch.nn.functional.one_hot(targets[:differing], 4).float() * 9
        losses = torch.zeros(400)
        spec = of(logits, targets).data.spec
        pairs = [(logits, losses)], [(other, losses)]
        error = tasks.paired_error(spec, "val/accuracy", *pairs, targets, 500)
        apart = (logits.argmax(1) == targets).float() - (other.argmax(1) == targets).float()
        assert error == pytest.approx(apart.std(correction=0).item() / 20, rel=0.1)  # of a mean of 400
        assert error == tasks.paired_error(spec, "val/accuracy", *pairs, targets, 500)  # the same draws
    assert tasks.paired_error(spec, "val/accuracy", pairs[0], pairs[0], targets, 50) == 0


def test_the_best_of_many_epochs_that_are_no_better_does_not_seem_to_beat_a_baseline() -> None:
    """Forty epochs as good as the baseline but for chance, and the best of them on these samples."""
    draws, seeming = torch.Generator().manual_seed(0), {1: 0, 40: 0}
    for best in (0.8 + 0.01 * torch.randn(500, 40, generator=draws)).amax(1).tolist():
        for choices in seeming:
            found = margin({
                "objective": "val/accuracy", "direction": "maximise", "best": {"val/accuracy": best}, "baselines": [],
                "baseline": {"name": "it", "val/accuracy": 0.8}, "margins": {"it": (0.01, choices)},
            })  # fmt: skip
            seeming[choices] += found.beats
    assert seeming[1] > 250 and seeming[40] < 25


def test_far_behind_a_simple_model_is_an_alarm() -> None:
    said = found(of(*classified(200, 2, 0.62), {"L1 logistic": 0.95, "forest": 0.6}))["baseline"]
    assert said.severity == "warn" and "L1 logistic" in said.message
    brief = found(of(*classified(3000, 5, 0.765), {"linear": 0.8, "forest": 0.8043}))["baseline"]
    assert brief.severity == "info"  # Fashion-MNIST of 3,000, a small network after a few epochs


def test_a_network_that_does_as_well_without_its_inputs_is_told_so() -> None:
    assert "no_better_than_zero_input" in alarms(of(*classified(right=0.4), {ZERO_INPUT: 0.4}))
    assert "no_better_than_zero_input" not in found(of(*classified(right=0.9), {ZERO_INPUT: 0.2}))
    assert BUILT["no_better_than_zero_input"](of(*classified())) is None


def test_accuracy_that_hides_a_class_names_it_with_its_recall() -> None:
    for seed in SEEDS:
        draws = torch.Generator().manual_seed(seed)
        targets = (torch.arange(400) % 33 == 0).long()  # 97:3
        logits = torch.stack([torch.full((400,), 2.0), -2.0 + 0.1 * torch.randn(400, generator=draws)], 1)
        logits[0] = torch.tensor([-2.0, 2.0])
        said = found(of(logits, targets))["hides_class"]
        assert (said.severity, said.evidence["n"], said.symptom) == ("warn", 13, False)
        assert said.evidence["recall"] == pytest.approx(1 / 13)
        assert "hides_class" not in found(of(logits, targets, objective="val/balanced_accuracy"))


def test_a_class_that_is_never_found_among_classes_that_are_is_named() -> None:
    logits, targets = classified(500, 10, 0.97)
    logits[:, 7] = -20.0  # as if train had none of it
    assert found(of(logits, targets))["hides_class"].evidence["class"] == "7"


def test_a_constant_answer_is_a_failure() -> None:
    _, targets = classified()
    logits = torch.zeros(len(targets), 5)
    logits[:, 2] = 1.0
    assert found(of(logits, targets))["constant_prediction"].severity == "fail"
    _, numbers = regressed()
    assert "constant_prediction" in alarms(of(torch.full_like(numbers, 0.3), numbers))
    assert "constant_prediction" not in found(of(0.2 * numbers, numbers))


def test_validation_above_train_beyond_chance_is_an_alarm_and_within_it_is_not() -> None:
    logits, targets = classified(500, 5, 0.9)
    assert "val_above_train" in alarms(of(logits, targets, train=0.7))
    assert "val_above_train" not in found(of(logits, targets, train=0.87))
    assert "val_above_train" not in found(of(logits[:40], targets[:40], train=0.8))  # forty samples say little
    values, numbers = regressed(noise=0.3)
    assert "val_above_train" in alarms(of(values, numbers, train=0.8))
    assert "val_above_train" not in found(of(values, numbers, train=0.35))


def test_perfect_where_everything_else_is_far_from_it_is_too_good() -> None:
    assert "too_good" in alarms(of(*classified(300, 5, 1.0, sure=0.99), {"linear": 0.8, "forest": 0.85}))
    assert found(of(*classified(300, 5, 1.0, sure=0.99), {"linear": 1.0}))["too_good"].severity == "info"
    values, numbers = regressed(noise=0.0005)
    assert "too_good" in alarms(of(values, numbers, {"ridge": 0.7}))


def test_metrics_that_the_outputs_do_not_give_again_are_a_failure() -> None:
    said = found(of(*classified(), noted={"val/accuracy": 0.97}))["metrics_disagree"]
    assert said.severity == "fail" and said.evidence["noted"] == 0.97
    assert said.evidence["metric"] == "val/accuracy"
    assert "metrics_disagree" in alarms(of(*regressed(), noted={"val/rmse": 0.4}))
    constant = torch.ones(50, 1)
    assert "metrics_disagree" not in found(of(constant, constant))  # R² is no number there


def test_a_network_that_is_surer_than_right_is_told_with_both_numbers() -> None:
    said = found(of(*classified(right=0.8, sure=0.99)))["calibration"]
    assert said.severity == "info" and said.evidence["confidence"] == pytest.approx(0.99, abs=0.01)
    assert "calibration" not in found(of(*classified(right=0.8)))


def test_a_run_says_whether_it_gave_the_same_twice(run) -> None:
    from conftest import noted

    _, folder = run("data.subset=300", "epochs=3")
    said = {item["id"]: item for item in noted(folder)["findings"]}
    assert said["result.metrics_disagree"]["severity"] == "ok"
    assert said["result.val_above_train"]["severity"] == "ok"


# --- thresholds ------------------------------------------------------------------------------------------------------

RARE = torch.stack([torch.full((400,), 2.0), torch.full((400,), -2.0)], 1), (torch.arange(400) % 33 == 0).long()
CONSTANT = torch.zeros(500, 5).index_fill(1, torch.tensor(2), 1.0), classified()[1]
MOVED = [  # the check, its threshold, another value, a result of which it then says something else
    ("metrics_disagree", "within", 0.5, of(*classified(), noted={"val/accuracy": 0.97})),
    ("hides_class", "rare", 0.01, of(RARE[0].index_fill(0, torch.tensor([0]), 0.0) + torch.tensor([0, 1e-3]), RARE[1])),
    ("hides_class", "recall", -1, of(*RARE)), ("hides_class", "samples", 50, of(*RARE)),
    ("constant_prediction", "share", 1.01, of(*CONSTANT)),
    ("constant_prediction", "spread", 0.5, of(0.2 * regressed()[1], regressed()[1])),
    ("baseline", "far", 100, of(*classified(200, 2, 0.62), {"L1 logistic": 0.95, "forest": 0.6})),
    ("baseline", "worse", 100, of(*classified(200, 2, 0.62), {"L1 logistic": 0.95, "forest": 0.6})),
    ("no_better_than_zero_input", "sigmas", 1e6, of(*classified(right=0.9), {ZERO_INPUT: 0.2})),
    ("val_above_train", "sigmas", 100, of(*classified(500, 5, 0.9), train=0.7)),
    ("too_good", "error", -1, of(*classified(300, 5, 1.0, sure=0.99), {"linear": 0.8})),
    ("too_good", "samples", 1000, of(*classified(300, 5, 1.0, sure=0.99), {"linear": 0.8})),
    ("too_good", "times", 1e15, of(*classified(300, 5, 1.0, sure=0.99), {"linear": 0.8})),
    ("calibration", "sigmas", 100, of(*classified(right=0.8, sure=0.99))),
    ("calibration", "least", 0.5, of(*classified(right=0.8, sure=0.99))),
]  # fmt: skip


@pytest.mark.parametrize(("name", "key", "value", "result"), MOVED, ids=[f"{name}.{key}" for name, key, *_ in MOVED])
def test_another_threshold_gives_another_finding(name: str, key: str, value: float, result: Result) -> None:
    usual = OmegaConf.to_container(CHECKS[name])
    usual.pop("_target_")

    def severity(**thresholds: float) -> str | None:
        finding = partial(getattr(reading, name), **thresholds)(replace(result))
        return None if finding is None else finding.severity

    assert severity(**usual) != severity(**usual | {key: value})
