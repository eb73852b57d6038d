"""Job rows: the transactional outbox. A step's work and the job that asks for the next one commit together.

* At most one open job of a kind for a subject. A finished job's row is gone; a poisoned one stays, named, until it
  is asked for again.
* A claim is a lease. ``attempt`` rises with each claim and is the fencing token: a worker whose lease ran out, and
  whose job was handed out again, can neither finish nor fail it (F10).
* A lease that ends without a word (the process crashed, the machine froze) counts in ``lost``. Such a job is handed
  out alone, so that the one that kills the process is told from those that only ran beside it (F30).

A claim is safe because there is one writer at a time, on every database: the rows need no locks of their own.

Callers say how long, never when: every time is counted from the one *now* of the transaction, which no clock that
jumps while the transaction waits for its turn can move (:mod:`gateway.store.unit_time`, F11). ``node`` says who holds a
lease: a node that starts again takes back its own.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, bindparam, delete, exists, insert, literal, select, true, update

from gateway.core.lifecycle import JobKind
from gateway.core.retry import NEVER_LATER_SECONDS
from gateway.ports import Job, TroubledJob
from gateway.store.jobs_due import LEASED, POISON, READY, due_jobs
from gateway.store.prepared import Prepared
from gateway.store.tables import job
from gateway.store.unit_time import UnitTime

MAX_ERROR_CHARS = 500
_NEVER_LATER = timedelta(seconds=NEVER_LATER_SECONDS)
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_SAME = and_(job.c.kind == bindparam("of_kind"), job.c.subject == bindparam("of_subject"))
_ADD_ABSENT = Prepared(
    # The one writer at a time sees whether it is there, so one statement asks and adds.
    insert(job).from_select(
        ["kind", "subject", "state", "run_at", "attempt", "lost", "last_error"],
        select(
            bindparam("of_kind", type_=job.c.kind.type),
            bindparam("of_subject", type_=job.c.subject.type),
            literal(READY, job.c.state.type),
            bindparam("due", type_=job.c.run_at.type),
            literal(0),
            literal(0),
            literal("", job.c.last_error.type),
        ).where(~exists(select(job.c.id).where(_SAME))),
    )
)
_REMOVE_POISON = Prepared(delete(job).where(_SAME, job.c.state == POISON))
_LEASE = Prepared(
    update(job)
    .where(job.c.id == bindparam("which"))
    .values(
        state=LEASED,
        lease_until=bindparam("until"),
        attempt=bindparam("attempts"),
        lost=bindparam("losses"),
        node=bindparam("holder"),
    )
)
_FINISH = Prepared(
    delete(job).where(job.c.id == bindparam("which"), job.c.attempt == bindparam("attempts"), job.c.state == LEASED)
)


class Jobs:
    """See :class:`gateway.ports.JobRows`."""

    def __init__(self, connection: Connection, time: UnitTime, *, node: str = "main", shared: bool = False) -> None:
        """``time``: of this transaction; ``shared``: other nodes hold jobs as well."""
        self._connection = connection
        self._node = node
        self._time = time
        self._shared = shared

    def enqueue(self, kind: JobKind, subject: str) -> None:
        """Ask for work, due at once. A no-op when that job is open; a poisoned one starts afresh."""
        wanted = {"of_kind": kind.value, "of_subject": subject}
        due = self._time.now()
        # A fresh row has a fresh id, so no worker of the old one can touch it.
        _REMOVE_POISON.later(self._connection, **wanted)
        _ADD_ABSENT.later(self._connection, due=due, **wanted)

    def claim(
        self,
        lease_seconds: float,
        limit: int,
        *,
        kinds: Collection[JobKind] | None = None,
        apart: tuple[Collection[JobKind], int] | None = None,
        lost_below: int | None = None,
    ) -> list[Job]:
        """Lease the jobs that are due, the oldest first; one whose lease was lost before comes alone.

        ``kinds`` and ``lost_below`` leave out jobs of other kinds, and those whose leases were lost as often. ``apart``
        names kinds that come before those, and how many of them may: they are told by themselves, so that a suspect
        among them keeps none of the others back.
        """
        now = self._time.now()
        shares = [(kinds, limit)] if apart is None or apart[1] <= 0 else [apart, (kinds, limit)]
        # One question, whatever is asked for: most of them find nothing, and each costs as much as one that does.
        found = due_jobs(self._connection, now, now + _NEVER_LATER, shares, lost_below)
        chosen: list[Any] = []
        for rows, (_, most) in zip(found, shares, strict=True):
            chosen += _together(rows, min(most, limit - len(chosen)))
        until = now + timedelta(seconds=lease_seconds)
        return self._lease(chosen, until) if chosen else []

    def _lease(self, rows: Sequence[Any], until: datetime) -> list[Job]:
        claimed = [
            Job(row.id, JobKind(row.kind), row.subject, row.attempt + 1, row.lost + (1 if row.state == LEASED else 0))
            for row in rows
        ]
        for one in claimed:
            _LEASE.later(
                self._connection,
                which=one.id,
                until=until,
                attempts=one.attempt,
                losses=one.lost,
                holder=self._node,
            )
        return claimed

    def renew(self, claimed: Job, lease_seconds: float) -> bool:
        """Let the lease last so long from now on; False when it was lost to a later attempt."""
        return self._update(claimed, lease_until=self._time.now() + timedelta(seconds=lease_seconds))

    def finish(self, claimed: Job) -> bool:
        """Remove the job; False when its lease was lost to a later attempt."""
        return _FINISH.run(self._connection, which=claimed.id, attempts=claimed.attempt) == 1

    def fail(self, claimed: Job, error: str, retry_in: timedelta | None) -> bool:
        """Schedule again, or set aside as poison when ``retry_in`` is None; False when the lease was lost."""
        return self._update(
            claimed,
            state=POISON if retry_in is None else READY,
            run_at=self._time.now() + (retry_in or timedelta(0)),
            lease_until=None,
            node=None,
            last_error=error[:MAX_ERROR_CHARS],
        )

    def _update(self, claimed: Job, **values: Any) -> bool:
        return self._connection.execute(update(job).where(*_held(claimed)).values(**values)).rowcount == 1

    def release_leases(self) -> int:
        """Make the leased jobs of this node due, when the process that held them is gone; returns how many.

        Their attempts count as lost: whoever crashed the process is among them. A job that has never failed has no
        delay to wait for, so it is due at once, whatever the clock says: a clock that was set back in the meantime
        must not put accepted mail off until it has caught up (F11). On a database that one daemon uses, this node's
        are all that there are, under whatever name they were taken.
        """
        ours = job.c.node == self._node if self._shared else true()
        self._connection.execute(
            update(job).where(job.c.state != POISON, job.c.last_error == "", ours).values(run_at=_LONG_AGO)
        )
        released = self._connection.execute(
            update(job)
            .where(job.c.state == LEASED, ours)
            .values(state=READY, lease_until=None, node=None, lost=job.c.lost + 1)
        )
        return released.rowcount

    def take_back(self, held: Collection[int]) -> int:
        """Make the jobs due that are leased to this node and that nobody here knows of; returns how many.

        A claim whose COMMIT was not answered may have been done (F08): its jobs would wait for the end of leases that
        nobody holds. No attempt at them has begun, so none was lost.

        Args:
            held: ids of the jobs that this node does hold.
        """
        taken = self._connection.execute(
            update(job)
            .where(job.c.state == LEASED, job.c.node == self._node, job.c.id.not_in(list(held)))
            .values(state=READY, lease_until=None, node=None)
        )
        return taken.rowcount

    def clock_went_back(self, by: timedelta) -> int:
        """Bring to the clock of now what was put off by one that was ahead; returns how many jobs that were.

        Nothing is done on a database that several nodes use: times are kept in its own clock there, which may not have
        moved at all.
        """
        if self._shared:
            return 0
        later = and_(job.c.state == READY, job.c.run_at > self._time.now())
        rows = self._connection.execute(select(job.c.id, job.c.run_at).where(later)).all()
        for row in rows:
            earlier = max(row.run_at - by, _LONG_AGO)
            self._connection.execute(update(job).where(job.c.id == row.id).values(run_at=earlier))
        return len(rows)

    def troubled(self, limit: int = 100) -> list[TroubledJob]:
        """What was set aside, the oldest first, and then what failed and is tried again, the next first."""
        poison = job.c.state == POISON
        rows = self._connection.execute(
            select(job).where(poison | (job.c.last_error != "")).order_by(~poison, job.c.run_at, job.c.id).limit(limit)
        )
        return [
            TroubledJob(
                r.id, JobKind(r.kind), r.subject, r.attempt, r.state == POISON, self._time.shown(r.run_at), r.last_error
            )
            for r in rows
        ]

    def hasten(self, job_id: int) -> bool:
        """Make a job that waits for its next attempt due; False when it does not wait.

        Its attempt stays, which is the fencing token: a worker that was frozen may still believe that it holds it.
        """
        hastened = self._connection.execute(
            update(job).where(job.c.id == job_id, job.c.state == READY).values(run_at=self._time.now())
        )
        return hastened.rowcount == 1


def _together(rows: Sequence[Any], limit: int) -> list[Any]:
    """Those of the jobs, in the order in which they are due, that may be handed out at the same time."""
    chosen: list[Any] = []
    for row in rows[: max(0, limit)]:
        suspect = row.state == LEASED or row.lost > 0
        if suspect and chosen:
            break
        chosen.append(row)
        if suspect:
            break
    return chosen


def _held(claimed: Job) -> tuple[Any, ...]:
    return job.c.id == claimed.id, job.c.attempt == claimed.attempt, job.c.state == LEASED
