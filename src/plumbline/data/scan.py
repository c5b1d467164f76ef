"""One look at every image before training: which cannot be read, and the exact mean and spread of those that can."""

from __future__ import annotations

import hashlib
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from plumbline.config import ConfigError
from plumbline.data.core import Scale, fingerprint
from plumbline.data.stream import Images, in_order
from plumbline.files import make_folder, save_arrays

READERS = 8  # files that are read at once, for their hashes
AT_ONCE = 32  # images a worker looks at before it reports


class Scan:
    """What was seen of each image, in the order of its ids. sums, squares: (N, channels), of the bytes."""

    def __init__(self, images: Images):
        count = len(images.ids)
        self.images = images
        self.wrong = np.full(count, "", dtype=object)  # why it cannot be read; empty for a good one
        self.digests = np.zeros(count, np.uint64)
        self.sums = np.zeros((count, images.channels), np.int64)
        self.squares = np.zeros((count, images.channels), np.int64)

    @property
    def good(self) -> np.ndarray:
        return self.wrong == ""

    def left_out(self) -> list[str]:
        """The images that cannot be read: path, and why."""
        return [f"{self.images.ids[row]}: {self.wrong[row]}" for row in np.flatnonzero(~self.good)]

    def scale(self, rows: np.ndarray) -> Scale:
        """The scale of those images, in whole numbers until the last step: exact in any order, on any machine."""
        count, moments = len(rows) * self.images.size**2, []
        for total, square in zip(self.sums[rows].sum(0).tolist(), self.squares[rows].sum(0).tolist(), strict=True):
            variance = (count * square - total * total) / count**2  # Python's integers do not overflow
            moments.append((total / count / 255, variance**0.5 / 255 or 1.0))
        mean, std = torch.tensor(moments).T[..., None, None]
        return Scale(mean, std, fitted_on="train")


def scan(images: Images, *, workers: int, cache: str | None) -> Scan:
    """Decode every image once, those that the cache does not know yet."""
    found = Scan(images)
    known = {"wrong": found.wrong, "digests": found.digests, "sums": found.sums, "squares": found.squares}
    store = None if cache is None else _Store(cache, images.root, images.ids, str((images.size, images.channels)))
    todo = np.arange(len(images.ids)) if store is None else store.fill(known)
    plan = [todo[start : start + AT_ONCE].tolist() for start in range(0, len(todo), AT_ONCE)]
    for rows, seen in zip(plan, in_order(_Look(images), plan, workers, pin=False), strict=True):
        for row, (wrong, digest, sums, squares) in zip(rows, seen, strict=True):
            found.wrong[row], found.digests[row] = wrong, digest
            found.sums[row], found.squares[row] = sums, squares
    if store is not None and len(todo):
        store.keep(known)
    return found


def file_digests(root: Path, ids: np.ndarray, *, cache: str | None) -> np.ndarray:
    """(N,) uint64 hashes of the bytes of files, zero for one that cannot be read; those that the cache knows are not read."""
    found = np.zeros(len(ids), np.uint64)
    store = None if cache is None else _Store(cache, root, ids, "bytes")
    todo = np.arange(len(ids)) if store is None else store.fill({"digests": found})
    with ThreadPoolExecutor(READERS) as readers:
        found[todo] = np.fromiter(readers.map(_digest, (root / ids[row] for row in todo)), np.uint64, len(todo))
    if store is not None and len(todo):
        store.keep({"digests": found})
    return found


def _digest(path: Path) -> int:
    try:
        with open(path, "rb") as file:
            return int.from_bytes(hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).digest(), "little")
    except OSError:
        return 0


class _Look(torch.utils.data.Dataset):
    """What a worker tells of each image: a few numbers instead of its pixels."""

    def __init__(self, images: Images):
        self.images = images

    def __getitems__(self, indices: list[int]) -> list[tuple]:
        return [self._look(self.images.decode(index)) for index in indices]

    def _look(self, image: np.ndarray | str) -> tuple:
        if isinstance(image, str):
            return image, 0, 0, 0
        digest = int.from_bytes(hashlib.blake2b(image.tobytes(), digest_size=8).digest(), "little")
        wide = image.astype(np.int64)
        return "", digest, wide.sum((1, 2)), np.square(wide).sum((1, 2))


def stamp(path: Path) -> tuple[int, int, int]:
    """(bytes, time of the last change, of the last change of its entry) of a file; zeros for a link that leads nowhere.

    The last one cannot be set, so a file that was edited is another one, whatever its date says.
    """
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


class _Store:
    """A file in the folder `cache` for each root and kind of content; it knows an image by path, size and dates."""

    def __init__(self, cache: str, root: Path, ids: np.ndarray, kind: str):
        self.path = Path(cache).expanduser() / f"{fingerprint(str(root.resolve()), kind)}.npz"
        self.keys = np.array(["\0".join(map(str, (name, *stamp(root / name), ""))) for name in ids])

    def fill(self, found: dict[str, np.ndarray]) -> np.ndarray:
        """Copy what is known; return the rows that are not."""
        try:
            self.known = dict(np.load(self.path, allow_pickle=False))
        except (OSError, ValueError, zipfile.BadZipFile):  # none yet, or damaged: it will be written anew
            self.known = {}
        if not self.known:
            return np.arange(len(self.keys))
        _, here, there = np.intersect1d(self.keys, self.known["keys"], assume_unique=True, return_indices=True)
        for name, part in found.items():
            part[here] = self.known[name][there]
        return np.setdiff1d(np.arange(len(self.keys)), here)

    def keep(self, found: dict[str, np.ndarray]) -> None:
        """Write what was known and what was found: whole or not at all, for two runs may do it at once."""
        now = {"keys": self.keys}
        now |= {name: part.astype(str) if part.dtype == object else part for name, part in found.items()}
        if self.known:
            gone = ~np.isin(self.known["keys"], self.keys)
            now = {name: np.concatenate([part, self.known[name][gone]]) for name, part in now.items()}
        try:
            make_folder(self.path.parent)
            save_arrays(self.path, **now)
        except OSError as error:
            raise ConfigError(f"data.scan_cache={self.path.parent}: cannot be written: {error}") from error
