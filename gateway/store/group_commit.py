"""The one writer: gathers units of work, runs each in its own savepoint, commits them together.

A unit's savepoint goes to PostgreSQL with its first question, and what it writes goes with its next one or with the end
of the savepoint, whichever comes first (:meth:`gateway.store.prepared.Prepared.later`): nothing of a unit waits longer
than the unit lasts.

Guarantees

* A unit's result is handed out only after COMMIT has returned, that is after the log of the database was synced.
* A unit that raises is rolled back to its savepoint; its neighbours are committed.
* When the commit fails, every unit of the group fails with StoreError: nobody is told of a success that is none.
  Where the connection was lost at the COMMIT, it may have been done all the same (F08): to come again must be safe,
  and is, because whoever comes again meets what is there (a duplicate delivery, a job that is gone).
* No space left (StoreFullError) is an ordinary failure: the next group may succeed again.
* After an I/O error or damage of SQLite the committer is *dead*: the kernel may have thrown away what could not be
  written and would report the next fsync as a success, so no later success is to be believed (storage rules). Every
  write fails from then on, and the daemon must end; a restart recovers from what is really on the disk.
* A lost connection to PostgreSQL is temporary. Found before any unit has run, it is made again at once.

A database may roll back the whole transaction because of one statement (SQLite: full disk, I/O error, no memory), or
end the session. What came after it in the same group would then commit by itself, statement by statement. So the
group ends there.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from gateway.core.errors import StoreError, StoreFullError, StoreUnavailableError
from gateway.store.answers import Answer, Waiter, answer_all
from gateway.store.database_errors import as_gateway_error, is_fatal, is_full, is_lost
from gateway.store.engines import Database
from gateway.store.group_memory import begin_memory, memory_of
from gateway.store.running import drop_waiting, run_text
from gateway.store.unit import SQLUnitOfWork, UnitContext
from gateway.store.unit_time import UnitTime

Work = Callable[[SQLUnitOfWork], Any]

# One at a time, so one name will do. SQLAlchemy's own savepoints cost as much as ten statements.
_SAVEPOINT = "SAVEPOINT unit"
_RELEASE = "RELEASE SAVEPOINT unit"
_UNDO = "ROLLBACK TO SAVEPOINT unit"


@dataclass(slots=True)
class _Unit:
    """A unit that waits, and what came of it."""

    work: Work
    urgent: bool = False
    future: Future[Any] | None = None
    waiter: Waiter | None = None
    """Who is told what came of it: one of the two."""
    result: Any = None
    error: BaseException | None = None


class _GroupRuinedError(Exception):
    """The transaction that holds all units of the group is lost; the cause says why."""


class GroupCommitter:
    """One thread that writes. ``submit`` may be called from any thread."""

    def __init__(
        self,
        database: Database,
        context: UnitContext,
        *,
        max_units: int,
        wait_seconds: float,
        release_space: Callable[[int], bool] = lambda _attempt: False,
    ) -> None:
        """``release_space`` makes a little room on a full disk for urgent units; False when there is none left."""
        self._database = database
        self._context = context
        self._max_units = max_units
        self._wait_seconds = wait_seconds
        self._release_space = release_space
        self._queue: queue.SimpleQueue[_Unit | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        self._last = False
        self._busy = False
        """Whether the last group was of several units."""
        self.death: Future[None] = Future()
        """Done when the committer is dead."""
        self._thread = threading.Thread(target=self._loop, name="store-writer", daemon=True)
        self._thread.start()

    @property
    def dead(self) -> bool:
        """Whether a commit failed in a way after which none can be believed."""
        return self.death.done()

    def submit(self, work: Work, *, urgent: bool = False) -> Future[Any]:
        """Queue a unit; its future is done when the commit is durable or has failed.

        An ``urgent`` one that meets a full disk is run again in the room that ``release_space`` makes.

        Raises:
            StoreError: the store is closed.
        """
        future: Future[Any] = Future()
        # A future that is running cannot be cancelled: whoever stops waiting does not stop the commit.
        future.set_running_or_notify_cancel()
        self._put(_Unit(work, urgent, future))
        return future

    async def write(self, work: Work, *, urgent: bool = False) -> Any:
        """As :meth:`submit`, for a caller on an event loop. Whoever is cancelled here does not stop the commit."""
        waiter = Waiter()
        self._put(_Unit(work, urgent, waiter=waiter))
        return await waiter.future

    def _put(self, unit: _Unit) -> None:
        with self._gate:
            if self._closed:
                raise StoreError("the store is closed")
            self._queue.put(unit)

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
            # The next one may not come for hours, and a unit holds its whole message.
            del first

    def _gather(self, first: _Unit) -> list[_Unit]:
        """Take what waits already, up to the size of a group; and what comes within the waiting time.

        Nobody is waited for after a unit that came alone: what comes while one commits makes the next group.
        """
        group = [first]
        deadline = time.monotonic() + (self._wait_seconds if self._busy else 0.0)
        while len(group) < self._max_units:
            try:
                unit = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if unit is None:
                self._last = True
                break
            group.append(unit)
        self._busy = len(group) > 1
        return group

    def _settle(self, group: list[_Unit]) -> None:
        """Run and commit the group, then tell everybody."""
        failure = self._refusal() or self._commit(group)
        if isinstance(failure, StoreFullError):
            urgent = [unit for unit in group if unit.urgent]
            self._tell([unit for unit in group if not unit.urgent], failure)
            group, failure = urgent, self._commit_in_reserve(urgent, failure)
        self._tell(group, failure)

    def _commit_in_reserve(self, group: list[_Unit], failure: BaseException | None) -> BaseException | None:
        """Try again for as long as room can be made. Nothing of the first attempt was committed."""
        attempt = 0
        while group and isinstance(failure, StoreFullError) and self._release_space(attempt):
            attempt += 1
            for unit in group:
                unit.result = unit.error = None
            failure = self._commit(group)
        return failure

    def _tell(self, group: list[_Unit], failure: BaseException | None) -> None:
        answers: list[Answer] = []
        for unit in group:
            # A unit that failed by itself is told so, also when the group failed after it.
            error = unit.error or failure
            if unit.waiter is not None:
                answers.append((unit.waiter, unit.result, error))
            elif unit.future is not None and error is None:
                unit.future.set_result(unit.result)
            elif unit.future is not None:
                unit.future.set_exception(error)
        answer_all(answers)

    def _refusal(self) -> StoreError | None:
        return StoreError("the store stopped after an input/output error") if self.dead else None

    def _commit(self, group: list[_Unit]) -> BaseException | None:
        """Return None when the commit is durable, else the failure of the whole group."""
        try:
            with self._transaction() as (connection, unit_time):
                for unit in group:
                    self._run(connection, unit_time, unit)
                self._database.before_commit(connection)
        except Exception as exc:  # noqa: BLE001 - whatever it was, everybody must be told and the thread goes on
            cause = exc.__cause__ if isinstance(exc, _GroupRuinedError) and exc.__cause__ else exc
            if is_fatal(cause):
                self.death.set_result(None)
            failure = as_gateway_error(cause)
            if isinstance(failure, StoreError):
                return failure
            if isinstance(exc, _GroupRuinedError) and self._database.shared:
                return StoreUnavailableError("the database ended the transaction")
            return StoreError("the store could not commit")
        return None

    @contextmanager
    def _transaction(self) -> Iterator[tuple[Connection, UnitTime]]:
        """A write transaction that is the only one; committed, durably, when the block ends without an error."""
        connection, unit_time = self._begin()
        try:
            yield connection, unit_time
            connection.commit()
            self._database.after_commit(connection)
            if memory := memory_of(connection):
                memory.committed()
        except BaseException:
            # Without this word a transaction whose COMMIT failed would go back to the pool as it is.
            connection.rollback()
            raise
        finally:
            connection.close()

    def _begin(self) -> tuple[Connection, UnitTime]:
        """Begin, as the only writer. A session that was lost since the last group is made again once.

        No unit has run by then, so nothing can happen twice.
        """
        try:
            return self._begin_once()
        except Exception as exc:
            if isinstance(exc, StoreUnavailableError) or not is_lost(exc):
                raise
            try:
                return self._begin_once()
            except StoreUnavailableError:
                # It is not tried so soon. What the server said to the first attempt says more.
                raise exc from None

    def _begin_once(self) -> tuple[Connection, UnitTime]:
        connection = self._database.writer.connect()
        try:
            connection.begin()
            told = self._database.begin_group(connection)
            begin_memory(connection)
            return connection, UnitTime(lambda: told, self._context.clock)
        except BaseException:
            connection.close()
            raise

    def _run(self, connection: Connection, unit_time: UnitTime, unit: _Unit) -> None:
        try:
            run_text(connection, _SAVEPOINT, later=True)
        except Exception as exc:
            raise _GroupRuinedError from exc
        try:
            rows = SQLUnitOfWork(connection, self._context, unit_time)
            unit.result = unit.work(rows)
            rows.finish()
            self._require_sound(connection)
            run_text(connection, _RELEASE)
            if memory := memory_of(connection):
                memory.unit_succeeded()
        except BaseException as exc:
            if is_full(exc) or is_fatal(exc) or not self._database.in_transaction(connection):
                if isinstance(exc, _GroupRuinedError):
                    raise
                raise _GroupRuinedError from exc
            drop_waiting(connection)
            if memory := memory_of(connection):
                memory.unit_undone()
            run_text(connection, _UNDO, later=True)
            run_text(connection, _RELEASE)
            unit.error = _portable(exc)

    def _require_sound(self, connection: Connection) -> None:
        """Raises when what the unit did cannot be committed."""
        if not self._database.in_transaction(connection):
            raise _GroupRuinedError
        if self._database.is_aborted(connection):
            raise StoreError("a unit of work went on after the database had refused a statement")


def _portable(error: BaseException) -> BaseException:
    """Return an error that a future can carry: asyncio's refuses StopIteration and would leave its waiter waiting."""
    if isinstance(error, StopIteration):
        wrapped = RuntimeError("the unit of work raised StopIteration")
        wrapped.__cause__ = error
        return wrapped
    return as_gateway_error(error)
