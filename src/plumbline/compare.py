"""`python -m plumbline.compare <run> <run> …`: what differs between runs, and what came of it, with its 95 % interval.

Runs that differ in nothing but the seed count as one; a study's folder stands for its finished trials. The first is what
the others are held against, on the same validation samples. objective=val/loss judges by another metric than theirs;
page=<file.html> says where the page with their curves goes.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from plumbline.arms import Arm, difference, grouped
from plumbline.changes import SEED, changes, fingerprint_of, is_validated_alike, told
from plumbline.config import MAXIMISE, ConfigError, nearest
from plumbline.exits import DONE, MISTAKE, outlast_the_reader
from plumbline.files import check_file, read_text
from plumbline.output import make_console, print_error, print_safe, printable
from plumbline.report import Folder, finite, number, read
from plumbline.stored import RUN, read_run_file, read_runs, read_settings, skip

WORDS = ("objective", "page")
PAGE = r"\s*<!doctype html>.{,600}<title>comparison of "  # the head of our pages
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def arms(folders: Sequence[Path], objective: str | None) -> tuple[list[Arm], str, str]:
    """(runs grouped by all but their seeds, the metric, its direction); raises ConfigError."""
    runs: list[Folder] = []
    for folder in folders:
        places = [folder]
        if (folder / "study.yaml").exists():
            places = sorted(path.parent for path in folder.glob("[0-9]*/run.json"))
            places = [place for place, run in read_runs(places) if run["status"] == "finished" and _has_settings(place)]
        elif (folder / RUN).exists():
            read_run_file(folder)
            read_settings(folder)
        found = [read(place) for place in places]
        unfinished = [run for run in found if run.run.get("status") != "finished"]
        if places == [folder] and unfinished:
            status = unfinished[0].run.get("status")
            what = f"has status {status}; compare finished ones" if status else "is not the folder of a run"
            raise ConfigError(f"{folder}: {what}")
        runs += [run for run in found if run not in unfinished]
    known = {run.path.resolve(): run for run in runs}
    if len(known) < 2:
        raise ConfigError(f"compare: {len(known)} finished runs are too few; give two folders at least, or a study's")
    runs = list(known.values())
    metrics = {objective or run.objective for run in runs}
    if len(metrics) > 1:
        raise ConfigError(f"their objectives are {', '.join(sorted(metrics))}; say by which to compare: objective=…")
    metric = metrics.pop()
    for run in runs:
        if not finite(run.best.get(metric)):
            accepted = [key for key in run.best if key.startswith("val/")]
            raise ConfigError(
                f"objective={metric}: {run.path} has none{nearest(metric, accepted)}; it has: {', '.join(accepted)}"
            )
    return grouped(runs), metric, of_metric(runs[0], metric)


def _has_settings(folder: Path) -> bool:
    try:
        read_settings(folder)
    except ConfigError as error:
        skip(folder, error)
        return False
    return True


def of_metric(run: Folder, metric: str) -> str:
    """The direction of a metric: as the run had it, or as its task has it."""
    from plumbline.tasks import METRICS

    if metric == run.objective:
        return run.run.get("direction") or "minimise"
    known = METRICS.get(run.data.get("task"), {})
    name = metric.rpartition("/")[2]
    if name not in known:
        raise ConfigError(f"objective={metric}: whether more of it is better is not known; name another")
    return known[name]


def compared(found: list[Arm], metric: str, direction: str) -> list[dict[str, Any]]:
    """A row an arm: letter, what it changes against the first, its runs, its value, and its difference."""
    from plumbline.tasks import ENOUGH

    rows = []
    for place, arm in enumerate(found):
        values = list(arm.values(metric).values())
        data = (fingerprint_of(found[0].runs[0].run), fingerprint_of(arm.runs[0].run))
        keys = changes(found[0].settings, arm.settings, data)
        keys.pop(SEED, None)
        ruler = metric == "val/loss" and "loss" in keys
        apart = None
        if place and not ruler and is_validated_alike(data, keys):
            try:
                apart = difference(found[0], arm, metric, direction, ENOUGH, choices=len(found) - 1)
            except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:  # damaged predictions
                raise ConfigError(
                    f"{arm.runs[0].path}: its predictions cannot be compared with those of {found[0].runs[0].path} "
                    f"({type(error).__name__}: {' '.join(str(error).split())}); train one of the two again"
                ) from error
        ends = arm.runs[0].get("interval", dict).get(metric) or [None, None]
        interval = f"{number(ends[0])} to {number(ends[1])}" if finite(ends[0]) else ""
        rows.append({
            "letter": LETTERS[place] if place < len(LETTERS) else str(place + 1), "arm": arm, "keys": keys, "seeds": len(values),
            "label": told(keys) if keys else arm.runs[0].path.name, "value": mean(values),
            "spread": f"sd {stdev(values):.2g}" if len(values) > 1 else interval,
            "difference": apart, "why": "another loss" if ruler else "other validation samples",
        })  # fmt: skip
    return rows


def main() -> int:
    """Compare the runs of a command line; return the exit status."""
    words = sys.argv[1:]
    if not words or {"-h", "--help"} & set(words):
        print_safe(f"python -m plumbline.compare <folder> <folder> … [objective=val/…] [page=<file.html>]\n\n{__doc__}")
        return DONE if words else MISTAKE
    try:
        folders, given = read_words(words)
        found, metric, direction = arms(folders, given.get("objective"))
        rows = compared(found, metric, direction)
        show(rows, metric, direction)
        page = Path(given["page"]) if "page" in given else default_page(found)
        check_page(page)
        from plumbline.report.comparison import write_comparison

        print_safe(f"\npage: {write_comparison(page, rows, metric, direction)}")
    except (ConfigError, OSError) as error:
        print_error(error)
        return MISTAKE
    return DONE


def read_words(words: list[str]) -> tuple[list[Path], dict[str, str]]:
    """(folders, what was said beside); raises ConfigError."""
    folders, given = [], {}
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key in WORDS:
            given[key] = value
        elif Path(word).is_dir():
            folders.append(Path(word))
        else:
            raise ConfigError(
                f"{word}: is neither a folder nor one of {', '.join(f'{key}=…' for key in WORDS)}{nearest(key, WORDS)}"
            )
    return folders, given


def check_page(page: Path) -> None:
    """Raise ConfigError where the page would take the place of a file that is no page of ours."""
    check_file(page)
    if page.exists() and not re.match(PAGE, read_text(page), re.DOTALL):
        raise ConfigError(
            f"page={page}: is a file that is no comparison; name another: page={page.with_suffix('')}-comparison.html"
        )


def default_page(found: list[Arm]) -> Path:
    """In the outputs folder of the first run; the same runs have the same page."""
    first = found[0].runs[0].path.resolve()
    outputs = next(
        (folder for folder in first.parents if folder.name == Path(found[0].settings.get("outputs", "outputs")).name),
        first.parent,
    )
    names = sorted(str(run.path.resolve()) for arm in found for run in arm.runs)
    return outputs / f"comparison-{hashlib.sha256(chr(10).join(names).encode()).hexdigest()[:8]}.html"


def show(rows: list[dict[str, Any]], metric: str, direction: str) -> None:
    """The table, in the terminal."""
    from rich.table import Table
    from rich.text import Text

    console = make_console(soft_wrap=False)
    better = "more" if direction == MAXIMISE else "less"
    console.print(
        f"{printable(metric)} on validation ({better} is better), at each run's best epoch; intervals are of 95 %"
    )
    table = Table(box=None, pad_edge=False)
    for name, side in (
        ("", "left"),
        ("", "left"),
        ("seeds", "right"),
        (metric, "right"),
        ("", "left"),
        ("against A", "left"),
    ):
        table.add_column(name, justify=side)
    for row in rows:
        table.add_row(
            row["letter"],
            Text(printable(row["label"])),
            str(row["seeds"]),
            f"{row['value']:.4g}",
            row["spread"],
            against(row),
        )
    console.print(table)
    if any(row["difference"] and row["difference"].verdict == "may be chance" for row in rows):
        console.print("what may be chance, more seeds may decide: add runs with seed=3, seed=4, …", soft_wrap=True)
    for row in rows:
        if len(row["keys"]) > 1:
            console.print(
                f"{row['letter']} changes {len(row['keys'])} things at once: which of them did it, nobody can tell"
            )


def against(row: dict[str, Any]) -> str:
    """The last column: by how much an arm differs from the first."""
    if row["letter"] == LETTERS[0]:
        return ""
    found = row["difference"]
    if found is None:
        return f"cannot be compared: {row['why']}"
    side = "better" if found.ahead > 0 else "worse" if found.ahead < 0 else "equal"
    chance = " (may be chance)" if found.verdict == "may be chance" and found.ahead else ""
    return f"{abs(found.ahead):.2g} {side} ± {found.half:.2g}{chance}"


if __name__ == "__main__":
    outlast_the_reader()
    sys.exit(main())
