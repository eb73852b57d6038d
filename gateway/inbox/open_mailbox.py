r"""A mailbox held in memory, shared by every session that has it open: UID, flags and MODSEQ of its messages.

They stand in columns, 21 bytes a message, because a mail client waits while they are read: a mailbox of 100,000
messages takes a tenth of a second, most of it outside of the event loop. What else a client may ask for is read when it
does (:mod:`gateway.inbox.filed_details`).

Guarantees: messages are only ever appended, so a message's sequence number is its index + 1 and both number and
UID stay for ever (EP-23). The view moves only forward, to a state that the store had at one moment (one read
snapshot). Many sessions that want a refresh at the same time share one read, which costs what is new and not what is
there.

Failure modes: a failed refresh raises StoreError and leaves the view as it was.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import ClassVar

from gateway.core.errors import StoreError
from gateway.inbox.filed_details import FiledDetails
from gateway.inbox.flags import SEEN, USUAL_KEYWORDS
from gateway.inbox.shared_mailbox import MessageFlags
from gateway.inbox.shared_read import SharedRead
from gateway.inbox.slots import slot_of
from gateway.ports import FlagColumns, Mailbox, Store, UnitOfWork

MAX_CHANGE_LOG = 20_000
MAX_INTERNED = 10_000


class OpenMailbox:
    """The in-memory view of one mailbox, which loses nothing: a :class:`~gateway.inbox.shared_mailbox.SharedMailbox`.

    Make it with :meth:`load`; indexes are 0-based, never removed.
    """

    loses: ClassVar[bool] = False

    def __init__(self, store: Store, mailbox: Mailbox, columns: FlagColumns, seen_by: int | None = None) -> None:
        r"""``columns`` of the whole mailbox, at the moment of ``mailbox``; they are taken over, not copied.

        ``seen_by``: the account whose own \Seen they hold. None: the one that all share.
        """
        self._store = store
        self.seen_by = seen_by
        self._read = SharedRead(self._read_versioned)
        self._version: int | None = None
        """Of the store, before the last read."""
        self.id = mailbox.id
        self.uid_validity = mailbox.uid_validity
        self.uid_next = mailbox.uid_next
        self.highest_modseq = mailbox.highest_modseq
        self.uids = columns.uids
        """Ascending."""
        self.flags = columns.flags
        """By index. Elements are replaced when flags change; messages with the same flags share one set."""
        self.modseqs = columns.modseqs
        """By index."""
        seen = {flags: SEEN in flags for flags in dict.fromkeys(columns.flags)}
        self._seen = bytearray(map(seen.__getitem__, columns.flags))
        self.unseen = self._seen.count(0)
        self.details = FiledDetails(store, mailbox.id, self.uids)
        self.keywords: dict[str, str] = {keyword.lower(): keyword for keyword in USUAL_KEYWORDS}
        """Spelling of every keyword in use, by lower-case form."""
        self._interned: dict[frozenset[str], frozenset[str]] = {}
        for flags in seen:
            self._intern(flags)
        self._changes: list[tuple[int, int]] = []
        """(MODSEQ, index) in ascending order, of what changed above ``_changes_floor``."""
        self._changes_floor = mailbox.highest_modseq

    @classmethod
    async def load(cls, store: Store, mailbox_id: int, *, seen_by: int | None = None) -> OpenMailbox:
        """Read a mailbox. Raises NotFoundError or StoreError."""

        def work(unit: UnitOfWork) -> OpenMailbox:
            # Made in the thread that reads: there is a look at every message in it.
            mailbox = unit.mailboxes.get(mailbox_id)
            return cls(store, mailbox, unit.mailboxes.flags(mailbox_id, seen_by=seen_by), seen_by)

        return await store.read(work)

    def __len__(self) -> int:
        return len(self.uids)

    @property
    def present(self) -> int:
        """Messages that are in it: all that ever came."""
        return len(self.uids)

    def __getitem__(self, index: int, /) -> MessageFlags:
        """The message as it is now: whoever waits between two looks may see two states."""
        return MessageFlags(self.uids[index], self.flags[index], self.modseqs[index])

    async def refresh(self) -> None:
        """Take over everything committed before this call began. Raises StoreError."""
        version = self._store.version()
        if version is not None and version == self._version:
            return  # Nobody has committed anything since the last read began.
        await self._read()

    async def _read_versioned(self) -> None:
        version = self._store.version()
        await self._read_news()
        self._version = version

    async def _read_news(self) -> None:
        known_modseq, known_next = self.highest_modseq, self.uid_next

        def work(unit: UnitOfWork) -> tuple[Mailbox, FlagColumns | None]:
            mailbox = unit.mailboxes.get(self.id)
            if mailbox.highest_modseq == known_modseq and mailbox.uid_next == known_next:
                return mailbox, None
            # A message that was added has a MODSEQ above all earlier ones, as a change of flags has.
            return mailbox, unit.mailboxes.flags(self.id, known_modseq, seen_by=self.seen_by)

        mailbox, news = await self._store.read(work)
        if news is not None:
            self._take(news)
        self.uid_next = mailbox.uid_next
        self.highest_modseq = mailbox.highest_modseq

    def _take(self, news: FlagColumns) -> None:
        last = self.uids[-1] if self.uids else 0
        if any(uid < last and self.index_of(uid) is None for uid in news.uids):
            raise StoreError("a UID came after a higher one")
        log = []
        for uid, flags, modseq in zip(news.uids, news.flags, news.modseqs, strict=True):
            index = self.index_of(uid)
            if index is None:
                index = self._append(uid)
            self.flags[index] = self._intern(flags)
            self.modseqs[index] = modseq
            self.unseen += (SEEN not in flags) - (not self._seen[index])
            self._seen[index] = SEEN in flags
            log.append((modseq, index))
        self._changes.extend(sorted(log))
        if len(self._changes) > MAX_CHANGE_LOG:
            del self._changes[: -MAX_CHANGE_LOG // 2]
            self._changes_floor = self._changes[0][0]

    def _append(self, uid: int) -> int:
        """Make room for a message, whose flags come next; return its index."""
        self.uids.append(uid)
        self.flags.append(frozenset())
        self.modseqs.append(0)
        self._seen.append(True)
        return len(self.uids) - 1

    def _intern(self, flags: frozenset[str]) -> frozenset[str]:
        """Share one frozenset between all messages with the same flags: 100,000 sets would cost 20 MB."""
        known = self._interned.get(flags)
        if known is None:
            if len(self._interned) > MAX_INTERNED:
                self._interned.clear()
            known = self._interned[flags] = flags
            for flag in flags:
                if not flag.startswith("\\"):
                    self.keywords.setdefault(flag.lower(), flag)
        return known

    def index_of(self, uid: int) -> int | None:
        """The index of a UID, or None."""
        return slot_of(self.uids, uid)

    def first_unseen(self) -> int | None:
        r"""The index of the first message without \Seen, or None."""
        found = self._seen.find(0)
        return None if found < 0 else found

    def changed_since(self, modseq: int, below: int) -> list[int]:
        """Indexes smaller than ``below`` of the messages whose flags changed after ``modseq``, ascending."""
        if modseq >= self.highest_modseq:
            return []
        if modseq < self._changes_floor:
            return [index for index, changed in enumerate(self.modseqs[:below]) if changed > modseq]
        start = bisect_right(self._changes, (modseq, len(self.uids)))
        return sorted({index for _, index in self._changes[start:] if index < below})

    def is_gone(self, _index: int) -> bool:
        """Nothing ever leaves."""
        return False

    def gone_since(self, _modseq: int, _below: int) -> list[int]:
        """Nothing ever leaves."""
        return []

    async def vanished(self, _since_modseq: int) -> list[int]:
        """Nothing ever leaves."""
        return []
