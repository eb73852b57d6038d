"""Hints between nodes: gathered, heard by the others only, and lost without harm (F37)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from gateway.ports import Hints
from gateway.settings import StoreSettings
from gateway.store.postgresql_address import PostgreSQLAddress
from gateway.store.postgresql_hints import PostgreSQLHints, hear
from gateway.store.sql_store import SQLStore
from tests.support.body_keys import sealer_in
from tests.support.postgresql import Cluster, shared_cluster
from tests.support.store_samples import open_store


@dataclass
class Heard:
    """Remembers what was hinted at."""

    mailboxes: list[int] = field(default_factory=list)
    jobs: int = 0
    looks: int = 0
    came: asyncio.Event = field(default_factory=asyncio.Event)

    def mailbox_changed(self, mailbox_id: int) -> None:
        self.mailboxes.append(mailbox_id)
        self.came.set()

    def jobs_wait(self) -> None:
        self.jobs += 1
        self.came.set()

    def look_again(self) -> None:
        self.looks += 1
        self.came.set()

    async def next(self) -> None:
        async with asyncio.timeout(20):
            await self.came.wait()
        self.came.clear()


@pytest.fixture
def cluster() -> Cluster:
    return shared_cluster()


@pytest.fixture
def settings(cluster: Cluster) -> StoreSettings:
    return cluster.settings()


@asynccontextmanager
async def node(settings: StoreSettings) -> AsyncIterator[tuple[Hints, Heard]]:
    hints, heard = PostgreSQLHints(PostgreSQLAddress.parse(settings)), Heard()
    task = asyncio.create_task(hints.run(heard))
    try:
        await heard.next()  # It is connected, and looks at everything once.
        yield hints, heard
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_the_others_hear_and_the_teller_does_not(settings: StoreSettings) -> None:
    async with node(settings) as (tells, own), node(settings) as (_, first), node(settings) as (_, second):
        tells.mailbox_changed(7)
        tells.jobs_wait()
        await first.next()
        await second.next()
        assert [(h.mailboxes, h.jobs, h.looks) for h in (first, second)] == [([7], 1, 1)] * 2
        assert (own.mailboxes, own.jobs, own.looks) == ([], 0, 1)


async def test_many_changes_are_one_hint_and_another_schema_hears_nothing(
    settings: StoreSettings, cluster: Cluster
) -> None:
    async with node(settings) as (tells, _), node(settings) as (_, hears), node(cluster.settings()) as (_, stranger):
        for _ in range(1000):
            tells.mailbox_changed(3)
            await asyncio.to_thread(tells.mailbox_changed, 4)
        await hears.next()
        await asyncio.sleep(0.3)
        assert set(hears.mailboxes) == {3, 4}
        assert len(hears.mailboxes) < 60
        for mailbox in range(1, 1001):
            tells.mailbox_changed(mailbox)
        hears.came.clear()
        await hears.next()
        # More than fit into one hint: everything is to be looked at.
        assert hears.looks >= 2
        assert (stranger.mailboxes, stranger.looks) == ([], 1)


async def test_a_lost_connection_is_made_again_and_everything_is_looked_at(
    settings: StoreSettings, cluster: Cluster
) -> None:
    async with node(settings) as (tells, _), node(settings) as (_, hears):
        cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '% hints'")
        await hears.next()
        assert hears.looks == 2
        for _ in range(200):
            # The teller's own connection was lost as well, and hints with it.
            tells.mailbox_changed(5)
            await asyncio.sleep(0.05)
            if hears.mailboxes:
                break
        assert set(hears.mailboxes) == {5}


async def test_a_server_that_is_away_raises_nothing_and_costs_no_time(
    settings: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hints, heard = PostgreSQLHints(PostgreSQLAddress.parse(settings)), Heard()
    tries = 0

    async def refused(*_: object, **__: object) -> None:
        nonlocal tries
        tries += 1
        raise OSError

    monkeypatch.setattr(psycopg.AsyncConnection, "connect", refused)
    task = asyncio.create_task(hints.run(heard))
    await asyncio.sleep(1.2)
    hints.mailbox_changed(1)
    hints.jobs_wait()
    assert not task.done()
    assert tries == 2
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    "payload",
    ["", "x", "[]", "7", '"all"', '{"mailboxes": 7}', '{"mailboxes": ["a", null, true, -1, 0, 1e3]}', '{"jobs": 1}',
     '{"all": "yes"}', "[" * 5000],
)  # fmt: skip
def test_what_is_no_hint_of_ours_is_passed_over(payload: str) -> None:
    heard = Heard()
    hear(payload, heard)
    assert (heard.mailboxes, heard.jobs, heard.looks) == ([], 0, 0)


async def test_with_one_node_there_is_nobody_to_tell(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        assert store.hints.mailbox_poll_seconds == 2.0
        store.hints.mailbox_changed(1)
        store.hints.jobs_wait()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(store.hints.run(Heard()), 0.05)


async def test_nobody_sends_a_hint_in_the_transaction_of_a_unit(settings: StoreSettings, tmp_path: Path) -> None:
    """Finding 7: it would cost all nodes a lock until the commit."""
    with SQLStore.open(settings, sealer_in(tmp_path)) as store:
        assert store.hints.mailbox_poll_seconds == 20.0
        store.hints.mailbox_changed(1)  # Nothing runs: it is kept for later, and needs no connection.
        await store.write(lambda _: None)
