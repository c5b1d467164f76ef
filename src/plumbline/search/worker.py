"""`python -m plumbline.search.worker study=<name>`: takes trials of a study until it is done, on any machine that sees it.

Imports torch once and forks a process for each trial, so whatever ends a trial does not end its worker.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import IO, TYPE_CHECKING

from plumbline import exits, mistakes
from plumbline.contract import ConfigError, nearest
from plumbline.output import print_error, print_safe
from plumbline.search import ahead, presence, same_data, trust
from plumbline.search.asked import Asked
from plumbline.search.compose import Points
from plumbline.search.disk import complaint
from plumbline.search.launch import devices, threads
from plumbline.search.outcome import Outcome, last_lines, measured, outcome
from plumbline.search.queue import Queue
from plumbline.search.study import CODE, FILE, Study, find

if TYPE_CHECKING:
    import optuna
    from optuna.pruners import BasePruner
    from optuna.trial import FrozenTrial

    from plumbline.search.space import Point

WORDS = {"study": "", "outputs": "outputs", "workers": "1", "until": "", "trust": "false"}


def main() -> int:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print_safe(f"{__doc__}\n{' '.join(f'{key}={value}' for key, value in WORDS.items())}")
        return exits.DONE
    folder = Path()  # until it is known which
    try:
        options = read(sys.argv[1:])
        folder = find(options["study"], options["outputs"])
        study = Study.read(folder)
        trust.check(folder, "trust=true", options["trust"] == "true")
        from_the_copy(folder)
        return work(study, int(options["workers"]), float(options["until"] or "inf"))
    except ConfigError as error:
        print_error(error)
        return exits.MISTAKE
    except OSError as error:
        if (said := complaint(error, folder)) is None:
            raise
        print_safe(said[1], file=sys.stderr)
        return said[0]


def read(words: list[str], known: dict[str, str] = WORDS) -> dict[str, str]:
    """key=value words of a command of ours."""
    options = dict(known)
    for word in words:
        key, given, value = word.partition("=")
        if not given or key not in known:
            accepted = ", ".join(f"{name}=…" for name in known)
            raise ConfigError(f"{word}: is not understood{nearest(key, known)}; accepted are {accepted}")
        options[key] = value
    if not options["study"]:
        raise ConfigError("study=…: say which, by its name or its folder")
    if "workers" in options and not (options["workers"].isascii() and options["workers"].isdigit()):
        raise ConfigError(f"workers={options['workers']}: must be a whole number")
    if options.get("trust", "false") not in ("true", "false"):
        raise ConfigError(f"trust={options['trust']}: must be true or false")
    try:
        float(options.get("until") or "inf")
    except ValueError:
        raise ConfigError(f"until={options['until']}: must be a time in seconds since 1970") from None
    return options


def from_the_copy(folder: Path) -> None:
    """Go on as the code that the study was started with, whatever has become of the tree since."""
    source = folder / CODE / "src"
    if not source.is_dir() or Path(__file__).resolve().is_relative_to(source.resolve()):
        return
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(source), os.environ.get("PYTHONPATH")]))
    signed = trust.is_signed(folder)  # a copy of an earlier version does not know the word, and needs none then
    words = [word for word in sys.argv[1:] if not (signed and word.startswith("trust="))]
    os.execv(sys.executable, [sys.executable, "-B", "-P", "-m", "plumbline.search.worker", *words])


def work(study: Study, count: int, until: float) -> int:
    """Prepare the study, then do its trials in so many processes; return the exit status."""
    asked = Asked()
    if not Path(
        study.cwd
    ).is_dir():  # it was moved without its project: paths are seen from where the worker was started
        study.cwd = os.getcwd()
    os.chdir(study.cwd)
    sys.path += [str(path) for path in code_folders(study)]  # after what is installed: no file takes its place
    os.environ.setdefault("OMP_NUM_THREADS", str(threads(count)))
    ahead.imports()
    import plumbline.run  # noqa: F401 - torch, once for all trials
    from plumbline.search.prepare import prepare

    composed = Points(study.space, study.fixed, study.config_name, study.folders(snapshot=True))
    prepare(study, asked, composed, here=count > 0)
    gc.freeze()  # what is imported stays: trials share its memory, and their collections leave it alone
    if asked.status is not None or count == 0:
        return asked.status or exits.DONE
    if count == 1:
        return Worker(study, asked, until, composed).work()
    graphics = devices()
    for index in range(count):
        process = asked.fork()
        if process == 0:
            status = exits.BUG
            try:
                if graphics:
                    os.environ["CUDA_VISIBLE_DEVICES"] = graphics[index % len(graphics)]
                status = Worker(study, Asked(), until, composed).work()
            except ConfigError as error:
                print_error(error)
                status = exits.MISTAKE
            except Exception as error:
                said = complaint(error, study.folder) if isinstance(error, OSError) else None
                if said is None:
                    traceback.print_exc()
                else:
                    print_safe(said[1], file=sys.stderr)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
    statuses = [exits.DONE]
    while asked.below:
        process, status = os.wait()
        asked.below.discard(process)
        statuses.append(os.waitstatus_to_exitcode(status))
    return asked.status or together(study, statuses)


def together(study: Study, statuses: list[int]) -> int:
    """The exit status of several workers. One that was killed is no failure where the others did all there was to do."""
    from plumbline.search.finish import finish_late

    killed = [signal.Signals(-status).name for status in statuses if status < 0]
    status = max(status for status in statuses if status >= 0)
    if not killed or status != exits.DONE or finish_late(study):
        return status
    print_error(f"{ended_by(killed)}; the same command goes on with the study")
    return exits.BUG


def ended_by(names: list[str]) -> str:
    """`2 workers were ended by SIGKILL`."""
    few = "1 worker was" if len(names) == 1 else f"{len(names)} workers were"
    return f"{few} ended by {', '.join(dict.fromkeys(names))}"


def code_folders(study: Study) -> list[Path]:
    """Where a user's own modules may lie, in the copy where they are in it."""
    given = [Path(folder) for folder in study.config_dirs]
    return [study.copied(path) for path in (Path(study.cwd), *given, *(folder.parent for folder in given))]


class Worker:
    """Takes one trial after another: each is drawn, run and told by the same few steps wherever the worker is."""

    def __init__(self, study: Study, asked: Asked, until: float, composed: Points):
        self.study, self.asked, self.composed = study, asked, composed
        self.opened: optuna.Study = study.open()
        self.storage = self.opened._storage
        self.objectives: list[list[str]] = self.opened.user_attrs["objectives"]
        self.pruner = study.built("pruner", study.pruner)
        self.presence = presence.Presence(study.folder)
        self.queue = Queue(study, self.opened, self.presence, until)
        self.read_at = 0.0

    def work(self) -> int:
        """Until nothing is left to do, or somebody asks to leave."""
        from plumbline.search.finish import confirm, finish

        claim = None
        try:
            while self.asked.status is None:
                self.look()
                trial = self.queue.take()
                if trial is not None:
                    self.do(trial)
                elif not self.queue.others_at_work():
                    if self.queue.finished():
                        alone = confirm(self)
                        if alone and self.asked.status is None:
                            finish(self.study, self.opened, claim)
                    break
                elif presence.task() is not None:
                    break  # a place on a cluster is not to wait in
                else:
                    self.presence.beat()
                    claim = claim or self.got_ready()
                    time.sleep(0.1)
        finally:
            self.presence.leave()
        if self.asked.status is None and self.queue.too_many_failures():
            return exits.MISTAKE
        if self.asked.status is None and (said := self.queue.too_many_deaths()):
            print_error(said)
            return exits.BUG
        return self.asked.status or exits.DONE

    def got_ready(self) -> IO[str] | None:
        """While others are at their last trials: get ready to finish, and claim that; None if another worker does."""
        from plumbline.search.finish import claimed, get_ready

        if self.study.search["confirm"]:
            return None  # there is more to do before
        claim = claimed(self.study)
        if claim is not None:
            with contextlib.suppress(Exception):  # what is in the way is said when it is done in earnest
                get_ready(self.study, self.opened, lambda: not self.queue.others_at_work())
        return claim

    def look(self) -> None:
        """Read what a later start may have changed: the total, the time, the budget of failures."""
        from plumbline.search.storage import copy_daily

        changed = (self.study.folder / FILE).stat().st_mtime
        if changed != self.read_at and trust.is_signed(self.study.folder):  # else it is being written, or not by us
            self.study, self.read_at = Study.read(self.study.folder), changed
            self.queue.study = self.study
        if self.study.storage is None:
            copy_daily(self.study.folder)

    def do(self, trial: FrozenTrial) -> None:
        """Run a trial, seed after seed, and tell the study how it ended."""
        seeds = self.study.search["seeds"]
        values: list[list[float]] = []
        for seed in range(seeds):
            directory = self.directory(trial.number, seed)
            outcome = self.run(trial, seed, directory, self.pruner if seeds == 1 else None)
            if outcome.status == "left":
                return self.queue.give_back(trial)
            if outcome.status == "died":
                return self.queue.died(self.storage.get_trial(trial._trial_id), outcome.reason)
            if outcome.status != "finished":
                return self.queue.tell(trial, outcome.status, outcome.reason, values)
            with self.queue.lock:
                if said := same_data.note(self.study, self.opened, self.point(trial), outcome.run):
                    return self.queue.tell(trial, "failed", said)
            try:
                values.append([measured(outcome.run, name) for name, _ in self.objectives])
            except (KeyError, TypeError, ValueError) as error:
                return self.queue.tell(trial, "failed", f"{directory}: its run.json has no {error}")
            if seeds > 1 and self.prune_between(trial, seed, values):
                return self.queue.tell(trial, "pruned", "", values)
        self.queue.tell(trial, "finished", "", values)

    def point(self, trial: FrozenTrial) -> Point:
        """The values of a trial that its own process has drawn."""
        params = self.storage.get_trial(trial._trial_id).params
        return {name: params[name] for name in self.study.space.names if name in params}

    def directory(self, number: int, seed: int) -> Path:
        folder = self.study.trial(number)
        return folder if self.study.search["seeds"] == 1 else folder / f"seed-{seed}"

    def run(self, trial: FrozenTrial, seed: int, directory: Path, judge: BasePruner | None) -> Outcome:
        """One run of a trial, in a process of its own; or the end of one that ended before its worker could tell."""
        from plumbline.search.trial import draw, process

        ended = outcome(directory)
        if ended is not None:
            draw(self.study, self.opened, trial._trial_id, trial.number)  # where the storage lost what had been drawn
            return ended
        child = self.asked.fork()
        if child == 0:
            process(self, trial, seed, directory, judge)
        status = self.wait(child)
        with contextlib.suppress(*mistakes.ANYTHING):  # the trial has said so
            # for those trials that choose the same options
            self.composed.learn(self.storage.get_trial(trial._trial_id).params)
        return outcome(directory, status) or self.unfinished(status, directory)

    def wait(self, child: int) -> int:
        """The exit status of a child; a signal's number, negative, if one ended it. Signs of life meanwhile."""
        pause = 0.002
        while True:
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                self.asked.below.discard(child)
                return os.waitstatus_to_exitcode(status)
            self.presence.beat()
            time.sleep(pause)
            pause = min(pause * 1.2, 0.02)

    def unfinished(self, status: int, directory: Path) -> Outcome:
        """What it means that a process ended with this status and no end is on record."""
        from plumbline.search.trial import LOG, NO_ROOM

        lines = last_lines(directory / LOG)
        if status in (exits.TO_BE_CONTINUED, exits.BY_HAND) or (self.asked.status is not None and status < 0):
            if self.asked.status is None:  # somebody stopped the trial itself
                self.asked.status = status
            return Outcome("left")
        if status == NO_ROOM:
            print_error(f"{directory}: {lines.splitlines()[-1] if lines else 'the disk is full'}")
            self.asked.status = exits.BUG
            return Outcome("left")
        if status < 0:
            name = signal.Signals(-status).name
            hint = " (no memory left, most likely)" if name == "SIGKILL" else ""
            return Outcome("died", f"was ended by {name}{hint}")
        return Outcome("failed", lines)

    def prune_between(self, trial: FrozenTrial, seed: int, values: list[list[float]]) -> bool:
        """Report a seed's value, and ask whether the next is worth it."""
        if self.pruner is None:
            return False
        last, mean = values[-1][0], sum(value[0] for value in values) / len(values)
        of_pairs = type(self.pruner).__name__ == "WilcoxonPruner"
        self.storage.set_trial_intermediate_value(trial._trial_id, seed, last if of_pairs else mean)
        more = seed + 1 < self.study.search["seeds"]
        return more and self.pruner.prune(self.opened, self.storage.get_trial(trial._trial_id))


if __name__ == "__main__":
    exits.outlast_the_reader()
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # to take torch apart in good order takes a second
