"""Steps, phases and averages: what each computes, and that a run which uses it goes on to the same bits."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch
from conftest import composed
from test_options import CPU, SHORT, changed, images
from torch import nn

from plumbline.assemble import assemble, rehearse
from plumbline.averaging import refresh_norms
from plumbline.config import ConfigError, check_values
from plumbline.loop import fit, supervised

RESNET = ["model=resnet", "model.channels=[4,8]", "model.blocks=1"]
WAYS = {
    "swa": [*RESNET, "swa=0.4"],
    "sam": [*RESNET, "step=sam", "regulariser=[dropout]", "augment=[shift]"],
    "adam_then_sgd": ["optimiser=adam_then_sgd", "optimiser.switch=6", "optimiser.momentum=0.9"],
    "progressive_resizing": [*RESNET, "step=progressive_resizing", "step.until=1"],
    "thawing": [
        *RESNET,
        "transfer=weights",
        "transfer.freeze=[stem,stages]",
        "transfer.thaw=[0.3,0.6]",
        "optimiser=sgd",
    ],
    "layer_rates": ["optimiser.layer_rates=[0.1,1]", "schedule=cosine_restarts", "schedule.cycles=2"],
}


def parts(*words: str):
    cfg, data = changed(composed(*words), SHORT), images()
    training, state, step, schedule = assemble(cfg, data, CPU)
    options = {key: cfg[key] for key in ("seed", "epochs", "batch_size", "accumulate", "watch")}
    return training, state, fit(training, state, data.train, step, schedule, **options)


def bits(state) -> list[bytes]:
    averaged = [] if state.swa is None else list(state.swa.state_dict().values())
    return [
        t.numpy().tobytes()
        for t in [*state.model.state_dict().values(), *state.network.state_dict().values(), *averaged]
    ]


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=[pytest.mark.slow] * (way in ("sam", "thawing", "layer_rates"))) for way in WAYS]
)
def test_a_run_stopped_anywhere_goes_on_to_the_same_bits(way: str, tmp_path: Path) -> None:
    _, whole, epochs = parts(*WAYS[way])
    records = [record for record in epochs if record]
    for turns in (2, 5, 8, 13):  # in an epoch, at its end, in the next ones; 15 are all
        _, state, epochs = parts(*WAYS[way])
        list(islice(epochs, turns))
        state.save(tmp_path / "last.pt")
        _, state, epochs = parts(*WAYS[way])
        state.load(tmp_path / "last.pt")
        rest = [record for record in epochs if record]
        assert bits(state) == bits(whole)
        timing = ("seconds", "samples_per_s")
        plain = [[{k: v for k, v in r.items() if k not in timing} for r in some] for some in (rest, records)]
        assert plain[0] == plain[1][len(records) - len(rest) :]


def test_swa_is_the_mean_of_the_weights_at_the_ends_of_its_epochs() -> None:
    training, state, epochs = parts("swa=0.4")  # of three epochs: the second and the third
    ends = [nn.utils.parameters_to_vector(training.model.parameters()).detach().clone() for record in epochs if record]
    averaged = nn.utils.parameters_to_vector(state.network.parameters())
    assert torch.allclose(averaged, (ends[1] + ends[2]) / 2, atol=1e-7)
    assert not torch.allclose(averaged, ends[2], atol=1e-4)


def test_the_norms_of_averaged_weights_have_the_statistics_of_train_under_them() -> None:
    _, state, epochs = parts(*RESNET, "swa=0")
    list(epochs)
    data, network = images(), state.network
    seen = []
    network.stem[0].register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    network.eval()(data.train.x)
    assert torch.allclose(network.stem[1].running_mean, seen[0].mean((0, 2, 3)), atol=1e-6)


def test_refreshed_norms_leave_the_mode_the_momentum_and_dropout_alone() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)).train()
    before = torch.get_rng_state()
    refresh_norms(model, images().train, 12, torch.no_grad)
    assert torch.equal(torch.get_rng_state(), before)
    assert [model.training, model[2].momentum] == [True, 0.1]


def test_two_averages_of_one_network_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"swa=0.5 ema=0.9: are two averages"):
        check_values(composed("swa=0.5", "ema=0.9"))


def test_the_gradient_of_sam_is_that_at_rho_uphill_and_the_weights_come_back() -> None:
    training, _, _ = parts("step=sam", "optimiser=sgd", "optimiser.lr=0.1")
    model, data = training.model, images()
    from plumbline.steps import sam

    batch = (data.train.x[:12], data.train.y[:12])
    names = [p for p in model.parameters()]
    before = [p.detach().clone() for p in names]
    uphill = torch.autograd.grad(training.forward(*batch), names)
    length = torch.stack([g.norm() for g in uphill]).norm()
    with torch.no_grad():
        for p, g in zip(names, uphill, strict=True):
            p.add_(g, alpha=float(0.3 / length))
    expected = torch.autograd.grad(training.forward(*batch), names)
    with torch.no_grad():
        for p, old in zip(names, before, strict=True):
            p.copy_(old)
    loss = sam(training, [batch], rho=0.3)
    assert float(loss) == pytest.approx(float(training.loss(model_at(model, before, batch[0]), batch[1])), rel=1e-5)
    rate = training.optimiser.param_groups[0]["lr"]
    for p, old, g in zip(names, before, expected, strict=True):
        assert torch.allclose(p, old - rate * g, atol=1e-6)


def test_sam_leaves_out_an_update_whose_scaled_gradient_overflows() -> None:
    """With fp16, an infinite gradient has no direction: the weights stay, and the scale becomes smaller."""
    from plumbline.steps import sam

    training, _, _ = parts("step=sam", "precision=fp16")
    training.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**100)
    data, before = images(), [p.detach().clone() for p in training.model.parameters()]
    loss = sam(training, [(data.train.x[:12], data.train.y[:12])], rho=0.05)
    assert bool(torch.isfinite(loss))
    assert training.scaler.get_scale() == 2.0**99
    assert all(torch.equal(*pair) for pair in zip(before, training.model.parameters(), strict=True))


def model_at(model: nn.Module, weights: list[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    named = {name: w for (name, _), w in zip(model.named_parameters(), weights, strict=True)}
    return torch.func.functional_call(model, named, (x,))


def test_images_grow_from_half_their_side_to_the_whole() -> None:
    training, _, epochs = parts(*WAYS["progressive_resizing"])
    sizes = []
    training.model.register_forward_pre_hook(lambda module, inputs: sizes.append(inputs[0].shape[-1]))
    list(epochs)
    assert sorted(set(sizes)) == [4, 5, 6, 7]  # of 8: the last quarter would be the whole
    assert sizes == sorted(sizes)
    training, _, epochs = parts(*WAYS["progressive_resizing"], "step.until=0.5")
    training.model.register_forward_pre_hook(lambda module, inputs: sizes.append(inputs[0].shape[-1]))
    list(epochs)
    assert sizes[-1] == 8


def test_a_network_that_takes_one_size_only_is_refused_for_growing_images() -> None:
    with pytest.raises(ConfigError, match="step"):
        rehearse(composed("step=progressive_resizing"), images().spec)


def test_adam_turns_into_sgd_at_its_update_with_sgds_rate() -> None:
    training, _, epochs = parts(
        "optimiser=adam_then_sgd", "optimiser.switch=5", "optimiser.sgd_lr=0.3", "schedule=constant"
    )
    rates = []
    for news in epochs:
        if news is None:
            rates.append(training.optimiser.updates)
    assert rates == list(range(1, 13))
    assert type(training.optimiser.now).__name__ == "SGD"
    assert training.optimiser.param_groups[0]["lr"] == 0.3
    x, y = images().train.x[:12], images().train.y[:12]
    before = [p.detach().clone() for p in training.model.parameters()]
    supervised(training, [(x, y)])
    for p, old in zip(training.model.parameters(), before, strict=True):
        assert torch.allclose(p, old - 0.3 * p.grad, atol=1e-6)  # plain steps, nothing of Adam's
