"""Files that are whole at every moment, whoever is killed while they are written; and that are ours to write.

A folder may come from elsewhere. Nothing is written through a link, no file is emptied before the new one is whole, and
temporary files carry our mark, by which alone they are swept.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from plumbline.contract import ConfigError
from plumbline.parsing import parse_json

MARK = "plumbline"  # at the end of the names of our temporary files
TEMPORARY = re.compile(rf"\..+\.[0-9a-f]{{8}}\.{MARK}")
MAX_BYTES = 200_000_000  # of a text file that is read whole


class NotOurs(ConfigError):
    """Something else than a file, or a folder, stands where one of ours is to be written."""


def check_file(path: Path) -> None:
    """Raise NotOurs unless there is a regular file at the path, or nothing."""
    _check(path, stat.S_ISREG, "file")


def check_folder(path: Path) -> bool:
    """Whether there is a folder at the path; raises NotOurs where there is something else, or a link."""
    return _check(path, stat.S_ISDIR, "folder")


def _check(path: Path, right: Any, kind: str) -> bool:
    """Whether there is such a thing at the path; raises NotOurs where there is another, links included."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        raise NotOurs(f"{path.parent}: is not a folder; move it away") from None
    if right(mode):
        return True
    found = "a link" if stat.S_ISLNK(mode) else "a folder" if stat.S_ISDIR(mode) else "not a regular " + kind
    raise NotOurs(f"{path}: is {found}, and a {kind} of the run is written there; move it away: mv {path} {path}.away")


def open_file(path: Path, mode: str, **options: Any) -> IO[Any]:
    """`open` for a file of ours: never through a link, never emptied, never a pipe. Raises NotOurs, and OSError.

    Modes that begin with `w` open a file for writing as it is; what is to be replaced goes through `replacing`.
    """

    def opener(name: str, flags: int) -> int:
        safe = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe without a reader is an error, and does not wait
        return os.open(name, (flags & ~os.O_TRUNC) | safe, 0o666)

    check_file(path)
    try:
        file = open(path, mode, opener=opener, **options)  # noqa: SIM115 - the caller closes it
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            check_file(path)  # it was put there a moment ago
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise NotOurs(f"{path}: is not a regular file; move it away: mv {path} {path}.away")
    return file


def touch(path: Path) -> None:
    """Make an empty file of ours, or give the one that is there the time of now."""
    with open_file(path, "a") as file:
        os.utime(file.fileno())


def make_folder(root: Path, *names: str) -> Path:
    """The folder of these names inside `root`, made if need be. `root` may be reached by links, those within may not."""
    root.mkdir(parents=True, exist_ok=True)
    path = root
    for name in names:
        path = path / name
        if not check_folder(path):
            path.mkdir(exist_ok=True)
            check_folder(path)
    return path


def missing_folders(path: Path) -> list[Path]:
    """The folder and those around it that are not there yet, the innermost first."""
    return [folder for folder in (path, *path.parents) if not folder.exists()]


def remove_empty(folders: list[Path]) -> None:
    """Remove folders that were made for what did not come to be, as far as they are empty."""
    for folder in folders:
        with suppress(OSError):  # it holds something by now
            folder.rmdir()


def temporary_name(path: Path) -> Path:
    """An unpredictable name beside the path, with our mark."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.{MARK}")


def sweep(directory: Path) -> None:
    """Remove temporary files of ours whose process was killed while it wrote. Only for the one who holds the folder."""
    for path in directory.iterdir():
        if TEMPORARY.fullmatch(path.name) and stat.S_ISREG(path.lstat().st_mode):
            path.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all; NaN and infinities, which JSON does not have, become null."""
    write_text(path, as_json(content) + "\n")


def as_json(content: Any) -> str:
    return json.dumps(plain(content), indent=1, ensure_ascii=False)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode())


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """An .npz file, whole or not at all."""
    with replacing(path) as file:
        np.savez(file, **arrays)


@contextmanager
def replacing(path: Path, keep: Path | None = None) -> Iterator[BinaryIO]:
    """A file to write to that takes the place of `path` when all of it is on the disk, and goes where that fails.

    keep: the name that what was at `path` has from then on.
    """
    for name in (path, keep):
        if name is not None:
            check_file(name)
    temporary = temporary_name(path)
    try:
        with open_file(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if keep and path.exists():
            spare = temporary_name(keep)
            os.link(path, spare)  # both names at once: there is no moment without a file at `path`
            os.replace(spare, keep)
            spare.unlink(missing_ok=True)  # killed right here once, both are one file, and replacing does nothing
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """A value as JSON has it: null for what is not finite, text for what it does not know."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def read_text(path: Path) -> str:
    """A UTF-8 file of text, of a folder that may come from elsewhere. Raises OSError and ValueError, and never waits."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_CLOEXEC)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"is larger than {MAX_BYTES:,} bytes")
    return content.decode("utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object; raises ConfigError where it is not whole, or holds something else."""
    try:
        content = parse_json(read_text(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ConfigError(f"{path}: cannot be read ({error}); it is damaged") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds a {type(content).__name__}, not an object; it is damaged")
    return content


def lock(directory: Path) -> Any:
    """Hold the folder for this process, until it ends however it ends; raises ConfigError where another holds it."""
    try:
        file = open_file(directory / ".lock", "a")
    except OSError as error:
        raise ConfigError(f"{directory}: cannot be written to ({error.strerror})") from error
    for attempt in range(20):  # a killed run's loader processes live on for a moment
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            time.sleep(0.5 * (attempt < 19))
    raise ConfigError(f"{directory}: another process is training in this folder; wait for it, or stop it")
