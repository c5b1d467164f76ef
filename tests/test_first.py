"""What a run starts from is trained first where it was not yet, found again by its configuration, and stands in the record."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, composed, noted, records, wait_until

from plumbline.config import ConfigError
from plumbline.first import located, trained
from plumbline.signals import Signals

FIRST = "experiment=mixup epochs=2 checks=off report=false bootstrap=2 seed=5"
WORDS = ["epochs=1", "report=false", "transfer=weights", "transfer.freeze=[hidden]", "transfer.reinit=[head]"]


def starting(words: str) -> str:
    return f'transfer.file="{words}"'


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "best.pt", weights_only=True)["model"]


def test_an_experiment_that_weights_come_from_is_run_once_and_stands_in_the_record(run, tmp_path: Path, capfd) -> None:
    status, folder = run(*WORDS, starting(FIRST))
    (source,) = (tmp_path / "first").iterdir()
    assert (status, noted(source)["status"], noted(source)["restarts"]) == (0, "finished", 0)
    assert len(records(source)) == 2
    assert torch.equal(*(weights(f)["hidden.0.linear.weight"] for f in (source, folder)))
    told = noted(folder)["transfer"]
    assert told["asked"] == FIRST and told["run"] == str(source)
    assert told["data"] == noted(source)["data"]["fingerprint"] and told["best"] == noted(source)["best"]
    assert told["sha256"] == hashlib.sha256((source / "best.pt").read_bytes()).hexdigest()
    assert "first experiment=mixup" in capfd.readouterr().out
    before = (source / "run.json").stat().st_mtime_ns
    _, again = run(*WORDS, starting(FIRST), "seed=1", folder="again")
    assert (source / "run.json").stat().st_mtime_ns == before
    assert noted(again)["transfer"] == told
    assert noted(source)["seed"] == 5  # what is said of the one run is not said of the other


def test_another_configuration_is_another_run_and_where_it_runs_is_none() -> None:
    first = located(FIRST, [])[1]
    assert located(FIRST.replace("seed=5", "seed=6"), [])[1] != first
    assert located("experiment=mixup", ["threads=1", "seed=7"])[1] == located("experiment=mixup", [])[1]
    elsewhere = located("experiment=mixup", ["outputs=there"])[1]
    assert (elsewhere.parts[0], elsewhere.name) == ("there", located("experiment=mixup", [])[1].name)


@pytest.mark.slow
def test_a_run_that_is_asked_to_leave_while_the_first_one_trains_goes_on_with_both(tmp_path: Path) -> None:
    slow = FIRST.replace("epochs=2", "epochs=100")
    words = [sys.executable, "-m", "plumbline.train", *WORDS, "checks=off", starting(slow), "hydra.run.dir=second"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen(words, cwd=tmp_path, env=variables)
    wait_until(lambda: any(tmp_path.glob("outputs/first/*/metrics.jsonl")), process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 85
    (source,) = (tmp_path / "outputs" / "first").iterdir()
    assert noted(source)["status"] == "preempted"
    assert not (tmp_path / "second" / "best.pt").exists()
    words = [*words[:3], "resume=second"]
    done = subprocess.run(words, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (noted(source)["status"], noted(source)["restarts"], len(records(source))) == ("finished", 1, 100)
    assert torch.equal(*(weights(f)["hidden.0.linear.weight"] for f in (source, tmp_path / "second")))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("experiment=mixpu", r"transfer.file=experiment=mixpu: .*did you mean 'mixup'"),
        ("experiment=mixup epcohs=3", r"transfer.file=.*did you mean 'epochs'"),
        ("experiment=mixup allow=[os]", r"allow=\[os\] cannot be said of a run that is trained first"),
        ("experiment=mixup hydra.run.dir=x", r"hydra.run.dir=x cannot be said"),
        ("experiment=mixup --config-dir=x", r"--config-dir=x cannot be said"),
        ("experiment=transfer", r"starts from experiment=five_classes itself"),
    ],
)
def test_what_cannot_be_trained_first_is_refused_before_anything_is(
    run, tmp_path: Path, said: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(*WORDS, starting(said))
    assert not list(tmp_path.iterdir())


def test_several_processes_say_what_to_run_before_them(tmp_path: Path) -> None:
    cfg = composed(*WORDS, starting(FIRST), f"outputs={tmp_path}")
    with pytest.raises(
        ConfigError, match="several processes do not train it; say first, alone:  scripts/train experiment=mixup"
    ):
        trained(cfg, cfg, [], tmp_path / "run", Signals(), alone=False)


@pytest.mark.slow
def test_a_first_run_that_does_not_end_well_ends_the_second_with_its_folder(run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"its run ended with status 3; see .*first"):
        run(*WORDS, starting(f"{FIRST} optimiser.lr=1e30"))
    assert not (tmp_path / "run").exists()
