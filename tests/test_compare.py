"""Comparisons and the journal: what came of a change, with an interval that holds the truth as often as it says."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from plumbline import arms, compare, journal
from plumbline.config import ConfigError
from plumbline.report import read


def one_hot(right: np.ndarray) -> np.ndarray:
    """Probabilities (N, 2) of a network that is right there; the classes take turns."""
    guess = np.where(right, np.arange(len(right)) % 2, 1 - np.arange(len(right)) % 2)
    return np.where(np.arange(2) == guess[:, None], 0.9, 0.1).astype(np.float32)


def folder(
    path: Path,
    right: np.ndarray,
    seed: int = 0,
    ids: np.ndarray | None = None,
    status: str = "finished",
    **settings: object,
) -> Path:
    """A run's folder as far as a comparison reads it: of two classes, those samples named right."""
    path.mkdir(parents=True)
    n = len(right)
    targets = np.arange(n) % 2
    outputs = one_hot(right)
    losses = -np.log(outputs[np.arange(n), targets])
    ids = np.arange(n).astype(str) if ids is None else ids
    np.savez(path / "predictions.npz", ids=ids, targets=targets, outputs=outputs, losses=losses)
    value = float(right.mean())
    run = {
        "status": status, "name": path.name, "question": "", "started": f"2026-01-01T00:00:0{seed}", "seed": seed,
        "objective": "val/accuracy", "direction": "maximise", "interval": {"val/accuracy": [value - 0.1, value + 0.1]},
        "best": {"epoch": 2, "val/accuracy": value, "val/loss": float(losses.mean())}, "command": "scripts/train",
        "data": {"task": "classification", "shape": [4], "outputs": 2, "classes": ["a", "b"], "features": [], "masks": [],
                 "categories": []},
    }  # fmt: skip
    (path / "run.json").write_text(json.dumps(run))
    config = {
        "seed": seed,
        "outputs": "outputs",
        "lr": 0.1,
        "data": {"_target_": "x.y"},
        "loss": {"_target_": "l.a"},
    } | settings
    (path / "config.yaml").write_text(json.dumps(config))
    with open(path / "metrics.jsonl", "w") as file:
        for epoch in (1, 2):
            file.write(
                json.dumps({"epoch": epoch, "val/accuracy": value * epoch / 2, "val/loss": 1 / epoch, "lr": 0.1}) + "\n"
            )
    return path


def apart(one: list[Path], other: list[Path], metric: str = "val/accuracy") -> arms.Difference | None:
    before, after = (arms.Arm(tuple(map(read, side)), {}) for side in (one, other))
    return arms.difference(before, after, metric, "minimise" if metric == "val/loss" else "maximise", 200)


def test_an_interval_of_the_difference_is_of_the_samples_on_which_two_runs_differ(tmp_path: Path) -> None:
    right = np.ones(400, bool)
    worse = right.copy()
    worse[:20] = False
    found = apart([folder(tmp_path / "a", right)], [folder(tmp_path / "b", worse)])
    assert (found.before, found.after, found.ahead) == pytest.approx((1, 0.95, -0.05))
    assert found.half == pytest.approx(1.96 * math.sqrt(0.05 * 0.95 / 400), rel=1e-3)
    assert (found.verdict, found.seeds) == ("worse", 1)
    same = apart([tmp_path / "a"], [tmp_path / "a"])
    assert (same.ahead, same.half, str(same)) == (0, 0, "val/accuracy 1 against 1: the same")
    losses = apart([tmp_path / "a"], [tmp_path / "b"], "val/loss")
    assert losses.ahead < 0 and losses.verdict == "worse"  # less loss is better, and b has more


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_interval_holds_the_truth_of_equal_networks_as_often_as_it_says(tmp_path: Path, seeds: int) -> None:
    """Two equal methods: each sample is hard to a degree, each seed has a skill, and who errs where is drawn."""
    draws, held = np.random.default_rng(0), 0
    runs = [[folder(tmp_path / f"{side}{seed}", np.ones(300, bool), seed) for seed in range(seeds)] for side in "ab"]
    both = [arms.Arm(tuple(map(read, side)), {}) for side in runs]
    for _ in range(300):
        hardness = draws.uniform(0.5, 1, 300)
        for run in (run for arm in both for run in arm.runs):
            right = draws.random(300) < hardness + draws.normal(0, 0.03)
            run.run["best"]["val/accuracy"] = right.mean()
            run.predictions["outputs"] = one_hot(right)
        found = arms.difference(*both, "val/accuracy", "maximise", 200)
        held += abs(found.ahead) <= found.half
    low, high = (285, 300) if seeds > 1 else (220, 270)  # of one seed each it does not know what seeds do, and says so
    assert low <= held <= high


def test_seeds_are_paired_where_they_are_shared_and_welch_where_they_are_not() -> None:
    from scipy import stats

    before, after = {0: 0.90, 1: 0.92, 2: 0.95}, {0: 0.91, 1: 0.94, 2: 0.96}
    ahead, half = arms.over_seeds(before, after)
    expected = stats.ttest_rel(list(after.values()), list(before.values())).confidence_interval()
    assert (ahead - half, ahead + half) == pytest.approx((expected.low, expected.high))
    others = {seed + 10: value for seed, value in after.items()}
    ahead, half = arms.over_seeds(before, others)
    expected = stats.ttest_ind(list(after.values()), list(before.values()), equal_var=False).confidence_interval()
    assert (ahead - half, ahead + half) == pytest.approx((expected.low, expected.high))
    assert arms.over_seeds(before, others, choices=5)[1] > half  # five comparisons at once
    assert arms.over_seeds({0: 0.9}, {0: 0.8}) == pytest.approx((-0.1, 0.0))
    values = list(before.values())
    ahead, half = arms.over_seeds(before, {5: 0.8})  # one seed scatters as those of the other side do
    wide = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) * (1 / 3 + 1) ** 0.5
    assert (ahead, half) == pytest.approx((0.8 - np.mean(values), wide))


def test_runs_that_differ_in_their_seed_alone_are_one_arm_and_the_latest_of_a_seed_counts(tmp_path: Path) -> None:
    right = np.ones(50, bool)
    runs = [folder(tmp_path / f"a{seed}", right, seed) for seed in (0, 1)]
    runs += [folder(tmp_path / "b0", right, 0, lr=0.2), folder(tmp_path / "b1", right, 1, lr=0.2)]
    found, metric, direction = compare.arms(runs, None)
    assert ([len(arm.runs) for arm in found], metric, direction) == ([2, 2], "val/accuracy", "maximise")
    rows = compare.compared(found, metric, direction)
    assert (rows[1]["letter"], rows[1]["keys"], rows[1]["seeds"]) == ("B", {"lr": (0.1, 0.2)}, 2)
    twice, *_ = compare.arms([runs[0], runs[0], runs[1]], None)
    assert len(twice) == 1 and len(twice[0].by_seed) == 2


def test_other_samples_and_another_loss_are_not_compared(tmp_path: Path) -> None:
    right = np.ones(50, bool)
    one = folder(tmp_path / "a", right)
    assert apart([one], [folder(tmp_path / "b", right, ids=np.arange(50, 100).astype(str))]) is None
    other = folder(tmp_path / "c", right, loss={"_target_": "l.b"})
    rows = compare.compared(*compare.arms([one, other], "val/loss"))
    assert (rows[1]["difference"], rows[1]["why"]) == (None, "another loss")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{a}"], "1 finished runs are too few"),
        (["{a}", "nowhere"], "is neither a folder nor one of objective=…, page=…"),
        (["{a}", "{b}", "objectiv=val/loss"], "did you mean"),
        (["{a}", "{b}", "objective=val/los"], "it has: val/accuracy, val/loss"),
        (["{a}", "{running}"], "has status running; compare finished ones"),
        (["{a}", "{empty}"], "is not the folder of a run"),
    ],
)
def test_a_mistake_is_one_sentence(words: list[str], said: str, tmp_path: Path, capsys, monkeypatch) -> None:
    right = np.ones(20, bool)
    names = {"a": folder(tmp_path / "a", right), "b": folder(tmp_path / "b", right, lr=1.0)}
    names["running"] = folder(tmp_path / "running", right, status="running")
    names["empty"] = tmp_path / "empty"
    names["empty"].mkdir()
    monkeypatch.setattr(sys, "argv", ["compare", *(word.format(**names) for word in words)])
    assert compare.main() == 2
    assert said in capsys.readouterr().err


def test_the_page_names_every_change_draws_every_curve_and_escapes_what_users_say(
    tmp_path: Path, capsys, monkeypatch
) -> None:
    right = np.ones(200, bool)
    worse = right.copy()
    worse[:50] = False
    runs = [folder(tmp_path / f"a{seed}", right, seed) for seed in (0, 1)]
    runs.append(folder(tmp_path / "b", worse, 0, lr="<script>alert(1)</script>", width=3))
    monkeypatch.setattr(sys, "argv", ["compare", *map(str, runs), f"page={tmp_path / 'page.html'}"])
    assert compare.main() == 0
    printed, text = capsys.readouterr().out, (tmp_path / "page.html").read_text()
    assert "0.25 worse" in printed and str(tmp_path / "page.html") in printed
    assert "<script>" not in text and "&lt;script&gt;" in text
    assert text.count("<figure>") == 3 and re.search(r'id="verdict"><strong>worse</strong>', text)


def tell(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "plumbline.journal", *words]
    environment = {"PYTHONPATH": str(ROOT / "src"), "COLUMNS": "160", "PATH": "/usr/bin:/bin"}
    return subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True)


def noted(path: Path, **more: object) -> None:
    file = path / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | more))


def changed(of: Path, keys: dict, said: str | None = None) -> dict:
    return {"run": str(of.resolve()), "keys": keys, "named": False, "seeds": None if keys else [0, 1], "code": None,
            "outcome": said and {"said": said}}  # fmt: skip


@pytest.fixture
def story(tmp_path: Path) -> Path:
    """Three runs of one question: the first with two seeds, and one that changes it."""
    right, day = np.ones(100, bool), tmp_path / "outputs" / "day"
    worse = np.arange(100) > 9
    first, again, other = folder(day / "a", worse, 0), folder(day / "b", worse, 1), folder(day / "c", right, 2, lr=0.2)
    noted(first, question="Does it learn?")
    noted(again, change=changed(first, {}), question="Does it learn?")
    said = "val/accuracy 1 against 0.9: 0.1 better, ± 0.059 (one seed each)"
    noted(other, change=changed(again, {"lr": [0.1, 0.2]}, said), question="Is more better?", answer="yes")
    return tmp_path


def test_the_journal_is_a_tree_of_changes_in_which_seeds_share_a_line(story: Path) -> None:
    done = tell(cwd=story)
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert lines[0] == "y, val/accuracy"
    assert lines[1].endswith("a  ·  0.900 ± 0 (2 seeds)") and "? Does it learn?" in lines[2]
    assert "lr 0.1 → 0.2  ·  1.000  ·  0.1 better, ± 0.059 (one seed each)  ·  the best" in lines[3]
    assert "= yes" in lines[5]
    assert "questions without an answer: 1; the latest:" in lines  # asked with two seeds, and asked once


def test_a_question_is_answered_once_whichever_of_its_runs_is_told(story: Path) -> None:
    runs = journal.entries(story / "outputs")
    assert [entry.folder.name for entry in journal.unanswered(runs)] == ["b"]
    journal.answer(story / "outputs" / "day" / "a", "it does")
    assert journal.unanswered(journal.entries(story / "outputs")) == []


def test_an_answer_stands_in_the_record_and_a_run_that_goes_on_takes_none(story: Path) -> None:
    run = story / "outputs" / "day" / "a"
    assert tell(str(run), "answer=it does <b>", cwd=story).returncode == 0
    assert json.loads((run / "run.json").read_text())["answer"] == "it does <b>"
    assert "questions without" not in tell(cwd=story).stdout
    noted(run, status="preempted")
    refused = tell(str(run), "answer=no", cwd=story)
    assert (refused.returncode, "is not over yet" in refused.stderr) == (2, True)
    with pytest.raises(ConfigError, match="is empty"):
        journal.answer(run, " ")


def test_the_rows_have_the_columns_of_the_tree_of_questions(story: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(tell("--csv", cwd=story).stdout)))
    assert list(rows[0])[:10] == [
        "sub-project", "context", "setup", "name", "parameter", "values", "status", "skill", "question", "finding",
    ]  # fmt: skip
    assert [row["name"] for row in rows] == ["a", "b", "c"]
    assert (rows[2]["parameter"], rows[2]["values"], rows[2]["context"], rows[2]["finding"]) == (
        "lr",
        "0.1 → 0.2",
        "b",
        "yes",
    )


def test_an_outputs_folder_that_is_not_there_or_empty_is_said(tmp_path: Path) -> None:
    assert "there is no such folder" in tell("nowhere", cwd=tmp_path).stderr
    (tmp_path / "outputs").mkdir()
    assert "no run yet" in tell(cwd=tmp_path).stdout
