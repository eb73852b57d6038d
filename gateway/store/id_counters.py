"""The counters that give out ids (accounts, jobs, mailboxes): a copy or a restored store goes on where the other stood.

An id that was given out once must not come again, also when its row is gone by now: a late worker would finish
somebody else's job. So it is the counter that is carried over, and not only the greatest id that is there.

On PostgreSQL the gateway's role may draw from a counter and not set it. Where it may not, numbers are drawn until the
counter stands where it should.

Crash story: counters are outside of transactions and only ever rise; to do it again is safe.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Column, Connection, Table, func, select, text
from sqlalchemy.exc import DBAPIError

from gateway.core.errors import StoreError
from gateway.store.database_errors import sqlstate
from gateway.store.table_rows import all_tables

_DRAWN_AT_ONCE: Final = 200_000
_MOST_DRAWN: Final = 200_000_000
"""Some minutes; a counter that is further away is set by the role that owns the tables."""


def counted_columns() -> dict[Table, Column[int]]:
    """The tables whose ids the database counts up, each with its column."""
    return {table: table.autoincrement_column for table in all_tables() if table.autoincrement_column is not None}


def counters(connection: Connection) -> dict[str, int]:
    """By table: the greatest id that was ever given out, as far as the database knows; 0 for none."""
    kept = _kept_sqlite(connection) if connection.dialect.name == "sqlite" else _kept_postgresql(connection)
    found = {}
    for table, column in counted_columns().items():
        greatest = connection.scalar(select(func.max(column))) or 0
        found[table.name] = max(0, int(greatest), kept.get(table.name, 0))
    return found


def standing(connection: Connection) -> dict[str, int]:
    """By table: the id after which the database goes on by itself.

    PostgreSQL goes by the counter alone, and would meet an id that was brought by a copy.
    """
    return counters(connection) if connection.dialect.name == "sqlite" else _kept_postgresql(connection)


def _kept_sqlite(connection: Connection) -> dict[str, int]:
    return {name: int(seq) for name, seq in connection.execute(text("SELECT name, seq FROM sqlite_sequence"))}


def _kept_postgresql(connection: Connection) -> dict[str, int]:
    found = {}
    for table, column in counted_columns().items():
        last = connection.scalar(
            text("SELECT pg_sequence_last_value(CAST(pg_get_serial_sequence(:table, :column) AS regclass))"),
            {"table": table.name, "column": column.name},
        )
        found[table.name] = int(last or 0)
    return found


def raise_counters(connection: Connection, wanted: Mapping[str, int]) -> None:
    """Let no counter stand below what is wanted of it, by table, nor below the ids that are there.

    Raises:
        StoreError: a counter is too far away to be drawn, and the role may not set it.
    """
    there = counters(connection)
    sqlite = connection.dialect.name == "sqlite"
    kept = _kept_sqlite(connection) if sqlite else _kept_postgresql(connection)
    for table, column in counted_columns().items():
        least = max(wanted.get(table.name, 0), there[table.name])
        if kept.get(table.name, 0) >= least:
            continue
        if not sqlite:
            _raise_sequence(connection, table, column, least, kept[table.name])
        elif table.dialect_options["sqlite"]["autoincrement"]:
            # Without AUTOINCREMENT SQLite goes on after the greatest id, and rows of such a table never go.
            connection.execute(text("DELETE FROM sqlite_sequence WHERE name = :name"), {"name": table.name})
            connection.execute(
                text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :seq)"),
                {"name": table.name, "seq": least},
            )


def _raise_sequence(connection: Connection, table: Table, column: Column[int], least: int, last: int) -> None:
    place = "CAST(pg_get_serial_sequence(:table, :column) AS regclass)"
    names = {"table": table.name, "column": column.name}
    savepoint = connection.begin_nested()
    try:
        connection.execute(text(f"SELECT setval({place}, :least)"), names | {"least": least})
        savepoint.commit()
    except DBAPIError as exc:
        savepoint.rollback()
        if sqlstate(exc) != "42501":
            raise
    else:
        return
    if least - last > _MOST_DRAWN:
        raise StoreError(
            f"the counter of {table.name} stands at {last} and must go on after {least}, and this role may not "
            f"set it: as the role that owns the tables, run: SELECT setval(pg_get_serial_sequence("
            f"'{table.name}', '{column.name}'), {least})"
        )
    while last < least:
        drawn = min(_DRAWN_AT_ONCE, least - last)
        found = connection.scalar(
            text(f"SELECT max(nextval({place})) FROM generate_series(1, :drawn)"),  # noqa: S608 - our own text
            names | {"drawn": drawn},
        )
        last = int(found or 0)
