"""A quick learner that needs no tuning: what it can tell from the inputs, a network should be able to tell, too."""

from __future__ import annotations

import math

import torch
from torch import Tensor

WIDTHS = 1.0  # of the Gaussian kernel, in median squared distances
RIDGE = 0.3  # keeps wrong labels from being learned: finds them best, and costs a clean set 0.3 % of accuracy


class Kernel:
    """Kernel ridge regression on targets (n, k), as one-hot classes or numbers, with its exact leave-one-out answers.

    Costs one inversion: 0.1 s for 1000 samples. (Rifkin and Lippert 2007, Notes on regularized least squares.)
    """

    def __init__(self, x: Tensor, targets: Tensor):
        self.x, self.targets, self.mean = x, targets, targets.mean(0)
        distances = torch.cdist(x, x).square()
        self.scale = WIDTHS * distances.median().clamp(min=1e-12)
        gram = (-distances / self.scale).exp()
        gram.diagonal().add_(RIDGE)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
        self.weights = inverse @ (targets - self.mean)
        self.left_out = targets - self.weights / inverse.diagonal()[:, None]  # the answer to each, fitted to the others

    def __call__(self, x: Tensor) -> Tensor:
        """The answers (m, k) to other inputs."""
        return (-torch.cdist(x, self.x).square() / self.scale).exp() @ self.weights + self.mean


def ridge(x: Tensor, targets: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Linear regression with a small penalty: its exact leave-one-out answers (n, k), and those (m, k) to others."""
    x, y, others = (torch.cat([z, torch.ones(len(z), 1)], 1).double() for z in (x, targets, others))
    y = y[:, :-1]
    penalty = 0.05 * len(x) * torch.eye(x.shape[1], dtype=torch.float64)
    penalty[-1, -1] = 1e-9  # none on the constant
    solved = torch.linalg.solve(x.T @ x + penalty, x.T)
    lever = (x * solved.T).sum(1, keepdim=True).clamp(max=1 - 1e-6)
    left_out = y - (y - x @ (solved @ y)) / (1 - lever)
    return left_out.float(), (others @ (solved @ y)).float()


def few_features(x: Tensor, targets: Tensor, count: int = 20, folds: int = 5) -> Tensor:
    """Held-out answers (n, k) of ridge regression on the features most correlated with a target, chosen in each fold.

    Finds the few that count among thousands, which distances cannot.
    """
    answers, fold = torch.empty_like(targets), torch.arange(len(x)) % folds
    for number in range(folds):
        fit, held = fold != number, fold == number
        mean = targets[fit].mean(0)
        strength = (x[fit].T @ (targets[fit] - mean)).abs().amax(1)
        chosen = strength.topk(min(count, x.shape[1])).indices
        few = x[fit][:, chosen]
        ridge = few.T @ few + 0.01 * len(few) * torch.eye(len(chosen))
        answers[held] = x[held][:, chosen] @ torch.linalg.solve(ridge, few.T @ (targets[fit] - mean)) + mean
    return answers


def told(answers: Tensor, targets: Tensor, prior: Tensor | None) -> tuple[float, float]:
    """(score, its distance from chance in standard deviations) of answers (n, k) to targets (n, k).

    prior (k,): of classes, whose score is the mean recall with every class equally likely, of those with five samples;
    None: of numbers, whose score is the best correlation of a target.
    """
    if prior is None:
        a, t = answers - answers.mean(0), targets - targets.mean(0)
        r = (a * t).sum(0) / (a.norm(dim=0) * t.norm(dim=0)).clamp(min=1e-9)
        best = r.max().item()
        return best, best * math.sqrt(len(targets))
    y = targets.argmax(1)
    guess = (answers / prior.clamp(min=1e-9)).argmax(1)  # a rare class is not drowned by a frequent one
    counts = targets.sum(0)
    there = counts >= 5
    if there.sum() < 2:
        return math.nan, math.nan
    chance = 1 / int(there.sum())
    recall = torch.bincount(y[guess == y], minlength=len(counts))[there] / counts[there]
    spread = chance * math.sqrt(chance * (1 - chance) * (1 / counts[there]).sum().item())
    return recall.mean().item(), (recall.mean().item() - chance) / max(spread, 1e-9)
