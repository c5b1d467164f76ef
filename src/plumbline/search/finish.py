"""When a study is done: the best once more on fresh seeds, then best.yaml, trials.csv and the report."""

from __future__ import annotations

import csv
import fcntl
import io
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import yaml
from omegaconf import DictConfig, OmegaConf

from plumbline import mistakes
from plumbline.compose import hydra_at, without_study
from plumbline.contract import ConfigError
from plumbline.files import make_folder, open_file, read_json
from plumbline.output import csv_cell, print_error, printable
from plumbline.search.study import CODE, NoTrials

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from plumbline.search.study import Study
    from plumbline.search.worker import Worker

CONFIRM = "confirm"
FRESH = 1000  # seeds of the confirmation are so far from those of the trials
HEAD = """\
# @package _global_
# Question: {question}
# Command:  {command}
# Cost:     {seconds:.0f} s
# Expected: {objective} {value!r}, bit by bit on this machine with this code (commit {commit})
"""


def best_trials(opened: optuna.Study) -> list[FrozenTrial]:
    """The best trial, or the Pareto front, or nothing if no trial has finished."""
    from optuna.trial import TrialState

    if not opened.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        return []
    return opened.best_trials if len(opened.directions) > 1 else [opened.best_trial]


def confirmations(study: Study) -> list[Path]:
    return [study.folder / CONFIRM / f"seed-{k}" for k in range(study.search["confirm"])]


def confirm(worker: Worker) -> bool:
    """Run the best trial's point with fresh seeds, each in a folder of its own; whether no other worker is at it still."""
    best, alone = best_trials(worker.opened), True
    for k, directory in enumerate(confirmations(worker.study) if best else []):
        make_folder(worker.study.folder, *directory.relative_to(worker.study.folder).parts)
        with open_file(directory / ".taken", "a") as claim:
            try:
                fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                alone = False  # another worker has it
                continue
            worker.run(best[0], FRESH + k, directory, None)
        if worker.asked.status is not None:
            break
    return alone


def unconfirmed(study: Study) -> int:
    """How many runs of the confirmation have not ended yet."""
    from plumbline.search.outcome import outcome

    return sum(outcome(directory) is None for directory in confirmations(study))


def confirmed(study: Study) -> list[float]:
    """The objective of the best on its fresh seeds, as far as they have run."""
    from plumbline.search.outcome import outcome

    ends = [outcome(directory) for directory in confirmations(study)]
    runs = [end.run for end in ends if end is not None and end.status == "finished"]
    values = [run["best"].get(run.get("objective")) for run in runs]
    return [value for value in values if isinstance(value, int | float)]


def claimed(study: Study) -> IO[str] | None:
    """The right to write what a study leaves, as long as the file is open; None if another worker has it."""
    claim = open_file(study.folder / ".finishing", "a")  # whoever asks closes it
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        claim.close()
        return None
    return claim


def get_ready(study: Study, opened: optuna.Study, enough: Callable[[], bool]) -> None:
    """What `finish` needs long for, beforehand: a worker that waits for another one's last trial has the time.

    What it keeps is the page of the best so far; the rest is made to have its parts at hand. enough: that trial has ended.
    """
    from plumbline.search.postmortem import page

    for trial in best_trials(opened)[:1]:
        page_of(study, trial)
        if enough():
            return
        experiment(study, opened, trial)
    if not enough():
        page(study, opened)


def finish(study: Study, opened: optuna.Study, claim: IO[str] | None = None) -> None:
    """Write what a study leaves: trials.csv, best.yaml, report.html; from the storage and the folders alone.

    Of workers that are done at one moment, one does it: who has the claim already, or gets it.
    """
    claim = claim or claimed(study)
    if claim is not None:
        with claim:
            _finish(study, opened)


def finish_late(study: Study) -> bool:
    """Whether nothing is left to do; write what a study leaves where its last worker was killed before it did."""
    from plumbline.search.watch import View

    try:
        view = View(study, study.open())
    except (NoTrials, KeyError):  # KeyError: its maker was killed before it was whole
        return False
    if not view.done or unconfirmed(study):
        return False
    report = study.folder / "report.html"
    if not report.exists() or report.stat().st_mtime < view.last_end():
        finish(study, view.opened)
    return True


def _finish(study: Study, opened: optuna.Study) -> None:
    from plumbline.files import write_text
    from plumbline.search.postmortem import write_postmortem

    write_text(study.folder / "trials.csv", table(study, opened))
    for trial in best_trials(opened)[:1]:
        write_text(study.folder / "best.yaml", experiment(study, opened, trial))
        link = make_folder(study.folder, "experiment") / "best.yaml"
        if not link.is_symlink():
            link.symlink_to("../best.yaml")
        page_of(study, trial)
    write_postmortem(study, opened)


def page_of(study: Study, trial: FrozenTrial) -> None:
    """Write the report of a trial's (first) run, unless it is there."""
    from plumbline.report.page import write_report

    directory = run_folder(study, trial.number)
    if (directory / "report.html").exists() or not (directory / "run.json").exists():
        return
    try:
        write_report(directory)
    except Exception as error:  # a damaged folder costs its own page, not the study's
        print_error(f"{directory}: its report cannot be written ({type(error).__name__}: {error})")


def run_folder(study: Study, number: int) -> Path:
    """The folder of a trial's (first) run."""
    return run_folders(study, number)[0]


def run_folders(study: Study, number: int) -> list[Path]:
    """The folders of all runs of a trial, one a seed."""
    return study.run_folders(number)


def table(study: Study, opened: optuna.Study) -> str:
    """A row a trial, for anyone else's tools."""
    objectives = [name for name, _ in opened.user_attrs["objectives"]]
    text = io.StringIO()
    spread = [f"{objectives[0]} std"] if study.search["seeds"] > 1 else []
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(
        csv_cell(name)
        for name in ["trial", "status", *objectives, *spread, *study.space.names, "seconds", "folder", "reason"]
    )
    for trial in opened.get_trials(deepcopy=False):
        values = trial.values or [""] * len(objectives)
        seconds = (trial.datetime_complete - trial.datetime_start).total_seconds() if trial.datetime_complete else ""
        reason = trial.user_attrs.get("reason", "").strip().splitlines()[-1:]
        row = [trial.number, status(trial), *values, *([deviation(trial)] if spread else [])]
        row += [trial.params.get(name, "") for name in study.space.names]
        row += [seconds, study.trial(trial.number).name, *(reason or [""])]
        rows.writerow(map(csv_cell, row))
    return text.getvalue()


def status(trial: FrozenTrial) -> str:
    """The status of a trial as a run's is called."""
    words = {"COMPLETE": "finished", "FAIL": "failed", "PRUNED": "pruned", "RUNNING": "running", "WAITING": "waiting"}
    return (
        trial.user_attrs.get("status", words[trial.state.name])
        if trial.state.is_finished()
        else words[trial.state.name]
    )


def by_itself(trial: FrozenTrial) -> bool:
    """Whether a trial failed by its own fault: not one that something else ended time and again, as a machine does."""
    return trial.state.name == "FAIL" and not trial.user_attrs.get("died", {}).get("over", False)


def deviation(trial: FrozenTrial) -> float | str:
    """The standard deviation of the first objective over a trial's seeds."""
    from statistics import stdev

    values = [value[0] for value in trial.user_attrs.get("values", [])]
    return stdev(values) if len(values) > 1 else ""


def command(study: Study) -> str:
    """What reproduces the best trial from best.yaml."""
    folder = study.folder
    here = os.path.relpath(folder, study.cwd) if folder.is_relative_to(study.cwd) else str(folder)
    words = study.where(str(folder)) if study.config_dirs else [f"--config-dir={here}"]
    words += [word for word in study.fixed if word.startswith("allow=")]
    return shlex.join(["scripts/train", *words, "experiment=best"])


def experiment(study: Study, opened: optuna.Study, trial: FrozenTrial) -> str:
    """The best trial as an experiment file: the options it chooses, then only what differs from them."""
    from hydra import compose

    run = facts(study, trial, opened.user_attrs["objectives"][0][0])
    words = [*study.fixed, *study.space.words(trial.params)]
    folders = study.folders(snapshot=True)
    with mistakes.explained(folders, f"study={study.name}: "), hydra_at(folders):
        full = compose(study.config_name, words, return_hydra_config=True)
        chosen = {g: c for g, c in full.hydra.runtime.choices.items() if not g.startswith("hydra/") and "@" not in g}
        chosen = {
            group: choice
            for group, choice in chosen.items()
            if group not in ("experiment", "search", "space", "pruner")
        }
        pairs = [f"{group}={_word(choice)}" for group, choice in chosen.items() if choice is not None]
        base, cfg = without_study(compose(study.config_name, pairs)), without_study(full)
    wanted = OmegaConf.to_container(_without_hydra(cfg), resolve=False)
    if "threads" in run["environment"]:
        wanted["threads"] = run["environment"]["threads"]
    deltas = _differing(wanted, OmegaConf.to_container(base, resolve=False))
    for key in ("allow", "resume", "outputs"):
        deltas.pop(key, None)
    git = {"commit": None, "dirty": False} | run["git"]
    head = HEAD.format(
        question=printable(run["question"] or f"the best of the study {study.name}"), command=printable(command(study)),
        seconds=run["seconds"],
        objective=run["objective"], value=run["best"][run["objective"]],
        commit=f"{git['commit'] or 'unknown'}{', with changes' if git['dirty'] else ''}",
    )  # fmt: skip
    defaults = [{f"override /{group}": _plain(choice)} for group, choice in chosen.items() if choice is not None]
    return head + yaml.safe_dump({"defaults": defaults, **deltas}, sort_keys=False, allow_unicode=True)


def facts(study: Study, trial: FrozenTrial, objective: str) -> dict[str, Any]:
    """What best.yaml tells of a trial's (first) run; of one whose folder is gone or damaged, what the storage knows."""
    from plumbline.environment import SNAPSHOT
    from plumbline.search.outcome import read_run

    first = trial.user_attrs.get("values") or [trial.values]
    git = read_mapping(study.folder / CODE / SNAPSHOT)
    known = {
        "question": study.question, "objective": objective, "best": {objective: first[0][0]}, "git": git, "environment": {},
        "seconds": (trial.datetime_complete - trial.datetime_start).total_seconds(),
    }  # fmt: skip
    run = read_run(run_folder(study, trial.number)) or {}
    known |= {key: run[key] for key in known if isinstance(run.get(key), type(known[key]))}
    known["best"].setdefault(objective, first[0][0])
    return known


def read_mapping(path: Path) -> dict[str, Any]:
    """A JSON file of ours; empty where it is gone or damaged."""
    try:
        return read_json(path)
    except ConfigError:
        return {}


def _without_hydra(cfg: DictConfig) -> DictConfig:
    from omegaconf import open_dict

    with open_dict(cfg):
        cfg.pop("hydra", None)
    return cfg


def _plain(choice: Any) -> Any:
    return OmegaConf.to_container(choice) if OmegaConf.is_config(choice) else choice


def _word(choice: Any) -> str:
    choice = _plain(choice)
    return f"[{','.join(choice)}]" if isinstance(choice, list) else str(choice)


def _differing(wanted: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """The part of a nested mapping that is not the same in the other."""
    found = {}
    for key, value in wanted.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            inside = _differing(value, base[key])
            if inside:
                found[key] = inside
        elif key not in base or base[key] != value:
            found[key] = value
    return found
