"""A message as mail clients are shown it that has fields of the gateway: ours in front, and none that came with it.

Fields whose name begins with PREFIX say what the gateway knows of a message (:mod:`gateway.core.verdict_fields`). A
sender can write such fields as well. So whoever shows them takes every field of that prefix out of the header that was
received, and puts those of the gateway in front of the rest. What was verified is not touched: this is a way of
showing it.

What counts as a field of that prefix is decided for the most lenient of readers, because it is a mail client that
would be deceived:

* upper and lower case are the same, and so are a name with blanks before its colon, and one without any colon;
* a NUL, any other control character, and any octet above 126 is passed over, wherever in the name it stands: some
  readers drop them;
* a field goes with the lines that continue it, and its name may be folded itself;
* a line may end with CRLF, LF, or CR alone (RFC 5322 allows only the first; Python's reader takes all three);
* within a line, a vertical tab, a form feed and the other characters at which some readers part lines when they write a
  message anew (Python's splitlines) begin a line as well: with such a field behind one, the line ends before it;
* a continuation at the head of what is left, which continues nothing there, goes as well: below our fields it would
  continue one of them.

The header is what the rest of the gateway takes for it: it ends with the first empty line (RFC 5322 2.1), and where
there is none, all is header. Headers of attached messages are none of this, and stay.

Guarantees: pure and linear; what is no such field stays octet by octet, in its order. One exception: where a line
before such a field ends with CR alone, it gets the line end of the field, lest it run into what follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

PREFIX: Final = "Direct-Gateway-"
"""Of the names of the fields."""

_PREFIX = PREFIX.lower().encode("ascii")
_PLAIN = bytes(range(256)).lower()
_PASSED_OVER = bytes(octet for octet in range(256) if not 0x21 <= octet <= 0x7E)
_LINE = re.compile(rb"[^\r\n]*(?:\r*\n|\r+|\Z)")
_BLANKS = (b" ", b"\t")
_NAME = re.compile(
    rb"[\x00-\x20\x7f-\xff]*+".join(re.escape(_PREFIX[at : at + 1]) for at in range(len(_PREFIX))), re.IGNORECASE
)
_UNSEEN = bytes(octet for octet in _PASSED_OVER if octet not in b" \t\r\n")
_PARTS_LINES = re.compile(rb"[\v\f\x1c-\x1e\x85]|\xe2\x80[\xa8\xa9]")
_CONTROLS = bytes(octet for octet in _PASSED_OVER if octet not in b" \t")


def shown(content: bytes, fields: bytes) -> bytes:
    """The message with these fields (whole lines, each with its CRLF) in front, and no other one of the prefix."""
    end = _header_end(content)
    header = content[:end]
    kept = _without(header)
    # The message is large; it is copied once.
    return b"".join((fields, kept, memoryview(content)[end:]))


def without_fields(content: bytes) -> bytes:
    """The message without any field of the prefix in its header; the very same object when there is none."""
    end = _header_end(content)
    header = content[:end]
    kept = _without(header)
    return content if kept is header else b"".join((kept, memoryview(content)[end:]))


def _header_end(content: bytes) -> int:
    """Where the body begins, as :func:`gateway.core.mime.headers.read_headers` has it."""
    if content.startswith((b"\r\n", b"\n")):
        return 0
    mixed = content.find(b"\n\r\n")
    bare = content.find(b"\n\n", 0, None if mixed < 0 else mixed + 1)
    if bare >= 0:
        return bare + 2
    return mixed + 3 if mixed >= 0 else len(content)


def _without(header: bytes) -> bytes:
    """The header without those fields; the very same object when there is none."""
    if _PREFIX not in header.translate(_PLAIN, _PASSED_OVER) and not _continues(header):
        return header
    kept: list[bytes] = []
    for field in _fields(header):
        if not field.translate(_PLAIN, _PASSED_OVER).startswith(_PREFIX) and (kept or not _continues(field)):
            kept.append(_until_hidden(field))
        elif kept and kept[-1].endswith(b"\r") and field.endswith(b"\n"):
            before = kept.pop().rstrip(b"\r")
            if before:  # Else it would become an empty line, which ends the header.
                kept.append(before + (b"\r\n" if field.endswith(b"\r\n") else b"\n"))
    found = b"".join(kept)
    return header if len(found) == len(header) else found


def _until_hidden(field: bytes) -> bytes:
    """The field up to one of the prefix that stands in its line behind something that parts lines for some readers."""
    searched = 0
    for match in _NAME.finditer(field):
        before = field[searched : match.start()]
        kept = before.rstrip(_UNSEEN)
        if _PARTS_LINES.search(before, len(kept)):
            return field[: searched + len(kept)] + field[len(field.rstrip(b"\r\n")) :]
        searched = match.end()
    return field


def _continues(line: bytes) -> bool:
    return line.lstrip(_CONTROLS).startswith(_BLANKS)


def _fields(header: bytes) -> Iterator[bytes]:
    """Each line with those that continue it; lines that continue nothing are by themselves, as one."""
    starts = [0]
    for match in _LINE.finditer(header):
        start = match.start()
        if start and start < len(header) and header[start : start + 1] not in _BLANKS:
            starts.append(start)
    starts.append(len(header))
    for start, stop in pairwise(starts):
        yield header[start:stop]
