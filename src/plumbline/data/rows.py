"""Reading a table: every cell is looked at, and every row that cannot be used is named by its line and column."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from plumbline.config import ConfigError

Kind = Literal["number", "text", "word", "part"]  # text may be empty, a word may not, a part is train, val or test
SHOWN = 10  # bad rows in a message
LARGEST = 1e38  # of single precision, which is what networks compute in


@dataclass
class Table:
    """The good rows of a file. lines: (N,) 1-based; columns: name -> (N,) float64 or text; bad: the other rows."""

    lines: np.ndarray
    columns: dict[str, np.ndarray]
    bad: list[str]


def read_text(path: Path) -> str:
    """A UTF-8 file's text; a ConfigError says what else the file is."""
    if not path.is_file():
        raise ConfigError(f"data.file={path}: {'is a folder' if path.is_dir() else 'there is no such file'}")
    content = path.read_bytes()
    if b"\0" in content:
        raise ConfigError(f"data.file={path}: is not text (it has a zero byte); a table with a header line is wanted")
    try:
        return content.decode("utf-8-sig")  # spreadsheets put a byte order mark before the header
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        wrong = f"line {line} has the byte 0x{content[error.start]:02x}, which is not UTF-8"
        raise ConfigError(f"data.file={path}: {wrong}; iconv -f latin1 -t utf-8 converts a Western file") from error


def records(path: Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """(line, cells without surrounding blanks) of each record; empty lines are none."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    while True:
        line = reader.line_num + 1  # where the record begins: a quoted cell may go over several lines
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ConfigError(f"data.file={path}: line {line}: {error}; is a quotation mark left open?") from error
        if cells:
            yield line, [cell.strip() for cell in cells]


def header_of(path: Path, rows: Iterator[tuple[int, list[str]]]) -> list[str]:
    """The names of the columns: unique; one without a name is called by its number."""
    _, cells = next(rows, (0, []))
    if not cells:
        raise ConfigError(f"data.file={path}: is empty; a table with a header line is wanted")
    names = [cell or f"column {number}" for number, cell in enumerate(cells, start=1)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"data.file={path}: the header has {', '.join(map(repr, twice))} more than once; rename one")
    return names


def read_table(path: Path, header: list[str], rows: Iterator[tuple[int, list[str]]], kinds: dict[str, Kind]) -> Table:
    """The columns that `kinds` names. Raises ConfigError if there is no good row, or a column is of another kind."""
    wanted = [(name, header.index(name), kind) for name, kind in kinds.items()]
    lines: list[int] = []
    values: dict[str, list] = {name: [] for name in kinds}
    bad: list[str] = []
    faults: dict[str, list[tuple[int, str]]] = {name: [] for name in kinds}
    for line, cells in rows:
        if len(cells) != len(header):
            bad.append(f"line {line}: has {len(cells)} cells, but the header has {len(header)}")
            continue
        wrong, parsed = [], []
        for name, position, kind in wanted:
            value, fault = _parse(cells[position], kind)
            parsed.append(value)
            if fault:
                wrong.append(f"{name} {fault}")
                faults[name].append((line, cells[position]))
        if wrong:
            bad.append(f"line {line}: {', '.join(wrong)}")
            continue
        lines.append(line)
        for (name, _, _), value in zip(wanted, parsed, strict=True):
            values[name].append(value)
    _check_columns(path, faults, kinds, len(lines) + len(bad))
    if not lines:
        said = f": {'; '.join(bad[:SHOWN])}" if bad else ", only a header"
        raise ConfigError(f"data.file={path}: has no row that can be used{said}")
    columns = {name: np.array(column, float if kinds[name] == "number" else str) for name, column in values.items()}
    return Table(np.array(lines), columns, bad)


def _parse(cell: str, kind: Kind) -> tuple[float | str, str]:
    """(value, what is wrong with it or '')."""
    if kind == "text":
        return cell, ""
    if not cell:
        return cell, "is empty"
    if kind == "word":
        return cell, ""
    if kind == "part":
        return cell, "" if cell in ("train", "val", "test") else f"is {cell!r}, not train, val or test"
    try:
        number = float(cell)
    except ValueError:
        return cell, f"is {cell!r}, not a number"
    if "_" in cell:
        return cell, f"is {cell!r}, not a number"  # Python would read 1_000
    if not math.isfinite(number):
        return cell, f"is {cell}, not a finite number"
    return number, "" if abs(number) <= LARGEST else f"is {cell}, beyond what single precision holds (1e38)"


def _check_columns(path: Path, faults: dict[str, list[tuple[int, str]]], kinds: dict[str, Kind], total: int) -> None:
    """Raise ConfigError for a column that is bad in most rows: it is not the rows that are wrong, but its kind."""
    for name, found in faults.items():
        if 2 * len(found) <= total:
            continue
        line, cell = found[0]
        if kinds[name] == "number" and any(cell for _, cell in found):
            line, cell = next(pair for pair in found if pair[1])
            what = f"is not a finite number in {len(found)} of {total} rows (line {line}: {cell!r}); "
            cure = "if it is text, list it under data.categorical, or under data.ignore to do without"
        else:
            what = f"is {repr(cell) if cell else 'empty'} on line {line}, and bad in {len(found)} of {total} rows; "
            cure = "list it under data.ignore to do without, or choose another"
        raise ConfigError(f"data.file={path}: column {name!r} {what}{cure}")


def several(path: Path, bad: list[str], total: int, cure: str) -> str:
    """One message for many bad rows."""
    more = f"\n  … and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    return f"data.file={path}: {len(bad)} of {total} rows cannot be used; {cure}\n  " + "\n  ".join(bad[:SHOWN]) + more
