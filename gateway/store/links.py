"""Links of messages to charts, and what the importers answered. Append-only."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, select

from gateway.core.errors import ConflictError, NotFoundError
from gateway.ports import Link
from gateway.store.prepared import Prepared
from gateway.store.tables import link, link_receipt, patient_version, raw_message

_ADD = Prepared.into(link)
_ADD_RECEIPT = Prepared.into(link_receipt)
_BY_ID = Prepared(select(link).where(link.c.id == bindparam("wanted")))
_OF_PAIR = Prepared(
    select(link).where(link.c.message_id == bindparam("message"), link.c.patient_id == bindparam("patient"))
)
_IN_ORDER = select(link).order_by(link.c.linked_at, link.c.id)
_OF_MESSAGE = Prepared(_IN_ORDER.where(link.c.message_id == bindparam("message")))
_OF_PATIENT = Prepared(_IN_ORDER.where(link.c.patient_id == bindparam("patient")))
_MESSAGE = Prepared(select(raw_message.c.id).where(raw_message.c.id == bindparam("message")))
_PATIENT = Prepared(
    select(patient_version.c.version).where(patient_version.c.patient_id == bindparam("patient")).limit(1)
)
_RECEIPTS = Prepared(select(link_receipt).where(link_receipt.c.link_id == bindparam("of_link")))


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
        present = self._find(_BY_ID, wanted=new.id)
        if present == [new]:
            return
        if present or self._find(_OF_PAIR, message=new.message_id, patient=new.patient_id):
            raise ConflictError("the message is on that chart already")
        if _MESSAGE.scalar(self._connection, message=new.message_id) is None:
            raise NotFoundError("there is no such message")
        if _PATIENT.scalar(self._connection, patient=new.patient_id) is None:
            raise NotFoundError("there is no such patient; see: direct-gateway patient list")
        _ADD.run(
            self._connection,
            id=new.id,
            message_id=new.message_id,
            patient_id=new.patient_id,
            mode=new.mode,
            actor=new.actor,
            rule=new.rule,
            linked_at=new.linked_at,
        )

    def for_message(self, message_id: str) -> list[Link]:
        return self._find(_OF_MESSAGE, message=message_id)

    def for_patient(self, patient_id: str) -> list[Link]:
        return self._find(_OF_PATIENT, patient=patient_id)

    def get(self, link_id: str) -> Link:
        found = self._find(_BY_ID, wanted=link_id)
        if not found:
            raise NotFoundError("there is no such link")
        return found[0]

    def add_receipt(self, link_id: str, importer: str, receipt: str, at: datetime) -> None:
        """Remember that the importer has it; a no-op when remembered already."""
        if importer not in self.receipts(link_id):
            _ADD_RECEIPT.run(self._connection, link_id=link_id, importer=importer, receipt=receipt, at=at)

    def receipts(self, link_id: str) -> dict[str, str]:
        return {row.importer: row.receipt for row in _RECEIPTS.rows(self._connection, of_link=link_id)}

    def _find(self, query: Prepared, **values: str) -> list[Link]:
        return [_link(row) for row in query.rows(self._connection, **values)]


def _link(row: Any) -> Link:
    return Link(row.id, row.message_id, row.patient_id, row.mode, row.actor, row.rule, row.linked_at)
