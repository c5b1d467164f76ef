"""A study: its folder, and what its study.yaml says of it. No torch here."""

from __future__ import annotations

import math
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import yaml
from omegaconf import OmegaConf

from plumbline import config
from plumbline.contract import ConfigError, check_node, check_value, nearest
from plumbline.files import read_text
from plumbline.parsing import parse_yaml
from plumbline.ranges import Index, Positive, Range, Seed
from plumbline.search.space import SEPARATOR, Parameter, Point, Space

if TYPE_CHECKING:
    import optuna

FILE = "study.yaml"
CODE = "code"
LONGEST = 200  # bytes of a name: a folder's has at most 255


class NoTrials(ConfigError):
    """A study is not in its storage: it is new, or the storage was lost."""


@dataclass(kw_only=True)
class Search:
    """How a study searches, and for how long: the keys of conf/search."""

    sampler: Any
    n_trials: Annotated[int, Range("[1, 1000000]")] | None
    timeout: Positive | None
    workers: Annotated[int, Range("[0, 1000]")] | None
    seeds: Annotated[int, Range("[1, 1000]")]
    seed: Seed
    also: list[str]
    confirm: Annotated[int, Range("[0, 1000]")]
    max_failures: Index
    retry: Index
    max_deaths: Index
    storage: str | None
    extend: bool
    trust: bool


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
    home: str = ""  # its folder when study.yaml was written
    _points: list[Point] | None = field(default=None, repr=False)
    _made: list[Path] = field(default_factory=list, repr=False)  # folders around it that were made for it

    @classmethod
    def read(cls, folder: Path) -> Study:
        """Read and check study.yaml; raises ConfigError on any other content than `write` makes."""
        try:
            facts = checked(parse_yaml(read_text(folder / FILE)))
            study = cls(folder=folder, **{**facts, "space": Space.of(facts["space"])})
            study.check()
        except FileNotFoundError:
            raise ConfigError(
                f"study={folder}: is not the folder of a study: there is no {FILE} in it{_near(folder)}"
            ) from None
        except (yaml.YAMLError, ValueError, TypeError, KeyError, OSError, RecursionError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ConfigError(
                f"study={folder}: its {FILE} cannot be read: {reason}; put back the file as the study wrote it, or begin "
                "another study=…"
            ) from error
        return study.relocated()

    def check(self) -> None:
        """Raise ConfigError on values that no study has."""
        if self.search["n_trials"] is None and self.kind != "grid":
            raise ConfigError("search.n_trials=null: only a grid has an end of its own")
        for rows in (*self.earlier, self.space.plain()):
            check_space(Space.of(rows))
        self.points()

    def relocated(self) -> Study:
        """The study with its paths as they are where its folder lies now, if that was moved or copied with them."""
        if self.home and self.home != str(self.folder):
            self.cwd = str(moved(Path(self.cwd), Path(self.home), self.folder))
            self.config_dirs = [str(moved(Path(place), Path(self.home), self.folder)) for place in self.config_dirs]
        return self

    def write(self) -> None:
        from plumbline.files import write_text

        facts = {key: value for key, value in asdict(self).items() if key not in ("folder", "_points", "_made")}
        facts["space"], facts["home"] = self.space.plain(), str(self.folder)
        facts["search"] = self.search | {"trust": False}  # consent is given by a person, not by a file
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
            known = {tuple(point.items()) for point in found}
            found += [point for point in space.grid() if tuple(point.items()) not in known]
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
        if root is not None and self.home and self.home != str(self.folder):
            root = str(moved(Path(root), Path(self.home), self.folder))
        inside = root is not None and path.is_relative_to(root)
        copy = self.folder / CODE / path.relative_to(root) if inside else path
        return copy if copy.exists() else path  # what was left out lies where it lay

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

    def run_folders(self, number: int) -> list[Path]:
        """The folders of all runs of a trial, one a seed."""
        seeds, folder = self.search["seeds"], self.trial(number)
        return [folder] if seeds == 1 else [folder / f"seed-{seed}" for seed in range(seeds)]

    def point(self, number: int) -> Point | None:
        """The point of a trial that is known by its number."""
        points = self.points()
        if points is not None:
            return points[number] if number < len(points) else None
        if self.kind == "qmc":
            from plumbline.search.samplers import quasi_random

            return self.space.at(quasi_random(len(self.space.parameters), number, self.search["seed"]))
        return None

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
            raise NoTrials(f"study={self.name}: has no trials yet; give its command again: {self.command}") from None


def checked(facts: Any) -> dict[str, Any]:
    """What study.yaml holds, if it has the keys and types of a study. Raises ConfigError with the first that it has not."""
    if not isinstance(facts, dict):
        raise ConfigError("it must be a mapping")
    kinds = get_type_hints(Study)
    kinds = {key: kinds[key] for key in kinds if key not in ("folder", "_points", "_made")} | {
        "space": list[dict[str, Any]]
    }
    _check_keys("", {"home": ""} | facts, kinds)
    facts["search"] = {"trust": False} | facts["search"]
    _check_keys("search.", facts["search"], get_type_hints(Search, include_extras=True))
    if not isinstance(facts["search"]["sampler"], dict):
        raise ConfigError("search.sampler: must be a mapping")
    _check_keys("search.sampler.", {"_target_": facts["search"]["sampler"].get("_target_")}, {"_target_": str})
    _check_keys("pruner.", {"_target_": facts["pruner"].get("_target_")}, {"_target_": str})
    for row in (row for rows in (*facts["earlier"], facts["space"]) for row in rows):
        _check_keys("space: ", asdict(Parameter("", "")) | {"name": None, "text": None, "choices": []} | row, ROW)
    if message := mistake_in_name(facts["name"]):
        raise ConfigError(f"name={facts['name']!r}: {message}")
    return facts


ROW = {key: kind for key, kind in get_type_hints(Parameter).items()}


def _check_keys(path: str, given: dict[Any, Any], kinds: dict[str, Any]) -> None:
    for key in [*kinds, *(key for key in given if key not in kinds)]:
        if key not in kinds or key not in given:
            raise ConfigError(f"{path}{key}: {'is no key of a study' if key in given else 'is missing'}")
        check_value(f"{path}{key}", given[key], kinds[key])


def check_space(space: Space) -> None:
    """Raise ConfigError on parameters that cannot be drawn from."""
    seen: dict[str, Parameter] = {}
    for one in space:
        where = f"space: {one.name}"
        if not one.name or one.name in seen:
            raise ConfigError(f"{where}: every parameter has a name of its own")
        keys = len(one.name.split(", "))
        if one.choices and (one.low is not None or any(len(row.split(SEPARATOR)) != keys for row in one.choices)):
            raise ConfigError(f"{where}: its choices have as many words as it has keys, and no interval beside them")
        if not one.choices:
            ends = (one.low, one.high)
            if None in ends or not all(map(math.isfinite, ends)) or one.low > one.high or (one.log and one.low <= 0):
                raise ConfigError(
                    f"{where}: an interval goes from `low` to a larger `high`, above 0 where it has `log`"
                )
            if one.step is not None and not (math.isfinite(one.step) and one.step > 0):
                raise ConfigError(f"{where}: its step must be above 0")
        if one.when and (one.when[0] not in seen or not set(one.when[1]) <= set(seen[one.when[0]].choices)):
            raise ConfigError(f"{where}: depends on {one.when[0]}, which must stand before it with these choices")
        seen[one.name] = one


def mistake_in_name(name: str) -> str:
    """What is wrong with the name of a study's folder; empty if nothing is."""
    if not name or name.startswith(".") or "/" in name or "\\" in name or not name.isprintable():
        return "is a folder's name: not empty, without slashes and control characters, not beginning with a dot"
    if len(os.fsencode(name)) > LONGEST:
        return f"is a folder's name: at most {LONGEST} bytes, and has {len(os.fsencode(name))}"
    return ""


def moved(path: Path, home: Path, folder: Path) -> Path:
    """Where a path lies when the folder `home` became `folder` by a move or copy of it, or of one around it.

    A path that did not come along stays as it is.
    """
    old, new = list(home.parts), list(folder.parts)
    while len(old) > 1 and len(new) > 1 and old[-1] == new[-1]:
        old.pop()
        new.pop()
    there = Path(*new, *path.parts[len(old) :]) if path.parts[: len(old)] == tuple(old) else path
    return there if there.exists() else path


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
    try:
        if not (path / FILE).exists() and "/" not in name:
            path = Path(outputs) / "studies" / name
            (path / FILE).exists()
        return path.resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"study={name[:80]!r}: is no folder of a study ({error}"[:300] + ")") from error
