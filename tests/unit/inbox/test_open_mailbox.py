"""A mailbox in memory: what it costs to open a large one, what one arrival costs, and that it is right. EP-23, EP-26.

What is counted are rows that the driver hands over and steps of SQLite's virtual machine, never time.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sqlite3
import sys
import threading
import weakref
from array import array
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import event

from gateway.core.errors import StoreError
from gateway.inbox import filed_details as details_module
from gateway.inbox import open_mailbox as open_mailbox_module
from gateway.inbox.flags import SEEN, FlagAction, FlagChange
from gateway.inbox.open_mailbox import OpenMailbox
from gateway.inbox.open_mailboxes import OpenMailboxes
from gateway.inbox.service import UNITS_OF_FLAG_CHANGES, Grant, Inbox
from gateway.ports import FlagColumns, Mailbox, MailboxEntry
from gateway.settings import IMAPSettings
from gateway.store import mailbox_columns
from gateway.store.mailboxes import Mailboxes
from tests.unit.imap.imap_harness import Practice, plain_message

T = TypeVar("T")

MANY = 12_000
TIME = "2024-03-01T12:00:00.000000Z"
_STEPS = 10


class Costs:
    """What the readers of a store have cost since :meth:`zero`."""

    def __init__(self, practice: Practice) -> None:
        self.rows = 0
        self.steps = 0
        engine = practice.store._reader_engine
        # The next read makes a connection that is watched.
        engine.dispose()
        event.listen(engine, "connect", self._watch)

    def _watch(self, connection: sqlite3.Connection, _record: object) -> None:
        def row(_cursor: sqlite3.Cursor, values: tuple[Any, ...]) -> tuple[Any, ...]:
            self.rows += 1
            return values

        def step() -> int:
            self.steps += _STEPS
            return 0

        connection.row_factory = row
        connection.set_progress_handler(step, _STEPS)

    def zero(self) -> None:
        self.rows = self.steps = 0


@pytest.fixture
async def practice(tmp_path: Path) -> AsyncIterator[Practice]:
    made = await Practice.create(tmp_path)
    try:
        yield made
    finally:
        made.store.close()


def inbox_of(practice: Practice) -> Inbox:
    return Inbox(practice.store, practice.clock, practice.hub, IMAPSettings())


async def grant_of(inbox: Inbox, practice: Practice) -> Grant:
    return await inbox.open(practice.account, "INBOX")


def crowd(practice: Practice, count: int, *, gap: int = 0) -> None:
    """Put so many messages into the empty INBOX, the even ones seen; only what a listing reads is there of them."""
    with sqlite3.connect(practice.store.path, isolation_level=None) as connection:
        connection.execute("PRAGMA foreign_keys=OFF")
        connection.execute("BEGIN IMMEDIATE")
        mailbox = practice.inbox_id
        uids = [n if n <= count // 2 else n + gap for n in range(1, count + 1)]
        connection.executemany(
            "INSERT INTO mailbox_message VALUES (?, ?, ?, ?, ?, ?, NULL)",
            ((mailbox, uid, f"c{uid:025}", f"{uid:064}", 1_000 + uid, TIME) for uid in uids),
        )
        connection.executemany(
            "INSERT INTO mailbox_flag VALUES (?, ?, ?, ?)",
            ((mailbox, uid, "" if n % 2 else "\\Seen", n + 1) for n, uid in enumerate(uids, 1)),
        )
        counters = (uids[-1] + 1 if uids else 1, count + 1, mailbox)
        connection.execute("UPDATE mailbox_counter SET uid_next=?, highest_modseq=? WHERE mailbox_id=?", counters)
        connection.execute("COMMIT")
    connection.close()


def add(*flags: str) -> FlagChange:
    return FlagChange(FlagAction.ADD, frozenset(flags))


async def entries_of(practice: Practice) -> list[MailboxEntry]:
    return await practice.entries()


# --- opening ---


async def test_to_open_a_mailbox_makes_no_object_for_a_message(
    practice: Practice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mail client waits for it. Rows are joined by the database, and what is left of them are columns."""
    crowd(practice, MANY)
    inbox, costs = inbox_of(practice), Costs(practice)

    def not_needed(*_arguments: object) -> None:
        raise AssertionError("nobody needs it to select a mailbox")

    for name in ("entries", "filed", "size_bytes", "indexed"):
        monkeypatch.setattr(Mailboxes, name, not_needed)
    mailbox = real(await grant_of(inbox, practice))
    assert len(mailbox) == MANY
    assert (mailbox.unseen, mailbox.first_unseen(), mailbox.uid_next) == (MANY // 2, 0, MANY + 1)
    assert costs.rows < 20
    assert len({id(flags) for flags in mailbox.flags}) == 2
    columns = (mailbox.uids, mailbox.modseqs, mailbox.flags, mailbox._seen)
    # 4 bytes of UID, 8 of MODSEQ, a pointer to the flags, one whether it is seen; and what the lists hold in reserve.
    assert sum(map(sys.getsizeof, columns)) < 25 * MANY
    costs.zero()
    assert (await grant_of(inbox, practice)).mailbox is mailbox
    assert costs.rows < 10
    assert costs.steps < 500


async def test_a_mailbox_is_made_outside_of_the_event_loop(practice: Practice, monkeypatch: pytest.MonkeyPatch) -> None:
    crowd(practice, 10)
    threads: list[int] = []
    make = OpenMailbox.__init__

    def noting(self: OpenMailbox, *arguments: Any) -> None:
        threads.append(threading.get_ident())
        make(self, *arguments)

    monkeypatch.setattr(OpenMailbox, "__init__", noting)
    await grant_of(inbox_of(practice), practice)
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()


def real(grant: Grant) -> OpenMailbox:
    """The mailbox itself, and no view of it."""
    assert isinstance(grant.mailbox, OpenMailbox)
    return grant.mailbox


class SlowLoad:
    """Holds back every reading of a mailbox when its snapshot was taken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loads = 0
        self.taken = asyncio.Event()
        self.gate = asyncio.Event()
        self._load = OpenMailbox.load
        monkeypatch.setattr(OpenMailbox, "load", self._slow)

    async def _slow(self, store: Any, mailbox_id: int, *, seen_by: int | None = None) -> OpenMailbox:
        self.loads += 1
        try:
            return await self._load(store, mailbox_id, seen_by=seen_by)
        finally:
            self.taken.set()
            await self.gate.wait()


async def asking(mailboxes: OpenMailboxes, practice: Practice, count: int) -> list[asyncio.Task[OpenMailbox]]:
    """So many who wait for the INBOX by now."""
    tasks = [asyncio.create_task(mailboxes.get(practice.inbox_id)) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


async def test_all_who_open_a_mailbox_at_once_wait_for_one_reading(
    practice: Practice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a start all mail clients come back at the same moment."""
    crowd(practice, 10)
    mailboxes, slow = OpenMailboxes(practice.store), SlowLoad(monkeypatch)
    early = await asking(mailboxes, practice, 20)
    await slow.taken.wait()
    # Filed after the one reading: whoever only waits for it must see it all the same.
    await practice.file(plain_message(1))
    late = await asking(mailboxes, practice, 1)
    slow.gate.set()
    assert len(await late[0]) == 11
    assert len({id(mailbox) for mailbox in await asyncio.gather(*early, *late)}) == 1
    assert slow.loads == 1


@pytest.mark.parametrize("others", [0, 1])
async def test_whoever_goes_away_while_a_mailbox_is_read_takes_nothing_along(
    practice: Practice, others: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that gives up and tries again must not begin from the start, and others must not either."""
    crowd(practice, 10)
    mailboxes, slow = OpenMailboxes(practice.store), SlowLoad(monkeypatch)
    first, *rest = await asking(mailboxes, practice, 1 + others)
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    assert first.cancelled()
    rest += await asking(mailboxes, practice, 1)
    slow.gate.set()
    for one in rest:
        assert len(await one) == 10
    assert slow.loads == 1
    assert not mailboxes._loading


async def test_a_mailbox_that_could_not_be_read_is_read_at_the_next_try(
    practice: Practice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that does not answer is waited for once, and not by one client after the other."""
    crowd(practice, 10)
    mailboxes, slow = OpenMailboxes(practice.store), SlowLoad(monkeypatch)

    def broken(*_arguments: object, **_more: object) -> None:
        raise StoreError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(Mailboxes, "flags", broken)
        waiting = await asking(mailboxes, practice, 3)
        slow.gate.set()
        for answer in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(answer, StoreError)
    assert slow.loads == 1
    assert len(await mailboxes.get(practice.inbox_id)) == 10


async def test_an_error_that_nobody_waits_for_any_more_is_no_fault_of_the_program(
    practice: Practice, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailboxes, slow = OpenMailboxes(practice.store), SlowLoad(monkeypatch)
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, fault: faults.append(fault))
    only = asyncio.create_task(mailboxes.get(99))
    await slow.taken.wait()
    only.cancel()
    with suppress(asyncio.CancelledError):
        await only
    loading = weakref.ref(mailboxes._loading[99, None])
    slow.gate.set()
    while mailboxes._loading:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    gc.collect()
    assert loading() is None
    assert faults == []


# --- what is new ---


@pytest.mark.parametrize("what", ["message", "flag"])
async def test_one_change_costs_the_same_in_a_mailbox_of_any_size(tmp_path: Path, what: str) -> None:
    """EP-26: a hundred idling clients share one read of one message, however many are there."""
    steps: list[int] = []
    for size in (20, MANY):
        folder = tmp_path / str(size)
        folder.mkdir()
        practice = await Practice.create(folder)
        try:
            crowd(practice, size)
            inbox, other, costs = inbox_of(practice), inbox_of(practice), Costs(practice)
            mailbox = (await grant_of(inbox, practice)).mailbox
            writer = await grant_of(other, practice)
            marks = (len(mailbox), mailbox.highest_modseq)
            if what == "message":
                await practice.file(plain_message(1))
            else:
                await other.change_flags(writer, [size // 2 + 1], add("k"))
            costs.zero()
            await mailbox.refresh()
            assert costs.rows == 2
            steps.append(costs.steps)
            assert mailbox.changed_since(marks[1], marks[0] + 1) == [size if what == "message" else size // 2]
        finally:
            practice.store.close()
    assert 0 < steps[0] <= 300
    # Binary searches in the indexes of the database take no steps of their own.
    assert steps[1] <= steps[0] + 2 * _STEPS


async def test_many_changes_of_one_command_are_read_once(practice: Practice, monkeypatch: pytest.MonkeyPatch) -> None:
    """A STORE on the whole mailbox must not read at each unit what the units before it changed."""
    crowd(practice, 2_000)
    inbox = inbox_of(practice)
    grant = await grant_of(inbox, practice)
    read: list[int] = []
    flags = Mailboxes.flags

    def counting(self: Mailboxes, *arguments: int, seen_by: int | None = None) -> FlagColumns:
        found = flags(self, *arguments, seen_by=seen_by)
        read.append(len(found.uids))
        return found

    monkeypatch.setattr(Mailboxes, "flags", counting)
    assert await inbox.change_flags(grant, list(grant.mailbox.uids), add("k")) == set()
    assert sum(read) == 2_000
    assert max(read) == UNITS_OF_FLAG_CHANGES < 2_000
    assert all("k" in entry.flags for entry in await entries_of(practice))
    assert all("k" in flags for flags in grant.mailbox.flags)


async def test_a_uid_out_of_order_is_a_fault_and_changes_nothing(practice: Practice) -> None:
    """Sequence numbers that moved would show a client another message than it asks for."""
    crowd(practice, 4, gap=3)
    mailbox = real(await grant_of(inbox_of(practice), practice))
    before = (list(mailbox.uids), list(mailbox.flags), mailbox.unseen)
    news = FlagColumns(array("I", [1, 4, 9]), [frozenset({"k"})] * 3, array("Q", [90, 91, 92]))
    with pytest.raises(StoreError):
        mailbox._take(news)
    assert (list(mailbox.uids), list(mailbox.flags), mailbox.unseen) == before
    assert before[0] == [1, 2, 6, 7]


def same(mailbox: OpenMailbox, entries: list[MailboxEntry], counters: Mailbox) -> None:
    """The view is what the store has."""
    assert [tuple(mailbox[index]) for index in range(len(mailbox))] == [(e.uid, e.flags, e.modseq) for e in entries]
    unseen = [index for index, entry in enumerate(entries) if SEEN not in entry.flags]
    assert mailbox.unseen == len(unseen)
    assert mailbox.first_unseen() == (unseen[0] if unseen else None)
    assert (mailbox.uid_next, mailbox.highest_modseq) == (counters.uid_next, counters.highest_modseq)
    words = {flag for entry in entries for flag in entry.flags if not flag.startswith("\\")}
    assert words <= set(mailbox.keywords.values())


@pytest.mark.parametrize("seed", range(6))
async def test_views_of_several_nodes_are_always_what_the_store_has(
    practice: Practice, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random arrivals and changes by two nodes, with a log of changes that is cut again and again."""
    monkeypatch.setattr(open_mailbox_module, "MAX_CHANGE_LOG", 6)
    monkeypatch.setattr(open_mailbox_module, "MAX_INTERNED", 2)
    monkeypatch.setattr(mailbox_columns, "PAGE_ROWS", 4)
    monkeypatch.setattr(details_module, "PAGE", 3)
    monkeypatch.setattr(details_module, "READ_AT_ONCE", 6)
    chance = random.Random(seed)
    crowd(practice, chance.choice([0, 1, 4, 9]), gap=chance.choice([0, 5]))
    nodes = [inbox_of(practice), inbox_of(practice)]
    grants = [await grant_of(node, practice) for node in nodes]
    told: list[dict[int, int]] = [dict(enumerate(grant.mailbox.modseqs)) for grant in grants]
    marks = [grant.mailbox.highest_modseq for grant in grants]
    for turn in range(40):
        who = chance.randrange(2)
        node, grant = nodes[who], grants[who]
        mailbox = grant.mailbox
        if len(mailbox) == 0 or chance.random() < 0.3:
            await practice.file(plain_message(turn, b"x" * chance.randrange(50)))
        else:
            uids = chance.sample(list(mailbox.uids), chance.randint(1, min(4, len(mailbox))))
            flags = frozenset(chance.sample([SEEN, "\\Flagged", "a", "b", "c"], chance.randint(0, 3)))
            await node.change_flags(grant, uids, FlagChange(chance.choice(list(FlagAction)), flags))
        if chance.random() < 0.5:
            looker = chance.randrange(2)
            mailbox = real(grants[looker])
            await mailbox.refresh()
            counters = await practice.store.read(lambda unit: unit.mailboxes.get(practice.inbox_id))
            same(mailbox, await entries_of(practice), counters)
            # What a session is told of by MODSEQ is what changed since it was told last, and nothing else.
            known = told[looker]
            changed = [index for index in known if mailbox.modseqs[index] != known[index]]
            assert mailbox.changed_since(marks[looker], len(known)) == changed
            told[looker], marks[looker] = dict(enumerate(mailbox.modseqs)), mailbox.highest_modseq
        await check_details(real(grants[chance.randrange(2)]), chance, await entries_of(practice))
    fresh = await OpenMailbox.load(practice.store, practice.inbox_id)
    counters = await practice.store.read(lambda unit: unit.mailboxes.get(practice.inbox_id))
    same(fresh, await entries_of(practice), counters)


# --- sizes and dates ---


async def check_details(mailbox: OpenMailbox, chance: random.Random, entries: list[MailboxEntry]) -> None:
    """Sizes and dates of some messages, and of all together."""
    some = chance.sample(range(len(mailbox)), chance.randint(0, len(mailbox)))
    await mailbox.details.need(some)
    for index in some:
        assert mailbox.details.size_bytes(index) == entries[index].size_bytes
        assert mailbox.details.internal_date(index) == entries[index].internal_date
    count = len(mailbox)
    assert await mailbox.details.total_size(count) == sum(entry.size_bytes for entry in entries[:count])


class Reads:
    """Ranges of UIDs whose sizes and dates were read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ranges: list[tuple[int, int]] = []
        filed = Mailboxes.filed

        def noting(rows: Mailboxes, mailbox_id: int, first: int, last: int) -> Any:
            self.ranges.append((first, last))
            return filed(rows, mailbox_id, first, last)

        monkeypatch.setattr(Mailboxes, "filed", noting)


async def test_sizes_and_dates_are_read_once_in_pages_and_only_where_asked_for(
    practice: Practice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(details_module, "PAGE", 10)
    monkeypatch.setattr(details_module, "READ_AT_ONCE", 30)
    crowd(practice, 95)
    mailbox = (await grant_of(inbox_of(practice), practice)).mailbox
    reads = Reads(monkeypatch)

    async def ask(indexes: Iterable[int]) -> list[tuple[int, int]]:
        reads.ranges.clear()
        await mailbox.details.need(indexes)
        return list(reads.ranges)

    assert await ask([]) == []
    assert await ask([42]) == [(41, 50)]
    assert await ask([49, 40]) == []
    assert mailbox.details.size_bytes(42) == 1_043
    assert await ask([94, 3]) == [(1, 10), (91, 95)]
    # Pages in a row are one read, up to a bound; what is known is not read again.
    assert await ask(range(95)) == [(11, 40), (51, 80), (81, 90)]
    assert await ask(range(95)) == []
    # One arrival is one row.
    await practice.file(plain_message(1))
    await mailbox.refresh()
    assert await ask([95]) == [(96, 96)]
    assert mailbox.details.sent_microseconds(95) is None
    # Two at once wait for one read.
    fresh = await OpenMailbox.load(practice.store, practice.inbox_id)
    reads.ranges.clear()
    await asyncio.gather(*(fresh.details.need([5]) for _ in range(5)))
    assert reads.ranges == [(1, 10)]


async def test_what_was_not_read_is_never_shown(practice: Practice) -> None:
    """A size of 0 or a date of 1970 in its place would be believed."""
    crowd(practice, 300)
    mailbox = (await grant_of(inbox_of(practice), practice)).mailbox
    await mailbox.details.need([0])
    looks: list[Callable[[int], object]] = [
        mailbox.details.size_bytes,
        mailbox.details.internal_date,
        mailbox.details.internal_microseconds,
        mailbox.details.sent_microseconds,
    ]
    for look in looks:
        look(0)
        for unread in (299, 300):
            with pytest.raises((AssertionError, IndexError)):
                look(unread)


async def test_a_listed_message_without_its_row_is_told_and_the_others_are_shown(
    practice: Practice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(details_module, "PAGE", 5)
    crowd(practice, 15)
    mailbox = (await grant_of(inbox_of(practice), practice)).mailbox
    filed = Mailboxes.filed
    monkeypatch.setattr(Mailboxes, "filed", lambda *arguments: [row for row in filed(*arguments) if row.uid != 12])
    with pytest.raises(StoreError):
        await mailbox.details.need([0, 11])
    assert mailbox.details.size_bytes(0) == 1_001
    with pytest.raises(AssertionError):
        mailbox.details.size_bytes(11)


async def test_the_size_of_a_mailbox_is_counted_on(practice: Practice, monkeypatch: pytest.MonkeyPatch) -> None:
    crowd(practice, 10)
    mailbox = (await grant_of(inbox_of(practice), practice)).mailbox
    counted: list[tuple[int, int]] = []
    size_bytes = Mailboxes.size_bytes

    def noting(rows: Mailboxes, mailbox_id: int, after: int, last: int) -> int:
        counted.append((after, last))
        return size_bytes(rows, mailbox_id, after, last)

    monkeypatch.setattr(Mailboxes, "size_bytes", noting)
    total = sum(1_000 + uid for uid in range(1, 11))
    assert await mailbox.details.total_size(10) == total
    assert await mailbox.details.total_size(10) == total
    await practice.file(plain_message(1))
    await mailbox.refresh()
    assert await mailbox.details.total_size(11) == total + len(plain_message(1))
    assert counted == [(0, 10), (10, 11)]
    assert await mailbox.details.total_size(0) >= 0
