"""The configuration of a trial, composed as the command line would be; and all of a study's, checked before the first."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from plumbline import config, mistakes
from plumbline.config import STUDY, ConfigError
from plumbline.search.space import Point, Space, corners, product_size

MOST = 100  # points of a space that are composed before its first trial


@contextmanager
def hydra_at(folders: list[Path]) -> Iterator[Any]:
    """Hydra's loader over these folders of option files, our conf/ first, then those of --config-dir."""
    config.register()
    before = GlobalHydra.instance().hydra
    version.setbase("1.3")
    path = create_config_search_path(str(folders[0]))
    for folder in folders[1:]:
        path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
    GlobalHydra.instance().clear()
    hydra = Hydra.create_main_hydra2("train", path)
    try:
        yield hydra.config_loader
    finally:
        GlobalHydra.instance().clear()
        if before is not None:
            GlobalHydra.instance().initialize(before)


def compose(words: list[str], config_name: str) -> DictConfig:
    """The configuration of a run; within `hydra_at`. Raises what mistakes.explain knows to say."""
    from hydra import compose as hydra_compose

    return alone(hydra_compose(config_name, words))


def alone(cfg: DictConfig) -> DictConfig:
    """The configuration without the keys that are a study's."""
    with open_dict(cfg):
        for key in STUDY:
            if key in cfg:
                del cfg[key]
    return cfg


def check_all(points: list[Point], space: Space, fixed: list[str], config_name: str, folders: list[Path]) -> None:
    """Compose and check each point's configuration; raise ConfigError with the words of the first that is a mistake.

    Points that choose the same options are composed once: their values are set on a copy, which is what Hydra does.
    """
    composed: dict[tuple[str, ...], DictConfig] = {}
    parser = OverridesParser.create()
    for point in points:
        words = space.words(point)
        plain = [word for word in words if "." in word.partition("=")[0] or not _group(word, folders)]
        plain = [word for word in plain if word[0] not in "+~"]
        options = tuple(word for word in words if word not in plain)
        try:
            if options not in composed:
                composed[options] = _checked([*fixed, *options, *plain], config_name, folders, words)
                composed[options] = compose([*fixed, *options], config_name)
                continue
            cfg = composed[options].copy()
            for override in parser.parse_overrides(plain):
                OmegaConf.update(cfg, override.key_or_group, override.value(), merge=True)
            config.check_values(cfg)
        except Exception:  # whatever it was: the slow way has the words for it
            _checked([*fixed, *words], config_name, folders, words)


def _checked(overrides: list[str], config_name: str, folders: list[Path], words: list[str]) -> DictConfig:
    try:
        mistakes.check_words(overrides, folders)
        cfg = compose(overrides, config_name)
        config.check_values(cfg)
        return cfg
    except mistakes.ANYTHING as error:
        said = mistakes.explain(error, folders)
        among = " ".join(words)
        raise ConfigError(
            f"{said} (in the trial {among})" if among and among != said.partition(":")[0] else said
        ) from error


def _group(word: str, folders: list[Path]) -> bool:
    key = word.lstrip("+~").partition("=")[0].partition("@")[0]
    return any((folder / key).is_dir() for folder in folders)


def checkpoints(space: Space, points: list[Point] | None) -> list[Point]:
    """The points that are checked: all of a grid, or a sample that has each choice and each end of every interval."""
    return points if points is not None else corners(space, min(MOST, int(min(product_size(space), MOST))))


def sampled(points: list[Point], most: int) -> list[Point]:
    """Some of them: the first, the last and others at random."""
    if len(points) <= most:
        return points
    return [points[0], points[-1], *random.Random(0).sample(points[1:-1], most - 2)]


Compose = Callable[[list[str]], DictConfig]
