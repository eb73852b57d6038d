"""The one writer: gathers units of work, runs each in its own savepoint, commits them together.

Guarantees

* A unit's result is handed out only after COMMIT has returned, that is after the WAL was synced.
* A unit that raises is rolled back to its savepoint; its neighbours are committed.
* When the commit fails, every unit of the group fails with StoreError: nobody is told of a success that is none.
* No space left (StoreFullError) is an ordinary failure: the next group may succeed again.
* After an I/O error or damage the committer is *dead*: the kernel may have thrown away what could not be written
  and would report the next fsync as a success, so no later success is to be believed (storage rules). Every
  write fails from then on, and the daemon must end; a restart recovers from what is really on the disk.

SQLite may roll back the whole transaction because of one statement (full disk, I/O error, no memory). What came
after it in the same group would then commit by itself, statement by statement. So the group ends there.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine

from gateway.core.errors import StoreError
from gateway.store.engines import as_gateway_error, is_fatal, is_full
from gateway.store.unit import SQLUnitOfWork

Work = Callable[[SQLUnitOfWork], Any]


@dataclass(slots=True)
class _Unit:
    """A unit that waits, and what came of it."""

    work: Work
    future: Future[Any] = field(default_factory=Future)
    result: Any = None
    error: BaseException | None = None


class _GroupRuinedError(Exception):
    """The transaction that holds all units of the group is lost; the cause says why."""


class GroupCommitter:
    """One thread that writes. ``submit`` may be called from any thread."""

    def __init__(self, engine: Engine, *, max_units: int, wait_seconds: float) -> None:
        self._engine = engine
        self._max_units = max_units
        self._wait_seconds = wait_seconds
        self._queue: queue.SimpleQueue[_Unit | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        self._last = False
        self.death: Future[None] = Future()
        """Done when the committer is dead."""
        self._thread = threading.Thread(target=self._loop, name="store-writer", daemon=True)
        self._thread.start()

    @property
    def dead(self) -> bool:
        """Whether a commit failed in a way after which none can be believed."""
        return self.death.done()

    def submit(self, work: Work) -> Future[Any]:
        """Queue a unit; its future is done when the commit is durable or has failed.

        Raises:
            StoreError: the store is closed.
        """
        unit = _Unit(work)
        # A future that is running cannot be cancelled: whoever stops waiting does not stop the commit.
        unit.future.set_running_or_notify_cancel()
        with self._gate:
            if self._closed:
                raise StoreError("the store is closed")
            self._queue.put(unit)
        return unit.future

    def close(self) -> None:
        """Commit what is queued and end the thread."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _loop(self) -> None:
        while not self._last:
            first = self._queue.get()
            if first is None:
                return
            self._settle(self._gather(first))

    def _gather(self, first: _Unit) -> list[_Unit]:
        """Take what comes within the waiting time, up to the size of a group."""
        group = [first]
        deadline = time.monotonic() + self._wait_seconds
        while len(group) < self._max_units:
            try:
                unit = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if unit is None:
                self._last = True
                break
            group.append(unit)
        return group

    def _settle(self, group: list[_Unit]) -> None:
        """Run and commit the group, then tell everybody."""
        failure = self._refusal() or self._commit(group)
        for unit in group:
            error = unit.error or failure
            if error is None:
                unit.future.set_result(unit.result)
            else:
                unit.future.set_exception(error)

    def _refusal(self) -> StoreError | None:
        return StoreError("the store stopped after an input/output error") if self.dead else None

    def _commit(self, group: list[_Unit]) -> BaseException | None:
        """Return None when the commit is durable, else the failure of the whole group."""
        try:
            with self._engine.begin() as connection:
                for unit in group:
                    self._run(connection, unit)
        except Exception as exc:  # noqa: BLE001 - whatever it was, everybody must be told and the thread goes on
            cause = exc.__cause__ if isinstance(exc, _GroupRuinedError) and exc.__cause__ else exc
            if is_fatal(cause):
                self.death.set_result(None)
            failure = as_gateway_error(cause)
            return failure if isinstance(failure, StoreError) else StoreError("the store could not commit")
        return None

    def _run(self, connection: Connection, unit: _Unit) -> None:
        savepoint = connection.begin_nested()
        try:
            unit.result = unit.work(SQLUnitOfWork(connection))
        except BaseException as exc:
            if is_full(exc) or is_fatal(exc) or not _in_transaction(connection):
                raise _GroupRuinedError from exc
            savepoint.rollback()
            unit.error = _portable(exc)
            return
        if not _in_transaction(connection):
            raise _GroupRuinedError
        savepoint.commit()


def _in_transaction(connection: Connection) -> bool:
    return bool(getattr(connection.connection.dbapi_connection, "in_transaction", False))


def _portable(error: BaseException) -> BaseException:
    """Return an error that a future can carry: asyncio's refuses StopIteration and would leave its waiter waiting."""
    if isinstance(error, StopIteration):
        wrapped = RuntimeError("the unit of work raised StopIteration")
        wrapped.__cause__ = error
        return wrapped
    return as_gateway_error(error)
