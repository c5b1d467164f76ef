"""How fast the loop is: ours, a bare one, the usual DataLoader, and Lightning where it is installed.

Every contestant trains the same network on the same images with the same optimiser and scores the same validation
set after each epoch, in a process of its own. The contestants take turns, so that a machine that slows down slows
all of them; figures are medians over the rounds, ratios are taken round by round.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NETWORKS = {  # overrides of ours; the others build the same by hand
    "mlp": ["model=mlp", "model.hidden=[200,100]"],
    "cnn": ["model=cnn", "model.channels=[16,16]", "model.hidden=[50]"],
}
COMMON = ["data=fashion_mnist", "batch_size=100", "optimiser=sgd", "optimiser.lr=0.05", "schedule=constant"]
CONTESTANTS = {"mlp": ["ours", "bare", "dataloader", "lightning"], "cnn": ["ours", "ours-bf16", "bare", "dataloader"]}


def ours(network: str, samples: int, epochs: int, *more: str) -> float:
    """Seconds that ours takes for this network, all included."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = [*COMMON, *NETWORKS[network], f"epochs={epochs}", f"data.subset={samples}", "bootstrap=1", *more]
        return followed([*overrides, f"outputs={folder}"])


def followed(words: list[str]) -> float:
    """Seconds that `scripts/train` spends between the start of its first epoch and the end of its last, all included."""
    import plumbline.run as story
    from plumbline import train as command

    spent = []
    follow = story.follow

    def timed(*arguments: object) -> None:
        began = time.perf_counter()
        follow(*arguments)
        spent.append(time.perf_counter() - began)

    story.follow = timed
    sys.argv = ["train", *words]
    status = command.main()
    if status:
        raise SystemExit(f"ours ended with status {status}")
    return spent[0]


def images(samples: int):
    """The same training and validation images as ours, as uint8: ((n, 28, 28), (n,)) twice."""
    from hydra import compose, initialize_config_dir

    from plumbline import config
    from plumbline.train import CONF

    config.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [*COMMON, f"data.subset={samples}", "data.normalise=false"])
    data = config.build(cfg.data)()
    return [((split.x[:, 0] * 255).round().byte(), split.y) for split in (data.train, data.val)]


def by_hand(network: str):
    """The same network, written as a tutorial would."""
    from torch import nn

    if network == "mlp":
        layers = [nn.Flatten(), nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 100), nn.ReLU(), nn.Linear(100, 10)]
    else:
        layers = [
            nn.Conv2d(1, 16, 5, padding="same"), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 16, 5, padding="same"), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 10),
        ]  # fmt: skip
    return nn.Sequential(*layers)


def metrics(logits, y) -> dict[str, float]:
    """What ours reports of a validation set: loss, accuracy, balanced accuracy, macro F1, calibration error."""
    import torch

    confidence, guess = logits.softmax(1).max(1)
    counts = torch.bincount(y * 10 + guess, minlength=100).view(10, 10).double()
    right, actual, guessed = counts.diag(), counts.sum(1), counts.sum(0)
    bins = (confidence * 15).long().clamp(max=14)
    gap = torch.bincount(bins, (guess == y).double() - confidence.double(), minlength=15)
    return {
        "loss": torch.nn.functional.cross_entropy(logits, y).item(),
        "accuracy": (right.sum() / counts.sum()).item(),
        "balanced_accuracy": (right / actual).mean().item(),
        "f1": (2 * right / (actual + guessed)).mean().item(),
        "calibration_error": (gap.abs().sum() / len(y)).item(),
    }


def bare(network: str, samples: int, epochs: int) -> float:
    """A loop by hand on tensors in memory: no checkpoints, no record, nothing but the mathematics and the metrics."""
    import torch

    torch.manual_seed(0)
    (x, y), (vx, vy) = images(samples)
    x, vx = (t.float().div(255).unsqueeze(1) for t in (x, vx))
    mean, std = x.mean(), x.std()
    x, vx = (x - mean) / std, (vx - mean) / std
    model = by_hand(network)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    began = time.perf_counter()
    for _ in range(epochs):
        model.train()
        order, total = torch.randperm(len(x)), 0.0
        for chosen in order.split(100):
            optimiser.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x[chosen]), y[chosen])
            loss.backward()
            optimiser.step()
            total += loss.item() * len(chosen)
        model.eval()
        with torch.no_grad():
            metrics(torch.cat([model(part) for part in vx.split(1000)]), vy)
            metrics(torch.cat([model(part) for part in x[:2000].split(1000)]), y[:2000])
    return time.perf_counter() - began


def loaders(samples: int):
    """The usual way: a Dataset that yields one transformed PIL image at a time, in DataLoaders with two workers."""
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    class Images(Dataset):
        def __init__(self, x, y):
            self.x, self.y = x, y
            self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.286,), (0.353,))])

        def __len__(self):
            return len(self.y)

        def __getitem__(self, index):
            return self.transform(Image.fromarray(self.x[index].numpy())), int(self.y[index])

    train, val = (Images(*part) for part in images(samples))
    options = {"num_workers": 2, "persistent_workers": True}
    return DataLoader(train, 100, shuffle=True, **options), DataLoader(val, 1000, **options)


def dataloader(network: str, samples: int, epochs: int) -> float:
    """The tutorial's loop over the usual loaders."""
    import torch

    torch.manual_seed(0)
    train, val = loaders(samples)
    model = by_hand(network)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    began = time.perf_counter()
    for _ in range(epochs):
        model.train()
        for x, y in train:
            optimiser.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimiser.step()
        model.eval()
        with torch.no_grad():
            parts = [(model(x), y) for x, y in val]
            metrics(torch.cat([p for p, _ in parts]), torch.cat([y for _, y in parts]))
    return time.perf_counter() - began


def lightning(network: str, samples: int, epochs: int) -> float:
    """Lightning's Trainer with the usual loaders."""
    import lightning as L
    import torch

    class Module(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.model, self.parts = by_hand(network), []

        def training_step(self, batch, index):
            return torch.nn.functional.cross_entropy(self.model(batch[0]), batch[1])

        def validation_step(self, batch, index):
            self.parts.append((self.model(batch[0]), batch[1]))

        def on_validation_epoch_end(self):
            self.log_dict(metrics(torch.cat([p for p, _ in self.parts]), torch.cat([y for _, y in self.parts])))
            self.parts.clear()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.05)

    L.seed_everything(0)
    train, val = loaders(samples)
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            max_epochs=epochs, accelerator="cpu", default_root_dir=folder, enable_progress_bar=False, logger=False,
            enable_checkpointing=False, enable_model_summary=False, num_sanity_val_steps=0,
        )  # fmt: skip
        began = time.perf_counter()
        trainer.fit(Module(), train, val)
    return time.perf_counter() - began


def one(contestant: str, network: str, samples: int, epochs: int) -> float:
    """Training images per second of one contestant, its scoring included."""
    if contestant.startswith("ours"):
        more = ["precision=bf16"] if contestant.endswith("bf16") else []
        seconds = ours(network, samples, epochs, *more)
    else:
        seconds = {"bare": bare, "dataloader": dataloader, "lightning": lightning}[contestant](network, samples, epochs)
    return samples * epochs / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--samples", type=int, default=48_000, help="training images (default: 48,000, all)")
    parser.add_argument("--json", type=Path, help="write all figures there, too")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.one:
        print("images/s", one(words.one, words.networks[0], words.samples, words.epochs))
        return
    found = {}
    for network in words.networks:
        names = [name for name in CONTESTANTS[network] if name != "lightning" or importlib.util.find_spec("lightning")]
        rates: dict[str, list[float]] = {name: [] for name in names}
        for round_ in range(words.rounds):
            for name in names:
                size = ["--samples", str(words.samples), "--epochs", str(words.epochs)]
                command = [sys.executable, __file__, "--one", name, "--networks", network, *size]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
                rates[name].append(float(done.stdout.split()[-1]))
                print(f"\r{network} round {round_ + 1}/{words.rounds} {name:<12}", end="", file=sys.stderr, flush=True)
        print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
        print(f"{network}: images per second, median of {words.rounds} (least to most); median ratio of ours to it")
        for name in names:
            ratio = statistics.median(a / b for a, b in zip(rates["ours"], rates[name], strict=True))
            span = f"({min(rates[name]):,.0f} to {max(rates[name]):,.0f})"
            print(f"  {name:<12}{statistics.median(rates[name]):>10,.0f}  {span:<24}{ratio:6.2f} x")
        found[network] = rates
    if "lightning" not in found.get("mlp", {}):
        print("lightning is not installed: pip install -e '.[bench]' adds it")
    if words.json:
        words.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
