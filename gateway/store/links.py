"""Links of messages to charts, who took them back, and what the importers answered. Append-only.

A link is in force until somebody undoes it; the row stays for ever, and a later link of the same message to the same
patient is another one. ``seq`` counts the links of a message to a patient: whoever made one at the same moment without
having seen the other collides there.

Crash story: each row is part of the caller's transaction, with its event of the audit log. Failure modes: NotFoundError
and ConflictError as the methods say; those of the statements.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, exists, func, not_, select, union

from gateway.core.document_marks import DocumentMark
from gateway.core.errors import ConflictError, NotFoundError
from gateway.ports import Link, LinkRecord, LinkUndo, SeenDocument
from gateway.store.prepared import Prepared
from gateway.store.tables import link, link_mark, link_receipt, link_undo, message_content, patient_version, raw_message

MOST_SEEN = 20
"""Charts that are told of one document."""
IN_FORCE = not_(exists(select(link_undo.c.link_id).where(link_undo.c.link_id == link.c.id)))
"""For a query of ``link``: only what nobody has taken back."""

_ADD = Prepared.into(link)
_ADD_UNDO = Prepared.into(link_undo)
_ADD_MARK = Prepared.into(link_mark)
_ADD_RECEIPT = Prepared.into(link_receipt)
_BY_ID = Prepared(select(link).where(link.c.id == bindparam("wanted")))
_OF_PAIR = Prepared(
    select(link).where(link.c.message_id == bindparam("message"), link.c.patient_id == bindparam("patient"), IN_FORCE)
)
_EVER_OF_PAIR = Prepared(
    select(func.count()).where(link.c.message_id == bindparam("message"), link.c.patient_id == bindparam("patient"))
)
_IN_ORDER = select(link).order_by(link.c.linked_at, link.c.id)
_OF_MESSAGE = Prepared(_IN_ORDER.where(link.c.message_id == bindparam("message"), IN_FORCE))
_OF_PATIENT = Prepared(_IN_ORDER.where(link.c.patient_id == bindparam("patient"), IN_FORCE))
_EVER = (
    select(
        link,
        link_undo.c.at.label("undone_at"),
        link_undo.c.actor.label("undone_by"),
        link_undo.c.reason.label("undone_why"),
    )
    .outerjoin(link_undo, link_undo.c.link_id == link.c.id)
    .order_by(link.c.linked_at, link.c.id)
)
_CONTENT = (
    select(message_content.c.content_sha256)
    .where(message_content.c.message_id == bindparam("copied"))
    .scalar_subquery()
)
_ITSELF_AND_COPIES = union(
    select(raw_message.c.id).where(raw_message.c.id == bindparam("message")),
    select(message_content.c.message_id).where(message_content.c.content_sha256 == _CONTENT),
)
_MARKED = Prepared(
    select(link, link_mark.c.path)
    .join(link_mark, link_mark.c.link_id == link.c.id)
    .where(link_mark.c.sha256 == bindparam("digest"), link_mark.c.kind == bindparam("of_kind"), IN_FORCE)
    .where(link.c.message_id.not_in(_ITSELF_AND_COPIES))
    .order_by(link.c.linked_at, link.c.id)
    .limit(MOST_SEEN)
)
_EVER_OF_MESSAGE = Prepared(_EVER.where(link.c.message_id.in_(_ITSELF_AND_COPIES)))
_EVER_OF_PATIENT = Prepared(_EVER.where(link.c.patient_id == bindparam("patient")))
_UNDONE = Prepared(select(link_undo).where(link_undo.c.link_id == bindparam("of_link")))
_MESSAGE = Prepared(select(raw_message.c.id).where(raw_message.c.id == bindparam("message")))
_PATIENT = Prepared(
    select(patient_version.c.version).where(patient_version.c.patient_id == bindparam("patient")).limit(1)
)
_RECEIPTS = Prepared(select(link_receipt).where(link_receipt.c.link_id == bindparam("of_link")))


class Links:
    """See :class:`gateway.ports.LinkRows`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # --- links ---

    def add(self, new: Link, marks: Sequence[DocumentMark] = ()) -> None:
        """Keep a link, and by what its content is known again. A no-op when this very link is there.

        Raises:
            ConflictError: the id is taken, or the same of the message is on that patient's chart under another id.
            NotFoundError: no such message or patient.
        """
        present = self._find(_BY_ID, wanted=new.id)
        if present == [new]:
            return
        there = self._find(_OF_PAIR, message=new.message_id, patient=new.patient_id)
        if present or any(one.part == new.part for one in there):
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
            part=new.part or None,
            seq=_EVER_OF_PAIR.scalar(self._connection, message=new.message_id, patient=new.patient_id),
        )
        for mark in marks:
            _ADD_MARK.run(self._connection, link_id=new.id, kind=mark.kind.value, sha256=mark.sha256, path=mark.path)

    def undo(self, undone: LinkUndo) -> bool:
        """Take a link back for ever; False when somebody has. Raises NotFoundError."""
        self.get(undone.link_id)
        if self.undone(undone.link_id) is not None:
            return False
        _ADD_UNDO.run(self._connection, link_id=undone.link_id, at=undone.at, actor=undone.actor, reason=undone.reason)
        return True

    def for_message(self, message_id: str) -> list[Link]:
        return self._find(_OF_MESSAGE, message=message_id)

    def for_patient(self, patient_id: str) -> list[Link]:
        return self._find(_OF_PATIENT, patient=patient_id)

    def history(self, message_id: str) -> list[LinkRecord]:
        rows = _EVER_OF_MESSAGE.rows(self._connection, message=message_id, copied=message_id)
        return [_record(row) for row in rows]

    def patient_history(self, patient_id: str) -> list[LinkRecord]:
        return [_record(row) for row in _EVER_OF_PATIENT.rows(self._connection, patient=patient_id)]

    def seen(self, message_id: str, marks: Sequence[DocumentMark]) -> list[SeenDocument]:
        """Where the same is on a chart by another message that is no copy: links in force, the oldest first."""
        asked = {"message": message_id, "copied": message_id}
        found = [
            SeenDocument(mark, row.path, _link(row))
            for mark in marks
            for row in _MARKED.rows(self._connection, of_kind=mark.kind.value, digest=mark.sha256, **asked)
        ]
        return sorted(found, key=lambda one: (one.link.linked_at, one.link.id))

    def get(self, link_id: str) -> Link:
        found = self._find(_BY_ID, wanted=link_id)
        if not found:
            raise NotFoundError("there is no such link")
        return found[0]

    def undone(self, link_id: str) -> LinkUndo | None:
        row = _UNDONE.first(self._connection, of_link=link_id)
        return None if row is None else LinkUndo(row.link_id, row.at, row.actor, row.reason)

    def _find(self, query: Prepared, **values: str) -> list[Link]:
        return [_link(row) for row in query.rows(self._connection, **values)]

    # --- receipts ---

    def add_receipt(self, link_id: str, importer: str, receipt: str, at: datetime) -> None:
        """Remember that the importer has it; a no-op when remembered already."""
        if importer not in self.receipts(link_id):
            _ADD_RECEIPT.run(self._connection, link_id=link_id, importer=importer, receipt=receipt, at=at)

    def receipts(self, link_id: str) -> dict[str, str]:
        return {row.importer: row.receipt for row in _RECEIPTS.rows(self._connection, of_link=link_id)}


def _link(row: Any) -> Link:
    return Link(row.id, row.message_id, row.patient_id, row.mode, row.actor, row.rule, row.linked_at, row.part or "")


def _record(row: Any) -> LinkRecord:
    taken = None if row.undone_at is None else LinkUndo(row.id, row.undone_at, row.undone_by, row.undone_why)
    return LinkRecord(_link(row), taken)
