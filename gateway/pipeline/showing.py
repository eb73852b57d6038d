"""With which header fields a message is shown to mail clients: decided once, when the first mailbox takes it.

By default with none: it is shown byte for byte as it was verified. With ``imap.verdict_headers`` fields of the gateway
stand in front of it (:mod:`gateway.core.verdict_fields`), and none of their prefix that came with it is shown
(:mod:`gateway.core.shown_message`). What is kept and verified stays the bytes that came.

Guarantees: what a client reads under a UID never changes (RFC 3501 2.3.1.1). So the decision is a row of the filing
transaction; a message that some mailbox has keeps what was decided for it, whatever the setting says when another
mailbox takes it; and how a message stands is told as of its filing.

Failure modes: StoreError for an accepted message without a verdict: nothing is filed.
"""

from __future__ import annotations

from datetime import datetime

from gateway.core.errors import StoreError
from gateway.core.shown_message import without_fields
from gateway.core.standing import Standing
from gateway.core.verdict_fields import link_words, verdict_fields
from gateway.ports import IndexedMessage, MessageIndexer, UnitOfWork


class Showing:
    """Indexes messages as they will be shown.

    ``decided`` is what :meth:`gateway.ports.ShownRows.of` says of the message, and None where it is known to be new.
    """

    def __init__(self, indexer: MessageIndexer, *, verdict_headers: bool) -> None:
        self._indexer = indexer
        self._verdict_headers = verdict_headers

    def index(self, content: bytes, decided: str | None = None) -> IndexedMessage:
        """The index of the message, still without fields of the gateway. It takes CPU: to be called in a thread."""
        with_fields = self._verdict_headers if decided is None else bool(decided)
        return self._indexer.index(without_fields(content) if with_fields else content)

    def fields(self, rows: UnitOfWork, message_id: str, standing: Standing, decided: str | None = None) -> str:
        """The fields that the message is shown with, from the verdict in force; empty for none. Raises StoreError."""
        if decided is not None or not self._verdict_headers:
            return decided or ""
        evidence = rows.messages.verdict(message_id)
        if evidence is None:
            raise StoreError("an accepted message has no verdict")
        judged_at = rows.messages.judged_at(message_id)
        return verdict_fields(evidence, message_id=message_id, verified_at=judged_at, link=link_words(standing))

    def with_fields(self, indexed: IndexedMessage, fields: str) -> IndexedMessage:
        """The index of the message with its fields."""
        return self._indexer.with_fields(indexed, fields.encode("ascii")) if fields else indexed


def keep_fields(rows: UnitOfWork, message_id: str, at: datetime, fields: str, indexed: IndexedMessage) -> None:
    """Keep the fields of a message that a mailbox has just taken as its first; ``indexed`` is that with the fields."""
    if fields:
        rows.shown.add(message_id, at, fields, indexed.size_bytes)
