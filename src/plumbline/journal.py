"""`python -m plumbline.journal [<outputs>]`: the runs so far as a tree: what each changed, since which, and what came of it.

python -m plumbline.journal <run> answer="wider is better"   writes down what a run has taught, in your words
python -m plumbline.journal [<outputs>] --csv                 a row a run, for a spreadsheet

A run stands below the one that it changes: the one it named (parent=…), or the nearest of the same data. Runs that differ in
their seed alone stand in one line. The trials of a study have a page of their own, and are not among them.
"""

from __future__ import annotations

import csv
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any, TextIO

from plumbline.changes import fingerprint_of, latest, settings, told
from plumbline.config import MAXIMISE, ConfigError
from plumbline.exits import DONE, MISTAKE, outlast_the_reader
from plumbline.files import lock, write_json
from plumbline.output import csv_cell, make_console, print_error, printable
from plumbline.record import check_names, with_fate
from plumbline.report import finite, number
from plumbline.stored import read_run_file, read_runs

if TYPE_CHECKING:
    from rich.tree import Tree

COLUMNS = (  # those of S2's tree of questions, then what it takes to find and repeat the run
    "sub-project", "context", "setup", "name", "parameter", "values", "status", "skill", "question", "finding",
    "metric", "command", "folder",
)  # fmt: skip
ROOMS = ("model", "optimiser", "schedule", "loss", "step")  # components that a setup is told by
WAITING = 5  # questions without an answer that are listed


@dataclass
class Entry:
    """A run in the tree, with its replicates of other seeds and the runs that change it."""

    folder: Path
    run: dict[str, Any]
    replicates: list[dict[str, Any]] = field(default_factory=list)
    below: list[Entry] = field(default_factory=list)

    @property
    def change(self) -> dict[str, Any]:
        return self.run.get("change") or {}

    @property
    def keys(self) -> dict[str, Any]:
        return self.change.get("keys") or {}

    @property
    def values(self) -> list[float]:
        """The objective of each seed that has one; of a seed twice, the latest."""
        runs = {run["seed"]: run for run in (self.run, *self.replicates)}
        found = [(run.get("best") or {}).get(run.get("objective")) for run in runs.values()]
        return [value for value in found if finite(value)]

    @property
    def subject(self) -> str:
        """What a family of runs is about: the data, and the objective."""
        return f"{target(self.folder, 'data')}, {printable(self.run.get('objective') or 'no objective yet')}"


def target(folder: Path, group: str) -> str:
    try:
        return printable(settings(folder)[group]["_target_"]).rpartition(".")[2]
    except (ConfigError, KeyError, TypeError):
        return "?"


def entries(outputs: Path) -> list[Entry]:
    """The runs below a folder, the earliest first."""
    found = [Entry(folder, with_fate(run, folder)) for folder, run in read_runs(latest(outputs))]
    return sorted(reversed(found), key=lambda entry: str(entry.run.get("started")))


def tree(runs: list[Entry]) -> list[Entry]:
    """Of runs, the earliest first, those that change no other, each with those below it."""
    known: dict[str, Entry] = {}
    roots = []
    for entry in runs:
        above = known.get(entry.change.get("run", ""))
        known[str(entry.folder.resolve())] = entry
        if above is None:
            roots.append(entry)
        elif entry.keys or entry.run["status"] != "finished" or fingerprint_of(entry.run) != fingerprint_of(above.run):
            above.below.append(entry)
        else:
            above.replicates.append(entry.run)
            known[str(entry.folder.resolve())] = above
    return roots


def line(entry: Entry, best: Entry | None, asked: str) -> str:
    """An entry in the tree: what it changed, its value, what came of it, its question unless just asked, and the answer."""
    values, run = entry.values, entry.run
    said = [told(entry.keys) if entry.keys else entry.folder.name]
    if run["status"] != "finished":
        said.append(run["status"])
    if values:
        value = number(mean(values))
        said.append(f"{value} ± {stdev(values):.2g} ({len(values)} seeds)" if len(values) > 1 else value)
    if outcome := entry.change.get("outcome"):
        said.append(outcome["said"].partition(": ")[2])
    if entry is best:
        said.append("the best")
    if len(entry.keys) > 1:
        said.append(f"{len(entry.keys)} changes at once")
    first = "  ·  ".join(map(printable, said))
    question = [f"? {printable(run['question'])}"] if run.get("question") not in ("", None, asked) else []
    return "\n".join([first, *question, *([f"= {printable(run['answer'])}"] if run.get("answer") else [])])


def best_of(roots: list[Entry]) -> Entry | None:
    """The entry with the best objective, the mean over its seeds."""
    every, waiting = [], list(roots)
    while waiting:
        entry = waiting.pop()
        waiting += entry.below
        every += [entry] if entry.values else []
    sign = 1 if every and every[0].run.get("direction") == MAXIMISE else -1
    return max(every, key=lambda entry: sign * mean(entry.values)) if len(every) > 1 else None


def unanswered(runs: list[Entry]) -> list[Entry]:
    """The latest run of each question that no run has answered, in the order in which they were asked."""
    asked: dict[str, list[Entry]] = {}
    for entry in runs:
        if question := entry.run.get("question"):
            asked.setdefault(question, []).append(entry)
    return [found[-1] for found in asked.values() if not any(entry.run.get("answer") for entry in found)]


def show(outputs: Path) -> None:
    """Print the tree, and the questions that have no answer yet."""
    from rich.text import Text
    from rich.tree import Tree as Branch

    console, runs = make_console(), entries(outputs)
    if not runs:
        console.print(f"{outputs}: no run yet")
        return
    roots = tree(runs)

    def grow(branch: Tree, entry: Entry, best: Entry | None, asked: str = "") -> None:
        twig = branch.add(Text(line(entry, best, asked)))
        for below in entry.below:
            grow(twig, below, best, entry.run.get("question") or "")

    for subject in dict.fromkeys(entry.subject for entry in roots):
        family = [entry for entry in roots if entry.subject == subject]
        trunk = Branch(Text(subject, style="bold"))
        for entry in family:
            grow(trunk, entry, best_of(family))
        console.print(trunk)
    if waiting := unanswered(runs):
        console.print(f"\nquestions without an answer: {len(waiting)}; the latest:")
        for entry in waiting[: -WAITING - 1 : -1]:
            command = f"python -m plumbline.journal {printable(entry.folder)} answer='…'"
            console.print(Text(f"  {printable(entry.run['question'])}\n    {command}"), soft_wrap=True)


def write_csv(outputs: Path, file: TextIO) -> None:
    """A row a run, the earliest first."""
    writer = csv.DictWriter(file, COLUMNS)
    writer.writeheader()
    for entry in entries(outputs):
        run, keys = entry.run, entry.keys
        setup = [target(entry.folder, room) for room in ROOMS]
        row = {
            "sub-project": target(entry.folder, "data"), "context": Path(entry.change.get("run", "")).name,
            "setup": " ".join(setup), "name": run.get("name"), "parameter": "; ".join(keys),
            "values": "; ".join(told({"": both}).strip() for both in keys.values()), "status": run["status"],
            "skill": (run.get("best") or {}).get(run.get("objective")), "question": run.get("question"),
            "finding": run.get("answer"), "metric": run.get("objective"), "command": run.get("command"),
            "folder": str(entry.folder),
        }  # fmt: skip
        writer.writerow({name: csv_cell(value) for name, value in row.items()})


def answer(folder: Path, text: str) -> None:
    """Write down what a run has taught; raises ConfigError where it is not over, or there is nothing to write."""
    if not text.strip():
        raise ConfigError("answer=: is empty; say in a sentence what the run has taught")
    run = read_run_file(folder)
    check_names(folder)
    held = lock(folder)  # nobody trains in it meanwhile, nor writes its record
    if run["status"] in ("running", "preempted") and with_fate(run, folder)["status"] != "lost":
        raise ConfigError(f"{folder}: is not over yet; its answer is known when it is")
    write_json(folder / "run.json", run | {"answer": text.strip()})
    if (folder / "report.html").exists():
        from plumbline.report.page import write_report

        write_report(folder)
    held.close()


def main() -> int:
    """Show the journal, or write an answer into it; return the exit status."""
    words = sys.argv[1:]
    if {"-h", "--help"} & set(words):
        print(__doc__)
        return DONE
    try:
        said = [word for word in words if word.startswith("answer=")]
        folders = [Path(word) for word in words if word not in said and word != "--csv"]
        if len(folders) > 1 or len(said) > 1:
            raise ConfigError(
                f"{' '.join(words)}: one folder, and one answer; put quotes around what has spaces: answer='…'"
            )
        folder = folders[0] if folders else Path("outputs")
        if not folder.is_dir():
            raise ConfigError(f"{folder}: there is no such folder")
        if said:
            answer(folder, said[0].partition("=")[2])
        elif "--csv" in words:
            write_csv(folder, sys.stdout)
        else:
            show(folder)
    except (ConfigError, OSError) as error:
        print_error(error)
        return MISTAKE
    return DONE


if __name__ == "__main__":
    outlast_the_reader()
    sys.exit(main())
