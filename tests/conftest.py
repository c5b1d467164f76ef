"""What all tests share: few threads, the slow flag, and a run in a process of its own."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["WANDB_MODE"] = "offline"
REFERENCE_LOOP = 0.045  # processor seconds of the loop in affordable()
NUMBERS = (  # files whose slow tests measure what a technique is worth, on several seeds
    "test_playground.py", "test_experiments.py", "test_experiments_models.py", "test_experiments_training.py",
    "test_faults.py",
)  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests that take minutes, too")
    parser.addoption("--numbers", action="store_true", help="with --slow: measure the numbers of docs/practice.md, too")
    parser.addoption("--murders", type=int, default=3, help="how many studies test_search_murders.py kills")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: run with --slow"))
    elif not config.getoption("--numbers"):
        for item in items:
            if item.get_closest_marker("slow") and item.path.name in NUMBERS:
                item.add_marker(pytest.mark.skip(reason="measures numbers for minutes: run with --slow --numbers"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Tests go to whichever process is free; those of a file with a fixture for all of it stay in one process, which
    begins with them, and so do all that start a SLURM, or two would meet.

    xdist's own groups (--dist loadgroup) say nothing and do nothing under pytest 9: they rename the tests, which it forbids.
    """
    from xdist.scheduler import LoadScopeScheduling

    @functools.cache
    def shares(file: str) -> bool:
        return 'scope="' in (ROOT / file).read_text("utf-8")

    class ByFixture(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "slurm" if "test_slurm_" in file else file if shares(file) else nodeid

    return ByFixture(config, log)


@pytest.fixture(autouse=True, scope="session")
def own_state(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The key that studies are signed with is one of the tests, not the user's."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture
def train(tmp_path: Path):
    """`train(*overrides)` runs the command in a process of its own, in tmp_path; returns the finished process."""

    def command(*overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "plumbline.train", *overrides]
        variables = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "200", **environment}
        return subprocess.run(words, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=300)

    return command


def wait_until(happened: Callable[[], bool], process: subprocess.Popen, seconds: float = 120) -> None:
    """Wait for something that a process does; its end, or too long a wait, fails the test."""
    until = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, f"it ended with status {process.returncode} before that happened"
        assert time.monotonic() < until, f"nothing happened in {seconds} s"
        time.sleep(0.02)


def affordable(seconds: float) -> float:
    """The processor seconds that a test may take: `seconds` on a quiet machine where a loop takes REFERENCE_LOOP.

    Three times as much is allowed, since other tests share caches and cores, and more on a slower machine: a limit is
    to catch work that grows, not a slow machine.
    """
    began = time.process_time()
    for number in range(1_000_000):
        number % 7
    return 3 * seconds * max(1.0, (time.process_time() - began) / REFERENCE_LOOP)


def composed(*overrides: str):
    """The configuration of a command line."""
    from hydra import compose, initialize_config_dir

    from plumbline import config

    config.register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", list(overrides))


@pytest.fixture
def run(tmp_path: Path, request: pytest.FixtureRequest):
    """`run(*overrides, folder="run")` trains in this process; returns (exit status, the run's folder).

    Only where the tests are of the checks are they made: they take longer than so small a training.
    """
    from plumbline.run import run_to_the_end

    preset = "quick" if request.module.__name__.startswith("test_checks") else "off"

    def go(*overrides: str, folder: str = "run") -> tuple[int, Path]:
        words = ["threads=1", "bootstrap=20", f"outputs={tmp_path}", *overrides]
        if not any(word.startswith("checks=") for word in overrides):
            words.append(f"checks={preset}")
        if preset == "quick" and not any(word.startswith("report=") for word in overrides):
            words.append("report=false")  # its pictures take as long as all else
        return run_to_the_end(composed(*words), tmp_path / folder, words), tmp_path / folder

    return go


def noted(directory: Path) -> dict:
    """run.json."""
    import json

    return json.loads((directory / "run.json").read_text())


def records(directory: Path) -> list[dict]:
    """metrics.jsonl without what depends on the clock."""
    import json

    lines = (directory / "metrics.jsonl").read_text().splitlines()
    timing = ("seconds", "samples_per_s")
    return [{key: value for key, value in json.loads(line).items() if key not in timing} for line in lines]


TINY = ["data=iris", "epochs=3", "model.hidden=[8]", "threads=1", "bootstrap=2", "save_minutes=0.001"]


@pytest.fixture
def search(train):
    """`search(*overrides)` is `train -m` with runs that take a tenth of a second; returns the finished process."""

    def command(*overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return train("-m", *TINY, *overrides, **environment)

    return command


def trials(study: Path) -> list[dict[str, str]]:
    """trials.csv."""
    import csv

    with open(study / "trials.csv") as file:
        return list(csv.DictReader(file))


LAB = {
    "lab/step.py": """
import ctypes, os, signal, time
from plumbline.loop import supervised

def fault(training, batches, *, kind: str):
    if training.where.startswith("epoch 2"):
        if kind == "raise":
            raise RuntimeError("a mistake of mine")
        if kind == "segfault":
            ctypes.string_at(0)
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "infinite":
            training.model.head.weight.data.fill_(float("nan"))
        if kind == "exit":
            raise SystemExit(0)
        if kind == "slow":
            time.sleep(0.2)
    return supervised(training, batches)
""",
    "lab/conf/step/fault.yaml": "# A step that goes wrong in the second epoch.\n_target_: lab.step.fault\nkind: none\n",
}


@pytest.fixture
def faulty(search, tmp_path: Path):
    """`search` with a step of one's own that goes wrong as step.kind says."""
    for name, text in LAB.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    words = ["--config-dir=lab/conf", "allow=[plumbline,torch.nn,torch.optim,lab]", "step=fault"]
    return lambda *overrides, **environment: search(*words, *overrides, **environment)


def first_of_each(rows: Iterable[tuple], name: Callable[[tuple], str] = lambda row: row[0]) -> list[Any]:
    """The rows as parameters, of which the second with a name and those after it wait for --slow."""
    seen: set[str] = set()
    made = []
    for row in rows:
        made.append(pytest.param(*row, marks=[pytest.mark.slow] if name(row) in seen else []))
        seen.add(name(row))
    return made


def one_in(number: int, rows: Iterable[tuple]) -> list[Any]:
    """The rows as parameters, of which all but every `number`-th wait for --slow: many cases of one mechanism."""
    return [pytest.param(*row, marks=[pytest.mark.slow] * bool(at % number)) for at, row in enumerate(rows)]
