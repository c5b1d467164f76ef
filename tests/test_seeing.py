"""Figures that look into the network: they show what is there, survive a stop, and change no number of the run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import composed, noted, records
from planted import clean, made
from test_options import CPU, changed, images
from torch import nn

from plumbline.assemble import assemble, rehearse
from plumbline.config import ConfigError, build
from plumbline.data.core import Data, Spec, Split, Splits
from plumbline.loop import fit
from plumbline.scoring import load_best
from plumbline.seeing import Subject
from plumbline.seeing.network import chosen, embedded, gradcam, grid
from plumbline.seeing.plane import COARSE
from plumbline.seeing.samples import FRAMES

FASHION = Path("/usr/share/datasets/fashion-mnist")
LITTLE = [
    "data=digits",
    "data.subset=200",
    "epochs=3",
    "model=cnn",
    "model.channels=[4]",
    "model.kernel=3",
    "augment=[shift]",
]
ALL = "figures=[filters,activations,gradcam,embeddings,door,film]"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of one run without figures and with all that images can have."""
    from plumbline.run import run_to_the_end

    folders = []
    for name, words in {"without": [], "with": [ALL]}.items():
        folder = tmp_path_factory.mktemp(name) / "run"
        words = [*LITTLE, "checks=off", "bootstrap=5", "threads=1", f"outputs={folder.parent}", *words]
        assert run_to_the_end(composed(*words), folder, words) == 0
        folders.append(folder)
    return tuple(folders)


def test_figures_change_no_number_of_a_run(both) -> None:
    without, with_ = both
    assert records(without) == records(with_)
    weights = [torch.load(folder / "last.pt", weights_only=True)["model"] for folder in both]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_figures_stand_in_the_folder_the_record_and_the_report_with_their_captions(both) -> None:
    _, folder = both
    names = ["filters", "activations", "gradcam", "embeddings", "door", "film"]
    assert list(noted(folder)["figures"]) == names
    page = (folder / "report.html").read_text()
    for name, caption in noted(folder)["figures"].items():
        assert (folder / "figures" / f"{name}.png").stat().st_size > 1000
        assert f'id="figure-{name}"' in page
        assert caption.split(":")[0].replace("'", "&#39;") in page
    assert page.count("data:image/png;base64") >= len(names)


def test_a_film_has_a_frame_an_evaluation_and_the_last_is_what_the_network_says(both) -> None:
    _, folder = both
    film = np.load(folder / FRAMES)
    assert film["epochs"].tolist() == [record["epoch"] for record in records(folder)] == [1, 2, 3]
    assert np.allclose(film["outputs"].sum(2), 1, atol=1e-5)
    predictions = np.load(folder / "predictions.npz")  # of the best epoch
    best = noted(folder)["best"]["epoch"] - 1
    near = np.abs(predictions["outputs"][None] - film["outputs"][best][:, None]).max(2).min(1)
    assert near.max() < 1e-5


def test_a_film_that_goes_on_forgets_what_was_seen_beyond_the_checkpoint(tmp_path: Path) -> None:
    cfg, data = composed("figures=[film]"), images()
    training, state, _, _ = assemble(cfg, data, CPU)
    picture = build(cfg.figures.film)()
    subject = Subject(state.network, data, training, cfg, tmp_path)
    for epoch in (1, 2, 3, 2):
        picture.watch(subject, epoch)
    assert list(picture.frames(subject)) == [1, 2]


@pytest.mark.parametrize("seed", range(3))
def test_gradcam_finds_the_mark_that_a_class_was_given(seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    x, y = torch.randn(400, 1, 16, 16, generator=draws), torch.arange(400) % 2
    x[y == 1, :, 1:5, 1:5] += 3.0  # a mark in the corner is all that tells the two apart
    split = Split(x, y, np.arange(400))
    data = Data(
        Spec("classification", (1, 16, 16), 2, ("a", "b")), lambda: Splits(split, split, lambda: split, lambda: "")
    )
    words = ["model=resnet", "model.channels=[8]", "model.blocks=1", "optimiser.lr=0.01"]
    cfg = changed(composed(*words), {"seed": seed, "batch_size": 40})
    training, state, step, schedule = assemble(cfg, data, CPU)
    list(fit(training, state, split, step, schedule, seed=seed, epochs=8, batch_size=40, accumulate=1, watch=0))
    marked = x[y == 1][:50]
    heat, guess = gradcam(training.model, marked, chosen(training.model, marked, "last", "gradcam"))
    assert (guess == 1).float().mean() > 0.95
    assert (heat[:, :8, :8].sum((1, 2)) / heat.sum((1, 2)).clamp(min=1e-9))[guess == 1].mean() > 0.5


def test_gradcam_is_the_weighted_sum_of_its_paper_and_works_on_frozen_networks() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(3 * 36, 2)).requires_grad_(
        False
    )
    x = torch.randn(4, 1, 8, 8)
    heat, guess = gradcam(model, x, "0")
    maps = model[0](x).requires_grad_()
    logits = model[3](maps.relu().flatten(1))
    (gradient,) = torch.autograd.grad(logits.gather(1, guess[:, None]).sum(), maps)
    expected = (gradient.mean((2, 3), keepdim=True) * maps.detach()).sum(1, keepdim=True).relu()
    expected = nn.functional.interpolate(expected, (8, 8), mode="bilinear", align_corners=False)[:, 0]
    assert torch.allclose(heat, expected / expected.amax((1, 2), keepdim=True).clamp(min=1e-12), atol=1e-5)


def test_the_circle_has_a_map_for_each_of_its_six_units_and_a_boundary_around_the_disc(run, monkeypatch) -> None:
    drawn = []
    monkeypatch.setattr(
        "plumbline.seeing.plane.grid", lambda cells, *rest, **how: drawn.append(cells) or grid(cells, *rest, **how)
    )
    status, folder = run("experiment=circle", "figures=[boundary,hidden_units]", "report=false")
    assert status == 0 and list(noted(folder)["figures"]) == ["boundary", "hidden_units"]
    maps = [torch.as_tensor(image) for image, _ in drawn[0] if torch.as_tensor(image).isfinite().all()]
    assert len(maps) == 4 + 2
    cfg = composed("experiment=circle")
    data = build(cfg.data)()
    training, state, _, _ = assemble(cfg, data, CPU)
    load_best(state.network, folder / "best.pt")
    subject = Subject(state.network, data, training, cfg, folder)
    points, _, _ = build(composed("figures=[boundary]").figures.boundary)().plane(subject, COARSE)
    inner = state.network.eval().hidden[0](points)
    for k in range(4):  # tanh of a weighted sum, on the same scale for all units of a layer
        expected = (inner[:, k].view(COARSE, COARSE).flip(0) / inner.abs().max()).detach()
        assert torch.allclose(maps[k], expected, atol=1e-6)
    said = subject.said(points).argmax(1)
    far = (points / points.abs().max()).norm(dim=1)
    assert len(set(said[far < 0.2].tolist())) == len(set(said[far > 1.1].tolist())) == 1
    assert said[far.argmin()] != said[far.argmax()]


def test_embeddings_are_what_enters_the_last_layer() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 2))
    x = torch.randn(10, 4)
    assert torch.allclose(embedded(model, x), model[0](x).relu().detach())


@pytest.mark.skipif(not FASHION.is_dir(), reason="needs Debian's dataset-fashion-mnist")
@pytest.mark.parametrize("seed", range(2))
def test_pictures_with_a_mark_in_their_corner_are_a_cluster_of_their_own_among_the_embeddings(seed: int) -> None:
    """Half of the shirts come from elsewhere, and bear a mark; the network is told shirts from T-shirts."""
    from sklearn.metrics import silhouette_score

    words = ["data=fashion_mnist_part", "data.classes=[T-shirt/top,shirt]", "data.per_class=300", "optimiser.lr=0.003"]
    apart = []
    for mark in (False, True):
        spec, arrays = clean(*words[:3])
        draws = torch.Generator().manual_seed(seed)
        for x, y in (("x", "y"), ("vx", "vy")):
            elsewhere = (arrays[y] == 1) & (torch.rand(len(arrays[y]), generator=draws) < 0.5)
            if mark:
                arrays[x][elsewhere, :, :4, :4] = 3.0
        data, cfg = made(spec, arrays), composed(*words, "model=cnn", f"seed={seed}")
        training, state, step, schedule = assemble(cfg, data, CPU)
        list(
            fit(training, state, data.train, step, schedule, seed=seed, epochs=6, batch_size=50, accumulate=1, watch=0)
        )
        points = embedded(training.model, arrays["vx"][:400])
        points = points - points.mean(0)
        drawn = points @ torch.linalg.svd(points, full_matrices=False)[2][:2].T
        apart.append(silhouette_score(drawn, elsewhere[:400].numpy()))
    assert apart[0] < 0.3
    assert apart[1] > 0.5


def test_samples_are_of_all_classes_alike_and_always_the_same(tmp_path: Path) -> None:
    cfg, data = composed(), images()
    training, state, _, _ = assemble(cfg, data, CPU)
    subject = Subject(state.network, data, training, cfg, tmp_path)
    _, y, rows = subject.samples(data.val, 9)
    assert y.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert torch.equal(rows, subject.samples(data.val, 9)[2])


@pytest.mark.parametrize(
    ("words", "shape", "said"),
    [
        (["figures=[filters]"], (4,), r"figures=\[filters\]: needs images"),
        (["figures=[gradcam]", "model=linear"], (1, 8, 8), "no layer of this network gives maps"),
        (
            ["figures=[gradcam]", "model=cnn", "model.channels=[4]", "figures.gradcam.layer=conv"],
            (1, 8, 8),
            "features.0.conv",
        ),
        (["figures=[boundary]"], (1, 8, 8), "needs a table"),
        (["figures=[boundary]", "figures.boundary.features=[mean,0]"], (4,), "there is no mean; accepted: 0 to 3"),
        (["figures=[hidden_units]", "model=linear"], (4,), "has no hidden layer"),
        (["figures=[embeddings]", "model=linear"], (4,), "has no layer before its last"),
    ],
)
def test_a_figure_that_cannot_be_is_refused_before_anything_is_read(words, shape, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        rehearse(composed(*words), Spec("classification", shape, 3))


def test_a_figure_that_fails_costs_itself_alone(run, monkeypatch, capfd) -> None:
    from plumbline.seeing.network import Filters

    monkeypatch.setattr(Filters, "draw", lambda picture, subject: 1 / 0)
    status, folder = run(*LITTLE, "epochs=1", "figures=[filters,embeddings]")
    assert status == 0
    assert list(noted(folder)["figures"]) == ["embeddings"]
    assert "figure filters could not be drawn and is left out: ZeroDivisionError" in capfd.readouterr().out
