"""Bounds the memory of the steps: how many bytes of messages they hold at the same time.

A step holds a message as a whole while it judges, indexes or imports it. Four large ones at once would need as many
times the memory of one, so each step passes this gate with the size of its message first: large ones go one after
another, in the order in which they came, and small ones pass by without waiting.

Guarantees: at most ``at_once_bytes`` of messages above ``small_bytes`` are inside, or one message when that is larger
than all of it. Whoever waits first enters first, so no message starves. A waiter that is cancelled leaves the queue.

Failure modes: none. All calls are made on one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

SMALL_BYTES = 256 * 1024
AT_ONCE_BYTES = 8 * 1024 * 1024


class ByteGate:
    """One gate for all steps of a process."""

    def __init__(self, *, small_bytes: int = SMALL_BYTES, at_once_bytes: int = AT_ONCE_BYTES) -> None:
        self._small = small_bytes
        self._at_once = at_once_bytes
        self._inside = 0
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._on_wait: Callable[[], None] | None = None

    @property
    def waiting(self) -> int:
        """How many steps wait. They hold no message yet."""
        return len(self._queue)

    def passes(self, size_bytes: int) -> bool:
        """Whether a message of that size never waits here."""
        return size_bytes <= self._small

    def on_wait(self, tell: Callable[[], None]) -> None:
        """Whom to tell when a step begins to wait: others may work meanwhile."""
        self._on_wait = tell

    @asynccontextmanager
    async def hold(self, size_bytes: int) -> AsyncIterator[None]:
        """Wait for room, and hold it while the body of the ``async with`` runs."""
        if self.passes(size_bytes):
            yield
            return
        weight = min(size_bytes, self._at_once)
        await self._enter(weight)
        try:
            yield
        finally:
            self._inside -= weight
            self._admit()

    async def _enter(self, weight: int) -> None:
        if not self._queue and self._inside + weight <= self._at_once:
            self._inside += weight
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (weight, turn)
        self._queue.append(entry)
        if self._on_wait is not None:
            self._on_wait()
        try:
            await turn
        except asyncio.CancelledError:
            with suppress(ValueError):
                self._queue.remove(entry)
            if turn.done() and not turn.cancelled():
                # It was let in and cancelled in the same moment.
                self._inside -= weight
            self._admit()
            raise

    def _admit(self) -> None:
        while self._queue and self._inside + self._queue[0][0] <= self._at_once:
            weight, turn = self._queue.popleft()
            if not turn.done():
                self._inside += weight
                turn.set_result(None)
