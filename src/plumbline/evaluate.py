"""`python -m plumbline.evaluate run=<folder>`: opens the sealed test set, once, and writes it down before it looks."""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf

from plumbline import config, mistakes
from plumbline.config import ConfigError
from plumbline.train import BUG, CONF, DONE, MISTAKE, code_folders

LEDGER = "test_ledger.jsonl"


@dataclass
class Request:
    """What the command takes."""

    run: str = MISSING  # the folder of a finished run
    again: str | None = None  # the reason for opening a test set that was opened before
    device: str = "auto"
    allow: list[str] | None = None  # as for train; null: what conf/train.yaml allows


@dataclass(frozen=True)
class Opening:
    """An opening of a test set that stands in the ledger. Made by `open_ledger` alone; the seal asks for one."""

    number: int  # how many times this data set's test set has been opened, this time included
    again: str | None
    time: str
    written: bool


def main() -> int:
    """Evaluate the best weights of a run on its test set; return the exit status."""
    words = sys.argv[1:]
    if not words or {"-h", "--help"} & set(words):
        print(
            f"python -m plumbline.evaluate run=<folder> [again='why a second time'] [device=auto] [allow=[…]]\n\n{__doc__}"
        )
        return DONE if words else MISTAKE
    sys.path[1:1] = [folder for folder in code_folders(words) if folder not in sys.path]
    config.register()
    try:
        request = read_request([word for word in words if not word.startswith("-")])
        evaluate(request)
    except mistakes.COMPOSITION as error:
        print(f"plumbline: {mistakes.explain(error, [CONF])}", file=sys.stderr)
        return MISTAKE
    except OSError as error:
        print(f"plumbline: {error}", file=sys.stderr)
        return BUG
    return DONE


def read_request(words: list[str]) -> DictConfig:
    """The command line as a typed request."""
    known = list(Request.__annotations__)
    for word in words:
        key, equals, _ = word.partition("=")
        if not equals or key not in known:
            raise ConfigError(
                f"{word}: is not one of {', '.join(f'{name}=…' for name in known)}{config.nearest(key, known)}"
            )
    request = OmegaConf.merge(OmegaConf.structured(Request), OmegaConf.from_cli(words))
    if OmegaConf.is_missing(request, "run"):
        raise ConfigError("run: which run? Give its folder: run=outputs/…")
    return request


def evaluate(request: DictConfig) -> dict[str, Any]:
    """The test metrics with their 95 % intervals, as noted in run.json. What can fail is tried before the seal."""
    from plumbline import device, tasks
    from plumbline.assemble import assemble, mistakes_in, rehearse
    from plumbline.record import save_predictions, saved_config, write_json
    from plumbline.report.page import write_report
    from plumbline.scoring import Scoring, load_best

    directory = Path(request.run)
    allow = request.allow or OmegaConf.load(CONF / "train.yaml").allow
    cfg = saved_config(directory, "run", list(allow))
    run = json.loads((directory / "run.json").read_text())
    if not (directory / "best.pt").exists():
        raise ConfigError(f"run={directory}: has no best weights, its status is {run['status']}; train it first")
    config.check_config(cfg)
    where = device.choose(request.device)
    data = config.build(cfg.data)()
    layers = rehearse(cfg, data.spec)
    device.prepare(where, cfg.threads, cfg.batch_size * sum(layer["multiply_adds"] for layer in layers))
    training, state, _, _ = assemble(cfg, data, where)
    if data.fingerprint() != run["data"]["fingerprint"]:
        raise ConfigError(f"run={directory}: the data are not those it was trained on; bring these back first")
    scoring = Scoring(data, training, cfg)
    load_best(state.network, directory / "best.pt")

    opening = open_ledger(directory, cfg, data.identity(), request.again)
    with mistakes_in("data", "the test set cannot be read"):
        test = data.open_test(opening)
    test.to(where, cfg.channels_last)
    outputs, losses, targets = scoring.outputs(state.network, test)
    save_predictions(directory / "test_predictions.npz", data, test, outputs, losses, targets)
    values = {"loss": losses.mean().item(), **tasks.score(data.spec, outputs, targets, data.target_scale)}
    ends = tasks.interval(data, outputs, losses, targets, cfg.bootstrap, prefix="test")
    metrics = {
        name: {"value": value, "low": ends[f"test/{name}"][0], "high": ends[f"test/{name}"][1]}
        for name, value in values.items()
    }
    found = {
        "opened": opening.time,
        "openings": opening.number,
        "again": opening.again,
        "samples": len(test),
        "left_out": test.left_out,
        "metrics": metrics,
    }
    write_json(directory / "run.json", run | {"test": found})
    write_report(directory)
    show(found, directory)
    return found


def open_ledger(directory: Path, cfg: DictConfig, identity: str, again: str | None) -> Opening:
    """Write the opening of a test set into the ledger, before anything of it is read; return the proof.

    Raises ConfigError where any run opened the same data before and no reason is given.
    """
    from plumbline.environment import git_state
    from plumbline.record import now

    path = ledger_of(directory, cfg)
    git = git_state()
    with open(path, "a+", encoding="utf-8") as ledger:
        fcntl.flock(ledger, fcntl.LOCK_EX)  # two evaluations at once are two openings
        ledger.seek(0)
        earlier = [line for line in map(json.loads, ledger) if line["data"] == identity]
        if earlier and not (again or "").strip():
            last = earlier[-1]
            times = "once" if len(earlier) == 1 else f"{len(earlier)} times"
            raise ConfigError(
                f"run={directory}: the test set of these data was opened {times} before, last on {last['time']} by "
                f"{last['run']}; each further look makes its number more optimistic. If you must: again='the reason'"
            )
        opening = Opening(len(earlier) + 1, again, now(), written=True)
        line = {
            "time": opening.time,
            "run": str(directory),
            "target": cfg.data._target_,
            "data": identity,
            "opening": opening.number,
            "again": again,
            "user": getpass.getuser(),
            "commit": git and git["commit"],
        }
        ledger.write(json.dumps(line, ensure_ascii=False) + "\n")
        ledger.flush()
        os.fsync(ledger.fileno())
    return opening


def ledger_of(directory: Path, cfg: DictConfig) -> Path:
    """The ledger of the outputs folder that a run lies in; of the run's own parent where it was moved out of one."""
    parents = list(directory.resolve().parents)
    root = next((folder for folder in parents if (folder / LEDGER).exists()), None)
    root = root or next((folder for folder in parents if folder.name == Path(cfg.outputs).name), parents[0])
    return root / LEDGER


def show(found: dict[str, Any], directory: Path) -> None:
    """The test metrics, and how often this test set has been looked at."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    table = Table("", "test", "95 % interval", box=None, pad_edge=False)
    for name, metric in found["metrics"].items():
        table.add_row(name, f"{metric['value']:.4f}", f"{metric['low']:.4f} – {metric['high']:.4f}")
    console.print(table)
    for name in found["left_out"]:
        console.print(f"left out: {name}", markup=False)
    times = "the first opening" if found["openings"] == 1 else f"opening number {found['openings']}"
    console.print(f"{found['samples']:,} samples; {times} of this test set, noted in {LEDGER}", markup=False)
    console.print(f"report: {directory / 'report.html'}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
