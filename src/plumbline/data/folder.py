"""Your own images: a folder for each class, decoded while the network trains."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Unpack

import numpy as np
import torch

from plumbline.config import ConfigError
from plumbline.data.core import Data, Spec, Splits, fingerprint
from plumbline.data.scan import Scan, file_digests, scan
from plumbline.data.splits import DataOptions, check_options, split_indices
from plumbline.data.stream import Images, StreamedSplit
from plumbline.ranges import Range

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
PARTS = ("train", "val", "test")
OTHER_WORDS = {"valid": "val", "validation": "val", "dev": "val", "training": "train", "testing": "test"}


def image_folder(
    *,
    root: str,
    size: Annotated[int, Range("[1, 10000]")],
    channels: Literal[1, 3],
    group: str | None,
    workers: Annotated[int, Range("[0, 256]")],
    bad_files: Literal["stop", "skip"],
    scan_cache: str | None,
    **options: Unpack[DataOptions],
) -> Data:
    """root/<class>/**/*.png, .jpg, …; or root/train/<class>/…, root/val/…, root/test/…, which is split=predefined.

    Classes are the folders' names in sorted order. `group` is a regular expression on an image's path: what it
    matches (its first parenthesis, if it has one) names the patient, the scene, … that no split may tear apart.
    Train and val images are decoded once, before training, to fit the scale and to name those that cannot be read.
    """
    home = Path(root).expanduser()
    classes, marked = _classes(home)
    check_options(options, groups=group is not None, marks=marked)
    if marked and options["split"] != "predefined":
        raise ConfigError(
            f"data.split={options['split']}: {home} has its own train and test; say data.split=predefined"
        )
    pattern = _pattern(group)
    spec = Spec("classification", (channels, size, size), len(classes), classes)

    def load() -> Splits:
        files = _list(home, classes, marked, pattern)
        rows = split_indices(files.y, options, classes=classes, groups=files.groups, marks=files.marks)
        train, val, test = (files.take(part) for part in rows)

        def look(part: Files) -> Scan:
            return scan(Images(home, part.ids, size=size, channels=channels), workers=workers, cache=scan_cache)

        seen = look(Files.join(train, val))
        bad = seen.left_out()
        if bad and bad_files == "stop":
            raise ConfigError(_bad(home, bad, len(seen.good)))
        is_train = np.arange(len(seen.good)) < len(train.ids)
        if not seen.good[is_train].any() or not seen.good[~is_train].any():
            raise ConfigError(_bad(home, bad, len(seen.good)))
        scale = seen.scale(np.flatnonzero(is_train & seen.good)) if options["normalise"] else None

        def split(part: Files, seen: Scan, rows: np.ndarray, left_out: list[str]) -> StreamedSplit:
            good = part.take(np.flatnonzero(seen.good[rows]))
            images = Images(home, good.ids, size=size, channels=channels)
            digests = seen.digests[rows][seen.good[rows]]
            y = torch.from_numpy(good.y)
            return StreamedSplit(images, y, good.groups, digests, workers=workers, scale=scale, left_out=left_out)

        def opened() -> StreamedSplit:
            now = look(test)  # a broken image is left out and named, whatever bad_files says: nothing else is lost
            return split(test, now, np.full(len(test.ids), True), now.left_out())

        return Splits(
            split(train, seen, is_train, []),
            split(val, seen, ~is_train, []),
            opened,
            identity=lambda: files.fingerprint(home, scan_cache),
            scale=scale,
            left_out=bad,
        )

    return Data(spec, load)


@dataclass
class Files:
    """Image files by path, seen from the root, in sorted order."""

    ids: np.ndarray
    y: np.ndarray
    groups: np.ndarray | None
    marks: np.ndarray | None

    def take(self, rows: np.ndarray) -> Files:
        groups, marks = (None if part is None else part[rows] for part in (self.groups, self.marks))
        return Files(self.ids[rows], self.y[rows], groups, marks)

    @staticmethod
    def join(one: Files, other: Files) -> Files:
        return Files(np.concatenate([one.ids, other.ids]), np.concatenate([one.y, other.y]), None, None)

    def fingerprint(self, home: Path, cache: str | None) -> str:
        """Of every path and every byte, so that an image that was edited counts; of those in the cache from there.

        It is asked for before the test set is opened, and decodes nothing of it.
        """
        return fingerprint(self.ids, file_digests(home, self.ids, cache=cache))


def _classes(home: Path) -> tuple[tuple[str, ...], bool]:
    """(the classes, whether the root is laid out as train, val, test), from the names of folders alone."""
    if not home.is_dir():
        raise ConfigError(f"data.root={home}: is no folder; one with a folder of images for each class is wanted")
    names = _folders(home)
    for word in names if set(names) <= {*PARTS, *OTHER_WORDS} else ():
        if word in OTHER_WORDS:
            raise ConfigError(f"data.root={home}: its folder {word} should be called {OTHER_WORDS[word]}")
    marked = "train" in names and set(names) <= set(PARTS)
    if marked and "test" not in names:
        raise ConfigError(f"data.root={home}: has a folder train, but none called test; a split needs both")
    classes = _folders(home / "train") if marked else names
    if len(classes) < 2:
        where = home / "train" if marked else home
        raise ConfigError(f"data.root={where}: has {len(classes)} folders, but each class is one, and two are needed")
    for part in names if marked else ():
        for name in set(_folders(home / part)) - set(classes):
            raise ConfigError(f"data.root={home}: {part}/{name} is a class that train does not have")
    return tuple(classes), marked


def _folders(home: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(home) if entry.is_dir() and not entry.name.startswith("."))


def _pattern(group: str | None) -> re.Pattern[str] | None:
    try:
        return None if group is None else re.compile(group)
    except re.error as error:
        raise ConfigError(f"data.group={group}: is no regular expression: {error}") from error


def _list(home: Path, classes: tuple[str, ...], marked: bool, pattern: re.Pattern[str] | None) -> Files:
    """Every image under the folders of the classes, without opening one."""
    ids, y, marks = [], [], []
    for part in [name for name in PARTS if (home / name).is_dir()] if marked else [""]:
        for label, name in enumerate(classes):
            found = sorted(_images(home / part / name, home))
            if not found and part in ("", "train"):
                kinds = ", ".join(ENDINGS)
                raise ConfigError(f"data.root={home}: {Path(part) / name} holds no image ({kinds})")
            ids += found
            y += [label] * len(found)
            marks += [part] * len(found)
    groups = None if pattern is None else np.array([_group(name, pattern) for name in ids])
    return Files(np.array(ids), np.array(y), groups, np.array(marks) if marked else None)


def _images(folder: Path, home: Path) -> list[str]:
    return [
        Path(where, name).relative_to(home).as_posix()
        for where, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(ENDINGS) and not name.startswith(".")
    ]


def _group(name: str, pattern: re.Pattern[str]) -> str:
    match = pattern.search(name)
    if match is None:
        raise ConfigError(f"data.group={pattern.pattern}: does not match the path {name}; each image needs a group")
    return match.group(1 if pattern.groups else 0)


def _bad(home: Path, bad: list[str], total: int) -> str:
    lines = "\n  ".join(bad)
    return (
        f"data.root={home}: {len(bad)} of {total} images cannot be read; repair them, or data.bad_files=skip\n  {lines}"
    )
