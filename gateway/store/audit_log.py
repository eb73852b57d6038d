"""Audit events: append-only and hash-chained for each node (tamper evidence, :mod:`gateway.core.audit`).

The head is read in the transaction that appends: the one writer (or, on a database with many, the unique key of
node and number) makes the chain free of forks. There is one node until there are several processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from gateway.core.audit import GENESIS, AuditEvent, canonical_bytes, detail_text, first_broken, next_hash
from gateway.store.tables import audit_event, clean

NODE = "main"
_PAGE = 1_000


class AuditLog:
    """See :class:`gateway.ports.AuditRows`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, at: datetime, actor: str, action: str, subject: str, detail: dict[str, Any] | None = None) -> None:
        """Append an event. ``detail`` holds ids, digests and counts only (promise 6)."""
        head = self.head()
        seq, previous = head if head is not None else (0, GENESIS)
        # What is hashed is what will be read back.
        event: dict[str, Any] = {
            "node": NODE,
            "seq": seq + 1,
            "at": at,
            "actor": clean(actor),
            "action": clean(action),
            "subject": clean(subject),
            "detail": detail_text(detail),
        }
        digest = next_hash(previous, canonical_bytes(**event))
        self._connection.execute(insert(audit_event).values(event | {"hash": digest}))

    def head(self) -> tuple[int, bytes] | None:
        """Number and hash of the newest event; to be kept elsewhere. None for an empty log."""
        row = self._connection.execute(
            select(audit_event.c.seq, audit_event.c.hash)
            .where(audit_event.c.node == NODE)
            .order_by(audit_event.c.seq.desc())
            .limit(1)
        ).first()
        return None if row is None else (row.seq, row.hash)

    def events(self, *, after: int = 0) -> Iterator[AuditEvent]:
        """Every event after that number, in order, read page by page."""
        while True:
            rows = self._connection.execute(
                select(audit_event)
                .where(audit_event.c.node == NODE, audit_event.c.seq > after)
                .order_by(audit_event.c.seq)
                .limit(_PAGE)
            ).all()
            for row in rows:
                yield AuditEvent(row.node, row.seq, row.at, row.actor, row.action, row.subject, row.detail, row.hash)
            if len(rows) < _PAGE:
                return
            after = rows[-1].seq

    def first_broken(self) -> int | None:
        """The number at which the chain does not hold, or None. A tail that was cut off does not show here."""
        return first_broken(self.events())
