"""Body sections (RFC 3501 6.4.5) as slices of the message, from part offsets that were computed at filing.

Guarantees: a section is a slice of the message as it is shown; nothing is decoded or normalised. The one
exception is HEADER.FIELDS, which joins slices (whole fields, folding included) and ends with an empty line.

Format of the offsets, version 1: the byte 0x01, then one record a part in reading order,
``start, body_start, end: u32, kind: u8, span: u16`` little-endian; ``kind`` is 0 leaf, 1 multipart, 2 message with
the enclosed message as its only child; ``span`` counts the records of the part and everything in it.

Failure modes: offsets of another version, or that do not fit the message, are computed afresh.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from functools import lru_cache

from gateway.core.mime.structure import Part, parse_structure

VERSION = 1
LEAF, MULTIPART, MESSAGE = range(3)
_RECORD = struct.Struct("<IIIBH")


def encode_sections(root: Part) -> bytes:
    """The compact form of the offsets of a message's parts."""
    records: list[bytes] = []
    _encode(root, records)
    return bytes([VERSION]) + b"".join(records)


def _encode(part: Part, records: list[bytes]) -> int:
    """Append the records of the part and return how many (the depth is bounded by the parser)."""
    index = len(records)
    records.append(b"")
    inner = part.children if part.message is None else (part.message,)
    span = 1 + sum(_encode(child, records) for child in inner)
    kind = MESSAGE if part.message is not None else MULTIPART if part.children else LEAF
    records[index] = _RECORD.pack(part.start, part.body_start, part.end, kind, span)
    return span


def moved(sections: bytes, by: int) -> bytes:
    """The offsets of the message with a header that is longer by so many octets at its beginning."""
    records = list(_RECORD.iter_unpack(sections[1:]))
    (_, body_start, end, kind, span), *inner = records
    root = _RECORD.pack(0, body_start + by, end + by, kind, span)
    rest = (_RECORD.pack(start + by, body + by, stop + by, what, count) for start, body, stop, what, count in inner)
    return b"".join((sections[:1], root, *rest))


def section(
    sections: bytes, content: bytes, path: tuple[int, ...], kind: str, fields: tuple[str, ...] = ()
) -> bytes | None:
    """The bytes of ``BODY[path.kind]``, or None when the message has no such section.

    ``kind`` is ``""``, ``HEADER``, ``TEXT``, ``MIME``, ``HEADER.FIELDS`` or ``HEADER.FIELDS.NOT``, in upper case.
    """
    if not path and kind == "":
        return content
    tree = _Tree(sections, content)
    found = tree.find(path)
    if found is None:
        return None
    if path and kind in {"", "MIME"}:
        start, body_start, end = tree.extent(found)
        return content[start:body_start] if kind else content[body_start:end]
    message = tree.message(found) if path else found
    if message is None:
        return None
    start, body_start, end = tree.extent(message)
    if kind == "TEXT":
        return content[body_start:end]
    if kind == "HEADER":
        return content[start:body_start]
    if kind in {"HEADER.FIELDS", "HEADER.FIELDS.NOT"}:
        return header_fields(fields, negated=kind.endswith("NOT"))(content[start:body_start])
    return None


class _Tree:
    """Walks the records. A node is the offset of its record."""

    def __init__(self, sections: bytes, content: bytes) -> None:
        if not _fits(sections, content):
            sections = encode_sections(parse_structure(content))
        self._records = sections

    def _record(self, node: int) -> tuple[int, int, int, int, int]:
        start, body_start, end, kind, span = _RECORD.unpack_from(self._records, node)
        return start, body_start, end, kind, span

    def extent(self, node: int) -> tuple[int, int, int]:
        return self._record(node)[:3]

    def message(self, node: int) -> int | None:
        """The message enclosed in a message/rfc822 part."""
        return node + _RECORD.size if self._record(node)[3] == MESSAGE else None

    def find(self, path: tuple[int, ...]) -> int | None:
        """The part with that number; the root for an empty path."""
        node: int | None = 1
        is_message = True
        for number in path:
            if node is None:
                return None
            node = self._step(node, number, is_message=is_message)
            is_message = False
        return node

    def _step(self, node: int, number: int, *, is_message: bool) -> int | None:
        """One number of a path, applied to a message or to a body part."""
        if not is_message:
            enclosed = self.message(node)
            if enclosed is not None:
                # The numbers of an enclosed message go on below its part: BODY[3.1] is its first part.
                return self._step(enclosed, number, is_message=True)
        if self._record(node)[3] == MULTIPART:
            return next((child for n, child in enumerate(self._children(node), 1) if n == number), None)
        # A message that is no multipart has exactly one part, which is its body.
        return node if is_message and number == 1 else None

    def _children(self, node: int) -> Iterator[int]:
        stop = node + self._record(node)[4] * _RECORD.size
        child = node + _RECORD.size
        while child < stop:
            yield child
            child += max(1, self._record(child)[4]) * _RECORD.size


def _fits(sections: bytes, content: bytes) -> bool:
    """Whether the offsets have the version that is known here and were made for a message of this size."""
    if sections[:1] != bytes([VERSION]) or len(sections) < 1 + _RECORD.size:
        return False
    start, _, end, _, span = _RECORD.unpack_from(sections, 1)
    return (start, end, 1 + span * _RECORD.size) == (0, len(content), len(sections))


# --- header fields ---


def header_fields(names: tuple[str, ...], *, negated: bool) -> Callable[[bytes], bytes]:
    """What takes the fields of those names (or all others) out of a header: in its order, and an empty line.

    Ask for it once, when many headers are looked at.
    """
    pattern = _field_pattern(tuple(sorted({name.lower() for name in names})), negated=negated)

    def taken(header: bytes) -> bytes:
        block = b"\n" + header
        found: list[bytes] = pattern.findall(block) if pattern else []
        if not found:
            return b"\r\n"
        # Each match begins with the line feed before the field; the one that ends the last field is still missing.
        breaks_off = not block.endswith(b"\n") and block.endswith(found[-1])
        return b"".join(found)[1:] + (b"\r\n\r\n" if breaks_off else b"\n\r\n")

    return taken


@lru_cache(maxsize=256)
def _field_pattern(names: tuple[str, ...], *, negated: bool) -> re.Pattern[bytes] | None:
    """A pattern for whole fields: clients ask for the same names in every message.

    That it begins with a plain character makes it several times faster than one that begins with ``^``.
    """
    known = b"|".join(re.escape(name.encode("utf-8", "replace")) for name in names)
    rest = rb"[ \t]*:[^\n]*(?:\n[ \t][^\n]*)*"
    if not negated:
        return re.compile(rb"\n(?:" + known + rb")" + rest, re.IGNORECASE) if names else None
    other = rb"(?!(?:" + known + rb")[ \t]*:)" if names else b""
    return re.compile(rb"\n" + other + rb"[!-9;-~]+" + rest, re.IGNORECASE)
