"""What a session has been recorded to have seen of a mailbox, so that one reading is one event of the audit log.

A client fetches the same message in pieces, and the headers of a mailbox again and again. Each message of a mailbox is
recorded once for each session and kind of look; after an hour it is forgotten here, and a look at it is recorded anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from gateway.inbox.service import DELETE_IGNORED, MESSAGE_LISTED, MESSAGE_READ

FORGET_SECONDS = 3600.0
_PAGE = 1024
_NOTHING = bytes(_PAGE)
_BITS = {MESSAGE_LISTED: 1, MESSAGE_READ: 2, DELETE_IGNORED: 4}
_SATISFIED = {**_BITS, MESSAGE_LISTED: _BITS[MESSAGE_LISTED] | _BITS[MESSAGE_READ]}
"""Who has read has listed, too."""


class Readings:
    """One byte a message, by its index in the mailbox, which never changes and is never used again.

    They stand in pages, and only where something was seen: a session that waits for new mail in a large mailbox holds a
    page or two, and not a byte for each message that was there before.
    """

    __slots__ = ("_monotonic", "_pages", "_searched", "_since")

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._since = monotonic()
        self._pages: dict[int, bytearray] = {}
        self._searched = False

    def unrecorded(self, action: str, indexes: Iterable[int]) -> list[int]:
        """Those of the messages that this kind of look, or the attempt to delete, is not recorded of."""
        self._forget()
        wanted = _SATISFIED[action]
        pages = self._pages
        return [index for index in indexes if not pages.get(index // _PAGE, _NOTHING)[index % _PAGE] & wanted]

    def remember(self, action: str, indexes: Iterable[int]) -> None:
        """The look is in the audit log."""
        bit = _BITS[action]
        for index in indexes:
            page = self._pages.get(index // _PAGE)
            if page is None:
                page = self._pages[index // _PAGE] = bytearray(_PAGE)
            page[index % _PAGE] |= bit

    def first_search(self) -> bool:
        """Whether a search that looks at no text is the first one; the next ones of the hour are not."""
        self._forget()
        return not self._searched

    def remember_search(self) -> None:
        """A search is in the audit log."""
        self._searched = True

    def _forget(self) -> None:
        if self._monotonic() - self._since > FORGET_SECONDS:
            self._since = self._monotonic()
            self._pages = {}
            self._searched = False
