"""What the tests on a real SLURM share: one of their own, in its own folder, started once and ended with them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ROOT

TRAINING = (
    "launcher=slurm", "cluster=here", "resources=cpu", "resources.time=0:10:00", "launcher.save_seconds=5",
)  # fmt: skip
NEW = ("threads=1", "bootstrap=10")


class Here:
    """A SLURM of two nodes."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "SBATCH"))},
            "SLURM_HERE": str(folder), "SLURM_CONF": str(folder / "slurm.conf"), "PYTHONPATH": str(ROOT / "src"),
            "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline",
        }  # fmt: skip

    def __call__(self, *words: str | Path, check: bool = True, cwd: Path | None = None) -> str:
        """What a command answers on standard output."""
        done = subprocess.run(
            [str(word) for word in words], env=self.environment, capture_output=True, text=True, timeout=120, cwd=cwd
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def train(self, folder: Path, *overrides: str) -> str:
        """Submit a run into `folder`/run; return the number of its job."""
        new = not any(word.startswith("resume=") for word in overrides)
        words = (*TRAINING, *((*NEW, f"hydra.run.dir={folder / 'run'}") if new else ()), *overrides)
        self(sys.executable, "-m", "plumbline.train", *words, cwd=folder)
        return json.loads((folder / "run" / "job.json").read_text())["job"]

    def state(self, job: str) -> str:
        """The state of a job, or '' where it is no longer in the queue."""
        return self("squeue", "--noheader", "--format=%T", f"--jobs={job}", check=False).strip()

    def gone(self, job: str, seconds: float = 120) -> None:
        """Wait until a job has left the queue."""
        until(lambda: self.state(job) == "", f"job {job} to end", seconds)


def until(true: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Wait for something; fail where it does not come."""
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, f"waited {seconds} s for {what}"
        time.sleep(0.1)


def running(more: str = "") -> Iterator[Here]:
    """A SLURM of one's own, or a skip that says why not. more: lines for its slurm.conf."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-here-", dir="/tmp"))
    folder.chmod(0o755)
    (folder / "more.conf").write_text(f"# For a test.\n{more}")
    here = Here(folder)
    up = subprocess.run([ROOT / "slurm/here/up"], env=here.environment, capture_output=True, text=True, timeout=120)
    if up.returncode:
        shutil.rmtree(folder)
        pytest.skip(f"NO SLURM TO TEST ON: {up.stderr.strip()}")
    try:
        yield here
    finally:
        subprocess.run([ROOT / "slurm/here/down", "--forget"], env=here.environment, timeout=120, check=True)
