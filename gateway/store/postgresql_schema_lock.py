"""Keeps those who work on a PostgreSQL schema and those who change its tables apart, over all nodes.

Every session that may write holds a lock on the schema, shared, for as long as it lives, and has seen that the tables
are those of this release *after* it had the lock. An upgrade needs the same lock for itself alone. So

* an upgrade is refused while any gateway or command works on the database, and says on which nodes;
* whoever starts during an upgrade is told to wait;
* a node that lost its session (frozen, cut off) and comes back after an upgrade writes nothing any more: its next
  session finds another schema than it knows, and is refused. Its senders hear 451, and it has to be started again.

The locks are freed by the server when the session ends, however it ends.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg

from gateway.core.errors import ConfigurationError, StoreUnavailableError
from gateway.store.schema_versions import FoundSchema, other_schema

SCHEMA_LOCK: Final = 0x44475703
"""First key of the advisory lock; the second is made from the schema."""


class TakenError(StoreUnavailableError):
    """Another session holds what this one needs. The server is well."""


class InUseError(TakenError):
    """Somebody works on the tables that are to be changed."""


def hold_schema(connection: psycopg.Connection[Any], key: int, *, alone: bool) -> None:
    """Take the lock for this session, and unless ``alone`` see that the tables are those of this release.

    Args:
        connection: a new session, outside of any transaction.
        key: second key of the lock.
        alone: to change the tables.

    Raises:
        TakenError: an upgrade runs, or for who wants to be alone: somebody works on the database.
        ConfigurationError: the tables are of another release.
    """
    connection.autocommit = True
    try:
        kind = "" if alone else "_shared"
        row = connection.execute(
            f"SELECT pg_try_advisory_lock{kind}(%s, %s), to_regclass('schema_version')::text",
            (SCHEMA_LOCK, key),
        ).fetchone()
        assert row is not None  # noqa: S101 - a SELECT without FROM has a row
        had, table = row
        if not had and alone:
            raise InUseError("gateways or commands work on this database")
        if not had:
            raise TakenError("the tables of the database are being upgraded; start again when that is done")
        if table is not None and not alone:
            _refuse_other(connection)
    finally:
        connection.autocommit = False


def _refuse_other(connection: psycopg.Connection[Any]) -> None:
    try:
        row = connection.execute("SELECT max(version) FROM schema_version").fetchone()
    except psycopg.errors.InsufficientPrivilege:
        # A role that was given no rights yet; what it then tries tells it so.
        return
    if row is not None and row[0] is not None and (told := other_schema(FoundSchema(row[0]))):
        raise ConfigurationError(told)
