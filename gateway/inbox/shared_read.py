"""One read serves everybody who asks for the news of a mailbox at the same time.

Guarantee: whoever asks is served by a read that began after he asked. Failure modes: those of the read; who waited for
one that failed reads himself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class SharedRead:
    """The reads of one mailbox, one after the other. It belongs on the event loop."""

    __slots__ = ("_lock", "_read", "_served", "_tickets")

    def __init__(self, read: Callable[[], Awaitable[None]]) -> None:
        self._read = read
        self._lock = asyncio.Lock()
        self._tickets = 0
        self._served = 0

    async def __call__(self) -> None:
        """Return when a read that began after this call is done. Raises what it raises."""
        self._tickets += 1
        mine = self._tickets
        async with self._lock:
            if self._served >= mine:
                return  # A read that began after this call has covered it.
            covers = self._tickets
            await self._read()
            self._served = covers
