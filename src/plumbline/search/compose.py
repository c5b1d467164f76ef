"""The configuration of a trial, composed as the command line would be; and all of a study's, checked before the first."""

from __future__ import annotations

import random
from itertools import combinations_with_replacement
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from plumbline import config, mistakes
from plumbline.compose import compose, hydra_at
from plumbline.config import ConfigError
from plumbline.search.space import Point, Space, corners, product_size

MOST = 40  # points of a space that are composed before its first trial


class Points:
    """The configuration of every point of a space; those that choose the same options are composed once.

    Their values are set on a copy, which is what Hydra does. `folders`: where the option files are, our own first.
    """

    def __init__(self, space: Space, fixed: list[str], config_name: str, folders: list[Path]):
        self.space, self.fixed, self.config_name, self.folders = space, fixed, config_name, folders
        self.composed: dict[tuple[str, ...], DictConfig] = {}
        self.checked: set[tuple[tuple[str, ...], str, str]] = set()  # pairs of words, and the options they were under
        self.parser = OverridesParser.create()

    def __call__(self, point: Point) -> DictConfig:
        """Compose a point as the command line would be. Raises what mistakes.explain knows to say."""
        try:
            return self._set(point)
        except Exception:  # whatever it was: the slow way has the words for it
            with hydra_at(self.folders):
                return compose([*self.fixed, *self.space.words(point)], self.config_name)

    def check(self, point: Point) -> None:
        """Compose a point and check its values, unless each pair of them was checked. Raises ConfigError with its words."""
        words, options = self.space.words(point), self.options(point)
        pairs = {(options, *pair) for pair in combinations_with_replacement(words, 2)}
        if words and pairs <= self.checked:
            return
        try:
            config.check_values(self._set(point))
        except Exception:
            try:
                mistakes.check_words([*self.fixed, *words], self.folders)
                config.check_values(self(point))
            except mistakes.ANYTHING as error:
                raise self.mistake(error, point) from error
        self.checked |= pairs

    def learn(self, point: Point) -> DictConfig:
        """Compose the options that a point chooses, unless they are known already."""
        options = self.options(point)
        if options not in self.composed:
            mistakes.check_words([*self.fixed, *options], self.folders)
            with hydra_at(self.folders):
                self.composed[options] = compose([*self.fixed, *options], self.config_name)
        return self.composed[options]

    def _set(self, point: Point) -> DictConfig:
        cfg = self.learn(point).copy()
        options = self.options(point)
        values = [word for word in self.space.words(point) if word not in options]
        for override in self.parser.parse_overrides(values):
            OmegaConf.update(cfg, override.key_or_group, override.value(), merge=True)
        return cfg

    def mistake(self, error: BaseException, point: Point) -> ConfigError:
        """What is wrong with a point."""
        said, among = mistakes.explain(error, self.folders), " ".join(self.space.words(point))
        return ConfigError(f"{said} (in the trial {among})" if among and among != said.partition(":")[0] else said)

    def options(self, point: Point) -> tuple[str, ...]:
        """The overrides of a point that choose options, or add and remove keys; the others set a value."""
        words = self.space.words(point)
        return tuple(word for word in words if word[0] in "+~" or self._group(word.partition("=")[0]))

    def _group(self, key: str) -> bool:
        return "." not in key and any((folder / key.partition("@")[0]).is_dir() for folder in self.folders)


def checkpoints(space: Space, points: list[Point] | None) -> list[Point]:
    """The points that are checked: all of a grid, or a sample that has each choice and each end of every interval."""
    return points if points is not None else corners(space, min(MOST, int(min(product_size(space), MOST))))


def sampled(points: list[Point], most: int) -> list[Point]:
    """Some of them: the first, the last and others at random."""
    if len(points) <= most:
        return points
    return [points[0], points[-1], *random.Random(0).sample(points[1:-1], most - 2)]
