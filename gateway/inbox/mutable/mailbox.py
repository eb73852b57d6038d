r"""One mailbox in memory that loses messages: a :class:`gateway.inbox.shared_mailbox.SharedMailbox`.

Guarantees: a slot is given to one message and never to another one; UIDs ascend; each change has a MODSEQ above all
earlier ones. Everything is changed in one step of the event loop, so nobody sees half of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from gateway.inbox.filed_details import microseconds
from gateway.inbox.flags import SEEN, USUAL_KEYWORDS
from gateway.inbox.shared_mailbox import MessageFlags
from gateway.inbox.slots import slot_of
from gateway.ports import IndexedMessage


@dataclass(frozen=True, slots=True)
class MemoryMessage:
    """A message as it was put in. ``id`` is the same for its copies."""

    id: str
    content: bytes
    indexed: IndexedMessage
    internal_date: datetime


class MemoryDetails:
    """What never changes of the messages: a :class:`gateway.inbox.shared_mailbox.MessageDetails`."""

    def __init__(self, mailbox: MemoryMailbox) -> None:
        self._mailbox = mailbox
        self._messages = mailbox.messages

    async def need(self, indexes: Iterable[int]) -> None:
        """Everything is known."""

    async def total_size(self, count: int) -> int:
        """Octets of the messages of the first ``count`` slots, of those that left as well."""
        return sum(message.indexed.size_bytes for message in self._messages[:count])

    async def message_ids(self, indexes: Sequence[int]) -> list[str]:
        """The ids of these messages, in their order."""
        return [self._messages[index].id for index in indexes]

    async def uids_of(self, message_id: str) -> list[int]:
        """The UIDs under which the message is in this mailbox now."""
        mailbox = self._mailbox
        slots = (slot for slot, message in enumerate(self._messages) if message.id == message_id)
        return [mailbox.uids[slot] for slot in slots if not mailbox.is_gone(slot)]

    def size_bytes(self, index: int) -> int:
        """Octets of the message."""
        return self._messages[index].indexed.size_bytes

    def internal_date(self, index: int) -> datetime:
        """When it was filed, or was said to be."""
        return self._messages[index].internal_date

    def internal_microseconds(self, index: int) -> int:
        """The same in microseconds since 1970 in UTC."""
        return microseconds(self._messages[index].internal_date)

    def sent_microseconds(self, index: int) -> int | None:
        """The moment of its Date field, likewise; None when it has none that can be read."""
        sent = self._messages[index].indexed.sent_at
        return None if sent is None else microseconds(sent)


class MemoryMailbox:
    """See the module's docstring. ``number`` is for hints, as the id of a mailbox of the store."""

    loses: ClassVar[bool] = True
    seen_by: ClassVar[int | None] = None

    def __init__(self, number: int) -> None:
        self.id = number
        # Mailboxes are numbered in the order of their making, so one that is made anew under a name has a higher one.
        self.uid_validity = number
        self.uid_next = 1
        self.highest_modseq = 1
        self.uids: list[int] = []
        self.flags: list[frozenset[str]] = []
        self.modseqs: list[int] = []
        self.messages: list[MemoryMessage] = []
        self.keywords: dict[str, str] = {keyword.lower(): keyword for keyword in USUAL_KEYWORDS}
        self.details = MemoryDetails(self)
        self._left: dict[int, int] = {}
        """By slot: the MODSEQ of the leaving."""

    # --- looking ---

    def __len__(self) -> int:
        return len(self.uids)

    def __getitem__(self, index: int, /) -> MessageFlags:
        return MessageFlags(self.uids[index], self.flags[index], self.modseqs[index])

    @property
    def present(self) -> int:
        """Messages that are in it now."""
        return len(self.uids) - len(self._left)

    @property
    def unseen(self) -> int:
        r"""Messages without \Seen that are in it now."""
        return sum(SEEN not in self.flags[slot] for slot in self.slots())

    def slots(self) -> list[int]:
        """The slots of the messages that are in it now."""
        return [slot for slot in range(len(self.uids)) if slot not in self._left]

    async def refresh(self) -> None:
        """It is always as it is."""

    def index_of(self, uid: int) -> int | None:
        """The slot of a UID, also of a message that left."""
        return slot_of(self.uids, uid)

    def present_slots(self, uids: Iterable[int]) -> list[int]:
        """The slots of those of the UIDs that are in it now."""
        slots = (self.index_of(uid) for uid in uids)
        return [slot for slot in slots if slot is not None and slot not in self._left]

    def first_unseen(self) -> int | None:
        r"""The first slot of a message without \Seen that is in it now."""
        return next((slot for slot in self.slots() if SEEN not in self.flags[slot]), None)

    def changed_since(self, modseq: int, below: int) -> list[int]:
        """Slots whose flags changed after ``modseq``, ascending."""
        return [slot for slot in range(below) if self.modseqs[slot] > modseq]

    def is_gone(self, index: int) -> bool:
        """Whether the message of the slot has left."""
        return index in self._left

    def gone_since(self, modseq: int, below: int) -> list[int]:
        """Slots whose messages left after ``modseq``, ascending."""
        return sorted(slot for slot, left in self._left.items() if left > modseq and slot < below)

    async def vanished(self, since_modseq: int) -> list[int]:
        """UIDs that left after that MODSEQ, ascending."""
        return [self.uids[slot] for slot in self.gone_since(since_modseq, len(self.uids))]

    # --- changing ---

    def add(self, message: MemoryMessage, flags: frozenset[str]) -> int:
        """Put a message in; its UID."""
        uid, self.uid_next = self.uid_next, self.uid_next + 1
        self.highest_modseq += 1
        self.uids.append(uid)
        self.flags.append(frozenset())
        self.modseqs.append(self.highest_modseq)
        self.messages.append(message)
        self._put(len(self.uids) - 1, flags)
        return uid

    def set_flags(self, flags: Mapping[int, frozenset[str]]) -> None:
        """Replace the flags of those slots; they have one MODSEQ together."""
        if flags:
            self.highest_modseq += 1
        for slot, wanted in flags.items():
            self._put(slot, wanted)

    def _put(self, slot: int, flags: frozenset[str]) -> None:
        self.flags[slot] = flags
        self.modseqs[slot] = self.highest_modseq
        self.keywords |= {
            flag.lower(): flag for flag in flags if flag[:1] != "\\" and flag.lower() not in self.keywords
        }

    def remove(self, slots: Sequence[int]) -> list[int]:
        """Let messages leave, which are in it; their UIDs."""
        if slots:
            self.highest_modseq += 1
        for slot in slots:
            self._left[slot] = self.highest_modseq
        return [self.uids[slot] for slot in slots]
