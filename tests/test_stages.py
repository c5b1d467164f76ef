"""Stages: each beats the one before, what is done is not done again, and the first that does not ends the climb."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from conftest import ROOT, composed
from omegaconf import OmegaConf

from plumbline import stages
from plumbline.config import ConfigError


@pytest.fixture
def climbed(monkeypatch, tmp_path: Path):
    """`climbed(values)` climbs stages whose runs leave these objectives; returns (status, the commands that were run)."""
    ran: list[list[str]] = []

    def go(values: list[float], **run) -> tuple[int, list[list[str]]]:
        ran.clear()

        def train(command, env):
            words = command[3:]
            folder = Path(next(w for w in words if w.startswith(("hydra.run.dir=", "resume="))).partition("=")[2])
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "overrides.yaml").exists():
                kept = [word for word in words if not word.startswith("hydra.run.dir=")]
                (folder / "overrides.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(kept)))
            ran.append(words)
            value = values[int(folder.name) - 1]
            status = "finished" if value is not None else "preempted"
            noted = {
                "status": status,
                "objective": "val/accuracy",
                "direction": "maximise",
                "best": {"val/accuracy": value},
            }
            (folder / "run.json").write_text(json.dumps(noted | run))
            return type("Done", (), {"returncode": 0 if value is not None else 85})

        monkeypatch.setattr(stages.subprocess, "run", train)
        return stages.climb(tmp_path, [["data.subset=100"], ["data.subset=400"], ["data.subset=1000"]]), list(ran)

    return go


def test_stages_that_each_beat_the_one_before_all_run(climbed) -> None:
    status, ran = climbed([0.8, 0.9, 0.95])
    assert (status, len(ran)) == (0, 3)
    assert climbed([0.8, 0.9, 0.95]) == (0, [])  # the same command again: all is done


@pytest.mark.parametrize("second", [0.8, 0.7])
def test_a_stage_that_does_not_beat_the_one_before_ends_the_climb(climbed, capsys, second: float) -> None:
    status, ran = climbed([0.8, second, 0.95])
    assert (status, len(ran)) == (4, 2)
    assert "stage 2 does not beat stage 1 (0.8000)" in capsys.readouterr().out


def test_a_stage_that_was_preempted_goes_on_where_it_stopped(climbed) -> None:
    status, _ = climbed([0.8, None, 0.95])
    assert status == 85
    status, ran = climbed([0.8, 0.9, 0.95])
    assert status == 0
    assert ran[0][0].startswith("resume=")
    assert len(ran) == 2


def test_other_words_in_a_folder_that_was_begun_are_refused(climbed, tmp_path: Path) -> None:
    climbed([0.8, 0.9, 0.95])
    with pytest.raises(ConfigError, match=r"was begun as data.subset=100, not as data.subset=50"):
        stages.climb(tmp_path, [["data.subset=50"], ["data.subset=400"]])


@pytest.mark.parametrize("words", [["data=digits", "/", "a=1", "/", "b=1"], ["folder", "data=digits", "/", "a=1"]])
def test_a_command_without_folder_or_stages_is_refused(words: list[str]) -> None:
    with pytest.raises(ConfigError):
        stages.parse(words)


def growing() -> list[str]:
    """The words of plumbline.stages in the header of experiment=growing."""
    line = (ROOT / "conf" / "experiment" / "growing.yaml").read_text(encoding="utf-8").splitlines()[2]
    return shlex.split(line.partition("plumbline.stages ")[2].removesuffix(")"))


def test_the_experiment_grows_samples_and_units_at_each_stage() -> None:
    stages_ = [composed(*words) for words in stages.parse(growing())[1]]
    assert [cfg.data.subset for cfg in stages_] == [100, 400, 1077]
    assert [list(cfg.model.hidden) for cfg in stages_] == [[8], [32], [64]]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_digits_get_better_with_more_samples_and_a_wider_network(seed: int, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    folder, *words = growing()  # experiment=growing
    quick = ["checks=off", "report=false", "threads=1", "bootstrap=5", f"seed={seed}"]
    assert stages.climb(*stages.parse([folder, *quick, *words])) == 0
    first, second, third = (
        json.loads((tmp_path / folder / str(k) / "run.json").read_text())["best"]["val/accuracy"] for k in (1, 2, 3)
    )
    assert 0.35 < first < 0.66
    assert (second, third) == pytest.approx((0.955, 0.976), abs=0.01)
