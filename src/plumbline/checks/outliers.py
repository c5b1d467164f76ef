"""Samples that stand apart from all others: broken images, wrong units, another kind of thing."""

from __future__ import annotations

import torch
from torch import Tensor

from plumbline.checks.core import Finding
from plumbline.checks.data import feature
from plumbline.checks.view import View, flattened
from plumbline.ranges import NonNegative, Share

MOST_NAMED = 20  # samples listed in a finding, and shown in the report


def outliers(view: View, *, far: NonNegative, share: Share, blank: Share, noise: Share) -> Finding | None:
    """The oddest samples of train; a note where images are as good as blank, or a few samples stand far out.

    First what is blank or like noise, which may lie near honest dark or grey images, then by the distance to neighbours.
    """
    odd = view.oddness
    if odd is None:
        return None
    none = torch.zeros(len(odd.distance), dtype=torch.bool)
    empty = none if odd.contrast is None else odd.contrast <= blank
    rough = none if odd.roughness is None else odd.roughness >= noise
    away = odd.apart > far
    # of more, that is how the data are
    rough, away = (some if some.sum() <= share * len(some) else none for some in (rough, away))
    kinds = {"as good as blank": empty, "like noise": rough & ~empty, "far from all others": away & ~rough & ~empty}
    rows = (odd.distance + 2 * odd.distance.max() * (empty | rough)).argsort(descending=True, stable=True)[:MOST_NAMED]
    split = view.known
    words = {row: _why(kinds, row) or f"{odd.distance[row]:.1f} times the usual distance" for row in rows.tolist()}
    view.oddest = [(row, str(split.ids[row]), why.partition(" times")[0]) for row, why in words.items()]
    evidence = {
        "of": len(none),
        **{kind.replace(" ", "_"): int(some.sum()) for kind, some in kinds.items()},
        "oddest": [f"{split.ids[row]}: {why}" for row, why in words.items()],
    }
    first = f"{split.ids[rows[0]]}, {words[int(rows[0])]}{_where(view, split.x[int(rows[0])])}"
    found = [f"{int(some.sum()):,} {kind}" for kind, some in kinds.items() if some.any()]
    if not found:
        return Finding("ok", f"no sample of train stands far out; most so {first}", evidence)
    return Finding(
        "info", f"of {len(none):,} samples of train {' and '.join(found)}: first {first}", evidence,
        cause="broken files, wrong units, or rare cases that matter: only a person can say",
        advice=("look at the oddest samples in the report", "correct or leave out what is broken, and keep the rest"),
        source="S3: look for outliers and corrupted images; Ramaswamy, Rastogi and Shim 2000",
    )  # fmt: skip


def _why(kinds: dict[str, Tensor], row: int) -> str:
    return next((kind for kind, some in list(kinds.items())[:2] if some[row]), "")


def _where(view: View, x: Tensor) -> str:
    """The column of a table in which a sample is most extreme."""
    if view.images:
        return ""
    away = view.standardise(flattened(x[None].cpu()))[0].abs()
    at = int(away.argmax())
    return f": {feature(view, at)} lies {away[at]:.1f} standard deviations from its mean"
