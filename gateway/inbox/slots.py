"""The slots of a mailbox in memory: which of them has a UID, and what left those of a mailbox that loses messages.

Pure; see :mod:`gateway.inbox.shared_mailbox` for what a slot is.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence


def slot_of(uids: Sequence[int], uid: int) -> int | None:
    """The slot of a UID among these, which ascend with the slots; None when no slot has it."""
    index = bisect_left(uids, uid)
    return index if index < len(uids) and uids[index] == uid else None


class Departures:
    """Which slots are empty since the mailbox is in memory, and at which MODSEQ each became it."""

    __slots__ = ("_gone", "_left")

    def __init__(self) -> None:
        self._gone = bytearray()
        self._left: list[tuple[int, int]] = []
        """MODSEQ and slot, ascending."""

    @property
    def present(self) -> int:
        """Slots whose messages are there."""
        return self._gone.count(0)

    def came(self, count: int) -> None:
        """So many slots more, each with a message."""
        self._gone.extend(bytes(count))

    def left(self, slot: int, modseq: int) -> bool:
        """The message of the slot left, at a MODSEQ not below the earlier ones; False when it had left before."""
        if self._gone[slot]:
            return False
        self._gone[slot] = 1
        self._left.append((modseq, slot))
        return True

    def is_gone(self, slot: int) -> bool:
        """Whether the message of the slot has left."""
        return bool(self._gone[slot])

    def first_present(self) -> int | None:
        """The first slot whose message is there, or None."""
        found = self._gone.find(0)
        return None if found < 0 else found

    def since(self, modseq: int, below: int) -> list[int]:
        """Slots smaller than ``below`` whose messages left after ``modseq``, ascending."""
        start = bisect_right(self._left, (modseq, len(self._gone)))
        return sorted(slot for _, slot in self._left[start:] if slot < below)
