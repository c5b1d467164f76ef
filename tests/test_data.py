"""Each data set: its spec is true, its scale is train's alone, its test set is not read before it is opened."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Unpack

import numpy as np
import pytest
import torch
from conftest import one_in
from hydra import compose, initialize_config_dir

from plumbline import config
from plumbline.config import ConfigError, build
from plumbline.data import Arrays, Data, DataOptions, Spec, in_memory, tabular
from plumbline.data.core import Split, fingerprint

CONF = Path(__file__).parents[1] / "conf"
OWN_TEST = {
    "split": "stratified", "split_seed": 0, "val_fraction": 0.2, "folds": 5, "fold": 0, "subset": None,
    "normalise": True,
}  # fmt: skip
OPTIONS = OWN_TEST | {"test_fraction": 0.2}
OPENING = types.SimpleNamespace(written=True)
BUNDLED = ("digits", "breast_cancer", "wine", "iris", "diabetes")


def composed(*overrides: str):
    config.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=list(overrides))


def configured(*overrides: str) -> Data:
    return build(composed(*overrides).data)()


def blobs(samples: int = 300, **changes) -> Data:
    """A data set of a user's own."""
    generator = np.random.default_rng(changes.pop("seed", 0))
    y = np.arange(samples) % 3
    x = generator.normal(5, 3, (samples, 4)) + y[:, None]
    return in_memory(Spec("classification", (4,), 3, ("a", "b", "c")), lambda: Arrays(x, y), **OPTIONS | changes)


# --- every option ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("option",), one_in(3, sorted((file.stem,) for file in (CONF / "data").glob("[!_]*.yaml"))))
def test_every_option_has_exactly_the_keys_of_its_function(option):
    needed = {"csv": ["data.file=x", "data.target=y"], "image_folder": ["data.root=x"]}.get(option, [])
    cfg = composed(f"data={option}", *needed)
    config.check_node("data", cfg.data, ["plumbline"])
    assert (CONF / "data" / f"{option}.yaml").read_text().startswith("# ")


@pytest.mark.parametrize("name", BUNDLED)
def test_what_is_stated_of_a_bundled_set_is_true(name):
    from sklearn import datasets

    data, source = configured(f"data={name}"), getattr(datasets, f"load_{name}")()
    test = data.open_test(OPENING)
    assert len(data.train) + len(data.val) + len(test) == len(source.target)
    assert data.train.x.shape[1:] == data.spec.shape
    assert data.train.x.dtype == torch.float32
    if name == "diabetes":
        assert (data.spec.task, data.spec.outputs, data.train.y.shape[1:]) == ("regression", 1, (1,))
    else:
        assert data.spec.classes == tuple(map(str, source.target_names))
        assert data.spec.outputs == len(source.target_names)
        assert data.train.y.unique().numel() == data.spec.outputs
    if name != "digits":
        assert data.spec.features == tuple(map(str, source.feature_names))


@pytest.mark.parametrize("name", BUNDLED)
def test_every_row_is_in_one_part_with_its_own_target(name):
    from sklearn import datasets

    raw = {"scaled": False} if name == "diabetes" else {}
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True, **raw)
    data = configured(f"data={name}")
    ids = []
    for split in (data.train, data.val, data.open_test(OPENING)):
        ids += split.ids.tolist()
        original = data.scale.inverse(split.x).reshape(len(split), -1) * (16 if name == "digits" else 1)
        assert np.allclose(original, x[split.ids], rtol=1e-4, atol=1e-4)
        target = data.target_scale.inverse(split.y)[:, 0] if data.target_scale else split.y
        assert np.allclose(target, y[split.ids], rtol=1e-5)
    assert sorted(ids) == list(range(len(x)))


# --- in memory -------------------------------------------------------------------------------------------------------


def test_a_data_set_of_ones_own_is_six_lines():
    def moons(*, noise: float, **options: Unpack[DataOptions]) -> Data:
        def load() -> Arrays:
            from sklearn.datasets import make_moons

            return Arrays(*make_moons(200, noise=noise, random_state=0))

        return in_memory(Spec("classification", (2,), 2, ("upper", "lower")), load, **options)

    data = moons(noise=0.1, **OPTIONS)
    assert (len(data.train), len(data.val), len(data.open_test(OPENING))) == (120, 40, 40)


@pytest.mark.parametrize("name", [*BUNDLED, "blobs"])
def test_the_scale_is_fitted_on_train_alone(name):
    data = blobs() if name == "blobs" else configured(f"data={name}")
    axes = (0, *range(2, data.train.x.dim()))
    x = data.train.x.double()
    assert x.mean(axes).abs().max() < 1e-5
    assert (x.std(axes, correction=0) - 1).abs().max() < 1e-5
    assert data.val.x.double().mean(axes).abs().max() > 1e-4
    assert data.scale.fitted_on == "train"


def test_val_and_test_are_scaled_by_the_numbers_of_train():
    x = np.random.default_rng(0).normal(5, 3, (300, 4))
    data = in_memory(Spec("classification", (4,), 2, ("a", "b")), lambda: Arrays(x, np.arange(300) % 2), **OPTIONS)
    mean, std = x[data.train.ids].mean(0), x[data.train.ids].std(0)
    for split in (data.train, data.val, data.open_test(OPENING)):
        assert np.allclose(split.x, (x[split.ids] - mean) / std, atol=1e-6)


def test_a_constant_feature_becomes_zero_and_not_infinite():
    x = np.random.default_rng(0).normal(size=(100, 3))
    x[:, 1] = 0.1
    data = in_memory(Spec("classification", (3,), 2, ("a", "b")), lambda: Arrays(x, np.arange(100) % 2), **OPTIONS)
    assert data.scale.std[1] == 1
    assert data.train.x[:, 1].abs().max() < 1e-6


def test_a_feature_far_from_zero_keeps_its_digits():
    x = 1.7e9 + np.random.default_rng(0).normal(size=(100, 1))  # seconds since 1970
    data = in_memory(Spec("classification", (1,), 2, ("a", "b")), lambda: Arrays(x, np.arange(100) % 2), **OPTIONS)
    assert np.allclose(np.corrcoef(data.train.x[:, 0], x[data.train.ids, 0])[0, 1], 1, atol=1e-6)
    assert data.train.x.std(correction=0).item() == pytest.approx(1, abs=1e-5)


def test_one_bad_number_stays_one_bad_number():
    x = np.random.default_rng(0).normal(size=(100, 3))
    x[7, 1] = np.nan
    data = in_memory(Spec("classification", (3,), 2, ("a", "b")), lambda: Arrays(x, np.arange(100) % 2), **OPTIONS)
    splits = (data.train, data.val, data.open_test(OPENING))
    assert sum((~torch.isfinite(split.x)).sum().item() for split in splits) == 1


def test_without_normalise_the_numbers_are_the_source():
    x = np.random.default_rng(0).normal(5, 3, (100, 4)).astype(np.float32)
    options = OPTIONS | {"normalise": False}
    data = in_memory(Spec("classification", (4,), 2, ("a", "b")), lambda: Arrays(x, np.arange(100) % 2), **options)
    assert data.scale is None
    assert np.array_equal(data.train.x, x[data.train.ids])


def test_bytes_of_images_are_scaled_to_one_then_by_channel():
    generator = np.random.default_rng(0)
    x = (generator.integers(0, 256, (90, 3, 5, 5)) * np.array([1, 0.5, 0.1])[:, None, None]).astype(np.uint8)
    spec, arrays = Spec("classification", (3, 5, 5), 2, ("a", "b")), Arrays(x, np.arange(90) % 2)
    data = in_memory(spec, lambda: arrays, **OPTIONS)
    train = x[data.train.ids] / 255
    assert np.allclose(data.scale.mean[:, 0, 0], train.mean((0, 2, 3)), atol=1e-6)
    assert np.allclose(data.scale.std[:, 0, 0], train.std((0, 2, 3)), atol=1e-6)
    plain = in_memory(spec, lambda: arrays, **OPTIONS | {"normalise": False})
    assert np.allclose(plain.train.x, train, atol=1e-7)
    assert plain.train.x.max() <= 1


def test_a_regression_target_is_standardised_on_train_and_can_be_undone():
    data = tabular.diabetes(standardise_target=True, **OPTIONS)
    assert data.train.y.mean().abs() < 1e-5
    assert data.train.y.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    assert data.target_scale.fitted_on == "train"
    assert data.val.y.mean().abs() > 1e-4
    raw = tabular.diabetes(standardise_target=False, **OPTIONS)
    assert raw.target_scale is None
    assert raw.train.y.max() > 300
    assert torch.allclose(data.target_scale.inverse(data.val.y), raw.val.y, rtol=1e-5)


def test_groups_reach_the_split_they_are_kept_in():
    groups = np.arange(300) // 5
    spec = Spec("classification", (4,), 3, ("a", "b", "c"))
    x, y = torch.randn(300, 4), [k % 3 for k in range(300)]  # tensors and lists serve, too
    arrays = Arrays(x, y, groups=groups.tolist())
    data = in_memory(spec, lambda: arrays, **OPTIONS | {"split": "grouped"})
    splits = (data.train, data.val, data.open_test(OPENING))
    assert all(np.array_equal(split.groups, groups[split.ids]) for split in splits)
    assert sum(len(set(split.groups)) for split in splits) == 60


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        (lambda: Arrays(np.zeros((10, 5)), np.arange(10) % 2), r"x is \(10, 5\), but its spec says \(N, 4\)"),
        (lambda: Arrays(np.zeros((10, 4)), np.arange(9) % 2), "y has 9 entries, but x has 10"),
        (lambda: Arrays(np.zeros((10, 4)), np.arange(10) % 2 + 1), "whole numbers from 0 to 1; y has 1, 2"),
        (lambda: Arrays(np.zeros((10, 4)), np.arange(10) / 2), "labels must be whole numbers"),
        (lambda: Arrays(np.zeros((10, 4)), np.arange(10) % 2, test=lambda: None), "either data.test_fraction or"),
    ],
)  # fmt: skip
def test_arrays_that_are_not_what_the_spec_says_are_shown(arrays, says):
    data = in_memory(Spec("classification", (4,), 2, ("a", "b")), arrays, **OPTIONS)
    with pytest.raises(ConfigError, match=says):
        _ = data.train


# --- laziness and the seal -------------------------------------------------------------------------------------------


def test_nothing_is_read_before_train_is_asked_for_and_then_once():
    calls = []

    def load() -> Arrays:
        calls.append("load")
        return Arrays(np.random.default_rng(0).normal(size=(30, 2)), np.arange(30) % 2)

    data = in_memory(Spec("classification", (2,), 2, ("a", "b")), load, **OPTIONS)
    assert data.spec.outputs == 2
    assert calls == []
    _ = data.train, data.val, data.train, data.scale
    assert calls == ["load"]


def test_a_set_of_its_own_test_is_opened_only_by_open_test():
    opened = []

    def test() -> Arrays:
        opened.append("test")
        return Arrays(np.ones((5, 2)), np.zeros(5, int))

    def load() -> Arrays:
        return Arrays(np.random.default_rng(0).normal(size=(30, 2)), np.arange(30) % 2, test=test)

    data = in_memory(Spec("classification", (2,), 2, ("a", "b")), load, **OWN_TEST)
    _ = data.train.x, data.val.x, data.train.fingerprint(), data.fingerprint(), data.scale, data.left_out
    list(data.train.batches(10))
    assert opened == []
    assert len(data.train) + len(data.val) == 30
    assert len(data.open_test(OPENING)) == 5
    assert opened == ["test"]


def test_scikit_learn_is_not_imported_for_a_spec():
    import subprocess

    code = (
        "import sys; from plumbline.data import tabular, vision, folder, table\n"
        f"tabular.digits(**{OPTIONS}); vision.mnist(root='x', download=False, **{OWN_TEST})\n"
        "print([name for name in ('sklearn', 'torchvision', 'PIL') if name in sys.modules])"
    )
    environment = {"PYTHONPATH": str(CONF.parent / "src")}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("split", ["grouped", "predefined"])
def test_a_bundled_set_without_groups_or_marks_says_so_at_the_call(split):
    with pytest.raises(ConfigError, match=f"data.split={split}"):
        tabular.digits(**OPTIONS | {"split": split})


def test_a_mistyped_option_is_a_type_error_as_for_any_function():
    with pytest.raises(TypeError, match="val_fracton"):
        tabular.digits(**OPTIONS, val_fracton=0.1)


# --- identity and fingerprints ---------------------------------------------------------------------------------------


def test_the_identity_is_of_the_source_and_the_fingerprint_of_the_split():
    one, two, other = blobs(), blobs(split_seed=1), blobs(seed=1)
    assert one.identity() == two.identity() != other.identity()
    assert one.train.fingerprint() != two.train.fingerprint()
    assert one.train.fingerprint() == blobs().train.fingerprint()
    assert blobs(subset=50, normalise=False).identity() == one.identity()


def test_the_identity_of_a_set_with_its_own_test_is_that_of_both():
    def own(value: float) -> Data:
        def load() -> Arrays:
            test = lambda: Arrays(np.full((5, 2), value), np.zeros(5, int))  # noqa: E731
            return Arrays(np.random.default_rng(0).normal(size=(30, 2)), np.arange(30) % 2, test=test)

        return in_memory(Spec("classification", (2,), 2, ("a", "b")), load, **OWN_TEST)

    assert own(1).identity() == own(1).identity() != own(2).identity()


def test_a_fingerprint_sees_values_shapes_and_names():
    x = torch.arange(6.0)
    prints = {
        fingerprint(x),
        fingerprint(x.view(2, 3)),
        fingerprint(x + 1),
        fingerprint(np.array(["a", "b"])),
        fingerprint("a"),
    }
    assert len(prints) == 5
    image = torch.rand(2, 3, 4, 4)
    assert fingerprint(image.to(memory_format=torch.channels_last)) == fingerprint(image)
    assert fingerprint(np.zeros((0, 3))) != fingerprint(np.array([], str))


# --- Split -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 50, 100])
def test_batches_in_order_are_the_samples_that_the_order_lists(size):
    split = Split(torch.randn(50, 3), torch.arange(50), np.arange(50))
    order = torch.randperm(50)[:33]
    x, y = (torch.cat(parts) for parts in zip(*split.batches(size, order), strict=True))
    assert torch.equal(y, order)
    assert torch.equal(x, split.x[order])
    assert torch.equal(torch.cat([y for _, y in split.batches(size)]), split.targets)
    assert max(len(y) for _, y in split.batches(size)) == min(size, 50)


def test_an_empty_order_has_no_batch():
    assert list(Split(torch.randn(5, 3), torch.arange(5), np.arange(5)).batches(2, torch.arange(0))) == []


def test_a_split_moves_to_the_layout_that_is_asked_for():
    split = Split(torch.randn(4, 3, 5, 5), torch.arange(4), np.arange(4))
    before = split.fingerprint()
    split.to(torch.device("cpu"), channels_last=True)
    x, _ = next(split.batches(2, torch.tensor([3, 1])))
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert split.fingerprint() == before


def test_outliers_are_planted_into_train_alone_as_many_as_the_share_says() -> None:
    clean, planted = (build(composed(f"data={name}").data)() for name in ("diabetes", "diabetes_outliers"))
    assert torch.equal(clean.val.y, planted.val.y) and torch.equal(clean.train.x, planted.train.x)
    moved = (clean.train.y != planted.train.y)[:, 0]
    assert int(moved.sum()) == round(0.05 * len(clean.train))
    assert torch.equal(planted.train.y[moved], 20 * clean.train.y[moved])
