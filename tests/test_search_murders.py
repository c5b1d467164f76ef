"""Murdered studies end as undisturbed ones: starters, workers and trials are killed at random moments.

`--murders=40` says how many studies; by default one a storage. The kinds of search alternate, so do the storages.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, TINY, trials
from test_search_storage import postgres  # noqa: F401 - a fixture
from test_search_worker import below

pytestmark = pytest.mark.slow

STORAGES = ("journal", "sqlite", "postgresql")
SEARCHES = {
    "random": ["search=random", "search.n_trials=8", "optimiser.lr=tag(log,interval(1e-4,1e-1))"],
    "qmc": ["search=qmc", "search.n_trials=8", "optimiser.lr=tag(log,interval(1e-4,1e-1))"],
    "grid": ["optimiser.lr=1e-4,1e-3,1e-2,1e-1", "seed=0,1"],
}
WORDS = ["search.workers=2", "search.retry=50", "search.max_deaths=100", "epochs=6"]
MOST = 4  # kills of a study
VICTIMS = ("starter", "worker", "trial", "all")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "murder" in metafunc.fixturenames:
        metafunc.parametrize("murder", range(metafunc.config.getoption("--murders")))


def begin(folder: Path, name: str, words: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "plumbline.train", "-m", *TINY, *WORDS, f"study={name}", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with open(folder / f"{name}.log", "a") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)


def result(study: Path) -> list[dict[str, str]]:
    """What a study found, without what depends on the clock."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in trials(study)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, str]]]:
    """The results of each search that nothing disturbs, made at the first use."""
    folder, found = tmp_path_factory.mktemp("undisturbed"), {}

    class Lazily(dict):
        def __missing__(self, kind: str) -> list[dict[str, str]]:
            process = begin(folder, kind, SEARCHES[kind])
            assert process.wait(600) == 0, (folder / f"{kind}.log").read_text()
            found[kind] = self[kind] = result(folder / "outputs/studies" / kind)
            return self[kind]

    return Lazily()


def victims(kind: str, starter: int, study: Path) -> Iterator[int]:
    """The processes to kill: the starter, a worker, a trial of one, or all there are."""
    if kind in ("starter", "all"):
        yield starter
    if kind == "starter":
        return
    processes = below(study)
    parents = {number: parent(number) for number in processes}
    of_kind = {
        "worker": [number for number in processes if parents[number] in (*processes, starter)],
        "trial": [number for number in processes if number not in parents.values()],
        "all": processes,
    }
    yield from of_kind[kind] if kind == "all" else of_kind[kind][-1:]


def parent(number: int) -> int:
    try:
        return int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def wait_for_workers(study: Path, seconds: float = 120) -> None:
    """Until those that a killed starter left have gone; then the command goes on with what is missing."""
    ends = time.monotonic() + seconds
    while below(study) and time.monotonic() < ends:
        time.sleep(0.1)


def test_a_murdered_study_ends_as_an_undisturbed_one(
    murder: int, undisturbed: dict, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    draw = random.Random(murder)
    where, kind = STORAGES[murder % 3], list(SEARCHES)[murder // 3 % 3]
    words = list(SEARCHES[kind])
    if where == "sqlite":
        words.append(f"search.storage=sqlite:///{tmp_path}/studies.db")
    elif where == "postgresql":
        words.append(f"search.storage={request.getfixturevalue('postgres')}")
    name, killed = f"m{murder}", []
    study = (tmp_path / "outputs/studies" / name).resolve()
    for _ in range(draw.randint(1, MOST)):
        process = begin(tmp_path, name, words)
        time.sleep(draw.uniform(0.5, 8))
        victim = draw.choice(VICTIMS)
        for number in victims(victim, process.pid, study):
            try:
                os.kill(number, signal.SIGKILL)
                killed.append(victim)
            except ProcessLookupError:
                continue
        if victim == "starter" and draw.random() < 0.5:
            wait_for_workers(study)
        process.wait(600)
    process = begin(tmp_path, name, words)
    status = process.wait(600)
    wait_for_workers(study)
    log = (tmp_path / f"{name}.log").read_text()
    assert (status, "Traceback" in log) == (0, False), log
    print(f"{where} {kind}: killed {len(killed)} processes ({', '.join(killed)})")
    assert result(study) == undisturbed[kind]


@pytest.mark.parametrize("victim", ["worker", "ahead"])
def test_a_killed_worker_is_told_when_it_matters_only(victim: str, tmp_path: Path) -> None:
    """The others do its trials: status 0 and no word of it, even if it is the process that began the others."""
    process = begin(
        tmp_path, "k", ["search.workers=2", "search=random", "search.n_trials=8", "space=learning_rate", "epochs=40"]
    )
    study = (tmp_path / "outputs/studies/k").resolve()
    until = time.monotonic() + 200
    while len(list(study.glob("0*/metrics.jsonl"))) < 2:
        assert time.monotonic() < until
        time.sleep(0.02)
    processes = below(study)
    first = next(number for number in processes if parent(number) == process.pid)
    workers = [number for number in processes if parent(number) == first]
    os.kill(first if victim == "ahead" else workers[0], signal.SIGKILL)
    assert process.wait(300) == 0
    log = (tmp_path / "k.log").read_text()
    assert "ended by" not in log + (study / "workers.log").read_text()
    assert [row["status"] for row in trials(study)] == ["finished"] * 8
    assert below(study) == []


def test_all_workers_killed_is_one_sentence_and_status_1(tmp_path: Path) -> None:
    process = begin(
        tmp_path, "k", ["search.workers=2", "search=random", "search.n_trials=8", "space=learning_rate", "epochs=400"]
    )
    study = (tmp_path / "outputs/studies/k").resolve()
    while len(list(study.glob("0*/metrics.jsonl"))) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    processes = below(study)
    first = next(number for number in processes if parent(number) == process.pid)
    for number in [number for number in processes if parent(number) == first]:
        os.kill(number, signal.SIGKILL)
    assert process.wait(300) == 1
    assert (
        "plumbline: 2 workers were ended by SIGKILL; the same command goes on with the study\n"
        in (tmp_path / "k.log").read_text()
    )
