"""A copy of the code and configuration as they are now, so that editing the tree does not change what is under way."""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from plumbline.environment import SNAPSHOT, git_state, has_private_key, is_secret_name
from plumbline.files import check_folder, make_folder, temporary_name
from plumbline.output import print_safe, printable

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parents[1]  # of the clone; of an installed wheel, a folder that is nobody's
LARGEST = 20_000_000  # bytes: what is larger is data, not code
DATA = 1_000_000  # bytes: what is larger and has one of these suffixes is data, too
DATA_SUFFIXES = frozenset((
    ".csv", ".tsv", ".jsonl", ".npy", ".npz", ".pt", ".pth", ".ckpt", ".safetensors", ".onnx", ".pkl",
    ".pickle", ".joblib", ".parquet", ".feather", ".arrow", ".h5", ".hdf5", ".mat", ".zarr",
    ".tfrecord", ".lmdb", ".db", ".sqlite", ".zip", ".gz", ".bz2", ".xz", ".zst", ".tar", ".tgz",
    ".7z", ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".wav", ".mp3", ".flac",
    ".mp4", ".avi", ".mov", ".bin", ".dat",
))  # fmt: skip
RESULTS = ("run.json", "study.yaml", SNAPSHOT)  # a folder that holds one of these is an output, wherever it lies


def snapshot(folder: Path) -> Path:
    """Copy the tree into `<folder>/code`, whole or not at all, and return that path; one that is there already stays.

    Run from it with PYTHONPATH=<path>/src. `snapshot.json` in it holds commit, diff and what was left out: files that
    may hold secrets, large files and data, which stay where they lie, and what git ignores.
    """
    code, draft = folder / "code", temporary_name(folder / "code")
    if check_folder(code):
        return code
    make_folder(folder)
    draft.mkdir()
    try:
        left_out: dict[str, str] = {}
        files = dict(sources(left_out))
        copied = {source.resolve() for source in files if not source.is_symlink()}
        for source, name in files.items():
            target = draft / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_symlink():
                target.symlink_to(link_target(source, name, copied))
            else:
                shutil.copy2(source, target)  # with its mode
        for inside in {parent for name in files.values() for parent in name.parents}:
            original = ROOT / inside if (ROOT / inside).is_dir() else draft / inside
            (draft / inside).chmod(original.stat().st_mode & 0o777 | 0o700)
        facts = git_state() or {"commit": None, "dirty": None, "changed": [], "diff": ""}
        facts |= {"root": str(ROOT), "left_out": list(left_out), "reasons": left_out, "ignored": "what git ignores"}
        (draft / SNAPSHOT).write_text(json.dumps(facts, indent=1))
        try:
            os.rename(draft, code)
        except OSError:  # another process was faster
            if not code.is_dir():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    if left_out:
        print_safe(summary(left_out, code))
    return code


def summary(left_out: dict[str, str], code: Path) -> str:
    """What a snapshot leaves out, in one line."""
    shown = ", ".join(f"{printable(name)} ({why})" for name, why in list(left_out.items())[:3])
    more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
    return f"the copy of the code leaves out {shown}{more}; see {code / SNAPSHOT}"


def link_target(source: Path, name: Path, copied: set[Path]) -> str:
    """Where the copy of a link leads: to the copy of its file; out of the tree, and to what is left out, as it led."""
    leads = source.parent / os.readlink(source)
    resolved = source.resolve()
    if resolved not in copied or not resolved.is_relative_to(ROOT.resolve()):
        return str(leads)
    return os.path.relpath(resolved.relative_to(ROOT.resolve()), name.parent)


def sources(left_out: dict[str, str] | None = None) -> list[tuple[Path, Path]]:
    """(file, its name in a snapshot): what git tracks or would; without git conf/, src/ and scripts/; of a wheel the packages.

    left_out: takes the names of those files that a snapshot does not have, each with the reason.
    """
    left_out = {} if left_out is None else left_out
    if PACKAGE.parent.name != "src":
        return [(file, Path("src") / file.relative_to(PACKAGE.parent)) for file in _below(PACKAGE)]
    files = tracked(ROOT)
    if PACKAGE / "snapshot.py" not in files:  # no git, no repository, or one around us that does not know us
        files = unversioned(ROOT)
    files = [file for file in files if file.is_symlink() or file.is_file()]  # tracked ones may have been deleted
    outputs = {file.parent for file in files if file.name in RESULTS}
    found = []
    for file in files:
        name = file.relative_to(ROOT)
        if not outputs.isdisjoint(file.parents):
            continue
        if why := reason(file, name):
            left_out[str(name)] = why
        else:
            found.append((file, name))
    return found


def reason(file: Path, name: Path) -> str | None:
    """Why a snapshot does not have a file; None if it has."""
    if is_secret_name(str(name)):
        return "a secret by its name"
    if file.is_symlink():
        return None
    size = file.stat().st_size
    if size > LARGEST or (size > DATA and file.suffix.lower() in DATA_SUFFIXES):
        return f"{size / 1e6:.1f} MB of data"
    return "a private key" if has_private_key(file.read_bytes()) else None


def tracked(root: Path) -> list[Path]:
    """The files that git tracks in a tree or would, with those of the repositories in it; none where it cannot tell."""
    found = []
    for file in list_files(["-C", str(root)], root, "--cached"):
        inside = file.is_dir() and not file.is_symlink()  # a repository in it, such as a submodule
        found += (tracked(file) if file != root else []) if inside else [file]
    return found


def list_files(where: list[str], root: Path, *kinds: str) -> list[Path]:
    """What `git ls-files` answers; nothing where it fails."""
    words = ["git", *where, "ls-files", "-z", *kinds, "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(words, capture_output=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [root / os.fsdecode(name) for name in dict.fromkeys(listed.split(b"\0")) if name]


def unversioned(root: Path) -> list[Path]:
    """conf/, src/ and scripts/ of a tree that is no repository, without what its .gitignore files name.

    Where git is absent these are read by Python: a pattern in one counts in the folder of the file and below it, as a
    name or as a path with `*` and `?`, the last that fits decides, and what a folder's pattern hides stays hidden.
    """
    parts = [root / name for name in ("conf", "src", "scripts")]
    with tempfile.TemporaryDirectory() as empty:
        try:
            subprocess.run(["git", "init", "-q", "--bare", empty], capture_output=True, check=True, timeout=60)
        except (OSError, subprocess.SubprocessError):
            return [file for file in _below(*parts) if not is_ignored(file, root)]
        files = list_files([f"--git-dir={empty}", f"--work-tree={root}", "-C", str(root)], root)
    return [file for file in files if any(part in file.parents for part in parts)]


def is_ignored(file: Path, root: Path) -> bool:
    """Whether the .gitignore files of a tree name a file or a folder that it is in."""
    inside = [parent for parent in reversed(file.parents) if parent.is_relative_to(root) and parent != root]
    return any(_is_named(path, root) for path in [*inside, file])


def _is_named(path: Path, root: Path) -> bool:
    named = False
    for folder in reversed([parent for parent in path.parents if parent.is_relative_to(root)]):
        name = path.relative_to(folder).as_posix()
        for pattern in _patterns(folder):
            wanted = pattern.lstrip("!").rstrip("/")
            if pattern.rstrip().endswith("/") and not path.is_dir():
                continue
            whole = wanted.removeprefix("/").replace("**/", "*") if "/" in wanted else None
            if fnmatch.fnmatchcase(*((path.name, wanted) if whole is None else (name, whole))):
                named = not pattern.startswith("!")
    return named


@cache
def _patterns(folder: Path) -> tuple[str, ...]:
    try:
        lines = (folder / ".gitignore").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    return tuple(line.rstrip() for line in lines if line.strip() and not line.startswith("#"))


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
    return [file for file in found if (file.is_file() or file.is_symlink()) and "__pycache__" not in file.parts]
