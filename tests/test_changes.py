"""One change at a time: what a run changes of which, and what the check says of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from conftest import composed, noted
from omegaconf import OmegaConf

from plumbline.changes import LOOKED_AT, changes, latest, settings, told
from plumbline.checks.plan import one_change
from plumbline.config import ConfigError


def plain(*words: str) -> dict:
    return OmegaConf.to_container(composed(*words), resolve=True)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], {}),
        (["optimiser.lr=0.003"], {"optimiser.lr": (0.001, 0.003)}),
        (["seed=1"], {"seed": (0, 1)}),
        (["model=cnn"], {"model": ("MLP", "CNN")}),  # with all its values
        (["regulariser=[dropout]"], {"regulariser.dropout": (None, "Dropout")}),
        (["transfer=weights", "transfer.file=a.pt"], {"transfer": (None, "Transfer")}),
        (["model.hidden=[8]", "epochs=3"], {"model.hidden": ([128, 64], [8]), "epochs": (20, 3)}),
        (
            [
                "checks=full",
                "name=other",
                "question=why",
                "device=cpu",
                "threads=1",
                "figures=[film]",
                "tracker=[wandb]",
            ],
            {},
        ),
        (["data.root=elsewhere"], {}),
    ],
)
def test_a_change_is_a_value_or_a_whole_component_and_what_changes_no_number_is_none(
    words: list[str], found: dict
) -> None:
    base = ["data=fashion_mnist"] if words == ["data.root=elsewhere"] else []
    said = changes(plain(*base), plain(*base, *words))
    if "transfer" in found:
        assert list(said) == ["transfer"] and said["transfer"][0] is None
    else:
        assert said == found


def test_a_component_taken_away_is_one_change_and_a_key_of_another_version_none() -> None:
    before = plain("regulariser=[l1,l2]")
    assert list(changes(before, plain("regulariser=[l2]"))) == ["regulariser.l1"]
    assert changes(before, {key: value for key, value in before.items() if key != "accumulate"}) == {}


def test_changes_are_told_as_a_command_line_would_have_them() -> None:
    assert (
        told({"optimiser.lr": (0.001, 3e-05), "schedule": ("cosine", None)})
        == "optimiser.lr 0.001 → 3e-05, schedule cosine → null"
    )


def as_run(keys: dict, named: bool = False, seeds: list | None = None, code: list | None = None) -> dict:
    change = {"run": "/runs/08-00-00-run", "command": "scripts/train epochs=2", "keys": keys, "named": named}
    return {"change": change | {"seeds": seeds, "code": code}}


def test_two_changes_are_a_note_and_since_a_named_run_a_warning() -> None:
    two = {"epochs": [2, 3], "optimiser.lr": [0.1, 0.2]}
    assert one_change({"change": None}, most=1) is None
    assert one_change(as_run({"epochs": [2, 3]}), most=1).severity == "ok"
    guessed, named = one_change(as_run(two), most=1), one_change(as_run(two, named=True), most=1)
    assert (guessed.severity, named.severity) == ("info", "warn")
    said = "2 changes at once since 08-00-00-run{}: epochs 2 → 3, optimiser.lr 0.1 → 0.2"
    assert guessed.message == said.format(" (the nearest earlier run)")
    assert named.message == said.format("")
    assert "scripts/train epochs=2" in named.advice[0]
    assert one_change(as_run(two, named=True), most=2).severity == "ok"  # another threshold
    assert "seed 0 → 1" in one_change(as_run({}, seeds=[0, 1]), most=1).message
    assert "abcdef1" in one_change(as_run({}, code=["abcdef1234", "0"]), most=1).message
    assert one_change(as_run({}), most=1).message.startswith("nothing was changed")


def test_the_latest_runs_come_first_and_trials_and_damage_are_not_among_them(tmp_path: Path) -> None:
    import os

    for age, name in enumerate(("day/b", "day/a", "alone", "studies/s/0000", "first/x")):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "run.json").write_text("{}")
        os.utime(folder / "run.json", (1000 - age, 1000 - age))
    assert [str(folder.relative_to(tmp_path)) for folder in latest(tmp_path)] == ["day/b", "day/a", "alone", "first/x"]
    assert LOOKED_AT >= 100
    with pytest.raises(ConfigError, match="is not the folder of a run"):
        settings(tmp_path / "day")


def test_a_run_knows_what_it_changes_of_the_nearest_run_and_what_came_of_it(run, capsys) -> None:
    words = ["data.subset=300", "epochs=2", "report=false"]
    _, one = run(*words, folder="one")
    assert noted(one)["change"] is None
    capsys.readouterr()
    _, other = run(*words, "optimiser.lr=0.01", folder="other")
    change = noted(other)["change"]
    assert (change["run"], change["keys"]) == (str(one.resolve()), {"optimiser.lr": [0.001, 0.01]})
    values, outcome = [noted(folder)["best"]["val/accuracy"] for folder in (one, other)], change["outcome"]
    assert (outcome["before"], outcome["after"]) == pytest.approx(values)
    assert outcome["ahead"] == pytest.approx(values[1] - values[0]) and outcome["half"] > 0
    said = f"since one, optimiser.lr 0.001 → 0.01: {outcome['said']}"
    assert said in " ".join(capsys.readouterr().out.split())
    _, third = run(*words, "optimiser.lr=0.01", "model.hidden=[16]", folder="third")
    assert noted(third)["change"]["run"] == str(other.resolve())  # one change from there, two from the first
    _, again = run(*words, "optimiser.lr=0.01", "seed=1", folder="again")
    assert (noted(again)["change"]["keys"], noted(again)["change"]["seeds"]) == ({}, [0, 1])
    two = [*words, "optimiser.lr=0.01", "model.hidden=[16]", f"parent={one}"]
    _, named = run(*two, "checks=quick", "checks.mute=[data,init,step,lr,overfit]", folder="named")
    found = {finding["id"]: finding["severity"] for finding in noted(named)["findings"]}
    assert (noted(named)["change"]["run"], found["plan.one_change"]) == (str(one.resolve()), "warn")
    assert yaml.safe_load((named / "config.yaml").read_text())["parent"] == str(one.resolve())
    _, elsewhere = run("data=wine", "epochs=1", "report=false", folder="elsewhere")
    assert noted(elsewhere)["change"] is None  # other data are another question


def test_the_report_says_what_was_changed_and_what_came_of_it(run) -> None:
    words = ["data=wine", "epochs=1"]
    run(*words, "report=false", folder="one")
    _, other = run(*words, "optimiser.lr=0.01", folder="other")
    page = (other / "report.html").read_text()
    assert f"Since one, optimiser.lr 0.001 → 0.01: {noted(other)['change']['outcome']['said']}." in page


def test_an_earlier_run_that_is_damaged_does_not_cost_this_one_its_end(run) -> None:
    words = ["data=wine", "epochs=1", "report=false"]
    _, one = run(*words, folder="one")
    content = noted(one)
    del content["data"]["features"]
    (one / "run.json").write_text(json.dumps(content))
    status, other = run(*words, "optimiser.lr=0.01", folder="other")
    assert (status, noted(other)["status"], noted(other)["change"]["outcome"]) == (0, "finished", None)
    assert noted(other)["change"]["why"] == "KeyError: 'features'"


def test_a_run_of_an_earlier_version_has_todays_value_of_a_key_that_it_does_not_know(run) -> None:
    from plumbline.record import saved_config

    _, folder = run("data=wine", "epochs=1", "report=false", folder="old")
    lines = (folder / "config.yaml").read_text().splitlines()
    (folder / "config.yaml").write_text(
        "\n".join(line for line in lines if not line.startswith(("parent:", "swa:", "epochs:")))
    )
    saved = saved_config(folder, "run", ["plumbline"])
    assert (saved.parent, saved.swa, saved.epochs, saved.bootstrap) == (None, None, 20, 20)  # its own, where it has one


def test_a_parent_that_is_no_run_is_said_in_a_sentence(train) -> None:
    done = train("parent=nowhere")
    assert (done.returncode, done.stderr.splitlines()) == (
        2,
        [
            "plumbline: parent=nowhere: is not the folder of a run: there is no such folder; leave it out to take the nearest"
        ],
    )


PAINTED = ["data=shapes", "data.samples=100", "data.size=16", "model=unet", "model.channels=[4,4]", "batch_size=4"]


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["data=diabetes"], "val/rmse"),
        (["data=diabetes", "objective=val/loss"], "val/loss"),
        (["data=pairs", "data.items=30", "model=siamese"], "val/accuracy"),
        ([*PAINTED], "val/dice"),
        ([*PAINTED, "objective=val/accuracy"], "val/accuracy"),
        (["data=digits_reconstruction", "model=autoencoder", "data.subset=200"], "val/rmse"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_came_of_a_change_is_known_of_every_task(words: list[str], key: str, run) -> None:
    usual = [f"epochs={12 if 'data=shapes' in words else 1}", "report=false"]
    _, one = run(*words, *usual, folder="one")
    _, other = run(*words, *usual, "optimiser.lr=0.02", folder="other")
    outcome, best = noted(other)["change"]["outcome"], [noted(folder)["best"][key] for folder in (one, other)]
    assert (outcome["metric"], outcome["before"], outcome["after"]) == (key, *best)
    sign = -1 if key in ("val/rmse", "val/loss") else 1
    assert outcome["ahead"] == pytest.approx(sign * (best[1] - best[0]))
    assert outcome["half"] > 0
