"""Before the first trial: every part is built once with what the study will give it, and the objective is known."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline.contract import ConfigError
from plumbline.output import print_safe
from plumbline.search.study import FILE, NoTrials

if TYPE_CHECKING:
    import optuna
    from omegaconf import DictConfig

    from plumbline.search.asked import Asked
    from plumbline.search.compose import Points
    from plumbline.search.space import Point, Space
    from plumbline.search.study import Study

SECONDS = 20.0  # after which no further choice is tried: the rest is seen by its trial
MORE = 0.5  # after which no other point is; the first, which imports, not counted
FACTS = ("parameters", "multiply_adds")  # of a run that may be an objective, beside its metrics; less is better


def prepare(study: Study, asked: Asked, composed: Points, here: bool) -> None:
    """Make Optuna's study if there is none yet. Raises ConfigError on what no trial could do.

    composed: what the trials' configurations are made by; it knows the first options when this returns.
    here: whether this machine will do trials, and so must have the device they ask for.
    """
    import optuna

    from plumbline.search.restore import restore
    from plumbline.search.same_data import check_data
    from plumbline.search.storage import VARIABLE, Lock, open_storage

    if (there := _there(study)) is not None:
        with Lock(str(study.folder / "study")):
            restore(study, there, there.user_attrs["objectives"])
        learn(composed)
        take_over(there.user_attrs.get("modules", []))
        check_data(study, there, asked, composed)
        return
    said = rehearsed(study, asked, composed, here)
    if asked.status is not None:
        return
    url = os.environ.get(VARIABLE, study.storage) if study.storage is not None else None
    directions = ["maximize" if direction == "maximise" else "minimize" for _, direction in said["objectives"]]
    with Lock(str(study.folder / "study")):
        if _there(study) is None:
            storage = open_storage(study.folder, url)
            with contextlib.suppress(KeyError):  # one whose maker was killed before it was whole
                optuna.delete_study(study_name=study.optuna_name, storage=storage)
            made = optuna.create_study(study_name=study.optuna_name, storage=storage, directions=directions)
            made.set_user_attr("folder", str(study.folder))
            made.set_user_attr("modules", said["modules"])
            if count := restore(study, made, said["objectives"]):
                print_safe(f"study {study.name}: {count} trials restored from their folders")
            made.set_user_attr("objectives", said["objectives"])
            there = made
    if there is not None and there.get_trials(deepcopy=False):
        check_data(study, there, asked, composed)


def learn(composed: Points) -> None:
    """Compose the options of one point, so that trials which choose the same find them."""
    from plumbline import mistakes
    from plumbline.search.compose import checkpoints

    with contextlib.suppress(*mistakes.ANYTHING):  # who rehearses it has the words for it
        composed.learn(checkpoints(composed.space, None)[0])


def take_over(modules: list[str]) -> None:
    """Import what a trial imports, so that each finds it there."""
    from hydra.core.plugins import Plugins

    Plugins.instance()  # looks through all of them, once
    for name in modules:
        if name.partition(".")[0] in sys.stdlib_module_names:
            continue  # a rehearsal names installed packages only
        with contextlib.suppress(Exception):  # it may not be there on this machine: the trial will say so
            importlib.import_module(name)


def _there(study: Study) -> optuna.Study | None:
    """Optuna's study, if it is there and whole. Raises ConfigError if it is of another folder."""
    try:
        opened = study.open()
    except NoTrials:
        return None
    attributes = opened.user_attrs
    home = attributes.get("folder", str(study.folder))
    if home != str(study.folder):
        if study.storage is not None and (Path(home) / FILE).exists():
            copy = study.folder.with_name(f"{study.folder.name}-copy")
            raise ConfigError(
                f"study={study.name}: the database has a study of that name already, of {home}, and a copy of it would share "
                f"its trials; give the copy another name: mv {shlex.quote(str(study.folder))} {shlex.quote(str(copy))}, then the "
                f"command with {shlex.quote(f'study={copy.name}')}, which restores the trials from their folders"
            )
        opened.set_user_attr("folder", str(study.folder))  # it was moved, or a copy with a journal of its own
    return opened if "objectives" in attributes else None


def rehearsed(study: Study, asked: Asked, composed: Points, here: bool) -> dict[str, Any]:
    """`objectives` ([name, direction] each), and the `modules` that a trial imports, which are imported here meanwhile.

    The parts are tried in a process of its own, so that this one stays untouched.
    """
    reading, writing = os.pipe()
    child = asked.fork()
    if child == 0:
        os.close(reading)
        with os.fdopen(writing, "w", buffering=1) as pipe:
            before = set(sys.modules)

            def tell(**said: Any) -> None:
                modules = [name for name in sys.modules if name not in before and _installed(name)]
                print(json.dumps({"modules": modules, **said}), file=pipe)

            try:
                tell(objectives=_rehearse(study, here, tell))
            except ConfigError as error:
                tell(mistake=str(error))
            except BaseException as error:
                import traceback

                traceback.print_exc()
                tell(mistake=f"{type(error).__name__}: {error}")
        sys.stderr.flush()
        os._exit(0)
    os.close(writing)
    learn(composed)
    said: dict[str, Any] = {}
    with os.fdopen(reading) as pipe:
        for line in pipe:
            said |= json.loads(line)
            take_over(said["modules"])
    os.waitpid(child, 0)
    asked.below.discard(child)
    if asked.status is not None:
        return {"objectives": [], "modules": []}
    if "mistake" in said or "objectives" not in said:
        raise ConfigError(said.get("mistake", "the parts could not be tried: the process that did was ended"))
    return said


def _installed(name: str) -> bool:
    """Whether a module is an installed package's, of its upper two floors: those bring the others."""
    file = getattr(sys.modules[name], "__file__", None) or ""
    return "site-packages" in file and name.count(".") < 2 and not name.rpartition(".")[2].startswith("_")


def _rehearse(study: Study, here: bool, tell: Callable[[], None]) -> list[list[str]]:
    from plumbline import mistakes
    from plumbline.search.compose import Points, checkpoints, sampled

    began, objectives = time.monotonic(), None
    composed = Points(study.space, study.fixed, study.config_name, study.folders(snapshot=True))
    new, other = apart(study.space, sampled(checkpoints(study.space, study.points()), 50))
    for point in [*new, *other]:
        if time.monotonic() - began > (SECONDS if point in new else MORE):
            break
        try:
            found = _try(composed(point), study.search["also"], here)
        except mistakes.ANYTHING as error:
            raise composed.mistake(error, point) from error
        if objectives not in (None, found):
            raise ConfigError(
                f"objective=auto: is {found[0][0]} for {' '.join(study.space.words(point))} and {objectives[0][0]} for "
                "others; a study compares one number: say objective=val/loss, or search the tasks one by one"
            )
        if objectives is None:
            objectives, began = found, time.monotonic()
            tell()
    return objectives


def apart(space: Space, points: list[Point]) -> tuple[list[Point], list[Point]]:
    """The points with a choice that none before them has, and the others."""
    choices, seen = {parameter.name for parameter in space if parameter.choices}, set()
    found: tuple[list[Point], list[Point]] = ([], [])
    for point in points:
        chosen = {(name, str(value)) for name, value in point.items() if name in choices}
        found[0 if not seen or chosen - seen else 1].append(point)
        seen |= chosen or {("", "")}
    return found


_DATA: dict[str, Any] = {}


def _try(cfg: DictConfig, also: list[str], here: bool) -> list[list[str]]:
    """What a run does before it reads the curve of anything: its parts are checked, its data read, its update rehearsed."""
    from omegaconf import OmegaConf

    from plumbline import device, tasks
    from plumbline.assemble import check_split, mistakes_in, rehearse
    from plumbline.config import build, check_config, nearest
    from plumbline.data.core import Data

    check_config(cfg)
    if cfg.batch_size == "auto":
        raise ConfigError(
            "batch_size=auto: each trial could find another one; find it with one run, and give the study the number"
        )
    if here:
        device.choose(cfg.device)
    key = OmegaConf.to_yaml(cfg.data)
    if key not in _DATA:
        with mistakes_in("data"):
            data = build(cfg.data)()
        if not isinstance(data, Data):
            raise ConfigError(
                f"data: {cfg.data._target_} gave a {type(data).__name__}; it must be a plumbline.data.Data"
            )
        with mistakes_in("data"):
            for name, split in (("train", data.train), ("val", data.val)):
                check_split(data.spec, split, name)
        _DATA.clear()
        _DATA[key] = data.spec
    spec = _DATA[key]
    rehearse(cfg, spec)
    objectives = [list(tasks.objective(spec, cfg.objective, cfg.direction))]
    for name in also:
        if name in FACTS:
            objectives.append([name, "minimise"])
            continue
        try:
            objectives.append(list(tasks.objective(spec, name, "auto")))
        except ConfigError as error:
            said = str(error).removeprefix("objective=")
            raise ConfigError(f"search.also={said}, {', '.join(FACTS)}{nearest(name, FACTS)}") from error
    if len({name for name, _ in objectives}) < len(objectives):
        raise ConfigError(f"search.also: names {', '.join(also)} beside {objectives[0][0]}; each objective once")
    return objectives
