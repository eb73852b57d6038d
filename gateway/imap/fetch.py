r"""FETCH: reads what is asked for in batches and streams the answers.

Guarantees: the bytes of a message leave exactly as they were verified, in literals of exactly that length. A
batch holds at most BATCH_MESSAGES messages and about BATCH_BYTES of content. The next one is read while the client
takes one, and none after it, so a slow client costs two batches of memory. A message larger than a batch is held
alone: to read it takes little beside sending it.
What is read or listed, with PEEK or without, is in the audit log before its first byte is sent: one event for all
messages of the command that this session has not seen yet (ON-10). A body read without PEEK is \Seen by then, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from gateway.core.errors import RefusedError
from gateway.imap.fetch_columns import Batch, Lines, is_header, section_of
from gateway.imap.fetch_items import FetchItem
from gateway.imap.responses import flag_list
from gateway.imap.view import MailboxView
from gateway.inbox.mailbox_service import MailboxReading
from gateway.inbox.service import MESSAGE_LISTED, MESSAGE_READ
from gateway.ports import IndexedMessage
from gateway.serving.connection import SLICE_BYTES, Connection

BATCH_MESSAGES = 256
BATCH_BYTES = 2 * 1024 * 1024
DETAILS_AHEAD = 4_096
"""Messages whose sizes and dates are read at a time: their rows are narrow, and a client waits for each read."""
_INDEXED_ITEMS = frozenset({"ENVELOPE", "BODY", "BODYSTRUCTURE"})
_DETAILS = frozenset({"INTERNALDATE", "RFC822.SIZE"})


@dataclass(frozen=True, slots=True)
class FetchPlan:
    """What a FETCH needs to read. Make it with :meth:`of`."""

    items: tuple[FetchItem, ...]
    needs_index: bool
    needs_content: bool
    needs_headers: bool
    """Whether nothing but headers is shown of the messages themselves, all with PEEK."""
    needs_details: bool
    """Whether sizes or dates are shown."""
    needs_ids: bool
    reads_body: bool
    """Whether a body is read without PEEK."""
    shows: str
    """The action that the audit log records: bodies read, or headers listed; empty when neither is shown."""
    in_pieces: bool
    """Whether every body is read in part only; then the rest will be asked for soon."""

    @property
    def reads(self) -> bool:
        """Whether the store is read for each message."""
        return self.needs_index or self.needs_content or self.needs_headers or self.needs_ids

    @classmethod
    def of(cls, items: Sequence[FetchItem], *, uid: bool, modseq: bool) -> FetchPlan:
        """Plan the items, with those added that the command's form implies (UID FETCH, CHANGEDSINCE)."""
        planned = list(items)
        names = {item.name for item in items}
        if uid and "UID" not in names:
            planned.insert(0, FetchItem("UID", b"UID"))
        if modseq and "MODSEQ" not in names:
            planned.append(FetchItem("MODSEQ", b"MODSEQ"))
        sections = [item for item in items if item.name == "SECTION"]
        headers_only = bool(sections) and all(is_header(item) and item.peek for item in sections)
        return cls(
            tuple(planned),
            needs_index=bool(names & _INDEXED_ITEMS)
            or (not headers_only and any(item.path or item.kind for item in sections)),
            needs_content=bool(sections) and not headers_only,
            needs_headers=headers_only,
            needs_details=bool(names & _DETAILS),
            needs_ids="EMAILID" in names,
            reads_body=any(not item.peek for item in sections),
            shows=_shown(planned),
            in_pieces=bool(sections) and all(item.partial is not None for item in sections),
        )


def _shown(items: Sequence[FetchItem]) -> str:
    """What the items show. The headers of the message itself are a list; everything below them is the message."""
    sections = [item for item in items if item.name == "SECTION"]
    if any(not item.peek or item.path or not item.kind.startswith("HEADER") for item in sections):
        return MESSAGE_READ
    return MESSAGE_LISTED if sections or any(item.name in _INDEXED_ITEMS for item in items) else ""


class Fetcher:
    """Answers one FETCH command."""

    def __init__(self, connection: Connection, inbox: MailboxReading, view: MailboxView, plan: FetchPlan) -> None:
        self._connection = connection
        self._inbox = inbox
        self._view = view
        self._mailbox = view.mailbox
        self._details = view.mailbox.details
        self._plan = plan
        self.missing = 0
        """Messages that were left out, because they have left."""
        self._lines = Lines(view, plan.items)
        self._unrecorded: list[int] = []
        """Indexes that are still to be recorded with the first batch."""

    async def send(self, indexes: Iterable[int]) -> None:
        """Send the answers for these messages. Raises StoreError, ConnectionClosedError."""
        wanted, plan, view = list(indexes), self._plan, self._view
        if plan.shows:
            self._unrecorded = view.readings.unrecorded(plan.shows, wanted)
        if self._unrecorded and not plan.reads_body:
            uids = [self._mailbox.uids[index] for index in self._unrecorded]
            await self._inbox.record(view.grant, plan.shows, uids, {"peek": True})
            self._recorded()
        # An index row can be as large as the text of its message, so it weighs the same. One message is always a batch.
        weighs = (plan.needs_content or plan.needs_index or plan.needs_headers) and len(wanted) > 1
        reading: asyncio.Future[Batch] | None = None
        try:
            async with aclosing(self._planned(wanted, weighs=weighs)) as planned:
                was_large = False
                async for batch in planned:
                    if not plan.reads:
                        await self._send_batch(await self._read(batch))
                        continue
                    # The store is read while the client takes what was read before; one read at a time, because two
                    # of them only take the interpreter from each other.
                    made = None if reading is None else await reading
                    is_large = weighs and self._details.size_bytes(batch[0]) > BATCH_BYTES
                    if made is not None and (is_large or was_large):
                        reading = None
                        await self._send_batch(made)
                        made = None
                    reading, was_large = asyncio.ensure_future(self._read(batch)), is_large
                    if made is not None:
                        await self._send_batch(made)
            if reading is not None:
                await self._send_batch(await reading)
        finally:
            if reading is not None:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def _planned(self, wanted: Sequence[int], *, weighs: bool) -> AsyncGenerator[list[int], None]:
        """The batches, with their sizes and dates read where they count."""
        for start in range(0, len(wanted), DETAILS_AHEAD):
            part = wanted[start : start + DETAILS_AHEAD]
            if weighs or self._plan.needs_details:
                await self._details.need(part)
            for batch in self._batches(part, weighs=weighs):
                yield batch

    def _batches(self, indexes: Iterable[int], *, weighs: bool) -> Iterator[list[int]]:
        details = self._details
        batch: list[int] = []
        weight = 0
        for index in indexes:
            size = details.size_bytes(index) if weighs else 0
            if batch and (len(batch) >= BATCH_MESSAGES or weight + size > BATCH_BYTES):
                yield batch
                batch, weight = [], 0
            batch.append(index)
            weight += size
        if batch:
            yield batch

    def _recorded(self) -> None:
        self._view.readings.remember(self._plan.shows, self._unrecorded)
        self._unrecorded = []

    async def _send_batch(self, batch: Batch) -> None:
        plan = self._plan
        # A client takes its time over a large answer, and the right may be taken away meanwhile.
        if await self._inbox.in_force(self._view.grant) is None:
            raise RefusedError("The right to read this mailbox was taken away")
        newly_seen = await self._mark_read(batch.indexes, batch.uids) if plan.reads_body else set()
        self._leave_out_missing(batch)
        if newly_seen or any(len(content) >= SLICE_BYTES for content in batch.contents.values()):
            for index, uid in zip(batch.indexes, batch.uids, strict=True):
                await self._send_one(index, uid, batch, newly_seen=uid in newly_seen)
                await self._connection.flush_when_full()
        else:
            queued, connection = 0, self._connection
            self._tell_keywords()
            for line in self._lines.of(batch):
                connection.queue(line)
                queued += len(line)
                if queued >= SLICE_BYTES:
                    await connection.flush()
                    self._tell_keywords()
                    queued = 0
        await self._connection.flush()

    async def _read(self, indexes: list[int]) -> Batch:
        mailbox, plan = self._mailbox, self._plan
        uids = [mailbox.uids[index] for index in indexes]
        batch = Batch(indexes, uids)
        if plan.needs_index:
            batch.indexed = await self._inbox.indexed(mailbox, uids)
        if plan.needs_content:
            batch.contents = await self._inbox.contents(mailbox, uids, keep=plan.in_pieces)
        if plan.needs_headers:
            batch.headers = await self._inbox.headers(mailbox, uids)
        if plan.needs_ids:
            batch.ids = dict(zip(uids, await self._details.message_ids(indexes), strict=True))
        return batch

    def _leave_out_missing(self, batch: Batch) -> None:
        """Only of a message that has left can nothing be had (RFC 2180 4.1): else that is an error."""
        plan = self._plan
        needed = [
            rows
            for rows, is_needed in (
                (batch.indexed, plan.needs_index),
                (batch.contents, plan.needs_content),
                (batch.headers, plan.needs_headers),
            )
            if is_needed
        ]
        if all(len(rows) == len(batch.uids) for rows in needed):
            return
        here = [
            (index, uid)
            for index, uid in zip(batch.indexes, batch.uids, strict=True)
            if all(uid in rows for rows in needed)
        ]
        self.missing += len(batch.uids) - len(here)
        batch.indexes, batch.uids = [index for index, _ in here], [uid for _, uid in here]

    async def _mark_read(self, batch: Sequence[int], uids: Sequence[int]) -> set[int]:
        r"""Audit the reading and set \Seen; returns the UIDs whose flags this command reports."""
        view, mailbox = self._view, self._mailbox
        audit = [mailbox.uids[index] for index in self._unrecorded]
        before = {uid: flags for uid in uids if (flags := self._flags(uid)) is not None}
        here = [uid for index, uid in zip(batch, uids, strict=True) if not mailbox.is_gone(index)]
        await self._inbox.mark_read(view.grant, here, set_seen=view.may_set_seen, audit=audit)
        self._recorded()
        changed = {uid for uid in uids if self._flags(uid) is not before.get(uid)}
        for uid in changed:
            index = mailbox.index_of(uid)
            if index is not None:
                view.told[index] = mailbox.modseqs[index]
        return changed

    def _tell_keywords(self) -> None:
        """A keyword that somebody else has set meanwhile is listed (RFC 3501 7.2.6) before a message shows it."""
        for response in self._view.new_keywords():
            self._connection.queue(response)

    def _flags(self, uid: int) -> frozenset[str] | None:
        index = self._mailbox.index_of(uid)
        return None if index is None else self._mailbox.flags[index]

    async def _send_one(self, index: int, uid: int, batch: Batch, *, newly_seen: bool) -> None:
        """One message with its bytes, of which some are too many for a line."""
        connection, items = self._connection, self._plan.items
        one = Batch([index], [uid], batch.indexed, batch.contents, batch.headers, batch.ids)
        self._tell_keywords()
        # Taken before a section is waited for: flags must never leave with the MODSEQ that later ones have.
        values = iter(self._lines.plain(one))
        flags = self._view.message(index).flags
        connection.queue(b"* %d FETCH (" % self._view.number(index))
        for position, item in enumerate(items):
            if position:
                connection.queue(b" ")
            if item.name == "SECTION":
                await self._send_section(item, batch.indexed.get(uid), batch.contents[uid])
            else:
                connection.queue(next(values))
        if newly_seen and all(item.name != "FLAGS" for item in items):
            connection.queue(b" FLAGS " + flag_list(flags))
        connection.queue(b")\r\n")

    async def _send_section(self, item: FetchItem, row: IndexedMessage | None, content: bytes) -> None:
        connection = self._connection
        found = section_of(item, row, content)
        if found is None:
            connection.queue(item.label + b" NIL")
            return
        if item.partial is not None:
            start, count = item.partial
            found = found[start : start + count]
        connection.queue(item.label + b" {%d}\r\n" % len(found))
        if len(found) < SLICE_BYTES:
            connection.queue(found)
        else:
            await connection.send_large(found)
