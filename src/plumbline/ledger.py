"""The ledger of the test sets: every opening stands in it before anything of the set is read."""

from __future__ import annotations

import fcntl
import getpass
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from plumbline.config import ConfigError
from plumbline.environment import git_state, now
from plumbline.files import open_file
from plumbline.parsing import parse_json

LEDGER = "test_ledger.jsonl"


@dataclass(frozen=True)
class Opening:
    """An opening of a test set that stands in the ledger. Made by `open_ledger` alone; the seal asks for one."""

    number: int  # how many times this data set's test set has been opened, this time included
    again: str | None
    time: str
    written: bool


def open_ledger(directory: Path, cfg: DictConfig, identity: str, again: str | None, here: int) -> Opening:
    """Write the opening of a test set into the ledger, before anything of it is read; return the proof.

    here: how often this run's own record says it was opened, wherever its folder has been since.
    Raises ConfigError where any run opened the same data before and no reason is given.
    """
    path = ledger_of(directory, cfg)
    git = git_state()
    with open_file(path, "a+", encoding="utf-8", errors="replace") as ledger:
        fcntl.flock(ledger, fcntl.LOCK_EX)  # two evaluations at once are two openings
        ledger.seek(0)
        earlier = [line for line in read_lines(path, ledger) if line["data"] == identity]
        count = max(len(earlier), here)
        if count and not (again or "").strip():
            last = f", last on {earlier[-1]['time']} by {earlier[-1]['run']}" if earlier else ""
            times = "once" if count == 1 else f"{count} times"
            raise ConfigError(
                f"run={directory}: the test set of these data was opened {times} before{last}; each further look "
                "makes its number more optimistic. If you must: again='the reason'"
            )
        opening = Opening(count + 1, again, now(), written=True)
        line = {
            "time": opening.time,
            "run": str(directory),
            "target": cfg.data._target_,
            "data": identity,
            "opening": opening.number,
            "again": again,
            "user": getpass.getuser(),
            "commit": git and git["commit"],
        }
        whole = os.fstat(ledger.fileno()).st_size
        try:
            ledger.write(json.dumps(line, ensure_ascii=False) + "\n")
            ledger.flush()
            os.fsync(ledger.fileno())
        except OSError:
            os.ftruncate(ledger.fileno(), whole)  # half a line would close the ledger for everyone
            raise
    return opening


def read_lines(path: Path, ledger: Iterable[str]) -> list[dict[str, Any]]:
    """The openings in a ledger; raises ConfigError at a line that is none."""
    found = []
    for number, line in enumerate(ledger, 1):
        try:
            opening = parse_json(line)
            if not isinstance(opening, dict) or not all(
                isinstance(opening.get(key), str) for key in ("data", "time", "run")
            ):
                raise ValueError("it has no data, time and run")
            found.append(opening)
        except ValueError as error:
            raise ConfigError(
                f"{path}, line {number}: is not an opening ({error}); mend or remove that line"
            ) from error
    return found


def ledger_of(directory: Path, cfg: DictConfig) -> Path:
    """The ledger of the outputs folder that a run lies in; of the run's own parent where it was moved out of one."""
    parents = list(directory.resolve().parents)
    root = next((folder for folder in parents if (folder / LEDGER).exists()), None)
    root = root or next((folder for folder in parents if folder.name == Path(cfg.outputs).name), parents[0])
    return root / LEDGER
