"""An upstream mailbox over POP3 (:class:`gateway.ingress.upstream.Upstream`): RFC 1939, 2449, 2595 and 5034.

Messages are told apart by UIDL, without which nothing is fetched. They stay on the server unless the operator asked for
``after = "delete"``; then a message is deleted after its commit, and for good when the session ends with QUIT: a
session that breaks before that deletes nothing, and the next one does it, after it has had the message once more. For a
server may give the id of a deleted message to a new one (RFC 1939 section 7), and that one must not be deleted unread.

Guarantees: lines, answers and messages are bounded in bytes and in time before they come; nothing that a server says
becomes a text or a log line of ours; STARTTLS (STLS) comes before any secret, and bytes that were sent in the clear
after its answer end the connection.

Failure modes: UpstreamError, after which the connection is of no use. A POP3 server shows a session the mailbox as it
was at its start, so there is one session for each look.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any

from gateway.core.fetch_settings import FetchSettings
from gateway.core.fetching import FetchPlace, ItemError, ItemGoneError, ItemTrouble, LoginRefusedError, UpstreamError
from gateway.core.message import Source
from gateway.ingress.upstream import (
    COMMAND_SECONDS,
    CONNECT_SECONDS,
    LISTING_BYTES,
    LISTING_SECONDS,
    SILENCE_SECONDS,
    Found,
    OversizeError,
    download_seconds,
)
from gateway.ingress.upstream_login import (
    check_peer,
    connect_error,
    plain_response,
    read_secret,
    tls_context,
    xoauth2_response,
)

LINE_BYTES = 8_192
"""Of an answer of one line."""
READ_BYTES = 65_536
_CLOSE_SECONDS = 10.0
_UIDL = re.compile(rb"(\d{1,10}) ([!-~]{1,70})\Z")
_SIZE = re.compile(rb"(\d{1,10}) (\d{1,19})\b")
_PASSING = (b"[SYS/TEMP]", b"[IN-USE]", b"[LOGIN-DELAY]")
"""Response codes of RFC 2449 and RFC 3206 that say nothing about the login."""


class POP3Upstream:
    """A session over POP3. Made by :func:`open_pop3`."""

    source = Source.POP3
    listens = False

    def __init__(self, account: FetchSettings, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._account = account
        self._reader = reader
        self._writer = writer
        self._numbers: dict[str, int] = {}
        self._sizes: dict[int, int] = {}
        self._pending = bytearray()
        self._broken = False
        self.peer = ""

    @property
    def deletes(self) -> bool:
        """See :class:`gateway.ingress.upstream.Upstream`."""
        return self._account.after == "delete"

    # --- the mailbox ---

    async def open(self) -> tuple[str, int | None]:
        """The mailbox is open since the login; POP3 has neither UIDVALIDITY nor numbers that last."""
        return "", None

    async def look(self, place: FetchPlace, *, thorough: bool) -> Found:  # noqa: ARG002 - there is only one way
        """UIDL and LIST. See :class:`gateway.ingress.upstream.Upstream`."""
        self._numbers = {}
        for line in await self._listing("UIDL"):
            found = _UIDL.match(line)
            if found is None:
                raise UpstreamError("protocol", "the server lists ids (UIDL) that are none")
            self._numbers[found.group(2).decode("ascii")] = int(found.group(1))
        sizes = (_SIZE.match(line) for line in await self._listing("LIST"))
        self._sizes = {int(found.group(1)): int(found.group(2)) for found in sizes if found}
        return Found(tuple(self._numbers), 0, rising=False, whole=True)

    async def _listing(self, command: str) -> list[bytes]:
        if not (await self._say(command)).startswith(b"+OK"):
            raise UpstreamError("uidl", "the server cannot list ids (UIDL): messages could not be told apart")
        data = await self._lines(LISTING_BYTES, LISTING_SECONDS)
        return data.splitlines()

    async def sizes(self, uids: Sequence[str]) -> dict[str, int]:
        """As LIST told them. See :class:`gateway.ingress.upstream.Upstream`."""
        known = ((uid, self._sizes.get(self._numbers.get(uid, -1))) for uid in uids)
        return {uid: size for uid, size in known if size is not None}

    async def download(self, uid: str, limit: int) -> bytes:
        """RETR. See :class:`gateway.ingress.upstream.Upstream`."""
        number = self._numbers.get(uid)
        if number is None:
            raise ItemGoneError("the message is not there any more")
        reply = await self._say(f"RETR {number}")
        if not reply.startswith(b"+OK"):
            _refuse_passing(reply)
            raise ItemError(ItemTrouble.UNREADABLE, "the server does not hand out this message")
        message = await self._lines(limit, download_seconds(limit))
        if self._pending:
            # Nothing was asked for that could be answered: the end was none (a dot that was not doubled).
            self._broken = True
            raise UpstreamError("protocol", "the server goes on after the end of a message")
        if not message:
            raise ItemError(ItemTrouble.UNREADABLE, "the server hands out an empty message")
        return message

    async def mark(self, uids: Sequence[str]) -> Sequence[str]:
        """DELE, when that was asked for. See :class:`gateway.ingress.upstream.Upstream`.

        Deleted is only what a session deleted that was ended in good order. So nothing is finished here; the next look
        does not find what is gone, and that is.
        """
        if not self.deletes:
            return uids
        gone = [uid for uid in uids if uid not in self._numbers]
        for uid in uids:
            number = self._numbers.get(uid)
            if number is not None and not (await self._say(f"DELE {number}")).startswith(b"+OK"):
                raise UpstreamError("mark", "the server does not delete messages; see after")
        return gone

    # --- waiting and the end ---

    async def wait(self, seconds: float, wake: asyncio.Event) -> None:
        """POP3 tells of nothing; nobody asks."""
        raise NotImplementedError

    async def close(self) -> None:
        """QUIT, which also carries out deletions, and the end."""
        try:
            if not self._broken:
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._say("QUIT")
        except (UpstreamError, TimeoutError):
            pass
        finally:
            self._writer.transport.abort()

    # --- the wire ---

    async def greet_and_log_in(self, context: Any, secret: str) -> None:
        """From the greeting to the end of the login.

        Raises:
            UpstreamError: it cannot be done; LoginRefusedError when the server does not take the login.
        """
        self.peer = check_peer(self._account, self._writer)
        if not (await self._line(LINE_BYTES, CONNECT_SECONDS)).startswith(b"+OK"):
            raise UpstreamError("greeting", "the server sends us away at once; it may be busy or closed")
        if self._account.tls == "starttls":
            await self._start_tls(context)
        await self._log_in(secret)

    async def _start_tls(self, context: Any) -> None:
        if not (await self._say("STLS")).startswith(b"+OK"):
            raise UpstreamError("tls", "the server refuses STLS; see tls and port")
        if self._pending or self._reader._buffer:  # type: ignore[attr-defined]  # noqa: SLF001 - there is no other way to see it
            raise UpstreamError("tls", "the server sent data in the clear after STLS")
        try:
            await self._writer.start_tls(
                context, server_hostname=self._account.host, ssl_handshake_timeout=CONNECT_SECONDS
            )
        except OSError as exc:
            raise connect_error(self._account, exc) from exc

    async def _log_in(self, secret: str) -> None:
        account = self._account
        capabilities = set()
        if (await self._say("CAPA")).startswith(b"+OK"):
            lines = await self._lines(READ_BYTES, COMMAND_SECONDS)
            capabilities = {word for line in lines.upper().splitlines() for word in _mechanisms(line.split())}
        if account.oauth_token_file is not None:
            reply = await self._authenticate("XOAUTH2", xoauth2_response(account.username, secret))
        elif b"SASL PLAIN" in capabilities:
            reply = await self._authenticate("PLAIN", plain_response(account.username, secret))
        else:
            reply = await self._say(f"USER {account.username}")
            if reply.startswith(b"+OK"):
                reply = await self._say(f"PASS {secret}")
        if not reply.startswith(b"+OK"):
            _refuse_passing(reply)
            key = "password_file" if account.password_file is not None else "oauth_token_file"
            raise LoginRefusedError(
                f"the server refuses the login; see username and {key}, then: fetch now {account.name}"
            )

    async def _authenticate(self, mechanism: str, response: str) -> bytes:
        """AUTH without an initial response, which a short command line may not have room for (RFC 5034 section 4)."""
        reply = await self._say(f"AUTH {mechanism}")
        for answer in (response, ""):
            if reply.startswith(b"+ ") or reply == b"+":
                reply = await self._say(answer)
        return reply

    async def _say(self, line: str) -> bytes:
        """Send a line and return the first line of the answer."""
        self._writer.write(line.encode("utf-8") + b"\r\n")
        return await self._line(LINE_BYTES, COMMAND_SECONDS)

    async def _line(self, limit: int, seconds: float) -> bytes:
        return await self._until(b"\r\n", limit, seconds)

    async def _lines(self, limit: int, seconds: float) -> bytes:
        """What follows up to the line with a dot alone, with the dots that were doubled taken out again."""
        # An end of line in front makes the first line like the others: it may be the dot already, or begin with one.
        self._pending[:0] = b"\r\n"
        whole = await self._until(b"\r\n.\r\n", limit + limit // 64, seconds)
        message = whole.replace(b"\r\n.", b"\r\n")[2:]
        if len(message) > limit:
            raise OversizeError(len(message))
        return message + b"\r\n" if message else b""

    async def _until(self, end: bytes, limit: int, seconds: float) -> bytes:
        """Everything before the end, which is read as well."""
        loop = asyncio.get_running_loop()
        ends, looked = loop.time() + seconds, 0
        self._broken = True
        while (found := self._pending.find(end, looked)) < 0:
            looked = max(0, len(self._pending) - len(end) + 1)
            if len(self._pending) > limit:
                raise OversizeError(len(self._pending))
            self._pending += await self._more(min(SILENCE_SECONDS, ends - loop.time()))
        taken = bytes(memoryview(self._pending)[:found])
        del self._pending[: found + len(end)]
        self._broken = False
        return taken

    async def _more(self, seconds: float) -> bytes:
        try:
            async with asyncio.timeout(seconds):
                data = await self._reader.read(READ_BYTES)
        except TimeoutError:
            raise UpstreamError("timeout", "the server does not answer in time") from None
        except OSError:
            data = b""
        if not data:
            raise UpstreamError("connection_lost", "the server ended the connection")
        return data


async def open_pop3(account: FetchSettings) -> POP3Upstream:
    """Connect and log in.

    Raises:
        UpstreamError: it cannot be done; LoginRefusedError when the server does not take the login.
    """
    context = await asyncio.to_thread(tls_context, account)
    secret = await asyncio.to_thread(read_secret, account)
    implicit: dict[str, Any] = {}
    if account.tls == "implicit":
        implicit = {"ssl": context, "server_hostname": account.host, "ssl_handshake_timeout": CONNECT_SECONDS}
    try:
        async with asyncio.timeout(CONNECT_SECONDS * 2):
            reader, writer = await asyncio.open_connection(account.host, account.port, limit=READ_BYTES, **implicit)
    except (OSError, ValueError) as exc:
        raise connect_error(account, exc) from exc
    upstream = POP3Upstream(account, reader, writer)
    try:
        await upstream.greet_and_log_in(context, secret)
    except BaseException:
        await upstream.close()
        raise
    return upstream


def _mechanisms(words: Sequence[bytes]) -> list[bytes]:
    """``SASL PLAIN`` and the like for each mechanism of a SASL line."""
    return [b"SASL " + word for word in words[1:]] if words[:1] == [b"SASL"] else []


def _refuse_passing(reply: bytes) -> None:
    if any(code in reply.upper() for code in _PASSING):
        raise UpstreamError("unavailable", "the server says that it cannot do this now")
