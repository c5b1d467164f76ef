"""The laws of a split: disjoint, complete, stratified, whole groups, and moved by its own seed alone."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from plumbline.config import ConfigError
from plumbline.data.splits import check_options, split_indices

OPTIONS = {
    "split": "stratified", "split_seed": 0, "val_fraction": 0.2, "test_fraction": 0.2, "folds": 5, "fold": 0,
    "subset": None, "normalise": True,
}  # fmt: skip
CLASSES = tuple("abcdefghij")
PARTS = ("train", "val", "test")


def labels(samples: int = 1000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice(10, samples, p=np.arange(1, 11) / 55)


def cut(y: np.ndarray, classes=CLASSES, groups=None, marks=None, **changes):
    options = OPTIONS | changes
    check_options(options)
    return split_indices(y, options, classes=classes, groups=groups, marks=marks)


def shares(y: np.ndarray) -> np.ndarray:
    return np.bincount(y, minlength=10) / len(y)


@pytest.mark.parametrize("split", ["stratified", "kfold", "grouped"])
@pytest.mark.parametrize("seed", range(3))
def test_the_three_parts_are_disjoint_and_cover_everything(split, seed):
    y, groups = labels(), np.random.default_rng(seed).integers(100, size=1000)
    parts = cut(y, groups=groups if split == "grouped" else None, split=split, split_seed=seed)
    assert sorted(np.concatenate(parts)) == list(range(1000))
    assert all((np.diff(part) > 0).all() for part in parts)


@pytest.mark.parametrize("split", ["stratified", "kfold"])
def test_the_sizes_are_the_fractions_that_were_asked(split):
    train, val, test = cut(labels(), split=split, val_fraction=0.16, test_fraction=0.2)
    assert (len(train), len(val), len(test)) == (640, 160, 200)


@pytest.mark.parametrize("seed", range(5))
def test_each_part_has_the_class_shares_of_the_whole_to_within_two_samples_of_each_class(seed):
    y = labels(seed=seed)
    for part in cut(y, split_seed=seed):
        expected = shares(y) * len(part)
        assert np.abs(np.bincount(y[part], minlength=10) - expected).max() <= 2


def test_the_class_shares_of_digits_are_those_of_the_source_within_one_percent():
    from sklearn.datasets import load_digits

    y = load_digits().target
    for split in ("stratified", "kfold"):
        for part in cut(y, split=split):
            assert np.abs(shares(y[part]) - shares(y)).max() < 0.01


def test_a_class_of_three_is_in_each_part():
    y = np.array([0] * 500 + [1] * 3)
    for seed in range(10):
        assert [int((y[part] == 1).sum()) for part in cut(y, CLASSES[:2], split_seed=seed)] == [1, 1, 1]


def test_a_class_of_two_cannot_be_in_three_parts_and_is_named():
    with pytest.raises(ConfigError, match=r"data.split=stratified: class 'b' has 2 samples, too few .*val_fraction"):
        cut(np.array([0] * 500 + [1] * 2), CLASSES[:2])


def test_a_class_smaller_than_the_folds_is_named():
    y = np.array([0] * 500 + [1] * 3)
    for fold in range(5):
        with pytest.raises(ConfigError, match=r"data.split=kfold: class 'b' has 3 samples.*data.folds"):
            cut(y, CLASSES[:2], split="kfold", fold=fold)


@pytest.mark.parametrize("seed", range(3))
def test_each_part_of_a_regression_has_as_many_of_each_tenth_of_its_target(seed):
    y = np.random.default_rng(seed).lognormal(size=500)
    tenths = np.digitize(y, np.quantile(y, np.arange(0.1, 1, 0.1)))
    for part in cut(y, (), split_seed=seed):
        assert np.abs(np.bincount(tenths[part], minlength=10) - len(part) / 10).max() <= 2


def test_a_small_regression_and_one_of_several_columns_can_be_split():
    assert [len(part) for part in cut(np.arange(5.0), ())] == [3, 1, 1]
    assert [len(part) for part in cut(np.random.default_rng(0).normal(size=(50, 3)), ())] == [30, 10, 10]


def test_only_the_split_seed_moves_the_test_rows():
    y = labels()
    _, _, test = cut(y)
    changes = ({"val_fraction": 0.4}, {"split": "kfold"}, {"split": "kfold", "fold": 3, "folds": 7}, {"subset": 50})
    assert all(np.array_equal(cut(y, **change)[2], test) for change in changes)
    assert not np.array_equal(cut(y, split_seed=1)[2], test)


def test_the_split_neither_reads_nor_moves_the_global_random_state():
    y, groups = labels(), np.arange(1000) // 10
    for split in ("stratified", "grouped"):
        np.random.seed(1)
        first = cut(y, groups=groups, split=split)
        after = np.random.random()
        np.random.seed(2)
        again = cut(y, groups=groups, split=split)
        np.random.seed(1)
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        assert np.random.random() == after


@pytest.mark.parametrize("grouped", [False, True])
def test_the_folds_are_disjoint_cover_the_rest_and_share_one_test_set(grouped):
    y, groups = labels(), np.random.default_rng(0).integers(100, size=1000) if grouped else None
    cuts = [cut(y, groups=groups, split="kfold", fold=fold) for fold in range(5)]
    vals = np.concatenate([val for _, val, _ in cuts])
    assert len(vals) == len(set(vals))
    assert all(np.array_equal(test, cuts[0][2]) for _, _, test in cuts)
    assert sorted([*vals, *cuts[0][2]]) == list(range(1000))


@pytest.mark.parametrize("split", ["grouped", "kfold"])
@pytest.mark.parametrize("seed", range(3))
def test_no_group_is_in_two_parts(split, seed):
    generator = np.random.default_rng(seed)
    groups = generator.choice([f"patient {k}" for k in range(60)], 1000)
    parts = cut(labels(seed=seed), groups=groups, split=split, split_seed=seed)
    sets = [set(groups[part]) for part in parts]
    assert sum(map(len, sets)) == len(set.union(*sets)) == 60


@pytest.mark.parametrize(("fraction", "within"), [(0.2, 0.03), (0.1, 0.03), (0.35, 0.03), (0.6, 0.04)])
def test_a_grouped_split_meets_its_fractions_and_class_shares_nearly(fraction, within):
    y, groups = labels(2000), np.random.default_rng(1).integers(200, size=2000)
    _, val, test = cut(y, groups=groups, split="grouped", test_fraction=fraction, val_fraction=0.2)
    assert len(test) / 2000 == pytest.approx(fraction, abs=within)
    assert len(val) / 2000 == pytest.approx(0.2, abs=0.04)
    assert np.abs(shares(y[test]) - shares(y)).max() < 0.03


def test_a_grouped_regression_keeps_groups_whole():
    generator = np.random.default_rng(0)
    groups = generator.integers(40, size=400)
    parts = cut(generator.normal(size=400), (), groups=groups, split="grouped")
    assert sum(len(set(groups[part])) for part in parts) == 40


def test_too_few_groups_are_counted():
    groups = np.array([0, 1] * 50)
    with pytest.raises(ConfigError, match=r"data.split=grouped: 2 parts are asked of 1 groups"):
        cut(np.array([0, 1] * 50), CLASSES[:2], groups=groups, split="grouped")


def test_grouped_without_groups_says_which_key_gives_them():
    with pytest.raises(ConfigError, match=r"data.split=grouped: .*data.group=<column>"):
        cut(labels(), split="grouped")


def test_predefined_parts_are_those_that_are_marked():
    marks = np.random.default_rng(0).choice(PARTS, 1000)
    parts = cut(labels(), marks=marks, split="predefined")
    assert all((marks[part] == name).all() for name, part in zip(PARTS, parts, strict=True))
    assert sum(map(len, parts)) == 1000


def test_marks_without_val_leave_it_to_be_carved_from_train():
    marks = np.array(["train"] * 800 + ["test"] * 200)
    train, val, test = cut(labels(), marks=marks, split="predefined")
    assert (len(train), len(val), list(test)) == (640, 160, list(range(800, 1000)))


@pytest.mark.parametrize(
    ("marks", "says"),
    [
        (None, "data.split=predefined: .*data.split_column=<column>"),
        (["train"] * 1000, "no sample is marked test"),
        (["test"] * 1000, "no sample is marked train"),
        (["train"] * 500 + ["tset"] * 500, r"is marked 'tset' \(did you mean 'test'\?\)"),
    ],
)
def test_marks_that_make_no_split_are_refused(marks, says):
    with pytest.raises(ConfigError, match=says):
        cut(labels(), marks=None if marks is None else np.array(marks), split="predefined")


def test_a_subset_is_stratified_at_most_n_and_never_touches_test():
    y = labels()
    whole = cut(y)
    few = cut(y, subset=100)
    assert (len(few[0]), len(few[1])) == (100, 100)
    assert all(set(small) <= set(large) for small, large in zip(few, whole, strict=True))
    assert np.array_equal(few[2], whole[2])
    assert np.abs(shares(y[few[0]]) - shares(y)).max() < 0.015
    assert all(np.array_equal(a, b) for a, b in zip(cut(y, subset=10**6), whole, strict=True))
    assert len(cut(y, subset=599)[0]) == 599  # nearly the whole, too


def test_a_larger_subset_contains_the_smaller_one():
    y = labels()
    sizes = (10, 11, 50, 200, 599)
    picks = [set(cut(y, subset=size)[0]) for size in sizes]
    assert all(small < large for small, large in pairwise(picks))
    assert [len(np.unique(y[list(pick)])) for pick in picks] == [10] * 5


def test_a_subset_that_drops_a_class_is_refused():
    with pytest.raises(ConfigError, match=r"data.subset=9: too few for one of each of the 10 classes"):
        cut(labels(), subset=9)


def test_without_a_test_fraction_nothing_is_carved_for_test():
    options = {key: value for key, value in OPTIONS.items() if key != "test_fraction"}
    train, val, test = split_indices(labels(), options, classes=CLASSES)
    assert (len(train), len(val), len(test)) == (800, 200, 0)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "data.val_fraction=0.5 and data.test_fraction=0.5: nothing"),
        ({"fold": 5}, "data.fold=5: data.folds=5 are numbered from 0 to 4"),
    ],
)  # fmt: skip
def test_options_that_no_data_could_satisfy_are_refused_by_name(changes, says):
    with pytest.raises(ConfigError, match=says):
        check_options(OPTIONS | changes)
