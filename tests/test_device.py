"""Where the numbers are computed: the logic, on machines that have no GPU too."""

from __future__ import annotations

import pytest
import torch
from conftest import noted

from plumbline import device
from plumbline.config import ConfigError


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch):
    """A machine that says it has two CUDA devices, and remembers which was chosen."""
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_device", lambda where: chosen.append(where))
    return chosen


@pytest.mark.parametrize(
    ("name", "expected"), [("auto", "cuda:0"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")]
)
def test_a_gpu_is_taken_where_there_is_one_and_always_by_its_number(name: str, expected: str, gpus) -> None:
    where = device.choose(name)
    device.prepare(where, None, 10**9)
    assert where == torch.device(expected)
    assert gpus == ([where] if where.type == "cuda" else [])


def test_a_run_says_and_keeps_its_device_its_threads_and_its_torch(run, capfd) -> None:
    _, folder = run("data=iris", "epochs=1", "threads=1", "device=cpu", "report=false")
    kept = noted(folder)["environment"]
    assert (kept["device"], kept["threads"], kept["torch"]) == ("cpu", 1, torch.__version__)
    assert " · cpu" in capfd.readouterr().out


@pytest.mark.parametrize("name", ["cuda:2", "mps"])
def test_a_device_that_is_not_there_is_the_users_mistake(name: str, gpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=f"device={name}: is not on this machine; usable here: auto, cuda, cpu"):
        device.choose(name)


def test_auto_is_the_cpu_where_there_is_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert device.choose("auto") == torch.device("cpu")


@pytest.mark.parametrize(
    ("threads", "work", "expected"), [(None, 1_000, 1), (2, 1_000, 2), (None, 10**9, 3), (2, 10**9, 2)]
)
def test_little_work_is_not_shared_out_unless_it_is_asked_for(threads, work: int, expected: int) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        device.prepare(torch.device("cpu"), threads, work)
        assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)


def test_tiny_numbers_are_flushed_to_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    device.prepare(torch.device("cpu"), 1, 0)
    tiny = torch.tensor([1e-30]) * torch.tensor([1e-10])
    assert tiny.item() == 0.0


@pytest.mark.parametrize(
    ("precision", "kind"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_the_network_computes_in_the_precision_asked_for(precision: str, kind: torch.dtype) -> None:
    with device.autocast(torch.device("cpu"), precision)():
        assert torch.nn.Linear(4, 4)(torch.randn(2, 4)).dtype == kind
    assert (device.scaler(torch.device("cpu"), precision) is not None) == (precision == "fp16")
