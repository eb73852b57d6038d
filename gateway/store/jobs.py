"""Job rows: the transactional outbox. A step's work and the job that asks for the next one commit together.

* At most one open job of a kind for a subject. A finished job's row is gone; a poisoned one stays, named, until it
  is asked for again.
* A claim is a lease. ``attempt`` rises with each claim and is the fencing token: a worker whose lease ran out, and
  whose job was handed out again, can neither finish nor fail it (F10).
* A lease that ends without a word (the process crashed, the machine froze) counts in ``lost``. Such a job is handed
  out alone, so that the one that kills the process is told from those that only ran beside it (F30).

Times come from the caller's clock: there is one node. The claim locks rows where the database can (SKIP LOCKED),
and is safe on SQLite because there is one writer.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, func, insert, select, update

from gateway.core.lifecycle import JobKind
from gateway.ports import Job, TroubledJob
from gateway.store.tables import job

READY: Final = "ready"
LEASED: Final = "leased"
POISON: Final = "poison"
MAX_ERROR_CHARS = 500
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class Jobs:
    """See :class:`gateway.ports.JobRows`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def enqueue(self, kind: JobKind, subject: str, at: datetime) -> None:
        """Ask for work. A no-op when that job is open; a poisoned one starts afresh."""
        same = and_(job.c.kind == kind.value, job.c.subject == subject)
        state = self._connection.scalar(select(job.c.state).where(same))
        if state in {READY, LEASED}:
            return
        if state == POISON:
            # A fresh row has a fresh id, so no worker of the old one can touch it.
            self._connection.execute(delete(job).where(same, job.c.state == POISON))
        self._connection.execute(
            insert(job).values(
                kind=kind.value, subject=subject, state=READY, run_at=at, attempt=0, lost=0, last_error=""
            )
        )

    def claim(
        self,
        at: datetime,
        lease_seconds: float,
        limit: int,
        *,
        kinds: Collection[JobKind] | None = None,
        lost_below: int | None = None,
    ) -> list[Job]:
        """Lease the jobs that are due, the oldest first; one whose lease was lost before comes alone.

        ``kinds`` and ``lost_below`` leave out jobs of other kinds, and those whose leases were lost as often.
        """
        wanted: list[ColumnElement[bool]] = []
        if kinds is not None:
            # Not the bare column: its index would be taken, and the whole backlog sorted at every claim.
            wanted.append(func.coalesce(job.c.kind, "").in_([kind.value for kind in kinds]))
        if lost_below is not None:
            wanted.append(job.c.lost < lost_below)
        # Two questions and not one with OR: each is answered from the index in order, however long the backlog is.
        rows = [
            *self._first(limit, job.c.state == READY, job.c.run_at <= at, *wanted),
            *self._first(limit, job.c.state == LEASED, job.c.lease_until <= at, *wanted),
        ]
        rows = sorted(rows, key=lambda row: (row.run_at, row.id))[:limit]
        chosen: list[Row[Any]] = []
        for row in rows:
            suspect = row.state == LEASED or row.lost > 0
            if suspect and chosen:
                break
            chosen.append(row)
            if suspect:
                break
        until = at + timedelta(seconds=lease_seconds)
        return [self._lease(row, until) for row in chosen]

    def _first(self, limit: int, *conditions: ColumnElement[bool]) -> Sequence[Row[Any]]:
        query = select(job).where(*conditions).order_by(job.c.run_at, job.c.id).limit(limit)
        return self._connection.execute(query.with_for_update(skip_locked=True)).all()

    def _lease(self, row: Row[Any], until: datetime) -> Job:
        lost = row.lost + (1 if row.state == LEASED else 0)
        claimed = Job(row.id, JobKind(row.kind), row.subject, row.attempt + 1, lost)
        self._connection.execute(
            update(job)
            .where(job.c.id == claimed.id)
            .values(state=LEASED, lease_until=until, attempt=claimed.attempt, lost=lost)
        )
        return claimed

    def renew(self, claimed: Job, at: datetime, lease_seconds: float) -> bool:
        """Extend the lease; False when it was lost to a later attempt."""
        return self._update(claimed, lease_until=at + timedelta(seconds=lease_seconds))

    def finish(self, claimed: Job) -> bool:
        """Remove the job; False when its lease was lost to a later attempt."""
        done = self._connection.execute(delete(job).where(*_held(claimed)))
        return done.rowcount == 1

    def fail(self, claimed: Job, at: datetime, error: str, retry_at: datetime | None) -> bool:
        """Schedule again, or set aside as poison when ``retry_at`` is None; False when the lease was lost."""
        return self._update(
            claimed,
            state=POISON if retry_at is None else READY,
            run_at=at if retry_at is None else retry_at,
            lease_until=None,
            last_error=error[:MAX_ERROR_CHARS],
        )

    def _update(self, claimed: Job, **values: Any) -> bool:
        return self._connection.execute(update(job).where(*_held(claimed)).values(**values)).rowcount == 1

    def release_leases(self) -> int:
        """Make every leased job due, when the process that held them is known to be gone; returns how many.

        Their attempts count as lost: whoever crashed the process is among them. A job that has never failed has no
        delay to wait for, so it is due at once, whatever the clock says: a clock that was set back in the meantime
        must not put accepted mail off until it has caught up (F11).
        """
        self._connection.execute(
            update(job).where(job.c.state != POISON, job.c.last_error == "").values(run_at=_LONG_AGO)
        )
        released = self._connection.execute(
            update(job).where(job.c.state == LEASED).values(state=READY, lease_until=None, lost=job.c.lost + 1)
        )
        return released.rowcount

    def troubled(self, limit: int = 100) -> list[TroubledJob]:
        """What was set aside, the oldest first, and then what failed and is tried again, the next first."""
        poison = job.c.state == POISON
        rows = self._connection.execute(
            select(job).where(poison | (job.c.last_error != "")).order_by(~poison, job.c.run_at, job.c.id).limit(limit)
        )
        return [
            TroubledJob(r.id, JobKind(r.kind), r.subject, r.attempt, r.state == POISON, r.run_at, r.last_error)
            for r in rows
        ]

    def hasten(self, job_id: int, at: datetime) -> bool:
        """Make a job that waits for its next attempt due; False when it does not wait.

        Its attempt stays, which is the fencing token: a worker that was frozen may still believe that it holds it.
        """
        hastened = self._connection.execute(
            update(job).where(job.c.id == job_id, job.c.state == READY).values(run_at=at)
        )
        return hastened.rowcount == 1


def _held(claimed: Job) -> tuple[Any, ...]:
    return job.c.id == claimed.id, job.c.attempt == claimed.attempt, job.c.state == LEASED
