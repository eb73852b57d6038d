"""The protocol class of aiosmtpd, made safe: connection, reading, replying, TLS. The commands are in session.py.

Only aiosmtpd's protocol class is reused: how it sits on asyncio, its session object and its way of putting TLS
under a running connection. Everything through which 1.4.6 can lose mail, leak or be worn out is replaced
(findings 1 to 4):

* its command loop, which logs every line, takes a bare LF for a line end and describes exceptions to the client;
* its one timer, which cancels a commit; here every wait has a deadline of its own and a commit has none;
* its habit of cancelling the handler when the client leaves or half-closes; here the session sees the end of the
  stream when it next reads, so that a commit which has begun ends, and pipelined commands get their replies.

Guarantees: a connection ends in bounded time whatever the client does, also when it never reads our replies.
Failure modes: :class:`HangUp` ends the session with a last reply, :class:`Gone` without one.
"""

from __future__ import annotations

import asyncio
import ssl
from asyncio import sslproto
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiosmtpd.smtp import SMTP

from gateway.ingress import replies
from gateway.ingress.limits import CHUNK_BYTES, LINE_FLOOD_BYTES, LINGER_SECONDS


class HangUp(Exception):  # noqa: N818 - a decision, not an error
    """End the session after this last reply."""

    def __init__(self, reply: str, cause: str) -> None:
        super().__init__(reply)
        self.reply = reply
        self.cause = cause


class Gone(Exception):  # noqa: N818
    """The client has left."""


class _TLS(sslproto.SSLProtocol):
    """TLS under one connection. It takes all of its read buffer at once, also for a handshake that never comes."""

    max_size = CHUNK_BYTES


class Wire(SMTP):
    """One connection.

    Args:
        hostname: our name in the greeting.
        tls: context for STARTTLS, or None.
        seconds: how long a command line, a reply and a TLS handshake may take now. Asked at the begin of each.
    """

    line_length_limit = CHUNK_BYTES // 2
    """Here only the flow control of the stream: twice as much is buffered before the socket is left unread."""

    def __init__(self, *, hostname: str, tls: ssl.SSLContext | None, seconds: Callable[[], float]) -> None:
        super().__init__(
            None,
            hostname=hostname,
            tls_context=tls,
            enable_SMTPUTF8=True,
            auth_exclude_mechanism=("LOGIN", "PLAIN"),
            loop=asyncio.get_running_loop(),
        )
        self._seconds = seconds
        self._pending = bytearray()
        self._interruptible: asyncio.Timeout | None = None
        self._patience: asyncio.Timeout | None = None
        """For the next bytes of a message: may be shortened, but no end of the listener interrupts it at once."""
        self._draining = False
        self._evicted = False
        self._waiting_since: float | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._ended = asyncio.Event()

    # --- connection ---

    @property
    def peer(self) -> str:
        """Network address of the client, without port."""
        peername = self.session.peer if self.session is not None else None
        return str(peername[0]) if isinstance(peername, tuple) else "unknown"

    def serving_task(self) -> asyncio.Task[None]:
        """The task that serves the connection. (No property: the base class reads all of those while it is built.)"""
        task = self._handler_coroutine
        if task is None:
            raise RuntimeError("not connected yet")
        return task

    def drain(self) -> None:
        """Serve no further command: a session that waits for one ends now, any other after what it is doing."""
        self._draining = True
        if self._interruptible is not None:
            self._interruptible.reschedule(self.loop.time())

    def hurry(self, seconds: float) -> None:
        """Let what the client is waited for now take no longer than this from now on."""
        waiting, latest = self._interruptible or self._patience, self.loop.time() + seconds
        if waiting is not None and ((due := waiting.when()) is None or due > latest):
            waiting.reschedule(latest)

    def evict(self) -> None:
        """End the session, which waits for a command, to make room for somebody else."""
        self._evicted = True
        if self._interruptible is not None:
            self._interruptible.reschedule(self.loop.time())

    def waiting_seconds(self) -> float | None:
        """Since when the client is waited for to give a command; None when it is not, or has just given something.

        What has come and was not looked at yet would be served, and the session go on, whoever ends the wait for it.
        """
        if self._waiting_since is None or self._evicted or self._unread_bytes():
            return None
        return self.loop.time() - self._waiting_since

    def can_be_evicted(self) -> bool:
        """Whether the client is waited for in a way that :meth:`evict` ends, and has said nothing that waits."""
        return self._interruptible is not None and not self._evicted and not self._unread_bytes()

    def _unread_bytes(self) -> int:
        return len(self._reader._buffer)  # type: ignore[attr-defined]  # noqa: SLF001 - no public way to look

    def abort(self) -> None:
        """Drop the connection at once, unflushed."""
        for transport in (self.transport, self._original_transport):
            if isinstance(transport, asyncio.WriteTransport):
                transport.abort()

    async def wait_ended(self) -> None:
        """Return when the connection is gone and our last reply flushed."""
        await self._ended.wait()

    def connection_lost(self, error: Exception | None) -> None:
        """The base class would cancel the session here, and with it a commit; the stream's end says it as well."""
        if self._ended.is_set():
            return
        self._ended.set()
        if self._linger is not None:
            self._linger.cancel()
        if self._original_transport is not None:
            self._original_transport.close()
        asyncio.StreamReaderProtocol.connection_lost(self, error)
        self.transport = None

    def eof_received(self) -> bool:
        """A half-closed client still gets the replies to what it has sent; under TLS there is no half-close."""
        asyncio.StreamReaderProtocol.eof_received(self)
        return self._tls_protocol is None

    def _reset_timeout(self, duration: float | None = None) -> None:
        """No timer of the base class is ever armed: see the module's docstring."""

    async def _say_last(self, reply: str) -> None:
        """Send a last reply so that it arrives. Never raises, but when cancelled.

        A socket that is closed while there is unread input is reset, and the reset takes with it the replies that
        the client has not read yet. So our side is closed first, and what the client still sends is read away.
        """
        try:
            await self.push(reply)
            if isinstance(self.transport, asyncio.WriteTransport) and self.transport.can_write_eof():
                self.transport.write_eof()
                async with self._deadline(LINGER_SECONDS):
                    while True:
                        self._pending.clear()
                        await self._read_chunk()
        except (Gone, HangUp, OSError):
            return

    def _hang_up(self) -> None:
        """Close after flushing; a client that does not read is dropped after a while."""
        if self.transport is not None and self._linger is None:
            self._linger = self.loop.call_later(LINGER_SECONDS, self.abort)
            self.transport.close()

    # --- reading and replying ---

    @asynccontextmanager
    async def _deadline(self, seconds: float) -> AsyncIterator[None]:
        """A wait for the client that ends in 421 when time is over or the listener shuts down."""
        try:
            async with asyncio.timeout(seconds) as timeout:
                self._interruptible = timeout
                if self._draining:
                    timeout.reschedule(self.loop.time())
                yield
        except TimeoutError:
            if self._draining:
                raise HangUp(replies.SHUTTING_DOWN, "shutdown") from None
            if self._evicted:
                raise HangUp(replies.EVICTED, "evicted") from None
            raise HangUp(replies.TIMED_OUT, "timeout") from None
        finally:
            self._interruptible = None

    async def _read_chunk(self) -> bytes:
        try:
            chunk = await self._reader.read(CHUNK_BYTES)
        except OSError as exc:
            raise Gone from exc
        if not chunk:
            raise Gone
        return chunk

    async def _read_line(self) -> bytes:
        """The next command line with its line end. Its deadline is for the whole line, however slowly it comes."""
        if self._draining:
            raise HangUp(replies.SHUTTING_DOWN, "shutdown")
        seen = 0
        self._waiting_since = self.loop.time()
        try:
            async with self._deadline(self._seconds()):
                while (end := self._pending.find(b"\n", seen)) < 0:
                    seen = len(self._pending)
                    if seen > LINE_FLOOD_BYTES:
                        raise HangUp(replies.LINE_FLOOD, "line_flood")
                    self._pending += await self._read_chunk()
        finally:
            self._waiting_since = None
        line = bytes(self._pending[: end + 1])
        del self._pending[: end + 1]
        return line

    async def push(self, status: str | bytes) -> None:
        """Send a reply. A client that does not take it in time is dropped."""
        text = status if isinstance(status, bytes) else status.encode("ascii")
        self._writer.write(text + b"\r\n")
        try:
            async with asyncio.timeout(self._seconds()):
                await self._writer.drain()
        except (TimeoutError, OSError) as exc:
            self.abort()
            raise Gone from exc

    # --- TLS ---

    async def _start_tls(self) -> None:
        """Put TLS under the connection (RFC 3207). What the client sent in the clear behind STARTTLS is discarded.

        The base class clears the stream's buffer only after the handshake and knows nothing of ours; a plaintext
        command that was injected in the same packet must not be answered inside TLS (F21, CVE-2011-0411).
        """
        transport, context = self.transport, self.tls_context
        if not isinstance(transport, asyncio.Transport) or context is None:
            raise Gone
        await self.push(replies.READY_FOR_TLS)
        await self._discard_plaintext()
        waiter: asyncio.Future[None] = self.loop.create_future()
        self._tls_protocol = _TLS(self.loop, self, context, waiter, server_side=True)
        self._original_transport = transport
        transport.set_protocol(self._tls_protocol)
        self.transport = self._tls_protocol._app_transport  # noqa: SLF001 - as aiosmtpd does; no public way
        self._tls_protocol.connection_made(transport)
        try:
            async with self._deadline(self._seconds()):
                await waiter
        except BaseException:
            # asyncio tells nobody that a connection ended during the handshake, and no reply could be read.
            transport.abort()
            self.connection_lost(None)
            raise

    async def _discard_plaintext(self) -> None:
        self._pending.clear()
        buffered = self._unread_bytes()
        if buffered:
            # Reading it, other than clearing the buffer, also wakes a socket that flow control has paused. It does
            # not wait, so that no byte of the handshake can slip in between.
            await self._reader.read(buffered)
