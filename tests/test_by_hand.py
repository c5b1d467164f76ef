"""What torch does for us, done by hand once: a transposed convolution, backpropagation, and sums of bytes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from plumbline import tasks
from plumbline.data import Spec


@pytest.mark.parametrize(("stride", "padding", "size"), [(1, 0, 3), (2, 0, 2), (2, 1, 3), (3, 1, 4)])
def test_a_transposed_convolution_is_one_with_the_flipped_kernel_over_pixels_with_zeros_between(
    stride, padding, size
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 5, 4, generator=generator, dtype=torch.float64)
    kernel = torch.randn(3, 2, size, size, generator=generator, dtype=torch.float64)  # (in, out, H, W)
    apart = torch.zeros(2, 3, 4 * stride + 1, 3 * stride + 1, dtype=torch.float64)
    apart[:, :, ::stride, ::stride] = x
    by_hand = F.conv2d(apart, kernel.flip(2, 3).transpose(0, 1), padding=size - padding - 1)
    assert torch.allclose(F.conv_transpose2d(x, kernel, stride=stride, padding=padding), by_hand, atol=1e-12)


def test_backpropagation_is_the_chain_rule_and_agrees_with_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(7, 4, generator=generator), torch.randn(7, 2, generator=generator)
    first, second = (torch.randn(4, 5, generator=generator), torch.randn(5, 2, generator=generator))
    x, y, first, second = (tensor.double() for tensor in (x, y, first, second))

    def cost(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return ((x @ first).sigmoid() @ second - y).square().sum() / 2  # (a - y)² / 2

    hidden = (x @ first).sigmoid()
    error = hidden @ second - y  # (B, outputs)
    by_hand = [x.T @ ((error @ second.T) * hidden * (1 - hidden)), hidden.T @ error]
    leaves = [weights.clone().requires_grad_() for weights in (first, second)]
    grads = torch.autograd.grad(cost(*leaves), leaves)
    assert all(torch.allclose(ours, theirs, atol=1e-12) for ours, theirs in zip(by_hand, grads, strict=True))
    step = 1e-6
    for row, column in ((0, 0), (3, 4), (2, 1)):
        moved = torch.zeros_like(first)
        moved[row, column] = step
        slope = (cost(first + moved, second) - cost(first - moved, second)) / (2 * step)
        assert slope.item() == pytest.approx(by_hand[0][row, column].item(), abs=1e-6)


def test_more_than_255_answers_are_counted_though_bytes_would_overflow() -> None:
    assert (torch.tensor(200, dtype=torch.uint8) + torch.tensor(100, dtype=torch.uint8)).item() == 44
    logits, y = torch.tensor([[1.0, 0.0]]).repeat(300, 1), torch.zeros(300, dtype=torch.int64)
    assert (logits.argmax(1) == y).sum().item() == 300  # what torch compares is counted in 64 bits
    assert tasks.score(Spec("classification", (1,), 2), logits, y, None)["accuracy"] == 1.0


def test_the_worst_predictions_are_mostly_those_whose_labels_were_made_wrong() -> None:
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    generator = torch.Generator().manual_seed(0)
    x, y = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
    wrong = torch.randperm(1797, generator=generator)[:180]
    planted = y.clone()
    planted[wrong] = (y[wrong] + torch.randint(1, 10, (180,), generator=generator)) % 10
    logits = torch.zeros(1797, 10, dtype=torch.float64)
    folds = torch.randperm(1797, generator=generator).chunk(5)
    for fold in folds:  # what a network says of samples that it was not shown
        rest = torch.ones(1797, dtype=torch.bool)
        rest[fold] = False
        model = LogisticRegression(max_iter=60, C=0.01).fit(x[rest] / 16, planted[rest])
        logits[fold] = torch.from_numpy(model.predict_log_proba(x[fold] / 16))
    worst = F.cross_entropy(logits, planted, reduction="none").argsort(descending=True)[:180]
    share = torch.isin(worst, wrong).double().mean().item()
    assert share == pytest.approx(0.9, abs=0.06)
