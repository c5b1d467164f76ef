"""What a job may ask for, as conf/launcher, conf/cluster and conf/resources say it, and the checks of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from math import ceil
from typing import Annotated, Any, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from plumbline.config import PLACE
from plumbline.contract import ConfigError, check_value, nearest
from plumbline.ranges import Count, Range

EARLY = 60  # seconds that SLURM may send a signal too early (sbatch's page on --signal; 45 were seen)
NAME = re.compile(r"[a-z][a-z0-9-]*")
VALUE = re.compile(r"[\w.:,=+@%/&|*!()\[\]~-]+")  # what sbatch options are written with; nothing a shell would act on


@dataclass
class Launcher:
    dry_run: bool
    save_seconds: Annotated[int, Range("[1, 86400]")]
    retry: Annotated[int, Range("[0, 1000]")]
    workers: Annotated[int, Range("[1, 10000]")]


@dataclass
class Resources:
    nodes: Annotated[int, Range("[1, 100000]")]
    processes: Annotated[int, Range("[1, 10000]")]
    gpus: Annotated[int, Range("[0, 10000]")]
    cpus: Annotated[int, Range("[1, 10000]")]
    memory: str | None
    time: str


@dataclass
class Cluster:
    title: str
    notice: str | None
    gone: str | None
    account: str | None
    account_like: str | None
    gpu: str | None
    gpu_types: dict[str, Count]
    longest: str
    sbatch: dict[str, Any]
    with_gpus: dict[str, Any]
    without_gpus: dict[str, Any]
    modules: list[str]
    environment: dict[str, str]
    python: str | None
    architecture: str | None
    partitions: dict[str, str] = field(default_factory=dict)  # for a cluster file's own use


@dataclass
class Options:
    """The three, checked."""

    launcher: Launcher
    cluster: Cluster
    resources: Resources

    @property
    def minutes(self) -> int:
        """The time limit, in SLURM's whole minutes."""
        return ceil(seconds("resources.time", self.resources.time) / 60)

    @property
    def lead(self) -> int:
        """Seconds before the end at which the run is warned."""
        return self.launcher.save_seconds + EARLY

    def sbatch(self) -> dict[str, Any]:
        """Every option of sbatch, ours and the cluster's, by name."""
        wanted, cluster = self.resources, self.cluster
        return {
            "nodes": wanted.nodes, "ntasks-per-node": wanted.processes, "cpus-per-task": wanted.cpus,
            "mem": wanted.memory, "time": duration(self.minutes),
            "requeue": True, "open-mode": "append", "signal": f"USR1@{self.lead}",
            **cluster.sbatch, **(cluster.with_gpus if wanted.gpus else cluster.without_gpus),
        }  # fmt: skip


def read(cfg: DictConfig) -> Options:
    """The options of a configuration. Raises ConfigError with the key at fault and where to set it."""
    for group in PLACE:
        if not cfg[group]:
            raise ConfigError(f"{group}: is not chosen; launcher=slurm wants cluster=… and resources=… beside it")
    if cfg.cluster.gone:
        raise ConfigError(f"cluster: {cfg.cluster.gone}")
    options = Options(
        *(_typed(group, kind, cfg) for group, kind in zip(PLACE, (Launcher, Cluster, Resources), strict=True))
    )
    _check(options)
    return options


def _typed(group: str, kind: type, cfg: DictConfig) -> Any:
    known = list(kind.__dataclass_fields__)
    for key in cfg[group]:
        if key not in known:
            raise ConfigError(
                f"{group}.{key}: there is no such key{nearest(str(key), known)}; it has: {', '.join(known)}"
            )
    needed = [key for key in known if key != "partitions"]
    if missing := [key for key in needed if key not in cfg[group] or OmegaConf.is_missing(cfg[group], key)]:
        raise ConfigError(f"{group}.{missing[0]}: has no value; give one, or take _common into the file's defaults")
    try:
        plain = OmegaConf.to_container(cfg[group], resolve=True)
        found = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), plain))
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or ""
        raise ConfigError(f"{group}.{key}: {str(error).splitlines()[0]}") from error
    for key, annotation in get_type_hints(kind, include_extras=True).items():
        check_value(f"{group}.{key}", getattr(found, key), annotation)
    return found


def _check(options: Options) -> None:
    cluster, wanted = options.cluster, options.resources
    if wanted.memory is not None and not re.fullmatch(r"\d+[KMGT]?", wanted.memory):
        raise ConfigError(f"resources.memory={wanted.memory}: is written as 16G, or 16000M")
    limit, longest = seconds("resources.time", wanted.time), seconds("cluster.longest", cluster.longest)
    least = options.lead + EARLY + 30
    if limit < least:
        raise ConfigError(
            f"resources.time={wanted.time}: the run is warned {options.lead} s before its end, and up to {EARLY} s earlier "
            f"still: to get anywhere it needs {duration(ceil(least / 60))}; or make launcher.save_seconds smaller"
        )
    if limit > longest:
        raise ConfigError(f"resources.time={wanted.time}: {cluster.title} has a limit of {cluster.longest}")
    if cluster.account_like is not None and not cluster.account:
        raise ConfigError(
            f"cluster.account: {cluster.title} wants the project that pays, such as {cluster.account_like}: "
            "export SBATCH_ACCOUNT=… (in ~/.bashrc, for ever), or say cluster.account=…"
        )
    if wanted.gpus and cluster.gpu_types:
        types = list(cluster.gpu_types)
        if cluster.gpu not in types:
            raise ConfigError(
                f"cluster.gpu={cluster.gpu}: {cluster.title} has none{nearest(str(cluster.gpu), types)}; "
                f"it has: {', '.join(types)}"
            )
        if wanted.gpus > cluster.gpu_types[cluster.gpu]:
            raise ConfigError(
                f"resources.gpus={wanted.gpus}: a node of {cluster.title} has at most {cluster.gpu_types[cluster.gpu]} "
                f"{cluster.gpu}; ask for more nodes"
            )
    if wanted.gpus and wanted.processes > wanted.gpus:
        raise ConfigError(
            f"resources.processes={wanted.processes}: each process has a GPU of its own, and resources.gpus={wanted.gpus}"
        )
    for name, value in options.sbatch().items():
        if not NAME.fullmatch(name):
            raise ConfigError(f"cluster.sbatch.{name}: is no option of sbatch; they are written as gpus-per-node")
        if value not in (None, True, False) and not VALUE.fullmatch(str(value)):
            raise ConfigError(
                f"cluster.sbatch.{name}={value!r}: has a character that no option of sbatch is written with"
            )
    for name in cluster.environment:
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise ConfigError(f"cluster.environment.{name}: is no name of a variable")
    if cluster.architecture is not None and not re.fullmatch(r"\w+", cluster.architecture):
        raise ConfigError(
            f"cluster.architecture={cluster.architecture}: is written as `uname -m` says it, such as aarch64"
        )
    if wanted.gpus and cluster.architecture and cluster.python is None:
        raise ConfigError(
            f"cluster.python: the GPU nodes of {cluster.title} are {cluster.architecture}, and need an environment that was "
            "built on one of them: see slurm/README.md, then export PLUMBLINE_PYTHON=<its python>, or say cluster.python=…"
        )


def seconds(key: str, written: str) -> int:
    """A time limit in seconds; raises ConfigError on one that may mean two things (SLURM's 24:00 is 24 minutes)."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)", written)
    if match is None:
        raise ConfigError(f"{key}={written}: is written as 12:00:00 or 2-12:00:00 (days-hours:minutes:seconds)")
    days, hours, minutes, rest = (int(part or 0) for part in match.groups())
    return ((24 * days + hours) * 60 + minutes) * 60 + rest


def duration(minutes: int) -> str:
    """Whole minutes as days-hours:minutes:seconds."""
    return f"{minutes // 1440}-{minutes // 60 % 24:02}:{minutes % 60:02}:00"
