"""What a person sees of a study under way: a live table on a terminal, a line a trial in a log."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline.output import make_console, printable
from plumbline.search import presence
from plumbline.search.finish import best_trials, confirmed, status

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial
    from rich.table import Table

    from plumbline.search.study import Study

ENDED = ("finished", "pruned", "diverged", "failed")
SHOWN = 8  # trials under way that have a line of their own


class View:
    """A study as the storage has it; reads nothing else."""

    def __init__(self, study: Study, opened: optuna.Study):
        self.study, self.opened = study, opened
        self.objectives: list[list[str]] = opened.user_attrs["objectives"]
        self.look()

    def look(self) -> None:
        self.trials: list[FrozenTrial] = self.opened.get_trials(deepcopy=False)
        self.counts = Counter(map(status, self.trials))

    @property
    def ended(self) -> int:
        return sum(self.counts[word] for word in ENDED)

    @property
    def done(self) -> bool:
        return self.ended >= self.study.n_trials

    def last_end(self) -> float:
        """When the last trial ended, in seconds since 1970; 0 before any did."""
        return max(
            (t.datetime_complete.timestamp() for t in self.trials if t.datetime_complete is not None), default=0.0
        )

    def left(self) -> float | None:
        """Seconds to the end, from the pace of the trials that ended."""
        ends = [t for t in self.trials if t.datetime_complete is not None and t.datetime_start is not None]
        running = max(1, self.counts["running"])
        if not ends or self.done:
            return None
        each = sum((t.datetime_complete - t.datetime_start).total_seconds() for t in ends) / len(ends)
        return each * (self.study.n_trials - self.ended) / running

    def summary(self) -> str:
        """`12 of 40: 9 finished, 3 pruned; 2 running; best val/accuracy 0.9721 (trial 7); 40 s left`."""
        parts = [f"{self.counts[word]} {word}" for word in ENDED if self.counts[word]]
        text = f"{self.ended} of {self.study.n_trials} trials ended" + (f": {', '.join(parts)}" if parts else "")
        if self.counts["running"]:
            text += f"; {self.counts['running']} running"
        if self.counts["waiting"]:
            text += f"; {self.counts['waiting']} to go on with"
        if best := best_trials(self.opened):
            text += (
                f"; best {self.value(best[0])} (trial {best[0].number})"
                if len(best) == 1
                else f"; {len(best)} on the front"
            )
        if (seconds := self.left()) is not None:
            text += f"; about {duration(seconds)} left"
        return text

    def value(self, trial: FrozenTrial) -> str:
        values = trial.values or []
        return (
            ", ".join(
                f"{printable(name)} {value:.4f}" for (name, _), value in zip(self.objectives, values, strict=False)
            )
            or "–"
        )

    def point(self, trial: FrozenTrial) -> str:
        short = {name: value if isinstance(value, str) else f"{value:.4g}" for name, value in trial.params.items()}
        return " ".join(f"{name}={printable(value)}" for name, value in short.items())

    def line(self, trial: FrozenTrial) -> str:
        """One trial in one line."""
        reason = trial.user_attrs.get("reason", "").strip().splitlines()
        text = f"trial {trial.number:>4}  {status(trial):<9} {self.value(trial) if trial.values else ''}  {self.point(trial)}"
        return printable(text + (f"  {reason[-1]}" if reason else ""))

    def table(self) -> Table:
        """The live view: counts, the best so far, what runs, and what went wrong last."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(no_wrap=True)
        table.add_row(Text(f"study {self.study.name}", style="bold"))
        table.add_row(Text(bar(self.ended, self.study.n_trials)))
        for part in self.summary().split("; "):
            table.add_row(Text(part))
        running = [trial for trial in self.trials if status(trial) == "running"]
        for trial in running[:SHOWN]:
            reported = trial.intermediate_values
            at = f"epoch {max(reported)}: {reported[max(reported)]:.4f}" if reported else "running"
            table.add_row(Text(f"  {trial.number:>4}  {at:<18} {self.point(trial)}"))
        if len(running) > SHOWN:
            table.add_row(Text(f"  and {len(running) - SHOWN} more"))
        failed = [trial for trial in self.trials if status(trial) == "failed"]
        if failed:
            table.add_row(Text(f"last failure: {self.line(failed[-1])}", style="red", overflow="ellipsis"))
        return table


def bar(done: int, total: int, width: int = 40) -> str:
    filled = math.floor(width * min(1, done / max(1, total)))
    return "━" * filled + "·" * (width - filled) + f"  {done}/{total}"


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class Watch:
    """Shows a view as it changes: in place on a terminal, else each trial's end in a line."""

    def __init__(self, view: View):
        self.view, self.told = view, {t.number for t in view.trials if t.state.is_finished()}
        self.rich = make_console(soft_wrap=True)
        self.live: Any = None

    def __enter__(self) -> Watch:
        if self.rich.is_terminal:
            from rich.live import Live

            self.live = Live(console=self.rich, transient=True, auto_refresh=False)
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live is not None:
            self.live.stop()

    def look(self) -> None:
        """Read the storage again and show what is new."""
        self.view.look()
        if self.live is not None:
            self.live.update(self.view.table(), refresh=True)
            return
        news = [t for t in self.view.trials if t.state.is_finished() and t.number not in self.told]
        for trial in news:
            self.told.add(trial.number)
            self.say(self.view.line(trial))

    def say(self, words: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.rich.print(words, markup=False)


def closing(view: View) -> list[str]:
    """The last words on a study: what came out, what failed, where to read on."""
    study, words = view.study, [view.summary()]
    best = best_trials(view.opened)
    for trial in best[:10]:
        words.append(
            f"{'best' if len(best) == 1 else 'front'}: {view.value(trial)} · trial {trial.number} · {view.point(trial)}"
        )
    if values := confirmed(study):
        mean = sum(values) / len(values)
        spread = math.sqrt(sum((v - mean) ** 2 for v in values) / max(1, len(values) - 1))
        words.append(f"confirmed on {len(values)} fresh seeds: {view.objectives[0][0]} {mean:.4f} ± {spread:.4f}")
    for trial in [t for t in view.trials if status(t) in ("failed", "diverged")][:10]:
        words.append(view.line(trial))
    for name in ("best.yaml", "trials.csv", "report.html"):
        if (study.folder / name).exists():
            words.append(f"{name}: {_here(study.folder / name)}")
    return [printable(word) for word in words]


def _here(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def follow(watch: Watch, going_on: Any, pause: float = 0.3) -> None:
    """Look until it does not go on."""
    while going_on():
        watch.look()
        time.sleep(pause)
    watch.look()


def workers(study: Study) -> int:
    return len(presence.workers(study.folder))
