"""Ends a COMMIT that waits for a synchronous standby which is gone: the server itself would wait for ever.

The time-outs of the server end before its COMMIT begins to wait. So a thread of ours asks it to give up after a while.
It then keeps the transaction, answers the COMMIT with a warning, and
:meth:`gateway.store.postgresql_engine.PostgreSQLDatabase.after_commit` takes that for a failure: the outcome is not
known, the sender is told to come again, and what he sends again is recognised if it is there (F08, F09).

Failure modes: a request that comes too late meets an idle session, which ignores it, or the next statement of ours,
which then fails for now. A server that does not take the request is not there; keep-alives end that wait.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus

from gateway.observability.log import get_log

LOOK_SECONDS: Final = 0.5

log = get_log("store")


class CommitWatch:
    """Watches one COMMIT at a time, of the one writer. ``begin`` and ``end`` belong to the writer's thread."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._watched: tuple[float, psycopg.Connection[Any]] | None = None
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, connection: psycopg.Connection[Any]) -> None:
        """A COMMIT is about to be sent."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._look, name="commit-watch", daemon=True)
            self._thread.start()
        self._watched = time.monotonic() + self._seconds, connection

    def end(self) -> None:
        """It was answered, or nobody waits for its answer any longer."""
        self._watched = None

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def _look(self) -> None:
        while not self._closed.wait(LOOK_SECONDS):
            watched = self._watched
            if watched is None or time.monotonic() < watched[0]:
                continue
            connection = watched[1]
            if connection.closed or connection.info.transaction_status is not TransactionStatus.ACTIVE:
                # It has its answer, and the writer has not come round to saying so.
                continue
            log.error("commit_not_answered")
            # At each look: the server may not have heard the one before.
            with suppress(psycopg.Error):
                connection.cancel()
