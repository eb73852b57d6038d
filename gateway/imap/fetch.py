r"""FETCH: reads what is asked for in batches and streams the answers.

Guarantees: the bytes of a message leave exactly as they were verified, in literals of exactly that length. A
batch holds at most BATCH_MESSAGES messages and about BATCH_BYTES of content, and the next one is not read before
the client has taken the last, so a slow client costs one batch of memory (one message, when that is larger).
A body read without PEEK is \Seen and in the audit log before its first byte is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from gateway.imap.connection import SLICE_BYTES, Connection
from gateway.imap.fetch_items import FetchItem
from gateway.imap.responses import flag_list, internal_date
from gateway.imap.view import MailboxView
from gateway.inbox.sections import section
from gateway.inbox.service import Inbox
from gateway.ports import IndexedMessage, MailboxEntry

BATCH_MESSAGES = 256
BATCH_BYTES = 4 * 1024 * 1024
_INDEXED_ITEMS = frozenset({"ENVELOPE", "BODY", "BODYSTRUCTURE"})


@dataclass(frozen=True, slots=True)
class FetchPlan:
    """What a FETCH needs to read. Make it with :meth:`of`."""

    items: tuple[FetchItem, ...]
    needs_index: bool
    needs_content: bool
    reads_body: bool
    """Whether a body is read without PEEK."""
    in_pieces: bool
    """Whether every body is read in part only; then the rest will be asked for soon."""

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
        return cls(
            tuple(planned),
            needs_index=bool(names & _INDEXED_ITEMS) or any(item.path or item.kind for item in sections),
            needs_content=bool(sections),
            reads_body=any(not item.peek for item in sections),
            in_pieces=bool(sections) and all(item.partial is not None for item in sections),
        )


class Fetcher:
    """Answers one FETCH command."""

    def __init__(self, connection: Connection, inbox: Inbox, view: MailboxView, plan: FetchPlan) -> None:
        self._connection = connection
        self._inbox = inbox
        self._view = view
        self._plan = plan

    async def send(self, indexes: Iterable[int]) -> None:
        """Send the answers for these messages. Raises StoreError, ConnectionClosedError."""
        for batch in self._batches(indexes):
            await self._send_batch(batch)

    def _batches(self, indexes: Iterable[int]) -> Iterator[list[int]]:
        # An index row can be as large as the text of its message, so it weighs the same.
        entries, weighs = self._view.mailbox.entries, self._plan.needs_content or self._plan.needs_index
        batch: list[int] = []
        weight = 0
        for index in indexes:
            size = entries[index].size_bytes if weighs else 0
            if batch and (len(batch) >= BATCH_MESSAGES or weight + size > BATCH_BYTES):
                yield batch
                batch, weight = [], 0
            batch.append(index)
            weight += size
        if batch:
            yield batch

    async def _send_batch(self, batch: list[int]) -> None:
        mailbox, plan = self._view.mailbox, self._plan
        uids = [mailbox.uids[index] for index in batch]
        indexed: dict[int, IndexedMessage] = {}
        contents: dict[int, bytes] = {}
        if plan.needs_index:
            indexed = await self._inbox.indexed(mailbox, uids)
        if plan.needs_content:
            contents = await self._inbox.contents(mailbox, uids, keep=plan.in_pieces)
        newly_seen = await self._mark_read(uids) if plan.reads_body else set()
        for index, uid in zip(batch, uids, strict=True):
            entry = mailbox.entries[index]
            await self._send_one(index, entry, indexed.get(uid), contents.get(uid, b""), uid in newly_seen)
            await self._connection.flush_when_full()
        await self._connection.flush()

    async def _mark_read(self, uids: list[int]) -> set[int]:
        r"""Audit the reading and set \Seen; returns the UIDs whose flags this command reports."""
        view, mailbox = self._view, self._view.mailbox
        audit = [uid for uid in uids if not (self._plan.in_pieces and uid in view.read_in_pieces)]
        before = {uid: flags for uid in uids if (flags := self._flags(uid)) is not None}
        await self._inbox.mark_read(view.grant, uids, set_seen=view.may_set_seen, audit=audit)
        if self._plan.in_pieces:
            view.read_in_pieces.update(uids)
        changed = {uid for uid in uids if self._flags(uid) is not before.get(uid)}
        for uid in changed:
            index = mailbox.index_of(uid)
            if index is not None:
                view.told[index] = mailbox.entries[index].modseq
        return changed

    def _flags(self, uid: int) -> frozenset[str] | None:
        index = self._view.mailbox.index_of(uid)
        return None if index is None else self._view.mailbox.entries[index].flags

    async def _send_one(
        self, index: int, entry: MailboxEntry, row: IndexedMessage | None, content: bytes, newly_seen: bool
    ) -> None:
        connection = self._connection
        connection.queue(b"* %d FETCH (" % (index + 1))
        names = set()
        for position, item in enumerate(self._plan.items):
            if position:
                connection.queue(b" ")
            names.add(item.name)
            if item.name == "SECTION":
                await self._send_section(item, row, content)
            else:
                connection.queue(item.label + b" " + _simple_value(item.name, entry, row))
        if newly_seen and "FLAGS" not in names:
            connection.queue(b" FLAGS " + flag_list(entry.flags))
        connection.queue(b")\r\n")

    async def _send_section(self, item: FetchItem, row: IndexedMessage | None, content: bytes) -> None:
        connection = self._connection
        found = content if row is None or not (item.path or item.kind) else _section(item, row, content)
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


def _section(item: FetchItem, row: IndexedMessage, content: bytes) -> bytes | None:
    return section(row.sections, content, item.path, item.kind, item.fields)


def _simple_value(name: str, entry: MailboxEntry, row: IndexedMessage | None) -> bytes:
    if name == "UID":
        return b"%d" % entry.uid
    if name == "FLAGS":
        return flag_list(entry.flags)
    if name == "INTERNALDATE":
        return internal_date(entry.internal_date)
    if name == "RFC822.SIZE":
        return b"%d" % entry.size_bytes
    if name == "MODSEQ":
        return b"(%d)" % max(1, entry.modseq)
    if row is None:
        raise AssertionError("an indexed item was planned without its row")
    return {"ENVELOPE": row.envelope, "BODY": row.body, "BODYSTRUCTURE": row.bodystructure}[name]
