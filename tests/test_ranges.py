"""Every number of a configuration declares the range of its values, and what lies outside is refused in one line."""

from __future__ import annotations

import math
import types
import typing
from functools import cache
from typing import Annotated, Any, Literal

import pytest
import yaml
from conftest import ROOT, composed
from omegaconf import OmegaConf

from plumbline.config import check_values, value_types
from plumbline.contract import ConfigError, check_node, check_value, describe, fits, locate, parameters, shown
from plumbline.ranges import Items, Range
from plumbline.slurm.options import Cluster, Launcher, Resources

NOT_NUMBERS = ["text", [[1]], {"a": 1}, True]
NUMBERS = (int, float)


@cache
def targets() -> dict[str, tuple[str, dict[str, Any]]]:
    """Target -> (path, the annotation of each key) of every component in the option files of conf/."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}

    def visit(path: str, node: Any) -> None:
        if isinstance(node, dict):
            name = node.get("_target_")
            if name and name not in found:
                accepted, own, _ = parameters(locate(path, name, ["plumbline", "torch", "optuna"]))
                assert own, name
                found[name] = (path, accepted)
            for key, item in node.items():
                visit(f"{path}.{key}", item)
        elif isinstance(node, list):
            for item in node:
                visit(path, item)

    for file in sorted((ROOT / "conf").glob("*/*.yaml")):
        visit(file.parent.name, yaml.safe_load(file.read_text(encoding="utf-8")))
    return found


def groups() -> list[str]:
    return sorted({path.partition(".")[0] for path, _ in targets().values()})


def plain(annotation: Any) -> tuple[Any, list[Any]]:
    """(the type below an Annotated, its marks); a Literal among the marks stands for the type."""
    if typing.get_origin(annotation) is not Annotated:
        return annotation, []
    item, *marks = typing.get_args(annotation)
    kinds = [mark for mark in marks if typing.get_origin(mark) is not None]
    return plain((kinds or [item])[0])[0], [mark for mark in marks if isinstance(mark, Range | Items)]


def members(annotation: Any) -> list[Any]:
    """The alternatives of a union, or the type itself."""
    inner = plain(annotation)[0]
    return list(typing.get_args(inner)) if typing.get_origin(inner) in (typing.Union, types.UnionType) else [annotation]


def elements(annotation: Any) -> list[Any]:
    """The types inside a list, tuple or mapping."""
    inner = plain(annotation)[0]
    return list(typing.get_args(inner)) if typing.get_origin(inner) in (list, tuple, dict) else []


def bare(annotation: Any) -> list[Any]:
    """The numbers in an annotation, however deep, that declare no range."""
    if annotation in NUMBERS:
        return [annotation]
    if typing.get_origin(annotation) is Annotated and plain(annotation)[0] in NUMBERS:
        return [] if plain(annotation)[1] else [annotation]
    inside = members(annotation) if len(members(annotation)) > 1 else elements(annotation)
    return [kind for item in inside for kind in bare(item)]


def ends(kind: Any) -> list[Any]:
    """The values of a number's type at the ends of its range, or a step inside an end that is open."""
    inner, (mark,) = plain(kind)
    zero, with_low, low, high, with_high = mark.parts
    step = (lambda x, to: int(x) + (1 if to > x else -1)) if inner is int else math.nextafter
    found = [0] if zero else []
    found.append((int(low) if inner is int else low) if with_low else step(low, high))
    if math.isfinite(high):
        found.append((int(high) if inner is int else high) if with_high else step(high, low))
    return [value for value in found if value in mark and fits(value, inner)]


def beyond(kind: Any) -> list[Any]:
    """The values just outside both ends, what is no number, and what is none of this type."""
    inner, (mark,) = plain(kind)
    _, with_low, low, high, with_high = mark.parts
    found: list[Any] = [math.nan, math.inf, -math.inf, *NOT_NUMBERS]
    if inner is int:
        found += [1.5, int(low) - 1, 2**63]
        found += [int(high) + 1] if math.isfinite(high) else []
    else:
        found.append(math.nextafter(low, -math.inf) if with_low else low)
        found.append(math.nextafter(high, math.inf) if with_high else high)
    return found


def accepted(annotation: Any) -> list[Any]:
    """Values that an annotation accepts, the ends of its numbers among them."""
    inner = plain(annotation)[0]
    if len(members(annotation)) > 1:
        return [value for member in members(annotation) for value in accepted(member)]
    if inner in NUMBERS:
        return ends(annotation)
    if typing.get_origin(inner) is Literal:
        return list(typing.get_args(inner))
    if typing.get_origin(inner) is tuple:
        return [[accepted(item)[at] for item in elements(annotation)] for at in (0, -1)]
    if typing.get_origin(inner) is list:
        values = sorted({str(value): value for value in accepted(elements(annotation)[0])}.items())
        singles = [[value] for _, value in values]
        several = [sorted(value for _, value in values if not isinstance(value, str)), [value for _, value in values]]
        return [value for value in [[], *singles, *several, ["a", "b"]] if fits(value, annotation)]
    return {bool: [True], str: ["a"], type(None): [None]}.get(inner, [{}])


def refused(annotation: Any) -> list[Any]:
    """Values outside every number of an annotation, those in its lists and pairs included."""
    inner, marks = plain(annotation)
    kinds = members(annotation)
    if len(kinds) > 1:
        texts = any(plain(kind)[0] is str for kind in kinds)
        return [value for kind in kinds for value in refused(kind) if not (texts and isinstance(value, str))]
    if inner in NUMBERS:
        return beyond(annotation)
    if typing.get_origin(inner) is tuple:
        good = [accepted(item)[0] for item in elements(annotation)]
        return [[bad, *good[1:]] for bad in refused(elements(annotation)[0])] + [good[:1], [*good, good[0]], good[0]]
    if typing.get_origin(inner) is list:
        good = [value[0] for value in accepted(annotation) if value][:1]
        wrong = [[value] for value in refused(elements(annotation)[0])]
        lists = [[], good, good * 2, good * 200]
        return [*wrong, 1, "text", {"a": 1}, *(value for value in lists if any(value not in mark for mark in marks))]
    return []


def assert_refused(path: str, value: Any, check: Any) -> None:
    with pytest.raises(ConfigError) as error:
        check()
    message = str(error.value)
    assert message.startswith(f"{path}={shown(value)}: must be "), (value, message)
    assert "\n" not in message


@pytest.mark.parametrize("group", groups())
def test_every_number_of_an_option_declares_its_range(group: str) -> None:
    """A keyword that is a number, also in a list, a pair or a union, is annotated with a Range."""
    found = {name: kinds for name, (path, kinds) in targets().items() if path.partition(".")[0] == group}
    missing = [f"{name}: {key}" for name, kinds in found.items() for key, kind in kinds.items() if bare(kind)]
    assert missing == []


@pytest.mark.parametrize("group", groups())
def test_what_lies_outside_is_refused_with_path_and_value(group: str) -> None:
    """Each value outside a range ends in one line; the ends and whatever conf/ has are accepted."""
    tried = 0
    for name, (path, kinds) in targets().items():
        if path.partition(".")[0] != group:
            continue
        good = {key: accepted(kind)[0] for key, kind in kinds.items()}
        check_node(path, OmegaConf.create({"_target_": name, **good}), ["plumbline"])
        for key, kind in kinds.items():
            for value in accepted(kind):
                check_value(f"{path}.{key}", value, kind)
            for value in refused(kind):
                assert_refused(f"{path}.{key}", value, lambda: check_value(f"{path}.{key}", value, kind))  # noqa: B023
                tried += 1
            if wrong := refused(kind):
                node = OmegaConf.create({"_target_": name, **good, key: wrong[0]})
                assert_refused(f"{path}.{key}", wrong[0], lambda: check_node(path, node, ["plumbline"]))  # noqa: B023
    assert tried > 0 or all(refused(kind) == [] for path, kinds in targets().values() for kind in kinds.values()
                            if path.partition(".")[0] == group)  # fmt: skip


def test_every_number_of_the_root_and_of_a_job_declares_its_range() -> None:
    """The root values, those of checks, and the keys of launcher, cluster and resources."""
    jobs = [typing.get_type_hints(kind, include_extras=True) for kind in (Launcher, Resources, Cluster)]
    assert [key for kinds in (value_types(), *jobs) for key, kind in kinds.items() if bare(kind)] == []


def test_root_values_outside_their_range_are_refused() -> None:
    """`check_values` names the key and the value in one line, and accepts the ends."""
    values = {path.partition(".")[0] for path in value_types()}
    whole = OmegaConf.to_container(composed())
    whole = {key: value if key in values else {} for key, value in whole.items()}
    whole["checks"] = {key: value for key, value in whole["checks"].items() if f"checks.{key}" in value_types()}
    tried = 0
    for path, kind in value_types().items():
        for value in accepted(kind):
            check_value(path, value, kind)
        for value in refused(kind):
            key, _, inner = path.partition(".")
            changed = OmegaConf.create({**whole, key: {**whole[key], inner: value} if inner else value})
            assert_refused(path, value, lambda: check_values(changed))  # noqa: B023
            tried += 1
    assert tried > 150


def test_a_range_knows_its_ends() -> None:
    """An interval holds its closed ends, not its open ones, never NaN, and 0 where it names it."""
    values = [-1.0, 0.0, 1e-320, 0.5, 1.0, math.inf, math.nan]
    held = {
        text: [value in Range(text) for value in values]
        for text in ("[0, 1)", "(0, 1]", "(0, inf)", "0 or [1e-30, 1e30]")
    }
    assert held == {
        "[0, 1)": [False, True, True, True, False, False, False],
        "(0, 1]": [False, False, True, True, True, False, False],
        "(0, inf)": [False, False, True, True, True, False, False],
        "0 or [1e-30, 1e30]": [False, True, False, True, True, False, False],
    }


def test_marks_are_described_in_words() -> None:
    """What a message calls a range, a list's length and a pair."""
    from plumbline.ranges import Count, Decay, NonNegative, Share

    words = {
        "a whole number of at least 1": Count,
        "a number in [0, 1) or null": Decay | None,
        "a number that is 0 or in [1e-30, 1e30]": NonNegative,
        "a list of 2 numbers in [0, 1)": tuple[Decay, Decay],
        "a list of whole numbers of at least 1, at least 1, each once": Annotated[
            list[Count], Items(least=1, distinct=True)
        ],
        "a list of numbers in [0, 1], increasing": Annotated[list[Share], Items(increasing=True)],
        "a whole number of at least 1 or auto": Annotated[Any, Count | Literal["auto"]],
    }
    assert [describe(kind) for kind in words.values()] == list(words)
