"""The SLURM job that this process runs in, if it does."""

from __future__ import annotations

import os
import re
import subprocess


def own_job() -> str | None:
    """Its id as SLURM's commands take it: for a task of an array `55_0`, since 55 would mean all of them."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ.get("SLURM_JOB_ID")


def fate(asked: str) -> str:
    """The status of a run that is asked to leave: `stopped` if its job was cancelled, so that nobody goes on with it.

    A cancelled job and one that SLURM puts back are both COMPLETING by then; only the latter has one restart more than
    when this process began. One that is RUNNING (its time is nearly up, or its grace time) is put back by its script.
    """
    job = own_job()
    if job is None or asked != "preempted":
        return asked
    try:
        words = ["scontrol", "--oneliner", "show", "job", job]
        shown = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):  # the controller is busy or away: to be continued is the safe answer
        return asked
    state, restarts = re.search(r"JobState=(\w+)", shown), re.search(r"Restarts=(\d+)", shown)
    if state is None or restarts is None or state[1] not in ("COMPLETING", "CANCELLED"):
        return asked
    put_back = int(restarts[1]) > int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    return asked if put_back else "stopped"
