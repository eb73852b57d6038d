"""Imports whose other side hangs, and kills from outside, must not keep mail from the inbox (promise 1, F06, F30)."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.core.lifecycle import JobKind
from gateway.importers import folder as folder_importer
from gateway.importers.folder import FolderImporter
from gateway.ports import ImportRequest, Job, Link, Patient, UnitOfWork
from gateway.settings import JobSettings
from gateway.store.sql_store import SQLStore
from gateway.workers import pool as pool_module
from gateway.workers.pool import CONCURRENCY, WorkerPool
from tests.support.store_samples import NOW, SteadyClock, open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLStore]:
    with open_store(tmp_path) as opened:
        yield opened


def fill(store: SQLStore, kind: JobKind, count: int) -> None:
    def work(tx: UnitOfWork) -> None:
        for number in range(count):
            tx.jobs.enqueue(kind, f"{kind.value}{number}")

    store.write_blocking(work)


def restart(store: SQLStore) -> None:
    """The start of the next process gives back the leases of the one that is gone."""
    with open_store(store.path.parent, daemon=True):
        pass


class Steps:
    """Imports hang until they are let go; everything else is done at once."""

    def __init__(self, store: SQLStore) -> None:
        self.store = store
        self.go = asyncio.Event()
        self.done: list[str] = []
        self.ended = asyncio.Event()

    async def __call__(self, job: Job) -> None:
        if job.kind is JobKind.IMPORT:
            await self.go.wait()
        await self.store.write(lambda tx: tx.jobs.finish(job))
        self.done.append(job.subject)
        self.ended.set()

    async def until(self, *names: str) -> None:
        async with asyncio.timeout(10):
            while not set(names) <= set(self.done):
                self.ended.clear()
                await self.ended.wait()


def make_pool(store: SQLStore, steps: Steps) -> WorkerPool:
    settings = JobSettings(poll_interval_ms=10, lease_seconds=60)
    return WorkerPool(store, SteadyClock(), dict.fromkeys(JobKind, steps), settings, lambda: 1.0)


@pytest.mark.parametrize("lost", [0, 1])
async def test_hanging_imports_leave_room_for_mail(store: SQLStore, lost: int) -> None:
    """``lost`` = 1: the process was killed while they hung; none of them may make mail wait until it has run alone."""
    fill(store, JobKind.IMPORT, 2 * CONCURRENCY)
    for _ in range(lost):
        assert len(store.write_blocking(lambda tx: tx.jobs.claim(300, 100))) == 2 * CONCURRENCY
        restart(store)
    fill(store, JobKind.UNWRAP, 3)
    steps = Steps(store)
    pool = make_pool(store, steps)
    running = asyncio.create_task(pool.run())
    try:
        await steps.until("unwrap0", "unwrap1", "unwrap2")
        assert steps.done == ["unwrap0", "unwrap1", "unwrap2"]
    finally:
        steps.go.set()
        pool.stop()
        await running


async def test_mail_survives_a_process_that_is_killed_again_and_again(
    store: SQLStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three kills from outside within the same short step used to end in quarantine: an acknowledged message lost."""
    monkeypatch.setattr(pool_module, "SETTLE_SECONDS", 0.2)
    fill(store, JobKind.UNWRAP, 1)
    for _ in range(3):
        store.write_blocking(lambda tx: tx.jobs.claim(300, 1))
        restart(store)
    steps = Steps(store)
    started = asyncio.get_running_loop().time()
    pool = make_pool(store, steps)
    running = asyncio.create_task(pool.run())
    try:
        fill(store, JobKind.FILE, 1)
        await steps.until("file0", "unwrap0")
        assert steps.done == ["file0", "unwrap0"]
        assert asyncio.get_running_loop().time() - started >= 0.2
    finally:
        pool.stop()
        await running


async def test_a_patient_folder_that_somebody_keeps_locked_fails_the_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to hold a thread of asyncio for ever; six of them, and no mail was accepted any more."""
    monkeypatch.setattr(folder_importer, "LOCK_SECONDS", 0.1)
    content = b"Subject: x\r\n\r\n"
    link = Link("01J00000000000000000000001", "01M", "p1", "automatic", "gateway", "rule", NOW)
    request = ImportRequest(
        link, Patient("p1"), "a@x.example", (), "x", None, NOW, "", hashlib.sha256(content).hexdigest(), content, ""
    )
    (tmp_path / "p1").mkdir()
    importer = FolderImporter(tmp_path)
    handle = os.open(tmp_path / "p1", os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(TimeoutError):
            await importer.import_message(request)
    finally:
        os.close(handle)
    assert await importer.import_message(request) == f"p1/{link.id}"
