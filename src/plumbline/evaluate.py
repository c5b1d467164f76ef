"""`python -m plumbline.evaluate run=<folder>`: opens the sealed test set, once, and writes it down before it looks.

beside=[…] averages other runs, or weights kept at an epoch, in; tta=5 averages augmented copies of each input in;
temperature=true makes confidences honest by what validation says. on=val tries all this without opening anything.
"""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import yaml
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from plumbline import config, mistakes
from plumbline.config import CONF, ConfigError
from plumbline.contract import describe
from plumbline.exits import BUG, DONE, MISTAKE, outlast_the_reader
from plumbline.ledger import LEDGER, open_ledger
from plumbline.output import make_console, print_error, print_safe, printable
from plumbline.train import find_own_code

if TYPE_CHECKING:
    from torch import Tensor

    from plumbline.checks.core import Finding
    from plumbline.data.core import Data, Split
    from plumbline.loop import Training
    from plumbline.scoring import Scoring
    from plumbline.state import State

COMPARED = 100_000  # samples of train and of the test set that are compared with one another


@dataclass
class Request:
    """What the command takes."""

    run: str = MISSING  # the folder of a finished run
    again: str | None = None  # the reason for opening a test set that was opened before
    on: str = "test"  # or val, as often as you like
    beside: list[str] = field(
        default_factory=list
    )  # further runs' folders, or files of weights in them, to average with
    tta: int = 0  # augmented copies of each input that are averaged in: test-time augmentation
    temperature: bool = False  # whether outputs are divided by what makes validation's confidences right
    device: str = "auto"
    allow: list[str] | None = None  # as for train; null: what conf/train.yaml allows


def main() -> int:
    """Evaluate the best weights of a run on its test set; return the exit status."""
    words = sys.argv[1:]
    if not words or {"-h", "--help"} & set(words):
        print_safe(
            "python -m plumbline.evaluate run=<folder> [on=val] [beside=[<folder>,…]] [tta=5] [temperature=true] "
            f"[again='why a second time'] [device=auto] [allow=[…]]\n\n{__doc__}"
        )
        return DONE if words else MISTAKE
    config.register()
    try:
        request = read_request(words)
        find_own_code(list(request.allow or config.packages_allowed()), words)
        evaluate(request)
    except mistakes.COMPOSITION as error:
        print_error(mistakes.explain(error, [CONF]))
        return MISTAKE
    except OSError as error:
        print_error(error)
        return BUG
    return DONE


def read_request(words: list[str]) -> DictConfig:
    """The command line as a typed request."""
    hints = get_type_hints(Request)
    known, request = list(hints), OmegaConf.structured(Request)
    for word in words:
        key, equals, _ = word.partition("=")
        if not equals or key not in known:
            raise ConfigError(
                f"{word}: is not one of {', '.join(f'{name}=…' for name in known)}{config.nearest(key, known)}"
            )
        try:
            request = OmegaConf.merge(request, OmegaConf.from_cli([word]))
        except (OmegaConfBaseException, yaml.YAMLError) as error:
            raise ConfigError(f"{word}: must be {describe(hints[key])}") from error
    if request.on not in ("test", "val") or request.tta < 0:
        raise ConfigError(f"on={request.on} tta={request.tta}: on is test or val, and tta at least 0")
    if OmegaConf.is_missing(request, "run"):
        raise ConfigError("run: which run? Give its folder: run=outputs/…")
    config.check_device(request.device)
    return request


def evaluate(request: DictConfig) -> dict[str, Any]:
    """The metrics with their 95 % intervals; those of the test set are noted in run.json. What can fail is tried first."""
    from plumbline import device, tasks
    from plumbline.assemble import assemble, mistakes_in, rehearse
    from plumbline.files import lock, write_json
    from plumbline.members import collected, temperature, tempered
    from plumbline.record import check_names, save_predictions, saved_config
    from plumbline.report.page import write_report
    from plumbline.scoring import Scoring, load_best
    from plumbline.stored import read_run_file
    from plumbline.transfer import begun

    directory = Path(request.run)
    allow = request.allow or config.packages_allowed()
    cfg = saved_config(directory, "run", list(allow))
    check_names(directory)
    held = lock(directory)  # nobody trains in it meanwhile, nor writes its record
    run = read_run_file(directory)
    if run["data"] is None or not any(directory.glob("best.pt*")):
        raise ConfigError(f"run={directory}: has no best weights, its status is {run['status']}; train it first")
    config.check_config(cfg)
    where = device.choose(request.device)
    if run["data"].get("selection"):
        cfg.data.columns = run["data"]["selection"]["columns"]  # those that were chosen then: none is chosen now
    with mistakes_in("data"):
        data = config.build(cfg.data)()
    cfg = begun(cfg, directory)
    layers = rehearse(cfg, data.spec)
    device.prepare(where, cfg.threads, cfg.batch_size * sum(layer["multiply_adds"] for layer in layers))
    training, state, _, _ = assemble(cfg, data, where)
    if data.fingerprint() != run["data"]["fingerprint"]:
        raise ConfigError(f"run={directory}: the data are not those it was trained on; bring these back first")
    scoring = Scoring(data, training, cfg)
    verify_best(directory, state, scoring, run)
    load_best(state.network, directory / "best.pt")
    members = collected(data, training, state.network, request, cfg, where)
    known, targets = members.outputs(data.val)
    shown = f"{len(members.networks)} networks, {1 + request.tta} looks each" if request.beside or request.tta else ""
    if request.on == "val":
        alone, _ = scoring.outputs(state.network, data.val)[:2]
        known, found = tempered(known, targets) if request.temperature else (known, [])
        return validated(directory, data, training, cfg, alone, known, targets, shown, found)
    degrees = temperature(known, targets) if request.temperature else 1.0

    identity, before = data.identity(), run["test"] or {}
    here = before.get("openings", 0) if before.get("data", identity) == identity else 0
    opening = open_ledger(directory, cfg, identity, request.again, here)
    with mistakes_in("data", "the test set cannot be read"):
        test = data.open_test(opening)
    test.to(where, cfg.channels_last)
    outputs, losses, targets = scoring.outputs(state.network, test)  # says which sample gives what is not finite
    if shown or request.temperature:
        outputs = members.outputs(test)[0] / degrees
        losses = training.loss(outputs, targets, reduction="none")
    values = {"loss": losses.mean().item(), **tasks.score(data.spec, outputs, targets, data.target_scale)}
    ends = tasks.interval(data, outputs, losses, targets, cfg.bootstrap, test.items, prefix="test")
    metrics = {
        name: {"value": value, "low": ends[f"test/{name}"][0], "high": ends[f"test/{name}"][1]}
        for name, value in values.items()
    }
    found = {
        "opened": opening.time,
        "openings": opening.number,
        "again": opening.again,
        "data": identity,
        "samples": len(test),
        "left_out": test.left_out,
        "metrics": metrics,
        "answers": {"beside": list(request.beside), "tta": request.tta, "temperature": degrees},
        "twins": [asdict(finding) for finding in twins(data, test, cfg)],
    }
    show(found, directory)  # the seal is broken: the number comes first, whatever the disk says
    write_json(directory / "run.json", run | {"test": found})
    save_predictions(directory / "test_predictions.npz", data, test, outputs, losses, targets)
    write_report(directory)
    held.close()
    return found


def verify_best(directory: Path, state: State, scoring: Scoring, run: dict[str, Any]) -> None:
    """See to it that best.pt holds the best weights of the run; raises ConfigError where they are lost."""
    from plumbline.scoring import BestLost, secure_best

    objective = run["objective"]
    state.best, state.epoch = run["best"] or {}, math.inf
    if run["status"] != "finished":  # what it noted last may be of before its best epoch
        state.epoch = state.best.get("epoch", -1)
        state.best = state.best or {"epoch": -1}
    state.step = 1  # there are no weights in it yet
    try:
        note = secure_best(directory, state, scoring, objective)
    except BestLost as error:
        try:
            state.load(directory / "last.pt")
            note = secure_best(directory, state, scoring, objective)
        except ConfigError:
            raise ConfigError(f"run={directory}: {error}; train it again: {run['command']}") from error
    if note:
        print_safe(f"note: {note}")


def validated(
    directory: Path, data: Data, training: Training, cfg: DictConfig, alone: Tensor, together: Tensor, targets: Tensor,
    shown: str, degrees: list[float],
) -> dict[str, Any]:  # fmt: skip
    """What the answers are worth on validation, beside the network's alone; written into the folder, opening nothing."""
    from plumbline import tasks
    from plumbline.files import write_json

    found: dict[str, Any] = {"answers": shown, "temperatures": degrees, "metrics": {}}
    for name, outputs in (("alone", alone), ("together", together)):
        losses = training.loss(outputs, targets, reduction="none")
        values = {"loss": losses.mean().item(), **tasks.score(data.spec, outputs, targets, data.target_scale)}
        ends = tasks.interval(data, outputs, losses, targets, cfg.bootstrap, data.val.items)
        for metric, value in values.items():
            low, high = ends[f"val/{metric}"]
            found["metrics"].setdefault(metric, {})[name] = {"value": value, "low": low, "high": high}
    compare(found)
    write_json(directory / "validation.json", found)
    return found


def compare(found: dict[str, Any]) -> None:
    """The network alone beside all that was asked for, on validation."""
    from rich.table import Table

    table = Table("validation", "the network alone", "as asked", "95 % interval", box=None, pad_edge=False)
    for name, both in found["metrics"].items():
        alone, asked = both["alone"], both["together"]
        table.add_row(
            name, f"{alone['value']:.4f}", f"{asked['value']:.4f}", f"{asked['low']:.4f} – {asked['high']:.4f}"
        )
    console = make_console(soft_wrap=True)
    console.print(table)
    said = [found["answers"]] if found["answers"] else []
    said += [f"temperature {' and '.join(f'{t:.3f}' for t in found['temperatures'])}"] if found["temperatures"] else []
    console.print("; ".join([*said, "the test set stays sealed"]), markup=False)


def twins(data: Data, test: Split, cfg: DictConfig) -> list[Finding]:
    """Whether samples of the test set stand in train, exactly or nearly: they were no test of anything."""
    from plumbline.checks.core import untouched
    from plumbline.checks.view import View
    from plumbline.data.core import Data, Splits

    thresholds = OmegaConf.create({"checks": OmegaConf.load(CONF / "checks" / "_data.yaml")}).checks.data
    cfg = cfg.copy()
    cfg.checks.samples = COMPARED
    pair = Data(data.spec, lambda: Splits(data.train, test, lambda: test, lambda: ""))
    view = View(pair, cfg, 0, other="the test set")
    with untouched():
        found = [config.build(thresholds[name])(view) for name in ("overlap", "near_duplicates")]
    return [finding for finding in found if finding is not None]


def show(found: dict[str, Any], directory: Path) -> None:
    """The test metrics, and how often this test set has been looked at."""
    from rich.table import Table

    console = make_console(soft_wrap=True)
    table = Table("", "test", "95 % interval", box=None, pad_edge=False)
    for name, metric in found["metrics"].items():
        table.add_row(name, f"{metric['value']:.4f}", f"{metric['low']:.4f} – {metric['high']:.4f}")
    console.print(table)
    for name in found["left_out"]:
        console.print(f"left out: {printable(name)}", markup=False)
    for finding in found["twins"]:
        if finding["severity"] != "ok":
            console.print(f"{finding['severity']}: {printable(finding['message'])}", markup=False)
    times = "the first opening" if found["openings"] == 1 else f"opening number {found['openings']}"
    console.print(f"{found['samples']:,} samples; {times} of this test set, noted in {LEDGER}", markup=False)
    console.print(f"report: {directory / 'report.html'}", markup=False)


if __name__ == "__main__":
    outlast_the_reader()
    sys.exit(main())
