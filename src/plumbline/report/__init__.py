"""What a person reads of a run: made from the files of its folder alone, so it can be made again at any time.

Here is the folder as read back, for every page; `figures` draws from it, `page` writes report.html.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from plumbline.files import read_text
from plumbline.parsing import parse_json, parse_yaml
from plumbline.stored import repair_run

SEEN = "data.npz"
MOST_COUNTS = 12  # classes whose confusion matrix has its counts written in
DASH = "\u2013"  # of a range, or of what is not there
METRICS = {
    "mae": "mean absolute error",
    "mse": "mean squared error",
    "rmse": "RMSE",
    "r2": "R²",
    "f1": "F1",
    "auc": "AUC",
}


@dataclass
class Folder:
    """What a run left behind. Whatever is absent or cannot be read is empty here, and named in `missing`."""

    path: Path
    run: dict[str, Any] = field(default_factory=dict)  # run.json
    records: list[dict[str, Any]] = field(default_factory=list)  # metrics.jsonl, one an epoch
    predictions: dict[str, np.ndarray] = field(default_factory=dict)  # of validation, at the best epoch
    seen: dict[str, np.ndarray] = field(default_factory=dict)  # of the data, what the audit looked at
    config: str = ""  # config.yaml as it stands
    settings: dict[str, Any] = field(default_factory=dict)  # the same, parsed
    overrides: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)  # file -> why

    def get(self, key: str, kind: type) -> Any:
        """The value of run.json's `key` if it is of that kind, else an empty one: a young run has few of them."""
        value = self.run.get(key)
        return value if isinstance(value, kind) else kind()

    @property
    def data(self) -> dict[str, Any]:
        return self.get("data", dict)

    @property
    def best(self) -> dict[str, Any]:
        return self.get("best", dict)

    @property
    def objective(self) -> str:
        return self.get("objective", str) or "val/loss"

    @property
    def epochs(self) -> int:
        """The last epoch that left a record."""
        last = self.records[-1].get("epoch") if self.records else 0
        return int(last) if finite(last) else len(self.records)

    @property
    def planned(self) -> int:
        """The epochs that were asked for; those done, if that is not known."""
        asked = self.settings.get("epochs")
        return asked if isinstance(asked, int) else self.epochs

    def classes(self, count: int) -> list[str]:
        """The names of that many classes; their numbers, if they have no names."""
        names = self.data.get("classes") or []
        return [str(name) for name in names] if len(names) == count else [str(index) for index in range(count)]

    def series(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """(epochs, values) of the records that have the key. What was not finite is NaN: a curve breaks there."""
        having = [
            (record.get("epoch", index + 1), record[key]) for index, record in enumerate(self.records) if key in record
        ]
        values = np.array([np.nan if value is None else value for _, value in having], dtype=float)
        return np.array([epoch for epoch, _ in having], dtype=float), np.where(np.isfinite(values), values, np.nan)

    @property
    def broken(self) -> int | None:
        """The first epoch whose loss was not finite."""
        losses = [self.series(key) for key in ("fit/loss", "val/loss")]
        return min((int(epoch) for epochs, values in losses for epoch in epochs[np.isnan(values)]), default=None)

    def layers(self, prefix: str) -> list[str]:
        """The keys `<prefix>/<layer>` of the records, first layer first."""
        return list(dict.fromkeys(key for record in self.records for key in record if key.startswith(prefix + "/")))

    def classified(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(targets (N,), probabilities (N, C)) of a classification; samples without a finite output are left away."""
        targets, outputs = self.predictions.get("targets"), self.predictions.get("outputs")
        if (
            targets is None
            or outputs is None
            or targets.ndim != 1
            or targets.dtype.kind not in "iu"
            or outputs.ndim != 2
        ):
            return None
        usable = np.isfinite(outputs).all(1)
        return (targets[usable], outputs[usable]) if usable.any() else None

    def painted(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(targets (N, k, H, W), outputs (N, k, H, W)) where both are pictures: masks, or the input itself."""
        targets, outputs = self.predictions.get("targets"), self.predictions.get("outputs")
        size = self.data.get("masks") or (self.data.get("task") == "reconstruction" and self.data.get("shape")) or []
        if targets is None or outputs is None or len(size) != 3 or outputs[0].size != np.prod(size):
            return None
        return targets.reshape(-1, *size), outputs.reshape(-1, *size)

    def regressed(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(targets (N, k), values (N, k)) of a regression, in the original unit; None where they are pictures."""
        targets, outputs = self.predictions.get("targets"), self.predictions.get("outputs")
        if targets is None or outputs is None or targets.dtype.kind != "f" or self.painted() is not None:
            return None
        targets, outputs = targets.reshape(len(targets), -1), outputs.reshape(len(outputs), -1)
        usable = np.isfinite(outputs).all(1) & np.isfinite(targets).all(1)
        return (targets[usable], outputs[usable]) if usable.any() else None


def read(directory: Path) -> Folder:
    """The run's folder. A file that is absent, cut off or broken is noted in it, never an error."""
    folder = Folder(Path(directory))

    def load(name: str, parse: Callable[[Path], Any], kind: type) -> Any:
        try:
            value = parse(folder.path / name)
            if not isinstance(value, kind):
                raise ValueError(f"holds a {type(value).__name__}, not a {kind.__name__}")
            return value
        except FileNotFoundError:
            folder.missing[name] = "is not there"
        except Exception as error:  # any damage at all: the report of a broken run is the one that is needed most
            folder.missing[name] = f"cannot be read: {error}"
        return kind()

    folder.run, wrong = repair_run(load("run.json", lambda path: parse_json(read_text(path)), dict))
    if wrong:
        folder.missing["run.json"] = f"is damaged: {'; '.join(wrong)}"
    folder.records = load("metrics.jsonl", lambda path: list(_records(read_text(path))), list)
    folder.predictions = load("predictions.npz", _arrays, dict)
    if (folder.path / SEEN).exists():  # there is none where nothing was audited
        folder.seen = load(SEEN, _arrays, dict)
    folder.config = load("config.yaml", read_text, str)
    folder.settings = (
        load("config.yaml", lambda path: parse_yaml(folder.config, as_options=True), dict) if folder.config else {}
    )
    folder.overrides = load("overrides.yaml", lambda path: parse_yaml(read_text(path)) or [], list)
    return folder


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as saved:  # never unpickles: a folder may come from somebody else
        return dict(saved)


def _records(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        try:
            record = parse_json(line)
        except ValueError:
            continue  # the last line of a killed run may be cut off
        if isinstance(record, dict):
            yield {key: value for key, value in record.items() if value is None or isinstance(value, int | float)}


def finite(value: Any) -> bool:
    """Whether it is a number at all, and a finite one."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and bool(np.isfinite(value))


def number(value: Any) -> str:
    """A number as a person reads it: three decimals around 1, three figures elsewhere; a dash if it is not finite."""
    if not finite(value):
        return DASH
    if isinstance(value, int | np.integer) or value == 0 or 1000 <= abs(value) < 1e9:
        return f"{value:,.0f}"
    return f"{value:.3f}" if 0.01 <= abs(value) < 10 else f"{value:.3g}"


def label(key: str) -> str:
    """A metric's key in words: `val/balanced_accuracy` is balanced accuracy."""
    name = key.rpartition("/")[2]
    return METRICS.get(name, name.replace("_", " "))


def confusion(targets: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Counts (C, C): the row is the true class, the column the predicted one."""
    classes = outputs.shape[1]
    return np.bincount(targets * classes + outputs.argmax(1), minlength=classes**2).reshape(classes, classes)


def reliability(targets: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, ...]:
    """(confidence, share that is right, its 95 % Wilson interval: low, high, n) of each tenth of confidence in use."""
    confidence, right = outputs.max(1), outputs.argmax(1) == targets
    tenth = (confidence * 10).astype(int).clip(0, 9)
    n = np.bincount(tenth, minlength=10)
    used, z2 = n > 0, 1.96**2
    mean, share = (np.bincount(tenth, of, 10)[used] / n[used] for of in (confidence, right))
    n = n[used]
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = 1.96 * np.sqrt(share * (1 - share) / n + z2 / (4 * n**2)) / (1 + z2 / n)
    return mean, share, centre - half, centre + half, n


def per_class(folder: Folder) -> list[dict[str, Any]]:
    """n, recall, precision and F1 of each class that occurs, the worst first."""
    found = folder.classified()
    if found is None:
        return []
    (targets, outputs), classes = found, found[1].shape[1]
    guesses = outputs.argmax(1)
    n, said, right = (np.bincount(of, minlength=classes) for of in (targets, guesses, targets[targets == guesses]))
    with np.errstate(invalid="ignore", divide="ignore"):  # nothing to count gives NaN, which is shown as a dash
        scores = {"recall": right / n, "precision": right / said, "f1": 2 * right / (n + said)}
    rows = [
        {"name": name, "n": int(n[at])} | {score: values[at] for score, values in scores.items()}
        for at, name in enumerate(folder.classes(classes))
        if n[at] + said[at]
    ]
    return sorted(rows, key=lambda row: row["f1"])


def most_confused(folder: Folder) -> list[dict[str, Any]]:
    """The ten most frequent confusions, where there are too many classes to write the counts into the matrix."""
    found = folder.classified()
    if found is None or found[1].shape[1] <= MOST_COUNTS:
        return []
    (targets, outputs), names = found, folder.classes(found[1].shape[1])
    pairs = np.stack([targets, outputs.argmax(1)])[:, targets != outputs.argmax(1)]
    pairs, counts = np.unique(pairs, axis=1, return_counts=True)
    first = np.argsort(-counts, kind="stable")[:10]
    n = np.bincount(targets)
    return [
        {"true": names[i], "predicted": names[j], "count": int(count), "of": int(n[i])}
        for (i, j), count in zip(pairs.T[first], counts[first], strict=True)
    ]


def grey_range(images: np.ndarray) -> tuple[float, float]:
    """The values to show as black and as white, one pair for all images: a flat image stays grey."""
    low, high = float(np.nanmin(images)), float(np.nanmax(images))
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    if low >= 0 and 100 < high <= 255:
        return 0.0, 255.0
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def worst_images(folder: Folder) -> np.ndarray | None:
    """The inputs of the worst predictions as images (K, H, W, 1 or 3) in [0, 1]; None if they are not images."""
    inputs = folder.predictions.get("worst_inputs")
    if inputs is None or inputs.ndim != 4 or not np.isfinite(inputs).any():
        return None
    low, high = grey_range(inputs)
    shown = inputs if inputs.shape[1] == 3 else inputs[:, :1]  # (K, C, H, W); of other numbers of channels, the first
    return np.nan_to_num((shown - low) / (high - low)).clip(0, 1).transpose(0, 2, 3, 1)
