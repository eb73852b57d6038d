"""The quarantine as a mailbox: which refused messages have a report in it, under which UIDs.

There is one, made when the first operator is given it, with a mailbox row of its own for UIDVALIDITY, the next UID and
MODSEQ. A message enters in the transaction that refuses it and leaves in the one that has it judged again; refused once
more, it enters under a new UID. An entry names the verdict that it reports, so the report says the same for ever.

Failure modes: those of the statements; the rows are there with the state of the message or not at all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import Connection, bindparam, func, select, update

from gateway.ports import QuarantineEntry, RefusedMessage
from gateway.store.evidence import from_json
from gateway.store.prepared import Prepared
from gateway.store.tables import (
    mailbox,
    mailbox_counter,
    quarantine,
    quarantine_entry,
    quarantine_exit,
    raw_message,
    raw_recipient,
    verdict,
)

if TYPE_CHECKING:
    from gateway.store.mailboxes import Mailboxes

FOLDER = "Quarantine"
_CHUNK = 500

_MAILBOX = Prepared(select(mailbox.c.id).where(mailbox.c.name == FOLDER))
_COUNTERS = Prepared(
    select(mailbox_counter.c.uid_next, mailbox_counter.c.highest_modseq).where(
        mailbox_counter.c.mailbox_id == bindparam("mailbox")
    )
)
_COUNT = Prepared(
    update(mailbox_counter)
    .where(mailbox_counter.c.mailbox_id == bindparam("mailbox"))
    .values(uid_next=bindparam("next_uid"), highest_modseq=bindparam("modseq"))
)
_LAST_VERDICT = Prepared(select(func.max(verdict.c.seq)).where(verdict.c.message_id == bindparam("message")))
_ENTER = Prepared.into(quarantine_entry)
_LEAVE = Prepared.into(quarantine_exit)
_OPEN = Prepared(
    select(quarantine_entry.c.uid)
    .join(quarantine_exit, quarantine_exit.c.uid == quarantine_entry.c.uid, isouter=True)
    .where(quarantine_entry.c.message_id == bindparam("message"), quarantine_exit.c.uid.is_(None))
)


def enter(connection: Connection, message_id: str, at: datetime) -> None:
    """A message was refused, and its verdict is written. A no-op while nobody was given the folder."""
    mailbox_id = _MAILBOX.scalar(connection)
    if mailbox_id is not None:
        _enter(connection, mailbox_id, message_id, at)


def _enter(connection: Connection, mailbox_id: int, message_id: str, at: datetime) -> None:
    uid, highest = _COUNTERS.first(connection, mailbox=mailbox_id)
    seq = _LAST_VERDICT.scalar(connection, message=message_id) or 0
    _ENTER.run(connection, uid=uid, message_id=message_id, verdict_seq=seq, at=at, modseq=highest + 1)
    _COUNT.run(connection, mailbox=mailbox_id, next_uid=uid + 1, modseq=highest + 1)


def leave(connection: Connection, message_id: str) -> None:
    """A message is to be judged again."""
    mailbox_id = _MAILBOX.scalar(connection)
    if mailbox_id is None:
        return
    for uid in _OPEN.scalars(connection, message=message_id):
        uid_next, highest = _COUNTERS.first(connection, mailbox=mailbox_id)
        _LEAVE.run(connection, uid=uid, modseq=highest + 1)
        _COUNT.run(connection, mailbox=mailbox_id, next_uid=uid_next, modseq=highest + 1)


class QuarantineFolder:
    """See :class:`gateway.ports.QuarantineFolderRows`."""

    def __init__(self, connection: Connection, mailboxes: Mailboxes) -> None:
        self._connection = connection
        self._mailboxes = mailboxes

    def mailbox(self) -> int | None:
        """The mailbox of the folder, or None while nobody was given it."""
        found: int | None = _MAILBOX.scalar(self._connection)
        return found

    def make(self, at: datetime) -> int:
        """The same, made when it is not there; all that is refused now is in it."""
        found = self.mailbox()
        if found is not None:
            return found
        made = self._mailboxes.create(FOLDER, at, [])
        rows = select(quarantine.c.message_id, quarantine.c.since).order_by(quarantine.c.since, quarantine.c.message_id)
        for message_id, since in self._connection.execute(rows).all():
            _enter(self._connection, made, message_id, since)
        return made

    def entries(self, after_uid: int = 0) -> list[QuarantineEntry]:
        """What entered, by ascending UID."""
        rows = self._connection.execute(
            select(quarantine_entry).where(quarantine_entry.c.uid > after_uid).order_by(quarantine_entry.c.uid)
        )
        return [QuarantineEntry(row.uid, row.message_id, row.at, row.modseq) for row in rows]

    def exits(self, since: int = 0) -> list[tuple[int, int]]:
        """MODSEQ and UID of what left after that MODSEQ, in the order of both."""
        rows = self._connection.execute(
            select(quarantine_exit.c.modseq, quarantine_exit.c.uid)
            .where(quarantine_exit.c.modseq > since)
            .order_by(quarantine_exit.c.modseq, quarantine_exit.c.uid)
        )
        return [(row.modseq, row.uid) for row in rows]

    def reported(self, uids: Sequence[int]) -> dict[int, RefusedMessage]:
        """What the entries report, by UID; also of those that left."""
        found: dict[int, RefusedMessage] = {}
        for start in range(0, len(uids), _CHUNK):
            found |= self._reported(uids[start : start + _CHUNK])
        return found

    def _reported(self, uids: Sequence[int]) -> dict[int, RefusedMessage]:
        entry = quarantine_entry.c
        rows = self._connection.execute(
            select(quarantine_entry, raw_message, verdict.c.reason, verdict.c.judgement)
            .join(raw_message, raw_message.c.id == entry.message_id)
            .join(
                verdict,
                (verdict.c.message_id == entry.message_id) & (verdict.c.seq == entry.verdict_seq),
                isouter=True,
            )
            .where(entry.uid.in_(uids))
        ).all()
        recipients = defaultdict[str, list[str]](list)
        for message_id, recipient in self._connection.execute(
            select(raw_recipient.c.message_id, raw_recipient.c.recipient)
            .where(raw_recipient.c.message_id.in_([row.message_id for row in rows]))
            .order_by(raw_recipient.c.message_id, raw_recipient.c.position)
        ):
            recipients[message_id].append(recipient)
        judged = {row.uid: {} if row.judgement is None else from_json(row.judgement) for row in rows}
        return {
            row.uid: RefusedMessage(
                id=row.message_id,
                received_at=row.received_at,
                refused_at=row.at,
                reason=row.reason or "",
                detail=judged[row.uid].get("detail", ""),
                hint=judged[row.uid].get("hint", ""),
                claimed_sender=row.mail_from,
                recipients=tuple(recipients[row.message_id]),
                size_bytes=row.size_bytes,
            )
            for row in rows
        }
