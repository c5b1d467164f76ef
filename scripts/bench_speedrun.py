"""How fast Fashion-MNIST is learnt to the accuracy of a tutorial's five epochs: the tutorial's way beside ours.

The tutorial (46,592 parameters: two convolutions of 5x5, Adam, batches of 32) trains five epochs over the usual
DataLoaders; ours is experiment=fashion_speedrun. Each in a process of its own, in turns; seconds run from the start of
the first epoch to the end of the last, scoring of the same 12,000 validation images after each included.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EPOCHS, BATCH = 5, 32


def tutorial() -> tuple[float, float]:
    """(seconds, validation accuracy after the last epoch)."""
    import bench
    import torch
    from torch.utils.data import DataLoader

    torch.manual_seed(0)
    train, val = bench.loaders(48_000)
    options = {"num_workers": 2, "persistent_workers": True}
    train = DataLoader(train.dataset, BATCH, shuffle=True, **options)
    model = bench.by_hand("cnn")
    optimiser = torch.optim.Adam(model.parameters(), lr=0.001)
    began = time.perf_counter()
    for _ in range(EPOCHS):
        model.train()
        for x, y in train:
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimiser.step()
        model.eval()
        with torch.no_grad():
            parts = [(model(x).argmax(1), y) for x, y in val]
            right = torch.cat([guess == y for guess, y in parts]).float().mean().item()
    return time.perf_counter() - began, right


def ours(seed: int, words: list[str]) -> tuple[float, float]:
    """(seconds, validation accuracy after the last epoch) of the experiment, checkpoints and records included."""
    import bench

    with tempfile.TemporaryDirectory() as folder:
        own = ["experiment=fashion_speedrun", f"seed={seed}", "checks=off", "report=false", "bootstrap=1", *words]
        seconds = bench.followed([*own, f"hydra.run.dir={folder}/run"])
        records = [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
    return seconds, records[-1]["val/accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write all figures there, too")
    parser.add_argument("--with", dest="words", nargs="*", default=[], help="further overrides of ours")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.one:
        seconds, right = tutorial() if words.one == "tutorial" else ours(int(words.one), words.words)
        print("figures", seconds, right)
        return
    found: dict[str, list[tuple[float, float]]] = {"tutorial": [], "ours": []}
    for round_ in range(words.rounds):
        for name in found:
            which = name if name == "tutorial" else str(round_)
            command = [sys.executable, __file__, "--one", which, *(["--with", *words.words] if words.words else [])]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
            seconds, right = map(float, done.stdout.split()[-2:])
            found[name].append((seconds, right))
            print(f"round {round_ + 1}  {name:<9}{seconds:8.1f} s   accuracy {right:.4f}", flush=True)
    for name, figures in found.items():
        seconds, right = (statistics.median(column) for column in zip(*figures, strict=True))
        print(f"{name:<9}{seconds:8.1f} s   accuracy {right:.4f}")
    ratio = statistics.median(
        ours[0] / theirs[0] for ours, theirs in zip(found["ours"], found["tutorial"], strict=True)
    )
    print(f"ours takes {ratio:.3f} of the tutorial's time (1/{1 / ratio:.1f}), medians of {words.rounds}")
    if words.json:
        words.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
