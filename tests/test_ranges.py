"""Every number of a configuration declares the range of its values, and what lies outside is refused in one line."""

from __future__ import annotations

import math
import types
import typing
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from conftest import ROOT, composed
from omegaconf import OmegaConf

from plumbline.config import check_values, value_types
from plumbline.contract import ConfigError, check_node, check_value, describe, fits, locate, parameters, shown
from plumbline.mistakes import SINGLE, check_choices, check_words
from plumbline.ranges import Items, Range
from plumbline.search.space import parse
from plumbline.slurm.options import Cluster, Launcher, Resources


@pytest.fixture(autouse=True)
def denormal_numbers() -> None:
    """The smallest numbers are numbers, whatever a run in this process chose before."""
    import torch

    torch.set_flush_denormal(False)


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


NONSENSE = [  # group, option, key, value: each was accepted, hung or ended in a traceback
    ("figures", "film", "samples", -1), ("figures", "filters", "most", 0), ("figures", "embeddings", "samples", 1),
    ("figures", "gradcam", "samples", 10**9), ("figures", "boundary", "features", [0, 0]),
    ("augment", "cutout", "size", 0), ("augment", "shift", "pixels", 0), ("augment", "rotate", "degrees", 0),
    ("optimiser", "sgd", "lr", 1e-320), ("optimiser", "sgd", "lr", math.nan), ("optimiser", "adam", "eps", 1e-320),
    ("optimiser", "adam_then_sgd", "sgd_lr", 0), ("optimiser", "adam", "betas", [0.9]),
    ("init", "uniform", "bias", -1), ("init", "uniform", "bias", math.nan), ("init", "he", "head_std", -1),
    ("init", "truncated_normal", "std", 0), ("init", "orthogonal", "gain", -1), ("loss", "huber", "delta", 0),
    ("schedule", "cosine_restarts", "cycles", 100_000), ("schedule", "multistep", "milestones", [0.5, 0.4]),
    ("schedule", "cosine", "floor", 1.1), ("schedule", "plateau", "patience", -1), ("model", "mlp", "hidden", [10**12]),
    ("model", "lstm", "layers", 10**6), ("regulariser", "dropout", "layers", []), ("tracker", "tensorboard", "flush_seconds", 0),
    ("data", "playground", "features", ["x", "x"]), ("pruner", "wilcoxon", "p", 1), ("pruner", "asha", "reduction", 1),
    ("figures", "boundary", "features", [0]), ("model", "resnet", "channels", []), ("model", "embedding_mlp", "embedding", 0),
]  # fmt: skip


@pytest.mark.parametrize(("group", "option", "key", "value"), NONSENSE)
def test_nonsense_in_an_option_is_refused(group: str, option: str, key: str, value: Any) -> None:
    """A value that trains nothing, takes for ever or cannot be drawn is refused before anything is built."""
    text = yaml.safe_load((ROOT / "conf" / group / f"{option}.yaml").read_text(encoding="utf-8"))
    node = next((item for item in text.values() if isinstance(item, dict) and "_target_" in item), text)
    kind = parameters(locate(group, node["_target_"], ["plumbline"]))[0][key]
    assert_refused(f"{group}.{key}", value, lambda: check_value(f"{group}.{key}", value, kind))


@pytest.mark.parametrize("word", ["overlap=1", "overlap=text", "gap=true"])
def test_a_plain_value_in_the_place_of_a_check_is_refused(word: str) -> None:
    """A check is a component: `checks.data.overlap=1` is one message that names the way to leave it out."""
    name, _, value = word.partition("=")
    family = "curve" if name == "gap" else "data"
    with pytest.raises(
        ConfigError, match=rf"^checks\.{family}\.{word}: is no value but a check .* null leaves it out$"
    ):
        check_values(composed(f"checks.{family}.{name}={value}"))
    check_values(composed(f"checks.{family}.{name}=null"))


@pytest.mark.parametrize("group", ["regulariser", "augment", "figures"])
def test_an_option_chosen_twice_is_refused(group: str, tmp_path: Path) -> None:
    """On the command line and in an option file, in one message with the list to say instead."""
    said = rf"{group}=\[a,b,a\]: a is chosen twice, and acts once; say {group}=\[a,b\]$"
    with pytest.raises(ConfigError, match=f"^{said}"):
        check_words([f"{group}=[a,b,a]"], [ROOT / "conf"])
    check_words([f"{group}=[a,b]"], [ROOT / "conf"])
    (tmp_path / "experiment").mkdir()
    file = tmp_path / "experiment" / "mine.yaml"
    single = {name: "mlp" for name in SINGLE}
    for names in ("[a, b]", "[a, b, a]"):
        file.write_text(f"# @package _global_\ndefaults:\n  - override /{group}: {names}\n")
        if names == "[a, b]":
            check_choices({**single, "experiment": "mine"}, [ROOT / "conf", tmp_path])
    with pytest.raises(ConfigError, match=f"^{file}: {said}"):
        check_choices({**single, "experiment": "mine"}, [ROOT / "conf", tmp_path])


@pytest.mark.parametrize("place", ["nope", "file://nope", "pkg://nope_at_all.conf"])
def test_a_search_path_that_does_not_exist_is_refused(place: str, tmp_path: Path) -> None:
    """Hydra passes over a folder or package that is not there; a folder that is there is accepted."""
    with pytest.raises(ConfigError, match=rf"^hydra\.searchpath=\[{place}\]: there is no such "):
        check_words([f"hydra.searchpath=[{place}]"], [ROOT / "conf"])
    check_words([f"hydra.searchpath=[{tmp_path},file://{tmp_path},pkg://plumbline]"], [ROOT / "conf"])


ENDLESS = [
    (["seed=range(0,100000000)"], "seed=range(0,100000000): makes a grid of 100000000 points"),
    (["optimiser.lr=range(0,1,1e-9)"], "optimiser.lr=range(0,1,1e-9): makes a grid of 1000000000 points"),
    (["seed=range(0,1000)", "epochs=range(1,100)"], "epochs=range(1,100): makes a grid of 99000 points"),
    (["seed=int(interval(0,1000000000))"], "seed=int(interval(0,1000000000)): makes a grid of 1000000001 points"),
]


@pytest.mark.parametrize(("words", "message"), ENDLESS)
def test_a_grid_is_bounded_before_it_is_expanded(words: list[str], message: str) -> None:
    """A grid of more than 10,000 points is refused without listing them; the same range can be drawn from."""
    space, _ = parse(words, {}, None)
    with pytest.raises(ConfigError) as error:
        space.grid()
    assert str(error.value).startswith(message)
    assert space.at([0.5] * len(words)).keys() == {word.partition("=")[0] for word in words}


@pytest.mark.parametrize("text", ["range(0,10,0)", "range(5,0)", "range(0,inf)"])
def test_a_range_without_values_is_refused(text: str) -> None:
    """A step of 0, an empty range and one without an end are one message each."""
    with pytest.raises(ConfigError, match=r"^seed=range\(.*: has "):
        parse([f"seed={text}"], {}, None)


def test_a_range_has_its_last_value_and_no_more() -> None:
    """As in Python: the end is left out, whatever the step and its sign."""
    spaces = [parse([f"seed={text}"], {}, None)[0] for text in ("range(0,10,3)", "range(9,0,-3)", "range(0,0.3,0.1)")]
    assert [[point["seed"] for point in space.grid()] for space in spaces] == [[0, 3, 6, 9], [3, 6, 9], [0.0, 0.1, 0.2]]
