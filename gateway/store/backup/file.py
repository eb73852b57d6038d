"""The SQLite file of a backup, and the one that a restore puts in its place: made at once, read without a trace.

A file that is being made has no journal and is not synced page by page: nobody reads it before it is complete, synced
and has its name, and a process that is killed before leaves a file that is thrown away. Reading never writes: no WAL,
no lock, no change of the header, so that a backup on a medium that cannot be written is read as any other.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import NullPool

from gateway.store.guards import restore_guards
from gateway.store.tables import metadata

_CACHE_KIB = 32_768
_CHUNK_BYTES = 1 << 20


@contextmanager
def new_file(path: Path) -> Iterator[Connection]:
    """Make a database with all tables and, at the end, their guards; on the disk when the context ends without error.

    The file must not be there. It is left as it is when the context fails. Rows are taken as they are: one that refers
    to a row that is not there is told by whoever checks the file, and is no reason to save nothing.

    Raises:
        DBAPIError, OSError: the disk does not take it.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    pragmas = ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{_CACHE_KIB}", "temp_store=MEMORY")
    engine = _engine(path, "rwc", ("locking_mode=EXCLUSIVE", *pragmas, "foreign_keys=OFF", "trusted_schema=OFF"))
    try:
        with engine.begin() as connection:
            metadata.create_all(connection)
            yield connection
            # After the rows: the guard against REPLACE looks for each new row whether it is there.
            restore_guards(connection)
    finally:
        engine.dispose()
    sync_file(path)


@contextmanager
def closed_file(path: Path) -> Iterator[Connection]:
    """Read a database that nobody writes to. The file and its folder stay as they are.

    Raises:
        DBAPIError: it cannot be opened as a database.
    """
    engine = closed_engine(path)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def closed_engine(path: Path) -> Engine:
    """An engine over such a file; the caller disposes of it."""
    pragmas = (f"cache_size=-{_CACHE_KIB}", "temp_store=MEMORY", "trusted_schema=OFF", "cell_size_check=ON")
    return _engine(path, "ro&immutable=1", (*pragmas, "query_only=ON"))


def _engine(path: Path, mode: str, pragmas: tuple[str, ...]) -> Engine:
    uri = f"file:{quote(str(path.absolute()))}?mode={mode}"

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        try:
            for pragma in pragmas:
                connection.execute(f"PRAGMA {pragma}").fetchall()
        except BaseException:
            connection.close()
            raise
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool, hide_parameters=True)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine


def sync_file(path: Path) -> None:
    """Bring a file to the disk, and out of memory: who reads it again reads what the disk has. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def file_digest(path: Path, told: Callable[[int], None] = lambda _bytes: None) -> tuple[int, str]:
    """Size and SHA-256 of a file; ``told`` of the bytes so far. Raises OSError."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while data := file.read(_CHUNK_BYTES):
            digest.update(data)
            size += len(data)
            told(size)
    return size, digest.hexdigest()
