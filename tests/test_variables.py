"""The value of an environment variable is used by a run and stands in none of its files, unless its name is harmless."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import composed, noted
from omegaconf import OmegaConf

from plumbline import environment
from plumbline.config import ConfigError, check_values
from plumbline.output import redact
from plumbline.record import write_request
from plumbline.run import run_to_the_end
from plumbline.variables import HARMLESS, recorded

TOKEN = "tok-" + "5f2c91aa07"  # in parts: a study copies this file, too
SMALL = ["data=iris", "model.hidden=[4]", "checks=off", "threads=1", "bootstrap=2"]


def holding(folder: Path, text: str) -> list[str]:
    """The files below a folder that hold a text."""
    return [str(file) for file in folder.rglob("*") if file.is_file() and text.encode() in file.read_bytes()]


def test_a_record_keeps_variables_as_written_and_a_run_that_goes_on_reads_them_again(tmp_path, monkeypatch) -> None:
    """In every file of the run, its report and TensorBoard's; the run has their values, the second time the new ones."""
    monkeypatch.setenv("MY_TOKEN", TOKEN)
    monkeypatch.setenv("MY_EPOCHS", "2")
    words = ["question=why ${oc.env:MY_TOKEN}", "tracker=[tensorboard]"]
    cfg = composed(*SMALL, *words, f"outputs={tmp_path}")
    cfg.epochs = "${oc.decode:${oc.env:MY_EPOCHS}}"
    (tmp_path / "run").mkdir()
    write_request(tmp_path / "run", cfg, words)
    assert cfg.question == f"why {TOKEN}"
    cfg.resume = str(tmp_path / "run")
    assert run_to_the_end(cfg, tmp_path / "run", words) == 0
    run = noted(tmp_path / "run")
    assert holding(tmp_path, TOKEN) == [] and run["question"] == "why ${oc.env:MY_TOKEN}"
    assert "${oc.env:MY_TOKEN}" in run["command"] and run["best"]["epoch"] <= 2
    saved = OmegaConf.load(tmp_path / "run" / "config.yaml")
    assert OmegaConf.to_container(saved, resolve=False)["epochs"] == "${oc.decode:${oc.env:MY_EPOCHS}}"
    assert saved.epochs == 2
    monkeypatch.setenv("MY_EPOCHS", "3")
    assert OmegaConf.load(tmp_path / "run" / "config.yaml").epochs == 3


def test_values_that_come_from_a_variable_by_a_detour_stay_as_written(monkeypatch) -> None:
    """By another key, inside a text, in a list and by default; a harmless one is resolved, and so is all else."""
    monkeypatch.setenv("MY_TOKEN", TOKEN)
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    values = {
        "key": "${oc.env:MY_TOKEN}", "other": "${key}", "text": "a-${other}", "list": ["${key}", 1],
        "place": "${oc.env:SCRATCH}/x",
        "unset": "${oc.env:MY_UNSET,secret-default}", "decoded": "${oc.decode:${oc.env:MY_TOKEN}}", "sum": "${place}", "n": None,
        "node": {"a": "${key}", "b": 1}, "alias": "${node}",
    }  # fmt: skip
    found = recorded(OmegaConf.create(values))
    kept = {name: values[name] for name in ("key", "other", "text", "unset", "decoded", "list", "node")}
    assert {name: found[name] for name in kept} == kept
    assert (found["place"], found["sum"], found["n"]) == ("/scratch/me/x", "/scratch/me/x", None)
    assert found["alias"] == values["node"] and TOKEN not in str(found)


def test_a_path_from_a_variable_is_kept_as_written(tmp_path: Path, monkeypatch) -> None:
    """Also where the data lie is not made absolute then; with a harmless name it is."""
    (tmp_path / "t.csv").write_text("a,y\n1,2\n")
    for name in ("MY_PLACE", "DATA"):
        monkeypatch.setenv(name, str(tmp_path))
        (tmp_path / name).mkdir()
        write_request(tmp_path / name, composed("data=csv", "data.target=y", f"data.file=${{oc.env:{name}}}/t.csv"), [])
    texts = [(tmp_path / name / "config.yaml").read_text() for name in ("MY_PLACE", "DATA")]
    assert "file: ${oc.env:MY_PLACE}/t.csv" in texts[0] and f"file: {tmp_path}/t.csv" in texts[1]


def test_a_message_shows_the_name_of_a_variable_in_place_of_its_value(train, tmp_path: Path) -> None:
    done = train(*SMALL[1:], "data=csv", "data.target=y", "data.file=${oc.env:MY_TOKEN}", MY_TOKEN=TOKEN)
    assert done.returncode == 2 and TOKEN not in done.stderr + done.stdout
    assert "${oc.env:MY_TOKEN}" in done.stderr and holding(tmp_path, TOKEN) == []


def test_short_values_and_paths_are_no_secrets_in_messages(tmp_path: Path, monkeypatch) -> None:
    """A value of less than 8 characters occurs by chance, and a path that exists is one to paste."""
    monkeypatch.setenv("MY_WORD", "cosine")
    monkeypatch.setenv("MY_RUNS", str(tmp_path))
    cfg = OmegaConf.create({"a": "${oc.env:MY_WORD}", "b": "${oc.env:MY_RUNS}"})
    assert redact(f"{cfg.a} {cfg.b}") == f"cosine {tmp_path}"


@pytest.mark.parametrize(
    "word",
    [
        "+model.api_key=abc123",
        "+tracker.wandb.access_token=abc123",
        "+model.db_password=abc123",
        "+data.url='postgresql://me:abc123@host/db'",
        "+model.more.secret=abc123",
    ],
)
def test_a_secret_in_a_configuration_is_refused_with_a_way_that_works(word: str, monkeypatch) -> None:
    """The message shows no value; the reference that it names passes this check."""
    base = ["tracker=[wandb]"] if "wandb" in word else []
    with pytest.raises(ConfigError, match=r"a secret is not written into a configuration") as caught:
        check_values(composed(*base, word))
    assert "abc123" not in str(caught.value)
    path, cure = re.search(r"'([\w.]+)=(\$\{oc\.env:(\w+)\})'", str(caught.value)).groups()[:2]
    monkeypatch.setenv(cure[9:-1], "abc123")
    check_values(composed(*base, f"+{path}={cure}"))


def test_only_what_finds_a_job_again_is_recorded_of_slurm(monkeypatch) -> None:
    """Neither the comment, the account nor the user of a job."""
    for name in ("JOB_ID", "JOB_COMMENT", "JOB_ACCOUNT", "JOB_USER", "JOB_NAME", "ARRAY_TASK_ID", "JWT", "SUBMIT_HOST"):
        monkeypatch.setenv(f"SLURM_{name}", "7")
    found = environment.environment()
    assert {key for key in found if key.startswith("SLURM")} == {"SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID"}
    assert not any(re.search("KEY|TOKEN|PASS|SECRET", name) for name in HARMLESS)


@pytest.mark.slow
def test_a_study_keeps_variables_as_written(search, tmp_path: Path) -> None:
    """In study.yaml, best.yaml, the folders of its trials and its pages."""
    words = ["question=why ${oc.env:MY_TOKEN}", "study=s", "optimiser.lr=0.01,0.1", "tracker=[tensorboard]"]
    done = search(*words, MY_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    assert holding(tmp_path, TOKEN) == []
    assert "${oc.env:MY_TOKEN}" in (tmp_path / "outputs/studies/s/best.yaml").read_text()
