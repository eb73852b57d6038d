"""What an upstream mailbox is to the rest of fetching, whichever protocol it speaks.

A session belongs to one task. Every method is bounded in time and in bytes; one that raises an UpstreamError has left
the session unusable, and the caller closes it. ItemError and ItemGoneError concern one message; the session is sound.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.core.fetching import FetchPlace, UpstreamError
from gateway.core.message import Source

CONNECT_SECONDS = 30.0
COMMAND_SECONDS = 60.0
"""For an answer that is not a message."""
SILENCE_SECONDS = 60.0
"""A server that sends nothing for so long in the middle of an answer has gone."""
BYTES_PER_SECOND = 16_384
"""A message may take so long by its size, and one command's time on top."""
LISTING_BYTES = 16 << 20
"""The longest list of ids: more than a million."""
LISTING_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Found:
    """What a look at the mailbox found."""

    uids: tuple[str, ...]
    """Ids that may be new, in the order in which they are to be fetched. Some may be known already."""
    mark: int
    """Once all of them are dealt with, every id up to this one is."""
    rising: bool
    """Whether the mark may rise with each of them, because none below it is left out."""
    whole: bool = False
    """Whether they are all that the mailbox holds. An id that is not among them may come back for another message."""


class OversizeError(UpstreamError):
    """The server sends more than was allowed; the rest of it is never read, so the connection is of no use any more."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__("oversize", "the server sent more than was allowed")
        self.size_bytes = size_bytes
        """As announced, or as much as had come."""


class Upstream(Protocol):
    """One session, logged in."""

    source: Source
    peer: str
    """Network address of the server."""

    @property
    def deletes(self) -> bool:
        """Whether ``mark`` deletes. Then only what this very session has handed out may be given to it."""
        ...

    async def open(self) -> tuple[str, int | None]:
        """Open the mailbox.

        Returns:
            Its UIDVALIDITY ("" where there is none), and the id that the next message will get at least, if known.
        """
        ...

    async def look(self, place: FetchPlace, *, thorough: bool) -> Found:
        """Find messages beyond the mark of the place; ``thorough``: and those below it that do not bear our mark."""
        ...

    async def sizes(self, uids: Sequence[str]) -> dict[str, int]:
        """Sizes in bytes as the server tells them; ids that are not there are left out. At most 100 ids."""
        ...

    async def download(self, uid: str, limit: int) -> bytes:
        """The message.

        Raises:
            ItemError: it cannot be had.
            ItemGoneError: it is not there any more.
            OversizeError: it is larger than ``limit`` bytes.
        """
        ...

    async def mark(self, uids: Sequence[str]) -> Sequence[str]:
        """Do upstream what the settings say about messages that were taken.

        Returns:
            Those about which nothing is left to do, ids that are not there any more among them.

        Raises:
            UpstreamError: it cannot be done. With the cause ``mark`` the session is sound.
        """
        ...

    @property
    def listens(self) -> bool:
        """Whether ``wait`` hears of new mail. A session that does not is closed between two looks."""
        ...

    async def wait(self, seconds: float, wake: asyncio.Event) -> None:
        """Return when there may be new mail, when woken, or after the time."""
        ...

    async def close(self) -> None:
        """Say goodbye when that is possible, and end the connection. Raises nothing."""
        ...


def download_seconds(size_bytes: int) -> float:
    """How long a message may take."""
    return COMMAND_SECONDS + size_bytes / BYTES_PER_SECOND
