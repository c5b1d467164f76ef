"""What a run starts from may be an experiment, which is trained first: a run of its own, found again by its configuration."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from plumbline import mistakes
from plumbline.changes import ELSEWHERE, PLACES
from plumbline.config import STUDY, ConfigError, build, check_config
from plumbline.exits import BY_HAND, DONE, TO_BE_CONTINUED
from plumbline.files import make_folder, open_file
from plumbline.output import print_safe
from plumbline.record import MAY_CHANGE, write_request
from plumbline.signals import Left
from plumbline.slurm.job import fate
from plumbline.stored import read_overrides, read_run_file
from plumbline.transfer import named
from plumbline.variables import recorded

if TYPE_CHECKING:
    from plumbline.signals import Signals

PASSED_ON = ("allow", "device", "threads", "save_minutes", "outputs", "data.root", "data.download")  # if they were said
REFUSED = (*STUDY, "allow", "resume", "hydra", "launcher", "cluster", "resources")  # keys that its words may not have
WORD = re.compile(r"[+~]{0,2}[\w./@]+(=.*)?")


def trained(
    cfg: DictConfig, asked: DictConfig, overrides: list[str], directory: Path, signals: Signals, alone: bool
) -> DictConfig:
    """The configuration with a folder in place of the experiment that transfer.file names, whose run is finished by then.

    It is trained if it is not there, gone on with if it was stopped, and found again by its configuration and the contents
    of its data: another configuration has another folder, and so have other data. Asked to leave meanwhile, it saves, and
    so does this run, in `directory`, as `asked`. Several processes train none: each would start one. Raises ConfigError and Left.
    """
    said = named(cfg)
    if said is None:
        return cfg
    if (directory / "overrides.yaml").exists():  # a run that goes on
        overrides = read_overrides(directory)
    words, folder = located(said, overrides)
    if status(folder) != "finished":
        if not alone:
            raise ConfigError(
                f"transfer.file={said}: several processes do not train it; say first, alone:  "
                f"scripts/train {shlex.join(words)} hydra.run.dir={folder}"
            )
        try:
            with held(folder, signals) as lock:
                if status(folder) != "finished":
                    print_safe(f"first {said}, whose weights are where this run starts: {folder}", flush=True)
                    ended = train(words, folder, signals, lock)
                    if signals.asked:  # it may have been ended by that before it could, or when it had nothing to save
                        raise Left(fate(signals.asked))
                    if ended in (TO_BE_CONTINUED, BY_HAND):
                        raise Left("preempted" if ended == TO_BE_CONTINUED else "stopped")
                    if ended != DONE:
                        raise ConfigError(f"transfer.file={said}: its run ended with status {ended}; see {folder}")
        except Left:
            make_folder(directory)
            write_request(directory, asked, overrides)  # so that this run goes on by resume=, too
            raise
    cfg = cfg.copy()
    cfg.transfer.file = str(folder)
    return cfg


def located(said: str, overrides: list[str]) -> tuple[list[str], Path]:
    """The words of the run that is to be trained first, and its folder, whose name stands for its configuration and its data."""
    from plumbline.compose import compose, hydra_at
    from plumbline.train import CONF, config_dirs

    own = shlex.split(said)
    for word in own:
        key = word.lstrip("+~").partition("=")[0]
        if not WORD.fullmatch(word) or key.partition(".")[0].partition("/")[0] in REFUSED:
            raise ConfigError(f"transfer.file={said}: {word} cannot be said of a run that is trained first")
    dirs = config_dirs(sys.argv[1:])
    with mistakes.explained([CONF, *dirs], f"transfer.file={said}: "), hydra_at([CONF, *dirs]):
        there = compose(own, "train")
        passed = [word for word in overrides if word.partition("=")[0] in PASSED_ON]
        words = [*own, *(w for w in passed if OmegaConf.select(there, w.partition("=")[0]) is not None)]
        cfg = compose(words, "train")
    if cfg.transfer and named(cfg):
        raise ConfigError(f"transfer.file={said}: starts from {cfg.transfer.file} itself; train that by hand")
    same = {key: value for key, value in recorded(cfg).items() if key not in (*MAY_CHANGE, "outputs")}
    places = {path.partition(".")[2] for path in (*ELSEWHERE, *PLACES)}
    same["data"] = {key: value for key, value in same["data"].items() if key not in places}
    same["fingerprint"] = fingerprint(cfg)
    digest = hashlib.sha256(json.dumps(same, sort_keys=True, default=str).encode()).hexdigest()[:10]
    return [*words, *(f"--config-dir={folder}" for folder in dirs)], Path(
        cfg.outputs
    ) / "first" / f"{cfg.name}-{digest}"


def fingerprint(cfg: DictConfig) -> str:
    """The fingerprint of the data that a configuration trains on, as they are now. Raises ConfigError."""
    from plumbline.assemble import mistakes_in

    check_config(cfg)
    with mistakes_in("data"):
        return build(cfg.data)().fingerprint()


def status(folder: Path) -> str | None:
    """How far a run in that folder has come; None where there is none."""
    return read_run_file(folder)["status"] if (folder / "run.json").exists() else None


@contextmanager
def held(folder: Path, signals: Signals) -> Iterator[Any]:
    """Wait until nobody trains in that folder; who waits can be asked to leave."""
    make_folder(folder.parent, folder.name)
    with open_file(folder / ".first", "a") as file:
        waited = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waited:
                    print_safe(f"waiting for {folder}, which another process trains", flush=True)
                waited = True
                if signals.asked:
                    raise Left(fate(signals.asked)) from None
                time.sleep(0.2)
        yield file


def train(words: list[str], folder: Path, signals: Signals, lock: Any) -> int:
    """Train in that folder, or go on there; return the exit status. What this process is asked, that one is asked, too.

    It holds the lock as well: were this process killed, others would still wait for it.
    """
    if (folder / "run.json").exists():
        words = [f"resume={folder}", *(word for word in words if word.partition("=")[0] in MAY_CHANGE)]
    else:
        words = [*words, f'hydra.run.dir="{folder}"']
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    command = [sys.executable, "-m", "plumbline.train", *words]
    child = subprocess.Popen(command, env=environment, process_group=0, pass_fds=[lock.fileno()])
    told = None
    while (ended := child.poll()) is None:
        if signals.asked and signals.asked != told:
            told = signals.asked
            child.send_signal(signal.SIGINT if told == "stopped" else signal.SIGTERM)
        time.sleep(0.05)
    return ended


def origin(cfg: DictConfig, asked: DictConfig) -> dict[str, Any] | None:
    """Where a run's first weights come from, for its record: what was asked, the file, its digest, and whose run it is of."""
    if not cfg.transfer or cfg.transfer.file is None:
        return None
    place = Path(cfg.transfer.file).expanduser()
    file = place / "best.pt" if place.is_dir() else place
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    known = {"asked": asked.transfer.file, "weights": str(file.resolve()), "sha256": digest}
    if not (file.parent / "run.json").exists():
        return known
    try:
        run = read_run_file(file.parent)
    except ConfigError as error:
        print_safe(f"note: {error}", file=sys.stderr)
        return known
    return known | {
        "run": str(file.parent.resolve()), "command": run["command"], "commit": (run["git"] or {}).get("commit"),
        "data": (run["data"] or {}).get("fingerprint"), "objective": run["objective"], "best": run["best"],
    }  # fmt: skip
