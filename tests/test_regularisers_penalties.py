"""Penalties: each term is its sum, its gradient is the sum's, and an activity is that of the right pass."""

import copy
import math

import pytest
import torch
from test_regularisers import IMAGES, NONE, convnet, draw, mlp

from plumbline.config import ConfigError
from plumbline.regularisers import L1, L2, ConfidencePenalty, ElasticNet, WeightNorm


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
                kind(IMAGES, **{key: pair[i] for key, pair in both.items()}, layers=["all"])
                for i, kind in enumerate((L1, L2))
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


def test_each_layer_is_listed_with_what_its_kernel_bias_and_activity_add():
    model = mlp()
    strengths = {
        "kernel_l1": 0.1,
        "kernel_l2": 0.0,
        "bias_l1": 0.0,
        "bias_l2": 0.2,
        "activity_l1": 0.3,
        "activity_l2": 0.0,
    }
    regulariser = ElasticNet(IMAGES, **strengths, layers=["1", "6"])
    regulariser.attach(model)
    x, _ = draw(samples=10)
    logits = model(x)
    listed = regulariser.by_layer(model)
    assert list(listed) == ["1", "6"]
    for name, layer, output in (("1", model[1], model[1](x.flatten(1))), ("6", model[6], logits)):
        expected = {"kernel": 0.1 * layer.weight.abs().sum(), "bias": 0.2 * layer.bias.square().sum()}
        expected["activity"] = 0.3 * output.abs().sum() / 10
        assert listed[name] == pytest.approx({part: term.item() for part, term in expected.items()}, rel=1e-5)
    logits = model(x)
    total = sum(term for parts in listed.values() for term in parts.values())
    assert regulariser.penalty(model, logits).item() == pytest.approx(total, rel=1e-5)


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
