"""The real listener on real sockets over the real store, and a client that speaks raw bytes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import ssl
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from gateway.core.lifecycle import State
from gateway.core.message import Envelope, Inbound, MemoryBody, Source
from gateway.core.standing import Standing
from gateway.core.verdict import Judgement, Reason
from gateway.imap.listener import IMAPListener
from gateway.inbox.change_hub import ChangeHub
from gateway.inbox.indexer import Indexer
from gateway.inbox.service import Inbox
from gateway.inbox.views_inbox import ViewsInbox
from gateway.keys.development_pki import DevelopmentCA
from gateway.ports import Account, MailboxEntry, UnitOfWork
from gateway.serving.session_registry import SessionRegistry
from gateway.settings import IMAPSettings, StoreSettings
from gateway.store.sql_store import SQLStore
from gateway.store.unit import SQLUnitOfWork
from tests.support.body_keys import sealer_in
from tests.support.raw_connection import RawConnection

LOGIN = "front.desk"
PASSWORD = 'pa ss"w\\örd{3}'
MULTIPART = (
    b"From: Dr. A <a@direct.example.net>\r\nTo: b@direct.example.org\r\nSubject: Referral\r\n"
    b"Message-ID: <1@direct.example.net>\r\nDate: Fri, 01 Mar 2024 10:00:00 +0000\r\nMIME-Version: 1.0\r\n"
    b'Content-Type: multipart/mixed; boundary="b"\r\n\r\npreamble\r\n'
    b"--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nPlease see the patient.\r\n"
    b'--b\r\nContent-Type: application/xml; name="ccda.xml"\r\nContent-Transfer-Encoding: base64\r\n'
    b'Content-Disposition: attachment; filename="ccda.xml"\r\n\r\nPGE+PC9hPg==\r\n--b--\r\n'
)
SETTINGS = IMAPSettings(failed_login_delay_seconds=0, views=False)
_LITERAL = re.compile(rb"\{(\d+)\}\r\n\Z")


def plain_message(number: int, body: bytes = b"text\r\n") -> bytes:
    return b"From: a@direct.example.net\r\nSubject: number %d\r\n\r\n" % number + body


@lru_cache(maxsize=1)
def tls_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext, bytes]:
    """A server's and a client's context, and the CA in PEM. EC keys: quick to make."""
    authority = DevelopmentCA.create("Test CA", now=datetime.now(UTC), key_type="p256")
    issued = authority.issue_tls(["localhost", "127.0.0.1"])
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = Path(folder, "cert.pem"), Path(folder, "key.pem")
        certificate.write_bytes(issued.certificate_pem)
        key.write_bytes(issued.key_pem)
        server.load_cert_chain(certificate, key)
    client = ssl.create_default_context(cadata=authority.certificate_pem.decode())
    return server, client, authority.certificate_pem


class TestClock:
    """Every look is a second later."""

    __test__ = False

    def __init__(self) -> None:
        self._now = datetime(2024, 3, 1, 12, 0, 0, tzinfo=UTC)

    def now(self) -> datetime:
        self._now += timedelta(seconds=1)
        return self._now


@dataclass
class FakeAuthenticator:
    accounts: dict[tuple[str, str], Account]
    takes_tokens: bool = False
    tokens: dict[str, Account] = field(default_factory=dict)
    error: Exception | None = None
    calls: list[tuple[str, str]] = field(default_factory=list)

    async def authenticate(self, login: str, password: bytes, peer: str, protocol: str = "imap") -> Account | None:
        assert protocol == "imap"
        self.calls.append((login, peer))
        if self.error is not None:
            raise self.error
        return self.accounts.get((login, password.decode("utf-8", "replace")))

    async def authenticate_token(self, token: str, login_hint: str, peer: str, protocol: str) -> Account | None:
        assert protocol == "imap"
        self.calls.append((login_hint, peer))
        return self.tokens.get(token)


@dataclass
class Practice:
    """A store with one account that has INBOX and a nested folder, and a way to file messages."""

    store: SQLStore
    clock: TestClock
    hub: ChangeHub
    account: Account
    inbox_id: int
    nested_id: int
    count: int = 0

    @classmethod
    async def create(cls, folder: Path) -> Practice:
        store = SQLStore.open(StoreSettings(url=f"sqlite:///{folder}/gateway.db"), sealer_in(folder))
        clock = TestClock()

        def work(unit: UnitOfWork) -> tuple[Account, int, int]:
            at = clock.now()
            inbox_id = unit.mailboxes.create("desk", at, ["b@direct.example.org"])
            nested_id = unit.mailboxes.create("labs", at, ["labs@direct.example.org"])
            account_id = unit.accounts.add(LOGIN, "x", at)
            unit.accounts.grant(account_id, "INBOX", inbox_id, "lrsw")
            unit.accounts.grant(account_id, "Shared/Läbs", nested_id, "lrsw")
            return Account(account_id, LOGIN, "x"), inbox_id, nested_id

        account, inbox_id, nested_id = await store.write(work)
        return cls(store, clock, ChangeHub(store), account, inbox_id, nested_id)

    async def file(
        self, content: bytes, mailbox_id: int | None = None, *, hint: bool = True, standing: Standing | None = None
    ) -> int:
        """File a message as the pipeline does; returns its UID. Without ``standing`` it has no keyword and no view."""
        mailbox_id = mailbox_id or self.inbox_id
        self.count += 1
        message_id = f"m{self.count:05d}"
        digest = hashlib.sha256(content).hexdigest()
        accepted = Judgement(
            Reason.OK,
            "",
            ("b@direct.example.org",),
            sender="a@direct.example.net",
            content=content,
            inner_sha256=digest,
        )

        def work(unit: UnitOfWork) -> int | None:
            at = self.clock.now()
            envelope = Envelope("a@direct.example.net", ("b@direct.example.org",))
            raw = b"encrypted " + message_id.encode()
            unit.messages.add_raw(message_id, at, Inbound(MemoryBody(raw), envelope, Source.SMTP))
            unit.messages.set_state(message_id, State.RECEIVED, at)
            unit.messages.add_content(message_id, accepted)
            return unit.mailboxes.add(mailbox_id, message_id, digest, Indexer().index(content), at, standing=standing)

        uid = await self.store.write(work)
        assert uid is not None
        if hint:
            self.hub.changed(mailbox_id)
        return uid

    async def entries(self) -> list[MailboxEntry]:
        return await self.store.read(lambda unit: unit.mailboxes.entries(self.inbox_id))

    async def flags(self, uid: int = 1) -> set[str]:
        return set(next(entry.flags for entry in await self.entries() if entry.uid == uid))

    async def audit(self, action: str) -> list[tuple[str, str]]:
        """(actor, subject) of every audit row with that action."""

        def work(unit: UnitOfWork) -> list[tuple[str, str]]:
            assert isinstance(unit, SQLUnitOfWork)
            return [(row.actor, row.subject) for row in unit.audit.events() if row.action == action]

        return await self.store.read(work)

    async def looks(self) -> list[tuple[str, str, str]]:
        """(action, subject, UIDs) of every look at messages, in order."""

        def work(unit: UnitOfWork) -> list[tuple[str, str, str]]:
            assert isinstance(unit, SQLUnitOfWork)
            kinds = {"message.read", "message.listed"}
            return [
                (row.action, row.subject, json.loads(row.detail).get("uids", ""))
                for row in unit.audit.events()
                if row.action in kinds
            ]

        return await self.store.read(work)


class RawClient(RawConnection):
    """Sends exactly what it is told, and reads whole responses with their literals."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self._tags = 0

    async def response(self) -> bytes:
        """One response without its line end, literals inline; empty at the end of the connection."""
        whole = b""
        while True:
            line = await asyncio.wait_for(self.reader.readline(), 20)
            if not line:
                return whole
            assert line.endswith(b"\r\n"), line
            whole += line
            literal = _LITERAL.search(line)
            if literal is None:
                return whole[:-2]
            whole += await asyncio.wait_for(self.reader.readexactly(int(literal.group(1))), 20)

    async def until(self, tag: bytes) -> list[bytes]:
        """Responses up to and including the tagged one."""
        found: list[bytes] = []
        while not found or not found[-1].startswith(tag + b" "):
            response = await self.response()
            assert response, (b"connection closed after", found)
            found.append(response)
        return found

    async def cmd(self, command: str | bytes) -> list[bytes]:
        """Send a command; its responses, the tagged one last without its tag."""
        self._tags += 1
        tag = b"t%d" % self._tags
        await self.send(tag + b" " + (command if isinstance(command, bytes) else command.encode()) + b"\r\n")
        found = await self.until(tag)
        return [*found[:-1], found[-1].removeprefix(tag + b" ")]

    async def ok(self, command: str | bytes) -> list[bytes]:
        """As cmd; the command must succeed. Returns the untagged responses."""
        *untagged, last = await self.cmd(command)
        assert last.startswith(b"OK"), last
        return untagged

    async def login(self) -> None:
        await self.ok(b"LOGIN " + LOGIN.encode() + b" " + quoted(PASSWORD))


def quoted(text: str) -> bytes:
    return b'"' + text.replace("\\", "\\\\").replace('"', '\\"').encode() + b'"'


@dataclass
class Bench:
    practice: Practice
    authenticator: FakeAuthenticator
    inbox: Inbox
    listener: IMAPListener

    @property
    def tls_port(self) -> int:
        assert self.listener.ports.tls is not None
        return self.listener.ports.tls

    @property
    def starttls_port(self) -> int:
        assert self.listener.ports.starttls is not None
        return self.listener.ports.starttls

    @asynccontextmanager
    async def client(self, *, tls: bool = True, greet: bool = True) -> AsyncIterator[RawClient]:
        """A connection, greeted."""
        context = tls_contexts()[1] if tls else None
        port = self.tls_port if tls else self.starttls_port
        reader, writer = await asyncio.open_connection("localhost", port, ssl=context, limit=1 << 20)
        client = RawClient(reader, writer)
        try:
            if greet:
                assert (await client.response()).startswith(b"* OK ")
            yield client
        finally:
            await client.close()

    @asynccontextmanager
    async def selected(self, mailbox: str = "INBOX") -> AsyncIterator[RawClient]:
        """A connection that is logged in and has a mailbox selected."""
        async with self.client() as client:
            await client.login()
            await client.ok(f"SELECT {mailbox}")
            yield client


@asynccontextmanager
async def bench(
    folder: Path,
    settings: IMAPSettings = SETTINGS,
    contents: Sequence[bytes] = (),
    sessions: SessionRegistry | None = None,
) -> AsyncIterator[Bench]:
    practice = await Practice.create(folder)
    try:
        for content in contents:
            await practice.file(content)
        authenticator = FakeAuthenticator({(LOGIN, PASSWORD): practice.account})
        inbox = ViewsInbox(practice.store, practice.clock, practice.hub, settings)
        listener = IMAPListener(
            replace(settings, host="127.0.0.1"), authenticator, inbox, tls_contexts()[0], starttls_port=0, tls_port=0,
            sessions=sessions,
        )  # fmt: skip
        await listener.start()
        try:
            yield Bench(practice, authenticator, inbox, listener)
        finally:
            await listener.close()
            assert listener.connections == 0
    finally:
        practice.store.close()
