"""The real POP3 listener on real sockets over the real store, and a client that speaks raw bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gateway.inbox.indexer import Indexer
from gateway.inbox.maildrops import Maildrops
from gateway.inbox.quarantine_inbox import QuarantineInbox
from gateway.pop3.listener import POP3Listener
from gateway.ports import Account, UnitOfWork
from gateway.serving.session_registry import SessionHandle
from gateway.settings import IMAPSettings, POP3Settings
from gateway.store.unit import SQLUnitOfWork
from tests.support.raw_connection import RawConnection
from tests.unit.imap.imap_harness import LOGIN, PASSWORD, Practice, plain_message, tls_contexts

__all__ = ["LOGIN", "PASSWORD", "Practice", "plain_message", "tls_contexts"]
SETTINGS = POP3Settings(failed_login_delay_seconds=0)
TOKEN = "eyJ.token"


@dataclass
class FakeAuthenticator:
    accounts: dict[tuple[str, str], Account]
    takes_tokens: bool = False
    error: Exception | None = None
    calls: list[tuple[str, str, str]] = field(default_factory=list)

    async def authenticate(self, login: str, password: bytes, peer: str, protocol: str = "imap") -> Account | None:
        self.calls.append((login, peer, protocol))
        if self.error is not None:
            raise self.error
        return self.accounts.get((login, password.decode("utf-8", "replace")))

    async def authenticate_token(self, token: str, login_hint: str, peer: str, protocol: str) -> Account | None:
        self.calls.append((login_hint, peer, protocol))
        return next(iter(self.accounts.values())) if token == TOKEN else None


class FakeHandle:
    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.over = 0
        self._interrupt: Any = None

    def on_end(self, interrupt: Any) -> None:
        self._interrupt = interrupt

    async def end(self) -> None:
        self.over += 1

    def end_from_outside(self) -> None:
        self.ended.set()
        self._interrupt()


class FakeRegistry:
    """Whoever logged in, in order."""

    def __init__(self) -> None:
        self.handles: list[FakeHandle] = []
        self.begun: list[tuple[int, str, str]] = []

    def begin(self, account: Account, protocol: str, peer: str) -> SessionHandle:
        self.begun.append((account.id, protocol, peer))
        self.handles.append(FakeHandle())
        return self.handles[-1]


class RawClient(RawConnection):
    """Sends exactly what it is told, and reads whole responses."""

    async def line(self) -> bytes:
        """One line without its end; empty at the end of the connection."""
        line = await asyncio.wait_for(self.reader.readline(), 20)
        assert not line or line.endswith(b"\r\n"), line
        return line[:-2]

    async def cmd(self, command: str | bytes) -> bytes:
        """Send a command; its first line."""
        await self.send((command if isinstance(command, bytes) else command.encode()) + b"\r\n")
        return await self.line()

    async def ok(self, command: str | bytes) -> bytes:
        """As cmd; the command must succeed. Returns what follows +OK."""
        answer = await self.cmd(command)
        assert answer.startswith(b"+OK"), answer
        return answer[3:].strip()

    async def err(self, command: str | bytes) -> bytes:
        """As cmd; the command must fail. Returns what follows -ERR."""
        answer = await self.cmd(command)
        assert answer.startswith(b"-ERR "), answer
        return answer[5:]

    async def raw_lines(self, command: str | bytes) -> bytes:
        """The body of a multi-line response as it came, up to the line that ends it."""
        await self.ok(command)
        return await self.rest()

    async def rest(self) -> bytes:
        """As raw_lines, of a response that has begun. Lines end with CRLF, as a strict client sees them."""
        body = b""
        while not (body == b".\r\n" or body.endswith(b"\r\n.\r\n")):
            body += await asyncio.wait_for(self.reader.readuntil(b"\r\n"), 20)
        return body[:-3]

    async def lines(self, command: str | bytes) -> list[bytes]:
        """The lines of a multi-line response."""
        return (await self.raw_lines(command)).split(b"\r\n")[:-1]

    async def message(self, command: str | bytes) -> bytes:
        """A message, with the dots taken off as RFC 1939 says."""
        return unstuffed(await self.raw_lines(command))

    async def login(self, login: str = LOGIN, password: str = PASSWORD) -> None:
        await self.ok(f"USER {login}")
        await self.ok(f"PASS {password}")

    async def tls(self) -> None:
        await self.ok("STLS")
        await self.writer.start_tls(tls_contexts()[1], server_hostname="localhost")


def unstuffed(body: bytes) -> bytes:
    """What a strict client makes of a response: a line ends with CRLF, and the first dot of a line goes."""
    if body.startswith(b"."):
        body = body[1:]
    return body.replace(b"\r\n.", b"\r\n")


@dataclass
class Bench:
    practice: Practice
    authenticator: FakeAuthenticator
    maildrops: Maildrops
    registry: FakeRegistry
    listener: POP3Listener

    @property
    def tls_port(self) -> int:
        assert self.listener.ports.tls is not None
        return self.listener.ports.tls

    @property
    def stls_port(self) -> int:
        assert self.listener.ports.starttls is not None
        return self.listener.ports.starttls

    @asynccontextmanager
    async def client(self, *, tls: bool = True, greet: bool = True) -> AsyncIterator[RawClient]:
        """A connection, greeted."""
        context = tls_contexts()[1] if tls else None
        port = self.tls_port if tls else self.stls_port
        reader, writer = await asyncio.open_connection("localhost", port, ssl=context, limit=1 << 24)
        client = RawClient(reader, writer)
        try:
            if greet:
                assert (await client.line()).startswith(b"+OK ")
            yield client
        finally:
            await client.close()

    @asynccontextmanager
    async def logged_in(self) -> AsyncIterator[RawClient]:
        async with self.client() as client:
            await client.login()
            yield client

    async def uidls(self) -> list[bytes]:
        """The unique-ids that a new session is shown."""
        async with self.logged_in() as client:
            return [line.split()[1] for line in await client.lines("UIDL")]

    async def events(self, *actions: str) -> list[tuple[str, str, dict[str, Any]]]:
        """(action, subject, detail) of every audit event of these actions, in order."""

        def work(unit: UnitOfWork) -> list[tuple[str, str, dict[str, Any]]]:
            assert isinstance(unit, SQLUnitOfWork)
            rows = unit.audit.events()
            return [(row.action, row.subject, json.loads(row.detail)) for row in rows if row.action in actions]

        return await self.practice.store.read(work)


@asynccontextmanager
async def bench(
    folder: Path, settings: POP3Settings = SETTINGS, contents: Sequence[bytes] = ()
) -> AsyncIterator[Bench]:
    practice = await Practice.create(folder)
    try:
        for content in contents:
            await practice.file(content)
        authenticator = FakeAuthenticator({(LOGIN, PASSWORD): practice.account})
        inbox = QuarantineInbox(Indexer(), practice.store, practice.clock, practice.hub, IMAPSettings())
        maildrops = Maildrops(practice.store, practice.clock, inbox, settings.folder)
        registry = FakeRegistry()
        listener = POP3Listener(
            replace(settings, host="127.0.0.1"),
            authenticator,
            maildrops,
            tls_contexts()[0],
            sessions=registry,
            starttls_port=0,
            tls_port=0,
        )
        await listener.start()
        try:
            yield Bench(practice, authenticator, maildrops, registry, listener)
        finally:
            await listener.close()
            assert listener.connections == 0
    finally:
        practice.store.close()
