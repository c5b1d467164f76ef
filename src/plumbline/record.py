"""The folder of a run: what was asked, what happened, what came out. Every file is whole at every moment."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import time
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from plumbline.checks.core import ranked
from plumbline.config import STUDY, Config, ConfigError
from plumbline.environment import command, environment, git_state, now
from plumbline.files import (
    TEMPORARY,
    NotOurs,
    check_file,
    check_folder,
    lock,
    make_folder,
    open_file,
    plain,
    read_text,
    save_arrays,
    sweep,
    write_json,
    write_text,
)
from plumbline.output import print_error, redact
from plumbline.stored import RUN, read_overrides, read_run_file, read_settings
from plumbline.variables import is_private_at, recorded

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor, nn

    from plumbline.data.core import Data, Split

MAY_CHANGE = ("resume", "allow", "device", "threads", "save_minutes")  # of a run that goes on
WORST = 24  # predictions shown in the report
AT_MOST = 1.0  # seconds between writings of run.json for an epoch's sake: it takes longer than a small epoch
STALE_SECONDS = 600  # a running run without a sign of life for so long is lost


class Record:
    """A run's folder, opened for a run that starts or goes on. `note(...)` adds to run.json, atomically."""

    def __init__(self, directory: Path, cfg: DictConfig, overrides: list[str]):
        self.directory, self.reports = directory, cfg.report
        make_folder(directory)
        if cfg.resume is None:
            check_new(directory)
        check_names(directory)
        self._lock = lock(directory)
        sweep(directory)
        begun = (directory / "run.json").exists()  # a run killed in its first moment has none yet, nor has a queued one
        trained = any(directory.glob("last.pt*"))
        self.resumed, self.training = cfg.resume is not None and (begun or trained), False
        if cfg.resume is None and (begun or trained):
            raise ConfigError(f"hydra.run.dir={directory}: holds another run; go on with it by resume={directory}")
        self.began, self.earlier, self.pace = time.monotonic(), 0.0, Clock(AT_MOST)
        self.found_as: dict[str, Any] | None = None
        if self.resumed and begun:
            self.run = read_run_file(directory)
            self.earlier, self.found_as = self.run["seconds"], dict(self.run)
            self.note(
                status="running",
                restarts=self.run["restarts"] + 1,
                error=None,
                finished=None,
                heartbeat=now(),
                process=_process(),
            )
            return
        if cfg.resume is None:
            write_request(directory, cfg, overrides)
        elif (directory / "overrides.yaml").exists():
            overrides = read_overrides(directory)
        known = recorded(cfg)
        self.run = {
            "status": "running", "name": known["name"], "question": known["question"], "command": command(overrides),
            "started": now(), "heartbeat": now(), "process": _process(), "finished": None, "seconds": 0.0,
            "seed": cfg.seed, "objective": None, "direction": None,
            "best": None, "baseline": None, "baselines": [], "interval": None, "margins": None, "parameters": None, "data": None,
            "environment": environment(), "git": git_state(), "restarts": 0, "findings": [], "trackers": {},
            "change": None, "test": None, "error": None, "processes": None, "transfer": None,
        }  # fmt: skip
        self.note()

    def __enter__(self) -> Record:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        """Note how a run ended that did not finish, and write its report."""
        try:
            if error is None:
                return
            if self.found_as is not None and not self.training and isinstance(error, ConfigError):
                self.run = self.found_as  # it could not go on: it is what it was
                self.note()
                return
            status = "stopped" if isinstance(error, KeyboardInterrupt) else getattr(error, "status", "failed")
            reason = (
                None if status in ("stopped", "preempted", "pruned") else redact(str(error)) or type(error).__name__
            )
            self.note(status=status, error=reason, finished=now())
            if self.reports and status != "preempted":  # that one goes on, and the grace time is short
                from plumbline.report.page import write_report

                write_report(self.directory)
        except OSError as full:  # the disk, most likely: what is there stays as it is
            print_error(f"{self.directory}: could not be written to ({full})")
        finally:
            self._lock.close()

    def note(self, **changes: Any) -> None:
        """Change run.json: at once, and wholly."""
        self.run |= changes
        if self.run["status"] == "finished" and not self.run["finished"]:
            self.run |= {"finished": now(), "seconds": self.earlier + time.monotonic() - self.began}
        write_json(self.directory / "run.json", self.run)

    def beat(self) -> None:
        """A sign of life, for those who watch from elsewhere."""
        self.note(heartbeat=now(), seconds=self.earlier + time.monotonic() - self.began)

    def metrics(self, records: list[dict[str, Any]]) -> None:
        """metrics.jsonl as the records are; what a killed run wrote beyond its checkpoint goes."""
        write_text(self.directory / "metrics.jsonl", "".join(json.dumps(plain(record)) + "\n" for record in records))

    def found(self, phase: str, findings: list[dict[str, Any]]) -> None:
        """Note the findings of a phase of the run, in place of what it found before."""
        others = [earlier for earlier in self.run["findings"] if earlier.get("phase") != phase]
        if not findings and others == self.run["findings"]:
            return  # as after most epochs
        self.note(findings=others + findings)
        write_json(self.directory / "checks.json", ranked(self.run["findings"]))

    def describe(
        self, data: Data, model: nn.Module, where: torch.device, rate: Callable[[float], float], **facts: Any
    ) -> None:
        """Note what is known once data and model are there. A run that goes on must find the data it began with."""
        fingerprint = data.fingerprint()
        earlier = self.run["data"]
        if earlier and earlier.get("fingerprint") != fingerprint:
            raise ConfigError(
                f"resume={self.directory}: the data have changed since it began "
                f"({earlier.get('fingerprint')} then, {fingerprint} now); start a new run"
            )
        if earlier and self.run["processes"] != facts["processes"]:
            raise ConfigError(
                f"resume={self.directory}: began with {self.run['processes']} processes, each with a batch of its own, and "
                f"there are {facts['processes']} now: the steps would be others; start as many, or a new run"
            )
        self.note(
            data={
                **asdict(data.spec),
                "train": len(data.train),
                "val": len(data.val),
                "fingerprint": fingerprint,
                "left_out": data.left_out,
                "selection": data.selection and asdict(data.selection),
            },
            environment=environment() | {"device": str(where)},
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            lr_curve=[[k / 200, rate(k / 200)] for k in range(201)],
            **facts,
        )

    def epoch(self, epoch: dict[str, Any], best: dict[str, Any]) -> None:
        """An epoch is over: its record, the best one so far, and a sign of life, once a second at most."""
        with open_file(self.directory / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(plain(epoch)) + "\n")
        self.run["best"] = best
        if self.pace.due():
            self.beat()


START = ("config.yaml", "overrides.yaml", "job.sh", "job.json", ".lock", ".first", ".taken", "output.log", "code")
LEFT = (
    "run.json", "metrics.jsonl", "checks.json", "data.npz", "baseline.npz", "predictions.npz", "test_predictions.npz",
    "validation.json", "best.pt", "best.pt.before", "last.pt", "last.pt.before", "report.html", "traceback.txt",
)  # fmt: skip
FOLDERS = ("code", "figures", "tensorboard", "wandb")  # in a run's folder


def check_names(directory: Path) -> None:
    """Raise NotOurs where a link, or another thing, stands in a run's folder in the place of one of its files."""
    for name in (*START, *LEFT):
        if name not in FOLDERS:
            check_file(directory / name)
    for name in FOLDERS:
        check_folder(directory / name)


def check_new(directory: Path) -> None:
    """Raise ConfigError unless a new run may have the folder: it is empty, or holds what an interrupted start left."""
    if not directory.exists():
        return
    there = {path.name for path in directory.iterdir() if not TEMPORARY.fullmatch(path.name)}
    if not there:
        return
    requested = {"config.yaml", "overrides.yaml"} <= there and _can(read_settings, directory)
    requested = requested and _can(read_overrides, directory)
    if (requested and there & {RUN, "last.pt", "last.pt.before"}) or _can(read_run_file, directory):
        raise ConfigError(f"hydra.run.dir={directory}: holds another run; go on with it by resume={directory}")
    harmless = {".lock", ".first", ".taken", "output.log"} | (
        {"overrides.yaml"} if _can(read_overrides, directory) else set()
    )
    foreign = (there & set(LEFT) if requested else there - harmless) - (
        {"traceback.txt"} if _is_traceback(directory) else set()
    )
    if foreign:
        some = ", ".join(sorted(foreign)[:3]) + ("" if len(foreign) < 4 else ", …")
        raise ConfigError(
            f"hydra.run.dir={directory}: is a folder with files that are no run's ({some}); "
            f"a run has a folder of its own: hydra.run.dir={directory / 'run'}"
        )


def _can(read: Callable[[Path], Any], directory: Path) -> bool:
    try:
        read(directory)
    except ConfigError:
        return False
    return True


def _is_traceback(directory: Path) -> bool:
    try:
        return read_text(directory / "traceback.txt").startswith("Traceback (most recent call last)")
    except (OSError, ValueError):
        return False


def write_request(directory: Path, cfg: DictConfig, overrides: list[str]) -> None:
    """What is asked of a run: with these two files its folder can be gone on with, from the very beginning, too."""
    write_text(directory / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(overrides)))
    write_text(directory / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(recorded(findable(cfg)))))


def findable(cfg: DictConfig) -> DictConfig:
    """The configuration with the paths of its data and of the weights it starts from absolute: it serves from any folder."""
    cfg = cfg.copy()
    for key in ("data.file", "data.root", "transfer.file", "parent"):
        path = None if is_private_at(cfg, key) else OmegaConf.select(cfg, key)
        if isinstance(path, str) and Path(path).exists():
            OmegaConf.update(cfg, key, str(Path(path).resolve()))
    return cfg


def save_predictions(path: Path, data: Data, split: Split, outputs: Tensor, losses: Tensor, targets: Tensor) -> None:
    """What a network says of each sample of a split: ids, targets, outputs, losses, and the inputs of the worst.

    outputs: probabilities (N, classes), of pixels (N, outputs), or values (N, outputs) in
    the targets' own unit; inputs are un-normalised.
    """
    worst = losses.cpu().argsort(descending=True, stable=True)[:WORST]
    inputs = next(iter(split.batches(WORST, worst)))[0]
    inputs = inputs if data.scale is None else data.scale.inverse(inputs)
    if data.spec.task == "classification":
        outputs = outputs.softmax(1)
    elif data.spec.task == "segmentation":
        outputs = outputs.sigmoid()
    elif data.target_scale is not None:
        outputs, targets = data.target_scale.inverse(outputs), data.target_scale.inverse(targets)
    arrays = {"targets": targets, "outputs": outputs, "losses": losses, "worst": worst, "worst_inputs": inputs}
    if split.items is not None:  # of pairs, which are not independent of one another
        arrays["items"] = split.items
    named = {key: array.contiguous().cpu().numpy() for key, array in arrays.items()}
    save_arrays(path, ids=split.ids, **named)


def read_config(asked: DictConfig, overrides: list[str]) -> tuple[DictConfig, Path]:
    """The configuration and folder of the run that `resume` names; what it may use is what is allowed today."""
    directory = Path(asked.resume)
    given = [override.lstrip("+~").partition("=")[0] for override in overrides]
    if surplus := [key for key in given if key not in MAY_CHANGE]:
        raise ConfigError(
            f"resume={asked.resume}: goes on with that run's own configuration, so {', '.join(surplus)} cannot be "
            f"given too; only {', '.join(MAY_CHANGE[1:])} may be, or start a new run"
        )
    saved = saved_config(directory, "resume", list(asked.allow))
    for key in given:
        OmegaConf.update(saved, key, asked[key])
    saved.resume = str(directory)
    return saved, directory


def saved_config(directory: Path, word: str, allow: list[str]) -> DictConfig:
    """config.yaml of a run's folder, typed by today's schema; `allow` is today's: what is read back never widens it."""
    try:
        content = OmegaConf.create(read_settings(directory))
    except ConfigError as error:
        raise ConfigError(f"{word}={error}") from error
    try:
        saved = OmegaConf.merge(OmegaConf.structured(Config), today(), content)
    except (OmegaConfBaseException, ValueError, TypeError, AssertionError) as error:
        raise ConfigError(
            f"{word}={directory}: its config.yaml is not of this version: {str(error).splitlines()[0]}"
        ) from error
    saved.allow = allow
    return saved


def today() -> DictConfig:
    """The root values of conf/train.yaml: what a run of an earlier version does not say has today's value."""
    from plumbline.train import CONF

    values = OmegaConf.load(CONF / "train.yaml")
    return OmegaConf.masked_copy(values, [key for key in values if key not in ("defaults", "hydra", *STUDY)])


def read_run(directory: Path) -> dict[str, Any]:
    """run.json, with a `running` that gives no sign of life any more shown as lost."""
    return with_fate(read_run_file(directory), directory)


def with_fate(run: dict[str, Any], directory: Path) -> dict[str, Any]:
    """A run's record, with a `running` that gives no sign of life any more shown as lost."""
    if run["status"] == "running" and not alive(run, directory):
        return run | {"status": "lost"}
    return run


def alive(run: dict[str, Any], directory: Path) -> bool:
    """Whether a running run is: by the lock its process holds on this machine, by its last heartbeat on another."""
    if run["process"]["host"] != platform.node():
        return (datetime.now().astimezone() - datetime.fromisoformat(run["heartbeat"])).total_seconds() < STALE_SECONDS
    try:
        with open_file(directory / ".lock", "r") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except (OSError, NotOurs):
        return False


def _process() -> dict[str, Any]:
    return {"id": os.getpid(), "host": platform.node()}


class Clock:
    """Says when something is due that is to happen every so often."""

    def __init__(self, seconds: float):
        self.seconds, self.last = seconds, time.monotonic()

    def due(self) -> bool:
        if time.monotonic() - self.last < self.seconds:
            return False
        self.last = time.monotonic()
        return True
