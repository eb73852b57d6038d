"""When the pool looks for jobs: when there may be some, and not because a step has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.core.lifecycle import JobKind
from gateway.ports import Job, UnitOfWork
from gateway.settings import JobSettings
from gateway.store.sql_store import SQLStore
from gateway.workers.pool import SLOW_AT_ONCE, WorkerPool
from tests.support.store_samples import SteadyClock, open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLStore]:
    with open_store(tmp_path) as opened:
        yield opened


def fill(store: SQLStore, kind: JobKind, *subjects: str) -> None:
    def work(tx: UnitOfWork) -> None:
        for subject in subjects:
            tx.jobs.enqueue(kind, subject)

    store.write_blocking(work)


class Steps:
    """Steps that end when they are let go, and the looks of the pool that runs them. It polls once in an hour."""

    def __init__(self, store: SQLStore, *, follows: bool | None, concurrency: int = 4) -> None:
        self.parked = 0
        self.store = store
        self.follows = follows
        self.go = asyncio.Event()
        self.begun: list[str] = []
        self.done: list[str] = []
        self.looks = 0
        settings = JobSettings(poll_interval_ms=3_600_000)
        self.pool = WorkerPool(
            store,
            SteadyClock(),
            dict.fromkeys(JobKind, self.step),
            settings,
            lambda: 1.0,
            concurrency=concurrency,
            parked=lambda: self.parked,
        )
        claim = self.pool._claim

        def counted(*arguments: Any) -> list[Job]:
            self.looks += 1
            return claim(*arguments)

        self.pool._claim = counted  # type: ignore[method-assign, assignment]

    async def step(self, job: Job) -> bool | None:
        self.begun.append(job.subject)
        await self.go.wait()
        await self.store.write(lambda tx: tx.jobs.finish(job))
        self.done.append(job.subject)
        return self.follows

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.002)

    async def settled(self) -> None:
        """Nothing runs, and the pool has had the time to look if it were about to."""
        await self.until(lambda: not self.pool.running)
        await asyncio.sleep(0.05)


@asynccontextmanager
async def running(steps: Steps) -> AsyncIterator[None]:
    task = asyncio.create_task(steps.pool.run())
    try:
        yield
    finally:
        steps.go.set()
        steps.pool.stop()
        await asyncio.wait_for(task, 10)


async def test_one_look_finds_all_and_none_is_made_when_steps_end(store: SQLStore) -> None:
    fill(store, JobKind.UNWRAP, "a", "b", "c")
    steps = Steps(store, follows=False)
    async with running(steps):
        await steps.until(lambda: len(steps.begun) == 3)
        steps.go.set()
        await steps.settled()
        assert (sorted(steps.done), steps.looks) == (["a", "b", "c"], 1)


@pytest.mark.parametrize("follows", [True, None])
async def test_a_step_that_another_job_may_follow_makes_the_pool_look(store: SQLStore, follows: bool | None) -> None:
    fill(store, JobKind.UNWRAP, "a")
    steps = Steps(store, follows=follows)
    async with running(steps):
        await steps.until(lambda: bool(steps.begun))
        fill(store, JobKind.FILE, "a")
        steps.go.set()
        await steps.until(lambda: steps.done == ["a", "a"])


async def test_a_step_that_fails_makes_the_pool_look(store: SQLStore) -> None:
    steps = Steps(store, follows=False)

    async def step(job: Job) -> bool:
        if job.subject == "bad":
            fill(store, JobKind.UNWRAP, "good")
            raise ValueError
        steps.done.append(job.subject)
        return await store.write(lambda tx: tx.jobs.finish(job)) is None

    steps.pool._steps = dict.fromkeys(JobKind, step)
    fill(store, JobKind.UNWRAP, "bad")
    async with running(steps):
        await steps.until(lambda: steps.done == ["good"])


async def test_what_there_was_no_room_for_is_looked_for_when_there_is_room(store: SQLStore) -> None:
    fill(store, JobKind.UNWRAP, *(f"m{number}" for number in range(30)))
    steps = Steps(store, follows=False, concurrency=3)
    steps.go.set()
    async with running(steps):
        await steps.until(lambda: len(steps.done) == 30)


async def test_a_hint_that_comes_while_there_is_no_room_is_not_forgotten(store: SQLStore) -> None:
    """The room went without a claim: a large message that had waited for memory works now."""
    fill(store, JobKind.UNWRAP, "a", "b")
    steps = Steps(store, follows=False, concurrency=2)
    steps.parked = 1
    async with running(steps):
        await steps.until(lambda: len(steps.begun) == 2)
        steps.pool.wake()
        # There is room for one more, and nothing is due.
        await steps.until(lambda: steps.looks == 2)
        await asyncio.sleep(0.05)
        assert not steps.pool._more_due
        steps.parked = 0
        fill(store, JobKind.UNWRAP, "c")
        steps.pool.wake()
        await asyncio.sleep(0.02)
        assert len(steps.begun) == 2
        # What came then must be found when the others end, although nobody polls.
        steps.go.set()
        await steps.until(lambda: len(steps.done) == 3)


async def test_a_hint_while_a_claim_is_on_its_way_is_not_forgotten(store: SQLStore) -> None:
    steps = Steps(store, follows=False)
    steps.go.set()
    write = store.write
    late = True

    async def slow(work: Any, **options: Any) -> Any:
        nonlocal late
        result = await write(work, **options)
        if late:
            late = False
            # The claim has found nothing; before the pool hears of it there is a job, and a hint.
            fill(store, JobKind.UNWRAP, "a")
            steps.pool.wake()
        return result

    store.write = slow  # type: ignore[method-assign]
    async with running(steps):
        await steps.until(lambda: steps.done == ["a"])


async def test_imports_that_hang_take_few_places_and_the_others_are_found_when_they_end(store: SQLStore) -> None:
    fill(store, JobKind.IMPORT, *(f"i{number}" for number in range(3 * SLOW_AT_ONCE)))
    steps = Steps(store, follows=False, concurrency=4 * SLOW_AT_ONCE)
    async with running(steps):
        await steps.until(lambda: len(steps.begun) == SLOW_AT_ONCE)
        await asyncio.sleep(0.02)
        assert len(steps.begun) == SLOW_AT_ONCE
        steps.go.set()
        await steps.until(lambda: len(steps.done) == 3 * SLOW_AT_ONCE)


async def test_suspects_follow_one_another_without_a_poll(store: SQLStore) -> None:
    fill(store, JobKind.UNWRAP, "s1", "s2", "s3")
    store.write_blocking(lambda tx: tx.jobs.claim(-1, 10))
    steps = Steps(store, follows=False)
    steps.go.set()
    async with running(steps):
        await steps.until(lambda: steps.done == ["s1", "s2", "s3"])
