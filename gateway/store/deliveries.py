"""The queues of the import hook's targets: one row for each link that a target has not acknowledged.

* One row for a link, a target and an action, whatever is repeated. The row goes in the same transaction that writes the
  receipt; so a link is either in the queue of a target, or the target's receipt is here, and never neither.
* A claim is a lease of its target only. ``attempt`` rises with each and is the fencing token (F10). A process that is
  killed hands its deliveries on as they were: that is no failure of the target, and does not bring the dead letter
  nearer, until it has happened ``MAX_LOST`` times in a row.
* A retraction is handed out when no import of the same link to the same target waits any more, so that the two cannot
  overtake each other. Of a link that was undone, only an import that may still go on at the target is asked for again,
  for its answer; one that ended in a nack, now or later, is let go, and is no dead letter.

A claim is safe because there is one writer at a time, on every database. Times are those of
:mod:`gateway.store.unit_time`.

Failure modes: NotFoundError and ConflictError as the methods say; those of the statements.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    not_,
    or_,
    select,
    true,
    update,
)

from gateway.core.errors import ConflictError, NotFoundError
from gateway.core.lifecycle import JobKind
from gateway.core.retry import MAX_RETRY_SECONDS, ended_without_import
from gateway.ports import Delivery, DeliveryAction, DeliveryState, ListedDelivery, TargetStanding
from gateway.store.delivery_list import Wanted, listed
from gateway.store.prepared import Prepared
from gateway.store.tables import import_delivery, import_target, job, link, link_receipt, link_retraction, link_undo
from gateway.store.unit_time import UnitTime

READY: Final = "ready"
LEASED: Final = "leased"
DEAD: Final = "dead"
MAX_LOST: Final = 10
"""Leases of one delivery that may end without a word, one after the other, before it is set aside: it may be the one
that kills the process."""
LOST: Final = "lost"
MAX_ERROR_CHARS: Final = 64
_NEVER_LATER = timedelta(seconds=2 * MAX_RETRY_SECONDS)
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_ADD_RETRACTION = Prepared.into(link_retraction)
_row = import_delivery.c


class Deliveries:
    """See :class:`gateway.ports.DeliveryRows`."""

    def __init__(self, connection: Connection, time: UnitTime, *, node: str = "main", shared: bool = False) -> None:
        """``time``: of this transaction; ``shared``: other nodes hold deliveries as well."""
        self._connection = connection
        self._time = time
        self._node = node
        self._shared = shared

    # --- orders ---

    def order(self, link_id: str, targets: Sequence[str]) -> list[str]:
        """Ask for the import of a link; returns the targets that had neither it nor an order for it."""
        if self._taken_back(link_id):
            return []
        had = set(self._connection.scalars(select(link_receipt.c.importer).where(link_receipt.c.link_id == link_id)))
        had |= set(self._connection.scalars(select(_row.target).where(*_of(link_id, DeliveryAction.IMPORT))))
        wanted = [target for target in dict.fromkeys(targets) if target not in had]
        for target in wanted:
            self._add(link_id, target, DeliveryAction.IMPORT)
        return wanted

    def order_missing(
        self, target: str, since: datetime | None, after: tuple[datetime, str] | None, limit: int
    ) -> tuple[int, tuple[datetime, str] | None]:
        """Ask a target for older links that it does not have; see the Protocol."""
        query = select(link.c.id, link.c.linked_at).order_by(link.c.linked_at, link.c.id).limit(limit)
        if since is not None:
            query = query.where(link.c.linked_at >= since)
        if after is not None:
            at, link_id = after
            query = query.where(or_(link.c.linked_at > at, and_(link.c.linked_at == at, link.c.id > link_id)))
        rows = self._connection.execute(query).all()
        ordered = sum(bool(self.order(row.id, [target])) for row in rows)
        return ordered, (rows[-1].linked_at, rows[-1].id) if len(rows) == limit else None

    def _taken_back(self, link_id: str) -> bool:
        """Whether the link was undone, or its import is to be taken back: then no further target gets it."""
        undone = exists(select(link_undo.c.link_id).where(link_undo.c.link_id == link_id))
        asked = exists(select(_row.id).where(*_of(link_id, DeliveryAction.RETRACT)))
        done = exists(select(link_retraction.c.link_id).where(link_retraction.c.link_id == link_id))
        return bool(self._connection.scalar(select(or_(undone, asked, done))))

    def order_retraction(self, link_id: str, actor: str, reason: str, at: datetime) -> list[str]:
        """Ask every target that has or may have the import to take it back; returns their names."""
        if self._connection.scalar(select(link.c.id).where(link.c.id == link_id)) is None:
            raise NotFoundError("there is no such link")
        unsent = (*_of(link_id, DeliveryAction.IMPORT), _row.attempt == 0)
        self._connection.execute(delete(import_delivery).where(*unsent))
        # Nor is anybody to be asked who was not yet: the job that would do so ends here.
        self._connection.execute(delete(job).where(job.c.kind == JobKind.IMPORT.value, job.c.subject == link_id))
        having = set(self._connection.scalars(select(link_receipt.c.importer).where(link_receipt.c.link_id == link_id)))
        having |= set(self._connection.scalars(select(_row.target).where(*_of(link_id, DeliveryAction.IMPORT))))
        having -= set(self.retractions(link_id))
        self._let_go(link_id)
        having -= set(self._connection.scalars(select(_row.target).where(*_of(link_id, DeliveryAction.RETRACT))))
        for target in sorted(having):
            self._add(link_id, target, DeliveryAction.RETRACT, asked_at=at, actor=actor, reason=reason)
        return sorted(having)

    def _let_go(self, link_id: str) -> None:
        """Remove the imports of a link that no target is at any more: nobody is to get them now."""
        idle = select(_row.id, _row.state, _row.last_error).where(
            *_of(link_id, DeliveryAction.IMPORT), _row.state != LEASED
        )
        for row in self._connection.execute(idle).all():
            if row.state == DEAD or ended_without_import(row.last_error):
                self._connection.execute(delete(import_delivery).where(_row.id == row.id))

    def _add(self, link_id: str, target: str, action: DeliveryAction, **asked: Any) -> None:
        now = self._time.now()
        values = {"link_id": link_id, "target": target, "action": action.value, "state": READY, "run_at": now}
        zero = {"attempt": 0, "failures": 0, "lost": 0, "last_error": "", "asked_at": now, "actor": "", "reason": ""}
        self._connection.execute(insert(import_delivery).values(values | zero | asked))

    # --- what is due ---

    def due(self, targets: Sequence[str]) -> set[str]:
        """Which of these targets have something to do now."""
        query = select(_row.target).where(_row.target.in_(list(targets)), self._is_due(), *_sendable()).distinct()
        return set(self._connection.scalars(query))

    def claim(self, target: str, lease_seconds: float, limit: int) -> list[Delivery]:
        """Lease what is due at a target, the oldest first; what was lost too often is set aside instead."""
        now = self._time.now()
        query = select(import_delivery).where(_row.target == target, self._is_due(), *_sendable())
        rows = self._connection.execute(query.order_by(_row.run_at, _row.id).limit(limit)).all()
        claimed = []
        for row in rows:
            lost = row.lost + (1 if row.state == LEASED else 0)
            if lost >= MAX_LOST:
                if row.action == DeliveryAction.IMPORT.value and self._taken_back(row.link_id):
                    self._connection.execute(delete(import_delivery).where(_row.id == row.id))
                    continue
                self._set(row.id, state=DEAD, lost=lost, run_at=now, lease_until=None, node=None, last_error=LOST)
                continue
            until = now + timedelta(seconds=lease_seconds)
            self._set(row.id, state=LEASED, lost=lost, attempt=row.attempt + 1, lease_until=until, node=self._node)
            claimed.append(_delivery(row, lost))
        return claimed

    def _is_due(self) -> ColumnElement[bool]:
        now = self._time.now()
        return or_(
            and_(_row.state == READY, _row.run_at <= now),
            and_(_row.state == LEASED, _row.lease_until <= now),
            # Written before the clock was set back: no schedule goes that far (F11).
            and_(_row.state == READY, _row.run_at > now + _NEVER_LATER),
        )

    # --- what becomes of it ---

    def finish(self, held: Delivery) -> bool:
        """Remove it; False when the lease was lost to a later attempt."""
        return self._connection.execute(delete(import_delivery).where(*_held(held))).rowcount == 1

    def fail(self, held: Delivery, reason: str, retry_in: timedelta | None) -> bool:
        """Put it off, or set it aside when ``retry_in`` is None; see the Protocol."""
        if (
            held.action is DeliveryAction.IMPORT
            and (retry_in is None or ended_without_import(reason))
            and self._taken_back(held.link_id)
        ):
            self.finish(held)
            return False
        return self._settle(
            held,
            state=DEAD if retry_in is None else READY,
            run_at=self._time.now() + (retry_in or timedelta(0)),
            failures=held.failures + 1,
            lost=0,
            last_error=reason[:MAX_ERROR_CHARS],
        )

    def hand_back(self, held: Delivery) -> bool:
        """Make it due again, as if it had not been claimed."""
        # How the attempt before ended says nothing of this one, which the target may still be at.
        return self._settle(held, state=READY, run_at=self._time.now(), last_error="")

    def release(self) -> int:
        """Make due what this node held when its process ended."""
        ours = _row.node == self._node if self._shared else true()
        # What has never failed has no delay to wait for, whatever the clock says (F11).
        untried = _row.state == READY, _row.failures == 0
        self._connection.execute(update(import_delivery).where(*untried, ours).values(run_at=_LONG_AGO))
        released = self._connection.execute(
            update(import_delivery)
            .where(_row.state == LEASED, ours)
            .values(
                state=READY, run_at=self._time.now(), lease_until=None, node=None, lost=_row.lost + 1, last_error=""
            )
        )
        return released.rowcount

    def clock_went_back(self, by: timedelta) -> int:
        """Bring to the clock of now what was put off by one that was ahead; see the Protocol."""
        if self._shared:
            return 0
        later = _row.state == READY, _row.run_at > self._time.now()
        rows = self._connection.execute(select(_row.id, _row.run_at).where(*later)).all()
        for row in rows:
            self._set(row.id, run_at=max(row.run_at - by, _LONG_AGO))
        return len(rows)

    def _settle(self, held: Delivery, **values: Any) -> bool:
        values |= {"lease_until": None, "node": None}
        return self._connection.execute(update(import_delivery).where(*_held(held)).values(values)).rowcount == 1

    def _set(self, row_id: int, **values: Any) -> None:
        self._connection.execute(update(import_delivery).where(_row.id == row_id).values(values))

    # --- for people ---

    def listed(
        self, *, state: DeliveryState | None = None, target: str | None = None, link_id: str | None = None, limit: int
    ) -> list[ListedDelivery]:
        """Dead ones first, then what waits, the next first, then what is done, the latest first."""
        return listed(self._connection, self._time, state, Wanted(target, link_id, limit))

    def retry(self, delivery_id: int) -> ListedDelivery:
        """Make it due with all its attempts."""
        row = self._connection.execute(select(import_delivery).where(_row.id == delivery_id)).first()
        if row is None:
            raise NotFoundError(f"no delivery {delivery_id} waits or was set aside; see: direct-gateway import list")
        if row.state == LEASED and row.lease_until > self._time.now():
            raise ConflictError(f"delivery {delivery_id} is with {row.target} at this moment")
        self._set(delivery_id, **self._afresh())
        return next(d for d in self.listed(link_id=row.link_id, target=row.target, limit=10) if d.id == delivery_id)

    def retry_dead(self, target: str) -> int:
        """The same for everything of a target that was set aside."""
        dead = self._connection.execute(
            update(import_delivery).where(_row.target == target, _row.state == DEAD).values(self._afresh())
        )
        return dead.rowcount

    def _afresh(self) -> dict[str, Any]:
        # Not the attempt, which is the fencing token: a worker that was frozen may still believe that it holds it.
        freed = {"lease_until": None, "node": None, "last_error": ""}
        return {"state": READY, "run_at": self._time.now(), "failures": 0, "lost": 0} | freed

    # --- targets ---

    def stop(self, target: str, reason: str, at: datetime) -> None:
        """Send nothing more to the target until :meth:`start`."""
        self.start(target)
        values = {"name": target, "stopped_at": at, "reason": reason[:MAX_ERROR_CHARS]}
        self._connection.execute(insert(import_target).values(values))

    def start(self, target: str) -> bool:
        """Send to it again; False when it was not stopped."""
        return self._connection.execute(delete(import_target).where(import_target.c.name == target)).rowcount == 1

    def standings(self) -> list[TargetStanding]:
        """Every target that something waits for, was set aside for, or that is stopped; by name."""
        dead = func.sum(case((_row.state == DEAD, 1), else_=0)).label("dead")
        counts = select(_row.target, func.count().label("all"), dead).group_by(_row.target)
        rows: dict[str, tuple[int, int]] = {
            row.target: (int(row.all - row.dead), int(row.dead)) for row in self._connection.execute(counts)
        }
        stopped = {row.name: row for row in self._connection.execute(select(import_target))}
        return [
            TargetStanding(
                name,
                *rows.get(name, (0, 0)),
                stopped[name].stopped_at if name in stopped else None,
                stopped[name].reason if name in stopped else "",
            )
            for name in sorted({*rows, *stopped})
        ]

    # --- retractions ---

    def add_retraction(self, held: Delivery, receipt: str, at: datetime) -> None:
        """Remember that the target has taken it back; a no-op when remembered already."""
        if held.target not in self.retractions(held.link_id):
            known = {"link_id": held.link_id, "importer": held.target, "receipt": receipt, "at": at}
            _ADD_RETRACTION.run(self._connection, **known, actor=held.actor, reason=held.reason)

    def retractions(self, link_id: str) -> dict[str, str]:
        """Receipt of the retraction by target."""
        rows = self._connection.execute(select(link_retraction).where(link_retraction.c.link_id == link_id))
        return {row.importer: row.receipt for row in rows}


def _of(link_id: str, action: DeliveryAction) -> tuple[ColumnElement[bool], ...]:
    return _row.link_id == link_id, _row.action == action.value


def _held(held: Delivery) -> tuple[ColumnElement[bool], ...]:
    return _row.id == held.id, _row.attempt == held.attempt, _row.state == LEASED


def _sendable() -> tuple[ColumnElement[bool], ...]:
    """Not to a stopped target, and no retraction before its import has ended."""
    other = import_delivery.alias()
    open_import = exists(
        select(other.c.id).where(
            other.c.link_id == _row.link_id,
            other.c.target == _row.target,
            other.c.action == DeliveryAction.IMPORT.value,
            other.c.state != DEAD,
        )
    )
    stopped = exists(select(import_target.c.name).where(import_target.c.name == _row.target))
    return not_(stopped), or_(_row.action == DeliveryAction.IMPORT.value, not_(open_import))


def _delivery(row: Any, lost: int) -> Delivery:
    return Delivery(
        row.id,
        row.link_id,
        row.target,
        DeliveryAction(row.action),
        row.attempt + 1,
        row.failures,
        lost,
        row.asked_at,
        row.actor,
        row.reason,
    )
