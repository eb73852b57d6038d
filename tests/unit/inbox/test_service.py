"""The mailbox view: what is shared in memory, what it costs, and what is recorded. EP-23, EP-26, EP-29."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from gateway.core.errors import NotFoundError, RefusedError, StoreError
from gateway.inbox import open_mailbox as open_mailbox_module
from gateway.inbox import open_mailboxes
from gateway.inbox import service as service_module
from gateway.inbox.flags import FlagAction, FlagChange
from gateway.inbox.service import Grant, Inbox, TextTerm
from gateway.ports import UnitOfWork
from gateway.settings import IMAPSettings
from tests.unit.imap.imap_harness import Practice, plain_message

T = TypeVar("T")


class CountingStore:
    """Counts what goes to the store behind it; the answers of reads can be held back."""

    def __init__(self, practice: Practice) -> None:
        self._store = practice.store
        self.reads = 0
        self.writes = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.snapshot_taken = asyncio.Event()

    async def read(self, work: Callable[[UnitOfWork], T]) -> T:
        self.reads += 1
        answer = await self._store.read(work)
        self.snapshot_taken.set()
        await self.gate.wait()
        return answer

    async def write(self, work: Callable[[UnitOfWork], T], *, urgent: bool = False) -> T:
        self.writes += 1
        return await self._store.write(work, urgent=urgent)

    def version(self) -> int | None:
        return None


@pytest.fixture
async def practice(tmp_path: Path) -> AsyncIterator[Practice]:
    made = await Practice.create(tmp_path)
    try:
        yield made
    finally:
        made.store.close()


@pytest.fixture
def store(practice: Practice) -> CountingStore:
    return CountingStore(practice)


@pytest.fixture
def inbox(practice: Practice, store: CountingStore) -> Inbox:
    return Inbox(store, practice.clock, practice.hub, IMAPSettings())


async def grant_of(inbox: Inbox, practice: Practice) -> Grant:
    return await inbox.open(practice.account, "INBOX")


def add(*flags: str) -> FlagChange:
    return FlagChange(FlagAction.ADD, frozenset(flags))


async def test_all_sessions_share_one_view(inbox: Inbox, practice: Practice, store: CountingStore) -> None:
    await practice.file(plain_message(1))
    first, second = await grant_of(inbox, practice), await grant_of(inbox, practice)
    assert first.mailbox is second.mailbox
    assert list(first.mailbox.uids) == [1]
    assert (first.mailbox.unseen, first.mailbox.uid_next) == (1, 2)


async def test_refreshes_at_the_same_time_share_a_read(inbox: Inbox, practice: Practice, store: CountingStore) -> None:
    """A hundred idlers woken by one message must not read a hundred times."""
    mailbox = (await grant_of(inbox, practice)).mailbox
    await practice.file(plain_message(1))
    store.reads = 0
    store.gate.clear()
    refreshes = [asyncio.ensure_future(mailbox.refresh()) for _ in range(100)]
    await asyncio.sleep(0)
    store.gate.set()
    await asyncio.gather(*refreshes)
    assert store.reads <= 2
    assert len(mailbox) == 1


async def test_a_refresh_sees_what_was_committed_before_it_was_asked_for(
    inbox: Inbox, practice: Practice, store: CountingStore
) -> None:
    mailbox = (await grant_of(inbox, practice)).mailbox
    store.gate.clear()
    store.snapshot_taken.clear()
    early = asyncio.ensure_future(mailbox.refresh())
    await store.snapshot_taken.wait()
    await practice.file(plain_message(1))
    late = asyncio.ensure_future(mailbox.refresh())
    store.gate.set()
    await late
    assert len(mailbox) == 1
    await early


async def test_a_failed_or_cancelled_refresh_leaves_the_view_usable(
    inbox: Inbox, practice: Practice, store: CountingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailbox = (await grant_of(inbox, practice)).mailbox
    await practice.file(plain_message(1))
    store.gate.clear()
    doomed = asyncio.ensure_future(mailbox.refresh())
    await asyncio.sleep(0)
    doomed.cancel()
    await asyncio.gather(doomed, return_exceptions=True)
    store.gate.set()

    async def broken(_work: object) -> None:
        raise StoreError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(store, "read", broken)
        with pytest.raises(StoreError):
            await mailbox.refresh()
    assert len(mailbox) == 0
    await mailbox.refresh()
    assert len(mailbox) == 1


async def test_changes_are_reported_by_modseq(
    inbox: Inbox, practice: Practice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_mailbox_module, "MAX_CHANGE_LOG", 4)
    for number in range(6):
        await practice.file(plain_message(number))
    grant = await grant_of(inbox, practice)
    mailbox, start = grant.mailbox, grant.mailbox.highest_modseq
    marks = []
    for uid in range(1, 7):
        await inbox.change_flags(grant, [uid], add("\\Seen"))
        marks.append(mailbox.highest_modseq)
    assert mailbox.changed_since(marks[-1], 6) == []
    assert mailbox.changed_since(marks[4], 6) == [5]
    # The log was cut; what is older is answered from the entries.
    assert mailbox.changed_since(start, 6) == [0, 1, 2, 3, 4, 5]
    assert mailbox.changed_since(start, 3) == [0, 1, 2]
    assert mailbox.unseen == 0
    assert mailbox.first_unseen() is None


async def test_flag_changes_meet_in_the_transaction(inbox: Inbox, practice: Practice) -> None:
    """Two processes that add different flags to one message both succeed."""
    await practice.file(plain_message(1))
    here = await grant_of(inbox, practice)
    other = Inbox(practice.store, practice.clock, practice.hub, IMAPSettings())
    there = await grant_of(other, practice)
    await inbox.change_flags(here, [1], add("a"))
    await other.change_flags(there, [1], add("b"))
    assert await practice.flags() == {"a", "b"}


async def test_reading_is_recorded_with_seen_in_one_commit(
    inbox: Inbox, practice: Practice, store: CountingStore
) -> None:
    await practice.file(plain_message(1))
    grant = await grant_of(inbox, practice)
    store.writes = 0
    await inbox.mark_read(grant, [1], set_seen=True, audit=[1])
    assert store.writes == 1
    assert await practice.audit("message.read") == [("front.desk", "m00001")]
    assert await practice.flags() == {"\\Seen"}
    await inbox.mark_read(grant, [1], set_seen=False, audit=[])
    assert store.writes == 1


async def test_ignored_deletions_are_recorded_and_cost_no_flag_write(
    inbox: Inbox, practice: Practice, store: CountingStore
) -> None:
    await practice.file(plain_message(1))
    grant = await grant_of(inbox, practice)
    before = grant.mailbox.highest_modseq
    assert await inbox.change_flags(grant, [1], add("\\Deleted")) == set()
    assert store.writes == 1
    assert await practice.audit("message.delete_ignored") == [("front.desk", "m00001")]
    await grant.mailbox.refresh()
    assert grant.mailbox.highest_modseq == before


async def test_refuse_policy(practice: Practice, store: CountingStore) -> None:
    inbox = Inbox(store, practice.clock, practice.hub, replace(IMAPSettings(), deleted_flag="refuse"))
    await practice.file(plain_message(1))
    grant = await grant_of(inbox, practice)
    with pytest.raises(RefusedError):
        await inbox.change_flags(grant, [1], add("\\Deleted"))
    assert await practice.audit("message.delete_ignored") == [("front.desk", "m00001")]
    await inbox.change_flags(grant, [1], add("\\Deleted", "\\Seen"))
    assert await practice.flags() == {"\\Seen"}


async def test_who_may_see_what(inbox: Inbox, practice: Practice) -> None:
    assert [folder.name for folder in await inbox.folders(practice.account)] == ["INBOX", "Shared/Läbs"]
    assert (await inbox.open(practice.account, "iNBOX")).folder.name == "INBOX"
    for unknown in ("shared/läbs", "desk", "", "INBOX/"):
        with pytest.raises(NotFoundError):
            await inbox.open(practice.account, unknown)
    stranger = replace(practice.account, id=999)
    assert await inbox.folders(stranger) == []
    with pytest.raises(NotFoundError):
        await inbox.open(stranger, "INBOX")


async def test_a_grant_that_was_taken_away_is_gone_at_the_next_open(inbox: Inbox, practice: Practice) -> None:
    await grant_of(inbox, practice)
    await practice.store.write(lambda unit: unit.accounts.grant(practice.account.id, "INBOX", practice.inbox_id, ""))
    with pytest.raises(NotFoundError):
        await grant_of(inbox, practice)


async def test_contents_are_kept_for_pieces_within_bounds(
    inbox: Inbox, practice: Practice, store: CountingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "KEPT_CONTENT_BYTES", 150)
    contents = {number: plain_message(number) for number in range(1, 5)}
    for content in contents.values():
        await practice.file(content)
    mailbox = (await grant_of(inbox, practice)).mailbox
    store.reads = 0
    assert (await inbox.contents(mailbox, [1], keep=True))[1] == contents[1]
    assert (await inbox.contents(mailbox, [1], keep=True))[1] == contents[1]
    assert store.reads == 1
    for uid in (2, 3, 4):
        await inbox.contents(mailbox, [uid], keep=True)
    assert inbox._contents_bytes == sum(len(content) for content in inbox._contents.values()) <= 150
    assert await inbox.contents(mailbox, [1, 4]) == {1: contents[1], 4: contents[4]}


async def test_a_listed_message_without_a_row_is_a_fault(inbox: Inbox, practice: Practice) -> None:
    """Never an empty message in place of one that cannot be read."""
    await practice.file(plain_message(1))
    mailbox = (await grant_of(inbox, practice)).mailbox
    for ask in (inbox.contents(mailbox, [1, 2]), inbox.indexed(mailbox, [2])):
        with pytest.raises(StoreError):
            await ask


async def test_search_asks_the_store_once(inbox: Inbox, practice: Practice, store: CountingStore) -> None:
    await practice.file(plain_message(1, b"x-ray\r\n"))
    mailbox = (await grant_of(inbox, practice)).mailbox
    store.reads = 0
    subject, body, nothing = TextTerm("NUMBER", name="subject"), TextTerm("x", headers=False, body=True), TextTerm("zz")
    found = await inbox.search(mailbox, [subject, body, nothing])
    assert found == {subject: {1}, body: {1}, nothing: set()}
    assert store.reads == 1
    assert await inbox.search(mailbox, []) == {}
    assert store.reads == 1


async def test_mailboxes_nobody_uses_are_forgotten(
    inbox: Inbox, practice: Practice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_mailboxes, "KEPT_MAILBOXES", 1)
    grant = await grant_of(inbox, practice)
    await inbox.open(practice.account, "Shared/Läbs")
    assert set(inbox._mailboxes._recent) == {(practice.nested_id, None)}
    # Somebody still has the first one open, so it is shared and not loaded a second time.
    assert (await grant_of(inbox, practice)).mailbox is grant.mailbox


@pytest.mark.parametrize(
    ("action", "asked", "rights", "expected"),
    [
        (FlagAction.ADD, {"\\Deleted", "\\Seen"}, "lrsw", {"\\Flagged", "k", "\\Seen"}),
        (FlagAction.ADD, {"\\Seen", "x"}, "lrs", {"\\Flagged", "k", "\\Seen"}),
        (FlagAction.ADD, {"\\Seen", "x"}, "lrw", {"\\Flagged", "k", "x"}),
        (FlagAction.ADD, {"\\Seen", "x"}, "lr", {"\\Flagged", "k"}),
        (FlagAction.REMOVE, {"\\Flagged", "\\Deleted"}, "lrsw", {"k"}),
        (FlagAction.REMOVE, {"\\Flagged", "k"}, "lrs", {"\\Flagged", "k"}),
        (FlagAction.REPLACE, {"\\Deleted", "\\Draft", "\\Seen"}, "lrsw", {"\\Seen"}),
        (FlagAction.REPLACE, {"\\Seen"}, "lrs", {"\\Flagged", "k", "\\Seen"}),
        (FlagAction.REPLACE, set(), "lrsw", set()),
        (FlagAction.REPLACE, set(), "lr", {"\\Flagged", "k"}),
    ],
)
def test_flag_rules(action: FlagAction, asked: set[str], rights: str, expected: set[str]) -> None:
    """The no-delete rules and RFC 4314."""
    current = frozenset({"\\Flagged", "k"})
    assert FlagChange(action, frozenset(asked)).apply(current, rights) == expected
