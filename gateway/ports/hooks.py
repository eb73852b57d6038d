"""What works on verified messages: the import hook, the indexer, the change feed."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from gateway.ports.rows import IndexedMessage, Link, Patient


@dataclass(frozen=True, slots=True)
class MessagePart:
    """A leaf part of a message, decoded."""

    filename: str
    """As the sender gave it; never a path to be trusted."""
    content_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What an importer is asked to put on a chart. ``link.id`` is the idempotency key."""

    link: Link
    patient: Patient
    sender: str
    recipients: tuple[str, ...]
    subject: str
    sent_at: datetime | None
    received_at: datetime
    rfc822_message_id: str
    content_sha256: str
    content: bytes
    text: str
    parts: tuple[MessagePart, ...] = field(default_factory=tuple)


class PatientImporter(Protocol):
    """The import hook: puts a linked message on the patient's chart somewhere else.

    Called at least once for each link, possibly again after a crash with the same ``link.id``: a second call
    with an id that is there already must change nothing and return the same receipt.
    """

    @property
    def name(self) -> str:
        """Stable name under which receipts are kept."""
        ...

    async def import_message(self, request: ImportRequest) -> str:
        """Return a receipt: where the record is on the other side. Raises any exception to be tried again."""
        ...


class MessageIndexer(Protocol):
    """Computes what IMAP answers from."""

    def index(self, content: bytes) -> IndexedMessage:
        """Never raises for what the message holds: a message that cannot be parsed is shown as one text part."""
        ...


class ChangeFeed(Protocol):
    """Hints that a mailbox changed; lossy by design, the store is the truth."""

    def changed(self, mailbox_id: int) -> None: ...
