"""What a run's numbers may depend on beside its configuration: the machine, the versions, the code."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

JOB = (  # of SLURM's variables, those that find a job again and say on what it ran: no user, account or comment
    "SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_NUM_NODES", "SLURM_JOB_PARTITION",
    "SLURM_RESTART_COUNT",
)  # fmt: skip
SNAPSHOT = "snapshot.json"  # stands at the head of a copied tree, and says what it is a copy of


def now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def command(overrides: list[str]) -> str:
    """The command line that makes this run again."""
    return shlex.join(["scripts/train", *overrides])


def environment() -> dict[str, Any]:
    """What the numbers may depend on beside the configuration."""
    import torch

    packages = ("numpy", "scikit-learn", "torchvision", "hydra-core", "omegaconf", "optuna", "wandb")
    facts: dict[str, Any] = {
        "python": platform.python_version(), "torch": torch.__version__, "platform": platform.platform(),
        "host": platform.node(),
        "cpu": _cpu(), "cores": os.cpu_count(), "threads": torch.get_num_threads(),
        "packages": {name: version(name) for name in packages},
    }  # fmt: skip
    if torch.cuda.is_available():
        facts["gpu"], facts["cuda"] = torch.cuda.get_device_name(), torch.version.cuda
    facts |= {key: os.environ[key] for key in JOB if key in os.environ}
    return facts


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def git_state() -> dict[str, Any] | None:
    """Commit, branch and, of a dirty tree, the diff of the code this run is made of; None outside a repository."""
    noted = Path(__file__).resolve().parents[2] / SNAPSHOT
    if noted.is_file():  # the repository around a copy is not what the copy was made from
        return {key: value for key, value in json.loads(noted.read_text()).items() if key not in ("root", "left_out")}

    def git(*words: str) -> str:
        here = Path(__file__).resolve().parent
        return subprocess.run(
            ["git", "-C", str(here), *words], capture_output=True, text=True, check=True, timeout=10, errors="replace"
        ).stdout

    try:
        top = git("rev-parse", "--show-toplevel").strip()
        changed = git("-C", top, "status", "--porcelain").strip()
        diff = git("-C", top, "diff", "HEAD") if changed else ""
        return {
            "commit": git("rev-parse", "HEAD").strip(),
            "dirty": bool(changed),
            "changed": changed.splitlines(),
            "diff": diff[:1_000_000],
        }
    except (OSError, subprocess.SubprocessError):
        return None
