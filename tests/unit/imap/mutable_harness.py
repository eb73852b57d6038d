"""The real listener over mailboxes that lose messages: those of the conformance tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from gateway.imap.listener import IMAPListener
from gateway.inbox.mutable.service import MutableInbox
from gateway.inbox.service import Grant
from gateway.ports import Account
from tests.unit.imap.imap_harness import (
    LOGIN,
    PASSWORD,
    SETTINGS,
    Bench,
    FakeAuthenticator,
    RawClient,
    TestClock,
    plain_message,
    tls_contexts,
)

ACCOUNT = Account(1, LOGIN, "x")


@dataclass
class MutableBench(Bench):
    """A listener whose mailboxes can be changed behind its clients' backs, too."""

    mutable: MutableInbox

    async def add(self, number: int, name: str = "INBOX", *flags: str) -> int:
        """Put a message in; its UID."""
        _, uid = await self.mutable.append(ACCOUNT, name, frozenset(flags), None, plain_message(number))
        return uid

    async def grant(self, name: str = "INBOX") -> Grant:
        return await self.mutable.open(ACCOUNT, name)

    async def drop(self, *uids: int, name: str = "INBOX") -> None:
        """Let messages leave: another session has expunged them."""
        grant = await self.grant(name)
        mailbox = self.mutable._of(grant.mailbox)
        mailbox.remove(mailbox.present_slots(uids))
        self.mutable.hub.changed(mailbox.id)

    async def modseq(self, name: str = "INBOX") -> int:
        return (await self.grant(name)).mailbox.highest_modseq

    async def uid_validity(self, name: str = "INBOX") -> int:
        return (await self.grant(name)).mailbox.uid_validity


@asynccontextmanager
async def mutable_bench(messages: int = 0) -> AsyncIterator[MutableBench]:
    """With so many messages in INBOX, UIDs from 1."""
    mutable = MutableInbox(TestClock())
    authenticator = FakeAuthenticator({(LOGIN, PASSWORD): ACCOUNT})
    listener = IMAPListener(
        replace(SETTINGS, host="127.0.0.1"), authenticator, mutable, tls_contexts()[0], starttls_port=0, tls_port=0
    )
    await listener.start()
    try:
        here = MutableBench(None, authenticator, mutable, listener, mutable)  # type: ignore[arg-type]
        for number in range(1, messages + 1):
            await here.add(number)
        async with here.selected():
            pass  # Nothing is recent any more.
        yield here
    finally:
        await listener.close()
        assert listener.connections == 0


async def enabled(client: RawClient, select: str = "SELECT INBOX") -> list[bytes]:
    """Enable QRESYNC and select; the untagged responses of SELECT."""
    await client.ok("ENABLE QRESYNC")
    return await client.ok(select)
