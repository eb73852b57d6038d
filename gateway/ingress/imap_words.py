"""Words of IMAP that fetching says and reads: pure functions on the lines of responses.

Guarantees: whatever a server sends, these return what can be made of it or None, and raise nothing.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

Line = bytes | bytearray
"""A line without its end, or the bytes of a literal (a bytearray)."""

_NUMBER_CODE = re.compile(rb"OK \[(UIDVALIDITY|UIDNEXT) (\d{1,10})\]", re.IGNORECASE)
_CODE = re.compile(rb"\[([A-Za-z-]{1,40})[\] ]")
_ITEM = re.compile(rb"(\d{1,10}) FETCH \(", re.IGNORECASE)
_UID = re.compile(rb"[( ]UID (\d{1,10})[) ]", re.IGNORECASE)
_SIZE = re.compile(rb"[( ]RFC822\.SIZE (\d{1,19})[) ]", re.IGNORECASE)
_BODY = re.compile(rb"[( ]BODY\[\] \{\d+\}\Z", re.IGNORECASE)
_PERMANENT = re.compile(rb"\[PERMANENTFLAGS \(([^)]*)\)\]", re.IGNORECASE)
_EXISTS = re.compile(rb"\* \d{1,10} (EXISTS|RECENT)\r\n\Z", re.IGNORECASE)
_RUN = re.compile(r"[^\x20-\x7e]+|&")


def quoted(text: str) -> str:
    """A quoted string (RFC 3501 section 4.3); the text is ASCII without line ends."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def mailbox_name(name: str) -> str:
    """A mailbox name as an argument: modified UTF-7 (RFC 3501 section 5.1.3), quoted."""

    def shift(match: re.Match[str]) -> str:
        if match.group() == "&":
            return "&-"
        packed = binascii.b2a_base64(match.group().encode("utf-16-be", "replace"), newline=False).rstrip(b"=")
        return "&" + packed.replace(b"/", b",").decode("ascii") + "-"

    return quoted(_RUN.sub(shift, name))


def code_of(line: Line) -> str:
    """The response code of a status line, in capitals, as ``UNAVAILABLE`` (RFC 5530); empty when it has none."""
    found = _CODE.search(bytes(line[:200]))
    return found.group(1).decode("ascii").upper() if found else ""


def selected_number(lines: Iterable[Line], name: bytes) -> int | None:
    """UIDVALIDITY or UIDNEXT out of the answer to SELECT."""
    for line in lines:
        found = _NUMBER_CODE.match(bytes(line[:200]))
        if found and found.group(1).upper() == name:
            return int(found.group(2))
    return None


def may_keep(lines: Iterable[Line], flag: str) -> bool:
    """Whether the answer to SELECT lets us set the flag for good. A server that says nothing of it lets us."""
    wanted = flag.encode("ascii").lower()
    for line in lines:
        found = _PERMANENT.search(bytes(line[:65_536]))
        if found:
            flags = found.group(1).lower().split()
            return wanted in flags or (b"\\*" in flags and not wanted.startswith(b"\\"))
    return True


def says_news(line: bytes) -> bool:
    """Whether an untagged line, with its end, tells of a message that came."""
    return _EXISTS.match(line) is not None


def searched_uids(lines: Iterable[Line]) -> list[int] | None:
    """The ids of the answer to UID SEARCH, rising, each once; None when a line is no list of numbers."""
    found: set[int] = set()
    for line in lines:
        words = bytes(line).split()
        if not all(word.isdigit() and len(word) <= 10 for word in words):
            return None
        found.update(map(int, words))
    return sorted(uid for uid in found if 0 < uid < 1 << 32)


def number_set(numbers: Sequence[str]) -> str:
    """The shortest usual spelling of a set of ids: ``3:5,9``."""
    runs: list[list[int]] = []
    for number in sorted(map(int, numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(low) if low == high else f"{low}:{high}" for low, high in runs)


@dataclass(slots=True)
class FetchedItem:
    """One FETCH response."""

    uid: int | None = None
    size: int | None = None
    bodies: list[bytearray] = field(default_factory=list)
    """Literals that stand where ``BODY[]`` does."""


def fetched_items(lines: Sequence[Line]) -> Iterator[FetchedItem]:
    """The FETCH responses among the lines; lines of other responses are skipped."""
    item: FetchedItem | None = None
    text = b""
    for line in lines:
        if isinstance(line, bytearray):
            if item is not None and _BODY.search(text):
                item.bodies.append(line)
            text += b" "
            continue
        if _ITEM.match(line):
            if item is not None:
                yield _read(item, text)
            item, text = FetchedItem(), bytes(line)
        elif item is not None:
            text += line
    if item is not None:
        yield _read(item, text)


def _read(item: FetchedItem, text: bytes) -> FetchedItem:
    uid, size = _UID.search(text), _SIZE.search(text)
    item.uid = int(uid.group(1)) if uid else None
    item.size = int(size.group(1)) if size else None
    return item
