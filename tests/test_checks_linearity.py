"""Two layers that are together one matrix are named, and none of those that are two on purpose."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from plumbline.checks.linearity import calls, joined
from plumbline.data.core import Spec
from plumbline.models.siamese import MERGES, Siamese

SHARE = 0.001


def dense(between: nn.Module, *, width: int = 16, inputs: int = 20, outputs: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, width), between, nn.Linear(width, outputs))


def convolutions(between: nn.Module, *, groups: int = 1, width: int = 16) -> nn.Sequential:
    first = nn.Conv2d(8, width, 3, groups=groups, padding=1)
    stem = (nn.Conv2d(1, 8, 3, padding=1), nn.ReLU())
    return nn.Sequential(*stem, first, between, nn.Conv2d(width, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1600, 4))


def normed(model: nn.Sequential) -> nn.Sequential:
    nn.utils.parametrizations.weight_norm(model[2])
    return model


class Around(nn.Module):
    """A residual block right after a linear layer: what the layer yields goes both ways."""

    def __init__(self, skip: bool):
        super().__init__()
        self.embed, self.inner, self.outer = nn.Linear(20, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.head, self.skip = nn.Linear(16, 4), skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        added = self.outer(torch.relu(self.inner(x)))
        return self.head(torch.relu(x + added if self.skip else added))


def found(make: Callable[[], nn.Module], shape: tuple[int, ...], seed: int) -> tuple[str, str] | None:
    torch.manual_seed(seed)
    model, x = make().eval(), torch.randn(16, *shape)
    with torch.no_grad():
        return joined(model, x, calls(model, x), SHARE)


FORGOTTEN: list[tuple[Callable[[], nn.Module], tuple[int, ...], tuple[str, str]]] = [
    (lambda: dense(nn.Identity()), (20,), ("2", "4")),
    (lambda: dense(nn.Dropout(0.5)), (20,), ("2", "4")),
    (lambda: dense(nn.BatchNorm1d(16)), (20,), ("2", "4")),
    (lambda: dense(nn.Identity()), (7, 20), ("2", "4")),
    (lambda: convolutions(nn.Identity()), (1, 12, 12), ("2", "4")),
    (lambda: convolutions(nn.BatchNorm2d(16)), (1, 12, 12), ("2", "4")),
    (lambda: Around(skip=False), (20,), ("embed", "inner")),
    (lambda: normed(dense(nn.Identity())), (20,), ("2", "4")),
    (lambda: dense(nn.Identity(), inputs=60, width=40, outputs=60), (60,), ("2", "4")),
]
MEANT: list[tuple[Callable[[], nn.Module], tuple[int, ...]]] = [
    *((lambda bend=bend: dense(bend()), (20,)) for bend in (nn.ReLU, nn.GELU, nn.Tanh, nn.PReLU, nn.Softplus, nn.ELU)),
    (lambda: dense(nn.LeakyReLU(0.3)), (20,)),
    (lambda: dense(nn.LayerNorm(16)), (20,)),
    (lambda: dense(nn.Identity(), width=3), (20,)),  # of low rank, which saves weights
    (lambda: convolutions(nn.Identity(), groups=8), (1, 12, 12)),  # separable
    (lambda: convolutions(nn.Identity(), width=4), (1, 12, 12)),  # a narrow way between wide ones
    (lambda: convolutions(nn.ReLU()), (1, 12, 12)),
    (lambda: Around(skip=True), (20,)),
    *(
        (
            lambda merge=merge: Siamese(
                Spec("classification", (2, 20), 2),
                hidden=[32], embedding=16, merge=merge, joint=[16], norm="none", activation="relu",
            ),
            (2, 20),
        )
        for merge in MERGES
    ),
]  # fmt: skip


@pytest.mark.parametrize("at", range(len(FORGOTTEN)))
@pytest.mark.parametrize("seed", range(3))
def test_a_forgotten_activation_is_named_by_the_two_layers_around_it(at: int, seed: int) -> None:
    make, shape, names = FORGOTTEN[at]
    assert found(make, shape, seed) == names


@pytest.mark.parametrize("at", range(len(MEANT)))
@pytest.mark.parametrize("seed", range(3))
def test_two_layers_that_are_two_on_purpose_are_left_in_peace(at: int, seed: int) -> None:
    make, shape = MEANT[at]
    assert found(make, shape, seed) is None


@pytest.mark.parametrize(
    "name", ["alexnet", "mobilenet_v2", "mobilenet_v3_small", "swin_v2_t", "vgg11_bn", "densenet121"]
)
def test_no_network_of_the_zoo_has_a_forgotten_activation(name: str) -> None:
    from torchvision.models import get_model

    assert found(lambda: get_model(name, weights=None), (3, 64, 64), 0) is None


def test_looking_for_two_layers_leaves_the_network_as_it_was() -> None:
    model, x = dense(nn.BatchNorm1d(16)).eval(), torch.randn(16, 20)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        joined(model, x, calls(model, x), SHARE)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
