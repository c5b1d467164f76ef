"""What a study taught: the judgements see what is there and nothing else, and the page is one file that needs no network."""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial

from plumbline.search.finish import finish
from plumbline.search.judgements import judge
from plumbline.search.next_space import next_search
from plumbline.search.postmortem import curves, importance, page
from plumbline.search.results import Results
from plumbline.search.space import Parameter, Space
from plumbline.search.storage import open_storage
from plumbline.search.study import Study

LR = Parameter("optimiser.lr", "tag(log,interval(1e-4,1e-1))", 1e-4, 1e-1, None, True)
WIDTH = Parameter("model.width", "range(1,65)", 1, 64, 1)
KIND = Parameter("optimiser", "sgd,adamw", choices=("sgd", "adamw"))


def study_of(folder: Path, parameters: tuple[Parameter, ...], **search: Any) -> Study:
    settings = {"seeds": 1, "seed": 0, "also": [], "confirm": 0, "n_trials": 30, "max_failures": 10, "retry": 2}
    settings["max_deaths"] = 10
    return Study(
        folder=folder, name="s", question="", command="scripts/train -m study=s search=tpe", cwd=str(folder), config_name="train",
        config_dirs=[], fixed=["epochs=20"], space=Space(parameters), kind="tpe", search=settings | search, pruner={},
        storage=None, created="2026-01-01T00:00:00", earlier=[],
    )  # fmt: skip


def results_of(folder: Path, parameters: tuple[Parameter, ...], rows: list[dict[str, Any]], **search: Any) -> Results:
    """A study with these trials: point, value, and how each ended; its runs have folders where epochs are given."""
    study = study_of(folder, parameters, **search)
    opened = optuna.create_study(study_name="s", storage=open_storage(folder, None), direction="maximize")
    opened.set_user_attr("objectives", [["val/accuracy", "maximise"]])
    for number, row in enumerate(rows):
        state = {"finished": TrialState.COMPLETE, "failed": TrialState.FAIL}.get(
            row.get("status", "finished"), TrialState.PRUNED
        )
        attributes = {"status": row.get("status", "finished"), **row.get("attributes", {})}
        value = row["value"] if state == TrialState.COMPLETE else None
        distributions = {p.name: p.distribution() for p in parameters if p.name in row["point"]}
        options = {"params": row["point"], "distributions": distributions, "user_attrs": attributes}
        opened.add_trial(create_trial(state=state, value=value, **options))
        if "epoch" in row:
            run(folder / f"{number:04d}", row)
    return Results(study, opened)


def run(folder: Path, row: dict[str, Any]) -> None:
    folder.mkdir()
    best = {"epoch": row["epoch"], "val/accuracy": row["value"]}
    noise = row.get("noise", 0.01)
    interval = {"val/accuracy": [row["value"] - 1.96 * noise, row["value"] + 1.96 * noise]}
    (folder / "run.json").write_text(json.dumps({"status": "finished", "best": best, "interval": interval}))
    (folder / "config.yaml").write_text("epochs: 20\n")
    records = [
        {"epoch": epoch, "val/accuracy": row["value"] - 0.01 * abs(epoch - row["epoch"])} for epoch in range(1, 21)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def said(results: Results) -> dict[str, str]:
    return {one["id"].removeprefix("study."): one["severity"] for one in judge(results)}


def bowl(centre: float, count: int = 30, noise: float = 0.003, seed: int = 0, **more: Any) -> list[dict[str, Any]]:
    """Trials over the learning rate whose accuracy is best at 10**centre."""
    draw = np.random.default_rng(seed)
    rows = []
    for place in draw.permutation(np.linspace(-4, -1, count)):
        value = float(0.9 - 0.1 * (place - centre) ** 2 + noise * draw.normal())
        rows.append({"point": {"optimiser.lr": float(10**place)}, "value": value, "epoch": 10, **more})
    return rows


@pytest.mark.parametrize("seed", range(5))
def test_a_good_study_has_nothing_held_against_it(seed: int, tmp_path: Path) -> None:
    found = said(results_of(tmp_path, (LR,), bowl(-2.5, seed=seed, noise=0.001)))
    assert {name: found[name] for name in ("edge", "few", "lost", "late", "neighbours")} == dict.fromkeys(
        ("edge", "few", "lost", "late", "neighbours"), "ok"
    )


@pytest.mark.parametrize(("centre", "end"), [(-1.0, "upper"), (-4.0, "lower")])
@pytest.mark.parametrize("seed", range(3))
def test_a_best_at_the_end_of_the_space_is_said_and_the_next_space_goes_beyond(
    centre, end, seed, tmp_path: Path
) -> None:
    results = results_of(tmp_path, (LR,), bowl(centre, seed=seed, noise=0.0005))
    edge = next(one for one in judge(results) if one["id"] == "study.edge")
    assert edge["severity"] == "warn"
    assert f"at the {end} end" in edge["message"]
    low, high = map(float, re.search(r"interval\(([^,]+),([^)]+)\)", next_search(results, {})).groups())
    assert high > 0.2 if end == "upper" else low < 5e-5
    assert (low > 1e-3) if end == "upper" else (high < 5e-3)


def test_few_trials_for_many_parameters_are_said_with_how_many_would_do(tmp_path: Path) -> None:
    draw, rows = np.random.default_rng(0), []
    for _ in range(12):
        point = {
            "optimiser.lr": float(10 ** draw.uniform(-4, -1)),
            "model.width": int(draw.integers(1, 65)),
            "optimiser": "sgd",
        }
        rows.append({"point": point, "value": float(draw.uniform(0.5, 0.9))})
    few = next(one for one in judge(results_of(tmp_path, (LR, WIDTH, KIND), rows)) if one["id"] == "study.few")
    assert (few["severity"], "search.n_trials=30" in few["advice"]) == ("warn", True)


def test_a_region_that_diverges_is_said_with_where_it_lies(tmp_path: Path) -> None:
    rows = bowl(-3.0)
    for row in rows:
        if row["point"]["optimiser.lr"] > 0.03:
            row |= {"status": "diverged"}
            del row["epoch"]
    lost = next(one for one in judge(results_of(tmp_path, (LR,), rows)) if one["id"] == "study.lost")
    assert lost["severity"] == "warn"
    assert "optimiser.lr was high in them" in lost["message"]
    assert f"{sum(row.get('status') == 'diverged' for row in rows)} diverged of 30 trials" in lost["message"]


@pytest.mark.parametrize(
    ("epoch", "name", "severity"), [(20, "late", "warn"), (10, "late", "ok"), (1, "early", "info")]
)
def test_a_best_at_its_last_or_first_epoch_is_said(epoch: int, name: str, severity: str, tmp_path: Path) -> None:
    rows = bowl(-2.5)
    for row in rows:
        row["epoch"] = epoch
    assert said(results_of(tmp_path, (LR,), rows))[name] == severity


def test_a_gap_within_the_noise_of_the_seeds_is_no_gap(tmp_path: Path) -> None:
    for name, spread, severity in (("near", 0.02, "info"), ("far", 0.0001, "ok")):
        folder = tmp_path / name
        folder.mkdir()
        rows = bowl(-2.5, count=12, noise=0.0)
        for row in rows:
            value = row["value"]
            row["attributes"] = {"values": [[value - spread], [value], [value + spread]]}
        best = max(rows, key=lambda row: row["value"])
        best["value"] += 0.004
        assert said(results_of(folder, (LR,), rows, seeds=3))["gap"] == severity


def test_a_lone_peak_is_called_luck(tmp_path: Path) -> None:
    rows = bowl(-2.5, noise=0.001)
    rows[7]["value"] = 0.99
    for row in rows:
        row["noise"] = 0.002
    assert said(results_of(tmp_path, (LR,), rows))["neighbours"] == "warn"


@pytest.mark.parametrize("seed", range(3))
def test_the_optimism_of_a_maximum_is_that_of_as_many_draws(seed: int, tmp_path: Path) -> None:
    draw = np.random.default_rng(seed)
    measured = np.mean([draw.normal(size=30).max() for _ in range(4000)])
    text = next(
        one["message"] for one in judge(results_of(tmp_path, (LR,), bowl(-2.5))) if one["id"] == "study.optimism"
    )
    told = float(re.search(r"better by ([\d.e-]+\d)", text)[1])
    assert told == pytest.approx(0.01 * measured, rel=0.03)


def test_the_next_space_keeps_the_choices_of_the_best_and_leaves_alone_what_matters_little(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    rows = []
    for _ in range(40):
        place, kind, width = draw.uniform(-4, -1), str(draw.choice(["sgd", "adamw"])), int(draw.integers(1, 65))
        value = 0.9 - 0.05 * (place + 2.5) ** 2 - 0.2 * (kind == "sgd")
        rows.append(
            {
                "point": {"optimiser.lr": float(10**place), "optimiser": kind, "model.width": width},
                "value": float(value),
            }
        )
    results = results_of(tmp_path, (LR, WIDTH, KIND), rows, n_trials=40)
    importances = importance(results)
    assert min(importances, key=importances.get) == "model.width"
    line = next_search(results, {"optimiser": 0.8, "optimiser.lr": 0.19, "model.width": 0.01})
    assert line.startswith("scripts/train -m study=s-next search=tpe search.n_trials=40 epochs=20 ")
    assert "optimiser=adamw" in line
    assert f"model.width={results.best[0].params['model.width']}" in line
    low, high = map(float, re.search(r"interval\(([^,]+),([^)]+)\)", line).groups())
    assert 1e-4 <= low < 10**-2.5 < high <= 1e-1
    assert high / low < 300


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`begun(*words)` is the study that a command line begins: all of it is composed and checked, and no trial runs."""
    from plumbline import train
    from plumbline.search import start

    seen: list[Study] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(start, "copy_code", lambda study, new: None)
    monkeypatch.setattr(start, "run_workers", lambda study, count, new, ahead: seen.append(study) or 0)
    monkeypatch.setattr(start, "submitted", lambda study, options, new: 0)

    def go(*words: str) -> Study | None:
        monkeypatch.setattr(sys, "argv", ["scripts/train", *words])
        return Study.read(seen.pop().folder) if train.main() == 0 else None

    return go


def filled(study: Study, value: Callable[[dict[str, Any]], float], count: int = 24) -> Results:
    """A study with that many finished trials of such values, drawn at random."""
    draw, names = np.random.default_rng(0), ["val/accuracy", *study.search["also"]]
    opened = optuna.create_study(study_name=study.name, storage=open_storage(study.folder, None),
                                 directions=["maximize", *["minimize"] * (len(names) - 1)])  # fmt: skip
    opened.set_user_attr("objectives", [[name, "minimise" if at else "maximise"] for at, name in enumerate(names)])
    for _ in range(count):
        point = study.space.at([draw.uniform() for _ in study.space])
        distributions = {name: study.space[name].distribution() for name in point}
        values = [value(point), *[1.0] * (len(names) - 1)]
        opened.add_trial(create_trial(params=point, distributions=distributions, values=values))
    return Results(study, opened)


HOW = {  # what a command says beside its space and its name
    "as a front": ["search=tpe", "search.n_trials=24", "search.seeds=2", "search.also=[parameters]", "search.workers=3",
                   "search.seed=7", "search.retry=0", "search.sampler.startup=4", "data=iris", "batch_size=17"],
    "pruned and confirmed": ["search=gp", "search.n_trials=30", "search.confirm=4", "pruner=asha", "search.timeout=9",
                             "search.max_failures=3", "search.storage=sqlite:///a b.db", "question='what, then?'"],
    "on a cluster": ["search=random", "search.n_trials=20", "search.extend=true", "launcher=slurm", "cluster=generic",
                     "resources=cpu", "resources.time=01:00:00", "launcher.workers=2"],
}  # fmt: skip


@pytest.mark.parametrize(
    "how",
    [pytest.param(words, id=name, marks=[pytest.mark.slow] * (name == "on a cluster")) for name, words in HOW.items()],
)
def test_the_next_search_is_a_line_that_can_be_pasted_and_asks_for_another_space_and_name_alone(
    how: list[str], begun, tmp_path: Path
) -> None:
    for folder, name in (("lab 1/conf", "mine"), ("lab,2/conf", "yours")):
        (tmp_path / folder / "model").mkdir(parents=True)
        (tmp_path / folder / "model" / f"{name}.yaml").write_text("defaults: [mlp, _self_]\nhidden: [7]\n")
    places = ["--config-dir", "lab 1/conf", f"hydra.searchpath=['file://{tmp_path}/lab,2/conf']"]
    space = ["model=mine,yours", "optimiser.lr=tag(log,interval(1e-4,1e-1))"]
    study = begun("-m", "study=s", *places, *how, *space)
    assert study.config_dirs == [str(tmp_path / "lab 1/conf"), str(tmp_path / "lab,2/conf")]
    results = filled(study, lambda point: (point["model"] == "yours") - abs(math.log10(point["optimiser.lr"]) + 2.5))
    program, *words = shlex.split(next_search(results, {}))
    following = begun(*words)
    was, is_ = ({**asdict(one), "fixed": sorted(one.fixed)} for one in (study, following))
    assert program == "scripts/train"
    assert "model=yours" in following.fixed
    was["fixed"] = sorted([*was["fixed"], "model=yours"])  # of the two models the one is left
    kind = {"random": "tpe"}.get(study.kind, study.kind)
    assert is_["kind"] == kind
    other = {"folder", "home", "name", "command", "cwd", "created", "space", "_points"} | (
        {"kind"} if kind != study.kind else set()
    )
    differing = {key for key in was if was[key] != is_[key]}
    if kind != study.kind:
        assert was["search"] | {"sampler": is_["search"]["sampler"], "extend": False} == is_["search"]
        other |= {"search"}
    assert differing <= other
    assert {"name", "space"} <= differing
    assert following.name == "s-next"
    low, high = (getattr(following.space["optimiser.lr"], end) for end in ("low", "high"))
    assert 1e-4 < low < 10**-2.5 < high < 1e-1
    where = [word for word in how if word.startswith(("launcher", "cluster", "resources"))]
    assert [word for word in words if word.startswith(("launcher", "cluster", "resources"))] == where


def test_the_next_search_leaves_the_choices_that_others_depend_on(begun, tmp_path: Path) -> None:
    (tmp_path / "lab/space").mkdir(parents=True)
    (tmp_path / "lab/space/mine.yaml").write_text(
        "optimiser: choice(sgd,adamw,adam)\noptimiser.momentum:\n  when: optimiser=sgd\n  values: interval(0.0,0.9)\n"
    )
    study = begun("-m", "study=s", "search=tpe", "space=mine", "--config-dir=lab")
    results = filled(study, lambda point: float(point["optimiser"] != "sgd"))
    assert {trial.params["optimiser"] for trial in results.finished[:6]} == {"adamw", "adam"}
    following = begun(*shlex.split(next_search(results, {}))[1:])  # without sgd it would be refused
    assert following.space["optimiser"].choices == ("sgd", "adamw", "adam")
    assert following.space["optimiser.momentum"] == study.space["optimiser.momentum"]


def test_a_password_that_was_not_written_down_is_asked_for(begun, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.delenv("PLUMBLINE_STORAGE", raising=False)
    words = ["-m", "study=s", "seed=0,1", "search.storage=postgresql://me:***@host/db"]
    assert begun(*words) is None
    assert "its password is written nowhere; say the URL with it, or PLUMBLINE_STORAGE=" in capsys.readouterr().err
    monkeypatch.setenv("PLUMBLINE_STORAGE", f"sqlite:///{tmp_path}/studies.db")
    assert begun(*words).storage == f"sqlite:///{tmp_path}/studies.db"


def test_a_study_without_a_result_says_so(tmp_path: Path) -> None:
    results = results_of(tmp_path, (LR,), [{"point": {"optimiser.lr": 0.1}, "value": 0, "status": "failed"}])
    assert said(results) == {"none_finished": "fail"}
    assert "No trial has finished" in page(results.study, results.opened)


# --- the curves ------------------------------------------------------------------------------------------------------


def test_a_trial_of_several_seeds_has_their_mean_for_a_curve_as_far_as_all_came(tmp_path: Path) -> None:
    rows = bowl(-2.5, count=3)
    for row in rows:
        del row["epoch"]
    results = results_of(tmp_path, (LR,), rows, seeds=3)
    for seed, epochs in ((0, 6), (1, 4)):  # the third did not begin
        (folder := tmp_path / "0001" / f"seed-{seed}").mkdir(parents=True)
        records = [{"epoch": epoch, "val/accuracy": 0.1 * epoch + 0.02 * seed} for epoch in range(1, epochs + 1)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (line,) = curves(results).data
    assert (line.name, list(line.x)) == ("trial 1", [1, 2, 3, 4])
    assert list(line.y) == pytest.approx([0.11, 0.21, 0.31, 0.41])
    text = page(results.study, results.opened)
    assert "by epoch, the mean of a trial&#39;s seeds (3, or those that ran) as far as all of them came: blue" in text
    assert "left out" not in text


def test_curves_that_are_left_out_are_counted_in_the_caption(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("plumbline.search.postmortem.CURVES", 5)
    rows = bowl(-2.5, count=12)
    best = max(range(12), key=lambda number: rows[number]["value"])
    rows.insert(0, rows.pop(best))
    results = results_of(tmp_path, (LR,), rows)
    names = [line.name for line in curves(results).data]
    assert names == [*(f"trial {number}" for number in range(7, 12)), "trial 0"]
    assert "6 of 12 trials are left out: shown are the last 5, and the best." in page(results.study, results.opened)


def test_the_epochs_that_pruning_between_seeds_spared_are_those_of_the_seeds_that_did_not_run(tmp_path: Path) -> None:
    rows = [
        {"point": {"optimiser.lr": 0.01}, "value": 0.9},
        {"point": {"optimiser.lr": 0.02}, "value": 0, "status": "pruned"},
    ]
    results = results_of(tmp_path, (LR,), rows, seeds=2)
    for number, seeds in ((0, 2), (1, 1)):
        for seed in range(seeds):
            (folder := tmp_path / f"000{number}" / f"seed-{seed}").mkdir(parents=True)
            (folder / "config.yaml").write_text("epochs: 20\n")
            (folder / "metrics.jsonl").write_text("{}\n" * 20)
    spared = next(one["message"] for one in judge(results) if one["id"] == "study.saved")
    assert spared == "1 of 2 trials were pruned: 25% of the epochs were saved."


# --- the page --------------------------------------------------------------------------------------------------------

EVIL = "</script><script>document.title='broken'</script><img src=x onerror=alert(1)>"


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """The page of a study whose choices and last lines are not what anyone would want in a page."""
    kind = Parameter("name", "…", choices=("plain", EVIL))
    rows = bowl(-2.5, count=12)
    for index, row in enumerate(rows):
        row["point"]["name"] = ("plain", EVIL)[index % 2]
    rows.append(
        {"point": {"optimiser.lr": 0.1, "name": EVIL}, "value": 0, "status": "failed", "attributes": {"reason": EVIL}}
    )
    results = results_of(tmp_path, (LR, kind), rows)
    results.study.question = EVIL
    path = tmp_path / "report.html"
    path.write_text(page(results.study, results.opened))
    return path


def test_the_page_is_one_file_with_plotly_in_it_once_and_no_address_to_load_from(evil: Path) -> None:
    text = evil.read_text()
    assert text.count("plotly.js v") == 1
    assert "default-src 'none'" in text
    outside = text[: text.index("<script>")] + text[text.rindex("</script>") :]
    assert re.findall(r"(?:src|href)\s*=", outside.replace("&lt;img src=x", "")) == []
    ours = text[text.rindex("<script>") :]  # what draws the pictures
    assert ours.count("</script>") == 1
    assert "<img" not in ours


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_browser_draws_every_picture_and_runs_nothing_of_the_trials(evil: Path, tmp_path: Path) -> None:
    words = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=8000", "--dump-dom", f"file://{evil}",
    ]  # fmt: skip
    dom = subprocess.run(words, capture_output=True, text=True, timeout=120).stdout
    assert "<title>study s</title>" in dom
    for name in ("history", "importance", "slices", "parallel", "curves"):
        assert re.search(rf'id="plot-{name}"[^>]*class="[^"]*js-plotly-plot', dom) or re.search(
            rf'class="[^"]*js-plotly-plot[^"]*"[^>]*id="plot-{name}"', dom
        ), name
    assert "onerror=alert" not in re.sub(r"<script.*?</script>", "", dom, flags=re.S).replace(
        "&lt;img src=x onerror=alert", ""
    )


@pytest.mark.slow
def test_what_a_study_leaves_can_be_made_again_from_its_folder(search, tmp_path: Path) -> None:
    done = search("study=s", "search=random", "search.n_trials=3", "space=learning_rate")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "outputs/studies/s"
    table, best = ((folder / name).read_bytes() for name in ("trials.csv", "best.yaml"))
    for name in ("trials.csv", "best.yaml", "report.html"):
        (folder / name).unlink()
    study = Study.read(folder)
    finish(study, study.open())
    assert ((folder / "trials.csv").read_bytes(), (folder / "best.yaml").read_bytes()) == (table, best)
    assert (folder / "report.html").stat().st_size > 1_000_000
