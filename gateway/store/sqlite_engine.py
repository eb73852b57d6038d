"""Connections to SQLite, set up so that a commit is on the disk when it returns (finding 5).

Guarantees: every connection has the pragmas of ``PRAGMAS`` and has read them back, so that a build of SQLite that
ignores one is found at start and not after a power cut. Writers begin with ``BEGIN IMMEDIATE``: they wait for the
lock at the start, where nothing is lost, and never fail in the middle. Readers cannot write. The driver's own
handling of transactions is off, because it commits behind one's back.

One daemon for one file (:class:`gateway.store.files.FileLock`). Command-line tools open the same file beside it.
"""

from __future__ import annotations

import shutil
import sqlite3
import threading
from datetime import datetime
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

from gateway.core.errors import ConfigurationError, StoreError
from gateway.ports import Hints
from gateway.store.files import FileLock, prepare, running_daemon
from gateway.store.hints import NoHints
from gateway.store.running import run_text

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


class SQLiteDatabase:
    """One file. Implements :class:`gateway.store.engines.Database`."""

    shared = False

    def __init__(self, path: Path, *, readers: int, daemon: bool, upgrading: bool = False) -> None:
        """Make the file when it is not there; ``daemon`` keeps every other daemon out until ``close``.

        ``upgrading``: daemons are kept out as well, and the writer does not enforce foreign keys, because a table that
        others refer to can only be made anew without them. Whoever upgrades checks them before the commit.

        Raises:
            ConfigurationError: a second daemon, a network file system, a folder that cannot be made.
        """
        prepare(path)
        self.path = path
        self._lock = FileLock(path) if daemon or upgrading else None
        if self._lock is not None:
            self._lock.acquire()
        self.writer = _engine(path, size=1, begin="BEGIN IMMEDIATE", query_only=False, foreign_keys=not upgrading)
        self.reader = _engine(path, size=readers, begin="BEGIN", query_only=True)
        self.hints: Hints = NoHints()
        self._watching = threading.Lock()
        self._watch: sqlite3.Connection | None = None
        """Writes nothing and reads no row: what it is told of is what all others commit."""

    def begin_group(self, connection: Connection) -> datetime | None:
        """No more to do: BEGIN IMMEDIATE has had the lock."""
        return self.now(connection)

    def now(self, connection: Connection) -> datetime | None:  # noqa: ARG002 - there is nobody to ask
        """The only clock is this machine's."""
        return None

    def begin_schema(self, connection: Connection) -> None:
        """A file needs nothing before its tables."""

    def begin_upgrade(self, connection: Connection) -> None:
        """BEGIN IMMEDIATE has the file; there is no more to do."""

    def end_upgrade(self, connection: Connection) -> None:
        """Raises StoreError when a row refers to one that is not there."""
        if found := connection.exec_driver_sql("PRAGMA foreign_key_check").first():
            raise StoreError(
                f"nothing was changed: a row of {found[0]} refers to one of {found[2]} that is not there; "
                f"direct-gateway audit verify, of the release that you had, says what is missing"
            )

    def in_transaction(self, connection: Connection) -> bool:
        """Whether SQLite has not undone the whole transaction because of one statement."""
        return bool(getattr(connection.connection.dbapi_connection, "in_transaction", False))

    def is_aborted(self, connection: Connection) -> bool:  # noqa: ARG002 - whatever it is
        """Never: SQLite undoes the statement that failed, or the transaction."""
        return False

    def before_commit(self, connection: Connection) -> None:
        """A COMMIT of SQLite says what it did."""

    def after_commit(self, connection: Connection) -> None:
        """A COMMIT of SQLite says what it did."""

    def version(self) -> int | None:
        """A number that is another one after each commit, also of another process. None when it cannot be told now.

        It is read from the memory that the processes share, in a few microseconds, and waits for nobody.
        """
        with self._watching:
            try:
                if self._watch is None:
                    self._watch = sqlite3.connect(self.path, isolation_level=None, timeout=0, check_same_thread=False)
                    self._watch.execute("PRAGMA query_only=ON")
                found = self._watch.execute("PRAGMA data_version").fetchone()
            except sqlite3.Error:
                return None
            return int(found[0])

    def free_bytes(self) -> int | None:
        """Bytes free on the file system of the database."""
        return shutil.disk_usage(self.path.parent).free

    def gateways(self) -> list[str]:
        """The process id of the daemon on this file, when one is seen from here."""
        pid = running_daemon(self.path)
        return [] if pid is None else [str(pid)]

    def weaknesses(self) -> list[str]:
        """None that could be mended: whoever has the file can write to it."""
        return []

    def close(self) -> None:
        """Close every connection and free the lock."""
        with self._watching:
            if self._watch is not None:
                self._watch.close()
        self.reader.dispose()
        self.writer.dispose()
        if self._lock is not None:
            self._lock.release()


def _engine(path: Path, *, size: int, begin: str, query_only: bool, foreign_keys: bool = True) -> Engine:
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
        if not foreign_keys:
            connection.execute("PRAGMA foreign_keys=OFF")
        if query_only:
            connection.execute("PRAGMA query_only=ON")

    def on_begin(connection: Connection) -> None:
        run_text(connection, begin)

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
