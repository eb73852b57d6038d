"""Finds messages that no mail client is shown although every row that the log answers for is there.

What a client sees hangs on rows that change or repeat others: the flags of a message, the counters of its mailbox, and
the MODSEQs and UIDs of its views. Whoever can write to the database could take away the flags of a message, or give it
a MODSEQ that its mailbox has not come to, and nobody would be shown it; or set a counter back, and the next message
would get the UID of another one.

Failure modes: those of the statements; whoever runs the check tells them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Column, Connection, Select, Table, and_, exists, func, or_, select

from gateway.store.quarantine_folder import FOLDER
from gateway.store.tables import (
    mailbox,
    mailbox_counter,
    mailbox_flag,
    mailbox_message,
    mailbox_seen,
    quarantine_entry,
    quarantine_exit,
    view_entry,
    view_exit,
)

_NAMED: Final = 5
"""Of one kind of finding so many are named."""
_OF_MAILBOXES: Final = (mailbox_flag, mailbox_seen, view_entry, view_exit)
"""Tables with a MODSEQ of their mailbox in each row."""
_OF_QUARANTINE: Final = (quarantine_entry, quarantine_exit)

_UNFLAGGED = (
    select(mailbox_message.c.mailbox_id, mailbox_message.c.uid)
    .where(
        ~exists().where(
            mailbox_flag.c.mailbox_id == mailbox_message.c.mailbox_id, mailbox_flag.c.uid == mailbox_message.c.uid
        )
    )
    .order_by(mailbox_message.c.mailbox_id, mailbox_message.c.uid)
    .limit(_NAMED)
)
_UNCOUNTED = select(mailbox.c.id).where(~exists().where(mailbox_counter.c.mailbox_id == mailbox.c.id))
_NUMBERED = (
    # Each view counts from 1 and leaves out no number.
    select(view_entry.c.mailbox_id, view_entry.c.view)
    .group_by(view_entry.c.mailbox_id, view_entry.c.view)
    .having(or_(func.max(view_entry.c.uid) != func.count(), func.min(view_entry.c.uid) != 1))
)


def _beyond(table: Table, column: Column[Any], limit: Any, *, quarantine: bool) -> Select[Any]:
    """Mailboxes of which the table has a row beyond what their counter says."""
    of = mailbox.c.name == FOLDER if quarantine else table.c.mailbox_id == mailbox.c.id
    return (
        select(mailbox.c.id)
        .join(mailbox_counter, mailbox_counter.c.mailbox_id == mailbox.c.id)
        .where(exists().where(and_(of, column > limit)))
    )


def check_counters(connection: Connection, report: Callable[[str, int, str], None]) -> None:
    """Name what hides a message from mail clients, or would double a UID. Raises DBAPIError."""
    for row in connection.execute(_UNFLAGGED):
        report("", 0, f"message {row.uid} of mailbox {row.mailbox_id} has lost its flags: no mail client is shown it")
    for row in connection.execute(_UNCOUNTED.order_by(mailbox.c.id).limit(_NAMED)):
        report("", 0, f"mailbox {row.id} has lost its counters")
    highest, last = mailbox_counter.c.highest_modseq, mailbox_counter.c.uid_next - 1
    beyond = {
        "a UID that its counter has not come to": [
            _beyond(mailbox_message, mailbox_message.c.uid, last, quarantine=False),
            _beyond(quarantine_entry, quarantine_entry.c.uid, last, quarantine=True),
        ],
        "a MODSEQ that its counter has not come to": [
            *(_beyond(table, table.c.modseq, highest, quarantine=False) for table in _OF_MAILBOXES),
            *(_beyond(table, table.c.modseq, highest, quarantine=True) for table in _OF_QUARANTINE),
        ],
    }
    for what, queries in beyond.items():
        found = {row.id for query in queries for row in connection.execute(query)}
        for mailbox_id in sorted(found)[:_NAMED]:
            report("", 0, f"mailbox {mailbox_id} has {what}")
    for row in connection.execute(_NUMBERED.order_by(view_entry.c.mailbox_id, view_entry.c.view).limit(_NAMED)):
        report("", 0, f"the UIDs of the view {row.view} of mailbox {row.mailbox_id} were changed")
