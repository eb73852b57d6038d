"""Values that travel with a message between the rooms."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Protocol

PART_BYTES = 1 << 20
"""A body is kept and handed on in parts of this many bytes; the last one may be shorter."""


class Source(StrEnum):
    """Where the raw bytes came from."""

    SMTP = "smtp"
    IMAP = "imap"
    POP3 = "pop3"
    FILE = "file"
    MAIL_CLIENT = "mail_client"
    """Put here by a mail client of ours (APPEND)."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """The SMTP envelope.

    ``mail_from`` is the reverse path: an address, ``""`` for the null sender, and ``None`` when there was no
    envelope (a message that was fetched, AS-46). ``recipients`` are the forward paths as given.
    """

    mail_from: str | None
    recipients: tuple[str, ...]


class Body(Protocol):
    """Bytes that need not all be in memory. They do not change, and may be read more than once."""

    @property
    def size_bytes(self) -> int: ...

    @property
    def sha256(self) -> str:
        """Hexadecimal, of all bytes."""
        ...

    def parts(self) -> Iterator[bytes]:
        """The bytes in parts of ``PART_BYTES``, the last one shorter; of an empty body one empty part."""
        ...


class MemoryBody:
    """A body that is in memory as a whole."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size_bytes(self) -> int:
        return len(self._data)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self._data).hexdigest()

    def parts(self) -> Iterator[bytes]:
        if len(self._data) <= PART_BYTES:
            yield self._data
            return
        for start in range(0, len(self._data), PART_BYTES):
            yield self._data[start : start + PART_BYTES]


@dataclass(frozen=True, slots=True)
class Inbound:
    """Raw bytes as they arrived, with their envelope."""

    raw: Body
    envelope: Envelope
    source: Source
    peer: str = ""
    """Network address of the client, for the audit log."""
