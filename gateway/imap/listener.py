"""The IMAP listener: takes connections on both ports, keeps them within limits, and ends them in order.

Guarantees: connections are counted from the first packet, before the TLS handshake, so that half-open handshakes
cannot pile up (F20); TLS is 1.2 or later and is never renegotiated; :meth:`IMAPListener.close` returns within
CLOSE_SECONDS, whatever the clients do, and leaves no task behind.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from dataclasses import dataclass
from functools import partial

from gateway.core.errors import ListenError
from gateway.core.peers import peer_network
from gateway.imap.commands import COMMANDS
from gateway.imap.connection import Connection, ConnectionClosedError
from gateway.imap.session import Authenticator, IMAPSession, Surroundings
from gateway.inbox.service import Inbox
from gateway.observability.log import get_log
from gateway.observability.os_errors import os_reason
from gateway.settings import IMAPSettings

_log = get_log("imap")

CLOSE_SECONDS = 5.0
BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Ports:
    """The TCP ports that are bound; None = off."""

    starttls: int | None
    tls: int | None


class IMAPListener:
    """The IMAP service on its two ports. ``starttls_port`` and ``tls_port`` override the settings; 0 = any free one."""

    def __init__(
        self,
        settings: IMAPSettings,
        authenticator: Authenticator,
        inbox: Inbox,
        tls: ssl.SSLContext,
        *,
        starttls_port: int | None = None,
        tls_port: int | None = None,
    ) -> None:
        self._settings = settings
        self._surroundings = Surroundings(settings, authenticator, inbox, tls)
        self._tls = tls
        # In the settings 0 means off, in the arguments any free port.
        self._starttls_port = starttls_port if starttls_port is not None else settings.port or None
        self._tls_port = tls_port if tls_port is not None else settings.tls_port or None
        self._servers: list[asyncio.Server] = []
        self._tasks: dict[asyncio.Task[None], Connection] = {}
        self._peers: Counter[str] = Counter()
        self._closing = False
        self.ports = Ports(None, None)

    async def start(self) -> None:
        """Bind and serve. Raises ListenError when a port cannot be bound; then neither is."""
        self._tls.minimum_version = max(self._tls.minimum_version, ssl.TLSVersion.TLSv1_2)
        self._tls.options |= ssl.OP_NO_RENEGOTIATION
        try:
            starttls = await self._listen(self._starttls_port, "imap.port", implicit_tls=False)
            tls = await self._listen(self._tls_port, "imap.tls_port", implicit_tls=True)
        except ListenError:
            await self.close()
            raise
        self.ports = Ports(starttls, tls)
        _log.info("imap_listening", port=starttls, tls_port=tls)

    async def _listen(self, port: int | None, setting: str, *, implicit_tls: bool) -> int | None:
        if port is None:
            return None
        accepted = partial(self._accept, implicit_tls=implicit_tls)
        max_line_bytes = self._settings.max_line_kib * 1024
        host = self._settings.host
        try:
            server = await asyncio.get_running_loop().create_server(
                lambda: Connection(accepted, max_line_bytes), host, port, backlog=BACKLOG
            )
        except OSError as error:
            raise ListenError("IMAP", host, port, setting, os_reason(error)) from error
        self._servers.append(server)
        bound: int = server.sockets[0].getsockname()[1]
        return bound

    @property
    def connections(self) -> int:
        """Connections at this moment."""
        return len(self._tasks)

    def _accept(self, connection: Connection, *, implicit_tls: bool) -> None:
        too_many = (
            len(self._tasks) >= self._settings.max_connections
            or self._peers[peer_network(connection.peer)] >= self._settings.max_connections_per_peer
        )
        if too_many or self._closing:
            _log.warning("connection_refused", reason="limit" if too_many else "closing", peer=connection.peer)
            if not implicit_tls:
                connection.refuse(b"* BYE [UNAVAILABLE] Too many connections\r\n")
            else:
                connection.abort()
            return
        self._peers[peer_network(connection.peer)] += 1
        task = asyncio.get_running_loop().create_task(self._serve(connection, implicit_tls=implicit_tls))
        self._tasks[task] = connection
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        connection = self._tasks.pop(task)
        network = peer_network(connection.peer)
        self._peers[network] -= 1
        if not self._peers[network]:
            del self._peers[network]
        connection.abort()  # A no-op unless the task was cut short.
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _log.fault("session_fault", error)

    async def _serve(self, connection: Connection, *, implicit_tls: bool) -> None:
        try:
            if implicit_tls or await connection.begins_with_tls():
                await connection.start_tls(self._tls)
            else:
                connection.begin_reading()
            await IMAPSession(connection, self._surroundings, COMMANDS).run()
        except ConnectionClosedError:
            connection.abort()
        except asyncio.CancelledError:
            if not connection.in_slices:
                connection.queue(b"* BYE Server shutting down\r\n")
            await connection.close()
            raise
        await connection.close()

    async def close(self) -> None:
        """Stop listening, say BYE to every session, and wait until all are gone (at most CLOSE_SECONDS)."""
        self._closing = True
        for server in self._servers:
            server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=CLOSE_SECONDS)
            for task in late:
                self._tasks[task].abort()
                task.cancel()
            if late:
                await asyncio.wait(late)
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()
