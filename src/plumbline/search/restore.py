"""Trials that the storage does not have, restored from their folders: after a journal or a database was lost."""

from __future__ import annotations

import json
import math
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from plumbline.contract import ConfigError
from plumbline.search import presence
from plumbline.search.difference import lasting
from plumbline.search.outcome import ENDED, measured, outcome, read_run
from plumbline.search.space import SEPARATOR, Parameter, Point, Space
from plumbline.search.study import Study
from plumbline.search.trial import is_complete

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

BEGUN = ("run.json", "last.pt", "metrics.jsonl")  # a run's folder that holds one of these has something to go on from
STATES = {"finished": "COMPLETE", "failed": "FAIL"}  # others end early


def restore(study: Study, opened: optuna.Study, objectives: list[list[str]]) -> int:
    """Give the storage every trial that only the folders have; return how many. Raises ConfigError where one cannot be.

    To be called under the study's lock: no trial is taken meanwhile.
    """
    folders = {int(path.name): path for path in study.folder.glob("[0-9]*") if path.name.isdecimal() and path.is_dir()}
    trials = opened.get_trials(deepcopy=False)
    missing = range(len(trials), max(folders, default=-1) + 1)
    templates = [template(study, opened, number, objectives) for number in missing]  # all, before the first is stored
    for trial in trials:
        if trial.number in folders:
            complete(study, opened, trial)
    for made in templates:
        opened._storage.create_new_trial(opened._study_id, template_trial=made)
    return len(templates)


def complete(study: Study, opened: optuna.Study, trial: FrozenTrial) -> None:
    """Give a trial that has not ended the point that it began with, where the storage lost it."""
    if trial.state.is_finished() or is_complete(study.space, trial.params):
        return
    if presence.alive(study.folder, trial.user_attrs.get("worker")):
        return
    if (found := point(study, trial.number)) is not None:
        opened._storage.set_trial_system_attr(trial._trial_id, "fixed_params", found)


def template(study: Study, opened: optuna.Study, number: int, objectives: list[list[str]]) -> FrozenTrial:
    """A trial as the storage had it: ended with its values, or waiting with its point."""
    from optuna.trial import TrialState, create_trial

    found = point(study, number)
    status, reason, values, runs = end(study, number, [name for name, _ in objectives])
    if found is None or status is None:
        known = study.point(number) if found is None else found
        return create_trial(state=TrialState.WAITING, system_attrs={} if known is None else {"fixed_params": known})
    attributes: dict[str, Any] = {"status": status}
    attributes |= {"reason": reason} if reason else {}
    attributes |= {"values": values} if values else {}
    means = [sum(column) / len(values) for column in zip(*values, strict=True)] if values else None
    made = create_trial(
        state=TrialState[STATES.get(status, "PRUNED")], values=means if status == "finished" else None, params=found,
        distributions={name: study.space[name].distribution() for name in found}, user_attrs=attributes,
        intermediate_values=reported(study, number, objectives[0][0], values),
    )  # fmt: skip
    made.datetime_start = clock(runs[0].get("started")) if runs else made.datetime_start
    made.datetime_complete = (clock(runs[-1].get("finished")) if runs else None) or made.datetime_complete
    return made


def end(
    study: Study, number: int, objectives: list[str]
) -> tuple[str | None, str, list[list[float]], list[dict[str, Any]]]:
    """(status, reason, values a seed, runs) of a trial from its folders; no status for one that is to go on."""
    values, runs = [], []
    if noted := note(study.trial(number) / ENDED):
        runs = [run for run in map(read_run, study.run_folders(number)) if run is not None]
        return noted["status"], str(noted.get("reason", "")), noted.get("values") or [], runs
    for folder in study.run_folders(number):
        check_run(study, folder)
        ended = outcome(folder)
        if ended is None:
            break
        runs.append(ended.run)
        if ended.status != "finished":
            return ended.status, ended.reason, values, runs
        try:
            values.append([measured(ended.run, name) for name in objectives])
        except (KeyError, TypeError, ValueError) as error:
            raise cannot(study, folder, f"its run.json has no {error}") from error
    if len(values) == study.search["seeds"]:
        return "finished", "", values, runs
    return None, "", values, runs


def note(path: Path) -> dict[str, Any]:
    """How a trial ended where no run of it says so."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) and facts.get("status") in ("failed", "pruned") else {}


def check_run(study: Study, folder: Path) -> None:
    if (folder / "run.json").exists() and read_run(folder) is None:
        raise cannot(study, folder, "its run.json is damaged")


def point(study: Study, number: int) -> Point | None:
    """The point of a trial from the words that its first run was started with; None of one that never began."""
    begun = [folder for folder in study.run_folders(number) if any((folder / name).exists() for name in BEGUN)]
    if not begun:
        return None
    try:
        words = yaml.safe_load((begun[0] / "overrides.yaml").read_text(encoding="utf-8"))
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError("its overrides.yaml is no list of words")
        return parse_point(study.space, study.fixed, words)
    except FileNotFoundError as error:
        raise cannot(study, begun[0], "its overrides.yaml is gone") from error
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise cannot(study, begun[0], " ".join(str(error).split())[:200]) from error


def parse_point(space: Space, fixed: list[str], words: list[str]) -> Point:
    """The point whose words are among these; raises ValueError where the words are not those of a trial."""
    given: dict[str, str] = {}
    for word in words:
        key, _, value = word.partition("=")
        given.setdefault(key, value)
    found: Point = {}
    for parameter in space:
        if space.active(parameter, found):
            found[parameter.name] = parse_value(parameter, given)
    others = [word for word in words if not word.startswith("seed=")]
    expected = [word for word in [*fixed, *space.words(found)] if not word.startswith("seed=")]
    if odd := set(lasting(others)) ^ set(lasting(expected)):
        raise ValueError(f"its overrides.yaml is of another study: {min(odd)}")
    return found


def parse_value(parameter: Parameter, given: dict[str, str]) -> Any:
    """A parameter's value from its words. Raises ValueError on one that it cannot have."""
    keys = parameter.name.split(", ")
    if missing := [key for key in keys if key not in given]:
        raise ValueError(f"its overrides.yaml has no {missing[0]}")
    text = SEPARATOR.join(given[key] for key in keys)
    value: Any = text
    if not parameter.choices:
        try:
            value = int(text) if parameter.whole else float(text)
        except ValueError:
            raise ValueError(f"its {parameter.name}={text} is no number") from None
    inside = value in parameter.choices if parameter.choices else math.isfinite(value) and contains(parameter, value)
    if not inside:
        raise ValueError(f"its {parameter.name}={text} does not lie in {parameter.name}={parameter.text}")
    return value


def contains(parameter: Parameter, value: float) -> bool:
    distribution = parameter.distribution()
    return distribution._contains(distribution.to_internal_repr(value))


def cannot(study: Study, folder: Path, reason: str) -> ConfigError:
    """What is to be done where a trial is neither in the storage nor whole in its folder."""
    from plumbline.search.storage import JOURNAL, copies

    lost = copies(study.folder) if study.storage is None else []
    back = f"put {lost[-1].name} back as {JOURNAL}, or " if lost else ""
    return ConfigError(
        f"study={study.name}: the storage has lost trial {folder.relative_to(study.folder)}, and it cannot be restored from "
        f"{folder}: {reason}; {back}move that folder away, and the trial is done again"
    )


def reported(study: Study, number: int, objective: str, values: list[list[float]]) -> dict[int, float]:
    """What a pruner was told of a trial: the objective an epoch, or a seed."""
    pruner = str(study.pruner.get("_target_", "")).rpartition(".")[2]
    if pruner == "none":
        return {}
    if study.search["seeds"] > 1:
        firsts = [value[0] for value in values]
        return {k: firsts[k] if pruner == "wilcoxon" else sum(firsts[: k + 1]) / (k + 1) for k in range(len(firsts))}
    found: dict[int, float] = {}
    try:
        for line in (study.trial(number) / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            found[int(record["epoch"])] = float(record[objective])
    except (OSError, ValueError, KeyError, TypeError):  # a last line that was not written to its end
        pass
    return found


def clock(text: Any) -> datetime | None:
    """A time of a run's record as the storage has times: local, without a zone."""
    try:
        return datetime.fromisoformat(text).astimezone().replace(tzinfo=None)
    except (TypeError, ValueError):
        return None
