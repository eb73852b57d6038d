"""Values that travel with a message between the rooms."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Source(StrEnum):
    """Where the raw bytes came from."""

    SMTP = "smtp"
    IMAP = "imap"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Envelope:
    """The SMTP envelope.

    ``mail_from`` is the reverse path: an address, ``""`` for the null sender, and ``None`` when there was no
    envelope (a message that was fetched, AS-46). ``recipients`` are the forward paths as given.
    """

    mail_from: str | None
    recipients: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Inbound:
    """Raw bytes as they arrived, with their envelope."""

    raw: bytes
    envelope: Envelope
    source: Source
    peer: str = ""
    """Network address of the client, for the audit log."""
