"""From the options of a job to the text of its sbatch file, by the template slurm/job.sh.j2. No shell reads a value."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from plumbline.contract import ConfigError
from plumbline.slurm.options import Options

_HERE = Path(__file__).resolve()
TEMPLATE = next(
    (path for path in (_HERE.parents[3] / "slurm" / "job.sh.j2", _HERE.parent / "job.sh.j2") if path.is_file()),
    _HERE.parent / "job.sh.j2",
)


def script(
    options: Options, *, what: str, name: str, folder: Path, code: Path, python: str, command: list[str],
    array: int | None = None,
) -> str:  # fmt: skip
    """The sbatch file. what: a line on it; command: what Python runs; array: the number of tasks of an array, if any."""
    from jinja2 import Environment, StrictUndefined

    cluster = options.cluster
    log = "slurm-%j.out" if array is None else "slurm-%A_%a.out"
    wanted: dict[str, Any] = {
        "job-name": "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name),
        "output": quoted_path(str(folder).replace("%", "%%") + f"/{log}"),
        "array": None if array is None else f"0-{array - 1}",
        **options.sbatch(),
    }
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=False, keep_trailing_newline=True, autoescape=False
    )
    environment.filters["quoted"] = lambda value: shlex.quote(str(value))
    directives = [directive(key, value) for key, value in wanted.items() if value not in (None, False)]
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        what=" ".join(what.split()), directives=directives,
        environment=cluster.environment, modules=cluster.modules, code=code, python=python, command=command, folder=folder,
        array=array, retry=options.launcher.retry,
        architecture=cluster.architecture if options.resources.gpus else None,
    )  # fmt: skip


def directive(option: str, value: Any) -> str:
    """`--option=value`, or `--option` for true."""
    return f"--{option}" if value is True else f"--{option}={value}"


def quoted_path(path: str) -> str:
    """A path as a directive takes it; raises ConfigError on one it cannot."""
    if set(path) & set('"\\\n\r\0'):
        raise ConfigError(f"{path}: SLURM cannot write into a folder with quotes, backslashes or line ends in its name")
    return f'"{path}"' if set(path) & set(" \t#'") else path
