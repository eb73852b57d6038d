"""What of the messages in a mailbox was known when they were filed and never changes: size, dates, whose UID it is.

Failure modes: those of the statements; nothing is written.
"""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, func, select

from gateway.core.errors import NotFoundError
from gateway.ports import FiledMessage
from gateway.store.prepared import Prepared
from gateway.store.tables import mailbox_message

_FILED = Prepared(
    select(
        mailbox_message.c.uid,
        mailbox_message.c.size_bytes,
        mailbox_message.c.internal_date,
        mailbox_message.c.sent_at,
    )
    .where(
        mailbox_message.c.mailbox_id == bindparam("mailbox"),
        mailbox_message.c.uid.between(bindparam("first"), bindparam("last")),
    )
    .order_by(mailbox_message.c.uid)
)
_SIZE = Prepared(
    select(func.sum(mailbox_message.c.size_bytes)).where(
        mailbox_message.c.mailbox_id == bindparam("mailbox"),
        mailbox_message.c.uid > bindparam("after"),
        mailbox_message.c.uid <= bindparam("last"),
    )
)
_MESSAGE_ID = Prepared(
    select(mailbox_message.c.message_id).where(
        mailbox_message.c.mailbox_id == bindparam("mailbox"), mailbox_message.c.uid == bindparam("uid")
    )
)

_UIDS_OF = Prepared(
    select(mailbox_message.c.uid)
    .where(mailbox_message.c.mailbox_id == bindparam("mailbox"), mailbox_message.c.message_id == bindparam("message"))
    .order_by(mailbox_message.c.uid)
)


def filed_messages(connection: Connection, mailbox_id: int, first_uid: int, last_uid: int) -> list[FiledMessage]:
    """See :meth:`gateway.ports.MailboxRows.filed`."""
    rows = _FILED.rows(connection, mailbox=mailbox_id, first=first_uid, last=last_uid)
    return [FiledMessage(*row) for row in rows]


def total_size(connection: Connection, mailbox_id: int, after_uid: int, last_uid: int) -> int:
    """See :meth:`gateway.ports.MailboxRows.size_bytes`."""
    # NULL when there is no message; PostgreSQL adds up to a decimal number.
    return int(_SIZE.scalar(connection, mailbox=mailbox_id, after=after_uid, last=last_uid) or 0)


def message_of(connection: Connection, mailbox_id: int, uid: int) -> str:
    """See :meth:`gateway.ports.MailboxRows.message_id`. Raises NotFoundError."""
    found: str | None = _MESSAGE_ID.scalar(connection, mailbox=mailbox_id, uid=uid)
    if found is None:
        raise NotFoundError("there is no such message")
    return found


def uids_of_message(connection: Connection, mailbox_id: int, message_id: str) -> list[int]:
    """See :meth:`gateway.ports.MailboxRows.uids_of`."""
    return [row.uid for row in _UIDS_OF.rows(connection, mailbox=mailbox_id, message=message_id)]
