"""What holds for every model: shapes, counts, gradients, independence; and the laws of the layers they share."""

import re
from itertools import product
from pathlib import Path

import pytest
import torch
from conftest import composed, one_in
from omegaconf import OmegaConf
from torch import nn

from plumbline.assemble import rehearse
from plumbline.card import layers
from plumbline.config import ConfigError, build, check_config
from plumbline.data.core import Spec
from plumbline.models import blocks
from plumbline.models.blocks import ACTIVATIONS, NORMS
from plumbline.models.cnn import CNN, convolution
from plumbline.models.linear import Linear
from plumbline.models.mlp import MLP
from plumbline.models.resnet import Block, PreactivationBlock, ResNet

CONF = Path(__file__).parent.parent / "conf" / "model"
EVERY = sorted(path.stem for path in CONF.glob("[!_]*.yaml"))
FASHION = Spec("classification", (1, 28, 28), 10)
DIGITS = Spec("classification", (1, 8, 8), 10)
COLOUR = Spec("classification", (3, 16, 20), 4)
TABLE = Spec("regression", (13,), 2)


MASKS = Spec("segmentation", (1, 28, 28), 2 * 28 * 28, masks=(2, 28, 28))
PAIRS = Spec("classification", (2, 13), 10)
SHOPS = Spec("classification", (13,), 10, categories=((2, 4), (8, 3)))
PAINTERS = ["unet"]  # whose outputs are masks
OTHERS = {
    "unet": MASKS,
    "siamese": PAIRS,
    "embedding_mlp": SHOPS,
}  # what those are for that take no image, or give no classes
OPTIONS = [name for name in EVERY if name not in OTHERS]


def option(name, spec):
    torch.manual_seed(0)
    return build(OmegaConf.load(CONF / f"{name}.yaml"))(spec)


def images(spec, count, seed=0):
    return torch.randn(count, *spec.shape, generator=torch.Generator().manual_seed(seed))


def small(kind, spec=DIGITS, *, norm="none", activation="relu"):
    """The three models that have norms and activations, at their smallest."""
    torch.manual_seed(0)
    style = {"norm": norm, "activation": activation}
    if kind == "mlp":
        return MLP(spec, hidden=[16, 16], **style)
    if kind == "cnn":
        return CNN(spec, channels=[8], kernel=3, hidden=[16], pool="last", **style)
    return ResNet(spec, channels=[8, 16], blocks=2, preactivation=kind == "preactivation", **style)


KINDS = ["mlp", "cnn", "resnet", "preactivation"]


def pairs(*axes):
    return list(product(*axes))


def refusal(construct, *arguments, **options):
    """What the user reads."""
    with pytest.raises(ConfigError) as error:
        construct(*arguments, **options)
    return str(error.value)


# --- every option of conf/model --------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [FASHION, DIGITS, COLOUR], ids=str)
@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_takes_any_image_and_yields_one_row_of_outputs_a_sample(name, spec):
    assert option(name, spec)(images(spec, 3)).shape == (3, spec.outputs)


@pytest.mark.parametrize("name", EVERY)
def test_every_parameter_of_every_option_learns(name):
    spec = OTHERS.get(name, FASHION)
    model = option(name, spec)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = images(spec, 16), torch.arange(16) % 10
    y = torch.rand(16, spec.outputs) if name in PAINTERS else y
    for _ in range(3):  # a branch that starts at zero hides what lies behind it from the first steps
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    assert [path for path, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()] == []


@pytest.mark.parametrize("name", EVERY)
def test_in_eval_mode_no_output_depends_on_another_sample(name):
    spec = OTHERS.get(name, FASHION)
    model = option(name, spec).eval()
    x = images(spec, 4).requires_grad_()
    model(x)[2].sum().backward()
    assert [bool(sample.any()) for sample in x.grad] == [False, False, True, False]


@pytest.mark.parametrize("name", OPTIONS)
def test_the_memory_layout_changes_no_output(name):
    model = option(name, COLOUR).eval()
    x = images(COLOUR, 3)
    with torch.no_grad():
        plain = model(x)
        last = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    assert torch.allclose(plain, last, atol=1e-5)


@pytest.mark.parametrize("name", ["cnn", "dilated", "resnet", "torchvision"])
def test_an_image_model_refuses_a_table_and_names_itself_the_shape_and_the_cure(name):
    assert re.match(rf"model={name}: .*\(C, H, W\).*\(13,\).*model=mlp", refusal(option, name, TABLE))


# --- ours ------------------------------------------------------------------------------------------------------------


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("hidden, parameters", [([], 7_850), ([50], 39_760), ([200, 100], 178_110)])
def test_an_mlp_has_the_known_number_of_parameters(hidden, parameters):
    assert count(MLP(FASHION, hidden=hidden, norm="none", activation="relu")) == parameters


@pytest.mark.parametrize("channels, parameters", [([16, 16], 46_592), ([32, 64], 209_456)])
def test_a_cnn_has_the_known_number_of_parameters(channels, parameters):
    model = CNN(FASHION, channels=channels, kernel=5, hidden=[50], norm="none", activation="relu", pool="last")
    assert count(model) == parameters
    rows, _ = layers(model.eval(), torch.zeros(2, *FASHION.shape))
    width = channels[1]
    assert [row["output"] for row in rows if row["kind"] in ("Conv2d", "MaxPool2d")] == [
        (channels[0], 28, 28), (channels[0], 14, 14), (width, 14, 14), (width, 7, 7),
    ]  # fmt: skip
    counts = [row["parameters"] for row in rows if row["parameters"]]
    assert counts == ([416, 6_416, 39_250, 510] if width == 16 else [832, 51_264, 156_850, 510])


KNOWN = {  # a command line, and the weights of each layer as the record of its run has them
    "data=fashion_mnist model=linear": [7_850],
    "data=fashion_mnist model.hidden=[50]": [39_250, 510],  # 39,760
    "data=fashion_mnist model.hidden=[200,100]": [157_000, 20_100, 1_010],  # 178,110
    "data=fashion_mnist model=cnn model.channels=[16,16] model.kernel=5 model.hidden=[50]": [416, 6_416, 39_250, 510],
    "experiment=gene_expression": [5_001_000, 500_500, 1_002],  # 5,502,502
    "experiment=toy_regression": [5_050, 1_020, 21],  # 6,091
    "experiment=circle": [12, 10, 6],  # two outputs for the Playground's one, whose last layer has 3: 25
}


@pytest.mark.parametrize(("words",), one_in(3, [(words,) for words in KNOWN]))
def test_the_layers_of_a_command_line_have_their_known_numbers_of_weights(words):
    cfg = composed(*words.split())
    check_config(cfg)
    found = rehearse(cfg, build(cfg.data)().spec)  # no file is read
    assert [row["parameters"] for row in found if row["parameters"]] == KNOWN[words]


def test_linear_regression_has_a_weight_for_each_feature_and_a_bias():
    assert count(Linear(FASHION)) == 7_850
    assert count(Linear(TABLE)) == 2 * (13 + 1)


def test_a_resnet_of_depth_20_has_the_published_number_of_parameters_and_its_two_shortcuts():
    cifar = Spec("classification", (3, 32, 32), 10)
    model = ResNet(cifar, channels=[16, 32, 64], blocks=3, preactivation=False, norm="batch", activation="relu")
    published = 269_722  # option A: shortcuts without weights
    shortcuts = (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)
    assert count(model) == published + shortcuts


def test_an_mlp_without_activations_is_one_linear_map():
    model = small("mlp", TABLE, activation="identity").eval()
    a, b = images(TABLE, 2)
    with torch.no_grad():
        mixed = model((0.3 * a + 0.7 * b)[None])
        assert torch.allclose(mixed, 0.3 * model(a[None]) + 0.7 * model(b[None]), atol=1e-6)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_a_kernel_changes_no_shape_but_the_number_of_weights(kernel):
    model = CNN(DIGITS, channels=[4], kernel=kernel, hidden=[], norm="none", activation="relu", pool="last")
    assert model(images(DIGITS, 2)).shape == (2, 10)
    assert count(model) == (kernel**2 * 4 + 4) + (4 * 16 * 10 + 10)


def test_a_convolution_of_the_cnn_keeps_the_largest_of_each_four_positions():
    layer = convolution(1, 1, 1, "none", "identity", "last")
    for weight in layer.parameters():
        nn.init.constant_(weight, weight.dim() > 1)  # the kernel passes its input on, the bias adds nothing
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert layer(x).flatten().tolist() == [5, 7, 13, 15]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("activation", "same"), [("relu", True), ("tanh", True), ("gelu", False)])
def test_pooling_first_is_the_same_where_the_activation_only_rises_and_there_is_no_norm(seed, activation, same):
    found = []
    for pool in ("last", "first"):
        torch.manual_seed(seed)
        model = CNN(DIGITS, channels=[4, 8], kernel=3, hidden=[], norm="none", activation=activation, pool=pool)
        found.append(model(images(DIGITS, 20, seed)))
    assert torch.equal(*found) == same


def test_a_cnn_that_would_pool_its_image_away_says_how_many_poolings_fit():
    rest = {"kernel": 3, "hidden": [], "norm": "none", "activation": "relu", "pool": "last"}
    said = refusal(CNN, DIGITS, channels=[8] * 4, **rest)
    assert re.match(r"model.channels=\[8, 8, 8, 8\]: 4 poolings .* 8x8; give at most 3 channels", said)
    assert CNN(DIGITS, channels=[8] * 3, **rest)(images(DIGITS, 2)).shape == (2, 10)


# --- layers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_activation_changes_the_output(kind):
    x = images(DIGITS, 4)
    with torch.no_grad():
        outputs = {name: small(kind, activation=name)(x) for name in ACTIVATIONS}
    same = [(a, b) for a, b in pairs(outputs, outputs) if a < b and torch.allclose(outputs[a], outputs[b], atol=1e-6)]
    assert same == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_norm_changes_the_output(kind):
    x = images(DIGITS, 4)
    with torch.no_grad():
        outputs = {name: small(kind, norm=name)(x) for name in NORMS}
    same = [(a, b) for a, b in pairs(outputs, outputs) if a < b and torch.allclose(outputs[a], outputs[b], atol=1e-6)]
    assert same == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", NORMS)
def test_only_batch_norms_mix_samples_in_training(kind, norm):
    model = small(kind, norm=norm).train()
    x = images(DIGITS, 4).requires_grad_()
    (model(x)[0] * torch.arange(1.0, 11.0)).sum().backward()
    assert bool(x.grad[1:].any()) == (norm in ("batch", "mean_only"))


@pytest.mark.parametrize("norm, dims", pairs(["batch", "layer", "group"], [0, 1, 2]))
def test_a_norm_leaves_mean_0_and_variance_1_over_what_it_normalises(norm, dims):
    x = 5 + 3 * torch.randn(64, 32, *[6] * dims, generator=torch.Generator().manual_seed(0))
    layer = blocks.norm(norm, 32, dims).train()
    y = layer(x).detach()
    groups = {"batch": None, "layer": 1, "group": getattr(layer, "num_groups", None)}[norm]
    parts = y.transpose(0, 1).reshape(32, -1) if norm == "batch" else y.reshape(64 * groups, -1)
    assert parts.mean(1).abs().max() < 1e-5
    assert (parts.var(1, correction=0) - 1).abs().max() < 1e-3


@pytest.mark.parametrize(
    "channels, dims, groups",
    [
        (64, 2, 32),
        (16, 2, 8),
        (48, 2, 24),
        (2, 2, 1),
        (1, 2, 1),
        (7, 2, 1),
        (9, 2, 3),
        (50, 0, 5),
        (128, 0, 16),
        (9, 0, 1),
    ],
)
def test_groups_are_at_most_32_and_hold_two_channels_or_eight_lone_features(channels, dims, groups):
    assert blocks.norm("group", channels, dims).num_groups == groups


@pytest.mark.parametrize("activation, norm", pairs(ACTIVATIONS, NORMS))
def test_a_fresh_preactivation_block_is_the_identity(activation, norm):
    block = PreactivationBlock(8, 8, 1, norm, activation)
    x = torch.randn(3, 8, 5, 5)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("activation, norm", pairs(ACTIVATIONS, NORMS))
def test_a_fresh_block_is_its_activation_and_so_the_identity_on_a_relu_trunk(activation, norm):
    block = Block(8, 8, 1, norm, activation)
    x = torch.randn(3, 8, 5, 5)
    assert torch.equal(block(x), blocks.activation(activation)(x))
    if activation == "relu":
        assert torch.equal(block(x.relu()), x.relu())


@pytest.mark.parametrize("kind, norm", pairs([Block, PreactivationBlock], NORMS))
def test_a_branch_that_starts_at_zero_does_not_stay_there(kind, norm):
    torch.manual_seed(0)
    block = kind(8, 8, 1, norm, "relu")
    x, y = torch.randn(2, 16, 8, 5, 5)
    optimiser = torch.optim.SGD(block.parameters(), lr=0.1)
    before = {path: weight.detach().clone() for path, weight in block.branch.named_parameters()}
    for _ in range(3):
        optimiser.zero_grad()
        (block(x) - y).square().mean().backward()
        optimiser.step()
    assert [path for path, weight in block.branch.named_parameters() if torch.equal(weight, before[path])] == []


def test_a_mistyped_name_is_answered_with_the_nearest_one():
    said = refusal(small, "mlp", norm="bacth")
    assert (
        said
        == "model.norm='bacth': no such norm (did you mean 'batch'?); accepted: batch, mean_only, layer, group, none"
    )
    said = refusal(small, "cnn", activation="rleu")
    assert re.match(r"model.activation='rleu': .* 'relu'.*accepted: relu, leaky_relu", said)
