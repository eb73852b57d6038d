r"""The quarantine in memory: a report for each message that is refused now, with UIDs of its own.

It is a :class:`~gateway.inbox.shared_mailbox.SharedMailbox` that loses: a report leaves when its message is judged
again. Nobody can set a flag in it, so what is unread is what waits for somebody. Reports are made when they are asked
for (:mod:`gateway.inbox.quarantine_report`); in memory are UIDs, ids and moments.

Guarantees: as every shared mailbox; entries, exits and counters are of one read.

Failure modes: a failed refresh raises StoreError and leaves everything as it was.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import ClassVar

from gateway.core.errors import NotFoundError
from gateway.inbox.filed_details import microseconds
from gateway.inbox.flags import USUAL_KEYWORDS
from gateway.inbox.quarantine_report import make_report
from gateway.inbox.shared_mailbox import MessageFlags
from gateway.inbox.shared_read import SharedRead
from gateway.inbox.slots import Departures, slot_of
from gateway.ports import Mailbox, QuarantineEntry, Store, UnitOfWork

_NO_FLAGS: frozenset[str] = frozenset()
READ_AT_ONCE = 500
_UNKNOWN = -1


class QuarantineMailbox:
    """Make it with :meth:`load`; it belongs on the event loop."""

    loses: ClassVar[bool] = True
    seen_by: ClassVar[None] = None

    def __init__(self, store: Store, mailbox: Mailbox) -> None:
        self._store = store
        self._read = SharedRead(self._read_news)
        self.id = mailbox.id
        self.uid_validity = mailbox.uid_validity
        self.uid_next = 1
        self.highest_modseq = 0
        self.uids = array("I")
        """By slot, ascending."""
        self.modseqs = array("Q")
        self.flags: list[frozenset[str]] = []
        self.keywords: Mapping[str, str] = {keyword.lower(): keyword for keyword in USUAL_KEYWORDS}
        self.entries: list[QuarantineEntry] = []
        self._departures = Departures()
        self.details = ReportDetails(store, self)

    @classmethod
    async def load(cls, store: Store, mailbox_id: int) -> QuarantineMailbox:
        """Read the folder. Raises NotFoundError, StoreError."""
        made = cls(store, await store.read(lambda unit: unit.mailboxes.get(mailbox_id)))
        await made.refresh()
        return made

    def __len__(self) -> int:
        return len(self.uids)

    def __getitem__(self, index: int, /) -> MessageFlags:
        """The report, which has no flags."""
        return MessageFlags(self.uids[index], _NO_FLAGS, self.modseqs[index])

    @property
    def present(self) -> int:
        """Messages that are refused now."""
        return self._departures.present

    @property
    def unseen(self) -> int:
        """All of them wait for somebody."""
        return self.present

    def index_of(self, uid: int) -> int | None:
        """The slot of a UID, also of a report that left; None when no slot has it."""
        return slot_of(self.uids, uid)

    def entry(self, uid: int) -> QuarantineEntry:
        """Raises NotFoundError."""
        index = self.index_of(uid)
        if index is None:
            raise NotFoundError("No such message")
        return self.entries[index]

    def first_unseen(self) -> int | None:
        """The first slot of a report that is there now, or None."""
        return self._departures.first_present()

    def changed_since(self, modseq: int, below: int) -> list[int]:
        """Slots smaller than ``below`` of the reports that came after that MODSEQ and are there."""
        if modseq >= self.highest_modseq:
            return []
        first = bisect_right(self.modseqs, modseq)
        return [index for index in range(first, min(below, len(self.uids))) if not self.is_gone(index)]

    def is_gone(self, index: int) -> bool:
        """Whether the message of the slot was judged again."""
        return self._departures.is_gone(index)

    def gone_since(self, modseq: int, below: int) -> list[int]:
        """Slots smaller than ``below`` whose reports left after ``modseq``, ascending."""
        return self._departures.since(modseq, below)

    async def vanished(self, since_modseq: int) -> list[int]:
        """UIDs that left after that MODSEQ, ascending. Raises StoreError."""
        exits = await self._store.read(lambda unit: unit.quarantine_folder.exits(since_modseq))
        return sorted(uid for modseq, uid in exits if modseq <= self.highest_modseq)

    async def refresh(self) -> None:
        """Take over everything committed before this call began. Raises StoreError."""
        await self._read()

    async def _read_news(self) -> None:
        since, after = self.highest_modseq, self.uid_next - 1

        def work(unit: UnitOfWork) -> tuple[Mailbox, list[QuarantineEntry], list[tuple[int, int]]]:
            mailbox = unit.mailboxes.get(self.id)
            if mailbox.highest_modseq == since:
                return mailbox, [], []
            return mailbox, unit.quarantine_folder.entries(after), unit.quarantine_folder.exits(since)

        mailbox, entered, left = await self._store.read(work)
        for entry in entered:
            self.uids.append(entry.uid)
            self.modseqs.append(entry.modseq)
            self.flags.append(_NO_FLAGS)
            self.entries.append(entry)
        self._departures.came(len(entered))
        for modseq, uid in left:
            slot = self.index_of(uid)
            if slot is not None:
                self._departures.left(slot, modseq)
        self.uid_next, self.highest_modseq = mailbox.uid_next, mailbox.highest_modseq

    async def reports(self, uids: Sequence[int]) -> dict[int, bytes]:
        """The reports by UID, also of messages that left. Raises StoreError."""

        def work(unit: UnitOfWork) -> dict[int, bytes]:
            # Made in the thread that reads.
            found = unit.quarantine_folder.reported(uids)
            return {uid: make_report(uid, refused) for uid, refused in found.items()}

        return await self._store.read(work)


class ReportDetails:
    """Sizes and dates of the reports; see :class:`gateway.inbox.shared_mailbox.MessageDetails`."""

    def __init__(self, store: Store, mailbox: QuarantineMailbox) -> None:
        self._store = store
        self._mailbox = mailbox
        self._sizes = array("q")

    async def need(self, indexes: Iterable[int]) -> None:
        """Make the reports whose sizes are not known yet. Raises StoreError."""
        mailbox, sizes = self._mailbox, self._sizes
        sizes.extend(array("q", [_UNKNOWN]) * (len(mailbox) - len(sizes)))
        unknown = [index for index in indexes if sizes[index] == _UNKNOWN]
        for start in range(0, len(unknown), READ_AT_ONCE):
            chunk = unknown[start : start + READ_AT_ONCE]
            reports = await mailbox.reports([mailbox.uids[index] for index in chunk])
            for index in chunk:
                sizes[index] = len(reports[mailbox.uids[index]])

    async def total_size(self, count: int) -> int:
        """Octets of all reports that are there, or that came meanwhile. Raises StoreError."""
        mailbox = self._mailbox
        present = [slot for slot in range(len(mailbox)) if not mailbox.is_gone(slot)][: max(count, mailbox.present)]
        await self.need(present)
        return sum(map(self.size_bytes, present))

    async def message_ids(self, indexes: Sequence[int]) -> list[str]:
        """Ids of the reports: what they are about has one of its own, under which it may be in an INBOX later."""
        return [f"report-{self._mailbox.uids[index]}" for index in indexes]

    async def uids_of(self, message_id: str) -> list[int]:
        """The UID of a report by that id; empty when it is not there."""
        mailbox = self._mailbox
        number = message_id.removeprefix("report-")
        index = mailbox.index_of(int(number)) if number.isascii() and number.isdecimal() and len(number) <= 10 else None
        known = index is not None and number != message_id and not mailbox.is_gone(index)
        return [mailbox.uids[index]] if known and index is not None else []

    def size_bytes(self, index: int) -> int:
        """Octets of the report."""
        size = self._sizes[index]
        if size == _UNKNOWN:
            raise AssertionError("the report was not made")
        return size

    def internal_date(self, index: int) -> datetime:
        """When the message was refused."""
        return self._mailbox.entries[index].at

    def internal_microseconds(self, index: int) -> int:
        """The same in microseconds since 1970 in UTC."""
        return microseconds(self.internal_date(index))

    def sent_microseconds(self, index: int) -> int | None:
        """The moment of the Date field, which has whole seconds."""
        return microseconds(self.internal_date(index).replace(microsecond=0))
