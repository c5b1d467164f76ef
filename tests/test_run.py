"""A run, from the configuration to the report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, noted, records, wait_until

from plumbline.data.core import Data
from plumbline.state import read as read_checkpoint

QUICK = ["data.subset=200", "epochs=2"]


def test_the_default_run_reaches_096_on_digits_and_leaves_its_whole_folder(run) -> None:
    status, folder = run("checks=quick")
    found = noted(folder)
    assert status == 0
    assert found["best"]["val/accuracy"] >= 0.96
    assert found["status"] == "finished"
    left = {item.name for item in folder.iterdir()} - {".lock"}
    expected = "config.yaml overrides.yaml run.json metrics.jsonl checks.json predictions.npz best.pt last.pt"
    assert left == {
        *expected.split(),
        "last.pt.before",
        "best.pt.before",
        "data.npz",
        "baseline.npz",
        "report.html",
        "figures",
    }
    assert [finding["id"] for finding in found["findings"] if finding["severity"] in ("warn", "fail")] == []
    assert {finding["phase"] for finding in found["findings"]} == {"audit", "probes", "curve", "result"}
    layers = [(row["kind"], row["output"], row["parameters"]) for row in found["layers"] if row["parameters"]]
    assert layers == [("Linear", [128], 8_320), ("Linear", [64], 8_256), ("Linear", [10], 650)]


def test_the_predictions_are_those_of_the_best_weights_and_give_its_metrics(run) -> None:
    _, folder = run(*QUICK, "epochs=4", "optimiser.lr=0.03")
    found, kept = noted(folder), np.load(folder / "predictions.npz")
    accuracy = (kept["outputs"].argmax(1) == kept["targets"]).mean()
    assert accuracy == pytest.approx(found["best"]["val/accuracy"], abs=1e-7)
    assert kept["losses"].mean() == pytest.approx(found["best"]["val/loss"], abs=1e-6)
    assert found["best"] == max(
        map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()), key=lambda r: r["val/accuracy"]
    )
    assert kept["outputs"].sum(1) == pytest.approx(1, abs=1e-5)
    assert len(set(kept["ids"])) == len(kept["ids"]) == found["data"]["val"]


def test_a_regression_is_scored_and_kept_in_its_own_unit(run) -> None:
    _, folder = run("data=diabetes", "epochs=3")
    found, kept = noted(folder), np.load(folder / "predictions.npz")
    rmse = np.sqrt(np.square(kept["outputs"] - kept["targets"]).mean())
    assert rmse == pytest.approx(found["best"]["val/rmse"], rel=1e-5)
    assert 25 <= kept["targets"].min() <= kept["targets"].max() <= 346


def test_the_seed_moves_the_weights_and_the_order_but_not_the_split(run) -> None:
    folders = [run(*QUICK, f"seed={seed}", folder=name)[1] for seed, name in ((0, "a"), (0, "b"), (1, "c"))]
    same, again, other = map(records, folders)
    assert same == again
    assert same != other
    ids = [np.load(folder / "predictions.npz")["ids"].tolist() for folder in folders]
    assert ids[0] == ids[1] == ids[2]
    assert len({noted(folder)["data"]["fingerprint"] for folder in folders}) == 1


def test_the_train_metrics_are_measured_as_the_validation_metrics_are(run) -> None:
    _, folder = run(*QUICK, "regulariser=[dropout]", "regulariser.dropout.rate=0.9", "train_eval=100000")
    from conftest import composed

    from plumbline.assemble import build_all
    from plumbline.config import build
    from plumbline.scoring import load_best

    cfg = composed(*QUICK, "regulariser=[dropout]", "regulariser.dropout.rate=0.9")
    data = build(cfg.data)()
    training, _, _, _ = build_all(cfg, data.spec, torch.full((10,), 0.1), torch.device("cpu"))
    load_best(training.model, folder / "best.pt")
    expected = torch.nn.functional.cross_entropy(training.model.eval()(data.train.x), data.train.y).item()
    best = noted(folder)["best"]
    assert best["train/loss"] == pytest.approx(expected, rel=1e-5)
    assert best["fit/loss"] > best["train/loss"]  # as trained, nine tenths of each hidden layer are dropped


def test_what_an_epoch_costs_beside_its_training_does_not_grow_with_their_number(run, monkeypatch) -> None:
    from plumbline import record
    from plumbline.checks.core import Checks

    read, written, ask, write_json = [], [], Checks.ask, record.write_json
    monkeypatch.setattr(Checks, "ask", lambda self, phase, it: (read.append(phase), ask(self, phase, it)))
    monkeypatch.setattr(record, "write_json", lambda path, it: (written.append(path.name), write_json(path, it)))
    began = time.monotonic()
    status, folder = run("data=iris", "model=linear", "epochs=400", "batch_size=200")
    assert (status, len(records(folder))) == (0, 400)
    assert read.count("curve") == 99 + 50 + 33 + 25 + 1 + 1  # each, each second, third, fourth; the 400th; the end
    assert written.count("run.json") < 20 + time.monotonic() - began  # and not 400
    assert read_checkpoint(folder / "last.pt")[0]["epoch"] == 400  # whose saving may have been left out until then


@pytest.mark.slow
def test_no_epoch_scores_the_network_as_it_is(run) -> None:
    status, folder = run("epochs=0", "checks=quick")
    found = noted(folder)
    assert (status, found["status"], found["best"]["epoch"]) == (0, "finished", 0)
    assert found["best"]["val/loss"] == pytest.approx(np.log(10), abs=0.1)
    assert {finding["phase"] for finding in found["findings"]} == {"audit", "probes"}  # there is no result to judge


def test_early_stopping_ends_after_patience_epochs_without_a_better_objective_for_good(run, train) -> None:
    _, folder = run(*QUICK, "epochs=50", "optimiser=sgd", "optimiser.lr=0", "patience=3")
    assert [record["epoch"] for record in records(folder)] == [1, 2, 3, 4]
    assert train(f"resume={folder}").returncode == 0
    assert [record["epoch"] for record in records(folder)] == [1, 2, 3, 4]


def test_averaged_weights_are_the_exponential_average_of_the_weights(run) -> None:
    _, plain = run(*QUICK, "epochs=1", "batch_size=100", folder="plain")
    _, averaged = run(*QUICK, "epochs=1", "batch_size=100", "ema=0.5", folder="averaged")
    last = [torch.load(folder / "last.pt", weights_only=True) for folder in (plain, averaged)]
    assert all(torch.equal(last[0]["model"][key], last[1]["model"][key]) for key in last[0]["model"])
    # two updates: the average starts at the first weights and goes half way to the second
    assert noted(plain)["best"]["val/loss"] != noted(averaged)["best"]["val/loss"]
    assert last[1]["ema"]["n_averaged"] == 2


def test_a_diverged_run_says_where_and_leaves_with_status_3(run, capsys) -> None:
    status, folder = run(*QUICK, "optimiser=sgd", "optimiser.lr=1e6", "schedule=constant")
    found = noted(folder)
    assert (status, found["status"]) == (3, "diverged")
    assert "learning rate 1e+06" in found["error"]
    assert "it began in the layer" in found["error"]
    assert "diverged" in (folder / "report.html").read_text()
    assert "learning rate 1e+06" in capsys.readouterr().err


@pytest.mark.slow
def test_two_runs_started_in_the_same_second_have_two_folders(train, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "plumbline.train", *QUICK, "epochs=0", "bootstrap=2", "checks=off"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    both = [subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert len(list((tmp_path / "outputs").glob("*/*/run.json"))) == 2


def test_no_training_reaches_the_test_set(run, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    monkeypatch.setattr(Data, "open_test", lambda self, opening: opened.append(opening))
    assert run(*QUICK)[0] == 0
    assert opened == []
    sources = {path.name: path.read_text() for path in (ROOT / "src" / "plumbline").rglob("*.py")}
    assert {name for name, text in sources.items() if "open_test" in text} == {"core.py", "evaluate.py"}
    assert {name for name, text in sources.items() if "Opening(" in text} == {"ledger.py"}
    assert {name for name, text in sources.items() if "open_ledger(" in text} == {"ledger.py", "evaluate.py"}


@pytest.mark.slow
def test_a_full_disk_ends_the_run_clearly_and_it_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """The limit on a file's size stands in for the disk: the first checkpoints fit, a grown record does not."""
    words = "data.subset=200 epochs=60 batch_size=100 bootstrap=2 hydra.run.dir=run model.hidden=[16]"
    command = f"ulimit -f 48; exec {sys.executable} -m plumbline.train {words}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "GIT_DIR": "/nowhere"}  # no diff in the record
    full = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert full.returncode == 1, full.stdout + full.stderr
    assert "could not be written" in full.stderr
    assert "Traceback" not in full.stderr
    saved = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert 1 <= saved["epoch"] < 60
    again = [sys.executable, "-m", "plumbline.train", "resume=run"]
    done = subprocess.run(again, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(records(tmp_path / "run")) == 60


@pytest.mark.slow
def test_a_run_whose_process_is_gone_is_shown_as_lost(run, tmp_path: Path) -> None:
    from plumbline.record import read_run

    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    words = [sys.executable, "-m", "plumbline.train", "epochs=1000", "hydra.run.dir=run"]
    process = subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    wait_until((tmp_path / "run" / "metrics.jsonl").exists, process)
    assert read_run(tmp_path / "run")["status"] == "running"
    second = subprocess.run([*words[:3], "resume=run"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert second.returncode == 2
    assert "another process is training in this folder" in second.stderr
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert read_run(tmp_path / "run")["status"] == "lost"


def test_a_finished_run_that_is_resumed_stays_as_it_is(run, train, tmp_path: Path) -> None:
    _, folder = run(*QUICK)
    before, weights = records(folder), (folder / "best.pt").read_bytes()
    done = train(f"resume={folder}")
    assert done.returncode == 0, done.stderr
    assert records(folder) == before
    assert (folder / "best.pt").read_bytes() == weights
    assert noted(folder)["status"] == "finished"
    assert train(f"resume={folder}", "device=cuda").returncode == 2  # there is none here
    assert noted(folder)["status"] == "finished"


@pytest.mark.slow
def test_a_run_whose_record_is_gone_goes_on_from_its_checkpoint(run, train, tmp_path: Path) -> None:
    _, folder = run(*QUICK)
    before = records(folder)
    (folder / "run.json").unlink()
    assert train(f"resume={folder}").returncode == 0
    assert records(folder) == before
    (folder / "run.json").write_text('{"status": "fin')
    cut = train(f"resume={folder}")
    assert (cut.returncode, "cannot be read" in cut.stderr, "Traceback" in cut.stderr) == (2, True, False)


@pytest.mark.slow
def test_a_stopped_run_refuses_other_data_than_it_began_with(train, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    rows = [f"{k % 7},{(k * 3) % 5},{'ab'[k % 2]}" for k in range(60)]
    table.write_text("\n".join(["u,v,kind", *rows]))
    words = ["data=csv", f"data.file={table}", "data.target=kind", "epochs=1", "hydra.run.dir=run"]
    assert train(*words).returncode == 0
    table.write_text("\n".join(["u,v,kind", *rows[::-1]]))
    found = noted(tmp_path / "run")
    again = train("resume=run")
    assert again.returncode == 2
    assert "the data have changed" in again.stderr
    assert noted(tmp_path / "run") == found


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_too(precision: str, run) -> None:
    _, folder = run(f"precision={precision}", "epochs=8")
    assert noted(folder)["best"]["val/accuracy"] > 0.9


@pytest.mark.slow
def test_channels_last_changes_the_layout_and_not_the_result(run) -> None:
    both = [
        run(*QUICK, "model=cnn", "model.channels=[4,4]", f"channels_last={on}", folder=on)[1]
        for on in ("true", "false")
    ]
    one, other = (noted(folder)["best"]["val/loss"] for folder in both)
    assert one == pytest.approx(other, rel=1e-3)


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/usr/share/datasets/fashion-mnist").is_dir(), reason="needs Debian's dataset-fashion-mnist"
)
@pytest.mark.parametrize(("decay", "low", "high"), [(10, 0.1, 0.1), (1, 0.1, 0.1), (0.1, 0.73, 0.77), (0, 0.82, 0.84)])
def test_the_weight_decay_experiment_finds_its_expected_numbers(decay: float, low: float, high: float, run) -> None:
    _, folder = run("experiment=weight_decay", f"optimiser.weight_decay={decay}")
    last = records(folder)[-1]
    assert low <= last["val/accuracy"] <= high
    if decay >= 1:
        assert last["val/loss"] == pytest.approx(2.3026, abs=5e-5)


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/usr/share/datasets/fashion-mnist").is_dir(), reason="needs Debian's dataset-fashion-mnist"
)
def test_fashion_mnist_reaches_086_in_five_epochs(run) -> None:
    _, folder = run("data=fashion_mnist", "model.hidden=[200,100]", "optimiser=sgd", "optimiser.lr=0.1", "epochs=5")
    assert noted(folder)["best"]["val/accuracy"] >= 0.86


@pytest.mark.slow
def test_a_reader_that_goes_away_does_not_end_the_run(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    words = [sys.executable, "-m", "plumbline.train", *QUICK, "hydra.run.dir=run"]
    process = subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait(timeout=120) == 0, said
    assert (noted(tmp_path / "run")["status"], said) == ("finished", b"")
