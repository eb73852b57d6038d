"""A listener on a real socket with an accept in memory, and a client that speaks raw bytes."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from gateway.core.message import Inbound
from gateway.ingress.recipients import LocalRecipients, RecipientStatus
from gateway.ingress.smtp_server import SMTPListener
from gateway.ingress.spool import Spool
from gateway.observability.log import get_log
from gateway.settings import SMTPSettings
from tests.support.raw_connection import RawConnection

DOCTOR = "doctor@direct.example.org"
NURSE = "nurse@direct.example.org"
SENDER = "sender@hisp.example.net"
SETTINGS = SMTPSettings(port=0, hostname="mail.direct.example.org")


@dataclass
class FakeAccept:
    """Keeps what it is given; may fail, and may be held back by clearing ``gate``."""

    errors: list[BaseException] = field(default_factory=list)
    inbounds: list[Inbound] = field(default_factory=list)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def __call__(self, inbound: Inbound) -> str:
        self.started.set()
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        self.inbounds.append(inbound)
        self.finished.set()
        return f"m{len(self.inbounds)}"

    @property
    def raws(self) -> list[bytes]:
        return [b"".join(inbound.raw.parts()) for inbound in self.inbounds]


class Client(RawConnection):
    """A client that sends exactly what it is told."""

    async def reply(self) -> str:
        """One reply, its lines joined by newline; empty when the connection is closed."""
        lines: list[str] = []
        while line := (await asyncio.wait_for(self.reader.readline(), 20)).decode():
            assert line.endswith("\r\n"), line
            lines.append(line[:-2])
            if line[3:4] == " ":
                break
        return "\n".join(lines)

    async def cmd(self, line: str | bytes) -> str:
        data = line if isinstance(line, bytes) else line.encode()
        await self.send(data + b"\r\n")
        return await self.reply()

    async def ehlo(self) -> None:
        assert (await self.reply()).startswith("220 ")
        assert (await self.cmd("EHLO client.example.net")).startswith("250-")

    async def begin(self, sender: str = SENDER, *recipients: str) -> None:
        """Up to and including 354."""
        assert (await self.cmd(f"MAIL FROM:<{sender}>")).startswith("250 2.1.0")
        for recipient in recipients or (DOCTOR,):
            assert (await self.cmd(f"RCPT TO:<{recipient}>")).startswith("250 2.1.5")
        assert (await self.cmd("DATA")).startswith("354 ")

    async def deliver(self, wire: bytes) -> str:
        """A whole transaction; ``wire`` is sent as it is, with its end mark."""
        await self.begin()
        await self.send(wire)
        return await self.reply()


@dataclass
class Bench:
    listener: SMTPListener
    accept: FakeAccept

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.listener.port)
        client = Client(reader, writer)
        try:
            yield client
        finally:
            await client.close()

    async def still_serves(self) -> None:
        """A new client gets a message through: whatever happened before hurt nobody else."""
        before = len(self.accept.inbounds)
        async with self.client() as client:
            await client.ehlo()
            assert (await client.deliver(b"still: here\r\n\r\nyes\r\n.\r\n")).startswith("250 2.0.0")
        assert len(self.accept.inbounds) == before + 1


@asynccontextmanager
async def bench(
    settings: SMTPSettings = SETTINGS,
    *,
    tls: ssl.SSLContext | None = None,
    is_local_recipient: Callable[[str], RecipientStatus] | None = None,
    free_space: Callable[[], int] | None = None,
    grace_seconds: float = 5,
) -> AsyncIterator[Bench]:
    accept = FakeAccept()
    with tempfile.TemporaryDirectory() as folder:
        listener = SMTPListener(
            replace(settings, port=0),
            accept=accept,
            is_local_recipient=is_local_recipient or LocalRecipients(["direct.example.org"], [DOCTOR, NURSE]),
            tls=tls,
            log=get_log("ingress"),
            spool=Spool(Path(folder)),
            free_space=free_space,
        )
        await listener.start()
        try:
            yield Bench(listener, accept)
        finally:
            accept.gate.set()
            await listener.close(grace_seconds)
