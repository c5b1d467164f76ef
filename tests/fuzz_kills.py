"""Runs with random options that are ended at random moments: each must end with the bits of one that nobody ended."""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from fuzz_process import WALL_SECONDS, Result, command, finish, fresh_folder, start

BASE = ["checks=off", "report=false", "bootstrap=2", "threads=1", "save_minutes=0.0001", "hydra.run.dir=run"]
PROGRAMS = [  # data, network and the options that go with them
    {"words": ["data=iris", "model.hidden=[8,8]", "epochs=6", "batch_size=16"],
     "norms": ["none", "batch", "layer"], "kind": "table"},
    {"words": ["data=wine", "model=residual_mlp", "epochs=5", "batch_size=20"], "norms": [], "kind": "table"},
    {"words": ["data=diabetes", "data.subset=120", "model.hidden=[8]", "epochs=6", "batch_size=20"],
     "norms": ["none", "batch"], "kind": "numbers"},
    {"words": ["data=digits", "data.subset=130", "model=cnn", "model.channels=[4,4]", "model.hidden=[8]",
               "epochs=4", "batch_size=25"],
     "norms": ["none", "batch"], "kind": "images"},
    {"words": ["data=digits", "data.subset=100", "model=linear", "epochs=6", "batch_size=20"], "norms": [],
     "kind": "images"},
    {"words": ["data=sequences", "data.samples=100", "model=lstm", "epochs=4", "batch_size=16"], "norms": [],
     "kind": "sequences"},
]  # fmt: skip
OPTIMISERS = ["adamw", "adam", "sgd", "rmsprop", "nadam", "radam", "adagrad", "adam_then_sgd"]
SCHEDULES = ["constant", "cosine", "linear", "one_cycle", "plateau", "cosine_restarts", "multistep"]
PENALTIES = {
    "table": [
        "dropout",
        "mixup",
        "l2",
        "l1",
        "elastic_net",
        "label_smoothing",
        "input_noise",
        "weight_norm",
        "spectral_norm",
    ],
    "numbers": ["dropout", "mixup", "l2", "l1", "input_noise", "weight_norm"],
    "images": [
        "dropout",
        "mixup",
        "cutmix",
        "l2",
        "l1",
        "label_smoothing",
        "input_noise",
        "spectral_norm",
        "confidence_penalty",
    ],
    "sequences": ["dropout", "l2", "l1", "label_smoothing"],
}
AUGMENTS = ["shift", "flip", "rotate", "cutout", "crop"]
CLOCK = ("seconds", "samples_per_s")


def draw(rng: random.Random) -> list[str]:
    """The words of a run."""
    program = rng.choice(PROGRAMS)
    words, kind = [*program["words"]], program["kind"]
    words += [f"optimiser={rng.choice(OPTIMISERS)}", f"schedule={rng.choice(SCHEDULES)}", f"seed={rng.randrange(100)}"]
    if program["norms"]:
        words.append(f"model.norm={rng.choice(program['norms'])}")
    chosen = rng.sample(PENALTIES[kind], rng.choice([0, 0, 1, 1, 2]))
    if {"weight_norm", "spectral_norm"} <= set(chosen):
        chosen.remove("weight_norm")
    if {"mixup", "cutmix"} <= set(chosen):
        chosen.remove("cutmix")
    words.append(f"regulariser=[{','.join(chosen)}]")
    if kind == "images" and rng.random() < 0.5:
        words.append(f"augment=[{rng.choice(AUGMENTS)}]")
    words += rng.choice([[], [], ["ema=0.9"], ["swa=0.5"]])
    words += rng.choice([[], ["accumulate=2"], ["accumulate=3"]])
    words += rng.choice([[], ["grad_clip=0.5"]])
    words += rng.choice([[], [], ["step=sam"]])
    words += rng.choice([[], [], ["precision=bf16"]])
    words += rng.choice([[], [], ["patience=2"], ["snapshots=[2]"], ["watch=0"], ["save_minutes=1000"]])
    return [*words, *(word for word in BASE if word.partition("=")[0] not in {w.partition("=")[0] for w in words})]


def left(directory: Path) -> dict[str, Any]:
    """All that a run leaves which does not depend on the clock, as plain values."""
    import numpy as np
    import torch

    def plain(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return (
                str(value.dtype),
                tuple(value.shape),
                value.contiguous().view(-1).view(torch.uint8).numpy().tobytes(),
            )
        if isinstance(value, dict):
            return {str(key): plain(item) for key, item in value.items() if key not in CLOCK}
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    found: dict[str, Any] = {}
    for name in ("last.pt", "best.pt"):
        content = torch.load(directory / name, weights_only=True)
        found[name] = {key: plain(value) for key, value in content.items() if key not in ("records", "took", "saved")}
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    found["metrics.jsonl"] = [plain(json.loads(line)) for line in lines]
    arrays = np.load(directory / "predictions.npz")
    found["predictions.npz"] = {key: arrays[key].tobytes() for key in arrays.files}
    return found


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    found = []
    for file in one:
        if one[file] != other[file]:
            parts = one[file] if isinstance(one[file], dict) else {}
            found.append(f"{file}: {[key for key in parts if parts[key] != other[file].get(key)] or 'other'}"[:120])
    return found


def attempt(seed: int, number: int, place: Path) -> Result:
    """One run undisturbed, and the same words ended once or twice and resumed until they are done."""
    rng = random.Random(f"kills {seed} {number}")
    result = Result(number)
    here = fresh_folder(place, None)
    for _ in range(20):  # words that go together: others are refused, and some diverge
        words, began = draw(rng), time.monotonic()
        whole = command("train", words, here, cpu=40)
        took = time.monotonic() - began
        if result.add(whole, "undisturbed"):
            return result
        if whole.status == 0:
            break
        shutil.rmtree(here / "run", ignore_errors=True)
    else:
        result.note("refused by its words", whole.line, whole.err.strip()[-200:])
        return result
    expected = left(here / "run")
    os.rename(here / "run", here / "undisturbed")
    for turn in range(6):
        begun = (here / "run" / "config.yaml").exists()
        now = ["resume=run"] if begun else words
        process = start("train", now, here, cpu=40)
        how = None
        if turn < rng.choice([1, 1, 2, 3]):
            how = rng.choice([signal.SIGKILL] * 3 + [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
            interrupt(process, rng.uniform(0.02, 1.05) * took, how)
        ended = finish("train", now, here, process)
        if how is None or ended.status != -how:  # killed, or by a signal before it heeds any
            result.add(ended, f"turn {turn}, {how.name if how else 'undisturbed'}; words {' '.join(words)}")
        else:
            result.commands += 1
        if result.faults:
            return result
        if ended.status == 0:
            break
        if how is None and ended.status not in (85, 130):
            result.note("not resumed", ended.line, ended.err.strip()[-200:], note=" ".join(words))
            return result
    if wrong := differences(expected, left(here / "run")):
        result.note("other bits", " ".join(words), "; ".join(wrong))
    return result


def interrupt(process: int, seconds: float, how: signal.Signals) -> None:
    """Send a signal after so long, unless the process has ended by then."""
    descriptor = os.pidfd_open(process)
    ready = select.select([descriptor], [], [], min(seconds, WALL_SECONDS))[0]
    os.close(descriptor)
    if not ready:
        os.kill(process, how)
