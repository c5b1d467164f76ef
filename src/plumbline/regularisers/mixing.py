"""What is done to a training batch: inputs mixed or blurred, classes made soft. All draws are the generator's."""

from __future__ import annotations

import torch
from torch import Tensor

from plumbline.config import ConfigError
from plumbline.data.core import Spec
from plumbline.losses import one_hot
from plumbline.ranges import Decay, NonNegative
from plumbline.regularisers.core import Regulariser


class LabelSmoothing(Regulariser):
    """`smoothing` of each label is spread evenly over all classes (Szegedy et al. 2016)."""

    option = "label_smoothing"

    def __init__(self, spec: Spec, *, smoothing: Decay) -> None:
        super().__init__(spec)
        if spec.task != "classification":
            raise ConfigError(f"regulariser=[{self.option}]: needs classes, not {spec.task}")
        self.smoothing = smoothing

    def batch(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if self.smoothing == 0:
            return x, y
        y = one_hot(y, self.spec.outputs, x.dtype)
        return x, y * (1 - self.smoothing) + self.smoothing / self.spec.outputs


class Mixup(Regulariser):
    """Inputs and targets become λ a + (1 - λ) b, λ ~ Beta(alpha, alpha), one λ a batch (Zhang et al. 2018)."""

    option = "mixup"

    def __init__(self, spec: Spec, *, alpha: NonNegative) -> None:
        super().__init__(spec)
        self.alpha = alpha

    def batch(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if self.alpha == 0:
            return x, y
        share, other = _beta(self.alpha, x, generator), _partners(x, generator)
        y = _soft(self.spec, x, y)
        return torch.lerp(x[other], x, share), torch.lerp(y[other], y, share.to(y.dtype))


class CutMix(Regulariser):
    """A box of one image is pasted into another; targets mix by its true area (Yun et al. 2019). Images only."""

    option = "cutmix"

    def __init__(self, spec: Spec, *, alpha: NonNegative) -> None:
        super().__init__(spec)
        if len(spec.shape) != 3:
            raise ConfigError(f"regulariser=[{self.option}]: needs images (C, H, W), not {spec.shape}")
        if spec.task in ("segmentation", "reconstruction"):  # a target of pixels would have to be cut as its image is
            raise ConfigError(f"regulariser=[{self.option}]: needs classes or numbers, not {spec.task}; choose mixup")
        self.alpha = alpha

    def batch(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if self.alpha == 0:
            return x, y
        side = (1 - _beta(self.alpha, x, generator)).sqrt()  # of the box, as a share of the image's
        other = _partners(x, generator)
        centre = torch.rand(2, generator=generator, device=generator.device).to(x.device)
        inside = []
        for axis, length in enumerate(x.shape[2:]):
            half, middle = (side * length).floor() / 2, (centre[axis] * length).floor()
            pixel = torch.arange(length, device=x.device)
            inside.append((pixel >= (middle - half).ceil()) & (pixel < (middle + half).ceil()))
        box = inside[0][:, None] & inside[1]  # (H, W); cut off at the image's edge
        y = _soft(self.spec, x, y)
        return torch.where(box, x[other], x), torch.lerp(y, y[other], box.to(y.dtype).mean())


class InputNoise(Regulariser):
    """Gaussian noise of `std` on the inputs (Bishop 1995)."""

    option = "input_noise"

    def __init__(self, spec: Spec, *, std: NonNegative) -> None:
        super().__init__(spec)
        self.std = std

    def batch(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if self.std == 0:
            return x, y
        noise = torch.randn(x.shape, generator=generator, device=generator.device).to(x)
        return torch.add(x, noise, alpha=self.std), y


def _beta(alpha: float, x: Tensor, generator: torch.Generator) -> Tensor:
    """One draw of Beta(alpha, alpha), a 0-d tensor: the first part of a Dirichlet, which takes a generator."""
    return torch._sample_dirichlet(torch.full((2,), float(alpha), device=generator.device), generator=generator)[0].to(
        x
    )


def _partners(x: Tensor, generator: torch.Generator) -> Tensor:
    """(B,) whom each sample is mixed with."""
    return torch.randperm(len(x), generator=generator, device=generator.device).to(x.device)


def _soft(spec: Spec, x: Tensor, y: Tensor) -> Tensor:
    return one_hot(y, spec.outputs, x.dtype) if spec.task == "classification" else y
