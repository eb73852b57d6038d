"""The quarantine as a mailbox that operators read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from gateway.ports.rows import RefusedMessage


@dataclass(frozen=True, slots=True)
class QuarantineEntry:
    """That a message was refused, as one line of the mailbox."""

    uid: int
    message_id: str
    at: datetime
    """When it was refused."""
    modseq: int


class QuarantineFolderRows(Protocol):
    """Which refused messages have a report, under which UIDs. ``MessageRows.set_state`` keeps it."""

    def mailbox(self) -> int | None:
        """The mailbox of the folder, or None while nobody was given it."""
        ...

    def make(self, at: datetime) -> int:
        """The same, made when it is not there; all that is refused now is in it."""
        ...

    def entries(self, after_uid: int = 0) -> list[QuarantineEntry]:
        """What entered, by ascending UID."""
        ...

    def exits(self, since: int = 0) -> list[tuple[int, int]]:
        """MODSEQ and UID of what left after that MODSEQ, in the order of both."""
        ...

    def reported(self, uids: Sequence[int]) -> dict[int, RefusedMessage]:
        """What the entries report, by UID; also of those that left."""
        ...
