"""A copy of the code and configuration as they are now, so that editing the tree does not change what is under way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from plumbline.environment import SNAPSHOT, git_state

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parents[1]  # of the clone; of an installed wheel, a folder that is nobody's
LARGEST = 20_000_000  # bytes: what is larger is data, not code
RESULTS = ("run.json", "study.yaml", SNAPSHOT)  # a folder that holds one of these is an output, wherever it lies


def snapshot(folder: Path) -> Path:
    """Copy the tree into `<folder>/code`, whole or not at all, and return that path; one that is there already stays.

    Run from it with PYTHONPATH=<path>/src. `snapshot.json` in it holds commit, diff and what was too large to take.
    """
    code, draft = folder / "code", folder / f".code.{os.getpid()}"
    if code.is_dir():
        return code
    draft.mkdir(parents=True)
    try:
        large = []
        for source, name in sources():
            target = draft / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_symlink():
                target.symlink_to(source.parent / os.readlink(source))  # absolute: it leads where it led
            elif source.is_dir():  # a submodule
                shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns(".git", "__pycache__"))
            elif source.stat().st_size > LARGEST:
                large.append(str(name))
            else:
                shutil.copy2(source, target)
        facts = git_state() or {"commit": None, "dirty": None, "changed": [], "diff": ""}
        (draft / SNAPSHOT).write_text(json.dumps(facts | {"root": str(ROOT), "left_out": large}, indent=1))
        try:
            os.rename(draft, code)
        except OSError:  # another process was faster
            if not code.is_dir():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return code


def sources() -> list[tuple[Path, Path]]:
    """(file, its name in a snapshot): what git tracks or would; without git conf/ and src/; of a wheel the packages."""
    if PACKAGE.parent.name != "src":
        return [(file, Path("src") / file.relative_to(PACKAGE.parent)) for file in _below(PACKAGE)]
    try:
        words = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(words, capture_output=True, check=True, timeout=60).stdout
        files = [ROOT / os.fsdecode(name) for name in dict.fromkeys(listed.split(b"\0")) if name]
        if PACKAGE / "snapshot.py" not in files:
            raise FileNotFoundError  # a repository around us that does not know us
    except (OSError, subprocess.SubprocessError):
        files = _below(ROOT / "conf", ROOT / "src", ROOT / "scripts")
    files = [file for file in files if file.is_symlink() or file.exists()]  # tracked ones may have been deleted
    outputs = {file.parent for file in files if file.name in RESULTS}
    return [(file, file.relative_to(ROOT)) for file in files if outputs.isdisjoint(file.parents)]


def changed(code: Path) -> list[str]:
    """The files under conf/ and src/ of a snapshot that are other ones, or gone, in the tree of today."""
    now = {str(name): file for file, name in sources()}
    found = []
    for file in _below(code / "conf", code / "src"):
        name = str(file.relative_to(code))
        if name not in now or now[name].read_bytes() != file.read_bytes():
            found.append(name)
    return found


def _below(*folders: Path) -> list[Path]:
    found = [file for folder in folders for file in sorted(folder.rglob("*"))]
    return [file for file in found if file.is_file() and "__pycache__" not in file.parts]
