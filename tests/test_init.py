"""Where the weights start: their spread, what is left alone, and how the final layer begins."""

from math import log, sqrt
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import nn
from torch.nn.utils import parametrizations

from plumbline import init
from plumbline.config import ConfigError, build
from plumbline.data.core import Spec
from plumbline.models.linear import Linear
from plumbline.models.mlp import MLP
from plumbline.models.resnet import ResNet
from plumbline.models.zoo import Torchvision

CONF = Path(__file__).parent.parent / "conf"
OPTIONS = sorted(path.stem for path in (CONF / "init").glob("[!_]*.yaml"))
DRAWN = [name for name in OPTIONS if name != "own"]
FASHION = Spec("classification", (1, 28, 28), 10)
AS_IS = {"head_std": None, "final_bias": "keep"}


def option(name, **changes):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(f"init/{name}", overrides=[f"init.{key}={value}" for key, value in changes.items()])
    return build(cfg.init)


def network(seed=0, spec=FASHION):
    torch.manual_seed(seed)
    return MLP(spec, hidden=[200, 100], norm="layer", activation="relu")


def weights(model):
    return {path: value.clone() for path, value in model.state_dict().items()}


def unchanged(before, model):
    return {path for path, value in model.state_dict().items() if torch.equal(value, before[path])}


# --- every option of conf/init ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DRAWN)
def test_every_drawn_option_changes_every_weight_and_no_norm(name):
    model = network()
    before = weights(model)
    option(name)(model, None)
    assert unchanged(before, model) == {
        f"hidden.{layer}.norm.{part}" for layer in (0, 1) for part in ("weight", "bias")
    }


@pytest.mark.parametrize("name", [name for name in DRAWN if name != "uniform"])
def test_every_drawn_option_but_uniform_starts_biases_at_zero_and_the_head_small(name):
    model = network()
    option(name)(model, None)
    assert [path for path, value in model.named_parameters() if path.endswith("bias") and value.any()] == []
    assert model.head.weight.std().item() == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize("name", DRAWN)
def test_the_seed_decides_the_weights(name):
    def drawn(seed):
        torch.manual_seed(seed)
        model = network(seed=7)
        torch.manual_seed(seed)
        option(name)(model, None)
        return model.hidden[0].linear.weight

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_own_leaves_every_weight_bitwise_as_it_was_made():
    model = network()
    before = weights(model)
    option("own")(model, torch.full((10,), 0.1))
    assert unchanged(before, model) == before.keys()


def test_own_may_still_be_asked_for_a_small_head_and_a_prior():
    model = network()
    before = weights(model)
    option("own", head_std=0.001, final_bias="prior")(model, torch.full((10,), 0.1))
    assert before.keys() - unchanged(before, model) == {"head.weight", "head.bias"}
    assert model.head.weight.std().item() == pytest.approx(0.001, rel=0.1)


# --- the spread ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_he_weights_from_784_to_200_have_the_std_of_the_paper(seed):
    model = network(seed)
    init.he(model, None, **AS_IS)
    assert model.hidden[0].linear.weight.std().item() == pytest.approx(0.0505, rel=0.02)
    assert model.hidden[0].linear.weight.mean().abs() < 0.0005


@pytest.mark.parametrize("seed", range(3))
def test_on_clothes_he_leaves_activations_of_the_size_of_the_inputs_and_torchs_own_start_makes_them_vanish(seed):
    if not Path("/usr/share/datasets/fashion-mnist").is_dir():
        pytest.skip("needs Debian's dataset-fashion-mnist")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("data/fashion_mnist", overrides=["data.subset=1000"])
    found = []
    for start in (lambda model: init.he(model, None, **AS_IS), lambda model: None):
        torch.manual_seed(seed)
        model, x = MLP(FASHION, hidden=[200, 100], norm="none", activation="relu"), build(cfg.data)().train.x.flatten(1)
        start(model)
        with torch.no_grad():
            for layer in model.hidden:
                x = layer(x)
                found.append(x.std().item())
    assert found[:2] == pytest.approx([0.82, 0.76], abs=0.06)
    assert found[2:] == pytest.approx([0.335, 0.145], abs=0.03)


@pytest.mark.parametrize("seed", range(3))
def test_he_keeps_the_signal_through_thirty_relu_layers(seed):
    torch.manual_seed(seed)
    model = MLP(Spec("regression", (512,), 512), hidden=[512] * 30, norm="none", activation="relu")
    x = torch.randn(64, 512)
    with torch.no_grad():
        before = model(x).std().item()
        init.he(model, None, **AS_IS)
        after = model(x).std().item()
    assert before < 0.05
    assert 0.4 < after < 4


@pytest.mark.parametrize("seed", range(3))
def test_glorot_weights_have_the_std_of_the_paper(seed):
    model = network(seed)
    init.glorot(model, None, **AS_IS)
    assert model.hidden[0].linear.weight.std().item() == pytest.approx(sqrt(2 / 984), rel=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_truncated_weights_lie_within_two_std_and_reach_for_it(seed):
    model = network(seed)
    init.truncated_normal(model, None, std=0.05, **AS_IS)
    weight = model.hidden[0].linear.weight
    assert 0.099 < weight.abs().max() <= 0.1
    assert weight.std().item() == pytest.approx(0.05 * 0.8796, rel=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_uniform_weights_fill_their_width_in_every_layer_and_hidden_biases_are_one_number(seed):
    model = network(seed)
    option("uniform")(model, None)
    for layer in (model.hidden[0].linear, model.head):
        weight = layer.weight.detach()
        assert 0.49 < weight.abs().max() <= 0.5
        assert weight.std().item() == pytest.approx(12**-0.5, rel=0.05)
    assert [model.hidden[k].linear.bias.unique().tolist() for k in (0, 1)] == [[pytest.approx(0.1)]] * 2
    assert not model.head.bias.any()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("gain", [1.0, 1.5])
def test_orthogonal_weights_are_orthonormal_times_the_gain(seed, gain):
    torch.manual_seed(seed)
    tall, wide, conv = nn.Linear(50, 200), nn.Linear(200, 50), nn.Conv2d(8, 16, 3)
    init.orthogonal(nn.Sequential(tall, wide, conv), None, gain=gain, **AS_IS)
    for square in (
        tall.weight.T @ tall.weight,
        wide.weight @ wide.weight.T,
        conv.weight.flatten(1) @ conv.weight.flatten(1).T,
    ):
        assert torch.allclose(square / gain**2, torch.eye(len(square)), atol=1e-5)


@pytest.mark.parametrize(
    "layer, inputs, outputs",
    [
        (nn.Linear(784, 200), 784, 200),
        (nn.Conv2d(8, 16, 5), 8 * 25, 16 * 25),
        (nn.Conv2d(8, 16, 3, groups=4), 2 * 9, 4 * 9),
        (nn.Conv2d(8, 16, 4, stride=2), 8 * 16, 16 * 4),
        (nn.Conv1d(8, 16, 3), 8 * 3, 16 * 3),
        (nn.ConvTranspose2d(8, 16, 2, stride=2), 8, 16 * 4),
    ],
)
def test_the_fans_count_the_connections(layer, inputs, outputs):
    assert init.fans(layer) == (inputs, outputs)
    shape = (1, layer.in_features) if isinstance(layer, nn.Linear) else (1, 8, *[16] * (layer.weight.dim() - 2))
    x = torch.zeros(shape, requires_grad=True)
    nn.init.ones_(layer.weight)
    y = layer(x)
    middle = (0, 0) if isinstance(layer, nn.Linear) else (0, 0, *[size // 2 for size in y.shape[2:]])
    (gradient,) = torch.autograd.grad(y[middle], x)
    assert gradient.sum() == inputs  # what reaches one output


@pytest.mark.parametrize("layer", [nn.Conv2d(32, 32, 3, padding=1), nn.ConvTranspose2d(32, 32, 4, stride=2, padding=1)])
def test_he_doubles_the_second_moment_of_every_kind_of_convolution(layer):
    torch.manual_seed(0)
    init.he(nn.Sequential(layer, nn.Linear(1, 1)), None, **AS_IS)
    x = torch.randn(8, 32, 24, 24)
    assert layer(x)[..., 4:-4, 4:-4].square().mean().item() == pytest.approx(2, rel=0.1)


# --- what is left alone ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("preactivation", [True, False])
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_a_branch_that_starts_at_zero_still_does_after_every_option(name, preactivation, norm):
    model = ResNet(FASHION, channels=[8], blocks=2, preactivation=preactivation, norm=norm, activation="relu")
    option(name)(model, None)
    x = torch.rand(2, 8, 5, 5)
    assert torch.equal(model.stages(x), x)


@pytest.mark.parametrize("name", DRAWN)
def test_pretrained_layers_stay_bitwise_and_the_new_head_does_not(name, monkeypatch):
    from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

    loaded = squeezenet1_1().state_dict()
    monkeypatch.setattr(SqueezeNet1_1_Weights, "get_state_dict", lambda weights, *a, **k: loaded)
    model = Torchvision(Spec("classification", (3, 32, 32), 4), name="squeezenet1_1", weights="DEFAULT", resize=None)
    before = weights(model)
    option(name)(model, None)
    assert before.keys() - unchanged(before, model) == {"network.classifier.1.weight", "network.classifier.1.bias"}


def test_embeddings_and_attention_of_a_model_are_left_to_it():
    model = nn.ModuleList([nn.Embedding(5, 4), nn.MultiheadAttention(4, 2), nn.Linear(4, 2)])
    before = weights(model)
    init.he(model, None, **AS_IS)
    assert {"0.weight", "1.in_proj_weight"} <= unchanged(before, model)
    assert "2.weight" not in unchanged(before, model)


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_a_parametrised_weight_is_set_through_its_parametrisation(norm):
    torch.manual_seed(0)
    layer = norm(nn.Linear(300, 300))
    before = layer.weight.detach().clone()
    init.he(nn.Sequential(layer, nn.Linear(300, 2)), None, **AS_IS)
    after = layer.weight.detach()
    assert not torch.allclose(before, after)
    if norm is parametrizations.weight_norm:
        assert after.std().item() == pytest.approx(sqrt(2 / 300), rel=0.02)
    else:
        for _ in range(50):  # its power iteration goes a step whenever the weight is asked for
            largest = torch.linalg.matrix_norm(layer.weight, 2).item()
        assert largest == pytest.approx(1, rel=0.02)


def test_a_weight_that_cannot_be_set_is_named():
    layer = parametrizations.orthogonal(nn.Linear(4, 4), "weight", "cayley", use_trivialization=False)
    with pytest.raises(ConfigError, match=r"init: the weight of 0 .*init=own"):
        init.he(nn.Sequential(layer, nn.Linear(4, 2)), None, **AS_IS)


# --- the final layer -------------------------------------------------------------------------------------------------


def first_loss(final_bias, prior):
    model = Linear(Spec("classification", (6,), len(prior)))
    init.he(model, torch.tensor(prior), head_std=0.0, final_bias=final_bias)
    counts = [round(100 * share) for share in prior]
    y = torch.repeat_interleave(torch.arange(len(prior)), torch.tensor(counts))
    return nn.functional.cross_entropy(model(torch.randn(len(y), 6)), y).item()


def test_a_prior_takes_the_first_loss_of_an_imbalanced_problem_down_to_its_entropy():
    assert first_loss("zero", [0.97, 0.03]) == pytest.approx(0.6931, abs=1e-4)
    assert first_loss("prior", [0.97, 0.03]) == pytest.approx(0.1347, abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_a_small_head_starts_at_log_classes_where_he_everywhere_does_not(seed):
    def loss(head_std):
        torch.manual_seed(seed)
        model = MLP(FASHION, hidden=[200, 100], norm="none", activation="relu")
        init.he(model, None, head_std=head_std, final_bias="zero")
        return nn.functional.cross_entropy(model(torch.randn(500, 1, 28, 28)), torch.arange(500) % 10).item()

    assert loss(0.01) == pytest.approx(log(10), abs=0.02)
    assert loss(None) > log(10) + 0.2


def test_a_class_without_samples_gets_a_finite_bias():
    model = Linear(Spec("classification", (6,), 3))
    init.own(model, torch.tensor([0.5, 0.5, 0.0]), head_std=None, final_bias="prior")
    assert model.head.bias.tolist() == pytest.approx([log(0.5), log(0.5), log(1e-6)])


def test_the_prior_of_a_regression_is_its_mean():
    model = Linear(Spec("regression", (6,), 2))
    init.own(model, torch.tensor([0.0, 0.0]), head_std=None, final_bias="prior")
    assert model.head.bias.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("final_bias, kept", [("keep", True), ("zero", False)])
def test_the_final_bias_is_kept_or_not_as_asked(final_bias, kept):
    model = network()
    before = weights(model)
    init.he(model, None, head_std=None, final_bias=final_bias)
    assert ("head.bias" in unchanged(before, model)) == kept
    assert bool(model.head.bias.any()) == kept


@pytest.mark.parametrize(
    "said, name, prior, options",
    [
        ("final_bias=prior: these data have no prior", "he", None, {"final_bias": "prior"}),
        ("final_bias=prior: the last layer, head, has 10 outputs", "he", torch.ones(3) / 3, {"final_bias": "prior"}),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_its_name(said, name, prior, options):
    with pytest.raises(ConfigError) as error:
        getattr(init, name)(network(), prior, **AS_IS | options)
    assert str(error.value).startswith(f"init.{said}")


def test_a_prior_needs_a_bias_to_stand_in():
    with pytest.raises(ConfigError, match="the last layer, 0, has no bias"):
        init.own(nn.Sequential(nn.Linear(3, 2, bias=False)), torch.ones(2) / 2, head_std=None, final_bias="prior")
