"""Every option of data composes and loads, from tiny files where it needs some; every value in it changes what is loaded."""

from __future__ import annotations

import shutil
import types
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import composed, first_of_each, one_in
from omegaconf import DictConfig, OmegaConf
from test_image_folder import write as write_images
from test_options import CONF, Given, alternative, changed, keys_of
from test_vision import write_cifar, write_idx, write_set

from plumbline.config import ConfigError, build, check_config
from plumbline.data import vision

OPTIONS = [file.stem for file in sorted((CONF / "data").glob("[!_]*.yaml"))]
OPENING = types.SimpleNamespace(written=True)
IGNORED = ["kind", "patient", "part", "name", "label"]

# What an option needs, by key; {files} is the folder that `files` fills.
NEEDS: dict[str, dict[str, Any]] = {
    "csv": {"file": "{files}/table.csv", "target": "grade", "ignore": IGNORED},
    "image_folder": {"root": "{files}/images", "size": 8, "workers": 0},
    "fashion_mnist": {"root": "{files}/nowhere", "system_root": "{files}/idx", "download": False},
    "fashion_mnist_part": {"root": "{files}/nowhere", "system_root": "{files}/idx", "download": False},
    "mnist": {"root": "{files}/idx", "download": False},
    "sequences": {"samples": 80},
    "shapes": {"samples": 80, "size": 12},
    "pairs": {"items": 60, "features": 3},
    "digit_pairs": {"subset": 30},
    "gene_expression": {"genes": 200},
    "cifar10": {"root": "{files}/cifar", "download": False},
}

KFOLD, GROUPED = {"data.split": "kfold"}, {"data.split": "kfold", "data.ignore": ["kind", "part", "name", "label"]}
CHANGES: dict[str, Any] = {  # as in test_options
    "data/*/split": Given("kfold", {"data.folds": 3}), "data/*/split_seed": 1, "data/*/val_fraction": 0.3,
    "data/*/test_fraction": 0.3,
    "data/*/folds": Given(3, KFOLD), "data/*/fold": Given(1, KFOLD), "data/*/subset": 20, "data/image_folder/subset": 9,
    "data/*/normalise": False, "data/*/standardise_target": False, "data/*/root": "{files}/other",
    "data/fashion_mnist/system_root": "{files}/other",
    "data/fashion_mnist/download": Given(True, {"data.system_root": "{files}/nowhere"}),
    "data/fashion_mnist_part/system_root": "{files}/other",
    "data/fashion_mnist_part/download": Given(True, {"data.system_root": "{files}/nowhere"}),
    "data/fashion_mnist_part/classes": ["coat", "bag"], "data/fashion_mnist_part/per_class": 2,
    "data/mnist/download": Given(True, {"data.root": "{files}/nowhere"}),
    "data/cifar10/download": Given(True, {"data.root": "{files}/nowhere"}),
    "data/image_folder/root": "{files}/more_images", "data/image_folder/size": 4, "data/image_folder/channels": 1,
    "data/image_folder/group": Given("p[0-9]+", KFOLD | {"data.folds": 2}), "data/image_folder/workers": 1,
    "data/image_folder/bad_files": Given("skip", {"data.root": "{files}/broken_images"}),
    "data/image_folder/scan_cache": "{files}/cache",
    "data/*/samples": 60, "data/*/draw": 1, "data/*/noise": 0.1, "data/sequences/length": 12, "data/sequences/channels": 1,
    "data/shapes/size": 9, "data/shapes/shapes": 1,
    "data/pairs/apart": "leaking_pairs", "data/pairs/items": 50, "data/pairs/traits": 3, "data/pairs/features": 4,
    "data/*/select": Given(["forest"], {"data.keep": 2}), "data/csv/select": Given(["forest"], {"data.keep": 1}),
    "data/*/keep": Given(1, {"data.select": ["forest"], "data.keep": 2}),
    "data/*/correlated_above": Given(0.01, {"data.select": ["correlated"]}), "data/csv/columns": ["b"],
    "data/gene_expression/columns": ["x3"], "data/iris/columns": ["petal width (cm)"], "data/wine/columns": ["ash", "hue"],
    "data/breast_cancer/columns": ["mean area"], "data/diabetes/columns": ["bmi"],
    "data/pairs/noise": 0.5, "data/shops/shops": 9, "data/shops/measures": 2,
    "data/csv/file": "{files}/more.csv", "data/csv/target": "b", "data/csv/task": "regression",
    "data/csv/categorical": Given(["kind"], {"data.ignore": IGNORED[1:]}), "data/csv/group": Given("patient", GROUPED),
    "data/csv/ignore": [*IGNORED, "a"], "data/csv/id": Given("name", {"data.ignore": ["kind", "patient", "part", "label"]}),
    "data/csv/split_column": Given("part", {"data.split": "predefined", "data.ignore": ["kind", "patient", "name", "label"]}),
    "data/csv/separator": Given(";", {"data.file": "{files}/semicolons.csv"}),
    "data/csv/bad_rows": Given("skip", {"data.file": "{files}/broken.csv"}),
    "data/csv/standardise_target": Given(False, {"data.task": "regression"}),
    "data/diabetes_outliers/share": 0.2, "data/diabetes_outliers/factor": 3.0, "data/diabetes_outliers/columns": ["bmi"],
    "data/digits_permuted/order": 1, "data/mnist1d/order": 0,
    "data/digit_pairs/apart": "leaking_pairs", "data/digit_pairs/subset": 20,
    "data/digits_part/classes": ["0", "1"], "data/digits_part/per_class": 2,
    "data/playground/figure": "spiral", "data/playground/noise": 0.5, "data/playground/features": ["x2", "y2"],
    "data/toy_regression/variant": "as_published", "data/toy_regression/features": 4,
    "data/toy_regression/standardise_target": True,
    "data/gene_expression/genes": 60, "data/gene_expression/informative": 3, "data/gene_expression/effect": 1.0,
}  # fmt: skip
# Where one of the two is refused: the value as it stands (0), or the other (1).
REFUSED = {
    "fashion_mnist_part/download": 0,
    "fashion_mnist/download": 0, "mnist/download": 0, "cifar10/download": 0, "image_folder/bad_files": 0, "csv/bad_rows": 0,
    "csv/separator": 0, "csv/split_column": 0, "cifar10/root": 1,
}  # fmt: skip


def write_table(file: Path, rows: int, separator: str = ",", broken: bool = False) -> None:
    generator = np.random.default_rng(0)
    lines = [["a", "b", "kind", "patient", "part", "name", "grade", "label"]]
    for k in range(rows):
        part = ("train", "train", "val", "test")[k % 4]
        numbers = [f"{value:.3f}" for value in generator.normal(size=1)]
        lines.append([*numbers, str(k % 3), str(k % 3), str(k // 4), part, str(1000 + k), str(k % 3 + 1), str(k % 2)])
    if broken:
        lines[-1][0] = "?"
    file.write_text("\n".join(map(separator.join, lines)) + "\n")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory):
    """A folder with tiny files of every kind, and one more of each that is not the same."""
    folder = tmp_path_factory.mktemp("files")
    write_table(folder / "table.csv", 60)
    write_table(folder / "more.csv", 64)
    write_table(folder / "semicolons.csv", 60, separator=";")
    write_table(folder / "broken.csv", 60, broken=True)
    write_images(folder / "images")
    write_images(folder / "more_images", count=11)
    shutil.copytree(folder / "images", folder / "broken_images")
    for image in (folder / "broken_images" / "cat").glob("p[012]*"):
        image.write_bytes(b"no image")
    write_set(folder / "idx")
    write_set(folder / "other")
    write_idx(folder / "other" / "train-labels-idx1-ubyte", (np.arange(100) % 10)[::-1].astype(np.uint8))
    with pytest.MonkeyPatch.context() as patch:
        write_cifar(folder / "cifar", patch)

        def fetched(fetch: Any, name: str, root: Path, ways: Any) -> None:
            source, home = (folder / "idx", "raw") if "MNIST" in name else (folder / "cifar" / name, "")
            shutil.copytree(source, root / name / home)

        patch.setattr(vision, "_download", fetched)
        yield folder


def placed(value: Any, files: Path) -> Any:
    if isinstance(value, dict):
        return {key: placed(item, files) for key, item in value.items()}
    return value.replace("{files}", str(files)) if isinstance(value, str) else value


@cache
def option(name: str, files: Path) -> DictConfig:
    """The configuration of a run on that data set, with what it needs. It is shared: `changed` copies it."""
    needs = placed(NEEDS.get(name, {}), files)
    return changed(composed(f"data={name}"), {f"data.{key}": value for key, value in needs.items()})


def loaded(cfg: DictConfig, files: Path) -> Any:
    """All that a data set says of itself, its test set included; or what it refuses."""
    check_config(cfg)
    shutil.rmtree(files / "nowhere", ignore_errors=True)
    try:
        data = build(cfg.data)()
        test = data.open_test(OPENING)
        parts = [
            (split.fingerprint(), split.ids.tolist(), getattr(split, "workers", 0))
            for split in (data.train, data.val, test)
        ]
    except ConfigError as error:
        return str(error)
    kept = sum(1 for _ in (files / "cache").glob("*")) if cfg.data.get("scan_cache") else 0
    scales = [scale and (scale.mean.tolist(), scale.std.tolist()) for scale in (data.scale, data.target_scale)]
    return data.spec, parts, scales, data.left_out, data.identity(), kept


EXTRA = {"mnist1d": "mnist1d"}  # options that need a package of an extra, and that package


def need(name: str) -> None:
    if name in EXTRA:
        pytest.importorskip(EXTRA[name], reason="scripts/setup installs it")


@pytest.mark.parametrize(("name",), one_in(2, [(name,) for name in OPTIONS]))
def test_every_option_of_data_composes_and_loads_and_twice_the_same(name: str, files: Path) -> None:
    need(name)
    once, again = (loaded(option(name, files), files) for _ in range(2))
    assert not isinstance(once, str), once
    assert once == again
    spec, parts, *_ = once
    if spec.task not in ("segmentation", "reconstruction"):
        assert spec.outputs == max(len(spec.classes), 1)
    assert len({sample for _, ids, _ in parts[:2] for sample in ids}) == sum(len(ids) for _, ids, _ in parts[:2])


VALUES = [(name, key) for name in OPTIONS for key in keys_of("data", name)]


@pytest.mark.parametrize(("name", "key"), first_of_each(VALUES, lambda row: row[1]))
def test_every_value_of_data_changes_what_is_loaded(name: str, key: str, files: Path) -> None:
    need(name)
    change = alternative("data", name, key, CHANGES)
    value, others = change if isinstance(change, Given) else (change, {})
    cfg = changed(option(name, files), placed(others, files))
    other = changed(cfg, {f"data.{key}": placed(value, files)})
    assert OmegaConf.select(cfg, f"data.{key}") != OmegaConf.select(other, f"data.{key}")
    results = [loaded(cfg, files), loaded(other, files)]
    assert results[0] != results[1]
    refused = REFUSED.get(f"{name}/{key}")
    assert [isinstance(result, str) for result in results] == [refused == 0, refused == 1], results


def test_every_line_of_the_table_has_a_key_of_data_to_change() -> None:
    there = {f"data/{place}/{key}" for name, key in VALUES for place in (name, "*")}
    assert set(CHANGES) - there == set()
