"""Makes the schema, and refuses one that is newer than this program.

``create_schema`` is idempotent and runs in one transaction: a process that is killed in the middle leaves either
nothing or all of it, and two processes that start at the same moment wait for each other. Guards (triggers) that
somebody dropped from an existing database are put back.
"""

from __future__ import annotations

from sqlalchemy import Connection, Engine, func, insert, inspect, select, text
from sqlalchemy.exc import DBAPIError

from gateway.core.errors import ConfigurationError
from gateway.store.engines import append_only_triggers
from gateway.store.tables import APPEND_ONLY, SCHEMA_VERSION, metadata, schema_version


def create_schema(engine: Engine) -> None:
    """Create every table, index and trigger that is missing.

    Raises:
        ConfigurationError: the file is no database of ours, or a newer release has written it.
    """
    try:
        with engine.connect() as connection:
            if _is_complete(connection):
                return
        with engine.begin() as connection:
            _create(connection)
    except DBAPIError as exc:
        raise ConfigurationError(f"store.url: the database cannot be opened ({_short(exc)})") from exc


def _short(error: DBAPIError) -> str:
    return str(error.orig)


def _create(connection: Connection) -> None:
    names = set(inspect(connection).get_table_names())
    if names and schema_version.name not in names:
        raise ConfigurationError("store.url names a database of another program")
    if names:
        _refuse_newer(connection)
    metadata.create_all(connection)
    for table in APPEND_ONLY:
        for statement in append_only_triggers(table.name, connection.dialect.name).values():
            connection.execute(text(statement))
    if connection.scalar(select(func.count()).select_from(schema_version)) == 0:
        connection.execute(insert(schema_version).values(version=SCHEMA_VERSION))


def _is_complete(connection: Connection) -> bool:
    """Whether nothing is missing; a look that takes no write lock, so that tools can start beside a busy daemon."""
    names = set(inspect(connection).get_table_names())
    if schema_version.name in names:
        _refuse_newer(connection)
    if not {table.name for table in metadata.sorted_tables} <= names:
        return False
    guards = {name for table in APPEND_ONLY for name in append_only_triggers(table.name, connection.dialect.name)}
    found = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).scalars()
    return guards <= set(found) and connection.scalar(select(func.count()).select_from(schema_version)) != 0


def _refuse_newer(connection: Connection) -> None:
    version = connection.scalar(select(func.max(schema_version.c.version)))
    if version is not None and version > SCHEMA_VERSION:
        raise ConfigurationError(
            f"the database has schema {version}, and this release knows {SCHEMA_VERSION}: "
            f"start the newer release that wrote it, or restore an older backup"
        )
