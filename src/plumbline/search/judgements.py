"""What a study's numbers say about the study: its space, its budget, its noise; and where to search next.

Each judgement is a finding in words with its evidence, after the Deep Learning Tuning Playbook (Godbole et al. 2023).
"""

from __future__ import annotations

import math
from pathlib import Path
from statistics import NormalDist, mean, median, stdev
from typing import TYPE_CHECKING

import yaml

from plumbline.files import read_text
from plumbline.parsing import parse_yaml
from plumbline.search.finish import confirmed, run_folder, run_folders, status
from plumbline.search.results import EDGE, Results, distance, number, placed

if TYPE_CHECKING:
    pass

TRIALS_PER_DIMENSION = 10
MANY_LOST = 0.1  # share of failed or diverged trials
LATE, EARLY = 0.9, 0.1  # of the epochs: a best there was not the end, or long before it


def finding(severity: str, name: str, message: str, advice: str = "") -> dict[str, str]:
    return {"severity": severity, "id": f"study.{name}", "message": message, "advice": advice}


def judge(results: Results) -> list[dict[str, str]]:
    """All judgements, the gravest first."""
    if not results.best:
        return [
            finding(
                "fail",
                "none_finished",
                "No trial has finished, so there is nothing to judge yet.",
                "See the reasons below.",
            )
        ]
    found = [
        *edges(results), few(results), lost(results), late(results), gap(results), neighbours(results), optimism(results),
        saved(results),
    ]  # fmt: skip
    order = ("fail", "warn", "info", "ok")
    return sorted((one for one in found if one), key=lambda one: order.index(one["severity"]))


def edges(results: Results) -> list[dict[str, str]]:
    """Whether the best lies near an end of what was searched."""
    found, best = [], results.best[0]
    for parameter in results.space:
        place = placed(parameter, best.params.get(parameter.name))
        if place is None or EDGE < place < 1 - EDGE:
            continue
        end = "upper" if place > 0.5 else "lower"
        value = best.params[parameter.name]
        shown = value if isinstance(value, str) else number(value)
        said = f"{parameter.name}: the best, {shown}, lies at the {end} end of what was searched ({parameter.text})."
        found.append(finding("warn", "edge", said, "What is best may lie beyond it: widen the space on that side."))
    ends = [parameter for parameter in results.space if placed(parameter, best.params.get(parameter.name)) is not None]
    return found or [finding("ok", "edge", "The best lies inside the space, away from its ends.")] * bool(ends)


def saved(results: Results) -> dict[str, str] | None:
    """How much training the pruning spared."""

    done = planned = 0
    for trial in results.trials:
        folders = run_folders(results.study, trial.number)
        epochs = planned_epochs(folders[0])
        if epochs is None:
            continue  # a trial that did not come so far
        files = [folder / "metrics.jsonl" for folder in folders]
        done += sum(len(file.read_bytes().splitlines()) for file in files if file.is_file())
        planned += epochs * len(folders)
    pruned = sum(status(trial) == "pruned" for trial in results.trials)
    if not pruned or not planned:
        return None
    share = 1 - done / planned
    return finding(
        "info", "saved", f"{pruned} of {len(results.trials)} trials were pruned: {share:.0%} of the epochs were saved."
    )


def few(results: Results) -> dict[str, str] | None:
    """Whether there were enough trials for so many dimensions."""
    dimensions, count = len(results.space.parameters), len(results.finished)
    if results.study.kind == "grid" or not dimensions:
        return None
    enough = TRIALS_PER_DIMENSION * dimensions
    if count < enough:
        said = f"{count} finished trials for {dimensions} parameters: fewer than {TRIALS_PER_DIMENSION} a parameter."
        advice = f"search.n_trials={len(results.trials) + enough - count} goes on with this study; or search fewer parameters."
        return finding("warn", "few", said, advice)
    return finding("ok", "few", f"{count} finished trials for {dimensions} parameters are enough to compare them.")


def lost(results: Results) -> dict[str, str] | None:
    """Which share failed or diverged, and where in the space."""
    bad = [t for t in results.trials if status(t) in ("failed", "diverged")]
    ended = [t for t in results.trials if t.state.is_finished()]
    if not bad:
        return finding("ok", "lost", "No trial failed or diverged.")
    where = []
    for parameter in results.space:
        numeric = [(t in bad, placed(parameter, t.params.get(parameter.name))) for t in ended]
        inside = [p for is_bad, p in numeric if is_bad and p is not None]
        others = [p for is_bad, p in numeric if not is_bad and p is not None]
        if len(inside) >= 2 and len(others) >= 2 and abs(median(inside) - median(others)) > 0.3:
            where.append(f"{parameter.name} was {'high' if median(inside) > median(others) else 'low'} in them")
    share, kinds = len(bad) / len(ended), {word: sum(status(t) == word for t in bad) for word in ("failed", "diverged")}
    counts = " and ".join(f"{count} {word}" for word, count in kinds.items() if count)
    return finding(
        "warn" if share > MANY_LOST else "info", "lost",
        f"{counts} of {len(ended)} trials ({share:.0%}){': ' + ', '.join(where) if where else ''}.",
        "Leave that part of the space out; what failed for another reason has its last lines below.",
    )  # fmt: skip


def planned_epochs(folder: Path) -> int | None:
    """The epochs that a run was to have; None where its configuration is gone or damaged."""
    try:
        epochs = parse_yaml(read_text(folder / "config.yaml"))["epochs"]
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
        return None
    return epochs if isinstance(epochs, int) else None


def late(results: Results) -> dict[str, str] | None:
    """Whether the best was still improving when it ended, or was at its best long before."""
    best = results.run(results.best[0]).get("best")
    epoch = best.get("epoch") if isinstance(best, dict) else None
    planned = planned_epochs(run_folder(results.study, results.best[0].number))
    if planned is None or planned < 2 or not isinstance(epoch, int | float):
        return None
    if epoch >= LATE * planned:
        return finding(
            "warn", "late", f"The best trial was at its best in epoch {epoch:g} of {planned}: it was still improving at its end.",
            f"Train longer, epochs={2 * planned}: what wins a short race need not win a long one.",
        )  # fmt: skip
    if epoch <= EARLY * planned:
        return finding(
            "info", "early", f"The best trial was at its best in epoch {epoch:g} of {planned}.",
            f"epochs={max(2, math.ceil(3 * epoch))} would have told as much in less time; or its learning rate is too high.",
        )  # fmt: skip
    return finding("ok", "late", f"The best trial was at its best in epoch {epoch:g} of {planned}, before its end.")


def gap(results: Results) -> dict[str, str] | None:
    """Whether the first is better than the second by more than chance."""
    noise = results.noise()
    if noise is None or len(results.finished) < 2:
        return None
    first, second = results.finished[:2]
    difference = results.score(first) - results.score(second)
    said = f"Trials {first.number} and {second.number} differ by {number(difference)}; chance moves a value by {number(noise)}."
    if difference < 2 * math.sqrt(2) * noise:
        same = sum(results.score(first) - results.score(t) < 2 * math.sqrt(2) * noise for t in results.finished)
        return finding(
            "info", "gap", f"{said} {same} trials are as good as the best, as far as these numbers can tell.",
            "Choose the simplest among them, or tell them apart: search.seeds=3, search.confirm=5.",
        )  # fmt: skip
    return finding("ok", "gap", f"{said} The best is better than the next by more than that.")


def neighbours(results: Results) -> dict[str, str] | None:
    """What the points nearest to the best score: a lone peak is luck."""
    best, others = results.best[0], [t for t in results.finished if t.number != results.best[0].number]
    count = min(5, len(others) // 3)
    if count < 2:
        return None
    near = sorted(others, key=lambda t: distance(results.space, best, t))[:count]
    values = [results.score(t) for t in near]
    typical, noise = mean(values), max(stdev(values), results.noise() or 0.0)
    said = f"The {count} trials nearest to the best score {number(results.sign * typical)} on average."
    if results.score(best) - typical > 3 * noise and noise > 0:
        advice = "It may be luck: confirm it on fresh seeds, search.confirm=5."
        return finding("warn", "neighbours", f"{said} The best, {number(best.values[0])}, stands alone.", advice)
    return finding("ok", "neighbours", f"{said} The best, {number(best.values[0])}, stands in good company.")


def optimism(results: Results) -> dict[str, str] | None:
    """How much too high a maximum over so many trials is, as measured or as chance would have it."""
    count, best = len(results.finished), results.best[0]
    if values := confirmed(results.study):
        found = mean(values)
        return finding(
            "info", "optimism",
            f"The best scored {number(best.values[0])} in the search and {number(found)} on {len(values)} fresh seeds: "
            f"report the latter. It was too good by {number(best.values[0] * results.sign - found * results.sign)}.",
        )  # fmt: skip
    noise = results.noise()
    if noise is None or count < 2:
        return None
    excess = noise * NormalDist().inv_cdf(
        (count - 0.375) / (count + 0.25)
    )  # Blom 1958: the expected maximum of n draws
    return finding(
        "info", "optimism",
        f"It is the best of {count}, each with a noise of about {number(noise)}: if all were equally good, the luckiest would "
        f"still look better by {number(excess)}.",
        "search.confirm=5 runs the best on fresh seeds, for a number to report.",
    )  # fmt: skip
