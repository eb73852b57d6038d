"""Connections to SQLite, set up so that a commit is on the disk when it returns (finding 5).

Guarantees: every connection has the pragmas of ``PRAGMAS`` and has read them back, so that a build of SQLite that
ignores one is found at start and not after a power cut. Writers begin with ``BEGIN IMMEDIATE``: they wait for the
lock at the start, where nothing is lost, and never fail in the middle. Readers cannot write. The driver's own
handling of transactions is off, because it commits behind one's back.

What the dialects do differently stands here and in :mod:`gateway.store.jobs` only.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Boolean, ColumnElement, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import QueuePool
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from gateway.core.errors import ConfigurationError, ConflictError, GatewayError, StoreError, StoreFullError

BUSY_TIMEOUT_MS = 30_000
PRAGMAS: tuple[tuple[str, str, str | int], ...] = (
    # The name, the value to set, and what must be read back.
    ("journal_mode", "WAL", "wal"),
    ("synchronous", "FULL", 2),
    ("foreign_keys", "ON", 1),
    ("recursive_triggers", "ON", 1),
    ("trusted_schema", "OFF", 0),
    ("busy_timeout", str(BUSY_TIMEOUT_MS), BUSY_TIMEOUT_MS),
    ("wal_autocheckpoint", "1000", 1000),
    # Sorting must not spill what is in the mail to a temporary file.
    ("temp_store", "MEMORY", 2),
)


def writer_engine(path: Path) -> Engine:
    """Return the engine of the one writer: a single connection, BEGIN IMMEDIATE."""
    return _engine(path, size=1, begin="BEGIN IMMEDIATE", query_only=False)


def reader_engine(path: Path, size: int) -> Engine:
    """Return the engine of ``size`` readers: each transaction is one snapshot, and refuses to write."""
    return _engine(path, size=size, begin="BEGIN", query_only=True)


def _engine(path: Path, *, size: int, begin: str, query_only: bool) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        poolclass=QueuePool,
        pool_size=size,
        max_overflow=0,
        pool_reset_on_return="rollback",
        connect_args={"check_same_thread": False, "isolation_level": None, "timeout": BUSY_TIMEOUT_MS / 1000},
        # A statement's parameters are mail: they must never stand in the text of an error.
        hide_parameters=True,
    )

    def on_connect(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        set_pragmas(connection)
        if query_only:
            connection.execute("PRAGMA query_only=ON")

    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
    return engine


def set_pragmas(connection: sqlite3.Connection) -> None:
    """Set every pragma and read it back.

    Raises:
        ConfigurationError: this SQLite or this file system does not do what the mail needs.
    """
    for name, value, expected in PRAGMAS:
        connection.execute(f"PRAGMA {name}={value}").fetchall()
        found = connection.execute(f"PRAGMA {name}").fetchone()
        if not found or found[0] != expected:
            shown = found[0] if found else "nothing"
            raise ConfigurationError(
                f"SQLite {sqlite3.sqlite_version} answers {shown} to {name}={value} on this disk: "
                f"committed mail would not be safe, so the store stays closed"
            )


# --- errors ---

_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR | (19 << 8)}
"""No space: plainly, or (SQLITE_IOERR_SHMSIZE) while the shared-memory index of the WAL grows."""

_FATAL = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
"""After one of these nothing that the engine says of a commit can be believed (fsync does not fail twice)."""


def error_code(error: BaseException) -> int | None:
    """Return SQLite's extended result code behind an error, or None."""
    origin = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(origin, "sqlite_errorcode", None)
    return code if isinstance(code, int) else None


def is_full(error: BaseException) -> bool:
    """Whether there was no space left."""
    code = error_code(error)
    return code is not None and (code in _FULL or code & 0xFF == sqlite3.SQLITE_FULL)


def is_fatal(error: BaseException) -> bool:
    """Whether the engine must not be used any more."""
    code = error_code(error)
    return code is not None and not is_full(error) and code & 0xFF in _FATAL


def as_gateway_error(error: BaseException) -> BaseException:
    """Return the error of our tree for one of the database, with a fixed text; any other error as it is."""
    if isinstance(error, GatewayError) or not isinstance(error, StatementError):
        return error
    if not isinstance(error, DBAPIError):
        # A value that no column takes: the mistake of whoever gave it.
        return error.orig or error
    code = error_code(error)
    if is_full(error):
        return StoreFullError("no space is left for the store")
    if code is not None and code & 0xFF == sqlite3.SQLITE_CONSTRAINT:
        return ConflictError("the request contradicts what is stored")
    name = getattr(error.orig, "sqlite_errorname", None) or type(error.orig).__name__
    return StoreError(f"the store failed ({name})")


# --- what the dialects spell differently ---


class holds_text(FunctionElement[bool]):  # noqa: N801 - it reads as an SQL function
    """``holds_text(column, needle)``: whether the text holds the needle, every character taken as it is."""

    type = Boolean()
    inherit_cache = True


@compiles(holds_text, "sqlite")
def _holds_text_sqlite(element: holds_text, compiler: SQLCompiler, **options: Any) -> str:
    text, needle = element.clauses
    return f"(instr({compiler.process(text, **options)}, {compiler.process(needle, **options)}) > 0)"


@compiles(holds_text, "postgresql")
def _holds_text_postgresql(element: holds_text, compiler: SQLCompiler, **options: Any) -> str:
    text, needle = element.clauses
    return f"(strpos({compiler.process(text, **options)}, {compiler.process(needle, **options)}) > 0)"


def append_only_triggers(table: str, dialect: str) -> dict[str, str]:
    """Return name and statement of the triggers that refuse UPDATE and DELETE on a table.

    INSERT OR REPLACE deletes too: SQLite fires the trigger for that only with ``recursive_triggers=ON``.
    """
    if dialect != "sqlite":
        raise ConfigurationError(f"there are no append-only triggers for {dialect} yet")
    return {
        f"{table}_no_{verb.lower()}": (
            f"CREATE TRIGGER IF NOT EXISTS {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, 'append-only: {table}'); END"
        )
        for verb in ("UPDATE", "DELETE")
    }


def has_text(column: ColumnElement[str], needle: str) -> ColumnElement[bool]:
    """Typed front of :class:`holds_text`."""
    return holds_text(column, needle)
