"""One message while it arrives: in memory while it is small, in the spool when it is large.

Guarantees: what a message holds in memory is at most ``above_bytes`` and the pieces of one read, whatever its size;
what all hold together stays within the memory budget, because a message for which there is no room there goes to the
spool early. Writing never blocks the event loop.

Failure modes: when the spool cannot take more, the message is refused for now (the reader's problem says why) and is
read on to its true end; nobody else is touched.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable

from gateway.core.message import Body, MemoryBody
from gateway.ingress.data_reader import DataReader, Problem
from gateway.ingress.limits import Reservation
from gateway.ingress.spool import Spool, SpoolFile

WRITE_BYTES = 128 * 1024
"""Once a message is in the spool, so much is gathered before it is written."""


class ArrivingMessage:
    """Takes over what a reader has gathered.

    Args:
        reader: the message's reader.
        spool: where it goes when it is large.
        memory: the message's share of the memory budget; whoever made it releases it.
        above_bytes: the largest message that is kept in memory.
        has_space_for: whether the disk may take that many bytes more.
    """

    def __init__(
        self,
        reader: DataReader,
        spool: Spool,
        memory: Reservation,
        above_bytes: int,
        has_space_for: Callable[[int], bool],
    ) -> None:
        self._reader = reader
        self._spool = spool
        self._memory = memory
        self._above = above_bytes
        self._has_space_for = has_space_for
        self._file: SpoolFile | None = None
        self._counted = 0

    async def settle(self) -> None:
        """To be called after each piece that the reader was fed. Raises nothing but when cancelled."""
        reader = self._reader
        if reader.problem is not None:
            self._forget()
            return
        waiting = reader.buffered_bytes
        limit = self._above if self._file is None else min(self._above, WRITE_BYTES)
        fits = self._memory.grow(waiting - self._counted)
        if fits:
            self._counted = waiting
        if waiting > limit or not fits:
            await self._spill()

    async def body(self) -> Body | None:
        """The whole message, after the reader has seen its end; None when it is refused."""
        await self.settle()
        if self._file is not None and self._reader.problem is None:
            await self._spill()
        if self._reader.problem is not None:
            self._forget()
            return None
        if self._file is None:
            return MemoryBody(self._reader.take())
        return self._file.finish()

    async def _spill(self) -> None:
        try:
            data = self._reader.take()
            if not self._has_space_for(self._reader.size_bytes):
                raise OSError(errno.ENOSPC, "the floor of free space is reached")  # noqa: TRY301 - one way out
            if self._file is None:
                self._file = self._spool.create()
            await asyncio.to_thread(self._file.write, data)
        except (OSError, MemoryError, RuntimeError) as exc:
            # asyncio tells by a RuntimeError that there is no thread to be had.
            full = isinstance(exc, OSError) and exc.errno in {errno.ENOSPC, errno.EDQUOT}
            self._reader.refuse(Problem.NO_SPACE if full else Problem.FAULT)
            self._forget()
        self._memory.release()
        self._counted = 0

    def _forget(self) -> None:
        self._file = None
        self._memory.release()
        self._counted = 0
