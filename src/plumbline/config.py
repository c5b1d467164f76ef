"""The schema of a run, the one place that builds objects from it, and the check that comes before everything."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from plumbline import parsing, variables
from plumbline.contract import (
    ConfigError,
    allowed,
    check_keys_of_hydra,
    check_node,
    check_value,
    locate,
    nearest,
    shown,
)
from plumbline.ranges import Count, Decay, Items, Positive, Range, Seed

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

    samples: Annotated[int, Range("[10, 100000000]")] = MISSING
    seconds: Positive = MISSING
    epochs: Count = MISSING
    stop_on: Annotated[str, Literal["never", "fail", "warn"]] = MISSING
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
    seed: Seed = MISSING
    epochs: Annotated[int, Range("[0, 10000000]")] = MISSING
    batch_size: Annotated[Any, Count | Literal["auto"]] = MISSING
    accumulate: Count = MISSING
    eval_batch_size: Count = MISSING
    grad_clip: Positive | None = MISSING
    ema: Decay | None = MISSING
    swa: Decay | None = MISSING
    objective: str = MISSING
    direction: Annotated[str, Literal["auto", "minimise", "maximise"]] = MISSING
    patience: Count | None = MISSING
    device: str = MISSING
    precision: Annotated[str, Literal["fp32", "bf16", "fp16"]] = MISSING
    compile: bool = MISSING
    shard: bool = MISSING
    channels_last: bool = MISSING
    threads: Count | None = MISSING
    watch: Annotated[int, Range("[0, 1000000]")] = MISSING
    train_eval: Count = MISSING
    save_minutes: Annotated[float, Range("[1e-9, 1e9]")] = MISSING
    snapshots: Annotated[list[Count], Items(distinct=True)] = MISSING
    bootstrap: Annotated[int, Range("[1, 100000]")] = MISSING
    report: bool = MISSING
    outputs: str = MISSING
    resume: str | None = MISSING
    study: str | None = None
    allow: list[str] = MISSING


def register() -> None:
    """Tell Hydra the schema and the resolver behind a run's unique folder; give it our bounded reader of YAML."""
    parsing.install()
    ConfigStore.instance().store(name="schema", node=Config)
    variables.register()
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


STOP_ON = ("never", "fail", "warn")  # the finding that ends a run before it wastes an hour


@cache
def value_types() -> dict[str, Any]:
    """The annotation of every root value and of those of `checks`, by path; groups are no values."""
    named = {"": Config, "checks.": Checks}
    found = {
        f"{at}{key}": kind for at, of in named.items() for key, kind in get_type_hints(of, include_extras=True).items()
    }
    return {path: kind for path, kind in found.items() if kind not in (dict[str, Any], Checks)}


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
    for key in ("samples", "seconds", "epochs", "stop_on", "mute", "fatal"):
        if OmegaConf.is_missing(cfg.checks, key):
            raise ConfigError(f"checks.{key}: has no value; choose one of the options: checks=…")
    for path, annotation in value_types().items():
        if path != "study":
            value = OmegaConf.select(cfg, path)
            check_value(
                path, OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value, annotation
            )
    if cfg.threads is not None and cfg.threads > 4 * (os.cpu_count() or 1):
        raise ConfigError(f"threads={cfg.threads}: this machine has {os.cpu_count()} processors; null chooses")
    if cfg.epochs and any(epoch > cfg.epochs for epoch in cfg.snapshots):  # none is kept by a gate of no epoch
        raise ConfigError(
            f"snapshots={shown(cfg.snapshots)}: there are {cfg.epochs} epochs; ask for one of these, or more epochs"
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
    variables.check_secrets(cfg)
    check_checks(cfg.checks)
    if not cfg.name or set(cfg.name) & set("/\\\0\n"):
        raise ConfigError(f"name={cfg.name!r}: is part of a folder's name: not empty, without slashes")
    if not cfg.outputs:
        raise ConfigError("outputs=: is where runs go: not empty; the current folder is outputs=.")
    for path, node in nodes(cfg):
        allowed(path, shown(node["_target_"]), list(cfg.allow))
    OmegaConf.to_container(cfg, resolve=True)  # an interpolation that leads nowhere is said now


def check_checks(cfg: DictConfig) -> None:
    """Raise ConfigError on names of checks that do not exist."""
    for family in ("baselines", *(family for phase in FAMILIES.values() for family in phase)):
        for name, node in cfg[family].items():
            if node is not None and not OmegaConf.is_dict(node):
                raise ConfigError(
                    f"checks.{family}.{name}={shown(node)}: is no value but a check with values of its own; null leaves it out"
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
