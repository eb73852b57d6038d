r"""A message as it stands in a multi-line response (RFC 1939 section 3), and how much of it TOP shows.

Guarantees: the octets between the lines of a response are those of the message; a client that takes one dot from each
line that begins with one, as it must, has the message byte for byte. One thing may be added at its end: a CRLF, where
the message does not end with one, because the response must.

A message may hold line feeds without a carriage return. To a strict client they end no line; many clients take them
for the end of one all the same. To those a dot between two of them would be the end of the response, and what follows
it would be the answer to the next command: whoever wrote the message would write the session. So such a dot is doubled
as well, and where a line after a bare line feed begins with two dots. A strict client then sees one dot more in these
lines; nobody loses any.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gateway.serving.connection import SLICE_BYTES

END = b".\r\n"
_DOT_TO_DOUBLE = re.compile(
    rb"(?<=\r\n)\."
    # Behind a bare line feed: what would end the response to some, or lose a dot.
    rb"|(?<=\n)\.(?=\.|\r*(?:\n|\Z))"
    # Likewise in a line that ends with a bare line feed: poplib drops a carriage return at its beginning, because old
    # servers sent the two the other way round.
    rb"|(?<=\n\r)\.(?=\n|\.[^\n]*(?<!\r)\n)"
)
_BLANK_LINE = re.compile(rb"(?:\A|\n)\r?\n")


def stuffed(content: bytes) -> Iterator[bytes]:
    """The message with its dots doubled, in slices, ending with CRLF. Without the line that ends the response."""
    before, start = b"\r\n", 0
    while start < len(content):
        stop = start + SLICE_BYTES
        if stop < len(content):
            # Whole lines, so that all is seen that a dot depends on. Of a longer line its beginning is enough.
            stop = (content.rfind(b"\n", start, stop) + 1) or stop
        part = content[start:stop]
        window = before + part
        if b"\n." in window or b"\n\r." in window:
            part = _DOT_TO_DOUBLE.sub(b"..", window)[len(before) :]
        yield part
        before, start = content[max(0, stop - 2) : stop], stop
    if content and not content.endswith(b"\r\n"):
        yield b"\r\n"


def top(content: bytes, lines: int) -> bytes:
    """The header, the line that ends it, and so many lines of the body."""
    blank = _BLANK_LINE.search(content)
    if blank is None:
        return content
    end, left = blank.end(), lines
    # In strides: a message may have millions of lines, and a client may ask for more than that.
    while (found := content.count(b"\n", end, end + SLICE_BYTES)) < left:
        end, left = end + SLICE_BYTES, left - found
        if end >= len(content):
            return content
    for _ in range(left):
        end = content.index(b"\n", end) + 1
    return content[:end]
