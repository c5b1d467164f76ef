"""How fast Fashion-MNIST is learnt to the accuracy of a tutorial's five epochs: the tutorial's way beside ours.

The tutorial (46,592 parameters: two convolutions of 5x5, Adam, batches of 32) trains five epochs, in Keras as it was
written, and over the usual DataLoaders; ours are experiment=fashion_speedrun and fashion_speedrun_92. Each in a process
of its own, in turns; seconds run from the start of the first epoch to the end of the last, scoring of the same 12,000
validation images after each included. Keras and TensorFlow have a virtual environment of their own; where that cannot
be made, they are left out.
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


def in_keras(file: str) -> tuple[float, float]:
    """The same in Keras, from arrays in memory; (seconds, validation accuracy after the last epoch)."""
    import keras
    import numpy as np

    data = np.load(file)
    x, y, vx, vy = (data[key] for key in ("x", "y", "vx", "vy"))
    x, vx = (part[..., None].astype("float32") / 255 for part in (x, vx))
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((28, 28, 1)), layers.Conv2D(16, 5, padding="same", activation="relu"), layers.MaxPooling2D(),
        layers.Conv2D(16, 5, padding="same", activation="relu"), layers.MaxPooling2D(), layers.Flatten(),
        layers.Dense(50, activation="relu"), layers.Dense(10, activation="softmax"),
    ])  # fmt: skip
    assert model.count_params() == 46_592
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    began = time.perf_counter()
    history = model.fit(x, y, batch_size=BATCH, epochs=EPOCHS, validation_data=(vx, vy), verbose=0)
    return time.perf_counter() - began, history.history["val_accuracy"][-1]


def keras_environment(folder: Path) -> str | None:
    """The Python of an environment with Keras on TensorFlow; None where it cannot be installed."""
    python = folder / "bin" / "python"
    made = subprocess.run([sys.executable, "-m", "venv", str(folder)], capture_output=True)
    words = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "tensorflow-cpu", "keras"]
    works = not made.returncode and not subprocess.run(words, capture_output=True).returncode
    return str(python) if works else None


def arrays(file: Path) -> None:
    """The images that everybody trains on and is scored on, where Keras finds them without torch."""
    import bench
    import numpy as np

    (x, y), (vx, vy) = bench.images(48_000)
    np.savez(file, x=x.numpy(), y=np.asarray(y), vx=vx.numpy(), vy=np.asarray(vy))


def ours(name: str, seed: int, words: list[str]) -> tuple[float, float]:
    """(seconds, validation accuracy after the last epoch) of an experiment, checkpoints and records included."""
    import bench

    with tempfile.TemporaryDirectory() as folder:
        own = [f"experiment={name}", f"seed={seed}", "checks=off", "report=false", "bootstrap=1", *words]
        seconds = bench.followed([*own, f"hydra.run.dir={folder}/run"])
        records = [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
    return seconds, records[-1]["val/accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write all figures there, too")
    parser.add_argument("--with", dest="words", nargs="*", default=[], help="further overrides of ours")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.one:
        name, more = words.one
        alone = {"DataLoader": tutorial, "Keras": lambda: in_keras(more)}
        seconds, right = alone[name]() if name in alone else ours(name, int(more), words.words)
        print("figures", seconds, right)
        return
    with tempfile.TemporaryDirectory() as scratch:
        arrays(Path(scratch, "images.npz"))
        keras = keras_environment(Path(scratch, "keras"))
        if keras is None:
            print("Keras cannot be installed here: the tutorial's DataLoader loop alone stands for it")
        found = series(words, keras, f"{scratch}/images.npz")
    for name, figures in found.items():
        seconds, right = (statistics.median(column) for column in zip(*figures, strict=True))
        print(f"{name:<22}{seconds:8.1f} s   accuracy {right:.4f}")
    for theirs in [name for name in found if not name.startswith("fashion")]:
        for own in [name for name in found if name.startswith("fashion")]:
            ratio = statistics.median(a[0] / b[0] for a, b in zip(found[own], found[theirs], strict=True))
            print(f"{own} takes {ratio:.3f} of {theirs}'s time (1/{1 / ratio:.1f}), medians of {words.rounds}")
    if words.json:
        words.json.write_text(json.dumps(found, indent=1))


def series(words: argparse.Namespace, keras: str | None, images: str) -> dict[str, list[tuple[float, float]]]:
    """(seconds, accuracy) of each round of each contestant, in turns."""
    names = ["Keras"] * (keras is not None) + ["DataLoader", "fashion_speedrun", "fashion_speedrun_92"]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for round_ in range(words.rounds):
        for name in found:
            python, more = (keras, images) if name == "Keras" else (sys.executable, str(round_))
            own = ["--with", *words.words] if words.words and name.startswith("fashion") else []
            command = [python, __file__, "--one", name, more, *own]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
            seconds, right = map(float, done.stdout.split()[-2:])
            found[name].append((seconds, right))
            print(f"round {round_ + 1}  {name:<22}{seconds:8.1f} s   accuracy {right:.4f}", flush=True)
    return found


if __name__ == "__main__":
    main()
