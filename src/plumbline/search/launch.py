"""The processes that a starter sets to work on a study: begun early, told later, and passed every signal."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from plumbline import exits
from plumbline.files import check_file
from plumbline.search import trust
from plumbline.search.study import CODE, Study

LOG = "workers.log"


class Ahead:
    """One process that imports torch while its study is still being checked, and then forks the workers of it.

    Within `with`: one that is not set to work, because of a mistake, ends there.
    """

    def __init__(self, study: Study, workers: int):
        code = str(Path(__file__).with_name("ahead.py"))
        words = [sys.executable, "-P", code, "plumbline.search.worker", f"study={study.folder}"]  # for who looks at ps
        environment = {"OMP_NUM_THREADS": str(threads(workers)), **os.environ}  # read by torch when it is imported
        none = subprocess.DEVNULL
        self.process = subprocess.Popen(
            words, env=environment, stdin=subprocess.PIPE, stdout=none, stderr=none, start_new_session=True
        )
        self.began = False

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *error: object) -> None:
        self.spare()

    def spare(self) -> None:
        """End it if it has not been set to work."""
        if not self.began:
            self.process.kill()
            self.process.communicate()

    def begin(self, study: Study, count: int, until: str) -> subprocess.Popen[bytes]:
        """Let it fork so many workers, from the study's copy of the code."""
        check_file(study.folder / LOG)
        words = [f"study={study.folder}", f"workers={count}", *([f"until={until}"] if until else [])]
        words += trust.consent(study.folder)
        told = {"source": str(study.folder / CODE / "src"), "log": str(study.folder / LOG), "words": words}
        self.began = True
        with contextlib.suppress(BrokenPipeError):  # it is dead, which its status says
            self.process.stdin.write(json.dumps(told).encode() + b"\n")
            self.process.stdin.close()
        return self.process


def threads(workers: int) -> int:
    """Each worker's share of the processors."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // max(1, workers))


def devices() -> list[str]:
    """The names of this machine's GPUs as CUDA_VISIBLE_DEVICES has them; asking CUDA itself would forbid to fork."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name and name != "-1"]
    return [str(index) for index, _ in enumerate(sorted(Path("/dev").glob("nvidia[0-9]*")))]


def default_workers(device: str) -> int:
    """One a GPU; without, one for two processors, at most eight."""
    graphics = devices() if device in ("auto", "cuda") else []
    return len(graphics) or min(8, max(1, (os.cpu_count() or 1) // 2))


class Passed:
    """Signals to the starter go on to its workers, which save; they are in a session of their own."""

    def __init__(self, process: subprocess.Popen[bytes] | None):
        self.process, self.status, self.again = process, None, False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:
        self.again, self.status = (
            self.status is not None,
            exits.BY_HAND if number == signal.SIGINT else exits.TO_BE_CONTINUED,
        )
        if number == signal.SIGINT and not self.again and self.process is not None:
            with contextlib.suppress(OSError, RuntimeError):  # nobody may be listening, or be spoken to right now
                print("\nthe workers save and leave; press again to leave at once", flush=True)
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(number)
        else:  # it was killed; the workers that it began are a group of their own
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)
