"""What the store remembers of the fields that messages are shown with."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class ShownRows(Protocol):
    """The header fields in front of a message that mail clients read. Append-only; once filed, a message keeps its."""

    def of(self, message_id: str) -> str | None:
        """The fields, each with its CRLF; empty for a message that is shown as it was verified.

        None for one that no mailbox has taken yet: it is still to be decided.
        """
        ...

    def add(self, message_id: str, at: datetime, fields: str, size_bytes: int) -> None:
        """Show the message with these fields from the beginning; ``size_bytes`` is what it has with them.

        To be called in the transaction that files it for the first time. Raises ConflictError when it has some.
        """
        ...
