"""The report of one run: its numbers are those of the files, it stands alone, and it survives a damaged folder."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from plumbline.report import confusion, grey_range, label, number, read
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
        record |= {f"train/{metric}": min(best + 0.02, 1) * (1 - np.exp(-5 * done)), f"val/{metric}": best * (1 - np.exp(-5 * done))}
        record |= {f"grad_norm/{layer}": fit * 2.0**-depth for depth, layer in enumerate(layers)}
        record |= {f"update_ratio/{layer}": 1e-3 * (1.5 - done) * 1.7**depth for depth, layer in enumerate(layers)}
        kept.append(record | {"seconds": 0.4, "samples_per_s": 2600 + 200 * rng.random()})
    return kept


def finding(severity: str, name: str, message: str, **more: object) -> dict:
    return {"id": name, "severity": severity, "message": message, "evidence": {}, "cause": "", "advice": [], "source": ""} | more


FINDINGS = [
    finding(
        "warn", "curve.overfits", "Validation loss has risen since epoch 12 while train loss kept falling.",
        evidence={"epoch": 12, "gap": 0.0713}, cause="The network has more capacity than 1,077 samples can hold in check.",
        advice=["regulariser=[dropout]", "augment=[shift]"], source="Prechelt 1998, Early stopping, but when?",
    ),
    finding("info", "data.small", "1,077 training samples: three seeds will differ by about 1 %.", evidence={"train": 1077}),
    *[finding("ok", f"init.check_{index}", f"Check {index} passed.", evidence={"value": 0.1 * index}) for index in range(14)],
]  # fmt: skip


def write_run(path: Path, run: dict, lines: list[dict], predictions: dict | None, overrides: list[str]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    whole = {
        "status": "finished", "name": path.name, "question": "Does a small network beat the majority class?",
        "command": "scripts/train " + " ".join(overrides), "started": "2025-11-22T00:31:07", "finished": "2025-11-22T00:31:48",
        "seconds": 41.3, "seed": 0, "direction": "maximise", "parameters": 9610, "restarts": 0, "findings": FINDINGS,
        "test": None, "error": None, "lr_curve": [[step / 50, 0.01 * float(np.cos(np.pi * step / 100))] for step in range(51)],
        "environment": {"python": "3.11.2", "torch": "2.14.1", "device": "cpu", "cpu": "two cores", "threads": 2,
                        "platform": "Linux", "packages": {"numpy": "2.4.6", "torch": "2.14.1"}},
        "git": {"commit": "0123abc", "dirty": True, "diff": "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a < b\n+a > b\n"},
        "layers": [{"name": "hidden.0", "kind": "Linear", "output": [128], "parameters": 8320},
                   {"name": "head", "kind": "Linear", "output": [10], "parameters": 1290}],
    } | run  # fmt: skip
    (path / "run.json").write_text(json.dumps(whole))
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (path / "config.yaml").write_text("model:\n  _target_: plumbline.models.mlp.MLP\n  hidden: [128]\noptimiser:\n  lr: 0.01\nepochs: 20\n")
    (path / "overrides.yaml").write_text(json.dumps(overrides))
    if predictions is not None:
        np.savez(path / "predictions.npz", **predictions)
    return path


def classification(path: Path, classes: list[str] | None = None, shape: tuple[int, ...] = (1, 8, 8), **run: object) -> Path:
    """Digits-like: blobs with a hole, ten classes, about 97 % right."""
    names = classes or [str(index) for index in range(10)]
    rng, n, k = np.random.default_rng(1), 360, len(names)
    targets = rng.integers(0, k, n)
    logits = rng.normal(0, 1.2, (n, k)) + 5 * np.eye(k)[targets]
    outputs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    losses = -np.log(outputs[np.arange(n), targets])
    worst = np.argsort(-losses)[:12]
    far = np.hypot(*(np.indices((8, 8)) - 3.5)) if shape == (1, 8, 8) else None
    inputs = [np.clip(1.4 - abs(far - rng.uniform(1, 3)), 0, 1).reshape(shape) if far is not None else rng.random(shape) for _ in worst]
    accuracy = float((outputs.argmax(1) == targets).mean())
    lines = records(20, ["hidden.0", "hidden.1", "head"], 2.3, "accuracy", accuracy)
    for line in lines:
        line |= {"val/balanced_accuracy": line["val/accuracy"] - 0.01, "val/f1": line["val/accuracy"] - 0.02, "val/calibration_error": 0.031}
    best = dict(lines[11]) | {"val/accuracy": accuracy, "epoch": 12}
    lines[11]["val/accuracy"] = accuracy
    facts = {
        "objective": "val/accuracy", "best": best, "baseline": {"name": "majority class", "val/accuracy": 0.1022, "val/loss": 2.3026},
        "interval": {"val/accuracy": [accuracy - 0.0172, min(accuracy + 0.0144, 1)]},
        "data": {"task": "classification", "shape": shape, "outputs": k, "classes": names, "train": 1077, "val": n,
                 "fingerprint": "9f1c2ab07d3e4455", "left_out": []},
    }  # fmt: skip
    saved = {"ids": np.array([f"digit-{index:04d}" for index in range(n)]), "targets": targets, "outputs": outputs.astype(np.float32)}
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
        "objective": "val/rmse", "direction": "minimise", "best": dict(lines[-1]), "interval": {"val/rmse": [48.9, 61.2]},
        "baseline": {"name": "mean", "val/rmse": 71.3, "val/r2": -0.001, "val/mae": 60.2},
        "data": {"task": "regression", "shape": [10], "outputs": targets, "classes": [], "train": 265, "val": n, "fingerprint": "77aa", "left_out": ["row 12"]},
    }  # fmt: skip
    saved = {"ids": np.arange(n), "targets": y, "outputs": outputs, "losses": losses, "worst": worst}
    return write_run(path, facts | run, lines, saved | {"worst_inputs": rng.normal(size=(8, 10))}, ["data=diabetes"])


def diverged(path: Path) -> Path:
    line = {"epoch": 1, "step": 3, "fit/loss": None, "train/loss": None, "val/loss": None, "val/accuracy": None, "lr": 10.0}
    line |= {"grad_norm/head": None, "samples_per_s": 100.0}
    found = [
        finding("fail", "lr.too_high", "The loss grew 400-fold within three steps.", evidence={"first": 2.31, "last": None}, advice=["optimiser.lr=0.1"])
    ]
    run = {"status": "diverged", "objective": "val/accuracy", "best": None, "baseline": None, "interval": None, "findings": found, "lr_curve": [[0, 10.0], [1, 0.0]]}
    return write_run(path, run | {"error": "loss is nan at step 3 of epoch 1"}, [line], None, ["optimiser.lr=10"])
