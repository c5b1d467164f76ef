"""One experiment, told once, from the configuration to the report."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from plumbline import device, exits, tasks
from plumbline.accompany import accompany
from plumbline.arms import outcome
from plumbline.assemble import assemble, mistakes_in, rehearse
from plumbline.batch_size import AUTO, sized
from plumbline.changes import since
from plumbline.checks import baselines
from plumbline.checks.bench import Bench
from plumbline.checks.core import CheckFailed, Checks
from plumbline.checks.curve import Curve
from plumbline.checks.result import Result
from plumbline.checks.view import View, seen
from plumbline.config import ConfigError, build, check_config
from plumbline.console import Console
from plumbline.contract import place
from plumbline.data.core import Data
from plumbline.distributed import World, joined
from plumbline.files import save_arrays, write_text
from plumbline.first import origin, trained
from plumbline.loop import Diverged, Training, fit, planned, updates_per_epoch
from plumbline.output import print_error, print_safe, redact
from plumbline.record import Clock, Record, save_predictions, write_request
from plumbline.report import SEEN
from plumbline.report.figures import figures
from plumbline.report.page import write_report
from plumbline.scoring import BestLost, Scoring, better, load_best, secure_best
from plumbline.seeing import Gallery
from plumbline.signals import Left, Signals
from plumbline.slurm.job import fate
from plumbline.state import NotSaved, State, before
from plumbline.trackers import Trackers
from plumbline.transfer import begun

if TYPE_CHECKING:
    from plumbline.search.trial import Judge

END = object()


def run(
    cfg: DictConfig, directory: Path, overrides: list[str], signals: Signals, world: World | None, judge: Judge | None
) -> float:
    """Train, keep the best weights, say what was found; return the best value of the objective on validation."""
    check_config(cfg)
    where = device.choose(cfg.device)
    with mistakes_in("data"):
        data = build(cfg.data)()
    if not isinstance(data, Data):
        raise ConfigError(f"data: {cfg.data._target_} gave a {type(data).__name__}; it must be a plumbline.data.Data")
    objective, direction = tasks.objective(data.spec, cfg.objective, cfg.direction)
    layers = rehearse(begun(cfg, directory), data.spec)
    work = sum(layer["multiply_adds"] for layer in layers)
    if cfg.batch_size == AUTO:
        cfg, overrides = sized(cfg, overrides, data, where, work)
        if cfg.resume is not None:  # a run that was queued, and written down, before it could try
            write_request(directory, cfg, overrides)
    device.prepare(where, cfg.threads, cfg.batch_size * work)
    built = trained(begun(cfg, directory), cfg, overrides, directory, signals, alone=world is None)

    training, state, step, schedule = assemble(built, data, where, world)
    scoring = Scoring(data, training, cfg)
    with Record(directory, cfg, overrides) as record:
        facts = {"objective": objective, "direction": direction, "layers": layers}
        facts["processes"] = 1 if world is None else world.size
        if (source := origin(built, cfg)) is not None:
            facts["transfer"] = source
        facts["baseline"] = tasks.baseline(data, training.loss)
        record.describe(data, training.model, where, planned(schedule, training.optimiser), **facts)
        word = take_up(directory, state, scoring, objective) if record.resumed else None
        record.training = True
        record.metrics(state.records)

        updates = updates_per_epoch(len(data.train), cfg.batch_size * facts["processes"], cfg.accumulate)
        console, checks = Console(cfg.epochs, updates, objective), Checks(cfg.checks, record)
        console.begin(record, state, word)
        if not state.records and not state.step:
            if judge is None:  # a study has comparisons of its own
                record.note(change=since(cfg, record))
                checks.ask("plan", record.run)
            view = View(data, built, record.run["parameters"])
            checks.ask("audit", view)
            if cfg.checks.data:
                save_arrays(directory / SEEN, **seen(view))
            baselines.measure(cfg.checks, checks, view, training.loss)
            with closing(Bench(built, data, where)) as bench:
                checks.ask("probes", bench)
            console.findings(record.run["findings"])
            checks.stop()

        options = {key: cfg[key] for key in ("seed", "epochs", "batch_size", "accumulate", "watch")}
        epochs = fit(training, state, data.train, step, schedule, **options)
        with console, Trackers(cfg, record, console) as trackers, closing(epochs):  # and its loader's processes with it
            if world is not None:
                training.world = world
                world.same(record.resumed)  # the others begin
            gallery = Gallery(cfg, data, training, directory, console.say)
            told = (record, checks, trackers, gallery, console, signals)
            try:
                follow(epochs, training, state, scoring, *told, judge, cfg)
            except Diverged as error:
                checks.ask("curve", Curve.of(record.run, state.records, ended=True, broken=str(error)))
                raise

            load_best(state.network, directory / "best.pt")
            outputs, losses, targets = scoring.outputs(state.network, data.val)
            save_predictions(directory / "predictions.npz", data, data.val, outputs, losses, targets)
            record.note(
                best=state.best, interval=tasks.interval(data, outputs, losses, targets, cfg.bootstrap, data.val.items)
            )
            ours, choices = (outputs, losses), max(len(state.records), 1)
            record.note(margins=baselines.margins(record, data, training.loss, ours, targets, cfg.bootstrap, choices))
            if cfg.epochs:
                checks.ask("curve", Curve.of(record.run, state.records, ended=True))
                checks.ask("result", Result(record.run, data, outputs, losses, targets, len(scoring.part)))
            if record.run["change"] is not None:
                record.note(change=outcome(record.run["change"], directory, objective, direction, cfg.bootstrap))
            looked = gallery.draw(state)
            record.note(status="finished", figures=gallery.captions())
            if cfg.report:
                write_report(directory)
            trackers.finish((figures(directory) if cfg.report else {}) | looked)
            console.end(record)
    return state.best[objective]


def take_up(directory: Path, state: State, scoring: Scoring, objective: str) -> str | None:
    """Load the last checkpoint whose best weights are there, too; return what there is to say of it.

    Where best.pt is damaged beyond the last checkpoint, the one before may be of the time of the spare: from there the
    run comes to the same bits again.
    """
    last = directory / "last.pt"
    words = [state.load(last)]
    try:
        words.append(secure_best(directory, state, scoring, objective))
    except BestLost as error:
        aside = last.with_name("last.pt.unused")
        if not (last.exists() and before(last).exists()):
            raise ConfigError(f"resume={directory}: {error}; start a new run") from error
        os.replace(last, aside)
        try:
            state.load(last)
            secure_best(directory, state, scoring, objective)
        except ConfigError:
            os.replace(aside, last)
            raise ConfigError(f"resume={directory}: {error}; start a new run") from error
        words = [f"{error}; going on from last.pt.before, at epoch {state.epoch}"]
    return "; ".join(filter(None, words)) or None


def follow(
    epochs: Iterator[dict[str, float] | None], training: Training, state: State, scoring: Scoring, record: Record, checks: Checks,
    trackers: Trackers, gallery: Gallery, console: Console, signals: Signals, judge: Judge | None, cfg: DictConfig,
) -> None:  # fmt: skip
    """Follow the training: score each epoch, keep the best, record, save; end early, or leave when asked."""
    objective, direction = record.run["objective"], record.run["direction"]
    last, best = record.directory / "last.pt", record.directory / "best.pt"
    saving, beating, patience = Clock(60 * cfg.save_minutes), Clock(30), cfg.patience  # a look into cfg takes 30 µs

    def keep(epoch: dict[str, float], lazily: bool = False) -> None:
        epoch |= scoring.epoch(state)
        state.gather(keep=True)
        state.scores.append(epoch["val/loss"])
        state.records.append(epoch)
        if better(epoch, state.best, objective, direction):
            state.best = epoch
            scoring.keep(state, best, epoch, objective, spare=True)
        if state.epoch in cfg.snapshots:
            scoring.keep(state, record.directory / f"epoch-{state.epoch}.pt", epoch, objective)
        gallery.epoch(state)
        state.save(last, lazily)
        record.epoch(epoch, state.best)
        trackers.log(epoch)
        console.epoch(epoch, state.best)
        if state.epoch % (1 + state.epoch // 100) == 0:  # a long curve is read again when it has grown by a hundredth
            checks.ask("curve", Curve.of(record.run, state.records, ended=False))

    def waited() -> bool:
        return patience is not None and bool(state.best) and state.epoch - state.best["epoch"] >= patience

    while not waited() and (epoch := next(epochs, END)) is not END:
        asked = (training.world or signals).asked  # once a turn: what is asked after the saving waits for the next
        if epoch is not None:
            keep(epoch, lazily=not asked)
            checks.stop()
            if training.world is not None:
                training.world.same((epoch["val/loss"], waited()))
            if judge is not None and judge.hopeless(state.epoch, epoch[objective]):
                raise Left("pruned")
        elif asked or (saving.due() if training.world is None else training.world.saving):
            state.gather(keep=True)
            state.save(last)
        if training.world is not None and saving.due():
            training.world.due = True  # all save after the next step
        if beating.due():
            record.beat()
        console.step(state)
        if asked:
            raise Left(fate(asked))
    if waited():
        console.say(f"no better {objective} for {patience} epochs: ended early")
    if state.behind:
        state.save(last)
    if not state.records:  # no epoch was asked for: the network as it is
        keep({"epoch": 0, "step": 0})


def run_to_the_end(cfg: DictConfig, directory: Path, overrides: list[str], judge: Judge | None = None) -> int:
    """`run`, with every way it can end turned into a sentence and an exit status; run.json has its own word by then."""
    go_on = f"go on with  scripts/train resume={directory}"
    with Signals() as signals, joined(signals) as world:
        if cfg.shard and world is None:
            raise ConfigError(
                "shard=true: one process holds the whole network; start several, by torchrun or resources=four_gpus"
            )
        if world is not None:
            if cfg.batch_size == AUTO:
                raise ConfigError(
                    "batch_size=auto: is found by one process alone; find it there, and give the number here"
                )
            directory, world.sharded = world.same(directory), cfg.shard
            if world.rank:
                return accompany(cfg, directory, overrides, world)
        try:
            run(cfg, directory, overrides, signals, world, judge)
        except Left as left:
            if left.status == "pruned":
                print_safe("pruned: other trials were better by now")
                return exits.DONE
            print_safe(f"{left.status}, saved; {go_on}")
            return exits.BY_HAND if left.status == "stopped" else exits.TO_BE_CONTINUED
        except KeyboardInterrupt:
            print_safe(f"stopped at once, at the last checkpoint; {go_on}")
            return exits.BY_HAND
        except Diverged as error:
            report = directory / "report.html"
            print_safe(f"diverged: {error}" + (f"\nreport: {report}" if report.exists() else ""), file=sys.stderr)
            return exits.DIVERGED
        except CheckFailed as error:
            print_safe(f"ended by a check: {error}\nreport: {directory / 'report.html'}", file=sys.stderr)
            return exits.CHECK_FAILED
        except OSError as error:
            if not isinstance(error, NotSaved) and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            print_error(f"{error}; make room, then {go_on}")
            return exits.BUG
        except ConfigError:
            raise
        except Exception as error:
            if device.out_of_memory(error):
                said = " ".join(str(error).split())[:200]
                raise ConfigError(
                    f"batch_size={cfg.batch_size}: memory is full ({said or 'no more can be had'}); say a smaller batch_size "
                    "(accumulate=2 makes one update of two), batch_size=auto, precision=bf16, or device=cpu, which has more"
                ) from error
            if not (where := place(error)) or str(Path(__file__).parent) in where:
                raise
            if directory.is_dir():
                write_text(directory / "traceback.txt", redact("".join(traceback.format_exception(error))))
            raise ConfigError(f"your code raised {type(error).__name__}: {error}{where}; see traceback.txt") from error
    return exits.DONE
