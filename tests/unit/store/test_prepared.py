"""Prepared statements: they do what SQLAlchemy does, on every database, and nothing escapes the audit log by them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    BindParameter,
    Boolean,
    Connection,
    Engine,
    LargeBinary,
    String,
    Table,
    bindparam,
    create_engine,
    delete,
    func,
    insert,
    literal_column,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, PendingRollbackError, StatementError
from sqlalchemy.types import Integer, TypeDecorator

from gateway.core.audit import rows_of
from gateway.core.errors import ConflictError
from gateway.ports import UnitOfWork
from gateway.store.database_errors import as_gateway_error, is_lost
from gateway.store.facts import begin, is_fact
from gateway.store.prepared import Prepared
from gateway.store.running import Text, run_statement, run_text
from gateway.store.sql_store import SQLStore
from gateway.store.tables import (
    anchor_set,
    bundle_status,
    fetch_status,
    job,
    key_encryption_key,
    mailbox,
    message_state,
    metadata,
    raw_message,
    wrapped_key,
)
from tests.support.store_samples import NOW
from tests.support.stores import STORES

FACTS = [table for table in metadata.sorted_tables if is_fact(table)]
ADD_RAW = Prepared.into(raw_message)
ADD_STATE = Prepared.into(message_state)
ADD_STATUS = Prepared.into(bundle_status)
STATUS = Prepared(select(bundle_status).where(bundle_status.c.name == bindparam("wanted")))
ONE = Prepared(select(literal_column("1", Integer)))
ID = "0" * 26
RAW = {
    "id": ID, "received_at": NOW, "source": "smtp", "peer": "", "mail_from": None, "sha256": "a" * 64, "size_bytes": 1,
}  # fmt: skip
SECRET = "jane.doe@patients.example"


@pytest.fixture(params=sorted(STORES), scope="module")
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SQLStore]:
    """A store that every test leaves as it found it."""
    with STORES[request.param](tmp_path_factory.mktemp("shared")) as opened:
        yield opened


@pytest.fixture
def connection(shared: SQLStore) -> Iterator[Connection]:
    """The writer's, in a transaction that is rolled back."""
    with shared._writer_engine.connect() as opened:
        opened.begin()
        yield opened


# --- values ---


@pytest.mark.parametrize(
    ("given", "back"),
    [
        ("plain", "plain"),
        ("", ""),
        ("gäteway ✉", "gäteway ✉"),
        ("lone \ud800 and \0", "lone \ufffd and \ufffd"),
        ("100 % %(name)s ? :x", "100 % %(name)s ? :x"),
    ],
)
def test_texts_come_back_as_the_columns_have_them(connection: Connection, given: str, back: str) -> None:
    changed = ADD_STATUS.run(connection, name="b", last_attempt=None, last_success=None, error=given, alarm="")
    assert changed == 1
    row = STATUS.first(connection, wanted="b")
    assert row.error == back
    assert row._fields == ("name", "last_attempt", "last_success", "error", "alarm")
    assert tuple(connection.execute(select(bundle_status)).one()) == tuple(row)


def test_moments_come_back_aware_and_null_as_none(connection: Connection) -> None:
    here = datetime(2026, 7, 1, 0, 30, 0, 5, tzinfo=timezone(timedelta(hours=2)))
    early = datetime(33, 4, 3, tzinfo=UTC)
    ADD_STATUS.run(connection, name="b", last_attempt=here, last_success=early, error="", alarm="")
    ADD_STATUS.run(connection, name="c", last_attempt=None, last_success=None, error="", alarm="")
    row = STATUS.first(connection, wanted="b")
    assert (row.last_attempt, row.last_attempt.tzinfo) == (here, UTC)
    assert row.last_success == early
    assert STATUS.first(connection, wanted="c").last_attempt is None
    # As it lies there, which is what the order of the database goes by.
    stored = connection.exec_driver_sql("SELECT last_attempt, last_success FROM bundle_status WHERE name = 'b'").one()
    assert tuple(stored) == ("2026-06-30T22:30:00.000005Z", "0033-04-03T00:00:00.000000Z")


def test_bytes_and_numbers_come_back(connection: Connection) -> None:
    add = Prepared.into(key_encryption_key)
    add.run(connection, kek_id="k", seq=7, since=NOW, proof=bytes(range(256)))
    row = Prepared(select(key_encryption_key)).first(connection)
    assert (row.seq, bytes(row.proof)) == (7, bytes(range(256)))
    large = Prepared.into(fetch_status)
    values = dict.fromkeys(["last_attempt", "last_success", "next_attempt", "lease_until"])
    texts = dict.fromkeys(["state", "error", "place", "owner"], "")
    large.run(connection, account="a", **values, **texts, waiting=2**40, asked=-1, answered=0, new=2**62)
    found = Prepared(select(fetch_status.c.waiting, fetch_status.c.asked, fetch_status.c.new)).rows(connection)
    assert [tuple(row) for row in found] == [(2**40, -1, 2**62)]


def test_columns_that_are_not_named_are_null_or_counted_up(connection: Connection) -> None:
    add = Prepared.into(job, "kind", "subject", "state", "run_at", "attempt", "lost", "last_error")
    for subject in ("first", "second"):
        add.run(connection, kind="k", subject=subject, state="s", run_at=NOW, attempt=0, lost=0, last_error="")
    rows = Prepared(select(job).order_by(job.c.id)).rows(connection)
    assert [row.subject for row in rows] == ["first", "second"]
    assert rows[0].id < rows[1].id
    assert rows[0].lease_until is None


# --- reading ---


def test_every_way_of_reading(connection: Connection) -> None:
    names = Prepared(select(bundle_status.c.name).order_by(bundle_status.c.name))
    assert (names.rows(connection), names.first(connection)) == ([], None)
    assert (names.scalars(connection), names.scalar(connection)) == ([], None)
    for name in "cab":
        ADD_STATUS.run(connection, name=name, last_attempt=NOW, last_success=None, error="", alarm="")
    assert names.scalars(connection) == ["a", "b", "c"]
    assert names.scalar(connection) == "a"
    assert names.first(connection) == ("a",)
    assert Prepared(select(bundle_status.c.last_attempt).limit(2)).scalars(connection) == [NOW, NOW]
    assert Prepared(select(func.count(), func.max(bundle_status.c.name))).first(connection) == (3, "c")


def test_constants_lists_and_unions(connection: Connection) -> None:
    for name in "abc":
        ADD_STATUS.run(connection, name=name, last_attempt=None, last_success=None, error=name, alarm="")
    column = bundle_status.c.name
    named = Prepared(select(column).where(column.in_([bindparam("one"), bindparam("two")])).order_by(column).limit(1))
    assert named.scalars(connection, one="c", two="b") == ["b"]
    both = Prepared(union_all(select(column).where(column == bindparam("one")), select(column).where(column == "a")))
    assert both.scalars(connection, one="c") == ["c", "a"]
    changed = Prepared(
        update(bundle_status).where(column != bindparam("but")).values(alarm=bindparam("told"), error="")
    )
    assert changed.run(connection, but="a", told="x") == 2
    assert changed.run(connection, but="a", told="y") == 2
    gone = Prepared(delete(bundle_status).where(bundle_status.c.alarm == bindparam("alarm_is")))
    assert (gone.run(connection, alarm_is="y"), gone.run(connection, alarm_is="y")) == (2, 0)
    told = Prepared(update(bundle_status).values(error=bindparam("text")).returning(bundle_status.c.name))
    assert told.scalars(connection, text="e") == ["a"]


def test_it_begins_a_transaction_as_sqlalchemy_does(shared: SQLStore) -> None:
    with shared._writer_engine.connect() as connection:
        ADD_STATUS.run(connection, name="b", last_attempt=None, last_success=None, error="", alarm="")
        assert connection.in_transaction()
        connection.rollback()
        assert STATUS.first(connection, wanted="b") is None


def test_one_constant_serves_every_database_and_every_way_to_write_parameters(tmp_path: Path) -> None:
    places: list[Engine] = [create_engine("sqlite://"), create_engine("sqlite://", paramstyle="named")]
    with STORES["sqlite"](tmp_path) as one, STORES["postgresql"](tmp_path) as two:
        places += [one._writer_engine, two._writer_engine, one._reader_engine]
        for engine in places[:2]:
            metadata.create_all(engine)
        for _ in range(2):
            for engine in places:
                with engine.connect() as connection:
                    assert STATUS.first(connection, wanted="x") is None


def test_many_threads_may_meet_at_the_first_use(tmp_path: Path) -> None:
    statement = Prepared(select(raw_message.c.id).where(raw_message.c.id == bindparam("wanted")).limit(1))
    found: list[object] = []
    with STORES["sqlite"](tmp_path) as store:
        gate = threading.Barrier(4)
        threads = [threading.Thread(target=lambda: found.append(_read(store, gate, statement))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [None] * 4


def _read(store: SQLStore, gate: threading.Barrier, statement: Prepared) -> object:
    with store._reader_engine.connect() as connection:
        gate.wait()
        return statement.scalar(connection, wanted=ID)


# --- errors ---


def _both(
    connection: Connection, statement: Callable[[], object], twin: Callable[[], object]
) -> tuple[BaseException, BaseException]:
    """What each of the two raises, within a savepoint."""
    raised: list[BaseException] = []
    for run in (statement, twin):
        savepoint = connection.begin_nested()
        with pytest.raises(Exception) as caught:
            run()
        savepoint.rollback()
        raised.append(caught.value)
    return raised[0], raised[1]


@pytest.mark.parametrize(
    ("table", "values"),
    [
        # The key is there already.
        (bundle_status, {"name": "b", "last_attempt": None, "last_success": None, "error": SECRET, "alarm": ""}),
        # No value where one must be.
        (bundle_status, {"name": "c", "last_attempt": None, "last_success": None, "error": None, "alarm": SECRET}),
        # Refers to nothing.
        (wrapped_key, {"message_id": SECRET, "kek_id": "k", "wrapped": b"x"}),
        # An append-only row again.
        (raw_message, RAW | {"peer": SECRET}),
        # Values that no column takes.
        (bundle_status, {"name": 5, "last_attempt": None, "last_success": None, "error": "", "alarm": SECRET}),
        (bundle_status, {"name": b"c", "last_attempt": None, "last_success": None, "error": "", "alarm": SECRET}),
        (bundle_status, {"name": "c", "last_attempt": datetime(2026, 1, 1), "last_success": None, "error": "",
                         "alarm": SECRET}),
        (bundle_status, {"name": "c", "last_attempt": "now", "last_success": None, "error": "", "alarm": SECRET}),
        # What the driver does not take, or the database.
        (key_encryption_key, {"kek_id": SECRET, "seq": object(), "since": NOW, "proof": b""}),
        (key_encryption_key, {"kek_id": SECRET, "seq": 2**70, "since": NOW, "proof": b""}),
        (key_encryption_key, {"kek_id": SECRET, "seq": 1, "since": NOW, "proof": "text"}),
    ],
)  # fmt: skip
def test_errors_are_those_of_sqlalchemy(connection: Connection, table: Table, values: dict[str, Any]) -> None:
    ADD_STATUS.run(connection, name="b", last_attempt=None, last_success=None, error="", alarm="")
    ADD_RAW.run(connection, **RAW)
    statement = Prepared.into(table)
    ours, theirs = _both(
        connection,
        lambda: statement.run(connection, **values),
        lambda: connection.execute(insert(table), values),
    )
    assert type(ours) is type(theirs)
    assert type(as_gateway_error(ours)) is type(as_gateway_error(theirs))
    assert str(as_gateway_error(ours)) == str(as_gateway_error(theirs))
    assert SECRET not in str(ours)
    if isinstance(ours, StatementError) and isinstance(theirs, StatementError):
        assert type(ours.orig) is type(theirs.orig)
        assert SECRET not in str(ours.orig)
        assert ours.hide_parameters
    if isinstance(ours, DBAPIError) and isinstance(theirs, DBAPIError):
        assert (ours.connection_invalidated, is_lost(ours)) == (theirs.connection_invalidated, is_lost(theirs))
    assert STATUS.scalar(connection, wanted="b") == "b"


def test_the_guards_of_append_only_tables_answer(connection: Connection) -> None:
    ADD_RAW.run(connection, **RAW)
    for statement in (Prepared(update(raw_message).values(peer="x")), Prepared(delete(raw_message))):
        savepoint = connection.begin_nested()
        with pytest.raises(IntegrityError) as caught:
            statement.run(connection)
        savepoint.rollback()
        assert isinstance(as_gateway_error(caught.value), ConflictError)


def test_a_reader_does_not_write(shared: SQLStore) -> None:
    with shared._reader_engine.connect() as connection, pytest.raises(DBAPIError) as caught:
        ADD_STATUS.run(connection, name="b", last_attempt=None, last_success=None, error="", alarm="")
    assert not is_lost(caught.value)


@pytest.mark.parametrize("values", [{}, {"wanted": "a", "more": 1}, {"other": "a"}])
def test_parameters_must_be_those_of_the_statement(connection: Connection, values: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="missing or not those"):
        STATUS.first(connection, **values)


def test_a_time_that_the_store_would_not_write_is_refused(connection: Connection) -> None:
    connection.exec_driver_sql(
        "INSERT INTO bundle_status (name, last_attempt, error, alarm) VALUES ('b', '2026-01-01 00:00:00Z', '', '')"
    )
    with pytest.raises(ValueError, match="not written as the store writes it"):
        STATUS.first(connection, wanted="b")


# --- lost connections ---


def _pid(connection: Connection) -> int:
    pid: int = connection.scalar(text("SELECT pg_backend_pid()"))
    return pid


def test_a_lost_connection_is_given_up_with_its_neighbours(tmp_path: Path) -> None:
    with STORES["postgresql"](tmp_path) as store:
        engine = store._reader_engine
        first, second = engine.connect(), engine.connect()
        pids = [_pid(first), _pid(second)]
        second.close()
        with store._writer_engine.connect() as other:
            for pid in pids:
                other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        with pytest.raises(OperationalError) as caught:
            ONE.scalar(first)
        assert caught.value.connection_invalidated
        assert is_lost(caught.value)
        assert first.invalidated
        with pytest.raises(PendingRollbackError):
            ONE.scalar(first)
        first.rollback()
        assert ONE.scalar(first) == 1
        # The other one lay in the pool. Nobody gets it to find out by himself.
        with engine.connect() as third:
            assert ONE.scalar(third) == 1
            assert _pid(third) not in pids
        first.close()


def test_a_thread_that_is_told_to_end_leaves_no_connection_in_an_unknown_state(connection: Connection) -> None:
    def interrupted(_cursor: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_statement(connection, Text("SELECT 1"), [], interrupted)
    assert connection.invalidated


# --- savepoints ---


def test_texts_for_savepoints_and_nothing_else(connection: Connection) -> None:
    run_text(connection, "SAVEPOINT a")
    ADD_STATUS.run(connection, name="b", last_attempt=None, last_success=None, error="", alarm="")
    run_text(connection, "ROLLBACK TO SAVEPOINT a")
    run_text(connection, "RELEASE SAVEPOINT a")
    assert STATUS.first(connection, wanted="b") is None
    with pytest.raises(DBAPIError):
        run_text(connection, "RELEASE SAVEPOINT a")
    for sql in ("INSERT INTO raw_message (id) VALUES ('x')", "begin", "WITH x AS (SELECT 1) SELECT 2", "COMMIT"):
        with pytest.raises(ValueError, match="run as texts"):
            run_text(connection, sql)


# --- the audit log ---


def _sample(column_type: Any) -> Any:
    """A value that a column takes."""
    plain = column_type.impl_instance if isinstance(column_type, TypeDecorator) else column_type
    name = type(column_type).__name__
    if name == "UTCTime":
        return NOW
    if isinstance(plain, LargeBinary):
        return b"\0bytes"
    if isinstance(plain, Boolean):
        return True
    if isinstance(plain, Integer):
        return 41
    assert isinstance(plain, String), name
    return "täxt \ud800"


@pytest.mark.parametrize("table", FACTS, ids=lambda table: table.name)
def test_a_row_is_noted_as_sqlalchemy_would_have_it_noted(table: Table) -> None:
    if table.autoincrement_column is not None:
        with pytest.raises(ValueError, match="name every column"):
            Prepared.into(table)
        return
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    statement = Prepared.into(table)
    for left_out in (None, *(column.name for column in table.c if column.nullable)):
        values = {column.name: None if column.name == left_out else _sample(column.type) for column in table.c}
        noted = []
        for run in (lambda c, v: statement.run(c, **v), lambda c, v: c.execute(insert(table), v)):
            with engine.connect() as connection:
                facts = begin(connection)
                run(connection, values)
                noted.append(facts.take())
                connection.rollback()
        assert len(noted[0]) == 1
        assert noted[0] == noted[1]


def test_a_row_that_the_database_refused_is_not_noted(connection: Connection) -> None:
    facts = begin(connection)
    ADD_RAW.run(connection, **RAW)
    savepoint = connection.begin_nested()
    with pytest.raises(IntegrityError):
        ADD_RAW.run(connection, **RAW)
    savepoint.rollback()
    assert len(facts.take()) == 1


@pytest.mark.parametrize("kind", sorted(STORES))
def test_the_chain_answers_for_rows_of_a_unit_that_wrote_no_event(kind: str, tmp_path: Path) -> None:
    def work(tx: UnitOfWork) -> None:
        connection = tx.messages._connection  # type: ignore[attr-defined]
        ADD_RAW.run(connection, **RAW)
        ADD_STATE.run(connection, message_id=ID, seq=1, state="received", at=NOW, detail="")

    with STORES[kind](tmp_path) as store:
        store.write_blocking(work)
        events = store.read_blocking(lambda tx: list(tx.audit.events()))  # type: ignore[attr-defined]
        assert store.read_blocking(lambda tx: tx.audit.first_broken()) is None  # type: ignore[attr-defined]
    assert events[-1].action == "rows.written"
    assert [(table, key) for table, key, _ in rows_of(events[-1].rows)] == [
        ("raw_message", (ID,)),
        ("message_state", (ID, 1)),
    ]


_HIDDEN = insert(message_state).values(message_id=ID).returning(message_state.c.seq)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Prepared(insert(raw_message)),
        lambda: Prepared(insert(raw_message).values(RAW)),
        lambda: Prepared(insert(bundle_status).values(name="b")),
        lambda: Prepared(insert(message_state).from_select(["message_id"], select(raw_message.c.id))),
        lambda: Prepared(select(_HIDDEN.cte("x"))),
        lambda: Prepared(select(job).add_cte(_HIDDEN.cte("x"))),
        lambda: Prepared(select(job.c.id).where(job.c.id.in_(select(_HIDDEN.cte("x").c.seq)))),
        lambda: Prepared(update(job).values(lost=1).add_cte(_HIDDEN.cte("x"))),
        lambda: Prepared(delete(job).add_cte(_HIDDEN.cte("x"))),
        lambda: Prepared(union_all(select(job.c.id), select(_HIDDEN.cte("x").c.seq))),
        lambda: Prepared(insert(wrapped_key).from_select(["message_id"], select(_HIDDEN.cte("x").c.seq))),
        lambda: Prepared(text("INSERT INTO job (id) VALUES (1) RETURNING id").columns(job.c.id).cte("x").select()),
        # Counted up by the database, so its key is not known here.
        lambda: Prepared.into(mailbox),
        lambda: Prepared.into(anchor_set, "name"),
    ],
)
def test_no_insert_passes_by_the_audit_log(make: Callable[[], Prepared]) -> None:
    with pytest.raises(ValueError, match="audit log"):
        make()


def test_a_text_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be prepared"):
        Prepared(text("INSERT INTO raw_message (id) VALUES ('x')"))  # type: ignore[arg-type]


def test_a_list_of_any_length_is_refused(connection: Connection) -> None:
    names: BindParameter[str] = bindparam("names", expanding=True)
    with pytest.raises(ValueError, match="any length"):
        Prepared(select(job.c.id).where(job.c.kind.in_(names))).scalars(connection, names=["a"])
