"""What came of a run, whether the baseline is beaten, how to go on, and how to get it again: the sentences of its page."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from plumbline.changes import since_then
from plumbline.checks.margin import margin
from plumbline.report import DASH, Folder, finite, label, number


def verdict(folder: Folder) -> dict[str, Any]:
    """The number, the rest of its sentence, whether the baseline is beaten (None: unknown), and how to go on."""
    key, epochs = folder.objective, f"{folder.epochs} epoch{'s' * (folder.epochs != 1)}"
    value, (low, high) = folder.best.get(key), bounds(folder, key)
    reason, go_on = _divergence(folder) if folder.run.get("status") == "diverged" else _ending(folder)
    said = {
        "metric": label(key),
        "partly": False,
        "value": None,
        "beaten": None,
        "comparison": "",
        "test": _test(folder),
        "reason": reason,
        "go_on": go_on,
    }
    if not finite(value):
        none = f"No epoch ended with a finite {label(key)}." if folder.epochs else "No epoch was completed."
        return said | {"rest": f"No result. {none}"}
    where = "validation" if key.startswith("val/") else key.partition("/")[0]
    interval = f" (95 % interval {number(low)}{DASH}{number(high)})" if finite(low) else ""
    planned = f" of {folder.planned} planned" if folder.epochs < folder.planned else ""
    said |= {"value": number(value), "rest": f"{label(key)} on {where}{interval} after {epochs}{planned}"}
    baseline = folder.get("baseline", dict)
    found = margin({
        "objective": key, "direction": folder.run.get("direction"), "best": folder.best,
        "baseline": baseline | {"name": baseline.get("name") or "baseline"},
        "baselines": folder.get("baselines", list), "margins": folder.get("margins", dict),
    })  # fmt: skip
    if found is None:
        return said | {"rest": said["rest"] + ". No baseline was measured."}
    said["rest"] += f"; the simplest baseline, {baseline.get('name') or 'baseline'}, has {number(baseline[key])}."
    comparison = f"The network {replace(found, metric=label(key))}."
    return said | {"beaten": found.beats, "partly": found.rank == "strongest", "comparison": comparison}


def change(folder: Folder) -> str:
    """What was changed since an earlier run and what came of it, in a sentence; empty where there was none."""
    noted = folder.get("change", dict)
    if not noted:
        return ""
    said, outcome = since_then(noted), noted.get("outcome")
    return f"{said[0].upper()}{said[1:]}" + (f": {outcome['said']}" if outcome else "")


def bounds(folder: Folder, key: str) -> tuple[Any, Any]:
    """The ends of a metric's 95 % interval on validation; (None, None) where there is none."""
    found = folder.get("interval", dict).get(key)
    return tuple(found) if isinstance(found, list) and [*map(finite, found)] == [True, True] else (None, None)


def _test(folder: Folder) -> str:
    """What is known of the sealed test set, in a sentence or two."""
    test = folder.get("test", dict)
    if not test:
        return "The test set is still sealed."
    scores, asked = test.get("metrics") or {}, folder.objective.rpartition("/")[2]
    said = [f"{label(name)} {_scored(scores[name])}" for name in ([asked] if asked in scores else scores)]
    openings = test.get("openings", 1)
    often = "once" if openings == 1 else f"{openings} times, so this is no longer the number of an unseen test set"
    again = f" Reason given for opening it again: {test['again']}." if test.get("again") else ""
    twins = [item["message"] for item in test.get("twins") or [] if item.get("severity") != "ok"]
    warned = "".join(f" {message[0].upper()}{message[1:]}." for message in twins if message)
    return f"On the test set, opened {often}: {', '.join(said) or 'no metric was recorded'}.{again}{warned}"


def _scored(score: dict[str, Any]) -> str:
    value, low, high = (number(score[key]) for key in ("value", "low", "high"))
    return f"{value} (95 % interval {low}{DASH}{high})"


def _ending(folder: Folder) -> tuple[str, list[tuple[str, str]]]:
    """(why the run ended as it did, [(what to do now, its command)]); nothing to say of a finished one."""
    words = {
        "failed": ("The run failed.", "When the cause is mended, go on from the last saved state:"),
        "stopped": ("The run was stopped, and saved.", "Go on where it stopped:"),
        "preempted": ("The run was preempted, and saved.", "It goes on by itself if it is requeued; by hand:"),
        "pruned": ("The search ended this trial early: others were better by then.", "To finish it nevertheless:"),
        "running": ("The run was not over when this page was written.", "If nothing runs any more, go on with:"),
    }
    reason, advice = words.get(str(folder.run.get("status")), ("", ""))
    return reason, [(advice, _resume(folder))]


def _divergence(folder: Folder) -> tuple[str, list[tuple[str, str]]]:
    epoch = folder.epochs + 1 if folder.broken is None else folder.broken
    same = "To go on from the last saved state; unchanged, it takes the same steps to the same end:"
    go_on = [(same, _resume(folder))]
    optimiser = folder.settings.get("optimiser")
    rate = optimiser.get("lr") if isinstance(optimiser, dict) else None
    if finite(rate):
        anew = re.sub(r" optimiser[.]lr=[^ ]+", "", _command(folder)) + f" optimiser.lr={rate / 10:g}"
        go_on.insert(0, ("If the findings do not say better, start anew with a tenth of the learning rate:", anew))
    return f"The run diverged in epoch {epoch}: the loss was no longer finite.", go_on


# --- how to get it again ---------------------------------------------------------------------------------------------


def _here(folder: Folder) -> Path:
    path = folder.path.resolve()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _resume(folder: Folder) -> str:
    return f"scripts/train {shlex.quote(f'resume={_here(folder)}')}"


def _command(folder: Folder) -> str:
    words = ["scripts/train", *(shlex.quote(str(item)) for item in folder.overrides)]
    return folder.get("command", str) or " ".join(words)


def commands(folder: Folder) -> str:
    """What to type to get the same numbers on the same machine."""
    git, lines = folder.get("git", dict), []
    if git.get("commit"):
        lines.append(f"git checkout {git['commit']}")
    if git.get("diff"):
        program = "import json, sys; print(json.load(open(sys.argv[1]))['git']['diff'])"
        lines.append(f'python -c "{program}" {shlex.quote(str(_here(folder) / "run.json"))} | git apply')
    if source := folder.get("transfer", dict):
        lines.append(f"# starts from {source['weights']}, sha256 {source['sha256']}")
    return "\n".join([*lines, _command(folder)])
