"""What the sessions that have one mailbox open share: its messages in memory, each at a slot that stays its own.

A slot is an index from 0. It is given to a message when it comes and never to another one, also when the message
leaves, so that what a session remembers of a slot stays true. In a real mailbox of the gateway nothing ever leaves:
there the message number is the slot + 1 and costs nothing. A view (the messages that wait for a patient) loses
messages, and there each session keeps its own list of slots (:mod:`gateway.imap.view`).

Guarantees that every implementation gives: UIDs ascend with the slots; ``uids``, ``flags`` and ``modseqs`` hold a
value for every slot, of a message that left its last one; each change of flags and each leaving has a MODSEQ above all
earlier ones, which ``highest_modseq`` covers when it is seen here; what is there is a state that the store had at one
moment, and never an earlier one than before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol


class MessageFlags(NamedTuple):
    """The flags of one message at one moment, and the MODSEQ that belongs to them."""

    uid: int
    flags: frozenset[str]
    modseq: int


class MessageDetails(Protocol):
    """What never changes of the messages, by slot; :meth:`need` comes before a size or a date is asked for."""

    async def need(self, indexes: Iterable[int]) -> None:
        """Read what is not known yet of these messages. Raises StoreError."""
        ...

    async def total_size(self, count: int) -> int:
        """Octets of the first ``count`` slots, or of some more. Raises StoreError."""
        ...

    async def message_ids(self, indexes: Sequence[int]) -> list[str]:
        """The store's ids of these messages, in their order. Raises StoreError."""
        ...

    async def uids_of(self, message_id: str) -> list[int]:
        """The UIDs under which a message of the store is in this mailbox; empty when it is not. Raises StoreError."""
        ...

    def size_bytes(self, index: int) -> int:
        """Octets of the message."""
        ...

    def internal_date(self, index: int) -> datetime:
        """When it was filed."""
        ...

    def internal_microseconds(self, index: int) -> int:
        """The same in microseconds since 1970 in UTC."""
        ...

    def sent_microseconds(self, index: int) -> int | None:
        """The moment of its Date field, likewise; None when it has none that can be read."""
        ...


class SharedMailbox(Protocol):
    """A mailbox that sessions select. ``index`` is a slot everywhere."""

    @property
    def id(self) -> int:
        """The mailbox of the store: changes of it are announced under this number."""
        ...

    @property
    def seen_by(self) -> int | None:
        r"""The account whose own \Seen is shown. None: the one that all share."""
        ...

    @property
    def uid_validity(self) -> int: ...

    @property
    def uid_next(self) -> int: ...

    @property
    def highest_modseq(self) -> int: ...

    @property
    def uids(self) -> Sequence[int]:
        """By slot, ascending."""
        ...

    @property
    def flags(self) -> Sequence[frozenset[str]]:
        """By slot. Elements are replaced when flags change."""
        ...

    @property
    def modseqs(self) -> Sequence[int]:
        """By slot, of the flags."""
        ...

    @property
    def unseen(self) -> int:
        r"""Messages without \Seen that are in it now."""
        ...

    @property
    def keywords(self) -> Mapping[str, str]:
        """Spelling of every keyword in use, by lower-case form. It only grows."""
        ...

    @property
    def details(self) -> MessageDetails: ...

    @property
    def loses(self) -> bool:
        """Whether messages can ever leave it. It never changes."""
        ...

    @property
    def present(self) -> int:
        """Messages that are in it now."""
        ...

    def __len__(self) -> int:
        """Slots, with those of messages that left."""
        ...

    def __getitem__(self, index: int, /) -> MessageFlags:
        """The message as it is now, or as it was when it left."""
        ...

    async def refresh(self) -> None:
        """Take over everything committed before this call began. Raises StoreError."""
        ...

    def index_of(self, uid: int) -> int | None:
        """The slot of a UID, also of a message that left; None when no slot has it."""
        ...

    def first_unseen(self) -> int | None:
        r"""The first slot of a message without \Seen that is in it now, or None."""
        ...

    def changed_since(self, modseq: int, below: int) -> list[int]:
        """Slots smaller than ``below`` of messages whose flags changed after ``modseq``, ascending."""
        ...

    def is_gone(self, index: int) -> bool:
        """Whether the message of the slot has left."""
        ...

    def gone_since(self, modseq: int, below: int) -> list[int]:
        """Slots smaller than ``below`` whose messages left after ``modseq``, ascending."""
        ...

    async def vanished(self, since_modseq: int) -> list[int]:
        """UIDs that left after that MODSEQ, ascending, from the store: also those that no slot here has.

        It may name more than that when the store does not know so far back, but never one that is in the mailbox.
        Raises StoreError.
        """
        ...
