"""The experiments on sequences, masks and codes give the numbers in their headers."""

from __future__ import annotations

import pytest
import torch
from conftest import composed, noted
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from plumbline.config import build
from plumbline.data.core import Spec
from plumbline.state import read

# an experiment and what is changed in it -> metric -> (low, high), of the best epoch on validation
EXPECTED = {
    ("experiment=lstm",): {"val/accuracy": (0.98, 1.0)},
    ("experiment=lstm", "model=linear"): {"val/accuracy": (0.4, 0.6)},
    ("experiment=autoencoder",): {"val/loss": (0.008, 0.010)},
    ("experiment=vae",): {"val/loss": (0.011, 0.0135)},
}
LONG = {
    ("experiment=vae", "regulariser.kl.strength=0.1"): {"val/loss": (0.071, 0.078)},
    ("experiment=unet",): {"val/dice": (0.90, 0.94)},
    ("experiment=unet", "seed=1"): {"val/dice": (0.90, 0.94)},
    ("experiment=unet", "seed=2"): {"val/dice": (0.90, 0.94)},
    ("experiment=siamese", "model=mlp", "data.apart=leaking_pairs"): {"val/accuracy": (0.885, 0.915)},
    ("experiment=transformer",): {"val/accuracy": (0.95, 0.99)},
    ("experiment=transformer", "seed=1"): {"val/accuracy": (0.95, 0.99)},
    ("experiment=transformer", "data.samples=1000"): {"val/accuracy": (0.4, 0.7)},
}


@pytest.fixture
def best(run, monkeypatch):
    """`best(*words)` trains an experiment without its page and returns its best epoch."""
    monkeypatch.setattr("plumbline.run.write_report", lambda directory: None)

    def go(*words: str, **options: str) -> dict[str, float]:
        status, folder = run(*words, **options)
        assert status == 0
        return noted(folder)["best"]

    return go


@pytest.mark.parametrize("words", EXPECTED, ids=" ".join)
def test_an_experiment_gives_its_expected_number(words: tuple[str, ...], best) -> None:
    found = best(*words)
    for metric, (low, high) in EXPECTED[words].items():
        assert low <= found[metric] <= high


@pytest.mark.slow
def test_sixteen_numbers_of_an_autoencoder_keep_more_of_a_digit_than_as_many_components_and_tell_it_as_well(
    run,
) -> None:
    _, folder = run("experiment=autoencoder", "report=false")
    cfg, label = composed("experiment=autoencoder"), load_digits().target
    data = build(cfg.data)()
    model = build(cfg.model)(data.spec)
    model.load_state_dict(read(folder / "best.pt")[0]["model"])
    (x, vx), (y, vy) = (
        [part.x.flatten(1) for part in (data.train, data.val)],
        [label[p.ids] for p in (data.train, data.val)],
    )
    with torch.no_grad():
        codes = {"encoder": [model.encoder(part).numpy() for part in (x, vx)], "pixels": [x.numpy(), vx.numpy()]}
    wanted, there = data.train.y - data.train.y.mean(0), data.val.y - data.train.y.mean(0)
    left = {}
    for count in (8, 16):
        axes = torch.linalg.svd(wanted, full_matrices=False)[2][:count].T
        left[count] = (there - there @ axes @ axes.T).square().mean().item()
        codes[count] = [(part @ axes).numpy() for part in (wanted, there)]
    assert (left[8], left[16]) == pytest.approx((0.0258, 0.0119), abs=3e-4)
    assert noted(folder)["best"]["val/loss"] < 0.8 * left[16]
    told = {name: LogisticRegression(max_iter=3000).fit(one, y).score(two, vy) for name, (one, two) in codes.items()}
    expected = {"encoder": 0.933, "pixels": 0.958, 8: 0.864, 16: 0.933}
    assert told == pytest.approx(expected, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("words", LONG, ids=" ".join)
def test_a_long_experiment_gives_its_expected_number(words: tuple[str, ...], best) -> None:
    found = best(*words)
    for metric, (low, high) in LONG[words].items():
        assert low <= found[metric] <= high


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_convolutions_lose_most_where_the_steps_are_permuted_and_an_mlp_and_a_line_lose_nothing(seed: int, run) -> None:
    pytest.importorskip("mnist1d", reason="needs the extra `sequences`")
    found = {}
    for model in ("cnn1d", "mlp", "linear"):
        for order in ("null", "0"):
            words = [f"model={model}", f"data.order={order}", f"seed={seed}", "report=false"]
            _, folder = run("experiment=permuted_steps", *words, folder=f"{model}-{order}")
            found[model, order] = noted(folder)["best"]["val/accuracy"]
    assert found["cnn1d", "null"] == pytest.approx(0.91, abs=0.02)
    assert found["cnn1d", "0"] == pytest.approx(0.60, abs=0.03)
    for model, expected in (("mlp", 0.605), ("linear", 0.304)):
        assert [found[model, order] for order in ("null", "0")] == pytest.approx([expected] * 2, abs=0.02)


@pytest.mark.slow
def test_a_recurrent_network_reads_the_curves_of_digits_and_needs_their_order(best) -> None:
    pytest.importorskip("mnist1d", reason="needs the extra `sequences`")
    words = ["experiment=permuted_steps", "model=lstm"]
    assert best(*words, "data.order=null")["val/accuracy"] == pytest.approx(0.80, abs=0.03)
    assert best(*words, folder="permuted")["val/accuracy"] == pytest.approx(0.44, abs=0.04)


@torch.no_grad()
def test_a_convolution_moves_with_its_input_and_a_pool_by_whole_steps_alone() -> None:
    torch.manual_seed(0)
    spec, x = Spec("classification", (1, 32, 32), 2, ("a", "b")), torch.randn(4, 1, 32, 32)
    plain, pooled = (build(composed(f"model={name}").model)(spec).features for name in ("dilated", "cnn"))
    inside = slice(8, 24)  # the border's zeros reach seven pixels far
    assert torch.allclose(plain(x.roll(1, 3))[..., inside], plain(x).roll(1, 3)[..., inside], atol=1e-6)
    inside = slice(3, 5)  # of the eight columns that two poolings leave
    whole, part = pooled(x.roll(4, 3)), pooled(x.roll(1, 3))
    assert torch.allclose(whole[..., inside], pooled(x).roll(1, 3)[..., inside], atol=1e-6)
    assert min((part - pooled(x).roll(by, 3))[..., inside].abs().max() for by in (0, 1)) > 0.05
