"""Group commit: when results are handed out, what a failure takes with it, and when nothing more is believed."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from gateway.core.errors import StoreError, StoreFullError
from gateway.core.lifecycle import JobKind
from gateway.ports import UnitOfWork
from gateway.store.sql_store import SQLStore
from tests.support.store_samples import NOW, inbound, open_store
from tests.support.stores import together

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLStore]:
    with open_store(tmp_path) as opened:
        yield opened


def jobs_on_disk(store: SQLStore) -> int:
    """As another process sees it."""
    with sqlite3.connect(store.path) as other:
        count: int = other.execute("SELECT count(*) FROM job").fetchone()[0]
    other.close()
    return count


def job(number: int) -> Any:
    return lambda tx: tx.jobs.enqueue(JobKind.FILE, f"m{number}")


async def test_a_result_is_handed_out_only_after_the_commit(store: SQLStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise 1: durable, then acknowledged. Seen from a second connection at the moment of every commit."""
    dialect = store._writer_engine.dialect
    commit = dialect.do_commit
    seen: list[tuple[int, bool]] = []
    futures: list[Any] = []

    def watched(connection: Any) -> None:
        seen.append((jobs_on_disk(store), any(future.done() for future in futures)))
        commit(connection)

    monkeypatch.setattr(dialect, "do_commit", watched)
    futures.append(store._submit(job(1)))
    await asyncio.wrap_future(futures[0])
    assert seen == [(0, False)]
    assert jobs_on_disk(store) == 1


async def test_a_unit_in_the_queue_cannot_be_cancelled(store: SQLStore) -> None:
    """Finding 3: whatever a caller does with the future, the commit ends."""
    future = store._submit(job(1))
    assert not future.cancel()
    assert future.result(10) is None
    assert jobs_on_disk(store) == 1


async def test_units_that_wait_are_committed_together(store: SQLStore, monkeypatch: pytest.MonkeyPatch) -> None:
    dialect = store._writer_engine.dialect
    commit = dialect.do_commit
    commits = 0

    def counted(connection: Any) -> None:
        nonlocal commits
        commits += 1
        commit(connection)

    monkeypatch.setattr(dialect, "do_commit", counted)
    results = together(store, *(job(n) for n in range(64)))
    assert not [result for result in results if isinstance(result, BaseException)]
    # The 64 need two groups of 32, or three when the first of them came into the group of the blocker.
    assert commits in {3, 4}
    assert jobs_on_disk(store) == 64


async def test_a_commit_that_fails_fails_every_unit(store: SQLStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store._writer_engine.dialect, "do_commit", failing_commit(sqlite3.SQLITE_BUSY))
    results = await asyncio.gather(*(store.write(job(n)) for n in range(5)), return_exceptions=True)
    assert all(isinstance(result, StoreError) for result in results)
    assert not store.dead
    monkeypatch.undo()
    assert jobs_on_disk(store) == 0
    await store.write(job(9))
    assert jobs_on_disk(store) == 1


def failing_commit(code: int) -> Any:
    def fail(_: Any) -> None:
        error = sqlite3.OperationalError("with a secret path in it")
        error.sqlite_errorcode = code
        error.sqlite_errorname = "SQLITE_TEST"
        raise error

    return fail


async def test_after_a_failed_fsync_no_commit_is_believed(store: SQLStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """F03: the next fsync of the same pages would succeed and mean nothing."""
    dead = asyncio.create_task(store.wait_dead())
    monkeypatch.setattr(store._writer_engine.dialect, "do_commit", failing_commit(sqlite3.SQLITE_IOERR_FSYNC))
    with pytest.raises(StoreError) as caught:
        await store.write(job(1))
    assert "secret" not in str(caught.value)
    monkeypatch.undo()
    await asyncio.wait_for(dead, 10)
    assert store.dead
    with pytest.raises(StoreError):
        await store.write(job(2))
    with pytest.raises(StoreError):
        store.raise_if_dead()
    assert jobs_on_disk(store) == 0


STRACE_CHILD = """
import sys
from pathlib import Path
from gateway.core.errors import StoreError
from gateway.core.lifecycle import JobKind
from tests.support.store_samples import NOW, open_store
store = open_store(Path(sys.argv[1]))
failed = 0
for number in range(40):
    try:
        store.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.FILE, f"m{number}"))
        print("ack", number, flush=True)
    except StoreError:
        print("nak", number, flush=True)
print("dead", store.dead, flush=True)
"""


def test_an_input_output_error_of_the_disk_is_never_an_acknowledgement(tmp_path: Path) -> None:
    """F03 with the real system call failing."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    open_store(tmp_path).close()
    # The first syncs of the child belong to its start; the 8th is a commit's.
    inject = "inject=fdatasync,fsync:error=EIO:when=8+"
    tracer = [strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,fsync", "-e", inject]
    child = subprocess.run(
        [*tracer, sys.executable, "-c", STRACE_CHILD, str(tmp_path)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "ptrace" in child.stderr:
        pytest.skip("this machine does not allow ptrace")
    lines = child.stdout.split("\n")
    acknowledged = [line for line in lines if line.startswith("ack")]
    refused = [line for line in lines if line.startswith("nak")]
    assert acknowledged, child.stderr
    assert refused, child.stdout
    # No success after the first failure, although later fsyncs might be reported as fine.
    assert lines.index(refused[0]) > lines.index(acknowledged[-1])
    assert "dead True" in lines
    with open_store(tmp_path) as store:
        assert jobs_on_disk(store) >= len(acknowledged)


async def test_a_full_disk_refuses_and_recovers(store: SQLStore) -> None:
    """F04: 452, no partial row, readers live, and it goes on when there is space again."""
    with store._writer_engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 20}")

    def big(tx: UnitOfWork) -> None:
        tx.jobs.enqueue(JobKind.FILE, "beside")
        tx.messages.add_raw("0" * 26, NOW, inbound(bytes(1 << 20)))

    results = await asyncio.gather(store.write(job(1)), store.write(big), store.write(job(2)), return_exceptions=True)
    assert isinstance(results[1], StoreFullError)
    # SQLite may have undone the whole group; whoever was told of success must be there, nobody else.
    told = [number for number, result in ((1, results[0]), (2, results[2])) if result is None]
    assert jobs_on_disk(store) == len(told)
    assert await store.read(lambda tx: tx.messages.newest()) == []
    assert not store.dead
    with store._writer_engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=1000000")
    await store.write(big)
    assert jobs_on_disk(store) == len(told) + 1
    with sqlite3.connect(store.path) as other:
        assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    other.close()


async def test_nothing_is_committed_behind_a_transaction_that_sqlite_rolled_back(store: SQLStore) -> None:
    """A statement may undo the whole group; the units after it must not commit one statement at a time."""

    def rolls_back(tx: UnitOfWork) -> None:
        connection = tx.jobs._connection  # type: ignore[attr-defined]
        connection.connection.dbapi_connection.execute("ROLLBACK")

    entered, go = threading.Event(), threading.Event()

    def block(_: UnitOfWork) -> None:
        entered.set()
        assert go.wait(10)

    blocker = store._submit(block)
    assert entered.wait(10)
    futures = [store._submit(job(1)), store._submit(rolls_back), store._submit(job(2))]
    go.set()
    blocker_error = blocker.exception(10)
    assert blocker_error is None or isinstance(blocker_error, StoreError)
    assert all(isinstance(future.exception(10), StoreError) for future in futures)
    assert jobs_on_disk(store) == 0


async def test_errors_of_the_database_carry_no_values(store: SQLStore) -> None:
    """Promise 6."""

    def fails(tx: UnitOfWork) -> None:
        connection = tx.jobs._connection  # type: ignore[attr-defined]
        connection.execute(text("INSERT INTO job (kind, nonsense) VALUES (:v, 1)"), {"v": "Jane Doe"})

    with pytest.raises(StoreError) as caught:
        await store.write(fails)
    chain: BaseException | None = caught.value
    while chain is not None:
        assert "Jane Doe" not in str(chain)
        chain = chain.__cause__ or chain.__context__


async def test_stop_iteration_reaches_the_caller_as_an_error(store: SQLStore) -> None:
    """A future refuses StopIteration; its waiter would wait for ever."""

    def fails(_: UnitOfWork) -> None:
        next(iter(()))

    with pytest.raises(RuntimeError, match="StopIteration"):
        await asyncio.wait_for(store.write(fails), 10)


async def test_readers_cannot_write(store: SQLStore) -> None:
    with pytest.raises(StoreError):
        await store.read(job(1))
    assert jobs_on_disk(store) == 0


async def test_close_commits_what_is_queued_and_refuses_what_comes_later(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    futures = [store._submit(job(n)) for n in range(100)]
    store.close()
    assert all(future.exception(0) is None for future in futures)
    with pytest.raises(StoreError):
        await store.write(job(1))
    with pytest.raises(StoreError):
        await store.read(lambda tx: tx.messages.newest())
    store.close()
    assert jobs_on_disk(store) == 100


async def test_an_idle_claim_writes_nothing(store: SQLStore) -> None:
    await store.write(job(1))
    await store.write(lambda tx: tx.jobs.claim(60, 10))
    wal = store.path.with_name(store.path.name + "-wal")
    before = wal.stat().st_size
    assert await store.write(lambda tx: tx.jobs.claim(60, 10)) == []
    assert wal.stat().st_size == before
