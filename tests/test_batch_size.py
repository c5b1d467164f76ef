"""`batch_size=auto`: doubled while it pays and memory lasts, and a number in every record of the run."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import pytest
import torch
from conftest import composed, noted
from omegaconf import OmegaConf
from test_options import CPU, images

from plumbline import batch_size, device
from plumbline.batch_size import sized, throughput
from plumbline.config import ConfigError, build, check_values


@pytest.mark.parametrize(
    ("rates", "found"),
    [
        ({32: 100, 64: 190, 128: 300, 256: 310}, 128),  # the last doubling brings 3 %
        ({32: 100, 64: 105}, 32),
        ({32: 100, 64: 200, 128: None}, 64),  # no memory
        ({32: 1, 64: 2, 128: 4, 256: 8, 512: 16}, 512),
    ],
)
def test_the_batch_is_doubled_while_it_pays_and_memory_lasts(rates, found: int, monkeypatch) -> None:
    tried = []
    monkeypatch.setattr(batch_size, "throughput", lambda *words: tried.append(words[-1]) or rates[words[-1]])
    monkeypatch.setattr(batch_size.device, "prepare", lambda *words: None)
    cfg = composed("data=digits", "batch_size=auto")
    sized_, words = sized(cfg, ["epochs=1", "batch_size=auto"], build(cfg.data)(), CPU, 1000)
    assert (sized_.batch_size, words, tried) == (found, ["epochs=1", f"batch_size={found}"], list(rates))


def test_the_batch_that_is_found_by_the_clock_takes_at_least_half_as_many_samples_again_a_second_as_one_of_32() -> None:
    cfg, prior = composed("data=digits", "batch_size=auto", "threads=1"), torch.full((10,), 0.1)
    data = build(cfg.data)()
    found = sized(cfg, [], data, CPU, 1000)[0].batch_size
    assert found in (64, 128, 256, 512)
    rates = {size: median(throughput(cfg, data, prior, CPU, size) for _ in range(3)) for size in (32, found)}
    assert rates[found] > 1.5 * rates[32], rates  # 64: 1.8, 512: 6


def test_a_batch_is_never_larger_than_train(monkeypatch) -> None:
    monkeypatch.setattr(batch_size, "throughput", lambda *words: 10.0 * words[-1])
    monkeypatch.setattr(batch_size.device, "prepare", lambda *words: None)
    cfg = composed("batch_size=auto")
    assert sized(cfg, [], images(), CPU, 1000)[0].batch_size == 32  # of 48


def test_trying_leaves_no_trace_and_out_of_memory_is_no_crash(monkeypatch) -> None:
    cfg, data = composed("batch_size=auto", "model.hidden=[8]", "threads=1"), images()
    before = torch.get_rng_state()
    assert throughput(cfg, data, torch.full((3,), 1 / 3), CPU, 16) > 0
    assert torch.equal(torch.get_rng_state(), before)

    def full(*words, **options):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(batch_size, "build_all", full)
    assert throughput(cfg, data, torch.full((3,), 1 / 3), CPU, 16) is None
    with pytest.raises(ConfigError, match="a batch of 32 does not fit into memory"):
        sized(cfg, [], data, CPU, 1000)


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"), MemoryError(),
     RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes")],
    ids=["gpu", "python", "cpu"],
)  # fmt: skip
def test_a_run_that_needs_more_memory_than_there_is_says_what_takes_less(error, run, monkeypatch) -> None:
    def full(*words, **options):
        raise error

    monkeypatch.setattr("plumbline.run.fit", full)
    with pytest.raises(ConfigError, match=r"batch_size=64: memory is full .*smaller batch_size .*device=cpu") as said:
        run("data=iris", "epochs=1")
    assert "\n" not in str(said.value)


def test_other_errors_that_speak_of_memory_are_not_taken_for_a_full_one() -> None:
    assert not device.out_of_memory(RuntimeError("unsupported memory format option Preserve"))
    assert not device.out_of_memory(ValueError("out of memory"))


def test_the_number_stands_in_the_record_and_makes_the_same_run_again(run, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("plumbline.run.write_report", lambda directory: None)
    status, folder = run("data=iris", "epochs=1", "batch_size=auto")
    found = OmegaConf.load(folder / "config.yaml").batch_size
    assert status == 0
    assert found in (32, 64)
    assert f"batch_size={found}" in noted(folder)["command"]
    assert "auto" not in noted(folder)["command"]
    assert f"batch_size={found}" in OmegaConf.load(folder / "overrides.yaml")


@pytest.mark.parametrize("word", ["many", "1.5", "true", "null"])
def test_any_other_word_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match=f"batch_size={word}: must be a whole number of at least 1 or auto"):
        check_values(composed(f"batch_size={word}"))
