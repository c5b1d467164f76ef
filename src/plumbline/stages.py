"""`python -m plumbline.stages <folder> <common words> / <words> / <words> …`: start small, grow data and model, step by step.

Each stage is a run, in <folder>/1, <folder>/2, …; each must beat the one before on validation, or the rest is not run
(status 4): a larger network on more data that is no better is a mistake to find now. The same command again goes on.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from plumbline.config import ConfigError
from plumbline.exits import CHECK_FAILED, DONE, MISTAKE, outlast_the_reader
from plumbline.output import print_error, print_safe, printable

BETWEEN = "/"  # a word of its own between the stages


def main() -> int:
    """Run the stages of a command line; return the exit status."""
    words = sys.argv[1:]
    if not words or {"-h", "--help"} & set(words):
        print(__doc__)
        return DONE if words else MISTAKE
    try:
        directory, stages = parse(words)
        return climb(directory, stages)
    except ConfigError as error:
        print_error(error)
        return MISTAKE
    except OSError as error:  # a path that cannot be
        print_error(f"{str(error.filename)[:200]}: {error.strerror}; name another")
        return MISTAKE


def parse(words: list[str]) -> tuple[Path, list[list[str]]]:
    """The folder, and each stage's overrides with the common ones in front."""
    parts: list[list[str]] = [[]]
    for word in words[1:]:
        if word == BETWEEN:
            parts.append([])
        else:
            parts[-1].append(word)
    common, *own = parts
    if "=" in words[0]:
        raise ConfigError(f"{words[0]}: the first word is the folder of the stages, such as outputs/stages")
    if len(own) < 2:
        raise ConfigError(
            "give two stages at least, each after a / of its own: <folder> data=digits / data.subset=100 / …"
        )
    return Path(words[0]), [common + stage for stage in own]


def climb(directory: Path, stages: list[list[str]]) -> int:
    """Run what is not done yet, in order, while each stage beats the one before."""
    before: dict[str, Any] | None = None
    for number, words in enumerate(stages, 1):
        folder = directory / str(number)
        status = run_stage(folder, words)
        if status != DONE:
            print_safe(f"stage {number} ended with status {status}; the same command goes on when it can")
            return status
        now = read(folder)
        print_safe(
            f"stage {number}: {printable(now['objective'])} {now['best'][now['objective']]:.4f}   {' '.join(words)}"
        )
        if before is not None and not beats(now, before):
            print_safe(
                f"stage {number} does not beat stage {number - 1} "
                f"({before['best'][before['objective']]:.4f}): stop and find out why; its report is {folder / 'report.html'}"
            )
            return CHECK_FAILED
        before = now
    return DONE


def run_stage(folder: Path, words: list[str]) -> int:
    """Train in that folder, or go on there; nothing if it is done. What was asked of it may not have changed."""
    if (folder / "run.json").exists():
        from plumbline.stored import read_overrides

        asked = read_overrides(folder)
        if asked != words:
            raise ConfigError(
                f"{folder}: was begun as {' '.join(asked)}, not as {' '.join(words)}; name another folder for other stages"
            )
        if read(folder)["status"] == "finished":
            check_data(folder, words)
            return DONE
        words = [f"resume={folder}"]
    else:
        words = [*words, f"hydra.run.dir={folder}"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    return subprocess.run([sys.executable, "-m", "plumbline.train", *words], env=environment).returncode


def check_data(folder: Path, words: list[str]) -> None:
    """Raise ConfigError where the data of a finished stage have changed: its score and a later stage's differ by that, too."""
    from omegaconf import OmegaConf

    from plumbline import config
    from plumbline.changes import fingerprint_of
    from plumbline.first import fingerprint
    from plumbline.record import saved_config
    from plumbline.train import find_own_code

    if (then := fingerprint_of(read(folder))) is None:
        return
    config.register()
    given = [word for word in words if word.startswith("allow=")]
    allow = list(OmegaConf.from_cli(given[-1:]).allow) if given else config.packages_allowed()
    find_own_code(allow, words)
    now = fingerprint(saved_config(folder, "stages", allow))
    if then != now:
        raise ConfigError(
            f"{folder}: the data have changed since this stage was run ({then} then, {now} now); "
            "name another folder for stages over these data"
        )


def read(folder: Path) -> dict[str, Any]:
    """run.json of a stage."""
    from plumbline.stored import read_run_file

    return read_run_file(folder)


def beats(now: dict[str, Any], before: dict[str, Any]) -> bool:
    """Whether a stage's objective is better than that of the one before."""
    from plumbline.scoring import better

    if now["objective"] != before["objective"]:
        raise ConfigError(f"stages: {before['objective']} and {now['objective']} cannot be compared; say objective=…")
    return better(now["best"], before["best"], now["objective"], now["direction"])


if __name__ == "__main__":
    outlast_the_reader()
    sys.exit(main())
