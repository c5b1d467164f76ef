"""Text of unknown origin controls no terminal and no spreadsheet, whichever field it stands in and whichever command shows it."""

from __future__ import annotations

import ast
import csv
import io
import json
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from rich.table import Table
from rich.text import Text

from plumbline import compare, diagnose, evaluate, journal, stages
from plumbline.contract import shown
from plumbline.output import (
    csv_cell,
    make_console,
    print_error,
    print_safe,
    print_traceback,
    printable,
    printable_lines,
)

ATTACKS = {
    "escape": "\x1b[2J", "bell": "\x07", "link": "\x1b]8;;http://x\x1b\\here\x1b]8;;\x1b\\", "c1": "\x9b31m", "bidi": "\u202eabc",
    "isolate": "\u2066x", "return": "safe\rplumbline: done", "backspace": "ab\x08\x08", "delete": "\x7f", "separator": "a\u2028b",
    "line": "a\nplumbline: forged",
}  # fmt: skip
ALL = " ".join(ATTACKS.values())


def is_safe(text: str) -> bool:
    """No control character but line ends, and no line that a value has forged."""
    return all(line == printable(line) for line in text.split("\n")) and "\nplumbline: forged" not in text


@pytest.mark.parametrize("name", ATTACKS)
def test_each_attack_is_shown_as_an_escape(name: str) -> None:
    """In one line: an escape that can be read, and nothing that a terminal obeys."""
    assert printable(ATTACKS[name]).isprintable() and "\\" in printable(ATTACKS[name])
    assert printable(printable(ATTACKS[name])) == printable(ATTACKS[name])
    assert is_safe(printable_lines(ATTACKS[name]).replace("\nplumbline", ""))
    assert shown({"a": [ATTACKS[name]]}).isprintable()


@pytest.mark.parametrize("text", ["", "é ß 中文 ∅ → …", "a\u00a0b\u2009c", "می\u200cخواهم", "👩\u200d🔬"])
def test_text_of_any_language_stays_as_it_is(text: str) -> None:
    assert (printable(text), printable_lines(text), csv_cell(text)) == (text, text, text)


def test_a_message_has_no_line_that_looks_like_another(capsys) -> None:
    print_error(f"first\n  second\n{ALL}")
    print_safe(ALL.replace("\n", ""))
    print_traceback(ValueError, ValueError(ALL), None)
    out, err = capsys.readouterr()
    assert err.startswith("plumbline: first\n  second\n  \\x1b[2J") and is_safe(
        err.replace("\nplumbline: forged", "\n")
    )
    assert err.count("\nplumbline: forged") == 1 and is_safe(out)  # that of the traceback, which keeps its lines


def test_a_terminal_gets_no_sequence_but_the_styles_of_rich() -> None:
    """In a line, a table, a tree's label and what looks like markup."""
    file = io.StringIO()
    console = make_console(file=file, force_terminal=True, width=200)
    table = Table(ALL, "[link=http://x]m[/link]")
    table.add_row(ALL, Text(ALL, style="bold"))
    for content in (ALL, Text(ALL), table, "[link=http://x]m[/link]"):
        console.print(content)
    written = file.getvalue()
    import re

    rest = re.sub(r"\x1b\[[\d;]*m", "", written)
    assert rest != written and all(line == printable(line) for line in rest.split("\n"))
    assert rest.count("[link=http://x]m[/link]") == 2


CELLS = [
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    " =1",
    "\uff1d1",
    "-",
    "+",
    "-0.5.1",
    "-1_0",
    "=0.5",
]


@pytest.mark.parametrize("text", CELLS)
def test_a_cell_that_a_spreadsheet_would_compute_is_text(text: str) -> None:
    assert csv_cell(text) == f"'{printable(text)}"


@pytest.mark.parametrize("value", ["-0.5", "+3", "-1e-05", "-.5", "0.25", "a=1", "a@b", "", -0.5, 3, None, True])
def test_numbers_and_plain_text_stay_as_they_are_in_a_cell(value: object) -> None:
    assert csv_cell(value) == value and type(csv_cell(value)) is type(value)


def strange(path: Path, text: str, **more: object) -> Path:
    """The folder of a finished run, with a text in every field that a command shows."""
    path.mkdir(parents=True)
    metric = f"val/{text}"
    run = {
        "status": "finished", "name": text, "question": text, "answer": text, "command": text, "error": text, "seed": 0,
        "started": text, "objective": metric, "direction": "minimise", "best": {metric: 1.0, "epoch": 1.0}, "finished": text,
        "interval": {metric: [0.5, 1.5]}, "seconds": 1.0, "heartbeat": text, "findings": [], "trackers": {text: text},
        "data": {"task": "regression", "outputs": 1, "classes": [text], "fingerprint": text, "shape": [2], "features": [text],
                 "masks": []},
        "change": {"run": text, "keys": {text: [text, text]}, "seeds": None, "code": None, "named": False,
                   "command": text, "outcome": {"said": f"{text}: {text}"}},
    } | more  # fmt: skip
    (path / "run.json").write_text(json.dumps(run))
    settings = {
        "data": {"_target_": f"a.{text}", "x": path.name},
        "name": text,
        "outputs": "o",
        text: text,
        "loss": text,
    }
    (path / "config.yaml").write_text(yaml.safe_dump(settings | {"epochs": f"{text}{path.name}"}))
    (path / "overrides.yaml").write_text(yaml.safe_dump([text]))
    return path


@pytest.mark.parametrize("text", [ALL, ATTACKS["line"]], ids=["all", "line"])
def test_no_command_passes_on_what_a_folder_holds(text: str, tmp_path: Path, capsys, monkeypatch) -> None:
    """Each command over two folders of a stranger, their metric, names, values, questions and damage."""
    one, other = (strange(tmp_path / "runs" / "2026" / at, text) for at in "ab")
    strange(tmp_path / "runs" / "2026" / "c", text, status=text)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "config.yaml").write_bytes(f"a: {text}\n\tb: [".encode())
    (damaged / "run.json").write_text('{"status": ' + text)
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps({"epoch": n, f"val {text}": 1.0, "loss": 1.0}) + "\n" for n in range(1, 9)))
    commands = [
        (journal, [str(tmp_path / "runs")]), (journal, [str(tmp_path / "runs"), "--csv"]), (journal, [str(damaged), "answer=x"]),
        (compare, [str(one), str(other)]), (compare, [str(one), str(damaged)]), (compare, [text]),
        (evaluate, [f"run={one}"]), (evaluate, [f"run={damaged}"]), (evaluate, [f"run={text}"]), (evaluate, [f"{text}=1"]),
        (stages, [f"{text}=", "/", "a=1"]), (stages, [str(tmp_path / "runs" / "2026"), "/", "a=1", "/", "b=1"]),
        (diagnose, [str(log)]), (diagnose, [str(tmp_path / "none"), text]),
    ]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    shown_somewhere = 0
    for command, words in commands:
        monkeypatch.setattr(sys, "argv", ["x", *words])
        try:
            command.main()
        except Exception as error:  # a reader that is not part of this test: what it prints is
            print_traceback(type(error), error, None)
        out, err = capsys.readouterr()
        lines = (out + err).replace("\r\n", "\n").split("\n")
        assert [line for line in lines if line.startswith("plumbline: forged")] == [], (command, words)
        assert [line for line in lines if line != printable(line) and "\t" not in line] == [], (command, words)
        shown_somewhere += printable(text)[:4] in out + err
    assert shown_somewhere >= 3


def test_rows_for_a_spreadsheet_compute_nothing(tmp_path: Path) -> None:
    """`journal --csv`: each cell of text that begins like a formula has an apostrophe in front, and its numbers stay."""
    moments = dict.fromkeys(("started", "finished", "heartbeat"), "2026-01-01T00:00:00+00:00")
    best = {"val/=1+1": -0.5, "epoch": 1}
    strange(tmp_path / "2026" / "a", "=1+1", best=best, command="-x", answer="@A1\n=2", **moments)
    file = io.StringIO()
    journal.write_csv(tmp_path, file)
    (row,) = csv.DictReader(io.StringIO(file.getvalue()))
    assert (row["question"], row["command"], row["finding"]) == ("'=1+1", "'-x", "'@A1\\n=2")
    assert row["skill"] == "-0.5" and not [cell for cell in row.values() if cell[:1] in "=+@" and cell]


MAY_PRINT = {"output.py", "report/verdict.py"}  # the latter holds a program as text
PIPES = {"search/prepare.py"}  # `print(…, file=pipe)` between two of our processes


def test_all_text_is_printed_by_the_functions_that_make_it_printable() -> None:
    """No other module prints what is not a constant, or makes a console of rich's."""
    package, found = ROOT / "src" / "plumbline", []
    for path in package.rglob("*.py"):
        name = str(path.relative_to(package))
        for node in ast.walk(ast.parse(path.read_text())) if name not in MAY_PRINT else ():
            if isinstance(node, ast.ImportFrom) and node.module == "rich.console":
                found.append((name, node.lineno))
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            constant = all(isinstance(a, ast.Constant) or ast.unparse(a) in ("__doc__", "HELP") for a in node.args)
            to_a_pipe = name in PIPES and [ast.unparse(k.value) for k in node.keywords] == ["pipe"]
            if called in ("sys.stdout.write", "sys.stderr.write") or (
                called == "print" and not constant and not to_a_pipe
            ):
                found.append((name, node.lineno))
    assert found == []
