"""The report of one run: its numbers are those of the files, it stands alone, and it survives a damaged folder."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import affordable

from plumbline.report import confusion, grey_range, number, read
from plumbline.report.figures import figures
from plumbline.report.page import write_report

NASTY = '<script>alert("x")</script> & $a_{b}$'

# --- folders as a run leaves them ------------------------------------------------------------------------------------


def records(epochs: int, layers: list[str], loss: float, metric: str, best: float) -> list[dict]:
    """Curves that fall, a rate that warms up and cools down, norms that drift."""
    rng, kept = np.random.default_rng(0), []
    for epoch in range(1, epochs + 1):
        done = epoch / epochs
        fit = loss * np.exp(-4 * done) + 0.03 + 0.01 * rng.random()
        record = {"epoch": epoch, "step": 17 * epoch, "fit/loss": 1.3 * fit, "fit/penalty": 0.01, "fit/grad_norm": fit}
        record |= {"train/loss": fit, "val/loss": fit + 0.1 * done**2, "lr": 0.01 * np.cos(np.pi * done / 2)}
        record |= {
            f"train/{metric}": min(best + 0.02, 1) * (1 - np.exp(-5 * done)),
            f"val/{metric}": best * (1 - np.exp(-5 * done)),
        }
        record |= {f"grad_norm/{layer}": fit * 2.0**-depth for depth, layer in enumerate(layers)}
        record |= {f"update_ratio/{layer}": 1e-3 * (1.5 - done) * 1.7**depth for depth, layer in enumerate(layers)}
        kept.append(record | {"seconds": 0.4, "samples_per_s": 2600 + 200 * rng.random()})
    return kept


def finding(severity: str, name: str, message: str, **more: object) -> dict:
    return {
        "id": name,
        "severity": severity,
        "message": message,
        "evidence": {},
        "cause": "",
        "advice": [],
        "source": "",
    } | more


FINDINGS = [
    finding(
        "warn", "curve.overfits", "Validation loss has risen since epoch 12 while train loss kept falling.",
        evidence={"epoch": 12, "gap": 0.0713}, cause="More capacity than 1,077 samples can hold in check.",
        advice=["regulariser=[dropout]", "augment=[shift]"], source="Prechelt 1998, Early stopping, but when?",
    ),
    finding("info", "data.small", "With 1,077 samples three seeds differ by about 1 %.", evidence={"train": 1077}),
    *[finding("ok", f"init.check_{index}", f"Check {index} passed.", evidence={"value": index}) for index in range(14)],
]  # fmt: skip


def write_run(path: Path, run: dict, lines: list[dict], predictions: dict | None, overrides: list[str]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    whole = {
        "status": "finished", "name": path.name, "question": "Does a small network beat the majority class?",
        "command": " ".join(["scripts/train", *overrides]), "started": "2025-11-22T00:31:07",
        "finished": "2025-11-22T00:31:48", "seconds": 41.3, "seed": 0, "direction": "maximise", "parameters": 9610,
        "restarts": 0, "findings": FINDINGS, "test": None, "error": None,
        "lr_curve": [[at / 50, 0.01 * float(np.cos(np.pi * at / 100))] for at in range(51)],
        "environment": {"python": "3.11.2", "torch": "2.14.1", "device": "cpu", "cpu": "two cores", "threads": 2,
                        "platform": "Linux", "packages": {"numpy": "2.4.6", "torch": "2.14.1"}},
        "git": {"commit": "0123abc", "dirty": True, "diff": "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a < b\n+a > b\n"},
        "layers": [{"name": "hidden.0", "kind": "Linear", "output": [128], "parameters": 8320},
                   {"name": "head", "kind": "Linear", "output": [10], "parameters": 1290}],
    } | run  # fmt: skip
    (path / "run.json").write_text(json.dumps(whole))
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rate = lines[0]["lr"] if lines else 0.01
    (path / "config.yaml").write_text(f"model:\n  hidden: [128]\noptimiser:\n  lr: {rate}\nepochs: 20\n")
    (path / "overrides.yaml").write_text(json.dumps(overrides))
    if predictions is not None:
        np.savez(path / "predictions.npz", **predictions)
    return path


def classification(
    path: Path, classes: list[str] | None = None, shape: tuple[int, ...] = (1, 8, 8), **run: object
) -> Path:
    """Digits-like: blobs with a hole, ten classes, about 97 % right."""
    names = classes or [str(index) for index in range(10)]
    rng, n, k = np.random.default_rng(1), 360, len(names)
    targets = rng.integers(0, k, n)
    logits = rng.normal(0, 1.2, (n, k)) + 5 * np.eye(k)[targets]
    outputs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    losses = -np.log(outputs[np.arange(n), targets])
    worst = np.argsort(-losses)[:12]
    far = np.hypot(*(np.indices((8, 8)) - 3.5)) if shape == (1, 8, 8) else None
    inputs = [
        np.clip(1.4 - abs(far - rng.uniform(1, 3)), 0, 1).reshape(shape) if far is not None else rng.random(shape)
        for _ in worst
    ]
    accuracy = float((outputs.argmax(1) == targets).mean())
    lines = records(20, ["hidden.0", "hidden.1", "head"], 2.3, "accuracy", accuracy)
    for line in lines:
        line |= {
            "val/balanced_accuracy": line["val/accuracy"] - 0.01,
            "val/f1": line["val/accuracy"] - 0.02,
            "val/calibration_error": 0.031,
        }
    best = dict(lines[11]) | {"val/accuracy": accuracy, "epoch": 12}
    lines[11]["val/accuracy"] = accuracy
    facts = {
        "objective": "val/accuracy", "best": best,
        "baseline": {"name": "majority class", "val/accuracy": 0.1022, "val/loss": 2.3026},
        "interval": {"val/accuracy": [accuracy - 0.0172, min(accuracy + 0.0144, 1)]},
        "data": {"task": "classification", "shape": shape, "outputs": k, "classes": names, "train": 1077, "val": n,
                 "fingerprint": "9f1c2ab07d3e4455", "left_out": []},
    }  # fmt: skip
    saved = {
        "ids": np.array([f"digit-{index:04d}" for index in range(n)]),
        "targets": targets,
        "outputs": outputs.astype(np.float32),
    }
    saved |= {"losses": losses, "worst": worst, "worst_inputs": np.stack(inputs).astype(np.float32)}
    return write_run(path, facts | run, lines, saved, ["data=digits", "model.hidden=[128]"])


def regression(path: Path, targets: int = 1, **run: object) -> Path:
    rng, n = np.random.default_rng(2), 110
    y = rng.normal(150, 70, (n, targets))
    outputs = 0.5 * y + 75 + rng.normal(0, 40, (n, targets))
    losses = ((outputs - y) ** 2).mean(1)
    worst = np.argsort(-losses)[:8]
    lines = records(20, ["hidden.0", "head"], 1.0, "r2", 0.48)
    for line in lines:
        line |= {"val/rmse": 54.3 + 20 / line["epoch"], "train/rmse": 50.1 + 20 / line["epoch"], "val/mae": 44.1}
    facts = {
        "objective": "val/rmse", "direction": "minimise", "best": dict(lines[-1]),
        "interval": {"val/rmse": [48.9, 61.2]}, "margins": {"mean": [2.0, 20]},
        "baseline": {"name": "mean", "val/rmse": 71.3, "val/r2": -0.001, "val/mae": 60.2},
        "data": {"task": "regression", "shape": [10], "outputs": targets, "classes": [],
                 "train": 265, "val": n, "fingerprint": "77aa", "left_out": ["row 12"]},
    }  # fmt: skip
    saved = {"ids": np.arange(n), "targets": y, "outputs": outputs, "losses": losses, "worst": worst}
    return write_run(path, facts | run, lines, saved | {"worst_inputs": rng.normal(size=(8, 10))}, ["data=diabetes"])


def diverged(path: Path) -> Path:
    line = {"epoch": 1, "step": 3, "fit/loss": None, "train/loss": None, "val/loss": None, "val/accuracy": None}
    line |= {"lr": 10.0, "grad_norm/head": None, "update_ratio/head": None, "samples_per_s": 100.0}
    found = finding(
        "fail",
        "lr.too_high",
        "The loss grew 400-fold in three steps.",
        evidence={"last": None},
        advice=["optimiser.lr=0.1"],
    )
    run = {"status": "diverged", "objective": "val/accuracy", "best": None, "baseline": None, "interval": None}
    run |= {"findings": [found], "error": "the loss is nan at step 3 of epoch 1", "lr_curve": [[0, 10.0], [1, 0.0]]}
    return write_run(path, run, [line], None, ["optimiser.lr=10", "data=digits"])


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = classification(tmp_path_factory.mktemp("runs") / "digits")
    write_report(path)
    return path


@pytest.fixture(scope="module")
def diabetes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = regression(tmp_path_factory.mktemp("runs") / "diabetes")
    write_report(path)
    return path


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only words are looked at: drawing takes most of the time."""
    monkeypatch.setattr("plumbline.report.page.draw", lambda folder: ({}, {}))


class Page(HTMLParser):
    """The text of a page, as a whole and by the nearest id around it, and every tag with its attributes."""

    VOID = ("meta", "br", "img", "use", "path", "rect", "circle", "image")

    def __init__(self, path: Path):
        super().__init__()
        self.source = path.read_text("utf-8")
        self.text, self.by_id, self.tags, self._open = "", {}, [], []
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.handle_data(" ")  # words of two tags are two words
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append((tag, dict(attrs).get("id")))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self._open.pop()[0] == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1][0] == "style":
            return
        self.text += data
        for _, name in self._open:
            self.by_id[name] = self.by_id.get(name, "") + data

    def __getitem__(self, name: str) -> str:
        return " ".join(self.by_id.get(name, "").split())

    def rows(self, name: str) -> list[list[str]]:
        """The cells of the table with that id, row by row."""
        table = self.source[self.source.index(f'id="{name}"') :].partition("</table>")[0]
        cells = [re.findall(r"<t[dh].*?>(.*?)</t[dh]>", row, re.DOTALL) for row in table.split("<tr>")[1:]]
        return [[html.unescape(re.sub(r"<.*?>", " ", cell)).strip() for cell in row] for row in cells]


def page(run: Path) -> Page:
    return Page(write_report(run))


def change(run: Path, **values: object) -> Path:
    """Overwrite keys of run.json."""
    (run / "run.json").write_text(json.dumps(json.loads((run / "run.json").read_text()) | values))
    return run


def facts(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())


# --- the verdict -----------------------------------------------------------------------------------------------------


def test_the_verdict_holds_the_numbers_of_run_json(digits):
    run, said = facts(digits), Page(digits / "report.html")["verdict"]
    low, high = run["interval"]["val/accuracy"]
    assert said == (
        f"{run['best']['val/accuracy']:.3f} accuracy on validation (95 % interval {low:.3f}\u2013{high:.3f}) "
        "after 20 epochs; the simplest baseline, majority class, has 0.102. The test set is still sealed."
    )


def test_the_verdict_comes_before_everything_else_and_the_findings_next(digits):
    source = (digits / "report.html").read_text()
    order = [source.index(f'id="{name}"') for name in ("verdict", "findings", "results", "figure-loss", "facts")]
    assert order == sorted(order)


def test_a_smaller_error_beats_the_baseline_where_the_objective_is_minimised(diabetes):
    shown = Page(diabetes / "report.html")
    assert shown["verdict"].startswith("55.3 RMSE on validation (95 % interval 48.9\u201361.2) after 20 epochs; ")
    assert shown["comparison"] == (
        "The network beats the simplest baseline: RMSE 55.3 against 71.3 of the mean; "
        "16 ahead, 2.6 of half the 95 % interval (for the best of 20 epochs)."
    )


@pytest.mark.parametrize(
    ("value", "margins", "words"),
    [
        (0.101, {"majority class": [0.02, 1]}, "0.0012 behind, 0.031 of half the 95 % interval: that may be chance."),
        (
            0.05,
            {"majority class": [0.02, 3]},
            "0.0522 behind, 1.1 of half the 95 % interval (for the best of 3 epochs).",
        ),
        (0.101, None, "accuracy 0.101 against 0.1022 of the majority class."),
    ],
)
def test_a_network_that_does_not_beat_the_baseline_is_told_so(tmp_path, no_pictures, value, margins, words):
    run = classification(tmp_path / "run")
    change(run, best={"epoch": 3, "val/accuracy": value}, margins=margins)
    said = page(run)["comparison"]
    assert said.startswith("The network does not beat the simplest baseline: ") and said.endswith(words)


def test_a_diverged_run_says_so_and_how_to_go_on(tmp_path):
    run = diverged(tmp_path / "run")
    shown = page(run)
    assert shown["verdict"].startswith("Diverged No result. No epoch ended with a finite accuracy.")
    assert "diverged in epoch 1" in shown["reason"] and "the loss is nan at step 3" in shown["reason"]
    assert "scripts/train data=digits optimiser.lr=1 " in shown["reason"] + " "
    assert f"scripts/train resume={run}" in shown["reason"]
    assert "The loss grew 400-fold" in shown["findings"]


@pytest.mark.parametrize("status", ["failed", "stopped", "preempted", "pruned", "running"])
def test_every_unfinished_run_shows_the_command_that_goes_on(tmp_path, no_pictures, monkeypatch, status):
    run = change(classification(tmp_path / "it's a run"), status=status, error="KeyError: 'x'")
    monkeypatch.chdir(tmp_path)
    shown = page(run)["reason"]
    command = shown[shown.index("scripts/train") :]
    assert shlex.split(command) == ["scripts/train", "resume=it's a run"] and "KeyError: 'x'" in shown


def test_a_finished_run_needs_no_advice_to_go_on(digits):
    assert "reason" not in Page(digits / "report.html").by_id


def test_an_early_end_names_the_epochs_that_were_planned(tmp_path, no_pictures):
    run = classification(tmp_path / "run")
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:7]) + lines[7][:30])  # killed while writing
    assert "after 7 epochs of 20 planned" in page(run)["verdict"]


def test_an_opened_test_set_shows_its_interval_and_how_often_it_was_opened(tmp_path, no_pictures):
    run = classification(tmp_path / "run")
    test = {
        "opened": "2025-11-23T10:00:00",
        "metrics": {
            "loss": {"value": 0.1, "low": 0.08, "high": 0.12},
            "accuracy": {"value": 0.9642, "low": 0.9451, "high": 0.98},
        },
    }
    once = page(change(run, test=test | {"openings": 1, "again": None}))["verdict"]
    assert once.endswith("On the test set, opened once: accuracy 0.964 (95 % interval 0.945\u20130.980).")
    assert [row[4] for row in Page(run / "report.html").rows("results")[1:3]] == [
        "0.964 (0.945\u20130.980)",
        "0.100 (0.080\u20130.120)",
    ]
    again = page(change(run, test=test | {"openings": 2, "again": "a bug"}))["verdict"]
    assert "opened 2 times, so this is no longer" in again and again.endswith("opening it again: a bug.")


def test_findings_stand_gravest_first_and_the_first_of_each_keeps_its_place(tmp_path, no_pictures):
    names = [("ok", "a"), ("info", "b"), ("fail", "c"), ("warn", "d"), ("fail", "e"), ("odd", "f")]
    run = change(classification(tmp_path / "run"), findings=[finding(severity, name, name) for severity, name in names])
    assert re.findall(r"<code>(\w)</code>", page(run).source) == list("cedbfa")


def test_the_headline_stands_in_the_verdict_with_its_cause_and_what_to_try_first(tmp_path, no_pictures):
    symptom = finding("fail", "result.baseline", "It beats nothing.") | {"symptom": True}
    cause = finding("warn", "lr.too_high", "The rate is 9.", cause="a typing error", advice=["a lower one", "none"])
    run = change(classification(tmp_path / "run"), findings=[symptom, cause, finding("ok", "a", "fine")])
    shown = page(run)
    assert shown["headline"] == "The rate is 9. Likely cause: a typing error. Try first: a lower one. All 2 alarms"
    assert shown["counts"] == "1 fail 1 warn 1 passed"
    assert (
        shown.source.index('id="verdict"') < shown.source.index('id="headline"') < shown.source.index('id="findings"')
    )
    quiet = page(change(run, findings=[finding("ok", "a", "fine"), finding("info", "b", "a word")]))
    assert "headline" not in quiet.by_id


def test_a_finding_of_the_curve_leads_to_its_picture(tmp_path):
    run = change(classification(tmp_path / "run"), findings=[finding("info", "curve.gap", "a gap")])
    source = page(run).source
    assert '<a href="#figure-loss">' in source and 'id="figure-loss"' in source


# --- the numbers -----------------------------------------------------------------------------------------------------


def test_the_confusion_matrix_counts_every_prediction_of_the_file(digits):
    saved, drawn = read(digits).predictions, figures(digits)["confusion"]
    written = {tuple(np.floor(text.get_position())): int(text.get_text()) for text in drawn.axes[0].texts}
    expected = {}
    for target, guess in zip(saved["targets"], saved["outputs"].argmax(1), strict=True):
        expected[guess, target] = expected.get((guess, target), 0) + 1
    assert written == expected and sum(written.values()) == 360


def test_the_class_table_agrees_with_scikit_learn(digits):
    metrics = pytest.importorskip("sklearn.metrics")
    saved = read(digits).predictions
    precision, recall, f1, n = metrics.precision_recall_fscore_support(saved["targets"], saved["outputs"].argmax(1))
    expected = [[str(at), f"{n[at]}", *(f"{score[at]:.3f}" for score in (recall, precision, f1))] for at in range(10)]
    rows = Page(digits / "report.html").rows("classes")
    assert sorted(rows[1:]) == expected and [row[4] for row in rows[1:]] == sorted(row[4] for row in rows[1:])


def test_the_curves_are_those_of_the_records(digits):
    lines = [json.loads(line) for line in (digits / "metrics.jsonl").read_text().splitlines()]
    drawn = [list(line.get_ydata()) for line in figures(digits)["loss"].axes[0].lines]
    assert drawn[:3] == [[line[key] for line in lines] for key in ("fit/loss", "train/loss", "val/loss")]


def test_the_calibration_dots_are_the_share_that_is_right_in_each_bin(digits):
    saved = read(digits).predictions
    confidence, right = saved["outputs"].max(1), saved["outputs"].argmax(1) == saved["targets"]
    bins = [(confidence >= low / 10) & (confidence < (low + 1) / 10) for low in range(10)]
    expected = [(confidence[mask].mean(), right[mask].mean()) for mask in bins if mask.any()]
    dots = figures(digits)["calibration"].axes[0].collections[-1].get_offsets()
    assert np.allclose(dots, expected, atol=1e-6)


def test_residuals_are_predicted_minus_true(diabetes):
    saved = read(diabetes).predictions
    dots = figures(diabetes)["residuals"].axes[0].collections[0].get_offsets()
    assert np.allclose(dots, np.stack([saved["outputs"], saved["outputs"] - saved["targets"]], -1)[:, 0])


def test_the_result_table_holds_validation_train_and_baseline(digits):
    run, rows = facts(digits), Page(digits / "report.html").rows("results")
    best, (low, high) = run["best"], run["interval"]["val/accuracy"]
    value = f"{best['val/accuracy']:.3f}  ({low:.3f}\u2013{high:.3f})"
    assert rows[1] == ["accuracy", value, f"{best['train/accuracy']:.3f}", "0.102"]
    assert ["loss", f"{best['val/loss']:.3f}", f"{best['train/loss']:.3f}", "2.303"] in rows


def test_the_worst_rows_of_a_table_are_those_of_the_file(diabetes):
    saved, rows = read(diabetes).predictions, Page(diabetes / "report.html").rows("worst")
    at = saved["worst"][0]
    expected = [
        str(saved["ids"][at]),
        *(number(float(saved[key][at].item())) for key in ("targets", "outputs", "losses")),
    ]
    assert rows[1] == expected + [number(value) for value in saved["worst_inputs"][0]]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.97219, "0.972"), (0, "0"), (0.0003, "0.0003"), (54.321, "54.3"), (1077, "1,077"), (71234.5, "71,234"),
     (-0.5, "-0.500"), (float("nan"), "\u2013"), (None, "\u2013"), (True, "\u2013"),
     (1.5e12, "1.5e+12"), (np.float32(0.5), "0.500")],
)  # fmt: skip
def test_a_number_is_rounded_to_what_a_person_reads(value, text):
    assert number(value) == text


# --- pictures --------------------------------------------------------------------------------------------------------

LEARNING = {"loss", "objective", "learning_rate", "gradients", "updates", "throughput"}


def test_a_classification_has_its_pictures_and_no_residuals(digits):
    names = {path.stem for path in (digits / "figures").iterdir()}
    assert names == LEARNING | {"confusion", "calibration", "worst"} == set(figures(digits))


def test_the_range_test_is_drawn_from_its_finding_with_every_rate_that_matters(tmp_path):
    path = classification(tmp_path / "run")
    curves = [[[1e-6, 1e-4, 1e-2, 1.0], [2.3, 2.3, 1.0, 9.0]], [[1e-6, 1e-4, 1e-2], [2.3, 2.2, 1.1]]]
    rates = {"configured": 0.001, "suggestion": 0.002, "diverged_at": 0.9}
    run = json.loads((path / "run.json").read_text())
    run["findings"] = [
        {"id": "lr.range", "severity": "ok", "message": "in range", "evidence": rates | {"curves": curves}}
    ]
    (path / "run.json").write_text(json.dumps(run))
    axes = figures(path)["range_test"].axes[0]
    assert [len(line.get_xdata()) for line in axes.lines[:2]] == [4, 3]
    assert [float(line.get_xdata()[0]) for line in axes.lines[2:]] == [0.001, 0.002, 0.9]
    assert {text.get_text() for text in axes.texts} == {"configured 0.001", "suggested 0.002", "bursts 0.9"}
    assert axes.get_ylim()[1] < 4  # the burst does not flatten what lies before it
    write_report(path)
    assert "1e-06" not in Page(path / "report.html").text  # the curve is drawn, not listed


def test_a_regression_has_residuals_and_no_confusion_matrix(diabetes):
    names = {path.stem for path in (diabetes / "figures").iterdir()}
    assert names == LEARNING | {"predicted", "residuals"}
    assert (
        "figure-residuals" in Page(diabetes / "report.html").source
        and "onfusion" not in Page(diabetes / "report.html").text
    )


@pytest.mark.parametrize(
    "data", [{"task": "segmentation", "masks": [2, 4, 6]}, {"task": "reconstruction", "shape": [2, 4, 6]}]
)
def test_what_is_a_picture_is_shown_beside_what_it_should_be_and_not_as_numbers(data: dict, tmp_path: Path) -> None:
    run, rng = regression(tmp_path / "run", targets=48, data=data | {"outputs": 48}), np.random.default_rng(3)
    saved = dict(np.load(run / "predictions.npz")) | {"worst_inputs": rng.normal(size=(8, 1, 4, 6))}
    np.savez(run / "predictions.npz", **saved)
    drawn = figures(run)
    assert {"predicted", "residuals", "worst"} & set(drawn) == set()
    panels = drawn["painted"].axes
    assert len(panels) == 6 * 5
    assert [axes.get_title() for axes in panels[:5]] == ["input", "true 1", "painted 1", "true 2", "painted 2"]
    at = saved["worst"][1]  # of the second row
    for axes, key, channel in zip(panels[6:10], ("targets", "outputs") * 2, (0, 0, 1, 1), strict=True):
        shown = axes.images[0].get_array()
        np.testing.assert_array_equal(shown, saved[key][at].reshape(2, 4, 6)[channel])
    write_report(run)
    assert "figure-painted" in (run / "report.html").read_text()


def test_every_svg_is_well_formed(digits, diabetes):
    files = [path for run in (digits, diabetes) for path in (run / "figures").iterdir()]
    assert {ElementTree.parse(path).getroot().tag for path in files} == {"{http://www.w3.org/2000/svg}svg"}


def test_ids_of_two_pictures_in_one_page_never_meet(digits):
    ids = [attributes["id"] for _, attributes in Page(digits / "report.html").tags if "id" in attributes]
    assert len(ids) == len(set(ids)) > 20


def test_several_targets_have_a_panel_each(tmp_path):
    drawn = figures(regression(tmp_path / "run", targets=5))
    titles = [axes.get_title(loc="left") for axes in drawn["predicted"].axes]
    assert titles == [f"predicted, target {column} of 5" for column in (1, 2, 3)]


def test_a_loss_that_was_not_finite_breaks_the_curve_and_is_named(tmp_path):
    run = classification(tmp_path / "run")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines[14:]:
        line |= {"fit/loss": None, "val/loss": float("inf")}
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    axes = figures(run)["loss"].axes[0]
    assert [int(np.isnan(line.get_ydata()).sum()) for line in axes.lines[:3]] == [6, 0, 6]
    assert "not finite from epoch 15" in [text.get_text() for text in axes.texts]


def test_many_classes_are_a_table_of_the_most_frequent_confusions(tmp_path):
    run = classification(tmp_path / "run", classes=[f"species {index}" for index in range(50)])
    saved = read(run).predictions
    counts = confusion(saved["targets"], saved["outputs"])
    np.fill_diagonal(counts, 0)
    rows = page(run).rows("confused")
    assert not (run / "figures" / "confusion.svg").exists()
    assert [int(row[2]) for row in rows[1:]] == sorted(counts.ravel(), reverse=True)[:10]


def thumbnails(shown: Page) -> list[np.ndarray]:
    """The worst predictions' pictures as a browser decodes them: (H, W) bytes of the red channel."""
    from matplotlib.image import imread

    data = [attributes["src"].partition(",")[2] for tag, attributes in shown.tags if tag == "img"]
    return [np.rint(imread(io.BytesIO(base64.b64decode(text)), format="png")[..., 0] * 255) for text in data]


@pytest.mark.parametrize(("flat", "grey"), [(0.5, 128), (8.0, 128), (-3.0, 128)])
def test_a_flat_image_is_neither_black_nor_white(tmp_path, no_pictures, flat, grey):
    run = classification(tmp_path / "run")
    saved = read(run).predictions
    np.savez(run / "predictions.npz", **saved | {"worst_inputs": np.full((12, 1, 8, 8), flat)})
    assert {float(value) for image in thumbnails(page(run)) for value in np.unique(image)} == {grey}


def test_all_pictures_share_one_scale_which_is_printed(digits):
    saved, shown = read(digits).predictions, Page(digits / "report.html")
    assert "black is 0, white is 1.000 in all pictures" in shown["worst"]
    assert all(
        np.array_equal(image, np.rint(array[0] * 255))
        for image, array in zip(thumbnails(shown), saved["worst_inputs"], strict=True)
    )


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [(0.2, 0.9, (0, 1)), (3, 201, (0, 255)), (0, 16, (0, 16)), (-2, 3, (-2, 3)), (7, 7, (6.5, 7.5))],
)
def test_the_range_of_grey_is_that_of_the_data(low, high, shown):
    assert grey_range(np.array([low, high])) == shown


def test_a_large_image_is_averaged_down_not_cropped(tmp_path, no_pictures):
    run = classification(tmp_path / "run", shape=(3, 224, 192))
    image = thumbnails(page(run))[0]
    assert image.shape == (74, 64) and abs(image.mean() - 127.5) < 2


# --- one file, by itself ---------------------------------------------------------------------------------------------


def test_the_page_refers_to_nothing_outside_itself(digits, diabetes):
    for run in (digits, diabetes):
        shown = Page(run / "report.html")
        targets = [
            attributes[key]
            for _, attributes in shown.tags
            for key in ("src", "href", "xlink:href")
            if key in attributes
        ]
        assert all(target.startswith(("data:image/png;base64,", "#")) for target in targets)
        assert not re.search(r"https?:|@import|src=\"?//", shown.source)
        assert ("meta", "default-src 'none'") in [(tag, (of.get("content") or "")[:18]) for tag, of in shown.tags]
        assert all(target.startswith("#") for target in re.findall(r"url\((.*?)\)", shown.source))
        assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in shown.tags}


def nasty(path: Path) -> Path:
    """A run in which everything that a person can name is an attack or at least a nuisance."""
    run = classification(path, classes=[f"{NASTY}{index}" for index in range(9)] + ["x" * 300])
    saved = read(run).predictions
    np.savez(run / "predictions.npz", **saved | {"ids": np.array([NASTY + "/" * 80] * 360)})
    found = finding("fail", NASTY, NASTY, evidence={NASTY: NASTY}, cause=NASTY, advice=[NASTY], source=NASTY)
    values = facts(run)
    change(
        run, name=NASTY, question=NASTY, status="failed", error=NASTY, findings=[found],
        command=f"scripts/train {NASTY}", baseline=values["baseline"] | {"name": NASTY}, environment={NASTY: NASTY},
        git={"commit": NASTY, "dirty": True, "diff": NASTY},
        layers=[{"name": NASTY, "kind": NASTY, "output": [NASTY], "parameters": 1}], seed=NASTY,
    )  # fmt: skip
    (run / "overrides.yaml").write_text(json.dumps([NASTY]))
    (run / "config.yaml").write_text(f"name: '{NASTY}'\n")
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(text.replace("hidden.0", json.dumps(NASTY)[1:-1]))
    return run


def test_names_that_are_markup_are_shown_as_they_are(tmp_path):
    shown = page(nasty(tmp_path / "run"))
    assert not {"script"} & {tag for tag, _ in shown.tags}
    assert all(
        NASTY in shown[name]
        for name in ("verdict", "reason", "findings", "worst", "classes", "layers", "config", "environment", "again")
    )
    pictures = {"figure-confusion", "figure-gradients", "figure-objective"}
    assert all("<scrip" in shown[name] and "$" in shown[name] for name in pictures)  # cut, but as text


def test_two_reports_of_one_folder_are_equal_to_the_byte_and_take_less_than_two_seconds(tmp_path):
    run = classification(tmp_path / "run")
    first = write_report(run).read_bytes()
    seconds = []
    for _ in range(2):  # the quicker one: others use the machine, too
        start = time.process_time()
        assert write_report(run).read_bytes() == first
        seconds.append(time.process_time() - start)
    assert min(seconds) < affordable(2)


def test_a_report_that_cannot_be_finished_leaves_the_old_one(tmp_path, no_pictures, monkeypatch):
    run = classification(tmp_path / "run")
    old = write_report(run).read_bytes()
    monkeypatch.setattr("plumbline.report.page.verdict", lambda folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(run)
    assert (run / "report.html").read_bytes() == old
    assert sorted(path.name for path in run.iterdir() if path.name.startswith(".")) == []


def test_a_great_run_stays_small_and_quick(tmp_path):
    run = classification(tmp_path / "run", classes=[f"class {index}" for index in range(400)], shape=(3, 224, 224))
    lines = records(300, [f"blocks.{index}.conv" for index in range(60)], 6.0, "accuracy", 0.9)
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    layers = [
        {"name": f"blocks.{index}", "kind": "Conv2d", "output": [64, 7, 7], "parameters": 36864} for index in range(300)
    ]
    change(run, git={"commit": "0123abc", "dirty": True, "diff": "+ a line\n" * 300_000}, layers=layers)
    start = time.process_time()
    size = write_report(run).stat().st_size
    assert size < 1_500_000 and time.process_time() - start < affordable(5)


def test_importing_the_report_imports_neither_matplotlib_nor_torch_and_writing_it_no_pyplot(digits):
    program = (
        "import sys; from pathlib import Path; from plumbline.report.page import write_report\n"
        "print(*({'matplotlib', 'torch', 'jinja2'} & set(sys.modules)))\n"
        f"write_report(Path({str(digits)!r})); print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["", "False"]


def test_the_diff_in_the_folder_is_printed_by_the_command_shown(digits):
    git, command = Page(digits / "report.html")["again"].split(" | git apply")[0].split("0123abc ", 1)
    done = subprocess.run(
        ["bash", "-c", command.replace("python", sys.executable, 1)], capture_output=True, text=True, check=True
    )
    assert done.stdout == facts(digits)["git"]["diff"] + "\n" and git.endswith("git checkout ")


# --- damage ----------------------------------------------------------------------------------------------------------

FILES = ("run.json", "metrics.jsonl", "predictions.npz", "config.yaml", "overrides.yaml")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["absent", "empty", "garbage"])
def test_a_damaged_file_costs_its_part_of_the_page_only(tmp_path, no_pictures, name, damage):
    run = classification(tmp_path / "run")
    (run / name).unlink()
    if damage != "absent":
        (run / name).write_bytes(b"" if damage == "empty" else b"\x00{[:\xff")
    shown = page(run)
    assert ("0.978" if name not in ("run.json",) else "No result") in shown["verdict"]
    assert damage != "absent" or f"{name} is not there" in shown["findings"]


def test_an_empty_folder_has_a_report_that_names_what_is_missing(tmp_path):
    shown = page(tmp_path)
    assert shown["verdict"].startswith("Unknown No result. No epoch was completed.")
    assert all(f"{name} is not there" in shown["findings"] for name in FILES)


KEYS = [
    "status", "name", "question", "command", "started", "seconds", "seed", "objective", "direction", "best", "baseline",
    "interval", "margins", "parameters", "data", "environment", "git", "restarts", "findings", "test", "error",
    "layers", "lr_curve",
]  # fmt: skip


@pytest.mark.parametrize("value", [None, 5, [], {}])
def test_no_key_of_run_json_is_needed_nor_its_kind_relied_on(tmp_path, no_pictures, value):
    run = classification(tmp_path / "run")
    whole = facts(run)
    shown = {key: page(change(run, **whole | {key: value}))["verdict"] for key in KEYS}
    assert all("0.978" in text for key, text in shown.items() if key not in ("objective", "best"))
    assert shown["best"] == "Finished No result. No epoch ended with a finite accuracy. The test set is still sealed."


def test_a_young_run_that_has_hardly_a_key_has_a_report(tmp_path, no_pictures):
    (tmp_path / "run.json").write_text(json.dumps({"status": "running", "best": {"epoch": 1, "val/loss": 2.25}}))
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"epoch": 1, "val/loss": 2.25}))
    assert page(tmp_path)["verdict"].startswith("2.250 loss on validation after 1 epoch. No baseline was measured.")


def test_a_picture_that_fails_is_named_and_the_others_are_drawn(tmp_path):
    run = change(classification(tmp_path / "run"), lr_curve=["x"])
    shown = page(run)
    assert "“learning_rate” could not be made: ValueError" in shown["findings"] and "figure-loss" in shown.source


# --- on a phone ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [regression, diverged, nasty])
def test_nothing_is_wider_than_a_phone(tmp_path, make):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("NOT TESTED: no chromium, so nothing has looked at the report's width on a phone")
    source = page(make(tmp_path / "run")).source.replace("<details", "<details open")
    frame = f'<iframe width=390 height=800 srcdoc="{html.escape(source)}"></iframe>'  # a window cannot be as narrow
    measure = "onload = () => document.title = frames[0].document.documentElement.scrollWidth"
    (tmp_path / "page.html").write_text(f"<!doctype html><title></title>{frame}<script>{measure}</script>", "utf-8")
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        f"--disable-component-update --disable-sync --user-data-dir={tmp_path}/browser --dump-dom"
    )
    command = [browser, *flags.split(), (tmp_path / "page.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert 300 < int(re.search(r"<title>(.*?)</title>", done.stdout)[1]) <= 390
