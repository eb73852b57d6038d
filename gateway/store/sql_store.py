"""The store: one writer thread with group commit, a few readers, one SQLite file (:class:`gateway.ports.Store`).

Guarantees

* ``write`` returns only after the commit is durable. When its caller is cancelled, the commit still ends
  (finding 3): a sender that is gone comes again and is recognised as a duplicate.
* ``read`` sees one snapshot for the whole unit and cannot write.
* Errors of the database leave as StoreError, StoreFullError or ConflictError with fixed texts, never with values.
* One daemon for one file. Command-line tools open the same file beside it; ``data_version`` tells the daemon when
  one of them has committed.

Failure modes: ``wait_dead`` returns when the store stopped for good after an input/output error; the process must
end then and be started again.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, cast

from sqlalchemy.exc import StatementError

from gateway.core.errors import StoreError
from gateway.ports import UnitOfWork
from gateway.settings import StoreSettings
from gateway.store.engines import as_gateway_error, reader_engine, writer_engine
from gateway.store.files import FileLock, database_path, prepare
from gateway.store.group_commit import GroupCommitter
from gateway.store.schema import create_schema
from gateway.store.unit import SQLUnitOfWork

T = TypeVar("T")
READERS = 4


class SQLStore:
    """Durable storage in one SQLite file. Bound to no event loop: any thread and any loop may use it."""

    def __init__(self, path: Path, settings: StoreSettings, lock: FileLock | None) -> None:
        """Use :meth:`open`. ``path`` has a complete schema, and ``lock`` is held."""
        self.path = path
        self._lock = lock
        self._writer_engine = writer_engine(path)
        self._reader_engine = reader_engine(path, READERS)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self._committer = GroupCommitter(
            self._writer_engine,
            max_units=settings.group_commit_units,
            wait_seconds=settings.group_commit_wait_ms / 1000,
        )
        self._watcher: sqlite3.Connection | None = None
        self._watcher_lock = threading.Lock()
        self._closed = False

    @classmethod
    def open(cls, settings: StoreSettings, *, daemon: bool = False) -> Self:
        """Open the database, and make it when it is not there.

        ``daemon`` takes the lock of the file and hands out again the jobs that a process which is gone held.

        Raises:
            ConfigurationError: a bad URL, a second daemon, a newer schema, a disk that is not safe.
        """
        path = database_path(settings.url)
        prepare(path)
        lock = FileLock(path) if daemon else None
        if lock is not None:
            lock.acquire()
        try:
            engine = writer_engine(path)
            try:
                create_schema(engine)
            finally:
                engine.dispose()
            store = cls(path, settings, lock)
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        if daemon:
            store.write_blocking(lambda unit: cast("SQLUnitOfWork", unit).jobs.release_leases())
        return store

    def close(self) -> None:
        """Commit what is queued and close every connection. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._committer.close()
        self._readers.shutdown(wait=True)
        with self._watcher_lock:
            if self._watcher is not None:
                self._watcher.close()
                self._watcher = None
        self._reader_engine.dispose()
        self._writer_engine.dispose()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def write(self, work: Callable[[UnitOfWork], T]) -> T:
        """Run the unit in a write transaction; return after the commit is durable. See :class:`gateway.ports.Store`.

        Raises:
            StoreError: the commit failed. ConflictError: a constraint refused it. And whatever the unit raises.
        """
        return await asyncio.shield(asyncio.wrap_future(self._submit(work)))

    async def read(self, work: Callable[[UnitOfWork], T]) -> T:
        """Run the unit on a read snapshot in a worker thread.

        Raises:
            StoreError: the store cannot be read. And whatever the unit raises.
        """
        if self._closed:
            raise StoreError("the store is closed")
        return await asyncio.get_running_loop().run_in_executor(self._readers, self.read_blocking, work)

    def write_blocking(self, work: Callable[[UnitOfWork], T]) -> T:
        """As :meth:`write`, for callers without an event loop."""
        return self._submit(work).result()

    def read_blocking(self, work: Callable[[UnitOfWork], T]) -> T:
        """As :meth:`read`, for callers without an event loop."""
        try:
            with self._reader_engine.begin() as connection:
                return work(SQLUnitOfWork(connection))
        except StatementError as exc:
            raise as_gateway_error(exc) from exc

    def data_version(self) -> int:
        """Return a number that changes whenever any process has committed. Takes microseconds; a hint, not a truth.

        Raises:
            StoreError: the store cannot be read.
        """
        with self._watcher_lock:
            if self._closed:
                raise StoreError("the store is closed")
            try:
                if self._watcher is None:
                    self._watcher = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
                return int(self._watcher.execute("PRAGMA data_version").fetchone()[0])
            except sqlite3.Error as exc:
                raise StoreError("the store cannot be read") from exc

    @property
    def dead(self) -> bool:
        """Whether the store stopped for good after an input/output error."""
        return self._committer.dead

    def raise_if_dead(self) -> None:
        """Raises StoreError when the store stopped for good."""
        if self.dead:
            raise StoreError("the store stopped after an input/output error")

    async def wait_dead(self) -> None:
        """Return when the store stopped for good; the process must end then (exit status 75)."""
        await asyncio.shield(asyncio.wrap_future(self._committer.death))

    def _submit(self, work: Callable[[UnitOfWork], T]) -> Future[T]:
        return cast("Future[T]", self._committer.submit(work))
