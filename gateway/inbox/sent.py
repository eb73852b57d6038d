r"""What a mail client puts into Sent: its copy of a message that it sent. The one way in that is no Direct message.

One transaction: the raw row with the sealed bytes, the state ``kept``, who put it here and what it says of itself, its
index, its UID, its flags, and the event of the audit log (``message.kept``), which answers for the rows. Where bodies
are placed outside the database, they are there before the row that names them.

Guarantees

* The same bytes in the same Sent are one message, however often they come, also at the same moment and from several
  nodes: the answer is the UID of the first. That is decided within the one writer; the unique key of the mailbox stands
  behind it. What comes again changes no flag and is an event of its own (``message.kept_again``).
* A client that saw no answer (a crash after the commit, a lost connection) sends it again and gets the first UID.
* The bytes are kept and given back as they came, whatever they are: what cannot be understood as a message is shown as
  one part of text, as every message is (:mod:`gateway.inbox.indexer`). To refuse it would lose what was sent.
* It is never judged, has no recipients and no verified content, so no INBOX, no link, no quarantine can ever hold it.

Failure modes: RefusedError with what to do, written down first, for any other folder, without the right, and for a
message that is empty or too large; StoreError when nothing was kept.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from gateway.core.errors import NotFoundError, RefusedError, StoreError
from gateway.core.lifecycle import State
from gateway.core.message import Envelope, Inbound, MemoryBody, Source
from gateway.core.mime.addresses import addr_specs
from gateway.core.mime.encoding import decode_encoded_words, header_text
from gateway.core.mime.headers import read_headers
from gateway.core.standing import KEYWORDS
from gateway.inbox.flags import FlagAction, FlagChange, canonical, check_limits
from gateway.inbox.no_delete import NO_APPEND, NoDelete
from gateway.inbox.sent_folders import INSERT, SENT_FOLDER, SENT_USE
from gateway.observability.log import get_log
from gateway.ports import IndexedMessage, UnitOfWork

if TYPE_CHECKING:
    from gateway.inbox.shared_mailbox import SharedMailbox
    from gateway.ports import Account, BodyStore, ChangeFeed, Clock, Folder, MessageIndexer

KEPT = "message.kept"
KEPT_AGAIN = "message.kept_again"
ELSEWHERE = f"Messages come in as Direct messages only; a copy of what you sent goes into the folder {SENT_FOLDER}"
NO_RIGHT = "You may read what was sent from here but not add to it; ask the operator for the right i on this folder"
EMPTY = "A message cannot be empty"
MAX_CLAIM_CHARS = 1_000
_RESERVED = frozenset(keyword.lower() for keyword in KEYWORDS)
_log = get_log("inbox")


@dataclass(frozen=True, slots=True)
class SentCopy:
    """What a client gives with APPEND."""

    content: bytes
    flags: frozenset[str] = frozenset()
    internal_date: datetime | None = None
    """Aware. None: now."""


@dataclass(frozen=True, slots=True)
class _Looked:
    """What is known of the bytes before the transaction."""

    raw: MemoryBody
    indexed: IndexedMessage
    sender: str
    subject: str
    message_id: str


class SentMail:
    """Keeps such copies. One per process; it belongs on the event loop."""

    def __init__(
        self, store: BodyStore, clock: Clock, feed: ChangeFeed, indexer: MessageIndexer, new_id: Callable[[], str]
    ) -> None:
        """``new_id`` makes the id of a message."""
        self._store = store
        self._clock = clock
        self._feed = feed
        self._indexer = indexer
        self._new_id = new_id

    async def keep(self, account: Account, folder: Folder, mailbox: SharedMailbox, copy: SentCopy) -> int:
        """Keep a copy in a Sent that the account may insert into, and return its UID; of what is there, the first one.

        Raises StoreError: nothing was kept.
        """
        # Of a large message it takes a while, and the one writer must not wait for it.
        looked = await asyncio.to_thread(self._look, copy.content)
        flags = _kept_flags(copy.flags, mailbox, folder.rights)
        message_id, raw = self._new_id(), looked.raw
        placed = None
        if self._store.places_bodies:
            known = await self._store.read(lambda unit: unit.kept.find(mailbox.id, raw.sha256))
            placed = None if known is not None else await self._store.place_raw(message_id, raw)
        at = self._clock.now()

        def work(unit: UnitOfWork) -> int:
            known = unit.kept.find(mailbox.id, raw.sha256)
            about: dict[str, Any] = {"mailbox": mailbox.id, "sha256": raw.sha256, "size_bytes": raw.size_bytes}
            if known is not None:
                there = unit.mailboxes.message_id(mailbox.id, known)
                unit.audit.add(at, account.login, KEPT_AGAIN, there, about | {"uid": known})
                return known
            unit.messages.add_raw(message_id, at, Inbound(raw, Envelope(None, ()), Source.MAIL_CLIENT), placed)
            unit.messages.set_state(message_id, State.KEPT, at)
            unit.kept.add(
                message_id,
                account.id,
                sender=looked.sender,
                subject=looked.subject,
                rfc822_message_id=looked.message_id,
            )
            uid = unit.mailboxes.add(mailbox.id, message_id, raw.sha256, looked.indexed, copy.internal_date or at)
            if uid is None:
                raise StoreError("a mailbox of sent mail has a message that it does not find")
            if flags:
                unit.mailboxes.set_flags(mailbox.id, {uid: flags}, seen_by=mailbox.seen_by)
            unit.audit.add(at, account.login, KEPT, message_id, about | {"uid": uid})
            return uid

        try:
            return await self._store.write(work)
        finally:
            # Also when the session was cancelled: the commit goes on, and a hint too many does no harm.
            self._feed.changed(mailbox.id)

    def _look(self, content: bytes) -> _Looked:
        raw = MemoryBody(content)
        # Hashed here: the value is remembered.
        _ = raw.sha256
        return _Looked(raw, self._indexer.index(content), *_claims(content))


class KeepsSent(NoDelete):
    """The part of the gateway's inbox that takes messages from mail clients."""

    sent: SentMail | None = None
    """None: nothing is taken."""

    @abstractmethod
    async def shared(self, account: Account, folder: Folder) -> SharedMailbox:
        """The mailbox of a folder, up to date. Raises NotFoundError, StoreError."""

    async def appendable(self, account: Account, name: str) -> None:
        """Refused but for a Sent into which the account may insert."""
        await self._sent_folder(account, name)

    async def append(
        self, account: Account, folder: str, flags: frozenset[str], internal_date: datetime | None, content: bytes
    ) -> tuple[int, int]:
        """Keep a client's copy of what it sent; see the module. Raises RefusedError, StoreError."""
        target = await self._sent_folder(account, folder)
        if self.sent is None:
            await self._refuse(account, NO_APPEND)
        if not content:
            await self._refuse(account, EMPTY)
        mailbox = await self.shared(account, target)
        uid = await self.sent.keep(account, target, mailbox, SentCopy(content, flags, internal_date))
        await mailbox.refresh()
        return mailbox.uid_validity, uid

    async def _sent_folder(self, account: Account, name: str) -> Folder:
        """Raises RefusedError, written down: it is no Sent (or there is no such folder), or the right is missing."""
        try:
            folder = await self.folder(account, name)
        except NotFoundError:
            # Not TRYCREATE: what the client would then send is refused as well.
            await self._refuse(account, ELSEWHERE)
        if folder.special_use != SENT_USE or folder.view:
            await self._refuse(account, ELSEWHERE)
        if INSERT not in folder.rights:
            await self._refuse(account, NO_RIGHT)
        return folder


def _kept_flags(asked: frozenset[str], mailbox: SharedMailbox, rights: str) -> frozenset[str]:
    """The flags as a STORE would keep them. Keywords beyond the limits are left out: the message counts for more."""
    flags = frozenset(canonical(flag, mailbox.keywords) for flag in asked if flag.lower() not in _RESERVED)
    change = FlagChange(FlagAction.ADD, flags)
    try:
        check_limits(change, mailbox.keywords)
    except RefusedError:
        change = FlagChange(FlagAction.ADD, frozenset(flag for flag in flags if flag.startswith("\\")))
    # Those that the rights do not reach are passed over (RFC 4314 section 4).
    return change.apply(frozenset(), rights)


def _claims(content: bytes) -> tuple[str, str, str]:
    """Address of the From, subject and Message-ID as the message has them; empty where nothing can be read."""
    try:
        values: dict[bytes, bytes] = {}
        for field in read_headers(content).fields:
            values.setdefault(field.name, field.value)
        senders = addr_specs(header_text(values.get(b"from", b"")))
        subject = decode_encoded_words(header_text(values.get(b"subject", b"")))
        message_id = header_text(values.get(b"message-id", b""))
        claims = (senders[0] if senders else "", subject.strip(), message_id.strip())
    except Exception as error:  # noqa: BLE001 - a defect of ours must not keep a message from being kept
        _log.fault("index_fallback", error)
        return "", "", ""
    return claims[0][:MAX_CLAIM_CHARS], claims[1][:MAX_CLAIM_CHARS], claims[2][:MAX_CLAIM_CHARS]
