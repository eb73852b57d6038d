"""Audit events: append-only and hash-chained for each node (tamper evidence, :mod:`gateway.core.audit`).

The head is read in the transaction that appends: the one writer (or, on a database with many, the unique key of node
and number) makes the chain free of forks. Every process that writes has the name of its node from the settings
(``[store] node``); on SQLite the daemon and the tools beside it share one, because they share the one writer's lock.

An event answers for the rows that its unit of work had written when it was added (:mod:`gateway.store.facts`). Rows
that were written after the last event of a unit get one of their own at its end, ``rows.written``: nothing that is
meant to stay for ever is outside the chain, whoever wrote it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, select

from gateway.core.audit import (
    GENESIS,
    AuditEvent,
    AuditQuery,
    canonical_bytes,
    detail_text,
    first_broken,
    holds_uid,
    next_hash,
    rows_text,
    set_subject,
)
from gateway.core.errors import NotFoundError
from gateway.store.facts import Facts
from gateway.store.group_memory import memory_of
from gateway.store.prepared import Prepared
from gateway.store.tables import audit_event, clean, mailbox_message

DEFAULT_NODE = "main"
ROWS_WRITTEN = "rows.written"
ACTOR = "gateway"
_PAGE = 1_000

_ADD = Prepared.into(audit_event)
_HEAD = Prepared(
    select(audit_event.c.seq, audit_event.c.hash)
    .where(audit_event.c.node == bindparam("of_node"))
    .order_by(audit_event.c.seq.desc())
    .limit(1)
)


class AuditLog:
    """See :class:`gateway.ports.AuditRows`."""

    def __init__(self, connection: Connection, node: str = DEFAULT_NODE, facts: Facts | None = None) -> None:
        self._connection = connection
        self._node = node
        self._facts = Facts() if facts is None else facts
        self._newest: tuple[int, bytes] | None = None
        """What this unit appended last; no one else appends to this node's chain before the unit's commit."""
        self._memory = memory_of(connection)
        """Of the units that came before it in the same transaction."""

    def add(self, at: datetime, actor: str, action: str, subject: str, detail: dict[str, Any] | None = None) -> None:
        """Append an event. ``detail`` holds ids, digests and counts only (promise 6)."""
        told = None if self._memory is None else self._memory.head(self._node)
        seq, previous = self._newest or told or self.head() or (0, GENESIS)
        # What is hashed is what will be read back.
        event: dict[str, Any] = {
            "node": self._node,
            "seq": seq + 1,
            "at": at,
            "actor": clean(actor),
            "action": clean(action),
            "subject": clean(subject),
            "detail": detail_text(detail),
            "rows": rows_text(self._facts.take()),
        }
        digest = next_hash(previous, canonical_bytes(**event))
        _ADD.later(self._connection, **event, hash=digest)
        self._newest = seq + 1, digest
        if self._memory is not None:
            self._memory.appended(self._node, self._newest)

    def add_rest(self, at: datetime) -> None:
        """Append ``rows.written`` for the rows that no event of the unit answers for; a no-op when there are none."""
        if self._facts:
            self.add(at, ACTOR, ROWS_WRITTEN, "", {"rows": len(self._facts)})

    def head(self) -> tuple[int, bytes] | None:
        """Number and hash of the newest event of this node. None for an empty log."""
        row = _HEAD.first(self._connection, of_node=self._node)
        return None if row is None else (row.seq, row.hash)

    def get(self, node: str, seq: int) -> AuditEvent:
        """One event. Raises NotFoundError."""
        row = self._connection.execute(
            select(audit_event).where(audit_event.c.node == node, audit_event.c.seq == seq)
        ).first()
        if row is None:
            raise NotFoundError(f"there is no event {node}/{seq} in the audit log")
        return event_of(row)

    def find(self, query: AuditQuery) -> list[AuditEvent]:
        """The events that the query asks for, of every node. They are not checked against the chain here."""
        table = audit_event.c
        statement = select(audit_event)
        for column, wanted in ((table.actor, query.actor), (table.node, query.node)):
            if wanted:
                statement = statement.where(column == wanted)
        if query.action.endswith("*"):
            statement = statement.where(table.action.startswith(query.action[:-1], autoescape=True))
        elif query.action:
            statement = statement.where(table.action == query.action)
        if query.since is not None:
            statement = statement.where(table.at >= query.since)
        if query.until is not None:
            statement = statement.where(table.at < query.until)
        fields = [table[query.sort]] if query.sort != "at" else []
        order = [*fields, table.at, table.node, table.seq]
        statement = statement.order_by(*(column.asc() if query.ascending else column.desc() for column in order))
        if not query.subject:
            rows = self._connection.execute(statement.limit(query.limit).offset(query.offset))
            return [event_of(row) for row in rows]
        return self._about(statement, query)

    def _about(self, statement: Select[Any], query: AuditQuery) -> list[AuditEvent]:
        """Those about a subject; for a message, also those about a set that holds it."""
        places = {
            set_subject(row.mailbox_id): int(row.uid)
            for row in self._connection.execute(
                select(mailbox_message.c.mailbox_id, mailbox_message.c.uid).where(
                    mailbox_message.c.message_id == query.subject
                )
            )
        }
        statement = statement.where(audit_event.c.subject.in_([query.subject, *places]))
        found: list[AuditEvent] = []
        for row in self._connection.execute(statement):
            uid = places.get(row.subject)
            if uid is None or holds_uid(json.loads(row.detail).get("uids", ""), uid):
                found.append(event_of(row))
                if len(found) == query.offset + query.limit:
                    break
        return found[query.offset :]

    def events(self, *, after: int = 0) -> Iterator[AuditEvent]:
        """Every event of this node after that number, in order, read page by page."""
        while True:
            rows = self._connection.execute(
                select(audit_event)
                .where(audit_event.c.node == self._node, audit_event.c.seq > after)
                .order_by(audit_event.c.seq)
                .limit(_PAGE)
            ).all()
            for row in rows:
                yield event_of(row)
            if len(rows) < _PAGE:
                return
            after = rows[-1].seq

    def first_broken(self) -> int | None:
        """The number at which the chain does not hold, or None. A tail that was cut off does not show here."""
        return first_broken(self.events())


def event_of(row: Row[Any]) -> AuditEvent:
    """A row of the table as a value."""
    return AuditEvent(row.node, row.seq, row.at, row.actor, row.action, row.subject, row.detail, row.hash, row.rows)
