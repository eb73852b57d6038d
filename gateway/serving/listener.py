"""The listener of a mail server: takes connections on both ports, keeps them within limits, and ends them in order.

The same for every protocol that mail clients speak; what differs is a :class:`Service`.

Guarantees: connections are counted from the first packet, before the TLS handshake, so that half-open handshakes
cannot pile up (F20); TLS is 1.2 or later and is never renegotiated; :meth:`Listener.close` returns within
CLOSE_SECONDS, whatever the clients do, and leaves no task behind.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from gateway.core.errors import ListenError
from gateway.core.peers import peer_network
from gateway.observability.log import get_log
from gateway.observability.os_errors import os_reason
from gateway.serving.connection import Connection, ConnectionClosedError

CLOSE_SECONDS = 5.0
BACKLOG = 128


class ListenerSettings(Protocol):
    """What the section of a mail server says of its ports and limits."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def tls_port(self) -> int: ...
    @property
    def max_connections(self) -> int: ...
    @property
    def max_connections_per_peer(self) -> int: ...


class Session(Protocol):
    """What is said on one connection."""

    async def run(self) -> None:
        """Serve from the greeting to the end. Raises ConnectionClosedError when the peer is gone."""
        ...

    def farewell(self) -> bytes:
        """What is still said when :meth:`run` was cancelled: the server stops, or somebody ended the session."""
        ...


@dataclass(frozen=True, slots=True)
class Service:
    """A protocol of mail clients, as the listener needs to know it."""

    name: str
    """For people: ``IMAP``."""
    section: str
    """Of the settings; also the name of the log: ``imap``."""
    refusal: bytes
    """The line for a connection above the limits."""
    max_line_bytes: int
    """The longest line that a client may send."""
    session: Callable[[Connection], Session]


@dataclass(frozen=True, slots=True)
class Ports:
    """The TCP ports that are bound; None = off."""

    starttls: int | None
    tls: int | None


class Listener:
    """A service on its two ports. ``starttls_port`` and ``tls_port`` override the settings; 0 = any free one."""

    def __init__(
        self,
        service: Service,
        settings: ListenerSettings,
        tls: ssl.SSLContext,
        *,
        starttls_port: int | None = None,
        tls_port: int | None = None,
    ) -> None:
        self._service = service
        self._settings = settings
        self._tls = tls
        self._log = get_log(service.section)
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
        # Clients stay for hours: to resume a session of TLS 1.3 spares little, and each ticket keeps memory until then.
        self._tls.num_tickets = 0
        try:
            starttls = await self._listen(self._starttls_port, "port", implicit_tls=False)
            tls = await self._listen(self._tls_port, "tls_port", implicit_tls=True)
        except ListenError:
            await self.close()
            raise
        self.ports = Ports(starttls, tls)
        if self._servers:
            self._log.info("listening", listener=self._service.section, port=starttls, tls_port=tls)

    async def _listen(self, port: int | None, key: str, *, implicit_tls: bool) -> int | None:
        if port is None:
            return None
        service, host = self._service, self._settings.host
        accepted = partial(self._accept, implicit_tls=implicit_tls)
        try:
            server = await asyncio.get_running_loop().create_server(
                lambda: Connection(accepted, service.max_line_bytes), host, port, backlog=BACKLOG
            )
        except OSError as error:
            raise ListenError(service.name, host, port, f"{service.section}.{key}", os_reason(error)) from error
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
            self._log.warning("connection_refused", reason="limit" if too_many else "closing", peer=connection.peer)
            if not implicit_tls:
                connection.refuse(self._service.refusal)
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
            self._log.fault("session_fault", error)

    async def _serve(self, connection: Connection, *, implicit_tls: bool) -> None:
        session = self._service.session(connection)
        try:
            if implicit_tls or await connection.begins_with_tls():
                await connection.start_tls(self._tls)
            else:
                connection.begin_reading()
            await session.run()
        except ConnectionClosedError:
            connection.abort()
        except asyncio.CancelledError:
            if not connection.in_slices:
                connection.queue(session.farewell())
            await connection.close()
            raise
        await connection.close()

    async def close(self) -> None:
        """Stop listening, say goodbye to every session, and wait until all are gone (at most CLOSE_SECONDS)."""
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
