"""Size and dates of the messages of a mailbox in memory, read from the store when a mail client first asks for them.

To select a mailbox nobody needs them, and most clients then ask for those of the newest messages only. They never
change, so what was read is kept: 24 bytes a message, in columns.

Guarantees: a value is only given out for a message whose row was read; :meth:`FiledDetails.need` comes first. What is
read at a time is bounded, and the event loop is free meanwhile.

Failure modes: StoreError where a listed message has no row, or the store cannot answer; what was read before stays.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import partial

from gateway.core.errors import StoreError
from gateway.ports import Store, UnitOfWork

PAGE = 256
"""Messages that are read together when one of them is asked for."""
READ_AT_ONCE = 8_192
"""Messages in one read, when so many in a row are asked for."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_UNKNOWN = -1
_NEVER = -(2**63)


class FiledDetails:
    """By index of the message. ``uids`` is the column of the mailbox, which grows."""

    def __init__(self, store: Store, mailbox_id: int, uids: array[int]) -> None:
        self._store = store
        self._mailbox_id = mailbox_id
        self._uids = uids
        self._lock = asyncio.Lock()
        self._sizes = array("q")
        self._internal = array("q")
        self._sent = array("q")
        self._counted = 0
        self._total = 0

    async def need(self, indexes: Iterable[int]) -> None:
        """Read what is not known yet of these messages. Raises StoreError."""
        wanted = list(indexes)
        if not self._unknown_runs(wanted):
            return
        async with self._lock:
            # Another session may have read them meanwhile.
            for run in self._unknown_runs(wanted):
                uids = self._uids[run.start : run.stop]
                found = await self._store.read(partial(self._read, uids))
                for column, values in zip((self._sizes, self._internal, self._sent), found, strict=True):
                    column[run.start : run.stop] = values

    def _unknown_runs(self, indexes: list[int]) -> list[range]:
        """What is to be read for them: pages, without what is known at their ends, joined where they touch."""
        sizes, runs = self._sizes, list[range]()
        fresh = array("q", [_UNKNOWN]) * (len(self._uids) - len(sizes))
        for column in (sizes, self._internal, self._sent):
            column.extend(fresh)
        for page in sorted({index // PAGE for index in indexes if sizes[index] == _UNKNOWN}):
            stop = min((page + 1) * PAGE, len(sizes))
            unknown = [index for index in range(page * PAGE, stop) if sizes[index] == _UNKNOWN]
            first, stop = unknown[0], unknown[-1] + 1
            if runs and runs[-1].stop == first and stop - runs[-1].start <= READ_AT_ONCE:
                runs[-1] = range(runs[-1].start, stop)
            else:
                runs.append(range(first, stop))
        return runs

    def _read(self, uids: array[int], unit: UnitOfWork) -> tuple[array[int], array[int], array[int]]:
        rows = unit.mailboxes.filed(self._mailbox_id, uids[0], uids[-1])
        if [row.uid for row in rows] != uids.tolist():
            raise StoreError("a listed message has no row")
        return (
            array("q", [row.size_bytes for row in rows]),
            array("q", [microseconds(row.internal_date) for row in rows]),
            array("q", [_NEVER if row.sent_at is None else microseconds(row.sent_at) for row in rows]),
        )

    async def total_size(self, count: int) -> int:
        """Octets of the first ``count`` messages, or of some more, when they were counted before. Raises StoreError."""
        async with self._lock:
            if count > self._counted:
                after = self._uids[self._counted - 1] if self._counted else 0
                last = self._uids[count - 1]
                self._total += await self._store.read(
                    lambda unit: unit.mailboxes.size_bytes(self._mailbox_id, after, last)
                )
                self._counted = count
            return self._total

    async def message_ids(self, indexes: Sequence[int]) -> list[str]:
        """The store's ids of these messages, in their order; they are not kept, since few ask. Raises StoreError."""
        uids = [self._uids[index] for index in indexes]
        found = await self._store.read(lambda unit: unit.mailboxes.message_ids(self._mailbox_id, uids))
        if len(found) != len(set(uids)):
            raise StoreError("a listed message has no row")
        return [found[uid] for uid in uids]

    async def uids_of(self, message_id: str) -> list[int]:
        """The UIDs of a message of the store in this mailbox. Raises StoreError."""
        return await self._store.read(lambda unit: unit.mailboxes.uids_of(self._mailbox_id, message_id))

    def size_bytes(self, index: int) -> int:
        """Octets of the message."""
        size = self._sizes[index]
        if size == _UNKNOWN:
            raise AssertionError("the row of the message was not read")
        return size

    def internal_date(self, index: int) -> datetime:
        """When it was filed."""
        return _EPOCH + self.internal_microseconds(index) * _MICROSECOND

    def internal_microseconds(self, index: int) -> int:
        """When it was filed, in microseconds since 1970 in UTC."""
        if self._sizes[index] == _UNKNOWN:
            raise AssertionError("the row of the message was not read")
        return self._internal[index]

    def sent_microseconds(self, index: int) -> int | None:
        """The moment of its Date field, in microseconds since 1970 in UTC; None when it has none that can be read."""
        if self._sizes[index] == _UNKNOWN:
            raise AssertionError("the row of the message was not read")
        moment = self._sent[index]
        return None if moment == _NEVER else moment


def day_span(day: date) -> tuple[int, int]:
    """Where the day begins and where it is over, in UTC, in microseconds since 1970."""
    start = microseconds(datetime.combine(day, time(), UTC))
    return start, start + timedelta(days=1) // _MICROSECOND


def microseconds(moment: datetime) -> int:
    """An aware moment in microseconds since 1970 in UTC."""
    return (moment - _EPOCH) // _MICROSECOND
