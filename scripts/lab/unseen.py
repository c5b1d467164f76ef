"""Mistakes that are on no list: they tell whether the checks know causes or cases."""

from __future__ import annotations

from lab.faults import Fault

UNSEEN: list[Fault] = []
