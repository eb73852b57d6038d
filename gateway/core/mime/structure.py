"""The tree of MIME parts of a message, as offsets into its bytes (RFC 2045, RFC 2046).

Guarantees: never raises for what the message holds; nothing is copied or rewritten; every offset lies within the
message and every child within its parent's body; the time is linear in the size (at most MAX_DEPTH passes of a
byte search). Both CRLF and bare LF end a line.

Failure modes: beyond MAX_DEPTH or MAX_PARTS the rest is one opaque leaf (``application/octet-stream``), so nothing
is hidden. A multipart without a readable boundary or without parts shows its whole body as one text part.

Where nested boundaries are ambiguous (equal ones, a missing close delimiter) the outer one wins: it ends
everything inside, as RFC 2046 5.1.2 asks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway.core.mime.encoding import IDENTITY_ENCODINGS, header_text
from gateway.core.mime.headers import ContentType, Field, HeaderBlock, parse_content_type, read_headers

MAX_DEPTH = 20
"""Entities within entities, the message itself included."""
MAX_PARTS = 1_000
"""Entities in one message, the message itself included."""
_MISSES_BEFORE_REGEX = 500
_DELIMITER_TAIL = re.compile(rb"(--)?[ \t]*\r?(?:\n|\Z)")

TEXT_PLAIN = ContentType("text", "plain", {"charset": "us-ascii"}, (), (("charset", "us-ascii"),))
MESSAGE_RFC822 = ContentType("message", "rfc822")
OPAQUE = ContentType("application", "octet-stream")


@dataclass(frozen=True, slots=True)
class Part:
    """One entity: ``data[start:body_start]`` is its header with the empty line, ``data[body_start:end]`` its body."""

    start: int
    body_start: int
    end: int
    content_type: ContentType
    disposition: ContentType | None
    content_id: str | None
    description: str | None
    encoding: str
    """Content-Transfer-Encoding in lower case; ``7bit`` when there is none."""
    md5: str | None
    language: tuple[str, ...]
    location: str | None
    lines: int
    """Lines of the body; a last one without a line end counts."""
    children: tuple[Part, ...] = ()
    """Parts of a multipart; never empty for a multipart."""
    message: Part | None = None
    """The enclosed message of a ``message/rfc822`` whose transfer encoding is the identity."""
    fields: tuple[Field, ...] = field(default=(), repr=False, compare=False)

    @property
    def header_end(self) -> int:
        """The same as ``body_start``: the empty line belongs to the header."""
        return self.body_start

    @property
    def size(self) -> int:
        """Octets of the body as transferred."""
        return self.end - self.body_start


@dataclass(slots=True)
class _Node:
    """An entity whose extent is known; its interior is filled in while the tree grows."""

    start: int
    end: int
    depth: int
    default: ContentType
    opaque: bool = False
    bare: bool = False
    """No header of its own: the body of a multipart that has no parts."""
    headers: HeaderBlock | None = None
    content_type: ContentType = TEXT_PLAIN
    encoding: str = "7bit"
    children: list[_Node] = field(default_factory=list)
    message: _Node | None = None
    done: Part | None = None


def parse_structure(data: bytes) -> Part:
    """Return the tree of the message. Shapes and limits: see the module."""
    return _Builder(data).build()


def single_text_part(data: bytes) -> Part:
    """The message as one text part with its header: what is shown when its structure cannot be."""
    headers = read_headers(data)
    node = _Node(0, len(data), 1, TEXT_PLAIN, headers=headers, encoding=_encoding(headers))
    return _finish(data, node)


class _Builder:
    """Grows the tree from the outside in: the extent of an entity is final before its interior is looked at."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._count = 1

    def build(self) -> Part:
        root = _Node(0, len(self._data), 1, TEXT_PLAIN)
        order: list[_Node] = []
        waiting = [root]
        while waiting:
            node = waiting.pop()
            order.append(node)
            self._open(node)
            # The stack is last in, first out: reversed, so that the budget goes to the parts in reading order.
            waiting.extend(reversed(node.children))
            if node.message is not None:
                waiting.append(node.message)
        for node in reversed(order):  # Children stand after their parents, so this finishes them first.
            node.done = _finish(self._data, node)
        assert root.done is not None  # noqa: S101 - the loop above has just set it
        return root.done

    def _open(self, node: _Node) -> None:
        """Read the header of the node and split its body."""
        if node.bare or node.opaque:
            # The header of an opaque rest belongs to it as well: what is not looked into has no structure.
            node.headers = HeaderBlock((), node.start)
            node.content_type = OPAQUE if node.opaque else TEXT_PLAIN
            return
        node.headers = headers = read_headers(self._data, node.start, node.end)
        node.content_type = _content_type(headers, node.default)
        node.encoding = _encoding(headers)
        kind = node.content_type
        if kind.maintype == "multipart":
            self._open_multipart(node, headers)
        elif kind.full == "message/rfc822" and node.encoding in IDENTITY_ENCODINGS and self._room(node, 1):
            self._count += 1
            node.message = _Node(headers.body_start, node.end, node.depth + 1, TEXT_PLAIN)

    def _room(self, node: _Node, wanted: int) -> bool:
        return node.depth < MAX_DEPTH and self._count + wanted <= MAX_PARTS

    def _open_multipart(self, node: _Node, headers: HeaderBlock) -> None:
        if not self._room(node, 1):
            node.content_type = OPAQUE
            return
        boundary = node.content_type.parameters.get("boundary", "").rstrip(" \t").encode("utf-8", "replace")
        default = MESSAGE_RFC822 if node.content_type.subtype == "digest" else TEXT_PLAIN
        if boundary:
            extents = _split(self._data, boundary, headers.body_start, node.end, MAX_PARTS - self._count)
            node.children = [_Node(s, e, node.depth + 1, default, opaque) for s, e, opaque in extents]
        if not node.children:
            rest = _Node(headers.body_start, node.end, node.depth + 1, TEXT_PLAIN, bare=True)
            # A multipart may not be encoded, but if it is, this lets a client decode what stands there.
            rest.encoding = node.encoding
            node.children = [rest]
        self._count += len(node.children)


def _finish(data: bytes, node: _Node) -> Part:
    headers = node.headers or HeaderBlock((), node.start)
    first = {f.name: f.value for f in reversed(headers.fields)}
    body_start = min(headers.body_start, node.end)
    disposition = first.get(b"content-disposition")
    return Part(
        start=node.start,
        body_start=body_start,
        end=node.end,
        content_type=node.content_type,
        disposition=None if disposition is None else _disposition(disposition),
        content_id=_optional(first.get(b"content-id")),
        description=_optional(first.get(b"content-description")),
        encoding=node.encoding,
        md5=_optional(first.get(b"content-md5")),
        language=_languages(first.get(b"content-language")),
        location=_optional(first.get(b"content-location")),
        lines=_count_lines(data, body_start, node.end),
        children=tuple(child.done for child in node.children if child.done is not None),
        message=None if node.message is None else node.message.done,
        fields=headers.fields,
    )


def _content_type(headers: HeaderBlock, default: ContentType) -> ContentType:
    found = headers.first(b"content-type")
    if found is None:
        return default
    parsed = parse_content_type(header_text(found.value))
    # RFC 2045 5.2: what cannot be read counts as plain text.
    return parsed if parsed is not None and parsed.subtype else TEXT_PLAIN


def _encoding(headers: HeaderBlock) -> str:
    found = headers.first(b"content-transfer-encoding")
    if found is None:
        return "7bit"
    words = header_text(found.value).partition("(")[0].partition(";")[0].split()
    return words[0].lower() if words else "7bit"


def _disposition(value: bytes) -> ContentType | None:
    parsed = parse_content_type(header_text(value))
    return parsed if parsed is not None and not parsed.subtype else None


def _optional(value: bytes | None) -> str | None:
    text = None if value is None else header_text(value)
    return text or None


def _languages(value: bytes | None) -> tuple[str, ...]:
    if value is None:
        return ()
    tags = (tag.partition("(")[0].strip() for tag in header_text(value).split(","))
    return tuple(tag for tag in tags if tag)


def _count_lines(data: bytes, start: int, end: int) -> int:
    lines = data.count(b"\n", start, end)
    return lines + 1 if end > start and data[end - 1] != 0x0A else lines


def _split(data: bytes, boundary: bytes, body_start: int, end: int, room: int) -> list[tuple[int, int, bool]]:
    """Extents ``(start, end, opaque)`` of at most ``room`` parts; the last one is opaque when more would follow."""
    parts: list[tuple[int, int, bool]] = []
    begun: int | None = None
    for line_feed, after, closing in _delimiters(data, boundary, body_start, end):
        if begun is not None:
            # The line break before a delimiter belongs to the delimiter (RFC 2046 5.1.1).
            stop = line_feed - 1 if line_feed > begun and data[line_feed - 1] == 0x0D else line_feed
            parts.append((begun, max(begun, stop), False))
        begun = after
        if closing:
            return parts
        if len(parts) >= room - 1:
            return [*parts, (begun, end, True)]
    if begun is not None:
        parts.append((begun, end, False))
    return parts


def _delimiters(data: bytes, boundary: bytes, body_start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """Delimiter lines as ``(offset of the line feed before, offset after the line, is it the closing one)``."""
    needle = b"\n--" + boundary
    position = body_start - 1  # The line feed of the empty line after the header counts as the one before.
    misses = 0
    while misses < _MISSES_BEFORE_REGEX:
        position = data.find(needle, position, end)
        if position < 0:
            return
        tail = _DELIMITER_TAIL.match(data, position + len(needle), end)
        if tail is None:
            misses += 1
            position += len(needle)
        else:
            yield position, tail.end(), tail.group(1) is not None
            position = tail.end() - 1
            if position + 1 >= end:
                return
    # Thousands of lines that only look like delimiters: the compiled pattern skips them much faster.
    pattern = re.compile(re.escape(needle) + _DELIMITER_TAIL.pattern)
    while (found := pattern.search(data, position, end)) is not None:
        yield found.start(), found.end(), found.group(1) is not None
        position = found.end() - 1
        if position + 1 >= end:
            return
