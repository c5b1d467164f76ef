"""Files that are whole at every moment, whoever is killed while they are written."""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from plumbline.config import ConfigError


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
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if keep and path.exists():
            spare = temporary.with_name(temporary.name + ".before")
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


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a run's folder; raises ConfigError where it is not whole."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: cannot be read ({error}); without it, delete it and say resume={path.parent}"
        ) from error


def lock(directory: Path) -> Any:
    """Hold the folder for this process, until it ends however it ends; raises ConfigError where another holds it."""
    try:
        file = open(directory / ".lock", "w")  # noqa: SIM115 - open as long as the run
    except OSError as error:
        raise ConfigError(f"{directory}: cannot be written to ({error.strerror})") from error
    for attempt in range(20):  # a killed run's loader processes live on for a moment
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            time.sleep(0.5 * (attempt < 19))
    raise ConfigError(f"{directory}: another process is training in this folder; wait for it, or stop it")
