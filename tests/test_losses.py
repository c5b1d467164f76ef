"""Losses: what they equal, where they start, and what they refuse."""

import copy
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir

from plumbline import losses
from plumbline.config import ConfigError, build, check_node
from plumbline.data.core import Spec

CONF = Path(__file__).parents[1] / "conf"
CLASSES = Spec("classification", (8,), 5)
TWO = Spec("classification", (8,), 2)
NUMBERS = Spec("regression", (8,), 3)
MASKS = Spec("segmentation", (1, 2, 3), 12, masks=(2, 2, 3))
OPTIONS = sorted(path.stem for path in (CONF / "loss").glob("[!_]*.yaml"))


def option(name):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(f"loss/{name}").loss


def draw(seed, spec=CLASSES, samples=16):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(samples, spec.outputs, generator=generator)
    if spec.task == "regression":
        return logits, torch.randn(samples, spec.outputs, generator=generator)
    if spec.task == "segmentation":
        return logits, torch.randint(2, (samples, spec.outputs), generator=generator).float()
    return logits, torch.randint(0, spec.outputs, (samples,), generator=generator)


def soft(y, classes=CLASSES.outputs):
    return F.one_hot(y, classes).float()


def suits(name):
    """Data that a loss is made for."""
    return {"dice": MASKS, "tanh_square": TWO}.get(name, CLASSES if "cross_entropy" in name else NUMBERS)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_has_exactly_the_keys_of_its_function(name):
    node = option(name)
    check_node("loss", node, ["plumbline"])
    assert build(node)(suits(name))(*draw(0, suits(name))).shape == ()


NAMES = {
    "classification": [name for name in OPTIONS if suits(name) not in (MASKS, TWO)],
    "regression": [name for name in OPTIONS if suits(name) is NUMBERS],
    "segmentation": [name for name in OPTIONS if name not in ("cross_entropy", "tanh_square")],
}
FITTING = [("tanh_square", TWO), *((name, spec) for spec in (CLASSES, NUMBERS, MASKS) for name in NAMES[spec.task])]


@pytest.mark.parametrize(("name", "spec"), FITTING)
def test_the_mean_of_the_samples_losses_is_the_loss(name, spec):
    loss = build(option(name))(spec)
    for seed in range(3):
        logits, y = draw(seed, spec)
        each = loss(logits, y, reduction="none")
        assert each.shape == (16,)
        torch.testing.assert_close(each.mean(), loss(logits, y))
        torch.testing.assert_close(each[4], loss(logits[4:5], y[4:5]))


@pytest.mark.parametrize("name", [name for name in OPTIONS if name not in ("task", "dice")])
def test_integer_classes_cost_what_their_one_hot_vectors_cost(name):
    spec = TWO if name == "tanh_square" else CLASSES
    loss = build(option(name))(spec)
    for seed in range(3):
        logits, y = draw(seed, spec)
        torch.testing.assert_close(loss(logits, y), loss(logits, soft(y, spec.outputs)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_with_tanh_square_two_outputs_learn_to_the_bit_of_rounding_what_one_output_learns(seed):
    torch.manual_seed(seed)
    x, y = torch.randn(40, 3), torch.randint(2, (40,))
    hidden, pair, one = torch.nn.Linear(3, 4), torch.nn.Linear(4, 2), torch.nn.Linear(4, 1)
    other = copy.deepcopy(hidden)
    with torch.no_grad():
        one.weight.copy_((pair.weight[1:] - pair.weight[:1]) / 2**0.5)
        one.bias.copy_((pair.bias[1:] - pair.bias[:1]) / 2**0.5)
    loss, networks = losses.tanh_square(TWO), (torch.nn.Sequential(hidden, torch.nn.Tanh(), pair),
                                               torch.nn.Sequential(other, torch.nn.Tanh(), one, torch.nn.Tanh()))  # fmt: skip
    steps = [torch.optim.SGD(network.parameters(), lr=0.3) for network in networks]
    for _ in range(100):
        found = loss(networks[0](x), y), ((networks[1](x)[:, 0] - (2 * y - 1)) ** 2).mean() / 2
        for step, value in zip(steps, found, strict=True):
            step.zero_grad()
            value.backward()
            step.step()
    assert found[0].item() == pytest.approx(found[1].item(), rel=1e-4)
    assert found[0].item() < 0.45  # and it has learned something
    torch.testing.assert_close(hidden.weight, other.weight, rtol=1e-3, atol=1e-4)


def test_tanh_square_refuses_more_than_two_classes():
    with pytest.raises(ConfigError, match="loss=tanh_square: needs two classes, and these data have 5; try loss=cross"):
        losses.tanh_square(CLASSES)


def test_the_dice_loss_is_what_masks_do_not_share_and_nothing_where_all_is_right():
    y = torch.tensor([[1.0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]])
    sure = 50 * (2 * y - 1)
    assert losses.dice(MASKS)(sure, y).item() == 0.0  # the second mask is empty, and was left empty
    assert losses.dice(MASKS)(-sure, y).item() == pytest.approx((1 - 1 / 7 + 1 - 1 / 7) / 2)


def test_the_losses_are_their_formulas():
    logits, y = draw(1)
    p = logits.softmax(1)
    torch.testing.assert_close(losses.cross_entropy(CLASSES)(logits, y), -p[range(16), y].log().mean())
    q, t = logits.sigmoid(), soft(y)
    expected = -(t * q.log() + (1 - t) * (1 - q).log()).sum(1).mean()
    torch.testing.assert_close(losses.binary_cross_entropy(CLASSES)(logits, y), expected)
    outputs, y = draw(1, NUMBERS)
    error = outputs - y
    torch.testing.assert_close(losses.mse(NUMBERS)(outputs, y), error.square().mean())
    torch.testing.assert_close(losses.l1(NUMBERS)(outputs, y), error.abs().mean())
    small = error.abs() < 0.7
    expected = torch.where(small, error.square() / 2, 0.7 * (error.abs() - 0.35)).mean()
    torch.testing.assert_close(losses.huber(NUMBERS, delta=0.7)(outputs, y), expected)


def test_a_network_that_knows_nothing_pays_the_expected_first_loss():
    blank, y = torch.zeros(16, 5), draw(0)[1]
    for make, number in ((losses.cross_entropy, math.log(5)), (losses.binary_cross_entropy, 5 * math.log(2))):
        loss = make(CLASSES)
        assert loss.expected_first == number
        assert loss(blank, y).item() == pytest.approx(number, abs=1e-5)
    loss = losses.tanh_square(TWO)
    assert loss(torch.zeros(16, 2), draw(0, TWO)[1]).item() == loss.expected_first == 0.5
    y = torch.randn(1000, 3)
    y = (y - y.mean(0)) / y.std(0, unbiased=False)
    assert losses.mse(NUMBERS).expected_first == 1.0
    assert losses.mse(NUMBERS)(torch.zeros(1000, 3), y).item() == pytest.approx(1.0, abs=1e-5)
    assert losses.mse(CLASSES).expected_first is None
    assert losses.l1(NUMBERS).expected_first is losses.huber(NUMBERS, delta=1.0).expected_first is None


def test_the_task_chooses_its_loss():
    assert losses.task(CLASSES).name == "cross_entropy"
    assert losses.task(NUMBERS).name == "mse"


@pytest.mark.parametrize("make", [losses.cross_entropy, losses.binary_cross_entropy, losses.tanh_square])
def test_a_loss_of_classes_refuses_a_regression_and_says_what_fits(make):
    with pytest.raises(ConfigError, match=f"loss={make.__name__}: does not fit regression; accepted: mse, l1, huber"):
        make(NUMBERS)


@pytest.mark.parametrize("name", ["mse", "l1"])
def test_a_column_against_a_vector_is_refused_and_not_broadcast(name):
    loss = getattr(losses, name)(Spec("regression", (8,), 1))
    with pytest.raises(ValueError, match=r"\(16,\) do not belong to outputs of shape \(16, 1\)"):
        loss(torch.zeros(16, 1), torch.zeros(16))
    with pytest.raises(ValueError, match=r"shape \(16,\)"):
        loss(torch.zeros(16, 1), torch.zeros(16, dtype=torch.int64))


@pytest.mark.parametrize("y", [torch.zeros(16), torch.zeros(16, 1).long(), torch.zeros(15).long(), torch.zeros(16, 4)])
def test_classes_of_another_shape_are_refused(y):
    for name in ("cross_entropy", "mse"):
        with pytest.raises(ConfigError, match=rf"loss={name}: .*accepted: \(16, 5\) values, or \(16,\) whole numbers"):
            getattr(losses, name)(CLASSES)(torch.zeros(16, 5), y)


def test_low_precision_outputs_are_scored_in_float32():
    logits, y = draw(3)
    low = logits.bfloat16()
    assert losses.cross_entropy(CLASSES)(low, y).dtype == torch.float32
    torch.testing.assert_close(losses.cross_entropy(CLASSES)(low, y), losses.cross_entropy(CLASSES)(low.float(), y))
