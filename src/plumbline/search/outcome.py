"""How a trial's process ended: what its folder says, and the last lines that it printed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plumbline.contract import ConfigError
from plumbline.files import read_json

ENDED = "ended.json"  # in a trial's folder: its end, where no run of it says so
LAST_LINES = 12  # of a failed trial's output that are kept with it


@dataclass
class Outcome:
    """How a process of a trial ended. status: as in run.json; `left` if it is to go on later; `died` if something ended it."""

    status: str
    reason: str = ""
    run: dict[str, Any] | None = None


def measured(run: dict[str, Any], name: str) -> float:
    """An objective of a run: a metric at its best epoch, or a fact of it."""
    if name.startswith("val/"):
        return float(run["best"][name])
    if name == "multiply_adds":
        return float(sum(layer["multiply_adds"] for layer in run["layers"]))
    return float(run[name])


def read_run(directory: Path) -> dict[str, Any] | None:
    """run.json of a folder; None where there is none, or none of this shape."""
    try:
        run = read_json(directory / "run.json")
    except ConfigError:
        return None
    if not isinstance(run.get("status"), str):
        return None
    return run if run["status"] != "finished" or isinstance(run.get("best"), dict) else None


def outcome(directory: Path, status: int = 0) -> Outcome | None:
    """How the run in a folder ended, if it did."""
    run = read_run(directory)
    if run is None:
        return None
    if run["status"] in ("finished", "pruned", "diverged"):
        return Outcome(run["status"], str(run.get("error") or ""), run)
    if run["status"] == "failed" and status >= 0:
        from plumbline.search.trial import LOG, NO_ROOM

        return (
            None
            if status == NO_ROOM
            else Outcome("failed", last_lines(directory / LOG) or str(run.get("error") or ""), run)
        )
    return None


def last_lines(log: Path) -> str:
    try:
        with open(log, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 20_000))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-LAST_LINES:])
