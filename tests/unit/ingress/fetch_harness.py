"""One account, a real store, and a scripted upstream server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gateway.core.fetch_settings import FetchSettings
from gateway.core.fetching import FetchItem, FetchStatus
from gateway.core.message import Inbound
from gateway.ingress.fetch_account import AccountFetcher
from gateway.ingress.fetch_intake import Surroundings
from gateway.observability.clock import SystemClock
from gateway.pipeline.accept import Accept
from gateway.pipeline.byte_gate import ByteGate
from gateway.ports import UnitOfWork
from gateway.store.ids import new_id
from gateway.store.sql_store import SQLStore
from tests.support.store_samples import ALICE, BOB, open_store

Also = Callable[[UnitOfWork, str], None] | None


@dataclass
class Desk:
    """Fetches into a store; what was accepted stands in ``accepted``."""

    store: SQLStore
    account: FetchSettings
    accepted: list[Inbound] = field(default_factory=list)
    fail: Callable[[Inbound], None] = lambda _: None
    """Called before each acceptance; raises to refuse."""
    fail_after: Callable[[Inbound], None] = lambda _: None
    """Called after each; raises where the process dies between the commit and the mark."""
    space: bool = True

    def fetcher(self, **changes: Any) -> AccountFetcher:
        """A fresh one, as after a restart."""
        clock = SystemClock()
        accept = Accept(self.store, clock, lambda: new_id(clock.now()), lambda: None)

        async def watched(inbound: Inbound, also: Also = None) -> str:
            self.fail(inbound)
            found = await accept(inbound, also)
            self.accepted.append(inbound)
            self.fail_after(inbound)
            return found

        around = Surroundings(self.store, clock, watched, ByteGate(), lambda _size: self.space)
        return AccountFetcher(replace(self.account, **changes), around, lambda: 1.0)

    async def look(self, **changes: Any) -> FetchStatus:
        """Connect, look once, and tell how the account stands."""
        await self.fetcher(**changes).once(listen=False)
        return self.status

    @property
    def status(self) -> FetchStatus:
        return self.store.read_blocking(lambda rows: rows.fetching.status("upstream"))

    @property
    def troubled(self) -> list[FetchItem]:
        return self.store.read_blocking(lambda rows: rows.fetching.troubled("upstream"))

    @property
    def bodies(self) -> list[bytes]:
        return [b"".join(inbound.raw.parts()) for inbound in self.accepted]

    def messages(self) -> int:
        return len(self.store.read_blocking(lambda rows: rows.messages.newest(limit=1000)))


@contextmanager
def desk_in(folder: Path, port: int, **options: Any) -> Iterator[Desk]:
    secret = folder / "secret"
    secret.write_text("good\n")
    account = FetchSettings(
        name="upstream", host="127.0.0.1", port=port, tls="none", username="clinic", password_file=secret,
        addresses=(ALICE,), after="seen", max_message_mib=1,
    )  # fmt: skip
    with open_store(folder) as store:
        yield Desk(store, replace(account, **options))


def mail(number: int, *, to: str = ALICE, size: int = 0) -> bytes:
    body = b"x" * 76 + b"\r\n"
    return b"To: %s\r\nX-Number: %d\r\n\r\nhello\r\n" % (to.encode(), number) + body * (size // len(body))


__all__ = ["ALICE", "BOB", "Desk", "desk_in", "mail"]
