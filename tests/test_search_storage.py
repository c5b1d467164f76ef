"""Where a study is kept: a journal that survives its writers, a database that keeps its password."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import optuna
import pytest
from conftest import ROOT, trials

from plumbline.search import storage
from plumbline.search.storage import JOURNAL, Lock, MendingLock, copy_daily, hidden, mend, open_storage, shown


def filled(folder: Path, count: int = 5) -> optuna.Study:
    study = optuna.create_study(study_name="s", storage=open_storage(folder, None))
    for number in range(count):
        study.add_trial(optuna.trial.create_trial(value=number))
    return study


@pytest.mark.parametrize("left", [1, 10, 40])
def test_a_journal_whose_last_line_was_cut_off_goes_on_with_what_was_whole(left: int, tmp_path: Path) -> None:
    filled(tmp_path)
    journal = tmp_path / JOURNAL
    whole = journal.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    journal.write_bytes(whole[: len(whole) - len(last) + left])
    study = optuna.load_study(study_name="s", storage=open_storage(tmp_path, None))
    assert len(study.trials) == 4
    study.add_trial(optuna.trial.create_trial(value=9))
    again = optuna.load_study(study_name="s", storage=open_storage(tmp_path, None))
    assert [trial.value for trial in again.trials] == [0, 1, 2, 3, 9]
    assert journal.read_bytes().startswith(whole[: len(whole) - len(last)])


LINE = b'{"op_code": 0}\n'


@pytest.mark.parametrize(
    "rest", [b"", b"x", b"x\n", b"{}\ny", b"x" * 200_000, b"0\n", bytes(4096), bytes(99) + b"\n", b"\n\n"]
)
@pytest.mark.parametrize("before", [b"", LINE, LINE + b'{"long": "' + b"y" * 200_000 + b'"}\n'])
def test_mending_leaves_whole_lines_and_nothing_else(before: bytes, rest: bytes, tmp_path: Path) -> None:
    file = tmp_path / "j"
    file.write_bytes(before + rest)
    mend(file)
    assert file.read_bytes() == before + (b"{}\n" if rest.startswith(b"{}") else b"")


def test_a_damaged_journal_is_said_with_its_copy(tmp_path: Path) -> None:
    filled(tmp_path)
    copy_daily(tmp_path)
    assert (tmp_path / f"{JOURNAL}.{date.today().isoformat()}").read_bytes() == (tmp_path / JOURNAL).read_bytes()
    lines = (tmp_path / JOURNAL).read_bytes().splitlines(keepends=True)
    (tmp_path / JOURNAL).write_bytes(b"".join([lines[0], b"nonsense\n", *lines[1:]]))
    with pytest.raises(storage.ConfigError, match=rf"is damaged.*{JOURNAL}.{date.today().isoformat()}, a copy"):
        open_storage(tmp_path, None)


def test_copies_are_kept_of_the_last_days_only(tmp_path: Path) -> None:
    filled(tmp_path)
    for day in range(1, 7):
        (tmp_path / f"{JOURNAL}.2020-01-0{day}").write_text("")
    copy_daily(tmp_path)
    names = sorted(path.name for path in tmp_path.glob(f"{JOURNAL}.[0-9]*"))
    assert names == [f"{JOURNAL}.2020-01-05", f"{JOURNAL}.2020-01-06", f"{JOURNAL}.{date.today().isoformat()}"]


HOLD = """
import sys, time
from pathlib import Path
from plumbline.search.storage import Lock
lock = Lock(sys.argv[1]); lock.acquire(); Path(sys.argv[1] + ".held").touch(); time.sleep(60)
"""


def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    name = str(tmp_path / "l")
    holder = subprocess.Popen([sys.executable, "-c", HOLD, name], env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    while not Path(name + ".held").exists():
        time.sleep(0.01)
    holder.kill()
    holder.wait()
    assert Path(name + ".lock").exists()
    began = time.monotonic()
    with Lock(name):
        assert Path(name + ".lock").read_text() == storage.machine()
    assert time.monotonic() - began < 25  # the grace period is 30 s
    assert not Path(name + ".lock").exists()


def test_the_lock_of_another_machine_is_respected_until_it_is_stale(tmp_path: Path) -> None:
    lock = Lock(str(tmp_path / "l"), grace_period=3)
    (tmp_path / "l.lock").write_text("another machine")
    began = time.monotonic()
    with lock:
        assert time.monotonic() - began >= 3


def test_a_journal_is_found_by_its_absolute_path_wherever_a_process_goes(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    study = filled(Path("a"), 1)
    monkeypatch.chdir("/")
    study.add_trial(optuna.trial.create_trial(value=1))
    assert len(optuna.load_study(study_name="s", storage=open_storage(tmp_path / "a", None)).trials) == 2


def test_the_lock_of_a_journal_mends_it(tmp_path: Path) -> None:
    (tmp_path / "j").write_bytes(LINE + b"y")
    with MendingLock(tmp_path / "j"):
        assert (tmp_path / "j").read_bytes() == LINE


# --- databases -------------------------------------------------------------------------------------------------------

SECRET = secrets.token_hex(8)


@pytest.mark.parametrize(
    "url",
    [f"postgresql://me:{SECRET}@host/db", f"postgresql+psycopg://me@host/db?password={SECRET}", f"nonsense {SECRET}"],
    ids=["in its place", "in the query", "no URL"],
)
def test_an_url_is_shown_without_its_password(url: str) -> None:
    assert SECRET not in shown(url)
    assert SECRET not in hidden(f"cannot connect to {url} with {SECRET if 'nonsense' not in url else ''}", url)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory):
    """The URL of an empty database of Debian's PostgreSQL, started here on 127.0.0.1, with a password."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found or (shutil.which("runuser") is None and os.getuid() == 0):
        pytest.skip("needs Debian's postgresql")
    programs, folder = found[-1].parent, tmp_path_factory.mktemp("postgres")
    as_user = []
    if os.getuid() == 0:  # the server refuses to be run by root
        as_user = ["runuser", "-u", "postgres", "--"]
        made = subprocess.run([*as_user, "mktemp", "-d"], capture_output=True, text=True, check=True, cwd="/")
        folder = Path(made.stdout.strip())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    word = folder / "word"
    subprocess.run([*as_user, "sh", "-c", f"umask 077; printf %s {SECRET} > {word}"], check=True, cwd="/")
    options = ["-D", str(folder / "data"), "-U", "me", "-A", "scram-sha-256", f"--pwfile={word}", "-E", "UTF8"]
    subprocess.run([*as_user, str(programs / "initdb"), *options], check=True, capture_output=True, cwd="/")
    server = [*as_user, str(programs / "pg_ctl"), "-D", str(folder / "data"), "-w", "-l", str(folder / "log")]
    flags = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder}"
    subprocess.run([*server, "-o", flags, "start"], check=True, capture_output=True, cwd="/")
    try:
        yield f"postgresql+psycopg://me:{SECRET}@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*server, "-m", "immediate", "stop"], check=False, capture_output=True, cwd="/")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_study_in_a_database_is_done_as_one_in_a_journal(kind: str, search, tmp_path: Path, request) -> None:
    url = f"sqlite:///{tmp_path}/studies.db" if kind == "sqlite" else request.getfixturevalue("postgres")
    words = ["search=tpe", "search.n_trials=4", "space=optimiser", "pruner=median", "search.workers=2"]
    done = search(f"study={kind}", *words, f"search.storage={url}")
    assert done.returncode == 0, done.stderr
    assert search("study=journal", *words).returncode == 0
    folder = tmp_path / "outputs/studies" / kind
    rows, others = trials(folder), trials(folder.parent / "journal")
    assert [row["folder"] for row in rows] == [row["folder"] for row in others]
    assert [row["optimiser"] for row in rows] == [row["optimiser"] for row in others]
    assert {row["status"] for row in rows} <= {"finished", "pruned"}
    assert not (folder / JOURNAL).exists()
    again = search(f"study={kind}", *words, f"search.storage={url}")
    assert (again.returncode, "is done" in again.stdout) == (0, True)
    secret = SECRET.encode()
    assert [file for file in folder.rglob("*") if file.is_file() and secret in file.read_bytes()] == []
    assert SECRET not in done.stdout + done.stderr + again.stdout + again.stderr


def test_a_wrong_password_is_said_without_it(postgres: str, search, tmp_path: Path) -> None:
    wrong = postgres.replace(SECRET, "not-this-one")
    done = search("seed=0,1", f"search.storage={wrong}")
    assert done.returncode == 2
    assert "not-this-one" not in done.stdout + done.stderr
    assert re.search(r"search\.storage=postgresql.*me:\*\*\*@127\.0\.0\.1.*cannot be opened: .*password", done.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_worker_by_hand_gets_the_password_from_its_environment(postgres: str, search, tmp_path: Path) -> None:
    done = search("study=hand", "seed=0,1", "search.workers=0", f"search.storage={postgres}")
    assert done.returncode == 0, done.stderr
    words = [sys.executable, "-m", "plumbline.search.worker", "study=hand"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with contextlib.suppress(KeyError):
        del environment[storage.VARIABLE]
    without = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert (without.returncode, storage.VARIABLE in without.stderr) == (2, True)
    given = subprocess.run(
        words, cwd=tmp_path, env={**environment, storage.VARIABLE: postgres}, capture_output=True, timeout=200
    )
    assert given.returncode == 0, given.stderr
    assert len(trials(tmp_path / "outputs/studies/hand")) == 2
