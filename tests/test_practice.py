"""docs/practice.md: every practice stands in it once, and every option, experiment, check and test it names exists."""

from __future__ import annotations

import importlib.util
import re
from functools import cache

import pytest
import yaml
from conftest import ROOT, composed
from test_options import CONF, TESTS

from plumbline.config import FAMILIES, Config

TEXT = (ROOT / "docs" / "practice.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if re.match(r"\| [A-K]\d", line)
]
LEFT_OUT = dict(re.findall(r"^- ([A-K]\d\d) (.+)$", TEXT, re.M))
SECTIONS = {"A": 12, "B": 28, "C": 6, "D": 20, "E": 18, "F": 26, "G": 15, "H": 17, "J": 10, "K": 5}


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_practice_stands_once_in_the_table_or_among_what_is_left_out_with_a_reason() -> None:
    known = [f"{letter}{number:02d}" for letter, count in SECTIONS.items() for number in range(1, count + 1)]
    assert sorted([row[0] for row in ROWS] + list(LEFT_OUT)) == known
    assert [name for name, reason in LEFT_OUT.items() if ": " not in reason] == []


def test_every_row_has_its_proof_and_its_source() -> None:
    assert [row[0] for row in ROWS if len(row) != 8] == []
    assert [row[0] for row in ROWS if not words(row[5])] == []
    assert [row[0] for row in ROWS if not re.fullmatch(r"S[0-4]( S[0-4])*", row[6])] == []


def exists(option: str) -> bool:
    """Whether a word names an option file, a key of one, a root value, or a command."""
    if option.startswith("python -m "):
        return importlib.util.find_spec(option.split()[2]) is not None
    if found := re.fullmatch(r"(\w+)=\[?([\w,]+)\]?", option):
        group, names = found[1], found[2].split(",")
        if all((CONF / group / f"{name}.yaml").exists() for name in names):
            return True
        return group in Config.__annotations__ and not (CONF / group).is_dir()
    group, _, key = option.partition(".")
    if not key:
        return group in Config.__annotations__
    contents = [yaml.safe_load(file.read_text(encoding="utf-8")) or {} for file in (CONF / group).glob("*.yaml")]
    return any(key in content for content in contents)


@cache
def known_checks() -> set[str]:
    checks = composed("checks=full").checks
    return {f"{family}.{name}" for phase in FAMILIES.values() for family in phase for name in checks[family]}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_what_a_row_names_exists(row: list[str]) -> None:
    assert [option for option in words(row[2]) if not exists(option)] == []
    experiments = {file.stem for file in (CONF / "experiment").glob("*.yaml")}
    assert [name for name in words(row[3]) if name not in experiments] == []
    assert [name for name in words(row[4]) if name not in known_checks()] == []
    for name in words(row[5]):
        file, _, function = name.partition("::")
        assert (
            f"def {function}(" in (TESTS / file).read_text(encoding="utf-8") if function else (TESTS / file).exists()
        ), name


@pytest.mark.parametrize("option", ["init=hee", "optimiser.layer_rate", "python -m plumbline.nothing", "batch_sise"])
def test_what_does_not_exist_is_seen(option: str) -> None:
    assert not exists(option)


def test_what_is_left_out_names_only_what_exists() -> None:
    for reason in LEFT_OUT.values():
        for word in words(reason):
            first = word.split()[0] if "=" in word and not word.startswith("python") else word
            family = first.partition(".")[0]
            is_check = any(family in phase for phase in FAMILIES.values())
            plain = first.rstrip("=") if first.endswith("=") else re.sub(r"(\w+\.\w+)=.*", r"\1", first)
            assert is_check or exists(plain), word
