"""The networks of torchvision: fitted to the data at both ends, at every size, with weights and without."""

import re
from itertools import product

import pytest
import torch
from torch import nn

from plumbline.config import ConfigError
from plumbline.data.core import Spec
from plumbline.models import blocks
from plumbline.models.zoo import Torchvision

FASHION = Spec("classification", (1, 28, 28), 10)
DIGITS = Spec("classification", (1, 8, 8), 10)


def images(spec, count):
    return torch.randn(count, *spec.shape, generator=torch.Generator().manual_seed(0))


def refusal(spec, **options):
    """What the user reads."""
    with pytest.raises(ConfigError) as error:
        Torchvision(spec, **options)
    return str(error.value)


SAMPLE = {  # name -> a size that it can take
    **dict.fromkeys(
        ["convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "mnasnet0_5", "regnet_y_400mf"], 32
    ),
    **dict.fromkeys(["mobilenet_v3_small", "resnet50", "resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_0"], 32),
    **dict.fromkeys(["swin_t", "vgg11", "vit_b_16"], 32),
    **{"alexnet": 64, "efficientnet_v2_s": 33, "inception_v3": 75, "maxvit_t": 224, "swin_v2_t": 64},
}


def fitted(name, size, channels):
    """The state of a network after it was fitted to `channels` channels and 7 outputs."""
    torch.manual_seed(0)
    spec = Spec("classification", (channels, size, size), 7)
    model = Torchvision(spec, name=name, weights=None, resize=None)
    assert all(module.training for module in model.modules())
    shapes = [tuple(model(images(spec, 2)).shape)]
    with torch.no_grad():
        shapes.append(tuple(model.eval()(torch.zeros(2, *spec.shape)).shape))
    widths = [getattr(module, "out_features", getattr(module, "out_channels", None)) for module in model.modules()]
    return shapes, 1000 in widths


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "googlenet", "squeezenet1_0"])
def test_a_network_of_the_zoo_is_fitted_at_both_ends(name):
    assert fitted(name, SAMPLE[name], channels=1) == ([(2, 7), (2, 7)], False)


@pytest.mark.slow
@pytest.mark.parametrize("name, channels", list(product(SAMPLE, [1, 3])))
def test_every_family_of_the_zoo_is_fitted_at_both_ends(name, channels):
    assert fitted(name, SAMPLE[name], channels) == ([(2, 7), (2, 7)], False)


def test_squeezenet_may_answer_below_zero():
    torch.manual_seed(0)
    spec = Spec("regression", (3, 32, 32), 7)
    model = Torchvision(spec, name="squeezenet1_1", weights=None, resize=None).eval()
    with torch.no_grad():
        assert model(images(spec, 8)).min() < 0


def test_resize_brings_images_to_the_size_a_network_needs():
    said = refusal(DIGITS, name="alexnet", weights=None, resize=None)
    assert re.match(r"model.name=alexnet: cannot take images of 8x8 .*model.resize=63", said)
    model = Torchvision(DIGITS, name="alexnet", weights=None, resize=63)
    assert model.door(images(DIGITS, 2)).shape == (2, 1, 63, 63)
    assert model(images(DIGITS, 2)).shape == (2, 10)


def test_resizing_keeps_a_constant_image_and_one_of_its_own_size():
    x = images(DIGITS, 2)
    assert torch.equal(blocks.Resize(8)(x), x)
    assert torch.allclose(blocks.Resize(5)(torch.full((1, 1, 8, 12), 0.25)), torch.tensor(0.25))


@pytest.mark.parametrize(
    "name, weights, size",
    [
        ("vit_b_16", None, (28, 28)),
        ("vit_b_16", None, (32, 48)),
        ("vit_b_16", "DEFAULT", (32, 32)),
        ("maxvit_t", None, (64, 64)),
    ],
)
def test_a_transformer_made_for_one_size_names_it(name, weights, size):
    said = refusal(Spec("classification", (3, *size), 10), name=name, weights=weights, resize=None)
    assert re.match(rf"model.name={name}: cannot take images of {size[0]}x{size[1]} .*model.resize=224", said)


def test_an_unknown_network_or_weight_is_answered_with_the_nearest_one():
    said = refusal(FASHION, name="resnet81", weights=None, resize=None)
    assert re.match(r"model.name=resnet81: .*did you mean 'resnet18'.*accepted: alexnet, ", said)
    said = refusal(FASHION, name="resnet18", weights="DEFUALT", resize=None)
    assert re.match(r"model.weights=DEFUALT: .*did you mean 'DEFAULT'.*accepted: null, IMAGENET1K_V1", said)


def test_weights_that_cannot_be_fetched_say_what_to_do(monkeypatch):
    from torchvision.models import ResNet18_Weights

    def offline(weights, *arguments, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", offline)
    said = refusal(FASHION, name="resnet18", weights="DEFAULT", resize=None)
    assert re.match(r"model.weights=DEFAULT: .*resnet18.*\.pth.*no route to host.*model.weights=null", said)


def pretrained(name, spec, monkeypatch):
    """(our model, the published network) with weights that stand in for a download."""
    from torchvision.models import get_model, get_model_weights

    extra = {"init_weights": False} if name == "googlenet" else {}
    published = get_model(name, **extra)
    monkeypatch.setattr(get_model_weights(name), "get_state_dict", lambda weights, *a, **k: published.state_dict())
    return Torchvision(spec, name=name, weights="DEFAULT", resize=None), published


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "squeezenet1_1"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_loaded_layers_are_marked_and_the_new_head_is_not(name, channels, monkeypatch):
    model, _ = pretrained(name, Spec("classification", (channels, 32, 32), 7), monkeypatch)
    layers = [module for module in model.network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    marks = [hasattr(layer, "pretrained") for layer in layers]
    assert marks == [True] * (len(layers) - 1) + [False]
    assert model.train()(torch.zeros(2, channels, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize("channels", [1, 5])
def test_a_pretrained_first_layer_sees_in_grey_what_it_saw_in_grey_colours(channels, monkeypatch):
    model, published = pretrained("squeezenet1_1", Spec("classification", (channels, 32, 32), 7), monkeypatch)
    grey = images(Spec("", (1, 32, 32), 1), 2)
    ours = model.network.features[0](grey.expand(-1, channels, -1, -1))
    assert torch.allclose(ours, published.features[0](grey.expand(-1, 3, -1, -1)), atol=1e-5)
