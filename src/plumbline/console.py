"""What a person sees: a live bar on a terminal, plain lines in a log, a table at the end."""

from __future__ import annotations

import contextlib
import os
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any

from plumbline.changes import since_then
from plumbline.checks.core import ALARMS, ranked
from plumbline.checks.margin import margin, strongest
from plumbline.output import indented, make_console

STYLES = {"fail": "bold red", "warn": "bold yellow", "info": "", "ok": ""}
COUNTED = {"fail": "failed", "warn": "warn", "info": "to note", "ok": "passed"}
WIDEST = 100  # letters of a line: longer ones are hard to read

if TYPE_CHECKING:
    from plumbline.record import Record
    from plumbline.state import State


class Console:
    """Speaks of a run on standard output. It holds nothing that a run needs."""

    def __init__(self, epochs: int, updates: int, objective: str):
        self.epochs, self.updates, self.objective = epochs, updates, objective
        self.rich = make_console(soft_wrap=True)
        self.bar: Any = None
        self.drawn = 0.0

    def say(self, words: str | None) -> None:
        if words:
            self._print(indented(words), markup=False)

    def _print(self, *content: Any, **options: Any) -> None:
        try:
            self.rich.print(*content, **options)
        except (OSError, SystemExit):  # a closed pipe: rich would end the run for it
            self.rich.file = open(os.devnull, "w")  # noqa: SIM115 - until the end

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def begin(self, record: Record, state: State, word: str | None) -> None:
        """Say what is trained on what, where it is recorded, and from where a run goes on."""
        run, data = record.run, record.run["data"]
        self.say(f"{record.directory}")
        self.say(
            f"{run['parameters']:,} parameters · {data['train']:,} samples to train with, {data['val']:,} to validate · "
            f"inputs {tuple(data['shape'])}, {data['outputs']} outputs · {run['environment']['device']}"
        )
        self.say(
            f"simplest baseline ({run['baseline']['name']}): {self.objective} {run['baseline'][self.objective]:.4f}"
        )
        if run["transfer"] is not None:
            self.say(f"starts from {run['transfer']['weights']}")
        self.say(word)
        if record.resumed:
            self.say(f"going on after {state.epoch} epochs and {state.step} steps")
        self.first, self.began = state.epoch * self.updates + state.step, time.monotonic()

    def findings(self, findings: list[dict[str, Any]]) -> None:
        """What was found, the headline first; nothing where nothing was asked."""
        for line, style in told(findings, self.rich.width) if findings else []:
            self._print(line, style=style, markup=False)

    def _draw(self, state: State) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        texts = (TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), TextColumn("{task.fields[best]}"))
        self.bar = Progress(
            BarColumn(), MofNCompleteColumn(), *texts, console=self.rich, transient=True, refresh_per_second=5
        )
        done = state.epoch * self.updates + state.step
        self.task = self.bar.add_task("", total=self.epochs * self.updates, completed=done, rate="", best="")
        self.bar.start()

    def step(self, state: State) -> None:
        """An update is done: move the bar, at most five times a second."""
        if not self.rich.is_terminal or time.monotonic() - self.drawn < 0.2:
            return
        if self.bar is None:
            self._draw(state)
        self.drawn, done = time.monotonic(), state.epoch * self.updates + state.step
        rate = (done - self.first) / max(self.drawn - self.began, 1e-9)
        self.bar.update(self.task, completed=done, rate=f"{rate:.0f} steps/s")

    def epoch(self, record: dict[str, float], best: dict[str, float]) -> None:
        """One line an epoch."""
        metric = self.objective
        values = [f"loss {record['train/loss']:.4f} train, {record['val/loss']:.4f} val"]
        if metric != "val/loss":
            values.append(f"{metric} {record[metric]:.4f}")
        star = " *" if best["epoch"] == record["epoch"] else ""
        speed = f"{record['samples_per_s']:,.0f} samples/s" if "samples_per_s" in record else ""
        width = len(str(self.epochs))
        self.say(f"epoch {record['epoch']:>{width}}/{self.epochs}  {'  '.join(values)}  {speed}{star}")
        if self.bar is not None:
            self.bar.update(self.task, completed=record["epoch"] * self.updates, best=f"best {best[metric]:.4f}")

    def end(self, record: Record) -> None:
        """The closing table: what came out, against what, and where to read on."""
        from rich.table import Table

        self.__exit__()
        self.bar, run = None, record.run
        table = Table(box=None, pad_edge=False)
        strong = strongest(run["baselines"], self.objective, run["direction"])
        for name, side in (
            ("", "left"),
            ("best", "right"),
            ("95 % interval", "right"),
            (run["baseline"]["name"], "right"),
            *([(strong["name"], "right")] if strong else []),
        ):
            table.add_column(name, justify=side)
        for metric, ends in run["interval"].items():
            row = (f"{run['best'][metric]:.4f}", f"{ends[0]:.4f} – {ends[1]:.4f}", f"{run['baseline'][metric]:.4f}")
            row += (f"{strong['metrics'][metric]:.4f}",) if strong else ()
            table.add_row(metric, *row, style="bold" if metric == self.objective else "")
        self._print()
        self._print(table)
        self._print()
        self.findings(run["findings"])
        if (found := margin(run)) is not None:
            self.say(f"the network {found}")
        if run["change"] is not None and run["change"]["outcome"] is not None:
            self.say(f"{since_then(run['change'])}: {run['change']['outcome']['said']}")
        self.say(
            f"best epoch {int(run['best']['epoch'])} of {self.epochs}, {run['seconds']:.1f} s; the test set stays sealed"
        )
        self.say(f"report: {record.directory / 'report.html'}")
        with contextlib.suppress(OSError):
            sys.stdout.flush()


def told(findings: list[dict[str, Any]], width: int) -> list[tuple[str, str]]:
    """(line, style) of what was found: the headline with its cause and what to try, the rest in short, what passed counted."""
    width = max(40, min(width, WIDEST))
    said = [finding for finding in ranked(findings) if finding["severity"] != "ok"]
    lines: list[tuple[str, str]] = []
    for place, finding in enumerate(said):
        severity, headline = finding["severity"], place == 0 and finding["severity"] in ALARMS
        first = f"{severity.upper() if severity in ALARMS else severity:<6}{finding['id']}: {finding['message']}"
        lines += [(line, STYLES[severity] if headline else "") for line in wrapped(first, width, 6)]
        if headline:
            lines += [
                (line, "") for line in wrapped(f"      likely  {finding['cause']}", width, 14) if finding["cause"]
            ]
            for number, step in enumerate(finding["advice"], 1):
                lines += [
                    (line, "")
                    for line in wrapped(f"      {'try' if number == 1 else '':<8}{number}. {step}", width, 17)
                ]
    counts = {severity: sum(finding["severity"] == severity for finding in findings) for severity in STYLES}
    others = [f"{counts[severity]} {word}" for severity, word in COUNTED.items() if counts[severity]]
    return [*lines, (f"{len(findings)} checks: {', '.join(others)}", "")]


def wrapped(text: str, width: int, indent: int) -> list[str]:
    """The lines of a text, all but the first indented; a long path or command is never cut in two."""
    options = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.wrap(text, width, subsequent_indent=" " * indent, **options)
