"""A study that was made or edited by somebody else runs nothing before this user has consented."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, trials
from test_search_report import LR, study_of

from plumbline.contract import ConfigError
from plumbline.search import trust
from plumbline.search.study import FILE, LONGEST, Study, mistake_in_name
from plumbline.search.worker import main

WRITES = "open({path!r}, 'w').close()\n"


def signed(folder: Path) -> Path:
    """A folder with a signed study and a copy of code."""
    (folder / "code/src").mkdir(parents=True)
    (folder / "code/src/mine.py").write_text("x = 1\n")
    (folder / "code/link").symlink_to("src/mine.py")
    (folder / FILE).write_text("name: s\n")
    assert trust.sign(folder)
    return folder


def test_a_signed_study_stays_so_when_moved_and_copied(tmp_path: Path) -> None:
    folder = signed(tmp_path / "s")
    shutil.copytree(folder, tmp_path / "copy", symlinks=True)
    folder.rename(tmp_path / "moved")
    assert [trust.is_signed(tmp_path / name) for name in ("copy", "moved")] == [True, True]


def edit_code(folder: Path) -> None:
    (folder / "code/src/mine.py").write_text("x = 2\n")


def add_code(folder: Path) -> None:
    (folder / "code/src/__pycache__").mkdir()
    (folder / "code/src/__pycache__/mine.pyc").write_bytes(b"")


def rename_code(folder: Path) -> None:
    (folder / "code/src/mine.py").rename(folder / "code/src/yours.py")


def turn_link(folder: Path) -> None:
    (folder / "code/link").unlink()
    (folder / "code/link").symlink_to("/etc/passwd")


def edit_study(folder: Path) -> None:
    (folder / FILE).write_text("name: t\n")


def link_code(folder: Path) -> None:
    (folder / "code").rename(folder / "other")
    (folder / "code").symlink_to("other")


EDITS = [edit_code, add_code, rename_code, turn_link, edit_study, link_code]


@pytest.mark.parametrize("edit", EDITS)
def test_each_edit_of_a_signed_study_needs_consent_once(edit, tmp_path: Path) -> None:
    folder = signed(tmp_path / "s")
    edit(folder)
    with pytest.raises(ConfigError, match=r"study=s: was changed since it was signed by .* say trust=true once"):
        trust.check(folder, "trust=true", False)
    trust.check(folder, "trust=true", True)
    trust.check(folder, "trust=true", False)


def test_another_users_key_and_no_signature_need_consent(tmp_path: Path, monkeypatch) -> None:
    folder = signed(tmp_path / "s")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    with pytest.raises(ConfigError, match=r"was signed with another key, by .*; its folder belongs to "):
        trust.check(folder, "trust=true", False)
    (folder / trust.FILE).unlink()
    with pytest.raises(ConfigError, match=r"has no signature; its folder belongs to .* say search\.trust=true once"):
        trust.check(folder, "search.trust=true", False)
    for content in ("[1]", "{", '{"signature": "é"}', '{"signature": 1}'):
        (folder / trust.FILE).write_text(content)
        assert not trust.is_signed(folder)


@pytest.mark.parametrize("fault", ["link", "open", "short", "folder", "closed"])
def test_a_key_that_is_not_private_is_not_used(fault: str, tmp_path: Path, monkeypatch) -> None:
    folder, state = signed(tmp_path / "s"), tmp_path / "state"
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    path = trust.key_path()
    path.parent.mkdir(parents=True)
    (tmp_path / "elsewhere").write_bytes(bytes(32))
    (tmp_path / "elsewhere").chmod(0o600)
    if fault == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif fault == "folder":
        path.mkdir()
    elif fault == "closed":
        path.parent.rmdir()
        path.parent.write_text("")
    else:
        path.write_bytes(bytes(32 if fault == "open" else 3))
        path.chmod(0o644 if fault == "open" else 0o600)
    assert not trust.sign(folder)
    with pytest.raises(ConfigError, match=r"no key can be kept \(.*\), so the word is needed each time$"):
        trust.check(folder, "trust=true", False)
    trust.check(folder, "trust=true", True)
    assert trust.consent(folder) == ["trust=true"]
    assert (tmp_path / "elsewhere").read_bytes() == bytes(32)


def test_a_key_is_made_once_and_is_private(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    first = trust.read_key()
    assert (trust.read_key(), len(first)) == (first, 32)
    assert trust.key_path().stat().st_mode & 0o777 == 0o600
    assert [path.name for path in trust.key_path().parent.iterdir()] == [trust.KEY]


def worker(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "plumbline.search.worker", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_a_worker_runs_nothing_of_a_study_without_consent(tmp_path: Path, monkeypatch, capsys) -> None:
    study = study_of(tmp_path / "s", (LR,), **WHOLE)
    study.pruner = {"_target_": "plumbline.search.pruners.none"}
    (tmp_path / "s/code/src/plumbline/search").mkdir(parents=True)
    for name in ("plumbline/__init__.py", "plumbline/search/__init__.py", "sitecustomize.py"):
        (tmp_path / "s/code/src" / name).write_text(WRITES.format(path=str(tmp_path / "ran")))
    study.write()
    monkeypatch.setattr(sys, "argv", ["worker", f"study={tmp_path / 's'}"])
    before = list(sys.path)
    assert main() == 2
    assert "study=s: has no signature" in capsys.readouterr().err
    assert (sys.path, (tmp_path / "ran").exists()) == (before, False)


@pytest.mark.slow
def test_an_edited_study_asks_once_at_both_doors(search, tmp_path: Path) -> None:
    words = ["study=s", "search=random", "space=learning_rate"]
    assert search(*words, "search.n_trials=1").returncode == 0
    folder = tmp_path / "outputs/studies/s"
    mine = folder / "code/src/plumbline/signals.py"
    mine.write_text(mine.read_text() + WRITES.format(path=str(tmp_path / "ran")))
    refused = search(*words, "search.n_trials=2", "search.extend=true")
    assert (refused.returncode, "say search.trust=true once" in refused.stderr) == (2, True)
    by_hand = worker(tmp_path, "study=s")
    assert (by_hand.returncode, "say trust=true once" in by_hand.stderr) == (2, True)
    assert not (tmp_path / "ran").exists()
    assert worker(tmp_path, "study=s", "trust=true").returncode == 0
    assert (tmp_path / "ran").exists()
    assert worker(tmp_path, "study=s").returncode == 0
    mine.write_text(mine.read_text() + "\n")
    taken = search(*words, "search.n_trials=2", "search.extend=true", "search.trust=true")
    assert taken.returncode == 0, taken.stderr
    assert search(*words, "search.n_trials=3").returncode == 0
    assert [row["status"] for row in trials(folder)] == ["finished"] * 3
    assert "trust" not in Study.read(folder).command


@pytest.mark.slow
def test_without_a_place_for_a_key_a_study_is_done_all_the_same(search, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    done = search("study=s", "seed=0,1", "search.workers=2", XDG_STATE_HOME=str(tmp_path / "state"))
    assert (done.returncode, done.stderr) == (0, "")
    assert len(trials(tmp_path / "outputs/studies/s")) == 2


# --- study.yaml ------------------------------------------------------------------------------------------------------

WHOLE = {
    "timeout": None, "workers": 1, "storage": None, "extend": False, "trust": False,
    "sampler": {"_target_": "plumbline.search.samplers.independent"},
}  # fmt: skip


def facts_of(folder: Path) -> dict:
    folder.mkdir(exist_ok=True)
    study = study_of(folder, (LR,), **WHOLE)
    study.pruner = {"_target_": "plumbline.search.pruners.none"}
    study.write()
    assert Study.read(folder).space == study.space
    return yaml.safe_load((folder / FILE).read_text())


ODD = [None, 7, -1, 1.5, "x", [], ["x"], [[1]], {}, {"a": 1}, [{"a": 1}], [{"name": "x"}], True]


def test_a_study_yaml_of_any_other_shape_is_one_message(tmp_path: Path, monkeypatch) -> None:
    """Every key in turn is gone or has each odd value: it is read as a study, or refused."""
    facts, cases = facts_of(tmp_path), list(ODD)
    monkeypatch.setattr("plumbline.search.study.parse_yaml", json.loads)  # thirty times as fast
    for key in facts:
        cases += [{name: value for name, value in facts.items() if name != key}]
        cases += [{**facts, key: value} for value in ODD]
    for key in facts["search"]:
        cases += [{**facts, "search": {**facts["search"], key: value}} for value in ODD]
    for key in ("name", "text", "low", "high", "step", "log", "choices", "when"):
        cases += [{**facts, "space": [{**facts["space"][0], key: value}]} for value in ODD]
    refused = 0
    for case in cases:
        (tmp_path / FILE).write_text(json.dumps(case))
        try:
            Study.read(tmp_path)
        except ConfigError as error:
            refused += 1
            assert str(error).startswith(f"study={tmp_path}: its study.yaml cannot be read: ")
            assert "\n" not in str(error)
    assert refused > 300


@pytest.mark.parametrize(
    "text", ["", "[", "a: &a [1]\nb: *a\n", "[" * 20000, "\0", "\udcff", "x: !!python/name:os.system"]
)
def test_a_study_yaml_that_is_none_is_one_message(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=r"^study=.*its study.yaml cannot be read: .*$"):
        Study.read(tmp_path)


def test_a_damaged_study_yaml_ends_worker_and_status_with_2(tmp_path: Path, monkeypatch, capsys) -> None:
    from plumbline.search import status

    (tmp_path / FILE).write_text("[1]\n")
    monkeypatch.setattr(sys, "argv", ["x", f"study={tmp_path}"])
    for door in (main, status.main):
        assert door() == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "name", ["x" * 300, "é" * 150, "..", ".", "", "a/b", "a\\b", "a\nb", "a\x1bb", "a\x7fb", "\u202eb"]
)
def test_a_name_that_no_folder_can_have_is_refused(name: str) -> None:
    assert mistake_in_name(name)


@pytest.mark.parametrize("name", ["s", "CON", "x" * LONGEST, "ä b", "a.b", "-x"])
def test_a_name_that_a_folder_can_have_is_taken(name: str) -> None:
    assert mistake_in_name(name) == ""
