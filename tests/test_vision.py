"""Fashion-MNIST, MNIST and CIFAR-10: found in each layout, damage is named, the test files are not needed to train."""

from __future__ import annotations

import gzip
import struct
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from plumbline.config import ConfigError
from plumbline.data import Data, vision

OWN_TEST = {
    "split": "stratified", "split_seed": 0, "val_fraction": 0.2, "folds": 5, "fold": 0, "subset": None,
    "normalise": True,
}  # fmt: skip
OPENING = types.SimpleNamespace(written=True)
FASHION = Path("/usr/share/datasets/fashion-mnist")


def write_idx(path: Path, array: np.ndarray, packed: bool = False) -> Path:
    content = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
    path = path.with_name(path.name + ".gz") if packed else path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


def write_set(folder: Path, packed: bool = False) -> None:
    generator = np.random.default_rng(0)
    for part, samples in (("train", 100), ("t10k", 20)):
        write_idx(folder / f"{part}-images-idx3-ubyte", generator.integers(0, 256, (samples, 28, 28), np.uint8), packed)
        write_idx(folder / f"{part}-labels-idx1-ubyte", (np.arange(samples) % 10).astype(np.uint8), packed)


def fashion(root: Path, system_root: Path | str = "/nowhere", **changes) -> Data:
    options = OWN_TEST | {"download": False} | changes
    return vision.fashion_mnist(root=str(root), system_root=str(system_root), **options)


def test_fashion_mnist_is_as_published():
    if not FASHION.is_dir():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    data = fashion(Path("/nowhere"), FASHION)
    assert (len(data.train), len(data.val)) == (48_000, 12_000)
    assert data.scale.mean.item() == pytest.approx(0.28604, abs=1e-3)
    assert data.scale.std.item() == pytest.approx(0.35302, abs=1e-3)
    test = data.open_test(OPENING)
    assert len(test) == 10_000
    assert test.y.bincount().tolist() == [1000] * 10
    assert data.train.y.bincount().tolist() == [4800] * 10


def test_the_whole_training_file_of_fashion_mnist_has_the_published_mean_and_spread():
    if not FASHION.is_dir():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    images = vision._idx(FASHION, "train-images-idx3")
    assert images.mean() / 255 == pytest.approx(0.28604, abs=5e-6)
    assert images.std() / 255 == pytest.approx(0.35302, abs=5e-6)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("where", ["", "FashionMNIST/raw"])
def test_the_files_are_found_in_each_layout_packed_or_not(tmp_path, where, packed):
    write_set(tmp_path / where, packed)
    data = fashion(tmp_path)
    assert (len(data.train), len(data.val), len(data.open_test(OPENING))) == (80, 20, 20)
    images = np.random.default_rng(0).integers(0, 256, (100, 28, 28), np.uint8)
    assert np.allclose(data.scale.inverse(data.val.x)[:, 0] * 255, images[data.val.ids], atol=1e-3)


def test_the_systems_folder_is_looked_in_after_the_root(tmp_path):
    write_set(tmp_path / "system")
    assert len(fashion(tmp_path / "root", tmp_path / "system").train) == 80


def test_training_does_not_need_the_test_files(tmp_path):
    write_set(tmp_path)
    for file in tmp_path.glob("t10k-*"):
        file.unlink()
    data = fashion(tmp_path)
    assert (len(data.train), len(data.val)) == (80, 20)
    with pytest.raises(ConfigError, match="t10k-images-idx3-ubyte is missing"):
        data.open_test(OPENING)


@pytest.mark.parametrize("name", ["fashion_mnist", "mnist", "cifar10"])
def test_files_that_are_nowhere_are_answered_with_three_ways(tmp_path, name):
    extra = {"system_root": str(tmp_path / "system")} if name == "fashion_mnist" else {}
    data = getattr(vision, name)(root=str(tmp_path), download=False, **extra, **OWN_TEST)
    with pytest.raises(
        ConfigError, match=r"(?s)data.root=.*Three ways:.*1\. put.*2\. .*3\. .*data.download=true"
    ) as said:
        _ = data.train
    assert str(tmp_path) in str(said.value)
    assert name != "fashion_mnist" or "dataset-fashion-mnist" in str(said.value)


@pytest.mark.parametrize("name", ["FashionMNIST", "CIFAR10"])
def test_a_download_that_fails_is_answered_with_the_same_ways_and_leaves_nothing(tmp_path, name, monkeypatch):
    import torchvision

    def offline(root: str, **_) -> None:
        (Path(root) / "half").write_text("a broken line")
        raise OSError("<urlopen error [Errno -3] no such host>")

    if name == "CIFAR10":  # the class is also a parent, so only what fetches is taken offline
        monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", lambda self: offline(self.root))
        data = vision.cifar10(root=str(tmp_path), download=True, **OWN_TEST)
    else:
        monkeypatch.setattr(torchvision.datasets, name, offline)
        data = fashion(tmp_path, download=True)
    with pytest.raises(ConfigError, match=r"(?s)the download failed \(.*no such host.*\).*Three ways"):
        _ = data.train
    assert list(tmp_path.iterdir()) == []


def test_a_download_goes_where_torchvision_would_put_it(tmp_path, monkeypatch):
    import torchvision

    fetched = []

    def fetch(root: str, download: bool) -> None:
        fetched.append(root)
        write_set(Path(root) / "FashionMNIST" / "raw", packed=True)

    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", fetch)
    root = tmp_path / "new"
    assert len(fashion(root, download=True).train) == 80
    assert [entry.name for entry in root.iterdir()] == ["FashionMNIST"]
    assert len(fashion(root, download=True).train) == 80
    assert len(fetched) == 1


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_a_damaged_file_is_named(tmp_path, packed, damage):
    write_set(tmp_path, packed)
    file = next(tmp_path.glob("train-images*"))
    content = file.read_bytes()
    file.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "other": b"<html>not found</html>"}[damage])
    with pytest.raises(ConfigError, match=file.name):
        _ = fashion(tmp_path).train


def test_images_and_labels_that_do_not_belong_together_are_refused(tmp_path):
    write_set(tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(99, np.uint8))
    with pytest.raises(ConfigError, match=r"images \(100, 28, 28\) and labels \(99,\)"):
        _ = fashion(tmp_path).train


def write_cifar(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CIFAR-10's files with 20 images each, which torchvision is told to take for the published ones."""
    import hashlib
    import pickle

    import torchvision

    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    generator, sums = np.random.default_rng(0), {}
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch", "batches.meta"):
        batch = {"data": generator.integers(0, 256, (20, 3072), np.uint8), "labels": [k % 10 for k in range(20)]}
        content = pickle.dumps({"label_names": list(vision.THINGS)} if name == "batches.meta" else batch)
        (folder / name).write_bytes(content)
        sums[name] = hashlib.md5(content).hexdigest()
    kind = torchvision.datasets.CIFAR10
    monkeypatch.setattr(kind, "train_list", [[name, sums[name]] for name, _ in kind.train_list])
    monkeypatch.setattr(kind, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": sums["batches.meta"]})
    return folder


def test_cifar10_trains_without_its_test_file_and_reads_it_when_opened(tmp_path, monkeypatch):
    folder = write_cifar(tmp_path, monkeypatch)
    sealed = (folder / "test_batch").read_bytes()
    (folder / "test_batch").unlink()
    data = vision.cifar10(root=str(tmp_path), download=False, **OWN_TEST)
    assert (len(data.train), len(data.val), data.train.x.shape[1:]) == (80, 20, data.spec.shape)
    first = np.random.default_rng(0).integers(0, 256, (20, 3072), np.uint8)[0].reshape(3, 32, 32)
    whole = torch.cat([data.train.x, data.val.x])[np.argsort(np.concatenate([data.train.ids, data.val.ids]))]
    assert np.allclose(data.scale.inverse(whole[0]) * 255, first, atol=1e-3)
    (folder / "test_batch").write_bytes(sealed)
    assert len(data.open_test(OPENING)) == 20
    (folder / "data_batch_3").write_bytes(b"damaged")
    with pytest.raises(ConfigError, match=r"(?s)missing or damaged.*Three ways"):
        _ = vision.cifar10(root=str(tmp_path), download=False, **OWN_TEST).train
