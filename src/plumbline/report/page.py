"""report.html of one run: the verdict first, then why to believe it, then how to get it again. One file, no network."""

from __future__ import annotations

import base64
import io
import re
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from plumbline.checks.core import ALARMS, ranked
from plumbline.files import make_folder, write_text
from plumbline.report import (
    Folder,
    finite,
    grey_range,
    label,
    most_confused,
    number,
    per_class,
    read,
    worst_images,
)  # fmt: skip
from plumbline.report.drawing import ALARM, GRID, INK, MUTED, PAPER, TRAIN, VALIDATION
from plumbline.report.figures import MOST_WORST, PICTURES, draw
from plumbline.report.verdict import bounds, change, commands, verdict

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup
    from matplotlib.figure import Figure

SEVERITIES = ("fail", "warn", "info", "ok")
THEMED = {  # colours of the pictures that are variables in the page's style
    INK: "ink", MUTED: "muted", GRID: "line", PAPER: "paper", TRAIN: "train", VALIDATION: "validation", ALARM: "bad",
}  # fmt: skip
MOST_TEXT = 100_000  # letters of a diff or a configuration that are shown; all of it stands in the folder
MOST_VALUES = 12  # columns of a table's worst rows
LARGEST_THUMBNAIL = 96  # pixels a side


def write_report(directory: Path) -> Path:
    """Write `figures/*.svg` and `report.html` into a run's folder, from that folder alone; return the page's path."""
    folder = read(directory)
    drawn, failed = draw(folder)
    pictures = {name: svg(figure, name) for name, figure in drawn.items()}
    make_folder(folder.path, "figures")
    for name in PICTURES:
        path = folder.path / "figures" / f"{name}.svg"
        if name in pictures:
            write_text(path, pictures[name])
        else:
            path.unlink(missing_ok=True)  # removes a link itself, of an earlier report, so no longer true
    tables: dict[str, Any] = {}
    for name, table in TABLES.items():
        try:
            tables[name] = table(folder)
        except Exception as error:  # as with the pictures: damage costs its part of the page, not the page
            tables[name], failed[name] = {}, f"{type(error).__name__}: {error}"
    page = template("run.html.j2").render(
        folder=folder, run=folder.run, seen=seen(folder), verdict=verdict(folder), commands=commands(folder), failed=failed,
        change=change(folder), **tables,
        pictures={name: inline(text, name) for name, text in pictures.items()}, layers=folder.get("layers", list),
        here=folder.path.resolve().name,
    )  # fmt: skip
    write_text(folder.path / "report.html", page)
    return folder.path / "report.html"


@cache
def template(name: str) -> Template:
    """A page's template, with the filters that all pages share."""
    from jinja2 import ChainableUndefined, Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=ChainableUndefined,  # a key that run.json does not have yet is empty
    )  # fmt: skip
    environment.filters |= {"number": number, "plain": _plain, "cut": _cut, "duration": _duration}
    return environment.get_template(name)


def _cut(text: Any, most: int = MOST_TEXT) -> str:
    text = str(text)
    rest = len(text) - most
    return text if rest <= 0 else f"{text[:most]} … and {rest:,} more letters, in the folder of the run"


def _plain(value: Any, between: str = ", ") -> str:
    """A value of run.json in words: numbers rounded, lists and mappings in one line, cut."""
    if isinstance(value, dict):
        value = [f"{key} {_plain(item)}" for key, item in value.items()]
    if isinstance(value, list):
        return _cut(between.join(map(_plain, value)), 2000)
    return _cut(value, 2000) if isinstance(value, bool | str) else number(value)


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
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r'<svg width="[^"]*" height="[^"]*"', f'<svg role="img" aria-label="{name}"', text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    for color, variable in THEMED.items():
        text = text.replace(f": {color}", f": var(--{variable})")
    return Markup(text)  # matplotlib has escaped every text in it


def seen(folder: Folder) -> list[dict[str, str]]:
    """The figures that were asked for: name, caption, and the picture as a data URI."""
    found = []
    for name, caption in folder.get("figures", dict).items():
        path = folder.path / "figures" / f"{Path(name).name}.png"
        if path.is_file():
            data = base64.b64encode(path.read_bytes()).decode()
            found.append({"name": name, "caption": caption, "data": f"data:image/png;base64,{data}"})
    return found


def _png(image: np.ndarray) -> str:
    """A (H, W, 1 or 3) image in [0, 1] as a data URI, averaged down to a thumbnail's size."""
    from matplotlib.image import imsave

    step = -(-max(image.shape[:2]) // LARGEST_THUMBNAIL)
    height, width = (side // step for side in image.shape[:2])
    if step > 1 and min(height, width) > 0:
        image = image[: height * step, : width * step].reshape(height, step, width, step, -1).mean((1, 3))
    data = io.BytesIO()
    imsave(data, np.rint(np.broadcast_to(image, (*image.shape[:2], 3)) * 255).astype(np.uint8), format="png")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


# --- tables ----------------------------------------------------------------------------------------------------------


def findings(folder: Folder) -> dict[str, Any]:
    """What was found, the headline first and what passed last, with its count by severity; and the headline, if any."""
    known = [item | {"severity": item.get("severity") if item.get("severity") in SEVERITIES else "info"} for item in
             folder.get("findings", list) if isinstance(item, dict)]  # fmt: skip
    found = ranked([{"symptom": False} | item for item in known])
    counts = {severity: sum(item["severity"] == severity for item in found) for severity in SEVERITIES}
    headline = found[0] if found and found[0]["severity"] in ALARMS else None
    return {"found": found, "counts": counts, "headline": headline, "alarms": counts["fail"] + counts["warn"]}


def results(folder: Folder) -> list[dict[str, Any]]:
    """A row a metric: validation at the best epoch with its interval, train, and the baseline; the objective first."""
    keys = sorted((key for key in folder.best if key.startswith("val/")), key=lambda key: key != folder.objective)
    baseline, test = folder.get("baseline", dict), folder.get("test", dict).get("metrics") or {}
    return [
        {"name": label(key), "val": folder.best[key], "interval": bounds(folder, key), "baseline": baseline.get(key),
         "train": folder.best.get(f"train/{key[4:]}"), "test": test.get(key[4:])}
        for key in keys
    ]  # fmt: skip


def worst_predictions(folder: Folder) -> dict[str, Any]:
    """The predictions with the greatest loss: id, truth, prediction, and the input as a picture or as its values."""
    saved = folder.predictions
    if any(key not in saved for key in ("ids", "targets", "outputs", "losses", "worst", "worst_inputs")):
        return {}
    if folder.painted() is not None:  # a picture of its own shows them
        return {}
    inputs, shown = saved["worst_inputs"], worst_images(folder)
    flat = inputs.reshape(len(inputs), -1)[:, :MOST_VALUES]
    names = folder.classes(saved["outputs"].shape[-1]) if folder.classified() else None
    rows = []
    for place, at in enumerate(saved["worst"][:MOST_WORST]):
        row = {"id": str(saved["ids"][at]), "loss": float(saved["losses"][at])}
        row |= _class(names, saved, at) if names else _value(saved, at)
        row["image"] = None if shown is None else _png(shown[place])
        rows.append(row | {"values": [number(value) for value in flat[place]]})
    features = [*(folder.data.get("features") or []), *(f"x{index + 1}" for index in range(MOST_VALUES))]
    grey = None if shown is None else grey_range(inputs)
    return {"rows": rows, "columns": features[: flat.shape[1]], "range": grey}


def _class(names: list[str], saved: dict[str, np.ndarray], at: int) -> dict[str, Any]:
    target, output = int(saved["targets"][at]), np.nan_to_num(saved["outputs"][at])
    guess = int(output.argmax())
    return {"true": names[target], "p_true": output[target], "predicted": names[guess], "p": output[guess]}


def _value(saved: dict[str, np.ndarray], at: int) -> dict[str, Any]:
    true, predicted = (", ".join(map(number, np.ravel(saved[key][at])[:4])) for key in ("targets", "outputs"))
    return {"true": true, "p_true": None, "predicted": predicted, "p": None}


def baselines(folder: Folder) -> list[dict[str, Any]]:
    """A row for the network and for each baseline: name, the objective, R² of numbers, samples; the best first."""
    key = folder.objective
    simplest, measured = folder.get("baseline", dict), folder.get("baselines", list)
    rows = [
        {
            "name": "the network",
            "network": True,
            "metrics": folder.best,
            "samples": folder.data.get("train"),
            "seconds": None,
        }
    ]
    if not measured:
        return []
    rows += [{"network": False} | row for row in measured]
    rows.append(
        {
            "name": simplest.get("name"),
            "network": False,
            "metrics": simplest,
            "samples": folder.data.get("train"),
            "seconds": None,
        }
    )
    for row in rows:
        row |= {"value": row["metrics"].get(key), "r2": row["metrics"].get("val/r2")}
    sign = -1 if folder.run.get("direction") != "minimise" else 1
    return sorted(rows, key=lambda row: (not finite(row["value"]), sign * row["value"] if finite(row["value"]) else 0))


TABLES = {
    "baselines": baselines,
    "findings": findings,
    "results": results,
    "classes": per_class,
    "confused": most_confused,
    "worst": worst_predictions,
}
