"""Plants each known mistake into small programs and counts what the checks say of it.

Every run is the ordinary command with --config-dir=scripts/faulty/conf and allow=[…,faulty]: nothing of ours is touched.
A mistake is `seen` if some check warns or fails, if the run is refused (status 2) or if it ends as diverged (3);
`early` if that was before the first epoch; `first` if the headline is a check that names the cause, `in 3` if one of
the first three alarms is. `s` is the median run in seconds, `checks` what its findings took of that. A run that ends
otherwise (an exception of ours, out of time, a check that could not be made) is `broken`, whatever was found.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import shlex
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from faulty.faults import LISTED
from faulty.files import write
from faulty.programs import BASES, HONEST, words
from faulty.unseen import UNSEEN

FAULTY = Path(__file__).parent / "faulty"
ALLOW = "allow=[plumbline,torch.nn,torch.optim,torchvision.models,torchvision.ops,faulty]"
PATIENCE = 600  # seconds until a run counts as broken
PRELOADED = (  # what a run imports sooner or later
    "plumbline.run", "torch._dynamo", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg",
    "sklearn.datasets", "sklearn.ensemble", "sklearn.linear_model", "sklearn.neighbors", "sklearn.model_selection",
)  # fmt: skip
BEFORE = ("plan", "audit", "probes")  # the phases before the first epoch
ENDINGS = {0: "finished", 2: "refused", 3: "diverged"}  # others are broken


@dataclass
class Outcome:
    """One run: a fault (None: an honest program) in a base, from a seed, and what the checks said of it."""

    base: str
    name: str
    seed: int
    fault: str | None
    words: list[str]
    causes: list[str]
    ending: str = ""
    message: str = ""
    alarms: list[dict[str, str]] = field(default_factory=list)  # id, severity, phase, message; the headline first
    seconds: float = 0.0
    checking: float = 0.0  # of these, in checks that said something
    score: float | None = None  # the best value of the objective

    @property
    def seen(self) -> bool:
        return bool(self.alarms) or self.ending in ("refused", "diverged")

    @property
    def early(self) -> bool:
        return self.ending == "refused" or any(alarm["phase"] in BEFORE for alarm in self.alarms)

    def named(self, within: int) -> bool:
        """Whether one of the first so many alarms names the cause."""
        return any(alarm["id"] in self.causes for alarm in self.alarms[:within])

    def told(self) -> dict[str, Any]:
        """Everything, with what is counted."""
        counted = {"seen": self.seen, "early": self.early, "first": self.named(1), "in_3": self.named(3)}
        return asdict(self) | counted


def main() -> int:
    """Run what is asked for; print the tables, or JSON."""
    asked = arguments()
    jobs = list(honest(asked) if asked.clean else planted(asked))
    if not jobs:
        print("there is no such fault in these bases", file=sys.stderr)
        return 2
    if asked.show:
        for job in jobs:
            print(f"{job.fault or job.name} {job.base}: scripts/train {shlex.join(command(job, asked))}")
        return 0
    began, done = time.monotonic(), []
    for outcome in run_all(jobs, asked):
        done.append(outcome)
        headline = outcome.alarms[0]["id"] if outcome.alarms else outcome.message[:70]
        label = f"{outcome.fault or outcome.name} {outcome.base} seed {outcome.seed}"
        print(f"{len(done)}/{len(jobs)}  {label}: {outcome.ending}, {headline or 'nothing'}", file=sys.stderr)
    done.sort(key=lambda it: (it.fault or "", it.base, it.name, it.seed))
    if asked.json:
        print(json.dumps([it.told() for it in done], indent=1))
    else:
        print(honest_table(done) if asked.clean else fault_table(done))
        print(f"\n{len(done)} runs in {(time.monotonic() - began) / 60:.1f} minutes, checks={asked.checks}")
    return 0


def arguments() -> argparse.Namespace:
    bases = "; ".join(f"{letter}: {what}" for letter, what in BASES.items())
    parser = argparse.ArgumentParser(prog="scripts/faults", description=__doc__, epilog=f"Bases: {bases}",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--base", default="DFR", help="letters of the bases to use (default %(default)s)")
    parser.add_argument("--fault", nargs="+", help="ids, such as X07; without it all of the development set")
    parser.add_argument("--unseen", action="store_true", help="the set that no check was written for")
    parser.add_argument("--clean", action="store_true", help="honest programs instead: every alarm is a false one")
    parser.add_argument("--seeds", type=int, default=5, help="of each; they move the split, too (default %(default)s)")
    parser.add_argument("--checks", default="full", choices=["quick", "full"], help="(default %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, one thread each (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="every run with its alarms, for a program to read")
    parser.add_argument("--show", action="store_true", help="print the command lines and run nothing")
    return parser.parse_args()


def planted(asked: argparse.Namespace) -> Iterator[Outcome]:
    """The runs of the faults that are asked for."""
    for fault in [*LISTED, *UNSEEN] if asked.fault else UNSEEN if asked.unseen else LISTED:
        if asked.fault and fault.id not in asked.fault:
            continue
        for base in fault.bases:
            if base in asked.base or asked.unseen:
                for seed in range(asked.seeds):
                    chosen = words(base, fault.planted(base))
                    yield Outcome(base, fault.name, seed, fault.id, chosen, sorted(fault.causes))


def honest(asked: argparse.Namespace) -> Iterator[Outcome]:
    """The runs of the honest programs."""
    for base in asked.base:
        for name, changes in HONEST[base].items():
            for seed in range(asked.seeds):
                yield Outcome(base, name, seed, None, words(base, changes), [])


def command(job: Outcome, asked: argparse.Namespace) -> list[str]:
    """The words after scripts/train."""
    seeds = [f"seed={job.seed}", f"data.split_seed={job.seed}"]
    common = ["threads=1", "bootstrap=200", f"checks={asked.checks}", "checks.stop_on=never", "report=false"]
    return [f"--config-dir={FAULTY / 'conf'}", ALLOW, *seeds, *common, *job.words]


def run_all(jobs: list[Outcome], asked: argparse.Namespace) -> Iterator[Outcome]:
    """Each job in a process of its own, forked from this one so that torch is imported once; as they end."""
    import torch

    for module in PRELOADED:
        importlib.import_module(module)
    torch.set_num_threads(1)
    waiting, running = list(reversed(jobs)), {}
    with tempfile.TemporaryDirectory(prefix="faults-") as home:
        if any(job.base in "TP" for job in jobs):
            write(Path(home))
        while waiting or running:
            while waiting and len(running) < asked.jobs:
                job = waiting.pop()
                folder = Path(home) / str(len(waiting))
                folder.mkdir()
                words = [*command(job, asked), f"hydra.run.dir={folder}/run"]
                running[fork(words, folder)] = (job, folder, time.monotonic())
            process, status = os.wait()
            job, folder, began = running.pop(process)
            job.seconds = time.monotonic() - began
            read(job, folder, os.waitstatus_to_exitcode(status))
            shutil.rmtree(folder)
            yield job


def fork(words: list[str], folder: Path) -> int:
    """Start the command in a child, its words going to files; return its process id."""
    from plumbline import train

    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        for stream, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(folder / name, os.O_CREAT | os.O_WRONLY), stream)
        os.chdir(folder)
        signal.alarm(PATIENCE)
        sys.argv = ["train", *words]
        status = train.main()
        sys.stdout.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def read(job: Outcome, folder: Path, status: int) -> None:
    """Fill in how the run ended and what its checks said."""
    from plumbline.checks.core import ALARMS, ranked

    job.ending = ENDINGS.get(status, "broken")
    lines = (folder / "stderr").read_text().strip().splitlines()
    job.message = " ".join(lines[-1:] if job.ending == "broken" else lines[:1]) if status else ""
    if not (folder / "run" / "run.json").exists():
        return
    run = json.loads((folder / "run" / "run.json").read_text())
    found = [finding for finding in ranked(run["findings"]) if finding["severity"] in ALARMS]
    job.alarms = [{key: finding[key] for key in ("id", "severity", "phase", "message")} for finding in found]
    job.checking = sum(finding["seconds"] for finding in run["findings"] if "seconds" in finding)
    job.score = run["best"] and run["best"][run["objective"]]
    unmade = [it for it in run["findings"] if " could not be made: " in it["message"]]
    if unmade:  # a bug of ours, though it costs the run nothing
        job.ending, job.message = "broken", f"{unmade[0]['id']}: {unmade[0]['message']}"


def fault_table(done: list[Outcome]) -> str:
    """A line a fault and base, then totals."""
    rows = [("fault", "", "base", "seen", "early", "first", "in 3", "broken", "s", "checks", "headlines")]
    for key in dict.fromkeys((it.fault, it.name, it.base) for it in done):
        runs = [it for it in done if (it.fault, it.name, it.base) == key]
        heads = dict.fromkeys(it.alarms[0]["id"] if it.alarms else it.ending for it in runs)
        rows.append((*key, *counts(runs), ", ".join(heads)))
    for base in [*dict.fromkeys(it.base for it in done), *(["all"] if len({it.base for it in done}) > 1 else [])]:
        runs = [it for it in done if base in (it.base, "all")]
        shares = [f"{100 * statistics.mean(values):.0f} %" for values in judged(runs)]
        rows.append(("total", f"{len(runs)} runs", base, *shares, *counts(runs)[-3:], ""))
    return table(rows)


def judged(runs: list[Outcome]) -> list[list[bool]]:
    """For each of seen, early, first, in 3: whether each run was."""
    good = [it for it in runs if it.ending != "broken"]
    each = [(it.seen, it.early, it.named(1), it.named(3)) for it in good]
    return [list(column) + [False] * (len(runs) - len(good)) for column in zip(*each, strict=True)] or [[False]] * 4


def counts(runs: list[Outcome]) -> tuple[str, ...]:
    broken = sum(it.ending == "broken" for it in runs)
    seconds = (statistics.median(getattr(it, key) for it in runs) for key in ("seconds", "checking"))
    shares = (f"{sum(values)}/{len(runs)}" for values in judged(runs))
    return (*shares, str(broken or ""), *(f"{value:.1f}" for value in seconds))


def honest_table(done: list[Outcome]) -> str:
    """A line a program, then each false alarm, then totals."""
    rows = [("base", "program", "score", "runs", "alarms", "broken", "s", "checks")]
    for key in dict.fromkeys((it.base, it.name) for it in done):
        runs = [it for it in done if (it.base, it.name) == key]
        score = statistics.median(it.score if it.score is not None else math.nan for it in runs)
        loud = sum(bool(it.alarms) for it in runs)
        rows.append((*key, f"{score:.3g}", str(len(runs)), str(loud or ""), *counts(runs)[-3:]))
    alarms = [
        f"{it.base} {it.name}, seed {it.seed}: {alarm['severity']} {alarm['id']}: {alarm['message']}"
        for it in done
        for alarm in it.alarms
    ]
    broken = [
        f"{it.base} {it.name}, seed {it.seed}: {it.ending}: {it.message}" for it in done if it.ending != "finished"
    ]
    loud = sum(bool(it.alarms) for it in done)
    return "\n".join([table(rows), "", *alarms, *broken, f"{loud} of {len(done)} honest runs have an alarm"])


def table(rows: list[tuple[str, ...]]) -> str:
    """Columns as wide as what stands in them."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


if __name__ == "__main__":
    sys.exit(main())
