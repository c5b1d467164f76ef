"""What a regulariser is: something that acts in three places, and by default in none."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from plumbline.config import ConfigError
from plumbline.data.core import Spec


class Regulariser:
    """Subclasses override one of the three. At strength 0 each is exactly the identity: no hook, no draw, no term."""

    option: ClassVar[str]  # its file in conf/regulariser, for messages

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    def attach(self, model: nn.Module) -> None:
        """Add hooks or parametrisations to the model, once, before its optimiser is made."""

    def batch(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The batch to train on; x: (B, *shape), y: (B,) classes, (B, outputs) soft classes or values."""
        return x, y

    def penalty(self, model: nn.Module, logits: Tensor) -> Tensor | None:
        """A scalar to add to the mean loss of the batch, or None."""
        return None

    def wrong(self, key: str, value: object, reason: str) -> ConfigError:
        """The error to raise for a value of this option."""
        return ConfigError(f"regulariser.{self.option}.{key}={value}: {reason}")
