"""The command `scripts/train`: composes the configuration, says mistakes in one message, and runs. Torch comes last."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from plumbline import config, mistakes

CONF = Path(__file__).resolve().parents[2] / "conf"

DONE, BUG, MISTAKE, DIVERGED, CHECK_FAILED, TO_BE_CONTINUED, BY_HAND = 0, 1, 2, 3, 4, 85, 130  # exit statuses


def main() -> int:
    """Run one command line; return its exit status (0 done, 2 a mistake of the user's, 3 diverged, 85 saved, …)."""
    arguments = flags_first(sys.argv[1:])
    sys.argv[1:] = arguments
    if {"--help", "-h"} & set(arguments):
        from plumbline.help import text

        print(text(CONF, config_dirs(arguments)))
        return DONE
    sys.path[1:1] = [entry for entry in code_folders(arguments) if entry not in sys.path]
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra raises, and we say it
    config.register()
    jobs: list[tuple[DictConfig, Path, list[str]]] = []

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
    def compose(cfg: DictConfig) -> None:  # only that: what is raised in here, Hydra comments on
        overrides = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
        jobs.append((cfg, Path(HydraConfig.get().runtime.output_dir), overrides))

    status = DONE
    try:
        mistakes.refuse_choices(arguments)
        compose()
        for cfg, directory, overrides in jobs:
            status = max(status, start(cfg, directory, overrides))
    except mistakes.COMPOSITION as error:
        print(f"plumbline: {mistakes.explain(error, [CONF, *config_dirs(arguments)])}", file=sys.stderr)
        status = MISTAKE
    finally:
        for _, directory, _ in jobs:
            if directory.is_dir() and not any(directory.iterdir()):
                directory.rmdir()  # a mistake, or a run that goes on elsewhere: no empty folder stays behind
    return status


def start(cfg: DictConfig, directory: Path, overrides: list[str]) -> int:
    """Check what needs no torch, then import it and run; return the exit status."""
    if "resume" in cfg and cfg.resume is not None:
        from plumbline.record import read_config

        cfg, directory = read_config(cfg, overrides)
    config.check_values(cfg)
    from plumbline.run import run_to_the_end

    return run_to_the_end(cfg, directory, overrides)


def flags_first(arguments: list[str]) -> list[str]:
    """The same words with the flags in front: Hydra's parser takes none between overrides."""
    takes_value = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--cfg", "-c", "--package", "-p")
    flags, overrides, rest = [], [], iter(arguments)
    for word in rest:
        (flags if word.startswith("-") else overrides).append(word)
        if word in takes_value:
            flags += [value for value in [next(rest, None)] if value is not None]
    return flags + overrides


def config_dirs(arguments: list[str]) -> list[Path]:
    """The folders that --config-dir (-cd) names."""
    found = []
    for index, word in enumerate(arguments):
        flag, _, value = word.partition("=")
        if flag in ("--config-dir", "-cd"):
            found.append(Path(value or (arguments[index + 1] if index + 1 < len(arguments) else ".")).resolve())
    return found


def code_folders(arguments: list[str]) -> list[str]:
    """Where a user's own modules may lie: the current folder, each --config-dir and the folder that holds it."""
    folders = [Path.cwd()]
    for folder in config_dirs(arguments):
        folders += [folder, folder.parent]
    return [str(folder) for folder in folders]


if __name__ == "__main__":
    sys.exit(main())
