"""`launcher=slurm` in front of a study: an array of jobs, each of them a worker that takes trials until none is left."""

from __future__ import annotations

import sys
import time
from math import ceil
from typing import TYPE_CHECKING

from plumbline.environment import now
from plumbline.exits import DONE
from plumbline.output import print_safe
from plumbline.search import trust
from plumbline.slurm.options import Options
from plumbline.slurm.render import script
from plumbline.slurm.submit import hand_over, reach, say, several, slurm, submitted

if TYPE_CHECKING:
    from plumbline.search.study import Study


def show(study: Study, options: Options) -> int:
    """Print what would be submitted for a study, and what it would cost at most."""
    jobs = wanted(study, options, study.n_trials)
    print_safe(text(study, options, jobs))
    say(options, jobs)
    return DONE


def submit(study: Study, options: Options) -> int:
    """Submit as many workers for a prepared study as are missing; return the exit status."""
    there = queued(study, options)
    jobs = max(0, wanted(study, options, remaining(study)) - there)
    if there:
        print_safe(f"{several(there, 'worker')} of it wait or run already; watch them, or end them by scancel")
    if jobs == 0:
        return DONE
    number = hand_over(text(study, options, jobs), study.folder, options, submitted(study.folder))
    say(options, jobs)
    reach(options)
    print_safe(f"jobs:   {number}_0 to {number}_{jobs - 1}, by {study.folder / 'job.sh'}")
    print_safe(f"watch:  python -m plumbline.search.status study={study.folder} --watch; squeue --jobs={number}")
    print_safe(f"stop:   scancel {number}, or one of them by scancel {number}_0  (they save first)")
    print_safe("go on:  the same command goes on to the total, and submits the workers that are missing")
    return DONE


def wanted(study: Study, options: Options, trials: int) -> int:
    """How many jobs: a worker a GPU in each, and none without a trial to do."""
    count = study.search["workers"]
    count = options.launcher.workers if count is None else count
    return ceil(min(count, trials) / workers_of(options))


def workers_of(options: Options) -> int:
    """Of one job."""
    return max(1, options.resources.gpus)


def text(study: Study, options: Options, jobs: int) -> str:
    """The sbatch file of so many workers."""
    words = ["-B", "-m", "plumbline.search.worker", f"study={study.folder}", f"workers={workers_of(options)}"]
    words += trust.consent(study.folder) if study.folder.is_dir() else []
    minutes = study.search["timeout"]
    if minutes is not None:
        words.append(f"until={time.time() + 60 * minutes:.0f}")
    return script(
        options, what=f"{study.command}  # submitted {now()}", name=f"study-{study.name}", folder=study.folder,
        code=study.folder / "code", python=options.cluster.python or sys.executable, command=words, array=jobs,
    )  # fmt: skip


def remaining(study: Study) -> int:
    """Trials that have not ended; at least one, which writes what a study leaves."""
    ended = sum(trial.state.is_finished() for trial in study.open().get_trials(deepcopy=False))
    return max(1, study.n_trials - ended)


def queued(study: Study, options: Options) -> int:
    """How many workers of it wait or run."""
    count = 0
    for number in submitted(study.folder):
        words = ["squeue", "--noheader", "--array", "--format=%i", f"--jobs={number}"]
        count += len(slurm(words, options, missing_is_fine=True).split())
    return count * workers_of(options)
