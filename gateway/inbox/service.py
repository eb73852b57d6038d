r"""The mailbox view: what a person or program with an account can see of the store, and change.

Guarantees: only folders granted to the account can be reached, with the rights of the grant. Messages are never
removed or changed; flags are the one mutable part. Whoever reads a message body so that it becomes \Seen is in
the audit log before the first byte leaves (``message.read``), and so is whoever tries to delete
(``message.delete_ignored``). Changes are durable when a call returns.

Failure modes: NotFoundError for what the account cannot see (whether or not it exists), RefusedError when policy
says no, StoreError when the store cannot answer; nothing is half done beyond the units that were committed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import TypeVar
from weakref import WeakValueDictionary

from gateway.core.errors import NotFoundError, RefusedError, StoreError
from gateway.inbox.change_hub import ChangeHub
from gateway.inbox.flags import DELETED, SEEN, FlagAction, FlagChange, check_limits, is_storable
from gateway.inbox.open_mailbox import OpenMailbox
from gateway.ports import (
    Account,
    Clock,
    Folder,
    IndexedMessage,
    MailboxEntry,
    Store,
    UnitOfWork,
)
from gateway.settings import IMAPSettings

T = TypeVar("T")

INBOX = "INBOX"
UNITS_OF_FLAG_CHANGES = 500
"""Messages changed in one transaction: a STORE on a large mailbox must not hold the writer for seconds."""
KEPT_MAILBOXES = 64
"""Mailboxes kept in memory when nobody has them open, the least recently used forgotten first."""
KEPT_CONTENT_BYTES = 32 * 1024 * 1024
"""Message contents kept for clients that fetch one message in many partial pieces."""


@dataclass(frozen=True, slots=True)
class TextTerm:
    """A search for text. ``name`` restricts it to one (lower-case) header field."""

    needle: str
    headers: bool = True
    body: bool = False
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """An opened mailbox with the rights that the account has on it."""

    account: Account
    folder: Folder
    mailbox: OpenMailbox


class Inbox:
    """The folders and messages of all accounts. One per process; every method belongs on the event loop."""

    def __init__(self, store: Store, clock: Clock, hub: ChangeHub, settings: IMAPSettings) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self.hub = hub
        self._open: WeakValueDictionary[int, OpenMailbox] = WeakValueDictionary()
        self._recent: OrderedDict[int, OpenMailbox] = OrderedDict()
        self._contents: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._contents_bytes = 0

    async def folders(self, account: Account) -> list[Folder]:
        """The folders that the account may look up, by name; INBOX first. Raises StoreError."""
        granted = await self._store.read(lambda unit: unit.accounts.folders(account.id))
        visible = [folder for folder in granted if "l" in folder.rights or "r" in folder.rights]
        return sorted(visible, key=lambda folder: (folder.name.upper() != INBOX, folder.name))

    async def folder(self, account: Account, name: str) -> Folder:
        """One folder by its name; INBOX in any case (EP-25). Raises NotFoundError, StoreError."""
        for folder in await self.folders(account):
            if folder.name == name or (folder.name.upper() == INBOX == name.upper()):
                return folder
        raise NotFoundError("No such mailbox")

    async def open(self, account: Account, name: str) -> Grant:
        """Open a folder, up to date. Raises NotFoundError, RefusedError (no right to read), StoreError."""
        folder = await self.folder(account, name)
        if "r" not in folder.rights:
            raise RefusedError("No right to read this mailbox")
        return Grant(account, folder, await self._mailbox(folder.mailbox_id))

    async def _mailbox(self, mailbox_id: int) -> OpenMailbox:
        mailbox = self._open.get(mailbox_id)
        if mailbox is None:
            loaded = await OpenMailbox.load(self._store, mailbox_id)
            # Another session may have loaded it meanwhile; then its view is the shared one.
            mailbox = self._open.setdefault(mailbox_id, loaded)
        else:
            await mailbox.refresh()
        self._recent[mailbox_id] = mailbox
        self._recent.move_to_end(mailbox_id)
        if len(self._recent) > KEPT_MAILBOXES:
            self._recent.popitem(last=False)
        return mailbox

    async def indexed(self, mailbox: OpenMailbox, uids: Sequence[int]) -> dict[int, IndexedMessage]:
        """Precomputed answers by UID. Raises StoreError, also when one is missing."""
        rows = await self._store.read(lambda unit: unit.mailboxes.indexed(mailbox.id, uids))
        return _complete(rows, uids)

    async def contents(self, mailbox: OpenMailbox, uids: Sequence[int], *, keep: bool = False) -> dict[int, bytes]:
        """Message bytes by UID, exactly as they were verified. Raises StoreError, also when one is missing.

        ``keep`` asks to hold them for a while: the client fetches pieces and will come back.
        """
        found = {uid: self._contents[mailbox.id, uid] for uid in uids if (mailbox.id, uid) in self._contents}
        missing = [uid for uid in uids if uid not in found]
        if missing:
            found |= await self._store.read(lambda unit: unit.mailboxes.contents(mailbox.id, missing))
        rows = _complete(found, uids)
        if keep:
            for uid, content in rows.items():
                self._keep((mailbox.id, uid), content)
        return rows

    def _keep(self, key: tuple[int, int], content: bytes) -> None:
        if key in self._contents:
            self._contents.move_to_end(key)
            return
        self._contents[key] = content
        self._contents_bytes += len(content)
        while self._contents_bytes > KEPT_CONTENT_BYTES and len(self._contents) > 1:
            _, dropped = self._contents.popitem(last=False)
            self._contents_bytes -= len(dropped)

    async def search(self, mailbox: OpenMailbox, terms: Iterable[TextTerm]) -> dict[TextTerm, set[int]]:
        """UIDs that match each text term, from one read. Raises StoreError."""
        wanted = list(terms)

        def work(unit: UnitOfWork) -> dict[TextTerm, set[int]]:
            return {term: _search_one(unit, mailbox.id, term) for term in wanted}

        return await self._store.read(work) if wanted else {}

    async def mark_read(self, grant: Grant, uids: Sequence[int], *, set_seen: bool, audit: Sequence[int]) -> None:
        r"""Set \Seen on ``uids`` where the rights allow it, and audit that ``audit`` were read, in one commit.

        Raises StoreError: then nothing may be shown.
        """
        mailbox, now = grant.mailbox, self._clock.now()
        message_ids = {uid: self._entry(mailbox, uid).message_id for uid in audit}
        changing = list(uids) if set_seen and "s" in grant.folder.rights else []
        current = self._snapshot(mailbox, changing)

        def work(unit: UnitOfWork) -> bool:
            entries = current(unit)
            seen: dict[int, frozenset[str]] = {
                uid: entry.flags | {SEEN} for uid, entry in entries.items() if SEEN not in entry.flags
            }
            if seen:
                unit.mailboxes.set_flags(mailbox.id, seen)
            for uid, message_id in message_ids.items():
                unit.audit.add(now, grant.account.login, "message.read", message_id, _where(mailbox, uid))
            return bool(seen)

        if message_ids or changing:
            changed = await self._store.write(work)
            if changed:
                await self._published(mailbox)

    async def change_flags(
        self, grant: Grant, uids: Sequence[int], change: FlagChange, *, unchanged_since: int | None = None
    ) -> set[int]:
        r"""Apply a STORE; returns the UIDs left alone because they changed after ``unchanged_since`` (RFC 7162).

        Raises RefusedError (limits, or ``deleted_flag = refuse`` and only \Deleted was asked for), StoreError.
        """
        check_limits(change, grant.mailbox.keywords)
        if change.asks_for_deletion:
            await self._audit_deletions(grant, uids)
            if self._settings.deleted_flag == "refuse" and change.flags == {DELETED}:
                raise RefusedError("Messages cannot be deleted from this mailbox")
        modified: set[int] = set()
        changed = False
        for chunk in _chunks(uids):
            done, left = await self._change_chunk(grant, chunk, change, unchanged_since)
            changed |= done
            modified |= left
        if changed or modified:
            await self._published(grant.mailbox)
        return modified

    async def _change_chunk(
        self, grant: Grant, uids: Sequence[int], change: FlagChange, unchanged_since: int | None
    ) -> tuple[bool, set[int]]:
        mailbox, rights = grant.mailbox, grant.folder.rights
        current = self._snapshot(mailbox, uids)

        def work(unit: UnitOfWork) -> tuple[bool, set[int]]:
            entries = current(unit)
            left = {uid for uid, e in entries.items() if unchanged_since is not None and e.modseq > unchanged_since}
            wanted = {uid: change.apply(e.flags, rights) for uid, e in entries.items() if uid not in left}
            changes = {uid: flags for uid, flags in wanted.items() if flags != entries[uid].flags}
            if changes:
                unit.mailboxes.set_flags(mailbox.id, changes)
            return bool(changes), left

        storable = change.action is FlagAction.REPLACE or any(is_storable(flag) for flag in change.flags)
        if not storable and unchanged_since is None:
            return False, set()  # Nothing that is asked for is ever stored: spare the disk.
        return await self._store.write(work)

    def _snapshot(self, mailbox: OpenMailbox, uids: Sequence[int]) -> Callable[[UnitOfWork], dict[int, MailboxEntry]]:
        """A reader of the entries as they are within the write transaction.

        The cached entries are right up to the MODSEQ of the cache; what came after it is read in the transaction,
        so that two sessions that add different flags to one message both succeed.
        """
        cached = {uid: self._entry(mailbox, uid) for uid in uids}
        known = mailbox.highest_modseq

        def current(unit: UnitOfWork) -> dict[int, MailboxEntry]:
            newer = unit.mailboxes.changed_since(mailbox.id, known) if cached else []
            return cached | {entry.uid: entry for entry in newer if entry.uid in cached}

        return current

    async def _audit_deletions(self, grant: Grant, uids: Sequence[int]) -> None:
        mailbox = grant.mailbox
        for chunk in _chunks(uids):
            now = self._clock.now()
            message_ids = {uid: self._entry(mailbox, uid).message_id for uid in chunk}

            def work(unit: UnitOfWork, at: datetime = now, rows: Mapping[int, str] = message_ids) -> None:
                for uid, message_id in rows.items():
                    where = _where(mailbox, uid)
                    unit.audit.add(at, grant.account.login, "message.delete_ignored", message_id, where)

            await self._store.write(work)

    async def _published(self, mailbox: OpenMailbox) -> None:
        await mailbox.refresh()
        self.hub.changed(mailbox.id)

    def _entry(self, mailbox: OpenMailbox, uid: int) -> MailboxEntry:
        index = mailbox.index_of(uid)
        if index is None:
            raise NotFoundError("No such message")
        return mailbox.entries[index]


def _search_one(unit: UnitOfWork, mailbox_id: int, term: TextTerm) -> set[int]:
    needle = term.needle.casefold()
    if term.name is not None:
        return unit.mailboxes.search_header(mailbox_id, term.name, needle)
    return unit.mailboxes.search_text(mailbox_id, needle, headers=term.headers, body=term.body)


def _where(mailbox: OpenMailbox, uid: int) -> dict[str, int]:
    return {"mailbox": mailbox.id, "uid": uid}


def _chunks(uids: Sequence[int]) -> Iterable[list[int]]:
    rest = iter(uids)
    while chunk := list(islice(rest, UNITS_OF_FLAG_CHANGES)):
        yield chunk


def _complete(rows: dict[int, T], uids: Sequence[int]) -> dict[int, T]:
    """Refuse an answer with holes: a message that is listed but cannot be read is a fault, not an empty message."""
    if any(uid not in rows for uid in uids):
        raise StoreError("a listed message has no row")
    return rows
