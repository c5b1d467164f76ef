"""The values that a parameter accepts, declared where its type stands: `rate: Annotated[float, Range("[0, 1)")]`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import inf
from typing import Annotated, Any

_INTERVAL = re.compile(r"(0 or )?([\[(])([^,]+), ([^\])]+)([\])])")


@dataclass(frozen=True)
class Range:
    """An interval such as `[0, 1)`, `(0, inf)` or `0 or [1e-30, 1e30]`; NaN is in none. Tiny floats underflow to 0."""

    interval: str

    @cached_property
    def parts(self) -> tuple[bool, bool, float, float, bool]:
        """(whether 0 is accepted besides, whether the low end belongs to it, low, high, whether the high end does)."""
        match = _INTERVAL.fullmatch(self.interval)
        assert match is not None, f"Range({self.interval!r}) is not written as '[0, 1)'"
        low, high = (int(end) if end.lstrip("-").isdigit() else float(end) for end in (match[3], match[4]))
        return match[1] is not None, match[2] == "[", low, high, match[5] == "]"

    def __contains__(self, value: float) -> bool:
        zero, with_low, low, high, with_high = self.parts
        if zero and value == 0:
            return True
        return (low <= value if with_low else low < value) and (value <= high if with_high else value < high)

    def __str__(self) -> str:
        _, with_low, low, high, _ = self.parts
        if high < inf:
            return f"in {self.interval}".replace("in 0 or ", "that is 0 or in ")
        return f"of at least {low:g}" if with_low else f"above {low:g} and finite"


@dataclass(frozen=True)
class Items:
    """What a list must be beside the type of its items: how many at least and at most, each once, in order."""

    least: int = 0
    most: int | None = None
    distinct: bool = False
    increasing: bool = False

    def __contains__(self, value: list[Any]) -> bool:
        if len(value) < self.least or (self.most is not None and len(value) > self.most):
            return False
        if self.increasing and not all(a < b for a, b in pairwise(value)):
            return False
        return not self.distinct or len({str(item) for item in value}) == len(value)

    def __str__(self) -> str:
        words = [
            f"exactly {self.least}" if self.least == self.most else "",
            f"at least {self.least}" if self.least and self.least != self.most else "",
            f"at most {self.most}" if self.most is not None and self.least != self.most else "",
            "each once" if self.distinct else "",
            "increasing" if self.increasing else "",
        ]
        return ", ".join(word for word in words if word)


WHOLE = Range("[-9223372036854775808, 9223372036854775807]")  # of every whole number: what fits into 64 bits

Count = Annotated[int, Range("[1, inf)")]
Index = Annotated[int, Range("[0, inf)")]
Seed = Annotated[int, Range("[0, 9223372036854775807]")]
Size = Annotated[int, Range("[1, 100000]")]  # of a layer
Depth = Annotated[int, Range("[1, 1000]")]  # layers, blocks, passes: each costs time to build
Samples = Annotated[int, Range("[10, 1000000]")]  # of a data set that is drawn
Share = Annotated[float, Range("[0, 1]")]
Decay = Annotated[float, Range("[0, 1)")]
Inside = Annotated[float, Range("(0, 1)")]
Part = Annotated[float, Range("(0, 1]")]
Positive = Annotated[float, Range("[1e-30, 1e30]")]  # below and above, float32 knows 0 and infinity only
NonNegative = Annotated[float, Range("0 or [1e-30, 1e30]")]
Finite = Annotated[float, Range("[-1e30, 1e30]")]
Names = Annotated[list[str], Items(least=1, distinct=True)]
