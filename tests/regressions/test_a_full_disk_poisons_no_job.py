"""A disk without room for a large message says nothing about the message: its job waits, however long that lasts.

A note of the failure may find room where the content finds none (a page of the database that is partly used), so the
attempts are counted. After eight of them, in an hour and a half, acknowledged mail went into quarantine.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from gateway.core.errors import StoreFullError
from gateway.core.lifecycle import JobKind
from gateway.core.retry import INTERNAL_SCHEDULE_SECONDS
from gateway.ports import Job, UnitOfWork
from gateway.settings import JobSettings
from gateway.store.sql_store import SQLStore
from gateway.workers.pool import WorkerPool
from tests.support.store_samples import SteadyClock, open_store

LARGE = "x" * (1 << 20)


def limit_pages(store: SQLStore, spare: int) -> None:
    """Let the database grow by no more than so many pages: SQLite then answers as on a full disk (SQLITE_FULL)."""
    with store._database.writer.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages + spare}")


async def test_a_job_that_finds_no_room_waits_until_there_is_some(tmp_path: Path) -> None:
    clock = SteadyClock()
    full = 0
    with open_store(tmp_path, daemon=True, clock=clock) as store:

        async def step(job: Job) -> None:
            nonlocal full

            def work(tx: UnitOfWork) -> None:
                tx.jobs.finish(job)
                tx.audit.add(clock.now(), "gateway", "test", job.subject, {"large": LARGE})

            try:
                await store.write(work)
            except StoreFullError:
                full += 1
                raise

        pool = WorkerPool(store, clock, {JobKind.FILE: step}, JobSettings(poll_interval_ms=20), lambda: 1.0)
        store.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.FILE, "message"))
        limit_pages(store, 20)
        for _ in range(2 * len(INTERNAL_SCHEDULE_SECONDS)):
            await pool.drain()
            clock.advance(max(INTERNAL_SCHEDULE_SECONDS))
        assert full == 2 * len(INTERNAL_SCHEDULE_SECONDS)
        assert [job.set_aside for job in store.read_blocking(lambda tx: tx.jobs.troubled())] == [False]
        limit_pages(store, 100_000)
        await pool.drain()
        assert store.read_blocking(lambda tx: tx.jobs.troubled()) == []
    with closing(sqlite3.connect(tmp_path / "gateway.db")) as found:
        assert found.execute("SELECT count(*) FROM job").fetchone() == (0,)
