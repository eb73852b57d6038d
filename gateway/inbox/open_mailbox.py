"""A mailbox held in memory: the narrow rows of its messages, shared by every session that has it open.

Guarantees: messages are only ever appended, so a message's sequence number is its index + 1 and both number and
UID stay for ever (EP-23). The view moves only forward, to a state that the store had at one moment (one read
snapshot). Many sessions that want a refresh at the same time share one read.

Failure modes: a failed refresh raises StoreError and leaves the view as it was.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace

from gateway.inbox.flags import SEEN, USUAL_KEYWORDS
from gateway.ports import Mailbox, MailboxEntry, Store, UnitOfWork

MAX_CHANGE_LOG = 20_000
MAX_INTERNED = 10_000


class OpenMailbox:
    """The in-memory view of one mailbox. Make it with :meth:`load`; indexes are 0-based, never removed."""

    def __init__(self, store: Store, mailbox: Mailbox, entries: Sequence[MailboxEntry]) -> None:
        self._store = store
        self._lock = asyncio.Lock()
        self._tickets = 0
        self._served = 0
        self.id = mailbox.id
        self.uid_validity = mailbox.uid_validity
        self.uid_next = mailbox.uid_next
        self.highest_modseq = mailbox.highest_modseq
        self.entries: list[MailboxEntry] = []
        """By ascending UID. Elements are replaced when flags change; never removed."""
        self.uids: list[int] = []
        self.unseen = 0
        self.size_bytes = 0
        self.keywords: dict[str, str] = {keyword.lower(): keyword for keyword in USUAL_KEYWORDS}
        """Spelling of every keyword in use, by lower-case form."""
        self._interned: dict[frozenset[str], frozenset[str]] = {}
        self._changes: list[tuple[int, int]] = []
        """(MODSEQ, index) in ascending order, of what changed above ``_changes_floor``."""
        self._changes_floor = mailbox.highest_modseq
        self._append(entries)

    @classmethod
    async def load(cls, store: Store, mailbox_id: int) -> OpenMailbox:
        """Read a mailbox. Raises NotFoundError or StoreError."""

        def work(unit: UnitOfWork) -> tuple[Mailbox, list[MailboxEntry]]:
            return unit.mailboxes.get(mailbox_id), unit.mailboxes.entries(mailbox_id)

        mailbox, entries = await store.read(work)
        return cls(store, mailbox, entries)

    def __len__(self) -> int:
        return len(self.entries)

    async def refresh(self) -> None:
        """Take over everything committed before this call began. Raises StoreError."""
        self._tickets += 1
        mine = self._tickets
        async with self._lock:
            if self._served >= mine:
                return  # A read that began after this call has covered it.
            covers = self._tickets
            await self._read_news()
            self._served = covers

    async def _read_news(self) -> None:
        known_modseq, known_next = self.highest_modseq, self.uid_next
        last_uid = self.uids[-1] if self.uids else 0

        def work(unit: UnitOfWork) -> tuple[Mailbox, list[MailboxEntry], list[MailboxEntry]]:
            mailbox = unit.mailboxes.get(self.id)
            if mailbox.highest_modseq == known_modseq and mailbox.uid_next == known_next:
                return mailbox, [], []
            new = unit.mailboxes.entries(self.id, last_uid)
            return mailbox, new, unit.mailboxes.changed_since(self.id, known_modseq)

        mailbox, new, changed = await self._store.read(work)
        self._append(new)
        self._replace(changed)
        self.uid_next = mailbox.uid_next
        self.highest_modseq = mailbox.highest_modseq
        log = sorted((entry.modseq, index) for entry in changed if (index := self.index_of(entry.uid)) is not None)
        self._changes.extend(log)
        if len(self._changes) > MAX_CHANGE_LOG:
            del self._changes[: -MAX_CHANGE_LOG // 2]
            self._changes_floor = self._changes[0][0]

    def _append(self, entries: Iterable[MailboxEntry]) -> None:
        for entry in entries:
            self.entries.append(self._compact(entry))
            self.uids.append(entry.uid)
            self.size_bytes += entry.size_bytes
            self.unseen += SEEN not in entry.flags

    def _replace(self, entries: Iterable[MailboxEntry]) -> None:
        for entry in entries:
            index = self.index_of(entry.uid)
            if index is not None:
                self.unseen += (SEEN not in entry.flags) - (SEEN not in self.entries[index].flags)
                self.entries[index] = self._compact(entry)

    def _compact(self, entry: MailboxEntry) -> MailboxEntry:
        """Share one frozenset between all messages with the same flags: 100,000 sets would cost 20 MB."""
        flags = self._interned.get(entry.flags)
        if flags is None:
            if len(self._interned) > MAX_INTERNED:
                self._interned.clear()
            flags = self._interned[entry.flags] = entry.flags
            for flag in flags:
                if not flag.startswith("\\"):
                    self.keywords.setdefault(flag.lower(), flag)
        return replace(entry, flags=flags) if flags is not entry.flags else entry

    def index_of(self, uid: int) -> int | None:
        """The index of a UID, or None."""
        index = bisect_left(self.uids, uid)
        return index if index < len(self.uids) and self.uids[index] == uid else None

    def first_unseen(self) -> int | None:
        r"""The index of the first message without \Seen, or None."""
        if not self.unseen:
            return None
        return next((index for index, entry in enumerate(self.entries) if SEEN not in entry.flags), None)

    def changed_since(self, modseq: int, below: int) -> list[int]:
        """Indexes smaller than ``below`` of the messages whose flags changed after ``modseq``, ascending."""
        if modseq >= self.highest_modseq:
            return []
        if modseq < self._changes_floor:
            return [index for index, entry in enumerate(self.entries[:below]) if entry.modseq > modseq]
        start = bisect_right(self._changes, (modseq, len(self.entries)))
        return sorted({index for _, index in self._changes[start:] if index < below})
