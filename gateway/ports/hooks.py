"""What works on verified messages: the import hook, the indexer, the change feed."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from gateway.ports.rows import IndexedMessage, Link, Patient

IMPORTER_API_VERSION = 1
"""Of :class:`PatientImporter` and what it is given. It is raised when an importer has to be changed."""
MAX_RECEIPT_CHARS = 1_000
CHECK_DEGRADED = "degraded: "
"""How what :meth:`PatientImporter.check` tells begins when the other side is fit, and something will be left out."""


@dataclass(frozen=True, slots=True)
class MessagePart:
    """A leaf part of a message, decoded."""

    filename: str
    """As the sender gave it; never a path to be trusted."""
    content_type: str
    data: bytes
    number: str = ""
    """Its IMAP part number in the message (``2.1``)."""


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What an importer is asked to put on a chart. ``link.id`` is the idempotency key.

    A link of one part (``link.part``) brings that part alone: ``content``, ``text`` and ``subject`` are empty, because
    the rest of the message may be about another patient.
    """

    link: Link
    patient: Patient
    sender: str
    recipients: tuple[str, ...]
    subject: str
    sent_at: datetime | None
    received_at: datetime
    rfc822_message_id: str
    content_sha256: str
    """Of the whole message, also where it is not given."""
    content: bytes
    text: str
    parts: tuple[MessagePart, ...] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class Retraction:
    """What an importer is asked to take back: what it once put on a chart under ``request.link.id``."""

    request: ImportRequest
    """As it was asked then. Its patient is as the index has it now."""
    receipt: str
    """What the importer answered then."""
    reason: str
    """Why, in the words of the person who asked; it may be shown to people of the practice."""
    actor: str
    retracted_at: datetime

    @property
    def key(self) -> str:
        """The idempotency key of the retraction: another one than that of the import, and as stable."""
        return retraction_key(self.request.link.id)


def retraction_key(link_id: str) -> str:
    """The idempotency key under which the import of a link is taken back."""
    return f"{link_id}.retract"


@dataclass(frozen=True, slots=True)
class ImporterCapabilities:
    """What an importer can do besides taking a message."""

    retract: bool = False
    """It can take back what it imported. Where it cannot, a retraction is set aside for a person."""
    preview: bool = False
    """It can show what it would send."""
    content: bool = True
    """It needs the bytes, the text and the parts of the message. False: they are empty, and nothing is read."""


@dataclass(frozen=True, slots=True)
class ImportPreview:
    """What an importer would send; made without telling anybody."""

    content_type: str
    data: bytes


class PatientImporter(Protocol):
    """The import hook: puts a linked message on the patient's chart somewhere else (docs/import-hook.md).

    Called at least once for each link, possibly again after a crash with the same ``link.id``, and possibly for
    several links at the same time: a call with an id that is there already must change nothing and return the same
    receipt. Every method but ``import_message`` and ``retract`` is free of side effects.

    What an answer means:

    * A returned receipt is the ack: it is kept, and the importer is not asked again for that link.
    * :class:`gateway.core.errors.ImportFailedError` is the nack for now: it is tried again by the schedule of the
      target, not before ``retry_after_seconds``. Every other exception, and no answer in time, means the same.
    * :class:`gateway.core.errors.ImportRefusedError` is the nack for good: the link is set aside for a person.
    * :class:`gateway.core.errors.ImporterGoneError`: nothing more is sent to this target until a person says so; the
      link waits.

    Cancelling a call must not wait for the other side.
    """

    @property
    def name(self) -> str:
        """Stable name of the target, under which receipts are kept."""
        ...

    @property
    def api_version(self) -> int:
        """The version of this Protocol that it is written for: :data:`IMPORTER_API_VERSION`."""
        ...

    @property
    def capabilities(self) -> ImporterCapabilities:
        """Fixed for the life of the importer, known without asking the other side."""
        ...

    async def import_message(self, request: ImportRequest) -> str:
        """Return a receipt: where the record is on the other side. 1 to MAX_RECEIPT_CHARS characters, no PHI."""
        ...

    async def retract(self, retraction: Retraction) -> str:
        """Take the import back and return a receipt of that. Idempotent by ``retraction.key``.

        Nothing is removed: the other side marks what it has as entered in error.
        """
        ...

    async def check(self) -> str | None:
        """None when the other side is there and fit, else a reason in words for the operator, without PHI.

        One that begins with :data:`CHECK_DEGRADED`: it is fit, and something will be left out.
        """
        ...

    async def preview(self, request: ImportRequest) -> ImportPreview:
        """What ``import_message`` would send, without telling anybody."""
        ...

    async def close(self) -> None:
        """Let go of connections and processes. Called once, after the last call has ended; raises nothing."""
        ...


class MessageIndexer(Protocol):
    """Computes what IMAP answers from."""

    def index(self, content: bytes) -> IndexedMessage:
        """Never raises for what the message holds: a message that cannot be parsed is shown as one text part."""
        ...

    def with_fields(self, indexed: IndexedMessage, fields: bytes) -> IndexedMessage:
        """The same for the message with these header fields (each with its CRLF) in front of it."""
        ...


class ChangeFeed(Protocol):
    """Hints that a mailbox changed; lossy by design, the store is the truth."""

    def changed(self, mailbox_id: int) -> None: ...


class HintSink(Protocol):
    """Who is told what the other nodes hint at. Called on the event loop that runs :meth:`Hints.run`."""

    def mailbox_changed(self, mailbox_id: int) -> None: ...

    def jobs_wait(self) -> None: ...

    def look_again(self) -> None:
        """Hints may have been lost: look at everything once."""
        ...


class Hints(Protocol):
    """Hints between the nodes of one database; lossy by design, polling the store is the truth.

    Both announcements cost no I/O and may be made from any thread.
    """

    @property
    def mailbox_poll_seconds(self) -> float:
        """How often mailboxes must be polled, given how much of the news comes as hints."""
        ...

    def mailbox_changed(self, mailbox_id: int) -> None:
        """Tell the other nodes of a commit in a mailbox."""
        ...

    def jobs_wait(self) -> None:
        """Tell the other nodes that there is more work than this one takes on at once."""
        ...

    async def run(self, sink: HintSink) -> None:
        """Send and hear hints until cancelled. Raises nothing: a lost connection is made again."""
        ...
