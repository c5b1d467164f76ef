"""The command `scripts/train`: composes the configuration, says mistakes in one message, and runs. Torch comes last."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from plumbline import config, mistakes
from plumbline.environment import SNAPSHOT
from plumbline.exits import BY_HAND, DONE, MISTAKE, TO_BE_CONTINUED, outlast_the_reader
from plumbline.output import print_error, print_safe

_HERE = Path(__file__).resolve()
CONF = next(folder for folder in (_HERE.parents[2] / "conf", _HERE.parent / "conf") if folder.is_dir())  # clone, wheel


def main() -> int:
    """Run one command line; return its exit status (0 done, 2 a mistake of the user's, 3 diverged, 85 saved, …)."""
    words = sys.argv[1:]
    folders = [CONF, *config_dirs(words)]
    if {"--help", "-h"} & set(words):
        from plumbline.help import text

        print_safe(text(folders))
        return DONE
    sys.path[1:1] = [entry for entry in code_folders(words) if entry not in sys.path]
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra raises, and we say it
    config.register()
    jobs: list[tuple[DictConfig, DictConfig]] = []

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
    def compose(cfg: DictConfig) -> None:  # only that: what is raised in here, Hydra comments on
        jobs.append((cfg, HydraConfig.get()))

    status = DONE
    try:
        overrides = mistakes.parse(words).overrides
        mistakes.check_words(overrides, folders)
        sys.argv[1:] = overrides + [word for word in words if word not in overrides]  # Hydra wants them in a row
        try:
            compose()
        except mistakes.ANYTHING as error:
            raise config.ConfigError(mistakes.explain(error, folders)) from error
        for cfg, known in jobs:
            mistakes.check_choices(known.runtime.choices)
            if is_study(known):
                from plumbline.search.start import start as start_study

                status = start_study(cfg, known, words, folders)
                continue
            overrides = OmegaConf.to_container(known.overrides.task, resolve=False)
            status = max(status, start(cfg, Path(known.runtime.output_dir), overrides, folders[1:]))
            if status in (BY_HAND, TO_BE_CONTINUED):
                break  # who stops one stops them all
    except mistakes.COMPOSITION as error:
        print_error(mistakes.explain(error, folders))
        status = MISTAKE
    except KeyboardInterrupt:  # before there was anything to save
        status = BY_HAND
    finally:
        for known in (known for _, known in jobs if not is_study(known)):
            remove_empty(Path(known.runtime.output_dir))
    return status


def is_study(known: DictConfig) -> bool:
    """Whether -m was said, and our own sweeper heard it."""
    return known.mode == RunMode.MULTIRUN and known.sweeper._target_.startswith("hydra_plugins.plumbline_study.")


def start(cfg: DictConfig, directory: Path, overrides: list[str], folders: list[Path]) -> int:
    """Check what needs no torch, then import it and run; return the exit status. folders: those of --config-dir."""
    cfg, place, overrides = apart(cfg, overrides)
    if "resume" in cfg and cfg.resume is not None:
        from plumbline.record import read_config

        cfg, directory = read_config(cfg, overrides)
    elif directory == Path.cwd():
        raise config.ConfigError(f"hydra.run.dir={directory}: is the current folder; a run has a folder of its own")
    elif (directory / "run.json").exists():
        raise config.ConfigError(f"hydra.run.dir={directory}: holds another run; go on with it by resume={directory}")
    else:
        only_trusted(cfg, overrides)
        if cfg.get("parent") is not None and not (Path(cfg.parent) / "run.json").is_file():
            raise config.ConfigError(
                f"parent={cfg.parent}: is not the folder of a run; leave it out to take the nearest"
            )
    check_alone(overrides)
    with open_dict(cfg):
        for key in config.STUDY:
            cfg.pop(key, None)
    config.check_values(cfg)
    if place.launcher:
        from plumbline.record import MAY_CHANGE
        from plumbline.slurm import options, submit

        extra = [override for override in overrides if override.partition("=")[0] in MAY_CHANGE[1:]]
        extra += [f"--config-dir={folder}" for folder in folders]
        return submit.submit(cfg, directory, overrides, options.read(place), extra)
    from plumbline.run import run_to_the_end

    return run_to_the_end(cfg, directory, overrides)


def check_alone(overrides: list[str]) -> None:
    """Raise ConfigError on words that ask for a study where one run is made."""
    for override in overrides:
        if override.lstrip("+~").partition("=")[0].partition(".")[0] in config.STUDY:
            raise config.ConfigError(f"{override}: is for a search over many runs: put -m in front")


def apart(cfg: DictConfig, overrides: list[str]) -> tuple[DictConfig, DictConfig, list[str]]:
    """The run itself, where it is to run, and the words for the run: the same run is the same record anywhere."""
    place = {group: cfg[group] for group in config.PLACE if group in cfg}
    for_the_run = [
        word for word in overrides if word.lstrip("+~").partition("=")[0].partition(".")[0] not in config.PLACE
    ]
    if len(for_the_run) < len(overrides) and not place["launcher"]:
        word = next(word for word in overrides if word not in for_the_run)
        raise config.ConfigError(
            f"{word}: says where to run, which is here without launcher=slurm; say that too, or leave it out"
        )
    place = OmegaConf.masked_copy(cfg, list(place))  # with the interpolations between the three
    cfg = cfg.copy()
    for group in place:
        cfg[group] = {}
    return cfg, place, for_the_run


def only_trusted(cfg: DictConfig, overrides: list[str]) -> None:
    """What may be used is widened on the command line and in conf/train.yaml, by no file that came from elsewhere."""
    if any(override.startswith("allow") for override in overrides):
        return
    trusted = OmegaConf.load(CONF / "train.yaml").allow
    if surplus := [name for name in cfg.get("allow", []) if name not in trusted]:
        raise config.ConfigError(
            f"allow={surplus}: an option file cannot widen what may be used; if you trust it, say "
            f"'allow=[{','.join([*trusted, *surplus])}]' on the command line"
        )


def remove_empty(directory: Path) -> None:
    """Remove the folder that Hydra made for a run that did not come to be, and those around it that it left empty.

    Every process of a distributed run does so, and other runs come and go beside it, so rmdir itself says whether there
    was something to do: it leaves alone what is not empty, and who finds a folder gone leaves the rest to its remover.
    """
    for folder in (directory, *directory.parents):
        if folder == Path.cwd():
            break
        try:
            folder.rmdir()
        except OSError:
            break


def config_dirs(arguments: list[str]) -> list[Path]:
    """The folders that --config-dir (-cd) names."""
    found = []
    for index, word in enumerate(arguments):
        flag, _, value = word.partition("=")
        if flag in ("--config-dir", "-cd"):
            found.append(Path(value or (arguments[index + 1] if index + 1 < len(arguments) else ".")).resolve())
    return found


def search_path(arguments: list[str]) -> list[str]:
    """The places that hydra.searchpath names, further folders of option files; none where it cannot be read."""
    found: list[str] = []
    for word in arguments:
        if word.startswith("hydra.searchpath="):
            with contextlib.suppress(HydraException, TypeError):  # Hydra says it
                found += OverridesParser.create().parse_override(word).value() or []
    return found


def code_folders(arguments: list[str]) -> list[str]:
    """Where a user's own modules may lie: the current folder, each folder of option files and the one that holds it.

    Run from a copy of the tree, what lies in the tree is taken from the copy.
    """
    folders = [Path.cwd()]
    further = [
        Path(place.removeprefix("file://")).resolve() for place in search_path(arguments) if "pkg://" not in place
    ]
    for folder in [*config_dirs(arguments), *further]:
        folders += [folder, folder.parent]
    if not (note := _HERE.parents[2] / SNAPSHOT).is_file():
        return [str(folder) for folder in folders]
    copy, tree = note.parent, Path(json.loads(note.read_text())["root"])
    copies = [copy / folder.relative_to(tree) for folder in folders if folder.is_relative_to(tree)]
    return [str(folder) for folder in copies + folders]  # what was not copied is found where it lies


if __name__ == "__main__":
    outlast_the_reader()
    sys.exit(main())
