"""A finding: what a check has to say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["ok", "info", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One check's result: a stable id, how bad it is, the evidence in numbers, the likely cause, what to try, the source."""

    id: str
    severity: Severity
    message: str
    evidence: dict[str, Any] = field(default_factory=dict)
    cause: str = ""
    advice: tuple[str, ...] = ()
    source: str = ""
