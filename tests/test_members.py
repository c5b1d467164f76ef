"""Ensembles, test-time augmentation and temperatures: means that are means, and confidences that are right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import noted
from omegaconf import OmegaConf
from test_options import CPU, SHORT, changed, images, option

from plumbline.assemble import assemble
from plumbline.config import ConfigError
from plumbline.evaluate import Request, evaluate
from plumbline.members import Members, temperature, tempered


@pytest.fixture
def runs(run, monkeypatch):
    monkeypatch.setattr("plumbline.run.write_report", lambda directory: None)
    monkeypatch.setattr("plumbline.report.page.write_report", lambda directory: None)

    def go(*words: str, folder: str) -> Path:
        status, directory = run("data=digits", "data.subset=300", "model.hidden=[16]", *words, folder=folder)
        assert status == 0
        return directory

    return go


def asked(run: Path, **words) -> dict:
    return evaluate(OmegaConf.merge(OmegaConf.structured(Request), {"run": str(run), **words}))


def accuracy(found: dict, which: str) -> float:
    return found["metrics"]["accuracy"][which]["value"]


def test_an_ensemble_answers_with_the_mean_of_its_members_probabilities(runs) -> None:
    folders = [runs("epochs=3", f"seed={seed}", folder=f"seed{seed}") for seed in range(3)]
    found = asked(folders[0], on="val", beside=[str(folder) for folder in folders[1:]])
    saved = [np.load(folder / "predictions.npz") for folder in folders]
    mean = np.mean([one["outputs"] for one in saved], axis=0)
    assert accuracy(found, "together") == pytest.approx((mean.argmax(1) == saved[0]["targets"]).mean())
    assert accuracy(found, "alone") == pytest.approx(noted(folders[0])["best"]["val/accuracy"])
    assert found["answers"] == "3 networks, 1 looks each"
    assert json.loads((folders[0] / "validation.json").read_text())["metrics"] == found["metrics"]
    assert noted(folders[0])["test"] is None
    assert not list(folders[0].parent.glob("test_ledger*"))


def test_snapshots_are_the_weights_of_their_epochs_and_answer_together(runs) -> None:
    folder = runs("epochs=6", "snapshots=[2,4]", "schedule=cosine_restarts", folder="snapshots")
    kept = [torch.load(folder / f"epoch-{n}.pt", weights_only=True) for n in (2, 4)]
    assert [one["epoch"] for one in kept] == [2, 4]
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [one["value"] for one in kept] == [records[1]["val/accuracy"], records[3]["val/accuracy"]]
    found = asked(folder, on="val", beside=[str(folder / "epoch-2.pt"), str(folder / "epoch-4.pt")])
    assert found["answers"] == "3 networks, 1 looks each"


def test_the_test_set_is_scored_by_what_was_asked_and_the_record_says_so(runs) -> None:
    folders = [runs("epochs=2", f"seed={seed}", folder=f"seed{seed}") for seed in range(2)]
    found = asked(folders[0], beside=[str(folders[1])], temperature=True)
    answers = noted(folders[0])["test"]["answers"]
    assert answers == {"beside": [str(folders[1])], "tta": 0, "temperature": found["answers"]["temperature"]}
    saved = np.load(folders[0] / "test_predictions.npz")
    assert (saved["outputs"].argmax(1) == saved["targets"]).mean() == pytest.approx(
        found["metrics"]["accuracy"]["value"]
    )
    assert np.allclose(saved["outputs"].sum(1), 1, atol=1e-5)


def members(*words: str, looks: int) -> tuple[Members, torch.Tensor]:
    cfg = changed(option("augment", "shift"), SHORT)
    for word in words:
        cfg = changed(cfg, dict([word.split("=")]))
    data = images()
    training, state, _, _ = assemble(cfg, data, CPU)
    found = Members(data, looks, 20)
    found.add(training, state.network)
    return found, data.val


def test_looks_that_change_nothing_change_no_answer_and_probabilities_sum_to_one() -> None:
    still, val = members(looks=4)
    still.networks[0][1].augmentations = [lambda x, generator: x]
    plain, _ = members(looks=0)
    assert torch.allclose(still.outputs(val)[0], plain.outputs(val)[0], atol=1e-6)
    moved, _ = members(looks=4)
    said, targets = moved.outputs(val)
    assert torch.allclose(said.exp().sum(1), torch.ones(48), atol=1e-5)
    assert not torch.allclose(said, plain.outputs(val)[0], atol=1e-3)
    assert torch.equal(said, moved.outputs(val)[0])  # the same looks each time
    assert torch.equal(targets, val.y)


@pytest.mark.parametrize("truth", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_temperature_that_spoilt_the_confidences_is_found(truth: float, seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(20_000, 5, generator=draws)
    y = torch.multinomial(logits.softmax(1), 1, generator=draws)[:, 0]
    assert temperature(logits * truth, y) == pytest.approx(truth, rel=0.05)
    scaled, both = tempered(logits * truth, y)
    assert both == pytest.approx([truth, truth], rel=0.08)
    assert torch.equal(scaled.argmax(1), logits.argmax(1))  # no answer changes, only its confidence


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"beside": ["nowhere"]}, "beside=nowhere: there are no such weights"),
        ({"tta": 3}, "trained without augmentation"),
    ],
)
def test_what_cannot_answer_is_said_and_opens_nothing(words, said: str, runs) -> None:
    folder = runs("epochs=1", folder="a")
    with pytest.raises(ConfigError, match=said):
        asked(folder, **words)
    other = runs("epochs=1", "data.split_seed=1", folder="b")
    with pytest.raises(ConfigError, match="on another split"):
        asked(folder, beside=[str(other)])
    assert not list(folder.parent.glob("test_ledger*"))
