"""The update, the epoch and the prediction."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from plumbline.data.core import Spec, Split
from plumbline.loop import Diverged, Training, epoch_order, fit, groups, predict, supervised, updates_per_epoch, usable
from plumbline.losses import cross_entropy
from plumbline.state import State

SPEC = Spec("classification", (6,), 3)


def samples(n: int, seed: int = 0, kind: torch.dtype = torch.float64) -> Split:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=draw, dtype=kind)
    return Split(x, x[:, :3].argmax(1), torch.arange(n).numpy())


def network(seed: int = 0, *, dropout: float = 0.0, kind: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3)).to(kind)


def training(model: nn.Module, lr: float = 0.1, **more: object) -> tuple[Training, State]:
    optimiser = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    for group in optimiser.param_groups:
        group["initial_lr"] = lr
    parts = Training(model, optimiser, cross_entropy(SPEC), [], [], torch.Generator(), **more)
    return parts, State(model, optimiser)


def train(parts: Training, state: State, split: Split, **options: int) -> list[dict[str, float]]:
    given = {"seed": 0, "epochs": 2, "batch_size": 8, "accumulate": 1, "watch": 2} | options
    return [news for news in fit(parts, state, split, supervised, lambda progress, scores: 1.0, **given) if news]


@pytest.mark.parametrize("accumulate", [2, 3, 4])
def test_accumulated_batches_are_one_large_batch(accumulate: int) -> None:
    split, results = samples(96), []
    for size, times in ((8, accumulate), (8 * accumulate, 1)):
        parts, state = training(network())
        train(parts, state, split, batch_size=size, accumulate=times)
        results.append(torch.cat([p.flatten() for p in parts.model.parameters()]))
    assert torch.allclose(results[0], results[1], rtol=0, atol=1e-6)  # the loss is computed in float32


def test_a_step_is_a_function_of_seed_epoch_and_step_and_not_of_what_was_drawn_before() -> None:
    results = []
    for noise in (0, 1000):
        parts, state = training(network(dropout=0.5))
        for news in fit(
            parts,
            state,
            samples(64),
            supervised,
            lambda p, s: 1.0,
            seed=3,
            epochs=2,
            batch_size=8,
            accumulate=1,
            watch=0,
        ):
            torch.rand(noise)
            assert news is None or news["epoch"] > 0
        results.append([p.detach().clone() for p in parts.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_an_epoch_visits_every_sample_once_in_an_order_of_its_own(seed: int) -> None:
    first, second = epoch_order(100, seed, 0), epoch_order(100, seed, 1)
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(100))
    assert not torch.equal(first, second)
    assert torch.equal(first, epoch_order(100, seed, 0))
    assert not torch.equal(first, epoch_order(100, seed + 1, 0))


@pytest.mark.parametrize(
    ("n", "size", "accumulate", "updates"),
    [(100, 10, 1, 10), (101, 10, 1, 10), (102, 10, 1, 11), (100, 10, 3, 4), (1, 10, 1, 1), (3, 1, 1, 3), (5, 8, 2, 1)],
)
def test_the_number_of_updates_is_what_the_groups_yield(n: int, size: int, accumulate: int, updates: int) -> None:
    split = samples(n)
    assert updates_per_epoch(n, size, accumulate) == updates
    order = torch.arange(n)[: usable(n, size)]
    assert len(list(groups(split.batches(size, order), accumulate))) == updates
    assert [len(y) for _, y in split.batches(size, order)][-1] > 1 or n == 1 or size == 1


def test_the_gradient_is_clipped_to_the_norm_asked_for_and_recorded_as_it_was() -> None:
    model = network()
    parts, _ = training(model, grad_clip=1e-3)
    parts.watching = True
    x, y = next(samples(8).batches(8))
    supervised(parts, [(x, y)])
    clipped = nn.utils.get_total_norm([p.grad for p in model.parameters()])
    assert clipped.item() == pytest.approx(1e-3, rel=1e-4)
    assert parts.gradients[-1].item() > 1e-2


def test_the_recorded_norms_and_ratios_are_those_of_the_update() -> None:
    model = network()
    before = copy.deepcopy(model)
    parts, state = training(model)
    record = train(parts, state, samples(8), epochs=1, watch=1)[0]
    moved = (model[0].weight - before[0].weight).norm() / before[0].weight.norm()
    assert record["update_ratio/0"] == pytest.approx(moved.item(), rel=1e-9)
    assert record["grad_norm/0"] == pytest.approx(model[0].weight.grad.norm().item(), rel=1e-9)
    assert record["fit/grad_norm"] == pytest.approx(
        nn.utils.get_total_norm([p.grad for p in model.parameters()]).item()
    )


@pytest.mark.parametrize(("spoil", "where"), [("input", "the input"), ("weight", "0.weight"), ("layer", "layer 1")])
def test_a_loss_that_is_no_number_is_blamed_on_where_it_began(spoil: str, where: str) -> None:
    class Root(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sqrt()  # of negative numbers

    model = nn.Sequential(nn.Linear(6, 8), Root() if spoil == "layer" else nn.ReLU(), nn.Linear(8, 3)).double()
    split = samples(16)
    if spoil == "input":
        split.x[3, 2] = float("nan")
    if spoil == "weight":
        with torch.no_grad():
            model[0].weight[0, 0] = float("inf")
    parts, state = training(model)
    with pytest.raises(Diverged, match=rf"epoch 1, step 1, learning rate 0.1; .*{where}"):
        train(parts, state, split, batch_size=16)


def test_the_loss_as_trained_is_the_mean_over_samples_not_over_batches() -> None:
    model = network()
    parts, state = training(model, lr=0.0)
    split = samples(20)
    record = train(parts, state, split, epochs=1)[0]  # batches of 8, 8 and 4
    expected = nn.functional.cross_entropy(model(split.x).float(), split.y).item()
    assert record["fit/loss"] == pytest.approx(expected, rel=1e-6)


def test_prediction_is_in_evaluation_mode_in_storage_order_and_leaves_the_mode_as_it_was() -> None:
    model = network(dropout=0.9).train()
    split = samples(25)
    outputs, y = predict(model, split, 10, torch.no_grad)
    assert model.training
    assert torch.equal(y, split.y)
    assert torch.equal(outputs, model.eval()(split.x).float())


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_an_epoch_that_goes_on_leaves_out_the_same_last_sample(stop: int) -> None:
    """33 samples in batches of 8: the last one alone is no batch, also when it is all that is left."""
    weights = []
    for stops in (None, stop + 1):
        parts, state = training(network())
        options = {"seed": 0, "epochs": 1, "batch_size": 8, "accumulate": 1, "watch": 0}
        going = fit(parts, state, samples(33), supervised, lambda p, s: 1.0, **options)
        for _ in range(stops or 0):
            next(going)
        if stops:  # the same state, a new generator: as a resumed run has
            going = fit(parts, state, samples(33), supervised, lambda p, s: 1.0, **options)
        assert next(news for news in going if news)["step"] == 4
        weights.append(torch.cat([p.flatten() for p in parts.model.parameters()]))
    assert torch.equal(*weights)


def test_a_network_that_works_in_place_does_not_change_the_data() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(6, 3).double()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x -= 1.0
            return self.head(x)

    split = samples(20)
    before = split.x.clone()
    first, _ = predict(InPlace(), split, 10, torch.no_grad)
    assert torch.equal(split.x, before)
    assert first.shape == (20, 3)
