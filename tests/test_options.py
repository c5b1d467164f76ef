"""Every option of conf/ composes, builds and changes something; so does every value in it. A new one needs its line here."""

from __future__ import annotations

import math
import types
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, composed, first_of_each, one_in
from omegaconf import DictConfig, OmegaConf

from plumbline.assemble import assemble, rehearse
from plumbline.config import COMBINED, GROUPS, OPTIONAL, PLACE, PRESETS, STUDY, build, check_config
from plumbline.data.core import Data, Spec, Split, Splits
from plumbline.loop import fit, predict
from plumbline.seeing import Gallery

CONF, TESTS = ROOT / "conf", ROOT / "tests"
CPU = torch.device("cpu")
FILES = [file for file in sorted(CONF.glob("*/*.yaml")) if not file.stem.startswith("_")]
ELSEWHERE = ("data", "experiment", *PRESETS, *STUDY, *PLACE)
OPTIONS = [(file.parent.name, file.stem) for file in FILES if file.parent.name not in ELSEWHERE]
# The options of data need files: see test_options_data.py. Root values and experiments: test_root_values.py. Presets of
# checks, and each threshold in them: test_checks_options.py. Those of a study and of a place are no run's:
# test_search_options.py, test_slurm_submit.py.


class Given(NamedTuple):
    """An alternative value that shows where other values, by path, are given."""

    value: Any
    others: dict[str, Any]


class Proven(NamedTuple):
    """What cannot be shown by a tiny run: the test that does show it, as file::name."""

    by: str


# What an option needs beside itself to do a tiny run on images of 8 by 8.
NEEDS = {
    "model/torchvision": ["model.name=squeezenet1_1", "model.resize=32"],
    "model/resnet": ["model.channels=[4,8]", "model.blocks=1"],
    "model/cnn": ["model.channels=[4,4]"],
    "model/cnn1d": ["model.channels=[4,4]"],
    "step/progressive_resizing": ["model=resnet", "model.channels=[4,8]", "model.blocks=1"],
    "figures/activations": ["model=cnn", "model.channels=[4,4]"],
    "figures/gradcam": ["model=cnn", "model.channels=[4,4]"],
    "transfer/weights": ["transfer.freeze=[hidden]"],
    "model/transformer": ["model.width=8", "model.layers=1"],
    "model/unet": ["model.channels=[2,4]"],
    "loss/dice": ["model=unet", "model.channels=[2,4]"],
    "regulariser/kl": ["model=vae"],
    "regulariser/dropblock": ["model=cnn", "model.channels=[4,4]", "model.kernel=3"],
}

# Options that are by definition the default in a tiny run of classes: those they are compared with instead.
THE_SAME = {"loss/task": "mse", "loss/cross_entropy": "mse", "model/mlp": "linear", "optimiser/adamw": "adam",
            "schedule/cosine": "constant", "init/own": "he"}  # fmt: skip

DECAY = {"optimiser.weight_decay": 0.1}
FALL = {"schedule.patience": 0, "schedule.threshold": 0.1}  # every epoch is one without an improvement

# group/option/key -> another legal value; * is any option. A key that is in no line fails its test.
CHANGES: dict[str, Any] = {
    "model/mlp/hidden": [16], "model/*/activation": "tanh", "model/*/norm": "layer",
    "model/cnn/channels": [4], "model/cnn/kernel": 3, "model/cnn/hidden": [8],
    "model/cnn/pool": Given("first", {"model.norm": "batch"}),
    "model/resnet/channels": [4], "model/resnet/blocks": 2, "model/resnet/preactivation": True,
    "model/residual_mlp/width": 8, "model/residual_mlp/blocks": 1,
    "model/torchvision/name": "squeezenet1_0", "model/torchvision/resize": 40,
    "model/torchvision/weights": Proven("test_zoo.py::test_loaded_layers_are_marked_and_the_new_head_is_not"),
    "model/cnn1d/channels": [4], "model/cnn1d/kernel": 3, "model/cnn1d/hidden": [8],
    "model/lstm/width": 8, "model/lstm/layers": 2, "model/transformer/width": 16, "model/transformer/layers": 2,
    "model/transformer/heads": 2, "model/autoencoder/hidden": [8], "model/autoencoder/code": 3, "model/vae/hidden": [8],
    "model/vae/code": 3, "model/dilated/channels": 4, "model/dilated/dilations": [1, 1], "model/dilated/kernel": 5,
    "model/unet/channels": [2], "model/siamese/hidden": [8], "model/siamese/embedding": 3, "model/siamese/joint": [8],
    "model/siamese/merge": "difference", "model/embedding_mlp/hidden": [8], "model/embedding_mlp/embedding": 2,
    "model/branch/hidden": [8], "model/branch/embedding": 3,
    "loss/huber/delta": 0.1,
    "optimiser/*/lr": 0.003, "optimiser/*/weight_decay": 0.5, "optimiser/*/layer_rates": [0.1, 1.0], "optimiser/*/eps": 0.1,
    "optimiser/*/decoupled": Given("not", DECAY), "optimiser/*/spare": Given("not", DECAY),
    "optimiser/*/betas": [0.5, 0.9], "optimiser/rmsprop/alpha": 0.5,
    "optimiser/sgd/momentum": 0.9, "optimiser/rmsprop/momentum": 0.9,
    "optimiser/sgd/nesterov": Given(True, {"optimiser.momentum": 0.9}),
    "optimiser/adam_then_sgd/switch": 5, "optimiser/adam_then_sgd/sgd_lr": Given(0.5, {"optimiser.switch": 5}),
    "optimiser/adam_then_sgd/momentum": Given(0.5, {"optimiser.switch": 5}),
    "step/sam/rho": 0.5, "step/progressive_resizing/start": 0.25, "step/progressive_resizing/until": 1.0,
    "transfer/weights/file": Proven("test_transfer.py::test_weights_come_from_a_run_but_for_what_starts_anew"),
    "transfer/weights/reinit": Proven("test_transfer.py::test_weights_come_from_a_run_but_for_what_starts_anew"),
    "transfer/weights/freeze": [], "transfer/weights/thaw": [0.5, 0.5],
    "optimiser/torch/name": "NAdam", "optimiser/torch/options": {"eps": 0.1},
    "schedule/*/warmup": 0.2, "schedule/*/floor": 0.5, "schedule/cosine_restarts/cycles": 2,
    "schedule/cosine_restarts/growth": "double", "schedule/multistep/milestones": [0.25], "schedule/multistep/factor": 0.5,
    "schedule/one_cycle/peak_at": 0.5, "schedule/one_cycle/start": 0.5,
    "schedule/plateau/factor": Given(0.5, FALL), "schedule/plateau/floor": Given(0.5, FALL),
    "schedule/plateau/patience": Given(1, FALL), "schedule/plateau/threshold": Given(0.1, {"schedule.patience": 0}),
    "init/*/head_std": 0.5, "init/*/final_bias": "keep", "init/own/final_bias": "zero", "init/orthogonal/gain": 2.0,
    "init/truncated_normal/std": 0.2, "init/uniform/bound": 0.2, "init/uniform/bias": 0.0,
    "regulariser/*/strength": 0.5, "regulariser/*/alpha": 3.0, "regulariser/*/rate": 0.5, "regulariser/*/layers": ["head"],
    "regulariser/dropblock/block_size": 2, "regulariser/dropblock/layers": ["all"],
    "regulariser/input_noise/std": 0.5, "regulariser/label_smoothing/smoothing": 0.3,
    "regulariser/spectral_norm/n_power_iterations": 5,
    "augment/crop/padding": 1, "augment/cutout/size": 2, "augment/flip/horizontal": 1.0, "augment/flip/vertical": 1.0,
    "augment/rotate/degrees": 90.0, "augment/shift/pixels": 1,
    "tracker/tensorboard/flush_seconds": 5,
    "figures/*/samples": 3, "figures/*/maps": 2, "figures/*/most": 2, "figures/*/features": [1, 2],
    "figures/*/layer": "features.0.conv",
    "tracker/wandb/project": "mine", "tracker/wandb/entity": "us", "tracker/wandb/group": "a", "tracker/wandb/tags": ["b"],
    "tracker/wandb/mode": "online",
} | {f"regulariser/*/{kind}{norm}": 0.1 for kind in ("kernel", "bias", "activity") for norm in ("", "_l1", "_l2")}  # fmt: skip


def images() -> Data:
    """48 images of 8 by 8 in three classes that their first row tells."""
    x = torch.randn(48, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(48) % 3
    x[:, 0, 0] += y[:, None]
    split = Split(x, y, np.arange(48))
    spec = Spec("classification", (1, 8, 8), 3, ("a", "b", "c"))
    return Data(spec, lambda: Splits(split, split, lambda: split, lambda: ""))


def masks() -> Data:
    """The same images, and where they are bright."""
    plain = images().train
    split = Split(plain.x, (plain.x > 0.5).flatten(1).float(), plain.ids)
    spec = Spec("segmentation", (1, 8, 8), 64, masks=(1, 8, 8))
    return Data(spec, lambda: Splits(split, split, lambda: split, lambda: ""))


def halves() -> Data:
    """The same images as pairs: of their upper and lower half."""
    plain = images()
    split = Split(plain.train.x.reshape(48, 2, 32), plain.train.y, plain.train.ids)
    return Data(replace(plain.spec, shape=(2, 32)), lambda: Splits(split, split, lambda: split, lambda: ""))


def categories() -> Data:
    """48 rows of four numbers and one of six categories."""
    plain = images()
    split = Split(torch.cat([plain.train.x[:, 0, 0, :4], torch.eye(6).repeat(8, 1)], 1), plain.train.y, plain.train.ids)
    spec = replace(plain.spec, shape=(10,), categories=((4, 6),))
    return Data(spec, lambda: Splits(split, split, lambda: split, lambda: ""))


def two_classes() -> Data:
    """The same images in two classes."""
    plain = images()
    split = Split(plain.train.x, plain.train.y.clamp(max=1), plain.train.ids)
    return Data(
        replace(plain.spec, outputs=2, classes=("a", "b")), lambda: Splits(split, split, lambda: split, lambda: "")
    )


SUBJECTS = {"unet": masks, "siamese": halves, "embedding_mlp": categories}


def subject(cfg: DictConfig) -> Data:
    """What an option is tried on."""
    if cfg.loss._target_.endswith("tanh_square"):
        return two_classes()
    return SUBJECTS.get(cfg.model._target_.split(".")[-2], images)()


@cache
def option(group: str, name: str) -> DictConfig:
    """The configuration of a run with an option. It is shared: `changed` copies it."""
    word = f"{group}=[{name}]" if group in COMBINED else f"{group}={name}"
    return composed(word, *NEEDS.get(f"{group}/{name}", []))


def changed(cfg: DictConfig, values: dict[str, Any]) -> DictConfig:
    cfg = cfg.copy()
    for path, value in values.items():
        now = OmegaConf.select(cfg, path)
        OmegaConf.update(cfg, path, (not now) if value == "not" else value, merge=False)
    return cfg


def numbers(cfg: DictConfig) -> tuple[Any, ...]:
    """What comes out of three epochs of four updates: the records, and what the network says."""
    data = subject(cfg)
    check_config(cfg)
    training, state, step, schedule = assemble(cfg, data, CPU)
    options = {key: cfg[key] for key in ("seed", "epochs", "batch_size", "accumulate", "watch")}
    found = []
    for record in fit(training, state, data.train, step, schedule, **options):
        if record:
            found.append({key: value for key, value in record.items() if key not in ("seconds", "samples_per_s")})
            state.scores.append(0.5 - 0.001 * record["epoch"])  # it falls, but slowly
    outputs, _ = predict(state.network, data.val, 48, training.autocast)
    assert all(math.isfinite(value) for record in found for value in record.values())
    return found, outputs.flatten().tolist()


SHORT = {"epochs": 3, "batch_size": 12, "watch": 1, "threads": 1}


@cache
def usual(group: str, name: str) -> tuple[Any, ...]:
    return numbers(changed(option(group, name), SHORT))


def mirrored(cfg: DictConfig, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a tracker makes of its options, without a service behind it."""
    import wandb

    seen: dict[str, Any] = {}
    monkeypatch.setattr(
        wandb, "init", lambda **options: seen.update(options) or types.SimpleNamespace(finish=lambda: None)
    )
    monkeypatch.setenv("NETRC", str(folder / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    check_config(cfg)
    (folder / "metrics.jsonl").write_text("")
    tracker = build(cfg.tracker[name])(folder, {}, {"question": "", "trackers": {}})
    tracker.close()
    seen.pop("settings", None)
    return seen or tracker.writer.flush_secs


def table() -> Data:
    """48 rows of four numbers in three classes."""
    x, y = images().train.x[:, 0, 0, :4], images().train.y
    split = Split(x, y, np.arange(48))
    return Data(
        Spec("classification", (4,), 3, ("a", "b", "c")), lambda: Splits(split, split, lambda: split, lambda: "")
    )


def drawn(cfg: DictConfig, name: str, folder: Path) -> tuple[bytes, str]:
    """The pixels of a figure after one epoch, and what stands below it."""
    check_config(cfg)
    data = table() if name in ("boundary", "hidden_units") else images()
    training, state, _, _ = assemble(cfg, data, CPU)
    gallery = Gallery(cfg, data, training, folder, pytest.fail)
    state.epoch = 1
    gallery.epoch(state)
    gallery.draw(state)
    return (folder / "figures" / f"{name}.png").read_bytes(), gallery.captions()[name]


def keys_of(group: str, name: str) -> list[str]:
    """The keys of an option's file and of the shared pieces it is made of."""
    content = yaml.safe_load((CONF / group / f"{name}.yaml").read_text(encoding="utf-8"))
    shared = [key for piece in content.pop("defaults", []) if piece != "_self_" for key in keys_of(group, piece)]
    content = content[name] if group in COMBINED else content
    return sorted({*shared, *content} - {"_target_"})


def alternative(group: str, name: str, key: str, table: dict[str, Any]) -> Any:
    for place in (f"{group}/{name}/{key}", f"{group}/*/{key}"):
        if place in table:
            return table[place]
    return pytest.fail(f"conf/{group}/{name}.yaml has a key {key} that no test changes: give it a line in CHANGES")


def is_test(name: str) -> bool:
    file, _, function = name.partition("::")
    return f"def {function}(" in (TESTS / file).read_text(encoding="utf-8")


# --- every option ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", sorted(CONF.glob("*/*.yaml")), ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_every_option_file_opens_with_a_sentence_that_says_what_it_is(file: Path) -> None:
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line != "# @package _global_"]
    assert lines[0].startswith("# ")
    assert len(lines[0].split()) >= 4
    assert lines[0].rstrip()[-1] in ".?)"


def test_every_group_is_known_here() -> None:
    known = {*GROUPS, *OPTIONAL, *COMBINED, *PRESETS, *PLACE, *STUDY, "experiment"} - {"study"}
    assert {file.parent.name for file in FILES} == known


@pytest.mark.parametrize(("group", "name"), one_in(2, OPTIONS))
def test_every_option_composes_and_is_rehearsed_and_twice_the_same(group: str, name: str) -> None:
    cfg = changed(option(group, name), SHORT)
    check_config(cfg)
    spec = table().spec if name in ("boundary", "hidden_units") else subject(cfg).spec
    assert sum(layer["parameters"] for layer in rehearse(cfg, spec)) > 0
    if group not in ("tracker", "figures"):
        assert numbers(cfg) == usual(group, name)


@pytest.mark.parametrize(("group", "name"), [p for p in OPTIONS if p[0] not in ("tracker", "figures")])
def test_every_option_gives_other_numbers_than_the_default(group: str, name: str) -> None:
    if name == "supervised":
        return  # the default; what it does is in the next test
    if group in ("step", *OPTIONAL):
        beside = [word for word in NEEDS.get(f"{group}/{name}", []) if not word.startswith(group)]
        assert usual(group, name) != numbers(changed(composed(*beside), SHORT))
        return
    if group in COMBINED:
        without = changed(option(group, name), SHORT | {group: {}})
        assert usual(group, name) != numbers(without)
        return
    default = next(entry[group] for entry in OmegaConf.load(CONF / "train.yaml").defaults if group in entry)
    against = THE_SAME.get(f"{group}/{name}", default)
    assert usual(group, name) != usual(group, against)


@pytest.mark.parametrize("name", [name for group, name in OPTIONS if group == "figures"])
def test_every_figure_is_drawn_says_what_it_shows_and_leaves_no_trace_in_the_numbers(name: str, tmp_path: Path) -> None:
    pixels, caption = drawn(option("figures", name), name, tmp_path)
    assert pixels.startswith(b"\x89PNG")
    assert caption.endswith((".", "max.")) and len(caption.split()) > 4
    assert drawn(option("figures", name), name, tmp_path) == (pixels, caption)


def test_the_step_is_what_updates() -> None:
    assert usual("step", "supervised")[0][-1]["fit/loss"] < usual("step", "supervised")[0][0]["fit/loss"]


@pytest.mark.parametrize("name", [name for group, name in OPTIONS if group == "tracker"])
def test_every_tracker_keeps_something_or_asks_for_a_run(name: str, tmp_path: Path, monkeypatch) -> None:
    made = mirrored(option("tracker", name), name, tmp_path, monkeypatch)
    assert made if name == "wandb" else list((tmp_path / name).iterdir())


# --- every value of every option -------------------------------------------------------------------------------------

VALUES = [(group, name, key) for group, name in OPTIONS for key in keys_of(group, name)]


@pytest.mark.parametrize(("group", "name", "key"), first_of_each(VALUES, lambda row: f"{row[0]} {row[2]}"))
def test_every_value_changes_what_comes_out(group: str, name: str, key: str, tmp_path: Path, monkeypatch) -> None:
    change = alternative(group, name, key, CHANGES)
    if isinstance(change, Proven):
        assert is_test(change.by)
        return
    value, others = change if isinstance(change, Given) else (change, {})
    cfg = changed(option(group, name), SHORT | others)
    path = f"{group}.{name}.{key}" if group in COMBINED else f"{group}.{key}"
    other = changed(cfg, {path: value})
    assert OmegaConf.select(other, path) != OmegaConf.select(cfg, path)
    if group == "tracker":
        results = [mirrored(one, name, tmp_path, monkeypatch) for one in (cfg, other)]
    elif group == "figures":
        results = [drawn(one, name, tmp_path) for one in (cfg, other)]
    else:
        results = [numbers(cfg) if others else usual(group, name), numbers(other)]
    assert results[0] != results[1]


def test_every_line_of_the_table_has_a_key_to_change() -> None:
    there = {f"{group}/{place}/{key}" for group, name, key in VALUES for place in (name, "*")}
    assert set(CHANGES) - there == set()
