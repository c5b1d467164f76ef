"""On a real SLURM: a study whose workers are tasks of an array, which may be cancelled, preempted and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import records, trials
from slurm_here import TRAINING, Here, running, until
from test_slurm_survival import parent_of

from plumbline.files import read_json

pytestmark = pytest.mark.slow
EPOCHS = 80
STUDY = (
    "-m", *TRAINING, "resources.cpus=4", "search.workers=4", "study=s", "search=random", "search.n_trials=24",
    "optimiser.lr=tag(log,interval(1e-4,1e-2))", f"epochs={EPOCHS}", "threads=1", "bootstrap=10", "save_minutes=0.01",
)  # fmt: skip


@pytest.fixture(scope="module")
def here() -> Iterator[Here]:
    yield from running()


def submitter(here: Here, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "plumbline.train", *STUDY]
    return subprocess.Popen(
        command, cwd=folder, env=here.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def submitted(here: Here, folder: Path) -> str:
    """Submit the study; return the number of the array."""
    process = submitter(here, folder)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return read_json(folder / "outputs/studies/s/job.json")["job"]


def ended(study: Path) -> int:
    return sum((run / "predictions.npz").exists() for run in study.glob("0*"))


def logs(study: Path) -> str:
    return "\n".join(path.read_text() for path in study.glob("slurm-*.out"))


def whole(study: Path, count: int) -> None:
    """All trials are there, once, and each has every epoch once."""
    rows = trials(study)
    assert Counter(row["status"] for row in rows) == {"finished": count}, logs(study)
    assert sorted(path.name for path in study.glob("0*")) == [f"{number:04d}" for number in range(count)]
    assert len({row["optimiser.lr"] for row in rows}) == count
    for number in range(count):
        assert [record["epoch"] for record in records(study / f"{number:04d}")] == list(range(1, EPOCHS + 1))
    assert {"best.yaml", "report.html"} <= {path.name for path in study.iterdir()}
    assert list(study.glob(".started-*")) == list(study.glob(".worked-*")) == []


def test_a_study_survives_the_death_of_its_submitter_a_cancelled_task_a_preempted_and_a_killed_one(
    here: Here, tmp_path: Path
) -> None:
    study = tmp_path / "outputs/studies/s"
    process = submitter(here, tmp_path)
    until((study / "job.json").exists, "the submission")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    job = read_json(study / "job.json")["job"]
    until(lambda: ended(study) >= 3, "three trials", 120)
    here("scancel", f"{job}_1")
    above = here(
        "sbatch", "--parsable", "--partition=urgent", "--nodelist=n1", "--cpus-per-task=4", "--output=/dev/null", "--wrap=sleep 1"
    ).strip()  # fmt: skip
    here.gone(above)
    until(lambda: ended(study) >= 8, "eight trials", 120)
    until(lambda: begun(study), "a trial that has only begun", 120)
    trial = begun(study)[0]
    os.kill(parent_of(str(read_json(trial / "run.json")["process"]["id"])), signal.SIGKILL)
    until(lambda: here("squeue", "--noheader", f"--jobs={job}", check=False) == "", "the array to end", 400)
    whole(study, 24)
    assert read_json(trial / "run.json")["restarts"] == 1
    assert "again: yes" in logs(study)
    done = subprocess.run(
        [sys.executable, "-m", "plumbline.train", *STUDY], cwd=tmp_path, env=here.environment, capture_output=True, text=True
    )  # fmt: skip
    assert (done.returncode, "study s is done" in done.stdout) == (0, True), done.stdout + done.stderr
    assert read_json(study / "job.json")["jobs"] == [job]


def begun(study: Path) -> list[Path]:
    """The runs of trials that are in their first half, and have left something to go on from."""
    return [run for run in study.glob("0*") if (run / "last.pt").exists() and 5 <= len(records(run)) <= EPOCHS / 2]


def test_a_cancelled_array_is_gone_and_the_same_command_submits_what_is_missing(here: Here, tmp_path: Path) -> None:
    study = tmp_path / "outputs/studies/s"
    job = submitted(here, tmp_path)
    until(lambda: ended(study) >= 1, "a trial", 120)
    assert submitted(here, tmp_path) == job  # all of them are there still
    here("scancel", job)
    until(lambda: here("squeue", "--noheader", f"--jobs={job}", check=False) == "", "the array to end")
    time.sleep(8)  # a requeued task would wait for six seconds
    assert here("squeue", "--noheader", f"--jobs={job}", check=False) == ""
    states = Counter(read_json(run / "run.json")["status"] for run in study.glob("0*"))
    assert states["stopped"] >= 1
    assert set(states) <= {"finished", "stopped"}, logs(study)
    again = submitted(here, tmp_path)
    assert again != job
    until(lambda: here("squeue", "--noheader", f"--jobs={again}", check=False) == "", "the array to end", 400)
    whole(study, 24)
