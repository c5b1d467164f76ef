"""All trials of a study that are compared have seen the same data: by fingerprint, wherever the data lie."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from plumbline.contract import ConfigError
from plumbline.search.outcome import read_run

if TYPE_CHECKING:
    import optuna
    from omegaconf import DictConfig

    from plumbline.search.asked import Asked
    from plumbline.search.compose import Points
    from plumbline.search.space import Point, Space
    from plumbline.search.study import Study

ATTRIBUTE = "data"  # of Optuna's study: the fingerprint for each choice of data
SECONDS = 20.0  # after which no further choice is compared before the trials: each of them is when it has ended


def choice(space: Space, point: Point) -> str:
    """The words of a point that decide which data its run sees; empty where all trials have the same."""
    return " ".join(word for word in space.words(point) if is_of_data(word.lstrip("+~").partition("=")[0]))


def is_of_data(key: str) -> bool:
    return key in ("data", "experiment") or key.startswith(("data.", "experiment."))


def fingerprint(run: dict[str, Any] | None) -> str | None:
    """The fingerprint of the data in a run's record."""
    data = (run or {}).get("data")
    found = data.get("fingerprint") if isinstance(data, dict) else None
    return found if isinstance(found, str) else None


def note(study: Study, opened: optuna.Study, point: Point, run: dict[str, Any] | None) -> str:
    """Note the data of a run that ended, under the study's lock; what to say where they are not those of the others."""
    now = fingerprint(run)
    if now is None:
        return ""
    known, chosen = dict(opened.user_attrs.get(ATTRIBUTE, {})), choice(study.space, point)
    if chosen not in known:
        opened.set_user_attr(ATTRIBUTE, known | {chosen: now})
        return ""
    return "" if known[chosen] == now else complaint(study, chosen, known[chosen], now)


def complaint(study: Study, chosen: str, then: str, now: str) -> str:
    return (
        f"study={study.name}: the data{f' ({chosen})' if chosen else ''} are not those of its trials: fingerprint {then} "
        f"then, {now} now; bring those data back, or begin another study=…"
    )


def check_data(study: Study, opened: optuna.Study, asked: Asked, composed: Points) -> None:
    """Raise ConfigError unless the data are those that the trials of a study have seen.

    They are loaded in a process of their own, so that this one stays untouched.
    """
    known, points = recorded(study, opened)
    if known != opened.user_attrs.get(ATTRIBUTE, {}):
        opened.set_user_attr(ATTRIBUTE, known)
    if not points:
        return
    reading, writing = os.pipe()
    child = asked.fork()
    if child == 0:
        os.close(reading)
        with os.fdopen(writing, "w") as pipe:
            json.dump(compared(study, known, points, composed), pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    asked.below.discard(child)
    if asked.status is None and (said := json.loads(text) if text else "the data could not be loaded"):
        raise ConfigError(said)


def recorded(study: Study, opened: optuna.Study) -> tuple[dict[str, str], dict[str, Point]]:
    """(fingerprint, a point) for each choice of data that trials have seen: of the storage, else of their folders."""
    known: dict[str, str] = dict(opened.user_attrs.get(ATTRIBUTE, {}))
    points: dict[str, Point] = {}
    for trial in opened.get_trials(deepcopy=False):
        chosen = choice(study.space, trial.params)
        if chosen not in known and trial.params.keys() == set(study.space.names) & trial.params.keys():
            for folder in study.run_folders(trial.number):
                if chosen not in known and (found := fingerprint(read_run(folder))) is not None:
                    known[chosen] = found
        if chosen in known and trial.state.is_finished():
            points.setdefault(chosen, trial.params)
    return known, points


def compared(study: Study, known: dict[str, str], points: dict[str, Point], composed: Points) -> str:
    """What is wrong with the data as they are now; empty if nothing is."""
    from plumbline import mistakes

    began = time.monotonic()
    try:
        for chosen, point in points.items():
            if time.monotonic() - began < SECONDS and (now := loaded(composed(point))) != known[chosen]:
                return complaint(study, chosen, known[chosen], now)
    except mistakes.ANYTHING as error:
        return mistakes.explain(error, composed.folders)
    except Exception as error:
        return f"data: could not be loaded: {type(error).__name__}: {error}"
    return ""


def loaded(cfg: DictConfig) -> str:
    """The fingerprint of a configuration's data as they are now."""
    from plumbline.assemble import mistakes_in
    from plumbline.config import build, check_config

    check_config(cfg)
    with mistakes_in("data"):
        return build(cfg.data)().fingerprint()
