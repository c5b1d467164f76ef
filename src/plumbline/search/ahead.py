"""A worker in the making: imports what every trial needs while its starter still composes and checks.

Run as a file, by itself: all that is plumbline's comes from the study's copy of the code, which is made meanwhile. The
starter then says where that is, in one line; who hears nothing, because there was a mistake, leaves.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import signal
import sys

NEEDED = ("torch", "optuna", "sklearn.datasets", "rich.progress")  # most of the seconds that a worker takes to begin


def imports() -> None:
    """Import what needs long; what cannot be imported is said by who needs it."""
    for name in NEEDED:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def main() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1))  # until it can heed them
    imports()
    line = sys.stdin.readline()
    if not line:
        os._exit(0)
    told = json.loads(line)
    log = os.open(told["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
    for number, file in ((0, os.open(os.devnull, os.O_RDONLY)), (1, log), (2, log)):
        os.dup2(file, number)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [told["source"], os.environ.get("PYTHONPATH")]))
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # the copy of the code is signed as it is
    sys.dont_write_bytecode = True
    sys.path.insert(0, told["source"])
    sys.argv[1:] = told["words"]
    runpy.run_module("plumbline.search.worker", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
