"""Filing and linking at once: the same rows as step by step, and the separate steps for whatever goes wrong."""

from __future__ import annotations

import ast
import contextlib
import itertools
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from gateway.core.errors import NotFoundError, StoreError
from gateway.core.lifecycle import JobKind, State
from gateway.core.link_policy import LinkPolicy
from gateway.core.message import Envelope, Inbound
from gateway.core.verdict import Judgement
from gateway.pipeline import onward as onward_module
from gateway.pipeline.accept import Accept
from gateway.pipeline.file import FileMessage
from gateway.pipeline.hand_over import HandOver
from gateway.pipeline.link import LinkMessage
from gateway.pipeline.onward import Onward
from gateway.pipeline.unwrap import ISOLATE_AFTER, Unwrap
from gateway.ports import IndexedMessage, Job, UnitOfWork
from gateway.settings import JobSettings
from gateway.store.sql_store import SQLStore
from gateway.weighing import Weighing
from gateway.workers.pool import WorkerPool
from tests.support.store_samples import (
    ALICE,
    BOB,
    InProcess,
    PlainIndexer,
    RecordingFeed,
    ScriptedAgent,
    SteadyClock,
    accepted,
    inbound,
    open_store,
    patient,
    rejected,
)

T = TypeVar("T")
IN_VIEWS = (
    "SELECT e.mailbox_id, e.of_uid, e.view FROM view_entry e LEFT JOIN view_exit x "
    "ON x.mailbox_id = e.mailbox_id AND x.view = e.view AND x.uid = e.uid WHERE x.uid IS NULL ORDER BY 1, 2"
)
TABLES = (
    "raw_message", "raw_recipient", "message_state", "verdict", "message_content", "content_recipient", "message_index",
    "mailbox_message", "mailbox_flag", "mailbox_counter", "link", "quarantine",
)  # fmt: skip


@dataclass(frozen=True)
class Linking:
    """What the practice lets link by itself."""

    policy: LinkPolicy = field(default_factory=LinkPolicy)
    assigners: tuple[str, ...] = ()


class Works:
    """The pipeline on one store, with a pool; ``at_once`` as the daemon has it, or every step by itself."""

    def __init__(
        self,
        store: SQLStore,
        clock: SteadyClock,
        *,
        at_once: bool = True,
        hand_over: bool = True,
        linking: Linking = Linking(),
    ) -> None:
        """``clock`` is that of the store as well."""
        self.store = store
        self.clock = clock
        self.agent = ScriptedAgent()
        self.feed = RecordingFeed()
        self.indexer: Any = PlainIndexer()
        self.hand_over = HandOver() if hand_over else None
        self.executor = ThreadPoolExecutor(2)
        ids = map("01M{:023d}".format, itertools.count(1))
        links = map("link-{:03d}".format, itertools.count(1))
        self.accept = Accept(store, self.clock, lambda: next(ids), lambda: None, hand_over=self.hand_over)
        weighing = Weighing(store.read_blocking, linking.assigners)
        self.link = LinkMessage(store, self.clock, lambda: next(links), self.feed, weighing, policy=linking.policy)
        self.file = FileMessage(store, self, self.clock, self.feed)
        self.isolated = InProcess(self.agent)
        self.unwrap = Unwrap(
            store,
            self.agent,
            self.clock,
            self.executor,
            self.isolated,
            hand_over=self.hand_over,
            onward=Onward(self, self.link, self.feed) if at_once else None,
        )
        self.done: list[tuple[JobKind, int, bool]] = []
        """Kind, attempt and answer of every step that ended well."""

    def index(self, content: bytes) -> IndexedMessage:
        indexed: IndexedMessage = self.indexer.index(content)
        return indexed

    def with_fields(self, indexed: IndexedMessage, fields: bytes) -> IndexedMessage:
        found: IndexedMessage = self.indexer.with_fields(indexed, fields)
        return found

    def mailbox(self, name: str, *addresses: str) -> int:
        return self.store.write_blocking(lambda tx: tx.mailboxes.create(name, self.clock.now(), addresses))

    def claim(self, seconds: float = 300) -> list[Job]:
        return self.store.write_blocking(lambda tx: tx.jobs.claim(seconds, 10))

    async def work(self) -> None:
        """Run what is due, as the daemon does, but for the imports."""

        def watched(step: Callable[[Job], Any]) -> Callable[[Job], Any]:
            async def run(job: Job) -> bool:
                follows = await step(job)
                self.done.append((job.kind, job.attempt, follows))
                return bool(follows)

            return run

        steps: dict[JobKind, Any] = {JobKind.UNWRAP: self.unwrap, JobKind.FILE: self.file, JobKind.LINK: self.link}
        watching = {kind: watched(step) for kind, step in steps.items()}
        pool = WorkerPool(self.store, self.clock, watching, JobSettings(), lambda: 1.0, concurrency=4)
        await pool.drain()

    async def run(self, message: Inbound) -> str:
        message_id = await self.accept(message)
        await self.work()
        return message_id

    def state(self, message_id: str) -> State:
        return self.store.read_blocking(lambda tx: tx.messages.state(message_id))

    def ask(self, query: str) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self.store.path)) as other:
            return [list(row) for row in other.execute(query)]

    def jobs(self) -> list[list[Any]]:
        return self.ask("SELECT kind, state FROM job WHERE kind <> 'import'")

    def everything(self) -> dict[str, Any]:
        """What is on the disk, without what is sealed, and the events with what they answer for."""
        found: dict[str, Any] = {table: self.ask(f"SELECT * FROM {table} ORDER BY 1, 2") for table in TABLES}  # noqa: S608 - our names
        # A step of its own is a change of its own: MODSEQs rise further, and a view may have been left again.
        found["mailbox_flag"] = self.ask("SELECT mailbox_id, uid, flags FROM mailbox_flag ORDER BY 1, 2")
        found["mailbox_counter"] = self.ask("SELECT mailbox_id, uid_next FROM mailbox_counter ORDER BY 1")
        found["views"] = self.ask(IN_VIEWS)
        found["import"] = self.ask("SELECT subject FROM job WHERE kind = 'import'")
        found["bodies"] = self.ask("SELECT message_id, kind, position FROM body_part ORDER BY 1, 2, 3")
        found["events"] = self.ask(
            "SELECT action, subject, detail, actor, at FROM audit_event WHERE action <> 'rows.written' ORDER BY seq"
        )
        found["broken"] = self.store.read_blocking(_first_broken)
        # A link has an id that nobody foresees: here its number among the links that were made.
        order = {row[0]: f"link {number}" for number, row in enumerate(found["link"])}
        text = repr(found)
        for link_id, name in order.items():
            text = text.replace(link_id, name)
        renamed: dict[str, Any] = ast.literal_eval(text)
        return renamed


def _first_broken(tx: UnitOfWork) -> int | None:
    broken: int | None = tx.audit.first_broken()  # type: ignore[attr-defined]
    return broken


@contextlib.contextmanager
def works(folder: Path, **options: Any) -> Iterator[Works]:
    folder.mkdir(exist_ok=True)
    clock = SteadyClock()
    with open_store(folder, clock=clock) as store:
        made = Works(store, clock, **options)
        yield made
        made.executor.shutdown()


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Works]:
    with works(tmp_path / "line") as made:
        yield made


async def scene(made: Works) -> dict[str, Any]:
    """A message that is linked, one without a patient, a copy, a refused one, one for two people, one without a box."""
    made.mailbox("alice", ALICE)
    made.mailbox("team", ALICE, BOB)
    made.store.write_blocking(lambda tx: tx.patients.upsert([patient()], "test", made.clock.now()))
    await made.run(inbound(b"one", ALICE))
    made.agent.answer = lambda _, envelope: replace(
        accepted(*envelope.recipients, content=b"Subject: b\r\n\r\nb\r\n"), sender="other@partner.example"
    )
    await made.run(inbound(b"two", ALICE, BOB))
    await made.run(inbound(b"a copy of two", BOB))
    made.agent.answer = lambda *_: rejected()
    await made.run(inbound(b"three", ALICE))
    made.agent.answer = lambda _, envelope: accepted(*envelope.recipients, content=b"Subject: d\r\n\r\nd\r\n")
    await made.run(inbound(b"four", ALICE, "nobody@direct.practice.example"))
    return made.everything()


async def test_at_once_or_step_by_step_the_same_is_on_the_disk(tmp_path: Path) -> None:
    with works(tmp_path / "a") as at_once, works(tmp_path / "b", at_once=False, hand_over=False) as one_by_one:
        found, wanted = await scene(at_once), await scene(one_by_one)
        assert found == wanted
        assert found["broken"] is None
        assert [event[0] for event in found["events"]][:4] == [
            "message.received", "message.accepted", "message.filed", "message.linked",
        ]  # fmt: skip
        assert len(found["link"]) == 2
        assert [flags for _, _, flags in found["mailbox_flag"]] == [
            "$DirectLinked $DirectVerified", "$DirectNeedsReview $DirectVerified", "$DirectLinked $DirectVerified",
        ] * 2  # fmt: skip
        assert [view for _, _, view in found["views"]] == ["linked", "unlinked", "linked"] * 2
        assert at_once.ask("SELECT view FROM view_entry WHERE of_uid = 1") == [["linked"]] * 2, "and no other before"
        # And it was not step by step: two claims of a first job less for every message that met no fault.
        assert [kind for kind, _, _ in at_once.done[:4]] == [JobKind.UNWRAP] * 4
        assert len(one_by_one.done) > len(at_once.done)


async def test_a_message_goes_to_its_inbox_in_one_transaction(line: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    box = line.mailbox("alice", ALICE)
    message_id = await line.accept(inbound(b"raw", ALICE))
    [job] = line.claim()
    writes = 0
    write = line.store.write

    async def counted(work: Any, **options: Any) -> Any:
        nonlocal writes
        writes += 1
        return await write(work, **options)

    async def none(_: Any) -> Any:
        raise AssertionError("what was just accepted need not be read")

    monkeypatch.setattr(line.store, "write", counted)
    monkeypatch.setattr(line.store, "read", none)
    assert await line.unwrap(job) is False
    assert writes == 1
    assert line.state(message_id) is State.FILED
    assert line.jobs() == []
    assert line.feed.mailboxes == [box]


async def test_a_link_is_made_at_once_and_its_import_follows(line: Works) -> None:
    line.mailbox("alice", ALICE)
    line.store.write_blocking(lambda tx: tx.patients.upsert([patient()], "test", line.clock.now()))
    message_id = await line.accept(inbound(b"raw", ALICE))
    [job] = line.claim()
    assert await line.unwrap(job) is True
    assert line.state(message_id) is State.LINKED
    [link] = line.store.read_blocking(lambda tx: tx.links.for_message(message_id))
    assert line.ask("SELECT kind, subject FROM job") == [["import", link.id]]


async def test_without_a_mailbox_the_content_is_kept_and_filing_has_its_own_job(line: Works) -> None:
    message_id = await line.accept(inbound(b"raw", ALICE))
    [job] = line.claim()
    assert await line.unwrap(job) is True
    assert line.state(message_id) is State.UNWRAPPED
    assert line.jobs() == [["file", "ready"]]
    [filing] = line.claim()
    with pytest.raises(NotFoundError):
        await line.file(filing)
    assert line.ask("SELECT count(*) FROM audit_event WHERE action = 'message.no_mailbox'") == [[1]]


@pytest.mark.parametrize("where", ["index", "file", "link", "feed"])
async def test_what_fails_on_the_way_neither_undoes_nor_blocks_the_keeping(
    line: Works, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The content is there after the second attempt, and the fault belongs to the job of its step."""
    line.mailbox("alice", ALICE)

    def fault(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a fault")

    with monkeypatch.context() as broken:
        if where == "index":
            broken.setattr(line.indexer, "index", fault)
        elif where == "file":
            broken.setattr("gateway.store.mailboxes.Mailboxes.add", fault)
        elif where == "link":
            broken.setattr("gateway.store.patients.Patients.address_book", fault)
        else:
            broken.setattr(line.feed, "changed", fault)
        message_id = await line.run(inbound(b"raw", ALICE))
        if where != "feed":
            # All of it was undone, the end of the job as well: nothing is half done.
            assert line.state(message_id) is State.RECEIVED
            assert line.ask("SELECT count(*) FROM message_content") == [[0]]
            assert line.jobs() == [["unwrap", "ready"]]
            line.clock.advance(2)
            await line.work()
            assert line.ask("SELECT count(*) FROM message_content") == [[1]]
            assert line.jobs() == [["link" if where == "link" else "file", "ready"]]
    line.clock.advance(10)
    await line.work()
    assert line.state(message_id) is State.FILED
    assert line.jobs() == []
    assert line.ask("SELECT count(*) FROM mailbox_message") == [[1]]


async def test_a_commit_that_fails_leaves_the_message_as_it_was(line: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    box = line.mailbox("alice", ALICE)
    message_id = await line.accept(inbound(b"raw", ALICE))
    [job] = line.claim()

    def fail(_: Any) -> None:
        error = sqlite3.OperationalError("x")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(line.store._writer_engine.dialect, "do_commit", fail)
        with pytest.raises(StoreError):
            await line.unwrap(job)
    assert line.state(message_id) is State.RECEIVED
    assert line.feed.mailboxes == []
    assert await line.unwrap(job) is False
    assert line.feed.mailboxes == [box]


async def test_a_worker_that_lost_its_lease_files_nothing(line: Works) -> None:
    """F10: the machine was frozen between the judgement and the commit."""
    line.mailbox("alice", ALICE)
    message_id = await line.accept(inbound(b"raw", ALICE))
    [old] = line.claim()
    line.clock.advance(301)
    [new] = line.claim()
    with pytest.raises(StoreError, match="lease"):
        await line.unwrap(old)
    assert line.state(message_id) is State.RECEIVED
    assert line.ask("SELECT count(*) FROM mailbox_message") == [[0]]
    assert await line.unwrap(new) is True
    assert line.jobs() == [["file", "ready"]]


async def test_a_message_that_was_met_before_takes_the_separate_steps(line: Works) -> None:
    """A process that died while it judged or indexed: whatever it was, it must not be met together again."""
    line.mailbox("alice", ALICE)
    for lost in range(1, ISOLATE_AFTER + 1):
        message_id = await line.accept(inbound(b"raw %d" % lost, ALICE))
        for _ in range(lost):
            assert len(line.claim(1)) == 1
            line.clock.advance(2)
        [job] = line.claim()
        assert job.lost == lost
        assert await line.unwrap(job) is True
        assert line.state(message_id) is State.UNWRAPPED
        await line.work()
        assert line.state(message_id) is State.FILED
    assert line.isolated.asked == 1


async def test_a_large_message_takes_the_separate_steps(line: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onward_module, "AT_ONCE_BYTES", 10)
    line.mailbox("alice", ALICE)
    await line.run(inbound(b"0123456789", ALICE))
    line.agent.answer = lambda _, envelope: accepted(*envelope.recipients, content=b"Subject: b\r\n\r\nb\r\n")
    await line.run(inbound(b"0123456789a", ALICE))
    kinds = [kind for kind, _, _ in line.done]
    assert kinds == [JobKind.UNWRAP, JobKind.UNWRAP, JobKind.FILE, JobKind.LINK]


def _accepting(content: bytes, _: bytes, envelope: Envelope) -> Judgement:
    return accepted(*envelope.recipients, content=content)


async def test_a_message_that_is_not_handed_over_or_damaged_is_read(tmp_path: Path) -> None:
    with works(tmp_path / "a") as made:
        assert made.hand_over is not None
        box = made.mailbox("alice", ALICE)
        for number, damage in enumerate((None, b"another message")):
            raw = b"raw %d" % number
            content = b"Subject: %d\r\n\r\nx\r\n" % number
            made.agent.answer = partial(_accepting, content)
            message_id = await made.accept(inbound(raw, ALICE))
            handed = made.hand_over.take(message_id)
            assert handed is not None
            if damage is not None:
                made.hand_over.offer(replace(handed, body=damage))
            await made.work()
            assert made.agent.judged[-1] == raw
            assert made.state(message_id) is State.FILED
        assert len(made.store.read_blocking(lambda tx: tx.mailboxes.entries(box))) == 2


async def test_what_was_handed_over_is_not_believed_against_the_rows(line: Works) -> None:
    """The message does not wait to be judged any more: the rows say so, and nothing is written."""
    line.mailbox("alice", ALICE)
    message_id = await line.accept(inbound(b"raw", ALICE))
    at = line.clock.now()
    line.store.write_blocking(lambda tx: tx.messages.set_state(message_id, State.REFUSED, at, "by somebody else"))
    await line.work()
    assert line.state(message_id) is State.REFUSED
    assert line.ask("SELECT count(*) FROM message_content") == [[0]]
    line.clock.advance(2)
    await line.work()
    assert line.jobs() == []
    assert line.agent.judged == [b"raw"]
