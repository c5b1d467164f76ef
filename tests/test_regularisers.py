"""Regularisers: strength 0 is nothing, label mass is conserved, and each term, mask and norm is its formula."""

import copy
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from torch import nn

from plumbline.config import ConfigError, build, check_node
from plumbline.data.core import Spec
from plumbline.losses import task
from plumbline.regularisers import (
    L1,
    L2,
    ConfidencePenalty,
    CutMix,
    DropBlock,
    Dropout,
    ElasticNet,
    InputNoise,
    LabelSmoothing,
    Mixup,
    Regulariser,
    SpectralNorm,
    WeightNorm,
)
from plumbline.regularisers.dropout import drop_block
from plumbline.regularisers.layers import choose, weight_layers

CONF = Path(__file__).parents[1] / "conf"
OPTIONS = sorted(path.stem for path in (CONF / "regulariser").glob("[!_]*.yaml"))
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
        return compose(f"regulariser/{name}", [f"regulariser.{name}.{k}={v}" for k, v in changes.items()]).regulariser[name]


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


# --- every option ------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", STRENGTHS)
def test_a_strength_below_0_or_without_a_number_is_refused(name):
    for key in STRENGTHS[name]:
        for value in (-0.1, math.nan):
            node = option(name)
            node[key] = value
            with pytest.raises(ConfigError, match=rf"regulariser\.{name}\.{key}={value}: must be"):
                build(node)(IMAGES)


# --- layers ------------------------------------------------------------------------------------------------------------


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
    assert list(weight_layers(layer)) == [""]  # torch's own module is taken whole
    outer = nn.Module()
    outer.position, outer.attention, outer.dense = nn.Parameter(torch.zeros(3, 8)), nn.MultiheadAttention(8, 2), nn.Linear(8, 8)
    assert list(weight_layers(outer)) == ["attention", "dense"]


@pytest.mark.parametrize("name", ["l1", "l2", "elastic_net", "dropout", "dropblock", "weight_norm", "spectral_norm"])
def test_a_pattern_without_a_layer_is_refused_with_the_layers_there_are(name):
    regulariser = build(option(name, layers="[Liner]"))(IMAGES)
    expected = rf"regulariser\.{name}\.layers=Liner: matches no layer; did you mean 'Linear'\?.*0 \(Conv2d\), 3 \(Conv2d\), 7 \(Linear\)"
    with pytest.raises(ConfigError, match=expected):
        regulariser.attach(convnet())


# --- penalties ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_the_penalties_are_their_sums_and_their_gradients(seed):
    for kind, function, gradient in (
        (L1, lambda w: w.abs().sum(), lambda w: w.sign()),
        (L2, lambda w: w.square().sum(), lambda w: 2 * w),
    ):
        model = convnet(seed)
        with torch.no_grad():
            model[0].weight[0] = 0
        regulariser = kind(IMAGES, **{**NONE, "kernel": 0.3, "bias": 0.2}, layers=["Conv2d"])
        regulariser.attach(model)
        term = regulariser.penalty(model, torch.zeros(2, 5))
        convolutions = [model[0], model[3]]
        expected = sum(0.3 * function(c.weight) + 0.2 * function(c.bias) for c in convolutions)
        torch.testing.assert_close(term, expected)
        (2 * term).backward()
        for convolution in convolutions:
            torch.testing.assert_close(convolution.weight.grad, 0.6 * gradient(convolution.weight.detach()))
            torch.testing.assert_close(convolution.bias.grad, 0.4 * gradient(convolution.bias.detach()))
        assert model[7].weight.grad is None


def test_an_elastic_net_is_l1_and_l2():
    both = {"kernel": (0.1, 0.2), "bias": (0.3, 0.4), "activity": (0.5, 0.6)}
    x, _ = draw()
    gradients = []
    for split in (True, False):
        model = mlp()
        if split:
            regularisers = [
                kind(IMAGES, **{key: pair[i] for key, pair in both.items()}, layers=["all"]) for i, kind in enumerate((L1, L2))
            ]
        else:
            values = {f"{key}_l{i + 1}": pair[i] for key, pair in both.items() for i in range(2)}
            regularisers = [ElasticNet(IMAGES, **values, layers=["all"])]
        for regulariser in regularisers:
            regulariser.attach(model)
        logits = model(x)
        total = sum(regulariser.penalty(model, logits) for regulariser in regularisers)
        total.backward()
        gradients.append([total.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


def test_an_activity_is_summed_over_the_chosen_layers_outputs_and_divided_by_the_batch():
    model, regulariser = mlp(), L2(IMAGES, **{**NONE, "activity": 0.5}, layers=["1", "6"])
    regulariser.attach(model)
    x, _ = draw(samples=10)
    logits = model(x)
    hidden = model[1](x.flatten(1))  # heard too: the layer was used twice
    term = regulariser.penalty(model, logits)
    torch.testing.assert_close(term, 0.5 * (2 * hidden.square().sum() + logits.square().sum()) / 10)
    assert regulariser.penalty(model, logits) is None


def test_an_activity_hears_only_the_training_pass_that_the_penalty_is_of():
    model, regulariser = mlp(), L1(IMAGES, **{**NONE, "activity": 1.0}, layers=["6"])
    regulariser.attach(model)
    (x, _), (other, _) = draw(0), draw(1)
    model(other)  # nobody asked for its penalty
    logits = model(x)
    model.eval()
    model(other)
    model.train()
    with torch.no_grad():
        model(other)
    twin = copy.deepcopy(model)  # in the middle of a step, with a graph that hangs on the taps
    twin(other)
    term = regulariser.penalty(model, logits)
    torch.testing.assert_close(term, logits.abs().sum() / 16)
    term.backward()
    assert model[6].weight.grad.abs().sum() > 0
    twin_logits = twin(other)
    torch.testing.assert_close(regulariser.penalty(twin, twin_logits), twin_logits.abs().sum() / 16)


def test_two_taps_on_one_layer_do_not_hear_each_other_and_a_copied_regulariser_hears_its_copy():
    model = mlp()
    regularisers = [L1(IMAGES, **{**NONE, "activity": strength}, layers=["6"]) for strength in (1.0, 2.0)]
    for regulariser in regularisers:
        regulariser.attach(model)
    twin, twins = copy.deepcopy((model, regularisers))
    for net, own in ((model, regularisers), (twin, twins)):
        logits = net(draw()[0])
        terms = [regulariser.penalty(net, logits).item() for regulariser in own]
        assert terms == pytest.approx([logits.abs().sum().item() / 16, logits.abs().sum().item() / 8])


def test_a_penalty_of_a_reparametrised_weight_is_of_the_weight_that_is_used():
    model, regulariser = mlp(), L1(IMAGES, **{**NONE, "kernel": 1.0}, layers=["Linear"])
    WeightNorm(IMAGES, layers=["all"]).attach(model)
    regulariser.attach(model)
    expected = sum(model[i].weight.abs().sum() for i in (1, 4, 6))
    torch.testing.assert_close(regulariser.penalty(model, torch.zeros(2, 5)), expected)


def test_a_kernel_penalty_on_layers_without_weights_is_refused():
    with pytest.raises(ConfigError, match=r"regulariser\.l1\.layers=\['ReLU'\]: these have no weights"):
        L1(IMAGES, **{**NONE, "kernel": 1.0}, layers=["ReLU"]).attach(mlp())


def test_an_activity_of_activation_functions_can_be_asked_for():
    model, regulariser = mlp(), L1(IMAGES, **{**NONE, "activity": 1.0}, layers=["3"])
    regulariser.attach(model)
    x, _ = draw()
    logits = model(x)
    expected = copy.deepcopy(model)[:4](x).sum() / 16
    torch.testing.assert_close(regulariser.penalty(model, logits), expected)


def test_doubt_is_rewarded_by_its_entropy():
    regulariser = ConfidencePenalty(IMAGES, strength=0.7)
    assert regulariser.penalty(mlp(), torch.zeros(4, 5)).item() == pytest.approx(-0.7 * math.log(5))
    assert regulariser.penalty(mlp(), 100 * torch.eye(5)).item() == pytest.approx(0, abs=1e-6)
    logits = draw()[0][:, :, 0, 0].repeat(1, 2)[:, :5]
    entropy = torch.distributions.Categorical(logits=logits).entropy().mean()
    torch.testing.assert_close(regulariser.penalty(mlp(), logits), -0.7 * entropy)


# --- dropout -----------------------------------------------------------------------------------------------------------


def test_dropout_drops_the_inputs_of_the_chosen_layers_and_keeps_their_mean():
    model = nn.Sequential(nn.Linear(4, 400), nn.ReLU(), nn.Linear(400, 3))
    Dropout(IMAGES, rate=0.3, layers=["hidden"]).attach(model)
    seen = []
    model[2].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].detach()))
    x = torch.rand(200, 4)
    whole = model.eval()(x)
    torch.testing.assert_close(whole, nn.Sequential(*list(model)[:2], nn.Linear(400, 3)).eval()[:2](x) @ model[2].weight.T + model[2].bias)
    torch.manual_seed(0)
    trained = torch.stack([model.train()(x) for _ in range(200)]).mean(0)
    full, dropped = seen[0], torch.stack(seen[1:])
    live = full > 0
    assert (dropped[:, live] == 0).float().mean().item() == pytest.approx(0.3, abs=0.002)
    kept = dropped[0][live & (dropped[0] != 0)]
    torch.testing.assert_close(kept, full[live & (dropped[0] != 0)] / 0.7)
    assert (trained - whole).abs().mean() < 0.01


def test_hidden_leaves_the_data_alone_and_all_does_not():
    for layers, share in ((["hidden"], 0.0), (["all"], 0.5)):
        model, seen = mlp(), []
        Dropout(IMAGES, rate=0.5, layers=layers).attach(model)
        model[1].register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(inputs[0]))
        model(draw(samples=64)[0])
        assert (seen[0] == 0).float().mean().item() == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("kind", [Dropout, DropBlock])
def test_in_evaluation_dropout_is_exactly_absent(kind):
    plain, model = convnet(), convnet()
    size = {"block_size": 3} if kind is DropBlock else {}
    kind(IMAGES, rate=0.5, layers=["all"], **size).attach(model)
    x, _ = draw()
    state = torch.get_rng_state()
    assert torch.equal(model.eval()(x), plain.eval()(x))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(model.train()(x), plain.train()(x))


def test_dropout_of_an_attention_or_of_words_is_refused():
    model = nn.ModuleDict({"words": nn.Embedding(5, 4), "attention": nn.MultiheadAttention(4, 2)})
    with pytest.raises(ConfigError, match=r"regulariser\.dropout\.layers=\['all'\]: the input of these cannot be dropped"):
        Dropout(IMAGES, rate=0.5, layers=["all"]).attach(model)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_dropped_cells_form_whole_squares(size):
    torch.manual_seed(size)
    x = torch.ones(64, 4, 12, 14)
    dropped = (drop_block(x, 0.1, size) == 0).float()
    squares = F.avg_pool2d(dropped, size, stride=1) == 1  # corners of squares that are wholly dropped
    covered = F.max_pool2d(F.pad(squares.float(), (size - 1,) * 4), size, stride=1)
    assert torch.equal(covered, dropped)
    assert 0.06 < dropped.mean() < 0.11  # overlaps make it a little less than the rate


@pytest.mark.parametrize("size", [1, 3, 4, 50])
def test_drop_block_keeps_the_mean(size):
    torch.manual_seed(0)
    x = torch.rand(2000, 2, 9, 11)
    kept = drop_block(x, 0.2, size)
    assert kept.mean().item() == pytest.approx(x.mean().item(), rel=0.01)
    assert drop_block(torch.ones(50, 2, 9, 11), 0.2, size).mean().item() == pytest.approx(1, abs=1e-5)


# --- weights from weights ----------------------------------------------------------------------------------------------


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


# --- batches -----------------------------------------------------------------------------------------------------------

SOFTENERS = [
    LabelSmoothing(IMAGES, smoothing=0.3),
    Mixup(IMAGES, alpha=0.4),
    CutMix(IMAGES, alpha=1.0),
]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("regulariser", SOFTENERS, ids=lambda r: r.option)
def test_label_mass_is_conserved_also_when_labels_are_soft_already(regulariser, seed):
    generator = torch.Generator().manual_seed(seed)
    x, y = draw(seed)
    for again in SOFTENERS:
        first = regulariser.batch(x, y, generator)
        mixed, targets = again.batch(*first, generator)
        assert mixed.shape == x.shape
        assert targets.shape == (16, 5)
        torch.testing.assert_close(targets.sum(1), torch.ones(16))
        assert (targets >= 0).all()


@pytest.mark.parametrize("name", ["mixup", "cutmix", "input_noise"])
def test_all_chance_is_the_generators(name):
    regulariser = build(option(name))(IMAGES)
    (x, y), state = draw(), torch.get_rng_state()
    first, again, other = (regulariser.batch(x, y, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, draw()[0])


def test_smoothing_spreads_its_share_evenly():
    x, y = draw()
    _, soft = LabelSmoothing(IMAGES, smoothing=0.3).batch(x, y, torch.Generator())
    torch.testing.assert_close(soft, 0.7 * F.one_hot(y, 5) + 0.06)
    logits = torch.randn(16, 5)
    torch.testing.assert_close(task(IMAGES)(logits, soft), F.cross_entropy(logits, y, label_smoothing=0.3))


@pytest.mark.parametrize("spec", [IMAGES, NUMBERS], ids=["classes", "numbers"])
def test_mixup_mixes_inputs_and_targets_by_one_share(spec):
    for seed in range(5):
        x, y = draw(seed, spec=spec)
        mixed, targets = Mixup(spec, alpha=1.0).batch(x, y, torch.Generator().manual_seed(seed))
        soft = y if spec.task == "regression" else F.one_hot(y, 5).float()
        flat = torch.cat((x.flatten(1), soft), 1)
        result = torch.cat((mixed.flatten(1), targets), 1)
        weights = torch.linalg.lstsq(flat.T, result.T).solution.T  # row i: how much of each sample is in mixture i
        share = weights.diag()[weights.diag() < 0.9999].median() if (weights.diag() < 0.9999).any() else weights.diag().median()
        torch.testing.assert_close(weights.sum(1), torch.ones(16), rtol=1e-3, atol=1e-3)
        off = weights - torch.diag(weights.diag())
        alone = off.abs().max(1).values < 1e-3
        torch.testing.assert_close(weights.diag()[~alone], share.expand((~alone).sum()), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(off.max(1).values[~alone], 1 - share.expand((~alone).sum()), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_the_share_is_beta_distributed(alpha):
    generator = torch.Generator().manual_seed(0)
    regulariser = Mixup(Spec("regression", (1,), 1), alpha=alpha)
    x = torch.tensor([[0.0], [1.0]])
    shares = []
    while len(shares) < 3000:
        mixed, targets = regulariser.batch(x, x, generator)
        assert torch.equal(mixed, targets)
        if mixed[0] + mixed[1] != 1 or not torch.equal(mixed, x):  # the two were each other's partners
            shares.append(mixed[1].item())
    shares = torch.tensor(shares)
    assert shares.mean().item() == pytest.approx(0.5, abs=0.03)
    assert shares.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.08)


def test_cutmix_pastes_one_box_and_mixes_labels_by_its_area():
    spec = Spec("classification", (1, 8, 10), 40)
    x = torch.arange(40.0).view(40, 1, 1, 1).expand(40, 1, 8, 10).contiguous()
    areas = []
    for seed in range(300):
        mixed, targets = CutMix(spec, alpha=1.0).batch(x, torch.arange(40), torch.Generator().manual_seed(seed))
        foreign = (mixed != x)[:, 0]
        boxes = foreign[foreign.flatten(1).any(1)]
        if len(boxes):
            assert (boxes == boxes[0]).all()
            rows, columns = boxes[0].any(1).sum(), boxes[0].any(0).sum()
            assert boxes[0].sum() == rows * columns
            areas.append(boxes[0].float().mean().item())
        counted = torch.stack([(mixed == label).flatten(1).float().mean(1) for label in range(40)], 1)
        torch.testing.assert_close(targets, counted)
    assert max(areas) > 0.7
    assert min(areas) < 0.05


def test_cutmix_of_half_the_image_reaches_every_pixel():
    spec = Spec("classification", (1, 8, 8), 2)
    x = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 8, 8).contiguous()
    touched = sum(
        (CutMix(spec, alpha=1.0).batch(x, torch.arange(2), torch.Generator().manual_seed(seed))[0] != x)[0, 0].float()
        for seed in range(400)
    )
    assert touched.min() > 20
    torch.testing.assert_close(touched, touched.flip(0, 1), rtol=0.35, atol=10)


def test_noise_has_its_standard_deviation():
    x, y = draw(samples=500)
    noisy, same_y = InputNoise(IMAGES, std=0.3).batch(x, y, torch.Generator().manual_seed(0))
    assert (noisy - x).std().item() == pytest.approx(0.3, rel=0.01)
    assert same_y is y


def test_what_needs_classes_or_images_says_so():
    for make in (lambda: LabelSmoothing(NUMBERS, smoothing=0.1), lambda: ConfidencePenalty(NUMBERS, strength=0.1)):
        with pytest.raises(ConfigError, match=r"regulariser=\[(label_smoothing|confidence_penalty)\]: needs classes, not regression"):
            make()
    with pytest.raises(ConfigError, match=r"regulariser=\[cutmix\]: needs images \(C, H, W\), not \(64,\)"):
        CutMix(Spec("classification", (64,), 10), alpha=1.0)


# --- what it is for ----------------------------------------------------------------------------------------------------


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
