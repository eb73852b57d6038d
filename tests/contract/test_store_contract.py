"""What every Store promises, through the ports alone. A new store joins by adding its factory to ``STORES``."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.core.errors import ConflictError, NotFoundError
from gateway.core.lifecycle import MOVES, JobKind, State
from gateway.core.verdict import Reason
from gateway.ports import FiledMessage, FlagColumns, Link, Store, UnitOfWork
from gateway.store import mailbox_columns
from gateway.store.ids import new_id
from tests.support.store_samples import (
    ALICE,
    BOB,
    NOW,
    SENDER,
    SteadyClock,
    accepted,
    inbound,
    indexed,
    patient,
    rejected,
)
from tests.support.stores import STORES


@pytest.fixture
def clock() -> SteadyClock:
    """In which the store keeps leases and schedules."""
    return SteadyClock()


@pytest.fixture(params=sorted(STORES))
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: SteadyClock) -> AsyncIterator[Store]:
    with STORES[request.param](tmp_path, clock) as opened:
        yield opened


def received(tx: UnitOfWork, raw: bytes = b"raw", *recipients: str) -> str:
    message_id = new_id(NOW)
    tx.messages.add_raw(message_id, NOW, inbound(raw, *recipients))
    tx.messages.set_state(message_id, State.RECEIVED, NOW)
    return message_id


def unwrapped(tx: UnitOfWork, raw: bytes = b"raw", *recipients: str, content: bytes = b"Subject: s\r\n\r\nb") -> str:
    message_id = received(tx, raw, *recipients)
    judgement = accepted(*recipients, content=content)
    tx.messages.add_verdict(message_id, NOW, judgement)
    tx.messages.add_content(message_id, judgement)
    tx.messages.set_state(message_id, State.UNWRAPPED, NOW)
    return message_id


# --- units of work ---


async def test_a_committed_unit_is_seen_by_readers(store: Store) -> None:
    message_id = await store.write(received)
    assert await store.read(lambda tx: tx.messages.state(message_id)) is State.RECEIVED


async def test_a_unit_that_raises_leaves_nothing_and_its_error_reaches_the_caller(store: Store) -> None:
    def fails(tx: UnitOfWork) -> None:
        received(tx)
        raise LookupError("of the caller")

    with pytest.raises(LookupError, match="of the caller"):
        await store.write(fails)
    assert await store.read(lambda tx: tx.messages.newest()) == []


async def test_neighbours_in_a_group_commit_do_not_share_a_failure(store: Store) -> None:
    def work(number: int) -> Callable[[UnitOfWork], str]:
        def unit(tx: UnitOfWork) -> str:
            message_id = received(tx, b"raw %d" % number)
            if number % 3 == 0:
                raise ValueError(number)
            return message_id

        return unit

    results = await asyncio.gather(*(store.write(work(n)) for n in range(40)), return_exceptions=True)
    kept = {result for result in results if isinstance(result, str)}
    failed = [result for result in results if isinstance(result, ValueError)]
    assert len(kept) == 26
    assert [error.args[0] for error in failed] == list(range(0, 40, 3))
    assert {m.id for m in await store.read(lambda tx: tx.messages.newest(limit=100))} == kept


async def test_a_cancelled_caller_does_not_cancel_the_commit(store: Store) -> None:
    """Finding 3, F15: the client left or a timer fired while the commit ran."""
    entered, go = threading.Event(), threading.Event()

    def slow(tx: UnitOfWork) -> str:
        entered.set()
        assert go.wait(10)
        return received(tx)

    caller = asyncio.create_task(store.write(slow))
    await asyncio.to_thread(entered.wait, 10)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    go.set()
    await store.write(lambda _: None)  # One writer: what was queued before has ended.
    assert len(await store.read(lambda tx: tx.messages.newest())) == 1


async def test_a_caller_cancelled_before_its_turn_is_committed_too(store: Store) -> None:
    entered, go = threading.Event(), threading.Event()

    def block(tx: UnitOfWork) -> None:
        entered.set()
        assert go.wait(10)

    blocker = asyncio.create_task(store.write(block))
    await asyncio.to_thread(entered.wait, 10)
    caller = asyncio.create_task(store.write(received))
    await asyncio.sleep(0)  # The caller has queued its unit.
    caller.cancel()
    go.set()
    await blocker
    await store.write(lambda _: None)
    assert len(await store.read(lambda tx: tx.messages.newest())) == 1


async def test_a_read_is_one_snapshot(store: Store) -> None:
    first, second = threading.Event(), threading.Event()

    def twice(tx: UnitOfWork) -> tuple[int, int]:
        before = len(tx.messages.newest())
        first.set()
        assert second.wait(10)
        return before, len(tx.messages.newest())

    reading = asyncio.create_task(store.read(twice))
    await asyncio.to_thread(first.wait, 10)
    await store.write(received)
    second.set()
    assert await reading == (0, 0)


# --- messages ---


async def test_raw_message_comes_back_as_it_was(store: Store) -> None:
    raw = bytes(range(256)) * 10
    message_id = await store.write(lambda tx: received(tx, raw, BOB, ALICE))
    found = await store.read(lambda tx: tx.messages.raw(message_id))
    assert (found.body, found.recipients, found.mail_from) == (raw, (BOB, ALICE), SENDER)
    assert (found.received_at, found.peer) == (NOW, "192.0.2.7")


@pytest.mark.parametrize("mail_from", ["", None])
async def test_null_sender_and_no_envelope_stay_apart(store: Store, mail_from: str | None) -> None:
    """AS-46."""

    def keep(tx: UnitOfWork) -> str:
        message_id = new_id(NOW)
        tx.messages.add_raw(message_id, NOW, inbound(mail_from=mail_from))
        return message_id

    message_id = await store.write(keep)
    assert (await store.read(lambda tx: tx.messages.raw(message_id))).mail_from == mail_from


async def test_states_move_only_as_the_table_says(store: Store) -> None:
    path: dict[State, list[State]] = {
        State.RECEIVED: [],
        State.UNWRAPPED: [State.UNWRAPPED],
        State.REFUSED: [State.REFUSED],
        State.FILED: [State.UNWRAPPED, State.FILED],
        State.LINKED: [State.UNWRAPPED, State.FILED, State.LINKED],
    }
    for here, steps in path.items():
        for there in State:

            def work(tx: UnitOfWork, steps: list[State] = steps, there: State = there) -> str:
                message_id = received(tx)
                for step in steps:
                    tx.messages.set_state(message_id, step, NOW)
                tx.messages.set_state(message_id, there, NOW)
                return message_id

            if there in MOVES[here]:
                message_id = await store.write(work)
                assert await store.read(lambda tx, m=message_id: tx.messages.state(m)) is there  # type: ignore[misc]
            else:
                with pytest.raises(ConflictError):
                    await store.write(work)


async def test_the_first_state_is_received(store: Store) -> None:
    def work(tx: UnitOfWork) -> None:
        message_id = new_id(NOW)
        tx.messages.add_raw(message_id, NOW, inbound())
        tx.messages.set_state(message_id, State.FILED, NOW)

    with pytest.raises(ConflictError):
        await store.write(work)


async def test_the_newest_verdict_counts_and_holds_the_evidence(store: Store) -> None:
    def work(tx: UnitOfWork) -> str:
        message_id = received(tx)
        tx.messages.add_verdict(message_id, NOW, rejected())
        tx.messages.add_verdict(message_id, NOW, accepted(ALICE))
        return message_id

    message_id = await store.write(work)
    verdict = await store.read(lambda tx: tx.messages.verdict(message_id))
    assert verdict is not None
    assert (verdict["verdict"], verdict["reason"], verdict["policy_version"]) == ("accepted", "ok", "1")
    assert verdict["trust"][0]["recipient"] == ALICE
    assert verdict["signer"]["identity"] == SENDER
    assert verdict["checks"] == [{"name": "signature", "outcome": "passed", "detail": ""}]
    assert len(verdict["certificates"]) == 2
    assert "content" not in verdict


async def test_content_is_for_accepted_messages_only(store: Store) -> None:
    message_id = await store.write(received)
    with pytest.raises(NotFoundError):
        await store.read(lambda tx: tx.messages.content(message_id))
    with pytest.raises(ConflictError):
        await store.write(lambda tx: tx.messages.add_content(message_id, rejected()))


async def test_adding_the_same_content_again_changes_nothing_and_other_content_is_refused(store: Store) -> None:
    message_id = await store.write(lambda tx: unwrapped(tx, b"raw", ALICE, content=b"one"))
    await store.write(lambda tx: tx.messages.add_content(message_id, accepted(ALICE, content=b"one")))
    with pytest.raises(ConflictError):
        await store.write(lambda tx: tx.messages.add_content(message_id, accepted(ALICE, content=b"two")))
    found = await store.read(lambda tx: tx.messages.content(message_id))
    assert (found.content, found.delivered_to, found.sender, found.subject) == (b"one", (ALICE,), SENDER, "Referral")


async def test_lists_page_newest_first_and_filter_by_state(store: Store) -> None:
    def work(tx: UnitOfWork) -> list[str]:
        ids = []
        for number in range(7):
            message_id = new_id(NOW + timedelta(seconds=number))
            tx.messages.add_raw(message_id, NOW, inbound(b"%d" % number))
            tx.messages.set_state(message_id, State.RECEIVED, NOW)
            if number % 2:
                tx.messages.add_verdict(message_id, NOW, rejected(Reason.EXPIRED))
                tx.messages.set_state(message_id, State.REFUSED, NOW)
            ids.append(message_id)
        return ids[::-1]

    ids = await store.write(work)
    pages = []
    before = None
    while page := await store.read(lambda tx, b=before: tx.messages.newest(limit=3, before=b)):  # type: ignore[misc]
        pages.append([m.id for m in page])
        before = page[-1].id
    assert pages == [ids[:3], ids[3:6], ids[6:]]
    refused = await store.read(lambda tx: tx.messages.newest(states=[State.REFUSED]))
    assert [m.id for m in refused] == ids[1::2]
    assert {(m.state, m.reason, m.sender, m.claimed_sender) for m in refused} == {
        (State.REFUSED, "expired", "", SENDER)
    }


async def test_hostile_text_is_kept_readable(store: Store) -> None:
    """Lone surrogates and NUL come out of damaged headers; no database takes them."""

    def work(tx: UnitOfWork) -> str:
        message_id = received(tx)
        judgement = replace(accepted(ALICE), subject="a\ud800b\0c", sender="x\udcff@y.example")
        tx.messages.add_verdict(message_id, NOW, judgement)
        tx.messages.add_content(message_id, judgement)
        return message_id

    message_id = await store.write(work)
    found = await store.read(lambda tx: tx.messages.content(message_id))
    assert found.subject == "a\ufffdb\ufffdc"


@pytest.mark.parametrize("lookup", ["raw", "state", "content"])
async def test_unknown_messages_are_not_found(store: Store, lookup: str) -> None:
    with pytest.raises(NotFoundError):
        await store.read(lambda tx: getattr(tx.messages, lookup)("0" * 26))


# --- jobs ---


async def test_an_open_job_is_not_asked_for_twice(store: Store) -> None:
    def twice(tx: UnitOfWork) -> None:
        tx.jobs.enqueue(JobKind.UNWRAP, "m")
        tx.jobs.enqueue(JobKind.UNWRAP, "m")
        tx.jobs.enqueue(JobKind.FILE, "m")

    await store.write(twice)
    claimed = await store.write(lambda tx: tx.jobs.claim(60, 10))
    assert [(job.kind, job.attempt) for job in claimed] == [(JobKind.UNWRAP, 1), (JobKind.FILE, 1)]
    await store.write(lambda tx: tx.jobs.enqueue(JobKind.UNWRAP, "m"))
    assert await store.write(lambda tx: tx.jobs.claim(60, 10)) == []


async def test_claims_exclude_each_other(store: Store) -> None:
    def fill(tx: UnitOfWork) -> None:
        for number in range(50):
            tx.jobs.enqueue(JobKind.FILE, f"m{number}")

    await store.write(fill)
    claims = await asyncio.gather(*(store.write(lambda tx: tx.jobs.claim(60, 7)) for _ in range(10)))
    ids = [job.id for claim in claims for job in claim]
    assert len(ids) == len(set(ids)) == 50


async def test_a_job_is_not_due_before_its_time(store: Store, clock: SteadyClock) -> None:
    await store.write(lambda tx: tx.jobs.enqueue(JobKind.FILE, "m"))
    clock.advance(-10)
    assert await store.write(lambda tx: tx.jobs.claim(60, 10)) == []
    clock.advance(10)
    assert len(await store.write(lambda tx: tx.jobs.claim(60, 10))) == 1


async def test_a_worker_whose_lease_ran_out_can_touch_nothing(store: Store, clock: SteadyClock) -> None:
    """F10: a frozen worker wakes up after its job was handed to another."""
    await store.write(lambda tx: tx.jobs.enqueue(JobKind.FILE, "m"))
    [old] = await store.write(lambda tx: tx.jobs.claim(5, 10))
    clock.advance(5)
    [new] = await store.write(lambda tx: tx.jobs.claim(5, 10))
    assert (new.id, new.attempt, new.lost) == (old.id, 2, 1)
    assert not await store.write(lambda tx: tx.jobs.finish(old))
    assert not await store.write(lambda tx: tx.jobs.fail(old, "x", None))
    assert not await store.write(lambda tx: tx.jobs.renew(old, 60))
    assert await store.write(lambda tx: tx.jobs.finish(new))
    assert not await store.write(lambda tx: tx.jobs.finish(new))


async def test_a_job_of_the_same_name_is_safe_from_workers_of_the_former(store: Store) -> None:
    await store.write(lambda tx: tx.jobs.enqueue(JobKind.FILE, "m"))
    [old] = await store.write(lambda tx: tx.jobs.claim(5, 10))
    assert await store.write(lambda tx: tx.jobs.finish(old))
    await store.write(lambda tx: tx.jobs.enqueue(JobKind.FILE, "m"))
    [new] = await store.write(lambda tx: tx.jobs.claim(5, 10))
    assert new.attempt == old.attempt
    assert not await store.write(lambda tx: tx.jobs.finish(old))


async def test_a_renewed_lease_is_not_handed_out(store: Store, clock: SteadyClock) -> None:
    await store.write(lambda tx: tx.jobs.enqueue(JobKind.FILE, "m"))
    [job] = await store.write(lambda tx: tx.jobs.claim(5, 10))
    clock.advance(4)
    assert await store.write(lambda tx: tx.jobs.renew(job, 5))
    clock.advance(4)
    assert await store.write(lambda tx: tx.jobs.claim(5, 10)) == []
    clock.advance(1)
    assert len(await store.write(lambda tx: tx.jobs.claim(5, 10))) == 1


async def test_a_failed_job_comes_again_and_poison_only_when_asked_for(store: Store, clock: SteadyClock) -> None:
    await store.write(lambda tx: tx.jobs.enqueue(JobKind.FILE, "m"))
    [job] = await store.write(lambda tx: tx.jobs.claim(5, 10))
    assert await store.write(lambda tx: tx.jobs.fail(job, "E", timedelta(seconds=30)))
    clock.advance(29)
    assert await store.write(lambda tx: tx.jobs.claim(5, 10)) == []
    clock.advance(1)
    [job] = await store.write(lambda tx: tx.jobs.claim(5, 10))
    assert (job.attempt, job.lost) == (2, 0)
    assert await store.write(lambda tx: tx.jobs.fail(job, "E", None))
    clock.advance(365 * 86_400)
    assert await store.write(lambda tx: tx.jobs.claim(5, 10)) == []
    await store.write(lambda tx: tx.jobs.enqueue(JobKind.FILE, "m"))
    [again] = await store.write(lambda tx: tx.jobs.claim(5, 10))
    assert again.attempt == 1


async def test_a_suspect_is_handed_out_alone(store: Store, clock: SteadyClock) -> None:
    """F30: the job that kills the process must be told from those that ran beside it."""
    await store.write(lambda tx: tx.jobs.enqueue(JobKind.FILE, "suspect"))
    await store.write(lambda tx: tx.jobs.claim(5, 10))
    for subject, seconds in (("first", -1), ("last", 1)):
        clock.time = NOW + timedelta(seconds=seconds)
        await store.write(lambda tx, subject=subject: tx.jobs.enqueue(JobKind.FILE, subject))  # type: ignore[misc]
    clock.time = NOW + timedelta(seconds=10)
    claims = [await store.write(lambda tx: tx.jobs.claim(60, 10)) for _ in range(4)]
    assert [[job.subject for job in claim] for claim in claims] == [["first"], ["suspect"], ["last"], []]


# --- mailboxes ---


async def test_uids_and_modseq_strictly_ascend(store: Store) -> None:
    def work(tx: UnitOfWork) -> tuple[int, list[int | None]]:
        mailbox = tx.mailboxes.create("alice", NOW, [ALICE])
        ids = [unwrapped(tx, b"%d" % n) for n in range(5)]
        return mailbox, [tx.mailboxes.add(mailbox, m, f"{n:064d}", indexed(), NOW) for n, m in enumerate(ids)]

    mailbox, uids = await store.write(work)
    assert uids == [1, 2, 3, 4, 5]
    entries = await store.read(lambda tx: tx.mailboxes.entries(mailbox))
    modseqs = [entry.modseq for entry in entries]
    assert modseqs == sorted(set(modseqs))
    found = await store.read(lambda tx: tx.mailboxes.get(mailbox))
    assert (found.uid_next, found.highest_modseq) == (6, modseqs[-1])
    assert 0 < found.uid_validity < 2**32
    assert [e.uid for e in await store.read(lambda tx: tx.mailboxes.entries(mailbox, after_uid=3))] == [4, 5]


async def test_a_unit_that_fails_leaves_no_gap_that_a_later_uid_would_fill_backwards(store: Store) -> None:
    mailbox = await store.write(lambda tx: tx.mailboxes.create("alice", NOW, [ALICE]))
    ids = await store.write(lambda tx: [unwrapped(tx, b"%d" % n) for n in range(3)])

    def file(number: int) -> Callable[[UnitOfWork], int | None]:
        def unit(tx: UnitOfWork) -> int | None:
            uid = tx.mailboxes.add(mailbox, ids[number], f"{number:064d}", indexed(), NOW)
            if number == 1:
                raise ValueError
            return uid

        return unit

    results = await asyncio.gather(*(store.write(file(n)) for n in range(3)), return_exceptions=True)
    assert results[0] == 1
    assert isinstance(results[1], ValueError)
    assert results[2] == 2


async def test_a_mailbox_takes_a_content_and_a_message_once(store: Store) -> None:
    """F14: the sender encrypted the same message again."""

    def work(tx: UnitOfWork) -> list[int | None]:
        one, two = tx.mailboxes.create("one", NOW, [ALICE]), tx.mailboxes.create("two", NOW, [ALICE])
        first, second = unwrapped(tx, b"1"), unwrapped(tx, b"2")
        return [
            tx.mailboxes.add(one, first, "a" * 64, indexed(), NOW),
            tx.mailboxes.add(one, second, "a" * 64, indexed(), NOW),
            tx.mailboxes.add(one, first, "b" * 64, indexed(), NOW),
            tx.mailboxes.add(two, second, "a" * 64, indexed(), NOW),
        ]

    assert await store.write(work) == [1, None, None, 1]


async def test_an_address_may_reach_several_mailboxes_and_a_name_is_taken_once(store: Store) -> None:
    def work(tx: UnitOfWork) -> list[int]:
        return [tx.mailboxes.create("one", NOW, [ALICE, BOB, ALICE]), tx.mailboxes.create("two", NOW, [ALICE])]

    ids = await store.write(work)
    assert await store.read(lambda tx: tx.mailboxes.for_recipient(ALICE)) == ids
    assert await store.read(lambda tx: tx.mailboxes.for_recipient(BOB)) == ids[:1]
    assert await store.read(lambda tx: tx.mailboxes.for_recipient(SENDER)) == []
    with pytest.raises(ConflictError):
        await store.write(lambda tx: tx.mailboxes.create("one", NOW, []))


async def test_flags_are_replaced_and_one_change_has_one_modseq(store: Store) -> None:
    def fill(tx: UnitOfWork) -> int:
        mailbox = tx.mailboxes.create("alice", NOW, [ALICE])
        for n in range(3):
            tx.mailboxes.add(mailbox, unwrapped(tx, b"%d" % n), f"{n:064d}", indexed(), NOW)
        return mailbox

    mailbox = await store.write(fill)
    before = (await store.read(lambda tx: tx.mailboxes.get(mailbox))).highest_modseq
    seen = frozenset({"\\Seen", "$Forwarded"})
    modseq = await store.write(lambda tx: tx.mailboxes.set_flags(mailbox, {1: seen, 3: frozenset({"\\Flagged"})}))
    assert modseq == before + 1
    changed = await store.read(lambda tx: tx.mailboxes.flags(mailbox, before))
    assert rows_of(changed) == [(1, seen, modseq), (3, frozenset({"\\Flagged"}), modseq)]
    assert await store.write(lambda tx: tx.mailboxes.set_flags(mailbox, {1: seen, 99: seen})) == modseq
    await store.write(lambda tx: tx.mailboxes.set_flags(mailbox, {1: frozenset()}))
    assert (await store.read(lambda tx: tx.mailboxes.entries(mailbox)))[0].flags == frozenset()


def rows_of(columns: FlagColumns) -> list[tuple[int, frozenset[str], int]]:
    """UID, flags and MODSEQ of each message."""
    return list(zip(columns.uids, columns.flags, columns.modseqs, strict=True))


@pytest.mark.parametrize("page", [1, 2, 3, 7, 8, 1_000])
async def test_flags_come_as_columns_by_uid_in_pages_of_any_length(
    store: Store, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailbox_columns, "PAGE_ROWS", page)

    def fill(tx: UnitOfWork) -> list[int]:
        boxes = [tx.mailboxes.create(name, NOW, []) for name in ("one", "two", "empty")]
        for n in range(7):
            for mailbox in boxes[:2]:
                tx.mailboxes.add(mailbox, unwrapped(tx, b"%d %d" % (mailbox, n)), f"{n:064d}", indexed(), NOW)
        return boxes

    one, two, empty = await store.write(fill)
    both, seen = frozenset({"k", "\\Seen"}), frozenset({"\\Seen"})
    await store.write(lambda tx: tx.mailboxes.set_flags(one, {5: both, 2: seen}))
    await store.write(lambda tx: tx.mailboxes.set_flags(one, {1: both}))
    await store.write(lambda tx: tx.mailboxes.set_flags(two, {3: seen}))
    entries = await store.read(lambda tx: tx.mailboxes.entries(one))
    found = await store.read(lambda tx: tx.mailboxes.flags(one))
    assert rows_of(found) == [(entry.uid, entry.flags, entry.modseq) for entry in entries]
    assert [uid for uid, flags, _ in rows_of(found) if flags] == [1, 2, 5]
    assert found.flags[0] is found.flags[4]
    assert rows_of(await store.read(lambda tx: tx.mailboxes.flags(empty))) == []
    # Seven messages, then two changes: those after the sixth message are the seventh and the changed ones, by UID.
    since = await store.read(lambda tx: tx.mailboxes.flags(one, entries[5].modseq))
    assert [uid for uid, _, _ in rows_of(since)] == [1, 2, 5, 7]
    highest = (await store.read(lambda tx: tx.mailboxes.get(one))).highest_modseq
    assert rows_of(await store.read(lambda tx: tx.mailboxes.flags(one, highest))) == []


async def test_what_never_changes_is_read_by_a_range_of_uids(store: Store) -> None:
    dates = [NOW + timedelta(days=n) for n in range(4)]
    sizes = [7, 2**33, 0, 11]

    def fill(tx: UnitOfWork) -> tuple[int, int, list[str]]:
        one, two = tx.mailboxes.create("one", NOW, []), tx.mailboxes.create("two", NOW, [])
        ids = [unwrapped(tx, b"%d" % n) for n in range(4)]
        for n, message_id in enumerate(ids):
            index = replace(indexed(), size_bytes=sizes[n], sent_at=None if n == 1 else dates[0])
            tx.mailboxes.add(one, message_id, f"{n:064d}", index, dates[n])
        tx.mailboxes.add(two, ids[3], "a" * 64, indexed(), NOW)
        return one, two, ids

    one, two, ids = await store.write(fill)
    found = await store.read(lambda tx: tx.mailboxes.filed(one, 2, 3))
    assert found == [FiledMessage(2, 2**33, dates[1], None), FiledMessage(3, 0, dates[2], dates[0])]
    assert await store.read(lambda tx: tx.mailboxes.filed(two, 2, 9)) == []
    for after, last in ((0, 4), (0, 1), (1, 3), (3, 4), (4, 4), (4, 9)):
        total = await store.read(lambda tx, a=after, z=last: tx.mailboxes.size_bytes(one, a, z))  # type: ignore[misc]
        assert total == sum(sizes[after:last])
    assert [await store.read(lambda tx, n=n: tx.mailboxes.message_id(one, n)) for n in (1, 4)] == [ids[0], ids[3]]  # type: ignore[misc]
    assert await store.read(lambda tx: tx.mailboxes.message_id(two, 1)) == ids[3]
    with pytest.raises(NotFoundError):
        await store.read(lambda tx: tx.mailboxes.message_id(two, 2))


async def test_stored_answers_and_bytes_come_back_by_uid(store: Store) -> None:
    content = b"Subject: Laborbefund \r\n\r\n" + bytes(range(256))

    def work(tx: UnitOfWork) -> int:
        mailbox = tx.mailboxes.create("alice", NOW, [ALICE])
        message_id = unwrapped(tx, b"raw", ALICE, content=content)
        digest = tx.messages.content(message_id).content_sha256
        tx.mailboxes.add(mailbox, message_id, digest, indexed(), NOW)
        return mailbox

    mailbox = await store.write(work)
    answers = replace(indexed(), search_headers="", search_text="")
    assert await store.read(lambda tx: tx.mailboxes.indexed(mailbox, [1, 2])) == {1: answers}
    assert await store.read(lambda tx: tx.mailboxes.contents(mailbox, [1, 2])) == {1: content}


async def test_search_ignores_case_and_takes_every_character_as_it_is(store: Store) -> None:
    headers = "Subject: 100% Straße_x\r\nFrom: Dr. Ä <a@b.example>\r\nX-Folded: one\r\n two"

    def work(tx: UnitOfWork) -> int:
        mailbox = tx.mailboxes.create("alice", NOW, [ALICE])
        first = indexed(headers.encode() + b"\r\n\r\nThe body")
        second = indexed(b"Subject: 1000 other\r\n\r\nfrom: nobody")
        tx.mailboxes.add(mailbox, unwrapped(tx, b"1"), "1" * 64, first, NOW)
        tx.mailboxes.add(mailbox, unwrapped(tx, b"2"), "2" * 64, second, NOW)
        return mailbox

    mailbox = await store.write(work)

    async def text(needle: str, *, headers: bool, body: bool) -> set[int]:
        return await store.read(lambda tx: tx.mailboxes.search_text(mailbox, needle, headers=headers, body=body))

    async def header(name: str, needle: str) -> set[int]:
        return await store.read(lambda tx: tx.mailboxes.search_header(mailbox, name, needle))

    assert await text("100%", headers=True, body=True) == {1}
    assert await text("STRASSE_", headers=True, body=False) == {1}
    assert await text("the BODY", headers=True, body=False) == set()
    assert await text("the BODY", headers=False, body=True) == {1}
    assert await text("subject", headers=True, body=True) == {1, 2}
    assert await header("From", "Ä") == {1}
    assert await header("from", "nobody") == set()
    assert await header("Subject", "other") == {2}
    assert await header("FROM", "") == {1}
    assert await header("x-folded", "two") == {1}
    assert await header("ject", "") == set()


# --- accounts ---


async def test_logins_are_unique_without_regard_to_case(store: Store) -> None:
    account = await store.write(lambda tx: tx.accounts.add("Alice", "hash", NOW))
    found = await store.read(lambda tx: tx.accounts.by_login("aLICE"))
    assert found is not None
    assert (found.id, found.password_hash) == (account, "hash")
    assert await store.read(lambda tx: tx.accounts.by_login("bob")) is None
    with pytest.raises(ConflictError):
        await store.write(lambda tx: tx.accounts.add("ALICE", "other", NOW))


async def test_the_newest_grant_of_a_folder_counts(store: Store) -> None:
    def work(tx: UnitOfWork) -> int:
        account = tx.accounts.add("alice", "hash", NOW)
        first, second = tx.mailboxes.create("1", NOW, []), tx.mailboxes.create("2", NOW, [])
        tx.accounts.grant(account, "INBOX", first, "lrs")
        tx.accounts.grant(account, "Team", second, "lr")
        tx.accounts.grant(account, "INBOX", first, "lrsw")
        tx.accounts.grant(account, "Team", second, "")
        return account

    account = await store.write(work)
    folders = await store.read(lambda tx: tx.accounts.folders(account))
    assert [(folder.name, folder.rights) for folder in folders] == [("INBOX", "lrsw")]


# --- patients ---


async def test_upsert_counts_what_changed_and_the_newest_version_counts(store: Store) -> None:
    assert await store.write(lambda tx: tx.patients.upsert([patient(1), patient(2)], "csv", NOW)) == 2
    assert await store.write(lambda tx: tx.patients.upsert([patient(1), patient(2)], "csv", NOW)) == 0
    changed = patient(2, family="Meier", direct_addresses=())
    assert await store.write(lambda tx: tx.patients.upsert([patient(1), changed], "csv", NOW)) == 1
    assert await store.read(lambda tx: tx.patients.get("P2")) == changed
    with pytest.raises(NotFoundError):
        await store.read(lambda tx: tx.patients.get("P3"))


async def test_an_address_is_shared_while_two_patients_document_it(store: Store) -> None:
    """S42: a shared address never links by itself."""
    await store.write(lambda tx: tx.patients.upsert([patient(1), patient(2, active=False)], "fhir", NOW))
    book = await store.read(lambda tx: tx.patients.address_book(SENDER))
    assert [(e.patient_id, e.shared, e.confirmed, e.source) for e in book] == [
        ("P1", True, True, "fhir"),
        ("P2", True, True, "fhir"),
    ]
    assert await store.read(lambda tx: tx.patients.shared([SENDER, BOB])) == {SENDER}
    assert await store.read(lambda tx: tx.patients.shared([])) == set()
    await store.write(lambda tx: tx.patients.upsert([patient(2, direct_addresses=(BOB,))], "csv", NOW))
    assert await store.read(lambda tx: tx.patients.shared([SENDER, BOB])) == set(), "an older version does not count"
    book = await store.read(lambda tx: tx.patients.address_book(SENDER))
    assert [(e.patient_id, e.shared) for e in book] == [("P1", False)]
    await store.write(lambda tx: tx.patients.upsert([patient(1, direct_addresses=())], "csv", NOW))
    assert await store.read(lambda tx: tx.patients.address_book(SENDER)) == []


async def test_an_import_may_keep_the_addresses_that_are_documented(store: Store) -> None:
    def keep(tx: UnitOfWork) -> int:
        given = [patient(1, family="Meier", direct_addresses=()), patient(3, direct_addresses=(BOB,))]
        return tx.patients.upsert(given, "csv", NOW, keep_addresses=True)

    await store.write(lambda tx: tx.patients.upsert([patient(1)], "fhir", NOW))
    assert await store.write(keep) == 2
    assert await store.write(keep) == 0
    assert await store.read(lambda tx: tx.patients.get("P1")) == patient(1, family="Meier")
    assert [e.patient_id for e in await store.read(lambda tx: tx.patients.address_book(SENDER))] == ["P1"]
    assert await store.read(lambda tx: tx.patients.get("P3")) == patient(3, direct_addresses=(BOB,))


async def test_patients_are_found_by_any_of_their_words(store: Store) -> None:
    many = [patient(n, given=f"Given{n:02d}", direct_addresses=(f"p{n}@x.example",)) for n in range(20)]
    await store.write(lambda tx: tx.patients.upsert(many, "csv", NOW))

    async def ids(text: str, limit: int = 50, offset: int = 0) -> list[str]:
        found = await store.read(lambda tx: tx.patients.search(text=text, limit=limit, offset=offset))
        return [p.id for p in found]

    assert await ids("given07 MÜLLER") == ["P7"]
    assert await ids("P13@X.example") == ["P13"]
    assert await ids("mrn15") == ["P15"]
    assert await ids("%") == []
    assert await ids("", limit=3, offset=2) == ["P2", "P3", "P4"]


async def test_a_large_import_is_one_unit(store: Store) -> None:
    many = [patient(n, direct_addresses=(f"p{n}@x.example",)) for n in range(1500)]
    assert await store.write(lambda tx: tx.patients.upsert(many, "csv", NOW)) == 1500
    assert len(await store.read(lambda tx: tx.patients.search(limit=2000))) == 1500


# --- links ---


async def test_links_are_kept_once_and_receipts_by_importer(store: Store) -> None:
    def work(tx: UnitOfWork) -> Link:
        tx.patients.upsert([patient(1), patient(2)], "csv", NOW)
        link = Link(new_id(NOW), unwrapped(tx), "P1", "manual", "user", "by hand", NOW)
        tx.links.add(link)
        tx.links.add(link)
        tx.links.add_receipt(link.id, "folder", "first", NOW)
        tx.links.add_receipt(link.id, "folder", "second", NOW)
        return link

    link = await store.write(work)
    assert await store.read(lambda tx: tx.links.get(link.id)) == link
    assert await store.read(lambda tx: tx.links.for_message(link.message_id)) == [link]
    assert await store.read(lambda tx: tx.links.for_patient("P1")) == [link]
    assert await store.read(lambda tx: tx.links.receipts(link.id)) == {"folder": "first"}
    assert (await store.read(lambda tx: tx.messages.newest()))[0].patient_ids == ("P1",)
    same_pair = replace(link, id=new_id(NOW))
    other_patient = replace(link, patient_id="P2")
    for conflicting in (same_pair, other_patient):
        with pytest.raises(ConflictError):
            await store.write(lambda tx, new=conflicting: tx.links.add(new))  # type: ignore[misc]
    for missing in (replace(same_pair, patient_id="P9"), replace(same_pair, message_id="0" * 26)):
        with pytest.raises(NotFoundError):
            await store.write(lambda tx, new=missing: tx.links.add(new))  # type: ignore[misc]
    with pytest.raises(NotFoundError):
        await store.read(lambda tx: tx.links.get("nothing"))
