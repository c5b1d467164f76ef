"""What a person sees of the data: a grid a class, distributions, a map; from the run's folder alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import composed
from planted import broken_images, clean, made

from plumbline.checks.view import EACH, FEATURES, View, seen
from plumbline.config import build
from plumbline.data.core import Data, Spec, Split, Splits
from plumbline.report.figures import figures

PICTURES = {"samples", "classes", "map", "distributions", "oddest"}


def looked_at(*words: str) -> tuple[View, dict[str, np.ndarray]]:
    cfg = composed(*words)
    view = View(build(cfg.data)(), cfg, 100)
    return view, seen(view)


def test_the_grid_has_a_row_of_its_own_images_for_each_class() -> None:
    view, found = looked_at()
    assert found["images"].shape == (10 * EACH, 1, 8, 8)
    assert [int(label) for label in found["image_labels"]] == [label for label in range(10) for _ in range(EACH)]
    assert 0 <= found["images"].min() < found["images"].max() <= 1  # as the data set has them, not normalised
    first = (view.train.y == 3).nonzero()[0, 0]
    shown = found["images"][list(found["image_labels"]).index(3)]
    assert np.allclose(shown, view.data.scale.inverse(view.train.x[first : first + 1])[0])


def test_the_oddest_images_are_shown_as_they_are_with_their_ids_and_why() -> None:
    spec, arrays = clean("data=digits")
    broken_images(spec, arrays)
    view = View(made(spec, arrays), composed(), 100)
    assert "odd_images" not in seen(view)  # nobody asked
    build(view.cfg.checks.data.outliers)(view)
    found = seen(view)
    assert found["odd_images"].shape == (20, 1, 8, 8)
    for image, (name, why) in zip(found["odd_images"][:10], found["odd_said"], strict=False):
        assert np.array_equal(image, arrays["x"][int(name)].numpy())
        assert why == ("as good as blank" if int(name) in arrays["rows"][:5] else "like noise")


def test_counts_histograms_and_map_are_those_of_the_samples() -> None:
    view, found = looked_at("data=wine")
    assert found["class_counts"].sum(1).tolist() == [len(view.data.train), len(view.data.val)]
    assert found["histograms"].shape[:2] == (FEATURES, 2)
    assert (found["histograms"].sum(2) == [len(view.train), len(view.val)]).all()
    assert np.bincount(found["map_split"]).tolist() == [len(view.train), len(view.val)]
    train = found["map"][found["map_split"] == 0]
    assert np.abs(train.mean(0)).max() < 1e-3  # centred, and the first axis is the longest
    assert train[:, 0].var() > train[:, 1].var()


@pytest.mark.parametrize(
    ("data", "pictures"),
    [pytest.param("digits", PICTURES, marks=pytest.mark.slow), ("diabetes", {"map", "distributions"})],
)
def test_a_run_that_was_audited_shows_its_data(data: str, pictures: set[str], run) -> None:
    _, folder = run(f"data={data}", "epochs=1", "checks=quick")
    assert PICTURES & set(figures(folder)) == pictures
    assert all((folder / "figures" / f"{name}.svg").exists() for name in pictures)
    _, bare = run(f"data={data}", "epochs=1", "checks=off", folder="bare")
    assert PICTURES & set(figures(bare)) == set()


@pytest.mark.parametrize(
    ("x", "y", "outputs"),
    [
        (torch.zeros(20, 1), torch.zeros(20, dtype=torch.int64), 1),
        (torch.full((20, 3), torch.nan), torch.arange(20) % 2, 2),
        (torch.randn(20, 2, 5, 5), torch.arange(20) % 2, 2),
        (torch.randn(20, 1), torch.ones(20, 1), 1),
    ],
)
def test_odd_data_have_pictures_or_none_but_no_error(
    x: torch.Tensor, y: torch.Tensor, outputs: int, tmp_path: Path
) -> None:
    import json

    from plumbline.files import save_arrays

    task = "regression" if y.is_floating_point() else "classification"
    split = Split(x, y, np.arange(20))
    data = Data(Spec(task, tuple(x.shape[1:]), outputs), lambda: Splits(split, split, lambda: split, lambda: ""))
    save_arrays(tmp_path / "data.npz", **seen(View(data, composed(), 10)))
    (tmp_path / "run.json").write_text(json.dumps({"data": {"task": task, "outputs": outputs}}))
    from plumbline.report import read
    from plumbline.report.figures import draw

    drawn, failed = draw(read(tmp_path))
    assert {name: why for name, why in failed.items() if name in PICTURES} == {}
    assert "distributions" in drawn
