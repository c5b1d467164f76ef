"""report.html of one run: the verdict first, then why to believe it, then how to get it again. One file, no network."""

from __future__ import annotations

import base64
import io
import os
import re
import shlex
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from plumbline.report import DASH, Folder, grey_range, label, most_confused, number, per_class, read, worst_images
from plumbline.report.figures import GRID, INK, MOST_COUNTS, MOST_WORST, MUTED, PAPER, PICTURES, TRAIN, VALIDATION, draw

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

SEVERITIES = ("fail", "warn", "info", "ok")
THEMED = {INK: "ink", MUTED: "muted", GRID: "line", PAPER: "paper", TRAIN: "train", VALIDATION: "validation"}  # in CSS
MOST_TEXT = 100_000  # letters of a diff or a configuration that are shown; all of it stands in the folder
LARGEST_THUMBNAIL = 96  # pixels a side


def write_report(directory: Path) -> Path:
    """Write `figures/*.svg` and `report.html` into a run's folder, from that folder alone; return the page's path."""
    from jinja2 import ChainableUndefined, Environment, FileSystemLoader

    folder = read(directory)
    drawn, failed = draw(folder)
    pictures = {name: svg(figure, name) for name, figure in drawn.items()}
    (folder.path / "figures").mkdir(exist_ok=True)
    for name in PICTURES:
        path = folder.path / "figures" / f"{name}.svg"
        if name in pictures:
            _replace(path, pictures[name])
        else:
            path.unlink(missing_ok=True)  # of an earlier report, so no longer true
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=ChainableUndefined,  # a key that run.json does not have yet is empty
    )  # fmt: skip
    templates.filters |= {"number": number, "plain": _plain, "cut": _cut, "duration": _duration}
    page = templates.get_template("run.html.j2").render(
        folder=folder,
        run=folder.run,
        here=folder.path.resolve().name,
        verdict=verdict(folder),
        findings=findings(folder),
        results=results(folder),
        pictures={name: inline(text, name) for name, text in pictures.items()},
        failed=failed,
        confused=most_confused(folder, MOST_COUNTS),
        classes=per_class(folder),
        worst=worst_predictions(folder),
        layers=folder.get("layers", list),
        commands=commands(folder),
    )
    _replace(folder.path / "report.html", page)
    return folder.path / "report.html"


def _replace(path: Path, text: str) -> None:
    """A reader sees the old file or the new one, never half of one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, "utf-8")
    os.replace(draft, path)


def _cut(text: Any, most: int = MOST_TEXT) -> str:
    text = str(text)
    return (
        text
        if len(text) <= most
        else f"{text[:most]} … and {len(text) - most:,} more letters, in the folder of the run"
    )


def _plain(value: Any, between: str = ", ") -> str:
    """A value of run.json in words: numbers rounded, lists and mappings in one line, cut."""
    if isinstance(value, dict):
        value = [f"{key} {_plain(item)}" for key, item in value.items()]
    if isinstance(value, list):
        return _cut(between.join(map(_plain, value)), 1000)
    if value is None:  # what JSON has for a number that is not finite
        return DASH
    return number(value) if isinstance(value, int | float) and not isinstance(value, bool) else _cut(value, 1000)


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if hours < 2 else f"{hours:.1f} h"


# --- pictures --------------------------------------------------------------------------------------------------------


def svg(figure: Figure, name: str) -> str:
    """The figure as SVG. Text stays text; ids are salted by the name, so that pictures in one page cannot collide."""
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the browser has other fonts than matplotlib
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def inline(text: str, name: str) -> Markup:
    """An SVG of ours as part of the page: no outside names, the page's font, and its colours in light and dark."""
    from markupsafe import Markup

    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"| version="1.1"', "", text).replace("xlink:href", "href")
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    text = re.sub(r'(<svg) width="[^"]*" height="[^"]*"', rf'\1 role="img" aria-label="{name}"', text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    for color, name in THEMED.items():
        text = text.replace(f": {color}", f": var(--{name})")
    return Markup(text)  # matplotlib has escaped every text in it


def _png(image: np.ndarray) -> str:
    """A (H, W, 1 or 3) image in [0, 1] as a data URI, averaged down to a thumbnail's size."""
    from matplotlib.image import imsave

    step = -(-max(image.shape[:2]) // LARGEST_THUMBNAIL)
    height, width = (max(side // step, 1) * step if side >= step else side for side in image.shape[:2])
    if step > 1 and min(height, width) >= step:
        image = image[:height, :width].reshape(height // step, step, width // step, step, -1).mean((1, 3))
    data = io.BytesIO()
    imsave(data, np.rint(np.broadcast_to(image, (*image.shape[:2], 3)) * 255).astype(np.uint8), format="png")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


# --- the verdict -----------------------------------------------------------------------------------------------------


def verdict(folder: Folder) -> dict[str, Any]:
    """The sentence in its parts, and whether the baseline is beaten: True, False, or None if that cannot be said."""
    key, where = folder.objective, {"val": "validation"}.get(folder.objective.partition("/")[0], "train")
    value, baseline = folder.best.get(key), folder.get("baseline", dict)
    low, high = _interval(folder, key)
    epochs = f"{folder.epochs}" if folder.epochs >= folder.planned else f"{folder.epochs} of {folder.planned}"
    reason, go_on = _reason(folder)
    parts = {
        "value": None,
        "rest": "",
        "beaten": None,
        "comparison": "",
        "test": _test(folder),
        "reason": reason,
        "go_on": go_on,
    }
    if not _finite(value):
        parts["rest"] = (
            f"No result: no epoch ended with a finite {label(key)} on {where}."
            if folder.epochs
            else "No result yet: no epoch was completed."
        )
        return parts
    parts["value"] = number(value)
    interval = f" (95 % interval {number(low)}{DASH}{number(high)})" if _finite(low) else ""
    parts["rest"] = f"{label(key)} on {where}{interval} after {epochs} epoch{'s' * (epochs != '1')}"
    reference, name = baseline.get(key), baseline.get("name", "baseline")
    if not _finite(reference):
        parts["rest"] += ". No baseline was measured."
        return parts
    parts["rest"] += f"; the simplest baseline, {name}, has {number(reference)}."
    more = folder.run.get("direction") != "minimise"
    lead = (low if more else high) if _finite(low) else value
    parts["beaten"] = bool(lead > reference if more else lead < reference)
    parts["comparison"] = "It beats the simplest baseline."
    if not parts["beaten"]:
        worse = (high < reference if more else low > reference) if _finite(low) else value != reference
        why = (
            "it is worse"
            if worse
            else f"{number(reference)} lies within the network's 95 % interval, so the difference may be chance"
        )
        parts["comparison"] = f"The network does not beat the simplest baseline ({name}): {why}."
    return parts


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _interval(folder: Folder, key: str) -> tuple[Any, Any]:
    bounds = folder.get("interval", dict).get(key)
    return (
        tuple(bounds) if isinstance(bounds, list) and len(bounds) == 2 and all(map(_finite, bounds)) else (None, None)
    )


def _test(folder: Folder) -> str:
    """What is known of the sealed test set, in a sentence or two."""
    test = folder.get("test", dict)
    if not test:
        return "The test set is still sealed."
    metrics = []
    for name, score in test.get("metrics", {}).items():
        value, low, high = (number(score.get(key)) for key in ("value", "low", "high"))
        metrics.append(f"{label(name)} {value} (95 % interval {low}{DASH}{high})")
    openings = test.get("openings", 1)
    often = "once" if openings == 1 else f"{openings} times, so this number is no longer that of an unseen test set"
    again = f" Reason given for opening it again: {test['again']}." if test.get("again") else ""
    return f"On the test set, opened {often}: {', '.join(metrics) or 'no metric was recorded'}.{again}"


def _reason(folder: Folder) -> tuple[str, list[tuple[str, str]]]:
    """(why the run ended as it did, [(what to do now, its command)]); nothing to say of a finished one."""
    if folder.run.get("status") == "diverged":
        return _divergence(folder)
    words = {
        "failed": ("The run failed.", "When the cause is mended, go on from the last saved state:"),
        "stopped": ("The run was stopped, and saved.", "Go on where it stopped:"),
        "preempted": ("The run was preempted, and saved.", "It goes on by itself if it is requeued; by hand:"),
        "pruned": ("The search ended this trial early: others were better by then.", "To finish it nevertheless:"),
        "running": ("The run was not over when this page was written.", "If nothing runs any more, go on with:"),
    }
    reason, advice = words.get(str(folder.run.get("status")), ("", ""))
    return reason, [(advice, resume(folder))]


def _divergence(folder: Folder) -> tuple[str, list[tuple[str, str]]]:
    last = folder.records[-1] if folder.records else {}
    epoch = folder.epochs + all(_finite(last.get(key, 0.0)) for key in ("fit/loss", "val/loss"))
    same = (
        "To go on from the last saved state; unchanged, it would take the same steps to the same end:",
        resume(folder),
    )
    optimiser = folder.settings.get("optimiser")
    rate = optimiser.get("lr") if isinstance(optimiser, dict) else None
    go_on = [same]
    if _finite(rate):
        anew = f"{re.sub(r' optimiser[.]lr=[^ ]+', '', _command(folder))} optimiser.lr={rate / 10:g}"
        go_on = [("If the findings below do not say better, start anew with a tenth of the learning rate:", anew), same]
    return f"The run diverged in epoch {epoch}: the loss was no longer finite.", go_on


# --- tables ----------------------------------------------------------------------------------------------------------


def findings(folder: Folder) -> dict[str, list[dict[str, Any]]]:
    """The findings by severity, gravest first; within one, in the order of the checks: the headline comes first."""
    found = [item for item in folder.get("findings", list) if isinstance(item, dict)]
    groups = {severity: [item for item in found if item.get("severity") == severity] for severity in SEVERITIES}
    groups["info"] += [item for item in found if item.get("severity") not in SEVERITIES]
    return groups


def results(folder: Folder) -> list[dict[str, Any]]:
    """A row a metric: validation at the best epoch with its interval, train, and the baseline; the objective first."""
    keys = sorted((key for key in folder.best if key.startswith("val/")), key=lambda key: key != folder.objective)
    baseline = folder.get("baseline", dict)
    return [
        {"name": label(key), "val": folder.best[key], "interval": _interval(folder, key),
         "train": folder.best.get(key.replace("val/", "train/", 1)), "baseline": baseline.get(key)}
        for key in keys
    ]  # fmt: skip


def worst_predictions(folder: Folder) -> dict[str, Any]:
    """The predictions with the greatest loss: id, truth, prediction, and the input as a picture or as values."""
    saved = folder.predictions
    if any(key not in saved for key in ("worst", "targets", "outputs")):
        return {"rows": [], "range": None, "columns": []}
    shown, inputs = worst_images(folder), saved.get("worst_inputs", np.zeros((0, 0)))
    flat, names = inputs.reshape(len(inputs), -1)[:, :12], folder.classes(saved["outputs"].shape[-1])
    rows = []
    for place, at in enumerate(saved["worst"][:MOST_WORST]):
        target, output = saved["targets"][at], saved["outputs"][at]
        row = {
            "id": str(saved["ids"][at]) if "ids" in saved else str(at),
            "loss": saved["losses"][at] if "losses" in saved else None,
        }
        if folder.classified():
            guess = int(np.nan_to_num(output).argmax())
            row |= {
                "true": names[target],
                "predicted": names[guess],
                "probability": output[guess],
                "probability_true": output[target],
            }
        else:
            row |= {
                "true": _values(target),
                "predicted": _values(output),
                "probability": None,
                "probability_true": None,
            }
        row["image"] = _png(shown[place]) if shown is not None and place < len(shown) else None
        row["values"] = [number(value) for value in flat[place]] if shown is None and place < len(flat) else []
        rows.append(row)
    features = folder.data.get("features") or []
    columns = [str(features[index]) if index < len(features) else f"x{index + 1}" for index in range(flat.shape[1])]
    return {
        "rows": rows,
        "range": grey_range(inputs) if shown is not None else None,
        "columns": columns if shown is None else [],
    }


def _values(array: np.ndarray) -> str:
    flat = np.ravel(array)
    return ", ".join(number(value) for value in flat[:4]) + (", …" if len(flat) > 4 else "")


# --- how to get it again ---------------------------------------------------------------------------------------------


def resume(folder: Folder) -> str:
    """The command that goes on with this run, seen from the current folder where that is possible."""
    return f"scripts/train {shlex.quote(f'resume={_here(folder)}')}"


def _here(folder: Folder) -> Path:
    path = folder.path.resolve()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _command(folder: Folder) -> str:
    return str(
        folder.run.get("command") or " ".join(["scripts/train", *(shlex.quote(str(item)) for item in folder.overrides)])
    )


def commands(folder: Folder) -> str:
    """What to type to get the same numbers on the same machine."""
    git, lines = folder.get("git", dict), []
    if git.get("commit"):
        lines.append(f"git checkout {git['commit']}")
    if git.get("diff"):
        program = "import json, sys; print(json.load(open(sys.argv[1]))['git']['diff'])"
        lines.append(f'python -c "{program}" {shlex.quote(str(_here(folder) / "run.json"))} | git apply')
    return "\n".join([*lines, _command(folder)])
