"""Images that were augmented before they were split are found again, whatever the move; honest ones are no copies."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from planted import audit, clean
from torch import Tensor

DIGITS, CLOTHES = ("data=digits",), ("data=fashion_mnist", "data.subset=1500")
NAME = "data.moved_copies"
MOVES: dict[str, Callable[[Tensor], Tensor]] = {
    "moved by 0 down and 1 right": lambda x: x.roll(1, 3),
    "moved by -1 down and 0 right": lambda x: x.roll(-1, 2),
    "mirrored": lambda x: x.flip(3),
    "turned by 180°": lambda x: x.rot90(2, (2, 3)),
    "turned by 90°": lambda x: x.rot90(3, (2, 3)),
    "mirrored, moved by 1 down and 0 right": lambda x: x.flip(3).roll(1, 2),
    "another brightness": lambda x: 1.3 * x + 0.2,
}


@pytest.mark.parametrize("words", [DIGITS, pytest.param(CLOTHES, marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_a_copy_is_found_and_its_move_told(words: tuple[str, ...], move: str, noise: float) -> None:
    spec, arrays = clean(*words)
    half, draws = len(arrays["vx"]) // 2, torch.Generator().manual_seed(0)
    copies = MOVES[move](arrays["x"][:half])
    arrays["vx"][:half] = copies + noise * torch.randn(copies.shape, generator=draws)
    arrays["vy"][:half] = arrays["y"][:half]
    found = audit(spec, arrays, *words, "checks.samples=5000", only=NAME)[NAME]
    assert (found.severity, found.evidence["pairs"][0].endswith(move)) == ("fail", True)
    assert 0.95 * half <= found.evidence["moved"] <= 1.01 * half


def test_a_few_copies_are_a_word_and_no_alarm() -> None:
    spec, arrays = clean(*DIGITS)
    arrays["vx"][:2] = arrays["x"][:2].flip(3)
    found = audit(spec, arrays, *DIGITS, only=NAME)[NAME]
    assert (found.severity, found.evidence["moved"]) == ("info", 2)


@pytest.mark.parametrize(
    "fault", [lambda x: x * 0, lambda x: (x * 0).index_fill(2, torch.tensor([3]), 1.0)], ids=["blank", "bar"]
)
def test_images_that_are_all_alike_are_no_moved_copies(fault: Callable[[Tensor], Tensor]) -> None:
    spec, arrays = clean(*DIGITS)
    for name in ("x", "vx"):
        arrays[name][::2] = fault(arrays[name][::2])
    found = audit(spec, arrays, *DIGITS, only=NAME).get(NAME)
    assert found is None or found.severity == "ok"


@pytest.mark.parametrize(
    "words", [(*DIGITS, "data.split_seed=1"), (*DIGITS, "data.split_seed=2"), ("data=shapes",)], ids=" ".join
)
def test_honest_images_are_no_moved_copies(words: tuple[str, ...]) -> None:
    spec, arrays = clean(*words)
    found = audit(spec, arrays, *words, only=NAME)[NAME]
    assert (found.severity, found.evidence["moved"]) == ("ok", 0)


def test_a_table_has_no_moved_copies() -> None:
    spec, arrays = clean("data=wine")
    assert NAME not in audit(spec, arrays, "data=wine", only=NAME)
