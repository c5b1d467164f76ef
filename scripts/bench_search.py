"""How long a search takes: ours with workers, with and without pruning, and Hydra's basic launcher with its sweeper.

Every contestant draws so many random points of the same space and trains them for the same epochs with the same code,
checks and pages left out, as in a study of ours; one does what Hydra's launcher does of itself, all that a run does.
The released sweeper wants an Optuna of 2021, so it has a virtual environment of its own, which borrows torch and the
rest from ours; where that cannot be made, a loop of plain Optuna takes its place. Wall time from the command to its
end, imports included; medians over the rounds, in which all take turns.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SPACE = ["optimiser.lr=tag(log,interval(1e-4,1e-1))", "model.hidden=choice([64],[128,64],[256,128])"]
SWEEPER = ["hydra-optuna-sweeper==1.3.0", "optuna==2.10.1", "cliff"]  # without what they would pull in: ours has it


def common(epochs: int, checks: str = "off") -> list[str]:
    return ["data=digits", f"epochs={epochs}", "batch_size=16", "threads=1", "bootstrap=1", f"checks={checks}"]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}


def timed(command: list[str], folder: Path) -> float:
    """Seconds of a command in a folder of its own; its failure ends the benchmark."""
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\nfailed:\n{(done.stdout + done.stderr)[-3000:]}")
    return time.perf_counter() - began


def ours(folder: Path, trials: int, epochs: int, workers: int, pruner: str) -> tuple[float, float, int]:
    """(seconds, the best objective, epochs trained)."""
    words = [
        "-m",
        "study=s",
        "search=random",
        f"search.n_trials={trials}",
        f"search.workers={workers}",
        f"pruner={pruner}",
    ]
    seconds = timed([sys.executable, "-m", "plumbline.train", *words, *SPACE, *common(epochs)], folder)
    study = folder / "outputs/studies/s"
    with open(study / "trials.csv") as file:
        best = max(float(row["val/accuracy"]) for row in csv.DictReader(file) if row["status"] == "finished")
    done = sum(len(file.read_text().splitlines()) for file in study.glob("*/metrics.jsonl"))
    return seconds, best, done


def theirs(python: str, folder: Path, trials: int, epochs: int, whole: bool = False) -> tuple[float, float, int]:
    """The released sweeper with the basic launcher: one process, one trial after the other. whole: runs as they are."""
    words = ["-m", "hydra/sweeper=optuna", "hydra/sweeper/sampler=random", f"hydra.sweeper.n_trials={trials}"]
    words += ["hydra.sweeper.n_jobs=1", "hydra.sweeper.direction=maximize", "hydra.sweep.dir=sweep"]
    words += ["hydra.sweep.subdir=${hydra.job.num}"]
    job = ["--whole", *words, *SPACE, *common(epochs, "quick")] if whole else ["--app", *words, *SPACE, *common(epochs)]
    seconds = timed([python, __file__, *job], folder)
    return seconds, *summed(folder / "sweep")


def plain(folder: Path, trials: int, epochs: int) -> tuple[float, float, int]:
    """A loop as Optuna's tutorial has it, around the same run."""
    seconds = timed([sys.executable, __file__, "--loop", "--trials", str(trials), "--epochs", str(epochs)], folder)
    return seconds, *summed(folder / "sweep")


def summed(sweep: Path) -> tuple[float, int]:
    runs = [json.loads(file.read_text()) for file in sweep.glob("*/run.json")]
    done = sum(len(file.read_text().splitlines()) for file in sweep.glob("*/metrics.jsonl"))
    return max(run["best"]["val/accuracy"] for run in runs), done


def trained(cfg, directory: Path, page: bool = False) -> float:
    """The objective of one run."""
    from omegaconf import open_dict

    from plumbline.config import STUDY
    from plumbline.run import run
    from plumbline.signals import Signals

    with open_dict(cfg):
        for key in STUDY:
            cfg.pop(key, None)
    cfg.report = page
    with Signals() as signals:
        return run(cfg, directory, [], signals, None, None)


def app(page: bool) -> None:
    """What a user of the released sweeper writes."""
    import hydra
    from hydra.core.hydra_config import HydraConfig

    from plumbline import config

    config.register()

    @hydra.main(version_base="1.3", config_path=str(ROOT / "conf"), config_name="train")
    def main(cfg) -> float:
        return trained(cfg, Path(HydraConfig.get().runtime.output_dir), page)

    main()


def loop(trials: int, epochs: int) -> None:
    import optuna
    from hydra import compose, initialize_config_dir

    from plumbline import config

    config.register()

    def objective(trial: optuna.Trial) -> float:
        lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
        hidden = trial.suggest_categorical("hidden", ["[64]", "[128,64]", "[256,128]"])
        cfg = compose("train", [*common(epochs), f"optimiser.lr={lr}", f"model.hidden={hidden}"])
        return trained(cfg, Path("sweep") / str(trial.number))

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
        study.optimize(objective, n_trials=trials)


def released(folder: Path) -> str | None:
    """The Python of an environment with the released sweeper; None where it cannot be installed."""
    made = subprocess.run([sys.executable, "-m", "venv", str(folder)], capture_output=True)
    python = folder / "bin" / "python"
    words = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", *SWEEPER]
    if made.returncode or subprocess.run(words, capture_output=True).returncode:
        return None
    asked = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")  # after its own, which come first
    look = "from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper"
    return str(python) if subprocess.run([str(python), "-c", look], capture_output=True).returncode == 0 else None


def main() -> None:
    if sys.argv[1:2] in (["--app"], ["--whole"]):
        return app(page=sys.argv.pop(1) == "--whole")
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="scripts/bench search", description=__doc__, formatter_class=shape)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=81)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write all figures there, too")
    parser.add_argument("--loop", action="store_true", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.loop:
        return loop(words.trials, words.epochs)
    size = (words.trials, words.epochs)
    with tempfile.TemporaryDirectory() as scratch:
        python = released(Path(scratch) / "venv")
        other = "basic launcher, released sweeper" if python else "plain Optuna loop"
        contestants = {
            other: (lambda folder: theirs(python, folder, *size)) if python else (lambda folder: plain(folder, *size)),
            **({f"{other}, whole runs": lambda folder: theirs(python, folder, *size, whole=True)} if python else {}),
            f"ours, {words.workers} workers": lambda folder: ours(folder, *size, words.workers, "none"),
            f"ours, {words.workers} workers, asha": lambda folder: ours(folder, *size, words.workers, "asha"),
        }
        found: dict[str, list[tuple[float, float, int]]] = {name: [] for name in contestants}
        for round_ in range(words.rounds):
            for name, contestant in contestants.items():
                folder = Path(scratch) / f"{round_}-{len(found[name])}-{abs(hash(name))}"
                folder.mkdir()
                found[name].append(contestant(folder))
                print(
                    f"round {round_ + 1}/{words.rounds}  {name}: {found[name][-1][0]:.1f} s",
                    file=sys.stderr,
                    flush=True,
                )
    print(f"{words.trials} trials of at most {words.epochs} epochs, {os.cpu_count()} processors")
    for name, rows in found.items():
        seconds = statistics.median(row[0] for row in rows)
        ratio = statistics.median(a[0] / b[0] for a, b in zip(found[other], rows, strict=True))
        print(f"  {name:<46}{seconds:>8.1f} s  {ratio:5.2f} x   best {rows[-1][1]:.4f}   {rows[-1][2]} epochs")
    if words.json:
        words.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
