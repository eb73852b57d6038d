"""How long a session waits for its client: a time-out that is set with every command and costs next to nothing.

``asyncio.timeout`` arms and disarms a timer each time, which is a tenth of what a short command takes. Here one timer
stands for the whole session: when it goes off early, because the client has spoken meanwhile, it is set anew.

Guarantee: who waits longer than he may gets TimeoutError, at the moment that was set and never before; a cancellation
from outside stays one.
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class Patience:
    """An asynchronous context manager, used again and again by one task; not within itself. Close it at the end."""

    __slots__ = ("_before", "_expired", "_loop", "_task", "_timer", "_until", "_waits")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._until = 0.0
        self._waits = False
        self._expired = False
        self._before = 0
        """Cancellations that the task was under already."""

    def until(self, moment: float) -> Patience:
        """Wait until that moment of the loop's clock, in the block that follows."""
        self._until = moment
        return self

    def seconds(self, seconds: float) -> Patience:
        """Wait for so long, in the block that follows."""
        self._until = self._loop.time() + seconds
        return self

    async def __aenter__(self) -> None:
        task = self._task = asyncio.current_task()
        self._before = 0 if task is None else task.cancelling()
        self._waits, self._expired = True, False
        if self._timer is not None and self._timer.when() > self._until:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(self._until, self._look)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waits = False
        task, self._task = self._task, None
        if self._expired and task is not None and task.uncancel() <= self._before and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _look(self) -> None:
        """The timer has gone off."""
        self._timer = None
        if not self._waits or self._task is None:
            return
        if self._loop.time() < self._until:
            self._timer = self._loop.call_at(self._until, self._look)
            return
        self._expired = True
        self._task.cancel()

    def close(self) -> None:
        """The session is over: nothing is left that would hold it in memory."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
