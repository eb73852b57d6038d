"""Makes the tables of a new database, refuses those of another release, and puts back what somebody took away.

``create_schema`` is idempotent and runs in one transaction that is the only writer: a process that is killed in the
middle leaves either nothing or all of it, and processes that start at the same moment, on whatever node, wait for each
other. The tables are made by the same revisions that bring older ones up to date (:mod:`gateway.store.migrations`), so
a new database and one that grew up are alike. Guards (triggers) and tables that somebody dropped from an existing
database are put back, when our role may do that. An older schema is never changed here: see
:mod:`gateway.store.upgrading`.
"""

from __future__ import annotations

from sqlalchemy import Connection, insert, inspect
from sqlalchemy.exc import DBAPIError

import gateway
from gateway.core.errors import ConfigurationError
from gateway.observability.clock import SystemClock
from gateway.store.audit_log import ACTOR, DEFAULT_NODE, AuditLog
from gateway.store.copying_marker import refuse_unfinished
from gateway.store.database_errors import is_lost, sqlstate
from gateway.store.engines import Database
from gateway.store.guards import restore_guards, unsound_guards
from gateway.store.schema_versions import found_schema, refuse_other
from gateway.store.tables import SCHEMA_VERSION, metadata, schema_version


def create_schema(database: Database, node: str = DEFAULT_NODE) -> None:
    """Create every table, index and trigger that is missing. What was missing in a database in use is audited.

    Raises:
        ConfigurationError: it is no database of ours, or of the schema of another release, or an unfinished copy, or
            our role may not.
        DBAPIError: the database does not answer now.
    """
    try:
        with database.reader.connect() as connection:
            if _is_complete(connection):
                return
        with database.writer.connect() as connection, connection.begin():
            database.begin_group(connection)
            database.begin_schema(connection)
            _create(connection, node)
    except DBAPIError as exc:
        if is_lost(exc):
            raise
        if sqlstate(exc) == "42501":
            raise ConfigurationError(
                "store.url: the tables or their guards are missing, and this role may not make them; "
                "run: direct-gateway store init --owner-url URL"
            ) from exc
        raise ConfigurationError(f"store.url: the database cannot be opened ({_short(exc)})") from exc


def _short(error: DBAPIError) -> str:
    return str(error.orig)


def _create(connection: Connection, node: str) -> None:
    names = set(inspect(connection).get_table_names())
    found = found_schema(connection, names)
    if found is None:
        make_tables(connection)
        return
    refuse_other(found)
    missing = sorted({table.name for table in metadata.sorted_tables} - names)
    metadata.create_all(connection, tables=[metadata.tables[name] for name in missing])
    detail = {"guards": restore_guards(connection), "tables": missing}
    if not any(detail.values()):
        # Another process has been here a moment ago.
        return
    AuditLog(connection, node).add(SystemClock().now(), ACTOR, "guards.restored", "", detail)


def make_tables(connection: Connection) -> None:
    """Make all tables and guards in an empty database, within the caller's transaction."""
    from gateway.store.revisions import revisions, run  # noqa: PLC0415 - alembic, which only a new database waits for

    for revision in revisions(until=SCHEMA_VERSION):
        run(connection, revision)
    restore_guards(connection)
    note_schema(connection)


def note_schema(connection: Connection) -> None:
    """Write down that the schema is now the one of this release."""
    made = {"version": SCHEMA_VERSION, "release": gateway.__version__, "at": SystemClock().now()}
    connection.execute(insert(schema_version).values(made))


def _is_complete(connection: Connection) -> bool:
    """Whether nothing is missing; a look that takes no write lock, so that tools can start beside a busy daemon."""
    names = set(inspect(connection).get_table_names())
    found = found_schema(connection, names)
    if found is None:
        return False
    refuse_other(found)
    refuse_unfinished(connection, names)
    return {table.name for table in metadata.sorted_tables} <= names and not unsound_guards(connection)
