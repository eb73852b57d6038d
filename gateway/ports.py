"""The Protocols between the rooms. A server or a pipeline step knows these and nothing behind them.

Durability contract of :class:`Store`: ``write`` runs a synchronous unit of work on one connection and returns
only after the commit has reached the disk. A unit that raises leaves nothing behind. Units of one group commit
are isolated by savepoints: one that fails does not fail its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Protocol, TypeVar

from gateway.core.lifecycle import JobKind, State
from gateway.core.message import Envelope, Inbound, Source
from gateway.core.verdict import Judgement

T = TypeVar("T")


class Clock(Protocol):
    """The only source of time."""

    def now(self) -> datetime:
        """The time in UTC, aware."""
        ...


class SecurityAgent(Protocol):
    """The Security/Trust Agent."""

    def judge(self, raw: bytes, envelope: Envelope, at: datetime) -> Judgement:
        """Judge a message. Never raises for what the message holds; may take CPU and, for revocation, network time."""
        ...


# --- rows ---


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


# --- the unit of work ---


class MessageRows(Protocol):
    """Raw messages, verdicts, contents and states. Append-only."""

    def find_transport_duplicate(self, inbound: Inbound, recipient: str) -> str | None:
        """Id of the same raw bytes from the same reverse path for the recipient, unless that one was refused."""
        ...

    def add_raw(self, message_id: str, at: datetime, inbound: Inbound) -> None: ...

    def raw(self, message_id: str) -> RawMessage:
        """Raises NotFoundError."""
        ...

    def set_state(self, message_id: str, state: State, at: datetime, detail: str = "") -> None:
        """Append a state row. Raises ConflictError when the table of moves forbids it."""
        ...

    def state(self, message_id: str) -> State: ...

    def add_verdict(self, message_id: str, at: datetime, judgement: Judgement) -> None: ...

    def verdict(self, message_id: str) -> dict[str, Any] | None:
        """The newest verdict as stored (JSON-able), or None."""
        ...

    def add_content(self, message_id: str, judgement: Judgement) -> None:
        """Keep the verified content; a no-op when it is there already."""
        ...

    def content(self, message_id: str) -> StoredContent:
        """Raises NotFoundError when the message was not accepted."""
        ...

    def newest(
        self, *, states: Sequence[State] = (), limit: int = 50, before: str | None = None
    ) -> list[MessageSummary]:
        """Newest first, keyset-paged by id."""
        ...


class JobRows(Protocol):
    """The transactional outbox."""

    def enqueue(self, kind: JobKind, subject: str, at: datetime) -> None:
        """A no-op when a job of that kind and subject is open already."""
        ...

    def claim(self, at: datetime, lease_seconds: float, limit: int) -> list[Job]: ...

    def finish(self, job: Job) -> bool:
        """Remove the job; False when its lease was lost to a later attempt."""
        ...

    def fail(self, job: Job, at: datetime, error: str, retry_at: datetime | None) -> bool:
        """Schedule again, or set aside as poison when ``retry_at`` is None."""
        ...


class MailboxRows(Protocol):
    """Mailboxes, their messages and flags. Messages are never removed; flags are the one mutable part."""

    def create(self, name: str, at: datetime, addresses: Sequence[str]) -> int:
        """A mailbox that receives what is delivered to the addresses. Raises ConflictError when the name is taken."""
        ...

    def for_recipient(self, address: str) -> list[int]:
        """Ids of the mailboxes that receive what is delivered to the (normalised) address."""
        ...

    def get(self, mailbox_id: int) -> Mailbox: ...

    def add(
        self, mailbox_id: int, message_id: str, content_sha256: str, indexed: IndexedMessage, at: datetime
    ) -> int | None:
        """File a message and return its UID; None when this content is in the mailbox already."""
        ...

    def entries(self, mailbox_id: int, after_uid: int = 0) -> list[MailboxEntry]:
        """Index rows by ascending UID."""
        ...

    def changed_since(self, mailbox_id: int, modseq: int) -> list[MailboxEntry]: ...

    def indexed(self, mailbox_id: int, uids: Sequence[int]) -> dict[int, IndexedMessage]: ...

    def contents(self, mailbox_id: int, uids: Sequence[int]) -> dict[int, bytes]: ...

    def search_text(self, mailbox_id: int, needle: str, *, headers: bool, body: bool) -> set[int]:
        """UIDs whose case-folded text holds the case-folded needle."""
        ...

    def search_header(self, mailbox_id: int, name: str, needle: str) -> set[int]: ...

    def set_flags(self, mailbox_id: int, flags: dict[int, frozenset[str]]) -> int:
        """Replace the flags of those UIDs; returns the new MODSEQ."""
        ...


class AccountRows(Protocol):
    """People and programs that may log in, and the folders each may see."""

    def add(self, login: str, password_hash: str, at: datetime) -> int: ...

    def by_login(self, login: str) -> Account | None: ...

    def grant(self, account_id: int, folder: str, mailbox_id: int, rights: str) -> None: ...

    def folders(self, account_id: int) -> list[Folder]: ...


class PatientRows(Protocol):
    """The patient index and the address book."""

    def upsert(self, patients: Sequence[Patient], source: str, at: datetime) -> int:
        """Add or replace patients and their documented addresses; returns how many changed."""
        ...

    def get(self, patient_id: str) -> Patient:
        """Raises NotFoundError."""
        ...

    def search(self, *, text: str = "", limit: int = 50, offset: int = 0) -> list[Patient]: ...

    def address_book(self, address: str) -> list[AddressBookEntry]:
        """Every patient that documents the (normalised) address."""
        ...


class LinkRows(Protocol):
    """Links of messages to charts. Append-only."""

    def add(self, link: Link) -> None: ...

    def for_message(self, message_id: str) -> list[Link]: ...

    def for_patient(self, patient_id: str) -> list[Link]: ...

    def get(self, link_id: str) -> Link:
        """Raises NotFoundError."""
        ...

    def add_receipt(self, link_id: str, importer: str, receipt: str, at: datetime) -> None:
        """Remember that the importer has it; a no-op when remembered already."""
        ...

    def receipts(self, link_id: str) -> dict[str, str]:
        """Receipt by importer name."""
        ...


class AuditRows(Protocol):
    """The audit log: append-only and hash-chained."""

    def add(self, at: datetime, actor: str, action: str, subject: str, detail: dict[str, Any] | None = None) -> None:
        """``detail`` holds ids and counts only: no PHI (promise 6)."""
        ...


class UnitOfWork(Protocol):
    """All rows, within one transaction."""

    @property
    def messages(self) -> MessageRows: ...
    @property
    def jobs(self) -> JobRows: ...
    @property
    def mailboxes(self) -> MailboxRows: ...
    @property
    def accounts(self) -> AccountRows: ...
    @property
    def patients(self) -> PatientRows: ...
    @property
    def links(self) -> LinkRows: ...
    @property
    def audit(self) -> AuditRows: ...


class Store(Protocol):
    """Durable, immutable storage."""

    async def write(self, work: Callable[[UnitOfWork], T]) -> T:
        """Run the unit in a write transaction; return after the commit is durable. Raises StoreError."""
        ...

    async def read(self, work: Callable[[UnitOfWork], T]) -> T:
        """Run the unit on a read snapshot in a worker thread."""
        ...


# --- the import hook ---


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
