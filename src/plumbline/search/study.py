"""A study: its folder, what it searches, and how a multirun makes one or goes on with it. No torch here."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from plumbline import config
from plumbline.config import STUDY
from plumbline.contract import ConfigError, check_node, nearest, require, shown
from plumbline.environment import now
from plumbline.search.compose import hydra_at
from plumbline.search.space import Parameter, Point, Space, parse

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
        from plumbline.record import write_text

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

    def built(self, path: str, node: dict[str, Any]) -> Any:
        """A component as study.yaml has it. What is read back may use what conf/train.yaml allows, and no more."""
        content = OmegaConf.create(node)
        check_node(path, content, allowed())
        return config.build(content)()

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


@cache
def allowed() -> list[str]:
    """The packages that conf/train.yaml allows: read once, not by each trial, for that takes as long as all else of it."""
    from plumbline.train import CONF

    return list(OmegaConf.load(CONF / "train.yaml").allow)


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


# --- from a command line ---------------------------------------------------------------------------------------------


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
    check_node("search", cfg.search, list(cfg.allow))
    check_node("search.sampler", cfg.search.sampler, list(cfg.allow))
    check_node("pruner", cfg.pruner, list(cfg.allow))
    search = config.build(cfg.search)()
    pruner = config.build(cfg.pruner)()
    kind = str(known.get("search"))
    check_search(search, kind, cfg.pruner["_target_"].rpartition(".")[2], pruner is not None)
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
IDENTITY = ("seed", "seeds", "also")  # keys of search that make another study


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


def check_search(search: Search, kind: str, pruner: str, prunes: bool) -> None:
    """Raise ConfigError on settings that do not go together."""
    others = f"search.also={shown(search.also)} adds others"
    if search.also and prunes:
        raise ConfigError(f"pruner={pruner}: judges one objective, and {others}; say pruner=none")
    if search.also and kind == "cmaes":
        raise ConfigError(f"search={kind}: has one objective, and {others}; say search=nsga or tpe")
    if pruner == "wilcoxon" and search.seeds < 2:
        raise ConfigError("pruner=wilcoxon: decides between the seeds of a trial; say search.seeds=3 or more")
    if search.also and search.confirm:
        raise ConfigError(
            f"search.confirm={search.confirm}: re-runs the best, and a front has none; leave one of both out"
        )


# --- and the study that is there already -----------------------------------------------------------------------------


def difference(there: Study, asked: Study) -> tuple[list[str], list[str]]:
    """(what makes another study, what merely widens it): lines to show, from what there is and what is asked."""
    other, wider = [], []
    was, is_ = set(_lasting(there.fixed)), set(_lasting(asked.fixed))
    other += [f"  - {word}" for word in sorted(was - is_)] + [f"  + {word}" for word in sorted(is_ - was)]
    if there.kind != asked.kind and "grid" in (there.kind, asked.kind):
        other += [f"  - search={there.kind}", f"  + search={asked.kind}"]
    for key in IDENTITY:
        if there.search[key] != asked.search[key]:
            other += [f"  - search.{key}={shown(there.search[key])}", f"  + search.{key}={shown(asked.search[key])}"]
    if there.storage != asked.storage:
        other += [f"  - search.storage={shown(there.storage)}", f"  + search.storage={shown(asked.storage)}"]
    old, new = ({p.name: p for p in study.space} for study in (there, asked))
    for name in [*old, *(name for name in new if name not in old)]:
        if old.get(name) == new.get(name) or (name in old and name in new and _same(old[name], new[name])):
            continue
        lines = [f"  {sign} {written(space[name])}" for sign, space in (("-", old), ("+", new)) if name in space]
        target = wider if name in old and name in new and contains(new[name], old[name]) else other
        target += lines
    return other, wider


def _same(one: Parameter, other: Parameter) -> bool:
    return asdict(one) | {"text": ""} == asdict(other) | {"text": ""}


def _lasting(fixed: list[str]) -> list[str]:
    """Without the overrides that a run may change when it goes on: they do not change its numbers."""
    from plumbline.record import MAY_CHANGE

    return [word for word in fixed if word.lstrip("+").partition("=")[0] not in (*MAY_CHANGE, "outputs")]


def written(parameter: Parameter) -> str:
    condition = f" when {parameter.when[0]}={'|'.join(parameter.when[1])}" if parameter.when else ""
    return f"{parameter.name}={parameter.text}{condition}"


def contains(wide: Parameter, narrow: Parameter) -> bool:
    """Whether every value of the one is a value of the other, so that its trials belong there, too."""
    if wide.when != narrow.when or bool(wide.choices) != bool(narrow.choices):
        return False
    if wide.choices:
        return set(narrow.choices) <= set(wide.choices)
    return wide.low <= narrow.low and narrow.high <= wide.high and (wide.step, wide.log) == (narrow.step, narrow.log)
