"""Images that do not fit in memory: decoded by workers, a batch at a time, behind the surface of a Split."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from plumbline.config import ConfigError
from plumbline.data.core import Scale, fingerprint


class StreamedSplit:
    """What Split is, for image files: x is read when a batch is asked for, and only batches are ever in memory.

    y: (N,) int64. digests: (N,) uint64 of the decoded images, from the scan. scale is applied where the network is.
    """

    def __init__(
        self,
        images: Images,
        y: Tensor,
        groups: np.ndarray | None,
        digests: np.ndarray,
        *,
        workers: int,
        scale: Scale | None,
        left_out: Sequence[str] = (),
    ):
        assert len(images.ids) == len(y) == len(digests), (len(images.ids), len(y), len(digests))
        self.items = None
        self.images, self.y, self.ids, self.groups, self.digests = images, y, images.ids, groups, digests
        self.workers, self.scale, self.left_out = workers, scale, list(left_out)
        self.layout = torch.contiguous_format

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def targets(self) -> Tensor:
        """All y, in order: known without reading an image."""
        return self.y

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (x, y) of at most `size` samples: in storage order, or the samples that `order` (int64) lists."""
        order = torch.arange(len(self)) if order is None else order.cpu()
        plan = [order[start : start + size] for start in range(0, len(order), size)]
        read = in_order(self.images, (part.tolist() for part in plan), self.workers, pin=self.y.is_cuda)
        for part, pixels in zip(plan, read, strict=True):
            if isinstance(pixels, str):
                raise ConfigError(f"data.root={self.images.root}: {pixels}; it could be read when the run began")
            yield self._prepared(pixels), self.y[part.to(self.y.device)]

    def _prepared(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) bytes, a quarter of the traffic, become scaled floats on the device."""
        x = pixels.to(self.y.device, non_blocking=True).to(torch.float32, memory_format=self.layout).div_(255)
        return x if self.scale is None else self.scale(x)

    def to(self, device: torch.device, channels_last: bool) -> None:
        """Say where the network is, and which memory layout is fastest there: each batch will go there."""
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.y = self.y.to(device)

    def fingerprint(self) -> str:
        """A short hash of every input, target and id."""
        return fingerprint(self.digests, self.y, self.ids)


class Images(Dataset):
    """A batch of image files as (B, channels, size, size) uint8, or what is wrong with the first that is broken.

    ids: (N,) paths seen from root.
    """

    def __init__(self, root: Path, ids: np.ndarray, *, size: int, channels: int):
        self.root, self.ids, self.size, self.channels = root, ids, size, channels

    def __getitems__(self, indices: list[int]) -> Tensor | str:
        pixels = np.empty((len(indices), self.channels, self.size, self.size), np.uint8)
        for place, index in enumerate(indices):
            image = self.decode(index)
            if isinstance(image, str):
                return f"{self.ids[index]}: {image}"
            pixels[place] = image
        return torch.from_numpy(pixels)

    def decode(self, index: int) -> np.ndarray | str:
        """One image as (channels, size, size) uint8, or what is wrong with it.

        Turned as its EXIF tag says; the largest square of its middle, resized with antialiasing.
        """
        from PIL import Image, ImageOps

        mode = "RGB" if self.channels == 3 else "L"
        try:
            with Image.open(self.root / self.ids[index]) as image:
                image.draft(mode, (self.size, self.size))  # a JPEG is decoded no larger than it will be needed
                image = ImageOps.exif_transpose(image)
                if image.mode in ("I", "F"):
                    return f"its pixels (mode {image.mode}) have no known range; make it 8 or 16 bits deep"
                if image.mode.startswith("I;16"):
                    image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))  # `convert` clips at 255
                image = ImageOps.fit(image.convert(mode), (self.size, self.size), Image.Resampling.BILINEAR)
                return np.asarray(image).reshape(self.size, self.size, self.channels).transpose(2, 0, 1)
        except Exception as error:  # a broken file makes a decoder raise anything; the answer is its name and why
            return f"{type(error).__name__}: {error}"


def in_order(images: Dataset, plan: Iterable[list[int]], workers: int, *, pin: bool) -> DataLoader:
    """Iterates over what `images` makes of each list of the plan: in the plan's order for any number of workers.

    The workers live as long as the iteration: forking them costs milliseconds, and between epochs none holds memory.
    """
    return DataLoader(
        images,
        batch_sampler=plan,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pin,
        worker_init_fn=_deaf,
        generator=torch.Generator(),  # its own: an iteration would move the global one, and all that is drawn later
    )


def _deaf(worker: int) -> None:
    """Signals to the whole group are for the run alone: it saves and leaves, and its workers end with it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def _as_it_is(batch: Any) -> Any:
    return batch
