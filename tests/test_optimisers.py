"""Optimisers: which weights decay, at which rate a layer learns, and that the fast forms are the plain ones."""

import copy
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import composed
from hydra import compose, initialize_config_dir
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from plumbline import optimisers
from plumbline.config import ConfigError, build, check_node

CONF = Path(__file__).parents[1] / "conf"
OPTIONS = sorted(path.stem for path in (CONF / "optimiser").glob("[!_]*.yaml"))
GROUPS = {"lr": 0.1, "weight_decay": 0.0, "decoupled": False, "spare": False, "layer_rates": None}
SGD = {"momentum": 0.0, "nesterov": False, **GROUPS}
ADAM = {"betas": [0.9, 0.999], "eps": 1e-8, **GROUPS}


def option(name, **changes):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(f"optimiser/{name}", [f"optimiser.{key}={value}" for key, value in changes.items()]).optimiser


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))


def train(model, optimiser, steps=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x, y = torch.randn(8, 6, generator=generator), torch.randint(0, 3, (8,), generator=generator)
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def rates(model, optimiser):
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {names[p]: group["lr"] for group in optimiser.param_groups for p in group["params"]}


def still(model):
    """The network with gradients of zero: what still moves is the decay."""
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    return model


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_finds_the_bottom_of_a_bowl(name):
    node = option(name, lr=0.01)
    check_node("optimiser", node, ["plumbline"])
    model = nn.Linear(4, 1, bias=False)
    nn.init.ones_(model.weight)
    optimiser = build(node)(model)
    for _ in range(100):
        optimiser.zero_grad()
        loss = model.weight.square().sum()
        loss.backward()
        optimiser.step()
    assert loss < 3
    assert all(group["initial_lr"] == group["lr"] == 0.01 for group in optimiser.param_groups)


@pytest.mark.parametrize("name", OPTIONS)
def test_decoupled_decay_shrinks_weights_by_the_present_rate_and_spares_norms_and_biases(name):
    model = still(network())
    optimiser = build(option(name, lr=0.01, weight_decay=0.5, decoupled=True, spare=True))(model)
    before = copy.deepcopy(model.state_dict())
    optimiser.step()
    for group in optimiser.param_groups:
        group["lr"] = 0.1
    optimiser.step()
    for key, parameter in model.named_parameters():
        factor = (1 - 0.01 * 0.5) * (1 - 0.1 * 0.5) if parameter.dim() > 1 else 1.0
        torch.testing.assert_close(parameter.detach(), before[key] * factor, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", ["sgd", "rmsprop", "adagrad"])
def test_decoupled_decay_outlives_copies_and_restored_states_and_is_applied_once(kind):
    model = still(network())
    make = build(option(kind, lr=0.1, weight_decay=0.5, decoupled=True, spare=False))
    original = make(model)
    original.step()
    twin, optimiser = copy.deepcopy((model, original))
    restored = make(still(copy.deepcopy(model)))
    restored.load_state_dict(original.state_dict())
    before = twin[0].weight.detach().clone()
    still(twin)
    optimiser.load_state_dict(optimiser.state_dict())
    optimiser.step()
    torch.testing.assert_close(twin[0].weight.detach(), before * 0.95, rtol=1e-6, atol=0)
    restored.step()
    weight = restored.param_groups[0]["params"][0].detach()
    torch.testing.assert_close(weight, before * 0.95, rtol=1e-6, atol=0)


def test_decoupled_sgd_is_sgd_on_shrunken_weights():
    model, by_hand = network(), network()
    optimiser = optimisers.sgd(model, **{**SGD, "momentum": 0.9, "weight_decay": 0.1, "decoupled": True})
    reference = torch.optim.SGD(by_hand.parameters(), lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        x = torch.randn(8, 6, generator=generator)
        for net, optim in ((model, optimiser), (by_hand, reference)):
            optim.zero_grad()
            net(x).square().mean().backward()
        with torch.no_grad():
            for parameter in by_hand.parameters():
                parameter.mul_(1 - 0.1 * 0.1)
        optimiser.step()
        reference.step()
    for ours, theirs in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            lambda m: optimisers.sgd(m, **{**SGD, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01, foreach=False),
        ),
        (
            lambda m: optimisers.adam(m, **{**ADAM, "lr": 0.01, "weight_decay": 0.1}),
            lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1, foreach=False),
        ),
        (
            lambda m: optimisers.adam(m, **{**ADAM, "lr": 0.01, "weight_decay": 0.1, "decoupled": True}),
            lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, foreach=False),
        ),
        (
            lambda m: optimisers.adagrad(m, **{**GROUPS, "eps": 1e-10, "weight_decay": 0.1}),
            lambda p: torch.optim.Adagrad(p, lr=0.1, weight_decay=0.1, foreach=False),
        ),
    ],
    ids=["sgd", "adam", "adamw", "adagrad"],
)
def test_the_fused_form_is_torchs_plain_loop(ours, theirs, seed):
    model, reference = network(seed), network(seed)
    for net in (model, reference):
        net[1] = nn.Identity()  # before a norm, a bias has only rounding errors for gradients, and Adam enlarges them
    optimiser = ours(model)
    assert optimiser.param_groups[0]["fused"] is True
    torch.testing.assert_close(
        train(model, optimiser, seed=seed),
        train(reference, theirs(reference.parameters()), seed=seed),
        rtol=1e-5,
        atol=1e-6,
    )


def test_the_presets_are_what_their_papers_meant():
    adamw, adam, sgd = (build(option(name))(network()) for name in ("adamw", "adam", "sgd"))
    assert isinstance(adamw, torch.optim.AdamW)
    assert not isinstance(adam, torch.optim.AdamW)
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.01, 0.0]
    assert [len(group["params"]) for group in adamw.param_groups] == [3, 5]
    assert [len(group["params"]) for group in sgd.param_groups] == [8]


def test_adam_at_a_thousandth_is_what_a_run_takes_unless_it_is_told():
    optimiser = build(composed().optimiser)(network())
    assert isinstance(optimiser, torch.optim.Adam)  # with the decay of AdamW
    assert {group["lr"] for group in optimiser.param_groups} == {0.001}
    assert build(option("adam"))(network()).param_groups[0]["lr"] == 0.001


def test_a_norm_over_several_axes_is_spared_too():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.LayerNorm([2, 4, 4]))
    optimiser = optimisers.sgd(model, **{**SGD, "weight_decay": 0.1, "spare": True})
    decays = {p: group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    assert [decays[p] for p in model.parameters()] == [0.1, 0.0, 0.0, 0.0]


def test_a_group_is_made_only_for_a_distinct_rate_and_decay():
    count = lambda **changes: len(optimisers.sgd(network(), **{**SGD, **changes}).param_groups)  # noqa: E731
    assert count(spare=True) == 1
    assert count(spare=True, weight_decay=0.1) == 2
    assert count(layer_rates=[0.1, 1.0]) == 3
    assert count(layer_rates=[1.0, 1.0]) == 1
    assert count(layer_rates=[0.1, 1.0], spare=True, weight_decay=0.1) == 6


def test_rates_grow_geometrically_from_the_first_to_the_last_layer_and_norms_follow_their_layer():
    model = network()
    found = rates(model, optimisers.sgd(model, **{**SGD, "lr": 2.0, "layer_rates": [0.1, 1.0]}))
    first, second, third = 0.2, 2 * math.sqrt(0.1), 2.0
    expected = {"0": first, "1": first, "3": second, "5": third}
    assert found == {
        f"{layer}.{kind}": pytest.approx(rate) for layer, rate in expected.items() for kind in ("weight", "bias")
    }


class Tokens(nn.Module):
    """Bare parameters, an attention, a norm, tied weights and a reparametrised layer."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 4))
        self.embed = nn.Embedding(7, 4)
        self.attention = nn.MultiheadAttention(4, 2)
        self.norm = nn.LayerNorm(4)
        self.dense = weight_norm(nn.Linear(4, 4))
        self.head = nn.Linear(4, 7)
        self.head.weight = self.embed.weight


def test_a_layer_is_found_whatever_a_network_is_made_of():
    names = {parameter: name for name, parameter in Tokens().named_parameters()}
    model = Tokens()
    depth = {
        name: layer
        for (name, _), layer in zip(model.named_parameters(), optimisers.depths(model).values(), strict=True)
    }
    assert len(names) == len(depth) == 12
    assert depth["token"] == depth["embed.weight"] == 0
    assert {layer for name, layer in depth.items() if name.startswith("attention")} == {1}
    assert depth["norm.weight"] == depth["norm.bias"] == 1
    assert {layer for name, layer in depth.items() if name.startswith("dense")} == {2}
    assert depth["head.bias"] == 3


def test_frozen_parameters_are_left_out_and_do_not_count_as_layers():
    model = network()
    model[0].requires_grad_(False)
    optimiser = optimisers.sgd(model, **{**SGD, "layer_rates": [0.1, 1.0]})
    assert rates(model, optimiser) == {
        "1.weight": pytest.approx(0.01), "1.bias": pytest.approx(0.01), "3.weight": pytest.approx(0.1 * 0.1**0.5),
        "3.bias": pytest.approx(0.1 * 0.1**0.5), "5.weight": pytest.approx(0.1), "5.bias": pytest.approx(0.1),
    }  # fmt: skip
    with pytest.raises(ConfigError, match="no parameter to train"):
        optimisers.sgd(model.requires_grad_(False), **SGD)


def test_a_saved_state_goes_on_bitwise():
    for name in OPTIONS:
        make = build(option(name))
        whole, first = network(), network()
        expected = (train(whole, (optimiser := make(whole)), 5), train(whole, optimiser, 5, seed=1))[1]
        train(first, (half := make(first)), 5)
        second = network(seed=9)
        second.load_state_dict(first.state_dict())
        resumed = make(second)
        resumed.load_state_dict(half.state_dict())
        assert torch.equal(train(second, resumed, 5, seed=1), expected)


@pytest.mark.parametrize("name", ["Adadelta", "Adafactor", "Adamax", "ASGD", "RAdam", "Rprop"])
@pytest.mark.parametrize("decoupled", [False, True])
def test_any_optimiser_of_torch_can_be_named(name, decoupled):
    values = {**GROUPS, "lr": 0.01, "decoupled": decoupled, "weight_decay": 0.1 if decoupled else 0.0}
    model = network()
    optimiser = optimisers.by_name(model, name=name, options={}, **values)
    assert type(optimiser).__name__ == name
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert not torch.equal(train(model, optimiser, 1), before)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "Adamx"}, r"optimiser\.name=Adamx: .*did you mean 'Adamax'.*accepted: ASGD"),
        ({"name": "LBFGS"}, r"optimiser\.name=LBFGS: a step of it needs a closure"),
        ({"name": "SparseAdam"}, "sparse gradients only"),
        ({"name": "Optimizer"}, "no such optimiser"),
        ({"name": "Adamax", "options": {"bets": [0.9, 0.99]}}, r"options\.bets=.*did you mean 'betas'"),
        ({"name": "Adamax", "options": {"lr": 0.1}}, r"options\.lr=0\.1: stands one level higher"),
        ({"name": "Adamax", "options": {"eps": -1.0}}, "Adamax refuses: Invalid epsilon"),
        ({"name": "Muon"}, "Muon refuses: Muon only supports 2D parameters"),
        ({"name": "Rprop", "weight_decay": 0.1}, r"optimiser\.decoupled=False: Rprop has no coupled weight decay"),
        ({"name": "AdamW", "weight_decay": 0.1}, r"optimiser\.decoupled=False: AdamW has no coupled weight decay"),
    ],
)
def test_a_name_or_option_that_torch_lacks_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        optimisers.by_name(network(), **{**GROUPS, "options": {}, **values})


def test_nesterov_without_momentum_is_refused():
    with pytest.raises(ConfigError, match=r"optimiser\.nesterov=True: must be false without momentum"):
        optimisers.sgd(network(), **{**SGD, "nesterov": True})


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "NAdam", "RMSprop", "Adagrad", "Adamax", "Rprop", "Adadelta"])
def test_sparing_the_compiler_changes_no_bit_of_a_step_nor_of_what_is_saved(name):
    kind, weights, states = getattr(torch.optim, name), [], []
    for made in (kind, optimisers._without_compiler(kind)):
        model = network()
        optimiser = made(model.parameters(), lr=0.01)
        weights.append(train(model, optimiser))
        restored = copy.deepcopy(optimiser)
        restored.load_state_dict(optimiser.state_dict())
        states.append(restored.state_dict())
    assert torch.equal(*weights)
    assert str(states[0]) == str(states[1])


def test_a_run_does_not_load_the_compiler(tmp_path):
    """It takes a second and 100 MB."""
    words = ["data=iris", "epochs=2", "threads=1", "bootstrap=2", "report=false", f"outputs={tmp_path}"]
    code = "import sys; from plumbline.train import main; main(); print('torch._dynamo' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(CONF.parent / "src")}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "False", done.stdout + done.stderr
