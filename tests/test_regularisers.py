"""Every regulariser: strength 0 is nothing, a seed decides all, a copy is a copy; and how layers are named."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from torch import nn

from plumbline.config import ConfigError, build, check_node
from plumbline.data.core import Spec
from plumbline.losses import task
from plumbline.regularisers import L1, Regulariser, SpectralNorm, WeightNorm
from plumbline.regularisers.layers import choose, weight_layers

CONF = Path(__file__).parents[1] / "conf"
EVERY = sorted(path.stem for path in (CONF / "regulariser").glob("[!_]*.yaml"))
OPTIONS = [
    name for name in EVERY if name != "kl"
]  # which serves networks with a code alone: tests/test_models_tasks.py
IMAGES = Spec("classification", (3, 8, 8), 5)
NUMBERS = Spec("regression", (3, 8, 8), 5)
STRENGTHS = {
    "l1": ["kernel", "bias", "activity"],
    "l2": ["kernel", "bias", "activity"],
    "elastic_net": ["kernel_l1", "kernel_l2", "bias_l1", "bias_l2", "activity_l1", "activity_l2"],
    "dropout": ["rate"],
    "dropblock": ["rate"],
    "label_smoothing": ["smoothing"],
    "mixup": ["alpha"],
    "cutmix": ["alpha"],
    "input_noise": ["std"],
    "confidence_penalty": ["strength"],
}
NONE = {"kernel": 0.0, "bias": 0.0, "activity": 0.0}


def option(name, **changes):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(f"regulariser/{name}", [f"regulariser.{name}.{k}={v}" for k, v in changes.items()]).regulariser[
            name
        ]


def mlp(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(192, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 5)
    )


def convnet(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 7, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 5),
    )  # fmt: skip


def draw(seed=0, samples=16, spec=IMAGES):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, *spec.shape, generator=generator)
    if spec.task == "regression":
        return x, torch.randn(samples, spec.outputs, generator=generator)
    return x, torch.randint(0, spec.outputs, (samples,), generator=generator)


def train(model, regularisers, steps=10, seed=0):
    """The weights after a few steps, and the state of both generators."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model.train()
    for step in range(steps):
        x, y = draw(step)
        for regulariser in regularisers:
            x, y = regulariser.batch(x, y, generator)
        logits = model(x)
        loss = task(IMAGES)(logits, y)
        penalties = [term for r in regularisers if (term := r.penalty(model, logits)) is not None]
        optimiser.zero_grad()
        (loss + torch.stack(penalties).sum() if penalties else loss).backward()
        optimiser.step()
    return [p.detach() for p in model.parameters()], generator.get_state(), torch.get_rng_state()


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip([*first[0], *first[1:]], [*second[0], *second[1:]], strict=True))


# --- every option -----------------------------------------------------------------------------------------------------


def test_every_option_with_a_strength_is_tested_at_0():
    assert set(OPTIONS) == {*STRENGTHS, "weight_norm", "spectral_norm"}
    assert Regulariser(IMAGES).penalty(mlp(), torch.zeros(2, 5)) is None


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", STRENGTHS)
def test_strength_0_is_bitwise_no_regulariser(name, seed):
    plain, model = convnet(seed), convnet(seed)
    regulariser = build(option(name, **dict.fromkeys(STRENGTHS[name], 0.0)))(IMAGES)
    regulariser.attach(model)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert regulariser.penalty(model, torch.zeros(2, 5)) is None
    assert same(train(plain, [], seed=seed), train(model, [regulariser], seed=seed))


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("make", [mlp, convnet])
def test_every_option_changes_what_is_trained_and_a_seed_decides_all(name, make):
    node = option(name)
    check_node(f"regulariser.{name}", node, ["plumbline"])
    if name == "dropblock" and make is mlp:
        with pytest.raises(ConfigError, match="names no Conv2d"):
            build(node)(IMAGES).attach(mlp())
        return
    results = []
    for _ in range(2):
        model, regulariser = make(), build(node)(IMAGES)
        regulariser.attach(model)
        results.append(train(model, [regulariser]))
    assert same(*results)
    plain = train(make(), [])
    assert len(plain[0]) != len(results[0][0]) or not same(plain, results[0])


@pytest.mark.parametrize("name", OPTIONS)
def test_a_copy_and_a_saved_state_answer_as_the_original_and_evaluation_leaves_it_alone(name):
    model, regulariser = convnet(), build(option(name))(IMAGES)
    regulariser.attach(model)
    train(model, [regulariser], steps=2)
    x, _ = draw()
    twin = copy.deepcopy(model).eval()
    other = convnet(seed=5)
    build(option(name))(IMAGES).attach(other)
    other.load_state_dict(model.state_dict())
    before = copy.deepcopy(model.state_dict())
    expected = copy.deepcopy(model).eval()(x)
    assert torch.equal(twin(x), expected)
    assert torch.equal(twin(x), expected)
    assert torch.equal(other.eval()(x), expected)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    reference = convnet()
    regulariser = build(option(name))(IMAGES)
    regulariser.attach(reference)
    train(reference, [regulariser], steps=2)
    assert same(train(model, [regulariser], steps=2), train(reference, [regulariser], steps=2))


def test_all_options_together_serve_a_torchvision_network():
    from torchvision.models import resnet18

    torch.manual_seed(0)
    model = resnet18(num_classes=5)
    plain = copy.deepcopy(model)
    regularisers = [build(option(name))(IMAGES) for name in OPTIONS if name not in ("weight_norm", "spectral_norm")]
    for regulariser in regularisers:
        regulariser.attach(model)
    weights, *_ = train(model, regularisers, steps=2)
    assert all(weight.isfinite().all() for weight in weights)
    plain.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(model.eval()(x), plain.eval()(x))
    normed = copy.deepcopy(plain)
    WeightNorm(IMAGES, layers=["all"]).attach(normed)
    torch.testing.assert_close(normed(x), plain(x), rtol=1e-4, atol=1e-5)
    SpectralNorm(IMAGES, n_power_iterations=1, layers=["conv1", "fc"]).attach(plain)
    assert torch.linalg.matrix_norm(plain.conv1.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.05)


# --- layers -----------------------------------------------------------------------------------------------------------


def names(model, *patterns, leave_out=0):
    return list(choose(model, patterns, option="l1", leave_out=leave_out))


def test_layers_are_named_by_words_names_and_classes():
    model = convnet()
    assert names(model, "all") == ["0", "3", "7"]
    assert names(model, "hidden") == ["3", "7"]
    assert names(model, "hidden", leave_out=-1) == ["0", "3"]
    assert names(model, "Conv2d") == names(model, "Conv*") == names(model, "[03]") == ["0", "3"]
    assert names(model, "7", "Conv2d", "0") == ["0", "3", "7"]
    assert names(model, "ReLU") == ["2", "4"]
    assert names(nn.Linear(2, 3), "all") == [""]


def test_a_pattern_means_layers_before_it_means_other_modules():
    model = nn.ModuleDict({"block": nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "head": nn.Linear(2, 2)})
    assert names(model, "block*") == ["block.0"]
    assert names(model, "block.?") == ["block.0"]


def test_an_attention_is_one_layer_and_bare_parameters_make_none():
    layer = nn.TransformerEncoderLayer(8, 2, 16)
    layer.position = nn.Parameter(torch.zeros(3, 8))
    assert list(weight_layers(layer)) == ["self_attn", "linear1", "linear2"]
    assert list(weight_layers(nn.LSTM(3, 4))) == [""]


@pytest.mark.parametrize("name", ["l1", "l2", "elastic_net", "dropout", "dropblock", "weight_norm", "spectral_norm"])
def test_a_pattern_without_a_layer_is_refused_with_the_layers_there_are(name):
    regulariser = build(option(name, layers="[Liner]"))(IMAGES)
    message = rf"regulariser\.{name}\.layers=Liner: matches no layer.*did you mean 'Linear'\?"
    with pytest.raises(ConfigError, match=rf"{message}.*0 \(Conv2d\), 3 \(Conv2d\), 7 \(Linear\)"):
        regulariser.attach(convnet())


# --- what it is for ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_l1_empties_the_first_layer_of_the_digits_network():
    from sklearn.datasets import load_digits

    x, y = (torch.as_tensor(part) for part in load_digits(return_X_y=True))
    x = ((x - x.mean(0)) / x.std(0).clamp(min=1e-8)).float()[:1077]
    y, spec = y[:1077].long(), Spec("classification", (64,), 10)
    shares = {}
    for strength in (0.0, 1e-3):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        regulariser = L1(spec, **{**NONE, "kernel": strength}, layers=["0"])
        regulariser.attach(model)
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(60):
            for chosen in torch.randperm(len(x)).split(32):
                logits = model(x[chosen])
                loss = F.cross_entropy(logits, y[chosen])
                term = regulariser.penalty(model, logits)
                optimiser.zero_grad()
                (loss if term is None else loss + term).backward()
                optimiser.step()
        shares[strength] = (model[0].weight.abs() < 1e-3).float().mean().item()
    assert shares[0.0] < 0.02
    assert shares[1e-3] == pytest.approx(0.5, abs=0.15)
