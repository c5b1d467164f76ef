"""What a run left in its folder, read and validated: run.json, config.yaml, overrides.yaml. No torch.

Every command reads runs through this module, so that a folder that is damaged, or of another program, is one message,
and one note where it stands among others.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from plumbline.config import Checks, Config, ConfigError
from plumbline.contract import describe, fits, shown
from plumbline.files import read_json, read_text
from plumbline.output import print_safe
from plumbline.parsing import parse_yaml

RUN, SETTINGS, OVERRIDES = "run.json", "config.yaml", "overrides.yaml"
STATUSES = ("running", "finished", "failed", "stopped", "preempted", "pruned", "diverged", "lost")
Kind = Callable[[str, Any], None]


class _Wrong(ValueError):
    """A value that is not of its kind."""


# --- kinds of values -------------------------------------------------------------------------------------------------


def _kind(accepted: str, right: Callable[[Any], bool]) -> Kind:
    def check(path: str, value: Any) -> None:
        if not right(value):
            raise _Wrong(f"{path}={shown(value)[:80]}: must be {accepted}")

    return check


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_moment(value: Any) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


anything = _kind("anything", lambda value: True)
text = _kind("text", lambda value: isinstance(value, str))
truth = _kind("true or false", lambda value: isinstance(value, bool))
number = _kind("a number", _is_number)
whole = _kind("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool))
moment = _kind("a date and time with its zone", _is_moment)
status = _kind(f"one of {', '.join(STATUSES)}", lambda value: value in STATUSES if isinstance(value, str) else False)
direction = _kind("minimise or maximise", lambda value: value in ("minimise", "maximise"))


def optional(kind: Kind) -> Kind:
    return lambda path, value: None if value is None else kind(path, value)


def each(kind: Kind, length: int | None = None) -> Kind:
    """A list of such values."""

    def check(path: str, value: Any) -> None:
        if not isinstance(value, list) or length not in (None, len(value)):
            raise _Wrong(f"{path}={shown(value)[:80]}: must be a list{'' if length is None else f' of {length}'}")
        for index, item in enumerate(value):
            kind(f"{path}[{index}]", item)

    return check


def values(kind: Kind) -> Kind:
    """A mapping to such values."""

    def check(path: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise _Wrong(f"{path}={shown(value)[:80]}: must be a mapping")
        for key, item in value.items():
            kind(f"{path}.{key}", item)

    return check


def mapping(*needed: str, **kinds: Kind) -> Kind:
    """A mapping that has the needed keys; those of `kinds`, where they are there, are of their kinds."""

    def check(path: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise _Wrong(f"{path}={shown(value)[:80]}: must be a mapping")
        for key in needed:
            if key not in value:
                raise _Wrong(f"{path}.{key}: is not there")
        for key, kind in kinds.items():
            if key in value:
                kind(f"{path}.{key}", value[key])

    return check


# --- run.json --------------------------------------------------------------------------------------------------------

_names = optional(each(anything))
_metrics = values(optional(number))


def _baseline(path: str, value: Any) -> None:
    """The name of the simplest baseline, and its metrics."""
    mapping("name", name=text)(path, value)
    _metrics(path, {key: number for key, number in value.items() if key != "name"})


_finding = mapping("id", "severity", id=text, severity=text, phase=text, message=text, cause=text)
_data = mapping(
    fingerprint=text, task=text, shape=each(whole), outputs=whole, classes=_names, features=_names,
    masks=optional(each(whole)), categories=optional(each(each(whole, 2))), train=whole, val=whole, left_out=each(text),
    selection=optional(mapping("columns", columns=each(text))),
)  # fmt: skip
_change = mapping(
    "run", "keys", "seeds", run=text, command=text, named=truth, keys=values(each(anything, 2)), code=optional(each(anything, 2)),
    outcome=optional(mapping("said", said=text, verdict=text)),
)  # fmt: skip
_git = mapping(commit=optional(text), dirty=optional(truth), changed=each(text), diff=text)
_test = mapping("openings", openings=whole, opened=text, samples=whole, left_out=each(text), metrics=values(_metrics))
SCHEMA: dict[str, tuple[Any, Kind]] = {  # key: (value where it is not there, kind); status is always there
    "status": (None, status), "name": ("", text), "question": ("", text), "command": ("", text),
    "started": ("", text), "heartbeat": ("1970-01-01T00:00:00+00:00", moment),
    "process": ({"id": 0, "host": ""}, mapping("id", "host", id=whole, host=text)),
    "finished": (None, optional(text)), "seconds": (0.0, number), "seed": (0, whole), "objective": (None, optional(text)),
    "direction": (None, optional(direction)), "best": (None, optional(_metrics)), "baseline": (None, optional(_baseline)),
    "baselines": ([], each(mapping("name", "metrics", name=text, metrics=_metrics))), 
    "interval": (None, optional(values(each(optional(number), 2)))),
    "margins": (None, optional(values(each(number, 2)))), "parameters": (None, optional(whole)), "data": (None, optional(_data)),
    "environment": ({}, values(anything)), "git": (None, optional(_git)), "restarts": (0, whole),
    "findings": ([], each(_finding)), "trackers": ({}, values(anything)), "change": (None, optional(_change)),
    "test": (None, optional(_test)), "error": (None, optional(text)), "processes": (None, optional(whole)),
    "transfer": (None, optional(mapping(run=text, weights=text))), "layers": ([], each(mapping(multiply_adds=number))),
    "lr_curve": ([], each(anything)), "figures": ({}, values(text)), "answer": ("", text),
}  # fmt: skip
LATER = ("layers", "lr_curve", "figures", "answer")  # keys that a run gets on its way


def read_run_file(directory: Path) -> dict[str, Any]:
    """run.json of a folder, its values of their kinds; raises ConfigError where it is not there or damaged.

    Keys that a run of an earlier version does not have get the values that stand for nothing.
    """
    path = directory / RUN
    if not path.exists() and not path.is_symlink():
        there = f"there is no {RUN} in it" if directory.is_dir() else "there is no such folder"
        raise ConfigError(f"{directory}: is not the folder of a run: {there}")
    run = read_json(path)
    try:
        check_run(run)
    except _Wrong as error:
        raise ConfigError(f"{path}: is damaged, or not a run's: {error}") from error
    return {key: _copy(absent) for key, (absent, _) in SCHEMA.items() if key not in LATER} | run


def check_run(run: dict[str, Any]) -> None:
    """Raise ValueError at the first value that is not of its kind."""
    if "status" not in run:
        raise _Wrong("status: is not there")
    for key, value in run.items():
        if key in SCHEMA:
            SCHEMA[key][1](key, value)
    if run["status"] == "finished" and run.get("objective") not in (run.get("best") or {}):
        raise _Wrong(f"best: has no {run.get('objective') or 'objective'} although it is finished")


def repair_run(run: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """(run without the values that are not of their kinds, what is wrong with each): for pages of damaged runs."""
    kept, wrong = {}, []
    for key, value in run.items():
        try:
            SCHEMA.get(key, (None, anything))[1](key, value)
            kept[key] = value
        except _Wrong as error:
            wrong.append(str(error))
    return kept, wrong


def _copy(value: Any) -> Any:
    return value.copy() if isinstance(value, dict | list) else value


def read_runs(folders: Iterable[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """(folder, run.json) of those that can be read; of each other one, a note on stderr."""
    for folder in folders:
        try:
            yield folder, read_run_file(folder)
        except ConfigError as error:
            skip(folder, error)


def skip(folder: Path, error: Exception) -> None:
    """Print a note that a folder is left out of a list; nothing where it was taken away meanwhile."""
    if (folder / RUN).exists() or (folder / RUN).is_symlink():
        print_safe(f"note: {folder} is left out: {' '.join(str(error).split())}", file=sys.stderr)


# --- config.yaml and overrides.yaml ----------------------------------------------------------------------------------


def read_settings(directory: Path) -> dict[str, Any]:
    """config.yaml of a folder as plain values; raises ConfigError where it is not there, damaged, or no run's."""
    content = _read_yaml(directory, SETTINGS)
    where = f"{directory}: is not the folder of a run: its {SETTINGS}"
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{where} holds no mapping of a run's keys")
    for key, value in content.items():
        annotation = _annotations().get(key)
        written = isinstance(value, str) and ("${" in value or value == "???")  # its value is known when it is composed
        if annotation is not None and not written and not fits(value, annotation):
            raise ConfigError(f"{where} has {key}={shown(value)[:80]}, which must be {describe(annotation)}")
    data = content.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("_target_"), str):
        raise ConfigError(f"{where} has no data with a _target_")
    return content


def read_overrides(directory: Path) -> list[str]:
    """overrides.yaml of a folder: the words of its command; raises ConfigError."""
    content = _read_yaml(directory, OVERRIDES)
    if not isinstance(content, list) or not all(isinstance(word, str) for word in content):
        raise ConfigError(f"{directory}: is not the folder of a run: its {OVERRIDES} is not a list of words")
    return content


def _read_yaml(directory: Path, name: str) -> Any:
    path = directory / name
    if not path.exists() and not path.is_symlink():
        there = f"there is no {name} in it" if directory.is_dir() else "there is no such folder"
        raise ConfigError(f"{directory}: is not the folder of a run: {there}")
    try:
        return parse_yaml(read_text(path), as_options=True)
    except (OSError, ValueError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise ConfigError(f"{directory}: is not the folder of a run: its {name} cannot be read ({why})") from error


@cache
def _annotations() -> dict[str, Any]:
    groups = (dict[str, Any], Checks)
    return {key: dict | None if kind in groups else kind for key, kind in get_type_hints(Config).items()}
