"""One TCP connection: bounded reading, flow-controlled writing, TLS.

Guarantees: at most ``read_buffer_bytes`` of input and one slice of output are buffered, whatever the peer does;
a peer that does not read for WRITE_TIMEOUT_SECONDS is cut off. What arrived before TLS began is thrown away
(STARTTLS injection, F21). :meth:`read_line` and :meth:`read_exactly` may be cancelled without losing octets.

An own protocol instead of streams, because a StreamReader keeps octets over ``start_tls`` that came in clear.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import cast

from gateway.observability.waking import SmallEvent
from gateway.serving.tls_transport import TLSTransport

SLICE_BYTES = 65_536
WRITE_TIMEOUT_SECONDS = 120.0
HANDSHAKE_TIMEOUT_SECONDS = 15.0
TLS_DETECTION_SECONDS = 0.05
"""How long a client on the STARTTLS port may take to show that it wants TLS at once. Mail clients wait for the
greeting, TLS clients speak first, so nothing but a client's first packet has to come in this time."""
_TLS_HANDSHAKE_RECORD = b"\x16"
CLOSE_TIMEOUT_SECONDS = 2.0


class ConnectionClosedError(Exception):
    """The peer is gone, or does not take what is sent to it."""


class LineTooLongError(Exception):
    """The peer sent a line beyond the limit."""


class Connection(asyncio.Protocol):
    """A connection of a listener. ``accepted`` is called with it when the TCP connection is there."""

    __slots__ = (
        "_accepted",
        "_arrived",
        "_closed",
        "_closure",
        "_ended",
        "_input",
        "_max_line_bytes",
        "_output",
        "_read_buffer_bytes",
        "_reading_paused",
        "_transport",
        "_unsent",
        "encrypted",
        "in_slices",
        "peer",
    )

    def __init__(self, accepted: Callable[[Connection], None], max_line_bytes: int) -> None:
        self._accepted = accepted
        self._max_line_bytes = max_line_bytes
        # A whole line and a whole literal must fit, else a paused reader would wait for ever.
        self._read_buffer_bytes = max(262_144, 2 * max_line_bytes)
        self._transport: asyncio.Transport | TLSTransport | None = None
        self._input = bytearray()
        self._output = bytearray()
        self._arrived = SmallEvent()
        """Something came, the end came, or somebody else wants the session's attention (:meth:`poke`)."""
        self._unsent: SmallEvent | None = None
        """Set when the peer has taken what waits to be sent; None when nothing waits."""
        self._closed = False
        self._closure: SmallEvent | None = None
        """Of who waits for the end."""
        self._ended = False
        self._reading_paused = False
        self.encrypted = False
        self.in_slices = False
        """Whether the peer is in the middle of a literal, where nothing else may be said."""
        self.peer = ""

    # --- called by the transport ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        address = transport.get_extra_info("peername")
        self.peer = str(address[0]) if isinstance(address, tuple) and address else ""
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # Nothing is read before it is known who reads it: this connection or TLS.
        self._transport.pause_reading()
        self._reading_paused = True
        self._accepted(self)

    def data_received(self, data: bytes) -> None:
        self._input += data
        if len(self._input) > self._read_buffer_bytes and not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()
        self._arrived.set()

    def eof_received(self) -> bool | None:
        self._ended = True
        self._arrived.set()
        return None

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the name is the protocol's
        self._ended = True
        self._arrived.set()
        self.resume_writing()
        self._closed = True
        if self._closure is not None:
            self._closure.set()

    def pause_writing(self) -> None:
        if self._unsent is None:
            self._unsent = SmallEvent()

    def resume_writing(self) -> None:
        unsent, self._unsent = self._unsent, None
        if unsent is not None:
            unsent.set()

    # --- reading ---

    async def begins_with_tls(self) -> bool:
        """Whether the peer opens with a TLS handshake, looked at without reading it.

        A person who picks the wrong of "SSL/TLS" and "STARTTLS" for a port would otherwise meet a time-out that
        names no cause.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            raise ConnectionClosedError
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()
        with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as peeking:
            loop.add_reader(peeking, arrived.set)
            try:
                async with asyncio.timeout(TLS_DETECTION_SECONDS):
                    await arrived.wait()
                return peeking.recv(1, socket.MSG_PEEK) == _TLS_HANDSHAKE_RECORD
            except TimeoutError:
                return False
            except OSError as error:
                raise ConnectionClosedError from error
            finally:
                loop.remove_reader(peeking)

    def begin_reading(self) -> None:
        """Let the peer's octets in; a new connection holds them back."""
        if self._transport is not None and self._reading_paused and not self._transport.is_closing():
            self._reading_paused = False
            self._transport.resume_reading()

    async def read_line(self) -> bytes:
        """The next line without its end (CRLF, or a bare LF). Raises ConnectionClosedError, LineTooLongError."""
        scanned = 0
        while (found := self._input.find(b"\n", scanned)) < 0:
            scanned = len(self._input)
            if scanned > self._max_line_bytes:
                raise LineTooLongError
            await self.arrival()
        if found > self._max_line_bytes:
            raise LineTooLongError
        line = self._take(found + 1)[:-1]
        return line.removesuffix(b"\r")

    def line_here(self) -> bytes | None:
        """The next line, when all of it has come. Raises LineTooLongError."""
        found = self._input.find(b"\n")
        if max(found, len(self._input) if found < 0 else 0) > self._max_line_bytes:
            raise LineTooLongError
        return None if found < 0 else self._take(found + 1)[:-1].removesuffix(b"\r")

    def arrival(self) -> Awaitable[None]:
        """What comes next: something from the peer, its end, or a :meth:`poke`. To be awaited at once.

        Whoever waits has looked at what is there, and awaited nothing in between. Raises ConnectionClosedError.
        """
        if self._ended:
            raise ConnectionClosedError
        self._arrived.clear()
        return self._arrived.next()

    def poke(self) -> None:
        """Wake the session, if it waits for its client."""
        self._arrived.set()

    async def read_exactly(self, count: int) -> bytes:
        """So many octets; ``count`` must be within the line limit. Raises ConnectionClosedError."""
        while len(self._input) < count:
            await self.arrival()
        return self._take(count)

    async def read_large(self, count: int) -> bytes:
        """So many octets, more than a line may have; they are taken as they come. Raises ConnectionClosedError.

        When it is cancelled, what came of them is lost.
        """
        taken = bytearray()
        while len(taken) < count:
            if not self._input:
                await self.arrival()
            taken += self._take(min(count - len(taken), len(self._input)))
        return bytes(taken)

    def _take(self, count: int) -> bytes:
        taken = bytes(self._input[:count])
        del self._input[:count]
        if self._reading_paused and len(self._input) <= self._read_buffer_bytes // 2 and self._transport is not None:
            self._reading_paused = False
            if not self._ended:
                self._transport.resume_reading()
        return taken

    # --- writing ---

    def queue(self, data: bytes) -> None:
        """Add to what the next flush sends. For small answers; what is large goes through :meth:`send_large`."""
        self._output += data

    async def flush(self) -> None:
        """Send what was queued and wait until the peer keeps up. Raises ConnectionClosedError."""
        if self._output:
            # Handed over and not copied: the transport may hold it.
            data, self._output = self._output, bytearray()
            self._write(data)
        await self._drain()

    async def flush_when_full(self) -> None:
        """Flush when a slice is full."""
        if len(self._output) >= SLICE_BYTES:
            await self.flush()

    async def send_large(self, data: bytes) -> None:
        """Send many octets in slices, after what was queued. Raises ConnectionClosedError."""
        self.in_slices = True
        await self.flush()
        whole = memoryview(data)
        for start in range(0, len(whole), SLICE_BYTES):
            self._write(whole[start : start + SLICE_BYTES])
            await self._drain()
        self.in_slices = False

    def _write(self, data: bytearray | memoryview) -> None:
        if self._transport is None or self._closed or self._transport.is_closing():
            raise ConnectionClosedError
        self._transport.write(data)

    async def _drain(self) -> None:
        if self._unsent is not None:
            try:
                async with asyncio.timeout(WRITE_TIMEOUT_SECONDS):
                    await self._unsent.wait()
            except TimeoutError:
                self.abort()
                raise ConnectionClosedError from None
        if self._closed:
            raise ConnectionClosedError

    # --- TLS and the end ---

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Shake hands as the server. Everything that came in clear is thrown away. Raises ConnectionClosedError."""
        transport = self._transport
        if transport is None or isinstance(transport, TLSTransport) or self._ended:
            raise ConnectionClosedError
        # From here on nothing is read in clear.
        transport.pause_reading()
        self._input.clear()
        self._arrived.clear()
        self._reading_paused = False
        try:
            self._transport = await TLSTransport.shake_hands(
                transport, self, context, seconds=HANDSHAKE_TIMEOUT_SECONDS
            )
        except OSError as error:  # Includes ssl.SSLError, resets and the handshake's timeout.
            transport.abort()
            raise ConnectionClosedError from error
        self.encrypted = True

    def refuse(self, farewell: bytes) -> None:
        """Say one thing and close."""
        if self._transport is not None:
            self._transport.write(farewell)
            self._transport.close()

    def abort(self) -> None:
        """Cut the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Send what is left and close; cut off after CLOSE_TIMEOUT_SECONDS."""
        transport = self._transport
        if transport is None:
            return
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                if self._output and not self._closed and not transport.is_closing():
                    data, self._output = self._output, bytearray()
                    transport.write(data)
                transport.close()
                self._closure = SmallEvent()
                if not self._closed:
                    await self._closure.wait()
        except TimeoutError:
            transport.abort()
