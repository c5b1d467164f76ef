"""A study whose storage is lost, moved or copied goes on with the trials that its folders have."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, TINY, noted, records, trials
from test_search_report import KIND, LR, WIDTH
from test_search_trust import worker
from test_search_worker import prepared, worker_of

from plumbline.contract import ConfigError
from plumbline.search.difference import lasting
from plumbline.search.outcome import Outcome
from plumbline.search.restore import parse_point, restore
from plumbline.search.space import Parameter, Space
from plumbline.search.storage import JOURNAL

FRONT = [["val/accuracy", "maximise"]]


def rows(study: Path) -> list[dict[str, str]]:
    """trials.csv without times."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in trials(study)]


def folder_of(tmp_path: Path, name: str = "s") -> Path:
    return tmp_path / "outputs/studies" / name


# --- points ----------------------------------------------------------------------------------------------------------

PAIR = Parameter("model, model.hidden", "[[mlp,[8]],[linear,null]]", choices=("mlp ; [8]", "linear ; null"))
MOMENTUM = Parameter("+optimiser.momentum", "interval(0,0.9)", 0.0, 0.9, when=("optimiser", ("sgd",)))
SPACE = Space((KIND, LR, WIDTH, PAIR, MOMENTUM))


def test_a_point_is_restored_from_its_words_exactly() -> None:
    draw = random.Random(0)
    for _ in range(200):
        point = SPACE.at([draw.random() for _ in SPACE])
        fixed = ["epochs=20", "seed=3", "device=cpu"]
        words = ["epochs=20", "seed=3", "device=cuda", *SPACE.words(point), "seed=4"]
        assert parse_point(SPACE, fixed, words) == point


@pytest.mark.parametrize(
    "words",
    [
        ["optimiser=adamw", "model.width=3"], ["optimiser=adam", "optimiser.lr=0.01"], ["optimiser=adamw", "optimiser.lr=x"],
        ["optimiser=adamw", "optimiser.lr=2.0"], ["optimiser=adamw", "optimiser.lr=nan"], ["optimiser=adamw", "optimiser.lr=inf"],
        ["optimiser=adamw", "optimiser.lr=0.01", "batch_size=7"],
    ],
)  # fmt: skip
def test_words_that_are_no_point_of_the_space_are_refused(words: list[str]) -> None:
    with pytest.raises(ValueError, match=r"its "):
        parse_point(Space((KIND, LR)), ["epochs=20"], ["epochs=20", *words])


# --- trials ----------------------------------------------------------------------------------------------------------


def run_in(folder: Path, words: list[str], status: str = "finished", value: float = 0.5) -> None:
    """A run's folder as a trial leaves it."""
    folder.mkdir(parents=True)
    (folder / "overrides.yaml").write_text(yaml.safe_dump(words))
    times = {"started": "2026-01-01T00:00:00+00:00", "finished": "2026-01-01T00:00:09+00:00"}
    run = {"status": status, "error": None, "best": {"val/accuracy": value}, "parameters": 7, **times}
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "metrics.jsonl").write_text('{"epoch": 1, "val/accuracy": 0.25}\n{"epoch": 2, "val/acc')


def test_trials_are_restored_as_they_were_told(tmp_path: Path) -> None:
    """Finished, pruned, diverged, died, under way, never begun, missing in between."""
    study = prepared(tmp_path)
    study.pruner = {"_target_": "plumbline.search.pruners.median"}
    for number, status in enumerate(["finished", "pruned", "diverged", "running", "running"]):
        run_in(tmp_path / f"{number:04d}", ["epochs=20", f"optimiser.lr=0.0{number + 1}"], status)
    (tmp_path / "0003/ended.json").write_text('{"status": "failed", "reason": "died", "values": []}')
    (tmp_path / "0006").mkdir()
    (tmp_path / "0006/output.log").write_text("killed in its first moment")
    opened = study.open()
    assert restore(study, opened, [*FRONT, ["parameters", "minimise"]]) == 7
    found = opened.get_trials()
    states = ["COMPLETE", "PRUNED", "PRUNED", "FAIL", "WAITING", "WAITING", "WAITING"]
    assert [trial.state.name for trial in found] == states
    assert [trial.params.get("optimiser.lr") for trial in found] == [0.01, 0.02, 0.03, 0.04, None, None, None]
    assert [trial.values for trial in found[:2]] == [[0.5, 7.0], None]
    assert found[0].user_attrs == {"status": "finished", "values": [[0.5, 7.0]]}
    assert found[2].user_attrs["status"] == "diverged"
    assert found[3].user_attrs == {"status": "failed", "reason": "died"}
    assert found[4].system_attrs == {"fixed_params": {"optimiser.lr": 0.05}}
    assert found[0].intermediate_values == {1: 0.25}
    assert (found[0].datetime_complete - found[0].datetime_start).total_seconds() == 9
    assert restore(study, opened, FRONT) == 0


def test_a_trial_of_several_seeds_is_restored_with_their_mean(tmp_path: Path) -> None:
    study = prepared(tmp_path, seeds=2)
    for number in range(3):
        for k in range(2):
            words = ["epochs=20", "optimiser.lr=0.01", *(["seed=1"] if k else [])]
            run_in(tmp_path / f"{number:04d}/seed-{k}", words, "running" if (number, k) == (1, 1) else "finished", k)
    (tmp_path / "0002/ended.json").write_text('{"status": "pruned", "reason": "", "values": [[0.0]]}')
    opened = study.open()
    restore(study, opened, FRONT)
    assert [trial.state.name for trial in opened.trials] == ["COMPLETE", "WAITING", "PRUNED"]
    assert (opened.trials[0].value, opened.trials[0].user_attrs["values"]) == (0.5, [[0.0], [1.0]])


@pytest.mark.parametrize("damage", ["gone", "other", "list", "run", "bytes"])
def test_a_trial_that_cannot_be_restored_stops_with_a_cure(damage: str, tmp_path: Path) -> None:
    study = prepared(tmp_path)
    for number in range(3):
        run_in(tmp_path / f"{number:04d}", ["epochs=20", f"optimiser.lr=0.0{number + 1}"])
    words, run = tmp_path / "0001/overrides.yaml", tmp_path / "0001/run.json"
    if damage == "gone":
        words.unlink()
    elif damage == "run":
        run.write_text("[1]")
    else:
        words.write_bytes({"other": b"[epochs=21]", "list": b"{a: 1}", "bytes": b"\xff"}[damage])
    opened = study.open()
    with pytest.raises(ConfigError, match=r"lost trial 0001, .*move that folder away, and the trial is done again$"):
        restore(study, opened, FRONT)
    assert opened.trials == []
    (tmp_path / "0001").rename(tmp_path / "away")
    assert restore(study, opened, FRONT) == 3
    assert [trial.state.name for trial in opened.trials] == ["COMPLETE", "WAITING", "COMPLETE"]


def test_a_journal_cut_short_keeps_its_trials_and_gets_the_others(tmp_path: Path) -> None:
    study = prepared(tmp_path)
    one = worker_of(study)
    first = one.queue.take()
    one.queue.presence.leave()
    for number in range(2):
        run_in(tmp_path / f"{number:04d}", ["epochs=20", f"optimiser.lr=0.0{number + 1}"])
    opened = study.open()
    assert restore(study, opened, FRONT) == 1
    assert opened.trials[first.number].system_attrs == {"fixed_params": {"optimiser.lr": 0.01}}
    assert opened.trials[1].params == {"optimiser.lr": 0.02}


KINDS = {
    "grid": ["optimiser.lr=1e-3,1e-2"],
    "tpe": ["search=tpe", "search.n_trials=5", "space=optimiser", "pruner=median"],
    "qmc": ["search=qmc", "search.n_trials=4", "space=learning_rate", "search.seeds=2"],
    "random": [
        "search=random",
        "search.n_trials=4",
        "space=learning_rate",
        "search.also=[parameters]",
        "search.workers=1",
    ],
}


def lose(study: Path, way: str) -> None:
    if way == "deleted":
        (study / JOURNAL).unlink()
    elif way == "emptied":
        (study / JOURNAL).write_bytes(b"")
    else:
        lines = (study / JOURNAL).read_bytes().splitlines(keepends=True)
        (study / JOURNAL).write_bytes(b"".join(lines[: len(lines) // 2]))


@pytest.mark.parametrize(
    ("kind", "way"),
    [
        ("grid", "deleted"),
        *(pytest.param(kind, way, marks=pytest.mark.slow) for kind in KINDS for way in ("deleted", "emptied", "cut"))
    ],
)  # fmt: skip
def test_a_lost_journal_changes_no_result(kind: str, way: str, search, tmp_path: Path) -> None:
    words = ["study=s", *KINDS[kind]]
    assert search(*words).returncode == 0
    study = folder_of(tmp_path)
    before, best = rows(study), (study / "best.yaml").read_text()
    lose(study, way)
    again = search(*words)
    assert (again.returncode, again.stderr) == (0, "")
    assert rows(study) == before
    assert (study / "best.yaml").read_text() == best
    assert {noted(study / row["folder"] / ("seed-0" if kind == "qmc" else ""))["restarts"] for row in before} == {0}


@pytest.mark.slow
def test_a_lost_database_changes_no_result_and_best_keeps_its_promise(search, train, tmp_path: Path) -> None:
    words = ["study=s", *KINDS["tpe"], f"search.storage=sqlite:///{tmp_path}/studies.db"]
    assert search(*words, "search.n_trials=3").returncode == 0
    study = folder_of(tmp_path)
    before = rows(study)
    (tmp_path / "studies.db").unlink()
    assert search(*words, "search.n_trials=4").returncode == 0
    assert rows(study)[:3] == before
    head = (study / "best.yaml").read_text()
    command = shlex.split(re.search(r"# Command:(.*)", head)[1])
    assert train(*command[1:], "hydra.run.dir=again").returncode == 0
    assert noted(tmp_path / "again")["best"]["val/accuracy"] == max(
        float(row["val/accuracy"] or 0) for row in rows(study)
    )


@pytest.mark.slow
def test_a_damaged_journal_is_mended_by_what_its_message_says(search, tmp_path: Path) -> None:
    words, study = ["study=s", *KINDS["grid"]], folder_of(tmp_path)
    assert search(*words).returncode == 0
    before = rows(study)
    (copy,) = study.glob(f"{JOURNAL}.[0-9]*")
    (study / JOURNAL).write_bytes(b'{"op_code": 99}\n' * 3)
    said = search(*words)
    assert (said.returncode, f"put {copy.name}, a copy, in its place, or move it away" in said.stderr) == (2, True)
    shutil.copy(copy, study / JOURNAL)
    assert search(*words).returncode == 0
    assert rows(study) == before
    (study / JOURNAL).write_bytes(b"5\n5\n" + copy.read_bytes())
    assert search(*words).returncode == 2
    (study / JOURNAL).unlink()
    assert search(*words).returncode == 0
    assert rows(study) == before


# --- moved and copied ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_moved_project_goes_on_by_hand_and_by_its_command(train, tmp_path: Path) -> None:
    """Its options, its modules in the copy of the code, and its data are found where it lies now."""
    (tmp_path / "conf/model").mkdir(parents=True)
    (tmp_path / "conf/model/mine.yaml").write_text("defaults: [mlp, _self_]\nhidden: [4]\n")
    words = [
        "-m",
        "--config-dir=conf",
        *(word for word in TINY if "hidden" not in word),
        "model=mine",
        "study=s",
        "search=random",
    ]
    words += ["space=learning_rate"]
    assert train(*words, "search.n_trials=2").returncode == 0
    before = rows(folder_of(tmp_path))
    study = yaml.safe_load((folder_of(tmp_path) / "study.yaml").read_text())
    (folder_of(tmp_path) / "study.yaml").write_text(
        yaml.safe_dump({**study, "search": {**study["search"], "n_trials": 3}})
    )
    for name in ("conf", "outputs"):
        (tmp_path / "project").mkdir(exist_ok=True)
        (tmp_path / name).rename(tmp_path / "project" / name)
    moved = tmp_path / "project"
    done = worker(moved, "study=s", "trust=true")
    assert done.returncode == 0, done.stderr
    assert rows(folder_of(moved))[:2] == before
    words[1] = f"--config-dir={moved}/conf"
    done = train(*words, "search.n_trials=4", f"outputs={moved}/outputs")
    assert done.returncode == 0, done.stderr
    assert [row["status"] for row in rows(folder_of(moved))] == ["finished"] * 4
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_a_copy_with_a_journal_is_a_study_of_its_own(search, tmp_path: Path) -> None:
    words = ["search=random", "space=learning_rate"]
    assert search("study=s", *words, "search.n_trials=2").returncode == 0
    before = rows(folder_of(tmp_path))
    shutil.copytree(folder_of(tmp_path), folder_of(tmp_path, "t"), symlinks=True)
    done = search("study=t", *words, "search.n_trials=3")
    assert (done.returncode, done.stderr) == (0, "")
    assert (rows(folder_of(tmp_path, "t"))[:2], len(rows(folder_of(tmp_path, "t")))) == (before, 3)
    assert (rows(folder_of(tmp_path)), len(list(folder_of(tmp_path).glob("0*")))) == (before, 2)


@pytest.mark.slow
def test_a_copy_with_a_database_is_refused_with_a_cure_that_works(search, tmp_path: Path) -> None:
    words = ["search=random", "space=learning_rate", f"search.storage=sqlite:///{tmp_path}/studies.db"]
    assert search("study=s", *words, "search.n_trials=2").returncode == 0
    before = rows(folder_of(tmp_path))
    shutil.copytree(folder_of(tmp_path), tmp_path / "other/studies/s", symlinks=True)
    refused = search("study=s", *words, "search.n_trials=3", "outputs=other")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
    cure = re.search(r"another name: (mv .*), then the command with (study=\S+),", refused.stderr)
    subprocess.run(cure[1], shell=True, check=True, cwd=tmp_path)
    done = search(cure[2], *words, "search.n_trials=3", "outputs=other")
    assert (done.returncode, done.stderr) == (0, "")
    assert rows(tmp_path / "other/studies/s-copy")[:2] == before
    folder_of(tmp_path).rename(tmp_path / "s-moved")
    (tmp_path / "third/studies").mkdir(parents=True)
    (tmp_path / "s-moved").rename(tmp_path / "third/studies/s")
    done = search("study=s", *words, "search.n_trials=3", "outputs=third")
    assert (done.returncode, done.stderr) == (0, "")
    assert rows(tmp_path / "third/studies/s")[:2] == before


# --- other data ------------------------------------------------------------------------------------------------------


def test_a_trial_that_saw_other_data_is_not_ranked_with_the_others(tmp_path: Path) -> None:
    one = worker_of(prepared(tmp_path))
    prints = iter(["a-a", "a-a", "b-b", "a-a"])

    def ended(trial, seed, directory, judge) -> Outcome:
        from plumbline.search.trial import draw

        draw(one.study, one.opened, trial._trial_id, trial.number)
        return Outcome("finished", "", {"best": {"val/accuracy": 0.5}, "data": {"fingerprint": next(prints)}})

    one.run = ended
    for _ in range(4):
        one.do(one.queue.take())
    assert [trial.user_attrs["status"] for trial in one.queue.trials()] == [
        "finished",
        "finished",
        "failed",
        "finished",
    ]
    said = one.queue.trials()[2].user_attrs["reason"]
    assert said.startswith(
        "study=s: the data are not those of its trials: fingerprint a-a then, b-b now; bring those data"
    )


@pytest.mark.slow
def test_a_study_over_edited_data_is_refused_at_both_doors(train, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    lines = ["x,y,label", *(f"{k % 7},{k % 5},{'a' if k % 2 else 'b'}" for k in range(120))]
    table.write_text("\n".join(lines) + "\n")
    data = [
        "data=csv",
        "data.file=table.csv",
        "data.target=label",
        "epochs=2",
        "model.hidden=[4]",
        "threads=1",
        "bootstrap=2",
    ]
    words = ["-m", *data, "study=s", "search=random", "space=learning_rate"]
    assert train(*words, "search.n_trials=2").returncode == 0
    study = folder_of(tmp_path)
    then = noted(study / "0000")["data"]["fingerprint"]
    table.write_text("\n".join([*lines[:-1], "6,6,a"]) + "\n")
    for more in ([], ["search.extend=true"]):
        refused = train(*words, "search.n_trials=3", *more)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
        assert f"fingerprint {then} then, " in refused.stderr
    by_hand = worker(tmp_path, "study=s")
    assert (by_hand.returncode, by_hand.stderr.count("\n")) == (2, 1), by_hand.stderr
    assert len(list(study.glob("0*"))) == 2
    table.write_text("\n".join(lines) + "\n")
    assert train(*words, "search.n_trials=3").returncode == 0
    assert [row["status"] for row in rows(study)] == ["finished"] * 3


# --- folders that are gone or damaged --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_study_whose_best_trial_lost_its_folder_ends_well(search, train, tmp_path: Path) -> None:
    """The values and the point are in the storage: the best stays the best, and best.yaml makes its run again."""
    words = ["study=s", "search=random", "space=learning_rate"]
    assert search(*words, "search.n_trials=3").returncode == 0
    study = folder_of(tmp_path)
    before = rows(study)
    best = max(before, key=lambda row: float(row["val/accuracy"]))
    kept = records(study / best["folder"])
    for row in before[:2] if best in before[:2] else [best, before[0]]:
        shutil.rmtree(study / row["folder"])
    done = search(*words, "search.n_trials=4")
    assert (done.returncode, done.stderr) == (0, "")
    assert rows(study)[:3] == before
    for name in ("status", "compare"):
        module, place = (
            ("plumbline.search.status", "study=s") if name == "status" else ("plumbline.compare", str(study))
        )
        command = [sys.executable, "-m", module, place, *(["--report"] if name == "status" else [])]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        said = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
        assert (said.returncode, "Traceback" in said.stderr) == (0, False), said.stderr
    if f"trial {best['trial']}" in done.stdout:
        command = shlex.split(re.search(r"# Command:(.*)", (study / "best.yaml").read_text())[1])
        assert train(*command[1:], "hydra.run.dir=again").returncode == 0
        assert records(tmp_path / "again") == kept


@pytest.mark.slow
@pytest.mark.parametrize("content", ["[1]", '"x"', "{}", "", '{"status": "finished"}', '{"status": 1}', "null"])
def test_damaged_files_of_a_trial_end_no_study(content: str, search, tmp_path: Path) -> None:
    words = ["study=s", "search=random", "space=learning_rate"]
    assert search(*words, "search.n_trials=2").returncode == 0
    study = folder_of(tmp_path)
    before = rows(study)
    for name in ("run.json", "config.yaml", "overrides.yaml", "metrics.jsonl"):
        for folder in study.glob("0*"):
            (folder / name).write_text(content)
    done = search(*words, "search.n_trials=3")
    assert (done.returncode, "Traceback" in done.stdout + done.stderr) == (0, False), done.stdout + done.stderr
    assert rows(study)[:2] == before
    assert "Traceback" not in (study / "workers.log").read_text()


def test_words_that_a_run_may_change_are_no_part_of_a_study() -> None:
    assert lasting(["device=cpu", "+threads=2", "epochs=3", "outputs=x"]) == ["epochs=3"]
