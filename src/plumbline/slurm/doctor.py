"""`python -m plumbline.slurm.doctor cluster=<name> [resources=…]`: what stands between you and a job there, a line each."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from plumbline import config, exits, mistakes
from plumbline.config import ConfigError
from plumbline.files import open_file
from plumbline.output import print_error, print_safe
from plumbline.slurm.options import Options, read
from plumbline.slurm.submit import slurm

Line = tuple[str, str]  # what is wrong and how to mend it ('' if well), and what was looked at
LEAST_GB = 5


def main() -> int:
    """Look at everything; return 0 if all is well, 2 otherwise."""
    from plumbline.train import CONF

    words = sys.argv[1:]
    asked = bool({"-h", "--help"} & set(words))
    if asked or not any(word.startswith("cluster=") for word in words):
        print(__doc__)
        return exits.DONE if asked else exits.MISTAKE
    config.register()
    chosen = [] if any(word.startswith("resources=") for word in words) else ["resources=one_gpu"]
    try:
        mistakes.check_words(words, [CONF])
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", ["launcher=slurm", *chosen, *words])
        wrong = 0
        for cure, what in look(cfg):
            print_safe(f"{'MISS' if cure else 'ok':4}  {what}{f': {cure}' if cure else ''}", flush=True)
            wrong += bool(cure)
    except mistakes.COMPOSITION as error:
        print_error(mistakes.explain(error, [CONF]))
        return exits.MISTAKE
    print_safe("all is well" if not wrong else f"{wrong} to mend")
    return exits.MISTAKE if wrong else exits.DONE


def look(cfg: DictConfig) -> Iterator[Line]:
    """What was found, thing by thing; later ones need the earlier."""
    try:
        options = read(cfg)
    except ConfigError as error:
        yield str(error), "options of the cluster"
        return
    yield "", f"options of {options.cluster.title}: account {options.cluster.account or 'none'}"
    missing = [name for name in ("sbatch", "squeue", "scontrol", "scancel", "sinfo") if shutil.which(name) is None]
    yield (f"{', '.join(missing)} not found; log in to the cluster's login node" if missing else ""), "SLURM's commands"
    yield from folders()
    yield from python(options)
    if missing:
        return
    try:
        slurm(["sinfo", "--version"], options)
        slurm(["scontrol", "ping"], options)
    except ConfigError as error:
        yield str(error), "SLURM answers"
        return
    yield "", "SLURM answers"
    yield accepted(options)
    yield clock()


def accepted(options: Options) -> Line:
    """Whether sbatch would take such a job: account, partition, features, GPUs and limits in one question."""
    words = [
        f"--{name}" if value is True else f"--{name}={value}"
        for name, value in options.sbatch().items()
        if value is not None
    ]
    asked = " ".join(word for word in words if not word.startswith(("--requeue", "--open-mode", "--signal")))
    try:
        slurm(["sbatch", "--test-only", *words, "--wrap=true"], options)
    except ConfigError as error:
        return (
            f"{error}; see sinfo for partitions and features, sacctmgr show assoc user=$USER for accounts",
            f"sbatch {asked}",
        )
    return "", f"sbatch {asked}"


def folders() -> Iterator[Line]:
    """Whether runs can be written where we are: room, links and locks, which a checkpoint needs."""
    import fcntl

    here = Path.cwd()
    free = shutil.disk_usage(here).free / 1e9
    yield (
        (f"make room, or work elsewhere: {LEAST_GB} GB are little enough" if free < LEAST_GB else ""),
        f"{here}: {free:.0f} GB free",
    )
    try:
        with tempfile.TemporaryDirectory(dir=here, prefix=".doctor-") as folder:
            one = Path(folder) / "one"
            with open_file(one, "x") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.link(one, Path(folder) / "two")
        yield "", f"{here}: can be written, linked and locked"
    except OSError as error:
        yield (
            f"{error}; work on a file system that has links and locks, such as the project's folder",
            f"{here}: links and locks",
        )


def python(options: Options) -> Iterator[Line]:
    """Whether the environment of the jobs is there, and of the nodes' kind."""
    cluster = options.cluster
    path = Path(cluster.python or sys.executable)
    there = path.is_file() and os.access(path, os.X_OK)
    yield ("" if there else "build it by scripts/setup, and name it by cluster.python=…"), f"Python of the jobs: {path}"
    if cluster.architecture and options.resources.gpus and there and cluster.architecture != platform.machine():
        yield tried_on_a_node(options, path)


def tried_on_a_node(options: Options, path: Path) -> Line:
    """Whether that Python and torch start on a node of another architecture than this one."""
    wanted = {**options.sbatch(), "time": "0-00:05:00"}
    skipped = ("requeue", "open-mode", "signal")
    words = [f"--{name}={value}" for name, value in wanted.items() if name not in skipped and value not in (None, True)]
    what = f"it starts on a {options.cluster.architecture} node"
    try:
        slurm(["srun", *words, str(path), "-c", "import torch"], options)
    except ConfigError as error:
        return f"{error}; build the environment on such a node (slurm/README.md)", what
    return "", what


def clock() -> Line:
    """Whether the file system and this machine agree on the time: the newest file must not be of tomorrow."""
    with tempfile.NamedTemporaryFile(dir=Path.cwd(), prefix=".doctor-") as file:
        away = abs(os.stat(file.name).st_mtime - time.time())
    return (
        f"{away:.0f} s apart; tell support: checkpoints are told apart by time" if away > 5 else ""
    ), "clock and file system"


if __name__ == "__main__":
    exits.outlast_the_reader()
    sys.exit(main())
