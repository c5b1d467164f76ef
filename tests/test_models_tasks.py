"""Models for masks, sequences and codes: shapes at any size, known counts, and what they are for."""

import copy
from itertools import product

import pytest
import torch
from test_models import DIGITS, TABLE, count, images, refusal

from plumbline.card import layers
from plumbline.data.core import Spec
from plumbline.models.autoencoder import VAE, Autoencoder
from plumbline.models.blocks import MeanOnlyBatchNorm
from plumbline.models.dilated import Dilated
from plumbline.models.sequence import LSTM, Transformer, waves
from plumbline.models.unet import UNet
from plumbline.regularisers import KL

WAVES = Spec("classification", (9, 3), 2)
NARROW = {"hidden": [8], "code": 4, "activation": "relu"}


def masks(height, width, count=2):
    return Spec("segmentation", (1, height, width), count * height * width, masks=(count, height, width))


@pytest.mark.parametrize(("height", "width"), product([8, 9, 13], [8, 11, 3]))
def test_a_unet_paints_masks_of_its_images_size_odd_or_even(height, width):
    spec = masks(height, width)
    model = UNet(spec, channels=[4, 8, 8], norm="none", activation="relu")
    assert model(images(spec, 3)).shape == (3, 2 * height * width)


def test_a_unet_without_poolings_keeps_what_a_shift_does_and_its_transposed_convolutions_double():
    spec = masks(8, 8, 1)
    model = UNet(spec, channels=[4, 8], norm="none", activation="relu").eval()
    assert model.up[0](torch.randn(1, 8, 4, 4)).shape == (1, 4, 8, 8)
    x = images(spec, 1)
    with torch.no_grad():
        plain, moved = (model(part).view(8, 8) for part in (x, x.roll(2, 3)))  # two pixels: one step at the bottom
    assert torch.allclose(plain[:, 3:4], moved[:, 5:6], atol=1e-1)


def test_a_unet_refuses_data_without_masks_and_a_table_has_no_order():
    assert "data=shapes" in refusal(UNet, DIGITS, channels=[4], norm="none", activation="relu")
    assert "model=mlp" in refusal(LSTM, TABLE, width=4, layers=1)
    with_heads = {"width": 6, "layers": 1, "heads": 4, "activation": "relu"}
    assert refusal(Transformer, WAVES, **with_heads) == "model.heads=4: must divide model.width=6"


def test_a_recurrent_networks_parameters_and_multiply_adds_are_known():
    model = LSTM(WAVES, width=5, layers=1)
    found, outputs = layers(model, images(WAVES, 2))
    recurrent = next(row for row in found if row["kind"] == "LSTM")
    assert outputs.shape == (2, 2)
    assert recurrent["parameters"] == 4 * 5 * (3 + 5 + 2)
    assert recurrent["multiply_adds"] == 9 * 4 * 5 * (3 + 5)
    assert count(model) == recurrent["parameters"] + 2 * (5 + 1)


def test_a_transposed_convolution_multiplies_once_for_each_input_position():
    spec = masks(8, 8, 1)
    found, _ = layers(UNet(spec, channels=[4, 8], norm="none", activation="relu"), images(spec, 1))
    up = next(row for row in found if row["kind"] == "ConvTranspose2d")
    assert up["multiply_adds"] == (8 * 4 * 4) * (4 * 2 * 2)


@pytest.mark.parametrize("kind", [LSTM, Transformer])
def test_sequence_models_read_the_order_of_the_steps(kind):
    torch.manual_seed(0)
    options = {"width": 8, "layers": 1} | ({"heads": 2, "activation": "gelu"} if kind is Transformer else {})
    model, x = kind(WAVES, **options).eval(), images(WAVES, 2)
    assert not torch.allclose(model(x), model(x.flip(1)), atol=1e-4)


def test_an_autoencoders_code_is_as_narrow_as_asked_and_its_decoder_mirrors_the_encoder():
    spec = Spec("reconstruction", (1, 8, 8), 64)
    model = Autoencoder(spec, **NARROW)
    assert model.encoder(images(spec, 2).flatten(1)).shape == (2, 4)
    assert count(model) == (65 * 8 + 9 * 4) + (5 * 8 + 9 * 64)


def test_a_vae_draws_in_training_alone_and_its_divergence_is_that_of_its_code_from_a_standard_normal():
    spec, model = Spec("reconstruction", (1, 8, 8), 64), VAE(Spec("reconstruction", (1, 8, 8), 64), **NARROW)
    x = images(spec, 5)
    assert not torch.equal(model(x), model(x))
    mean, log_variance = model.encoder(x.flatten(1)).chunk(2, 1)
    code = torch.distributions.Normal(mean, (log_variance / 2).exp())
    expected = torch.distributions.kl_divergence(code, torch.distributions.Normal(0.0, 1.0)).sum(1).mean()
    assert model.divergence.item() == pytest.approx(expected.item(), rel=1e-5)
    assert KL(spec, strength=0.5).penalty(model, x).item() == pytest.approx(expected.item() / 2, rel=1e-5)
    assert copy.deepcopy(model).divergence is None
    model.eval()
    assert torch.equal(model(x), model(x))
    assert "model=vae" in refusal(KL(spec, strength=1.0).attach, Autoencoder(spec, **NARROW))


def test_dilated_layers_see_as_far_as_their_dilations_add_up():
    spec = Spec("classification", (1, 21, 21), 2)
    model = Dilated(spec, channels=2, dilations=[1, 2, 4], kernel=3, norm="none", activation="identity")
    x = images(spec, 1).requires_grad_()
    model.features(x)[0, 0, 10, 10].backward()
    assert x.grad[0, 0].any(0).nonzero().flatten().tolist() == list(range(3, 18))  # 1 + 2 + 4 to either side


def test_mean_only_batch_norm_takes_the_mean_and_leaves_the_spread():
    x = 5 + 3 * torch.randn(400, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    layer = MeanOnlyBatchNorm(4)
    for _ in range(100):
        y = layer(x)
    assert y.mean((0, 2, 3)).abs().max() < 1e-5
    assert torch.allclose(y.std((0, 2, 3)), x.std((0, 2, 3)))
    assert torch.allclose(layer.eval()(x), y, atol=1e-3)


@pytest.mark.parametrize("width", [6, 7, 64])
def test_positions_of_one_distance_are_equally_alike_and_no_two_are_the_same(width: int) -> None:
    positions = waves(40, width)
    assert positions.shape == (40, width)
    if width % 2 == 0:
        alike = positions @ positions.T
        for distance in range(40):
            torch.testing.assert_close(
                alike.diagonal(distance), alike[0, distance].expand(40 - distance), atol=1e-4, rtol=0
            )
    assert torch.cdist(positions, positions).fill_diagonal_(1).min() > 0.1
