"""What the store gives and takes, as values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from gateway.core.lifecycle import JobKind, State
from gateway.core.message import Source


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
    """Case-folded header text for SEARCH."""
    search_text: str
    """Case-folded, decoded text of the textual parts for SEARCH BODY and TEXT."""
    sent_at: datetime | None
    """Of the Date field, UTC."""


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
class Mailbox:
    """A mailbox with its counters."""

    id: int
    name: str
    uid_validity: int
    uid_next: int
    highest_modseq: int


@dataclass(frozen=True, slots=True)
class Folder:
    """A mailbox as one account sees it."""

    name: str
    mailbox_id: int
    rights: str
    """RFC 4314 letters."""


@dataclass(frozen=True, slots=True)
class Account:
    """A person or a program that may log in."""

    id: int
    login: str
    password_hash: str


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
    """A message on a patient's chart. ``id`` is the importer's idempotency key."""

    id: str
    message_id: str
    patient_id: str
    mode: str
    """``automatic`` or ``manual``."""
    actor: str
    rule: str
    linked_at: datetime
