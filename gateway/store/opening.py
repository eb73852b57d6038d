"""Which database ``store.url`` names, and making its tables where that is a step of its own."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy.exc import StatementError

from gateway.core.errors import ConfigurationError
from gateway.settings import POSTGRESQL_PREFIXES, StoreSettings
from gateway.store.copying_marker import refuse_unfinished
from gateway.store.database_errors import as_gateway_error
from gateway.store.engines import Database
from gateway.store.files import database_path
from gateway.store.rights import grant_rights
from gateway.store.schema import create_schema
from gateway.store.schema_versions import found_schema, other_schema
from gateway.store.sqlite_engine import SQLiteDatabase

READERS = 4


def open_database(settings: StoreSettings, *, daemon: bool, upgrading: bool = False) -> Database:
    """Open the database; ``daemon`` keeps another daemon out of it, or from the name of this node.

    ``upgrading``: to change its tables. No daemon of any node can start until it is closed, and on PostgreSQL no
    command that writes.

    Raises:
        ConfigurationError: a bad URL, a second daemon, a database whose settings are not safe.
        StoreUnavailableError: it does not answer now, or its tables are being changed.
    """
    if settings.url.startswith(POSTGRESQL_PREFIXES):
        require_postgresql_driver()
        from gateway.store.postgresql_engine import PostgreSQLDatabase  # noqa: PLC0415 - needs the driver

        return PostgreSQLDatabase(settings, readers=READERS, daemon=daemon, upgrading=upgrading)
    return SQLiteDatabase(database_path(settings.url), readers=READERS, daemon=daemon, upgrading=upgrading)


def missing_tables(settings: StoreSettings) -> str:
    """What a command says when there is nothing to work on yet, or the empty string.

    A command must not make an empty database where a URL is wrong.

    Raises:
        ConfigurationError, StoreUnavailableError: as :func:`open_database`.
    """
    if settings.url.startswith(POSTGRESQL_PREFIXES):
        require_postgresql_driver()
        from gateway.store.postgresql_connecting import lacks_tables  # noqa: PLC0415 - needs the driver

        if lacks_tables(settings):
            return "the database has no tables yet; make them: direct-gateway store init --owner-url URL"
        return ""
    path = database_path(settings.url)
    return "" if path.is_file() else f"there is no database {path}; init or the first serve makes it"


def schema_trouble(settings: StoreSettings) -> str:
    """What a start would tell of tables of another release, or the empty string. There must be a database.

    Raises:
        ConfigurationError: it is none of ours. StoreError: it cannot be read now.
    """
    database = open_database(settings, daemon=False)
    try:
        with database.reader.connect() as connection:
            found = found_schema(connection)
            if found is not None:
                refuse_unfinished(connection)
        return "" if found is None else other_schema(found)
    except StatementError as exc:
        raise as_gateway_error(exc) from exc
    finally:
        database.close()


def require_postgresql_driver() -> None:
    """The driver is an extra: who uses SQLite need not have it. Raises ConfigurationError when it is not installed."""
    try:
        import psycopg  # noqa: F401, PLC0415 - only whether it is there
    except ImportError:
        raise ConfigurationError(
            "store.url: the PostgreSQL driver is not installed; run: .venv/bin/pip install -e '.[postgresql]'"
        ) from None


def init_store(settings: StoreSettings, owner_url: str | None) -> list[str]:
    """Make the tables of a PostgreSQL store, or what is missing of them; return what was done, in words for people.

    May run again at any time, also beside a running gateway.

    Args:
        settings: of the gateway.
        owner_url: the same database, as the role that shall own the tables. The role of ``store.url`` then gets its
            rights and no more. None = the role of ``store.url`` makes and owns them.

    Raises:
        ConfigurationError: not a PostgreSQL store, or one that is refused.
        StoreUnavailableError: the database does not answer now.
    """
    if not settings.url.startswith(POSTGRESQL_PREFIXES):
        raise ConfigurationError("store.url is a SQLite file, which init or the first serve makes by itself")
    require_postgresql_driver()
    from gateway.store.postgresql_address import PostgreSQLAddress  # noqa: PLC0415 - needs the driver
    from gateway.store.postgresql_connecting import role_of  # noqa: PLC0415 - needs the driver
    from gateway.store.postgresql_engine import PostgreSQLDatabase  # noqa: PLC0415 - needs the driver

    role = role_of(PostgreSQLAddress.parse(settings))
    owner = settings if owner_url is None else replace(settings, url=owner_url, password_file=None)
    database = PostgreSQLDatabase(owner, readers=1, daemon=False)
    try:
        create_schema(database, settings.node)
        done = [f"the tables are in the schema {settings.schema}"]
        if owner_url is not None:
            with database.writer.begin() as connection:
                grant_rights(connection, settings.schema, role)
            done.append(f"the role {role} may add to them, and change only what is mutable")
        done += database.weaknesses() if owner_url is None else []
    except StatementError as exc:
        raise as_gateway_error(exc) from exc
    finally:
        database.close()
    return done
