"""What changed since an earlier run. One thing at a time, or nobody can tell which of them did it (S3, S0, S2)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from plumbline.config import ConfigError
from plumbline.output import printable
from plumbline.record import Record
from plumbline.stored import read_run_file, read_settings, skip

BESIDE = (  # root keys that change nothing of what is learnt, nor of how it is judged
    "name", "question", "parent", "outputs", "report", "checks", "tracker", "figures", "device", "threads", "compile", "shard",
    "channels_last", "watch", "train_eval", "eval_batch_size", "save_minutes", "snapshots", "bootstrap", "resume", "allow",
    "launcher", "cluster", "resources",
)  # fmt: skip
ELSEWHERE = ("data.root", "data.download", "data.workers", "data.scan_cache")  # where data lie and who fetches them
BY_THE_WAY = tuple(path for path in ELSEWHERE if path != "data.root")  # these explain no other data
PLACES = ("data.file", "data.root", "data.system_root", "data.path", "data.folder", "data.directory", "data.dir")
CONTENTS = "data (contents)"  # the change of data that no key of the configuration explains
SEED = "seed"
SHOWN = 6  # changes that are named in a sentence
LOOKED_AT = 500  # latest folders of runs: 0.1 ms each
NEAR = 30  # of them, those of the same data: 5 ms each, for their whole configuration


def changes(
    before: dict[str, Any], after: dict[str, Any], data: tuple[str | None, str | None] = (None, None)
) -> dict[str, tuple[Any, Any]]:
    """What differs between two configurations, the seed included: {path: (before, after)}.

    A component exchanged for another is one change, whatever values it brings; so is one that came or went. A root key
    that one of them does not have is of another version, and says nothing. data: the fingerprints of what the two were
    trained and validated on. Where they are known, other data are a change, and the same data elsewhere are none.
    """
    found: dict[str, tuple[Any, Any]] = {}
    for key in before:
        if key in after and key not in BESIDE:
            _differ(key, before[key], after[key], found)
    known, same = None not in data, data[0] == data[1]
    if known and not same:
        if any(path == "data" or (path.startswith("data.") and path not in BY_THE_WAY) for path in found):
            return {path: both for path, both in found.items() if path not in BY_THE_WAY}
        return {CONTENTS: apart(*data)} | {path: both for path, both in found.items() if path not in ELSEWHERE}
    dropped = (*ELSEWHERE, *PLACES) if known else ELSEWHERE
    return {path: both for path, both in found.items() if path not in dropped}


def fingerprint_of(run: dict[str, Any]) -> str | None:
    """The fingerprint of the data in a run's run.json, or None."""
    data = run.get("data")
    found = data.get("fingerprint") if isinstance(data, dict) else None
    return found if isinstance(found, str) else None


def is_validated_alike(data: tuple[str | None, str | None], keys: dict[str, Any]) -> bool:
    """Whether two runs that differ in these keys have the same validation samples, as far as their contents are known."""
    return CONTENTS not in keys or data[0].partition("-")[2] == data[1].partition("-")[2]


def apart(before: str, after: str) -> tuple[str, str]:
    """Two fingerprints, each `<of train>-<of validation>`, in short: of the first part that differs."""
    parts = list(zip(before.split("-"), after.split("-"), strict=False))
    one, other = next((pair for pair in parts if pair[0] != pair[1]), (before, after))
    return f"{one[:8]}…", f"{other[:8]}…"


def _differ(path: str, before: Any, after: Any, found: dict[str, tuple[Any, Any]]) -> None:
    if isinstance(before, dict) and isinstance(after, dict) and before.get("_target_") == after.get("_target_"):
        for key in dict.fromkeys([*before, *after]):
            _differ(f"{path}.{key}", before.get(key), after.get(key), found)
    elif before != after:
        found[path] = (_short(before), _short(after))


def _short(value: Any) -> Any:
    """A component by its name alone: `plumbline.models.mlp.MLP` is MLP; none is null."""
    if not isinstance(value, dict):
        return value
    return str(value["_target_"]).rpartition(".")[2] if "_target_" in value else (value or None)


def told(found: dict[str, Any]) -> str:
    """Changes in one line: optimiser.lr 0.001 → 0.003, regulariser.dropout null → Dropout."""
    return ", ".join(f"{printable(path)} {_plain(before)} → {_plain(after)}" for path, (before, after) in found.items())


def _plain(value: Any) -> str:
    return printable(value if isinstance(value, str) else json.dumps(value, default=str))


def since_then(change: dict[str, Any]) -> str:
    """What was changed since which run, as the beginning of a sentence."""
    what = in_short(change["keys"]) or ("another seed" if change["seeds"] else "no change")
    return f"since {Path(change['run']).name}, {what}"


def in_short(found: dict[str, Any]) -> str:
    """The first few changes in one line."""
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return told(dict(list(found.items())[:SHOWN])) + more


def since(cfg: DictConfig, record: Record) -> dict[str, Any] | None:
    """What a run changes: of the run that `parent` names, or of the nearest finished one of the same data; None: no such run.

    Nearest is the one with the fewest changes, of several the latest. Raises ConfigError where parent is no run.
    """
    ours = settings(record.directory)
    if cfg.parent is not None:
        folder = Path(cfg.parent)
        earlier = iter([(folder, read_run_file(folder), settings(folder))])
    else:
        earlier = islice(alike(Path(cfg.outputs), record.run, ours), NEAR)
    best: dict[str, Any] | None = None
    for folder, run, theirs in earlier:
        differing = changes(theirs, ours, (fingerprint_of(run), fingerprint_of(record.run)))
        seeds = differing.pop(SEED, None)
        if best is None or (len(differing), seeds is not None) < (len(best["keys"]), best["seeds"] is not None):
            commits = [(git or {}).get("commit") for git in (run.get("git"), record.run["git"])]
            best = {
                "run": str(folder.resolve()), "command": run["command"], "named": cfg.parent is not None,
                "keys": differing, "seeds": seeds, "code": commits if commits[0] != commits[1] else None,
            }  # fmt: skip
    return best


def alike(
    outputs: Path, run: dict[str, Any], ours: dict[str, Any]
) -> Iterator[tuple[Path, dict[str, Any], dict[str, Any]]]:
    """(folder, run.json, config.yaml) of the finished runs of the same data and objective, the latest first."""
    for folder in latest(outputs)[:LOOKED_AT]:
        try:
            there = read_run_file(folder)
            known = there.get("data") or {}
            same = all(_same(known.get(fact), run["data"][fact]) for fact in ("task", "outputs", "classes"))
            if there["status"] != "finished" or there["objective"] != run["objective"] or not same:
                continue
            theirs = settings(folder)
        except ConfigError as error:
            skip(folder, error)
            continue
        if theirs["data"]["_target_"] == ours["data"]["_target_"]:
            yield folder, there, theirs


def _same(one: Any, other: Any) -> bool:
    return (
        list(one) == list(other) if isinstance(one, list | tuple) and isinstance(other, list | tuple) else one == other
    )


def latest(outputs: Path) -> list[Path]:
    """The folders of the runs that were started by hand, the latest first; the trials of studies are not among them."""
    times = []
    for path in (*outputs.glob("*/run.json"), *outputs.glob("*/*/run.json")):
        try:
            times.append((path.stat().st_mtime, path.parent))
        except OSError:  # it was taken away meanwhile
            continue
    return [folder for _, folder in sorted(times, reverse=True)]


def settings(folder: Path) -> dict[str, Any]:
    """config.yaml of a run's folder as plain values; raises ConfigError where it cannot be read."""
    return read_settings(folder)
