"""A study: its folder, and what its study.yaml says of it. No torch here."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from omegaconf import OmegaConf

from plumbline import config
from plumbline.contract import ConfigError, check_node, nearest, require
from plumbline.search.space import Point, Space

if TYPE_CHECKING:
    import optuna

FILE = "study.yaml"
CODE = "code"


@dataclass(kw_only=True)
class Search:
    """How a study searches, and for how long: the keys of conf/search."""

    sampler: Any
    n_trials: int | None
    timeout: float | None
    workers: int | None
    seeds: int
    seed: int
    also: list[str]
    confirm: int
    max_failures: int
    retry: int
    max_deaths: int
    storage: str | None
    extend: bool

    def __post_init__(self) -> None:
        least = {"n_trials": 1, "seeds": 1} | dict.fromkeys(
            ("workers", "seed", "confirm", "max_failures", "retry", "max_deaths"), 0
        )
        for key, lowest in least.items():
            value = getattr(self, key)
            require(f"search.{key}", value, value is None or value >= lowest, f"at least {lowest}")
        require(
            "search.timeout", self.timeout, self.timeout is None or self.timeout > 0, "above 0, in minutes, or null"
        )


@dataclass
class Study:
    """What study.yaml says of a study, and its folder."""

    folder: Path
    name: str
    question: str
    command: str
    cwd: str
    config_name: str
    config_dirs: list[str]  # of options beside ours, as they were given
    fixed: list[str]  # overrides of every trial
    space: Space
    kind: str  # the option of conf/search
    search: dict[str, Any]
    pruner: dict[str, Any]
    storage: str | None  # the URL without its password
    created: str
    earlier: list[list[dict[str, Any]]]  # the spaces it had before it was widened
    _points: list[Point] | None = field(default=None, repr=False)

    @classmethod
    def read(cls, folder: Path) -> Study:
        try:
            facts = yaml.safe_load((folder / FILE).read_text(encoding="utf-8"))
            return cls(folder=folder, **{**facts, "space": Space.of(facts["space"])})
        except FileNotFoundError:
            raise ConfigError(
                f"study={folder}: is not the folder of a study: there is no {FILE} in it{_near(folder)}"
            ) from None
        except (yaml.YAMLError, TypeError, KeyError, OSError) as error:
            raise ConfigError(f"study={folder}: its {FILE} cannot be read: {error}") from error

    def write(self) -> None:
        from plumbline.files import write_text

        facts = {key: value for key, value in asdict(self).items() if key not in ("folder", "_points")}
        facts["space"] = self.space.plain()
        header = "# What is searched, and how; the trials are in the storage. Written by the command below.\n"
        write_text(
            self.folder / FILE, header + yaml.safe_dump(_lists(facts), sort_keys=False, allow_unicode=True, width=120)
        )

    @property
    def optuna_name(self) -> str:
        return self.name if not self.earlier else f"{self.name} ({len(self.earlier) + 1})"

    @property
    def settings(self) -> Search:
        return Search(**self.search)

    def points(self) -> list[Point] | None:
        """The points of a grid by the number of their trial; those added later come after those there were."""
        if self.kind != "grid":
            return None
        if self._points is not None:
            return self._points
        found: list[Point] = []
        for space in [*map(Space.of, self.earlier), self.space]:
            found += [point for point in space.grid() if point not in found]
        self._points = found
        return found

    @property
    def n_trials(self) -> int:
        """How many trials it has when it is done."""
        points, asked = self.points(), self.search["n_trials"]
        return asked if points is None else len(points) if asked is None else min(asked, len(points))

    def folders(self, snapshot: bool = False) -> list[Path]:
        """The folders of option files: of the tree as it is, or as it was when the study began."""
        from plumbline.train import CONF

        if not snapshot:
            return [CONF, *map(Path, self.config_dirs)]
        return [CONF, *(self.copied(Path(folder)) for folder in self.config_dirs)]

    def where(self, *more: str) -> list[str]:
        """The words that name the folders of its option files, and more of them: Hydra has one --config-dir."""
        first, *others = [*self.config_dirs, *more] or [None]
        words = [] if first is None else [f"--config-dir={first}"]
        return [*words, f"hydra.searchpath=[{','.join(map(_quoted, others))}]"] if others else words

    def copied(self, path: Path) -> Path:
        """Where a path of the tree lies in the study's copy of it; a path elsewhere stays."""
        import json

        noted = self.folder / CODE / "snapshot.json"
        root = json.loads(noted.read_text())["root"] if noted.exists() else None
        inside = root is not None and path.is_relative_to(root)
        return self.folder / CODE / path.relative_to(root) if inside else path

    @property
    def allow(self) -> list[str]:
        """The packages that its command allowed targets from."""
        words = [word.partition("=")[2] for word in self.fixed if word.partition("=")[0] == "allow"]
        return list(yaml.safe_load(words[-1])) if words else config.packages_allowed()

    def built(self, path: str, node: dict[str, Any]) -> Any:
        """A component as study.yaml has it."""
        whole = OmegaConf.create({"allow": self.allow})
        OmegaConf.update(whole, path, node)
        part = OmegaConf.select(whole, path)
        check_node(path, part, self.allow)
        return config.build(part)()

    def trial(self, number: int) -> Path:
        return self.folder / f"{number:04d}"

    def open(self, url: str | None = None) -> optuna.Study:
        """Optuna's study. url: where `storage` is a database, its URL with the password."""
        import optuna

        from plumbline.search.storage import VARIABLE, open_storage, shown

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        url = url or os.environ.get(VARIABLE) if self.storage is not None else None
        url = url or self.storage
        if url is not None and "***" in shown(url) and url == self.storage:
            raise ConfigError(
                f"study={self.name}: its storage has a password: say {VARIABLE}=<the whole URL>, or use ~/.pgpass"
            )
        try:
            return optuna.load_study(study_name=self.optuna_name, storage=open_storage(self.folder, url))
        except KeyError:
            raise ConfigError(f"study={self.name}: has no trials yet; give its command again: {self.command}") from None


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, list | tuple) else value


def _quoted(folder: str) -> str:
    """A folder of option files in a list of Hydra's; in quotes where it has a letter that means something there."""
    url = f"file://{folder}"
    if re.fullmatch(r"[\w./:@%+-]+", url):
        return url
    return "'" + re.sub(r"(\\*)'", r"\1\1\\'", url) + "'"


def _near(folder: Path) -> str:
    others = [path.parent.name for path in folder.parent.glob(f"*/{FILE}")]
    return nearest(folder.name, others) or (f"; in {folder.parent} are: {', '.join(sorted(others))}" if others else "")


def find(name: str, outputs: str) -> Path:
    """The folder of a study by its name, or by its path."""
    path = Path(name)
    if not (path / FILE).exists() and "/" not in name:
        path = Path(outputs) / "studies" / name
    return path.resolve()
