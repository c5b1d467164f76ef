"""From a command line to the study that it asks for; and what a study cannot be asked. No torch here."""

from __future__ import annotations

import hashlib
import math
import os
import shlex
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from plumbline import config
from plumbline.compose import hydra_at
from plumbline.config import STUDY
from plumbline.contract import ConfigError, check_node, shown
from plumbline.environment import now
from plumbline.search.difference import IDENTITY
from plumbline.search.space import parse
from plumbline.search.study import Search, Study


def asked(
    cfg: DictConfig,
    overrides: list[str],
    known: dict[str, Any],
    config_name: str,
    folders: list[Path],
    words: list[str],
) -> Study:
    """The study that a multirun's command line asks for; raises ConfigError where it says what cannot be."""
    check_words(cfg, overrides)
    for group in ("search", "pruner"):
        if not OmegaConf.select(cfg, f"{group}._target_"):
            raise ConfigError(f"{group}: has no _target_; choose one of its options: {group}=…")
        for path, node in config.targets(group, cfg[group]):
            check_node(path, node, list(cfg.allow))
    search = config.build(cfg.search)()
    pruner = config.build(cfg.pruner)()
    kind = str(known.get("search"))
    check_search(search, kind, cfg.pruner, pruner is not None)
    run_words = [word for word in overrides if word.lstrip("+~").partition("=")[0].partition(".")[0] not in STUDY]
    with hydra_at(folders) as loader:
        space, fixed = parse(run_words, OmegaConf.to_container(cfg.space, resolve=True), loader)
    if known.get("checks") == "quick" and not any(word.lstrip("+~").startswith("checks") for word in run_words):
        fixed.append("checks=off")  # they take longer than small trials, and a study compares; who names them has them
    if kind != "grid" and not space.parameters:
        raise ConfigError(
            f"search={kind}: there is nothing to search; say for example 'optimiser.lr=tag(log,interval(1e-4,1e-1))' or space=…"
        )
    from plumbline.search.storage import VARIABLE
    from plumbline.search.storage import shown as without_password

    settings = {
        key: value for key, value in OmegaConf.to_container(cfg.search, resolve=True).items() if key != "_target_"
    }
    url, settings["storage"] = settings.pop("storage"), None
    if url is not None and "***" in url:  # a command as it was noted, without the password
        url = os.environ.get(VARIABLE)
        if url is None:
            raise ConfigError(
                f"search.storage={cfg.search.storage}: its password is written nowhere; say the URL with it, or "
                f"{VARIABLE}=<the whole URL> in front of the command"
            )
    if url is not None and url.startswith("sqlite:///") and not url.startswith("sqlite:////"):
        url = f"sqlite:///{Path(url.removeprefix('sqlite:///')).resolve()}"
    study = Study(
        folder=Path(), name="", question=cfg.question, cwd=str(Path.cwd()), config_name=config_name,
        command=shlex.join(["scripts/train", *(_hide(word) for word in words)]),
        config_dirs=[str(folder) for folder in folders[1:]], fixed=fixed, space=space, kind=kind, search=settings,
        pruner=OmegaConf.to_container(cfg.pruner, resolve=True), storage=None if url is None else without_password(url),
        created=now(), earlier=[],
    )  # fmt: skip
    study.name = cfg.study if cfg.study is not None else f"{cfg.name}-{digest(study)}"
    study.folder = (Path(cfg.outputs) / "studies" / study.name).resolve()
    study.points()  # raises where a grid has an interval
    if url is not None:
        os.environ[VARIABLE] = url
    return study


def _hide(word: str) -> str:
    from plumbline.search.storage import shown as without_password

    key, _, value = word.partition("=")
    return f"{key}={without_password(value)}" if key.endswith("search.storage") and "://" in value else word


def digest(study: Study) -> str:
    """Eight letters that stand for what is searched, so that a command given again finds the study that it began."""
    told = [
        sorted(study.fixed),
        study.space.plain(),
        study.kind,
        study.search["sampler"],
        *(study.search[k] for k in IDENTITY),
    ]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:8]


COMMON = ("outputs", "resume", "allow", "name")  # root values that trials share


def check_words(cfg: DictConfig, overrides: list[str]) -> None:
    """Raise ConfigError on what a study cannot be asked."""
    if cfg.resume is not None:
        raise ConfigError(f"resume={cfg.resume}: is for one run; a study goes on by the same command given again")
    if cfg.study is not None and (not cfg.study or cfg.study.startswith(".") or set(cfg.study) & set("/\\\0\n")):
        raise ConfigError(
            f"study={cfg.study!r}: is a folder's name: not empty, without slashes, not beginning with a dot"
        )
    for override in OverridesParser.create().parse_overrides(overrides):
        if override.is_sweep_override() and override.key_or_group.partition(".")[0] in (*STUDY, *COMMON):
            raise ConfigError(f"{override.input_line}: is the same for all trials of a study; give one value")


def check_search(search: Search, kind: str, node: DictConfig, prunes: bool) -> None:
    """Raise ConfigError on settings that do not go together."""
    pruner = node["_target_"].rpartition(".")[2]
    others = f"search.also={shown(search.also)} adds others"
    if search.also and prunes:
        raise ConfigError(f"pruner={pruner}: judges one objective, and {others}; say pruner=none")
    if search.also and kind == "cmaes":
        raise ConfigError(f"search={kind}: has one objective, and {others}; say search=nsga or tpe")
    if pruner == "wilcoxon" and search.seeds <= (enough := math.floor(math.log2(1 / node.p)) + 1):
        raise ConfigError(
            f"pruner=wilcoxon: decides between the seeds of a trial, and {search.seeds - 1} pairs before the last one are never "
            f"significant at pruner.p={node.p:g}; say search.seeds={enough + 1} or more"
        )  # n pairs, all of one sign, have p = 2^-n
    if search.also and search.confirm:
        raise ConfigError(
            f"search.confirm={search.confirm}: re-runs the best, and a front has none; leave one of both out"
        )
