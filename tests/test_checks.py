"""Checks as such: presets, ids, muting, ranking, stopping, and that they never change a run."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from conftest import composed, noted, records
from omegaconf import OmegaConf

from plumbline import exits
from plumbline.checks.core import Finding, configured, ranked, untouched
from plumbline.config import FAMILIES, ConfigError, check_values

SHORT = ["data.subset=200", "epochs=2"]
FAMILY = {family for phase in FAMILIES.values() for family in phase} - {"init"}
INIT = [f"checks.mute=[{','.join(sorted(FAMILY))}]", "checks.baselines.linear=null", "checks.baselines.neighbours=null"]
BAD = ["init=truncated_normal", "init.std=3", "init.head_std=3"]  # a first loss far above ln 10


def ids(found: dict, *severities: str) -> list[str]:
    return [item["id"] for item in found["findings"] if item["severity"] in severities]


def test_a_finding_has_the_id_of_its_place_in_the_configuration(run) -> None:
    _, folder = run(*SHORT)
    cfg = composed().checks
    known = [name for phase in FAMILIES for name, _ in configured(cfg, phase)]
    assert len(set(known)) == len(known) > 3
    found = [item["id"] for item in noted(folder)["findings"]]
    assert found == [name for name in known if name in found]  # in the order of the configuration


def test_full_has_every_check_that_quick_has_and_off_has_none() -> None:
    full, quick, off = (
        {name for phase in FAMILIES for name, _ in configured(composed(f"checks={preset}").checks, phase)}
        for preset in ("full", "quick", "off")
    )
    assert off == set()
    assert quick <= full


@pytest.mark.parametrize("preset", ["quick", pytest.param("full", marks=pytest.mark.slow)])
def test_checks_change_no_number_of_a_run(run, preset: str) -> None:
    words = [*SHORT, "regulariser=[dropout,mixup]", "augment=[shift]", "checks.stop_on=never"]
    _, without = run(*words, "checks=off", folder="off")
    _, with_them = run(*words, f"checks={preset}", folder=preset)
    assert records(without) == records(with_them)
    kept = [np.load(folder / "predictions.npz")["outputs"] for folder in (without, with_them)]
    assert np.array_equal(*kept)
    assert noted(without)["findings"] == []


def test_random_states_are_what_they_were() -> None:
    before = random.random, np.random.rand, lambda: torch.rand(1).item()
    for draw in before:
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        expected = draw()
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        with untouched():
            draw()
        assert draw() == expected


def test_a_muted_check_is_not_asked(run) -> None:
    _, loud = run(*SHORT, *BAD, *INIT, folder="loud")
    assert "init.loss" in ids(noted(loud), "warn")
    for word in ("init.loss", "init"):
        _, quiet = run(*SHORT, *BAD, *INIT[1:], INIT[0].replace("[", f"[{word},"), folder=word)
        assert "init.loss" not in [item["id"] for item in noted(quiet)["findings"]]
    _, gone = run(*SHORT, *BAD, *INIT, "checks.init.loss=null", folder="gone")
    assert "init.loss" not in [item["id"] for item in noted(gone)["findings"]]


def test_stop_on_ends_the_run_before_its_first_epoch_with_status_4(run) -> None:
    status, folder = run(*SHORT, *BAD, *INIT, "checks.stop_on=warn", "report=true")
    found = noted(folder)
    assert (status, found["status"]) == (exits.CHECK_FAILED, "failed")
    assert records(folder) == []
    assert (folder / "report.html").exists()
    assert run(*SHORT, *BAD, *INIT, folder="goes on")[0] == exits.DONE
    fatal = ["checks.stop_on=fail", "checks.fatal=[init.loss]"]
    assert run(*SHORT, *BAD, *INIT, *fatal, folder="fatal")[0] == exits.CHECK_FAILED


def test_a_check_that_breaks_costs_its_finding_and_not_the_run(run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(view: object) -> Finding:
        raise ZeroDivisionError("nothing to divide by")

    broken.__module__ = "plumbline.checks.data"
    monkeypatch.setattr("plumbline.checks.data.nonfinite", broken)
    status, folder = run(*SHORT)
    told = next(item for item in noted(folder)["findings"] if item["id"] == "data.nonfinite")
    assert (status, told["severity"]) == (exits.DONE, "info")
    assert "ZeroDivisionError: nothing to divide by" in told["message"]


def test_causes_stand_before_symptoms_and_alarms_before_the_rest() -> None:
    def item(severity: str, symptom: bool, name: str) -> dict:
        return {"severity": severity, "symptom": symptom, "id": name}

    given = [
        item("ok", False, "e"), item("fail", True, "c"), item("warn", False, "b"), item("fail", False, "a"),
        item("warn", True, "d"), item("info", False, "x"),
    ]  # fmt: skip
    assert [it["id"] for it in ranked(given)] == ["a", "b", "c", "d", "x", "e"]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("checks.mute=[init.los]", r"checks.mute=\[init.los\]: there is no such check \(did you mean 'init.loss'"),
        ("checks.stop_on=always", "checks.stop_on=always: must be one of never, fail, warn"),
        ("checks.samples=3", r"checks.samples=3: must be a whole number in \[10, 100000000\]"),
        ("checks.seconds=0", r"checks.seconds=0.0: must be a number in \[1e-30, 1e30\]"),
        ("checks.epochs=0", "checks.epochs=0: must be a whole number of at least 1"),
    ],
)
def test_a_mistake_in_the_checks_is_said(word: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_values(composed(word))


def test_a_check_that_is_not_there_is_refused_with_those_that_are() -> None:
    cfg = composed()
    OmegaConf.update(cfg, "checks.data.nonfinit", {"samples": 3}, force_add=True)
    with pytest.raises(ConfigError, match=r"checks\.data\.nonfinit: is not in this option of checks.*nonfinite"):
        check_values(cfg)


def test_the_gate_trains_nothing_and_says_what_was_found(run, capsys: pytest.CaptureFixture[str]) -> None:
    gate = ["data.subset=300", "checks=full", "epochs=0", "report=true"]
    status, folder = run(*gate, *BAD, *INIT, "checks.fatal=[init.loss]")
    assert status == exits.CHECK_FAILED
    assert "ended by a check: init.loss: the first loss is" in capsys.readouterr().err
    assert (folder / "report.html").exists() and records(folder) == []
    status, folder = run(*gate, folder="good")
    assert status == exits.DONE and len(noted(folder)["findings"]) > 50
