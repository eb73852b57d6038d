"""Statements that go to PostgreSQL several at once: in order, all or none, with the errors that they always had."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, bindparam, select, text
from sqlalchemy.exc import IntegrityError

from gateway.core.errors import ConflictError, StoreUnavailableError
from gateway.core.lifecycle import JobKind, State
from gateway.ports import UnitOfWork
from gateway.settings import StoreSettings
from gateway.store import group_memory, postgresql_pipeline
from gateway.store.postgresql_pipeline import MOST_BYTES, Pipeline
from gateway.store.prepared import Prepared
from gateway.store.running import PIPELINE
from gateway.store.sql_store import SQLStore
from gateway.store.tables import bundle_status
from tests.support.body_keys import sealer_in
from tests.support.postgresql import shared_cluster
from tests.support.store_samples import ALICE, NOW, accepted, inbound, indexed, open_store, rejected
from tests.support.stores import together

Work = Callable[[UnitOfWork], Any]
ADD = Prepared.into(bundle_status)
NAMES = Prepared(select(bundle_status.c.name).order_by(bundle_status.c.name))
ALARM = Prepared(select(bundle_status.c.alarm).where(bundle_status.c.name == bindparam("wanted")))
SECRET = "jane.doe@patients.example"


@pytest.fixture
def settings() -> StoreSettings:
    return shared_cluster().settings()


@pytest.fixture
def store(settings: StoreSettings, tmp_path: Path) -> Iterator[SQLStore]:
    with SQLStore.open(settings, sealer_in(tmp_path)) as opened:
        yield opened


def connection_of(rows: UnitOfWork) -> Connection:
    connection: Connection = rows.jobs._connection  # type: ignore[attr-defined]
    return connection


def later(rows: UnitOfWork, name: str, alarm: str = "") -> None:
    ADD.later(connection_of(rows), name=name, last_attempt=None, last_success=None, error="", alarm=alarm)


def names(store: SQLStore) -> list[str]:
    return store.read_blocking(lambda rows: NAMES.scalars(connection_of(rows)))


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many statements went with each wait for an answer."""
    counted: list[int] = []
    exchange = Pipeline._exchange

    def count(self: Pipeline, batch: list[Any]) -> Any:
        counted.append(len(batch))
        return exchange(self, batch)

    monkeypatch.setattr(Pipeline, "_exchange", count)
    return counted


# --- order, and errors ---


def test_what_waits_goes_with_the_next_question_in_order(store: SQLStore, waits: list[int]) -> None:
    def unit(rows: UnitOfWork) -> list[str]:
        later(rows, "b")
        later(rows, "a")
        assert waits == []
        found = NAMES.scalars(connection_of(rows))
        later(rows, "c")
        return found

    assert store.write_blocking(unit) == ["a", "b"]
    # The savepoint, two rows and the question; the third row and the end of the savepoint.
    assert waits == [4, 2]
    assert names(store) == ["a", "b", "c"]


@pytest.mark.parametrize("ask", ["prepared", "sqlalchemy", "nothing"])
def test_a_failure_that_comes_late_fails_its_unit_and_no_other(store: SQLStore, ask: str) -> None:
    """The text of the error names neither the value nor the key (promise 6)."""

    def twice(rows: UnitOfWork) -> None:
        later(rows, SECRET)
        later(rows, SECRET)
        if ask == "prepared":
            NAMES.scalars(connection_of(rows))
        elif ask == "sqlalchemy":
            connection_of(rows).execute(text("SELECT 1"))

    first, second, third = together(store, lambda r: later(r, "a"), twice, lambda r: later(r, "b"))
    assert (first, third) == (None, None)
    assert isinstance(second, ConflictError)
    chain: BaseException | None = second
    while chain is not None:
        assert SECRET not in f"{chain} {chain.args}"
        chain = chain.__cause__ or chain.__context__
    assert names(store) == ["a", "b"]


def test_the_statement_that_failed_is_the_one_that_is_named(store: SQLStore) -> None:
    with store._writer_engine.connect() as connection:
        connection.begin()
        for _ in range(2):
            # The first one begins the transaction, which the driver does; what follows waits.
            ADD.later(connection, name="a", last_attempt=None, last_success=None, error="", alarm="")
        with pytest.raises(IntegrityError) as caught:
            ALARM.scalar(connection, wanted="a")
        assert "INSERT INTO bundle_status" in str(caught.value)


def test_a_unit_that_raises_leaves_nothing_that_waited(store: SQLStore, waits: list[int]) -> None:
    def gives_up(rows: UnitOfWork) -> None:
        later(rows, "x")
        raise LookupError

    assert isinstance(together(store, gives_up, lambda r: later(r, "a"))[0], LookupError)
    assert names(store) == ["a"]
    # Of the first the savepoint and its end alone were sent: three texts.
    assert 3 in waits


def test_a_failed_statement_that_nobody_heard_of_is_not_committed(store: SQLStore) -> None:
    def swallows(rows: UnitOfWork) -> str:
        later(rows, "x")
        later(rows, "x")
        try:
            NAMES.scalars(connection_of(rows))
        except IntegrityError:
            return "it seems to work"
        return ""

    assert isinstance(together(store, swallows, lambda r: later(r, "a"))[0], Exception)
    assert names(store) == ["a"]


def test_a_session_that_ends_while_statements_wait_fails_the_group_and_the_next_one_works(store: SQLStore) -> None:
    def cut(rows: UnitOfWork) -> None:
        later(rows, "b")
        shared_cluster().sql(
            "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity "
            "WHERE application_name LIKE 'direct-gateway %'"
        )
        later(rows, "c")

    found = together(store, lambda r: later(r, "a"), cut, lambda r: later(r, "d"))
    assert all(isinstance(one, StoreUnavailableError) for one in found)
    assert names(store) == []
    store.write_blocking(lambda rows: later(rows, "e"))
    assert names(store) == ["e"]


# --- values and sizes ---


@pytest.mark.parametrize("alarm", ["", "plain", "gäteway ✉", "100 % %(name)s $1 ? :x", "\\x41", "'; --", "a\0b \ud800"])
def test_texts_arrive_as_they_are(store: SQLStore, alarm: str) -> None:
    store.write_blocking(lambda rows: later(rows, "a", alarm))
    stored = store.read_blocking(lambda rows: ALARM.scalar(connection_of(rows), wanted="a"))
    assert stored == alarm.replace("\0", "\ufffd").replace("\ud800", "\ufffd")


def test_what_waits_is_bounded_and_more_than_the_socket_takes_gets_through(
    store: SQLStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of a large body are not gathered in memory; and neither side stops listening while it talks."""
    most = 0
    take = Pipeline._take

    def watched(self: Pipeline) -> Any:
        nonlocal most
        most = max(most, self._unsent_bytes)
        return take(self)

    monkeypatch.setattr(Pipeline, "_take", watched)
    large = inbound(b"x" * 9_000_000)

    def unit(rows: UnitOfWork) -> None:
        rows.messages.add_raw("0" * 26, NOW, large)
        rows.messages.set_state("0" * 26, State.RECEIVED, NOW)
        for number in range(200):
            later(rows, f"n{number}", "y" * 20_000)

    store.write_blocking(unit)
    assert store.read_blocking(lambda rows: rows.messages.raw("0" * 26)).body == b"x" * 9_000_000
    assert MOST_BYTES < most <= MOST_BYTES + (2 << 20)


def test_a_batch_larger_than_any_buffer_does_not_hang(store: SQLStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql_pipeline, "MOST_BYTES", 1 << 30)

    def unit(rows: UnitOfWork) -> int:
        for number in range(400):
            later(rows, f"n{number}", "y" * 50_000)
        return len(NAMES.scalars(connection_of(rows)))

    assert store.write_blocking(unit) == 400


# --- what else happens on the session ---


def test_a_statement_is_prepared_anew_when_a_table_was_altered(store: SQLStore) -> None:
    """Also when the alteration was rolled back. "cached plan must not change result type" would fail mail."""

    def unit(_rows: UnitOfWork) -> None:
        later(_rows, "a")

    every = Prepared(select(bundle_status))
    store.write_blocking(unit)
    with store._writer_engine.connect() as connection:
        for end in ("rollback", "commit"):
            connection.execute(text("SELECT 1"))
            assert every.first(connection).alarm == ""
            connection.execute(text("ALTER TABLE bundle_status ALTER COLUMN alarm TYPE varchar(77)"))
            assert every.first(connection).alarm == ""
            getattr(connection, end)()
            connection.execute(text("SELECT 1"))
            assert every.first(connection).alarm == ""
            connection.rollback()


def test_the_driver_finds_the_connection_as_it_left_it(store: SQLStore) -> None:
    with store._writer_engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        assert NAMES.scalars(connection) == []
        driver: Any = connection.connection.dbapi_connection
        assert driver.pgconn.pipeline_status == 0
        assert driver.execute("SELECT 7").fetchone() == (7,)
        assert connection.info[PIPELINE] is not None


def test_readers_have_no_pipeline(store: SQLStore) -> None:
    """Their transactions begin with the first statement, in their own isolation, which the driver sees to."""
    with store._reader_engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        assert PIPELINE not in connection.info


# --- what a message costs ---


def test_a_message_is_taken_in_judged_and_filed_with_few_waits(store: SQLStore, waits: list[int]) -> None:
    """Each wait is one while nobody else's mail is taken in. There were fifty; this keeps them from coming back."""
    mailbox = store.write_blocking(lambda rows: rows.mailboxes.create("alice", NOW, [ALICE]))

    def arrive(rows: UnitOfWork, message: str) -> None:
        delivery = inbound(message.encode())
        assert rows.messages.find_transport_duplicate(delivery, ALICE) is None
        rows.messages.add_raw(message, NOW, delivery)
        rows.messages.set_state(message, State.RECEIVED, NOW)
        rows.jobs.enqueue(JobKind.UNWRAP, message)
        rows.audit.add(NOW, "gateway", "message.received", message)

    def judge(rows: UnitOfWork, message: str) -> None:
        judgement = accepted(content=message.encode() + b"\r\n\r\n")
        rows.messages.add_verdict(message, NOW, judgement)
        rows.messages.add_content(message, judgement)
        rows.messages.set_state(message, State.UNWRAPPED, NOW)
        rows.audit.add(NOW, "gateway", "message.accepted", message)
        rows.mailboxes.add(mailbox, message, judgement.content_sha256, indexed(), NOW)
        rows.messages.set_state(message, State.FILED, NOW)
        rows.audit.add(NOW, "gateway", "message.filed", message)

    # The first brings the certificates, the second sees them, and from the third on they are known.
    for number in range(3):
        message = f"{number:026}"
        waits.clear()
        store.write_blocking(lambda rows, message=message: arrive(rows, message))  # type: ignore[misc]
        store.write_blocking(lambda rows, message=message: judge(rows, message))  # type: ignore[misc]
    # Duplicate? The key; the head of the chain and the end. How it stands; the key; the mailbox; the head, the end.
    assert len(waits) <= 9
    assert store.read_blocking(lambda rows: rows.audit.first_broken()) is None  # type: ignore[attr-defined]


# --- what units of a group tell one another ---


@pytest.fixture(params=["postgresql", "sqlite"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SQLStore]:
    if request.param == "postgresql":
        yield request.getfixturevalue("store")
        return
    with open_store(tmp_path) as opened:
        yield opened


def test_a_unit_that_is_undone_leaves_no_gap_in_the_chain(any_store: SQLStore) -> None:
    def audited(number: int, *, fails: bool = False) -> Work:
        def unit(rows: UnitOfWork) -> None:
            rows.audit.add(NOW, "a", f"event.{number}", "")
            rows.audit.add(NOW, "a", f"event.{number}.more", "")
            if fails:
                raise LookupError

        return unit

    found = together(any_store, audited(1), audited(2, fails=True), audited(3), audited(4, fails=True), audited(5))
    assert [type(one) for one in found] == [type(None), LookupError, type(None), LookupError, type(None)]
    any_store.write_blocking(audited(6))

    def look(rows: UnitOfWork) -> tuple[list[int], int | None]:
        events = list(rows.audit.events())  # type: ignore[attr-defined]
        return [event.seq for event in events if event.action.startswith("event.")], rows.audit.first_broken()  # type: ignore[attr-defined]

    numbers, broken = any_store.read_blocking(look)
    assert broken is None
    assert numbers == list(range(numbers[0], numbers[0] + 8))


def test_evidence_of_a_unit_that_was_undone_is_stored_by_the_next_one(any_store: SQLStore) -> None:
    """Nothing may be taken for stored that was not committed: the evidence of the next message would lack it."""

    def judged(message: str, *, fails: bool = False) -> Work:
        def unit(rows: UnitOfWork) -> None:
            rows.messages.add_raw(message, NOW, inbound(message.encode()))
            rows.messages.set_state(message, State.RECEIVED, NOW)
            rows.messages.add_verdict(message, NOW, accepted())
            if fails:
                # It has seen its own rows by now.
                rows.messages.add_verdict(message, NOW, accepted())
                raise LookupError

        return unit

    assert isinstance(together(any_store, judged("1" * 26, fails=True), judged("2" * 26))[0], LookupError)
    _evidence_is_there(any_store)


def test_evidence_of_a_commit_that_failed_is_stored_by_the_next_one(
    any_store: SQLStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judged(message: str) -> Work:
        def unit(rows: UnitOfWork) -> None:
            rows.messages.add_raw(message, NOW, inbound(message.encode()))
            rows.messages.set_state(message, State.RECEIVED, NOW)
            for _ in range(2):
                rows.messages.add_verdict(message, NOW, accepted())

        return unit

    with monkeypatch.context() as patch:
        patch.setattr(any_store._writer_engine.dialect, "do_commit", _failing)
        assert all(isinstance(one, Exception) for one in together(any_store, judged("1" * 26), judged("2" * 26)))
    any_store.write_blocking(judged("3" * 26))
    _evidence_is_there(any_store)


def _failing(_connection: object) -> None:
    raise RuntimeError


def _evidence_is_there(store: SQLStore) -> None:
    def look(rows: UnitOfWork) -> None:
        judgement = accepted()
        for name, anchors in judgement.anchor_sets.items():
            assert rows.messages.anchor_set(name) == anchors
        for der in judgement.certificates:
            assert rows.messages.certificate(hashlib.sha256(der).hexdigest()) == der
        for der in judgement.revocation_data:
            assert rows.messages.revocation_data(hashlib.sha256(der).hexdigest()) == der

    store.read_blocking(look)


def test_what_was_seen_is_bounded(any_store: SQLStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_memory, "MOST_DIGESTS", 3)
    for number in range(3):
        message = f"{number:026}"

        def unit(rows: UnitOfWork, message: str = message) -> int:
            rows.messages.add_raw(message, NOW, inbound(message.encode()))
            rows.messages.set_state(message, State.RECEIVED, NOW)
            rows.messages.add_verdict(message, NOW, rejected())
            rows.messages.add_verdict(message, NOW, accepted())
            rows.messages.add_verdict(message, NOW, accepted())
            memory = group_memory.memory_of(connection_of(rows))
            assert memory is not None
            return len(memory._committed)

        assert any_store.write_blocking(unit) <= 6
    _evidence_is_there(any_store)
