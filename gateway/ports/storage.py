"""Durable, immutable storage as the pipeline and the servers need it.

Durability contract of :class:`Store`: ``write`` runs a synchronous unit of work on one connection and returns
only after the commit has reached the disk. A unit that raises leaves nothing behind. Units of one group commit
are isolated by savepoints: one that fails does not fail its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeVar

from gateway.core.lifecycle import JobKind, State
from gateway.core.message import Inbound
from gateway.core.verdict import Judgement
from gateway.ports.rows import (
    Account,
    AddressBookEntry,
    Folder,
    IndexedMessage,
    Job,
    Link,
    Mailbox,
    MailboxEntry,
    MessageSummary,
    Patient,
    RawMessage,
    StoredContent,
    TroubledJob,
)

T = TypeVar("T")


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

    def filed_copies(self, message_id: str, content_sha256: str) -> list[str]:
        """Ids of other messages with the same content that are filed or linked, the oldest first."""
        ...

    def newest(
        self, *, states: Sequence[State] = (), limit: int = 50, before: str | None = None, duplicates: bool = True
    ) -> list[MessageSummary]:
        """Newest first, keyset-paged by id. ``duplicates`` False: without copies of content that was filed before."""
        ...


class JobRows(Protocol):
    """The transactional outbox."""

    def enqueue(self, kind: JobKind, subject: str, at: datetime) -> None:
        """A no-op when a job of that kind and subject is open already."""
        ...

    def claim(
        self,
        at: datetime,
        lease_seconds: float,
        limit: int,
        *,
        kinds: Collection[JobKind] | None = None,
        lost_below: int | None = None,
    ) -> list[Job]:
        """Lease what is due, of those kinds only, and without the jobs whose leases were lost so often."""
        ...

    def renew(self, job: Job, at: datetime, lease_seconds: float) -> bool:
        """Extend the lease; False when it was lost to a later attempt."""
        ...

    def finish(self, job: Job) -> bool:
        """Remove the job; False when its lease was lost to a later attempt."""
        ...

    def fail(self, job: Job, at: datetime, error: str, retry_at: datetime | None) -> bool:
        """Schedule again, or set aside as poison when ``retry_at`` is None."""
        ...

    def troubled(self, limit: int = 100) -> list[TroubledJob]:
        """What was set aside, the oldest first, and then what failed and is tried again, the next first."""
        ...

    def hasten(self, job_id: int, at: datetime) -> bool:
        """Make a job that waits for its next attempt due; False when it does not wait."""
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

    def set_password_hash(self, account_id: int, password_hash: str) -> None:
        """Replace the hash; the old one is not kept. Raises NotFoundError."""
        ...

    def by_login(self, login: str) -> Account | None: ...

    def grant(self, account_id: int, folder: str, mailbox_id: int, rights: str) -> None: ...

    def folders(self, account_id: int) -> list[Folder]: ...


class PatientRows(Protocol):
    """The patient index and the address book."""

    def upsert(self, patients: Sequence[Patient], source: str, at: datetime, *, keep_addresses: bool = False) -> int:
        """Add or replace patients and their documented addresses; returns how many changed.

        With ``keep_addresses`` a patient keeps what is documented for him, whatever the value here says.
        """
        ...

    def get(self, patient_id: str) -> Patient:
        """Raises NotFoundError."""
        ...

    def search(self, *, text: str = "", limit: int = 50, offset: int = 0) -> list[Patient]: ...

    def address_book(self, address: str) -> list[AddressBookEntry]:
        """Every patient that documents the (normalised) address."""
        ...

    def shared(self, addresses: Collection[str]) -> set[str]:
        """Those of the (normalised) addresses that two or more patients document."""
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
        """Run the unit in a write transaction; return after the commit is durable. Raises StoreError.

        A caller that is cancelled does not cancel the commit (finding 3).
        """
        ...

    async def read(self, work: Callable[[UnitOfWork], T]) -> T:
        """Run the unit on a read snapshot in a worker thread."""
        ...
