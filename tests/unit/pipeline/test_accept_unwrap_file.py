"""The steps accept, unwrap and file on a real store: what each leaves behind, and what a crash leaves (F06)."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import pytest

from gateway.core.errors import ConflictError, InputError, NotFoundError, StoreError
from gateway.core.lifecycle import JobKind, State
from gateway.core.verdict import Judgement, Reason
from gateway.pipeline.accept import Accept
from gateway.pipeline.file import FileMessage, refile
from gateway.pipeline.unwrap import ISOLATE_AFTER, QUARANTINE, Unwrap, requeue_all_refused, requeue_refused
from gateway.ports import Job, MailboxEntry, UnitOfWork
from gateway.store.ids import new_id
from gateway.store.sql_store import SQLStore
from tests.support.store_samples import (
    ALICE,
    BOB,
    SENDER,
    InProcess,
    PlainIndexer,
    RecordingFeed,
    ScriptedAgent,
    SteadyClock,
    accepted,
    inbound,
    open_store,
    rejected,
)

PROJECT = Path(__file__).resolve().parents[3]
T = TypeVar("T")


class Line:
    """The three steps on one store, run by hand."""

    def __init__(self, store: SQLStore, clock: SteadyClock) -> None:
        """``clock`` is that of the store as well."""
        self.store = store
        self.clock = clock
        self.agent = ScriptedAgent()
        self.feed = RecordingFeed()
        self.woken = 0
        self.executor = ThreadPoolExecutor(2)
        self.accept = Accept(store, self.clock, lambda: new_id(self.clock.now()), self.wake)
        self.isolated = InProcess(self.agent)
        self.unwrap = Unwrap(store, self.agent, self.clock, self.executor, self.isolated)
        self.file = FileMessage(store, PlainIndexer(), self.clock, self.feed)

    def wake(self) -> None:
        self.woken += 1

    def read(self, work: Callable[[UnitOfWork], T]) -> T:
        return self.store.read_blocking(work)

    def mailbox(self, name: str, *addresses: str) -> int:
        return self.store.write_blocking(lambda tx: tx.mailboxes.create(name, self.clock.now(), addresses))

    def claim(self) -> list[Job]:
        return self.store.write_blocking(lambda tx: tx.jobs.claim(300, 10))

    async def step(self) -> list[JobKind]:
        """Claim what is due and run unwrap and file; return the kinds that were claimed."""
        jobs = self.claim()
        for job in jobs:
            if job.kind is JobKind.UNWRAP:
                await self.unwrap(job)
            elif job.kind is JobKind.FILE:
                await self.file(job)
        return [job.kind for job in jobs]

    def state(self, message_id: str) -> State:
        return self.read(lambda tx: tx.messages.state(message_id))

    def inbox(self, mailbox: int) -> list[MailboxEntry]:
        return self.read(lambda tx: tx.mailboxes.entries(mailbox))

    def audit(self) -> list[tuple[str, str]]:
        """Action and subject of every audit row."""
        with sqlite3.connect(self.store.path) as other:
            rows: list[tuple[str, str]] = other.execute(
                "SELECT action, subject FROM audit_event WHERE action <> 'rows.written' ORDER BY seq"
            ).fetchall()
        other.close()
        return rows

    def counts(self) -> dict[str, int]:
        with sqlite3.connect(self.store.path) as other:
            names = ("raw_message", "wrapped_key", "message_content", "mailbox_message", "job")
            found = {name: other.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names}  # noqa: S608
        other.close()
        return found


@pytest.fixture
async def line(tmp_path: Path) -> AsyncIterator[Line]:
    clock = SteadyClock()
    with open_store(tmp_path, clock=clock) as store:
        made = Line(store, clock)
        yield made
        made.executor.shutdown()


# --- accept ---


async def test_accept_keeps_raw_state_job_and_audit_together(line: Line) -> None:
    message = inbound(b"raw", ALICE.upper(), BOB, ALICE)
    message_id = await line.accept(message)
    raw = line.read(lambda tx: tx.messages.raw(message_id))
    assert (raw.body, raw.recipients, raw.mail_from) == (b"raw", (ALICE, BOB), SENDER)
    assert line.state(message_id) is State.RECEIVED
    assert [(job.kind, job.subject) for job in line.claim()] == [(JobKind.UNWRAP, message_id)]
    assert line.audit() == [("message.received", message_id)]
    assert line.woken == 1


async def test_a_replay_gets_the_same_id_and_is_judged_once(line: Line) -> None:
    """F13: the client saw no reply and sends again, three times, before and after the judgement."""
    box = line.mailbox("alice", ALICE)
    first = await line.accept(inbound(b"raw", ALICE))
    assert await line.accept(inbound(b"raw", ALICE)) == first
    await line.step()
    assert await line.accept(inbound(b"raw", ALICE)) == first
    await line.step()
    assert await line.accept(inbound(b"raw", ALICE.upper())) == first
    assert JobKind.UNWRAP not in await line.step()
    assert line.agent.judged == [b"raw"]
    assert len(line.inbox(box)) == 1
    assert [action for action, _ in line.audit()].count("message.duplicate") == 3


async def test_replays_at_the_same_moment_are_one_message(line: Line) -> None:
    ids = await asyncio.gather(*(line.accept(inbound(b"raw", ALICE)) for _ in range(20)))
    assert len(set(ids)) == 1
    assert line.counts()["raw_message"] == 1


async def test_only_the_recipients_who_have_not_had_it_get_the_new_row(line: Line) -> None:
    first = await line.accept(inbound(b"raw", ALICE))
    second = await line.accept(inbound(b"raw", ALICE, BOB))
    assert second != first
    assert line.read(lambda tx: tx.messages.raw(second)).recipients == (BOB,)


async def test_a_message_without_a_proper_recipient_is_refused(line: Line) -> None:
    message = inbound()
    nobody = replace(message, envelope=replace(message.envelope, recipients=()))
    for bad in (nobody, inbound(b"raw", "not an address")):
        with pytest.raises(InputError):
            await line.accept(bad)
    assert line.counts()["raw_message"] == 0


async def test_a_client_that_leaves_does_not_undo_the_commit(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """F15, finding 3."""
    dialect = line.store._writer_engine.dialect
    commit = dialect.do_commit
    loop, committing, go = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def slow(connection: Any) -> None:
        loop.call_soon_threadsafe(committing.set)
        asyncio.run_coroutine_threadsafe(go.wait(), loop).result(10)
        commit(connection)

    monkeypatch.setattr(dialect, "do_commit", slow)
    session = asyncio.create_task(line.accept(inbound(b"raw", ALICE)))
    await committing.wait()
    session.cancel()
    with pytest.raises(asyncio.CancelledError):
        await session
    go.set()
    again = await line.accept(inbound(b"raw", ALICE))
    assert line.counts()["raw_message"] == 1
    assert line.state(again) is State.RECEIVED
    assert line.woken == 2


async def test_a_commit_that_fails_is_no_acceptance(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> None:
        error = sqlite3.OperationalError("x")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(line.store._writer_engine.dialect, "do_commit", fail)
        with pytest.raises(StoreError):
            await line.accept(inbound())
    assert line.counts()["raw_message"] == line.counts()["job"] == 0


# --- unwrap ---


async def test_an_accepted_message_has_verdict_content_and_file_job(line: Line) -> None:
    message_id = await line.accept(inbound(b"raw", ALICE))
    await line.step()
    assert line.state(message_id) is State.UNWRAPPED
    assert line.read(lambda tx: tx.messages.content(message_id)).delivered_to == (ALICE,)
    verdict = line.read(lambda tx: tx.messages.verdict(message_id))
    assert verdict is not None
    assert verdict["reason"] == "ok"
    assert [job.kind for job in line.claim()] == [JobKind.FILE]


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.OK])
async def test_a_rejected_message_is_quarantined_with_its_reason(line: Line, reason: Reason) -> None:
    box = line.mailbox("alice", ALICE)
    line.agent.answer = lambda *_: rejected(reason)
    message_id = await line.accept(inbound(b"raw", ALICE))
    await line.step()
    assert await line.step() == []
    [summary] = line.read(lambda tx: tx.messages.newest(states=[State.REFUSED]))
    assert (summary.id, summary.reason, summary.delivered_to) == (message_id, reason.value, ())
    assert line.inbox(box) == []
    with pytest.raises(NotFoundError):
        line.read(lambda tx: tx.messages.content(message_id))
    assert line.audit()[-1] == ("message.refused", message_id)


CONTRADICTIONS: dict[str, Callable[[], Judgement]] = {
    "accepted without content": lambda: replace(accepted(ALICE), content=None),
    "accepted for nobody": lambda: replace(accepted(ALICE), delivered_to=()),
    "accepted for somebody who was not asked for": lambda: accepted(ALICE, BOB),
    "accepted for one whose anchors refuse": lambda: replace(accepted(ALICE), trust=()),
    "rejected with content": lambda: replace(rejected(), content=b"secret"),
    "rejected but delivered": lambda: replace(rejected(), delivered_to=(ALICE,)),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
async def test_a_judgement_that_contradicts_itself_delivers_nothing(line: Line, case: str) -> None:
    line.agent.answer = lambda *_: CONTRADICTIONS[case]()
    message_id = await line.accept(inbound(b"raw", ALICE))
    with pytest.raises(ConflictError, match="contradicts itself"):
        await line.step()
    assert line.state(message_id) is State.RECEIVED
    assert line.counts()["message_content"] == 0


async def test_an_exception_of_the_agent_is_no_rejection(line: Line) -> None:
    def broken(raw: bytes, envelope: object) -> Judgement:
        raise RuntimeError

    line.agent.answer = broken
    message_id = await line.accept(inbound(b"raw", ALICE))
    with pytest.raises(RuntimeError):
        await line.step()
    assert line.state(message_id) is State.RECEIVED
    assert line.read(lambda tx: tx.messages.verdict(message_id)) is None
    assert line.counts()["job"] == 1


async def test_a_worker_that_lost_its_lease_writes_nothing(line: Line) -> None:
    """F10."""
    message_id = await line.accept(inbound(b"raw", ALICE))
    [old] = line.claim()
    line.clock.advance(301)
    [new] = line.claim()
    with pytest.raises(StoreError, match="lease"):
        await line.unwrap(old)
    assert line.state(message_id) is State.RECEIVED
    await line.unwrap(new)
    with pytest.raises(StoreError, match="lease"):
        await line.unwrap(new)
    assert line.state(message_id) is State.UNWRAPPED
    assert line.counts()["message_content"] == 1


async def test_a_refused_message_can_be_judged_again_after_a_repair(line: Line) -> None:
    box = line.mailbox("alice", ALICE)
    line.agent.answer = lambda *_: rejected()
    message_id = await line.accept(inbound(b"raw", ALICE))
    await line.step()
    line.agent.answer = lambda _, envelope: accepted(*envelope.recipients)
    await requeue_refused(line.store, line.clock, message_id, "user")
    with pytest.raises(ConflictError):
        await requeue_refused(line.store, line.clock, message_id, "user")
    await line.step()
    await line.step()
    assert line.state(message_id) is State.FILED
    assert len(line.inbox(box)) == 1


async def test_many_refused_messages_are_judged_again_and_others_left_alone(line: Line) -> None:
    line.mailbox("alice", ALICE)
    line.agent.answer = lambda *_: rejected()
    refused = [await line.accept(inbound(b"raw %d" % number, ALICE)) for number in range(3)]
    while await line.step():
        pass
    refused.sort()
    assert line.read(lambda tx: tx.quarantine.ids()) == refused
    line.agent.answer = lambda _, envelope: accepted(*envelope.recipients)
    other = await line.accept(inbound(b"another", ALICE))
    await requeue_refused(line.store, line.clock, refused[0], "somebody else")
    assert await requeue_all_refused(line.store, line.clock, [*refused, other], "user") == refused[1:]
    assert line.read(lambda tx: tx.quarantine.ids()) == []
    with pytest.raises(NotFoundError):
        await requeue_all_refused(line.store, line.clock, ["nobody"], "user")
    while await line.step():
        pass
    assert {line.state(message_id) for message_id in (*refused, other)} <= {State.FILED, State.LINKED}


async def test_the_quarantine_names_the_reason_of_the_newest_refusal(line: Line) -> None:
    line.agent.answer = lambda *_: rejected(Reason.EXPIRED)
    message_id = await line.accept(inbound(b"raw", ALICE))
    await line.step()
    line.agent.answer = lambda *_: rejected(Reason.REVOKED)
    await requeue_refused(line.store, line.clock, message_id, "user")
    await line.step()
    assert [(c.reason, c.count) for c in line.read(lambda tx: tx.quarantine.counts())] == [("revoked", 1)]


async def test_set_aside_quarantines_by_name_and_the_message_can_be_run_again(line: Line) -> None:
    message_id = await line.accept(inbound(b"raw", ALICE))
    [job] = line.claim()

    def poison(tx: UnitOfWork) -> None:
        tx.jobs.fail(job, "E", None)
        line.unwrap.set_aside(tx, job, line.clock.now(), "ValueError at parser.py:7")

    line.store.write_blocking(poison)
    assert line.state(message_id) is State.REFUSED
    verdict = line.read(lambda tx: tx.messages.verdict(message_id))
    assert verdict is not None
    assert verdict["detail"].startswith(QUARANTINE)
    await requeue_refused(line.store, line.clock, message_id, "user")
    assert await line.step() == [JobKind.UNWRAP]
    assert line.state(message_id) is State.UNWRAPPED


# --- file ---


async def test_filing_reaches_every_mailbox_of_the_recipients_and_asks_for_linking(line: Line) -> None:
    alice, team, other = line.mailbox("alice", ALICE), line.mailbox("team", ALICE, BOB), line.mailbox("other", SENDER)
    message_id = await line.accept(inbound(b"raw", ALICE, BOB))
    await line.step()
    await line.step()
    assert line.state(message_id) is State.FILED
    assert [len(line.inbox(box)) for box in (alice, team, other)] == [1, 1, 0]
    assert sorted(line.feed.mailboxes) == sorted([alice, team])
    assert [(job.kind, job.subject) for job in line.claim()] == [(JobKind.LINK, message_id)]


async def test_only_recipients_who_trust_the_signer_are_served(line: Line) -> None:
    """AS-56..58: trust is decided for each recipient."""
    alice, bob = line.mailbox("alice", ALICE), line.mailbox("bob", BOB)
    line.agent.answer = lambda *_: accepted(BOB)
    await line.accept(inbound(b"raw", ALICE, BOB))
    await line.step()
    await line.step()
    assert [len(line.inbox(box)) for box in (alice, bob)] == [0, 1]


async def test_the_same_message_under_another_encryption_is_shown_and_linked_once(line: Line) -> None:
    """F14: both raws kept, shown once."""
    box = line.mailbox("alice", ALICE)
    first = await line.accept(inbound(b"ciphertext one", ALICE))
    second = await line.accept(inbound(b"ciphertext two", ALICE))
    await line.step()
    await line.step()
    assert line.counts()["wrapped_key"] == 2
    assert [entry.message_id for entry in line.inbox(box)] == [first]
    assert line.state(second) is State.FILED
    assert [job.subject for job in line.claim()] == [first]
    summaries = {m.id: m.reason for m in line.read(lambda tx: tx.messages.newest())}
    assert summaries == {first: "ok", second: "duplicate"}


async def test_a_recipient_without_a_mailbox_is_a_named_fault_and_others_are_served(line: Line) -> None:
    alice = line.mailbox("alice", ALICE)
    message_id = await line.accept(inbound(b"raw", ALICE, BOB))
    await line.step()
    with pytest.raises(NotFoundError, match="no mailbox"):
        await line.step()
    assert ("message.no_mailbox", message_id) in line.audit()
    assert len(line.inbox(alice)) == 1
    assert line.state(message_id) is State.FILED
    assert line.feed.mailboxes == [alice]
    line.clock.advance(301)
    bob = line.mailbox("bob", BOB)
    assert await line.step() == [JobKind.FILE]
    assert await line.step() == [JobKind.LINK]
    assert await line.step() == []
    assert [len(line.inbox(box)) for box in (alice, bob)] == [1, 1]


async def test_a_message_nobody_has_a_mailbox_for_stays_unfiled_until_it_can_be(line: Line) -> None:
    message_id = await line.accept(inbound(b"raw", BOB))
    await line.step()
    [job] = line.claim()
    with pytest.raises(NotFoundError):
        await line.file(job)
    assert line.state(message_id) is State.UNWRAPPED
    line.store.write_blocking(lambda tx: tx.jobs.fail(job, "E", None))
    assert line.claim() == []
    bob = line.mailbox("bob", BOB)
    await refile(line.store, line.clock, message_id, "user")
    await line.step()
    assert line.state(message_id) is State.FILED
    assert len(line.inbox(bob)) == 1


async def test_the_hint_comes_after_the_commit(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    box = line.mailbox("alice", ALICE)
    seen: list[int] = []
    monkeypatch.setattr(line.feed, "changed", lambda mailbox: seen.append(len(line.inbox(mailbox))))
    await line.accept(inbound(b"raw", ALICE))
    await line.step()
    await line.step()
    assert seen == [1]
    assert len(line.inbox(box)) == 1


async def test_the_index_is_what_the_indexer_said(line: Line) -> None:
    box = line.mailbox("alice", ALICE)
    content = b"Subject: Befund\r\n\r\nText"
    line.agent.answer = lambda _, envelope: accepted(*envelope.recipients, content=content)
    await line.accept(inbound(b"raw", ALICE))
    await line.step()
    await line.step()
    answers = replace(PlainIndexer().index(content), search_headers="", search_text="")
    assert line.read(lambda tx: tx.mailboxes.indexed(box, [1])) == {1: answers}
    assert line.read(lambda tx: tx.mailboxes.search_text(box, "TEXT", headers=False, body=True)) == {1}
    assert line.read(lambda tx: tx.mailboxes.contents(box, [1])) == {1: content}


# --- crashes ---


class Crash(BaseException):
    """The process dies here."""


@pytest.mark.parametrize(("first", "second"), list(product(range(3), repeat=2)))
async def test_two_crashes_anywhere_end_as_if_there_were_none(tmp_path: Path, first: int, second: int) -> None:
    """F06: 0 = the process ends after the step's transaction, 1 = before it, 2 = within it."""

    def unit_that_crashes(work: Callable[[UnitOfWork], T]) -> Callable[[UnitOfWork], T]:
        def unit(tx: UnitOfWork) -> T:
            work(tx)
            raise Crash

        return unit

    async def run(line: Line, step: Any, job: Job, where: int) -> None:
        store_write = line.store.write
        if where == 1:
            return
        if where == 2:
            vars(line.store)["write"] = lambda work: store_write(unit_that_crashes(work))
            with pytest.raises(Crash):
                await step(job)
            return
        await step(job)

    clock = SteadyClock()
    with open_store(tmp_path, clock=clock) as store:
        line = Line(store, clock)
        box = line.mailbox("alice", ALICE)
        message_id = await line.accept(inbound(b"raw", ALICE))
    crashes = {JobKind.UNWRAP: first, JobKind.FILE: second}
    for _ in range(6):
        with open_store(tmp_path, daemon=True, clock=clock) as store:
            line = Line(store, clock)
            for job in line.claim():
                if job.kind in crashes:
                    step = line.unwrap if job.kind is JobKind.UNWRAP else line.file
                    await run(line, step, job, crashes[job.kind])
                    crashes[job.kind] = 0
            line.executor.shutdown()
    with open_store(tmp_path, clock=clock) as store:
        line = Line(store, clock)
        assert line.state(message_id) is State.FILED
        assert [entry.uid for entry in line.inbox(box)] == [1]
        actions = [action for action, _ in line.audit()]
        assert actions == ["message.received", "message.accepted", "message.filed"]
        # What is left is the link job alone: leased by the last round, or lost too often to be asked for.
        assert line.counts() == {
            "raw_message": 1,
            "wrapped_key": 1,
            "message_content": 1,
            "mailbox_message": 1,
            "job": 1,
        }


ACCEPT_CHILD = """
import asyncio, sys
from pathlib import Path
from gateway.pipeline.accept import Accept
from gateway.store.ids import new_id
from tests.support.store_samples import ALICE, NOW, SteadyClock, inbound, open_store

async def main():
    store = open_store(Path(sys.argv[1]), daemon=True)
    accept = Accept(store, SteadyClock(), lambda: new_id(NOW), lambda: None)
    async def sender(name):
        number = 0
        while True:
            number += 1
            message_id = await accept(inbound(b"%d/%d" % (name, number) + bytes(20000), ALICE))
            print(message_id, flush=True)
    await asyncio.gather(*(sender(name) for name in range(8)))

asyncio.run(main())
"""


def killed_while_accepting(folder: Path, acknowledgements: int) -> list[str]:
    """Run the child, kill it after so many acknowledgements, and return all that it gave."""
    acknowledged: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-c", ACCEPT_CHILD, str(folder)], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.endswith("\n"):
                acknowledged.append(line.strip())
            if len(acknowledged) == acknowledgements:
                child.kill()
        assert child.wait() == -signal.SIGKILL
    return acknowledged


def test_what_was_acknowledged_before_kill_9_is_there_with_its_job(tmp_path: Path) -> None:
    """F01: acknowledged is a subset of stored, and every stored message has its job, over three lives.

    Each life begins with the messages of the one before it (F13), so an id that changed would show as well.
    """
    acknowledged: set[str] = set()
    for count in (3, 40, 90):
        acknowledged |= set(killed_while_accepting(tmp_path, count))
    assert 90 <= len(acknowledged) < 133
    with open_store(tmp_path, daemon=True) as store, sqlite3.connect(store.path) as database:
        stored = {row[0] for row in database.execute("SELECT message_id FROM message_state WHERE state = 'received'")}
        jobs = {row[0] for row in database.execute("SELECT subject FROM job WHERE kind = 'unwrap'")}
        assert acknowledged <= stored
        assert stored == jobs
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        for message_id in acknowledged:
            assert len(store.read_blocking(lambda tx, m=message_id: tx.messages.raw(m)).body) > 20000  # type: ignore[misc]
    database.close()


async def test_a_damaged_body_is_an_error_and_never_shown(line: Line) -> None:
    """F32: bit rot is an alert, not a message."""
    box = line.mailbox("alice", ALICE)
    message_id = await line.accept(inbound(b"raw", ALICE))
    await line.step()
    await line.step()
    with sqlite3.connect(line.store.path) as other:
        other.execute("DROP TRIGGER body_part_no_update")
        other.execute("UPDATE body_part SET sealed = zeroblob(length(sealed))")
    other.close()
    for damaged in (
        lambda tx: tx.messages.raw(message_id),
        lambda tx: tx.messages.content(message_id),
        lambda tx: tx.mailboxes.contents(box, [1]),
    ):
        with pytest.raises(StoreError, match=f"{message_id} is damaged"):
            line.read(damaged)


async def test_a_message_that_was_lost_with_its_process_is_judged_in_another(tmp_path: Path) -> None:
    """F30: only a process of its own can tell a message that kills from a process that was killed."""
    clock = SteadyClock()
    with open_store(tmp_path, clock=clock) as store:
        line = Line(store, clock)
        line.mailbox("alice", ALICE)
        await line.accept(inbound(b"raw", ALICE))
        for _ in range(ISOLATE_AFTER):
            assert line.isolated.asked == 0
            line.claim()
            line.clock.advance(301)
        [job] = line.claim()
        await line.unwrap(job)
        assert line.isolated.asked == 1
