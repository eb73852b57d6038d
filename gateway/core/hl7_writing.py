r"""HL7 v2 messages in ER7: writing (HL7 2.5.1 chapter 2; HL7-4).

Guarantees: what is written holds no delimiter, CR, LF or other control character of a value: all of them are escaped or
replaced, so that no value can begin a field, a segment or a frame of MLLP. Pure, and nothing here fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gateway.core.hl7 import NULL, STANDARD, Delimiters

_LINE_ENDS = re.compile("\r\n?|\n|\v|\f|\x85|\u2028|\u2029")
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_SPACES = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")


@dataclass(frozen=True, slots=True)
class Text:
    """Text of several lines for a field of type TX or FT."""

    value: str


@dataclass(frozen=True, slots=True)
class Verbatim:
    """A value that needs no escaping and must not be looked through, as long base64 does not."""

    value: str


Components = tuple[str | tuple[str, ...] | Verbatim, ...]
"""Each component is a value or a tuple of subcomponents."""
Field = str | Components | Text | list[str | Components]
"""A value, its components, text of several lines, or a list of repetitions."""


def one_line(text: str) -> str:
    """The text as a value of one line: white space and control characters of any kind become one space."""
    return _CONTROLS.sub("\ufffd", _SPACES.sub(" ", text)).strip()


def escape(text: str, delimiters: Delimiters = STANDARD) -> str:
    r"""Escape a value of one line; line ends and control characters in it become spaces.

    A value that is ``""`` and nothing else would be an order to delete: its quotes are written as ``\X22\``.
    """
    line = one_line(text)
    mark = delimiters.escape
    return f"{mark}X2222{mark}" if line == NULL else _escaped(line, delimiters)


def escape_text(text: str, delimiters: Delimiters = STANDARD) -> str:
    r"""Escape text of several lines (TX, FT): a line end becomes ``\.br\``, a tab ``\X09\``, other controls U+FFFD."""
    mark = delimiters.escape
    lines = [_CONTROLS.sub("\ufffd", line) for line in _LINE_ENDS.split(text)]
    return f"{mark}.br{mark}".join(_escaped(line, delimiters).replace("\t", f"{mark}X09{mark}") for line in lines)


def write_segment(name: str, *fields: Field, delimiters: Delimiters = STANDARD) -> str:
    """One segment without its end. Values are escaped; empty fields and components at the end are left out.

    For MSH the fields begin with MSH-3: the delimiters are written as they are.
    """
    written = [_field(value, delimiters) for value in fields]
    while written and not written[-1]:
        written.pop()
    head = [name, delimiters.msh_2()] if name == "MSH" else [name]
    return delimiters.field.join([*head, *written])


def write_message(segments: Sequence[str]) -> bytes:
    """The message in UTF-8 (MSH-18 should say ``UNICODE UTF-8``), each segment with its CR."""
    return "".join(segment + "\r" for segment in segments).encode("utf-8", "replace")


def _field(value: Field, delimiters: Delimiters) -> str:
    if isinstance(value, list):
        return delimiters.repetition.join(_field(one, delimiters) for one in value)
    if isinstance(value, Text):
        return escape_text(value.value, delimiters)
    if isinstance(value, str):
        return escape(value, delimiters)
    return _joined((_component(part, delimiters) for part in value), delimiters.component)


def _component(value: str | tuple[str, ...] | Verbatim, delimiters: Delimiters) -> str:
    if isinstance(value, Verbatim):
        return value.value
    if isinstance(value, str):
        return escape(value, delimiters)
    return _joined((escape(part, delimiters) for part in value), delimiters.subcomponent)


def _joined(parts: Iterator[str], delimiter: str) -> str:
    return delimiter.join(parts).rstrip(delimiter)


def _escaped(text: str, delimiters: Delimiters) -> str:
    names = {
        delimiters.field: "F",
        delimiters.component: "S",
        delimiters.subcomponent: "T",
        delimiters.repetition: "R",
        delimiters.escape: "E",
    }
    if delimiters.truncation:
        names[delimiters.truncation] = "P"
    mark = delimiters.escape
    return "".join(f"{mark}{names[char]}{mark}" if char in names else char for char in text)
