"""Categories are looked up: the spec says where they stand, the lookup is exact, and it is worth what its experiment says."""

from __future__ import annotations

import types
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import composed, noted
from test_csv import lines_of, read
from test_models import TABLE, count, refusal

from plumbline.assemble import rehearse
from plumbline.config import ConfigError, build, check_config
from plumbline.data.core import Spec
from plumbline.models.embedding_mlp import EmbeddingMLP
from plumbline.models.mlp import MLP

OPENING = types.SimpleNamespace(written=True)
STYLE = {"norm": "none", "activation": "relu"}
SPEC = Spec("classification", (7,), 2, categories=((1, 3), (5, 2)))  # number, 3 categories, number, 2 categories


def model(**changes) -> EmbeddingMLP:
    torch.manual_seed(0)
    return EmbeddingMLP(SPEC, **{"hidden": [8], "embedding": 4} | STYLE | changes)


def row(first: int, second: int, numbers: tuple[float, float] = (0.5, -1.5)) -> torch.Tensor:
    one = torch.zeros(7)
    one[[0, 4]] = torch.tensor(numbers)
    one[1 + first] = one[5 + second] = 1
    return one


# --- the spec --------------------------------------------------------------------------------------------------------


def test_the_spec_of_a_table_says_which_inputs_are_one_columns_categories(tmp_path: Path) -> None:
    data = read(tmp_path, lines_of())  # age, three cities, height
    assert data.spec.categories == ((1, 3),)
    assert data.spec.features[1:4] == ("city=Bergen", "city=Bodø", "city=Oslo")
    two = [f"{line},{('red', 'blue')[k % 2] if k else 'colour'}" for k, line in enumerate(lines_of())]
    assert read(tmp_path, two, categorical=["city", "colour"]).spec.categories == ((1, 3), (5, 2))
    numbers = [",".join(line.split(",")[::2]) + f",{line.split(',')[3]}" for line in lines_of()]
    assert read(tmp_path, numbers, categorical=[]).spec.categories == ()


@pytest.mark.parametrize("normalise", [True, False])
def test_the_category_that_is_looked_up_is_that_of_the_line(tmp_path: Path, normalise: bool) -> None:
    lines = lines_of()
    data = read(tmp_path, lines, normalise=normalise)
    network = EmbeddingMLP(data.spec, hidden=[4], embedding=2, **STYLE)
    seen: list[torch.Tensor] = []
    network.embeddings[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    for part in (data.train, data.val, data.open_test(OPENING)):
        network(part.x)
        cities = [lines[line - 1].split(",")[1] for line in part.ids]
        assert [data.spec.features[1 + code] for code in seen.pop()] == [f"city={city}" for city in cities]


def test_a_category_that_train_lacks_is_named_and_never_looked_up(tmp_path: Path) -> None:
    lines = lines_of()
    test = read(tmp_path, lines).open_test(OPENING)
    line = int(test.ids[0])
    lines[line - 1] = lines[line - 1].replace(lines[line - 1].split(",")[1], "Rome")
    data = read(tmp_path, lines)
    opened = data.open_test(OPENING)
    assert opened.left_out == [f"line {line}: city=Rome: a category that train lacks"]
    assert len(opened) == len(test) - 1 and data.spec.categories == ((1, 3),)


# --- the model -------------------------------------------------------------------------------------------------------


def test_a_category_costs_its_embedding_and_not_a_weight_for_each_unit() -> None:
    assert count(model()) == (3 * 4 + 2 * 4) + (2 + 4 + 4 + 1) * 8 + (8 + 1) * 2
    assert count(model(embedding=None)) == (3 * 2 + 2 * 1) + (2 + 2 + 1 + 1) * 8 + (8 + 1) * 2
    wide = Spec("classification", (500,), 2, categories=((0, 500),))
    assert EmbeddingMLP(wide, hidden=[], embedding=None, **STYLE).embeddings[0].weight.shape == (500, 50)


def test_ten_categories_are_ten_inputs_and_ten_weights_for_each_unit_and_two_hundred_are_cheaper_looked_up(
    tmp_path: Path,
) -> None:
    lines = ["town,kind"] + [f"{'abcdefghij'[k % 10]},{'xy'[k // 10 % 2]}" for k in range(100)]
    data = read(tmp_path, lines, categorical=["town"])
    assert data.spec.shape == (10,) and data.spec.categories == ((0, 10),)
    wide = MLP(data.spec, hidden=[32], **STYLE)
    assert wide.hidden[0].linear.weight.numel() == 10 * 32
    shops = build(composed("data=shops").data)().spec
    one_hot, looked_up = MLP(shops, hidden=[128], **STYLE), EmbeddingMLP(shops, hidden=[128], embedding=None, **STYLE)
    (first, count_), weight = shops.categories[0], one_hot.hidden[0].linear.weight
    assert (weight[:, first : first + count_].numel(), looked_up.embeddings[0].weight.numel()) == (25_600, 10_000)


def test_two_rows_of_one_category_share_its_embedding_and_no_other_is_taught() -> None:
    network = model()
    network(torch.stack([row(2, 0), row(2, 1, (1.0, 2.0))])).sum().backward()
    first, second = (embed.weight.grad.abs().sum(1) > 0 for embed in network.embeddings)
    assert first.tolist() == [False, False, True]
    assert second.tolist() == [True, True]


def test_with_one_linear_layer_a_lookup_is_the_one_hot_inputs_times_a_matrix() -> None:
    network, x = model(hidden=[]), torch.stack([row(a, b) for a in range(3) for b in range(2)])
    weight, bias = network.head.weight, network.head.bias  # of two numbers, then four of each embedding
    tables = [embed.weight for embed in network.embeddings]
    dense = torch.cat([x[:, [0, 4]], x[:, 1:4] @ tables[0], x[:, 5:7] @ tables[1]], 1)
    assert torch.allclose(network(x), dense @ weight.T + bias, atol=1e-6)


def test_a_table_without_categories_is_refused_with_the_cure() -> None:
    said = refusal(EmbeddingMLP, TABLE, hidden=[4], embedding=None, **STYLE)
    assert said.startswith("model=embedding_mlp: needs a table with categorical columns")
    assert "data.categorical" in said and "model=mlp" in said
    with pytest.raises(ConfigError, match=r"data\.categorical"):
        cfg = composed("data=wine", "model=embedding_mlp")
        rehearse(cfg, build(cfg.data)().spec)


def test_a_table_of_categories_alone_passes_every_check_that_asks_the_network(run, tmp_path: Path) -> None:
    lines = ["town,colour,kind"] + [
        f"{'abcdef'[k % 6]},{('red', 'blue')[k // 6 % 2]},{'xy'[k % 2]}" for k in range(300)
    ]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    words = [f"data.file={tmp_path / 't.csv'}", "data.target=kind", "data.categorical=[town,colour]"]
    words += ["epochs=12", "optimiser.lr=0.01", "checks=full", "report=false", "checks.stop_on=never"]
    status, folder = run("data=csv", "model=embedding_mlp", *words)
    assert status == 0
    assert noted(folder)["data"]["categories"] == [[0, 6], [6, 2]]
    assert noted(folder)["best"]["val/accuracy"] == 1.0


# --- the data and the experiment -------------------------------------------------------------------------------------


def test_shops_tell_nothing_alone_and_measures_nothing_without_them() -> None:
    cfg = composed("data=shops")
    check_config(cfg)
    data = build(cfg.data)()
    x, y = data.scale.inverse(data.train.x), data.train.y
    assert torch.allclose(x[:, :200].sum(1), torch.ones(len(x)), atol=1e-4)
    assert data.spec.categories == ((0, 200),) and len(data.spec.features) == 204
    measures = x[:, 200:]
    assert max(abs(np.corrcoef(column, y)[0, 1]) for column in measures.T) < 0.15
    shop = x[:, :200].argmax(1)
    inside = [(measures[shop == k], y[shop == k]) for k in range(200) if len(y[shop == k].unique()) > 1]
    share = [np.abs(np.corrcoef(x.T, y)[4, :4]).max() for x, y in inside]
    assert np.mean(share) > 0.5


@pytest.mark.slow
def test_embeddings_beat_one_hot_inputs_with_fewer_weights(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plumbline.run.write_report", lambda directory: None)
    found = {}
    for name in ("embedding_mlp", "mlp"):
        for seed in range(3):
            _, folder = run(
                "experiment=embedding", f"model={name}", f"seed={seed}", f"data.draw={seed}", folder=f"{name}{seed}"
            )
            found.setdefault(name, []).append(noted(folder)["best"]["val/accuracy"])
        found[f"weights of {name}"] = noted(folder)["parameters"]
    gaps = np.subtract(found["embedding_mlp"], found["mlp"])
    assert gaps.min() > 0.02 and gaps.mean() > 0.035, found
    assert 0.79 < np.mean(found["embedding_mlp"]) < 0.85
    assert found["weights of embedding_mlp"] < 0.75 * found["weights of mlp"]
