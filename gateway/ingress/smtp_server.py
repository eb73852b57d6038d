"""The SMTP listener of the STA: mail from other HISPs.

Guarantees:

* A message is acknowledged after ``accept`` has returned, which is after the durable commit (promise 1).
* A commit that has begun runs to its end although its client left or timed out; only the end of the grace of
  :meth:`SMTPListener.close` stops it, and then no ``250`` is said and the sender tries again (F15, F39).
* Connections, connections per peer, bytes being received and everything a client may do on a connection are
  bounded (limits.py).

Failure modes: a port that cannot be opened raises ListenError; no fault of a session reaches another.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable, Callable

from gateway.core.errors import ListenError, StoreError
from gateway.core.message import Inbound
from gateway.ingress.connection_gate import ConnectionGate
from gateway.ingress.doorstep import Doorstep
from gateway.ingress.limits import MIB, ByteBudget, SMTPLimits
from gateway.ingress.recipients import RecipientStatus
from gateway.ingress.session import Session
from gateway.ingress.spool import Spool
from gateway.observability.log import EventLog
from gateway.observability.os_errors import os_reason
from gateway.settings import SMTPSettings, StoreSettings

_QUEUE = 4096
"""Connections that the kernel holds for us until they are accepted; it may allow fewer (``somaxconn``).

Whoever comes when it is full is not refused but left without an answer, and tries again after one second, and three,
and seven: a flood that is over in a moment would keep others waiting for long.
"""
_FLUSH_SECONDS = 1.0
"""How long closed connections may take to flush their 421 at the very end."""


class SMTPListener:
    """Listens on one address and port.

    Args:
        settings: the section ``[smtp]``. Port 0 takes any free port.
        accept: commits a message with its job and returns its id. Any exception it raises is a temporary refusal.
        is_local_recipient: what an address, as the client wrote it, is to this gateway.
        tls: server context for STARTTLS, or None to offer none. It is limited to TLS 1.2 and later.
        log: where events go.
        spool: where large messages lie while they arrive.
        free_space: bytes free where the store is, None when that is not known; or None not to look.
        free_space_floor_bytes: MAIL is refused while the store has less than this, plus twice the declared size.
    """

    def __init__(
        self,
        settings: SMTPSettings,
        *,
        accept: Callable[[Inbound], Awaitable[str]],
        is_local_recipient: Callable[[str], RecipientStatus],
        tls: ssl.SSLContext | None,
        log: EventLog,
        spool: Spool,
        free_space: Callable[[], int | None] | None = None,
        free_space_floor_bytes: int = StoreSettings().free_space_floor_mib * MIB,
    ) -> None:
        if tls is not None:
            tls.minimum_version = max(tls.minimum_version, ssl.TLSVersion.TLSv1_2)
            tls.options |= ssl.OP_NO_RENEGOTIATION
        self.hostname = settings.hostname
        self.limits = SMTPLimits.of(settings)
        self.budget = ByteBudget(self.limits.arriving_bytes, self.limits.arriving_share_bytes)
        self.memory = ByteBudget(self.limits.memory_bytes)
        self.spool = spool
        self.tls = tls
        self.log = log
        self._settings = settings
        self._accept = accept
        self._is_local_recipient = is_local_recipient
        self._free_space = free_space
        self._floor = free_space_floor_bytes
        self._gate = ConnectionGate(self.limits, log)
        self._tasks: set[asyncio.Task[None]] = set()
        self._commits: set[asyncio.Task[str]] = set()
        self._server: asyncio.Server | None = None
        self._closing = False

    @property
    def port(self) -> int:
        """The port that is open."""
        if self._server is None or not self._server.sockets:
            raise RuntimeError("the SMTP listener is not open")
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Open the port.

        Raises:
            ListenError: it cannot be opened.
        """
        loop = asyncio.get_running_loop()
        host, port = self._settings.host, self._settings.port
        try:
            # asyncio accepts as often in a row as its backlog says, also after it has run out of descriptors: with a
            # large one it would log and schedule itself hundreds of times over, and live for nothing else (F05).
            self._server = await loop.create_server(self._new_connection, host, port, backlog=1)
            for listening in self._server.sockets:
                with socket.socket(fileno=os.dup(listening.fileno())) as same:
                    same.listen(_QUEUE)
        except OSError as exc:
            raise ListenError("SMTP", host, port, "smtp.port", os_reason(exc)) from exc
        self.log.info("smtp_listening", port=self.port)

    async def close(self, grace_seconds: float) -> None:
        """Stop accepting; end idle sessions with 421; give messages and commits under way the grace; then end all."""
        if self._server is None or self._closing:
            return
        self._closing = True
        self._server.close()
        self._gate.close()
        for session in self._gate.sessions():
            session.drain()
        await self._end(self._tasks | self._commits, grace_seconds)
        await self._flush()
        await self._server.wait_closed()

    async def _end(self, working: set[asyncio.Task[None] | asyncio.Task[str]], grace_seconds: float) -> None:
        if not working:
            return
        _, late = await asyncio.wait(working, timeout=grace_seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        if late:
            self.log.warning("smtp_grace_over", count=len(late))

    async def _flush(self) -> None:
        """Let the last replies go out, but wait for no client that does not take them."""
        closed = self._gate.connections()
        try:
            async with asyncio.timeout(_FLUSH_SECONDS):
                for connection in closed:
                    await connection.wait_ended()
        except TimeoutError:
            for connection in closed:
                connection.abort()
            for connection in closed:
                await connection.wait_ended()

    def _new_connection(self) -> Doorstep:
        return Doorstep(self._gate.enter, self._gate.leave, self._open_session)

    def _open_session(self, transport: asyncio.Transport) -> Session:
        session = Session(self)
        transport.set_protocol(session)
        session.connection_made(transport)
        task = session.serving_task()
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return session

    # --- what a session asks (session.Host) ---

    @property
    def stressed(self) -> bool:
        return self._gate.stressed

    def hurries(self, session: Session) -> bool:
        return self._gate.hurries(session)

    def ending(self, session: Session) -> None:
        self._gate.ending(session)

    def leave(self, session: Session) -> None:
        self._gate.leave(session)

    def may_send(self, session: Session) -> bool:
        return self._gate.may_send(session)

    def may_address(self, session: Session) -> bool:
        return self._gate.may_address(session)

    def may_tell(self, session: Session) -> bool:
        return self._gate.may_tell(session)

    def recipient_status(self, address: str) -> RecipientStatus:
        return self._is_local_recipient(address)

    def has_space_for(self, size_bytes: int) -> bool:
        # Twice the size: SQLite writes a message to the log and later to the database (storage rules).
        free = None if self._free_space is None else self._free_space()
        return free is None or free >= self._floor + 2 * size_bytes

    async def commit(self, inbound: Inbound) -> str:
        """Run ``accept`` in a task that the listener owns, so that no end of the session can stop it.

        Raises:
            StoreError: the commit was cancelled from inside.
            Exception: whatever ``accept`` raises.
        """
        task = asyncio.ensure_future(self._accept(inbound))
        self._commits.add(task)
        task.add_done_callback(self._commits.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            session_task = asyncio.current_task()
            if session_task is None or session_task.cancelling():
                raise
            # Not the session was cancelled but the commit: to the client that is a fault like any other.
            raise StoreError("the commit was cancelled") from None
