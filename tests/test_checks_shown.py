"""Two published programs that are wrong, run as they are: what is said of them, and when."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import composed, noted
from omegaconf import OmegaConf
from torch import Tensor

from plumbline.data.core import Data, Spec, Split, Splits
from plumbline.run import run_to_the_end


def gene_expression() -> Data:
    """5000 levels of expression in 1000 samples of two kinds, told by fifteen of them, and not quite."""
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(1000, 5000, generator=draws)
    y = (x[:, :15].sum(1) + 1.5 * torch.randn(1000, generator=draws) > 0).long()
    return dealt(Spec("classification", (5000,), 2), x, y)


def toy_regression() -> Data:
    """A weighted sum of five inputs, taken over all samples at once: one number (in S1, 784.617)."""
    x = torch.randn(1000, 5, generator=torch.Generator().manual_seed(7))
    target = (x * torch.arange(1.0, 6.0)).sum() + 784.617
    return dealt(Spec("regression", (5,), 1), x, target.expand(1000, 1).clone())


def dealt(spec: Spec, x: Tensor, y: Tensor) -> Data:
    ids = np.arange(len(x))
    train, val, test = (Split(x[part], y[part], ids[part]) for part in map(slice, (0, 600, 800), (600, 800, 1000)))
    return Data(spec, lambda: Splits(train, val, lambda: test, lambda: f"made of {prod(x.shape)} numbers"))


def said(tmp_path: Path, data: str, loss: dict[str, Any] | None, *words: str) -> tuple[int, dict[str, dict], dict]:
    """(exit status, the findings by id, run.json) of a program with these data."""
    words = (
        f"outputs={tmp_path}",
        "threads=1",
        "bootstrap=100",
        f"allow=[plumbline,torch.optim,{__name__},programs]",
        *words,
    )
    cfg = composed(*words)
    OmegaConf.set_struct(cfg, False)
    cfg.data = {"_target_": f"{__name__}.{data}"}
    if loss is not None:
        cfg.loss = loss
    status = run_to_the_end(cfg, tmp_path / "run", list(words))
    run = noted(tmp_path / "run")
    return status, {item["id"]: item for item in run["findings"]}, run


def test_the_toy_regression_is_caught_twice_before_the_first_epoch(tmp_path: Path) -> None:
    broadcast = {"_target_": "programs.OwnLoss", "fault": "broadcast"}
    _, found, _ = said(tmp_path, "toy_regression", broadcast, "epochs=2", "optimiser=sgd")
    for name, phase in (("data.constant_target", "audit"), ("init.shape_broadcast", "probes")):
        assert (found[name]["severity"], found[name]["phase"]) == ("fail", phase)
    assert "every target of train is the number" in found["data.constant_target"]["message"]


@pytest.mark.slow
def test_the_network_of_three_linear_layers_is_called_linear_and_loses_to_l1(tmp_path: Path) -> None:
    status, found, run = said(
        tmp_path, "gene_expression", None, "model.hidden=[1000,500]", "model.activation=identity", "epochs=10"
    )
    assert (status, run["parameters"]) == (0, 5_502_502)
    assert found["init.linear"]["severity"] == "warn" and found["init.linear"]["phase"] == "probes"
    rows = {row["name"]: row for row in run["baselines"]}
    lasso = rows["L1 logistic regression"]
    assert lasso["metrics"]["val/accuracy"] > 0.75 and lasso["seconds"] < 10
    assert run["best"]["val/accuracy"] < lasso["metrics"]["val/accuracy"] - 0.1
    verdict = found["result.baseline"]
    assert verdict["severity"] in ("warn", "fail") and "does not beat the" in verdict["message"]
    assert f"the L1 logistic regression has {lasso['metrics']['val/accuracy']:.4g}" in verdict["message"]
    assert "the L1 logistic regression has" in (tmp_path / "run" / "report.html").read_text()
