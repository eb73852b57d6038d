"""Durable, immutable storage as the pipeline and the servers need it.

Durability contract of :class:`Store`: ``write`` runs a synchronous unit of work on one connection and returns
only after the commit has reached the disk. A unit that raises leaves nothing behind. Units of one group commit
are isolated by savepoints: one that fails does not fail its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from gateway.core.audit import AuditEvent, AuditQuery
from gateway.core.document_marks import DocumentMark
from gateway.core.lifecycle import JobKind, State
from gateway.core.message import Body, Inbound
from gateway.core.standing import ReviewState, Standing, View
from gateway.core.tree_head import NodeHead
from gateway.core.trust import AnchorBundle, BundleRecord, BundleSetting, BundleStatus, BundleVersion
from gateway.core.verdict import AnchorSet, Judgement
from gateway.ports.deliveries import DeliveryRows
from gateway.ports.fetching import FetchRows
from gateway.ports.kept import KeptRows
from gateway.ports.logins import LoginRows, SessionRows
from gateway.ports.patient_feed import PatientFeedRows
from gateway.ports.pop3 import POP3Rows
from gateway.ports.quarantine_folder import QuarantineFolderRows
from gateway.ports.rows import (
    Account,
    AddressBookEntry,
    FiledMessage,
    FlagColumns,
    Folder,
    IndexedMessage,
    Job,
    KEKUse,
    Link,
    LinkRecord,
    LinkUndo,
    Mailbox,
    MailboxEntry,
    MessageFacts,
    MessageSummary,
    Patient,
    PatientMark,
    PlacedBody,
    RawMessage,
    RefusedCount,
    RefusedMessage,
    Review,
    SeenDocument,
    StoredContent,
    TroubledJob,
    ViewColumns,
    WrappedKey,
)
from gateway.ports.shown import ShownRows

T = TypeVar("T")


class MessageRows(Protocol):
    """Raw messages, verdicts, contents and states. Append-only."""

    def find_transport_duplicate(self, inbound: Inbound, recipient: str) -> str | None:
        """Id of the same raw bytes from the same reverse path for the recipient, unless that one was refused."""
        ...

    def add_raw(self, message_id: str, at: datetime, inbound: Inbound, placed: PlacedBody | None = None) -> None:
        """Keep a message. ``placed`` is what :class:`BodyStore` said of its raw bytes."""
        ...

    def facts(self, message_id: str) -> MessageFacts:
        """What is known without reading the body. Raises NotFoundError."""
        ...

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

    def judged_at(self, message_id: str) -> datetime:
        """The moment of the newest verdict. Raises NotFoundError."""
        ...

    def verdicts(self, message_id: str) -> list[dict[str, Any]]:
        """Every verdict as stored, oldest first, each with ``at``; the last one is in force."""
        ...

    def certificate(self, sha256: str) -> bytes:
        """DER of a certificate of the evidence. Raises NotFoundError."""
        ...

    def revocation_data(self, sha256: str) -> bytes:
        """DER of a CRL or OCSP response of the evidence. Raises NotFoundError."""
        ...

    def anchor_set(self, name: str) -> AnchorSet:
        """A set of anchors of the evidence. Raises NotFoundError."""
        ...

    def add_recheck(self, message_id: str, at: datetime, as_of: datetime, judgement: Judgement) -> None:
        """Keep what a later judgement said; the verdict in force stays."""
        ...

    def rechecks(self, message_id: str) -> list[dict[str, Any]]:
        """Every later judgement as stored, oldest first, each with ``at`` and ``as_of``."""
        ...

    def add_content(self, message_id: str, judgement: Judgement, placed: PlacedBody | None = None) -> None:
        """Keep the verified content; a no-op when it is there already. ``placed`` is what :class:`BodyStore` said."""
        ...

    def content(self, message_id: str, *, with_bytes: bool = True) -> StoredContent:
        """Raises NotFoundError when the message was not accepted.

        A unit that writes asks without the bytes: they may lie on another machine.
        """
        ...

    def filed_copies(self, message_id: str, content_sha256: str) -> list[str]:
        """Ids of other messages with the same content that are filed or linked, the oldest first."""
        ...

    def accepted_from(self, sender: str, *, after: str = "", limit: int = 500) -> list[str]:
        """Ids of the messages whose signature was bound to the (normalised) address, oldest first, keyset-paged."""
        ...

    def newest(
        self, *, states: Sequence[State] = (), limit: int = 50, before: str | None = None, duplicates: bool = True
    ) -> list[MessageSummary]:
        """Newest first, keyset-paged by id. ``duplicates`` False: without copies of content that was filed before."""
        ...


class QuarantineRows(Protocol):
    """What is refused now. ``MessageRows.set_state`` keeps it."""

    def refused(
        self, *, reason: str | None = None, since: datetime | None = None, limit: int = 50, before: str | None = None
    ) -> list[RefusedMessage]:
        """Newest first, keyset-paged by id. ``since``: received then or later."""
        ...

    def ids(self, *, reason: str | None = None, limit: int = 1000, after: str = "") -> list[str]:
        """Ids only, the oldest first, keyset-paged."""
        ...

    def counts(self) -> list[RefusedCount]:
        """By reason, the most frequent first."""
        ...


class JobRows(Protocol):
    """The transactional outbox.

    Callers say how long and never when: *now* is the store's, one for the whole transaction, in the one clock in which
    it keeps the times of jobs. A moment of the caller's clock would be of another time when that clock jumps while the
    transaction waits for its turn (F11).
    """

    def enqueue(self, kind: JobKind, subject: str) -> None:
        """Ask for a job, due at once. A no-op when one of that kind and subject is open already."""
        ...

    def claim(
        self,
        lease_seconds: float,
        limit: int,
        *,
        kinds: Collection[JobKind] | None = None,
        apart: tuple[Collection[JobKind], int] | None = None,
        lost_below: int | None = None,
    ) -> list[Job]:
        """Lease what is due, of those kinds only, and without the jobs whose leases were lost so often.

        ``apart``: other kinds that come first, and how many of them may.
        """
        ...

    def take_back(self, held: Collection[int]) -> int:
        """Make the jobs due that are leased to this node and are none of those: a claim that was never answered."""
        ...

    def clock_went_back(self, by: timedelta) -> int:
        """Bring to the clock of now what was put off by one that was ahead; returns how many jobs that were.

        A no-op on a database that keeps times in its own clock.
        """
        ...

    def renew(self, job: Job, lease_seconds: float) -> bool:
        """Let the lease last so long from now on; False when it was lost to a later attempt."""
        ...

    def finish(self, job: Job) -> bool:
        """Remove the job; False when its lease was lost to a later attempt."""
        ...

    def fail(self, job: Job, error: str, retry_in: timedelta | None) -> bool:
        """Schedule again, or set aside as poison when ``retry_in`` is None; False when the lease was lost."""
        ...

    def troubled(self, limit: int = 100) -> list[TroubledJob]:
        """What was set aside, the oldest first, and then what failed and is tried again, the next first.

        Its times are those that the clock of this machine shows.
        """
        ...

    def hasten(self, job_id: int) -> bool:
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
        self,
        mailbox_id: int,
        message_id: str,
        content_sha256: str,
        indexed: IndexedMessage,
        at: datetime,
        *,
        standing: Standing | None = None,
    ) -> int | None:
        """File a message and return its UID; None when this content is in the mailbox already.

        ``standing`` gives a received message its keywords and its view; without it there are neither.
        """
        ...

    def entries(self, mailbox_id: int, after_uid: int = 0) -> list[MailboxEntry]:
        """Index rows by ascending UID."""
        ...

    def flags(self, mailbox_id: int, since: int = 0, *, seen_by: int | None = None) -> FlagColumns:
        r"""The flags of every message that was added or changed after the MODSEQ ``since``; of all for 0.

        ``seen_by``: the account whose own \Seen takes the place of the shared one.
        """
        ...

    def filed(self, mailbox_id: int, first_uid: int, last_uid: int) -> list[FiledMessage]:
        """What never changes of the messages from one UID to another, both included, by ascending UID."""
        ...

    def size_bytes(self, mailbox_id: int, after_uid: int, last_uid: int) -> int:
        """The sizes of the messages after one UID up to another one, taken together."""
        ...

    def message_id(self, mailbox_id: int, uid: int) -> str:
        """Raises NotFoundError."""
        ...

    def message_ids(self, mailbox_id: int, uids: Sequence[int]) -> dict[int, str]:
        """The ids of the messages by UID. UIDs that are not there are left out."""
        ...

    def uids_of(self, mailbox_id: int, message_id: str) -> list[int]:
        """The UIDs of the message in the mailbox; empty when it is not there."""
        ...

    def indexed(self, mailbox_id: int, uids: Sequence[int]) -> dict[int, IndexedMessage]: ...

    def contents(self, mailbox_id: int, uids: Sequence[int]) -> dict[int, bytes]: ...

    def headers(self, mailbox_id: int, uids: Sequence[int]) -> dict[int, bytes]:
        """The header of each message as it stands in it, with the empty line that ends it, by UID."""
        ...

    def search_text(self, mailbox_id: int, needle: str, *, headers: bool, body: bool) -> set[int]:
        """UIDs whose case-folded text holds the case-folded needle."""
        ...

    def search_header(self, mailbox_id: int, name: str, needle: str) -> set[int]: ...

    def find(self, name: str) -> int | None:
        """The mailbox of that name, or None."""
        ...

    def set_flags(self, mailbox_id: int, flags: dict[int, frozenset[str]], *, seen_by: int | None = None) -> int:
        r"""Replace the flags of those UIDs; returns the new MODSEQ.

        ``seen_by``: the account whose own \Seen it is that they say; the shared one stays.
        """
        ...

    def use_seen(self, mode: str, at: datetime) -> list[int] | None:
        r"""Whose \Seen is shown from now on, ``shared`` or ``per_user``; returns the mailboxes that look otherwise now.

        None when it was so before.
        """
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

    def shown_as(self, account_id: int, folder: str) -> list[int]:
        """The mailboxes that the folder of that name shows or has ever shown to the account, by id."""
        ...

    def granted_on(self, mailbox_id: int) -> list[tuple[str, str]]:
        """Login and rights of everybody who sees the mailbox, by login; rights on several folders of it are joined."""
        ...


class PatientRows(Protocol):
    """The patient index and the address book."""

    def upsert(
        self,
        patients: Sequence[Patient],
        source: str,
        at: datetime,
        *,
        keep_addresses: bool = False,
        unconfirmed: Mapping[str, Collection[str]] | None = None,
    ) -> int:
        """Add or replace patients and their documented addresses; returns how many changed.

        With ``keep_addresses`` a patient keeps what is documented for him, whatever the value here says.
        ``unconfirmed``: those of the addresses, by patient id, that nobody has confirmed.
        """
        ...

    def unconfirmed(self, patient_ids: Collection[str]) -> dict[str, frozenset[str]]:
        """The addresses documented now that nobody has confirmed, of those of the patients that have any."""
        ...

    def get(self, patient_id: str) -> Patient:
        """Raises NotFoundError."""
        ...

    def several(self, patient_ids: Collection[str]) -> list[Patient]:
        """Those of the patients that there are, by id."""
        ...

    def page(self, after: str = "", limit: int = 1_000) -> list[Patient]:
        """Patients in the order of their ids, beginning behind one of them: for whoever reads all."""
        ...

    def mark(self) -> PatientMark:
        """Where the history of the patients stands now. Not to be kept when it was asked in a unit that writes."""
        ...

    def changed(self, mark: PatientMark) -> tuple[set[str], PatientMark]:
        """The ids of the patients of whom anything was written after the mark, and the mark of now."""
        ...

    def search(self, *, text: str = "", limit: int = 50, offset: int = 0) -> list[Patient]: ...

    def address_book(self, address: str) -> list[AddressBookEntry]:
        """Every patient that documents the (normalised) address."""
        ...

    def shared(self, addresses: Collection[str]) -> set[str]:
        """Those of the (normalised) addresses that two or more patients document."""
        ...


class LinkRows(Protocol):
    """Links of messages to charts. Append-only: one that was undone stays, and is in force no more."""

    def add(self, link: Link, marks: Sequence[DocumentMark] = ()) -> None:
        """Keep a link; a no-op when this very one is there. ``marks``: by what its content is known again.

        Raises ConflictError (the id is taken, or the same of the message is on that chart), NotFoundError (no such
        message or patient).
        """
        ...

    def undo(self, undone: LinkUndo) -> bool:
        """Take a link back for ever; False when somebody has. Raises NotFoundError."""
        ...

    def for_message(self, message_id: str) -> list[Link]:
        """Those in force, the oldest first."""
        ...

    def for_patient(self, patient_id: str) -> list[Link]:
        """Those in force, the oldest first."""
        ...

    def history(self, message_id: str) -> list[LinkRecord]:
        """Every link that the message, or a copy with the same content, ever had, the oldest first."""
        ...

    def patient_history(self, patient_id: str) -> list[LinkRecord]:
        """Every link that the patient ever had, the oldest first."""
        ...

    def seen(self, message_id: str, marks: Sequence[DocumentMark]) -> list[SeenDocument]:
        """Where the same is on a chart by another message that is no copy: links in force, the oldest first."""
        ...

    def get(self, link_id: str) -> Link:
        """Also one that was undone. Raises NotFoundError."""
        ...

    def undone(self, link_id: str) -> LinkUndo | None:
        """Who has taken the link back; None while it is in force."""
        ...

    def add_receipt(self, link_id: str, importer: str, receipt: str, at: datetime) -> None:
        """Remember that the importer has it; a no-op when remembered already."""
        ...

    def receipts(self, link_id: str) -> dict[str, str]:
        """Receipt by importer name."""
        ...


class ViewRows(Protocol):
    """Views of mailboxes, each with UIDs of its own. ``until``, ``since``: MODSEQs of the mailbox. Append-only."""

    def standing(self, mailbox_id: int, view: View, *, until: int) -> ViewColumns:
        """What is in the view at that MODSEQ."""
        ...

    def entered(self, mailbox_id: int, view: View, *, after_uid: int, until: int) -> ViewColumns:
        """What came into the view above a UID of it, also what has left it again."""
        ...

    def left(self, mailbox_id: int, view: View, *, since: int, until: int) -> list[tuple[int, int]]:
        """MODSEQ and UID of what left the view after ``since``, in this order."""
        ...

    def vanished(self, mailbox_id: int, view: View, *, since: int, until: int) -> list[int]:
        """UIDs that left the view after ``since``, ascending."""
        ...

    def last_uid(self, mailbox_id: int, view: View, *, until: int) -> int:
        """The UID that was given out last in the view; 0 when none was."""
        ...


class StandingRows(Protocol):
    """How messages stand, as mail clients see it: keywords and views."""

    def of(self, message_id: str) -> Standing:
        """How a message stands that the link step has looked at, with its copies. Raises NotFoundError."""
        ...

    def settle(self, message_ids: Iterable[str]) -> list[int]:
        """Bring keywords and views of these messages, and of their copies, to how they stand now.

        To be called in the unit that linked, decided or reviewed. Returns the mailboxes that changed. Raises
        NotFoundError: one of them was not accepted.
        """
        ...


class ReviewRows(Protocol):
    """Reviews of messages; those of copies of the same content are one history. Append-only."""

    def add(self, message_id: str, at: datetime, actor: str, state: ReviewState) -> bool:
        """Append to the history; False when it says so already. Raises NotFoundError: it was not accepted."""
        ...

    def for_message(self, message_id: str) -> list[Review]:
        """The history of the message and its copies, oldest first. Raises NotFoundError: it was not accepted."""
        ...


class BundleRows(Protocol):
    """Trust bundles: settings and versions are append-only, the newest counts; the status is the mutable part."""

    def set(self, setting: BundleSetting, at: datetime) -> None:
        """Append a setting of that name."""
        ...

    def settings(self) -> list[BundleSetting]:
        """The newest setting of each bundle, by name; disabled ones too."""
        ...

    def add_version(self, name: str, at: datetime, source: bytes, anchors: Sequence[bytes]) -> BundleVersion:
        """Keep a content as the next version: the file as it came, and the DER of its accepted anchors."""
        ...

    def newest_version(self, name: str) -> BundleVersion | None: ...

    def versions(self, name: str) -> list[BundleVersion]:
        """Every version, oldest first."""
        ...

    def history(self, name: str) -> list[BundleRecord]:
        """Every version without what it holds, oldest first."""
        ...

    def digests(self, name: str) -> list[str]:
        """SHA-256 of the file of every version, oldest first."""
        ...

    def source(self, name: str, version: int) -> bytes:
        """The file of a version as it came. Raises NotFoundError."""
        ...

    def status(self, name: str) -> BundleStatus: ...

    def set_status(self, status: BundleStatus) -> None: ...

    def in_force(self) -> list[AnchorBundle]:
        """The newest version of each enabled bundle."""
        ...

    def revision(self) -> int:
        """A number that grows with each setting and each version: whoever saw it need not look again."""
        ...


class AuditRows(Protocol):
    """The audit log: append-only and hash-chained."""

    def add(self, at: datetime, actor: str, action: str, subject: str, detail: dict[str, Any] | None = None) -> None:
        """``detail`` holds ids and counts only: no PHI (promise 6)."""
        ...

    def find(self, query: AuditQuery) -> list[AuditEvent]:
        """The events that the query asks for, of every node. They are not checked against the chain here."""
        ...

    def get(self, node: str, seq: int) -> AuditEvent:
        """Raises NotFoundError."""
        ...


class AuditTreeRows(Protocol):
    """The Merkle tree over the audit events of all nodes, and its signed heads. Append-only."""

    def grow(self, limit: int) -> int:
        """Take at most so many events into the tree that are not in it yet; return the number of leaves."""
        ...

    def size(self) -> int:
        """Leaves in the tree."""
        ...

    def root(self, size: int) -> bytes: ...

    def node(self, level: int, index: int) -> bytes:
        """The hash of a complete subtree (:data:`gateway.core.merkle.NodeHash`)."""
        ...

    def leaf_of(self, node: str, seq: int) -> int:
        """The number of the leaf of an event. Raises NotFoundError: it is not in the tree (yet)."""
        ...

    def node_heads(self, size: int) -> tuple[NodeHead, ...]:
        """The newest event of each node among the first ``size`` leaves, which end where the tree ended once."""
        ...

    def events(self) -> Iterator[tuple[int | None, AuditEvent]]:
        """Every event with its leaf in the order of the tree; then, with None, those that are not in it yet."""
        ...

    def add_head(self, size: int, text: str) -> None:
        """Keep a signed head (JSON)."""
        ...

    def newest_head(self) -> str | None:
        """The signed head that was made last (JSON), or None."""
        ...


class BodyKeyRows(Protocol):
    """The wrapped keys of the messages, and the KEKs that the store knows. Mutable: rotation wraps keys anew."""

    def keks(self) -> list[KEKUse]:
        """Every KEK in the order of their use, the newest first."""
        ...

    def newest(self) -> str | None:
        """Id of the KEK that new mail is sealed under; None while nothing was ever sealed."""
        ...

    def begin_use(self, kek_id: str, at: datetime) -> None:
        """Make a KEK of the ring the newest one: from the commit on new mail is sealed under it.

        Raises KeyUnavailableError when the ring does not have it; ConflictError when it is known already.
        """
        ...

    def resting_on(self, kek_id: str, *, after: str, limit: int) -> list[WrappedKey]:
        """Keys of messages above that id that are wrapped under the KEK, in the order of the messages."""
        ...

    def replace(self, changes: Sequence[tuple[WrappedKey, WrappedKey]]) -> int:
        """Put the second of each pair in place of the first, where that still stands; returns how many did."""
        ...

    def require(self) -> None:
        """See that every KEK that stored mail needs is at hand. Raises ConfigurationError, KeyUnavailableError."""
        ...

    def end_use(self, kek_id: str) -> None:
        """Forget a KEK.

        Raises NotFoundError when it is not known; ConflictError while it is the newest or a message rests on it.
        """
        ...


class UnitOfWork(Protocol):
    """All rows, within one transaction."""

    @property
    def messages(self) -> MessageRows: ...
    @property
    def quarantine(self) -> QuarantineRows: ...
    @property
    def jobs(self) -> JobRows: ...
    @property
    def mailboxes(self) -> MailboxRows: ...
    @property
    def accounts(self) -> AccountRows: ...
    @property
    def logins(self) -> LoginRows: ...
    @property
    def sessions(self) -> SessionRows: ...
    @property
    def kept(self) -> KeptRows: ...
    @property
    def shown(self) -> ShownRows: ...
    @property
    def quarantine_folder(self) -> QuarantineFolderRows: ...
    @property
    def patients(self) -> PatientRows: ...
    @property
    def patient_feed(self) -> PatientFeedRows: ...
    @property
    def links(self) -> LinkRows: ...
    @property
    def deliveries(self) -> DeliveryRows: ...
    @property
    def views(self) -> ViewRows: ...
    @property
    def standings(self) -> StandingRows: ...
    @property
    def reviews(self) -> ReviewRows: ...
    @property
    def bundles(self) -> BundleRows: ...
    @property
    def fetching(self) -> FetchRows: ...
    @property
    def pop3(self) -> POP3Rows: ...
    @property
    def audit(self) -> AuditRows: ...
    @property
    def audit_tree(self) -> AuditTreeRows: ...
    @property
    def body_keys(self) -> BodyKeyRows: ...


class Store(Protocol):
    """Durable, immutable storage."""

    async def write(self, work: Callable[[UnitOfWork], T], *, urgent: bool = False) -> T:
        """Run the unit in a write transaction; return after the commit is durable. Raises StoreError.

        An ``urgent`` unit writes what must be written before somebody may read (an audit row). On a full disk it may
        use the space that is set aside for that, and may be run twice; only the last run is committed. A caller that
        is cancelled does not cancel the commit (finding 3).
        """
        ...

    async def read(self, work: Callable[[UnitOfWork], T]) -> T:
        """Run the unit on a read snapshot in a worker thread."""
        ...

    def version(self) -> int | None:
        """A number that is another one after each commit, whoever made it; asked for at no cost.

        What was read after it was asked for is what there is while it stays the same. None: read it again.
        """
        ...


class BodyStore(Store, Protocol):
    """A store whose bodies may lie outside the database, where nobody can remove them.

    A body is placed before the unit that writes the row which names it, and not within it: the store has one writer,
    which waits for nobody. What was placed and never named is left over, and serves nobody.
    """

    @property
    def places_bodies(self) -> bool:
        """Whether new bodies must be placed. False: the database takes them in the unit."""
        ...

    async def place_raw(self, message_id: str, raw: Body) -> PlacedBody | None:
        """Place the raw bytes of a new message; None when bodies are not placed.

        Raises StoreUnavailableError: nothing can be placed now.
        """
        ...

    async def place_content(self, message_id: str, content: bytes) -> PlacedBody | None:
        """Place the verified content of a message that is there; None when bodies are not placed.

        Raises StoreUnavailableError: nothing can be placed now. StoreError: the key of the message is damaged.
        """
        ...
