"""The header fields that messages are shown with, beside their verified bytes, which stay as they are.

A row is written in the transaction that files the message for the first time, and is never changed: what a mail client
has read of a UID is what it will read (RFC 3501 2.3.1.1). What the other rows of the message say to mail clients (its
size, its index, the text that is searched) was computed of the message with its fields.

Failure modes: ConflictError for a second row about one message; StoreError in :func:`as_shown` when message and row do
not belong together; those of the statements.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, select

from gateway.core.errors import ConflictError
from gateway.core.shown_message import shown
from gateway.core.verdict_fields import FORMAT
from gateway.store.message_keys import broken
from gateway.store.prepared import Prepared
from gateway.store.tables import message_index, shown_fields

_ADD = Prepared.into(shown_fields)
_FIELDS = Prepared(select(shown_fields.c.fields).where(shown_fields.c.message_id == bindparam("message")))
_IS_INDEXED = Prepared(select(message_index.c.message_id).where(message_index.c.message_id == bindparam("message")))


class ShownFields:
    """See :class:`gateway.ports.ShownRows`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def of(self, message_id: str) -> str | None:
        """The fields, none, or None while nothing is decided."""
        fields: str | None = _FIELDS.scalar(self._connection, message=message_id)
        if fields is None and _IS_INDEXED.scalar(self._connection, message=message_id) is not None:
            return ""
        return fields

    def add(self, message_id: str, at: datetime, fields: str, size_bytes: int) -> None:
        """Keep the fields of a message that is filed for the first time. Raises ConflictError."""
        if _FIELDS.scalar(self._connection, message=message_id) is not None:
            raise ConflictError("the message is shown with its fields already")
        _ADD.run(self._connection, message_id=message_id, at=at, format=FORMAT, fields=fields, size_bytes=size_bytes)


def as_shown(message_id: str, content: bytes, row: Any) -> bytes:
    """The message as mail clients read it.

    Args:
        message_id: of the message.
        content: the verified bytes.
        row: with the columns ``fields`` and ``shown_bytes`` of its fields, None where it has none.

    Raises:
        StoreError: the message has another size than it was filed with, so its fields or its bytes are not the same.
    """
    if row.fields is None:
        return content
    found = shown(content, row.fields.encode("ascii", "replace"))
    if len(found) != row.shown_bytes:
        raise broken(message_id, "it does not have the size that it was filed with")
    return found
