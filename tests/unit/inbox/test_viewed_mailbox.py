"""A view in memory: what enters and leaves, in whatever order it is read, and what it costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from gateway.core.errors import NotFoundError, StoreError
from gateway.core.standing import Standing, View
from gateway.inbox.flags import FlagAction, FlagChange
from gateway.inbox.service import Grant
from gateway.inbox.viewed_mailbox import ViewedMailbox
from gateway.inbox.views_inbox import ViewsInbox
from gateway.ports import Link, Patient, UnitOfWork
from gateway.settings import IMAPSettings
from tests.unit.imap.imap_harness import Practice, plain_message

T = TypeVar("T")
UNLINKED = Standing(decided=True)


class CountingStore:
    """Counts the reads, and fails when it is told to."""

    def __init__(self, practice: Practice) -> None:
        self._store = practice.store
        self.reads = 0
        self.fails = False

    def version(self) -> int | None:
        return None

    async def read(self, work: Callable[[UnitOfWork], T]) -> T:
        self.reads += 1
        if self.fails:
            raise StoreError("the disk is gone")
        return await self._store.read(work)

    async def write(self, work: Callable[[UnitOfWork], T], *, urgent: bool = False) -> T:
        return await self._store.write(work, urgent=urgent)


@pytest.fixture
async def practice(tmp_path: Path) -> AsyncIterator[Practice]:
    made = await Practice.create(tmp_path)
    try:
        await made.store.write(lambda tx: tx.patients.upsert([Patient("P1")], "test", made.clock.now()))
        yield made
    finally:
        made.store.close()


@pytest.fixture
def store(practice: Practice) -> CountingStore:
    return CountingStore(practice)


@pytest.fixture
def inbox(practice: Practice, store: CountingStore) -> ViewsInbox:
    held: Any = store
    return ViewsInbox(held, practice.clock, practice.hub, IMAPSettings())


async def opened(inbox: ViewsInbox, practice: Practice, name: str = "Unlinked") -> tuple[Grant, ViewedMailbox]:
    grant = await inbox.open(practice.account, name)
    assert isinstance(grant.mailbox, ViewedMailbox)
    return grant, grant.mailbox


async def file(practice: Practice, *numbers: int, standing: Standing = UNLINKED) -> None:
    for number in numbers:
        await practice.file(plain_message(number), standing=standing)


async def put_on_chart(practice: Practice, number: int) -> None:
    def work(tx: UnitOfWork) -> None:
        one = f"m{number:05d}"
        tx.links.add(Link(f"L{number}", one, "P1", "manual", "jane", "manual", practice.clock.now()))
        tx.standings.settle([one])

    await practice.store.write(work)


async def unsettle(practice: Practice, uid: int) -> None:
    """Move a message back to the unlinked ones, as undoing a link will."""

    def work(tx: Any) -> None:
        mailbox = tx.mailboxes.get(practice.inbox_id)
        view, view_uid = tx.views.stands_in(mailbox.id, uid)
        tx.mailboxes.set_flags(mailbox.id, {uid: UNLINKED.keywords})
        tx.views.leave(mailbox.id, view, view_uid, mailbox.highest_modseq + 1)
        tx.views.enter(mailbox.id, View.UNLINKED, uid, mailbox.highest_modseq + 1)

    await practice.store.write(work)


async def test_messages_enter_and_leave_and_their_slots_stay(inbox: ViewsInbox, practice: Practice) -> None:
    await file(practice, 1, 2, 3)
    _, view = await opened(inbox, practice)
    assert (list(view.uids), view.uid_next, len(view), view.present, view.unseen) == ([1, 2, 3], 4, 3, 3, 3)
    since = view.highest_modseq
    await put_on_chart(practice, 2)
    await file(practice, 4)
    await view.refresh()
    assert (list(view.uids), view.uid_next, len(view), view.present, view.unseen) == ([1, 2, 3, 4], 5, 4, 3, 3)
    assert [view.is_gone(slot) for slot in range(4)] == [False, True, False, False]
    assert (view.gone_since(since, 4), view.gone_since(since, 1)) == ([1], [])
    assert view.gone_since(view.highest_modseq, 4) == []
    assert view.changed_since(since, 4) == [3], "of what left, nobody is told the flags"
    assert await view.vanished(since) == [2]
    assert view[1].flags == {"$DirectLinked", "$DirectVerified"}, "what still asks for it is answered"
    assert view.index_of(2) == 1
    assert view.highest_modseq == view.base.highest_modseq


async def test_a_message_that_comes_back_has_a_new_uid(inbox: ViewsInbox, practice: Practice) -> None:
    await file(practice, 1, 2)
    _, view = await opened(inbox, practice)
    await put_on_chart(practice, 1)
    await unsettle(practice, 1)
    await view.refresh()
    assert (list(view.uids), [view.is_gone(slot) for slot in range(3)]) == ([1, 2, 3], [True, False, False])
    assert (view.present, view.unseen, view.slot_of(0), view.stored([3, 1])) == (2, 2, 2, [1, 1])
    assert view.shown([1, 2]) == [3, 2]


async def test_what_came_and_left_between_two_looks_is_gone(inbox: ViewsInbox, practice: Practice) -> None:
    await file(practice, 1)
    _, view = await opened(inbox, practice)
    since = view.highest_modseq
    await file(practice, 2)
    await put_on_chart(practice, 2)
    await view.refresh()
    assert (list(view.uids), view.is_gone(1), view.present, view.unseen, view.uid_next) == ([1, 2], True, 1, 1, 3)
    assert view.gone_since(since, 2) == [1]


async def test_both_are_of_one_moment_when_the_mailbox_is_ahead(inbox: ViewsInbox, practice: Practice) -> None:
    """Another session has the mailbox below refreshed; the view follows to there and no further."""
    await file(practice, 1, 2)
    _, view = await opened(inbox, practice)
    await put_on_chart(practice, 1)
    await view.base.refresh()
    assert (view.present, view.highest_modseq < view.base.highest_modseq) == (2, True)
    until = view.base.highest_modseq
    await put_on_chart(practice, 2)
    entered = await practice.store.read(lambda tx: tx.views.standing(view.id, View.UNLINKED, until=until))
    assert list(entered.uids) == [2], "as it was then, although both have left by now"
    await view.refresh()
    assert (view.present, view.highest_modseq) == (0, view.base.highest_modseq)


async def test_flags_of_the_mailbox_are_counted_in_the_view(inbox: ViewsInbox, practice: Practice) -> None:
    await file(practice, 1, 2, 3)
    grant, view = await opened(inbox, practice)
    assert view.first_unseen() == 0
    await inbox.mark_read(grant, [1], set_seen=True, audit=[1])
    assert (view.unseen, view.first_unseen(), view.base.unseen) == (2, 1, 2)
    below = await inbox.open(practice.account, "INBOX")
    await inbox.change_flags(below, [2], FlagChange(FlagAction.ADD, frozenset({"\\Seen"})))
    since = view.highest_modseq
    await view.refresh()
    assert (view.unseen, view.first_unseen(), view.changed_since(since, 3)) == (1, 2, [1])
    await put_on_chart(practice, 3)
    await view.refresh()
    assert (view.unseen, view.first_unseen()) == (0, None)


async def test_what_changed_meanwhile_is_told_by_the_uids_of_the_view(inbox: ViewsInbox, practice: Practice) -> None:
    await file(practice, 1, standing=Standing(linked=True, decided=True))
    await file(practice, 2, 3)
    grant, view = await opened(inbox, practice)
    since = view.highest_modseq
    add = FlagChange(FlagAction.ADD, frozenset({"\\Flagged"}))
    assert await inbox.change_flags(grant, [2], add) == set()
    assert await inbox.change_flags(grant, [1, 2], add, unchanged_since=since) == {2}
    assert await practice.flags(2) == {"\\Flagged", "$DirectNeedsReview", "$DirectVerified"}
    with pytest.raises(NotFoundError):
        await inbox.change_flags(grant, [9], add)


async def test_a_refresh_costs_the_news_and_a_failed_one_changes_nothing(
    inbox: ViewsInbox, practice: Practice, store: CountingStore
) -> None:
    await file(practice, 1, 2)
    _, view = await opened(inbox, practice)
    store.reads = 0
    await view.refresh()
    assert store.reads == 1, "one look at the mailbox, and nothing was new"
    await put_on_chart(practice, 1)
    store.reads = 0
    await asyncio.gather(*(view.refresh() for _ in range(50)))
    assert store.reads <= 5, "they share it"
    await put_on_chart(practice, 2)
    store.fails = True
    before = (list(view.uids), view.present, view.highest_modseq)
    with pytest.raises(StoreError):
        await view.refresh()
    assert (list(view.uids), view.present, view.highest_modseq) == before
    store.fails = False
    await view.refresh()
    assert view.present == 0


async def test_everybody_shares_a_view_and_each_account_its_own_marks(
    inbox: ViewsInbox, practice: Practice, store: CountingStore
) -> None:
    await file(practice, 1)
    views = await asyncio.gather(*(opened(inbox, practice) for _ in range(10)))
    assert len({id(view) for _, view in views}) == 1
    held: Any = store
    own = ViewsInbox(held, practice.clock, practice.hub, replace(IMAPSettings(), seen="per_user"))
    _, mine = await opened(own, practice)
    assert (mine.seen_by, views[0][1].seen_by) == (practice.account.id, None)


async def test_a_large_view_is_placed_rightly(inbox: ViewsInbox, practice: Practice) -> None:
    """Many at once are found in another way than few."""
    for number in range(40):
        linked = number % 3 == 0
        await practice.file(plain_message(number), standing=Standing(linked=linked, decided=True))
    _, unlinked = await opened(inbox, practice)
    _, linked_ones = await opened(inbox, practice, "Linked")
    assert unlinked.stored(unlinked.uids) == [uid for uid in range(1, 41) if (uid - 1) % 3]
    assert linked_ones.stored(linked_ones.uids) == [uid for uid in range(1, 41) if not (uid - 1) % 3]
    assert list(unlinked.modseqs) == [unlinked.base.modseqs[uid - 1] for uid in unlinked.stored(unlinked.uids)]
    assert unlinked.flags[1:3] == [UNLINKED.keywords] * 2
