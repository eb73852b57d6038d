"""One table of a copy: what the target lacks is added, in transactions of bounded size.

Both stores give their rows in the order of the keys, so that one walk over both finds every difference and holds no
more than a batch. In an append-only table what is there must be in the source exactly so; what is not there is added.
In a mutable table the source is right: a row that differs or is too much goes away first (:func:`align`).

Crash story: each batch is one transaction. Whatever of them was committed, the next walk finds the rest.

Failure modes: :class:`DifferenceError` names the table and the key. Errors of the databases leave as StoreError with a
fixed text: those of a driver may hold what is in the row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from sqlalchemy import Connection, Table, column, delete, select, update
from sqlalchemy import table as plain_table
from sqlalchemy.exc import DBAPIError

from gateway.core.errors import ConflictError, StoreError, StoreFullError, StoreUnavailableError
from gateway.store.copying_marker import MARK_ID
from gateway.store.database_errors import as_gateway_error, is_of_psycopg, scrub, sqlstate
from gateway.store.engines import Database
from gateway.store.table_rows import Row, all_tables, append_rows, key_of, read_rows, rows_at_once, shown_key
from gateway.store.tables import job, schema_version

BATCH_ROWS: Final = 2_000
BATCH_BYTES: Final = 8 << 20
"""About so much is in one transaction, and in memory."""
_DELETED_AT_ONCE: Final = 200


class DifferenceError(ConflictError):
    """The target holds what the source does not hold, or the two say different things in one row."""


def copied_tables() -> tuple[Table, ...]:
    """The tables that are copied, each after those that its rows refer to.

    All but the one that each store has of its own, which says what release made its tables.
    """
    return tuple(table for table in all_tables() if table is not schema_version)


def is_mutable(table: Table) -> bool:
    """Whether rows of the table may change and go."""
    return not table.info.get("append_only")


def rows_of_store(connection: Connection, table: Table, after: Row | None = None) -> Generator[Row, None, None]:
    """The rows in the order of the keys, without the mark of a copy. Whoever does not read to the end closes it."""
    for row in read_rows(connection, table, after=after):
        if table is not job or key_of(table, row) != (MARK_ID,):
            yield row


# --- comparing ---


@dataclass(frozen=True, slots=True)
class Pair:
    """What the two stores have under one key; at least one has something."""

    key: Row
    ours: Row | None
    theirs: Row | None


def pairs(table: Table, ours: Iterable[Row], theirs: Iterable[Row]) -> Iterator[Pair]:
    """Walk over two streams of rows in the order of their keys at the same time."""
    left, right = iter(ours), iter(theirs)
    one, other = next(left, None), next(right, None)
    while one is not None or other is not None:
        one_key = None if one is None else key_of(table, one)
        other_key = None if other is None else key_of(table, other)
        if other_key is None or (one_key is not None and _before(one_key, other_key)):
            assert one_key is not None  # noqa: S101 - one of them is there
            yield Pair(one_key, one, None)
            one = next(left, None)
        elif one_key is None or _before(other_key, one_key):
            yield Pair(other_key, None, other)
            other = next(right, None)
        else:
            yield Pair(one_key, one, other)
            one, other = next(left, None), next(right, None)


def _before(one: Row, other: Row) -> bool:
    try:
        return one < other
    except TypeError as exc:
        raise StoreError("a key in the source holds a value of another kind than its column") from exc


def what_is_missing(table: Table, source: Iterable[Row], target: Iterable[Row]) -> Generator[Row, None, None]:
    """The rows of the source that the target lacks.

    Raises:
        DifferenceError: the target holds another row under that key, or one that the source does not hold.
    """
    for pair in pairs(table, source, target):
        if pair.theirs is None:
            assert pair.ours is not None  # noqa: S101 - one of them is there
            yield pair.ours
        elif pair.ours is None:
            raise DifferenceError(
                f"--to: its row {table.name} {shown_key(pair.key)} is not in the source: it is no copy of that store"
            )
        elif pair.ours != pair.theirs:
            raise DifferenceError(
                f"--to: its row {table.name} {shown_key(pair.key)} differs from the source's: it is no copy of that "
                f"store, or was altered"
            )


# --- writing ---


def batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Cut a stream of rows into lists of bounded size; a row that is larger is one by itself."""
    batch: list[Row] = []
    size = 0
    for row in rows:
        weight = sum(len(value) for value in row if isinstance(value, (str, bytes)))
        if batch and (len(batch) >= BATCH_ROWS or size + weight > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += weight
    if batch:
        yield batch


@contextmanager
def transaction(database: Database) -> Iterator[Connection]:
    """A write transaction of the target that is the only one; durable when the block has ended without an error.

    Raises:
        StoreError: what the database says, with a fixed text.
    """
    try:
        with database.writer.connect() as connection:
            connection.begin()
            database.begin_group(connection)
            yield connection
            database.before_commit(connection)
            connection.commit()
            database.after_commit(connection)
    except Exception as exc:
        if isinstance(exc, (DBAPIError, sqlite3.Error, OverflowError)) or is_of_psycopg(exc):
            # Past SQLAlchemy (COPY) the driver's own text may hold the row.
            scrub(exc)
            raise _told(exc) from exc
        raise


def _told(exc: Exception) -> StoreError:
    """The error of a database in fixed words."""
    state = sqlstate(exc) or ""
    origin = exc.orig if isinstance(exc, DBAPIError) else exc
    kinds = {kind.__name__ for kind in type(origin).__mro__}
    if state[:2] == "22" or (not state and kinds & {"DataError", "OverflowError"}):
        return StoreError(f"--to: the database cannot keep a value of the source ({state or type(origin).__name__})")
    if isinstance(exc, DBAPIError):
        error = as_gateway_error(exc)
        kind = type(error) if isinstance(error, StoreError) else StoreError
        return kind(f"--to: {error}")
    if state[:2] == "23":
        return StoreError(f"--to: the database holds what contradicts the source ({state})")
    if state == "53100":
        return StoreFullError("--to: no space is left for the store")
    return StoreUnavailableError(f"--to: the database does not take the rows now ({state or type(exc).__name__})")


def add(database: Database, table: Table, rows: Iterable[Row], told: Callable[[int], None]) -> int:
    """Add the rows batch by batch; ``told`` hears of each batch. Returns how many rows were added.

    Raises:
        StoreError: names the table, never what is in the row.
    """
    added = 0
    for batch in batches(rows):
        try:
            with transaction(database) as connection:
                append_rows(connection, table, batch)
        except StoreError as exc:
            first = shown_key(key_of(table, batch[0]))
            raise type(exc)(f"{exc} (table {table.name}, {len(batch)} rows from {first} on)") from exc
        added += len(batch)
        told(len(batch))
    return added


def align(
    database: Database, table: Table, source: Callable[[], Iterator[Row]], target: Callable[[], Iterator[Row]]
) -> int:
    """Make a mutable table of the target hold no row that the source does not hold; returns how many were changed.

    A row that differs is removed, to be added again; where other rows refer to the table, it is changed in its place.
    ``source`` and ``target`` give all rows of the table in the order of the keys.
    """
    referred_to = any(key.column.table is table for other in all_tables() for key in other.foreign_keys)
    wrong = (
        pair
        for pair in pairs(table, source(), target())
        if pair.theirs is not None and pair.ours != pair.theirs  # What is missing is added later.
    )
    changed = 0
    while some := list(islice(wrong, min(_DELETED_AT_ONCE, rows_at_once(table)))):
        with transaction(database) as connection:
            for pair in some:
                if pair.ours is not None and referred_to:
                    _replace(connection, table, pair.ours)
                else:
                    connection.execute(delete(table).where(*_is(table, pair.key)))
        changed += len(some)
    return changed


def _is(table: Table, key: Row) -> list[Any]:
    return [part == value for part, value in zip(table.primary_key, key, strict=True)]


def _replace(connection: Connection, table: Table, row: Row) -> None:
    # Without the types of the columns: the values are as the database keeps them.
    bare = plain_table(table.name, *(column(c.name) for c in table.columns))
    values = {c.name: value for c, value in zip(table.columns, row, strict=True) if not c.primary_key}
    where = [bare.c[c.name] == value for c, value in zip(table.primary_key, key_of(table, row), strict=True)]
    connection.execute(update(bare).where(*where).values(values))


def last_key(connection: Connection, table: Table) -> Row | None:
    """The greatest key in the table, or None."""
    keys = list(table.primary_key)
    found = connection.execute(select(*keys).order_by(*(key.desc() for key in keys)).limit(1)).first()
    return None if found is None else tuple(found)
