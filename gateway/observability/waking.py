"""An event that costs next to nothing while nobody waits for it.

``asyncio.Event`` holds a queue of waiters of its own, 860 bytes with it. A connection that waits for a mail client all
day has several events, of which one is ever waited for.
"""

from __future__ import annotations

import asyncio


class SmallEvent:
    """As :class:`asyncio.Event`. It belongs on the event loop."""

    __slots__ = ("_is_set", "_waiting")

    def __init__(self) -> None:
        self._is_set = False
        self._waiting: list[asyncio.Future[None]] | None = None

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Wake everybody who waits; nobody waits from now on."""
        self._is_set = True
        waiting, self._waiting = self._waiting, None
        for future in waiting or ():
            if not future.done():
                future.set_result(None)

    def clear(self) -> None:
        """Let those wait who come from now on."""
        self._is_set = False

    async def wait(self) -> None:
        """Return when it is set; at once, when it is. It may have been cleared again by then."""
        if not self._is_set:
            await self.next()

    def next(self) -> asyncio.Future[None]:
        """Done when it is set the next time. To await this holds less than :meth:`wait` does."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Whoever was cancelled waits no more.
        waiting = [one for one in self._waiting or () if not one.done()]
        waiting.append(future)
        self._waiting = waiting
        return future
