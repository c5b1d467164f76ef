"""Whether a worker lives: a file of its own, locked while it does on this machine, touched for those on others."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import secrets
import time
from pathlib import Path

from plumbline.files import NotOurs, make_folder, open_file, read_text, touch
from plumbline.parsing import parse_json
from plumbline.search.storage import machine
from plumbline.slurm.job import own_job

FOLDER = "workers"
EVERY = 10.0  # seconds between signs of life
STALE = 120.0  # without one for so long, a worker on another machine is dead


def task() -> str | None:
    """The SLURM task this process is, however often it was requeued."""
    number = os.environ.get("SLURM_ARRAY_JOB_ID") or os.environ.get("SLURM_JOB_ID")
    return (
        f"{number}_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}_{os.environ.get('SLURM_PROCID', '')}" if number else None
    )


class Presence:
    """This process, as the other workers of a study see it."""

    def __init__(self, study: Path):
        self.study, self.folder = study, study / FOLDER
        make_folder(study, FOLDER)
        self.name = f"{platform.node()}-{os.getpid()}-{secrets.token_hex(2)}"
        mine = self.folder / f".{self.name}"
        self.file = open_file(mine, "x")  # open, and locked, as long as the worker
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            here: str | None = machine()
        except OSError:  # a disk without locks: signs of life are all there is
            here = None
        self.file.write(json.dumps({"locked_on": here, "host": platform.node(), "pid": os.getpid(), "task": task()}))
        self.file.flush()
        mine.rename(self.folder / self.name)  # others see it whole and locked, or not at all
        self.touched = time.monotonic()
        for other in self.folder.iterdir():  # this very task, before it was requeued
            if task() and other.name != self.name and _read(other).get("task") == task():
                other.unlink(missing_ok=True)

    def beat(self) -> None:
        if time.monotonic() - self.touched > EVERY:
            self.touched = time.monotonic()
            with contextlib.suppress(OSError):  # a full disk, most likely: the lock is there still
                os.utime(self.folder / self.name)

    def worked(self) -> None:
        """Tell the script of a job that this start of it got on, so that it is worth another one should it be killed."""
        if (job := own_job()) is not None:
            touch(self.study / f".worked-{job}")

    def leave(self) -> None:
        (self.folder / self.name).unlink(missing_ok=True)
        self.file.close()


def alive(study: Path, name: str | None) -> bool:
    """Whether the worker of that name is: by its lock on this machine, by its last sign of life on another."""
    path = study / FOLDER / (name or "nobody")
    try:
        with open_file(path, "r") as file:
            if _read(path).get("locked_on") == machine():
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that look do not see one another
                return False
            return _now(study) - os.fstat(file.fileno()).st_mtime < STALE
    except BlockingIOError:
        return True
    except (OSError, NotOurs):
        return False


def workers(study: Path) -> list[str]:
    """The workers that live."""
    return [file.name for file in sorted((study / FOLDER).glob("[!.]*")) if alive(study, file.name)]


def sweep(study: Path) -> None:
    """Remove the files of dead workers."""
    for file in (study / FOLDER).glob("[!.]*"):
        if not alive(study, file.name):
            file.unlink(missing_ok=True)


def _now(study: Path) -> float:
    """The clock of the disk, which may not be this machine's."""
    probe = study / FOLDER / f".clock-{platform.node()}-{os.getpid()}"
    try:
        touch(probe)
    except OSError:  # who may only look has no better clock than this machine's
        return time.time()
    now = probe.stat().st_mtime
    probe.unlink(missing_ok=True)
    return now


def _read(path: Path) -> dict[str, object]:
    try:
        found = parse_json(read_text(path))
    except (OSError, ValueError):  # gone, or being written
        return {}
    return found if isinstance(found, dict) else {}
