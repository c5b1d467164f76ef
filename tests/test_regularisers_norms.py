"""Weights from weights: a length times a direction, or a largest singular value of 1."""

import pytest
import torch
from test_regularisers import IMAGES, convnet, draw, mlp, option, train
from torch import nn

from plumbline.config import ConfigError, build
from plumbline.regularisers import SpectralNorm, WeightNorm
from plumbline.regularisers.layers import weight_layers


@pytest.mark.parametrize("make", [mlp, convnet])
def test_weight_norm_is_a_length_times_a_direction_and_changes_no_output(make):
    plain, model = make(), make()
    WeightNorm(IMAGES, layers=["all"]).attach(model)
    x, _ = draw()
    torch.testing.assert_close(model.eval()(x), plain.eval()(x), rtol=1e-5, atol=1e-6)
    train(model, [])
    for layer in weight_layers(model).values():
        g, v = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
        length = v.flatten(1).norm(dim=1).view_as(g)
        torch.testing.assert_close(layer.weight, g * v / length, rtol=1e-6, atol=1e-6)


def test_hidden_weights_are_all_but_the_last_layers():
    model = mlp()
    WeightNorm(IMAGES, layers=["hidden"]).attach(model)
    assert [hasattr(model[i], "parametrizations") for i in (1, 4, 6)] == [True, True, False]


@pytest.mark.parametrize("make", [mlp, convnet])
def test_spectral_norm_makes_the_largest_singular_value_1(make):
    model = make()
    SpectralNorm(IMAGES, n_power_iterations=1, layers=["all"]).attach(model)
    for _ in range(20):
        model.train()(draw()[0])
    model.eval()
    for layer in weight_layers(model).values():
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm"])
def test_a_weight_of_zeros_cannot_be_normalised(name):
    model = mlp()
    nn.init.zeros_(model[4].weight)
    with pytest.raises(ConfigError, match=rf"regulariser\.{name}\.layers=\['all'\]: 4\.weight .*zero"):
        build(option(name))(IMAGES).attach(model)
