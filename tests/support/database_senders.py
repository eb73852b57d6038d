"""Senders who put messages through the real ``accept`` step of one or more stores, and remember what they were told."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from gateway.core.errors import StoreError
from gateway.observability.clock import SystemClock
from gateway.pipeline.accept import Accept
from gateway.store.ids import new_id
from gateway.store.sql_store import SQLStore
from tests.support.postgresql import Cluster
from tests.support.store_samples import inbound

SENDERS = 8
CLOCK = SystemClock()


@dataclass
class History:
    """What the senders were told, by the digest of what they sent."""

    acked: dict[str, str] = field(default_factory=dict)
    failed: int = 0

    def violations(self, stored: Counter[str]) -> list[str]:
        """What breaks "acked is a subset of stored, each once"."""
        lost = [f"{one} was acknowledged and is not there" for one in self.acked if not stored[one]]
        return lost + [f"{one} is there {count} times" for one, count in stored.items() if count > 1]

    async def grows(self, by: int, seconds: float = 60) -> None:
        """Wait until so many more were acknowledged."""
        wanted = len(self.acked) + by
        async with asyncio.timeout(seconds):
            while len(self.acked) < wanted:
                await asyncio.sleep(0.05)


def stored(cluster: Cluster, schema: str) -> Counter[str]:
    """How often each digest is in the database."""
    rows = cluster.sql(f"SELECT sha256 FROM {schema}.raw_message", "gateway")  # noqa: S608 - our own name
    return Counter(sha256 for (sha256,) in rows)


def accept(store: SQLStore) -> Accept:
    """The step of the pipeline, without anybody to wake."""
    return Accept(store, CLOCK, lambda: new_id(CLOCK.now()), lambda: None)


@asynccontextmanager
async def sending(stores: Sequence[SQLStore]) -> AsyncIterator[History]:
    """Send without a pause; a sender that was told of a failure comes again, with the same message."""
    history, stopping = History(), asyncio.Event()

    async def send(step: Accept, sender: int) -> None:
        number = 0
        while not stopping.is_set():
            raw = b"%d of %d" % (number, sender)
            try:
                found = await step(inbound(raw))
            except StoreError:
                history.failed += 1
                await asyncio.sleep(0.02)
                continue
            history.acked[hashlib.sha256(raw).hexdigest()] = found
            number += 1

    steps = [accept(store) for store in stores]
    senders = [asyncio.create_task(send(steps[n % len(steps)], n)) for n in range(SENDERS)]
    try:
        yield history
    finally:
        stopping.set()
        await asyncio.gather(*senders)
