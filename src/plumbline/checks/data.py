"""The audit of the data, before a model exists."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from plumbline.checks.core import Finding
from plumbline.data.core import Data, Split


class View:
    """What the audit may look at: train and validation, whole or a fixed random part of each. Never the test set."""

    def __init__(self, data: Data, samples: int):
        self.data, self.spec, self.samples = data, data.spec, samples

    @cached_property
    def train(self) -> tuple[Tensor, Tensor]:
        return part(self.data.train, self.samples)

    @cached_property
    def val(self) -> tuple[Tensor, Tensor]:
        return part(self.data.val, self.samples)


def part(split: Split, samples: int) -> tuple[Tensor, Tensor]:
    """At most so many samples of a split on the CPU, always the same: x (n, *shape), y."""
    chosen = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:samples].sort().values
    batches = [(x.cpu(), y.cpu()) for x, y in split.batches(1000, chosen)]
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def nonfinite(view: View) -> Finding:
    """Whether each input is a finite number."""
    for name, split in (("train", view.data.train), ("val", view.data.val)):
        start = 0
        for x, _ in split.batches(1000):
            broken = (~x.flatten(1).isfinite()).any(1).nonzero().flatten().tolist()
            if broken:
                sample = str(split.ids[start + broken[0]])
                return Finding(
                    "fail", f"sample {sample} of {name} holds numbers that are not finite", {"split": name, "sample": sample},
                    cause="a missing value, or a division by zero on the way in",
                    advice=("fill the missing values, or leave the sample out",), source="S0: look at the data first",
                )  # fmt: skip
            start += len(x)
    return Finding("ok", "every input is a finite number")
