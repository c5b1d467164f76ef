"""Mirrors of the record: complete when they work, and no harm when they do not."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import noted, records

from plumbline.trackers.wandb import logged_in

QUICK = ["data.subset=200", "epochs=3"]


def test_tensorboard_has_every_scalar_of_every_epoch_and_the_figures(run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, folder = run(*QUICK, "tracker=[tensorboard]")
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0}).Reload()
    for record in records(folder):
        for name, value in record.items():
            seen = {event.step: event.value for event in events.Scalars(name)}
            assert seen[record["epoch"]] == pytest.approx(value, rel=1e-5, abs=1e-7)
    assert len(events.Tags()["images"]) >= 3
    assert any("hparams" in tag for tag in events.Tags().get("plugins", {})) or events.summary_metadata


def test_wandb_works_offline_under_an_identity_that_is_the_folders(run, train, tmp_path: Path) -> None:
    _, folder = run(*QUICK, "tracker=[wandb]")
    first = noted(folder)["trackers"]["wandb"]
    assert [item.name.rpartition("-")[2] for item in (folder / "wandb").glob("offline-run-*")] == [first]
    assert train(f"resume={folder}").returncode == 0
    assert noted(folder)["trackers"]["wandb"] == first
    assert {item.name.rpartition("-")[2] for item in (folder / "wandb").glob("offline-run-*")} == {first}


BLOCK, HEAD, LAST = 32768, 7, (1, 4)  # LevelDB's log: blocks of records, each with a head; the kinds that end one


def entries(file: Path) -> list[Any]:
    """What W&B wrote into a file of its own while it was offline."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts, found = file.read_bytes(), HEAD, b"", []  # the file has a head, too
    while at + HEAD < len(data):
        if BLOCK - at % BLOCK < HEAD:  # too little for a head: filled with zeros
            at += BLOCK - at % BLOCK
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + HEAD : at + HEAD + length]
        at += HEAD + length
        if kind in LAST:
            found.append(Record.FromString(parts))
            parts = b""
    return found


def recorded(folder: Path) -> list[tuple[str, str, str]]:
    """(id, group, name) of the runs that W&B has in its offline files below a folder."""
    files = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
    firsts = [next(entry.run for entry in entries(file) if entry.WhichOneof("record_type") == "run") for file in files]
    return [(run.run_id, run.run_group, run.display_name) for run in firsts]


def test_what_wandb_keeps_offline_can_be_read_and_is_the_record(run) -> None:
    _, folder = run(*QUICK, "tracker=[wandb]")
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    for _ in range(600):  # W&B's own process may write its last block after finish() has returned
        if entries(file)[-1].WhichOneof("record_type") == "exit":
            break
        time.sleep(0.1)
    rows = [
        {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in entry.history.item}
        for entry in entries(file)
        if entry.WhichOneof("record_type") == "history"
    ]
    epochs = [row for row in rows if "val/accuracy" in row]
    assert len(epochs) == len(records(folder))
    for row, record in zip(epochs, records(folder), strict=True):
        assert {name: row[name] for name in record} == pytest.approx(record, rel=1e-6)


@pytest.mark.slow
def test_a_study_is_one_group_in_wandb_and_each_trial_a_run(search, tmp_path: Path) -> None:
    done = search("study=mine", "seed=0,1,2", "tracker=[wandb]", "search.workers=2")
    assert done.returncode == 0, done.stderr
    folders = [tmp_path / "outputs/studies/mine" / f"000{number}" for number in range(3)]
    identities = [noted(folder)["trackers"]["wandb"] for folder in folders]
    assert [recorded(folder) for folder in folders] == [
        [(identity, "mine", folder.name)] for identity, folder in zip(identities, folders, strict=True)
    ]
    assert len(set(identities)) == 3
    assert search("study=yours", "seed=0", "tracker=[wandb]", "tracker.wandb.group=ours").returncode == 0
    assert recorded(tmp_path / "outputs/studies/yours/0000")[0][1] == "ours"  # who names a group has it


@pytest.mark.slow
def test_the_runs_of_a_study_with_seeds_have_as_many_names_in_wandb_and_one_group(search, tmp_path: Path) -> None:
    words = ["optimiser.lr=1e-2,1e-3", "search.n_trials=1", "search.seeds=2", "search.confirm=1", "epochs=1"]
    done = search("study=mine", *words, "tracker=[wandb]")
    assert done.returncode == 0, done.stderr
    study = tmp_path / "outputs/studies/mine"
    found = [recorded(folder)[0][1:] for folder in sorted(study.glob("*/seed-*"))]
    names = ["0000-seed-0", "0000-seed-1", "confirm-seed-0"]
    assert found == [("mine", name) for name in names]


def test_a_tracker_that_fails_is_named_and_the_run_goes_on_to_the_same_numbers(
    run, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    from plumbline.trackers.tensorboard import TensorBoard

    _, plain = run(*QUICK, folder="plain")
    logged = []

    def fail(self: TensorBoard, record: dict[str, float]) -> None:
        logged.append(record)
        raise ConnectionError("the network is gone")

    monkeypatch.setattr(TensorBoard, "log", fail)
    status, folder = run(*QUICK, "tracker=[tensorboard]", folder="failing")
    assert status == 0
    assert len(logged) == 1
    assert "ConnectionError: the network is gone" in noted(folder)["trackers"]["tensorboard"]
    assert "tracker tensorboard failed" in capsys.readouterr().out
    assert records(folder) == records(plain)


def test_a_tracker_that_cannot_even_start_is_named_and_the_run_goes_on(run, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    def refuse(**options: object) -> None:
        raise wandb.errors.CommError("quota exceeded")

    monkeypatch.setattr(wandb, "init", refuse)
    status, folder = run(*QUICK, "tracker=[wandb]")
    assert status == 0
    assert "quota exceeded" in noted(folder)["trackers"]["wandb"]


def test_only_a_key_makes_wandb_go_online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    assert not logged_in()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password 0123\n")
    assert logged_in()
    (tmp_path / "netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "0123")
    assert logged_in()


def test_the_summary_of_wandb_is_the_records(run, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    seen: dict[str, object] = {"logged": []}

    class Fake:
        summary: ClassVar[dict[str, object]] = {}

        def log(self, values: dict[str, object], step: int | None = None) -> None:
            seen["logged"].append((step, values))

        def finish(self) -> None:
            seen["finished"] = True

    def init(**options: object) -> Fake:
        seen["options"] = options
        return Fake()

    monkeypatch.setattr(wandb, "init", init)
    _, folder = run(*QUICK, "tracker=[wandb]", "tracker.wandb.project=mine", "tracker.wandb.mode=offline")
    found = noted(folder)
    steps = [step for step, values in seen["logged"] if "val/loss" in values]
    assert steps == [1, 2, 3]
    assert (seen["options"]["project"], seen["options"]["resume"], seen["options"]["mode"]) == (
        "mine",
        "allow",
        "offline",
    )
    assert seen["options"]["config"]["model"]["hidden"] == [128, 64]
    assert json.loads(json.dumps(Fake.summary["best"])) == found["best"]
    assert any(key.startswith("figures/") for _, values in seen["logged"] for key in values)
    assert seen["finished"] is True


@pytest.mark.slow
def test_the_headline_and_the_counts_stand_in_the_summary_of_wandb(run, monkeypatch: pytest.MonkeyPatch) -> None:
    from plumbline.trackers.wandb import Wandb

    kept: list[dict] = []

    def finish(self: Wandb, run: dict, figures: dict) -> None:
        usual(self, run, {})
        kept.append(dict(self.run.summary))

    usual = Wandb.finish
    monkeypatch.setattr(Wandb, "finish", finish)
    _, folder = run(
        *QUICK,
        "tracker=[wandb]",
        "init=truncated_normal",
        "init.std=3",
        "init.head_std=3",
        "checks=quick",
        "checks.mute=[data]",
    )
    said, found = kept[0]["checks"], noted(folder)["findings"]
    first = json.loads((folder / "checks.json").read_text())[0]
    assert said["headline"] == f"{first['id']}: {first['message']}"
    assert said["warn"] == sum(item["severity"] == "warn" for item in found) > 0
