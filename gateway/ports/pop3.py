"""What the store remembers of POP3 clients."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Protocol


class POP3Rows(Protocol):
    """Which messages an account's POP3 clients have deleted from their listing, and from nowhere else. Append-only."""

    def hidden(self, account_id: int, mailbox_id: int) -> list[tuple[int, int]]:
        """The first and the last UID of every run that is hidden now, ascending; no two overlap."""
        ...

    def hide(self, account_id: int, mailbox_id: int, uids: Iterable[int], at: datetime) -> int:
        """Hide messages of the mailbox; returns how many were not hidden before."""
        ...

    def restore(self, account_id: int, at: datetime, actor: str) -> int:
        """Show everything again; returns how many messages were hidden. A no-op when none was."""
        ...
