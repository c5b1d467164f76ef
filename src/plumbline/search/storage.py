"""Where a study is kept: a journal file that survives its writers, or any database Optuna knows."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import shutil
import time
from datetime import date
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from plumbline.contract import ConfigError
from plumbline.files import check_file, open_file, read_text, replacing

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

JOURNAL = "study.journal"
COPIES = 3  # days of which a copy of the journal is kept
VARIABLE = "PLUMBLINE_STORAGE"  # an URL with its password, which is written nowhere


def machine() -> str:
    """What tells machines apart where file locks of the kernel reach: its boot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return platform.node()


class Lock(JournalFileOpenLock):
    """Optuna's lock file, which works on network disks, behind a lock of the kernel, which ends with its process.

    On one machine one process at a time gets to the lock file, so one that names this machine belongs to a dead
    process and goes at once; another machine's goes when it has not changed for 30 s.
    """

    def acquire(self) -> bool:
        self._held = open_file(Path(self._lock_file + ".local"), "a")  # closed by release
        with contextlib.suppress(OSError, UnicodeDecodeError):  # a disk without such locks
            fcntl.flock(self._held, fcntl.LOCK_EX)
            if read_text(Path(self._lock_file)) == machine():
                os.unlink(self._lock_file)
        super().acquire()
        try:
            with open_file(Path(self._lock_file), "r+") as file:  # Optuna has just made it
                file.write(machine())
        except (OSError, ConfigError):  # a full disk: without a name in it, it would be waited for
            self.release()
            raise
        return True

    def release(self) -> None:
        try:
            super().release()
        finally:
            held, self._held = getattr(self, "_held", None), None
            if held is not None:
                held.close()

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


class MendingLock(Lock):
    """The journal's: who has it finds a journal of whole lines, whatever became of the writer before."""

    def __init__(self, journal: Path):
        super().__init__(str(journal))
        self.journal = journal

    def acquire(self) -> bool:
        super().acquire()
        try:
            mend(self.journal)
        except BaseException:
            self.release()
            raise
        return True


def mend(journal: Path) -> None:
    """Cut off last lines that are not whole: a full disk or a quota, their writer died, or the power left zeros there."""
    if not journal.exists():
        return
    with open_file(journal, "r+b") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            begin = last_line(file, end)
            file.seek(begin)
            if whole(file.read(end - begin)):
                return
            file.truncate(begin)
            end = begin


def last_line(file: IO[bytes], end: int) -> int:
    """Where the last line before a place in a file begins."""
    before = end - 1  # an end of line there is its own
    while before > 0:
        begin = max(0, before - 65536)
        file.seek(begin)
        at = file.read(before - begin).rfind(b"\n")
        if at >= 0:
            return begin + at + 1
        before = begin
    return 0


def whole(line: bytes) -> bool:
    """Whether a line of the journal was written to its end."""
    if not line.endswith(b"\n"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def open_storage(folder: Path, url: str | None) -> BaseStorage:
    """The storage of the study in `folder`. One for a process's life: to open a journal is to read all of it."""
    if url is not None:
        return database(url)
    check_file(folder / JOURNAL)
    check_file(folder / f"{JOURNAL}.lock.local")
    journal = (folder / JOURNAL).resolve()
    try:
        return JournalStorage(JournalFileBackend(str(journal), lock_obj=MendingLock(journal)))
    except (ValueError, KeyError, AssertionError, TypeError, AttributeError, IndexError, IsADirectoryError) as error:
        found = copies(folder)
        advice = f"put {found[-1].name}, a copy, in its place, or " if found else ""
        advice += "move it away: the same command restores all trials from their folders"
        raise ConfigError(f"{journal}: is damaged ({type(error).__name__}: {error}); {advice}") from error


def copies(folder: Path) -> list[Path]:
    """The daily copies of a study's journal, the newest last."""
    return sorted(folder.glob(f"{JOURNAL}.[0-9]*"))


def copy_daily(folder: Path) -> None:
    """Keep a copy of the journal a day, of the last days."""
    journal = folder / JOURNAL
    copy = folder / f"{JOURNAL}.{date.today().isoformat()}"
    if not journal.exists() or copy.exists():
        return
    with MendingLock(journal):
        if not copy.exists():
            with open(journal, "rb") as file, replacing(copy) as draft:
                shutil.copyfileobj(file, draft)
    for old in copies(folder)[:-COPIES]:
        old.unlink(missing_ok=True)


def database(url: str) -> RDBStorage:
    """Optuna's storage in a database. Connections are made anew for each use, so none is shared by a fork."""
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    options: dict[str, Any] = {"poolclass": NullPool}
    if url.startswith("sqlite"):
        options["connect_args"] = {"timeout": 120}
    for attempt in range(5):  # several that make the tables at the same moment are in one another's way
        try:
            return RDBStorage(url, engine_kwargs=options)
        except ImportError as error:
            advice = f"needs a driver: pip install 'plumbline[postgresql]' ({error})"
            raise ConfigError(f"search.storage={shown(url)}: {advice}") from error
        except Exception as error:
            if attempt == 4 or not isinstance(error, SQLAlchemyError):
                reason = hidden(str(error.__cause__ or error).strip().splitlines()[0], url)
                raise ConfigError(f"search.storage={shown(url)}: cannot be opened: {reason}") from None
            time.sleep(0.2 * (attempt + 1))
    raise AssertionError


def shown(url: str) -> str:
    """An URL without its password."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except ArgumentError:
        return "…"  # whatever it is, it may hold one
    secret = {key: "***" for key in parsed.query if "pass" in key.lower()}
    return parsed.update_query_dict(secret).render_as_string(hide_password=True)


def hidden(text: str, url: str) -> str:
    """A text without the URL and its password."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except ArgumentError:
        return text.replace(url, shown(url))
    for secret in (parsed.password, *(str(v) for key, v in parsed.query.items() if "pass" in key.lower())):
        text = text.replace(secret, "***") if secret else text
    return text.replace(url, shown(url))
