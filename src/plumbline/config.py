"""The schema of a run, the one place that builds objects from it, and the check that comes before everything."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from functools import cache, partial
from math import inf
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from plumbline.contract import ConfigError, allowed, check_keys_of_hydra, check_node, locate, nearest, shown

_HERE = Path(__file__).resolve()
CONF = next(folder for folder in (_HERE.parents[2] / "conf", _HERE.parent / "conf") if folder.is_dir())  # clone, wheel

GROUPS = ("data", "model", "loss", "optimiser", "schedule", "init", "step")  # one option each
PLACE = ("launcher", "cluster", "resources")  # where it runs: no part of what it is
OPTIONAL = ("transfer",)  # one option, or null for none
COMBINED = ("regulariser", "augment", "tracker", "figures")  # any number of options
STUDY = ("search", "space", "pruner", "study")  # keys of a study (-m); a run has none of them
PRESETS = ("checks",)  # one option each, which holds many components
FAMILIES = {  # phase of a run -> the families of checks that it asks; causes stand before consequences
    "plan": ("plan",),
    "audit": ("data",),
    "probes": ("schedule", "init", "step", "augment", "reg", "lr", "overfit"),
    "curve": ("curve",),
    "result": ("result",),
}
MAXIMISE, MINIMISE = "maximise", "minimise"  # the directions of an objective


@dataclass
class Checks:
    """What a run is held to: families of checks by name, each a component; null takes one away."""

    samples: int = MISSING
    seconds: float = MISSING
    epochs: int = MISSING
    stop_on: str = MISSING
    mute: list[str] = MISSING
    fatal: list[str] = MISSING
    baselines: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    init: dict[str, Any] = field(default_factory=dict)
    step: dict[str, Any] = field(default_factory=dict)
    augment: dict[str, Any] = field(default_factory=dict)
    reg: dict[str, Any] = field(default_factory=dict)
    lr: dict[str, Any] = field(default_factory=dict)
    overfit: dict[str, Any] = field(default_factory=dict)
    curve: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)


@dataclass
class Config:
    """Every key a run may have. Types live here and values in conf/, so no value is written twice."""

    data: dict[str, Any] = MISSING
    model: dict[str, Any] = MISSING
    loss: dict[str, Any] = MISSING
    optimiser: dict[str, Any] = MISSING
    schedule: dict[str, Any] = MISSING
    init: dict[str, Any] = MISSING
    step: dict[str, Any] = MISSING
    transfer: dict[str, Any] = field(default_factory=dict)
    regulariser: dict[str, Any] = field(default_factory=dict)
    augment: dict[str, Any] = field(default_factory=dict)
    tracker: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    checks: Checks = field(default_factory=lambda: Checks())
    search: dict[str, Any] = field(default_factory=dict)
    space: dict[str, Any] = field(default_factory=dict)
    pruner: dict[str, Any] = field(default_factory=dict)
    launcher: dict[str, Any] = field(default_factory=dict)
    cluster: dict[str, Any] = field(default_factory=dict)
    resources: dict[str, Any] = field(default_factory=dict)
    name: str = MISSING
    question: str = MISSING
    parent: str | None = MISSING
    seed: int = MISSING
    epochs: int = MISSING
    batch_size: Any = MISSING  # a whole number, or auto
    accumulate: int = MISSING
    eval_batch_size: int = MISSING
    grad_clip: float | None = MISSING
    ema: float | None = MISSING
    swa: float | None = MISSING
    objective: str = MISSING
    direction: str = MISSING
    patience: int | None = MISSING
    device: str = MISSING
    precision: str = MISSING
    compile: bool = MISSING
    shard: bool = MISSING
    channels_last: bool = MISSING
    threads: int | None = MISSING
    watch: int = MISSING
    train_eval: int = MISSING
    save_minutes: float = MISSING
    snapshots: list[int] = MISSING
    bootstrap: int = MISSING
    report: bool = MISSING
    outputs: str = MISSING
    resume: str | None = MISSING
    study: str | None = None
    allow: list[str] = MISSING


def register() -> None:
    """Tell Hydra the schema and the resolver behind a run's unique folder."""
    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver("unique", _unique, use_cache=True, replace=True)


def _unique() -> str:
    import secrets  # not seeded by anything: two runs in one second still have two folders

    return secrets.token_hex(3)


def build(node: DictConfig) -> Callable[..., Any]:
    """The node's `_target_` with its keywords bound; runtime objects go in positionally: `build(cfg.model)(spec)`.

    Every node in it is checked first, against the `allow` of the configuration that it is a part of; conf/train.yaml's
    where that has none. Raises ConfigError on a target that may not be built.
    """
    from hydra.utils import instantiate

    root = node._get_root()
    allow = OmegaConf.select(root, "allow") if OmegaConf.is_dict(root) else None
    plain = OmegaConf.create(OmegaConf.to_container(node, resolve=True))  # what is checked is what is built
    for path, inner in targets(node._get_full_key(None) or "", plain):
        locate(path, shown(inner["_target_"]), list(allow or packages_allowed()))
        check_keys_of_hydra(path, inner)
    bound = instantiate(plain, _partial_=True, _convert_="all")
    return partial(bound.func, *bound.args, **bound.keywords)  # Hydra's own re-examines itself at each call: 0.2 ms


@cache
def packages_allowed() -> list[str]:
    """The packages that conf/train.yaml allows targets from."""
    return list(OmegaConf.load(CONF / "train.yaml").allow)


LEAST = {  # the smallest value that makes sense
    "seed": 0, "epochs": 0, "batch_size": 1, "accumulate": 1, "eval_batch_size": 1, "patience": 1, "threads": 1,
    "watch": 0, "train_eval": 1, "bootstrap": 1,
}  # fmt: skip
ONE_OF = {
    "direction": ("auto", MINIMISE, MAXIMISE),
    "precision": ("fp32", "bf16", "fp16"),
}
STOP_ON = ("never", "fail", "warn")  # the finding that ends a run before it wastes an hour


def check_device(name: str) -> None:
    """Raise ConfigError for what is the name of no device, whether or not one is there."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        devices = ("auto", "cpu", "cuda", "mps")
        raise ConfigError(
            f"device={name}: no such device{nearest(name, devices)}; accepted: auto, cpu, cuda, cuda:1, …, mps"
        )


def check_values(cfg: DictConfig) -> None:
    """Raise ConfigError on root values out of range. Imports nothing: it costs no time."""
    known = [item.name for item in fields(Config)]
    for key in cfg:
        if key not in known:
            others = nearest(key, known) or f"; a run has: {', '.join(known)}"
            raise ConfigError(f"{key}={shown(cfg[key])}: there is no such key{others}")
    for key in known:
        if key not in STUDY and (key not in cfg or OmegaConf.is_missing(cfg, key)):
            raise ConfigError(f"{key}: has no value; give one on the command line ({key}=…) or in conf/train.yaml")
    if cfg.batch_size != "auto" and (not isinstance(cfg.batch_size, int) or isinstance(cfg.batch_size, bool)):
        raise ConfigError(f"batch_size={shown(cfg.batch_size)}: must be a whole number, or auto")
    for key, least in LEAST.items():
        if key == "batch_size" and cfg[key] == "auto":
            continue
        if cfg[key] is not None and not least <= cfg[key] < 2**63:
            raise ConfigError(f"{key}={cfg[key]}: must be at least {least}{' and below 2^63' * (cfg[key] > least)}")
    for key, accepted in ONE_OF.items():
        if cfg[key] not in accepted:
            raise ConfigError(
                f"{key}={cfg[key]}: no such choice{nearest(cfg[key], accepted)}; accepted: {', '.join(accepted)}"
            )
    if cfg.threads is not None and cfg.threads > 4 * (os.cpu_count() or 1):
        raise ConfigError(f"threads={cfg.threads}: this machine has {os.cpu_count()} processors; null chooses")
    if any(epoch < 1 for epoch in cfg.snapshots):
        raise ConfigError(f"snapshots={shown(cfg.snapshots)}: are numbers of epochs, the first of which is 1")
    if cfg.epochs and any(epoch > cfg.epochs for epoch in cfg.snapshots):  # none is kept by a gate of no epoch
        raise ConfigError(
            f"snapshots={shown(cfg.snapshots)}: there are {cfg.epochs} epochs; ask for one of these, or more epochs"
        )
    if not 0 < cfg.save_minutes < inf:
        raise ConfigError(f"save_minutes={cfg.save_minutes}: must be above 0 and finite")
    if cfg.grad_clip is not None and not 0 < cfg.grad_clip < inf:
        raise ConfigError(f"grad_clip={cfg.grad_clip}: must be above 0 and finite, or null for none")
    if cfg.ema is not None and not 0 <= cfg.ema < 1:
        raise ConfigError(f"ema={cfg.ema}: a decay lies in [0, 1), such as 0.999; null for none")
    if cfg.swa is not None and not 0 <= cfg.swa < 1:
        raise ConfigError(
            f"swa={cfg.swa}: the part of the run before weights are averaged lies in [0, 1); null for none"
        )
    if cfg.swa is not None and cfg.ema is not None:
        raise ConfigError(
            f"swa={cfg.swa} ema={cfg.ema}: are two averages of the weights, and one network is kept; drop one"
        )
    if cfg.shard:
        for key, unlike, why in (
            ("ema", None, "would hold the whole network"),
            ("swa", None, "would hold the whole network"),
            ("compile", False, "wants whole layers"),
            ("figures", {}, "look into the whole network"),
        ):
            if cfg[key] != unlike:
                raise ConfigError(f"shard=true: {key} {why}, which no process has; leave out one of the two")
        if cfg.precision == "fp16":
            raise ConfigError(
                "shard=true precision=fp16: gradients in parts are not scaled together; say precision=bf16"
            )
    check_device(cfg.device)
    check_checks(cfg.checks)
    if not cfg.name or set(cfg.name) & set("/\\\0\n"):
        raise ConfigError(f"name={cfg.name!r}: is part of a folder's name: not empty, without slashes")
    if not cfg.outputs:
        raise ConfigError("outputs=: is where runs go: not empty; the current folder is outputs=.")
    for path, node in nodes(cfg):
        allowed(path, shown(node["_target_"]), list(cfg.allow))
    OmegaConf.to_container(cfg, resolve=True)  # an interpolation that leads nowhere is said now


def check_checks(cfg: DictConfig) -> None:
    """Raise ConfigError on values that would silently check nothing."""
    for key in ("samples", "seconds", "epochs", "stop_on", "mute", "fatal"):
        if OmegaConf.is_missing(cfg, key):
            raise ConfigError(f"checks.{key}: has no value; choose one of the options: checks=…")
    if cfg.samples < 10:
        raise ConfigError(f"checks.samples={cfg.samples}: must be at least 10")
    if not cfg.seconds > 0:
        raise ConfigError(f"checks.seconds={cfg.seconds}: must be above 0; checks.mute=[…] leaves checks out")
    if cfg.epochs < 1:
        raise ConfigError(
            f"checks.epochs={cfg.epochs}: must be at least 1: a job of that many is what a gate judges for"
        )
    if cfg.stop_on not in STOP_ON:
        raise ConfigError(
            f"checks.stop_on={cfg.stop_on}: no such choice{nearest(cfg.stop_on, STOP_ON)}; accepted: {', '.join(STOP_ON)}"
        )
    families = [family for phase in FAMILIES.values() for family in phase]
    known = [*families, *(f"{family}.{name}" for family in families for name in cfg[family])]
    for key in ("mute", "fatal"):
        for name in cfg[key]:
            if known != families and name not in known:  # with checks=off there is nothing to know
                raise ConfigError(
                    f"checks.{key}=[{name}]: there is no such check{nearest(name, known)}; checks: {', '.join(known)}"
                )


def check_config(cfg: DictConfig) -> None:
    """Raise ConfigError unless every component gets exactly its keyword-only parameters, rightly typed.

    Runs before any data are read. Imports the components' modules, and with them torch.
    """
    check_values(cfg)
    for path, node in nodes(cfg):
        check_node(path, node, list(cfg.allow))


def nodes(cfg: DictConfig) -> Iterator[tuple[str, DictConfig]]:
    """(path, node) of every component, nested ones included; a component without a target is a mistake."""
    for group in GROUPS:
        if "_target_" not in (cfg[group] or {}):
            raise ConfigError(f"{group}: has no _target_; choose one of its options: {group}=…")
    for group in COMBINED:
        for name, node in cfg[group].items():
            if not isinstance(node, DictConfig) or "_target_" not in node:
                raise ConfigError(
                    f"{group}.{name}: is not chosen, so it has no _target_; "
                    f"say {group}=[{name}] first, or take its values out: ~{group}.{name}"
                )
    for family in ("baselines", *(family for phase in FAMILIES.values() for family in phase)):
        for name, node in cfg.checks[family].items():
            if node is not None and "_target_" not in node:
                raise ConfigError(
                    f"checks.{family}.{name}: is not in this option of checks, so it has no _target_; "
                    f"it has: {', '.join(cfg.checks[family])}"
                )
    for group in OPTIONAL:
        if cfg[group] and "_target_" not in cfg[group]:
            raise ConfigError(f"{group}: has no _target_; choose one of its options first: {group}=…")
    yield from targets("", cfg)


def targets(path: str, node: Any) -> Iterator[tuple[str, DictConfig]]:
    """(path, node) of every node below one, itself included, that has a `_target_`."""
    if OmegaConf.is_dict(node):
        if "_target_" in node:
            yield path, node
        for key in node:
            if not OmegaConf.is_missing(node, key):
                yield from targets(f"{path}.{key}" if path else str(key), node[key])
    elif OmegaConf.is_list(node):
        for index, item in enumerate(node):
            yield from targets(f"{path}[{index}]", item)
