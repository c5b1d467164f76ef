"""The rule of configuration: exactly the keywords, rightly typed, from allowed packages; and what is said otherwise."""

from __future__ import annotations

import sys
import typing
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypedDict, Unpack

import pytest
import torch
from conftest import ROOT, composed, one_in
from omegaconf import DictConfig, OmegaConf

from plumbline.config import Config, build, check_config, check_values, nodes
from plumbline.contract import ConfigError, check_node, describe, fits, locate, nearest, parameters, shown
from plumbline.record import read_config, saved_config

OURS = ["plumbline"]


def node(target: str, **keys: Any) -> DictConfig:
    return OmegaConf.create({"_target_": target, **keys})


# --- types and their words -------------------------------------------------------------------------------------------

KINDS: list[tuple[Any, list[Any], list[Any], str]] = [  # annotation, what fits, what does not, its words
    (int, [0, -3], [1.0, True, "1", None, [1]], "a whole number"),
    (float, [0.5, 3, float("nan")], [True, "0.5", None], "a number"),
    (str, ["", "relu"], [1, None, True, ["a"]], "text"),
    (bool, [True, False], [0, 1, "true", None], "true or false"),
    (int | None, [1, None], [1.5, "null"], "a whole number or null"),
    (typing.Optional[float], [1, 0.1, None], ["x", False], "a number or null"),  # noqa: UP045 - the old spelling, too
    (Literal["a", "b"], ["a"], ["c", None, 1], "one of a, b"),
    (Literal[1, 3], [1, 3], [2, True, 1.0, "1"], "one of 1, 3"),
    (Literal["a"] | None, ["a", None], ["b"], "a or null"),
    (list[int], [[], [1, 2]], [1, [1.5], [True], [[1]], None], "a list of whole numbers"),
    (list[float], [[], [1, 0.5]], [["x"], 0.5], "a list of numbers"),
    (list[str], [[], ["a"]], ["a", [1]], "a list of words"),
    (list[float] | None, [[0.1, 1], None], [0.1], "a list of numbers or null"),
    (list[Literal["a", "b"]], [["a", "b"], []], [["c"], "a"], "a list of one of a, b"),
    (list, [[1, "a"]], ["a", {}], "a list"),
    (tuple[int, float], [[1, 0.5]], [[1], [1, 2, 3], [0.5, 1]], "a list of 2: a whole number, a number"),
    (tuple[int, ...], [[], [1, 2, 3]], [["a"]], "a list of whole numbers"),
    (dict[str, Any], [{}, {"a": [1]}], [[], "a", None], "a mapping"),
    (dict[str, float], [{"a": 1}], [{"a": "b"}], "a mapping"),
    (dict, [{"a": 1}], [[1]], "a mapping"),
    (Any, [None, 1, "a", [1], {}], [], "Any"),
]


@pytest.mark.parametrize(("annotation", "good", "bad", "words"), KINDS, ids=[str(kind[0]) for kind in KINDS])
def test_a_value_fits_its_annotation_or_it_does_not(annotation, good, bad, words) -> None:
    assert [fits(value, annotation) for value in good] == [True] * len(good)
    assert [fits(value, annotation) for value in bad] == [False] * len(bad)
    assert describe(annotation) == words


@pytest.mark.parametrize("annotation", [Sequence[int], Callable[..., float], "Later"])
def test_an_annotation_that_is_not_a_simple_type_refuses_nothing(annotation) -> None:
    assert fits([1], annotation)
    assert fits("a", annotation)


def test_a_value_is_shown_as_it_is_written_on_the_command_line() -> None:
    values = [None, True, 0.1, "relu", [1, None, ["a"]], {"a": False}, OmegaConf.create([1, {"a": "${b}"}])]
    written = ["null", "true", "0.1", "relu", "[1,null,[a]]", "{a:false}", "[1,{a:${b}}]"]
    assert [shown(value) for value in values] == written


@pytest.mark.parametrize(("name", "meant"), [("widht", "width"), ("bacth", "batch"), ("mpl", "mlp"), ("zzz", None)])
def test_the_nearest_name_is_offered_only_where_one_is_near(name, meant) -> None:
    assert nearest(name, ["width", "batch", "mlp"]) == (f" (did you mean '{meant}'?)" if meant else "")


# --- which keys a target takes ---------------------------------------------------------------------------------------


class Shared(TypedDict):
    lr: float
    spare: bool


def plain(x: Any, y: int = 3, *, rate: float, names: list[str], **shared: Unpack[Shared]) -> None: ...


def free(x: Any, *, rate: float, **rest: Any) -> None: ...


class Component:
    def __init__(self, spec: Any, *, width: int):
        self.width = width


class Heir(Component):
    pass


def test_the_keys_are_the_keyword_only_parameters_and_those_of_the_shared_set() -> None:
    accepted, own, open_ended = parameters(plain)
    assert accepted == {"rate": float, "names": list[str], "lr": float, "spare": bool}
    assert (own, open_ended) == (True, False)


def test_the_keys_of_a_class_are_those_of_its_constructor_inherited_or_not() -> None:
    assert parameters(Component) == parameters(Heir) == ({"width": int}, True, False)


def test_free_keywords_leave_the_keys_open() -> None:
    assert parameters(free) == ({"rate": float}, True, True)


def test_torchs_own_classes_may_be_given_any_of_their_parameters_and_keep_their_defaults() -> None:
    accepted, own, open_ended = parameters(torch.optim.SGD)
    assert not own
    assert not open_ended
    assert {"lr", "momentum", "nesterov"} <= set(accepted)
    assert parameters(torch.nn.functional.linear) == ({}, False, True)  # written in C: nothing is known


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({}, None),
        ({"lr": 0.1, "momentum": 0.9}, None),
        ({"lr": "fast"}, None),  # torch's annotations are its own affair
        ({"learning_rate": 0.1}, "optimiser.learning_rate=0.1: no such key"),
        ({"momentun": 0.9}, "optimiser.momentun=0.9: no such key (did you mean 'momentum'?)"),
    ],
)
def test_of_a_third_partys_target_only_unknown_keys_are_refused(keys, complaint) -> None:
    given = node("torch.optim.SGD", **keys)
    if complaint is None:
        assert check_node("optimiser", given, ["torch.optim"]) is None
        return
    with pytest.raises(ConfigError, match="no such key") as error:
        check_node("optimiser", given, ["torch.optim"])
    assert str(error.value).startswith(complaint)


MLP = {"hidden": [8], "activation": "relu", "norm": "none"}
WRONG_NODES = [
    ({**MLP, "hiden": [3]}, "model.hiden=[3]: no such key (did you mean 'hidden'?); plumbline.models.mlp.MLP takes: hidden"),
    ({"hidden": [8], "activation": "relu"}, "model.norm: has no value; plumbline.models.mlp.MLP needs it"),
    ({**MLP, "hidden": 8}, "model.hidden=8: must be a list of whole numbers"),
    ({**MLP, "hidden": None}, "model.hidden=null: must be a list of whole numbers"),
    ({**MLP, "norm": "bacth"}, "model.norm=bacth: must be one of batch, mean_only, layer, group, none (did you mean 'batch'?)"),
    ({**MLP, "norm": "???"}, "model.norm: has no value (???); give one: model.norm=…"),
    ({**MLP, "norm": True}, "model.norm=true: must be one of batch"),
    ({**MLP, "_args_": [1]}, "model._args_: is Hydra's own word"),
    ({**MLP, "_partial_": True}, "model._partial_: is Hydra's own word"),
    ({**MLP, "_recursive_": False}, "model._recursive_: is Hydra's own word"),
    ({**MLP, "_convert_": "none"}, "model._convert_: is Hydra's own word"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "complaint"), WRONG_NODES, ids=[complaint[:24] for _, complaint in WRONG_NODES])
def test_a_component_of_ours_gets_exactly_its_keywords_rightly_typed(keys, complaint) -> None:
    assert check_node("model", node("plumbline.models.mlp.MLP", **MLP), OURS) is None
    with pytest.raises(ConfigError) as error:
        check_node("model", node("plumbline.models.mlp.MLP", **keys), OURS)
    assert str(error.value).startswith(complaint)


def test_what_is_built_gets_plain_lists_and_the_runtime_object_first() -> None:
    whole = OmegaConf.create(
        {"allow": [__name__], "model": {"_target_": f"{__name__}.Component", "width": [1, {"b": 2}]}}
    )
    made = build(whole.model)("a spec")
    assert (made.width, type(made.width)) == ([1, {"b": 2}], list)


# --- what may be a target --------------------------------------------------------------------------------------------

FORBIDDEN = [  # target, what is allowed
    ("os.system", OURS),
    ("builtins.eval", OURS),
    ("plumblines.evil", OURS),
    ("torch.os.system", ["torch"]),
    ("torch.nn.os.system", ["torch.nn"]),
    ("plumbline.train.hydra.main", OURS),
    ("plumbline.train.hydra", OURS),
    ("plumbline.train.sys.exit", OURS),
    ("plumbline.record.subprocess.run", OURS),
    ("plumbline.config.importlib", OURS),
    ("plumbline.config.dataclass", OURS),  # at home in dataclasses
    ("plumbline.loop.Any", OURS),
    ("torch.nn.functional.linear", ["torch.nn"]),  # at home in torch._C
    ("system", OURS),
    ("", OURS),
    ("plumbline.", OURS),
    ("plumbline..config", OURS),
    ("plumbline.config.build(1)", OURS),
]


@pytest.mark.parametrize(("target", "allow"), FORBIDDEN)
def test_a_target_outside_the_allowed_packages_is_never_reached(target, allow) -> None:
    with pytest.raises(ConfigError) as error:
        locate("model", target, allow)
    assert str(error.value).startswith(f"model._target_={target}: ")


@pytest.mark.parametrize("target", ["plumbline.models.mlp.MLP", "torch.nn.Linear"])
def test_an_allowed_target_is_found(target) -> None:
    assert callable(locate("model", target, ["plumbline", "torch.nn"]))


def test_a_function_that_an_allowed_module_borrows_is_judged_by_its_own_home(lab) -> None:
    (lab / "borrow.py").write_text("from os import system\nfrom subprocess import check_output as measure\n")
    for name, home in (("system", "posix"), ("measure", "subprocess")):
        with pytest.raises(
            ConfigError, match=rf"step._target_=lab.borrow.{name}: is borrowed from {home}, which lies outside"
        ):
            locate("step", f"lab.borrow.{name}", ["lab"])


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("optimiser.betas", "optimiser.betas"),
        ("optimiser.more", "optimiser.more"),
        ("optimiser.betas[1]", "optimiser.betas[1]"),
        ("optimiser.betas[1].deep", "optimiser.betas[1].deep"),
        ("regulariser.evil", "regulariser.evil"),
        ("tracker.evil.list[0]", "tracker.evil.list[0]"),
    ],
)
def test_a_target_nested_anywhere_is_refused_before_anything_is_imported(key, path, tmp_path: Path) -> None:
    evil: Any = {"_target_": "subprocess.check_output", "args": ["touch", str(tmp_path / "done")]}
    cfg = composed()
    OmegaConf.set_struct(cfg, False)
    for name in ("deep", "[1]", "[0]"):  # from the inside out
        if name in key:
            evil = {name: evil} if name == "deep" else [1, evil] if name == "[1]" else [evil]
    whole = key.partition("[")[0]
    if whole == "tracker.evil.list":
        OmegaConf.update(cfg, "tracker.evil._target_", "plumbline.trackers.wandb.Wandb")
    OmegaConf.update(cfg, whole, evil, merge=False)
    with pytest.raises(ConfigError) as error:
        check_config(cfg)
    assert str(error.value).startswith(f"{path}._target_=subprocess.check_output: lies outside")
    assert not (tmp_path / "done").exists()


def test_a_configuration_that_is_read_back_never_widens_what_may_be_used(tmp_path: Path) -> None:
    cfg = composed()
    OmegaConf.update(cfg, "allow", ["plumbline", "os"])
    OmegaConf.update(cfg, "model._target_", "os.system")
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(cfg))
    assert saved_config(tmp_path, "run", OURS).allow == OURS
    asked = composed(f"resume={tmp_path}", "allow=[plumbline,torch.nn]")
    resumed, directory = read_config(asked, [f"resume={tmp_path}"])
    assert (resumed.allow, directory) == (["plumbline", "torch.nn"], tmp_path)
    with pytest.raises(ConfigError, match=r"model\._target_=os\.system: lies outside"):
        check_values(resumed)


# --- root values -----------------------------------------------------------------------------------------------------

WRONG_VALUES = [
    ("seed", -1, "a whole number in [0, 9223372036854775807]"), ("seed", 2**63, "a whole number in [0, 92233"),
    ("epochs", -1, "a whole number in [0, 10000000]"), ("batch_size", 0, "of at least 1 or auto"),
    ("accumulate", 0, "of at least 1"), ("eval_batch_size", 0, "of at least 1"), ("patience", 0, "of at least 1 or null"),
    ("threads", 0, "of at least 1 or null"), ("watch", -1, "in [0, 1000000]"), ("train_eval", 0, "of at least 1"),
    ("bootstrap", 0, "in [1, 100000]"), ("bootstrap", 100_000_000, "in [1, 100000]"), ("save_minutes", 0, "in [1e-9, 1e9]"),
    ("save_minutes", 1e-300, "in [1e-9, 1e9]"), ("save_minutes", float("nan"), "in [1e-9, 1e9]"),
    ("grad_clip", 0, "in [1e-30, 1e30] or null"), ("grad_clip", float("inf"), "in [1e-30, 1e30] or null"),
    ("ema", 1, "[0, 1) or null"), ("ema", -0.1, "[0, 1)"), ("ema", float("nan"), "[0, 1)"),
    ("direction", "minimize", "one of auto, minimise, maximise (did you mean 'minimise'?)"),
    ("precision", "fp8", "one of fp32, bf16, fp16"), ("device", "gpu", "accepted: auto, cpu, cuda, cuda:1"),
    ("device", "cuda:x", "(did you mean 'cuda'?)"), ("device", "cpu:3", "accepted"), ("name", "a/b", "without slashes"),
    ("name", "", "not empty"), ("outputs", "", "not empty"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "accepted"), one_in(3, WRONG_VALUES))
def test_a_root_value_out_of_range_is_refused_with_what_is_accepted(key, value, accepted) -> None:
    cfg = composed()
    assert check_values(cfg) is None
    cfg[key] = value
    with pytest.raises(ConfigError) as error:
        check_values(cfg)
    assert str(error.value).startswith(f"{key}=")
    assert accepted in str(error.value)


@pytest.mark.parametrize("key", ["patience", "threads", "grad_clip", "ema", "resume"])
def test_null_is_a_root_value_where_the_schema_says_so(key) -> None:
    cfg = composed()
    cfg[key] = None
    assert check_values(cfg) is None


def test_the_schema_and_the_root_file_have_the_same_keys() -> None:
    root = OmegaConf.load(ROOT / "conf" / "train.yaml")
    groups = {str(key) for entry in root.defaults if OmegaConf.is_dict(entry) for key in entry}
    mine = {str(key) for key in root} - {"defaults", "hydra"} | {
        key for key in groups if not key.startswith("override")
    }
    assert mine - {"experiment"} == {item.name for item in fields(Config)}


def test_a_group_without_a_target_and_an_option_that_was_not_chosen_are_said() -> None:
    cfg = composed()
    cfg.model = {"hidden": [3]}
    with pytest.raises(ConfigError, match="model: has no _target_; choose one of its options: model=…"):
        list(nodes(cfg))
    cfg = composed()
    OmegaConf.update(cfg, "regulariser.dropout.rate", 0.1, force_add=True)
    with pytest.raises(
        ConfigError, match=r"regulariser\.dropout: is not chosen.*\[dropout\] first.*~regulariser\.dropout"
    ):
        list(nodes(cfg))


# --- a user's own code -----------------------------------------------------------------------------------------------


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A package `lab` outside of ours, importable; forgotten afterwards."""
    package = tmp_path / "lab"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "model.py").write_text("def make(spec, *, width: int, kind: str = 'a'):\n    return spec, width, kind\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield package
    for name in [name for name in sys.modules if name.partition(".")[0] == "lab"]:
        del sys.modules[name]


OUTSIDE = [  # target, keys, the message's beginning, what it contains
    ("lab.model.make", {"width": 3}, "model.kind: has no value", "lab.model.make needs it"),  # its default has no say
    ("lab.model.make", {"width": 3, "kind": "a", "widht": 3}, "model.widht=3: no such key", "(did you mean 'width'?)"),
    ("lab.model.make", {"width": "wide", "kind": "a"}, "model.width=wide: must be a whole number", ""),
    ("lab.model.maek", {}, "model._target_=lab.model.maek: lab.model has no maek", "(did you mean 'make'?)"),
    ("lab.modle.make", {}, "model._target_=lab.modle.make: there is no module lab.modle", "(did you mean 'model'?)"),
    ("lab.broken.make", {}, "model._target_=lab.broken.make: ", "broken.py, line 2: "),
    ("lab.needs.make", {}, "model._target_=lab.needs.make: lab.needs imports nonesuch, which is not", "needs.py, line 1)"),
    ("lab.fails.make", {}, "model._target_=lab.fails.make: importing lab.fails failed: ZeroDivisionError", "fails.py, line 3)"),
    ("lab.takes.make", {}, "model._target_=lab.takes.make: importing lab.takes failed: ImportError: ", "takes.py, line 1)"),
    ("lab.model.WIDTH", {}, "model._target_=lab.model.WIDTH: is not a function or class", ""),
]  # fmt: skip


@pytest.mark.parametrize(("target", "keys", "beginning", "part"), OUTSIDE, ids=[case[2][6:40] for case in OUTSIDE])
def test_a_users_own_code_is_held_to_the_same_rule(lab: Path, target, keys, beginning, part) -> None:
    (lab / "model.py").open("a").write("WIDTH = 3\n")
    (lab / "broken.py").write_text("x = 1\ndef make(spec\n")
    (lab / "needs.py").write_text("import nonesuch\n")
    (lab / "fails.py").write_text("zero = 0\n\nvalue = 1 / zero\n")
    (lab / "takes.py").write_text("from lab.model import nothing\n")
    assert check_node("model", node("lab.model.make", width=3, kind="b"), ["lab"]) is None
    with pytest.raises(ConfigError) as error:
        check_node("model", node(target, **keys), ["lab"])
    assert str(error.value).startswith(beginning)
    assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_a_users_code_is_refused_and_not_imported_until_its_package_is_allowed(lab: Path) -> None:
    (lab / "loud.py").write_text(f"open({str(lab / 'imported')!r}, 'w')\ndef make(spec): ...\n")
    with pytest.raises(ConfigError, match=r"lies outside .*'allow=\[plumbline,lab\]'"):
        check_node("model", node("lab.loud.make"), OURS)
    assert not (lab / "imported").exists()
    assert check_node("model", node("lab.loud.make"), [*OURS, "lab"]) is None
    assert isinstance(sys.modules["lab.loud"], ModuleType)
