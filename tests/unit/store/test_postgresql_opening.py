"""Opening a PostgreSQL store: what is refused, whose name is taken, who may do what (F31), which secrets are kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Table

from gateway.cli.main import main
from gateway.core.errors import ConfigurationError, ConflictError, StoreError, StoreUnavailableError
from gateway.core.lifecycle import JobKind
from gateway.ports import UnitOfWork
from gateway.settings import StoreSettings, from_document
from gateway.store.opening import init_store, missing_tables
from gateway.store.postgresql_address import PostgreSQLAddress
from gateway.store.postgresql_connecting import look_at_server
from gateway.store.postgresql_engine import second_key
from gateway.store.postgresql_session import _refuse_asynchronous
from gateway.store.sql_store import SQLStore
from gateway.store.tables import APPEND_ONLY, metadata
from tests.support.body_keys import sealer_in
from tests.support.filled_store import fill
from tests.support.gateway_process import free_ports, wait_for
from tests.support.postgresql import ROLE, Cluster, running_cluster, shared_cluster

# ruff: noqa: S608 - the names are our own, and SQL is what is tested
WRITER = "gateway_writer"


@pytest.fixture
def cluster() -> Cluster:
    return shared_cluster()


def opened(settings: StoreSettings, folder: Path, *, daemon: bool = False) -> SQLStore:
    return SQLStore.open(settings, sealer_in(folder), daemon=daemon)


# --- servers that are refused ---


@pytest.fixture(scope="module")
def unsafe() -> Iterator[Cluster]:
    """A server of its own, whose settings the tests change."""
    with running_cluster() as cluster:
        yield cluster


@pytest.mark.parametrize(
    ("line", "sound", "said"),
    [
        ("fsync = off", "fsync = on", "fsync=off.*set fsync = on"),
        ("full_page_writes = off", "full_page_writes = on", "full_page_writes=off.*full_page_writes = on"),
        ("synchronous_commit = off", "synchronous_commit = on", "synchronous_commit is off.*RESET"),
    ],
)
def test_a_server_that_may_lose_mail_is_refused(
    unsafe: Cluster, tmp_path: Path, line: str, sound: str, said: str
) -> None:
    settings = unsafe.settings()
    unsafe.configure(line)
    unsafe.reload()
    _until(unsafe, line)
    try:
        with pytest.raises(ConfigurationError, match=said):
            opened(settings, tmp_path)
    finally:
        unsafe.configure(sound)
        unsafe.reload()
        _until(unsafe, sound)
    opened(settings, tmp_path).close()


def _until(cluster: Cluster, line: str) -> None:
    name, _, value = line.partition(" = ")
    with cluster.connect() as connection:
        for _ in range(500):
            if connection.execute(f"SHOW {name}").fetchone() == (value,):
                return
            connection.execute("SELECT pg_sleep(0.01)")
    raise AssertionError(line)


@pytest.mark.parametrize("mode", ["local", "remote_write"])
def test_a_named_standby_that_is_not_waited_for_is_refused(mode: str) -> None:
    with pytest.raises(ConfigurationError, match="synchronous standby is named"):
        _refuse_asynchronous(mode, "standby1")
    _refuse_asynchronous(mode, "")
    _refuse_asynchronous("on", "standby1")
    _refuse_asynchronous("remote_apply", "standby1")


def test_a_trap_in_the_role_is_refused_at_the_start(unsafe: Cluster, tmp_path: Path) -> None:
    unsafe.sql("CREATE ROLE trapped LOGIN; GRANT CREATE ON DATABASE gateway TO trapped", "gateway")
    unsafe.sql("ALTER ROLE trapped SET synchronous_commit = off")
    with pytest.raises(ConfigurationError, match="ALTER ROLE"):
        opened(unsafe.settings(url=unsafe.url("trapped")), tmp_path)


@pytest.mark.parametrize("engine", ["_writer_engine", "_reader_engine"])
def test_every_session_commits_durably_whatever_the_role_is_given_later(
    unsafe: Cluster, tmp_path: Path, engine: str
) -> None:
    """The trap is laid while we run: the session's own setting stands above it."""
    settings = unsafe.settings()
    with opened(settings, tmp_path) as store:
        unsafe.sql(f"ALTER ROLE {ROLE} SET synchronous_commit = off")
        unsafe.sql(f"ALTER ROLE {ROLE} SET default_transaction_read_only = on")
        try:
            used = getattr(store, engine)
            used.dispose()
            with used.connect() as connection:
                found = [
                    connection.exec_driver_sql(f"SHOW {name}").scalar_one()
                    for name in ("synchronous_commit", "transaction_isolation", "transaction_read_only", "search_path")
                ]
            store.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.FILE, engine))
        finally:
            unsafe.sql(f"ALTER ROLE {ROLE} RESET ALL")
    written = ["on", "read committed", "off", f"{settings.schema}, pg_temp"]
    read = ["on", "repeatable read", "on", f"{settings.schema}, pg_temp"]
    assert found == (written if engine == "_writer_engine" else read)


def test_a_server_that_becomes_unsafe_gets_no_new_session(unsafe: Cluster, tmp_path: Path) -> None:
    with opened(unsafe.settings(), tmp_path) as store:
        unsafe.configure("fsync = off")
        unsafe.reload()
        _until(unsafe, "fsync = off")
        store._writer_engine.dispose()
        try:
            with pytest.raises(StoreUnavailableError, match="committed mail would not be safe"):
                store.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.FILE, "m"))
        finally:
            unsafe.configure("fsync = on")
            unsafe.reload()
            _until(unsafe, "fsync = on")


def test_another_encoding_is_refused(unsafe: Cluster, tmp_path: Path) -> None:
    unsafe.sql("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    with pytest.raises(ConfigurationError, match="LATIN1"):
        opened(unsafe.settings(url=unsafe.url(database="latin")), tmp_path)


def test_an_old_server_is_refused(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psycopg.ConnectionInfo, "server_version", property(lambda _: 140_009))
    with pytest.raises(ConfigurationError, match=r"PostgreSQL 14; .* 15 and newer"):
        look_at_server(PostgreSQLAddress.parse(cluster.settings()))


def test_a_server_that_is_not_there_is_temporary(tmp_path: Path) -> None:
    [port] = free_ports(1)
    with pytest.raises(StoreUnavailableError, match="does not answer"):
        opened(StoreSettings(url=f"postgresql://nobody@127.0.0.1:{port}/x"), tmp_path)


def test_a_database_of_another_program_is_refused_and_left_alone(cluster: Cluster, tmp_path: Path) -> None:
    settings = cluster.settings()
    with cluster.connect(ROLE, "gateway") as connection:
        connection.execute(f"CREATE SCHEMA {settings.schema}; CREATE TABLE {settings.schema}.theirs (x int)")
    with pytest.raises(ConfigurationError, match="another program"):
        opened(settings, tmp_path)


# --- the URL ---


@pytest.mark.parametrize(
    "url",
    ["postgresql://u:hidden@h/d", "postgresql://h/d?password=hidden", "postgres://u:hidden@h1,h2/d?sslmode=require"],
)
def test_a_password_in_the_url_is_refused_and_not_repeated(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="password_file") as caught:
        from_document({"store": {"url": url}}, tmp_path)
    assert "hidden" not in str(caught.value)
    with pytest.raises(ConfigurationError) as caught:
        PostgreSQLAddress.parse(StoreSettings(url=url))
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"url": "postgresql://h/d?nonsense=1"}, "not a URL"),
        ({"url": "postgresql://db.example/d?sslmode=prefer"}, "clear text"),
        ({"schema": 'x"; DROP'}, "store.schema"),
        ({"schema": "x" * 42}, "store.schema"),
        ({"node": "a b"}, "store.node"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        PostgreSQLAddress.parse(StoreSettings(**({"url": "postgresql://h/d"} | changes)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        ("postgresql://db.example/d", "verify-full"),
        ("postgresql://127.0.0.1,db.example/d", "verify-full"),
        ("postgresql://db.example/d?sslmode=require", None),
        ("postgresql://127.0.0.1/d", None),
        ("postgresql:///d", None),
        ("postgresql:///d?host=/run/postgresql", None),
    ],
)
def test_tls_is_verified_unless_the_url_says_otherwise(url: str, mode: str | None) -> None:
    assert PostgreSQLAddress.parse(StoreSettings(url=url)).arguments("x").get("sslmode") == mode


def test_the_password_is_read_at_every_connection(tmp_path: Path) -> None:
    file = tmp_path / "password"
    address = PostgreSQLAddress.parse(StoreSettings(url="postgresql://u@127.0.0.1/d", password_file=file))
    with pytest.raises(StoreUnavailableError, match="password_file"):
        address.arguments("x")
    for text in ("one", "two"):
        file.write_text(text + "\n")
        assert address.arguments("x")["password"] == text


def test_dead_peers_are_noticed_and_the_url_wins() -> None:
    settings = StoreSettings(url="postgresql://u@127.0.0.1/d?connect_timeout=7", frozen_after_seconds=6)
    arguments = PostgreSQLAddress.parse(settings).arguments("x")
    assert (arguments["keepalives_idle"], arguments["tcp_user_timeout"]) == (3, 6000)
    assert "connect_timeout" not in arguments


# --- the schema ---


def test_nodes_that_start_together_make_one_schema(cluster: Cluster, tmp_path: Path) -> None:
    settings, sealer = cluster.settings(), sealer_in(tmp_path)
    together = threading.Barrier(3)

    def start(number: int) -> SQLStore:
        together.wait(10)
        return SQLStore.open(replace(settings, node=f"n{number}"), sealer, daemon=True)

    with ThreadPoolExecutor(3) as pool:
        stores = list(pool.map(start, range(3)))
    try:
        assert sorted(stores[0].gateways()) == ["n0", "n1", "n2"]
        count = f"SELECT count(*) FROM {settings.schema}.schema_version"
        assert cluster.sql(count, "gateway") == [(1,)]
    finally:
        for store in stores:
            store.close()


def test_a_newer_schema_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    settings = cluster.settings()
    opened(settings, tmp_path).close()
    cluster.sql(f"INSERT INTO {settings.schema}.schema_version VALUES (99, '7.0', NULL)", "gateway")
    with pytest.raises(
        ConfigurationError, match=r"schema 99, made by direct-gateway 7\.0, .* start direct-gateway 7\.0 or newer"
    ):
        opened(settings, tmp_path)


def test_commands_do_not_make_the_tables(cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = cluster.settings()
    assert "store init" in missing_tables(settings)
    config = tmp_path / "gateway.toml"
    config.write_text(f'[store]\nurl = "{settings.url}"\nschema = "{settings.schema}"\n')
    assert main(["job", "list", "--config", str(config)]) == 2
    assert "store init" in capsys.readouterr().err
    assert main(["store", "init", "--config", str(config)]) == 0
    assert "owns the tables" in capsys.readouterr().out
    assert missing_tables(settings) == ""


# --- the name of a node ---


def test_a_name_is_for_one_daemon_and_free_when_that_is_gone(cluster: Cluster, tmp_path: Path) -> None:
    settings = cluster.settings(frozen_after_seconds=1)
    with opened(settings, tmp_path, daemon=True) as first:
        with pytest.raises(ConfigurationError, match=r"node name main; .* store\.node"):
            opened(settings, tmp_path, daemon=True)
        with opened(settings, tmp_path) as tool:  # Tools have no name of their own.
            tool.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.FILE, "m"))
        with opened(replace(settings, node="second"), tmp_path, daemon=True) as second:
            assert second.gateways() == ["main", "second"]
        # The server ends a session when it comes to it.
        wait_for(lambda: first.gateways() == ["main"], what="the end of the second daemon's session")
    opened(settings, tmp_path, daemon=True).close()


def test_a_daemon_that_lost_its_name_cannot_write(cluster: Cluster, tmp_path: Path) -> None:
    """Its session was ended, and another took the name before it came back."""
    settings = cluster.settings()
    with opened(settings, tmp_path, daemon=True) as store, cluster.connect(ROLE, "gateway") as thief:
        store._writer_engine.dispose()
        lock = 0x44475702, second_key(settings.schema, "main")
        take = "SELECT pg_try_advisory_lock(%s, %s)"
        # The server ends the session when it comes to it.
        wait_for(lambda: thief.execute(take, lock).fetchone() == (True,), what="the end of the daemon's session")
        with pytest.raises(StoreUnavailableError, match="node name main"):
            store.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.FILE, "m"))
        thief.execute("SELECT pg_advisory_unlock(%s, %s)", lock)
        store.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.FILE, "m"))


# --- roles (F31) ---


@pytest.fixture(scope="module")
def as_writer(tmp_path_factory: pytest.TempPathFactory) -> StoreSettings:
    """A store whose tables another role owns, with a row in every table."""
    cluster = shared_cluster()
    if not cluster.sql(f"SELECT 1 FROM pg_roles WHERE rolname = '{WRITER}'"):
        cluster.sql(f"CREATE ROLE {WRITER} LOGIN")
    settings = cluster.settings(url=cluster.url(WRITER))
    init_store(settings, cluster.url())
    with opened(settings, tmp_path_factory.mktemp("keys")) as store:
        store.write_blocking(fill)
    return settings


CHANGES = {
    "update": "UPDATE {t} SET {c} = {c}",
    "update no row": "UPDATE {t} SET {c} = {c} WHERE false",
    "delete": "DELETE FROM {t}",
    "truncate": "TRUNCATE {t} CASCADE",
    "upsert": "INSERT INTO {t} SELECT * FROM {t} ON CONFLICT ({k}) DO UPDATE SET {c} = excluded.{c}",
    "merge": "MERGE INTO {t} USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE",
}


def attack(table: Table, statement: str) -> str:
    keys = ", ".join(column.name for column in table.primary_key)
    return statement.format(t=table.name, c=next(iter(table.c)).name, k=keys)


@pytest.mark.parametrize("table", APPEND_ONLY, ids=lambda table: table.name)
def test_no_statement_of_anybody_changes_an_append_only_row(as_writer: StoreSettings, table: Table) -> None:
    """Neither of the gateway's role, which has no right, nor of the owner or a superuser, whom the guards refuse."""
    cluster = shared_cluster()
    place = f"SET search_path TO {as_writer.schema}"
    # In replica mode ordinary triggers do not fire (finding 6).
    users = {WRITER: (place,), ROLE: (place,), "boss": (place, "SET session_replication_role = replica")}
    for user, first in users.items():
        with cluster.connect(user, "gateway") as connection:
            for statement in first:
                connection.execute(statement)
            before = connection.execute(f"SELECT count(*), min(t::text) FROM {table.name} t").fetchone()
            for statement in CHANGES.values():
                expected = psycopg.errors.InsufficientPrivilege if user == WRITER else psycopg.errors.IntegrityError
                with pytest.raises(expected):
                    connection.execute(attack(table, statement))
            assert connection.execute(f"SELECT count(*), min(t::text) FROM {table.name} t").fetchone() == before


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE job",
        "TRUNCATE job",
        "CREATE TABLE x (y int)",
        "ALTER TABLE raw_message DISABLE TRIGGER ALL",
        "DROP TRIGGER raw_message_no_update ON raw_message",
        "CREATE OR REPLACE FUNCTION gateway_refuse_change() RETURNS trigger LANGUAGE sql AS ''",
        "CREATE TRIGGER x BEFORE INSERT ON job EXECUTE FUNCTION gateway_refuse_change()",
        "GRANT DELETE ON raw_message TO gateway_writer",
        "SET session_replication_role = replica",
    ],
)
def test_the_gateways_role_makes_and_removes_nothing(as_writer: StoreSettings, statement: str) -> None:
    cluster = shared_cluster()
    with cluster.connect(WRITER, "gateway") as connection:
        connection.execute(f"SET search_path TO {as_writer.schema}")
        refused = False
        try:
            connection.execute(statement)
        except psycopg.errors.InsufficientPrivilege:
            refused = True
        # To some a GRANT of what they may not grant is only a warning.
        assert refused or statement.startswith("GRANT")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM raw_message")


def test_the_mutable_tables_are_the_ones_that_are_known(as_writer: StoreSettings) -> None:
    rows = shared_cluster().sql(
        "SELECT table_name FROM information_schema.role_table_grants "
        f"WHERE grantee = '{WRITER}' AND table_schema = '{as_writer.schema}' AND privilege_type = 'DELETE'",
        "gateway",
    )
    append_only = {table.name for table in APPEND_ONLY}
    assert {name for (name,) in rows} == {table.name for table in metadata.sorted_tables} - append_only


def test_the_store_works_with_the_rights_of_the_role_and_says_what_it_lacks(
    as_writer: StoreSettings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def rewrite(tx: UnitOfWork) -> None:
        tx.audit._connection.exec_driver_sql("DELETE FROM raw_message")  # type: ignore[attr-defined]

    with opened(as_writer, tmp_path_factory.mktemp("k"), daemon=False) as store:
        assert store.weaknesses() == []
        with pytest.raises(StoreError, match="lacks a right"):
            store.write_blocking(rewrite)


def test_guards_that_somebody_took_away_are_asked_for_and_put_back_by_the_owner(
    cluster: Cluster, tmp_path: Path
) -> None:
    if not cluster.sql(f"SELECT 1 FROM pg_roles WHERE rolname = '{WRITER}'"):
        cluster.sql(f"CREATE ROLE {WRITER} LOGIN")
    settings = cluster.settings(url=cluster.url(WRITER))
    init_store(settings, cluster.url())
    for statement in (
        "DROP TRIGGER raw_message_no_update ON {s}.raw_message",
        "ALTER TABLE {s}.raw_message DISABLE TRIGGER raw_message_no_truncate",
        "ALTER TABLE {s}.raw_message ENABLE TRIGGER raw_message_no_delete",
    ):
        cluster.sql(statement.format(s=settings.schema), "gateway")
        with pytest.raises(ConfigurationError, match="store init --owner-url"):
            opened(settings, tmp_path)
        init_store(settings, cluster.url())
        opened(settings, tmp_path).close()


def test_the_owner_is_refused_by_the_guards(cluster: Cluster, tmp_path: Path) -> None:
    def rewrite(tx: UnitOfWork) -> None:
        tx.audit._connection.exec_driver_sql("DELETE FROM raw_message")  # type: ignore[attr-defined]

    with opened(cluster.settings(), tmp_path) as store, pytest.raises(ConflictError, match="contradicts"):
        store.write_blocking(rewrite)


def test_rights_need_another_role_that_is_there(cluster: Cluster) -> None:
    with pytest.raises(ConfigurationError, match="owns the tables"):
        init_store(cluster.settings(), cluster.url())
    with pytest.raises(ConfigurationError, match="CREATE ROLE nobody_knows"):
        init_store(cluster.settings(url=cluster.url("nobody_knows")), cluster.url())
    with pytest.raises(ConfigurationError, match="SQLite"):
        init_store(StoreSettings(), None)
