"""`python tests/attack.py commands=1000 damage=300 kills=100 hostile=60 seed=0 jobs=2`: attack the commands at random.

Prints a table and each fault with the command that repeats it. Other words: only=commands:17 (one try, with its output),
keep=<folder> (where tries are made, and left), faults=<file> (a JSON line for each fault).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "src"), str(Path(__file__).resolve().parent)]

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: a process with threads cannot be forked

import fuzz_process  # noqa: E402
from fuzz_process import Result, run_many  # noqa: E402

CAMPAIGNS = ("commands", "damage", "kills", "hostile")
USUAL = {"commands": "0", "damage": "0", "kills": "0", "hostile": "0", "seed": "0", "jobs": "2", "only": "", "keep": "",
         "faults": ""}  # fmt: skip
COLUMNS = (
    "attack",
    "tries",
    "passed",
    "commands",
    "executed",
    "tracebacks",
    "hangs",
    "user files",
    "other",
    "tries/min",
    "cpu s",
)


def prepared(name: str, seed: int, place: Path):
    """The function that makes one try of a campaign."""
    import fuzz_damage
    import fuzz_hostile
    import fuzz_kills
    import fuzz_words

    made = {"kills": fuzz_kills, "hostile": fuzz_hostile, "commands": fuzz_words, "damage": fuzz_damage}[name]
    if name == "kills":
        return partial(made.attempt, seed)
    template, was = fuzz_damage.make_template(place.parent)
    return partial(made.attempt, seed, template, was)


def row(name: str, results: list[Result], seconds: float) -> list[object]:
    kinds = Counter(fault["kind"] for result in results for fault in result.faults)
    known = {"executed": kinds["executed"], "traceback": kinds["traceback"], "hang": kinds["hang"],
             "user files touched": kinds["user files touched"]}  # fmt: skip
    return [
        name, len(results), sum(not result.faults for result in results), sum(result.commands for result in results),
        *known.values(), kinds.total() - sum(known.values()), round(60 * len(results) / max(seconds, 1e-9)),
        round(sum(result.cpu for result in results)),
    ]  # fmt: skip


def show(rows: list[list[object]]) -> None:
    for cells in [COLUMNS, *rows]:
        print("  ".join(f"{cell!s:>10}" for cell in cells), flush=True)


def report(name: str, results: list[Result], seed: int, file: Path | None) -> None:
    """Each distinct fault once, with the number of tries that had it."""
    seen: dict[tuple[str, ...], list[tuple[Result, dict[str, str]]]] = {}
    for result in results:
        for fault in result.faults:
            what = fault["where"] or fault["last"][:40]
            seen.setdefault((fault["kind"], what, fault["last"].partition(":")[0][:40]), []).append((result, fault))
            if file is not None:
                with open(file, "a") as out:
                    out.write(json.dumps({"campaign": name, "number": result.number, **fault}) + "\n")
    for found in sorted(seen.values(), key=len, reverse=True):
        result, fault = found[0]
        print(f"\n{name}: {fault['kind']} in {len(found)} tries  {fault['where']}")
        print(f"  {fault['note']}".rstrip() or "", f"  {fault['line'][:600]}", f"  {fault['last']}", sep="\n")
        print(f"  repeat: python tests/attack.py only={name}:{result.number} seed={seed}", flush=True)


def main() -> int:
    options = dict(USUAL)
    for word in sys.argv[1:]:
        key, given, value = word.partition("=")
        if not given or key not in options:
            print(f"{__doc__}\n{' '.join(f'{key}={value}' for key, value in USUAL.items())}", file=sys.stderr)
            return 2
        options[key] = value
    seed, jobs = int(options["seed"]), int(options["jobs"])
    place = Path(options["keep"] or tempfile.mkdtemp(prefix="attack-")).resolve()
    place.mkdir(parents=True, exist_ok=True)
    fuzz_process.import_everything()
    fuzz_process.adopt_orphans()
    rows, bad = [], 0
    try:
        for name in CAMPAIGNS:
            numbers = list(range(int(options[name])))
            if options["only"]:
                campaign, _, number = options["only"].partition(":")
                numbers = [int(number)] if campaign == name else []
            if not numbers:
                continue
            attempt = prepared(name, seed, place / name)
            began = time.monotonic()
            results = run_many(attempt, numbers, 1 if options["only"] else jobs, place / name)
            rows.append(row(name, results, time.monotonic() - began))
            bad += sum(bool(result.faults) for result in results) + len(numbers) - len(results)
            report(name, results, seed, Path(options["faults"]) if options["faults"] else None)
            if options["only"]:
                for key in ("out", "err", "calls"):
                    print(f"--- {key}", (place / name / "job0" / key).read_text(errors="replace"), sep="\n")
    finally:
        if not options["keep"]:
            shutil.rmtree(place, ignore_errors=True)
    print()
    show(rows)
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
