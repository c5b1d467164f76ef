"""What makes another study, and what merely widens the one that is there."""

from __future__ import annotations

from dataclasses import asdict

from plumbline.contract import shown
from plumbline.search.space import Parameter
from plumbline.search.study import Study

IDENTITY = ("seed", "seeds", "also")  # keys of search that make another study


def difference(there: Study, asked: Study) -> tuple[list[str], list[str]]:
    """(what makes another study, what merely widens it): lines to show, from what there is and what is asked."""
    other, wider = [], []
    was, is_ = set(lasting(there.fixed)), set(lasting(asked.fixed))
    other += [f"  - {word}" for word in sorted(was - is_)] + [f"  + {word}" for word in sorted(is_ - was)]
    if there.kind != asked.kind and "grid" in (there.kind, asked.kind):
        other += [f"  - search={there.kind}", f"  + search={asked.kind}"]
    for key in IDENTITY:
        if there.search[key] != asked.search[key]:
            other += [f"  - search.{key}={shown(there.search[key])}", f"  + search.{key}={shown(asked.search[key])}"]
    if there.storage != asked.storage:
        other += [f"  - search.storage={shown(there.storage)}", f"  + search.storage={shown(asked.storage)}"]
    old, new = ({p.name: p for p in study.space} for study in (there, asked))
    for name in [*old, *(name for name in new if name not in old)]:
        if old.get(name) == new.get(name) or (name in old and name in new and _same(old[name], new[name])):
            continue
        lines = [f"  {sign} {written(space[name])}" for sign, space in (("-", old), ("+", new)) if name in space]
        target = wider if name in old and name in new and contains(new[name], old[name]) else other
        target += lines
    return other, wider


def _same(one: Parameter, other: Parameter) -> bool:
    return asdict(one) | {"text": ""} == asdict(other) | {"text": ""}


def lasting(fixed: list[str]) -> list[str]:
    """Without the overrides that a run may change when it goes on: they do not change its numbers."""
    from plumbline.record import MAY_CHANGE

    return [word for word in fixed if word.lstrip("+").partition("=")[0] not in (*MAY_CHANGE, "outputs")]


def written(parameter: Parameter) -> str:
    condition = f" when {parameter.when[0]}={'|'.join(parameter.when[1])}" if parameter.when else ""
    return f"{parameter.name}={parameter.text}{condition}"


def contains(wide: Parameter, narrow: Parameter) -> bool:
    """Whether every value of the one is a value of the other, so that its trials belong there, too."""
    if wide.when != narrow.when or bool(wide.choices) != bool(narrow.choices):
        return False
    if wide.choices:
        return set(narrow.choices) <= set(wide.choices)
    return wide.low <= narrow.low and narrow.high <= wide.high and (wide.step, wide.log) == (narrow.step, narrow.log)
