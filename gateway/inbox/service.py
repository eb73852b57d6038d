r"""The mailbox view: what a person or program with an account can see of the store, and change.

Guarantees: only folders granted to the account can be reached, with the rights of the grant. Messages are never
removed or changed; flags are the one mutable part. Whoever reads (``message.read``), lists (``message.listed``) or
searches is in the audit log before the first byte leaves, and so is whoever changes flags or tries to delete (ON-10).
One event names all messages of a command: the message itself where it is one, else ``mailbox/ID`` with their UIDs in
the detail. Changes are durable when a call returns.

Failure modes: NotFoundError for what the account cannot see (whether or not it exists), RefusedError when policy says
no, StoreError when the store cannot answer; nothing is half done beyond the units that were committed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeVar

from gateway.core.audit import compact_numbers, set_subject
from gateway.core.errors import NotFoundError, RefusedError, StoreError
from gateway.inbox.change_hub import ChangeHub
from gateway.inbox.flags import DELETED, SEEN, FlagAction, FlagChange, check_limits, is_storable
from gateway.inbox.open_mailboxes import OpenMailboxes
from gateway.inbox.reviewing import record_reviews
from gateway.inbox.rights_in_force import RightsInForce
from gateway.inbox.sent import KeepsSent, SentMail
from gateway.inbox.sent_folders import give_lacking
from gateway.inbox.shared_mailbox import MessageFlags, SharedMailbox
from gateway.ports import (
    Account,
    Clock,
    Folder,
    IndexedMessage,
    Store,
    UnitOfWork,
)
from gateway.settings import IMAPSettings

T = TypeVar("T")

INBOX = "INBOX"
PER_USER = "per_user"
ACTOR = "gateway"
SEEN_CHANGED = "imap.seen_changed"
MESSAGE_READ = "message.read"
MESSAGE_LISTED = "message.listed"
"""Headers or the structure were shown, not the body."""
MESSAGE_SEARCHED = "message.searched"
FLAGS_CHANGED = "message.flags"
DELETE_IGNORED = "message.delete_ignored"
UIDS_IN_ONE_EVENT = 10_000
UNITS_OF_FLAG_CHANGES = 500
"""Messages changed in one transaction: a STORE on a large mailbox must not hold the writer for seconds."""
MAX_ARRANGED = 1_000
"""Accounts whose folders are kept in the form in which they are shown."""
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
    mailbox: SharedMailbox


class Inbox(KeepsSent):
    """The folders and messages of all accounts. One per process; every method belongs on the event loop."""

    def __init__(
        self, store: Store, clock: Clock, hub: ChangeHub, settings: IMAPSettings, sent: SentMail | None = None
    ) -> None:
        """``sent`` keeps what mail clients put into Sent. None: they cannot."""
        self.sent = sent
        self._rights = RightsInForce(lambda account: self.folders(account))  # noqa: PLW0108 - as it is when it is called
        self._store = store
        self._clock = clock
        self._settings = settings
        self.hub = hub
        self._mailboxes = OpenMailboxes(store)
        self._contents: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._contents_bytes = 0
        self._folders: dict[int, list[Folder]] = {}
        """By account, as of ``_folders_version`` of the store."""
        self._arranged: dict[int, tuple[list[Folder], list[Folder]]] = {}
        """By account: a list of ``_folders``, and what is shown of it."""
        self._folders_version: int | None = None

    async def folders(self, account: Account) -> list[Folder]:
        """The folders that the account may look up, by name; INBOX first. The list belongs to the inbox.

        Raises StoreError.
        """
        granted = await self._granted(account.id)
        known = self._arranged.get(account.id)
        if known is None or known[0] is not granted:
            known = self._arranged[account.id] = (granted, self._arrange(granted))
            if len(self._arranged) > MAX_ARRANGED:
                self._arranged.clear()
        return known[1]

    def _arrange(self, granted: list[Folder]) -> list[Folder]:
        """What an account with these folders may look up, in order."""
        visible = [folder for folder in granted if "l" in folder.rights or "r" in folder.rights]
        return sorted(visible, key=lambda folder: (folder.name.upper() != INBOX, folder.name))

    async def _granted(self, account_id: int) -> list[Folder]:
        version = self._store.version()
        if version is None:
            return await self._store.read(lambda unit: unit.accounts.folders(account_id))
        if version != self._folders_version:
            self._folders, self._folders_version = {}, version
        known = self._folders.get(account_id)
        if known is None:
            kept = self._folders
            # Kept with the version that was there before the read: what is read may be newer, never older.
            known = kept[account_id] = await self._store.read(lambda unit: unit.accounts.folders(account_id))
        return known

    async def folder(self, account: Account, name: str) -> Folder:
        """One folder by its name; INBOX in any case (EP-25). Raises NotFoundError, StoreError."""
        return _named(await self.folders(account), name)

    async def open(self, account: Account, name: str) -> Grant:
        """Open a folder, up to date. Raises NotFoundError, RefusedError (no right to read), StoreError."""
        # Somebody opens a mailbox, and must not be judged by what was true before that.
        folder = _named(await self._rights.look(account), name)
        if "r" not in folder.rights:
            raise RefusedError("No right to read this mailbox")
        return Grant(account, folder, await self.shared(account, folder))

    async def shared(self, account: Account, folder: Folder) -> SharedMailbox:
        """The mailbox of a folder, up to date. Raises NotFoundError, StoreError."""
        # The account whose own mark is shown, where they do not share it.
        seen_by = account.id if self._settings.seen == PER_USER else None
        return await self._mailboxes.get(folder.mailbox_id, seen_by=seen_by)

    async def in_force(self, grant: Grant) -> Grant | None:
        """The grant with the rights of now; None when the account may not read the mailbox any more.

        Raises StoreError.
        """
        folder = await self._rights.of(grant.account, grant.folder)
        if folder is None:
            return None
        return grant if folder == grant.folder else replace(grant, folder=folder)

    async def prepare(self) -> None:
        r"""Bring the store in line with the settings (whose \Seen is shown), and give accounts the Sent that they lack.

        To be called before anybody logs in; running it again changes nothing. Raises StoreError.
        """
        at, seen = self._clock.now(), self._settings.seen

        def work(unit: UnitOfWork) -> None:
            changed = unit.mailboxes.use_seen(seen, at)
            if changed is not None:
                unit.audit.add(at, ACTOR, SEEN_CHANGED, "", {"seen": seen, "mailboxes": changed})
            give_lacking(unit, ACTOR, at)

        await self._store.write(work)

    async def rights_on(self, account: Account, folder: Folder) -> list[tuple[str, str]]:
        """Login and rights of those who see a folder, as far as the account may know: himself, or all with ``a``.

        Raises StoreError.
        """
        if "a" not in folder.rights:
            return [(account.login, folder.rights)]
        return await self._store.read(lambda unit: unit.accounts.granted_on(folder.mailbox_id))

    async def indexed(self, mailbox: SharedMailbox, uids: Sequence[int]) -> dict[int, IndexedMessage]:
        """Precomputed answers by UID. Raises StoreError, also when one is missing."""
        rows = await self._store.read(lambda unit: unit.mailboxes.indexed(mailbox.id, uids))
        return _complete(rows, uids)

    async def contents(self, mailbox: SharedMailbox, uids: Sequence[int], *, keep: bool = False) -> dict[int, bytes]:
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

    async def headers(self, mailbox: SharedMailbox, uids: Sequence[int]) -> dict[int, bytes]:
        """The header of each message as it stands in it, by UID. Raises StoreError, also when one is missing."""
        return _complete(await self._store.read(lambda unit: unit.mailboxes.headers(mailbox.id, uids)), uids)

    def _keep(self, key: tuple[int, int], content: bytes) -> None:
        if key in self._contents:
            self._contents.move_to_end(key)
            return
        self._contents[key] = content
        self._contents_bytes += len(content)
        while self._contents_bytes > KEPT_CONTENT_BYTES and len(self._contents) > 1:
            _, dropped = self._contents.popitem(last=False)
            self._contents_bytes -= len(dropped)

    async def search(self, mailbox: SharedMailbox, terms: Iterable[TextTerm]) -> dict[TextTerm, set[int]]:
        """UIDs that match each text term, from one read. Raises StoreError."""
        wanted = list(terms)

        def work(unit: UnitOfWork) -> dict[TextTerm, set[int]]:
            return {term: _search_one(unit, mailbox.id, term) for term in wanted}

        return await self._store.read(work) if wanted else {}

    async def record(
        self, grant: Grant, action: str, uids: Sequence[int], detail: Mapping[str, Any] | None = None
    ) -> None:
        """Write down what is about to be done with messages of the mailbox: one event for all of them.

        Raises StoreError: then it must not be done.
        """
        await self._store.write(lambda unit: self._add(unit, grant, action, uids, **(detail or {})), urgent=True)

    def _add(self, unit: UnitOfWork, grant: Grant, action: str, uids: Sequence[int], **detail: Any) -> None:
        """One message is the subject itself; several are named by their UIDs, a bounded number in each event."""
        mailbox, login, at = grant.mailbox, grant.account.login, self._clock.now()
        if len(uids) == 1:
            message_id = unit.mailboxes.message_id(mailbox.id, uids[0])
            unit.audit.add(at, login, action, message_id, {**detail, **_where(mailbox, uids[0])})
            return
        for chunk in _chunks(sorted(uids), UIDS_IN_ONE_EVENT):
            about = {"mailbox": mailbox.id, "messages": len(chunk), "uids": compact_numbers(chunk)}
            unit.audit.add(at, login, action, set_subject(mailbox.id), {**detail, **about})
        if not uids:
            unit.audit.add(at, login, action, set_subject(mailbox.id), {**detail, "mailbox": mailbox.id})

    async def record_refusal(self, account: Account, action: str) -> None:
        """Write down that somebody tried what nobody may do (make or remove a mailbox). Raises StoreError."""
        now = self._clock.now()
        await self._store.write(lambda unit: unit.audit.add(now, account.login, action, ""), urgent=True)

    def add_event(self, unit: UnitOfWork, grant: Grant, action: str, uids: Sequence[int], **detail: Any) -> None:
        """Write down what the caller's own unit of work does with messages; as :meth:`record`."""
        self._add(unit, grant, action, uids, **detail)

    async def mark_read(
        self,
        grant: Grant,
        uids: Sequence[int],
        *,
        set_seen: bool,
        audit: Sequence[int],
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        r"""Set \Seen on ``uids`` where the rights allow it, and audit that ``audit`` were read, in one commit.

        Raises StoreError: then nothing may be shown.
        """
        mailbox = grant.mailbox
        changing = list(uids) if set_seen and "s" in grant.folder.rights else []
        current = self._snapshot(mailbox, changing)

        def work(unit: UnitOfWork) -> bool:
            entries = current(unit)
            seen: dict[int, frozenset[str]] = {
                uid: entry.flags | {SEEN} for uid, entry in entries.items() if SEEN not in entry.flags
            }
            if seen:
                unit.mailboxes.set_flags(mailbox.id, seen, seen_by=mailbox.seen_by)
            if audit:
                self._add(unit, grant, MESSAGE_READ, audit, **(detail or {}), seen=len(seen))
            elif seen:
                self._add(unit, grant, FLAGS_CHANGED, list(seen), **(detail or {}), change="add", flags=["\\Seen"])
            return bool(seen)

        if audit or changing:
            changed = await self._store.write(work, urgent=True)
            if changed:
                await self._published(mailbox)

    async def change_flags(
        self, grant: Grant, uids: Sequence[int], change: FlagChange, *, unchanged_since: int | None = None
    ) -> set[int]:
        r"""Apply a STORE; returns the UIDs left alone because they changed after ``unchanged_since`` (RFC 7162).

        Raises RefusedError (limits, or ``deleted_flag = refuse`` and only \Deleted was asked for), StoreError.
        """
        if change.asks_for_deletion and uids:
            await self.record(grant, DELETE_IGNORED, uids)
        check_limits(change, grant.mailbox.keywords)
        if uids and change.asks_for_deletion and change.flags == {DELETED} and self._settings.deleted_flag == "refuse":
            raise RefusedError("Messages cannot be deleted from this mailbox")
        modified: set[int] = set()
        changed = False
        for chunk in _chunks(uids):
            if changed:
                # Else each chunk would read once more what those before it changed.
                await grant.mailbox.refresh()
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

        def work(unit: UnitOfWork) -> tuple[bool, set[int], list[int]]:
            entries = current(unit)
            left = {uid for uid, e in entries.items() if unchanged_since is not None and e.modseq > unchanged_since}
            wanted = {uid: change.apply(e.flags, rights) for uid, e in entries.items() if uid not in left}
            changes = {uid: flags for uid, flags in wanted.items() if flags != entries[uid].flags}
            others = list[int]()
            if changes:
                unit.mailboxes.set_flags(mailbox.id, changes, seen_by=mailbox.seen_by)
                self._add(unit, grant, FLAGS_CHANGED, list(changes), **_audited(change))
                before = {uid: entries[uid].flags for uid in changes}
                login, at = grant.account.login, self._clock.now()
                others = record_reviews(unit, mailbox.id, login, at, before=before, after=changes)
            return bool(changes), left, others

        storable = change.action is FlagAction.REPLACE or any(is_storable(flag) for flag in change.flags)
        if not storable and unchanged_since is None:
            return False, set()  # Nothing that is asked for is ever stored: spare the disk.
        done, left, others = await self._store.write(work)
        for mailbox_id in others:
            if mailbox_id != mailbox.id:
                self.hub.changed(mailbox_id)
        return done, left

    def _snapshot(self, mailbox: SharedMailbox, uids: Sequence[int]) -> Callable[[UnitOfWork], dict[int, MessageFlags]]:
        """A reader of the flags as they are within the write transaction.

        The cached flags are right up to the MODSEQ of the cache; what came after it is read in the transaction,
        so that two sessions that add different flags to one message both succeed.
        """
        cached = {uid: _flags_of(mailbox, uid) for uid in uids}
        known = mailbox.highest_modseq

        def current(unit: UnitOfWork) -> dict[int, MessageFlags]:
            if not cached:
                return {}
            newer = unit.mailboxes.flags(mailbox.id, known, seen_by=mailbox.seen_by)
            rows = map(MessageFlags, newer.uids, newer.flags, newer.modseqs)
            return cached | {row.uid: row for row in rows if row.uid in cached}

        return current

    async def _published(self, mailbox: SharedMailbox) -> None:
        await mailbox.refresh()
        self.hub.changed(mailbox.id)


def _named(folders: Sequence[Folder], name: str) -> Folder:
    """The one of that name. Raises NotFoundError."""
    for folder in folders:
        if folder.name == name or (folder.name.upper() == INBOX == name.upper()):
            return folder
    raise NotFoundError("No such mailbox")


def _search_one(unit: UnitOfWork, mailbox_id: int, term: TextTerm) -> set[int]:
    needle = term.needle.casefold()
    if term.name is not None:
        return unit.mailboxes.search_header(mailbox_id, term.name, needle)
    return unit.mailboxes.search_text(mailbox_id, needle, headers=term.headers, body=term.body)


def _flags_of(mailbox: SharedMailbox, uid: int) -> MessageFlags:
    index = mailbox.index_of(uid)
    if index is None:
        raise NotFoundError("No such message")
    return mailbox[index]


def _where(mailbox: SharedMailbox, uid: int) -> dict[str, int]:
    return {"mailbox": mailbox.id, "uid": uid}


def _chunks(uids: Sequence[int], size: int = UNITS_OF_FLAG_CHANGES) -> Iterable[list[int]]:
    rest = iter(uids)
    while chunk := list(islice(rest, size)):
        yield chunk


def _audited(change: FlagChange) -> dict[str, Any]:
    """A change of flags as the audit log keeps it: keywords, which anybody may make up, by their number."""
    system = sorted(flag for flag in change.flags if flag.startswith("\\") and is_storable(flag))
    return {"change": change.action.name.lower(), "flags": system, "keywords": len(change.flags) - len(system)}


def _complete(rows: dict[int, T], uids: Sequence[int]) -> dict[int, T]:
    """Refuse an answer with holes: a message that is listed but cannot be read is a fault, not an empty message."""
    if any(uid not in rows for uid in uids):
        raise StoreError("a listed message has no row")
    return rows
