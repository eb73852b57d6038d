"""The floor of storing: one transaction with the bytes of a group, committed and synced, and nothing around it.

One row in a table with a number and the bytes, written through the same library to the same disk, with the settings
that make a commit durable. SQLite is driven by its module of the standard library and PostgreSQL by psycopg, without
anything in between.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tests.bench.gateways import Gateway, PostgreSQLGateway, tree_seconds
from tests.bench.world import BenchError

TRANSACTIONS = 300
_WARM = 20


@dataclass(frozen=True)
class CommitFloor:
    """Of one transaction, in seconds."""

    cpu: float
    wall: float


def measure_commit(gateway: Gateway, group_bytes: int) -> CommitFloor:
    """What a commit of so many bytes costs where that gateway stores; its daemon does not run.

    Raises:
        BenchError: the database is not durable, so that the numbers would mean nothing.
    """
    if isinstance(gateway, PostgreSQLGateway):
        return _postgresql(gateway, group_bytes)
    with tempfile.TemporaryDirectory(dir=gateway.practice.directory) as folder:
        return _sqlite(Path(folder) / "floor.db", group_bytes)


def _sqlite(path: Path, group_bytes: int) -> CommitFloor:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        if connection.execute("PRAGMA synchronous").fetchone() != (2,):
            raise BenchError("SQLite does not sync its commits")
        connection.execute("CREATE TABLE floor (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")

        def commit(body: bytes) -> None:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO floor (body) VALUES (?)", (body,))
            connection.execute("COMMIT")

        return _timed(commit, group_bytes, time.process_time)


def _postgresql(gateway: PostgreSQLGateway, group_bytes: int) -> CommitFloor:
    cluster = gateway.site.cluster
    server = int((cluster.data / "postmaster.pid").read_text().split()[0])
    with closing(cluster.connect()) as connection:
        if connection.execute("SHOW fsync").fetchone() != ("on",):
            raise BenchError("PostgreSQL does not sync its commits")
        connection.execute("CREATE TABLE floor (id bigserial PRIMARY KEY, body bytea NOT NULL)")
        # The bytes are sealed in the real thing: trying to make them smaller is for nothing.
        connection.execute("ALTER TABLE floor ALTER body SET STORAGE EXTERNAL")
        try:

            def commit(body: bytes) -> None:
                with connection.transaction():
                    connection.execute("INSERT INTO floor (body) VALUES (%b)", (body,))

            return _timed(commit, group_bytes, lambda: time.process_time() + tree_seconds(server))
        finally:
            connection.execute("DROP TABLE floor")


def _timed(commit: Callable[[bytes], None], group_bytes: int, cpu: Callable[[], float]) -> CommitFloor:
    bodies = [os.urandom(group_bytes) for _ in range(4)]
    for number in range(_WARM):
        commit(bodies[number % 4])
    began, used = time.monotonic(), cpu()
    for number in range(TRANSACTIONS):
        commit(bodies[number % 4])
    used, wall = cpu() - used, time.monotonic() - began
    return CommitFloor(used / TRANSACTIONS, wall / TRANSACTIONS)
