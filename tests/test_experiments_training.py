"""The experiments on training give the numbers in their headers."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

import pytest
from conftest import noted, records
from omegaconf import OmegaConf

from plumbline.evaluate import Request, evaluate

FASHION = Path("/usr/share/datasets/fashion-mnist")
pytestmark = pytest.mark.skipif(not FASHION.is_dir(), reason="needs Debian's dataset-fashion-mnist")


@pytest.fixture
def experiment(run, monkeypatch):
    """`experiment(name, *overrides, folder=…)` runs it without its page and returns the run's folder."""
    monkeypatch.setattr("plumbline.run.write_report", lambda directory: None)

    def go(name: str, *words: str, folder: str) -> Path:
        status, directory = run(f"experiment={name}", *words, folder=folder)
        assert status == 0
        return directory

    return go


def asked(run: Path, **words) -> dict:
    return evaluate(OmegaConf.merge(OmegaConf.structured(Request), {"run": str(run), "on": "val", **words}))["metrics"]


@pytest.mark.slow
def test_frozen_filters_beat_a_network_from_scratch_on_a_hundred_pictures(experiment) -> None:
    source = experiment("five_classes", folder="five")  # experiment=five_classes
    assert noted(source)["best"]["val/accuracy"] == pytest.approx(0.92, abs=0.02)
    kept = noted(experiment("transfer", f"transfer.file={source}", folder="frozen"))  # experiment=transfer
    anew = ["transfer.file=null", "transfer.freeze=[]", "transfer.reinit=[]"]
    scratch = noted(experiment("transfer", *anew, folder="scratch"))
    assert kept["best"]["val/accuracy"] == pytest.approx(0.90, abs=0.02)
    assert 0.01 < kept["best"]["val/accuracy"] - scratch["best"]["val/accuracy"] < 0.05


def test_the_loss_rises_where_sgd_takes_over_and_comes_down_below_adams(experiment) -> None:
    losses = [
        record["fit/loss"] for record in records(experiment("adam_then_sgd", folder="run"))
    ]  # experiment=adam_then_sgd
    assert losses[:6] == sorted(losses[:6], reverse=True)
    assert losses[6] > 1.5 * losses[5]
    assert losses[11] < losses[5]
    assert losses[7] < losses[6]


@pytest.mark.slow
def test_five_networks_together_have_a_lower_loss_than_each(experiment) -> None:
    folders = [experiment("ensemble", f"seed={seed}", folder=str(seed)) for seed in range(5)]  # experiment=ensemble
    alone = [noted(folder)["best"] for folder in folders]
    together = asked(folders[0], beside=[str(folder) for folder in folders[1:]])
    loss, accuracy = (together[name]["together"]["value"] for name in ("loss", "accuracy"))
    assert loss < min(one["val/loss"] for one in alone)
    assert mean(one["val/loss"] for one in alone) - loss > 0.01
    assert 0 <= accuracy - mean(one["val/accuracy"] for one in alone) < 0.02


@pytest.mark.slow
def test_moved_copies_of_a_picture_make_its_answer_better(experiment) -> None:
    found = asked(experiment("looking_twice", folder="run"), tta=8)["loss"]  # experiment=looking_twice
    assert 0.003 < found["alone"]["value"] - found["together"]["value"] < 0.02


@pytest.mark.slow
def test_the_speedrun_is_as_good_as_the_tutorial_after_two_epochs(experiment) -> None:
    folder = experiment("fashion_speedrun", folder="run")  # experiment=fashion_speedrun
    assert records(folder)[-1]["val/accuracy"] == pytest.approx(0.912, abs=0.006)
