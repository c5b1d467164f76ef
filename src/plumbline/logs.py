"""Training logs as others write them, read into records with our own keys: epoch, fit/loss, val/loss, lr, …"""

from __future__ import annotations

import csv
import itertools
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plumbline.config import MAXIMISE, MINIMISE, ConfigError, nearest
from plumbline.files import read_text
from plumbline.parsing import parse_json

ROLES = ("train", "val", "metric", "lr")
TRAIN = {"train", "training", "fit", "tr"}
VALIDATION = {"val", "valid", "validation", "eval", "dev", "holdout"}
TEST = {"test"}
LOSS = {"loss", "nll", "crossentropy", "xent", "objective", "criterion"}
MORE = {  # words of metrics of which more is better
    "acc", "accuracy", "auc", "auroc", "f1", "r2", "precision", "recall", "iou", "miou", "dice", "map", "bleu", "rouge", "psnr",
    "ssim", "top1", "top5", "score", "kappa", "mcc", "em", "ndcg", "acc1", "acc5",
}  # fmt: skip
LESS = {"mae", "mse", "rmse", "error", "err", "perplexity", "ppl", "wer", "cer", "fid", "mape"}
CLOCK = {"epoch", "epochs", "ep", "step", "steps", "iteration", "iterations", "iter", "globalstep", "batch"}
PARTS = 200  # into which the steps of a log without epochs are gathered: single batches are mostly noise


@dataclass
class Log:
    """A log with what was taken for what."""

    records: list[dict[str, Any]]
    columns: dict[str, str]  # role -> the log's own name
    objective: str = "val/loss"
    direction: str | None = MINIMISE  # of the objective; None: its name does not tell
    unit: str = "epoch"
    note: str = ""
    run: dict[str, Any] | None = None  # run.json, where it is a run of ours
    broken: str = ""


def read_log(path: Path, given: dict[str, str]) -> Log:
    """Read a log of any known kind. given: role -> column. Raises ConfigError where it cannot be read or told apart."""
    rows, source = read_rows(path)
    if not rows:
        raise ConfigError(f"{source}: holds no records")
    run = source.parent / "run.json"
    ours = source.name == "metrics.jsonl" and run.is_file()
    if ours and not given:
        from plumbline.stored import read_run_file

        noted = read_run_file(source.parent)
        if noted["objective"] and noted["direction"] and "val/loss" in (noted["baseline"] or {}):
            broken = str(noted["error"]) if noted["status"] == "diverged" else ""
            columns = {"train": "train/loss", "val": "val/loss", "metric": noted["objective"], "lr": "lr"}
            return Log(rows, columns, noted["objective"], noted["direction"], run=noted, broken=broken)
    return mapped(rows, source, given)


# --- files into rows -------------------------------------------------------------------------------------------------


def read_rows(path: Path) -> tuple[list[dict[str, Any]], Path]:
    """(rows: the log's own names to numbers, the file they came from)."""
    if not path.exists():
        raise ConfigError(f"{path}: there is no such file or folder")
    if path.is_dir():
        found = [path / name for name in ("metrics.jsonl", "metrics.csv") if (path / name).is_file()]
        if not found and any(path.rglob("*tfevents*")):
            return events(path), path
        found = found or sorted([*path.glob("*.csv"), *path.glob("*.jsonl")])
        if len(found) != 1:
            names = f"several logs: {', '.join(file.name for file in found)}" if found else "no log"
            raise ConfigError(f"{path}: has {names}; name a CSV, metrics.jsonl or event file")
        path = found[0]
    if "tfevents" in path.name:
        return events(path), path
    try:
        text = read_text(path).removeprefix("\ufeff")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as a log: {error}") from error
    rows = objects(text, path) if text.lstrip()[:1] in ("{", "[") else table(text, path)
    return [
        {key: number for key, value in row.items() if (number := as_number(value)) is not None} for row in rows
    ], path


def objects(text: str, path: Path) -> list[dict[str, Any]]:
    """The records of JSON: one object a line, a list of objects, an object of lists, or what holds one of these."""
    try:
        whole = parse_json(text)
    except ValueError:
        rows = []
        for number, line in enumerate(lines := text.splitlines(), 1):
            try:
                rows += [parse_json(line)] if line.strip() else []
            except ValueError as error:
                if number < len(lines):  # the last line of a killed run may be cut off
                    raise ConfigError(f"{path}, line {number}: is not JSON: {error}") from error
        return [broken(row) for row in rows if isinstance(row, dict)]
    if isinstance(whole, dict) and isinstance(inner := whole.get("log_history", whole.get("history")), list | dict):
        whole = inner
    if isinstance(whole, dict):
        lists = {key: value for key, value in whole.items() if isinstance(value, list)}
        if not lists:
            return [broken(whole)]
        longest = max(map(len, lists.values()))
        return [broken({key: value[at] for key, value in lists.items() if at < len(value)}) for at in range(longest)]
    return [broken(row) for row in whole if isinstance(row, dict)]


def broken(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: null stands for it."""
    return {key: math.nan if value is None else value for key, value in row.items()}


def table(text: str, path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV, with commas, semicolons or tabs between."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        return []
    try:
        return list(csv.DictReader(lines, delimiter=max(",;\t", key=lines[0].count), skipinitialspace=True))
    except csv.Error as error:
        raise ConfigError(f"{path}: cannot be read as a table: {error}") from error


def as_number(value: Any) -> float | None:
    """A number, NaN where it says so; None where nothing is said, or no number."""
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def events(path: Path) -> list[dict[str, Any]]:
    """The scalars of TensorBoard's event files, a row a step; those of a folder's folders are named by the folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folders = sorted({file.parent for file in path.rglob("*tfevents*")}) if path.is_dir() else [path]
    rows: dict[int, dict[str, Any]] = {}
    for folder in folders:
        accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()
        prefix = "" if folder == path or len(folders) == 1 else f"{folder.relative_to(path)}/"
        tags = accumulator.Tags()
        for tag in tags["scalars"]:
            for event in accumulator.Scalars(tag):
                rows.setdefault(event.step, {"step": event.step})[prefix + tag] = event.value
        for tag in tags["tensors"]:  # as TensorFlow 2 writes scalars
            for event in accumulator.Tensors(tag):
                if not event.tensor_proto.tensor_shape.dim and (values := one(event.tensor_proto)) is not None:
                    rows.setdefault(event.step, {"step": event.step})[prefix + tag] = values
    return [rows[step] for step in sorted(rows)]


def one(tensor: Any) -> float | None:
    """The only number of a tensor; None if it is none."""
    from tensorboard.util.tensor_util import make_ndarray

    array = make_ndarray(tensor)
    return float(array) if array.dtype.kind in "fiu" else None


# --- names into roles ------------------------------------------------------------------------------------------------


def words(column: str) -> list[str]:
    """A column's name in lower-case words: `valLoss`, `val_loss` and `validation/loss` are two each."""
    column = re.sub(r"([a-z])([A-Z])", r"\1 \2", column.rpartition(" - ")[2])  # W&B exports: `<run> - <key>`
    return [word for word in re.split(r"[^a-z0-9]+", column.lower().replace("top-", "top")) if word]


def split_of(parts: list[str]) -> str:
    """Which split a column is of; a loss of none is of training, as everybody writes it."""
    held = set(parts)
    return "val" if held & VALIDATION else "test" if held & TEST else "train"


def kind_of(parts: list[str]) -> str:
    held = set(parts)
    if "lr" in held or {"learning", "rate"} <= held or "learningrate" in held:
        return "lr"
    if held & LOSS or any(word.endswith("loss") for word in parts):
        return "loss"
    if held & (MORE | LESS):
        return "metric"
    return "clock" if held & CLOCK else ""


def mapped(rows: list[dict[str, Any]], source: Path, given: dict[str, str]) -> Log:
    """The log with its columns taken for what their names say, or for what was said of them."""
    known = list(dict.fromkeys(key for row in rows for key in row))
    for role, column in given.items():
        if column not in known:
            raise ConfigError(
                f"{role}={column}: {source.name} has no such column{nearest(column, known)}; it has: {', '.join(known)}"
            )
    usable = [column for column in known if not re.search(r"__(MIN|MAX)$", column)]  # of W&B's exports
    plain = {column: words(column) for column in usable}
    held_out = "val" if any(split_of(parts) == "val" for parts in plain.values()) else "test"  # who has no other
    wanted = {
        "train": [c for c, parts in plain.items() if (kind_of(parts), split_of(parts)) == ("loss", "train")],
        "val": [c for c, parts in plain.items() if (kind_of(parts), split_of(parts)) == ("loss", held_out)],
        "metric": [c for c, parts in plain.items() if (kind_of(parts), split_of(parts)) == ("metric", held_out)],
        "lr": [c for c, parts in plain.items() if kind_of(parts) == "lr"],
    }
    columns = dict(given)
    for role in ROLES:
        if role not in columns and (column := choose(role, wanted[role], plain, source)) is not None:
            columns[role] = column
    if not {"train", "val"} & set(columns):
        raise ConfigError(f"{source}: no column is called a loss; say train=… or val=…; it has: {', '.join(known)}")
    ours = {"train": "fit/loss", "val": "val/loss", "lr": "lr"}
    if "metric" in columns:
        ours["metric"] = f"val/{'_'.join(word for word in words(columns['metric']) if word not in VALIDATION | TEST)}"
    clock, unit = clock_of(rows, plain)
    log = Log([], {role: columns[role] for role in ROLES if role in columns}, unit=unit)
    log.objective = ours["metric"] if "metric" in columns else "val/loss" if "val" in columns else "fit/loss"
    if "metric" in columns:
        held = set(words(columns["metric"]))
        log.direction = MAXIMISE if held & MORE else MINIMISE if held & LESS or kind_of(list(held)) == "loss" else None
    renamed = {column: ours[role] for role, column in columns.items()}
    renamed |= {key: key for key in known if re.match(r"(grad_norm|update_ratio)/|fit/grad_norm$", key)}
    if columns.get("train") == "train/loss" and "fit/loss" in known:  # our own keys, of a folder that is gone
        renamed |= {"train/loss": "train/loss", "fit/loss": "fit/loss"}
    log.records = gathered(rows, clock, renamed)
    if clock is not None and unit == "step" and len(log.records) > PARTS:
        log.note = f", read in {PARTS} parts"
        log.records = in_parts(log.records)
    return log


def choose(role: str, candidates: list[str], plain: dict[str, list[str]], source: Path) -> str | None:
    """The one candidate with the fewest words; an epoch's mean stands before a step's value."""

    def rank(column: str) -> tuple[int, int]:
        parts = plain[column]
        return ("step" in parts or "batch" in parts, len([word for word in parts if word != "epoch"]))

    best = sorted(candidates, key=rank)
    if role in ("train", "val") and len(best) > 1 and rank(best[0]) == rank(best[1]):
        spelled = {
            tuple(word for word in plain[c] if word not in ("epoch", "step")) for c in best if rank(c) == rank(best[0])
        }
        if len(spelled) > 1:
            raise ConfigError(
                f"{source}: several columns could be the {role} loss: {', '.join(best)}; say {role}={best[0]}"
            )
    return best[0] if best else None


def clock_of(rows: list[dict[str, Any]], plain: dict[str, list[str]]) -> tuple[str | None, str]:
    """(the column that counts, what it counts): epochs where there are any, else steps, else the rows themselves."""
    clocks = [column for column, parts in plain.items() if kind_of(parts) == "clock" and len(parts) <= 2]
    epochs = [column for column in clocks if set(plain[column]) & {"epoch", "epochs", "ep"}]
    for column in epochs:
        if len({row[column] for row in rows if column in row}) > 1 or len(rows) == 1:
            return column, "epoch"
    steps = [column for column in clocks if column not in epochs]
    return (steps[0], "step") if steps else (None, "epoch")


def gathered(rows: Iterable[dict[str, Any]], clock: str | None, renamed: dict[str, str]) -> list[dict[str, Any]]:
    """One record a value of the clock: what is said several times within it (Lightning's steps) becomes its mean."""
    groups: dict[float, dict[str, list[float]]] = {}
    at = 0.0
    for place, row in enumerate(rows):
        at = place + 1.0 if clock is None else row.get(clock, at)
        group = groups.setdefault(at, {})
        for column, name in renamed.items():
            if column in row:
                group.setdefault(name, []).append(row[column])
    return [
        {"epoch": at, **{name: sum(values) / len(values) for name, values in group.items()}}
        for at, group in groups.items()
        if group
    ]


def in_parts(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records, so many neighbours to one: the means of what they have, at the last one's step."""
    ends = [round(part * len(records) / PARTS) for part in range(PARTS + 1)]
    found = []
    for begin, end in itertools.pairwise(ends):
        group = records[begin:end]
        keys = dict.fromkeys(key for record in group for key in record if key != "epoch")
        means = {key: [record[key] for record in group if key in record] for key in keys}
        found.append({"epoch": group[-1]["epoch"], **{key: sum(values) / len(values) for key, values in means.items()}})
    return found
