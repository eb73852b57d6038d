"""What is known of a message without reading its body."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, select

from gateway.core.errors import NotFoundError
from gateway.ports import MessageFacts
from gateway.store.prepared import Prepared
from gateway.store.tables import message_content, raw_message

_FACTS = Prepared(
    select(raw_message.c.received_at, raw_message.c.size_bytes, message_content.c.sender)
    .join_from(raw_message, message_content, message_content.c.message_id == raw_message.c.id, isouter=True)
    .where(raw_message.c.id == bindparam("message"))
)


def facts_of(connection: Connection, message_id: str) -> MessageFacts:
    """Read a few narrow columns. Raises NotFoundError."""
    row = _FACTS.first(connection, message=message_id)
    if row is None:
        raise NotFoundError("there is no such message")
    return MessageFacts(message_id, row.received_at, row.size_bytes, row.sender)
