"""A connection to an upstream IMAP server, made with aioimaplib: the only module that knows that library.

aioimaplib parses whatever comes, without bounds: a line without an end, a literal of any size, thousands of short lines
(it recurses for each), an answer to nothing. Its timeouts do not cover every command, an exception while it parses
leaves the caller waiting, and it cannot do STARTTLS or answer a refused XOAUTH2. So every byte passes
:class:`_GuardedProtocol` first, which cuts the stream into lines and literals, counts them, and hands them on one by
one; of the library are used the matching of answers to commands and the states of the protocol.

Guarantees

* What an answer may cost is bounded before it comes: bytes, lines, the length of a line and of a literal, the time
  between two bytes and the whole time.
* Whatever is wrong with a connection ends it, and whoever waits for an answer hears of it at once.
* Nothing a server says becomes a text, a log line or an exception of ours. The library's own log stays silent: the
  gateway writes no text of foreign log records (:mod:`gateway.observability.log`).
* Bytes that came before TLS are not believed after it: more data than the answer to STARTTLS ends the connection.

Failure modes: UpstreamError, see each method; the connection is of no use then. OversizeError when a literal is larger
than was allowed: the rest of it is never read.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from aioimaplib.aioimaplib import (
    AUTH,
    CONNECTED,
    NONAUTH,
    SELECTED,
    AioImapException,
    Command,
    IdleCommand,
    IMAP4ClientProtocol,
    literal_data_re,
)

from gateway.core.fetch_settings import FetchSettings
from gateway.core.fetching import UpstreamError
from gateway.ingress.imap_words import Line, says_news
from gateway.ingress.upstream import COMMAND_SECONDS, CONNECT_SECONDS, SILENCE_SECONDS, OversizeError
from gateway.ingress.upstream_login import check_peer, connect_error

T = TypeVar("T")
ANSWER_BYTES = 1 << 20
LINE_BYTES = 65_536
ANSWER_LINES = 5_000
SMALL_LITERAL_BYTES = 4_096
"""Literals where none is expected: a mailbox name, a text."""
_CLOSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a command."""

    ok: bool
    lines: tuple[Line, ...]
    """Untagged lines that belong to it, and literals, in order."""
    text: bytes
    """What stands after OK, NO or BAD."""


class _GuardedProtocol(IMAP4ClientProtocol):  # type: ignore[misc]
    """aioimaplib's protocol behind the guard described above."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.lost: asyncio.Future[UpstreamError] = loop.create_future()
        """Done when the connection is of no use any more, with the reason."""
        self.greeting: asyncio.Future[bytes] = loop.create_future()
        self.news = asyncio.Event()
        """Set when the server tells of a message that came."""
        self.last_data = loop.time()
        self.sasl: str | None = None
        """The initial response of an AUTHENTICATE, when the server wants to be asked first."""
        self.before_tls = False
        self._line = bytearray()
        self._literal_left = 0
        self.allow(ANSWER_BYTES)

    def allow(self, total: int, *, line: int = LINE_BYTES, literal: int = SMALL_LITERAL_BYTES) -> None:
        """Set the bounds of what comes from now on, in bytes."""
        self._total_left, self._line_limit, self._literal_limit = total, line, literal
        self._lines_left = ANSWER_LINES

    def fail(self, error: UpstreamError) -> None:
        """End the connection, for the first reason there was."""
        if not self.lost.done():
            self.lost.set_result(error)
        if self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.fail(UpstreamError("connection_lost", "the server ended the connection"))

    def data_received(self, d: bytes) -> None:
        if self.lost.done():
            return
        self.last_data = self.loop.time()
        try:
            self._refuse_in_clear()
            self._take(d)
        except UpstreamError as exc:
            self.fail(exc)
        except Exception:  # noqa: BLE001 - whatever the library makes of garbage, it is the server's garbage
            self.fail(UpstreamError("protocol", "the server does not speak IMAP as it should"))

    def _take(self, data: bytes) -> None:
        self._total_left -= len(data)
        if self._total_left < 0:
            raise OversizeError(len(data))
        position = 0
        while position < len(data):
            if self._literal_left:
                piece = data[position : position + self._literal_left]
                self._literal_left -= len(piece)
                position += len(piece)
                # As the library does it, without the text of every piece that it makes for its log.
                self.current_command.append_literal_data(piece)
                continue
            end = data.find(b"\n", position) + 1
            self._line += data[position : end or len(data)]
            position = end or len(data)
            if len(self._line) > self._line_limit:
                raise OversizeError(len(self._line))
            if self._line.endswith(b"\r\n"):
                line = bytes(self._line)
                self._line.clear()
                self._take_line(line)
                if position < len(data):
                    self._refuse_in_clear()

    def _refuse_in_clear(self) -> None:
        """Data between the answer to STARTTLS and the handshake was injected by somebody on the way."""
        if self.before_tls and self.pending_sync_command is None:
            raise UpstreamError("tls", "the server sent data in the clear after STARTTLS")

    @property
    def is_between_lines(self) -> bool:
        """Whether nothing that came announces more: an answer that ends in a literal, half a line."""
        return not self._literal_left and not self._line

    def send(self, line: str, scrub: str | None = None) -> None:
        self.before_tls = self.before_tls or line.endswith(" STARTTLS")
        super().send(line, scrub)

    def _take_line(self, line: bytes) -> None:
        self._lines_left -= 1
        if self._lines_left < 0:
            raise OversizeError(len(line))
        # The library's own expression, so that both see the same literals.
        begins = literal_data_re.match(line[:-2])
        if begins:
            size = int(begins.group("size"))
            if size > self._literal_limit:
                raise OversizeError(size)
            self._literal_left = size
        if says_news(line):
            self.news.set()
        super().data_received(line)

    def _handle_line(self, line: bytes, current_cmd: Command | None) -> Command | None:
        if self.state == CONNECTED:
            # The library would begin to talk by itself here, in a task of which nobody hears when it fails.
            if not self.greeting.done():
                self.greeting.set_result(line)
            return None
        found: Command | None = super()._handle_line(line, current_cmd)
        return found

    def _continuation(self, line: bytes) -> None:
        command = self.pending_sync_command
        if command is not None and command.name == "AUTHENTICATE":
            # Without an initial response the server asks for it. Asked once more, it has refused us (XOAUTH2 sends
            # the reason as a challenge), and an empty answer lets it say so.
            answer, self.sasl = self.sasl or "", None
            self.send(answer)
            return
        super()._continuation(line)


class IMAPConnection:
    """A connection, for one task. Made by :func:`connect`."""

    def __init__(self, protocol: _GuardedProtocol) -> None:
        self._protocol = protocol
        self.peer = ""
        self.preauthenticated = False
        self._unclean = False
        """A command was given up in the middle: nothing can be said any more."""
        self.capabilities: frozenset[str] = frozenset()

    @property
    def news(self) -> asyncio.Event:
        """Set when the server tells of a message that came; whoever looks clears it first."""
        return self._protocol.news

    async def command(self, name: str, *words: str, **bounds: Any) -> Answer:
        """Say a command and return its answer.

        Args:
            name: as aioimaplib knows it.
            words: its arguments, as they go over the wire.
            bounds: ``uid`` for the UID form, ``total``, ``line`` and ``literal`` in bytes, ``seconds``.

        Raises:
            UpstreamError: there is no answer, or one beyond the bounds.
        """
        prefix = "UID" if bounds.pop("uid", False) else ""
        seconds = bounds.pop("seconds", COMMAND_SECONDS)
        protocol = self._protocol
        protocol.allow(bounds.pop("total", ANSWER_BYTES), **bounds)
        # Not the library's FetchCommand: it counts the brackets of all lines at each line.
        untagged = "FETCH" if name == "STORE" else None
        command = Command(
            name, protocol.new_tag(), *words, prefix=prefix, untagged_resp_name=untagged, loop=protocol.loop
        )
        response = await self._answer(protocol.execute(command), seconds)
        lines = tuple(response.lines)
        return Answer(response.result == "OK", lines[:-1], bytes(lines[-1]) if lines else b"")

    async def ask_capabilities(self) -> None:
        """Ask what the server can. What it said before TLS or before the login does not count after it."""
        answer = await self.command("CAPABILITY")
        words = b" ".join(bytes(line) for line in answer.lines).decode("ascii", "replace").upper().split()
        if not answer.ok or "IMAP4REV1" not in words:
            raise UpstreamError("protocol", "the server is no IMAP4rev1 server")
        self.capabilities = frozenset(words)

    async def authenticate(self, mechanism: str, response: str) -> Answer:
        """AUTHENTICATE with a response that is sent at once or when the server asks for it."""
        if "SASL-IR" in self.capabilities:
            words: tuple[str, ...] = (mechanism, response)
        else:
            words, self._protocol.sasl = (mechanism,), response
        return self.logged_in(await self.command("AUTHENTICATE", *words))

    def logged_in(self, answer: Answer) -> Answer:
        """Note that the login went well, if it did."""
        if answer.ok:
            self._protocol.state = AUTH
        return answer

    async def select(self, mailbox: str) -> Answer:
        """SELECT; the mailbox as it goes over the wire."""
        answer = await self.command("SELECT", mailbox)
        if answer.ok:
            self._protocol.state = SELECTED
        return answer

    async def idle(self, seconds: float, wake: asyncio.Event) -> bool:
        """IDLE (RFC 2177) until the server tells of news, someone wakes us, or the time is over; False: it cannot.

        Raises:
            UpstreamError: the connection is lost.
        """
        protocol = self._protocol
        protocol.allow(ANSWER_BYTES)
        protocol._idle_event.clear()  # noqa: SLF001 - the library clears it itself in idle(), which keeps every line
        command = IdleCommand(protocol.new_tag(), _NoQueue(), loop=protocol.loop)
        idling = asyncio.ensure_future(protocol.execute(command))
        begun = asyncio.ensure_future(protocol.wait_for_idle_response())
        events = [asyncio.ensure_future(event.wait()) for event in (protocol.news, wake)]
        try:
            first: set[asyncio.Future[Any]] = {idling, begun, protocol.lost}
            later: set[asyncio.Future[Any]] = {idling, protocol.lost, *events}
            await asyncio.wait(first, timeout=COMMAND_SECONDS, return_when="FIRST_COMPLETED")
            if not begun.done():
                if idling.done() and not protocol.lost.done():
                    return False
                raise self._lost() or UpstreamError("timeout", "the server does not answer")
            await asyncio.wait(later, timeout=seconds, return_when="FIRST_COMPLETED")
            if not idling.done() and not protocol.lost.done():
                protocol.idle_done()
            await self._answer(_ended(idling), COMMAND_SECONDS)
            return True
        finally:
            self._unclean = self._unclean or not idling.done()
            for task in (idling, begun, *events):
                task.cancel()
            await asyncio.gather(idling, begun, *events, return_exceptions=True)

    async def close(self) -> None:
        """LOGOUT when that is possible, and the end. Raises nothing but the cancellation."""
        try:
            if not self._protocol.lost.done() and not self._unclean:
                await self.command("LOGOUT", seconds=_CLOSE_SECONDS)
        except UpstreamError:
            pass
        finally:
            self._protocol.fail(UpstreamError("closed", "the connection was closed"))

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """STARTTLS, and the handshake (RFC 3501 section 6.2.1). Raises OSError and ssl.SSLError as well."""
        protocol = self._protocol
        if self.preauthenticated:
            raise UpstreamError("tls", "the server lets us in without TLS; that is refused")
        answer = await self.command("STARTTLS", seconds=CONNECT_SECONDS)
        if protocol.lost.done():
            raise protocol.lost.result()
        if not answer.ok:
            raise UpstreamError("tls", "the server refuses STARTTLS; see tls and port")
        if not protocol.is_between_lines:
            # What was said in the clear would decide how the first bytes under TLS are read.
            raise UpstreamError("tls", "the server sent data in the clear after STARTTLS")
        protocol.transport = await protocol.loop.start_tls(
            protocol.transport, protocol, context, server_hostname=host, ssl_handshake_timeout=CONNECT_SECONDS
        )
        if protocol.lost.done():
            raise protocol.lost.result()
        protocol.before_tls = False

    async def greet(self) -> None:
        """Wait for the greeting."""
        line = await self._answer(asyncio.shield(self._protocol.greeting), CONNECT_SECONDS)
        self.preauthenticated = line.upper().startswith(b"* PREAUTH")
        if not self.preauthenticated and not line.upper().startswith(b"* OK"):
            raise UpstreamError("greeting", "the server sends us away at once; it may be busy or closed")
        self._protocol.state = AUTH if self.preauthenticated else NONAUTH

    async def _answer(self, work: Coroutine[Any, Any, T] | asyncio.Future[T], seconds: float) -> T:
        """Wait for it as long as the connection lives, the server goes on sending, and there is time."""
        protocol, loop = self._protocol, self._protocol.loop
        task = asyncio.ensure_future(work)
        begun = protocol.last_data = loop.time()
        try:
            while not task.done():
                left = min(begun + seconds, protocol.last_data + SILENCE_SECONDS) - loop.time()
                if left <= 0:
                    error = UpstreamError("timeout", "the server does not answer in time")
                    protocol.fail(error)
                    raise error
                ends: set[asyncio.Future[Any]] = {task, protocol.lost}
                await asyncio.wait(ends, timeout=left, return_when="FIRST_COMPLETED")
                if protocol.lost.done() and not task.done():
                    raise protocol.lost.result()
            return task.result()
        except AioImapException:
            raise self._lost() or UpstreamError("protocol", "the server does not speak IMAP as it should") from None
        finally:
            if not task.done():
                self._unclean = True
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def _lost(self) -> UpstreamError | None:
        return self._protocol.lost.result() if self._protocol.lost.done() else None


async def connect(account: FetchSettings, context: ssl.SSLContext) -> IMAPConnection:
    """Connect, with TLS before anything else is said but STARTTLS, and ask what the server can.

    Raises:
        UpstreamError: it cannot be done; the text says why.
    """
    loop = asyncio.get_running_loop()
    protocol = _GuardedProtocol(loop)
    connection = IMAPConnection(protocol)
    implicit: dict[str, Any] = {}
    if account.tls == "implicit":
        implicit = {"ssl": context, "server_hostname": account.host, "ssl_handshake_timeout": CONNECT_SECONDS}
    try:
        async with asyncio.timeout(2 * CONNECT_SECONDS):
            transport, _ = await loop.create_connection(lambda: protocol, account.host, account.port, **implicit)
            connection.peer = check_peer(account, transport)
            await connection.greet()
            if account.tls == "starttls":
                await connection.start_tls(context, account.host)
            await connection.ask_capabilities()
    except UpstreamError as exc:
        protocol.fail(exc)
        raise
    except (OSError, ValueError) as exc:
        error = connect_error(account, exc)
        protocol.fail(error)
        raise error from exc
    except BaseException:
        protocol.fail(UpstreamError("closed", "the connection was closed"))
        raise
    return connection


async def _ended(task: asyncio.Future[Any]) -> None:
    await asyncio.shield(task)


class _NoQueue:
    """What an IDLE hears is noticed by the guard; the library would keep it for ever."""

    def put_nowait(self, item: object) -> None:
        """Forget it."""
