"""No row of an append-only table changes or goes (F31, promise 3)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Table

from gateway.core.lifecycle import State
from gateway.ports import Link, UnitOfWork
from gateway.store.engines import set_pragmas
from gateway.store.ids import new_id
from gateway.store.sql_store import SQLStore
from gateway.store.tables import APPEND_ONLY, metadata
from tests.support.store_samples import ALICE, NOW, accepted, inbound, indexed, open_store, patient

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
MUTABLE = {"job", "mailbox_counter", "mailbox_flag", "account"}


def fill(tx: UnitOfWork) -> None:
    """At least one row in every table."""
    message_id = new_id(NOW)
    tx.messages.add_raw(message_id, NOW, inbound())
    tx.messages.set_state(message_id, State.RECEIVED, NOW)
    judgement = accepted(ALICE)
    tx.messages.add_verdict(message_id, NOW, judgement)
    tx.messages.add_content(message_id, judgement)
    mailbox = tx.mailboxes.create("alice", NOW, [ALICE])
    tx.mailboxes.add(mailbox, message_id, tx.messages.content(message_id).content_sha256, indexed(), NOW)
    tx.accounts.grant(tx.accounts.add("alice", "hash", NOW), "INBOX", mailbox, "lrs")
    tx.patients.upsert([patient()], "csv", NOW)
    tx.links.add(Link("L1", message_id, "P1", "manual", "user", "by hand", NOW))
    tx.links.add_receipt("L1", "folder", "there", NOW)
    tx.audit.add(NOW, "user", "test", message_id)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A connection as the gateway's own, with every table filled."""
    with open_store(tmp_path) as store:
        store.write_blocking(fill)
        connection = sqlite3.connect(store.path, isolation_level=None)
        set_pragmas(connection)
        yield connection
        connection.close()


def rows(database: sqlite3.Connection, table: str) -> list[tuple[object, ...]]:
    return database.execute(f"SELECT * FROM {table}").fetchall()


def test_every_table_is_known_to_be_one_or_the_other() -> None:
    assert {table.name for table in metadata.sorted_tables} == {table.name for table in APPEND_ONLY} | MUTABLE


@pytest.mark.parametrize("table", APPEND_ONLY, ids=lambda table: table.name)
@pytest.mark.parametrize("attack", ATTACKS)
def test_no_statement_changes_an_append_only_row(database: sqlite3.Connection, table: Table, attack: str) -> None:
    before = rows(database, table.name)
    assert before
    with pytest.raises(sqlite3.IntegrityError, match=f"append-only: {table.name}"):
        database.execute(ATTACKS[attack](table))
    assert rows(database, table.name) == before


def test_without_recursive_triggers_replace_would_go_through(database: sqlite3.Connection) -> None:
    """Finding 6: why the pragma is read back at every start."""
    database.execute("PRAGMA recursive_triggers=OFF")
    database.execute("PRAGMA foreign_keys=OFF")
    database.execute("INSERT OR REPLACE INTO audit_event SELECT * FROM audit_event")


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
        tx.audit._connection.exec_driver_sql("DELETE FROM raw_body")  # type: ignore[attr-defined]

    store: SQLStore
    with open_store(tmp_path) as store:
        store.write_blocking(fill)
        with pytest.raises(Exception, match="contradicts what is stored"):
            store.write_blocking(rewrite)
