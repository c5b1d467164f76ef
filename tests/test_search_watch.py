"""What a person sees of a study: the live table says what is there, and who watches changes nothing."""

from __future__ import annotations

import io
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, trials, wait_until
from optuna.trial import TrialState, create_trial
from rich.console import Console
from test_search_report import LR
from test_search_worker import gated, prepared, start

from plumbline.search import presence
from plumbline.search.study import Study
from plumbline.search.watch import View

NOON = datetime(2026, 1, 1, 12)


def add(study: Study, state: TrialState, seconds: float | None = None, **attributes: Any) -> None:
    """A trial at a place of its own; seconds: from its beginning to its end."""
    opened, ended = study.open(), seconds is not None
    number = len(opened.get_trials())
    trial = create_trial(
        state=state, params={"optimiser.lr": 0.001 * (number + 1)}, distributions={"optimiser.lr": LR.distribution()},
        value=attributes.pop("value", None), intermediate_values=attributes.pop("reported", {}), user_attrs=attributes,
    )  # fmt: skip
    trial.datetime_start = NOON
    trial.datetime_complete = NOON + timedelta(seconds=seconds) if ended else None
    opened.add_trial(trial)


def table(study: Study, width: int) -> list[str]:
    """The live table as a terminal of that width has it."""
    text = io.StringIO()
    Console(file=text, width=width).print(View(study, study.open()).table())
    return [line.rstrip() for line in text.getvalue().splitlines()]


@pytest.fixture
def known(tmp_path: Path) -> Study:
    """Two that finished, one that was pruned, one that failed, two under way and one to go on with, of twelve."""
    study = prepared(tmp_path / "s", n_trials=12)
    add(study, TrialState.COMPLETE, 10, status="finished", value=0.8125)
    add(study, TrialState.COMPLETE, 30, status="finished", value=0.92314)
    add(study, TrialState.PRUNED, 5, status="pruned", reported={1: 0.1})
    add(study, TrialState.FAIL, 35, status="failed", reason="Traceback\nValueError: [red]no[/red]")
    add(study, TrialState.RUNNING, reported={1: 0.4, 3: 0.5})
    add(study, TrialState.RUNNING)
    add(study, TrialState.WAITING)
    return study


def test_the_live_table_has_what_ended_what_runs_the_best_the_time_left_and_the_last_failure(known: Study) -> None:
    assert table(known, 120) == [
        "study s",
        "━" * 13 + "·" * 27 + "  4/12",
        "4 of 12 trials ended: 2 finished, 1 pruned, 1 failed",
        "2 running",
        "1 to go on with",
        "best val/accuracy 0.9231 (trial 1)",
        "about 80 s left",  # 8 trials of 20 s, two at a time
        "     4  epoch 3: 0.5000    optimiser.lr=0.005",
        "     5  running            optimiser.lr=0.006",
        "last failure: trial    3  failed      optimiser.lr=0.004  ValueError: [red]no[/red]",
    ]


def test_the_live_table_fits_a_narrow_terminal_and_counts_what_has_no_line(known: Study) -> None:
    for _ in range(9):
        add(known, TrialState.RUNNING)
    lines = table(known, 48)
    assert max(map(len, lines)) <= 48
    assert lines[7].split()[0] == "4"
    assert lines[14].split()[0] == "12"
    assert lines[15] == "  and 3 more"


def test_nothing_is_left_of_a_study_that_is_done(tmp_path: Path) -> None:
    study = prepared(tmp_path / "s", n_trials=1)
    assert table(study, 80)[2:] == ["0 of 1 trials ended"]
    add(study, TrialState.COMPLETE, 10, status="finished", value=0.5)
    assert table(study, 80)[1:] == [
        "━" * 40 + "  1/1",
        "1 of 1 trials ended: 1 finished",
        "best val/accuracy 0.5000 (trial 0)",
    ]


# --- somebody else's -------------------------------------------------------------------------------------------------


def watcher(folder: Path, study: Path, terminal: int = subprocess.PIPE) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "TERM": "xterm", "COLUMNS": "100"}
    command = [sys.executable, "-m", "plumbline.search.status", f"study={study}", "--watch"]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=terminal, stderr=subprocess.STDOUT, text=True)


def read_all(terminal: int) -> str:
    """What a terminal shows until its program is gone."""
    parts = []
    try:
        while part := os.read(terminal, 65536):
            parts.append(part)
    except OSError:  # how Linux says that nobody is at the other end
        pass
    return b"".join(parts).decode(errors="replace")


@pytest.mark.slow
def test_who_watches_somebody_elses_study_sees_it_to_its_end_and_may_leave(tmp_path: Path) -> None:
    words = gated(tmp_path)
    process = start(tmp_path, *words, "seed=0,1,2", "study=k", "search.workers=1", "pruner=median")
    study, elsewhere = tmp_path / "outputs/studies/k", tmp_path / "elsewhere"
    elsewhere.mkdir()
    wait_until(lambda: (study / "0000/metrics.jsonl").exists(), process)
    staying, leaving = watcher(elsewhere, study), watcher(elsewhere, study)
    ours, theirs = pty.openpty()
    showing = watcher(elsewhere, study, theirs)
    os.close(theirs)
    seen = os.read(ours, 65536).decode()  # it looks, so the two before it do
    time.sleep(2)
    leaving.send_signal(signal.SIGINT)
    output, _ = leaving.communicate(timeout=60)
    assert leaving.returncode == 0, output
    assert output.splitlines()[0].startswith("study k: scripts/train -m ")
    assert "0 of 3 trials ended; 1 running\n1 workers at it\ntrial    0  running" in output
    assert staying.poll() is showing.poll() is None
    (tmp_path / "shut").unlink()
    seen += read_all(ours)
    output, _ = staying.communicate(timeout=120)
    assert (staying.returncode, showing.wait(60)) == (0, 0)
    assert [line[:20] for line in output.splitlines()[:3]] == [f"trial    {k}  finished" for k in range(3)]
    assert "3 of 3 trials ended: 3 finished; best val/accuracy" in output
    assert f"{'·' * 40}  0/3" in seen  # the live table, as it was at first
    assert re.search(r"epoch 1: [01]\.\d{4}", seen)
    _, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert [row["status"] for row in trials(study)] == ["finished"] * 3
    assert list(elsewhere.iterdir()) == []


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody may read."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become nobody")
def test_who_may_not_write_sees_a_study_with_all_its_workers(public: Path, monkeypatch, capfd) -> None:
    from plumbline.search import status

    study = prepared(public / "s")
    add(study, TrialState.COMPLETE, 10, status="finished", value=0.5)
    (study.folder / presence.FOLDER).mkdir()
    here = presence.Presence(study.folder)
    (study.folder / presence.FOLDER / "there").write_text('{"locked_on": "another machine"}')
    monkeypatch.setattr(sys, "argv", ["status", f"study={study.folder}"])
    before = sorted(public.rglob("*"))
    assert status.main() == 0  # and imports what it needs, which nobody may not
    first = capfd.readouterr().out
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        with pytest.raises(PermissionError):
            (public / "mine").touch()
        status.main()
        sys.stdout.flush()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert capfd.readouterr().out == first
    assert "1 of 30 trials ended: 1 finished; best val/accuracy 0.5000 (trial 0)" in first
    assert "2 workers at it" in first
    assert sorted(public.rglob("*")) == before
    here.leave()
