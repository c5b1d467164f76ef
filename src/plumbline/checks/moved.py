"""Images of validation that are images of train, moved, mirrored, turned or made brighter before they were split."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from torch import Tensor

from plumbline.checks.core import Finding
from plumbline.checks.duplicates import MOST_NAMED, Neighbourhood
from plumbline.checks.view import View
from plumbline.ranges import Count, NonNegative, Share

LARGE = 16  # pixels: from this side on, images may have been moved by two pixels, smaller ones by one
FLAT = 0.05  # of the usual contrast: an image with less is blank, and like any other blank one


def moved_copies(view: View, *, close: NonNegative, share: Share, times: NonNegative, least: Count) -> Finding | None:
    """Whether images of validation are nearly images of train that were augmented before the split.

    Each image is compared without its frame and with its own mean and contrast taken out, as it is and after each of
    the moves that augmentation makes most.
    """
    if not view.images or min(len(view.train), len(view.val)) < 10 or min(view.spec.shape[1:]) < 6:
        return None
    train, val = (some.x.float().nan_to_num(0, 0, 0) for some in (view.train, view.val))
    frame = 2 if min(train.shape[2:]) >= LARGE else 1
    contrast = FLAT * train.flatten(1).std(1).median()
    keys, clear = bare(window(train, frame), contrast)
    rows = clear.nonzero().flatten()
    around = Neighbourhood.of(keys[rows], close)
    if around is None:
        return None
    found: dict[int, tuple[int, float, str]] = {}
    moves = list(moved(val, frame))
    for name, images in moves:
        queries, clear = bare(images, contrast)
        for query, key, distance in around.pairs(queries):
            row = int(rows[key])
            if clear[query] and not alike(val[query], train[row], close) and distance < found.get(query, (0, 1e9))[1]:
                found[query] = row, distance, name
    part, seen = len(found) / len(val), len(view.train) / len(view.data.train)  # only so many of the twins are found
    named = [f"{view.val.ids[a]} is train's {view.train.ids[b]}, {how}" for a, (b, _, how) in sorted(found.items())]
    evidence = {"moved": len(found), "of": len(val), "share": part, "pairs": named[:MOST_NAMED]}
    if not found:
        return Finding("ok", f"no image of {view.other} is one of train that was moved, mirrored or turned", evidence)
    grave = part / seen >= share and part > times * around.expected * len(moves) and len(found) >= least
    return Finding(
        "fail" if grave else "info",
        f"{len(found)} of {len(val):,} images of {view.other} are images of train, changed a little: {named[0]}",
        evidence,
        cause="the images were augmented before they were split, or one scene was photographed more than once",
        advice=("split first, augment train afterwards: augment=[…]", "keep a scene in one split: data.split=grouped"),
        source="S0: similar samples across sets mislead; Barz and Denzler 2020, Do we train on test data?",
    )


def moved(x: Tensor, frame: int) -> Iterator[tuple[str, Tensor]]:
    """(what was done, images (n, channels, height, width) without a frame) for each move."""
    for name, images in (("", x), ("mirrored", x.flip(3))):
        for turn in range(4) if x.shape[2] == x.shape[3] else (0, 2):
            turned = f"turned by {90 * turn}°" if turn else ""
            yield joined(name, turned) or "another brightness", window(images.rot90(turn, (2, 3)), frame)
        for down, right in product(range(-frame, frame + 1), repeat=2):
            if down or right:
                yield joined(name, f"moved by {down} down and {right} right"), window(images, frame, down, right)


def joined(*words: str) -> str:
    """What was done, in words."""
    return ", ".join(word for word in words if word)


def window(x: Tensor, frame: int, down: int = 0, right: int = 0) -> Tensor:
    """The images without a frame, seen from so many pixels aside."""
    height, width = x.shape[2:]
    return x[:, :, frame + down : height - frame + down, frame + right : width - frame + right]


def bare(x: Tensor, contrast: Tensor) -> tuple[Tensor, Tensor]:
    """((n, features) with mean 0 and standard deviation 1 each, (n,) whether there is anything to see)."""
    x = x.flatten(1)
    std = x.std(1, keepdim=True)
    return (x - x.mean(1, keepdim=True)) / std.clamp(min=1e-12), (std > contrast).flatten()


def alike(one: Tensor, other: Tensor, close: float) -> bool:
    """Whether two images are nearly one as they are: that is another check's."""
    return bool((one - other).norm() <= close * (other - other.mean()).norm())
