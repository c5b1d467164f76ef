"""Every option of a study builds, and every value of it changes what a study does."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
import yaml
from conftest import ROOT, composed
from optuna.trial import TrialState, create_trial
from test_options import is_test

from plumbline.config import build
from plumbline.contract import check_node

SAMPLERS = sorted(file.stem for file in (ROOT / "conf/search").glob("[!_]*.yaml"))
PRUNERS = sorted(file.stem for file in (ROOT / "conf/pruner").glob("[!_]*.yaml"))
KEYS = sorted(set(yaml.safe_load((ROOT / "conf/search/_common.yaml").read_text())) - {"_target_"})
PROVEN = {  # key of a search -> the test that shows what it does
    "n_trials": "test_search_study.py::test_the_same_command_goes_on_to_the_total_and_then_says_that_it_is_done",
    "timeout": "test_search_study.py::test_after_its_time_no_trial_begins_and_the_same_command_goes_on",
    "workers": "test_search_study.py::test_without_workers_a_study_is_prepared_and_done_by_those_started_by_hand",
    "seeds": "test_search_study.py::test_a_trial_of_several_seeds_has_their_mean_and_spread",
    "seed": "test_search_options.py::test_a_trials_draw_is_a_function_of_seed_and_number",
    "also": "test_search_study.py::test_several_objectives_give_a_front_that_nothing_dominates",
    "confirm": "test_search_study.py::test_the_best_is_confirmed_on_fresh_seeds",
    "max_failures": "test_search_worker.py::test_too_many_failures_end_a_study_with_the_last_words",
    "retry": "test_search_worker.py::test_whatever_ends_a_trial_ends_neither_its_worker_nor_the_study",
    "max_deaths": "test_search_worker.py::test_trials_that_die_one_after_another_end_a_study_until_it_is_started_again",
    "storage": "test_search_storage.py::test_a_study_in_a_database_is_done_as_one_in_a_journal",
    "extend": "test_search_study.py::test_another_space_is_refused_and_a_wider_one_wants_to_be_asked_for",
    "trust": "test_search_trust.py::test_an_edited_study_asks_once_at_both_doors",
}


def test_every_key_of_a_search_has_its_proof() -> None:
    assert set(PROVEN) == set(KEYS)
    assert [name for name in PROVEN.values() if not is_test(name)] == []


def drawn(kind: str, seed: int, numbers: range, **options: Any) -> list[dict[str, Any]]:
    """The points that a search draws, trial by trial, where the objective is a bowl."""
    node = composed(f"search={kind}").search.sampler
    check_node("search.sampler", node, ["plumbline"])
    for key, value in options.items():
        node[key] = value
    make, found = build(node)(), []
    study = optuna.create_study(direction="minimize")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for number in numbers:
        study.sampler = make(1000 * seed + number)
        trial = study.ask()
        point = {"x": trial.suggest_float("x", -3, 3), "y": trial.suggest_float("y", 1e-3, 10, log=True)}
        study.tell(trial, (point["x"] - 1) ** 2 + (point["y"] - 1) ** 2)
        found.append(point)
    return found


@pytest.mark.parametrize("kind", [kind for kind in SAMPLERS if kind not in ("grid", "qmc")])
def test_a_trials_draw_is_a_function_of_seed_and_number(kind: str) -> None:
    first = drawn(kind, 1, range(14))
    assert drawn(kind, 1, range(14)) == first
    assert drawn(kind, 2, range(14)) != first
    assert len({point["x"] for point in first}) == 14  # no two trials begin at the same point


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [("tpe", "startup", 3), ("gp", "startup", 3), ("cmaes", "startup", 8), ("nsga", "population", 4)],
)
def test_a_samplers_value_changes_its_draws(kind: str, key: str, value: int) -> None:
    assert drawn(kind, 1, range(14), **{key: value}) != drawn(kind, 1, range(14))


def ended_at(name: str, curves: list[list[float]], **options: Any) -> list[int]:
    """The epoch at which each of these trials, one after the other, is ended; its last, if it is not. More is better."""
    node = composed(f"pruner={name}").pruner
    check_node("pruner", node, ["plumbline"])
    for key, value in options.items():
        node[key] = value
    pruner = build(node)()
    study, found = optuna.create_study(study_name="law", direction="maximize"), []  # hyperband's brackets: by its name
    for curve in curves:
        trial = study.ask()
        ended = len(curve)
        for epoch, value in enumerate(curve, 1):
            trial.report(value, epoch)
            if pruner is not None and pruner.prune(study, study._storage.get_trial(trial._trial_id)):
                ended = epoch
                break
        study.tell(
            trial, None if ended < len(curve) else max(curve), state=TrialState.PRUNED if ended < len(curve) else None
        )
        found.append(ended)
    return found


GOOD = [[0.5 + 0.01 * k + 0.04 * epoch for epoch in range(9)] for k in range(8)]
BAD = [[0.1 + 0.001 * epoch for epoch in range(9)] for _ in range(3)]


@pytest.mark.parametrize("name", [name for name in PRUNERS if name not in ("none", "wilcoxon", "patient")])
def test_a_pruner_ends_what_is_far_behind_and_spares_the_best(name: str) -> None:
    ended = ended_at(name, [*GOOD, *BAD, [value + 0.2 for value in GOOD[-1]]])
    assert max(ended[8:11]) < 9
    assert ended[11] == 9


def test_no_pruner_ends_nothing() -> None:
    assert ended_at("none", [*GOOD, *BAD]) == [9] * 11


def test_patience_ends_a_curve_that_gets_worse_and_stays_so_and_no_other() -> None:
    worse = [0.1, 0.5, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]
    assert ended_at("patient", [GOOD[0], worse]) == [9, 6]
    assert ended_at("patient", [worse], epochs=5) == [8]
    assert ended_at("patient", [worse], tolerance=0.2) == [9]


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [("median", "trials", 9), ("median", "epochs", 4), ("asha", "least", 4), ("asha", "reduction", 2),
     ("hyperband", "least", 3), ("hyperband", "reduction", 2), ("hyperband", "most", 400)],
)  # fmt: skip
def test_a_pruners_value_changes_when_it_ends(name: str, key: str, value: int) -> None:
    curves = [*GOOD, *BAD, *GOOD, *BAD]
    assert ended_at(name, curves, **{key: value}) != ended_at(name, curves)


def test_wilcoxon_ends_between_seeds_what_is_significantly_worse() -> None:
    def ended(p: float, seeds: int) -> int:
        pruner = build(composed("pruner=wilcoxon", f"pruner.p={p}", f"pruner.seeds={seeds}").pruner)()
        study = optuna.create_study(direction="maximize")
        best = {seed: 0.9 + 0.001 * seed for seed in range(8)}
        study.add_trial(create_trial(value=0.9, intermediate_values=best))
        trial = study.ask()
        for seed in range(8):
            trial.report(0.5 + 0.001 * seed, seed)
            if pruner.prune(study, study._storage.get_trial(trial._trial_id)):
                return seed
        return 8

    assert ended(0.1, 2) < ended(0.01, 2) <= 8
    assert ended(0.1, 2) < ended(0.1, 6) == 5 + 1 - 1
