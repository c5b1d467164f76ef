"""Text that leaves the program, for a terminal or a spreadsheet: text of unknown origin controls neither of them."""

from __future__ import annotations

import os
import re
import sys
import traceback
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

JOINERS = "\u200c\u200d"  # format characters that words and emoji are written with
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the last four: their full-width forms

SHORTEST = 8  # characters of a private value that is looked for in messages: shorter ones occur by chance
_private: dict[str, str] = {}  # value -> what is shown in its place


def hide(value: str, written: str) -> None:
    """Show `written` in place of this value from now on."""
    _private[value] = written


def redact(text: str) -> str:
    """The text without the values that are hidden; the path of a file that exists is none."""
    for value in sorted(_private, key=len, reverse=True):
        if len(value) >= SHORTEST and value in text and not os.path.exists(value):
            text = text.replace(value, _private[value])
    return text


def printable(text: Any) -> str:
    """The text in one line, with control, bidirectional and other invisible characters as escapes such as \\x1b."""
    return "".join(map(_shown, str(text)))


def printable_lines(text: Any) -> str:
    """As `printable`, but newlines and tabs stay."""
    text = str(text)
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(c if c in "\n\t" else _shown(c) for c in text)


def _shown(c: str) -> str:
    plain = c.isprintable() or c in JOINERS or (c.isspace() and c > "\x9f" and c not in "\u2028\u2029")
    return c if plain else c.encode("unicode_escape").decode()


def print_safe(text: Any = "", file: TextIO | None = None, flush: bool = False) -> None:
    """Print text that may hold names, values or messages from files: the only `print` of such text in the package."""
    print(redact(printable_lines(text)), file=sys.stdout if file is None else file, flush=flush)


def print_error(error: Any) -> None:
    """Print `plumbline: <message>` to standard error."""
    print_safe(indented(f"plumbline: {error}"), file=sys.stderr)


def indented(text: str) -> str:
    """The text, with all lines but the first indented, so that none looks like a message of its own."""
    first, *others = text.split("\n")
    return "\n".join([first, *(line if line[:1] in ("", " ") else f"  {line}" for line in others)])


def print_traceback(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """`sys.excepthook`: a traceback whose message and lines of code are printable."""
    print_safe("".join(traceback.format_exception(kind, error, trace)).rstrip("\n"), file=sys.stderr)


def make_console(**options: Any) -> Console:
    """A rich console without markup, whose own styles are the only control sequences that it writes."""
    from rich.console import Console
    from rich.segment import Segment

    class Printable(Console):
        def render(self, renderable: Any, options: Any = None) -> Any:
            for part in super().render(renderable, options):
                yield part if part.control else Segment(redact(printable_lines(part.text)), part.style)

    return Printable(**{"highlight": False, "markup": False, "emoji": False} | options)


def csv_cell(value: Any) -> Any:
    """A value for a cell of a CSV file: text that a spreadsheet would compute gets an apostrophe in front."""
    if not isinstance(value, str):
        return value
    is_formula = value.lstrip().startswith(FORMULA) or value[:1] in ("\t", "\r", "\n")
    return f"'{printable(value)}" if is_formula and not NUMBER.fullmatch(value) else printable(value)
