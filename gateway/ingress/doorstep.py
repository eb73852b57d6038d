"""A connection before it is a session: it waits to be let in, or is sent away.

A session has a task, streams and buffers. A flood of connections must not get as far as that: here is only what the
event loop needs, so that thousands are sent away while one message is taken.

Guarantees: nothing is read while a connection waits, and no byte is lost when it is let in; whoever is sent away can
read why, and is dropped after ``LINGER_SECONDS`` whatever it does.
Failure modes: none that is seen; a connection that breaks is counted out like any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.ingress.limits import LINGER_SECONDS
from gateway.ingress.session import Session


class Doorstep(asyncio.Protocol):
    """One connection on its way in.

    Args:
        came: told when it is there; calls :meth:`let_in` or :meth:`send_away`, now or later.
        left: told when it is gone, unless it was let in.
        open_session: starts the session that takes the connection over.
    """

    def __init__(
        self,
        came: Callable[[Doorstep], None],
        left: Callable[[Doorstep], None],
        open_session: Callable[[asyncio.Transport], Session],
    ) -> None:
        self._came = came
        self._left = left
        self._open_session = open_session
        self._transport: asyncio.Transport | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._ended = asyncio.Event()
        self.peer = "unknown"
        """Network address of the client, without port."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a stream is needed")
        self._transport = transport
        peername = transport.get_extra_info("peername")
        if isinstance(peername, tuple):
            self.peer = str(peername[0])
        transport.pause_reading()
        self._came(self)

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        if self._linger is not None:
            self._linger.cancel()
        self._ended.set()
        self._left(self)

    def eof_received(self) -> bool:
        return False

    def data_received(self, _data: bytes) -> None:
        """Only after it was sent away. Unread input would make the close a reset, which takes our reply with it."""

    def let_in(self) -> Session | None:
        """Hand the connection over to a session; None when it has gone."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return None
        session = self._open_session(transport)
        transport.resume_reading()
        return session

    def send_away(self, reply: str) -> None:
        """Say this, and drop the connection when the client has gone or its time is over."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.write(reply.encode("ascii") + b"\r\n")
        try:
            transport.write_eof()
        except OSError:
            # The client has broken the connection, and nobody has told us yet.
            transport.abort()
            return
        transport.resume_reading()
        self._linger = asyncio.get_running_loop().call_later(LINGER_SECONDS, transport.abort)

    def abort(self) -> None:
        """Drop the connection at once. What was said is on its way already, if the client takes anything at all."""
        if self._transport is not None:
            self._transport.abort()

    async def wait_ended(self) -> None:
        """Return when the connection is gone. Only for one that is not let in."""
        await self._ended.wait()
