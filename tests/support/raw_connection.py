"""A connection that sends exactly what it is told; a protocol's client adds how a response is read."""

from __future__ import annotations

import asyncio
from contextlib import suppress

SECONDS = 20
"""For the server's next octets; much more than it needs on a busy machine."""


class RawConnection:
    """Give it what :func:`asyncio.open_connection` returned."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def closed(self) -> bool:
        """Whether the server says nothing more and closes."""
        return await asyncio.wait_for(self.reader.read(), SECONDS) == b""

    async def close(self) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()
