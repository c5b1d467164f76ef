"""Several processes that train one network together: each computes its share of every batch, and all take the same step.

Started by `srun` (launcher=slurm with several processes) or by `torchrun`. Process 0 is the run; the others follow it.
"""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from plumbline.config import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from plumbline.signals import Signals

PATIENCE = timedelta(hours=2)  # the others wait while process 0 looks at the data and probes the step
ASKED = ("preempted", "stopped")  # how a run can be asked to leave, the stronger last


def place() -> tuple[int, int, int]:
    """(rank, processes, rank on this machine) as torchrun or srun says it; (0, 1, 0) alone. Imports nothing.

    A shell inside an allocation of several tasks is no step of several processes: SLURM_STEP_NUM_TASKS tells.
    """
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return tuple(int(os.environ.get(key, "0")) for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return tuple(int(os.environ[key]) for key in ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"))
    return 0, 1, 0


@dataclass
class World:
    """The processes of a run. What they tell one another each step: gradients, the loss, and who was asked to leave."""

    rank: int
    size: int
    signals: Signals
    flags: Any = None  # the group in which the flags go round, on the CPU: the device need not be waited for
    share: float = 1.0  # of the update's samples that are this process's
    samples: int = 0  # of the update, in all processes
    idle: bool = False  # whether some process has none of them
    sharded: bool = False  # whether each holds a part of the weights, so that all must compute and save together
    due: bool = False  # whether this process wants to save
    saving: bool = False  # whether any does, known to all at the same step
    asked: str | None = None  # what any process was asked, known to all at the same step

    def rows(self, order: Tensor, batch_size: int) -> tuple[Tensor, list[int]]:
        """This process's rows of all batches of `size` × `batch_size` samples, and how many samples each of those has.

        Each sample is in exactly one process's rows, and no process has more than `batch_size` of a batch. A last batch
        that is too small gives each process in it two samples where that fits, as batch norm needs, and the others none;
        where weights are sharded, each has some of every batch.
        """
        import torch

        mine, whole = [order[:0]], []
        for batch in order.split(self.size * batch_size):
            among = max(math.ceil(len(batch) / batch_size), min(self.size, len(batch) // 2))
            among = self.size if self.sharded else among
            ends = [len(batch) * k // among for k in range(among + 1)]
            if self.rank < among:
                mine.append(batch[ends[self.rank] : ends[self.rank + 1]])
            whole.append(len(batch))
        return torch.cat(mine), whole

    def updates(self, mine: Iterator[list[Any]], whole: list[int], accumulate: int) -> Iterator[list[Any]]:
        """This process's batches of each update, none where it has none, with `share` and `samples` of that update."""
        for first in range(0, len(whole), accumulate):
            batches = next(mine, [])
            self.samples = sum(whole[first : first + accumulate])
            self.idle = min(whole[first : first + accumulate]) < 2 * self.size
            self.share = sum(len(y) for _, y in batches) / self.samples
            yield batches

    def seed(self, seed: int) -> int:
        """The seed of this process in a step: process 0 draws what it would draw alone, the others draw their own."""
        return (seed ^ (self.rank * 0x9E3779B97F4A7C15)) % 2**64

    def average(self, model: torch.nn.Module) -> None:
        """Make every gradient the mean over the whole batch, and running statistics (batch norm's) the mean, too.

        Gradients of sharded weights are that already.
        """
        import torch
        import torch.distributed as dist

        wanted = [parameter for parameter in model.parameters() if parameter.requires_grad and not self.sharded]
        for parameter in wanted:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        parts = [parameter.grad for parameter in wanted] + buffers
        if self.idle:  # its counters stood still
            for buffer in model.buffers():
                if not buffer.is_floating_point():
                    dist.broadcast(buffer, src=0)
        for kind in dict.fromkeys(part.dtype for part in parts):
            same = [part for part in parts if part.dtype == kind]
            flat = torch.cat([part.reshape(-1) for part in same]) * self.share
            dist.all_reduce(flat)
            for part, values in zip(same, flat.split([part.numel() for part in same]), strict=True):
                part.detach().copy_(values.view_as(part))

    def agree(self, loss: Tensor, penalty: Tensor | float) -> tuple[Tensor, Tensor]:
        """The loss and penalty of the whole batch. Learns what any process was asked, at the same step everywhere."""
        import torch
        import torch.distributed as dist

        exact = torch.float32 if loss.device.type == "mps" else torch.float64
        both = [torch.as_tensor(value, dtype=exact, device=loss.device).detach() for value in (loss, penalty)]
        sums = torch.stack(both) * self.share
        dist.all_reduce(sums)
        flags = torch.tensor([0 if self.signals.asked is None else 1 + ASKED.index(self.signals.asked), self.due])
        dist.all_reduce(flags, op=dist.ReduceOp.MAX, group=self.flags)
        asked, self.saving = int(flags[0]), bool(flags[1])
        self.due = False
        if asked:
            self.asked = ASKED[asked - 1]
        return sums[0], sums[1]

    def gather(self, rows: Tensor, total: int) -> Tensor:
        """All processes' rows of a set, in its order, on every process; each holds those that `part` gave it."""
        import torch
        import torch.distributed as dist

        longest = math.ceil(total / self.size)
        padded = rows.new_zeros(longest, *rows.shape[1:])  # all_gather wants equal shapes
        padded[: len(rows)] = rows
        every = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(every, padded)
        return torch.cat([some[: len(self.part(total, rank))] for rank, some in enumerate(every)])

    def part(self, total: int, rank: int | None = None) -> range:
        """The places of a set of so many samples that a process scores."""
        rank = self.rank if rank is None else rank
        return range(total * rank // self.size, total * (rank + 1) // self.size)

    def padding(self, total: int) -> list[int]:
        """Places to score beside one's own where all must compute equally often."""
        missing = math.ceil(total / self.size) - len(self.part(total))
        return [0] * missing if self.sharded else []

    def same(self, value: Any) -> Any:
        """What process 0 has."""
        import torch.distributed as dist

        held = [value]
        dist.broadcast_object_list(held, src=0)
        return held[0]


@contextmanager
def joined(signals: Signals) -> Iterator[World | None]:
    """The other processes of this run, met; None for a process alone. Raises ConfigError where they cannot meet."""
    rank, size, local = place()
    if size == 1:
        yield None
        return
    import torch
    import torch.distributed as dist

    if torch.cuda.is_available():
        torch.cuda.set_device(local % torch.cuda.device_count())
    os.environ.setdefault("MASTER_ADDR", _first_host())
    os.environ.setdefault("MASTER_PORT", str(20000 + int(os.environ.get("SLURM_JOB_ID", "0")) % 20000))
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", rank=rank, world_size=size, timeout=PATIENCE
        )
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise ConfigError(
            f"process {rank} of {size} cannot meet the others at {where}: {str(error).splitlines()[0]}"
        ) from error
    try:
        yield World(rank, size, signals, flags=dist.new_group(backend="gloo"))
    finally:
        dist.destroy_process_group()


def _first_host() -> str:
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST")
    if not nodes:
        return "127.0.0.1"
    words = ["scontrol", "show", "hostnames", nodes]
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=30).stdout.splitlines()[0]
