"""On a real SLURM: what a job survives, what ends it, and that nothing is lost or done twice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, noted, records
from slurm_here import Here, running, until
from test_resume import result

from plumbline.record import read_run

EPOCHS = 160
LONG = (f"epochs={EPOCHS}", "checks=off", "regulariser=[dropout]", "ema=0.9", "save_minutes=0.01")


@pytest.fixture(scope="module")
def here() -> Iterator[Here]:
    yield from running()


@pytest.fixture(scope="module")
def uninterrupted(here: Here, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    here.gone(here.train(folder, *LONG))
    assert noted(folder / "run")["status"] == "finished", log(folder)
    return result(folder / "run")


def log(folder: Path) -> str:
    return "\n".join(path.read_text() for path in (folder / "run").glob("slurm-*.out"))


def trained(folder: Path, epochs: int) -> bool:
    path = folder / "run" / "metrics.jsonl"
    return path.exists() and len(path.read_text().splitlines()) >= epochs


def requeued(here: Here, job: str, folder: Path) -> None:
    here("scontrol", "requeue", job)


def preempted(here: Here, job: str, folder: Path) -> None:
    above = here(
        "sbatch", "--parsable", "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 2"
    )
    here.gone(above.strip())


def killed(here: Here, job: str, folder: Path) -> None:
    os.kill(noted(folder / "run")["process"]["id"], signal.SIGKILL)


def warned(here: Here, job: str, folder: Path) -> None:
    here("scancel", "--signal=USR1", job)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [1, 20, 45, 70, 100])
@pytest.mark.parametrize("stop", [warned, requeued, preempted, killed], ids=lambda stop: stop.__name__)
def test_a_job_that_is_stopped_goes_on_to_the_bits_of_one_that_was_not(
    stop, moment: int, here: Here, uninterrupted: dict[str, object], tmp_path: Path
) -> None:
    job = here.train(tmp_path, *LONG)
    until(lambda: trained(tmp_path, moment), f"epoch {moment}")
    stop(here, job, tmp_path)
    here.gone(job)
    run = noted(tmp_path / "run")
    assert (run["status"], run["restarts"]) == ("finished", 1), log(tmp_path)
    assert run["environment"]["SLURM_JOB_ID"] == job
    assert [record["epoch"] for record in records(tmp_path / "run")] == list(range(1, EPOCHS + 1))
    assert result(tmp_path / "run") == uninterrupted


@pytest.mark.slow
@pytest.mark.parametrize("moment", [1, 20, 45, 70, 100])
def test_a_job_whose_node_dies_goes_on_elsewhere(
    moment: int, here: Here, uninterrupted: dict[str, object], tmp_path: Path
) -> None:
    job = here.train(tmp_path, *LONG)
    until(lambda: trained(tmp_path, moment), f"epoch {moment}")
    node = here("squeue", "--noheader", "--format=%N", f"--jobs={job}").strip()
    daemon = int((here.folder / "run" / f"slurmd-{node}.pid").read_text())
    keepers = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and f"slurmstepd: [{job}." in command_of(pid)]
    for pid in (daemon, *keepers, *below(keepers)):  # all that a node without power would stop
        os.kill(pid, signal.SIGKILL)
    until(lambda: "RUNNING" not in here.state(job), "SLURM to miss the node")
    here(ROOT / "slurm/here/up")
    here.gone(job)
    run = noted(tmp_path / "run")
    assert (run["status"], run["restarts"]) == ("finished", 1), log(tmp_path)
    assert [record["epoch"] for record in records(tmp_path / "run")] == list(range(1, EPOCHS + 1))
    assert result(tmp_path / "run") == uninterrupted


def below(processes: list[int]) -> list[int]:
    """The processes that these started, and those that they did: the job's script, srun, and Python."""
    found, parents = [], set(processes)
    every = {int(pid): parent_of(pid) for pid in os.listdir("/proc") if pid.isdigit()}
    while more := [pid for pid, parent in every.items() if parent in parents and pid not in found]:
        found += more
        parents |= set(more)
    return found


def parent_of(pid: str) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def command_of(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


SLEEPING = {
    "mine.py": """
import time
from plumbline.loop import supervised

def sleeping(training, batches, *, seconds: float):
    time.sleep(seconds)
    return supervised(training, batches)
""",
    "conf/step/sleeping.yaml": "# A step that takes so long on any machine.\n_target_: mine.sleeping\nseconds: 0\n",
}


@pytest.mark.slow
def test_a_limit_shorter_than_the_run_costs_nothing_but_waiting(here: Here, tmp_path: Path) -> None:
    """A start under a limit of three minutes is warned after 115 s at the latest, so 240 s of sleep need three of them."""
    for name, text in SLEEPING.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    words = (
        f"--config-dir={tmp_path / 'conf'}", "allow=[plumbline,torch.nn,torch.optim,mine]", "step=sleeping", "data=iris",
        "batch_size=128", "epochs=240", "checks=off", "regulariser=[dropout]", "ema=0.9",
    )  # fmt: skip
    long, short = tmp_path / "long", tmp_path / "short"
    long.mkdir(), short.mkdir()
    limited = here.train(short, *words, "step.seconds=1", "resources.time=0:03:00")
    here.gone(here.train(long, *words), 300)
    here.gone(limited, 600)
    assert noted(short / "run")["status"] == "finished", log(short)
    assert noted(short / "run")["restarts"] >= 2
    assert noted(long / "run")["restarts"] == 0
    assert result(short / "run") == result(long / "run")


@pytest.mark.slow
def test_a_cancelled_job_is_gone_stays_gone_and_its_run_is_stopped_and_can_go_on(here: Here, tmp_path: Path) -> None:
    job = here.train(tmp_path, *LONG)
    until(lambda: trained(tmp_path, 5), "epoch 5")
    here("scancel", job)
    here.gone(job)
    time.sleep(8)  # a requeued job would wait for six seconds
    assert here.state(job) == ""
    run = read_run(tmp_path / "run")
    assert (run["status"], run["restarts"]) == ("stopped", 0), log(tmp_path)
    again = here.train(tmp_path, f"resume={tmp_path / 'run'}")
    here.gone(again)
    run = noted(tmp_path / "run")
    assert (run["status"], run["restarts"]) == ("finished", 1), log(tmp_path)


@pytest.mark.slow
def test_what_is_edited_after_submission_changes_nothing_in_the_queued_job(here: Here, tmp_path: Path) -> None:
    import shutil

    clone = tmp_path / "clone"
    for part in ("conf", "src", "slurm"):
        shutil.copytree(ROOT / part, clone / part, ignore=shutil.ignore_patterns("__pycache__"))
    (clone / "lab").mkdir()
    (clone / "lab/mine.py").write_text(
        "from math import prod\nfrom torch import nn\n\n\ndef flat(spec):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(prod(spec.shape), spec.outputs))\n"
    )
    (clone / "lab/conf/model").mkdir(parents=True)
    (clone / "lab/conf/model/mine.yaml").write_text("# Mine, and only mine.\n_target_: lab.mine.flat\n")
    here("git", "init", "--quiet", clone)
    here.environment["PYTHONPATH"] = str(clone / "src")
    here("scontrol", "update", "partition=normal", "state=down")
    try:
        words = (
            "model=mine",
            "epochs=2",
            f"--config-dir={clone / 'lab/conf'}",
            "allow=[plumbline,torch.nn,torch.optim,lab]",
        )
        job = here.train(clone, *words)
        for file in ("src/plumbline/models/mlp.py", "src/plumbline/run.py", "conf/train.yaml", "lab/mine.py"):
            (clone / file).write_text("broken(")
    finally:
        here("scontrol", "update", "partition=normal", "state=up")
        here.environment["PYTHONPATH"] = str(ROOT / "src")
    here.gone(job)
    assert noted(clone / "run")["status"] == "finished", log(clone)
    assert noted(clone / "run")["parameters"] == 650


@pytest.mark.slow
def test_a_run_that_waits_or_runs_is_not_submitted_twice(here: Here, tmp_path: Path) -> None:
    import subprocess
    import sys

    job = here.train(tmp_path, *LONG)
    words = ["launcher=slurm", "cluster=here", "resources=cpu", f"resume={tmp_path / 'run'}"]
    done = subprocess.run(
        [sys.executable, "-m", "plumbline.train", *words],
        env=here.environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert f"its job {job} is " in done.stderr
    here("scancel", job)
    here.gone(job)


@pytest.mark.slow
def test_it_is_submitted_from_inside_an_allocation_too(here: Here, tmp_path: Path) -> None:
    import sys

    words = (
        "launcher=slurm", "cluster=here", "resources=cpu", "resources.time=0:10:00", "epochs=2",
        f"hydra.run.dir={tmp_path / 'run'}",
    )  # fmt: skip
    allocation = ("salloc", "--quiet", "--nodes=2", "--ntasks=4", "--mem-per-cpu=100M", "--time=5")
    here(*allocation, sys.executable, "-m", "plumbline.train", *words, cwd=tmp_path)
    job = noted_job(tmp_path)
    here.gone(job)
    assert noted(tmp_path / "run")["status"] == "finished", log(tmp_path)
    assert noted(tmp_path / "run")["environment"]["SLURM_JOB_ID"] == job


def noted_job(folder: Path) -> str:
    import json

    return json.loads((folder / "run" / "job.json").read_text())["job"]
