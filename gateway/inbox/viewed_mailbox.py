r"""A view of a mailbox in memory: those of its messages that wait for a patient, or those that are on a chart.

It is a :class:`~gateway.inbox.shared_mailbox.SharedMailbox` over the shared mailbox that it is a part of. Flags,
MODSEQs, sizes and dates are those of that mailbox, so \Seen set in one shows in the other. A view has of its own
which messages are in it, and their UIDs: columns of 10 bytes a message, and 4 for each one of the mailbox. A message
that leaves (it was linked) leaves its slot empty for ever; where it enters another view, it does so under a new UID,
above all that the view has given out.

Guarantees: as every shared mailbox. Which messages are in the view is read up to the MODSEQ that the mailbox below has,
so both are of one moment, although they are read one after the other (:mod:`gateway.store.views`). A refresh costs what
is new.

Failure modes: a failed refresh raises StoreError and leaves the view as it was.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import ClassVar, Generic, TypeVar, overload

from gateway.core.errors import NotFoundError, StoreError
from gateway.core.standing import View
from gateway.inbox.flags import SEEN
from gateway.inbox.shared_mailbox import MessageDetails, MessageFlags, SharedMailbox
from gateway.inbox.shared_read import SharedRead
from gateway.inbox.slots import Departures, slot_of
from gateway.ports import Store, UnitOfWork, ViewColumns

T = TypeVar("T")

_NONE = -1


class _Through(Sequence[T], Generic[T]):
    """A column of the mailbox below, by slot of the view."""

    __slots__ = ("_column", "_slots")

    def __init__(self, column: Sequence[T], slots: array[int]) -> None:
        self._column = column
        self._slots = slots

    def __len__(self) -> int:
        return len(self._slots)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        column = self._column
        if isinstance(index, slice):
            return [column[below] for below in self._slots[index]]
        return column[self._slots[index]]

    def __iter__(self) -> Iterator[T]:
        return map(self._column.__getitem__, self._slots)


class _Modseqs(_Through[int]):
    """None is above that of the view.

    The mailbox below may have come further, and the view has not yet looked what left it meanwhile. A client that was
    told of a MODSEQ asks for nothing before it (RFC 7162 3.2.5), and would never hear of what left.
    """

    __slots__ = ("_view",)

    def __init__(self, view: ViewedMailbox, slots: array[int]) -> None:
        super().__init__(view.base.modseqs, slots)
        self._view = view

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        until, column = self._view.highest_modseq, self._column
        if isinstance(index, slice):
            return [min(column[below], until) for below in self._slots[index]]
        return min(column[self._slots[index]], until)

    def __iter__(self) -> Iterator[int]:
        return iter(self[:])


class ViewedMailbox:
    """Make it with :meth:`load`; it belongs on the event loop."""

    loses: ClassVar[bool] = True

    def __init__(self, store: Store, base: SharedMailbox, view: View) -> None:
        self._store = store
        self._read = SharedRead(self._read_all)
        self.base = base
        self.view = view
        self.id = base.id
        self.uid_validity = base.uid_validity
        self.seen_by = base.seen_by
        self.uid_next = 1
        self.highest_modseq = 0
        self.uids = array("I")
        """By slot, ascending."""
        self._below = array("I")
        """The slot of the same message in the mailbox below, by slot."""
        self._slots = array("i")
        """The slot of each message of the mailbox below that is in the view now."""
        self._departures = Departures()
        self._waiting = bytearray()
        r"""By slot, 1 for a message without \Seen that is in the view."""
        self.unseen = 0
        self.flags: Sequence[frozenset[str]] = _Through(base.flags, self._below)
        self.modseqs: Sequence[int] = _Modseqs(self, self._below)
        self.details: MessageDetails = _Details(base.details, self)

    @classmethod
    async def load(cls, store: Store, base: SharedMailbox, view: View) -> ViewedMailbox:
        """Read a view of a mailbox that is up to date. Raises StoreError."""
        made = cls(store, base, view)
        until = made.highest_modseq = base.highest_modseq

        def work(unit: UnitOfWork) -> None:
            # Made in the thread that reads: there is a look at every message. The mailbox below may grow meanwhile.
            made._enter(unit.views.standing(base.id, view, until=until))
            made.uid_next = unit.views.last_uid(base.id, view, until=until) + 1

        await store.read(work)
        return made

    # --- what is in it ---

    def __len__(self) -> int:
        return len(self.uids)

    def __getitem__(self, index: int, /) -> MessageFlags:
        """The message as it is now, or would be, had it not left."""
        below = self._below[index]
        return MessageFlags(self.uids[index], self.base.flags[below], self.modseqs[index])

    @property
    def present(self) -> int:
        """Messages that are in it now."""
        return self._departures.present

    @property
    def keywords(self) -> Mapping[str, str]:
        """Those of the mailbox: a client may use each here too."""
        return self.base.keywords

    def index_of(self, uid: int) -> int | None:
        """The slot of a UID, also of a message that left; None when no slot has it."""
        return slot_of(self.uids, uid)

    def first_unseen(self) -> int | None:
        r"""The first slot of a message without \Seen that is in it now, or None."""
        found = self._waiting.find(1)
        return None if found < 0 else found

    def changed_since(self, modseq: int, below: int) -> list[int]:
        """Slots smaller than ``below`` of messages in the view whose flags changed after ``modseq``, ascending."""
        if modseq >= self.base.highest_modseq:
            return []
        changed = self.base.changed_since(modseq, len(self._slots))
        return sorted(slot for slot in map(self._slots.__getitem__, changed) if slot != _NONE and slot < below)

    def is_gone(self, index: int) -> bool:
        """Whether the message of the slot has left."""
        return self._departures.is_gone(index)

    def gone_since(self, modseq: int, below: int) -> list[int]:
        """Slots smaller than ``below`` whose messages left after ``modseq``, ascending."""
        return self._departures.since(modseq, below)

    async def vanished(self, since_modseq: int) -> list[int]:
        """UIDs that left after that MODSEQ, ascending. Raises StoreError."""
        until = self.highest_modseq
        return await self._store.read(
            lambda unit: unit.views.vanished(self.id, self.view, since=since_modseq, until=until)
        )

    # --- the mailbox below ---

    def stored(self, uids: Iterable[int]) -> list[int]:
        """The UIDs in the mailbox below of these UIDs here, in their order. Raises NotFoundError."""
        slots = list(map(self.index_of, uids))
        if None in slots:
            raise NotFoundError("No such message")
        return [self.base.uids[self._below[slot]] for slot in slots if slot is not None]

    def shown(self, stored: Iterable[int]) -> list[int]:
        """The UIDs here of those of these messages of the mailbox below that are in the view now."""
        indexes = [index for index in map(self.base.index_of, stored) if index is not None]
        return [self.uids[slot] for slot in map(self.slot_of, indexes) if slot is not None]

    def slot_of(self, below: int) -> int | None:
        """The slot of the message in that slot of the mailbox below, when it is in the view now."""
        slot = self._slots[below] if below < len(self._slots) else _NONE
        return None if slot == _NONE else slot

    def slots_below(self, indexes: Iterable[int]) -> list[int]:
        """The slots in the mailbox below."""
        return [self._below[index] for index in indexes]

    # --- news ---

    async def refresh(self) -> None:
        """Take over everything committed before this call began. Raises StoreError."""
        await self._read()

    async def _read_all(self) -> None:
        await self.base.refresh()
        await self._read_news()

    async def _read_news(self) -> None:
        base, since, after = self.base, self.highest_modseq, self.uid_next - 1
        until = base.highest_modseq
        if until == since:
            return

        def work(unit: UnitOfWork) -> tuple[ViewColumns, list[tuple[int, int]]]:
            entered = unit.views.entered(self.id, self.view, after_uid=after, until=until)
            return entered, unit.views.left(self.id, self.view, since=since, until=until)

        entered, left = await self._store.read(work)
        self._enter(entered)
        self._leave(left)
        for slot in self.changed_since(since, len(self.uids)):
            self._count(slot)
        if entered.uids:
            self.uid_next = entered.uids[-1] + 1
        self.highest_modseq = until

    def _enter(self, columns: ViewColumns) -> None:
        """Give a slot to each message."""
        below, first = self._find(columns.of_uids), len(self.uids)
        flags = self.base.flags
        self._slots.extend(array("i", [_NONE]) * (len(self.base.uids) - len(self._slots)))
        for slot, index in enumerate(below, first):
            self._slots[index] = slot
        waiting = bytes(SEEN not in flags[index] for index in below)
        self.unseen += waiting.count(1)
        self._waiting.extend(waiting)
        self._departures.came(len(below))
        self._below.extend(below)
        self.uids.extend(columns.uids)

    def _find(self, of_uids: array[int]) -> array[int]:
        """The slots in the mailbox below. Raises StoreError."""
        base = self.base
        if len(of_uids) > len(base.uids) // 16:
            known = {uid: index for index, uid in enumerate(base.uids)}
            found = list(map(known.get, of_uids))
        else:
            found = list(map(base.index_of, of_uids))
        below = array("I", [index for index in found if index is not None])
        if len(below) != len(of_uids):
            raise StoreError("a view holds a message that its mailbox does not have")
        return below

    def _leave(self, left: list[tuple[int, int]]) -> None:
        for modseq, uid in left:
            slot = self.index_of(uid)
            if slot is None or not self._departures.left(slot, modseq):
                continue
            below = self._below[slot]
            if self._slots[below] == slot:
                self._slots[below] = _NONE
            self._count(slot)

    def _count(self, slot: int) -> None:
        r"""Count the message among those without \Seen, or not any more."""
        waits = not self.is_gone(slot) and SEEN not in self.base.flags[self._below[slot]]
        self.unseen += waits - self._waiting[slot]
        self._waiting[slot] = waits


class _Details:
    """Sizes and dates of the mailbox below, by slot of the view."""

    def __init__(self, details: MessageDetails, view: ViewedMailbox) -> None:
        self._details = details
        self._view = view

    async def need(self, indexes: Iterable[int]) -> None:
        """Read what is not known yet of these messages. Raises StoreError."""
        await self._details.need(self._view.slots_below(indexes))

    async def total_size(self, count: int) -> int:
        """Octets of all messages that are in the view, or that came into it meanwhile. Raises StoreError."""
        view = self._view
        present = [slot for slot in range(len(view)) if not view.is_gone(slot)][: max(count, view.present)]
        await self.need(present)
        return sum(map(self.size_bytes, present))

    async def message_ids(self, indexes: Sequence[int]) -> list[str]:
        """The store's ids of these messages, in their order. Raises StoreError."""
        return await self._details.message_ids(self._view.slots_below(indexes))

    async def uids_of(self, message_id: str) -> list[int]:
        """The UIDs under which a message of the store is in this view; empty when it is not. Raises StoreError."""
        view = self._view
        below = [view.base.index_of(uid) for uid in await self._details.uids_of(message_id)]
        slots = [view.slot_of(index) for index in below if index is not None]
        return [view.uids[slot] for slot in slots if slot is not None]

    def size_bytes(self, index: int) -> int:
        """Octets of the message."""
        return self._details.size_bytes(self._below(index))

    def internal_date(self, index: int) -> datetime:
        """When it was filed."""
        return self._details.internal_date(self._below(index))

    def internal_microseconds(self, index: int) -> int:
        """The same in microseconds since 1970 in UTC."""
        return self._details.internal_microseconds(self._below(index))

    def sent_microseconds(self, index: int) -> int | None:
        """The moment of its Date field, likewise; None when it has none that can be read."""
        return self._details.sent_microseconds(self._below(index))

    def _below(self, index: int) -> int:
        return self._view.slots_below((index,))[0]
