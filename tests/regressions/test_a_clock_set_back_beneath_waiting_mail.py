"""A clock that is set back by an hour while the daemon runs puts no accepted mail off by an hour (F11).

A job that was asked for a moment ago then seems to lie an hour ahead. That is less than what a schedule may put a job
off by, so the date alone does not tell; that the clock moved otherwise than time did, does.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.core.lifecycle import JobKind
from gateway.ports import Job
from gateway.settings import JobSettings
from gateway.workers.pool import WorkerPool
from tests.support.store_samples import SteadyClock, open_store


async def test_mail_that_waits_for_its_turn_is_judged_although_the_clock_went_back(tmp_path: Path) -> None:
    clock, done, busy = SteadyClock(), list[str](), asyncio.Event()
    with open_store(tmp_path, daemon=True, clock=clock) as store:

        async def step(job: Job) -> None:
            await busy.wait()
            await store.write(lambda tx: tx.jobs.finish(job))
            done.append(job.subject)

        async def fail(_job: Job) -> None:
            raise ValueError

        steps = {JobKind.FILE: step, JobKind.LINK: fail}
        pool = WorkerPool(store, clock, steps, JobSettings(poll_interval_ms=10), lambda: 1.0, concurrency=1)
        for subject in ("first", "second", "third"):
            store.write_blocking(lambda tx, subject=subject: tx.jobs.enqueue(JobKind.FILE, subject))  # type: ignore[misc]
        running = asyncio.create_task(pool.run())
        try:
            async with asyncio.timeout(10):
                while not pool.running:
                    await asyncio.sleep(0.01)
                clock.advance(-3600)
                busy.set()
                while len(done) < 3:
                    await asyncio.sleep(0.01)
        finally:
            pool.stop()
            await running
    assert done == ["first", "second", "third"]


async def test_what_failed_waits_for_its_time_all_the_same(tmp_path: Path) -> None:
    clock, attempts = SteadyClock(), list[str]()
    with open_store(tmp_path, daemon=True, clock=clock) as store:

        async def fail(job: Job) -> None:
            attempts.append(job.subject)
            raise ValueError

        pool = WorkerPool(store, clock, {JobKind.FILE: fail}, JobSettings(poll_interval_ms=10), lambda: 1.0)
        store.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.FILE, "bad"))
        await pool.drain()
        clock.advance(-3600)
        await pool.drain()
        assert attempts == ["bad"]
