"""`python -m plumbline.compare <run> <run> …`: what differs between runs, and what came of it, with its 95 % interval.

Runs that differ in nothing but the seed count as one; a study's folder stands for its finished trials. The first is what
the others are held against, on the same validation samples. objective=val/loss judges by another metric than theirs;
page=<file.html> says where the page with their curves goes.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import NormalDist, mean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np

from plumbline.changes import SEED, changes, settings, told
from plumbline.config import MAXIMISE, ConfigError, nearest
from plumbline.exits import DONE, MISTAKE, outlast_the_reader
from plumbline.report import Folder, finite, number, read

if TYPE_CHECKING:
    from plumbline.tasks import Answers

WORDS = ("objective", "page")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Arm:
    """Runs that are the same but for their seeds."""

    runs: tuple[Folder, ...]
    settings: dict[str, Any]

    @cached_property
    def by_seed(self) -> dict[int, Folder]:
        """The latest run of each seed."""
        return {run.run[SEED]: run for run in sorted(self.runs, key=lambda run: run.run["started"])}

    def values(self, metric: str) -> dict[int, float]:
        """Of each seed, the metric at the best epoch."""
        return {seed: run.best[metric] for seed, run in self.by_seed.items()}


@dataclass(frozen=True)
class Difference:
    """By how much one arm is better than another, in the metric's unit.

    half: of the 95 % interval, from two sources whose variances add up: the validation samples, by a paired bootstrap on
    the same samples (Efron and Tibshirani 1993), and the seeds, by Student's t over their differences, or by Welch's where
    the seeds are others; a side with one seed is taken to scatter as the other does. With one seed each, what another
    seed would change is not in it. Where several arms are held against one, it is widened for that (Bonferroni).
    """

    metric: str
    before: float
    after: float
    ahead: float
    half: float
    seeds: int  # of the arm that has more

    @property
    def verdict(self) -> str:
        return "may be chance" if abs(self.ahead) <= self.half else "better" if self.ahead > 0 else "worse"

    def __str__(self) -> str:
        said = f"{self.metric} {self.after:.4g} against {self.before:.4g}"
        if self.ahead == self.half == 0:
            return f"{said}: the same"
        said += f": {abs(self.ahead):.2g} {'better' if self.ahead > 0 else 'worse'}, ± {self.half:.2g}"
        said += ", which may be chance" if self.verdict == "may be chance" else ""
        return said + (" (one seed each)" if self.seeds == 1 else "")


def difference(
    before: Arm, after: Arm, metric: str, direction: str, resamples: int, choices: int = 1
) -> Difference | None:
    """Between two arms; None where they were not validated on the same samples."""
    from plumbline import tasks
    from plumbline.data.core import Spec

    first = before.runs[0]
    sides = [[answers(run, first) for run in arm.by_seed.values()] for arm in (before, after)]
    if None in [each for side in sides for each in side]:
        return None
    import torch

    known = first.data | {key: tuple(first.data[key]) for key in ("shape", "classes", "features", "masks")}
    spec = Spec(**{key: known[key] for key in Spec.__dataclass_fields__})
    y, items = (
        torch.from_numpy(first.predictions[key]) if key in first.predictions else None for key in ("targets", "items")
    )
    of_samples = tasks.paired_error(spec, metric, sides[1], sides[0], y, resamples, items=items)
    sign = 1 if direction == MAXIMISE else -1
    values = [arm.values(metric) for arm in (before, after)]
    ahead, of_seeds = over_seeds(*values, choices)
    half = math.hypot(NormalDist().inv_cdf(1 - 0.025 / choices) * of_samples, of_seeds)
    means = [mean(each.values()) for each in values]
    return Difference(metric, *means, sign * ahead, half, max(map(len, values)))


def over_seeds(before: dict[int, float], after: dict[int, float], choices: int = 1) -> tuple[float, float]:
    """(difference of the means, half of its 95 % interval over seeds): paired where two seeds are shared, else Welch's."""
    ahead, sides = mean(after.values()) - mean(before.values()), (list(before.values()), list(after.values()))
    shared = [after[seed] - before[seed] for seed in before if seed in after]
    if max(map(len, sides)) < 2:
        return ahead, 0.0
    from scipy.stats import t

    if len(shared) > 1:
        ahead, variance, freedom = mean(shared), stdev(shared) ** 2 / len(shared), len(shared) - 1
    elif min(map(len, sides)) < 2:  # one seed scatters, too: as much as those of the other side
        many = max(sides, key=len)
        variance, freedom = stdev(many) ** 2 * (1 + 1 / len(many)), len(many) - 1
    else:
        parts = [(stdev(values) ** 2 / len(values), len(values) - 1) for values in sides]
        variance = sum(part for part, _ in parts)
        freedom = variance**2 / (sum(part**2 / less for part, less in parts) or 1)  # Welch 1947, Biometrika 34
    return ahead, float(t.ppf(1 - 0.025 / choices, freedom)) * variance**0.5 if variance else 0.0


def answers(run: Folder, like: Folder) -> Answers | None:
    """What a run's best weights said of validation, as raw outputs; None if these are not the samples of another run."""
    import torch

    said, theirs = run.predictions, like.predictions
    for key in ("ids", "targets"):
        if key not in said or key not in theirs or not np.array_equal(said[key], theirs[key]):
            return None
    outputs = torch.from_numpy(said["outputs"])
    if run.data["task"] == "classification":
        outputs = outputs.clamp(min=1e-30).log()  # their softmax is what is saved
    elif run.data["task"] == "segmentation":
        outputs = outputs.logit()
    return outputs, torch.from_numpy(said["losses"])


def outcome(change: dict[str, Any], directory: Path, metric: str, direction: str, resamples: int) -> dict[str, Any]:
    """What came of a change, for the record of the run that made it."""
    before, after = (Arm((read(folder),), {}) for folder in (Path(change["run"]), directory))
    if "loss" in change["keys"] and metric == "val/loss":
        return change | {"outcome": None}  # measured by two rulers
    if not before.runs[0].run or not finite(before.runs[0].best.get(metric)):
        return change | {"outcome": None}  # taken away meanwhile
    found = difference(before, after, metric, direction, resamples)
    return change | {"outcome": found and {**vars(found), "verdict": found.verdict, "said": str(found)}}


def arms(folders: Sequence[Path], objective: str | None) -> tuple[list[Arm], str, str]:
    """(runs grouped by all but their seeds, the metric, its direction); raises ConfigError."""
    runs: list[Folder] = []
    for folder in folders:
        places = [folder]
        if (folder / "study.yaml").exists():
            places = sorted(path.parent for path in folder.glob("[0-9]*/run.json"))
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


def of_metric(run: Folder, metric: str) -> str:
    """The direction of a metric: as the run had it, or as its task has it."""
    from plumbline.tasks import METRICS

    if metric == run.objective:
        return run.run["direction"]
    return METRICS[run.data["task"]][metric.rpartition("/")[2]]


def grouped(runs: list[Folder]) -> list[Arm]:
    """Arms in the order of their first runs."""
    found: list[tuple[dict[str, Any], list[Folder]]] = []
    for run in runs:
        own = settings(run.path)
        for known, those in found:
            if not set(changes(known, own)) - {SEED}:
                those.append(run)
                break
        else:
            found.append((own, [run]))
    return [Arm(tuple(those), known) for known, those in found]


def compared(found: list[Arm], metric: str, direction: str) -> list[dict[str, Any]]:
    """A row an arm: letter, what it changes against the first, its runs, its value, and its difference."""
    from plumbline.tasks import ENOUGH

    rows = []
    for place, arm in enumerate(found):
        values = list(arm.values(metric).values())
        keys = {path: both for path, both in changes(found[0].settings, arm.settings).items() if path != SEED}
        ruler = metric == "val/loss" and "loss" in keys
        apart = None
        if place and not ruler:
            apart = difference(found[0], arm, metric, direction, ENOUGH, choices=len(found) - 1)
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
        print(f"python -m plumbline.compare <folder> <folder> … [objective=val/…] [page=<file.html>]\n\n{__doc__}")
        return DONE if words else MISTAKE
    try:
        folders, given = read_words(words)
        found, metric, direction = arms(folders, given.get("objective"))
        rows = compared(found, metric, direction)
        show(rows, metric, direction)
        page = Path(given["page"]) if "page" in given else default_page(found)
        from plumbline.report.comparison import write_comparison

        print(f"\npage: {write_comparison(page, rows, metric, direction)}")
    except (ConfigError, OSError) as error:
        print(f"plumbline: {error}", file=sys.stderr)
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


def default_page(found: list[Arm]) -> Path:
    """In the outputs folder of the first run; the same runs have the same page."""
    first = found[0].runs[0].path.resolve()
    outputs = next(
        (folder for folder in first.parents if folder.name == Path(found[0].settings["outputs"]).name), first.parent
    )
    names = sorted(str(run.path.resolve()) for arm in found for run in arm.runs)
    return outputs / f"comparison-{hashlib.sha256(chr(10).join(names).encode()).hexdigest()[:8]}.html"


def show(rows: list[dict[str, Any]], metric: str, direction: str) -> None:
    """The table, in the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(soft_wrap=False)
    better = "more" if direction == MAXIMISE else "less"
    console.print(f"{metric} on validation ({better} is better), at each run's best epoch; intervals are of 95 %")
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
            row["letter"], Text(row["label"]), str(row["seeds"]), f"{row['value']:.4g}", row["spread"], against(row)
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
