"""Data with a known fault: what the audit must name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from conftest import composed
from torch import Tensor

from plumbline.checks.core import Finding, configured, ranked
from plumbline.checks.view import View
from plumbline.config import build
from plumbline.data.core import Data, Scale, Spec, Split, Splits

Arrays = dict[str, Any]  # x, y, vx, vy: train and validation; groups, vgroups; scale; split: a kind of Split


_composed = cache(lambda words: composed(*words))


@cache
def _loaded(words: tuple[str, ...]) -> Data:
    return build(_composed(words).data)()


def clean(*words: str) -> tuple[Spec, Arrays]:
    """The spec of a data set of ours, and copies of its samples as the network would meet them."""
    data = _loaded(words)
    parts = {"x": data.train.x, "y": data.train.y, "vx": data.val.x, "vy": data.val.y}
    return data.spec, {name: part.clone() for name, part in parts.items()}


def made(spec: Spec, arrays: Arrays) -> Data:
    """The data set of these samples."""
    kind: Callable[..., Split] = arrays.get("split", Split)
    n, m = len(arrays["y"]), len(arrays["vy"])
    splits = Splits(
        kind(arrays["x"], arrays["y"], np.arange(n), arrays.get("groups")),
        kind(arrays["vx"], arrays["vy"], np.arange(n, n + m), arrays.get("vgroups")),
        test=lambda: sealed(), identity=lambda: "planted", scale=arrays.get("scale"),
    )  # fmt: skip
    return Data(spec, lambda: splits)


def sealed() -> Split:
    raise AssertionError("the audit opened the test set")


def audit(spec: Spec, arrays: Arrays, *words: str, only: str | None = None) -> dict[str, Finding]:
    """What the audit finds, by id, the headline first; or what one check of it does."""
    cfg = _composed(words)
    view = View(made(spec, arrays), cfg, parameters=1000)
    found = {name: build(node)(view) for name, node in configured(cfg.checks, "audit") if only in (None, name)}
    order = [{"id": name, **vars(finding)} for name, finding in found.items() if finding is not None]
    return {item["id"]: found[item["id"]] for item in ranked(order)}


def alarms(found: dict[str, Finding]) -> list[str]:
    return [name for name, finding in found.items() if finding.severity in ("warn", "fail")]


class Same(Split):
    """Returns its first sample, whatever is asked for."""

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in super().batches(size, order):
            yield self.x[:1].expand_as(x), y


class Unshuffled(Split):
    """Keeps to its own order, whatever is asked for."""

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        wanted = len(self) if order is None else len(order)
        yield from super().batches(size, torch.arange(wanted))


def _draws() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def _noise(like: Tensor, size: float) -> Tensor:
    return size * torch.randn(like.shape, generator=_draws())


def shifted(spec: Spec, a: Arrays) -> None:
    a["y"], a["vy"] = a["y"].roll(1, 0), a["vy"].roll(1, 0)


def shifted_in_train(spec: Spec, a: Arrays) -> None:
    a["y"] = a["y"].roll(1, 0)


def noisy_labels(spec: Spec, a: Arrays, share: float = 0.3) -> None:
    rows = torch.randperm(len(a["y"]), generator=_draws())[: int(share * len(a["y"]))]
    if spec.task == "regression":
        a["y"][rows] = a["y"][rows.roll(1)]
    else:
        other = torch.randint(1, spec.outputs, (len(rows),), generator=_draws())
        a["y"][rows] = (a["y"][rows] + other) % spec.outputs
    a["rows"] = rows


def renumbered(spec: Spec, a: Arrays) -> None:
    a["vy"] = (a["vy"] + 1) % spec.outputs


def two_classes_exchanged(spec: Spec, a: Arrays) -> None:
    a["vy"] = torch.where(a["vy"] == 1, 2, torch.where(a["vy"] == 2, 1, a["vy"]))


def unnormalised(spec: Spec, a: Arrays) -> None:
    a["x"], a["vx"] = a["x"] * 100 + 500, a["vx"] * 100 + 500


def normalised_twice(spec: Spec, a: Arrays) -> None:
    a["x"], a["vx"] = a["x"] / 255, a["vx"] / 255


def val_scaled_differently(spec: Spec, a: Arrays) -> None:
    a["vx"] = a["vx"] * 2 + 1


def val_is_train(spec: Spec, a: Arrays) -> None:
    a["vx"], a["vy"] = a["x"][: len(a["vx"])].clone(), a["y"][: len(a["vy"])].clone()


def oversampled_before_split(spec: Spec, a: Arrays) -> None:
    x, y = torch.cat([a["x"], a["vx"]]), torch.cat([a["y"], a["vy"]])
    n = len(a["y"])
    rows = torch.cat([torch.arange(len(x)), torch.randint(len(x), (len(x),), generator=_draws())])
    rows = rows[torch.randperm(len(rows), generator=_draws())]
    a |= {"x": x[rows[: 2 * n]], "y": y[rows[: 2 * n]], "vx": x[rows[2 * n :]], "vy": y[rows[2 * n :]]}


def near_copies(spec: Spec, a: Arrays) -> None:
    half = len(a["vx"]) // 2
    a["vx"][:half] = a["x"][:half] + _noise(a["x"][:half], 1e-3)
    a["vy"][:half] = a["y"][:half]


def near_copies_split_apart(spec: Spec, a: Arrays) -> None:
    """Every sample has a near copy, and both were dealt out at random."""
    x, y = torch.cat([a["x"], a["vx"]]), torch.cat([a["y"], a["vy"]])
    order = torch.randperm(2 * len(x), generator=torch.Generator().manual_seed(0))
    x, y = torch.cat([x, x + _noise(x, 1e-3)])[order], torch.cat([y, y])[order]
    n = len(a["x"])
    a["x"], a["y"], a["vx"], a["vy"] = x[:n], y[:n], x[n:], y[n:]
    a.pop("ids", None)


def near_copies_in_train(spec: Spec, a: Arrays) -> None:
    half = len(a["x"]) // 2
    a["x"][-half:] = a["x"][:half] + _noise(a["x"][:half], 1e-3)
    a["y"][-half:] = a["y"][:half]


def moved_copies(spec: Spec, a: Arrays) -> None:
    half = len(a["vx"]) // 2
    a["vx"][:half], a["vy"][:half] = a["x"][:half].roll(1, -1), a["y"][:half]


def copies_in_val(spec: Spec, a: Arrays) -> None:
    third = len(a["vx"]) // 3
    a["vx"][-third:], a["vy"][-third:] = a["vx"][:third], a["vy"][:third]


def target_as_feature(spec: Spec, a: Arrays) -> None:
    for x, y in (("x", "y"), ("vx", "vy")):
        a[x].flatten(1)[:, 3] = a[y].view(len(a[y]), -1)[:, 0].float()


def target_as_many_features(spec: Spec, a: Arrays) -> None:
    for x, y in (("x", "y"), ("vx", "vy")):
        a[x].flatten(1)[:, : spec.outputs] = 3 * torch.nn.functional.one_hot(a[y], spec.outputs).float()


def corner_mark(spec: Spec, a: Arrays) -> None:
    for x, y in (("x", "y"), ("vx", "vy")):
        marked = (a[y] < 2)[:, None, None, None]
        a[x][..., :2, :2] = torch.where(marked, 3.0, a[x][..., :2, :2])


def framed(spec: Spec, a: Arrays) -> None:
    for x, y in (("x", "y"), ("vx", "vy")):
        tone = torch.linspace(-1, 1, spec.outputs)[a[y]]
        a[x][..., 0, :] = tone[:, None, None] + _noise(a[x][..., 0, :], 0.1)
        a[x][..., -1, :] = tone[:, None, None] + _noise(a[x][..., 0, :], 0.1)


def missing_values(spec: Spec, a: Arrays) -> None:
    a["x"].flatten(1)[17, :3] = torch.nan


def broken_images(spec: Spec, a: Arrays, seed: int = 0) -> None:
    """Five black images and five of noise, at places in train that `rows` tells."""
    draws = torch.Generator().manual_seed(seed)
    a["rows"] = rows = torch.randperm(len(a["x"]), generator=draws)[:10]
    low, high = a["x"].min(), a["x"].max()
    a["x"][rows[:5]] = low
    a["x"][rows[5:]] = low + (high - low) * torch.rand(5, *spec.shape, generator=draws)


def wrong_unit(spec: Spec, a: Arrays, seed: int = 0) -> None:
    """Three rows of a table, of which one column is thirty standard deviations off."""
    draws = torch.Generator().manual_seed(seed)
    a["rows"] = rows = torch.randperm(len(a["x"]), generator=draws)[:3]
    a["x"][rows, 2] += 30


def sorted_unshuffled(spec: Spec, a: Arrays) -> None:
    order = a["y"].view(len(a["y"]), -1)[:, 0].argsort()
    a |= {"x": a["x"][order], "y": a["y"][order], "split": Unshuffled}


def imbalanced(spec: Spec, a: Arrays) -> None:
    for x, y in (("x", "y"), ("vx", "vy")):
        rare = (a[y] == 3).nonzero().flatten()
        rest = (a[y] == 1).nonzero().flatten()
        rows = torch.cat([rest, rare[: max(len(rest) // 33, 2)]])
        a[x], a[y] = a[x][rows], (a[y][rows] == 3).long()


def class_missing_in_train(spec: Spec, a: Arrays) -> None:
    kept = a["y"] != 4
    a["x"], a["y"] = a["x"][kept], a["y"][kept]


def same_sample(spec: Spec, a: Arrays) -> None:
    a["split"] = Same


def val_inverted(spec: Spec, a: Arrays) -> None:
    a["vx"] = -a["vx"]


def unscaled_target(spec: Spec, a: Arrays) -> None:
    a["y"], a["vy"] = a["y"] * 770 + 1520, a["vy"] * 770 + 1520


def constant_target(spec: Spec, a: Arrays) -> None:
    a["y"], a["vy"] = torch.full_like(a["y"], 784.617), torch.full_like(a["vy"], 784.617)


def val_scaled_by_itself(spec: Spec, a: Arrays) -> None:
    a["vx"] = (a["vx"] - a["vx"].mean(0)) / a["vx"].std(0).clamp(min=1e-6)


def scaled_by_all(spec: Spec, a: Arrays) -> None:
    a["scale"] = Scale(torch.zeros(1), torch.ones(1), fitted_on="all")


def groups_torn(spec: Spec, a: Arrays) -> None:
    n = len(a["y"])
    patient = np.random.default_rng(0).permutation(np.arange(n + len(a["vy"])) // 5)
    a["groups"], a["vgroups"] = patient[:n], patient[n:]


def scaled_by_both(spec: Spec, a: Arrays) -> None:
    both = torch.cat([a["x"], a["vx"]]).double()
    mean, std = both.mean(0), both.std(0, correction=0)
    a["x"], a["vx"] = (((a[name].double() - mean) / std).float() for name in ("x", "vx"))
