"""The card of a network: every operation's shape, parameters and multiply-adds, as its authors count them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from plumbline.card import layers
from plumbline.data.core import Spec
from plumbline.models.sequence import Transformer


def card(model: nn.Module, *shape: int, samples: int = 2) -> list[dict[str, Any]]:
    return layers(model.eval(), torch.randn(samples, *shape))[0]


def total(rows: list[dict[str, Any]], key: str) -> int:
    return sum(row[key] for row in rows)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "convnext_tiny", "swin_t", "vit_b_16"])
def test_the_zoos_networks_have_the_parameters_and_multiply_adds_that_torchvision_says(name: str) -> None:
    from torchvision.models import get_model, get_model_weights

    said = get_model_weights(name).DEFAULT.meta
    rows = card(get_model(name), 3, 224, 224, samples=1)
    assert total(rows, "parameters") == said["num_params"]
    assert round(total(rows, "multiply_adds") / 1e9, 3) == said["_ops"]


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_a_layer_whose_weight_is_made_multiplies_as_often_as_a_plain_one(norm) -> None:
    rows = card(nn.Sequential(nn.Linear(10, 5), norm(nn.Linear(5, 3)), nn.ReLU()), 10)
    assert [(row["kind"], row["multiply_adds"]) for row in rows] == [("Linear", 50), ("Linear", 15)]
    assert total(rows, "parameters") == 55 + 18 + (3 if norm is parametrizations.weight_norm else 0)


@pytest.mark.parametrize("samples", [1, 2, 5])
def test_attention_multiplies_every_step_with_every_other_twice(samples: int) -> None:
    steps, width, inputs = 9, 8, 3
    model = Transformer(Spec("classification", (steps, inputs), 2), width=width, layers=1, heads=2, activation="relu")
    rows = card(model, steps, inputs, samples=samples)
    assert rows[-1]["multiply_adds"] == 2 * steps**2 * width
    dense = steps * (inputs * width + (3 + 1 + 4 + 4) * width**2) + width * 2
    assert total(rows, "multiply_adds") == dense + 2 * steps**2 * width
    assert total(rows, "parameters") == sum(weight.numel() for weight in model.parameters())


def test_what_changes_the_shape_is_there_without_weights_and_what_keeps_it_is_not() -> None:
    rows = card(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2)), 1, 8, 8)
    assert [(row["kind"], row["output"]) for row in rows] == [
        ("Conv2d", (4, 6, 6)), ("MaxPool2d", (4, 3, 3)), ("Flatten", (36,)), ("Linear", (2,)),
    ]  # fmt: skip


def test_looking_leaves_no_hook_behind() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    card(model, 3)
    assert not model[0]._forward_hooks and not model[0]._forward_pre_hooks
