"""The range of a number, declared where its type stands: `rate: Annotated[float, Range("[0, 1)")]`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Annotated

_INTERVAL = re.compile(r"([\[(])([^,]+), ([^\])]+)([\])])")


@dataclass(frozen=True)
class Range:
    """An interval in the usual notation, such as `[0, 1)`, `(0, inf)` or `[1, 1000]`; NaN is in none."""

    interval: str

    @cached_property
    def _parts(self) -> tuple[bool, float, float, bool]:
        match = _INTERVAL.fullmatch(self.interval)
        assert match is not None, f"Range({self.interval!r}) is not written as '[0, 1)'"
        return match[1] == "[", float(match[2]), float(match[3]), match[4] == "]"

    def __contains__(self, value: float) -> bool:
        with_low, low, high, with_high = self._parts
        return (low <= value if with_low else low < value) and (value <= high if with_high else value < high)

    def __str__(self) -> str:
        with_low, low, high, _ = self._parts
        if high < inf:
            return f"in {self.interval}"
        return f"at least {low:g}" if with_low else f"above {low:g} and finite"


WHOLE = Range("[-9223372036854775808, 9223372036854775807]")  # of every whole number: what fits into 64 bits

Count = Annotated[int, Range("[1, inf)")]
Index = Annotated[int, Range("[0, inf)")]
Share = Annotated[float, Range("[0, 1]")]
Decay = Annotated[float, Range("[0, 1)")]
Positive = Annotated[float, Range("(0, inf)")]
NonNegative = Annotated[float, Range("[0, inf)")]
