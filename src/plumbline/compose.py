"""From the words of a command line to a configuration, with Hydra's loader. Nothing that it names is executed.

Hydra's own runner is not used: it instantiates callbacks, configures loggers, sets variables and writes files as the
`hydra` part of a configuration has it, and that part may come from somebody else's option file.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from plumbline import config
from plumbline.config import STUDY, ConfigError
from plumbline.contract import shown

if TYPE_CHECKING:
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
UNUSED = {  # keys of Hydra's runner, which is not used: their value while nobody sets them, and what does the same
    "callbacks": ({}, "put the code into a step or a tracker of your own"),
    "output_subdir": (None, "config.yaml and overrides.yaml stand in the run's folder"),
    "job.chdir": (None, "paths are seen from the current folder"),
    "job.env_set": ({}, "set the variable in front of the command: NAME=value scripts/train …"),
    "launcher._target_": (LAUNCHER, "leave hydra/launcher=… out; launcher=slurm hands a command to SLURM"),
    "sweeper.params": (None, "give the values on the command line, or in a file of the group space"),
    "sweeper._target_": (SWEEPER, "leave hydra/sweeper=… out; search=… chooses how -m searches"),
}


@contextmanager
def hydra_at(folders: list[Path]) -> Iterator[ConfigLoaderImpl]:
    """Hydra's loader over these folders of option files, our conf/ first, then those of --config-dir."""
    config.register()
    before = GlobalHydra.instance().hydra
    version.setbase("1.3")
    path = create_config_search_path(str(folders[0]))
    for folder in folders[1:]:
        path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
    GlobalHydra.instance().clear()
    loader = Hydra.create_main_hydra2("train", path).config_loader
    load = loader.load_configuration

    def load_checked(*words: Any, **options: Any) -> DictConfig:
        cfg = load(*words, **options)
        check_hydra_part(cfg)
        return cfg

    loader.load_configuration = load_checked  # every composition is checked, whichever method of Hydra asks for it
    try:
        yield loader
    finally:
        GlobalHydra.instance().clear()
        if before is not None:
            GlobalHydra.instance().initialize(before)


def check_hydra_part(cfg: DictConfig) -> None:
    """Raise ConfigError on what Hydra would instantiate, import, or do beside the run."""
    part = OmegaConf.to_container(cfg.hydra, resolve=False)
    for key, (usual, instead) in UNUSED.items():
        value: Any = part
        for name in key.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if value not in (usual, None, False):
            raise ConfigError(f"hydra.{key}={shown(value)}: is not used here; {instead}")
    for path, node in _mappings("hydra", part):
        if "_target_" in node and path not in ("hydra.launcher", "hydra.sweeper"):
            raise ConfigError(f"{path}._target_={shown(node['_target_'])}: nothing is built from here; remove it")
        if "()" in node or ("class" in node and node["class"] != "logging.StreamHandler"):
            raise ConfigError(f"{path}: builds {shown(node.get('()', node.get('class')))}; remove it")


def _mappings(path: str, value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, dict):
        yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _mappings(f"{path}.{key}", item)


def compose(words: list[str], config_name: str) -> DictConfig:
    """The configuration of a run; within `hydra_at`. Raises what mistakes.explain has messages for."""
    from hydra import compose as hydra_compose

    return without_study(hydra_compose(config_name, words))


def without_study(cfg: DictConfig) -> DictConfig:
    """The configuration without the keys that are a study's."""
    with open_dict(cfg):
        for key in STUDY:
            if key in cfg:
                del cfg[key]
    return cfg


def compose_command(arguments: argparse.Namespace, folders: list[Path]) -> tuple[DictConfig, DictConfig] | None:
    """(configuration, its `hydra` part) of a command line; None where a flag only wanted something printed.

    Raises ConfigError, and what mistakes.explain has messages for.
    """
    for flag in ("config_path", "experimental_rerun"):
        if getattr(arguments, flag) is not None:
            raise ConfigError(f"--{flag.replace('_', '-')}: is not used here; --config-dir=… adds a folder of options")
    name = arguments.config_name or "train"
    flags = [arguments.run, arguments.multirun, arguments.shell_completion, arguments.hydra_help]
    flags += [arguments.cfg is not None, arguments.info is not None]
    if sum(map(bool, flags)) > 1:
        raise ConfigError("say one of --run, --multirun, --cfg, --info, --hydra-help and --shell-completion")
    if (arguments.resolve or arguments.package) and arguments.cfg is None:
        raise ConfigError("--resolve and --package: go with --cfg")
    with hydra_at(folders) as loader:
        hydra = GlobalHydra.instance().hydra
        if arguments.hydra_help:
            from hydra._internal.utils import get_args_parser

            hydra.hydra_help(name, get_args_parser(), arguments)
        elif arguments.shell_completion:
            hydra.shell_completion(name, arguments.overrides)
        elif arguments.cfg is not None:
            try:
                with contextlib.redirect_stderr(io.StringIO()):
                    hydra.show_cfg(name, arguments.overrides, arguments.cfg, arguments.package, arguments.resolve)
            except SystemExit:
                raise ConfigError(f"--package={arguments.package}: there is no such part; leave it out") from None
        elif arguments.info is not None:
            hydra.show_info(arguments.info, name, arguments.overrides)
        else:
            return _composed(loader, arguments, name)
    return None


def _composed(loader: Any, arguments: argparse.Namespace, name: str) -> tuple[DictConfig, DictConfig]:
    words = arguments.overrides
    several = arguments.multirun or "hydra.mode=MULTIRUN" in words
    cfg = loader.load_configuration(name, words, RunMode.MULTIRUN if several else RunMode.RUN)
    if not several and cfg.hydra.mode == RunMode.MULTIRUN:  # a configuration file of the user's has it
        several, cfg = True, loader.load_configuration(name, words, RunMode.MULTIRUN)
    HydraConfig.instance().set_config(cfg)  # for ${hydra:…}
    with read_write(cfg.hydra), open_dict(cfg.hydra):
        cfg.hydra.mode = RunMode.MULTIRUN if several else RunMode.RUN
        if not several:
            cfg.hydra.runtime.output_dir = os.path.abspath(str(OmegaConf.select(cfg, "hydra.run.dir")))
    known = copy.deepcopy(cfg).hydra
    with read_write(cfg), open_dict(cfg):
        del cfg["hydra"]
    OmegaConf.set_struct(cfg, True)
    return cfg, known
