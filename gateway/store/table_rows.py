"""Whole tables, row by row, in a form that every database has alike: what backups and copies of a store are made of.

* Rows come as plain values (:data:`Value`), as the database keeps them, and not as the program reads them: a time is
  the text that it is, a truth value is 0 or 1, sealed bytes are bytes. What was altered past the gateway is carried as
  it is found, so that it can be told, and no type of a column hides it.
* Rows come in the order of their primary key, which is the same everywhere: texts are in the order of their bytes. So
  the digests of one table in two databases are equal when, and only when, the rows are.
* Memory is bounded by a page of rows, however long the table.

Rows that are written here are not noted for the audit log (:mod:`gateway.store.facts`): they are facts that the
events which come along answer for already.

Failure modes: StoreError that names the table for a value that no database of ours keeps, or a page that cannot be
read; the DBAPIError of the database for everything else.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, TypeAlias

from sqlalchemy import Boolean, Connection, Table, text
from sqlalchemy.exc import DBAPIError

from gateway.core.errors import StoreError
from gateway.store.database_errors import is_fatal, scrub, sqlite_code
from gateway.store.tables import metadata

Value: TypeAlias = int | str | bytes | None
Row: TypeAlias = tuple[Value, ...]
"""The values of all columns, in the order of ``table.columns``."""

_WIDE = frozenset({"body_part", "bundle_version", "certificate", "revocation_data"})
"""Tables whose rows may be of a mebibyte and more."""
_WIDE_ROWS = 16
_ROWS = 200
_PLAIN: Final = (int, str, bytes, type(None))


def all_tables() -> tuple[Table, ...]:
    """Every table of the store, each after those that its rows refer to."""
    return tuple(metadata.sorted_tables)


def rows_at_once(table: Table) -> int:
    """Rows of the table that may be in memory together."""
    return _WIDE_ROWS if table.name in _WIDE else _ROWS


def key_of(table: Table, row: Row) -> Row:
    """The primary key of a row of :func:`read_rows`, as ``after`` takes it."""
    return tuple(row[number] for number, column in enumerate(table.columns) if column.primary_key)


def count_rows(connection: Connection, table: Table) -> int:
    """Rows in the table. Raises StoreError: the table is damaged."""
    statement = text(f"SELECT count(*) FROM {_quoted(connection, table.name)}")  # noqa: S608 - our own name
    try:
        return int(connection.execute(statement).scalar_one())
    except DBAPIError as exc:
        if is_fatal(exc):
            raise StoreError(f"the table {table.name} is damaged: its rows cannot be counted") from exc
        raise


def read_rows(
    connection: Connection, table: Table, *, after: Row | None = None, limit: int | None = None
) -> Iterator[Row]:
    """The rows in the order of the primary key: all of them, or those after that key, at most ``limit``.

    They are of the snapshot of the connection's transaction, and are read as they are asked for: on PostgreSQL by a
    cursor of the server, which other statements of the same connection do not disturb.

    Raises:
        StoreError: a row cannot be read (the file is damaged), or holds what no column of ours keeps. The text names
            the table and the key of the last row before it.
    """
    flags = [number for number, column in enumerate(table.columns) if isinstance(column.type, Boolean)]
    last, result = after, None
    try:
        result = connection.execute(
            text(_select(connection, table, after, limit)),
            {f"k{number}": value for number, value in enumerate(after or ())},
            execution_options={"yield_per": rows_at_once(table)},
        )
        for found in result:
            row = _plain(table, tuple(found), flags)
            yield row
            last = key_of(table, row)
    except (DBAPIError, sqlite3.Error, UnicodeDecodeError) as exc:
        if isinstance(exc, UnicodeDecodeError) or is_fatal(exc) or _is_undecodable(exc):
            raise unreadable(table, last) from exc
        raise
    finally:
        if result is not None:
            result.close()


def unreadable(table: Table, last: Row | None) -> StoreError:
    """The error for a row that cannot be read; ``last``: the key of the one before it."""
    where = f"after the row {shown_key(last)}" if last else "at its first row"
    return StoreError(f"the table {table.name} is damaged {where}: the row cannot be read")


def shown_key(key: Row) -> str:
    """A key in the text of an error: ids, digests and numbers. Keys that are addresses are left out."""
    return "/".join(str(part) if _is_id(part) else "..." for part in key)


def _is_id(part: Value) -> bool:
    return isinstance(part, int) or (isinstance(part, str) and part.isascii() and part.isalnum() and len(part) <= 64)


def _is_undecodable(error: BaseException) -> bool:
    """Whether SQLite's driver found text that is none. It tells that without a code."""
    original = error.orig if isinstance(error, DBAPIError) else error
    return isinstance(original, sqlite3.OperationalError) and sqlite_code(error) is None


def _select(connection: Connection, table: Table, after: Row | None, limit: int | None) -> str:
    columns = ", ".join(_quoted(connection, column.name) for column in table.columns)
    keys = ", ".join(_quoted(connection, column.name) for column in table.primary_key)
    statement = f"SELECT {columns} FROM {_quoted(connection, table.name)}"  # noqa: S608 - our own names
    if after is not None:
        given = ", ".join(f":k{number}" for number in range(len(after)))
        statement += f" WHERE ({keys}) > ({given})"
    statement += f" ORDER BY {keys}"
    return statement if limit is None else f"{statement} LIMIT {int(limit)}"


def _quoted(connection: Connection, name: str) -> str:
    return connection.dialect.identifier_preparer.quote_identifier(name)


def _plain(table: Table, row: tuple[Any, ...], flags: Sequence[int]) -> Row:
    if flags:
        values = list(row)
        for number in flags:
            values[number] = int(values[number]) if isinstance(values[number], bool) else values[number]
        row = tuple(values)
    for value in row:
        if type(value) not in _PLAIN:
            raise StoreError(f"the table {table.name} holds a value of a kind that no column of the store has")
    return row


# --- writing ---


def append_rows(connection: Connection, table: Table, rows: Iterable[Row]) -> int:
    """Add rows, within the transaction of the connection; returns how many. Memory is bounded as for reading.

    Raises:
        DBAPIError: the database refuses a row. StoreError: there is no such value in such a column.
    """
    if connection.dialect.name == "postgresql":
        return _copy_in(connection, table, rows)
    return _insert(connection, table, rows)


def _insert(connection: Connection, table: Table, rows: Iterable[Row]) -> int:
    names = ", ".join(_quoted(connection, column.name) for column in table.columns)
    marks = ", ".join("?" for _ in table.columns)
    statement = f"INSERT INTO {_quoted(connection, table.name)} ({names}) VALUES ({marks})"  # noqa: S608 - our own names
    source, added, most = iter(rows), 0, rows_at_once(table)
    while page := list(islice(source, most)):
        connection.exec_driver_sql(statement, page)
        added += len(page)
    return added


def _copy_in(connection: Connection, table: Table, rows: Iterable[Row]) -> int:
    """COPY: as an INSERT of each row, with its constraints and triggers, and without a round trip for each."""
    names = ", ".join(_quoted(connection, column.name) for column in table.columns)
    flags = [number for number, column in enumerate(table.columns) if isinstance(column.type, Boolean)]
    driver: Any = connection.connection.dbapi_connection
    statement = f"COPY {_quoted(connection, table.name)} ({names}) FROM STDIN"
    added = 0
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(_flagged(table, row, flags) if flags else row)
                added += 1
    except connection.dialect.loaded_dbapi.Error as exc:
        # SQLAlchemy does not see this statement, so nobody else takes what is in the row out of the text.
        scrub(exc)
        raise DBAPIError(statement, None, exc, hide_parameters=True) from None
    return added


def _flagged(table: Table, row: Row, flags: Sequence[int]) -> tuple[Any, ...]:
    values: list[Any] = list(row)
    for number in flags:
        if values[number] not in (0, 1):
            raise StoreError(f"the table {table.name} holds a truth value that is neither 0 nor 1")
        values[number] = bool(values[number])
    return tuple(values)


# --- digests ---

_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), check_circular=False).encode


class RowsDigest:
    """SHA-256 over rows in the order of their keys.

    Each row is a JSON array in ASCII and a line feed; bytes stand in it as an array that holds their SHA-256, so that
    no text can take their place. Anybody can make it again, from any of the databases.
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self.rows = 0
        self.bytes = 0
        """Of the values, about: what a person is told of the size."""

    def add(self, row: Row) -> None:
        """Take the next row in."""
        values: list[Any] = list(row)
        for number, value in enumerate(row):
            if type(value) is bytes:
                self.bytes += len(value)
                values[number] = [hashlib.sha256(value).hexdigest()]
        line = _encode(values).encode("ascii")
        self.bytes += len(line)
        self.rows += 1
        self._digest.update(line)
        self._digest.update(b"\n")

    def hexdigest(self) -> str:
        """The digest of the rows so far."""
        return self._digest.copy().hexdigest()


def digested(rows: Iterable[Row], digest: RowsDigest) -> Iterator[Row]:
    """The rows, each taken into the digest as it passes."""
    for row in rows:
        digest.add(row)
        yield row
