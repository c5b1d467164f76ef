"""The sealed test set: opened by one command, once, and written down before it is read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, noted


@pytest.fixture
def evaluate(tmp_path: Path):
    def command(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "200"}
        line = [sys.executable, "-m", "plumbline.evaluate", *words]
        return subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    return command


def ledger(tmp_path: Path) -> list[dict]:
    path = tmp_path / "test_ledger.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.slow
def test_the_first_opening_is_free_and_the_second_wants_a_reason_whatever_run_asks(
    run, evaluate, tmp_path: Path
) -> None:
    for name, more in (("a", []), ("b", ["seed=1", "data.split_seed=5"])):
        run("epochs=2", *more, folder=name)
    assert ledger(tmp_path) == []

    first = evaluate("run=a")
    assert first.returncode == 0, first.stderr
    test = noted(tmp_path / "a")["test"]
    kept = np.load(tmp_path / "a" / "test_predictions.npz")
    accuracy = (kept["outputs"].argmax(1) == kept["targets"]).mean()
    assert test["metrics"]["accuracy"]["value"] == pytest.approx(accuracy, abs=1e-9)
    assert test["metrics"]["accuracy"]["low"] <= accuracy <= test["metrics"]["accuracy"]["high"]
    assert (test["openings"], test["samples"]) == (1, len(kept["ids"]))
    assert f"{accuracy:.4f}" in first.stdout
    validation = np.load(tmp_path / "a" / "predictions.npz")["ids"]
    assert set(kept["ids"]) & set(validation) == set()

    second = evaluate("run=b")  # another run and another split of the same data
    assert second.returncode == 2
    assert "opened once before" in second.stderr
    assert "again=" in second.stderr
    assert len(ledger(tmp_path)) == 1
    assert noted(tmp_path / "b")["test"] is None

    third = evaluate("run=b", "again=a reviewer asked")
    assert third.returncode == 0, third.stderr
    assert [(line["opening"], line["again"]) for line in ledger(tmp_path)] == [(1, None), (2, "a reviewer asked")]
    assert noted(tmp_path / "b")["test"]["openings"] == 2
    assert "a reviewer asked" in (tmp_path / "b" / "report.html").read_text()


@pytest.mark.slow
def test_a_reader_who_has_had_enough_costs_no_number_of_an_opening(run, tmp_path: Path) -> None:
    run("epochs=1", folder="a")
    reading, writing = os.pipe()
    os.close(reading)
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    words = [sys.executable, "-m", "plumbline.evaluate", "run=a"]
    finished = subprocess.run(words, cwd=tmp_path, env=variables, stdout=writing, stderr=subprocess.PIPE)
    assert (finished.returncode, finished.stderr) == (0, b"")
    assert noted(tmp_path / "a")["test"]["openings"] == len(ledger(tmp_path)) == 1
    assert (tmp_path / "a" / "test_predictions.npz").exists()


@pytest.mark.slow
def test_other_data_have_a_seal_of_their_own(run, evaluate, tmp_path: Path) -> None:
    run("epochs=1", folder="a")
    run("data=iris", "epochs=1", folder="b")
    assert [evaluate("run=a").returncode, evaluate("run=b").returncode] == [0, 0]
    assert [line["opening"] for line in ledger(tmp_path)] == [1, 1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run=nowhere"], "is not the folder of a run"),
        (["rnu=a"], "did you mean 'run'"),
        (["run=a", "again"], "again"),
        ([], "evaluate run="),
    ],
)
def test_a_mistake_opens_nothing_and_is_one_message(words: list[str], said: str, evaluate, tmp_path: Path) -> None:
    done = evaluate(*words)
    assert done.returncode == 2
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert ledger(tmp_path) == []


def test_a_run_without_best_weights_opens_nothing(run, evaluate, tmp_path: Path) -> None:
    _, folder = run("optimiser=sgd", "optimiser.lr=1e9", "epochs=1")
    done = evaluate(f"run={folder}")
    assert done.returncode == 2
    assert "diverged" in done.stderr
    assert ledger(tmp_path) == []


def test_a_configuration_that_is_read_back_cannot_widen_what_is_allowed(run, evaluate, train, tmp_path: Path) -> None:
    _, folder = run("epochs=1")
    text = (folder / "config.yaml").read_text()
    evil = text.replace("plumbline.models.mlp.MLP", "os.system").replace("allow:\n", "allow:\n- os\n")
    assert evil.count("os") > text.count("os")
    (folder / "config.yaml").write_text(evil)
    for done in (evaluate(f"run={folder}"), train(f"resume={folder}")):
        assert done.returncode == 2
        assert "os.system: lies outside the packages" in done.stderr


@pytest.mark.slow
def test_a_run_that_was_copied_elsewhere_does_not_forget_its_opening(run, evaluate, tmp_path: Path) -> None:
    import shutil

    run("epochs=1", folder="a/run")
    assert evaluate("run=a/run").returncode == 0
    (tmp_path / "b").mkdir()
    shutil.copytree(tmp_path / "a" / "run", tmp_path / "b" / "run")
    for ledger_file in tmp_path.glob("**/test_ledger.jsonl"):
        ledger_file.unlink()
    again = evaluate("run=b/run")
    assert again.returncode == 2
    assert "opened once before" in again.stderr


def test_half_a_line_in_the_ledger_is_named(run, evaluate, tmp_path: Path) -> None:
    run("epochs=1", folder="a")
    (tmp_path / "test_ledger.jsonl").write_text('{"time": "2026')
    done = evaluate("run=a")
    assert done.returncode == 2
    assert "test_ledger.jsonl, line 1: is not an opening" in done.stderr


def test_a_full_disk_takes_the_half_written_opening_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from conftest import composed

    from plumbline.ledger import open_ledger

    cfg = composed(f"outputs={tmp_path}")
    open_ledger(tmp_path / "a", cfg, "data", None, 0)
    content = (tmp_path / "test_ledger.jsonl").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        open_ledger(tmp_path / "b", cfg, "data", "a reason", 0)
    monkeypatch.undo()
    assert (tmp_path / "test_ledger.jsonl").read_bytes() == content
    assert open_ledger(tmp_path / "b", cfg, "data", "a reason", 0).number == 2


def test_a_test_set_that_train_has_seen_is_said_when_it_is_opened(tmp_path: Path) -> None:
    from conftest import composed

    from plumbline.config import build
    from plumbline.evaluate import twins

    cfg = composed()
    data = build(cfg.data)()
    test = data._splits.test()
    assert [finding.severity for finding in twins(data, test, cfg)] == ["ok", "ok"]
    test.x[:20] = data.train.x[:20]
    test.x[20:50] = data.train.x[20:50] + 1e-3
    exact, near = twins(data, test, cfg)
    assert (exact.severity, exact.evidence["overlapping"]) == ("fail", 20)
    assert (near.severity, near.evidence["near"]) == ("fail", 30)
    assert "of the test set are in train" in exact.message


@pytest.mark.slow
def test_the_fashion_image_that_stands_in_train_and_test_is_found(tmp_path: Path) -> None:
    from conftest import composed
    from test_vision import FASHION

    from plumbline.config import build
    from plumbline.evaluate import twins

    if not FASHION.exists():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    cfg = composed("data=fashion_mnist")
    data = build(cfg.data)()
    _, near = twins(data, data._splits.test(), cfg)
    assert any("4998" in pair and "13360" in pair for pair in near.evidence["pairs"])


@pytest.mark.slow
def test_sixteen_test_images_of_clothes_lie_within_one_of_train_and_the_nearest_tells_the_class_of_85_in_a_hundred() -> (
    None
):
    from conftest import composed
    from test_vision import FASHION

    from plumbline.checks.view import nearest
    from plumbline.config import build

    if not FASHION.exists():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    data = build(composed("data=fashion_mnist").data)()
    test = data._splits.test()
    x = torch.cat([data.train.x, data.val.x]).flatten(1)
    y = torch.cat([data.train.targets, data.val.targets])
    shown = float(data.scale.std)  # distances between pixels from 0 to 1
    distance, row = (found[:, 0] for found in nearest(test.x.flatten(1), x, 1))
    within = [int((shown * distance < limit).sum()) for limit in (1.0, 1.5)]
    assert within == [16, 82]
    assert float(shown * distance.min()) == pytest.approx(0.082, abs=0.0005)
    assert (y[row] == test.targets).float().mean().item() == pytest.approx(0.8497, abs=5e-5)
