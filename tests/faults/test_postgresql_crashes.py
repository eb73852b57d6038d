"""F07 and F08: the server crashes under load, and the line is cut at COMMIT: acked is a subset of stored, each once.

The history is kept by the callers. Each harness is believed because it finds a bug that was put in.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.core.errors import StoreUnavailableError
from gateway.core.lifecycle import JobKind, State
from gateway.ports import UnitOfWork
from gateway.settings import StoreSettings
from gateway.store.ids import new_id
from gateway.store.postgresql_session import Session
from gateway.store.sql_store import SQLStore
from tests.support.body_keys import sealer_in
from tests.support.database_senders import CLOCK, History, accept, sending, stored
from tests.support.postgresql import Cluster, running_cluster, shared_cluster
from tests.support.postgresql_proxy import Cut, Proxy
from tests.support.store_samples import NOW, inbound

CRASHES = 3
LOAD_SECONDS = 0.5


# --- F07 ---


@pytest.fixture(scope="module")
def crashing() -> Iterator[Cluster]:
    # What a session may commit without waiting stays in memory for long: a bug shows at each crash.
    with running_cluster("wal_writer_delay = 10s") as cluster:
        yield cluster


async def under_crashes(cluster: Cluster, settings: StoreSettings, folder: Path) -> History:
    """Send without a pause while the server crashes; a sender that was told of a failure comes again."""
    with SQLStore.open(settings, sealer_in(folder)) as store:
        async with sending([store]) as history:
            for _ in range(CRASHES):
                await history.grows(30)
                await asyncio.sleep(LOAD_SECONDS)
                await asyncio.to_thread(cluster.stop, "immediate")
                await asyncio.to_thread(cluster.start)
    return history


async def test_what_was_acknowledged_survives_crashes_of_the_server(
    crashing: Cluster, tmp_path: Path, report: Callable[[str], None]
) -> None:
    """F07."""
    settings = crashing.settings()
    history = await under_crashes(crashing, settings, tmp_path)
    assert history.failed
    assert history.violations(stored(crashing, settings.schema)) == []
    report(f"F07 {CRASHES} crashes of the server, {len(history.acked)} acked, 0 lost, 0 duplicated")


@pytest.mark.slow
async def test_the_harness_sees_commits_that_do_not_wait_for_the_disk(
    crashing: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seeded bug: synchronous_commit=off, and no look whether it is on."""
    begin = Session.begin

    def careless(self: Session, connection: object) -> None:
        begin(self, connection)  # type: ignore[arg-type]
        connection.autocommit = True  # type: ignore[attr-defined]
        connection.execute("SET synchronous_commit = off")  # type: ignore[attr-defined]
        connection.autocommit = False  # type: ignore[attr-defined]

    monkeypatch.setattr(Session, "begin", careless)
    settings = crashing.settings()
    history = await under_crashes(crashing, settings, tmp_path)
    assert history.violations(stored(crashing, settings.schema)) != []


# --- F08 ---


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    made = Proxy(shared_cluster().port)
    yield made
    made.close()


def behind(proxy: Proxy, **changes: object) -> StoreSettings:
    return shared_cluster().settings(url=shared_cluster().url(port=proxy.port), **changes)


async def with_cuts(proxy: Proxy, settings: StoreSettings, folder: Path, send: Callable[[SQLStore], object]) -> History:
    """Send 30 messages; the line is cut at most commits, before or after the server had it."""
    history = History()
    with SQLStore.open(settings, sealer_in(folder)) as store:
        step = send(store)
        for number in range(30):
            raw = b"message %d" % number
            cut = (Cut.AFTER, Cut.BEFORE, Cut.NEVER)[number % 3]
            proxy.cut = cut
            for _ in range(50):
                try:
                    found = await step(inbound(raw))  # type: ignore[operator]
                except StoreUnavailableError:
                    history.failed += 1
                    await asyncio.sleep(0.02)
                else:
                    history.acked[hashlib.sha256(raw).hexdigest()] = found
                    break
    return history


async def test_a_line_cut_at_the_commit_is_a_failure_and_coming_again_is_safe(
    proxy: Proxy, tmp_path: Path, report: Callable[[str], None]
) -> None:
    """F08: the outcome is not known; the same message again gets the id that is there, and there is one row."""
    settings = behind(proxy)
    history = await with_cuts(proxy, settings, tmp_path, accept)
    assert proxy.cuts == 20
    assert history.failed >= 20
    assert len(history.acked) == 30
    assert history.violations(stored(shared_cluster(), settings.schema)) == []
    rows = shared_cluster().sql(f"SELECT sha256, id FROM {settings.schema}.raw_message", "gateway")  # noqa: S608
    assert dict(rows) == history.acked
    jobs = shared_cluster().sql(f"SELECT subject FROM {settings.schema}.job", "gateway")  # noqa: S608
    assert Counter(subject for (subject,) in jobs) == Counter(history.acked.values())
    report(f"F08 {proxy.cuts} cuts at COMMIT, {len(history.acked)} acked, 0 lost, 0 duplicated")


async def test_the_harness_sees_a_sender_whose_repetition_is_not_recognised(proxy: Proxy, tmp_path: Path) -> None:
    """The seeded bug: a message is kept without a look for duplicates."""

    def careless(store: SQLStore) -> object:
        def keep(rows: UnitOfWork, message: object) -> str:
            message_id = new_id(CLOCK.now())
            rows.messages.add_raw(message_id, NOW, message)  # type: ignore[arg-type]
            rows.messages.set_state(message_id, State.RECEIVED, NOW)
            return message_id

        async def step(message: object) -> str:
            return await store.write(lambda rows: keep(rows, message))

        return step

    settings = behind(proxy)
    history = await with_cuts(proxy, settings, tmp_path, careless)
    assert history.violations(stored(shared_cluster(), settings.schema)) != []


async def test_a_step_whose_commit_was_cut_is_done_once(proxy: Proxy, tmp_path: Path) -> None:
    """The pool hears of a failure; where the commit was done its job is gone, so it settles nothing."""
    with SQLStore.open(behind(proxy), sealer_in(tmp_path)) as store:
        await store.write(lambda tx: tx.jobs.enqueue(JobKind.FILE, "m"))
        [job] = await store.write(lambda tx: tx.jobs.claim(300, 10))

        def work(tx: UnitOfWork) -> None:
            assert tx.jobs.finish(job)
            tx.jobs.enqueue(JobKind.LINK, "m")

        proxy.cut = Cut.AFTER
        with pytest.raises(StoreUnavailableError):
            await store.write(work)
        assert not await store.write(lambda tx: tx.jobs.fail(job, "E", timedelta(0)))
        left = await store.write(lambda tx: tx.jobs.claim(300, 10))
        assert [(j.kind, j.attempt) for j in left] == [(JobKind.LINK, 1)]


async def test_a_partition_in_the_middle_of_a_commit_gives_the_turn_to_the_others(proxy: Proxy, tmp_path: Path) -> None:
    """The node that is cut off holds the writers' lock; the server ends its session, and another goes on."""
    settings = behind(proxy, frozen_after_seconds=1)
    with (
        SQLStore.open(settings, sealer_in(tmp_path)) as cut_off,
        SQLStore.open(replace(settings, url=shared_cluster().url(), node="other"), sealer_in(tmp_path)) as other,
    ):
        entered, go = threading.Event(), threading.Event()

        def slow(tx: UnitOfWork) -> None:
            tx.jobs.enqueue(JobKind.FILE, "lost")
            entered.set()
            assert go.wait(20)
            tx.jobs.enqueue(JobKind.FILE, "lost too")

        held = asyncio.create_task(cut_off.write(slow))
        await asyncio.to_thread(entered.wait, 10)
        proxy.partition()
        go.set()
        begun = time.monotonic()
        await other.write(lambda tx: tx.jobs.enqueue(JobKind.FILE, "kept"))
        assert time.monotonic() - begun < 5
        proxy.heal()
        with pytest.raises(StoreUnavailableError):
            await held
        jobs = await other.write(lambda tx: tx.jobs.claim(60, 10))
        assert [job.subject for job in jobs] == ["kept"]
        await cut_off.write(lambda tx: tx.jobs.enqueue(JobKind.FILE, "again"))
