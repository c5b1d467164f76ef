"""Programs with one fault each, and honest ones beside them: what the checks are tried on."""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plumbline.data.core import Spec
from plumbline.loop import Batch, Training

ENDS = {  # what is done to the outputs
    "softmax": lambda o: o.softmax(1), "softmax_over_batch": lambda o: o.softmax(0), "log_softmax": lambda o: o.log_softmax(1),
    "relu": torch.relu, "tanh": torch.tanh, "clip_wide": lambda o: o.clamp(-15, 15), "sigmoid": torch.sigmoid,
    "always_dropping": lambda o: F.dropout(o, 0.5),
}  # fmt: skip
ELSEWHERE = torch.Generator()  # which no seed of a run reaches
BETWEEN = {"linear": nn.Identity, "tanh_between": nn.Tanh, "deep_sigmoid": nn.Sigmoid}


class Net(nn.Module):
    """An MLP with batch norm and dropout, spoiled as `fault` says."""

    def __init__(self, spec: Spec, *, fault: str, norm: bool, drop: float, hidden: list[int]):
        super().__init__()
        self.fault, width, layers = fault, prod(spec.shape), []
        for units in hidden:
            still = {"momentum": 0.0} if fault == "still" else {}
            layers += [nn.Linear(width, units), nn.BatchNorm1d(units, **still) if norm else nn.Identity()]
            layers += [BETWEEN.get(fault, nn.ReLU)(), nn.Dropout(drop)]
            width = units
        self.body, self.head = nn.Sequential(*layers), nn.Linear(width, spec.outputs)
        self.spare = nn.Linear(2, 2) if fault == "unused" else None
        self.spoil()

    @torch.no_grad()
    def spoil(self) -> None:
        for name, parameter in self.named_parameters():
            if self.fault == "zeros" or (self.fault == "zero_head" and name == "head.weight"):
                parameter.zero_()
            elif self.fault == "equal":
                parameter.fill_(0.1 if parameter.dim() > 1 else 0.0)
            elif self.fault == "unseeded":
                parameter.copy_(torch.randn(parameter.shape, generator=ELSEWHERE) * 0.1)
            elif self.fault in ("normal", "tanh_between") and parameter.dim() > 1:
                parameter.normal_()
            elif self.fault == "dead" and name.startswith("body") and name.endswith("bias"):
                parameter.fill_(-20)
            elif self.fault == "frozen" and name.startswith("body"):
                parameter.requires_grad_(False)
            elif self.fault == "frozen_elsewhere" and name.startswith("body"):
                draws = torch.Generator().manual_seed(7)
                parameter.copy_(torch.randn(parameter.shape, generator=draws) * 0.1).requires_grad_(False)

    def train(self, mode: bool = True) -> Net:
        return super().train(mode or self.fault == "deaf")

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        if self.fault == "reshaped":
            x = x.t().reshape(x.shape)
        if self.fault == "half_blind":
            x = torch.cat([x[:, : x.shape[1] // 2], torch.zeros_like(x[:, x.shape[1] // 2 :])], 1)
        if self.fault == "edge_blind":
            x = torch.cat([x[:, :-8], torch.zeros_like(x[:, -8:])], 1)
        if self.fault == "normalised_over_batch":
            x = (x - x.mean(0)) / (x.std(0) + 1e-5)
        x = self.body(x * 0 if self.fault == "blind" else x)
        x = self.head(x.detach() if self.fault == "detached" else x)
        if self.fault == "dropped_outputs":
            x = F.dropout(x, 0.5, self.training)
        return ENDS.get(self.fault, lambda o: o)(x)


class OwnLoss:
    """A loss of one's own, spoiled as `fault` says."""

    def __init__(self, spec: Spec, *, fault: str):
        self.spec, self.fault = spec, fault

    def each(self, o: Tensor, y: Tensor) -> Tensor:
        if self.fault == "broadcast":
            return (o.squeeze(1) - y).square().mean(0)  # (B,) against (B, 1)
        if self.fault == "one_target":
            return (o - y[0]).square().mean(1)
        if self.fault == "summed_target":
            return (o - y.sum()).square().mean(1)
        if self.fault == "without_logarithm":
            return -o.softmax(1).gather(1, y[:, None])[:, 0]
        if self.fault == "of_probabilities":
            return F.nll_loss((o + 1e-9).log(), y, reduction="none")
        if self.fault == "squares":
            return (o.softmax(1) - F.one_hot(y, self.spec.outputs)).square().mean(1)
        if self.fault == "first_only":
            return F.cross_entropy(o, y, torch.arange(self.spec.outputs).eq(0).float(), reduction="none")
        if self.fault == "absolute":
            return (o.softmax(1) - F.one_hot(y, self.spec.outputs)).abs().sum(1)
        if self.fault == "hinge":
            return F.multi_margin_loss(o, y, reduction="none")
        if self.fault == "quantile":
            return torch.maximum(0.9 * (y - o), 0.1 * (o - y)).mean(1)
        classes = self.spec.task == "classification"
        loss = F.cross_entropy(o, y, reduction="none") if classes else (o - y).square().mean(1)
        loss = loss.clamp(max=1.0) if self.fault == "each_clipped" else loss
        return -loss if self.fault == "upside_down" else loss

    def __call__(self, o: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        losses = self.each(o, y)
        if reduction == "none":
            return losses
        return losses.sum() if self.fault == "sum" else losses.mean()


def own_step(training: Training, batches: list[Batch], *, fault: str) -> Tensor:
    """A step of one's own, spoiled as `fault` says."""
    model, total = training.model, 0.0
    if fault == "evaluating":
        model.eval()
    if fault == "reseeded":
        torch.manual_seed(0)
    if fault == "reseeded_generator":
        training.generator.manual_seed(0)
    if fault not in ("never_cleared", "cleared_late"):
        training.clear()
    if fault == "own_batch":
        draws = torch.Generator().manual_seed(0)
        batches = [(torch.randn(x.shape, generator=draws), torch.zeros_like(y)) for x, y in batches]
    for x, y in batches:
        if fault == "part_of_batch":
            x, y = x[:3], y[:3]
        loss = (model(x).squeeze(1) - y).square().mean() if fault == "broadcast" else training.forward(x, y)
        if fault == "half_detached":
            loss = training.loss(model.head(model.body(x.flatten(1)).detach()), y)
        loss = -loss if fault == "uphill" else loss * len(y) if fault == "sum" else loss
        loss = loss.clamp(max=4.0) if fault == "clipped_loss" else loss
        training.backward(loss / len(batches))
        total = total + loss.detach() / len(batches)
    if fault == "cleared_late":
        training.clear()
    if fault == "clipped":
        nn.utils.clip_grad_norm_(model.parameters(), 1e-4)
    if fault == "head_only":
        before = [parameter.detach().clone() for parameter in model.body.parameters()]
    if fault != "never_stepped":
        training.update()
    if fault == "head_only":
        with torch.no_grad():
            for parameter, old in zip(model.body.parameters(), before, strict=True):
                parameter.copy_(old)
    if fault == "cleared_at_the_end":
        training.clear()
    if fault == "left_evaluating":
        model.eval()
    return total


def sharpness_aware(training: Training, batches: list[Batch], *, radius: float) -> Tensor:
    """SAM (Foret et al. 2021): an honest step that is not the usual one."""
    training.clear()
    for x, y in batches:
        training.backward(training.forward(x, y) / len(batches))
    held = [p for p in training.model.parameters() if p.grad is not None]
    length = torch.stack([p.grad.norm() for p in held]).norm()
    moves = [p.grad * radius / length for p in held]
    with torch.no_grad():
        torch._foreach_add_(held, moves)
    training.clear()
    losses = [training.forward(x, y) / len(batches) for x, y in batches]
    torch.stack(losses).sum().backward()
    with torch.no_grad():
        torch._foreach_sub_(held, moves)
    training.update()
    return torch.stack(losses).sum().detach()


def head_only(model: nn.Module, *, lr: float) -> torch.optim.Optimizer:
    """An optimiser that was given the last layer only."""
    return torch.optim.Adam(model.head.parameters(), lr=lr)


def per_batch(progress: float, scores: list[float]) -> float:
    """A schedule made for epochs that is stepped at each batch."""
    return 0.5 ** int(progress * 100)


def endless(progress: float, scores: list[float]) -> float:
    """A warm-up that is longer than the run."""
    return max(progress, 1e-3) / 5


def ruined(x: Tensor, generator: torch.Generator, *, fault: str) -> Tensor:
    """An augmentation that goes too far."""
    if fault == "the_same_always":
        generator = torch.Generator().manual_seed(0)
        return x + 0.1 * torch.randn(x.shape, generator=generator)
    if fault == "permuted":
        places = torch.rand(x.flatten(1).shape, generator=generator).argsort(1)
        return x.flatten(1).gather(1, places).view_as(x)
    return {"noise": x + 10 * torch.randn(x.shape, generator=generator), "zero": x * 0, "scaled": x * 100 + 500}[fault]
