"""What is drawn has the properties that it is drawn for."""

from __future__ import annotations

import random
import sys

import numpy as np
import pytest
from conftest import composed

from plumbline.config import ConfigError, build, check_config
from plumbline.data import Data


def drawn(*words: str) -> Data:
    cfg = composed(*words)
    check_config(cfg)
    return build(cfg.data)()


def raw(data: Data) -> tuple[np.ndarray, np.ndarray]:
    """All of train and val, in the units of the source."""
    parts = (data.train, data.val)
    x = np.concatenate([part.x if data.scale is None else data.scale.inverse(part.x) for part in parts])
    return x, np.concatenate([part.y for part in parts])


def with_and_without(noise: float, *words: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(points, labels) of a playground without noise, then with it, of the samples that neither split seals."""
    found = []
    for much in (0, noise):
        data = drawn("data=playground", "data.normalise=false", f"data.noise={much}", *words)
        ids = np.concatenate([data.train.ids, data.val.ids])
        found.append({name: row for name, *row in zip(ids, *raw(data), strict=True)})
    both = sorted(found[0].keys() & found[1].keys())
    points, labels = (tuple(np.array([rows[name][part] for name in both]) for rows in found) for part in (0, 1))
    return points[0], labels[0], points[1], labels[1]


def linear(data: Data) -> float:
    """How well a logistic regression does on validation."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=1000).fit(data.train.x, data.train.y).score(data.val.x, data.val.y)


@pytest.mark.parametrize("figure", ["circle", "xor", "gauss", "spiral"])
def test_a_figure_has_two_classes_of_equal_size_and_no_noise_unless_asked(figure: str) -> None:
    data = drawn("data=playground", f"data.figure={figure}")
    assert [int((data.train.y == k).sum()) for k in (0, 1)] == [150, 150]
    quiet, y, noisy, labels = with_and_without(0.5, f"data.figure={figure}")
    same = (bool((quiet == noisy).all()), bool((y == labels).all()))
    assert same == ((True, False) if figure in ("circle", "xor") else (False, True))


@pytest.mark.parametrize("draw", range(3))
def test_noise_of_a_circle_mislabels_what_is_near_its_edge_and_nothing_else(draw: int) -> None:
    points, y, _, noisy = with_and_without(0.15, f"data.draw={draw}")
    radius, wrong = np.hypot(*points.T), y != noisy
    assert 0.02 < wrong.mean() < 0.12
    assert (np.abs(radius[wrong] - 2.5) < 0.75 * 2**0.5).all()


@pytest.mark.parametrize("draw", [0, 1])
def test_the_features_of_a_figure_make_it_linear(draw: int) -> None:
    for figure, features in (("circle", "x2,y2"), ("xor", "xy"), ("gauss", "x,y")):
        words = ("data=playground", f"data.figure={figure}", f"data.draw={draw}")
        assert linear(drawn(*words, f"data.features=[{features}]")) > 0.98
        if figure != "gauss":
            assert linear(drawn(*words)) < 0.7


def test_every_extra_feature_is_what_its_name_says() -> None:
    x, _ = raw(drawn("data=playground", "data.features=[x,y,x2,y2,xy,sin_x,sin_y]"))
    a, b = x[:, 0], x[:, 1]
    wanted = np.stack([a, b, a * a, b * b, a * b, np.sin(a), np.sin(b)], 1)
    assert np.abs(x - wanted).max() < 1e-4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data.features=[x,x3]"], "a list of one of x, y, x2"),
        (["data.features=[]"], "at least 1, each once"),
        (["data.features=[x,x]"], "each once"),
        (["data.noise=2"], "data.noise=2"),
        (["data.samples=3"], "in [10, 1000000]"),
        (["data.figure=star"], "circle"),
        (["data.draw=-1"], "data.draw=-1"),
    ],
)
def test_what_cannot_be_drawn_is_said(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        drawn("data=playground", *words)
    assert said in str(error.value)


def test_the_toy_target_is_a_function_of_half_the_features() -> None:
    x, y = raw(drawn("data=toy_regression"))
    total = x[:, :50].sum(1) / 10
    assert np.abs(y[:, 0] - (total + total**2)).max() < 1e-4
    assert abs(np.corrcoef(x[:, 50:].sum(1), y[:, 0])[0, 1]) < 0.1


def test_as_published_all_samples_have_one_target() -> None:
    _, y = raw(drawn("data=toy_regression", "data.variant=as_published"))
    assert len(np.unique(y)) == 1


def test_only_the_informative_genes_differ_between_the_classes() -> None:
    x, y = raw(drawn("data=gene_expression", "data.effect=1.5", "data.samples=400", "data.genes=1000"))
    gap = np.abs(x[y == 1].mean(0) - x[y == 0].mean(0))
    assert (gap > 1).sum() == 20
    assert np.sort(gap)[-21] < 0.5
    assert x.std(0).mean() == pytest.approx(1, abs=0.02)


def test_permuted_digits_hold_the_same_numbers_in_one_other_order() -> None:
    (own, _), (other, _) = (raw(drawn(f"data={name}")) for name in ("digits", "digits_permuted"))
    own, other = own.reshape(-1, 64), other.reshape(-1, 64)
    order = np.random.default_rng(0).permutation(64)
    assert np.abs(own[:, order] - other).max() < 1e-5


def test_curves_of_digits_are_always_the_same_also_permuted_and_leave_every_random_state_as_it_was() -> None:
    pytest.importorskip("mnist1d", reason="needs the extra `sequences`")
    before = random.getstate()[1], np.random.get_state()[1].tolist()
    own, other = drawn("data=mnist1d"), drawn("data=mnist1d", "data.order=0")
    assert (len(own.train), len(own.val)) == (3200, 800)
    order = np.random.default_rng(0).permutation(40)
    assert np.abs(own.train.x.numpy()[:, order] - other.train.x.numpy()).max() < 0.01  # each is scaled by one mean
    assert np.array_equal(own.train.y, other.train.y)
    assert (random.getstate()[1], np.random.get_state()[1].tolist()) == before


def test_without_its_package_a_data_set_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mnist1d.data", None)
    with pytest.raises(ConfigError, match=r"data=mnist1d: needs the package mnist1d: pip install") as error:
        len(drawn("data=mnist1d").train)
    assert "\n" not in str(error.value)
