"""Fashion-MNIST, MNIST and CIFAR-10: found on disk or downloaded; the official test files are the sealed test set."""

from __future__ import annotations

import gzip
import shutil
import socket
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from plumbline.config import ConfigError
from plumbline.data.core import Data, Spec
from plumbline.data.memory import Arrays, in_memory
from plumbline.data.splits import OwnTestOptions, check_options

CLOTHES = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
THINGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PATIENCE = 20  # seconds without a byte before a download is given up


def fashion_mnist(*, root: str, system_root: str, download: bool, **options: Unpack[OwnTestOptions]) -> Data:
    """70,000 grey pictures of clothes, 28 by 28, 10,000 of them the test set (Xiao, Rasul and Vollgraf 2017)."""
    spec = Spec("classification", (1, 28, 28), 10, CLOTHES)
    packaged = f"install Debian's package dataset-fashion-mnist, which puts them into data.system_root={system_root}"
    return _idx_set("FashionMNIST", spec, root, [system_root], packaged, download, options)


def mnist(*, root: str, download: bool, **options: Unpack[OwnTestOptions]) -> Data:
    """70,000 handwritten digits, 28 by 28 grey values, 10,000 of them the test set (LeCun et al. 1998)."""
    spec = Spec("classification", (1, 28, 28), 10, tuple("0123456789"))
    elsewhere = "say where they are with data.root=<folder>"
    return _idx_set("MNIST", spec, root, [], elsewhere, download, options)


def cifar10(*, root: str, download: bool, **options: Unpack[OwnTestOptions]) -> Data:
    """60,000 colour photographs of ten kinds of things, 32 by 32, 10,000 of them the test set (Krizhevsky 2009)."""
    check_options(options, groups=False, marks=False)
    spec = Spec("classification", (3, 32, 32), 10, THINGS)
    ways = (
        f"put the folder cifar-10-batches-py into data.root={root}",
        "say where it is with data.root=<folder>",
        "let it be downloaded with data.download=true",
    )

    def read(train: bool) -> Arrays:
        import torchvision

        # torchvision verifies the files of both halves: the sealed half is hidden from the training one, and back
        hidden = "test_list" if train else "train_list"
        half = type("Half", (torchvision.datasets.CIFAR10,), {hidden: []})
        folder = Path(root).expanduser()
        if download and not (folder / half.base_folder).is_dir():
            _download(lambda to: torchvision.datasets.CIFAR10(to, download=True), half.base_folder, folder, ways)
        try:
            images = half(folder, train=train)
        except RuntimeError as error:  # torchvision's word for files that are missing or not as published
            raise ConfigError(_ways("CIFAR-10", folder / half.base_folder, ways, "missing or damaged")) from error
        return Arrays(np.ascontiguousarray(images.data.transpose(0, 3, 1, 2)), np.asarray(images.targets))

    return in_memory(spec, lambda: _with_test(read(True), lambda: read(False)), **options)


def _idx_set(
    name: str, spec: Spec, root: str, elsewhere: list[str], other_way: str, download: bool, options: dict[str, Any]
) -> Data:
    check_options(options, groups=False, marks=False)
    home = Path(root).expanduser()
    places = [home / name / "raw", home, *(Path(folder).expanduser() for folder in elsewhere)]
    ways = (
        f"put its four files (train-images-idx3-ubyte or .gz, …) into data.root={root} or {Path(root) / name / 'raw'}",
        other_way,
        "let them be downloaded with data.download=true",
    )

    def load() -> Arrays:
        place = next((place for place in places if _find(place, "train-images-idx3")), None)
        if place is None and download:
            _download(lambda to: _fetch(name, to), name, home, ways)
            place = places[0]
        if place is None:
            raise ConfigError(_ways(name, root, ways, "not there"))
        return _with_test(_read_pair(place, "train", spec), lambda: _read_pair(place, "t10k", spec))

    return in_memory(spec, load, **options)


def _with_test(train: Arrays, test: Callable[[], Arrays]) -> Arrays:
    train.test = test
    return train


def _read_pair(place: Path, part: str, spec: Spec) -> Arrays:
    images, labels = (_idx(place, f"{part}-{kind}") for kind in ("images-idx3", "labels-idx1"))
    if images.shape[1:] != spec.shape[1:] or labels.shape != images.shape[:1]:
        raise ConfigError(f"data.root: {place}: {part} has images {images.shape} and labels {labels.shape}: not a pair")
    return Arrays(images[:, None], labels)


def _find(place: Path, stem: str) -> Path | None:
    return next((path for ending in ("-ubyte", "-ubyte.gz") if (path := place / f"{stem}{ending}").is_file()), None)


def _idx(place: Path, stem: str) -> np.ndarray:
    """The bytes of an IDX file (http://yann.lecun.com/exdb/mnist), gzipped or not, as an array that needs no copy."""
    path = _find(place, stem)
    if path is None:
        raise ConfigError(f"data.root: {place / stem}-ubyte is missing, with or without .gz; the other files are there")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"data.root: {path}: cannot be read ({error}); fetch it again") from error
    rank = content[3] if len(content) > 3 and content[:3] == b"\0\0\x08" else 0  # two zeros, unsigned bytes, rank
    sizes = np.frombuffer(content[4 : 4 + 4 * rank], ">u4").astype(int)
    if not rank or len(sizes) != rank or len(content) != 4 + 4 * rank + sizes.prod():
        raise ConfigError(f"data.root: {path}: is no whole IDX file ({len(content):,} bytes); fetch it again")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(sizes)


def _fetch(name: str, to: str) -> None:
    import torchvision

    getattr(torchvision.datasets, name)(to, download=True)


def _download(fetch: Callable[[str], Any], folder: str, root: Path, ways: tuple[str, ...]) -> None:
    """Fetch into a folder beside the place, then move it there: a broken line leaves no half of a data set."""
    before = socket.getdefaulttimeout()
    try:
        root.mkdir(parents=True, exist_ok=True)
        socket.setdefaulttimeout(PATIENCE)
        with tempfile.TemporaryDirectory(dir=root) as beside:
            fetch(beside)
            if not (root / folder).exists():
                shutil.move(Path(beside) / folder, root / folder)
    except (OSError, RuntimeError, EOFError, zlib.error) as error:  # no line, no such host, no space, a wrong checksum
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(_ways(folder, root, ways, f"the download failed ({reason})")) from error
    finally:
        socket.setdefaulttimeout(before)


def _ways(name: str, where: Any, ways: tuple[str, ...], what: str) -> str:
    first, second, third = ways
    return f"data.root={where}: {name}: {what}. Three ways:\n  1. {first}\n  2. {second}\n  3. {third}"
