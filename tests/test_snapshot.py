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


KEY = "-----BEGIN OPENSSH " + "PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n"


@pytest.mark.parametrize("kind", ["tracked", "untracked", "no repository", "no git"])
def test_a_snapshot_leaves_out_secrets_and_what_git_ignores(
    clone: Path, tmp_path: Path, monkeypatch, capsys, kind: str
) -> None:
    """In every way of listing files, by name and by content, also inside conf/ and in a nested repository."""
    monkeypatch.setattr(module, "ROOT", clone)
    monkeypatch.setattr(module, "PACKAGE", clone / "src" / "plumbline")
    secrets = ("conf/.env", "conf/.env.local", "src/.netrc", "conf/tls.pem", "conf/ID_RSA", "src/.aws/credentials")
    write(clone, dict.fromkeys(secrets, "x") | {"conf/hidden.txt": KEY, "conf/kept.yaml": "a: 1\n"})
    write(clone, {"conf/.gitignore": "*.log\n/local/\n!kept.log\n", "conf/a.log": "", "conf/kept.log": ""})
    write(clone, {"conf/local/x.yaml": "", "conf/deep/b.log": "", "conf/deep/local/y.yaml": ""})
    if kind == "tracked":
        subprocess.run(["git", "-C", str(clone), "add", "-f", *secrets], check=True)
        subprocess.run(["git", "init", "-q", str(clone / "nested")], check=True)
        write(clone, {"nested/.env": "x", "nested/code.py": "", "nested/id_ed25519": ""})
    if kind.startswith("no"):
        (clone / ".git").rename(tmp_path / "git")
    if kind == "no git":
        monkeypatch.setenv("PATH", str(tmp_path))
    code = module.snapshot(tmp_path / "study")
    names = {str(file.relative_to(code)) for file in code.rglob("*") if file.is_file()}
    noted = json.loads((code / "snapshot.json").read_text())
    hidden = {*secrets, "conf/hidden.txt"} | ({"nested/.env", "nested/id_ed25519"} if kind == "tracked" else set())
    assert set(noted["left_out"]) == hidden == set(noted["reasons"])
    assert not names & (hidden | {"conf/a.log", "conf/local/x.yaml", "conf/deep/b.log"})
    assert {"conf/kept.yaml", "conf/kept.log", "conf/deep/local/y.yaml", "conf/train.yaml"} <= names
    assert ("nested/code.py" in names) == (kind == "tracked")
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("the copy of the code leaves out ") and f"and {len(hidden) - 3} more" in line


def test_a_snapshot_keeps_modes_and_links_and_leaves_data_where_they_lie(
    clone: Path, tmp_path: Path, monkeypatch
) -> None:
    """Data of more than 1 MB are not copied; a link out of the tree stays one, and one inside leads to the copy."""
    monkeypatch.setattr(module, "ROOT", clone)
    monkeypatch.setattr(module, "PACKAGE", clone / "src" / "plumbline")
    write(clone, {"private.py": "", "run.sh": "", "src/lab/own.py": "x = 1\n", ".env": "x"})
    (clone / "private.py").chmod(0o600)
    (clone / "run.sh").chmod(0o755)
    (clone / "src/lab").chmod(0o700)
    (clone / "table.CSV").write_bytes(b"1," * 600_000)
    (clone / "small.csv").write_bytes(b"1," * 400_000)
    (clone / "text.py").write_bytes(b"# " * 600_000)
    (clone / "conf/inside.py").symlink_to("../src/lab/own.py")
    (clone / "settings").symlink_to(".env")
    code = module.snapshot(tmp_path / "study")
    modes = [(code / name).stat().st_mode & 0o777 for name in ("private.py", "run.sh", "src/lab")]
    assert modes == [0o600, 0o755, 0o700]
    assert json.loads((code / "snapshot.json").read_text())["left_out"] == [".env", "table.CSV"]
    assert (code / "small.csv").exists() and (code / "text.py").exists()
    assert (code / "conf/inside.py").resolve() == (code / "src/lab/own.py").resolve()
    assert (code / "settings").resolve() == clone / ".env"  # found where it lies


def test_a_diff_holds_no_file_that_may_hold_a_secret(clone: Path) -> None:
    """Of tracked files that were edited, those with a secret's name or a private key are not in run.json's diff."""
    write(clone, {".env": "A=1\n", "conf/api.key": "one\n", "plain.py": "x = 1\n", "notes.txt": "a\n"})
    subprocess.run(["git", "-C", str(clone), "add", "-f", "."], check=True)
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", str(clone), *who, "commit", "-q", "-m", "y"], check=True)
    write(clone, {".env": "A=hidden1\n", "conf/api.key": "hidden2\n", "plain.py": "x = 2\n", "notes.txt": KEY})
    program = f"import sys; sys.path.insert(0, {str(clone / 'src')!r}); from plumbline.environment import git_state; "
    program += "print(__import__('json').dumps(git_state()))"
    state = json.loads(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout)
    assert "+x = 2" in state["diff"] and "-x = 1" in state["diff"]
    assert not [word for word in ("hidden1", "hidden2", "PRIVATE", "b3Blbn") if word in state["diff"]]


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
