"""`batch_size=auto`: the batch that this machine trains fastest with, found before the run is written down."""

from __future__ import annotations

import gc
import time
from itertools import islice
from statistics import median

import torch
from omegaconf import DictConfig

from plumbline import device, tasks
from plumbline.assemble import build_all, mistakes_in
from plumbline.config import ConfigError
from plumbline.data.core import Data
from plumbline.loop import epoch_order, groups, seed_all

AUTO = "auto"
SMALLEST, LARGEST = 32, 512  # beyond that training changes more than its speed (Keskar et al. 2017)
GAIN = 1.1  # a doubling that brings less throughput than this is not worth fewer updates
TIMED = 3, 20  # updates that are timed at each size, after one that is not: at least, and at most
ENOUGH = 0.2  # seconds of them: a small network's updates are short, and others use the machine, too


def sized(
    cfg: DictConfig, overrides: list[str], data: Data, where: torch.device, work: int
) -> tuple[DictConfig, list[str]]:
    """The configuration and the command with a number for `auto`: doubled while throughput grows and memory lasts.

    work: multiply-adds of a sample. Times the very step on copies of the very network; the run itself is not touched.
    """
    device.prepare(where, cfg.threads, LARGEST * work)
    with mistakes_in("data"):
        data.train.to(where, cfg.channels_last)
        prior = tasks.prior(data.spec, data.train).float()
    most = min(LARGEST, len(data.train) // cfg.accumulate)
    best, fastest, size = min(SMALLEST, most), 0.0, min(SMALLEST, most)
    while size <= most:
        rate = throughput(cfg, data, prior, where, size)
        if rate is None and not fastest:
            raise ConfigError(
                f"batch_size=auto: a batch of {size} does not fit into memory; say a smaller one yourself"
            )
        if rate is None or rate < GAIN * fastest:
            break
        best, fastest, size = size, rate, 2 * size
    cfg = cfg.copy()
    cfg.batch_size = best
    given = [f"batch_size={best}" if word.lstrip("+") == f"batch_size={AUTO}" else word for word in overrides]
    return cfg, given if f"batch_size={best}" in given else [*given, f"batch_size={best}"]


def throughput(cfg: DictConfig, data: Data, prior: torch.Tensor, where: torch.device, size: int) -> float | None:
    """Samples a second that an update processes at that batch size; None if memory does not hold it."""
    order = epoch_order(len(data.train), cfg.seed, 0)
    seconds: list[float] = []
    try:
        with torch.random.fork_rng():
            training, _, step, _ = build_all(cfg, data.spec, prior, where, rehearsal=True)
            training.model.train()
            turns = groups(data.train.batches(size, torch.cat([order] * (1 + TIMED[1]))), cfg.accumulate)
            for batches in islice(turns, 1 + TIMED[1]):
                if len(seconds) > TIMED[0] and sum(seconds[1:]) > ENOUGH:
                    break
                began = time.perf_counter()
                seed_all(cfg.seed, training.generator)
                float(step(training, batches))  # waits for the device
                seconds.append(time.perf_counter() - began)
    except (MemoryError, RuntimeError) as error:
        if not device.out_of_memory(error):
            raise
        return None
    finally:
        training = step = batches = turns = None
        gc.collect()
        if where.type == "cuda":
            torch.cuda.empty_cache()
    return size * cfg.accumulate / median(seconds[1:])
