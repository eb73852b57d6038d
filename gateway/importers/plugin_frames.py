"""How the gateway and the process of a plug-in talk: frames on two pipes.

A frame is its length (four bytes, most significant first), a line of JSON that says what it is, and what belongs to it.
Both sides are the same release of this program; the plug-in's own code never sees a frame.

Failure modes: ValueError for a frame that is too long or none; EOFError at the end.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Mapping
from typing import Any, Final

GROUP: Final = "direct_gateway.importer"
"""The group of entry points in which plug-ins are found."""
MAX_REQUEST_BYTES: Final = 1 << 30
MAX_REPLY_BYTES: Final = 8 << 20
_LENGTH = struct.Struct(">I")


def frame(head: Mapping[str, Any], body: bytes = b"") -> bytes:
    """One frame."""
    line = json.dumps(head, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n"
    return _LENGTH.pack(len(line) + len(body)) + line + body


async def read_frame(reader: asyncio.StreamReader, most: int) -> tuple[dict[str, Any], bytes]:
    """The next frame: its head and what belongs to it."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > most:
            raise ValueError("the frame is too long")
        data = await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        raise EOFError from None
    line, _, body = data.partition(b"\n")
    head = json.loads(line)
    if not isinstance(head, dict):
        raise ValueError("the frame has no head")  # noqa: TRY004 - as every frame that is none
    return head, body
