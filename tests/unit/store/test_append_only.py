"""No row of an append-only table changes or goes (F31, promise 3)."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
from sqlalchemy import Table, UniqueConstraint

from gateway.ports import UnitOfWork
from gateway.store.sql_store import SQLStore
from gateway.store.sqlite_engine import set_pragmas
from gateway.store.tables import APPEND_ONLY, metadata
from tests.support.filled_store import fill, fill_rest
from tests.support.store_samples import open_store

Attack = Callable[[Table], str]


def first(table: Table) -> str:
    return next(iter(table.c)).name


# ruff: noqa: S608 - the names are our own, and SQL is what is tested
ATTACKS: dict[str, Attack] = {
    "update": lambda t: f"UPDATE {t.name} SET {first(t)} = {first(t)}",
    "update rowid": lambda t: f"UPDATE {t.name} SET rowid = rowid + 1000",
    "update or replace": lambda t: f"UPDATE OR REPLACE {t.name} SET {first(t)} = {first(t)}",
    "delete": lambda t: f"DELETE FROM {t.name}",
    "insert or replace": lambda t: f"INSERT OR REPLACE INTO {t.name} SELECT * FROM {t.name}",
    "replace rowid": lambda t: (
        f"REPLACE INTO {t.name} (rowid, {', '.join(c.name for c in t.c)}) SELECT rowid, * FROM {t.name}"
    ),
    "upsert": lambda t: (
        f"INSERT INTO {t.name} SELECT * FROM {t.name} WHERE true "
        f"ON CONFLICT ({', '.join(c.name for c in t.primary_key)}) DO UPDATE SET {first(t)} = excluded.{first(t)}"
    ),
}
MUTABLE = {
    "fetch_item",
    "fetch_place",
    "fetch_status",
    "key_encryption_key",
    "wrapped_key",
    "job",
    "import_delivery",
    "import_target",
    "mailbox_counter",
    "mailbox_flag",
    "mailbox_seen",
    "account",
    "login_use",
    "client_session",
    "bundle_status",
    "quarantine",
}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with every table filled; to fill one for each attack would take most of the time of these tests."""
    with open_store(tmp_path_factory.mktemp("filled")) as store:
        store.write_blocking(fill)
        store.write_blocking(fill_rest)
        return store.path


@pytest.fixture
def database(tmp_path: Path, filled: Path) -> Iterator[sqlite3.Connection]:
    """A connection to one of its own, as the gateway's."""
    connection = sqlite3.connect(shutil.copy(filled, tmp_path), isolation_level=None)
    set_pragmas(connection)
    yield connection
    connection.close()


def rows(database: sqlite3.Connection, table: str) -> list[tuple[object, ...]]:
    return database.execute(f"SELECT * FROM {table}").fetchall()


def refused(table: Table, attack: str) -> AbstractContextManager[object]:
    """What is kept under its own digest is not refused when it comes again; it is left out."""
    if table.info["by_digest"] and ("insert" in attack or "replace rowid" in attack or attack == "upsert"):
        return nullcontext()
    return pytest.raises(sqlite3.IntegrityError, match=f"append-only: {table.name}")


def test_every_table_is_known_to_be_one_or_the_other() -> None:
    assert {table.name for table in metadata.sorted_tables} == {table.name for table in APPEND_ONLY} | MUTABLE


@pytest.mark.parametrize("table", APPEND_ONLY, ids=lambda table: table.name)
@pytest.mark.parametrize("attack", ATTACKS)
def test_no_statement_changes_an_append_only_row(database: sqlite3.Connection, table: Table, attack: str) -> None:
    before = rows(database, table.name)
    assert before
    with refused(table, attack):
        database.execute(ATTACKS[attack](table))
    assert rows(database, table.name) == before


@pytest.mark.parametrize("table", APPEND_ONLY, ids=lambda table: table.name)
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_foreign_connection_without_our_pragmas_is_refused_as_well(
    database: sqlite3.Connection, table: Table, attack: str
) -> None:
    """Finding 6: REPLACE removes rows and fires no trigger for that unless the connection asks for it."""
    foreign = sqlite3.connect(database.execute("PRAGMA database_list").fetchone()[2], isolation_level=None)
    assert foreign.execute("PRAGMA recursive_triggers").fetchone() == (0,)
    before = rows(database, table.name)
    with refused(table, attack):
        foreign.execute(ATTACKS[attack](table))
    foreign.close()
    assert rows(database, table.name) == before


@pytest.mark.parametrize("table", APPEND_ONLY, ids=lambda table: table.name)
def test_replace_by_any_other_unique_key_is_refused(database: sqlite3.Connection, table: Table) -> None:
    """A row that shares only a secondary key with the new one would be removed for it just the same."""
    database.execute("PRAGMA recursive_triggers=OFF")
    database.execute("PRAGMA foreign_keys=OFF")
    primary = [column.name for column in table.primary_key]
    for constraint in (c for c in table.constraints if isinstance(c, UniqueConstraint)):
        shared = {column.name for column in constraint.columns}
        values = [c.name if c.name in shared or c.name not in primary else f"{c.name} || '9'" for c in table.c]
        before = rows(database, table.name)
        with pytest.raises(sqlite3.IntegrityError, match=f"append-only: {table.name}"):
            database.execute(f"INSERT OR REPLACE INTO {table.name} SELECT {', '.join(values)} FROM {table.name}")
        assert rows(database, table.name) == before


def test_guards_that_somebody_dropped_are_put_back_at_the_next_start(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    path = tmp_path / "gateway.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("DROP TRIGGER audit_event_no_update")
    other.close()
    with open_store(tmp_path) as store:
        store.write_blocking(fill)
        other = sqlite3.connect(path, isolation_level=None)
        with pytest.raises(sqlite3.IntegrityError):
            other.execute("UPDATE audit_event SET actor = 'nobody'")
        other.close()


def test_the_store_itself_is_refused(tmp_path: Path) -> None:
    def rewrite(tx: UnitOfWork) -> None:
        tx.audit._connection.exec_driver_sql("DELETE FROM body_part")  # type: ignore[attr-defined]

    store: SQLStore
    with open_store(tmp_path) as store:
        store.write_blocking(fill)
        with pytest.raises(Exception, match="contradicts what is stored"):
            store.write_blocking(rewrite)
