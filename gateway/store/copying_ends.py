"""The two stores of a copy: which ones they are, the source held still, the target kept from everybody else.

The source is held as its one writer, who writes nothing: on SQLite by the lock of a daemon and BEGIN IMMEDIATE, on
PostgreSQL by the writers' lock. So no gateway and no command changes it meanwhile, and all of it is read in one
snapshot. It is refused while a gateway runs on it.

On the target a gateway either sees the mark of :mod:`gateway.store.copying_marker` at its start, or has taken its name
before the mark was committed, and then we see that: the mark is set first, and gateways are looked for after it.

Failure modes: ConfigurationError and StoreUnavailableError that begin with ``--from`` or ``--to``, whichever it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from gateway.core.errors import ConfigurationError, StoreError
from gateway.settings import POSTGRESQL_PREFIXES, StoreSettings
from gateway.store.copying_marker import refuse_unfinished
from gateway.store.database_errors import as_gateway_error
from gateway.store.engines import Database
from gateway.store.files import database_path, running_daemon
from gateway.store.guards import made_up_tables
from gateway.store.opening import missing_tables, open_database, require_postgresql_driver
from gateway.store.schema_versions import found_schema, refuse_other

FROM = "--from"
TO = "--to"


def kind_of(settings: StoreSettings) -> str:
    """``postgresql`` or ``sqlite``."""
    return "postgresql" if settings.url.startswith(POSTGRESQL_PREFIXES) else "sqlite"


def place_of(settings: StoreSettings) -> str:
    """Where a store is, in words for people, without the role and whatever else the URL holds."""
    if kind_of(settings) == "sqlite":
        return f"the SQLite file {database_path(settings.url)}"
    require_postgresql_driver()
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415 - the driver is an extra

    from gateway.store.postgresql_address import PostgreSQLAddress  # noqa: PLC0415 - the same

    address = PostgreSQLAddress.parse(settings)
    found = conninfo_to_dict(address.conninfo)
    where = f" at {','.join(address.hosts)}" if address.hosts else ""
    return f"the schema {settings.schema} of the PostgreSQL database {found.get('dbname') or 'of its role'}{where}"


@contextmanager
def named(option: str) -> Iterator[None]:
    """Give an error of the block the name of the option in the place of the setting's."""
    try:
        yield
    except (ConfigurationError, StoreError) as exc:
        told = str(exc).replace("store.password_file", f"{option}-password-file").replace("store.schema", "the schema")
        told = told.replace(
            "run: direct-gateway store init --owner-url URL", "name the one that shall own them: --owner-url URL"
        )
        told = told.removeprefix("store.url: ").replace("store.url", option)
        raise type(exc)(told if told.startswith(option) else f"{option}: {told}") from exc
    except DBAPIError as exc:
        error = as_gateway_error(exc)
        raise StoreError(f"{option}: {error}") from exc


def open_end(settings: StoreSettings, option: str) -> Database:
    """Open one of the two; a SQLite file is locked as a daemon locks it.

    Raises:
        ConfigurationError: a bad URL, a gateway on the file, a database that is not safe.
        StoreUnavailableError: it does not answer now.
    """
    shared = kind_of(settings) == "postgresql"
    try:
        with named(option):
            return open_database(settings, daemon=not shared)
    except ConfigurationError as exc:
        pid = None if shared else running_daemon(database_path(settings.url))
        if pid is None:
            raise
        raise ConfigurationError(
            f"{option}: a gateway or another copy-store (process {pid}) runs on {place_of(settings)}; stop it first"
        ) from exc


def refuse_same(source: StoreSettings, target: StoreSettings) -> None:
    """Raises ConfigurationError when both name one SQLite file. For PostgreSQL see :func:`is_held_here`."""
    if kind_of(source) != kind_of(target) or kind_of(source) != "sqlite":
        return
    one, other = database_path(source.url), database_path(target.url)
    same = os.path.realpath(one) == os.path.realpath(other)
    with suppress(OSError):
        same = same or one.samefile(other)
    if same:
        raise ConfigurationError("--from and --to are the same store")


# --- the source ---


class Source:
    """A store that stands still for as long as this is open. Use :func:`held_source`."""

    def __init__(self, settings: StoreSettings, database: Database, hold: Connection, rows: Connection) -> None:
        self.settings = settings
        self.database = database
        self._hold = hold
        self.rows = rows
        """One snapshot of all of it."""

    def still_held(self) -> bool:
        """Whether nobody can have written since the snapshot was taken."""
        try:
            self._hold.execute(text("SELECT 1"))
        except DBAPIError:
            return False
        return self.database.in_transaction(self._hold)

    def session(self) -> tuple[int, int] | None:
        """PostgreSQL: the process of the server that holds the lock, and the second key of the lock; SQLite: None."""
        if not self.database.shared:
            return None
        from gateway.store.postgresql_engine import second_key  # noqa: PLC0415 - needs the driver

        pid = self._hold.execute(text("SELECT pg_backend_pid()")).scalar_one()
        return int(pid), second_key(self.settings.schema, "")


@contextmanager
def held_source(settings: StoreSettings) -> Iterator[Source]:
    """Open the source, and keep everybody from writing to it.

    Raises:
        ConfigurationError: there is no such store, a gateway runs on it, it has another schema.
        StoreUnavailableError: it does not answer now, or somebody else writes to it for too long.
    """
    with named(FROM):
        if missing := missing_tables(settings):
            raise ConfigurationError(missing)
    database = open_end(settings, FROM)
    try:
        with named(FROM):
            _refuse_gateways(database, settings, FROM)
            hold = database.writer.connect()
        try:
            with named(FROM):
                hold.begin()
                database.begin_group(hold)
                _without_limits(hold)
                # Once more: one that started before we had the lock has its name by now.
                _refuse_gateways(database, settings, FROM)
                rows = database.reader.connect()
            try:
                with named(FROM):
                    rows.begin()
                    _without_limits(rows)
                    _refuse_made_up(rows)
                    _require_this_schema(rows)
                yield Source(settings, database, hold, rows)
            finally:
                _let_go(rows)
        finally:
            _let_go(hold)
    finally:
        database.close()


def snapshot(database: Database) -> Connection:
    """A new read snapshot without limits of time; the caller closes it."""
    rows = database.reader.connect()
    try:
        rows.begin()
        _without_limits(rows)
    except BaseException:
        rows.close()
        raise
    return rows


def _require_this_schema(rows: Connection) -> None:
    found = found_schema(rows)
    if found is None:
        raise ConfigurationError("the database is empty: there is nothing to copy")
    refuse_other(found)
    # What it lacks the log need not tell: nobody answers for flags, jobs and keys that may change.
    refuse_unfinished(rows)


def _refuse_made_up(rows: Connection) -> None:
    """Raises ConfigurationError when a SQLite file holds something in the place of rows: it could have no end."""
    if rows.dialect.name == "sqlite" and (found := made_up_tables(rows)):
        raise ConfigurationError(f"the database has a {found[0]}, which is none of the gateway's: nothing was read")


def _let_go(connection: Connection) -> None:
    with suppress(DBAPIError):
        connection.rollback()
    with suppress(DBAPIError):
        connection.close()


def _without_limits(connection: Connection) -> None:
    """A copy takes as long as it takes; the limits of sessions are for mail."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))


def _refuse_gateways(database: Database, settings: StoreSettings, option: str) -> None:
    if not database.shared:
        return  # The lock of the file has told.
    if running := database.gateways():
        raise ConfigurationError(
            f"{option}: gateways run on {place_of(settings)} (nodes {', '.join(running)}); stop them first"
        )


# --- the target ---


def refuse_gateways_on_target(database: Database, settings: StoreSettings) -> None:
    """Raises ConfigurationError when a gateway runs on the target."""
    with named(TO):
        _refuse_gateways(database, settings, TO)


def refuse_held_here(target: Database, settings: StoreSettings, session: tuple[int, int] | None) -> None:
    """Raises ConfigurationError when the target has the lock that we hold on the source: it is the same store."""
    if session is None or not target.shared:
        return
    from gateway.store.postgresql_engine import WRITER_LOCK, second_key  # noqa: PLC0415 - needs the driver

    pid, key = session
    if key != second_key(settings.schema, ""):
        return
    with target.reader.connect() as connection:
        # The second key is kept without a sign.
        held = connection.scalar(
            text(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = :pid "
                "AND classid = :lock AND objid = CAST(:key AS bigint)::oid "
                "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            ),
            {"pid": pid, "lock": WRITER_LOCK, "key": key & 0xFFFFFFFF},
        )
    if held:
        raise ConfigurationError("--from and --to are the same store")
