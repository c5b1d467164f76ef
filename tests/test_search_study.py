"""A multirun is a study: it has a total, goes on, refuses what it is not, and leaves what was found."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, TINY, noted, one_in, records, trials

GRID = ["seed=0,1,2", "optimiser.lr=1e-3,1e-2"]


def study_of(folder: Path, name: str = "s") -> Path:
    return folder / "outputs/studies" / name


def test_a_grid_is_a_study_in_a_folder_of_its_name(search, tmp_path: Path) -> None:
    done = search("study=s", *GRID)
    assert (done.returncode, done.stderr) == (0, "")
    rows = trials(study_of(tmp_path))
    assert [(row["seed"], row["optimiser.lr"]) for row in rows] == [(s, lr) for s in "012" for lr in ("0.001", "0.01")]
    assert [row["status"] for row in rows] == ["finished"] * 6
    for row in rows:
        folder = study_of(tmp_path) / row["folder"]
        settings = yaml.safe_load((folder / "config.yaml").read_text())
        assert (settings["seed"], settings["optimiser"]["lr"]) == (int(row["seed"]), float(row["optimiser.lr"]))
        assert set(settings) & {"search", "space", "pruner", "study"} == set()
        assert noted(folder)["best"]["val/accuracy"] == float(row["val/accuracy"])
        assert f"seed={row['seed']}" in noted(folder)["command"].split()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outputs"]  # no multirun/, no multirun.yaml
    assert list(tmp_path.rglob("multirun.yaml")) == []


@pytest.mark.slow
def test_a_trials_command_makes_the_same_run(search, train, tmp_path: Path) -> None:
    search("study=s", "search=random", "search.n_trials=1", "optimiser.lr=interval(1e-3,1e-2)")
    words = shlex.split(noted(study_of(tmp_path) / "0000")["command"])
    assert words[0] == "scripts/train"
    assert train(*words[1:], "hydra.run.dir=again").returncode == 0
    assert records(tmp_path / "again") == records(study_of(tmp_path) / "0000")


def test_the_same_command_goes_on_to_the_total_and_then_says_that_it_is_done(search, tmp_path: Path) -> None:
    words = ["search=tpe", "space=learning_rate"]
    assert search(*words, "search.n_trials=3").returncode == 0
    (folder,) = (tmp_path / "outputs/studies").iterdir()  # it has no name: the command stands for it
    first = trials(folder)
    assert len(first) == 3
    assert search(*words, "search.n_trials=5").returncode == 0
    rows = trials(folder)
    assert len(rows) == 5
    assert [row["optimiser.lr"] for row in rows[:3]] == [row["optimiser.lr"] for row in first]
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.glob("[0-9]*/*"))
    os.utime(folder / "report.html", (0, 0))  # as if the last worker had been killed before it wrote another one
    again = search(*words, "search.n_trials=5")
    assert again.returncode == 0
    assert "is done" in again.stdout
    best = max(rows, key=lambda row: float(row["val/accuracy"]))
    assert f"best: val/accuracy {float(best['val/accuracy']):.4f}" in again.stdout
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.glob("[0-9]*/*")) == before
    assert len(list((tmp_path / "outputs/studies").iterdir())) == 1
    assert (folder / "report.html").stat().st_mtime_ns > max(when for _, when in before)


@pytest.mark.slow
def test_after_its_time_no_trial_begins_and_the_same_command_goes_on(search, tmp_path: Path) -> None:
    words = ["study=s", "search=random", "search.n_trials=3", "space=learning_rate"]
    done = search(*words, "search.timeout=0.001")
    assert (done.returncode, "not done; the same command goes on" in done.stdout) == (0, True)
    assert list(study_of(tmp_path).glob("0*")) == []
    assert search(*words).returncode == 0
    assert len(trials(study_of(tmp_path))) == 3


def by_hand(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "plumbline.search.worker", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)


@pytest.mark.slow
def test_without_workers_a_study_is_prepared_and_done_by_those_started_by_hand(search, tmp_path: Path) -> None:
    done = search("study=s", "seed=0,1", "search.workers=0")
    assert (done.returncode, "python -m plumbline.search.worker study=" in done.stdout) == (0, True)
    assert list(study_of(tmp_path).glob("0*")) == []
    worker = by_hand(tmp_path, "study=s")
    assert worker.returncode == 0, worker.stderr
    assert [row["status"] for row in trials(study_of(tmp_path))] == ["finished"] * 2
    wrong = by_hand(tmp_path, "study=t")
    assert (wrong.returncode, "there is no study.yaml" in wrong.stderr, "in" in wrong.stderr) == (2, True, True)


@pytest.mark.slow
def test_trials_run_from_the_code_as_it_was_when_the_study_began(search, tmp_path: Path) -> None:
    search("study=s", "seed=0,1", "search.workers=0")
    code = study_of(tmp_path) / "code"
    loop = code / "src/plumbline/signals.py"
    loop.write_text(loop.read_text() + "\nprint('of the copy')\n")
    assert by_hand(tmp_path, "study=s", "trust=true").returncode == 0
    assert noted(study_of(tmp_path) / "0000")["git"] == {
        key: value
        for key, value in json.loads((code / "snapshot.json").read_text()).items()
        if key not in ("root", "left_out")
    }


@pytest.mark.slow
def test_another_code_is_refused_with_the_files_and_taken_where_asked_for(search, tmp_path: Path) -> None:
    words = ["study=s", "search=random", "space=learning_rate"]
    search(*words, "search.n_trials=1")
    code = study_of(tmp_path) / "code/src/plumbline/loop.py"
    code.write_text(code.read_text() + "# as it was\n")
    refused = search(*words, "search.n_trials=2", "search.trust=true")
    assert refused.returncode == 2
    assert "  src/plumbline/loop.py\n    @@ " in refused.stderr
    assert "\n    -# as it was\n" in refused.stderr
    assert len(list(study_of(tmp_path).glob("0*"))) == 1
    assert search(*words, "search.n_trials=1").returncode == 0  # nothing to do needs no code
    taken = search(*words, "search.n_trials=2", "search.extend=true")
    assert taken.returncode == 0, taken.stderr
    assert len(trials(study_of(tmp_path))) == 2
    assert (study_of(tmp_path) / "code.1/src/plumbline/loop.py").read_text().endswith("# as it was\n")


def test_what_has_changed_in_the_code_is_shown_in_few_lines_that_cannot_speak_to_the_terminal(
    tmp_path: Path, monkeypatch
) -> None:
    from plumbline.search import code as of_study

    code, tree = tmp_path / "code", tmp_path / "tree"
    kept = [f"line {number}" for number in range(60)]
    files = {
        "a.py": ("\n".join(kept).encode(), "\n".join([*kept[:30], "# \x1b[2J\u202e\tnew", *kept[31:]]).encode()),
        "b.bin": (b"\xff\xfe", b"\xff\x00"),
        "c.csv": (b"1\n" * 150_000, b"2\n"),
        "d.py": (b"", "\n".join(f"{'x' * 500}{n}" for n in range(90)).encode()),
        "e.py": (b"1\n", b"2\n"),
        "f.py": (b"1\r\n", b"1\n"),
        "g.py": (b"1\n", None),
        **{f"z{number:02}.py": (b"1\n", b"2\n") for number in range(30)},
    }
    for folder, at in ((code, 0), (tree, 1)):
        folder.mkdir()
        for name, contents in files.items():
            if contents[at] is not None:
                (folder / name).write_bytes(contents[at])
    monkeypatch.setattr(of_study, "sources", lambda: [(file, file.relative_to(tree)) for file in tree.iterdir()])
    lines = of_study.code_difference(code, list(files))
    assert lines[:7] == [
        "  a.py", "    @@ -30,3 +30,3 @@", "     line 29", "    -line 30", "    +# \\x1b[2J\\u202e    new", "     line 31",
        "  b.bin (binary)",
    ]  # fmt: skip
    assert lines[7:9] == ["  c.csv (large)", "  d.py"]
    others = [f"  z{number:02}.py" for number in range(13)]
    assert lines[-18:-1] == ["  e.py", "  f.py (ends of lines)", "  g.py (gone)", *others, "  and 17 more files"]
    assert lines[-1].startswith(f"  and {91 - 35 + 14 * 3} more lines; all of it: diff -r {code} ")
    assert sum(line.startswith("    ") for line in lines) == of_study.LINES
    assert max(map(len, lines[:-1])) == 4 + of_study.WIDTH
    assert all(line.isprintable() for line in lines)


@pytest.mark.slow
def test_another_space_is_refused_and_a_wider_one_wants_to_be_asked_for(search, tmp_path: Path) -> None:
    words = ["study=s", "search=tpe", "search.n_trials=4"]
    small = ["optimiser.lr=tag(log,interval(1e-3,1e-2))", "optimiser=sgd,adamw"]
    wide = ["optimiser.lr=tag(log,interval(1e-4,1e-1))", "optimiser=sgd,adamw,adam"]
    assert search(*words, *small, "search.n_trials=2").returncode == 0
    before = trials(study_of(tmp_path))
    refused = search(*words, *wide)
    assert refused.returncode == 2
    for part in (
        "- optimiser.lr=tag(log,interval(1e-3,1e-2))",
        "+ optimiser.lr=tag(log,interval(1e-4,1e-1))",
        "search.extend=true",
    ):
        assert part in refused.stderr
    other = search(*words, *small, "batch_size=7", "search.extend=true")
    assert (other.returncode, "+ batch_size=7" in other.stderr) == (2, True)
    done = search(*words, *wide, "search.extend=true")
    assert done.returncode == 0, done.stderr
    rows = trials(study_of(tmp_path))
    assert [row["optimiser.lr"] for row in rows[:2]] == [row["optimiser.lr"] for row in before]
    assert [row["val/accuracy"] for row in rows[:2]] == [row["val/accuracy"] for row in before]
    assert [row["status"] for row in rows] == ["finished"] * 4
    assert search(*words, *small).returncode == 2  # a narrower one is not the study there is


@pytest.mark.slow
def test_a_wider_grid_adds_its_new_points_after_the_old(search, tmp_path: Path) -> None:
    search("study=s", "seed=0,1", "optimiser=sgd")
    assert search("study=s", "seed=2,0,1", "optimiser=sgd", "search.extend=true").returncode == 0
    assert [row["seed"] for row in trials(study_of(tmp_path))] == ["0", "1", "2"]


# --- several ---------------------------------------------------------------------------------------------------------


def test_a_trial_of_several_seeds_has_their_mean_and_spread(search, tmp_path: Path) -> None:
    done = search("study=s", "seed=5", "optimiser.lr=1e-3,1e-2", "search.seeds=3")
    assert done.returncode == 0, done.stderr
    for row in trials(study_of(tmp_path)):
        folders = [study_of(tmp_path) / row["folder"] / f"seed-{k}" for k in range(3)]
        assert [noted(folder)["seed"] for folder in folders] == [5, 6, 7]
        values = [noted(folder)["best"]["val/accuracy"] for folder in folders]
        assert float(row["val/accuracy"]) == pytest.approx(statistics.mean(values), abs=1e-12)
        assert float(row["val/accuracy std"]) == pytest.approx(statistics.stdev(values), abs=1e-12)


@pytest.mark.slow
def test_a_hopeless_trial_ends_between_its_seeds(search, tmp_path: Path) -> None:
    words = [
        "optimiser=sgd",
        "optimiser.lr=0.1,0.1001,0.1002,0.1003,1e-9",
        "search.seeds=3",
        "pruner=median",
        "pruner.trials=3",
    ]
    done = search("study=s", *words, "pruner.epochs=0", "epochs=8", "search.workers=1")
    assert done.returncode == 0, done.stderr
    rows = trials(study_of(tmp_path))
    assert [row["status"] for row in rows][-1] == "pruned"
    assert len(list((study_of(tmp_path) / "0004").glob("seed-*"))) == 1


@pytest.mark.slow
def test_pruning_ends_what_is_behind_and_its_run_says_so(search, tmp_path: Path) -> None:
    words = [
        "optimiser=sgd",
        "optimiser.lr=0.1,0.1001,0.1002,1e-9,1e-8",
        "pruner=median",
        "pruner.trials=2",
        "epochs=8",
    ]
    done = search("study=s", *words, "search.workers=1")
    assert done.returncode == 0, done.stderr
    statuses = [row["status"] for row in trials(study_of(tmp_path))]
    assert statuses[:2] == ["finished"] * 2
    assert statuses[3:] == ["pruned"] * 2
    run = noted(study_of(tmp_path) / "0003")
    assert (run["status"], run["error"]) == ("pruned", None)
    assert 1 <= len(records(study_of(tmp_path) / "0003")) < 8


@pytest.mark.slow
def test_several_objectives_give_a_front_that_nothing_dominates(search, tmp_path: Path) -> None:
    done = search("study=s", "model.hidden=[2],[4],[8],[16]", "search.also=[parameters]", "epochs=5")
    assert done.returncode == 0, done.stderr
    rows = trials(study_of(tmp_path))
    pairs = {row["trial"]: (float(row["val/accuracy"]), float(row["parameters"])) for row in rows}
    front = {
        name for name, (a, p) in pairs.items()
        if not any(b >= a and q <= p and (b, q) != (a, p) for b, q in pairs.values())
    }  # fmt: skip
    said = {
        line.split("trial ")[1].split()[0]
        for line in done.stdout.splitlines()
        if line.startswith(("front: ", "best: val"))
    }
    assert said == front
    assert len({p for _, p in pairs.values()}) == 4


@pytest.mark.slow
def test_the_best_is_confirmed_on_fresh_seeds(search, tmp_path: Path) -> None:
    done = search("study=s", "seed=0,1", "search.confirm=3")
    assert done.returncode == 0, done.stderr
    folders = sorted((study_of(tmp_path) / "confirm").glob("seed-*"))
    best = max(trials(study_of(tmp_path)), key=lambda row: float(row["val/accuracy"]))
    assert [noted(folder)["seed"] for folder in folders] == [int(best["seed"]) + 1000 + k for k in range(3)]
    values = [noted(folder)["best"]["val/accuracy"] for folder in folders]
    line = f"confirmed on 3 fresh seeds: val/accuracy {statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"
    assert line in done.stdout
    assert math.isfinite(sum(values))


# --- best.yaml -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_best_yaml_makes_the_best_run_again_to_the_same_bits(search, train, tmp_path: Path) -> None:
    import numpy as np

    words = ["optimiser=sgd,adamw", "optimiser.momentum=interval(0,0.9)", "regulariser=[dropout]", "schedule=linear"]
    words[1] = "optimiser.lr=interval(1e-3,1e-1)"
    done = search("study=s", "search=random", "search.n_trials=3", *words, "threads=null")
    assert done.returncode == 0, done.stderr
    folder = study_of(tmp_path)
    command = next(line for line in (folder / "best.yaml").read_text().splitlines() if line.startswith("# Command:"))
    words = command.removeprefix("# Command:")
    words = shlex.split(words)
    assert words[0] == "scripts/train"
    again = train(*words[1:], "hydra.run.dir=again")
    assert again.returncode == 0, again.stderr
    best = max(trials(folder), key=lambda row: float(row["val/accuracy"]))
    assert records(tmp_path / "again") == records(folder / best["folder"])
    one, other = (np.load(place / "predictions.npz") for place in (tmp_path / "again", folder / best["folder"]))
    assert {key: one[key].tobytes() for key in one.files} == {key: other[key].tobytes() for key in other.files}


def test_the_command_of_best_yaml_names_every_folder_of_options(train, tmp_path: Path, monkeypatch) -> None:
    from test_search_report import LR
    from test_search_report import study_of as noted_of

    from plumbline.search.finish import command
    from plumbline.train import config_dirs

    folders = [tmp_path / name for name in ("one", "two, and (more)", "it's three", "study")]
    for number, folder in enumerate(folders):
        (folder / "model").mkdir(parents=True)
        (folder / "model" / f"mine{number}.yaml").write_text(f"defaults: [mlp, _self_]\nhidden: [{number}]\n")
    (folders[3] / "experiment").mkdir()
    study = noted_of(folders[3], (LR,))
    study.cwd = str(tmp_path)
    monkeypatch.chdir(tmp_path)
    for count in range(4):
        study.config_dirs = [str(folder) for folder in folders[:count]]
        best = f"# @package _global_\ndefaults:\n  - override /model: mine{(count - 1) % 4}\n"
        (folders[3] / "experiment/best.yaml").write_text(best)
        program, *words = shlex.split(command(study))
        assert program == "scripts/train"
        assert config_dirs(words) == [folders[0] if count else folders[3]]
        done = train(*words, "--cfg", "job", "--package", "model")
        assert f"- {(count - 1) % 4}\n" in done.stdout, done.stderr


OWN = """
from math import prod
from torch import nn

class Net(nn.Module):
    def __init__(self, spec, *, width: int):
        super().__init__()
        self.hidden, self.head = nn.Linear(prod(spec.shape), width), nn.Linear(width, spec.outputs)

    def forward(self, x):
        return self.head(self.hidden(x.flatten(1)).relu())
"""


@pytest.mark.slow
def test_the_command_of_best_yaml_finds_modules_beside_any_folder_of_options(train, tmp_path: Path) -> None:
    for name in ("one", "two it's"):
        (tmp_path / name / "conf/model").mkdir(parents=True)
    (tmp_path / "two it's/mine.py").write_text(OWN)
    (tmp_path / "two it's/conf/model/mine.yaml").write_text("# Mine.\n_target_: mine.Net\nwidth: 4\n")
    folders = ["--config-dir=one/conf", f"--config-dir={tmp_path}/two it's/conf"]
    words = ["study=s", "model=mine", "model.width=4,8", "allow=[plumbline,torch.nn,torch.optim,mine]"]
    done = train("-m", *folders, *(word for word in TINY if "hidden" not in word), *words)
    assert (done.returncode, done.stderr) == (0, "")
    head = (study_of(tmp_path) / "best.yaml").read_text().splitlines()
    command = shlex.split(next(line for line in head if line.startswith("# Command:")).removeprefix("# Command:"))
    again = train(*command[1:], "hydra.run.dir=again")
    assert (again.returncode, again.stderr) == (0, "")
    best = max(trials(study_of(tmp_path)), key=lambda row: float(row["val/accuracy"]))
    assert records(tmp_path / "again") == records(study_of(tmp_path) / best["folder"])


# --- mistakes --------------------------------------------------------------------------------------------------------

MISTAKES = [
    (["-m", "optimiser.lr=interval(1e-4,1e-1)"], ["optimiser.lr=interval(1e-4,1e-1)", "search=tpe"]),
    (["-m", "search=tpe"], ["search=tpe", "nothing to search", "space="]),
    (["-m", "outputs=/dev/null", "seed=0,1"], ["/dev/null/studies/run-", "cannot be written to (Not a directory)", "outputs=…"]),
    (["-m", "search=tep", "seed=0,1"], ["search=tep", "(did you mean 'tpe'?)"]),
    (["-m", "pruner=ahsa", "seed=0,1"], ["pruner=ahsa", "(did you mean 'asha'?)"]),
    (["-m", "search.n_trails=3", "seed=0,1"], ["search.n_trails=3", "(did you mean 'n_trials'?)"]),
    (["-m", "search.n_trials=0", "seed=0,1"], ["search.n_trials=0", "in [1, 1000000] or null"]),
    (["-m", "search.n_trials=many", "seed=0,1"], ["search.n_trials=many", "a whole number or null"]),
    (["-m", "seed=0,1", "epochs=2,many"], ["epochs=many", "must be a whole number", "in the trial"]),
    (["-m", "modle=mlp,cnn"], ["modle", "(did you mean 'model'?)"]),
    (["-m", "model=mlp,cnnn"], ["model=cnnn", "(did you mean 'cnn'?)"]),
    (["-m", "seed=0,1", "study=a/b"], ["study='a/b'", "without slashes"]),
    (["-m", "seed=0,1", "resume=x"], ["resume=x", "the same command"]),
    (["-m", "search.workers=1,2"], ["search.workers=1,2", "one value"]),
    (["-m", "seed=0,1", "pruner=wilcoxon"], ["pruner=wilcoxon", "0 pairs", "search.seeds=5"]),
    (["-m", "seed=0,1", "pruner=wilcoxon", "search.seeds=4"], ["3 pairs", "pruner.p=0.1", "search.seeds=5"]),
    (["-m", "seed=0,1", "pruner=wilcoxon", "search.seeds=2", "pruner.p=0.5"], ["1 pairs", "search.seeds=3"]),
    (["-m", "seed=0,1", "pruner=asha", "search.also=[val/loss]"], ["pruner=asha", "search.also=[val/loss]", "pruner=none"]),
    (["-m", "seed=0,1", "search.storage=nonsense"], ["search.storage=", "cannot be opened"]),
    (["-m", "seed=0,1", "hydra.sweep.dir=x"], ["hydra.sweep.dir=x", "study=", "outputs="]),
    (["-m", "seed=0,1", "hydra.searchpath=[pkg://plumbline]"], ["hydra.searchpath=[pkg://plumbline]", "file://"]),
    (["-m", "seed=0,1", "hydra/launcher=basic"], ["hydra/launcher=basic", "workers"]),
    (["search=tpe"], ["search=tpe", "put -m in front"]),
    (["search.n_trials=3"], ["search.n_trials=3", "put -m in front"]),
    (["space=[learning_rate]"], ["space=[learning_rate]", "put -m in front"]),
    (["study=x"], ["study=x", "put -m in front"]),
]  # fmt: skip
BUILT = [
    (["model=mlp,cnn", "seed=0,1"], ["model=cnn", "(4,)", "in the trial model=cnn seed=0"]),
    *(
        pytest.param(words, parts, marks=pytest.mark.slow)
        for words, parts in [
            (["data=iris,diabetes", "objective=auto"], ["objective=auto", "val/accuracy", "val/rmse"]),
            (["search=tpe", "optimiser.lr=interval(-1,1)"], ["optimiser.lr=-1", "that is 0 or in [1e-30, 1e30]"]),
            (["model.hidden=[3],abc"], ["model.hidden=abc", "a list of whole numbers"]),
            (["model=mlp,cnn"], ["model=cnn", "(4,)"]),
            (["data.val_fraction=0.2,2"], ["data.val_fraction=2", "between 0 and 1"]),
            (["objective=val/acuracy", "seed=0,1"], ["objective=val/acuracy", "(did you mean 'val/accuracy'?)"]),
            (["search.also=[val/f2]", "seed=0,1"], ["search.also=val/f2", "val/f1", "parameters"]),
        ]
    ),
]


@pytest.mark.parametrize(("words", "parts"), one_in(3, MISTAKES), ids=lambda value: " ".join(value)[:60])
def test_a_mistake_is_one_message_without_torch_and_leaves_nothing(words, parts, tmp_path: Path) -> None:
    program = (
        "import sys, plumbline.train as t; status = t.main(); "
        "print('torch' if 'torch' in sys.modules else 'none'); sys.exit(status)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", program, *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("plumbline: ")
    assert done.stderr.count("\n") == 1
    assert [part for part in parts if part not in done.stderr] == [], done.stderr
    assert done.stdout == "none\n"
    assert list(tmp_path.iterdir()) == []
    assert processes(f"study={tmp_path}/") == []  # the worker that was begun meanwhile has ended


def processes(word: str) -> list[int]:
    """Those with a word of their command that begins so."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            if any(each.startswith(word.encode()) for each in entry.read_bytes().split(b"\0")):
                found.append(int(entry.parent.name))
    return found


@pytest.mark.parametrize(("words", "parts"), BUILT, ids=lambda value: " ".join(value)[:60])
def test_a_mistake_that_only_torch_sees_costs_no_trial_and_leaves_nothing(words, parts, search, tmp_path: Path) -> None:
    done = search(*words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("plumbline: ")
    assert [part for part in parts if part not in done.stderr] == [], done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert list(tmp_path.rglob("run.json")) == []
    assert list(tmp_path.glob("outputs/studies/*")) == []


@pytest.mark.slow
def test_trials_csv_can_be_read_by_anything(search, tmp_path: Path) -> None:
    search("study=s", "model.hidden=[8,8],[4]")
    with open(study_of(tmp_path) / "trials.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["trial", "status", "val/accuracy", "model.hidden", "seconds", "folder", "reason"]
    assert {len(row) for row in rows} == {7}
    assert [row[3] for row in rows[1:]] == ["[8,8]", "[4]"]


@pytest.mark.slow
def test_status_reads_a_study_and_imports_no_torch(search, tmp_path: Path) -> None:
    search("study=s", "seed=0,1")
    program = (
        "import sys; sys.argv = ['status', 'study=s']; import plumbline.search.status as s; "
        "status = s.main(); print('torch' in sys.modules, status)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "False 0"
    assert "2 of 2 trials ended: 2 finished; best val/accuracy" in done.stdout
    assert TINY[0] in done.stdout  # the command


@pytest.mark.slow
def test_asha_finds_the_same_best_within_noise_with_half_the_epochs(train, tmp_path: Path) -> None:
    words = [
        "data=digits",
        "epochs=27",
        "threads=1",
        "bootstrap=1",
        "search=random",
        "search.n_trials=20",
        "search.workers=2",
    ]
    words += ["optimiser.lr=tag(log,interval(1e-4,1e-1))", "model.hidden=choice([64],[128,64],[16])"]
    differences, epochs = [], {"none": 0, "asha": 0}
    for seed in range(5):
        best = {}
        for pruner in epochs:
            done = train("-m", f"study={pruner}{seed}", f"pruner={pruner}", f"search.seed={seed}", *words)
            assert done.returncode == 0, done.stderr
            folder = study_of(tmp_path, f"{pruner}{seed}")
            rows = [row for row in trials(folder) if row["status"] == "finished"]
            best[pruner] = max(float(row["val/accuracy"]) for row in rows)
            epochs[pruner] += sum(len(file.read_text().splitlines()) for file in folder.glob("0*/metrics.jsonl"))
        differences.append(best["none"] - best["asha"])
    print(f"best without less best with: {[round(d, 4) for d in differences]}; epochs {epochs}")
    assert epochs["none"] == 5 * 20 * 27
    assert epochs["asha"] <= 0.5 * epochs["none"]
    noise = math.sqrt(0.97 * 0.03 / 359)  # of an accuracy of 0.97 on 359 samples
    assert statistics.mean(differences) <= noise
