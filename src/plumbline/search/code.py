"""A study's copy of the code that its trials run from, and what has changed since in the tree."""

from __future__ import annotations

import compileall
import difflib
import py_compile
from pathlib import Path

from plumbline.contract import ConfigError
from plumbline.environment import SNAPSHOT
from plumbline.output import printable
from plumbline.search import presence
from plumbline.search.study import CODE, Study
from plumbline.snapshot import ROOT, changed, snapshot, sources

FILES, LINES, WIDTH = 20, 40, 160  # of what has changed, and letters a line, that are shown
LONG = 200_000  # bytes of a file of which no lines are shown


def copy_code(study: Study, new: bool) -> None:
    """Copy the code; where there is a copy, refuse to go on with another one unless that is wanted."""
    code = study.folder / CODE
    files = [] if new or not code.is_dir() else changed(code)
    if files and not study.search["extend"]:
        shown = "\n".join(code_difference(code, files))
        raise ConfigError(
            f"study={study.name}: its code is no longer this one; changed since it began (- there, + now):\n{shown}\n"
            "say search.extend=true to do its further trials with the code as it is now, or another study=…"
        )
    if files:
        if presence.workers(study.folder):
            raise ConfigError(
                f"study={study.name}: workers are at it with the code it began with; wait until they have left"
            )
        earlier = len(list(study.folder.glob(f"{CODE}.*"))) + 1
        code.rename(study.folder / f"{CODE}.{earlier}")
    missing = not code.is_dir()
    snapshot(study.folder)
    if missing:  # compiled once, before it is signed: what runs from it writes nothing into it
        compileall.compile_dir(code / "src", quiet=2, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
    note_root(code)


def note_root(code: Path) -> None:
    """Note where the tree lies that the copy is equal to: it may have been moved since."""
    from plumbline.files import read_json, write_json

    path = code / SNAPSHOT
    facts = read_json(path)
    if facts.get("root") != str(ROOT):
        write_json(path, facts | {"root": str(ROOT)})


def code_difference(code: Path, names: list[str]) -> list[str]:
    """What is another in the tree of today than in a study's copy: each file, and its changed lines as far as there is room."""
    now = {str(name): file for file, name in sources()}
    lines, room, more = [], LINES, 0
    for name in names[:FILES]:
        changes = ["gone"] if name not in now else changed_lines(code / name, now[name])
        if len(changes) == 1:
            lines.append(f"  {shortened(name)} ({changes[0]})")
            continue
        lines += [f"  {shortened(name)}", *(f"    {line}" for line in changes[:room])]
        more += max(0, len(changes) - room)
        room -= min(room, len(changes))
    if len(names) > FILES:
        lines.append(f"  and {len(names) - FILES} more files")
    if more:
        lines.append(f"  and {more} more lines; all of it: diff -r {shortened(str(code))} {shortened(str(ROOT))}")
    return lines


def changed_lines(old: Path, new: Path) -> list[str]:
    """A unified diff without its head; of what is not to be read, one word why."""
    if max(old.stat().st_size, new.stat().st_size) > LONG:
        return ["large"]
    try:
        texts = [file.read_text(encoding="utf-8").splitlines() for file in (old, new)]
    except UnicodeDecodeError:
        return ["binary"]
    found = [shortened(line) for line in difflib.unified_diff(*texts, n=1, lineterm="")][2:]
    return found or ["ends of lines"]


def shortened(line: str) -> str:
    """A line of a file as it can be shown: printable, and not long."""
    text = printable(line[:WIDTH].replace("\t", "    "))
    return text if len(line) <= WIDTH and len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"
