"""Connections to PostgreSQL 15 and newer, for several nodes on one database.

Guarantees

* **One writer at a time over the whole cluster.** Every write transaction begins with the same advisory lock, under
  READ COMMITTED: whoever has it sees all that was committed before, exactly as on SQLite. So no unit of work is ever
  tried again because of another, UIDs and MODSEQ rise in the order of the commits, and chains of audit events have no
  forks. Each node gathers up to 32 units for a transaction, so that one lock serves many messages.
* A node that freezes with the lock in its hands loses its session after ``store.frozen_after_seconds``, and with it
  the lock and everything that it had not committed. It finds that out at its next statement.
* A COMMIT counts only when the server says so and does not warn: a COMMIT in an aborted transaction is answered like a
  success, and one that did not wait for its standby comes with a warning.
* A daemon's writing session holds the name of its node. So whoever can write is the only one of that name, and a node
  that lost its session cannot write before it has the name again.
* Whoever can write works on the tables of this release, and nobody changes them meanwhile
  (:mod:`gateway.store.postgresql_schema_lock`).
* The readers' transactions are snapshots (REPEATABLE READ READ ONLY).

Failure modes: a server that is away is StoreUnavailableError, with a pause between attempts that grows to
five seconds; nothing hangs longer than the timeouts of :mod:`gateway.store.postgresql_session`.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.pool import QueuePool

from gateway.core.errors import ConfigurationError, StoreUnavailableError
from gateway.observability.log import get_log
from gateway.ports import Hints
from gateway.settings import StoreSettings
from gateway.store.database_errors import scrub
from gateway.store.postgresql_address import PostgreSQLAddress
from gateway.store.postgresql_commit_watch import CommitWatch
from gateway.store.postgresql_connecting import Pause, close_quietly, connect_once, look_at_server
from gateway.store.postgresql_hints import PostgreSQLHints
from gateway.store.postgresql_pipeline import Pipeline
from gateway.store.postgresql_pooler import refuse_shared_sessions
from gateway.store.postgresql_schema_lock import SCHEMA_LOCK, InUseError, TakenError, hold_schema
from gateway.store.postgresql_session import STATEMENT_FACTOR, Session
from gateway.store.running import PIPELINE, run_waiting

WRITER_LOCK: Final = 0x44475701
NODE_LOCK: Final = 0x44475702
"""First keys of our advisory locks; the second is made from the schema, and the name of the node."""
_WARNINGS = "warnings"

log = get_log("store")
_PATIENT = "SET LOCAL idle_in_transaction_session_timeout = '60s'"
"""For a transaction that makes tables: nobody's mail waits for it."""


class _NameTakenError(TakenError):
    """Another session has the name of this node."""


class PostgreSQLDatabase:
    """One schema of one database. Implements :class:`gateway.store.engines.Database`."""

    shared = True

    def __init__(self, settings: StoreSettings, *, readers: int, daemon: bool, upgrading: bool = False) -> None:
        """Look at the server; ``daemon`` takes the name of this node until ``close``.

        ``upgrading`` keeps everybody else from writing until ``close``, on every node.

        Raises:
            ConfigurationError: the server is not safe, another daemon has the name of this node, a daemon meets the
                tables of another release, or somebody works on the database that is to be upgraded.
            StoreUnavailableError: it does not answer now, or is being upgraded.
        """
        address = PostgreSQLAddress.parse(settings)
        look_at_server(address)
        self._address = address
        self._daemon = daemon
        self._upgrading = upgrading
        self._watch = CommitWatch(STATEMENT_FACTOR * address.frozen_after_seconds)
        self.writer = self._engine(address, size=1, writes=True)
        self.reader = self._engine(address, size=readers, writes=False)
        self.hints: Hints = PostgreSQLHints(address)
        if daemon or upgrading:
            try:
                self._take_place()
            except BaseException:
                self.close()
                raise

    def _engine(self, address: PostgreSQLAddress, *, size: int, writes: bool) -> Engine:
        engine = create_engine(
            "postgresql+psycopg://",
            poolclass=QueuePool,
            pool_size=size,
            max_overflow=0,
            pool_reset_on_return="rollback",
            isolation_level="READ COMMITTED" if writes else "REPEATABLE READ",
            # A statement's parameters are mail: they must never stand in the text of an error.
            hide_parameters=True,
            use_native_hstore=False,
        )
        session = Session(address.schema, address.frozen_after_seconds, writes)
        pause = Pause()

        def on_do_connect(
            _dialect: object, _record: object, _cargs: object, cparams: dict[str, Any]
        ) -> psycopg.Connection[Any]:
            pause.refuse_if_early()
            try:
                return psycopg.connect(**cparams, **address.arguments("writer" if writes else "reader"))
            except BaseException:
                pause.failed()
                raise

        def on_connect(connection: psycopg.Connection[Any], record: Any) -> None:
            try:
                refuse_shared_sessions(connection, lambda: connect_once(address, "check"))
                session.begin(connection)
                if writes:
                    warnings: list[str] = []
                    record.info[_WARNINGS] = warnings
                    connection.add_notice_handler(lambda notice: _remember(notice, warnings))
                    hold_schema(connection, second_key(address.schema, ""), alone=self._upgrading)
                    self._claim_name(connection)
                    record.info[PIPELINE] = Pipeline(connection)
            except BaseException as exc:
                close_quietly(connection)
                if not isinstance(exc, TakenError):
                    pause.failed()
                if isinstance(exc, ConfigurationError):
                    # At work this is temporary: the server was given other settings, or the tables were upgraded.
                    log.fault("database_session_refused", exc)
                    raise StoreUnavailableError(str(exc)) from exc
                raise
            pause.end()

        event.listen(engine, "do_connect", on_do_connect)
        # Before SQLAlchemy's own look at a new connection, which asks for the search path.
        event.listen(engine, "connect", on_connect, insert=True)
        event.listen(engine, "handle_error", _on_error)
        if writes:
            _keep_in_turn(engine)
        return engine

    # --- the name of the node ---

    def _claim_name(self, connection: psycopg.Connection[Any]) -> None:
        if not self._daemon:
            return
        key = second_key(self._address.schema, self._address.node)
        connection.autocommit = True
        try:
            row = connection.execute("SELECT pg_try_advisory_lock(%s, %s)", (NODE_LOCK, key)).fetchone()
        finally:
            connection.autocommit = False
        if row is None or not row[0]:
            raise _NameTakenError(
                f"another direct-gateway runs on this database under the node name {self._address.node}"
            )

    def _take_place(self) -> None:
        """Take the name, or the schema for an upgrade. The session of one that has just died may hold it a moment."""
        deadline = time.monotonic() + self._address.frozen_after_seconds + 2
        while True:
            try:
                with self.writer.connect():
                    return
            except (_NameTakenError, InUseError) as exc:
                if time.monotonic() >= deadline:
                    raise ConfigurationError(f"{exc}; {self._who_is_there(exc)}") from None
            except StoreUnavailableError as exc:
                if isinstance(exc.__cause__, ConfigurationError):
                    # At the start it is for a person to mend.
                    raise exc.__cause__ from None
                raise
            time.sleep(0.2)

    def _who_is_there(self, error: TakenError) -> str:
        if isinstance(error, InUseError):
            return f"stop them first, on: {', '.join(self._holders(SCHEMA_LOCK, lambda _node: ''))}"
        return "stop that one, or give this one a store.node of its own"

    def gateways(self) -> list[str]:
        """The names of the nodes whose daemons hold them now, in our schema."""
        return self._holders(NODE_LOCK, lambda node: node)

    def _holders(self, lock: int, named: Callable[[str], str]) -> list[str]:
        """The nodes whose sessions hold that lock of our schema; ``named``: by which name a node's lock goes."""
        with self.reader.connect() as connection:
            rows = connection.execute(
                text(
                    "SELECT a.application_name AS said, CAST(l.objid AS bigint) AS key "
                    "FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
                    "WHERE l.locktype = 'advisory' AND l.classid = :lock AND l.granted "
                    "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                ),
                {"lock": lock},
            ).all()
        found = set()
        for row in rows:
            node = row.said.removeprefix("direct-gateway ").removesuffix(" writer")
            # A name that was cut, or that somebody altered on the way, may be of any schema: better one too many.
            is_whole = row.said == f"direct-gateway {node} writer"
            if not is_whole or row.key == second_key(self._address.schema, named(node)) & 0xFFFFFFFF:
                found.add(node)
        return sorted(found)

    def weaknesses(self) -> list[str]:
        """What the role of ``store.url`` may do and should not: the guards are as good as that."""
        with self.reader.connect() as connection:
            row = connection.execute(
                text(
                    "SELECT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS superuser, EXISTS ("
                    "SELECT FROM pg_class c WHERE c.relnamespace = to_regnamespace(:schema) AND c.relkind = 'r' "
                    "AND pg_has_role(c.relowner, 'USAGE')) AS owns"
                ),
                {"schema": self._address.schema},
            ).one()
        if not row.superuser and not row.owns:
            return []
        what = "is a superuser" if row.superuser else "owns the tables"
        mend = "let another role own them: direct-gateway store init --owner-url URL"
        return [f"store.url: the role of the gateway {what} and could take the guards off append-only tables; {mend}"]

    # --- transactions ---

    def begin_schema(self, connection: Connection) -> None:
        """Make the schema that the tables go into. A machine that is slow at it is not taken for frozen meanwhile."""
        connection.exec_driver_sql(_PATIENT)
        present = connection.scalar(text("SELECT to_regnamespace(:schema)::text"), {"schema": self._address.schema})
        if present is None:
            connection.exec_driver_sql(f"CREATE SCHEMA {self._address.schema}")

    def begin_upgrade(self, connection: Connection) -> None:
        """Be the only writer, without a limit to a statement. Waiting for the lock of a table keeps its limit."""
        self.begin_group(connection)
        # To write a large table anew takes its time, and nobody else waits for it: everybody has been kept out.
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.exec_driver_sql(_PATIENT)

    def end_upgrade(self, connection: Connection) -> None:
        """PostgreSQL has enforced everything all the time."""

    def begin_group(self, connection: Connection) -> datetime | None:
        """Wait for the writers' lock; the transaction then sees all that was committed before."""
        self._watch.end()
        connection.info.get(_WARNINGS, []).clear()
        row = connection.execute(_LOCK, {"lock": WRITER_LOCK, "key": second_key(self._address.schema, "")}).one()
        return datetime.fromtimestamp(row.now, UTC)

    def now(self, connection: Connection) -> datetime | None:
        """What the server's clock says. Every node asks the same one."""
        return datetime.fromtimestamp(connection.execute(_NOW).one().now, UTC)

    def in_transaction(self, connection: Connection) -> bool:
        """Whether the session is there, within its transaction, however that stands."""
        return _status(connection) in {TransactionStatus.INTRANS, TransactionStatus.INERROR}

    def is_aborted(self, connection: Connection) -> bool:
        """Whether a statement failed since the last savepoint: all that follows it is refused."""
        return _status(connection) is TransactionStatus.INERROR

    def before_commit(self, connection: Connection) -> None:
        """Raises StoreUnavailableError when there is no sound transaction: its COMMIT would pass for a success."""
        if _status(connection) is not TransactionStatus.INTRANS:
            raise StoreUnavailableError("the database ended the transaction")
        connection.info.get(_WARNINGS, []).clear()
        self._watch.begin(connection.connection.dbapi_connection)  # type: ignore[arg-type]

    def after_commit(self, connection: Connection) -> None:
        """Raises StoreUnavailableError when the server warned at the COMMIT (it did not wait for its standby)."""
        self._watch.end()
        warnings = connection.info.get(_WARNINGS, [])
        if warnings:
            log.error("commit_with_warning", reason=f"state_{warnings[0]}".lower())
            raise StoreUnavailableError("the database does not answer for the commit")

    def free_bytes(self) -> int | None:
        """Not known: the database is elsewhere. It says itself when it is full."""
        return None

    def close(self) -> None:
        """Close every connection; with the writer's the name of the node is free."""
        self._watch.close()
        self.reader.dispose()
        self.writer.dispose()


# The columns are computed in this order: the clock is read when the lock was had.
_LOCK = text("SELECT pg_advisory_xact_lock(:lock, :key), extract(epoch FROM clock_timestamp())::float8 AS now")
_NOW = text("SELECT extract(epoch FROM clock_timestamp())::float8 AS now")


def _status(connection: Connection) -> TransactionStatus:
    if connection.closed or connection.invalidated:
        return TransactionStatus.UNKNOWN
    driver: psycopg.Connection[Any] | None = connection.connection.dbapi_connection  # type: ignore[assignment]
    return TransactionStatus.UNKNOWN if driver is None else driver.info.transaction_status


def second_key(schema: str, node: str) -> int:
    """Return the second half of an advisory lock's name: 32 bits with a sign."""
    return int.from_bytes(zlib.crc32(f"{schema}/{node}".encode()).to_bytes(4, "big"), "big", signed=True)


def _keep_in_turn(engine: Engine) -> None:
    """What waits in a session's pipeline goes before whatever else is run there, and ends with its transaction."""

    def before_cursor_execute(connection: Connection, _cursor: object, statement: str, *_rest: object) -> None:
        run_waiting(connection)
        connection.info[PIPELINE].before_other(statement)

    def ended(connection: Connection) -> None:
        if not connection.invalidated:
            connection.info[PIPELINE].ended()

    event.listen(engine, "before_cursor_execute", before_cursor_execute)
    event.listen(engine, "commit", run_waiting)
    event.listen(engine, "begin", ended)
    event.listen(engine, "rollback", ended)


def _on_error(context: ExceptionContext) -> None:
    scrub(context.original_exception)
    scrub(context.sqlalchemy_exception)


def _remember(notice: psycopg.errors.Diagnostic, warnings: list[str]) -> None:
    if notice.severity_nonlocalized == "WARNING":
        warnings.append(notice.sqlstate or "")
