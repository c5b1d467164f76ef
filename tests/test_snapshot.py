"""A snapshot is the tree as it was, code and configuration, without outputs; it says what it was made from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from plumbline import snapshot as module


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with our code in it, two files that git does not track, one that it ignores, and outputs."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "init", "-q", str(clone)], check=True)
    for part in ("src/plumbline", "conf"):
        for file in (ROOT / part).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                target = clone / file.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())
    write(clone, {".gitignore": "ignored.py\n", "gone.py": ""})
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["add", "-A"], [*who, "commit", "-q", "-m", "x"]):
        subprocess.run(["git", "-C", str(clone), *words], check=True)
    (clone / "gone.py").unlink()
    write(clone, {"mine.py": "x = 1\n", "ignored.py": "", "conf/train.yaml": "# edited\n", "weights.bin": "0" * 30})
    write(clone, {"results/a/run.json": "{}", "results/a/figures/x.svg": "", "results/s/study.yaml": ""})
    (clone / "link.py").symlink_to("../outside.py")
    return clone


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_a_snapshot_holds_what_git_tracks_or_would_and_no_outputs(clone: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "ROOT", clone)
    monkeypatch.setattr(module, "PACKAGE", clone / "src" / "plumbline")
    monkeypatch.setattr(module, "LARGEST", 29_000_000)
    code = module.snapshot(tmp_path / "study")
    names = {str(file.relative_to(code)) for file in code.rglob("*") if not file.is_dir()}
    tree = {
        str(file.relative_to(clone)) for part in ("src", "conf") for file in (clone / part).rglob("*") if file.is_file()
    }
    assert names == tree | {"mine.py", "weights.bin", ".gitignore", "snapshot.json", "link.py"}
    assert (code / "conf" / "train.yaml").read_text() == "# edited\n"
    assert os.readlink(code / "link.py") == str(clone / "../outside.py")
    assert not list((tmp_path / "study").glob(".code*"))


def test_what_is_large_is_left_out_and_named(clone: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "ROOT", clone)
    monkeypatch.setattr(module, "PACKAGE", clone / "src" / "plumbline")
    (clone / "large.bin").write_bytes(b"0" * (module.LARGEST + 1))
    code = module.snapshot(tmp_path)
    assert not (code / "large.bin").exists()
    assert json.loads((code / "snapshot.json").read_text())["left_out"] == ["large.bin"]


def test_a_snapshot_stays_as_it_was_and_tells_what_changed_since(clone: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "ROOT", clone)
    monkeypatch.setattr(module, "PACKAGE", clone / "src" / "plumbline")
    code = module.snapshot(tmp_path)
    assert module.changed(code) == []
    write(clone, {"conf/train.yaml": "# again\n", "conf/model/new.yaml": "", "README.md": "x"})
    (clone / "src/plumbline/loop.py").unlink()
    assert module.changed(code) == ["conf/train.yaml", "src/plumbline/loop.py"]
    assert module.snapshot(tmp_path) == code
    assert (code / "conf" / "train.yaml").read_text() == "# edited\n"


def test_a_run_from_a_snapshot_names_the_commit_and_diff_it_was_made_from(clone: Path) -> None:
    program = "import sys; sys.path.insert(0, {!r}); from plumbline.{} import {}; {}"
    make = program.format(
        str(clone / "src"), "snapshot", "snapshot", f"snapshot(__import__('pathlib').Path({str(clone)!r}))"
    )
    subprocess.run([sys.executable, "-c", make], check=True)
    subprocess.run(["git", "-C", str(clone), "reset", "-q", "--hard"], check=True)
    look = program.format(
        str(clone / "code/src"), "environment", "git_state", "print(__import__('json').dumps(git_state()))"
    )
    state = json.loads(subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, text=True).stdout)
    head = subprocess.run(["git", "-C", str(clone), "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    assert state["commit"] == head.stdout.strip()
    assert state["dirty"] is True
    assert "+# edited" in state["diff"]
