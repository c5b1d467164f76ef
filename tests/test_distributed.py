"""Several processes are one process with a larger batch: the same numbers, each sample once, one writer, one decision."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, noted, records
from test_resume import result

from plumbline.distributed import World, place
from plumbline.loop import groups, usable

SCRIPT = """
import json, sys
import numpy as np, torch
from torch import nn
from plumbline import schedules
from plumbline.data.core import Split
from plumbline.distributed import joined
from plumbline.loop import Training, fit, supervised
from plumbline.signals import Signals
from plumbline.state import State

samples, batch, accumulate, norm, epochs = (int(word) for word in sys.argv[1:6])
torch.set_num_threads(1)
draws = torch.Generator().manual_seed(3)
x = torch.randn(samples, 5, generator=draws, dtype=torch.float64)
y = torch.randint(3, (samples,), generator=draws)
torch.manual_seed(0)
layers = [nn.Linear(5, 16), *([nn.BatchNorm1d(16)] if norm else []), nn.Tanh(), nn.Linear(16, 3)]
model = nn.Sequential(*layers).double()
optimiser = torch.optim.AdamW(model.parameters(), lr=0.01)
for group in optimiser.param_groups:
    group["initial_lr"] = group["lr"]
loss = nn.CrossEntropyLoss()
class Double(nn.Module):
    def forward(self, logits, y):
        return loss(logits.double(), y)
training = Training(model, optimiser, Double(), [], [], torch.Generator(), grad_clip=1.0)
state = State(model, optimiser)
split = Split(x, y, np.arange(samples))
seen = []
take = split.batches
def watched(size, order=None):
    for bx, by in take(size, order):
        seen.append(bx[:, 0].tolist())
        yield bx, by
split.batches = watched
curve = []
with Signals() as signals, joined(signals) as world:
    training.world = world
    options = dict(seed=1, epochs=epochs, batch_size=batch, accumulate=accumulate, watch=2)
    for record in fit(training, state, split, supervised, lambda progress, scores: 1.0 - 0.5 * progress, **options):
        if record is not None:
            state.scores.append(0.0)
            curve.append({key: value for key, value in record.items() if "second" not in key and "per_s" not in key})
    weights = [parameter.tolist() for parameter in model.state_dict().values()]
    rank = 0 if world is None else world.rank
    print("RESULT" + json.dumps({"rank": rank, "curve": curve, "weights": weights, "seen": seen}))
"""


def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def environments(processes: int) -> list[dict[str, str]]:
    common = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    if processes == 1:
        return [common]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port()), "WORLD_SIZE": str(processes)}
    return [common | meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def start(words: list[str], processes: int, cwd: Path) -> list[subprocess.Popen[str]]:
    return [
        subprocess.Popen(words, env=each, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for each in environments(processes)
    ]


def fitted(
    processes: int, batch: int, cwd: Path, samples: int, accumulate: int, norm: int, epochs: int = 3
) -> list[dict]:
    words = [sys.executable, "-c", SCRIPT, *(str(n) for n in (samples, batch, accumulate, norm, epochs))]
    outputs = [process.communicate(timeout=240)[0] for process in start(words, processes, cwd)]
    return [
        json.loads(next(line for line in output.splitlines() if line.startswith("RESULT"))[6:]) for output in outputs
    ]


def flat(values) -> list[float]:
    return [values] if isinstance(values, int | float) else [x for value in values for x in flat(value)]


@pytest.mark.slow
@pytest.mark.parametrize(("samples", "accumulate"), [(61, 1), (33, 3)])
def test_four_processes_are_one_with_a_batch_four_times_as_large(samples: int, accumulate: int, tmp_path: Path) -> None:
    (alone,) = fitted(1, 16, tmp_path, samples, accumulate, norm=0)
    together = fitted(4, 4, tmp_path, samples, accumulate, norm=0)
    for each in together:
        assert [record.keys() for record in each["curve"]] == [record.keys() for record in alone["curve"]]
        ours = [value for record in each["curve"] for value in record.values()]
        theirs = [value for record in alone["curve"] for value in record.values()]
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-9)
        assert flat(each["weights"]) == pytest.approx(flat(alone["weights"]), rel=1e-6, abs=1e-9)


@pytest.mark.slow
def test_every_sample_is_seen_once_an_epoch_by_one_process_only(tmp_path: Path) -> None:
    (alone,) = fitted(1, 12, tmp_path, 41, 1, norm=0, epochs=1)
    together = fitted(3, 4, tmp_path, 41, 1, norm=0, epochs=1)
    assert len(flat(alone["seen"])) == 41
    assert sorted(flat([each["seen"] for each in together])) == sorted(flat(alone["seen"]))


@pytest.mark.slow
def test_weights_and_running_statistics_are_the_same_in_all_processes(tmp_path: Path) -> None:
    together = fitted(3, 4, tmp_path, 41, 1, norm=1)
    assert together[0]["weights"] == together[1]["weights"] == together[2]["weights"]
    assert together[0]["curve"] == together[1]["curve"] == together[2]["curve"]


@pytest.mark.parametrize("processes", [2, 3, 4, 7])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_shares_cover_an_epoch_exactly_once_whatever_its_length(processes: int, batch: int) -> None:
    for samples in range(1, 4 * processes * batch):
        order = torch.randperm(samples, generator=torch.Generator().manual_seed(samples))
        worlds = [World(rank, processes, signals=None) for rank in range(processes)]
        shares = [world.rows(order, batch) for world in worlds]
        assert sorted(torch.cat([rows for rows, _ in shares]).tolist()) == list(range(samples))
        assert all(whole == shares[0][1] for _, whole in shares)
        assert sum(shares[0][1]) == samples
        for accumulate in (1, 2, 3):
            totals = []
            for world, (rows, whole) in zip(worlds, shares, strict=True):
                batches = ((chunk, chunk) for chunk in rows.split(batch) if len(chunk))
                totals.append([world.share for _ in world.updates(groups(batches, accumulate), whole, accumulate)])
            assert {len(each) for each in totals} == {-(-len(shares[0][1]) // accumulate)}
            assert [sum(column) for column in zip(*totals, strict=True)] == pytest.approx([1.0] * len(totals[0]))


@pytest.mark.parametrize("total", [1, 2, 7, 100])
def test_a_set_is_scored_in_parts_that_cover_it(total: int) -> None:
    worlds = [World(rank, 3, signals=None) for rank in range(3)]
    assert [place for world in worlds for place in world.part(total)] == list(range(total))


def test_processes_are_counted_from_srun_or_torchrun_and_not_from_an_allocation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("SLURM_NTASKS", "4")  # a shell inside an allocation, or the batch script
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert place() == (0, 1, 0)
    for key, value in {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1"}.items():
        monkeypatch.setenv(key, value)
    assert place() == (3, 4, 1)
    for key, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "2"}.items():
        monkeypatch.setenv(key, value)
    assert place() == (5, 8, 2)


TRAIN = [sys.executable, "-m", "plumbline.train"]
WORDS = ["epochs=60", "regulariser=[dropout]", "model=cnn", "model.channels=[4,4]", "model.norm=batch",
         "batch_size=32", "threads=1", "bootstrap=10", "data.subset=400", "save_minutes=100", "checks=off"]  # fmt: skip


def train(cwd: Path, processes: int, *words: str) -> list[tuple[int, str]]:
    started = start([*TRAIN, *words], processes, cwd)
    outputs = [process.communicate(timeout=240)[0] for process in started]
    return [(process.returncode, output) for process, output in zip(started, outputs, strict=True)]


@pytest.mark.parametrize(
    "more",
    [
        pytest.param([], id="whole"),
        pytest.param(["shard=true", "save_minutes=0.001"], id="sharded", marks=pytest.mark.slow),
    ],
)
def test_two_processes_have_the_curve_of_one_and_only_the_first_writes(more: list[str], tmp_path: Path) -> None:
    quick = ["epochs=4", "threads=1", "bootstrap=10", "checks=off", "accumulate=3", "grad_clip=0.5", "data.subset=401"]
    for status, output in train(tmp_path, 2, *quick, *more, "batch_size=32"):
        assert status == 0, output
    (two,) = (path.parent for path in tmp_path.glob("outputs/*/*/run.json"))
    assert len(list(two.parent.iterdir())) == 1
    assert train(tmp_path, 1, *quick, "batch_size=64", "hydra.run.dir=one")[0][0] == 0
    assert (noted(two)["processes"], noted(tmp_path / "one")["processes"]) == (2, 1)
    ours, theirs = records(two), records(tmp_path / "one")
    assert len(ours) == len(theirs) == 4
    for mine, its in zip(ours, theirs, strict=True):
        assert mine["fit/loss"] == pytest.approx(its["fit/loss"], rel=1e-4)
        assert mine["val/loss"] == pytest.approx(its["val/loss"], rel=1e-4)
        assert mine["step"] == its["step"]


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "more"), [(0, ["ema=0.9"]), (1, ["ema=0.9"]), (1, ["shard=true"])])
def test_a_signal_to_one_process_makes_all_leave_at_one_step_and_they_go_on_to_the_same_bits(
    asked: int, more: list[str], tmp_path: Path
) -> None:
    for status, output in train(tmp_path, 2, *WORDS, *more, "hydra.run.dir=whole"):
        assert status == 0, output
    started = start([*TRAIN, *WORDS, *more, "hydra.run.dir=cut"], 2, tmp_path)
    metrics = tmp_path / "cut" / "metrics.jsonl"
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 5:
        assert all(process.poll() is None for process in started)
        time.sleep(0.01)
    started[asked].send_signal(signal.SIGUSR1)
    outputs = [process.communicate(timeout=60)[0] for process in started]
    assert [process.returncode for process in started] == [85, 85], outputs
    assert noted(tmp_path / "cut")["status"] == "preempted"
    for status, output in train(tmp_path, 2, "resume=cut"):
        assert status == 0, output
    assert noted(tmp_path / "cut")["restarts"] == 1
    assert result(tmp_path / "cut") == result(tmp_path / "whole")


@pytest.mark.slow
def test_it_cannot_go_on_with_another_number_of_processes(tmp_path: Path) -> None:
    assert train(tmp_path, 1, "epochs=1", "bootstrap=10", "hydra.run.dir=run")[0][0] == 0
    statuses = train(tmp_path, 2, "resume=run")
    assert statuses[0][0] == 2
    assert "began with 1 processes" in statuses[0][1]
    assert "Traceback" not in statuses[0][1] + statuses[1][1]
    assert noted(tmp_path / "run")["status"] == "finished"


@pytest.mark.slow
def test_all_processes_leave_when_the_loss_diverges(tmp_path: Path) -> None:
    words = ["epochs=3", "optimiser=sgd", "optimiser.lr=1e30", "checks=off", "bootstrap=10", "hydra.run.dir=run"]
    statuses = train(tmp_path, 2, *words)
    assert [status for status, _ in statuses] == [3, 3], statuses
    assert noted(tmp_path / "run")["status"] == "diverged"


# --- sharded ---------------------------------------------------------------------------------------------------------

HELD = """
import sys
import torch
from torch import nn
from plumbline import optimisers
from plumbline.distributed import joined
from plumbline.sharding import alike, gathered, optimiser_alike, shard
from plumbline.signals import Signals

with Signals() as signals, joined(signals) as world:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 33), nn.ReLU(), nn.Sequential(nn.Linear(33, 33), nn.ReLU()), nn.Linear(33, 3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    total = sum(p.numel() for p in model.parameters())
    shard(model, [], torch.device("cpu"))
    options = dict(lr=0.1, weight_decay=0.1, decoupled=True, spare=True, layer_rates=None)
    optimiser = optimisers.adam(model, betas=[0.9, 0.99], eps=1e-8, **options)
    assert all(torch.equal(value, before[name]) for name, value in gathered(model.state_dict(), True).items())
    model(torch.ones(2, 7)).sum().backward()
    optimiser.step()
    local = sum(p.to_local().numel() for p in model.parameters())
    moments = sum(s["exp_avg"].to_local().numel() for s in optimiser.state.values())
    kept = gathered({"model": model.state_dict(), "optimiser": optimiser.state_dict()}, True)
    model(torch.ones(2, 7)).sum().backward()
    optimiser.step()
    model.load_state_dict(alike(kept["model"], model.state_dict()))
    optimiser.load_state_dict(optimiser_alike(kept["optimiser"], optimiser.param_groups))
    again = gathered({"model": model.state_dict(), "optimiser": optimiser.state_dict()}, True)
    assert str(again) == str(kept)
    print("RESULT", world.rank, local / total, moments / total)
"""


@pytest.mark.slow
def test_each_process_holds_its_part_of_weights_and_moments_and_takes_up_what_was_gathered(tmp_path) -> None:
    outputs = [each.communicate(timeout=120)[0] for each in start([sys.executable, "-c", HELD], 3, tmp_path)]
    parts = [next(line for line in output.splitlines() if line.startswith("RESULT")).split() for output in outputs]
    for at in (2, 3):
        shares = [float(words[at]) for words in parts]
        assert sum(shares) == pytest.approx(1.0)
        assert max(shares) < 0.4


def test_sharded_no_process_is_ever_without_a_sample() -> None:
    for size in (2, 3, 4):
        for samples in range(2 * size, 60):
            whole = usable(samples, size * 3, 2 * size)
            worlds = [World(rank, size, signals=None, sharded=True) for rank in range(size)]
            shares = [world.rows(torch.arange(whole), 3) for world in worlds]
            assert sorted(torch.cat([rows for rows, _ in shares]).tolist()) == list(range(whole))
            assert len({math.ceil(len(rows) / 3) for rows, _ in shares}) == 1
            for total in (1, size, samples):
                assert len({len(world.part(total)) + len(world.padding(total)) for world in worlds}) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "shard=true: one process holds the whole network; start several"),
        (["ema=0.9"], "shard=true: ema would hold the whole network"),
        (["compile=true"], "shard=true: compile wants whole layers"),
        (["precision=fp16"], "shard=true precision=fp16"),
        (["figures=[filters]"], "shard=true: figures look into the whole network"),
    ],
)
def test_what_shards_cannot_do_is_said_at_once(words: list[str], message: str, tmp_path: Path) -> None:
    from conftest import composed

    from plumbline.config import ConfigError, check_values
    from plumbline.run import run_to_the_end

    cfg = composed("shard=true", *words)
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_values(cfg)
        run_to_the_end(cfg, tmp_path, [])


@pytest.mark.slow
def test_penalties_that_need_whole_weights_are_refused_by_all_processes(tmp_path: Path) -> None:
    statuses = train(tmp_path, 2, "shard=true", "regulariser=[l1]", "epochs=1", "hydra.run.dir=run")
    assert [status for status, _ in statuses] == [2, 2], statuses
    assert "shard=true: regulariser.l1 looks at whole weights" in statuses[0][1]
