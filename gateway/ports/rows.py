"""What the store gives and takes, as values."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime

from gateway.core.document_marks import DocumentMark
from gateway.core.lifecycle import JobKind, State
from gateway.core.message import Source
from gateway.core.standing import ReviewState


@dataclass(frozen=True, slots=True)
class RawMessage:
    """An immutable raw message as it arrived."""

    id: str
    received_at: datetime
    source: Source
    peer: str
    mail_from: str | None
    recipients: tuple[str, ...]
    sha256: str
    body: bytes


@dataclass(frozen=True, slots=True)
class PlacedBody:
    """A sealed body that lies outside the database, durably, before the row that names it is written."""

    message_id: str
    kind: str
    """``raw`` or ``content``."""
    body_sha256: str
    """Of the body before it was sealed: it must be the one that the row is about."""
    key: bytes = field(repr=False)
    """The key of the message."""
    name: str
    version: str
    sha256: str
    """Of the sealed object."""
    size_bytes: int
    retain_until: datetime
    """Until then nobody can remove it."""


@dataclass(frozen=True, slots=True)
class MessageFacts:
    """What is known of a message without reading its body."""

    id: str
    received_at: datetime
    size_bytes: int
    """Of the raw message."""
    sender: str | None
    """Verified, normalised Direct address; None when the message was not accepted."""


@dataclass(frozen=True, slots=True)
class MessageSummary:
    """One line of ``message list``: a raw message with where it stands."""

    id: str
    received_at: datetime
    state: State
    reason: str
    sender: str
    """Verified, normalised Direct address; empty when nobody was verified."""
    claimed_sender: str
    """The reverse path of the envelope: whoever delivered the message wrote it. Empty for the null sender."""
    subject: str
    message_id: str
    delivered_to: tuple[str, ...]
    patient_ids: tuple[str, ...]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class RefusedMessage:
    """One line of the quarantine. Nothing in it was verified; nothing of it was ever decrypted and kept."""

    id: str
    received_at: datetime
    refused_at: datetime
    reason: str
    """A :class:`gateway.core.verdict.Reason`."""
    detail: str
    hint: str
    """The repair in particular; empty when there is none to tell."""
    claimed_sender: str | None
    """The reverse path of the envelope, which anybody may write; None for mail without an envelope."""
    recipients: tuple[str, ...]
    """Of the envelope."""
    size_bytes: int


@dataclass(frozen=True, slots=True)
class RefusedCount:
    """How many messages are refused for one reason now."""

    reason: str
    count: int
    oldest: datetime
    newest: datetime
    """When the first and the last of them were refused."""


@dataclass(frozen=True, slots=True)
class StoredContent:
    """What was verified and may be shown; exists only for an accepted message."""

    message_id: str
    """The raw message's id: there is at most one content per raw message."""
    content: bytes
    content_sha256: str
    sender: str
    subject: str
    rfc822_message_id: str
    delivered_to: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IndexedMessage:
    """What IMAP answers from, computed once at filing."""

    size_bytes: int
    header_end: int
    """Offset of the body in the message."""
    envelope: bytes
    """The ENVELOPE response value, ready to send."""
    body: bytes
    """The BODY value (no extension data)."""
    bodystructure: bytes
    sections: bytes
    """Part offsets in a compact, versioned form that only the inbox reads."""
    search_headers: str
    """Case-folded header text for SEARCH. It is kept sealed, so what the store gives back has none: empty."""
    search_text: str
    """Case-folded, decoded text of the textual parts for SEARCH BODY and TEXT. Likewise."""
    sent_at: datetime | None
    """Of the Date field: day and time as they are written, whatever the zone, kept as UTC."""


@dataclass(frozen=True, slots=True)
class Job:
    """A claimed job. ``attempt`` is the fencing token: finishing with an old one is refused."""

    id: int
    kind: JobKind
    subject: str
    """The message id (unwrap, file, link) or the link id (import)."""
    attempt: int
    lost: int = 0
    """Attempts that ended without a word (a crash, a frozen machine). A job with any is handed out alone."""


@dataclass(frozen=True, slots=True)
class TroubledJob:
    """A job that failed: it waits for its next attempt, or was set aside after the last one."""

    id: int
    kind: JobKind
    subject: str
    attempt: int
    set_aside: bool
    """True: it waits for a person."""
    due_at: datetime
    """When it is tried again; when it was set aside."""
    error: str
    """Class names and places in the program; no PHI."""


@dataclass(frozen=True, slots=True)
class MailboxEntry:
    """One message in one mailbox, as the narrow index row."""

    uid: int
    message_id: str
    size_bytes: int
    internal_date: datetime
    sent_at: datetime | None
    flags: frozenset[str]
    modseq: int


@dataclass(frozen=True, slots=True)
class FlagColumns:
    """Flags of messages of a mailbox, by ascending UID, as columns: there is no object for each message."""

    uids: array[int]
    """Of type ``I``: a UID has 32 bits."""
    flags: list[frozenset[str]]
    """Messages with the same flags share one set."""
    modseqs: array[int]
    """Of type ``Q``: a MODSEQ has 63 bits."""


@dataclass(frozen=True, slots=True)
class FiledMessage:
    """What of a message in a mailbox was known when it was filed and never changes."""

    uid: int
    size_bytes: int
    internal_date: datetime
    sent_at: datetime | None


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A mailbox with its counters."""

    id: int
    name: str
    uid_validity: int
    uid_next: int
    highest_modseq: int


@dataclass(frozen=True, slots=True)
class Folder:
    """A mailbox, or a part of one, as one account sees it."""

    name: str
    mailbox_id: int
    rights: str
    """RFC 4314 letters."""
    view: str = ""
    """Which part of the mailbox: a :class:`gateway.core.standing.View`; ``quarantine``; empty for all of it."""
    special_use: str = ""
    """RFC 6154, with its backslash; empty for none."""


@dataclass(frozen=True, slots=True)
class ViewColumns:
    """Messages of a view of a mailbox, by ascending UID, as columns of type ``I``."""

    uids: array[int]
    """In the view."""
    of_uids: array[int]
    """The UIDs of the same messages in the mailbox."""


@dataclass(frozen=True, slots=True)
class Review:
    """That a person has looked at a message, or has taken that back."""

    message_id: str
    seq: int
    at: datetime
    actor: str
    state: ReviewState


@dataclass(frozen=True, slots=True)
class Account:
    """A person or a program that may log in."""

    id: int
    login: str
    password_hash: str
    session_id: str = field(default="", compare=False)
    """Of the session that this login began; empty outside of a login."""


@dataclass(frozen=True, slots=True)
class Patient:
    """A patient of the index. ``id`` is the identifier in the EHR."""

    id: str
    mrn: str = ""
    family: str = ""
    given: str = ""
    birth_date: date | None = None
    sex: str = ""
    phone: str = ""
    address_line: str = ""
    city: str = ""
    postal_code: str = ""
    active: bool = True
    deceased: bool = False
    direct_addresses: tuple[str, ...] = ()


PatientMark = Mapping[str, int]
"""How far the history of the patients was read: the number of the last audit event, by node."""


@dataclass(frozen=True, slots=True)
class AddressBookEntry:
    """One Direct address documented for one patient."""

    address: str
    patient_id: str
    confirmed: bool
    shared: bool
    source: str


@dataclass(frozen=True, slots=True)
class Link:
    """A message, or one part of it, on a patient's chart. ``id`` is the importer's idempotency key."""

    id: str
    message_id: str
    patient_id: str
    mode: str
    """``automatic`` or ``manual``."""
    actor: str
    rule: str
    linked_at: datetime
    part: str = ""
    """The IMAP part number (``2.1``) of the one part that is meant; empty: the whole message."""


@dataclass(frozen=True, slots=True)
class LinkUndo:
    """That a person has taken a link back."""

    link_id: str
    at: datetime
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class SeenDocument:
    """That a message, or a document in it, is on a chart already by another message."""

    mark: DocumentMark
    """What was recognised, and where it is in the message that was asked for."""
    path: str
    """Where it is in the linked one."""
    link: Link


@dataclass(frozen=True, slots=True)
class LinkRecord:
    """A link of the history, which keeps every one for ever."""

    link: Link
    undone: LinkUndo | None
    """None while it is in force."""


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """The key of one message, wrapped under a key-encryption key."""

    message_id: str
    kek_id: str
    wrapped: bytes


@dataclass(frozen=True, slots=True)
class KEKUse:
    """A key-encryption key that the store knows."""

    kek_id: str
    since: datetime
    """When the store began to seal under it."""
    messages: int
    """How many messages rest on it: they cannot be read without it."""
