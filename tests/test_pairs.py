"""Pairs are made inside each split, one branch judges both halves, and that is worth what its experiment says."""

from __future__ import annotations

import types
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import torch
from conftest import composed, noted
from sklearn.linear_model import LogisticRegression
from test_models import DIGITS, TABLE, count, refusal

from plumbline import tasks
from plumbline.card import layers
from plumbline.config import ConfigError, build, check_config
from plumbline.data import Arrays, Data, Spec
from plumbline.data.core import Splits
from plumbline.data.pairs import in_pairs
from plumbline.models.siamese import MERGES, Branch, Siamese

OPENING = types.SimpleNamespace(written=True)
STYLE = {"norm": "none", "activation": "relu"}
PAIR = Spec("classification", (2, 5), 3)


def drawn(*words: str) -> Data:
    cfg = composed("data=pairs", *words)
    check_config(cfg)
    return build(cfg.data)()


def items(split) -> set[str]:
    return {item for pair in split.ids for item in pair.split("-")}


def siamese(merge: str, **changes) -> Siamese:
    torch.manual_seed(0)
    return Siamese(PAIR, **{"hidden": [8], "embedding": 4, "merge": merge, "joint": [6]} | STYLE | changes)


def some(count: int = 7) -> torch.Tensor:
    return torch.randn(count, 2, 5, generator=torch.Generator().manual_seed(0))


# --- the data --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["data.split=kfold", "data.fold=2"], ["data.split_seed=3"]], ids=str)
def test_no_item_is_in_two_splits_and_n_items_are_n_squared_pairs(words: list[str]) -> None:
    data = drawn(*words)
    parts = [data.train, data.val, data.open_test(OPENING)]
    assert sum(len(items(part)) for part in parts) == len(set.union(*map(items, parts))) == 200
    assert [len(part) for part in parts] == [len(items(part)) ** 2 for part in parts]
    assert all(len(set(part.ids)) == len(part) for part in parts)


def test_a_pair_holds_its_two_items_in_their_order_and_its_target_is_symmetric() -> None:
    train = drawn().train
    place = {name: at for at, name in enumerate(train.ids)}
    turned = [place["-".join(reversed(name.split("-")))] for name in train.ids]
    assert torch.equal(train.x[turned], train.x.flip(1))
    assert torch.equal(train.y[turned], train.y)
    assert train.y.float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert list(train.groups) == [int(name.split("-")[0]) for name in train.ids]


def test_the_target_depends_on_both_items_and_on_neither_alone() -> None:
    data = drawn()
    train, val = data.train, data.val
    shares = [train.y[train.groups == item].float().mean().item() for item in np.unique(train.groups)]
    assert min(shares) > 0.3 and max(shares) < 0.7
    alone = LogisticRegression(max_iter=300).fit(train.x.flatten(1), train.y)  # a sum of what each half says
    assert alone.score(val.x.flatten(1), val.y) < 0.6
    products = [(part.x[:, 0, :, None] * part.x[:, 1, None]).flatten(1) for part in (train, val)]
    together = LogisticRegression(max_iter=300).fit(products[0], train.y)
    assert together.score(products[1], val.y) > 0.8


def test_both_halves_have_one_scale_that_train_alone_made() -> None:
    data, plain = drawn(), drawn("data.normalise=false")
    one_each = plain.train.x[::121, 0]  # the pairs of an item with itself
    assert torch.equal(one_each, plain.train.x[::121, 1])
    assert torch.allclose(data.scale.mean, one_each.mean(0), atol=1e-5)
    assert torch.allclose(data.scale.std, one_each.std(0, correction=0), atol=1e-5)
    assert torch.allclose(data.scale(plain.val.x), data.val.x, atol=1e-5)


def test_items_of_validation_change_nothing_in_train() -> None:
    generator = np.random.default_rng(0)
    x, kind = generator.normal(size=(40, 3)), np.arange(40) % 2
    spec, options = Spec("classification", (2, 3), 2, ("same", "other")), dict(composed("data=pairs").data)
    options = {key: options[key] for key in ("split", "split_seed", "val_fraction", "test_fraction", "folds", "fold", "subset",
                                             "normalise", "apart")}  # fmt: skip
    make = lambda x: in_pairs(spec, lambda: Arrays(x, kind), lambda a, b: a != b, classes=(), **options)  # noqa: E731
    first = make(x)
    others = sorted(int(item) for item in items(first.val))
    moved = x.copy()
    moved[others] += 100
    second = make(moved)
    assert torch.equal(first.train.x, second.train.x) and torch.equal(first.scale.mean, second.scale.mean)
    assert not torch.equal(first.val.x, second.val.x)


def test_pairs_dealt_out_at_random_share_every_item_and_the_audit_calls_it_a_leak(run) -> None:
    data = drawn("data.apart=leaking_pairs")
    assert items(data.val) <= items(data.train)
    found = {}
    for apart in ("items", "leaking_pairs"):
        _, folder = run("data=pairs", f"data.apart={apart}", "epochs=0", "checks=quick", "report=false", folder=apart)
        found[apart] = {finding["id"]: finding["severity"] for finding in noted(folder)["findings"]}
    assert found["leaking_pairs"]["data.groups"] == "fail"
    assert found["items"].get("data.groups", "ok") == "ok"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("data.apart=pairs", "data.apart=pairs: leaks, since every item of validation would be in train"),
        ("data.apart=halves", "data.apart=halves: must be one of items, pairs, leaking_pairs"),
        ("data.items=5", "data.items=5: must be a whole number in [10, 10000]"),
        ("data.traits=0", "data.traits=0: must be a whole number in [1, 10000]"),
        ("data.noise=-1", "data.noise=-1: must be a number that is 0 or in"),
        ("data.split=grouped", "data.split=grouped"),
    ],
)
def test_what_cannot_be_paired_is_said(word: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        drawn(word)
    assert said in str(error.value)


def test_items_that_are_no_half_of_the_specs_pairs_are_refused() -> None:
    options = {key: value for key, value in composed("data=pairs").data.items() if key in composed("data=iris").data}
    del options["_target_"]
    make = lambda: Arrays(np.zeros((20, 3)), np.arange(20) % 2)  # noqa: E731
    data = in_pairs(PAIR, make, lambda a, b: a != b, apart="items", classes=(), **options)
    with pytest.raises(ConfigError, match=r"an item is \(3,\), but the spec says that a pair is \(2, 5\)"):
        _ = data.train


# --- intervals -------------------------------------------------------------------------------------------------------

PLAIN = Spec("classification", (1,), 2)


def judged(n: int, seed: int, items: torch.Tensor | None, resamples: int) -> tuple[float, float]:
    """The interval of the accuracy on n² pairs, where it is the items that make a pair easy or hard."""
    generator = torch.Generator().manual_seed(seed)
    of = torch.cartesian_prod(torch.arange(n), torch.arange(n))
    ease, luck = torch.randn(n, generator=generator), torch.randn(n * n, generator=generator)
    right = (ease[of].sum(1) + 1 + luck > 0).float()
    y = torch.zeros(n * n, dtype=torch.long)
    data = Data(PLAIN, lambda: Splits(None, None, lambda: None, lambda: ""))
    return tuple(tasks.interval(data, torch.stack([right, 1 - right], 1), right, y, resamples, items)["val/accuracy"])


def test_the_interval_over_items_holds_the_truth_in_about_95_of_100_draws_and_that_over_pairs_in_a_third() -> None:
    n, draws = 40, 60
    of = torch.cartesian_prod(torch.arange(n), torch.arange(n))
    true = ((n - 1) * NormalDist().cdf(1 / 3**0.5) + NormalDist().cdf(1 / 5**0.5)) / n
    held, width = {}, {}
    for name, items in (("items", of), ("pairs", None)):
        ends = [judged(n, seed, items, 60) for seed in range(draws)]
        held[name] = np.mean([low <= true <= high for low, high in ends])
        width[name] = np.mean([high - low for low, high in ends])
    assert held["items"] >= 0.85
    assert held["pairs"] < 0.5
    assert width["items"] > 3 * width["pairs"]


def test_a_pair_counts_as_often_as_both_of_its_items_and_an_item_with_itself_as_often_as_it() -> None:
    items = torch.tensor([[7, 7], [7, 9], [9, 7], [9, 9]])
    for weights in tasks.resampled(4, 50, items):
        seven, nine = weights[0].item(), weights[3].item()
        assert seven + nine == 2
        assert weights.tolist() == [seven, seven * nine, seven * nine, nine]


def test_the_items_of_a_pair_are_those_of_its_name_and_make_its_intervals_wider(run, monkeypatch) -> None:
    train = drawn().train
    assert [f"{a}-{b}" for a, b in train.items[:500].tolist()] == list(train.ids[:500])
    monkeypatch.setattr("plumbline.run.write_report", lambda directory: None)
    _, folder = run("data=pairs", "model=siamese", "epochs=1", "bootstrap=200", "report=false")
    low, high = noted(folder)["interval"]["val/loss"]
    losses = np.load(folder / "predictions.npz")["losses"]
    assert high - low > 1.5 * 3.92 * losses.std() / len(losses) ** 0.5


# --- the model -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("merge", MERGES)
def test_swapping_the_halves_changes_nothing_where_the_merge_is_symmetric(merge: str) -> None:
    model, x = siamese(merge).eval(), some()
    same = torch.allclose(model(x), model(x.flip(1)), atol=1e-6)
    assert same == (merge != "concat")


@pytest.mark.parametrize("merge", MERGES)
def test_the_branch_is_counted_once_and_multiplies_twice(merge: str) -> None:
    model, width = siamese(merge), 8 if merge == "concat" else 4
    branch, judge = (5 + 1) * 8 + (8 + 1) * 4, (width + 1) * 6 + (6 + 1) * 3
    assert count(model) == branch + judge
    found, outputs = layers(model, some())
    assert outputs.shape == (7, 3)
    assert sum(row["parameters"] for row in found) == branch + judge


def test_both_halves_teach_the_one_branch() -> None:
    model, x = siamese("product"), some().requires_grad_()
    model(x).square().sum().backward()
    whole = model.branch[0].linear.weight.grad.clone()
    assert (x.grad.abs().sum((0, 2)) > 0).all()
    model.zero_grad()
    halves = x.detach().flatten(0, 1)
    embedded = model.branch(halves).unflatten(0, (-1, 2))
    for half in (0, 1):  # the product rule: the gradient is the sum of what each half gives
        other = embedded[:, 1 - half].detach()
        model.head(model.joint(embedded[:, half] * other)).square().sum().backward(retain_graph=True)
    assert torch.allclose(model.branch[0].linear.weight.grad, whole, atol=1e-5)


def test_images_are_compared_whole_and_what_is_no_pair_is_refused() -> None:
    spec = replace(DIGITS, shape=(2, 1, 8, 8))
    model = Siamese(spec, hidden=[], embedding=3, merge="difference", joint=[], **STYLE)
    assert model(torch.randn(4, 2, 1, 8, 8)).shape == (4, 10)
    assert count(model) == (64 + 1) * 3 + (3 + 1) * 10
    for spec in (DIGITS, TABLE):
        said = refusal(Siamese, spec, hidden=[4], embedding=3, merge="product", joint=[], **STYLE)
        assert said.startswith("model=siamese: needs pairs") and "data=pairs" in said


# --- the experiment --------------------------------------------------------------------------------------------------


def scored(run, monkeypatch: pytest.MonkeyPatch, *words: str) -> float:
    monkeypatch.setattr("plumbline.run.write_report", lambda directory: None)
    status, folder = run("experiment=siamese", *words, folder="-".join(words) or "run")
    assert status == 0
    return noted(folder)["best"]["val/accuracy"]


@pytest.mark.slow
def test_a_shared_branch_beats_a_network_that_learns_each_half_apart(run, monkeypatch) -> None:
    seeds = [[f"data.draw={seed}", f"seed={seed}", "report=false"] for seed in range(3)]
    shared = [scored(run, monkeypatch, *words) for words in seeds]
    apart = [scored(run, monkeypatch, "model=mlp", *words) for words in seeds]
    gaps = np.subtract(shared, apart)
    assert 0.90 < np.mean(shared) < 0.95
    assert gaps.min() > 0.06, gaps


def test_pairs_that_leak_make_a_network_look_better_than_it_is(run, monkeypatch) -> None:
    ways = ([], ["data.apart=leaking_pairs"])
    honest, leaking = (scored(run, monkeypatch, "model=mlp", "report=false", *words) for words in ways)
    assert leaking > honest + 0.06


def test_items_of_pairs_are_split_as_the_digits_themselves_are() -> None:
    pairs, digits = (build(composed(f"data={name}", "data.subset=50").data)() for name in ("digit_pairs", "digits"))
    assert items(pairs.train) == set(map(str, digits.train.ids))
    assert items(pairs.val) == set(map(str, digits.val.ids))
    same = pairs.train.y.view(50, 50)
    assert torch.equal(same, (digits.train.y[:, None] == digits.train.y).long())


def test_a_branch_gives_of_an_item_what_it_gives_of_a_half_of_a_pair() -> None:
    widths = {"hidden": [8], "embedding": 4}
    alone, pair = Branch(replace(PAIR, shape=(5,)), **widths, **STYLE), siamese("product")
    taken = {name: weight for name, weight in pair.state_dict().items() if name.startswith("branch.")}
    assert alone.load_state_dict(taken, strict=False).missing_keys == ["head.weight", "head.bias"]
    x = some()
    assert torch.equal(alone.branch(x[:, 0]), pair.branch(x[:, 0]))
    assert count(alone) == (5 + 1) * 8 + (8 + 1) * 4 + (4 + 1) * 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_branch_that_pairs_taught_needs_fewer_digits_by_name(run, monkeypatch, seed: int) -> None:
    monkeypatch.setattr("plumbline.run.write_report", lambda directory: None)
    anew = ["transfer.file=null", "transfer.freeze=[]", "transfer.reinit=[]"]
    best = []
    for folder, words in {"frozen": [], "free": ["transfer.freeze=[]"], "anew": anew}.items():
        _, place = run("experiment=siamese_transfer", *words, f"seed={seed}", folder=folder)
        best.append(noted(place)["best"]["val/accuracy"])
    source = Path(noted(place.with_name("frozen"))["transfer"]["run"])  # experiment=digit_pairs
    assert noted(source)["best"]["val/accuracy"] == pytest.approx(0.957, abs=0.01)
    frozen, free, scratch = best
    assert (frozen, free, scratch) == pytest.approx((0.876, 0.816, 0.778), abs=0.02)
    assert frozen > free > scratch
