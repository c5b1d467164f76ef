"""The experiments on sequences, masks and codes give the numbers in their headers."""

from __future__ import annotations

import pytest
from conftest import noted

# an experiment and what is changed in it -> metric -> (low, high), of the best epoch on validation
EXPECTED = {
    ("experiment=lstm",): {"val/accuracy": (0.98, 1.0)},
    ("experiment=lstm", "model=linear"): {"val/accuracy": (0.4, 0.6)},
    ("experiment=autoencoder",): {"val/loss": (0.008, 0.010)},  # 8 principal components leave 0.024, 16 leave 0.0115
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

    def go(*words: str) -> dict[str, float]:
        status, folder = run(*words)
        assert status == 0
        return noted(folder)["best"]

    return go


@pytest.mark.parametrize("words", EXPECTED, ids=" ".join)
def test_an_experiment_gives_its_expected_number(words: tuple[str, ...], best) -> None:
    found = best(*words)
    for metric, (low, high) in EXPECTED[words].items():
        assert low <= found[metric] <= high


@pytest.mark.slow
@pytest.mark.parametrize("words", LONG, ids=" ".join)
def test_a_long_experiment_gives_its_expected_number(words: tuple[str, ...], best) -> None:
    found = best(*words)
    for metric, (low, high) in LONG[words].items():
        assert low <= found[metric] <= high
