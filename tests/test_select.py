"""Columns are chosen on train alone; what matters is found among noise; a run keeps its choice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import composed, noted, one_in
from test_csv import lines_of, read

from plumbline.config import ConfigError, build, check_config
from plumbline.data import Arrays, Data, Spec, in_memory
from plumbline.data.importance import Judge, Table, f_test, folds, uncorrelated
from plumbline.data.select import columns_of, selected
from plumbline.evaluate import evaluate, read_request

SPLIT = {"split": "stratified", "split_seed": 0, "val_fraction": 0.2, "test_fraction": 0.2, "folds": 5, "fold": 0,
         "subset": None, "normalise": True}  # fmt: skip
CHOICE = {"select": [], "keep": 7, "correlated_above": 0.95, "columns": None}
NAMES = tuple(f"c{k}" for k in range(25))
WAYS = ["f_test", "linear", "forest", "permutation", "ablation", "annealing"]


def planted(seed: int, classes: bool, change: Callable[[np.ndarray], None] = lambda x: None) -> tuple[Data, set[str]]:
    """500 rows of 25 normal columns, of which five tell the target; and the names of these."""
    generator = np.random.default_rng(seed)
    x, order = generator.normal(size=(500, 25)), generator.permutation(25)
    total = x[:, order[:5]] @ generator.choice([-1, 1], 5) + 0.5 * generator.normal(size=500)
    spec = Spec("classification" if classes else "regression", (25,), 1 + classes, ("a", "b") if classes else (), NAMES)
    change(x)
    return in_memory(spec, lambda: Arrays(x, total > 0 if classes else total), **SPLIT), {NAMES[at] for at in order[:5]}


def made(*words: str) -> Data:
    cfg = composed(*words)
    check_config(cfg)
    return build(cfg.data)()


# --- what is found ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["classes", "numbers"])
@pytest.mark.parametrize("way", WAYS)
def test_five_columns_that_matter_are_found_among_twenty_of_noise(way: str, classes: bool) -> None:
    for seed in range(1 if way == "permutation" else 3):
        data, true = planted(seed, classes)
        found = set(selected(data, **CHOICE | {"select": [way]}).spec.features)
        assert found >= true, (seed, true - found)
        assert len(found - true) <= (5 if way in ("ablation", "annealing") else 2)


def test_mutual_information_sees_a_column_whatever_the_form_of_what_it_tells() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(500, 25))
    arrays = Arrays(x, (np.abs(x[:, 3]) + np.abs(x[:, 8]) > 1.6).astype(int))  # no linear model sees that
    data = in_memory(Spec("classification", (25,), 2, ("a", "b"), NAMES), lambda: arrays, **SPLIT)
    chosen = selected(data, **CHOICE | {"select": ["mutual_information"], "keep": 2})
    assert chosen.spec.features == ("c3", "c8")


def test_of_two_columns_that_correlate_the_first_stays() -> None:
    x = np.random.default_rng(0).normal(size=(200, 5))
    x[:, 3] = -x[:, 1] + 0.1 * x[:, 3]  # about -0.995
    x[:, 4] = x[:, 3] + 0.1 * x[:, 4]
    x[:, 2] = 7
    table = Table(x, np.arange(200) % 2, [np.array([k]) for k in range(5)], True, None)
    assert uncorrelated(table, 0.95) == [0, 1, 2]
    assert uncorrelated(table, 0.9999) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("above", "left"), [(0.95, 24), pytest.param(0.9, 21, marks=pytest.mark.slow)])
def test_of_thirty_columns_of_breast_cancer_those_stay_that_no_column_before_them_says_again(above, left) -> None:
    data = made("data=breast_cancer", "data.select=[correlated]", f"data.correlated_above={above}")
    assert len(data.spec.features) == left
    r = np.abs(np.corrcoef(data.train.x.T)) - np.eye(left)
    assert above - 0.1 < r.max() <= above


def test_a_judge_has_the_error_of_a_ridge_regression_and_a_price_a_column() -> None:
    from sklearn.linear_model import Ridge

    data, _ = planted(0, False)
    x, y = data.train.x.double().numpy(), data.train.y.double().numpy()[:, 0]
    x, y = (x - x.mean(0)) / x.std(0), y - y.mean()
    table = Table(x, y, [np.array([k]) for k in range(25)], False, None)
    some = np.arange(25) % 3 == 0
    error = sum(((Ridge(1.0, fit_intercept=False).fit(x[fit][:, some], y[fit]).predict(x[held][:, some]) - y[held]) ** 2).sum()
                for fit, held in folds(table))  # fmt: skip
    assert Judge(table)(some) == pytest.approx(np.log(error) + 2 / len(y) * some.sum(), rel=1e-9)


def test_no_group_is_fitted_and_held_out_when_columns_are_judged() -> None:
    groups = np.arange(60) // 4
    table = Table(np.zeros((60, 2)), np.arange(60) % 2, [], True, groups)
    assert all(not set(groups[fit]) & set(groups[held]) for fit, held in folds(table))


# --- inside the split ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "way",
    [
        "correlated",
        "mutual_information",
        *(way if way != "permutation" else pytest.param(way, marks=pytest.mark.slow) for way in WAYS),
    ],
)
def test_no_row_of_validation_or_test_has_a_say(way: str) -> None:
    choice = CHOICE | {"select": [way], "correlated_above": 0.05}
    plain = planted(1, True)[0]
    others = np.setdiff1d(np.arange(500), plain.train.ids)

    def spoil(x: np.ndarray) -> None:
        x[others] = 1000 * np.random.default_rng(9).normal(size=(len(others), 1))  # all columns alike, and huge

    first, second = selected(plain, **choice), selected(planted(1, True, spoil)[0], **choice)
    assert first.spec.features == second.spec.features != NAMES
    assert torch.equal(first.train.x, second.train.x) and not torch.equal(first.val.x, second.val.x)


@pytest.mark.parametrize(("way",), one_in(2, [(way,) for way in ("forest", "ablation", "correlated", "annealing")]))
def test_columns_are_chosen_before_the_test_set_is_read(way: str) -> None:
    generator, opened = np.random.default_rng(0), []
    x = generator.normal(size=(300, 12))

    def test() -> Arrays:
        opened.append("test")
        return Arrays(x[:50], np.arange(50) % 2)

    spec = Spec("classification", (12,), 2, ("a", "b"), NAMES[:12])
    own = {key: value for key, value in SPLIT.items() if key != "test_fraction"}
    data = in_memory(spec, lambda: Arrays(x, x[:, 4] > 0, test=test), **own)
    few = selected(data, **CHOICE | {"select": [way], "keep": 3, "correlated_above": 0.05})
    assert len(few.train.x[0]) == len(few.val.x[0]) == len(few.spec.features) < 12
    assert opened == []


@pytest.mark.slow
def test_a_choice_among_noise_inside_the_split_leaves_validation_at_chance_and_one_on_everything_does_not() -> None:
    from sklearn.linear_model import LogisticRegression

    inside, outside = [], []
    for draw in range(10):
        words = [
            "data=gene_expression",
            "data.informative=0",
            "data.samples=125",
            "data.genes=5000",
            f"data.draw={draw}",
        ]
        cfg = composed(*words, "data.split=kfold")  # 25 are the test set: five folds of a hundred
        best = None
        for cfg.data.fold in range(5):
            cfg.data.select = []
            whole = build(cfg.data)()
            cfg.data.select, cfg.data.keep = ["f_test"], 20
            data = build(cfg.data)()
            inside.append(LogisticRegression().fit(data.train.x, data.train.y).score(data.val.x, data.val.y))
            x, y = (torch.cat([getattr(part, key) for part in (whole.train, whole.val)]).numpy() for key in ("x", "y"))
            if best is None:
                best = np.argsort(-f_test(Table(x, y, columns_of(whole.spec), True, None)))[:20]
            model = LogisticRegression().fit(whole.train.x[:, best], whole.train.y)
            outside.append(model.score(whole.val.x[:, best], whole.val.y))
    assert len(whole.train) + len(whole.val) == 100
    assert np.mean(inside) == pytest.approx(0.45, abs=0.06), inside
    assert np.mean(outside) == pytest.approx(0.87, abs=0.03), outside


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_the_chosen_columns_have_their_names_values_and_scales() -> None:
    whole, data = made("data=wine"), made("data=wine", "data.select=[correlated,forest]", "data.keep=3")
    at = [whole.spec.features.index(name) for name in data.spec.features]
    assert at == sorted(at) and data.spec.shape == (3,) == data.train.x.shape[1:]
    assert torch.equal(data.val.x, whole.val.x[:, at])
    assert torch.equal(data.scale.mean, whole.scale.mean[at])
    assert (data.selection.columns, data.selection.of, data.selection.fitted_on) == (data.spec.features, 13, "train")
    assert data.identity() == whole.identity() and data.fingerprint() != whole.fingerprint()
    assert whole.selection is None


def test_a_categorical_column_stays_whole_or_goes(tmp_path: Path) -> None:
    lines = lines_of(120)
    for k in range(1, len(lines)):  # the city tells the kind
        cells = lines[k].split(",")
        lines[k] = ",".join([*cells[:3], "cat" if cells[1] == "Oslo" else "dog"])
    for way in ("f_test", "linear", "mutual_information", "forest", "permutation"):
        data = read(tmp_path, lines, select=[way], keep=1)
        assert data.spec.features == ("city=Bergen", "city=Bodø", "city=Oslo")
        assert (data.spec.categories, data.selection.columns) == (((0, 3),), ("city",))
    data = read(tmp_path, lines, columns=["city", "height"])
    assert data.spec.features == ("city=Bergen", "city=Bodø", "city=Oslo", "height")
    assert (data.spec.categories, data.selection.fitted_on) == (((0, 3),), "columns")
    assert read(tmp_path, lines, columns=["height"]).spec.categories == ()


def test_a_run_keeps_its_columns_and_evaluation_takes_those_and_chooses_none(run, tmp_path: Path, monkeypatch) -> None:
    words = ["data=breast_cancer", "data.select=[forest]", "data.keep=5", "epochs=2", "report=false"]
    status, folder = run(*words)
    assert status == 0
    kept = noted(folder)["data"]["selection"]
    assert len(kept["columns"]) == 5 and kept["columns"] == noted(folder)["data"]["features"]
    assert (kept["of"], kept["fitted_on"]) == (30, "train")
    monkeypatch.setattr("plumbline.data.select.chosen", lambda *_: pytest.fail("chose again"))
    monkeypatch.chdir(tmp_path)
    found = evaluate(read_request([f"run={folder}"]))
    assert found["samples"] == 114 and found["metrics"]["accuracy"]["value"] > 0.85


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data.select=[forrest]"], "forest"),
        (["data.select=[forest,forest]"], "each once"),
        (["data.select=[forest]"], "data.keep=10: must be at most 4, the number of columns"),
        (["data.keep=0"], "data.keep=0: must be a whole number of at least 1"),
        (["data.correlated_above=2"], "in (0, 1]"),
        (["data.columns=[petal length]"], "did you mean 'petal length (cm)'"),
        (["data.columns=[]"], "data.columns=[]: must be a list of words, at least 1, each once or null"),
    ],
)
def test_a_choice_that_cannot_be_is_said(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        made("data=iris", *words)
    assert said in str(error.value)


def test_too_many_columns_to_try_one_by_one_and_values_that_are_not_finite_are_said() -> None:
    with pytest.raises(ConfigError, match=r"5000 are too many.*data.select=\[forest,ablation\]"):
        made("data=gene_expression", "data.select=[ablation]")

    def spoil(x: np.ndarray) -> None:
        x[:, 4] = np.nan

    with pytest.raises(ConfigError, match="not finite"):
        selected(planted(0, True, spoil)[0], **CHOICE | {"select": ["forest"]})


@pytest.mark.slow
def test_twenty_genes_of_five_thousand_make_the_network_learn(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plumbline.run.write_report", lambda directory: None)
    for seed in range(2):
        _, folder = run("experiment=selection", f"seed={seed}", f"data.draw={seed}", folder=str(seed))
        assert 0.79 < noted(folder)["best"]["val/accuracy"] < 0.9  # of all genes 0.61: test_experiments
