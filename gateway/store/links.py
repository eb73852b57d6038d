"""Links of messages to charts, and what the importers answered. Append-only."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, insert, select

from gateway.core.errors import ConflictError, NotFoundError
from gateway.ports import Link
from gateway.store.tables import link, link_receipt, patient_version, raw_message


class Links:
    """See :class:`gateway.ports.LinkRows`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, new: Link) -> None:
        """Keep a link. A no-op when this very link is there.

        Raises:
            ConflictError: the id is taken, or the message is on that patient's chart under another id.
            NotFoundError: no such message or patient.
        """
        present = self._find(select(link).where(link.c.id == new.id))
        if present == [new]:
            return
        pair = select(link).where(link.c.message_id == new.message_id, link.c.patient_id == new.patient_id)
        if present or self._find(pair):
            raise ConflictError("the message is on that chart already")
        if self._connection.scalar(select(raw_message.c.id).where(raw_message.c.id == new.message_id)) is None:
            raise NotFoundError("there is no such message")
        known = select(patient_version.c.version).where(patient_version.c.patient_id == new.patient_id).limit(1)
        if self._connection.scalar(known) is None:
            raise NotFoundError("there is no such patient")
        self._connection.execute(
            insert(link).values(
                id=new.id,
                message_id=new.message_id,
                patient_id=new.patient_id,
                mode=new.mode,
                actor=new.actor,
                rule=new.rule,
                linked_at=new.linked_at,
            )
        )

    def for_message(self, message_id: str) -> list[Link]:
        return self._find(select(link).where(link.c.message_id == message_id).order_by(link.c.linked_at, link.c.id))

    def for_patient(self, patient_id: str) -> list[Link]:
        return self._find(select(link).where(link.c.patient_id == patient_id).order_by(link.c.linked_at, link.c.id))

    def get(self, link_id: str) -> Link:
        found = self._find(select(link).where(link.c.id == link_id))
        if not found:
            raise NotFoundError("there is no such link")
        return found[0]

    def add_receipt(self, link_id: str, importer: str, receipt: str, at: datetime) -> None:
        """Remember that the importer has it; a no-op when remembered already."""
        if importer not in self.receipts(link_id):
            self._connection.execute(
                insert(link_receipt).values(link_id=link_id, importer=importer, receipt=receipt, at=at)
            )

    def receipts(self, link_id: str) -> dict[str, str]:
        rows = self._connection.execute(select(link_receipt).where(link_receipt.c.link_id == link_id))
        return {row.importer: row.receipt for row in rows}

    def _find(self, query: Select[Any]) -> list[Link]:
        return [_link(row) for row in self._connection.execute(query)]


def _link(row: Row[Any]) -> Link:
    return Link(row.id, row.message_id, row.patient_id, row.mode, row.actor, row.rule, row.linked_at)
