"""The command `scripts/train`: composes the configuration, says mistakes in one message, and runs. Torch comes last."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from plumbline import config, mistakes
from plumbline.config import CONF, packages_allowed
from plumbline.environment import SNAPSHOT
from plumbline.exits import BY_HAND, DONE, MISTAKE, outlast_the_reader
from plumbline.output import print_error, print_safe
from plumbline.search.disk import complaint

_HERE = Path(__file__).resolve()


def main() -> int:
    """Run one command line; return its exit status (0 done, 2 a mistake of the user's, 3 diverged, 85 saved, …)."""
    words = sys.argv[1:]
    folders = [CONF, *config_dirs(words)]
    if {"--help", "-h"} & set(words):
        from plumbline.help import text

        print_safe(text(folders))
        return DONE
    try:
        arguments = mistakes.parse(words)
        mistakes.check_words(arguments.overrides, folders)
        with mistakes.explained(folders):
            from plumbline.compose import compose_command

            composed = compose_command(arguments, folders)
        if composed is None:
            return DONE
        cfg, known = composed
        mistakes.check_choices(known.runtime.choices, folders)
        overrides = OmegaConf.to_container(known.overrides.task, resolve=False)
        check_allow_not_widened(cfg, overrides)
        find_own_code(list(cfg.allow), words)
        if known.mode == RunMode.MULTIRUN:
            from plumbline.search.start import start as start_study

            return start_study(cfg, known, words, folders)
        return start(cfg, Path(known.runtime.output_dir), overrides, folders[1:])
    except mistakes.COMPOSITION as error:
        print_error(mistakes.explain(error, folders))
        return MISTAKE
    except OSError as error:
        if (found := complaint(error, Path.cwd())) is None:
            raise
        print_safe(found[1], file=sys.stderr)
        return found[0]
    except KeyboardInterrupt:  # before there was anything to save
        return BY_HAND


def start(cfg: DictConfig, directory: Path, overrides: list[str], folders: list[Path]) -> int:
    """Check what needs no torch, then import it and run; return the exit status. folders: those of --config-dir."""
    cfg, place, overrides = apart(cfg, overrides)
    if "resume" in cfg and cfg.resume is not None:
        from plumbline.record import read_config

        cfg, directory = read_config(cfg, overrides)
    elif directory == Path.cwd():
        raise config.ConfigError(f"hydra.run.dir={directory}: is the current folder; a run has a folder of its own")
    else:
        from plumbline.record import check_new

        check_new(directory)
        if cfg.get("parent") is not None:
            check_parent(Path(cfg.parent))
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


def check_allow_not_widened(cfg: DictConfig, overrides: list[str]) -> None:
    """Raise ConfigError where an option file allows more targets than the command line and conf/train.yaml do."""
    if any(override.lstrip("+~").partition("=")[0].partition(".")[0] == "allow" for override in overrides):
        return
    trusted = packages_allowed()
    if surplus := [name for name in cfg.get("allow", []) if name not in trusted]:
        raise config.ConfigError(
            f"allow={surplus}: an option file cannot widen what may be used; if you trust it, say "
            f"'allow=[{','.join([*trusted, *surplus])}]' on the command line"
        )


def check_parent(parent: Path) -> None:
    """Raise ConfigError unless that is the folder of a run."""
    from plumbline.stored import read_run_file, read_settings

    try:
        read_run_file(parent)
        read_settings(parent)
    except config.ConfigError as error:
        raise config.ConfigError(f"parent={error}; leave it out to take the nearest") from error


def config_dirs(arguments: list[str]) -> list[Path]:
    """The folders that --config-dir (-cd) names."""
    found = []
    for index, word in enumerate(arguments):
        flag, _, value = word.partition("=")
        if flag in ("--config-dir", "-cd"):
            found.append(Path(value or (arguments[index + 1] if index + 1 < len(arguments) else ".")).resolve())
    return found


def find_own_code(allow: list[str], words: list[str]) -> None:
    """Let modules in the user's folders be imported where `allow` names a package that is not installed.

    Installed packages come first, so that no file beside the options takes the place of one of them.
    """
    installed = ("plumbline", "torch", "torchvision")
    if any(name.partition(".")[0] not in installed for name in allow):
        sys.path.extend(folder for folder in code_folders(words) if folder not in sys.path)


def code_folders(arguments: list[str]) -> list[str]:
    """Where a user's own modules may lie: the current folder, each folder of option files and the one that holds it.

    Run from a copy of the tree, what lies in the tree is taken from the copy.
    """
    folders = [Path.cwd()]
    further = [
        Path(place.removeprefix("file://")).resolve()
        for place in mistakes.search_path(arguments)
        if "pkg://" not in place
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
