"""`-m`: makes the study or goes on with it, starts its workers, shows it until it is done. It may die: they go on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from plumbline import exits, mistakes
from plumbline.contract import ConfigError
from plumbline.files import make_folder, missing_folders, remove_empty
from plumbline.output import print_safe
from plumbline.search import presence, trust
from plumbline.search.code import copy_code
from plumbline.search.compose import Points, checkpoints
from plumbline.search.difference import difference
from plumbline.search.disk import complaint
from plumbline.search.launch import LOG, Ahead, Passed, default_workers
from plumbline.search.request import asked
from plumbline.search.study import CODE, FILE, NoTrials, Study
from plumbline.variables import written_words


def start(cfg: DictConfig, known: Any, words: list[str], folders: list[Path]) -> int:
    """Do what a multirun's command line asks; return the exit status. Raises ConfigError on a mistake."""
    from plumbline.train import apart

    cfg, place, overrides = apart(cfg, written_words(known.overrides.task))
    options = slurm_options(cfg, place) if place.launcher else None
    folders = [*folders, *beside([str(word) for word in known.overrides.hydra], folders)]
    wanted = asked(cfg, overrides, dict(known.runtime.choices), known.job.config_name, folders, words)
    check_hydra([str(word) for word in known.overrides.hydra])
    check_storage(wanted)
    try:
        return go_on(wanted, options, folders, default_workers(cfg.device))
    except OSError as error:
        if (said := complaint(error, wanted.folder)) is None:
            raise
        print_safe(said[1], file=sys.stderr)
        return said[0]


def go_on(wanted: Study, options: Any, folders: list[Path], usual: int) -> int:
    """Make the study that is wanted, or go on with it. usual: how many workers it has if none are asked for."""
    study, wider = opened(wanted)
    if (done := ended(study)) is not None and not wider:
        return done
    new, count = not (study.folder / FILE).exists(), study.search["workers"]
    count = min(usual if count is None else count, max(study.n_trials, study.search["confirm"]))
    if not new:
        trust.check(study.folder, "search.trust=true", study.search["trust"])
    if options is not None and options.launcher.dry_run:
        from plumbline.slurm import array

        check(study, folders, new or wider)
        return array.show(study, options)
    with Ahead(study, count) as ahead:  # it has until then to import
        check(study, folders, new or wider)
        study._made = missing_folders(study.folder.parent)
        make_folder(study.folder.parent, study.folder.name, presence.FOLDER)
        copy_code(study, new)
        if wider:
            widen(study)
        study.write()
        trust.sign(study.folder)
        status = run_workers(study, 0 if options is not None else count, new, ahead)
    if options is not None:
        return status or submitted(study, options, new)
    if count == 0 and status == exits.DONE:
        print_safe(f"prepared; start workers with  python -m plumbline.search.worker study={study.folder}")
    return status


def check(study: Study, folders: list[Path], new: bool) -> None:
    """Compose the points of a space that is new, all or a sample. Raises ConfigError on the first mistake in one."""
    if new:
        composed = Points(study.space, study.fixed, study.config_name, folders)
        for point in checkpoints(study.space, study.points()):
            composed.check(point)


def slurm_options(cfg: DictConfig, place: DictConfig) -> Any:
    """The options of the jobs that are a study's workers. Raises ConfigError on what workers cannot have."""
    from plumbline.slurm import options
    from plumbline.slurm.submit import check_device

    found = options.read(place)
    check_device(cfg.device, found)
    if found.resources.nodes * found.resources.processes > 1:
        raise ConfigError(
            f"resources: a study's workers train alone, and this asks for {found.resources.nodes} × "
            f"{found.resources.processes} processes for one network; say resources=one_gpu or cpu, and search.workers=<how many>"
        )
    return found


def submitted(study: Study, options: Any, new: bool) -> int:
    """Hand the workers of a prepared study to SLURM; a new one that it refuses leaves nothing."""
    from plumbline.slurm import array

    try:
        return array.submit(study, options)
    except ConfigError:
        if new:
            forget(study)
        raise


def beside(overrides: list[str], folders: list[Path]) -> list[Path]:
    """The further folders of option files that hydra.searchpath names; trials are composed with them, too."""
    found: list[Path] = []
    for place in mistakes.search_path(overrides):
        kind, given, path = place.rpartition("://")
        if given and kind != "file":
            raise ConfigError(
                f"hydra.searchpath=[{place}]: a study copies its option files, so they lie in folders: say file://…"
            )
        found.append(Path(path).resolve())
    return [folder for folder in found if folder not in folders]


def check_hydra(overrides: list[str]) -> None:
    """Raise ConfigError on words to Hydra that a study does not heed."""
    for word in overrides:
        if not word.startswith(("hydra.mode=", "hydra.searchpath=")):
            raise ConfigError(
                f"{word}: is not heeded by a study: its folder is outputs=…/studies/study=…, and it starts its own workers"
            )


def check_storage(wanted: Study) -> None:
    """Raise ConfigError unless a database that is asked for can be opened."""
    if wanted.storage is not None:
        from plumbline.search.storage import VARIABLE, database

        database(os.environ[VARIABLE])


def opened(wanted: Study) -> tuple[Study, bool]:
    """The study to go on with, as it is asked for now, and whether that widens it. Raises ConfigError on another one."""
    if not (wanted.folder / FILE).exists():
        ours = (CODE, presence.FOLDER, LOG)  # of a start that was killed in its first moment
        if wanted.folder.is_dir() and any(p.name not in ours and p.name[0] != "." for p in wanted.folder.iterdir()):
            raise ConfigError(f"study={wanted.name}: {wanted.folder} holds something else; say another study=…")
        return wanted, False
    there = Study.read(wanted.folder)
    other, wider = difference(there, wanted)
    if other:
        lines = "\n".join(other + wider)
        raise ConfigError(
            f"study={there.name}: is there already and searches something else (- there, + asked):\n{lines}\n"
            "say another study=…, or give its own command again"
        )
    if wider and not wanted.search["extend"]:
        raise ConfigError(
            f"study={there.name}: is there already with a narrower space (- there, + asked):\n"
            + "\n".join(wider)
            + "\n"
            "say search.extend=true to widen it, or another study=…"
        )
    if wider and presence.workers(there.folder):
        raise ConfigError(f"study={there.name}: workers are at it; it can be widened when they have left")
    wanted.created, wanted.earlier = there.created, there.earlier
    if wider:
        wanted.earlier = [*there.earlier, there.space.plain()]
    return wanted, bool(wider)


def widen(study: Study) -> None:
    """A study of Optuna's for the wider space, with all trials there were: it cannot add to the choices of one."""
    import optuna

    from plumbline.search.storage import Lock

    before = Study.read(study.folder)
    with Lock(str(study.folder / "study")):
        try:
            was = before.open()
        except NoTrials:  # the storage was lost: all that there is becomes part of the wider one when it is restored
            return
        made = optuna.create_study(study_name=study.optuna_name, storage=was._storage, directions=was.directions)
        for trial in was.get_trials():
            distributions = {
                name: study.space[name].distribution() if name in {p.name for p in study.space} else distribution
                for name, distribution in trial.distributions.items()
            }
            trial.distributions = distributions
            made._storage.create_new_trial(made._study_id, template_trial=trial)
        for key, value in was.user_attrs.items():
            made.set_user_attr(key, value)


def ended(study: Study) -> int | None:
    """If nothing is left to do: say so, with the best, and return the exit status."""
    if not (study.folder / FILE).exists():
        return None
    from plumbline.search.finish import finish_late
    from plumbline.search.watch import View, closing

    if not finish_late(study):
        return None
    print_safe(f"study {study.name} is done; search.n_trials=… asks for more")
    print_safe("\n".join(closing(View(study, study.open()))))
    return exits.DONE


def run_workers(study: Study, count: int, new: bool, ahead: Ahead) -> int:
    """Start as many workers as are missing and show what they do, until they have left."""
    there = len(presence.workers(study.folder))
    print_safe(f"{study.folder}")
    if there:
        print_safe(f"{there} workers are at it already")
    minutes = study.search["timeout"]
    until = "" if minutes is None else f"{time.time() + 60 * minutes}"
    log = study.folder / LOG
    offset = log.stat().st_size if log.exists() else 0
    process = ahead.begin(study, max(0, count - there), until) if count == 0 or count > there else None
    ahead.spare()
    passed_on = Passed(process)
    status = show(study, process, passed_on)
    written = log.read_bytes() if log.exists() else b""  # a worker that was killed at once has written none
    text = written[offset:].decode(errors="replace")
    by = ""
    if status < 0:  # killed, while others may have done what was left
        from plumbline.search.finish import finish_late

        by = f"plumbline: the workers were ended by {signal.Signals(-status).name}"
        status = exits.DONE if finish_late(study) else exits.BUG
    if status not in (exits.DONE, exits.BY_HAND, exits.TO_BE_CONTINUED):
        print_safe("\n".join(messages(text)) or by or text[-3000:].strip(), file=sys.stderr)
        if status == exits.MISTAKE and new and not any(study.folder.glob("[0-9]*")):
            forget(study)
            return status
    return closing_words(study, status, count)


def messages(log: str) -> list[str]:
    """The lines in which workers said a mistake, each once: the message, and what is indented below it."""
    found, within = [], False
    for line in log.splitlines():
        within = line.startswith("plumbline: ") or (within and line.startswith("  "))
        found += [line] * within
    return list(dict.fromkeys(found))


def show(study: Study, process: subprocess.Popen[bytes] | None, passed_on: Passed) -> int:
    """Show the study while its workers are at it; return the status they left with."""
    from plumbline.search.watch import View, Watch

    def going_on(seconds: float) -> bool:
        """Whether workers are at it still, after so long a look; at once if they leave meanwhile."""
        if process is None:
            time.sleep(seconds)
            return bool(presence.workers(study.folder)) and passed_on.status is None
        try:
            killed = process.wait(seconds) < 0
        except subprocess.TimeoutExpired:
            return True
        if not killed or passed_on.again or not presence.workers(study.folder):
            return False
        time.sleep(seconds)  # its workers live on
        return True

    view = None
    while view is None and going_on(0.1):
        with contextlib.suppress(ConfigError, KeyError):
            view = View(study, study.open())
    if view is not None:
        with Watch(view) as watch:
            watch.look()
            while going_on(0.3):
                watch.look()
            watch.look()
    status = exits.DONE if process is None else process.wait()
    if passed_on.status is not None:
        return passed_on.status
    return status


def closing_words(study: Study, status: int, count: int) -> int:
    from plumbline.search.finish import by_itself
    from plumbline.search.watch import View, closing

    try:
        view = View(study, study.open())
    except ConfigError:
        return status
    if count == 0:
        return status
    print_safe("\n".join(closing(view)))
    if not view.done and status != exits.MISTAKE:
        print_safe("not done; the same command goes on with it")
    failed = sum(map(by_itself, view.trials))
    if status == exits.MISTAKE and failed > study.search["max_failures"]:
        print_safe(
            f"plumbline: search.max_failures={study.search['max_failures']}: {failed} trials failed; "
            "see the last lines above, and raise it to go on all the same",
            file=sys.stderr,
        )
    return status


def forget(study: Study) -> None:
    """Remove the folder of a study that a mistake kept from beginning, and those around it that were made for it."""
    import shutil

    shutil.rmtree(study.folder, ignore_errors=True)
    remove_empty(study._made)
