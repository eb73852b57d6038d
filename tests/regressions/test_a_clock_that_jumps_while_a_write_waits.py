"""A node's clock that jumps while a write waits for its turn moves no job and no lease (F11).

Callers gave moments of their own clock, read before the wait for the writers' lock; how far the database's clock was
ahead of it was measured after. When the clock jumped by an hour in between, accepted mail became due in an hour, a
lease lasted for an hour too long or was taken from a node that held it. On SQLite mail that was accepted by a clock
that was then set back waited for an hour as well, when the workers had seen the jump before the commit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Connection, select

from gateway.core.lifecycle import JobKind
from gateway.ingress.fetch_service import FetchService
from gateway.observability.clock import SystemClock
from gateway.pipeline.accept import Accept
from gateway.ports import Job
from gateway.settings import JobSettings
from gateway.store import postgresql_engine
from gateway.store.ids import new_id
from gateway.store.sql_store import SQLStore
from gateway.store.tables import fetch_status
from gateway.store.tables import job as job_table
from gateway.workers.pool import WorkerPool
from tests.support.body_keys import sealer_in
from tests.support.postgresql import shared_cluster
from tests.support.store_samples import inbound, settings_for

HOUR = 3600
SOON = timedelta(seconds=30)
JUMPS = pytest.mark.parametrize(("jump", "late"), [(HOUR, False), (-HOUR, False), (HOUR, True), (-HOUR, True)], ids=str)
"""By how much, and whether the clock jumps as soon as the lock was had, and not just before."""


class Node:
    """A daemon's part on a machine whose clock the test sets, and the store that it works on."""

    def __init__(self, store: SQLStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = store
        self.ahead = 0.0
        self._patch = monkeypatch
        # Whatever the program reads the time of day from on this machine.
        monkeypatch.setattr(SystemClock, "now", lambda _clock: self.now())
        words = {"time": lambda: self.now().timestamp(), "monotonic": time.monotonic, "sleep": time.sleep}
        monkeypatch.setattr(postgresql_engine, "time", SimpleNamespace(**words))

    def now(self) -> datetime:
        return datetime.fromtimestamp(time.time() + self.ahead, UTC)

    def will_jump(self, seconds: float, *, late: bool) -> None:
        """Let the clock jump at the next write, when its units are on their way."""
        begin = self.store._database.begin_group

        def jump_once(connection: Connection) -> Any:
            self._patch.setattr(self.store._database, "begin_group", begin)
            if not late:
                self.ahead += seconds
            begun = begin(connection)
            if late:
                self.ahead += seconds
            return begun

        self._patch.setattr(self.store._database, "begin_group", jump_once)

    def pool(self, step: Callable[[Job], Any], store: SQLStore | None = None) -> WorkerPool:
        kinds = dict.fromkeys(JobKind, step)
        return WorkerPool(store or self.store, self, kinds, JobSettings(lease_seconds=60), lambda: 1.0)

    def times(self) -> tuple[datetime | None, datetime]:
        """End of the lease, and when it is due, of the only job."""
        with self.store._reader_engine.connect() as connection:
            lease_until, run_at = connection.execute(select(job_table.c.lease_until, job_table.c.run_at)).one()
        return lease_until, run_at


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Node, SQLStore]]:
    """One whose clock jumps, and the store as another node with a right clock has it."""
    settings = shared_cluster().settings()
    with ExitStack() as stack:
        one, two = (
            stack.enter_context(SQLStore.open(replace(settings, node=name), sealer_in(tmp_path)))
            for name in ("jumps", "right")
        )
        yield Node(one, monkeypatch), two


def right_time() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


async def accept(node: Node) -> None:
    await Accept(node.store, node, lambda: new_id(node.now()), lambda: None)(inbound())


@JUMPS
async def test_accepted_mail_is_due_at_once(nodes: tuple[Node, SQLStore], jump: int, late: bool) -> None:
    node, right = nodes
    node.will_jump(jump, late=late)
    await accept(node)
    _, due = node.times()
    assert abs(due - right_time()) < SOON
    done: list[str] = []

    async def step(job: Job) -> None:
        await right.write(lambda tx: tx.jobs.finish(job))
        done.append(job.subject)

    assert await node.pool(step, right).drain() == 1
    assert len(done) == 1


@JUMPS
async def test_a_lease_lasts_as_long_as_it_was_asked_for(nodes: tuple[Node, SQLStore], jump: int, late: bool) -> None:
    node, _ = nodes
    await accept(node)
    seen: list[datetime | None] = []

    async def step(job: Job) -> None:
        seen.append(node.times()[0])
        await node.store.write(lambda tx: tx.jobs.finish(job))

    node.will_jump(jump, late=late)
    assert await node.pool(step).drain() == 1
    [until] = seen
    assert until is not None
    assert abs(until - right_time() - timedelta(seconds=60)) < SOON


@JUMPS
async def test_a_lease_of_another_node_is_not_taken(nodes: tuple[Node, SQLStore], jump: int, late: bool) -> None:
    node, right = nodes
    await accept(node)
    held = asyncio.Event()

    async def hold(job: Job) -> None:
        await held.wait()
        assert await right.write(lambda tx: tx.jobs.finish(job)), "somebody took the lease"

    async def step(job: Job) -> None:
        raise AssertionError(job.attempt)

    working = asyncio.create_task(node.pool(hold, right).drain())
    async with asyncio.timeout(10):
        while node.times()[0] is None:
            await asyncio.sleep(0.01)
    node.will_jump(jump, late=late)
    assert await node.pool(step).drain() == 0
    held.set()
    assert await working == 1
    assert await right.read(lambda tx: tx.jobs.troubled()) == []


@JUMPS
async def test_what_failed_waits_for_as_long_as_its_schedule_says(
    nodes: tuple[Node, SQLStore], jump: int, late: bool
) -> None:
    node, _ = nodes
    await accept(node)

    async def step(_job: Job) -> None:
        node.will_jump(jump, late=late)
        raise ValueError

    assert await node.pool(step).drain() == 1
    _, due = node.times()
    assert abs(due - right_time()) < SOON


@JUMPS
async def test_a_fetching_node_keeps_its_lease(nodes: tuple[Node, SQLStore], jump: int, late: bool) -> None:
    node, right = nodes

    async def claim(store: SQLStore, owner: str) -> bool:
        around: Any = SimpleNamespace(store=store, clock=node)
        fetcher: Any = SimpleNamespace(account=SimpleNamespace(name="upstream"))
        return await FetchService([], around, owner=owner, jitter=lambda: 1.0)._claim(fetcher)

    assert await claim(right, "right")
    node.will_jump(jump, late=late)
    assert not await claim(node.store, "jumps")
    node.ahead = 0.0
    await right.write(lambda tx: tx.fetching.release("upstream", "right"))
    node.will_jump(jump, late=late)
    assert await claim(node.store, "jumps")
    with node.store._reader_engine.connect() as connection:
        until = connection.scalar(select(fetch_status.c.lease_until))
    assert until is not None
    assert abs(until - right_time() - timedelta(seconds=30)) < SOON


async def test_mail_is_due_although_the_clock_of_a_file_was_set_back_while_it_waited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite: the workers saw the jump before the mail was kept, so nobody would bring its job back."""
    with SQLStore.open(settings_for(tmp_path), sealer_in(tmp_path)) as store:
        node = Node(store, monkeypatch)
        done: list[str] = []

        async def step(job: Job) -> None:
            await store.write(lambda tx: tx.jobs.finish(job))
            done.append(job.subject)

        node.will_jump(-HOUR, late=False)
        await accept(node)
        assert await node.pool(step).drain() == 1
    assert len(done) == 1
