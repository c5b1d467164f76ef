"""What becomes of a study when trials, workers and starters die: nothing is lost, nothing is done twice, all is said."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from statistics import median

import optuna
import pytest
import yaml
from conftest import ROOT, TINY, trials
from optuna.trial import create_trial
from test_search_report import LR, study_of

from plumbline.search.compose import Points
from plumbline.search.storage import open_storage
from plumbline.search.study import Study
from plumbline.search.trial import draw as draw_point
from plumbline.search.watch import View
from plumbline.search.worker import Worker

KINDS = ["none", "raise", "segfault", "kill", "infinite", "exit"]


def test_whatever_ends_a_trial_ends_neither_its_worker_nor_the_study(faulty, tmp_path: Path) -> None:
    done = faulty("study=s", f"step.kind={','.join(KINDS)}", "search.retry=1")
    assert (done.returncode, done.stderr) == (0, "")
    rows = {row["step.kind"]: row for row in trials(tmp_path / "outputs/studies/s")}
    assert {kind: row["status"] for kind, row in rows.items()} == {
        "none": "finished", "raise": "failed", "segfault": "failed", "kill": "failed", "infinite": "diverged", "exit": "failed",
    }  # fmt: skip
    assert "your code raised RuntimeError: a mistake of mine" in rows["raise"]["reason"]
    assert "lab/step.py, line" in rows["raise"]["reason"]
    assert rows["segfault"]["reason"] == "was ended by SIGSEGV, 2 times at the same place"
    assert rows["kill"]["reason"] == "was ended by SIGKILL (no memory left, most likely), 2 times at the same place"
    assert "the loss is not finite at epoch 2" in rows["infinite"]["reason"]
    for kind in ("raise", "segfault", "kill", "infinite"):  # each is named on the terminal, too
        assert rows[kind]["reason"].splitlines()[-1] in done.stdout
    assert json.loads((tmp_path / "outputs/studies/s/0002/run.json").read_text())["restarts"] == 1


@pytest.mark.slow
def test_too_many_failures_end_a_study_with_the_last_words(faulty, tmp_path: Path) -> None:
    words = ["study=s", "step.kind=raise", "seed=range(8)", "search.max_failures=2"]
    done = faulty(*words)
    assert done.returncode == 2
    assert "search.max_failures=2: 3 trials failed" in done.stderr
    assert "a mistake of mine" in done.stdout
    assert len(list((tmp_path / "outputs/studies/s").glob("0*"))) == 3
    again = faulty(*words)
    assert (again.returncode, "3 trials failed" in again.stderr) == (2, True)
    faulty(*words[:-1], "search.max_failures=8")
    assert Counter(row["status"] for row in trials(tmp_path / "outputs/studies/s")) == {"failed": 8}


@pytest.mark.slow
def test_what_a_machine_does_is_not_in_the_budget_of_failures(faulty, tmp_path: Path) -> None:
    """A trial that dies again and again ends all the same."""
    words = ["search.max_failures=0", "search.retry=1", "search.workers=1"]
    done = faulty("study=s", "step.kind=kill,segfault,none", *words)
    assert (done.returncode, done.stderr) == (0, "")
    rows = trials(tmp_path / "outputs/studies/s")
    assert [row["status"] for row in rows] == ["failed", "failed", "finished"]
    assert [row["reason"].rpartition(", ")[2] for row in rows[:2]] == ["2 times at the same place"] * 2


def test_a_trial_that_died_and_then_failed_by_itself_is_counted(tmp_path: Path) -> None:
    worker = worker_of(prepared(tmp_path, retry=2, max_failures=0))
    trial = worker.queue.take()
    for _ in range(2):
        worker.queue.died(trial, "was ended by SIGKILL")
        trial = worker.queue.take()
    assert not worker.queue.too_many_failures()
    worker.queue.tell(trial, "failed", "a mistake of mine")
    assert worker.queue.too_many_failures()
    other = worker_of(prepared(tmp_path / "other", retry=2, max_failures=0))
    trial = other.queue.take()
    for _ in range(3):
        other.queue.died(other.storage.get_trial(trial._trial_id), "was ended by SIGKILL")
        trial = other.queue.take() or trial
    assert [one.user_attrs["status"] for one in other.queue.trials()[:1]] == ["failed"]
    assert not other.queue.too_many_failures()


def test_trials_that_die_one_after_another_end_a_study_until_it_is_started_again(tmp_path: Path) -> None:
    study = prepared(tmp_path, retry=0, max_deaths=2)
    worker = worker_of(study)

    def die(times: int) -> list[int]:
        taken = []
        for _ in range(times):
            if (trial := worker.queue.take()) is not None:
                taken.append(trial.number)
                worker.queue.died(trial, "was ended by SIGKILL")
        return taken

    assert die(2) == [0, 1]
    worker.queue.tell(worker.queue.take(), "diverged", "the loss is not finite")  # what ends otherwise is between them
    assert die(9) == [3, 4, 5]
    said = worker.queue.too_many_deaths()
    assert said.startswith("search.max_deaths=2: 3 trials died one after another and none ended otherwise; trial 5 was")
    assert worker.work() == 1
    worker = worker_of(study)
    assert (worker.queue.too_many_deaths(), die(9)) == ("", [6, 7, 8])


def test_a_trial_that_dies_at_one_place_and_then_at_an_earlier_one_has_not_got_further(tmp_path: Path) -> None:
    worker = worker_of(prepared(tmp_path, retry=2))
    places = iter([3, 2, 3, 4, 3, 4])
    worker.queue.progress = lambda number: next(places)
    trial = worker.queue.take()
    notes = []
    while trial is not None and trial.number == 0:
        worker.queue.died(worker.storage.get_trial(trial._trial_id), "was ended by SIGSEGV")
        notes.append(worker.queue.trials()[0].user_attrs["died"])
        trial = worker.queue.take()
    assert [(note["times"], note["at"], note["over"]) for note in notes] == [(1, 3, False), (2, 3, False), (3, 3, True)]


@pytest.mark.slow
def test_a_study_in_which_every_trial_is_killed_ends_with_what_killed_them(faulty, tmp_path: Path) -> None:
    words = ["study=s", "step.kind=kill", "seed=range(9)", "search.max_deaths=1", "search.retry=1", "search.workers=1"]
    done = faulty(*words)
    assert (done.returncode, done.stderr.count("plumbline: ")) == (1, 1)
    assert "search.max_deaths=1: 2 trials died one after another" in done.stderr
    assert "trial 1 was ended by SIGKILL (no memory left, most likely), 2 times at the same place" in done.stderr
    assert "going on after 1 epochs and 0 steps" in done.stderr  # its last lines
    assert len(list((tmp_path / "outputs/studies/s").glob("0*"))) == 2
    again = faulty(*words[:3], "search.max_deaths=9", *words[4:])
    assert again.returncode == 0, again.stderr
    assert Counter(row["status"] for row in trials(tmp_path / "outputs/studies/s")) == {"failed": 9}


@pytest.mark.slow
def test_a_full_disk_is_said_in_one_message_and_the_study_goes_on_when_there_is_room(search, tmp_path: Path) -> None:
    """A limit on the size of files stands for it."""
    words = [sys.executable, "-m", "plumbline.train", "-m", *TINY, "study=s", "seed=0,1"]
    limit = "import os, sys; from resource import *; setrlimit(RLIMIT_FSIZE, (3000, 3000)); os.execv(sys.argv[1], sys.argv[1:])"
    full = subprocess.run(
        [sys.executable, "-c", limit, *words], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    folder = tmp_path / "outputs/studies/s"
    assert (full.returncode, full.stdout) == (1, "")
    assert full.stderr == f"plumbline: {folder}: the disk is full; make room, then the same command goes on\n"
    assert search("study=s", "seed=0,1").returncode == 0
    assert [row["status"] for row in trials(folder)] == ["finished"] * 2


# --- death -----------------------------------------------------------------------------------------------------------

LONG = ["study=k", "search.workers=2", "search=random", "optimiser.lr=tag(log,interval(1e-4,1e-1))"]


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "plumbline.train", "-m", *TINY, *words]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


GATE = {
    "lab/step.py": """
import os, time
from pathlib import Path
from plumbline.loop import supervised

def gate(training, batches):
    if training.where.startswith("epoch 2") and Path("shut").exists():
        Path("at", str(os.getpid())).write_text(f"{os.getppid()} {os.environ.get('CUDA_VISIBLE_DEVICES')}")
        while Path("shut").exists():
            time.sleep(0.02)
    return supervised(training, batches)
""",
    "lab/conf/step/gate.yaml": """
# A step that waits in the second epoch as long as there is a file `shut`, and says in `at` who waits.
_target_: lab.step.gate
""",
}


def gated(folder: Path) -> list[str]:
    """Words of a study whose trials wait in their second epoch until the file `shut` is gone."""
    for name, text in GATE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "at").mkdir()
    (folder / "shut").touch()
    return ["--config-dir=lab/conf", "allow=[plumbline,torch.nn,torch.optim,lab]", "step=gate"]


def prepared(folder: Path, known: bool = True, **search: object) -> Study:
    """A study over the learning rate to which workers can be set; known: without that one tries its parts first."""
    folder.mkdir(exist_ok=True)
    sampler = {"_target_": "plumbline.search.samplers.independent"}
    more = {"n_trials": 30, "timeout": None, "workers": 1, "storage": None, "extend": False, "sampler": sampler}
    study = study_of(folder, (LR,), **more | search)
    study.kind, study.pruner = "random", {"_target_": "plumbline.search.pruners.none"}
    study.write()
    opened = optuna.create_study(study_name="s", storage=open_storage(folder, None), direction="maximize")
    if known:
        opened.set_user_attr("objectives", [["val/accuracy", "maximise"]])
    return study


class Nobody:
    """No signal has come."""

    status = None


def worker_of(study: Study) -> Worker:
    (study.folder / "workers").mkdir(exist_ok=True)
    composed = Points(study.space, study.fixed, study.config_name, study.folders(snapshot=True))
    return Worker(study, Nobody(), float("inf"), composed)


def below(study: Path) -> list[int]:
    """The processes of a study's workers and trials."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"plumbline.search.worker" in words and f"study={study}".encode() in words:
            found.append(int(entry.parent.name))
    return found


def until(condition, seconds: float = 90) -> None:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds
        time.sleep(0.01)


def killed_once(folder: Path, moments: random.Random, *words: str) -> None:
    """Start the command, wait until a trial is new, then kill workers, trials and starter, in any order."""
    study = (folder / "outputs/studies/k").resolve()
    before = set(study.glob("[0-9]*/run.json"))
    process = start(folder, *words)
    until(lambda: set(study.glob("[0-9]*/run.json")) != before or process.poll() is not None)
    time.sleep(moments.uniform(0, 1.0))
    numbers = [*below(study), process.pid]
    moments.shuffle(numbers)
    for number in numbers:
        try:
            os.kill(number, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.communicate()


def survives(folder: Path, kills: int, count: int, seed: int) -> int:
    words, moments = [*LONG, f"search.n_trials={count}", "epochs=8"], random.Random(seed)
    for _ in range(kills):
        killed_once(folder, moments, *words)
    process = start(folder, *words)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    study = folder / "outputs/studies/k"
    rows = trials(study)
    assert Counter(row["status"] for row in rows) == {"finished": count}
    assert [row["folder"] for row in rows] == [f"{number:04d}" for number in range(count)]
    assert sorted(path.name for path in study.glob("[0-9]*")) == [f"{number:04d}" for number in range(count)]
    assert len({row["optimiser.lr"] for row in rows}) == count
    restarts = 0
    for row in rows:
        run = json.loads((study / row["folder"] / "run.json").read_text())
        settings = yaml.safe_load((study / row["folder"] / "config.yaml").read_text())
        assert settings["optimiser"]["lr"] == float(row["optimiser.lr"])
        assert run["best"]["val/accuracy"] == float(row["val/accuracy"])
        assert len((study / row["folder"] / "metrics.jsonl").read_text().splitlines()) == 8
        restarts += run["restarts"]
    return restarts


@pytest.mark.slow
def test_a_study_killed_with_its_workers_goes_on_to_its_total_with_nothing_lost_or_repeated(tmp_path: Path) -> None:
    survives(tmp_path, 3, 12, seed=0)


@pytest.mark.slow
def test_ten_kills_of_forty_trials_leave_forty(tmp_path: Path) -> None:
    assert survives(tmp_path, 10, 40, seed=1) >= 1  # some went on from a checkpoint


def test_a_trial_of_a_dead_worker_goes_on_from_its_checkpoint_to_the_same_numbers(faulty, tmp_path: Path) -> None:
    words = [
        "--config-dir=lab/conf",
        "allow=[plumbline,torch.nn,torch.optim,lab]",
        "step=fault",
        "step.kind=slow",
        "seed=0",
    ]
    process = start(tmp_path, *words, "study=k")
    study = (tmp_path / "outputs/studies/k").resolve()
    until(
        lambda: (study / "0000/metrics.jsonl").exists() and (study / "0000/metrics.jsonl").read_text().count("\n") >= 1
    )
    for number in below(study):
        os.kill(number, signal.SIGKILL)
    output, _ = process.communicate()
    assert (process.returncode, "plumbline: the workers were ended by SIGKILL\n" in output) == (1, True)
    assert "not done; the same command goes on with it\n" in output
    other = faulty("study=k", "step.kind=slow", "seed=0")
    assert other.returncode == 0, other.stdout + other.stderr
    alone = faulty("study=alone", "step.kind=none", "seed=0")
    assert alone.returncode == 0
    run = json.loads((study / "0000/run.json").read_text())
    assert run["restarts"] == 1
    assert trials(study)[0]["val/accuracy"] == trials(study.parent / "alone")[0]["val/accuracy"]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 85), (signal.SIGUSR1, 85)])
def test_a_signal_to_the_starter_saves_all_trials_and_the_same_command_goes_on(
    number, status, faulty, tmp_path: Path
) -> None:
    words = ["--config-dir=lab/conf", "allow=[plumbline,torch.nn,torch.optim,lab]", "step=fault", "step.kind=slow"]
    words += ["seed=0,1,2", "study=k", "search.workers=2"]
    process = start(tmp_path, *words)
    study = (tmp_path / "outputs/studies/k").resolve()
    until(lambda: (study / "0000/metrics.jsonl").exists())
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == status, output
    assert "the same command goes on with it" in output
    assert below(study) == []
    process = start(tmp_path, *words)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert [row["status"] for row in trials(study)] == ["finished"] * 3
    assert len({row["seed"] for row in trials(study)}) == 3


@pytest.mark.slow
def test_a_second_ctrl_c_hurries_and_the_same_command_goes_on(tmp_path: Path) -> None:
    words = [*gated(tmp_path), "data=digits", "seed=0,1,2,3", "study=k", "search.workers=2"]
    process = start(tmp_path, *words)
    study = (tmp_path / "outputs/studies/k").resolve()
    until(lambda: len(list((tmp_path / "at").iterdir())) == 2)
    process.send_signal(signal.SIGINT)
    time.sleep(2)
    assert process.poll() is None  # they would save at the end of their step, which does not come
    waiting = {int(file.name) for file in (tmp_path / "at").iterdir()}
    assert waiting <= set(below(study))
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert time.monotonic() - began < 60  # 1 where nothing else is at work
    assert process.returncode == 130, output
    assert "the workers save and leave; press again to leave at once" in output
    assert "the same command goes on with it" in output
    assert below(study) == []
    found = Study.read(study).open().get_trials()
    assert Counter(trial.state.name for trial in found) == {"WAITING": 2}
    (tmp_path / "shut").unlink()
    process = start(tmp_path, *words)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    rows = trials(study)
    assert ([row["status"] for row in rows], [row["seed"] for row in rows]) == (["finished"] * 4, list("0123"))
    for row, restarts in zip(rows, (1, 1, 0, 0), strict=True):
        assert json.loads((study / row["folder"] / "run.json").read_text())["restarts"] == restarts
        epochs = [
            json.loads(line)["epoch"] for line in (study / row["folder"] / "metrics.jsonl").read_text().splitlines()
        ]
        assert epochs == [1, 2, 3]


# --- many workers ----------------------------------------------------------------------------------------------------

RACE = """
import sys, time
from pathlib import Path
from plumbline.search.study import Study
from plumbline.search.asked import Asked
from plumbline.search.outcome import Outcome
from plumbline.search.worker import Worker

class Trivial(Worker):
    def run(self, trial, seed, directory, judge):
        from plumbline.search.trial import draw
        draw(self.study, self.opened, trial._trial_id, trial.number)
        directory.mkdir()  # raises where a folder would be used twice
        return Outcome("finished", "", {"best": {"val/accuracy": trial.number / 1000}})

worker = Trivial(Study.read(Path(sys.argv[1])), Asked(), float("inf"), None)
begin = Path(sys.argv[1]) / "begin"
Path(sys.argv[2]).touch()
while not begin.exists():
    time.sleep(0.001)
worker.queue.others_at_work = lambda: True
while (trial := worker.queue.take()) is not None:
    worker.do(trial)
worker.presence.leave()
"""


def race(study: Path, workers: int) -> float:
    """Let workers do a prepared study whose trials do nothing; return the seconds it took."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    ready = [study / f"ready-{k}" for k in range(workers)]
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(study), str(flag)], env=environment, stderr=subprocess.PIPE, text=True
        )
        for flag in ready
    ]
    until(lambda: all(flag.exists() for flag in ready))
    (study / "begin").touch()
    began = time.monotonic()
    for racer in racers:
        _, error = racer.communicate(timeout=240)
        assert racer.returncode == 0, error
    return time.monotonic() - began


@pytest.mark.slow
def test_eight_racing_workers_do_exactly_the_trials_there_are(search, tmp_path: Path) -> None:
    words = [
        "study=r",
        "search=random",
        "search.n_trials=200",
        "optimiser.lr=tag(log,interval(1e-4,1e-1))",
        "search.workers=0",
    ]
    assert search(*words).returncode == 0
    study = tmp_path / "outputs/studies/r"
    seconds = race(study, 8)
    from plumbline.search.study import Study

    found = Study.read(study).open().get_trials()
    assert Counter(trial.state.name for trial in found) == {"COMPLETE": 200}
    assert [trial.number for trial in found] == list(range(200))
    assert len({trial.params["optimiser.lr"] for trial in found}) == 200
    assert len(list(study.glob("[0-9]*"))) == 200
    print(f"{200 / seconds:.0f} trials/s")
    assert 200 / seconds > 10  # 25 and more where nothing else is at work


@pytest.mark.slow
def test_the_thousandth_trial_costs_no_more_than_a_moment_beside_its_training(tmp_path: Path) -> None:
    sampler = {"_target_": "plumbline.search.samplers.tpe", "startup": 10}
    study = prepared(tmp_path / "s", known=False, n_trials=1008, sampler=sampler)
    study.kind, study.fixed = "tpe", [*TINY, "checks=off"]
    study.pruner = {"_target_": "plumbline.search.pruners.median", "trials": 5, "epochs": 1}
    study.write()
    draw, rows = random.Random(0), []
    for _ in range(1000):
        point = {"optimiser.lr": LR.at(draw.random())}
        reported = {epoch: -draw.random() for epoch in range(1, 4)}  # worse than anything that is trained
        options = {"distributions": {"optimiser.lr": LR.distribution()}, "user_attrs": {"status": "finished"}}
        rows.append(create_trial(params=point, value=max(reported.values()), intermediate_values=reported, **options))
    study.open().add_trials(rows)
    command = [sys.executable, "-m", "plumbline.search.worker", f"study={study.folder}", "trust=true"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = study.open().get_trials()[1000:]
    assert [trial.user_attrs["status"] for trial in found] == ["finished"] * 8
    beside = []
    for trial, following in pairwise(found):
        run = json.loads((study.trial(trial.number) / "run.json").read_text())
        beside.append((following.datetime_start - trial.datetime_start).total_seconds() - run["seconds"])

    study.search["n_trials"] = 1028
    study.write()
    worker, told = worker_of(study), []
    for _ in range(20):
        began = time.perf_counter()
        worker.look()
        trial = worker.queue.take()
        draw_point(worker.study, worker.opened, trial._trial_id, trial.number)
        worker.queue.tell(trial, "finished", "", [[0.5]])
        told.append(time.perf_counter() - began)
    assert len(worker.queue.trials()) == 1028
    began = time.perf_counter()
    view = View(study, worker.opened)
    assert (view.ended, view.table().row_count) == (1028, 4)
    seen = time.perf_counter() - began
    print(
        f"trial 1,000: {median(beside):.2f} s beside its run; taken, drawn and told in {median(told):.3f} s; seen in {seen:.3f} s"
    )
    assert min(beside) <= 0.3
    assert median(told) <= 0.3
    assert seen <= 0.3


def test_a_trials_process_has_a_name_of_its_own_in_the_journal(tmp_path: Path) -> None:
    """With its worker's, what the one did wrong would be raised in the other."""
    from plumbline.search.trial import of_its_own

    study = optuna.create_study(study_name="s", storage=open_storage(tmp_path, None))
    trial = study.ask()
    study.tell(trial, 1.0)
    child = os.fork()
    if child == 0:
        of_its_own(study)
        try:
            study._storage.set_trial_intermediate_value(trial._trial_id, 1, 0.5)
        except optuna.exceptions.UpdateFinishedTrialError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert study.trials[0].value == 1.0  # and is not raised here


# --- presence --------------------------------------------------------------------------------------------------------


def test_a_worker_is_alive_while_its_process_is_and_dead_when_it_was_killed(tmp_path: Path) -> None:
    from plumbline.search import presence

    child = os.fork()
    if child == 0:
        held = presence.Presence(tmp_path)  # noqa: F841 - its lock lasts as long as it does
        time.sleep(300)
        os._exit(0)
    until(
        lambda: (names := presence.workers(tmp_path) if (tmp_path / "workers").exists() else []) != [] and bool(names)
    )
    (name,) = presence.workers(tmp_path)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert not presence.alive(tmp_path, name)
    assert not presence.alive(tmp_path, "nobody")
    assert not presence.alive(tmp_path, None)


def test_a_worker_of_another_machine_is_alive_as_long_as_it_gives_signs_of_life(tmp_path: Path) -> None:
    from plumbline.search import presence

    there = presence.Presence(tmp_path)
    path = tmp_path / "workers" / there.name
    for where in ("another boot", None):  # None: a disk on which nothing can be locked
        path.write_text(json.dumps({"locked_on": where, "task": None}))
        assert presence.alive(tmp_path, there.name)
        os.utime(path, (0, time.time() - presence.STALE - 1))
        assert not presence.alive(tmp_path, there.name)
        there.touched = -1e9
        there.beat()
        assert presence.alive(tmp_path, there.name)


def test_a_requeued_task_knows_that_it_was_the_one_before(tmp_path: Path, monkeypatch) -> None:
    from plumbline.search import presence

    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    before = presence.Presence(tmp_path)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "4")
    other = presence.Presence(tmp_path)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    presence.Presence(tmp_path)
    assert not presence.alive(tmp_path, before.name)
    assert presence.alive(tmp_path, other.name)


@pytest.mark.slow
def test_each_worker_sees_its_own_gpu(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,GPU-1a")
    process = start(tmp_path, *gated(tmp_path), "seed=0,1,2", "study=k")  # as many workers as GPUs
    until(lambda: len([file for file in (tmp_path / "at").iterdir() if file.stat().st_size]) == 3)
    seen = [file.read_text().split() for file in (tmp_path / "at").iterdir()]
    (tmp_path / "shut").unlink()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert len({worker for worker, _ in seen}) == 3
    assert sorted(device for _, device in seen) == ["2", "5", "GPU-1a"]


def test_the_gpus_are_those_that_one_may_see(monkeypatch) -> None:
    from plumbline.search.launch import devices

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,GPU-1a")
    assert devices() == ["2", "5", "GPU-1a"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices() == []
