"""`--help`, for people: the groups with their options, the root values, how to override."""

from __future__ import annotations

from pathlib import Path

from plumbline.config import COMBINED
from plumbline.mistakes import groups, options

EXAMPLES = """\
scripts/train                                                    digits with a small network, in seconds
scripts/train data=fashion_mnist model=cnn epochs=5              other data, another network
scripts/train optimiser=sgd optimiser.lr=0.1 model.hidden=[50]   any value of any option
scripts/train 'regulariser=[dropout,l2]' regulariser.dropout.rate=0.5   groups that combine take a list
scripts/train resume=outputs/2026-01-31/12-00-00-run-a1b2c3      go on where a run stopped"""


def text(folders: list[Path]) -> str:
    """The help page. folders: where option files lie, our conf/ first, then the user's --config-dir folders."""
    parts = [
        "scripts/train [overrides]: train one network, from a configuration to a report.\n",
        "An override is group=option or key=value; values of an option are group.key=value.",
        "Groups marked + combine: group=[a,b]. Without a word from you a run is data=digits model=mlp.",
        "--cfg job prints the configuration; --config-dir=… adds a folder of your own options.\n",
        "Examples\n" + _indent(EXAMPLES),
        "\nGroups",
    ]
    for group in groups(folders):
        files = options(group, folders)
        width = max(map(len, files))
        parts.append(f"  {group}{' +' if group in COMBINED else ''}")
        parts += [f"    {name:<{width}}  {first_comment(file)}" for name, file in files.items()]
    parts.append("\nRoot values")
    parts.append(_indent(root_values(folders[0] / "train.yaml")))
    parts.append(
        "\nExit status: 0 done, 2 a mistake in the command, 3 diverged, 4 a check failed and was to stop the run, "
        "85 saved and wants to go on, 130 stopped by hand."
    )
    return "\n".join(parts)


def first_comment(file: Path) -> str:
    """The sentence an option file opens with."""
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("#") and not line.startswith("# @package"):
            return line.lstrip("# ")
    return ""


def root_values(file: Path) -> str:
    """The lines of the root file between its defaults list and Hydra's own part, comments included."""
    lines = file.read_text(encoding="utf-8").splitlines()
    begin = next(k for k, line in enumerate(lines) if line.startswith("name:"))
    end = next(k for k, line in enumerate(lines) if line.startswith("hydra:"))
    return "\n".join(line for line in lines[begin:end] if line)


def _indent(block: str) -> str:
    return "\n".join("  " + line for line in block.splitlines())
