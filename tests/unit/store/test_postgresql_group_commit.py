"""Group commit on PostgreSQL: one writer over all nodes, and nobody is told of a success that is none."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import select, text, update

from gateway.core.errors import ConflictError, StoreError, StoreFullError, StoreUnavailableError
from gateway.core.lifecycle import JobKind
from gateway.observability.clock import SystemClock
from gateway.ports import Job, UnitOfWork
from gateway.settings import StoreSettings
from gateway.store.database_errors import as_gateway_error, is_fatal
from gateway.store.postgresql_connecting import Pause
from gateway.store.postgresql_engine import WRITER_LOCK, second_key
from gateway.store.sql_store import SQLStore
from gateway.store.tables import job as job_table
from tests.support.body_keys import sealer_in
from tests.support.postgresql import ROLE, Cluster, shared_cluster
from tests.support.store_samples import ALICE, NOW, indexed, open_store
from tests.support.stores import together

# ruff: noqa: S608 - the names are our own
Work = Callable[[UnitOfWork], Any]


@pytest.fixture
def cluster() -> Cluster:
    return shared_cluster()


@pytest.fixture
def settings(cluster: Cluster) -> StoreSettings:
    return cluster.settings()


@pytest.fixture
def store(settings: StoreSettings, tmp_path: Path) -> Iterator[SQLStore]:
    with SQLStore.open(settings, sealer_in(tmp_path)) as opened:
        yield opened


def job(number: int) -> Work:
    return lambda tx: tx.jobs.enqueue(JobKind.FILE, f"m{number}")


def execute(tx: UnitOfWork, statement: str, **parameters: Any) -> Any:
    return tx.jobs._connection.execute(text(statement), parameters)  # type: ignore[attr-defined]


def committed(settings: StoreSettings) -> set[str]:
    """The jobs as another session sees them."""
    rows = shared_cluster().sql(f"SELECT subject FROM {settings.schema}.job", "gateway")
    return {subject for (subject,) in rows}


# --- one writer over all nodes ---


async def test_units_of_all_nodes_see_one_another_and_none_is_lost(settings: StoreSettings, tmp_path: Path) -> None:
    """The read-modify-write of UIDs and audit chains, on three nodes at once, without a retry."""
    with ExitStack() as stack:
        stores = [
            stack.enter_context(SQLStore.open(replace(settings, node=f"n{n}"), sealer_in(tmp_path))) for n in range(3)
        ]
        mailbox = await stores[0].write(lambda tx: tx.mailboxes.create("alice", NOW, [ALICE]))

        def flag(number: int) -> Work:
            return lambda tx: tx.mailboxes.set_flags(mailbox, {1: frozenset({f"k{number}"})})

        def file(tx: UnitOfWork) -> None:
            from tests.support.store_samples import inbound

            tx.messages.add_raw("0" * 26, NOW, inbound())
            tx.mailboxes.add(mailbox, "0" * 26, "a" * 64, indexed(), NOW)

        await stores[0].write(file)
        modseqs = await asyncio.gather(*(stores[n % 3].write(flag(n)) for n in range(90)))
        assert len(set(modseqs)) == 90
        assert (await stores[1].read(lambda tx: tx.mailboxes.get(mailbox))).highest_modseq == max(modseqs)

        def audited(node: int) -> Work:
            return lambda tx: tx.audit.add(NOW, "a", "b", "c")

        await asyncio.gather(*(stores[n % 3].write(audited(n)) for n in range(60)))
        for one in stores:
            assert one.read_blocking(lambda tx: tx.audit.first_broken()) is None  # type: ignore[attr-defined]


def test_a_node_that_is_frozen_with_the_lock_loses_its_turn(settings: StoreSettings, tmp_path: Path) -> None:
    """It finds out at its next statement; nothing of its group was acknowledged, nothing is kept."""
    quick = replace(settings, frozen_after_seconds=1)
    with SQLStore.open(quick, sealer_in(tmp_path)) as frozen, SQLStore.open(quick, sealer_in(tmp_path)) as other:
        entered = threading.Event()

        def freeze(tx: UnitOfWork) -> None:
            job(1)(tx)
            entered.set()
            time.sleep(2.5)
            job(2)(tx)

        held = frozen._submit(freeze)
        assert entered.wait(10)
        begun = time.monotonic()
        other.write_blocking(job(3))
        assert time.monotonic() - begun < 2.4
        assert isinstance(held.exception(10), StoreUnavailableError)
        assert committed(settings) == {"m3"}
        frozen.write_blocking(job(4))
        assert committed(settings) == {"m3", "m4"}


def test_a_lock_that_is_never_freed_is_told_and_not_waited_for_without_end(
    settings: StoreSettings, cluster: Cluster, tmp_path: Path
) -> None:
    quick = replace(settings, frozen_after_seconds=1)
    with SQLStore.open(quick, sealer_in(tmp_path)) as store, cluster.connect(ROLE, "gateway") as hog:
        hog.execute("SELECT pg_advisory_lock(%s, %s)", (WRITER_LOCK, second_key(settings.schema, "")))
        begun = time.monotonic()
        with pytest.raises(StoreUnavailableError, match="55P03"):
            store.write_blocking(job(1))
        assert 2.5 < time.monotonic() - begun < 10
        hog.execute("SELECT pg_advisory_unlock_all()")
        store.write_blocking(job(1))
    assert committed(settings) == {"m1"}


# --- lost connections ---


def terminate(cluster: Cluster, schema: str) -> int:
    """End every session that stands in the schema's writer group or in its pool."""
    [(ended,)] = cluster.sql(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'direct-gateway %'"
    )
    return int(ended)


async def test_a_session_that_was_ended_while_idle_costs_nobody_anything(
    store: SQLStore, settings: StoreSettings, cluster: Cluster
) -> None:
    await store.write(job(1))
    assert len(await store.read(lambda tx: tx.jobs.troubled())) == 0
    assert terminate(cluster, settings.schema) >= 2
    await store.write(job(2))
    assert await store.read(lambda tx: tx.jobs.troubled()) == []
    assert committed(settings) == {"m1", "m2"}


def test_a_session_that_ends_in_a_group_fails_all_of_it_and_the_next_one_works(
    store: SQLStore, settings: StoreSettings, cluster: Cluster
) -> None:
    def cut(tx: UnitOfWork) -> None:
        job(2)(tx)
        terminate(cluster, settings.schema)
        job(3)(tx)

    assert all(isinstance(one, StoreUnavailableError) for one in together(store, job(1), cut, job(4)))
    assert committed(settings) == set()
    assert not store.dead
    store.write_blocking(job(5))
    assert committed(settings) == {"m5"}


def test_a_session_that_ends_unseen_in_the_last_unit_is_seen_at_the_commit(
    store: SQLStore, settings: StoreSettings, cluster: Cluster
) -> None:
    def cut(tx: UnitOfWork) -> None:
        job(2)(tx)
        terminate(cluster, settings.schema)

    assert all(isinstance(one, StoreUnavailableError) for one in together(store, job(1), cut))
    assert committed(settings) == set()


def test_a_unit_that_goes_on_after_an_error_fails_alone(store: SQLStore, settings: StoreSettings) -> None:
    """PostgreSQL has then aborted the savepoint; to commit it would be answered with a rollback."""

    def swallows(tx: UnitOfWork) -> str:
        job(2)(tx)
        try:
            execute(tx, "SELECT 1 / 0")
        except Exception:
            return "it seems to work"
        return ""

    first, second, third = together(store, job(1), swallows, job(3))
    assert (first, third) == (None, None)
    assert isinstance(second, StoreError)
    assert committed(settings) == {"m1", "m3"}


def test_a_unit_that_ends_the_transaction_ruins_the_group(store: SQLStore, settings: StoreSettings) -> None:
    def ends(tx: UnitOfWork) -> None:
        connection = tx.jobs._connection.connection.dbapi_connection  # type: ignore[attr-defined]
        connection.execute("ROLLBACK")

    assert all(isinstance(one, StoreError) for one in together(store, job(1), ends, job(2)))
    assert committed(settings) == set()


def test_an_aborted_transaction_is_not_committed(store: SQLStore, settings: StoreSettings) -> None:
    """COMMIT would be answered with ROLLBACK, and the driver would say nothing."""

    def aborts(tx: UnitOfWork) -> None:
        job(2)(tx)
        connection = tx.jobs._connection.connection.dbapi_connection  # type: ignore[attr-defined]
        with pytest.raises(psycopg.Error):
            connection.execute("RELEASE SAVEPOINT nothing")

    _, second, _ = together(store, job(1), aborts, job(3))
    assert isinstance(second, StoreError)
    assert "m2" not in committed(settings)


def test_a_commit_with_a_warning_is_no_success(store: SQLStore, settings: StoreSettings) -> None:
    """As when somebody cancels the wait for a synchronous standby: the server warns, and answers COMMIT."""

    def warned(tx: UnitOfWork) -> None:
        job(1)(tx)
        execute(
            tx,
            "CREATE FUNCTION pg_temp.warn() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN RAISE WARNING ''canceling wait for synchronous replication''; RETURN NULL; END'",
        )
        execute(tx, "CREATE TEMPORARY TABLE x (y int) ON COMMIT DROP")
        execute(
            tx,
            "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON x DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION pg_temp.warn()",
        )
        execute(tx, "INSERT INTO x VALUES (1)")

    with pytest.raises(StoreUnavailableError, match="does not answer for the commit"):
        store.write_blocking(warned)
    store.write_blocking(job(2))
    assert "m2" in committed(settings)


def test_a_commit_that_the_server_refuses_fails_every_unit(store: SQLStore, settings: StoreSettings) -> None:
    def refused(tx: UnitOfWork) -> None:
        job(2)(tx)
        execute(tx, "CREATE TEMPORARY TABLE u (y int UNIQUE DEFERRABLE INITIALLY DEFERRED) ON COMMIT DROP")
        execute(tx, "INSERT INTO u VALUES (1), (1)")

    results = together(store, job(1), refused, job(3))
    assert all(isinstance(one, StoreError) for one in results)
    assert committed(settings) == set()


# --- errors ---


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("53100", StoreFullError),
        ("53300", StoreUnavailableError),
        ("57P01", StoreUnavailableError),
        ("57014", StoreUnavailableError),
        ("25006", StoreUnavailableError),
        ("23505", ConflictError),
        ("XX001", StoreError),
        ("42P01", StoreError),
    ],
)
def test_what_the_server_says_becomes_an_error_of_ours_and_none_is_the_end(state: str, kind: type[Exception]) -> None:
    from sqlalchemy.exc import DBAPIError

    error = psycopg.errors.lookup(state)("Jane Doe")
    wrapped = DBAPIError.instance("INSERT", {}, error, psycopg.Error)
    assert isinstance(wrapped, DBAPIError)
    found = as_gateway_error(wrapped)
    assert type(found) is kind
    assert "Jane" not in str(found)
    assert not is_fatal(wrapped)


def test_no_value_stands_in_any_error(store: SQLStore) -> None:
    """Promise 6: PostgreSQL's own texts say "Key (kind, subject)=(file, Jane Doe) already exists"."""

    def twice(tx: UnitOfWork) -> None:
        insert = (
            "INSERT INTO job (kind, subject, state, run_at, attempt, lost, last_error) "
            "VALUES ('file', :v, 'ready', '', 0, 0, '')"
        )
        execute(tx, insert, v="Jane Doe")
        execute(tx, insert, v="Jane Doe")

    def wrong(tx: UnitOfWork) -> None:
        execute(tx, "SELECT CAST(CAST(:v AS text) AS integer)", v="Jane Doe")

    for work, kind in ((twice, ConflictError), (wrong, StoreError)):
        with pytest.raises(kind) as caught:
            store.write_blocking(work)
        chain: BaseException | None = caught.value
        while chain is not None:
            assert "Jane Doe" not in f"{chain} {chain.args}"
            chain = chain.__cause__ or chain.__context__


def test_readers_cannot_write(store: SQLStore, settings: StoreSettings) -> None:
    with pytest.raises(StoreError):
        store.read_blocking(job(1))
    assert committed(settings) == set()


def test_the_pause_between_attempts_grows_and_ends() -> None:
    pause = Pause()
    pause.refuse_if_early()
    for _ in range(20):
        pause.failed()
    assert 2.4 < pause._not_before - time.monotonic() <= 5.0
    with pytest.raises(StoreUnavailableError):
        pause.refuse_if_early()
    pause.end()
    pause.refuse_if_early()


# --- clocks and nodes (F11, F10) ---


def pass_by(store: SQLStore, seconds: float) -> None:
    """Let so much time go by for the only job."""
    with store._writer_engine.begin() as connection:
        times = connection.execute(select(job_table.c.run_at, job_table.c.lease_until)).one()._mapping
        earlier = {name: at and at - timedelta(seconds=seconds) for name, at in times.items()}
        connection.execute(update(job_table).values(earlier))


def work(store: SQLStore, lease_seconds: float = 60) -> list[Job]:
    return store.write_blocking(lambda tx: tx.jobs.claim(lease_seconds, 10))


@pytest.mark.parametrize("hours", [-5 * 8766, -1, 1, 5 * 8766])
def test_a_node_whose_clock_is_wrong_holds_no_job_back_and_takes_none_early(
    settings: StoreSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """Its clock shows ``hours`` more than the database's. What people see, they see in its time."""
    wrong = timedelta(hours=hours)
    right_settings, other_settings = replace(settings, node="right"), replace(settings, node="wrong")
    with (
        SQLStore.open(right_settings, sealer_in(tmp_path)) as right,
        SQLStore.open(other_settings, sealer_in(tmp_path)) as other,
    ):
        # Both are here, so both have it; what the database says is enough for the jobs of both.
        monkeypatch.setattr(SystemClock, "now", lambda _clock: datetime.now(UTC) + wrong)
        other.write_blocking(job(1))
        [taken] = work(right)
        assert work(other) == []
        assert right.write_blocking(lambda tx: tx.jobs.finish(taken))
        other.write_blocking(job(2))
        [held] = work(other)
        pass_by(right, 50)
        assert work(right) == []
        assert other.write_blocking(lambda tx: tx.jobs.renew(held, 120))
        pass_by(right, 100)
        assert work(right) == []
        assert other.write_blocking(lambda tx: tx.jobs.fail(held, "E", timedelta(seconds=30)))
        for ask in (other.read_blocking, other.write_blocking):
            [trouble] = ask(lambda tx: tx.jobs.troubled())
            assert abs(trouble.due_at - datetime.now(UTC) - wrong) < timedelta(seconds=60)
        pass_by(right, 20)
        assert work(right) == []
        pass_by(right, 10)
        assert len(work(right)) == 1


def test_a_node_that_starts_again_takes_back_its_own_jobs_only(settings: StoreSettings, tmp_path: Path) -> None:
    first, second = replace(settings, node="first"), replace(settings, node="second")
    with SQLStore.open(first, sealer_in(tmp_path), daemon=True) as one:
        one.write_blocking(job(1))
        assert len(one.write_blocking(lambda tx: tx.jobs.claim(300, 10))) == 1
        with SQLStore.open(second, sealer_in(tmp_path), daemon=True) as two:
            two.write_blocking(job(2))
            assert [j.subject for j in two.write_blocking(lambda tx: tx.jobs.claim(300, 10))] == ["m2"]
        with SQLStore.open(second, sealer_in(tmp_path), daemon=True) as two:
            [again] = two.write_blocking(lambda tx: tx.jobs.claim(300, 10))
            assert (again.subject, again.attempt, again.lost) == ("m2", 2, 1)


@pytest.mark.parametrize("engine", ["postgresql", "sqlite"])
def test_a_claim_that_was_never_answered_is_taken_back(engine: str, settings: StoreSettings, tmp_path: Path) -> None:
    """F08: those jobs would wait for the end of leases that nobody holds."""
    opened = SQLStore.open(settings, sealer_in(tmp_path)) if engine == "postgresql" else open_store(tmp_path)
    with opened as store:
        for number in range(3):
            store.write_blocking(job(number))
        [known] = store.write_blocking(lambda tx: tx.jobs.claim(300, 1))
        store.write_blocking(lambda tx: tx.jobs.claim(300, 10))
        assert store.write_blocking(lambda tx: tx.jobs.take_back({known.id})) == 2
        again = store.write_blocking(lambda tx: tx.jobs.claim(300, 10))
        assert [(j.subject, j.attempt, j.lost) for j in again] == [("m1", 2, 0), ("m2", 2, 0)]
        assert store.write_blocking(lambda tx: tx.jobs.finish(known))
