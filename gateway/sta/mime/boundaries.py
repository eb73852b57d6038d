"""Boundary lines of multiparts (RFC 2046 5.1.1), and the limits of a MIME tree (S/MIME rules 4, 8 and 14).

A boundary line is ``--boundary`` at the start of a line with nothing but blanks until the line ends: a nested
boundary that merely begins with ours is none of ours (m08). The line end before it belongs to the boundary.

Guarantees: linear time whatever the message holds. The search is a plain byte search for what all open boundaries
begin with; lines that merely look like one are counted, and after ``MISSES_BEFORE_REGEX`` of them a compiled pattern,
slower in general but indifferent to them, does the rest.

Failure modes: ``RejectionError`` MALFORMED or RESOURCE_LIMIT.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.core.errors import RejectionError
from gateway.core.mime.headers import HeaderBlock, ResourceLimitError, parse_content_type, scan_headers, unfold
from gateway.core.verdict import Reason
from gateway.sta.mime.transfer_decoding import IDENTITY_ENCODINGS, Buffer

MAX_MIME_DEPTH = 20
MAX_MIME_PARTS = 1_000
MAX_PART_HEADER_BYTES = 4 * 1024 * 1024
"""All parts of a message together."""
MISSES_BEFORE_REGEX = 500
FEW_BYTES = 1_024
MOST_BYTES = 65_536
_TAIL = rb"(--)?[ \t]*\r?(?=\n|\Z)"
_DELIMITER_TAIL = re.compile(_TAIL)
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]\Z")
_WHITE = b" \t\r\n"
_USUAL_ENCODINGS = {b" " + name.encode(): name for name in ("base64", "7bit", "8bit", "binary", "quoted-printable")}
_new = tuple.__new__


class Delimiter(NamedTuple):
    """One boundary line."""

    line_feed: int
    """Offset of the line feed before it."""
    level: int
    """Which of the boundaries it is of."""
    closing: bool
    end: int
    """Where its own line end begins."""


class BoundaryLines:
    """The boundary lines in ``data[:end]``, looked for from front to back."""

    __slots__ = ("_data", "_end", "_misses")

    def __init__(self, data: Buffer, end: int) -> None:
        self._data = data
        self._end = end
        self._misses = 0

    def next(self, boundaries: Sequence[bytes], position: int) -> Delimiter | None:
        """The first line at or after the position that is a delimiter of one of the boundaries.

        When a line fits several of them, it belongs to the first in the sequence. ``position`` is that of the line
        feed before the line at the earliest.
        """
        if len(boundaries) == 1:
            return self.next_of_one(boundaries[0], position)
        data, end = self._data, self._end
        needle = b"\n--" + _common_beginning(boundaries)
        while self._misses < MISSES_BEFORE_REGEX:
            position = _candidate(data, needle, position, end)
            if position < 0:
                return None
            for level, boundary in enumerate(boundaries):
                if data.startswith(boundary, position + 3, end):
                    tail = _DELIMITER_TAIL.match(data, position + 3 + len(boundary), end)
                    if tail is not None:
                        return _new(Delimiter, (position, level, tail.group(1) is not None, tail.end()))
            self._misses += 1
            position += 1
        return self._by_pattern(boundaries, position)

    def next_of_one(self, boundary: bytes, position: int) -> Delimiter | None:
        """The same for a single boundary."""
        data, end = self._data, self._end
        needle = b"\n--" + boundary
        while self._misses < MISSES_BEFORE_REGEX:
            position = _candidate(data, needle, position, end)
            if position < 0:
                return None
            tail = _DELIMITER_TAIL.match(data, position + len(needle), end)
            if tail is not None:
                return _new(Delimiter, (position, 0, tail.group(1) is not None, tail.end()))
            self._misses += 1
            position += 1
        return self._by_pattern((boundary,), position)

    def _by_pattern(self, boundaries: Sequence[bytes], position: int) -> Delimiter | None:
        """The same when there were too many lines that merely look like one."""
        data, end = self._data, self._end
        any_of = b"|".join(re.escape(boundary) for boundary in boundaries)
        found = re.compile(rb"\n--(" + any_of + b")" + _TAIL).search(data, position, end)
        if found is None:
            return None
        level = boundaries.index(found.group(1))
        return Delimiter(found.start(), level, found.group(2) is not None, found.end())


def _candidate(data: Buffer, needle: bytes, position: int, end: int) -> int:
    """The offset of the needle (a line feed, two dashes and more) at or after the position, or -1.

    Base64 has no dashes, and looking for a single character is by far the fastest search there is. Where there is one,
    others are near: a stretch from there on is searched for the needle itself, and each time a longer one.
    """
    stretch = FEW_BYTES
    while True:
        stop = position + stretch + len(needle)
        if stop >= end:
            return data.find(needle, position, end)
        near = data.find(needle, position, stop)
        if near >= 0:
            return near
        # What begins where the stretch ends, or before, has been found; its first dash is its second character.
        position = data.find(b"-", position + stretch + 2, end) - 1
        if position < 0:
            return -1
        if stretch < MOST_BYTES:
            stretch *= 2


def _common_beginning(boundaries: Sequence[bytes]) -> bytes:
    first, last = min(boundaries), max(boundaries)
    same = next((n for n, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    return first[:same]


def split_multipart(data: Buffer, start: int, body_start: int, end: int, boundary: str) -> list[tuple[int, int]]:
    """Offsets of the parts of the closed multipart ``data[start:end]``. Preamble and epilogue are not looked at.

    Raises:
        RejectionError: MALFORMED without a usable boundary or close delimiter; RESOURCE_LIMIT for too many parts.
    """
    if not _BOUNDARY.match(boundary):
        raise RejectionError(Reason.MALFORMED, "the multipart has no usable boundary")
    opened = boundary.encode("ascii")
    lines = BoundaryLines(data, end)
    parts: list[tuple[int, int]] = []
    part_start = -1
    # A boundary line begins after a line end; the body may begin with one, after the empty line above it.
    position = max(body_start - 1, start)
    while (found := lines.next_of_one(opened, position)) is not None:
        line_feed, _, closing, position = found
        if part_start >= 0:
            parts.append((part_start, _before_line_end(data, part_start, line_feed)))
            if len(parts) > MAX_MIME_PARTS:
                raise RejectionError(Reason.RESOURCE_LIMIT, "the multipart has too many parts")
        if closing:
            return parts
        part_start = min(position + 1, end)
    raise RejectionError(Reason.MALFORMED, "the multipart is not closed")


def _before_line_end(data: Buffer, start: int, line_feed: int) -> int:
    """Where a part ends: the line end before its boundary belongs to the boundary (RFC 2046 5.1.1)."""
    if line_feed < start:
        # The part is empty: the line end of the boundary above is that of the boundary below as well.
        return start
    return line_feed - 1 if line_feed > start and data[line_feed - 1] == 0x0D else line_feed


def check_structure(data: Buffer, start: int = 0, end: int | None = None, headers: HeaderBlock | None = None) -> None:
    """Refuse a MIME tree that is too deep or has too many parts, in one linear pass (S/MIME rule 14).

    The pass follows multiparts and identity-encoded ``message/rfc822`` parts with an explicit stack; what is
    hidden in a transfer encoding is a leaf for everybody else too. ``headers`` is the block at ``start``, when it has
    been scanned already.

    Raises:
        RejectionError: RESOURCE_LIMIT.
    """
    stop = len(data) if end is None else end
    tree = _Tree(data, stop)
    position = tree.enter(start, headers)
    lines = BoundaryLines(data, stop)
    while tree.stack:
        found = lines.next(tree.stack, max(position - 1, start))
        if found is None:
            return
        if found.closing:
            del tree.stack[found.level :]
            position = found.end
            continue
        del tree.stack[found.level + 1 :]
        tree.parts += 1
        if tree.parts > MAX_MIME_PARTS:
            raise RejectionError(Reason.RESOURCE_LIMIT, "the message has too many parts")
        position = tree.enter(min(found.end + 1, stop))


@dataclass
class _Tree:
    """Where a walk through the parts stands: the open boundaries, and what has been spent."""

    data: Buffer
    end: int
    stack: list[bytes] = field(default_factory=list)
    parts: int = 1
    header_bytes: int = 0

    def enter(self, start: int, headers: HeaderBlock | None = None) -> int:
        """Read the headers of the part at ``start``, push its boundary, step through enclosed messages."""
        for _ in range(MAX_MIME_DEPTH + 1):
            if headers is None:
                headers = self._scan(start)
            self.header_bytes += headers.body_start - start
            if self.header_bytes > MAX_PART_HEADER_BYTES:
                raise RejectionError(Reason.RESOURCE_LIMIT, "the headers of the parts are too large together")
            declared = headers.text(b"content-type")
            content_type = parse_content_type(declared) if declared else None
            if content_type is None:
                return headers.body_start
            if content_type.maintype == "multipart":
                boundary = content_type.parameters.get("boundary", "").encode("utf-8", "replace").rstrip(_WHITE)
                if boundary:
                    self.stack.append(boundary)
                if len(self.stack) > MAX_MIME_DEPTH:
                    raise RejectionError(Reason.RESOURCE_LIMIT, "the message is nested too deeply")
                return headers.body_start
            if content_type.full not in {"message/rfc822", "message/global"}:
                return headers.body_start
            if transfer_encoding(headers) not in IDENTITY_ENCODINGS:
                return headers.body_start
            start, headers = headers.body_start, None
        raise RejectionError(Reason.RESOURCE_LIMIT, "the message is nested too deeply")

    def _scan(self, start: int) -> HeaderBlock:
        try:
            return scan_headers(self.data, start, self.end)
        except ResourceLimitError as exc:
            raise RejectionError(Reason.RESOURCE_LIMIT, f"a part of the message: {exc}") from None


def transfer_encoding(headers: HeaderBlock) -> str:
    """The content transfer encoding in lower case; ``7bit`` when there is none."""
    found = headers.values.get(b"content-transfer-encoding")
    return "7bit" if found is None else encoding_of(found)


def encoding_of(value: bytes) -> str:
    """What the value of a Content-Transfer-Encoding field says, as :func:`transfer_encoding` returns it."""
    known = _USUAL_ENCODINGS.get(value)
    if known is not None:
        return known
    text = unfold(value).decode("utf-8", "replace")
    return text.partition(";")[0].partition("(")[0].strip().lower() or "7bit"
