"""How deliveries of the import hook stand, as people see it: what is open from the queues, the rest from receipts.

Read-only. Failure modes: those of the statements.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Select, select

from gateway.ports import DeliveryAction, DeliveryState, ListedDelivery
from gateway.store.tables import import_delivery, link, link_receipt, link_retraction
from gateway.store.unit_time import UnitTime

_DEAD = "dead"
_LEASED = "leased"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which deliveries: those of one target or of one link only, where these are given; not more than ``limit``."""

    target: str | None
    link_id: str | None
    limit: int


def listed(connection: Connection, time: UnitTime, state: DeliveryState | None, wanted: Wanted) -> list[ListedDelivery]:
    """Dead ones first, then what waits, the next first, then what is done, the latest first; ``limit`` in all."""
    found: list[ListedDelivery] = []
    for asked in (DeliveryState.DEAD, DeliveryState.WAITING, DeliveryState.DONE):
        if state not in {None, asked} or len(found) >= wanted.limit:
            continue
        more = replace(wanted, limit=wanted.limit - len(found))
        if asked is DeliveryState.DONE:
            found += _done(connection, more)
        else:
            found += _open(connection, time, asked, more)
    return found


def _open(connection: Connection, time: UnitTime, state: DeliveryState, wanted: Wanted) -> list[ListedDelivery]:
    row = import_delivery.c
    query = select(import_delivery, link.c.message_id, link.c.patient_id).join(link, link.c.id == row.link_id)
    query = query.where(row.state == _DEAD if state is DeliveryState.DEAD else row.state != _DEAD)
    query = _only(query, row.target, row.link_id, wanted).order_by(row.run_at, row.id).limit(wanted.limit)
    return [
        ListedDelivery(
            r.id,
            r.link_id,
            r.message_id,
            r.patient_id,
            r.target,
            DeliveryAction(r.action),
            state,
            r.failures,
            time.shown(r.run_at),
            r.state == _LEASED,
            r.last_error,
            "",
        )
        for r in connection.execute(query)
    ]


def _done(connection: Connection, wanted: Wanted) -> list[ListedDelivery]:
    def of(action: DeliveryAction, table: Any) -> Iterator[ListedDelivery]:
        query = select(table, link.c.message_id, link.c.patient_id).join(link, link.c.id == table.c.link_id)
        query = _only(query, table.c.importer, table.c.link_id, wanted)
        for r in connection.execute(query.order_by(table.c.at.desc(), table.c.link_id).limit(wanted.limit)):
            where = (r.link_id, r.message_id, r.patient_id, r.importer)
            yield ListedDelivery(None, *where, action, DeliveryState.DONE, 0, r.at, False, "", r.receipt)

    both = [*of(DeliveryAction.IMPORT, link_receipt), *of(DeliveryAction.RETRACT, link_retraction)]
    return sorted(both, key=lambda one: one.at, reverse=True)[: wanted.limit]


def _only(query: Select[Any], target: Any, link_id: Any, wanted: Wanted) -> Select[Any]:
    if wanted.target is not None:
        query = query.where(target == wanted.target)
    return query if wanted.link_id is None else query.where(link_id == wanted.link_id)
