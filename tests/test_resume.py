"""A stopped run goes on as if it had never stopped: weights, metrics and predictions, bit by bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import wait_until

ROOT = Path(__file__).parents[1]
EVERYTHING = [
    "model=cnn", "model.channels=[4,4]", "model.hidden=[16]", "model.norm=batch", "regulariser=[dropout,mixup,l2]",
    "augment=[shift]", "ema=0.9", "schedule=cosine_restarts", "accumulate=2", "grad_clip=1.0", "precision=bf16",
    "epochs=10", "batch_size=32", "save_minutes=0.001", "threads=1", "bootstrap=10", "data.subset=600", "checks=off",
]  # fmt: skip


def start(folder: Path, *overrides: str, group: bool = False) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "plumbline.train", *overrides]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.Popen(
        words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=group,
    )  # fmt: skip


def fresh(folder: Path, name: str, *overrides: str) -> subprocess.Popen[str]:
    return start(folder, f"hydra.run.dir={name}", *EVERYTHING, *overrides)


def result(directory: Path) -> dict[str, object]:
    """All that a run leaves which does not depend on the clock, as plain values."""
    last = torch.load(directory / "last.pt", weights_only=True)
    best = torch.load(directory / "best.pt", weights_only=True)
    timing = ("seconds", "samples_per_s")
    records = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    predictions = np.load(directory / "predictions.npz")
    return {
        "model": [value.tobytes() for value in map(numpy_of, last["model"].values())],
        "average": [value.tobytes() for value in map(numpy_of, (last["ema"] or {}).values())],
        "optimiser": [value.numpy().tobytes() for slot in last["optimiser"]["state"].values() for value in slot.values()],
        "best": [value.tobytes() for value in map(numpy_of, best["model"].values())],
        "metrics": [{key: value for key, value in record.items() if key not in timing} for record in records],
        "predictions": {key: predictions[key].tobytes() for key in predictions.files},
    }  # fmt: skip


def numpy_of(tensor: torch.Tensor) -> np.ndarray:
    return tensor.numpy()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], float]:
    """The result of a run that nobody stopped, and the seconds it took."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    began = time.monotonic()
    process = fresh(folder, "run")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return result(folder / "run"), time.monotonic() - began


def go_on(folder: Path) -> int:
    """Resume, or start anew if the run was killed before it had a folder."""
    begun = (folder / "run" / "config.yaml").exists()
    process = start(folder, "resume=run") if begun else fresh(folder, "run")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return json.loads((folder / "run" / "run.json").read_text())["restarts"]


def kill_and_go_on(folder: Path, seconds: float) -> int:
    process = fresh(folder, "run")
    time.sleep(seconds)
    process.kill()
    process.wait()
    return go_on(folder)


@pytest.mark.parametrize("share", [0.75, *(pytest.param(share, marks=pytest.mark.slow) for share in (0.45, 0.6, 0.9))])
def test_a_killed_run_goes_on_to_the_same_bits(share: float, uninterrupted, tmp_path: Path) -> None:
    expected, seconds = uninterrupted
    kill_and_go_on(tmp_path, share * seconds)
    assert result(tmp_path / "run") == expected


@pytest.mark.slow
def test_thirty_random_kills_are_thirty_times_the_same_bits(uninterrupted, tmp_path: Path) -> None:
    expected, seconds = uninterrupted
    moments = random.Random(0)
    equal = 0
    for attempt in range(30):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        kill_and_go_on(folder, moments.uniform(0.2, 1.0) * seconds)
        equal += result(folder / "run") == expected
    assert equal == 30


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [
        (signal.SIGTERM, 85, "preempted"),
        pytest.param(signal.SIGUSR1, 85, "preempted", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, "stopped", marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_and_the_run_goes_on_to_the_same_bits(
    number, status, word, uninterrupted, tmp_path: Path
) -> None:
    expected, _ = uninterrupted
    process = fresh(tmp_path, "run", "save_minutes=1000")
    run = tmp_path / "run" / "metrics.jsonl"
    wait_until(lambda: run.exists() and len(run.read_text().splitlines()) >= 2, process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == status, output
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == word
    assert "resume=" in output
    assert go_on(tmp_path) == 1
    assert result(tmp_path / "run") == expected


@pytest.mark.slow
def test_a_signal_to_the_whole_group_is_saved_although_the_loader_workers_get_it_too(tmp_path: Path) -> None:
    from test_image_folder import write

    write(tmp_path / "pictures", count=60)
    words = [
        "data=image_folder",
        f"data.root={tmp_path / 'pictures'}",
        "data.size=16",
        "data.workers=2",
        "model=linear",
    ]
    more = ["epochs=40", "batch_size=10", "threads=1", "bootstrap=2", "hydra.run.dir=run"]
    process = start(tmp_path, *words, *more, group=True)
    run = tmp_path / "run" / "metrics.jsonl"
    wait_until(lambda: run.exists() and len(run.read_text().splitlines()) >= 2, process)
    os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 85, output
    assert "Traceback" not in output
    assert go_on(tmp_path) == 1
    epochs = [json.loads(line)["epoch"] for line in run.read_text().splitlines()]
    assert epochs == list(range(1, 41))
