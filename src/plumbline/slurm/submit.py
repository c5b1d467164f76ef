"""`launcher=slurm`: check everything, copy the code, write the script, submit it, say what was done. Then return."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from omegaconf import DictConfig

from plumbline.config import ConfigError
from plumbline.environment import command, now
from plumbline.exits import DONE
from plumbline.output import print_safe
from plumbline.slurm.options import Options
from plumbline.slurm.render import script

JOB = "job.json"  # in the folder of a run: what was submitted last


def submit(cfg: DictConfig, directory: Path, overrides: list[str], options: Options, extra: list[str]) -> int:
    """Submit one run, new or gone on with, whose folder is decided now. extra: what its command needs beside the folder."""
    from plumbline.files import make_folder, missing_folders, remove_empty
    from plumbline.record import check_names, write_request
    from plumbline.snapshot import snapshot

    folder = directory.resolve()
    check(cfg, options)
    words = ["-m", "plumbline.train", f"resume={hydra_quoted(folder)}", *extra]
    python = options.cluster.python or sys.executable
    what = f"{command(overrides)}  # submitted {now()}"
    text = script(
        options,
        what=what,
        name=f"{cfg.name}-{folder.name}",
        folder=folder,
        code=folder / "code",
        python=python,
        command=words,
    )
    if options.launcher.dry_run:
        print_safe(text)
        say(options, 1)
        return DONE
    check_names(folder)
    not_queued(folder, options)
    begun, missing = (folder / "config.yaml").exists(), missing_folders(folder)
    try:
        make_folder(folder)
        if not begun:
            write_request(folder, cfg, overrides)
        snapshot(folder)
        number = hand_over(text, folder, options, submitted(folder))
    except BaseException:
        if not begun:
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            remove_empty(missing)
        raise
    say(options, 1)
    how_to(number, folder / f"slurm-{number}.out", folder, options)
    print_safe(f"go on:  after a stop, with  scripts/train resume={directory} launcher=slurm cluster=… resources=…")
    return DONE


def check(cfg: DictConfig, options: Options) -> None:
    """Raise ConfigError on whatever would end the job at once: the run is composed, built and rehearsed as it will be."""
    check_device(cfg.device, options)
    from plumbline import tasks
    from plumbline.assemble import mistakes_in, rehearse
    from plumbline.config import build, check_config

    check_config(cfg)
    with mistakes_in("data"):
        data = build(cfg.data)()
    tasks.objective(data.spec, cfg.objective, cfg.direction)
    rehearse(cfg, data.spec)


def check_device(device: str, options: Options) -> None:
    """Raise ConfigError unless what computes is what is asked for."""
    gpus, kind = options.resources.gpus, device.partition(":")[0]
    if gpus and kind == "cpu":
        raise ConfigError(f"device=cpu: resources.gpus={gpus} would stand idle; say device=auto, or resources.gpus=0")
    if not gpus and kind in ("cuda", "mps"):
        raise ConfigError(f"device={device}: resources.gpus=0 gives it none; say resources=one_gpu, or device=auto")


def hand_over(text: str, folder: Path, options: Options, earlier: list[str]) -> str:
    """Write job.sh into the folder and submit it; return the job's number. earlier: those of the same folder before."""
    from plumbline.files import write_json, write_text

    write_text(folder / "job.sh", text)
    answer = slurm(["sbatch", "--parsable", str(folder / "job.sh")], options)
    number = answer.strip().splitlines()[-1].partition(";")[0]
    write_json(
        folder / JOB, {"job": number, "jobs": [*earlier, number], "cluster": options.cluster.title, "submitted": now()}
    )
    return number


def submitted(folder: Path) -> list[str]:
    """The numbers of all jobs that were submitted for a folder."""
    from plumbline.files import read_json

    if not (folder / JOB).exists():
        return []
    jobs = read_json(folder / JOB).get("jobs")
    if not isinstance(jobs, list) or not all(isinstance(job, str) and job.isalnum() for job in jobs):
        raise ConfigError(f"{folder / JOB}: holds no numbers of jobs; it is damaged: remove it")
    return jobs


def not_queued(folder: Path, options: Options) -> None:
    """Raise ConfigError if the folder's job still waits or runs: two in one folder would be one too many."""
    for number in submitted(folder)[-1:]:
        states = slurm(
            ["squeue", "--noheader", "--format=%T", f"--jobs={number}"], options, missing_is_fine=True
        ).split()
        if states:
            raise ConfigError(
                f"{folder}: its job {number} is {states[0]} already; watch it, or end it by scancel {number}"
            )


def slurm(words: list[str], options: Options, missing_is_fine: bool = False) -> str:
    """What a command of SLURM answers. What an allocation around us, or the user's shell, presets does not reach it."""
    presets = ("SLURM_", "SBATCH_", "SRUN_", "SALLOC_")
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(presets) or key == "SLURM_CONF"
    }
    environment |= options.cluster.environment
    try:
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
    except FileNotFoundError as error:
        raise ConfigError(
            f"launcher=slurm: there is no {words[0]} here; say it on a login node, or try slurm/here/up and cluster=here"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ConfigError(
            f"launcher=slurm: {words[0]} gave no answer within 120 s; is the cluster in maintenance?"
        ) from error
    if done.returncode and not (missing_is_fine and "Invalid job id" in done.stderr):
        hint = "; is slurm/here/up?" if options.cluster.title == "slurm/here" else ""
        said = (
            " ".join(re.sub(r"^\w+: (error: )?", "", line) for line in done.stderr.splitlines())
            or f"status {done.returncode}"
        )
        raise ConfigError(f"launcher=slurm: {words[0]} refused: {said}{hint}")
    return done.stdout


def say(options: Options, jobs: int) -> None:
    """What is asked for, in numbers."""
    wanted, cluster = options.resources, options.cluster
    each = [
        f"{several(wanted.nodes, 'node')} × {several(wanted.processes, 'process', 'processes')} of {several(wanted.cpus, 'CPU')}"
    ]
    if wanted.gpus:
        each.append(several(wanted.nodes * wanted.gpus, "GPU") + (f" ({cluster.gpu})" if cluster.gpu else ""))
    hours = jobs * options.minutes / 60 * wanted.nodes * (wanted.gpus or wanted.processes * wanted.cpus)
    unit = "GPU-hours" if wanted.gpus else "CPU-hours"
    print_safe(f"{cluster.title}: {several(jobs, 'job')}, each {', '.join(each)}; at most {hours:.1f} {unit} a start")
    if cluster.notice:
        print_safe(f"notice: {cluster.notice}")


def several(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def how_to(number: str, log: Path, folder: Path, options: Options) -> None:
    """Where things are, how to watch and how to stop."""
    reach(options)
    print_safe(f"job:    {number}, by {folder / 'job.sh'}")
    print_safe(f"watch:  squeue --jobs={number}; tail -F {log}")
    print_safe(f"stop:   scancel {number}  (it saves first)")


def reach(options: Options) -> None:
    """How the user's own shell finds a cluster that has a configuration of its own."""
    own = options.cluster.environment.get("SLURM_CONF")
    if own and os.environ.get("SLURM_CONF") != own:
        print_safe(f"first:  export SLURM_CONF={own}")


def hydra_quoted(path: Path) -> str:
    """A path as a value of Hydra's command line."""
    text = str(path)
    if re.fullmatch(r"[\w/.:@~+-]+", text):
        return text
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
