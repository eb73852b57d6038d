"""Sent mail: what mail clients put here themselves, and where it is kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class KeptMessage:
    """A message that a mail client put here. Nobody has verified what it says of itself."""

    message_id: str
    login: str
    """Of the account that put it here."""
    claimed_sender: str
    """The address of its From; empty when it has none that can be read."""
    subject: str
    rfc822_message_id: str


@dataclass(frozen=True, slots=True)
class LackingSent:
    """An account that sees an INBOX and never had a folder for what it sends."""

    account_id: int
    inbox_id: int
    rights: str
    """On the INBOX."""


class KeptRows(Protocol):
    """Mailboxes of sent mail, and the messages in them. Append-only."""

    def sent_of(self, inbox_id: int) -> int | None:
        """The mailbox of what is sent from that INBOX, or None while there is none."""
        ...

    def inbox_of(self, mailbox_id: int) -> int | None:
        """The INBOX whose sent mail the mailbox keeps; None for any other mailbox."""
        ...

    def make_sent(self, inbox_id: int, at: datetime) -> int:
        """The same as ``sent_of``, made when it is not there. Raises NotFoundError: no such INBOX."""
        ...

    def lacking(self) -> list[LackingSent]:
        """The accounts that see an INBOX and never had a folder ``Sent``, whatever it held, by id."""
        ...

    def find(self, mailbox_id: int, sha256: str) -> int | None:
        """The UID under which the mailbox has those very bytes, or None."""
        ...

    def add(self, message_id: str, account_id: int, *, sender: str, subject: str, rfc822_message_id: str) -> None:
        """Write down who put the message here and what it says of itself. Its raw row must be there."""
        ...

    def get(self, message_id: str) -> KeptMessage | None:
        """What is known of a message that was put here; None for one that was received."""
        ...
