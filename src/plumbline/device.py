"""Where the numbers are computed and how precisely: few lines, and the only ones that know of hardware."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn

from plumbline.config import ConfigError

LITTLE = 4_000_000  # multiply-adds of a batch that one thread does about as fast as two
TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose(name: str) -> torch.device:
    """The device of a name; `auto` takes CUDA, then MPS, then the CPU. One that is not there is the user's mistake."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    device = torch.device(next(kind for kind in ("cuda", "mps", "cpu") if there[kind]) if name == "auto" else name)
    if not there[device.type] or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        usable = [kind for kind, present in there.items() if present]
        raise ConfigError(f"device={name}: is not on this machine; usable here: auto, {', '.join(usable)}")
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())  # set_device wants its number
    return device


def out_of_memory(error: BaseException) -> bool:
    """Whether that is what happened: torch says so on a GPU by a type, on a CPU by words."""
    said = re.search(r"out of memory|not enough memory|(can't|cannot) allocate memory", str(error), re.I)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and said is not None)


def prepare(device: torch.device, threads: int | None, work: int) -> None:
    """Set the process up for speed that changes no honest number. work: multiply-adds of a batch, forward.

    Threads that share out little work wait for one another, and on a busy machine for long: 50 times was measured.
    """
    if threads is not None or work < LITTLE:
        torch.set_num_threads(threads or 1)
    torch.set_flush_denormal(True)  # over-regularised weights decay into denormal numbers, which cost 30 times as much
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True


def autocast(device: torch.device, precision: str) -> Callable[[], Any]:
    """A function that makes the context in which the network computes."""
    if precision == "fp32":
        return nullcontext
    return partial(torch.autocast, device.type, dtype=TYPES[precision])


def scaler(device: torch.device, precision: str) -> torch.amp.GradScaler | None:
    """The scaling that keeps fp16 gradients from vanishing (Micikevicius et al. 2018); other types need none."""
    return torch.amp.GradScaler(device.type) if precision == "fp16" else None


def place(model: nn.Module, device: torch.device, channels_last: bool, compiled: bool) -> nn.Module:
    """The network on its device, in the memory layout of its convolutions, compiled in place if wanted."""
    layout = torch.channels_last if channels_last and has_convolutions(model) else torch.preserve_format
    model.to(device, memory_format=layout)
    if compiled:
        if device.type == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))):
            raise ConfigError(
                "compile=true: needs a C++ compiler, and there is neither g++ nor clang++ here; install one"
            )
        torch._dynamo.config.skip_nnmodule_hook_guards = False  # dropout and its kin are hooks: see them
        model.compile()
    return model


def has_convolutions(model: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d) for module in model.modules())
