"""Checks of what a run is planned to find out: does it change one thing?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plumbline.changes import SEED, in_short, since_then, told
from plumbline.checks.core import Finding
from plumbline.ranges import Index


def one_change(run: dict[str, Any], *, most: Index) -> Finding | None:
    """Whether a run changes one thing of the run before it, which is the nearest of the same data, or the one it names.

    run: run.json. The nearest may not be the one that was meant, so then it is a note; of a named one it is a warning.
    """
    change = run["change"]
    if change is None:
        return None
    keys, earlier = change["keys"], Path(change["run"]).name
    evidence = {"run": change["run"], "changes": len(keys)}
    if len(keys) > most:
        guessed = "" if change["named"] else " (the nearest earlier run)"
        return Finding(
            "warn" if change["named"] else "info",
            f"{len(keys)} changes at once since {earlier}{guessed}: {in_short(keys)}", evidence,
            cause="what comes of it cannot be put down to one of them",
            advice=(
                f"make one of them alone; {earlier} was: {change['command']}",
                *(() if change["named"] else ("say which run this one is to be held against: parent=<its folder>",)),
            ),
            source="S3: only test one change at a time",
        )  # fmt: skip
    if keys:
        return Finding("ok", since_then(change), evidence)
    if change["seeds"]:
        return Finding("ok", f"as {earlier} but for the seed: {told({SEED: change['seeds']})}", evidence)
    if change["code"]:
        return Finding("ok", f"as {earlier} but for the code, which was at {str(change['code'][0])[:7]} then", evidence)
    return Finding(
        "info", f"nothing was changed since {earlier}: the same numbers are to be expected", evidence,
        advice=("another seed says how far they vary: seed=1",), source="S0: fix the seeds",
    )  # fmt: skip
