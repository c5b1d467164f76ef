"""One trial, in a process of its own: its point is drawn, its configuration composed, and it runs as any run does."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import traceback
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from plumbline import exits, mistakes
from plumbline.contract import ConfigError
from plumbline.files import make_folder, open_file
from plumbline.output import print_error, print_safe
from plumbline.search import samplers
from plumbline.search.compose import Points
from plumbline.search.space import Point, Space

if TYPE_CHECKING:
    import optuna
    from optuna.pruners import BasePruner
    from optuna.trial import FrozenTrial

    from plumbline.search.study import Study
    from plumbline.search.worker import Worker

NO_ROOM = 74  # of a trial's process: the disk is full, which is no fault of the trial's
LOG = "output.log"


class Judge:
    """What a run asks after each epoch of a trial: whether the others' results leave it any hope."""

    def __init__(self, study: optuna.Study, trial_id: int, pruner: BasePruner | None, epochs: int):
        self.study, self.trial_id, self.pruner, self.epochs = study, trial_id, pruner, epochs

    def hopeless(self, epoch: int, value: float) -> bool:
        """Tell the study the objective of this epoch; whether to end here. The last epoch is no reason to end early."""
        if self.pruner is None:
            return False
        try:
            storage = self.study._storage
            storage.set_trial_intermediate_value(self.trial_id, epoch, value)
            return epoch < self.epochs and self.pruner.prune(self.study, storage.get_trial(self.trial_id))
        except Exception as error:  # a storage that cannot be reached costs the pruning, not the trial
            print_safe(f"pruning: {type(error).__name__}: {error}", file=sys.stderr)
            return False


def draw(study: Study, opened: optuna.Study, trial_id: int, number: int) -> Point:
    """The trial's point: what is stored of it, and the rest from a sampler seeded by (seed, number)."""
    stored = opened._storage.get_trial(trial_id)
    if is_complete(study.space, stored.params):
        return {name: value for name, value in stored.params.items() if name in study.space.names}
    import numpy as np
    import optuna

    opened.sampler = _make(study)(int(np.random.SeedSequence([study.search["seed"], number]).generate_state(1)[0]))
    trial = optuna.trial.Trial(opened, trial_id)
    point: Point = {}
    for parameter in study.space:
        if study.space.active(parameter, point):
            point[parameter.name] = parameter.suggest(trial)
    return point


def is_complete(space: Space, params: dict[str, Any]) -> bool:
    return all(parameter.name in params for parameter in space if space.active(parameter, params))


def _make(study: Study) -> samplers.Make:
    return study.built("search.sampler", study.search["sampler"])


def configuration(
    study: Study, composed: Points, point: Point, seed: int, directory: Path
) -> tuple[DictConfig, list[str]]:
    """The configuration and overrides of a trial's run with its k-th seed; of one that began, its own, to go on with."""
    cfg, words = composed(point), [*study.fixed, *study.space.words(point)]
    if seed:
        words.append(f"seed={cfg.seed + seed}")
        cfg.seed += seed
    if (directory / "config.yaml").exists():
        from plumbline.record import saved_config

        began = saved_config(directory, "resume", list(cfg.allow))
        for key in ("device", "threads", "save_minutes"):
            began[key] = cfg[key]
        cfg = began
        cfg.resume = str(directory)
    elif "wandb" in cfg.tracker and cfg.tracker.wandb.group is None:
        cfg.tracker.wandb.group = study.name
    cfg.report = False  # pages take longer than small trials; the best one's is made at the end
    return cfg, words


def process(worker: Worker, trial: FrozenTrial, seed: int, directory: Path, judge: BasePruner | None) -> None:
    """The body of a trial's process, forked from a worker that has imported everything and touched nothing. Never returns."""
    status = exits.BUG
    try:
        os.setpgid(0, 0)  # Ctrl-C is the worker's to pass on
        with contextlib.suppress(OSError, AttributeError):  # Linux: who loses its worker saves and leaves
            ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
        make_folder(worker.study.folder, *directory.relative_to(worker.study.folder).parts)
        output = open_file(directory / LOG, "ab", buffering=0)
        for number_ in (1, 2):
            os.dup2(output.fileno(), number_)
        sys.stdout, sys.stderr = (open(n, "w", buffering=1, encoding="utf-8", closefd=False) for n in (1, 2))  # noqa: SIM115
        of_its_own(worker.opened)
        status = _run(worker, trial, seed, directory, judge)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def of_its_own(opened: optuna.Study) -> None:
    """Give this process its own name in the journal: it tells by the name whose mistakes to raise, and forks share it."""
    storage = opened._storage
    if hasattr(storage, "_worker_id_prefix"):
        storage._worker_id_prefix = storage._replay_result._worker_id_prefix = f"{uuid.uuid4()}-"


def _run(worker: Worker, trial: FrozenTrial, seed: int, directory: Path, judge: BasePruner | None) -> int:
    from plumbline.run import run_to_the_end

    try:
        point = draw(worker.study, worker.opened, trial._trial_id, trial.number)
        try:
            cfg, words = configuration(worker.study, worker.composed, point, seed, directory)
        except mistakes.ANYTHING as error:
            raise ConfigError(mistakes.explain(error, worker.composed.folders)) from error
        told = None if judge is None else Judge(worker.opened, trial._trial_id, judge, cfg.epochs)
        status = run_to_the_end(cfg, directory, words, told)
    except ConfigError as error:
        print_error(error)
        return exits.MISTAKE
    return NO_ROOM if status == exits.BUG else status
