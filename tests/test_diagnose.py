"""Others' logs: what is taken for what, and that the same curve says the same in every format."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from plumbline import exits
from plumbline.config import ConfigError
from plumbline.diagnose import as_curve, diagnose
from plumbline.logs import read_log

EPOCHS = np.arange(30)
TRAIN = 0.05 + 2 * np.exp(-EPOCHS / 5)
VAL = np.where(EPOCHS < 10, 0.5 + 1.5 * np.exp(-EPOCHS / 3), 0.55 + 0.04 * (EPOCHS - 10))  # rises: over-fitting
ACCURACY = 1 - VAL / 4


def command(*words: str | Path) -> subprocess.CompletedProcess[str]:
    variables = {"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin", "COLUMNS": "80"}
    words = [sys.executable, "-m", "plumbline.diagnose", *map(str, words)]
    return subprocess.run(words, env=variables, capture_output=True, text=True, timeout=120)


def write_csv(path: Path, columns: dict[str, list], delimiter: str = ",") -> Path:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def lightning(path: Path) -> Path:
    """Rows by turns, as its CSVLogger writes them: steps of training, then one of validation, the rest left empty."""
    rows = []
    for epoch in range(30):
        for step in range(3):
            rows.append(
                {"epoch": epoch, "step": 3 * epoch + step, "train_loss_step": TRAIN[epoch] * (0.9 + 0.1 * step)}
            )
        rows.append({"epoch": epoch, "step": 3 * epoch + 2, "val_loss": VAL[epoch], "val_acc": ACCURACY[epoch]})
        rows.append({"epoch": epoch, "step": 3 * epoch + 2, "train_loss_epoch": TRAIN[epoch]})
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", "step", "train_loss_step", "train_loss_epoch", "val_loss", "val_acc"])
        writer.writeheader()
        writer.writerows(rows)
    return path


def wandb_export(path: Path) -> Path:
    columns = {"Step": EPOCHS}
    for key, values in (("train/loss", TRAIN), ("val/loss", VAL), ("val/accuracy", ACCURACY)):
        columns |= {f"run-1 - {key}": values, f"run-1 - {key}__MIN": values, f"run-1 - {key}__MAX": values}
    return write_csv(path, columns)


def keras(path: Path) -> Path:
    return write_csv(
        path, {"epoch": EPOCHS, "accuracy": 1 - TRAIN / 4, "loss": TRAIN, "val_accuracy": ACCURACY, "val_loss": VAL}
    )


def semicolons(path: Path) -> Path:
    columns = {"Epoch": EPOCHS, "Training Loss": TRAIN, "Validation Loss": VAL, "Validation Accuracy": ACCURACY}
    return write_csv(path, columns, ";")


def lines(path: Path) -> Path:
    rows = [
        {"epoch": k, "train/loss": TRAIN[k], "valid/loss": VAL[k], "valid/acc": ACCURACY[k], "lr": 0.1}
        for k in range(30)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"epoch": 30, "tra')  # killed while it wrote
    return path


def history(path: Path) -> Path:
    content = {"loss": TRAIN.tolist(), "val_loss": VAL.tolist(), "val_acc": ACCURACY.tolist()}
    path.write_text(json.dumps(content))
    return path


def transformers(path: Path) -> Path:
    rows = []
    for k in range(30):
        rows += [{"epoch": k + 0.5, "loss": TRAIN[k], "learning_rate": 1e-4, "step": 10 * k + 5}]
        rows += [{"epoch": k + 1.0, "eval_loss": VAL[k], "eval_accuracy": ACCURACY[k], "step": 10 * k + 10}]
    path.write_text(json.dumps({"log_history": rows, "best_metric": None}))
    return path


def tensorboard(path: Path) -> Path:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(path)) as writer:
        for k in range(30):
            writer.add_scalar("Loss/train", TRAIN[k], k)
            writer.add_scalar("Loss/val", VAL[k], k)
            writer.add_scalar("Accuracy/val", ACCURACY[k], k)
    return path


def two_folders(path: Path) -> Path:
    """As Keras' TensorBoard callback has it: one folder a split, the same tag in both."""
    from torch.utils.tensorboard import SummaryWriter

    for split, series in (
        ("train", {"epoch_loss": TRAIN}),
        ("validation", {"epoch_loss": VAL, "epoch_accuracy": ACCURACY}),
    ):
        with SummaryWriter(str(path / split)) as writer:
            for tag, values in series.items():
                for k in range(30):
                    writer.add_scalar(tag, values[k], k)
    return path


FORMATS = [lightning, wandb_export, keras, semicolons, lines, history, transformers, tensorboard, two_folders]


@pytest.mark.parametrize("write", FORMATS, ids=lambda write: write.__name__)
def test_the_same_curve_says_the_same_in_every_format(write, tmp_path: Path) -> None:
    log = read_log(write(tmp_path / "log"), {})
    curve = as_curve(log, {})
    _, val = curve.finite("val/loss")
    assert val == pytest.approx(VAL, rel=1e-5)
    assert curve.finite("fit/loss")[1] == pytest.approx(TRAIN, rel=0.06)
    assert curve.best()[0] == int(ACCURACY.argmax()) + 1
    found = diagnose(curve)
    assert (found[0]["id"], found[0]["severity"]) == ("curve.overfit", "warn")


def test_a_run_of_ours_says_what_it_said_when_it_ended(run) -> None:
    from conftest import noted

    _, folder = run("data.subset=300", "epochs=12", "checks=quick")
    then = {item["id"]: item["message"] for item in noted(folder)["findings"] if item["phase"] == "curve"}
    for path in (folder, folder / "metrics.jsonl"):
        now = {item["id"]: item["message"] for item in diagnose(as_curve(read_log(path, {}), {}))}
        assert now == then


def test_the_headline_stands_first_and_no_line_is_wider_than_the_terminal(tmp_path: Path) -> None:
    done = command(keras(tmp_path / "log.csv"))
    said = done.stdout.splitlines()
    assert done.returncode == exits.DONE, done.stderr
    assert [line.split() for line in said[1:4]] == [["train", "loss"], ["val", "val_loss"], ["metric", "val_accuracy"]]
    assert said[5].startswith("WARN  curve.overfit: over-fitting: the validation loss rises from ")
    assert "1. regularise:" in done.stdout
    assert max(map(len, said[1:])) <= 80


def test_the_exit_status_says_whether_something_failed(tmp_path: Path) -> None:
    bad = write_csv(
        tmp_path / "bad.csv", {"epoch": EPOCHS, "loss": np.where(EPOCHS < 20, TRAIN, np.nan), "val_loss": VAL}
    )
    good = write_csv(tmp_path / "good.csv", {"epoch": EPOCHS, "loss": TRAIN, "val_loss": TRAIN * 1.1})
    rising = keras(tmp_path / "rising.csv")
    wanted = [(bad, "fail", 4), (bad, "never", 0), (good, "warn", 0), (rising, "fail", 0), (rising, "warn", 4)]
    assert [command(path, f"stop_on={word}").returncode for path, word, _ in wanted] == [
        status for *_, status in wanted
    ]


def test_json_holds_the_findings_ranked_and_what_was_taken_for_what(tmp_path: Path) -> None:
    done = command(keras(tmp_path / "log.csv"), "--json")
    said = json.loads(done.stdout)
    assert said["columns"] == {"train": "loss", "val": "val_loss", "metric": "val_accuracy"}
    assert said["findings"][0]["id"] == "curve.overfit"
    assert said["findings"][0]["evidence"]["lowest"] == pytest.approx(VAL.min(), rel=1e-3)


def test_what_is_said_of_a_column_stands_before_its_name(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "log.csv", {"epoch": EPOCHS, "a": TRAIN, "b": VAL, "c": ACCURACY, "val_loss": TRAIN})
    log = read_log(path, {"train": "a", "val": "b", "metric": "c"})
    curve = as_curve(log, {"direction": "maximise"})
    assert curve.finite("val/loss")[1] == pytest.approx(VAL)
    assert curve.best()[0] == int(ACCURACY.argmax()) + 1
    with pytest.raises(ConfigError, match="metric=c: is more of it better"):
        as_curve(log, {})


def test_many_steps_are_read_in_parts(tmp_path: Path) -> None:
    steps = np.arange(5000)
    loss = 0.1 + 2 * np.exp(-steps / 500) + 0.3 * np.random.default_rng(0).random(5000)
    log = read_log(write_csv(tmp_path / "log.csv", {"step": steps, "loss": loss}), {})
    assert (log.unit, len(log.records), log.note) == ("step", 200, ", read in 200 parts")
    assert log.records[-1]["epoch"] == 4999
    assert log.records[0]["fit/loss"] == pytest.approx(loss[:25].mean())
    loss[3000] = np.nan  # one of them is still seen
    broken = as_curve(read_log(write_csv(tmp_path / "log.csv", {"step": steps, "loss": loss}), {}), {})
    assert diagnose(broken)[0]["id"] == "curve.nonfinite"


@pytest.mark.parametrize(
    ("content", "words", "said"),
    [
        (None, [], "there is no such file or folder"),
        ("", [], "holds no records"),
        ("a,b\n1,2\n", [], "no column is called a loss; say train=… or val=…; it has: a, b"),
        ("epoch,loss\n1,2\n", ["val=los"], "has no such column (did you mean 'loss'"),
        ("epoch,loss\n1,2\n", ["vall=loss"], "vall=loss: is not one of"),
        ("epoch,loss\n1,2\n", ["stop_on=often"], "stop_on=often: no such choice"),
        ("epoch,train/box_loss,train/cls_loss\n1,2,3\n", [], "several columns could be the train loss"),
        ('{"loss": 1}\nnonsense\n{"loss": 2}\n', [], "line 2: is not JSON"),
        ("\0\1\2", [], "holds no records"),
        ('loss,"' + "x" * 200_000 + '"\n1,2\n', [], "cannot be read as a table"),
    ],
)
def test_a_mistake_is_one_message_and_status_2(
    content: str | None, words: list[str], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "log.csv"
    if content is not None:
        path.write_text(content)
    done = command(path, *words)
    assert (done.returncode, done.stdout) == (exits.MISTAKE, "")
    assert said in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_no_torch_is_imported_for_a_diagnosis(tmp_path: Path) -> None:
    program = "import sys; from plumbline.diagnose import main; main(); print('torch' in sys.modules)"
    words = [sys.executable, "-c", program, str(keras(tmp_path / "log.csv"))]
    done = subprocess.run(words, env={"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "False", done.stderr


def test_the_help_names_every_word(tmp_path: Path) -> None:
    done = command("--help")
    assert done.returncode == exits.DONE
    for word in ("train=", "val=", "metric=", "lr=", "direction=", "stop_on=", "--json", "metrics.jsonl"):
        assert word in done.stdout
    assert command().returncode == exits.MISTAKE
