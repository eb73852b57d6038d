"""What the command line prints: tables and records for people, JSON for programs.

Guarantees: text that came from outside (a subject, a sender, a name) cannot move the cursor, change colours or
reverse the reading order of a terminal: every character that is not printable becomes U+FFFD. JSON is ASCII and
one document on standard output; notes and warnings go to standard error, so that output can be piped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

MAX_CELL_CHARS = 60
MAX_LINE_CHARS = 120
_GAP = "  "
_LEAST_CELL_CHARS = 12


def clean(text: str) -> str:
    """Return the text without control and formatting characters (line breaks and bidirectional marks among them)."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def cell(text: str, width: int = MAX_CELL_CHARS) -> str:
    """Return the cleaned text, cut to the width."""
    cleaned = clean(text)
    return cleaned if len(cleaned) <= width else cleaned[: width - 3] + "..."


def when(moment: datetime) -> str:
    """Return a time in UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def out(text: str = "") -> None:
    """Print a line; a character that the terminal's encoding lacks is shown as an escape, never a fault."""
    try:
        print(text)
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding or "ascii"
        print(text.encode(encoding, "backslashreplace").decode(encoding))


def note(text: str) -> None:
    """Print a line for the person at the keyboard, beside the output proper."""
    encoding = sys.stderr.encoding or "ascii"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Print a warning."""
    note(f"warning: {text}")


def print_json(document: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(document, indent=2, default=_plain))


def _plain(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, set | frozenset):
        return sorted(value)
    return str(value)


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return the number with its noun: ``1 line``, ``2 lines``."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def print_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    whole_last: bool = False,
    max_chars: int = MAX_CELL_CHARS,
    fit: bool = False,
) -> None:
    """Print rows under headings, each column as wide as its widest cell; ``whole_last``: the last is never cut.

    ``fit``: no line is longer than MAX_LINE_CHARS; the last column gives way first, and then the widest one.
    """
    last = len(headings) - 1
    grid = [
        [clean(value) if whole_last and column == last else cell(value, max_chars) for column, value in enumerate(row)]
        for row in rows
    ]
    widths = [max(len(row[column]) for row in [list(headings), *grid]) for column in range(len(headings))]
    if fit:
        widths = _fitted(widths)
        grid = [[cell(value, width) for value, width in zip(row, widths, strict=True)] for row in grid]
    for row in [list(headings), *grid]:
        out(_GAP.join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip())


def _fitted(widths: Sequence[int]) -> list[int]:
    """The widths that fit into a line."""
    fitted = list(widths)
    room = MAX_LINE_CHARS - len(_GAP) * (len(fitted) - 1)
    for column in (len(fitted) - 1, *sorted(range(len(fitted) - 1), key=lambda one: -fitted[one])):
        over = sum(fitted) - room
        if over > 0:
            fitted[column] = max(min(fitted[column], _LEAST_CELL_CHARS), fitted[column] - over)
    return fitted


def print_record(pairs: Iterable[tuple[str, str]]) -> None:
    """Print ``name: value`` lines with the values aligned; an empty value is shown as a dash."""
    known = list(pairs)
    width = max((len(name) for name, _ in known), default=0) + 1
    for name, value in known:
        out(f"{(name + ':').ljust(width)} {clean(value) or '-'}")
