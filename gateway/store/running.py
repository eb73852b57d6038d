"""Runs a statement whose text and values are ready: on the driver's own cursor, or through a pipeline.

A session that has a :class:`Pipeline` in its ``Connection.info`` sends its statements by it, several at once; what the
pipeline does not take goes to the cursor after all that waits. Everybody else has the cursor alone.

Guarantee: errors are SQLAlchemy's, with the same classes, the same looks at whether the connection is lost, and the
same handlers, whichever way the statement went.

Failure modes: DBAPIError for what the database says. ValueError for a text that is no beginning or end of a
transaction or a savepoint. A thread that is told to end gives the connection up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from sqlalchemy import Connection
from sqlalchemy.engine.interfaces import DBAPICursor

fail = Connection._handle_dbapi_exception  # noqa: SLF001 - nothing public makes the same errors; see the tests
"""Raises what SQLAlchemy makes of an error, and gives the connection up when it is lost. Looked up when the program
starts, so that a release of SQLAlchemy without it is not found out by the first error."""

_CONTROL = ("BEGIN", "SAVEPOINT ", "RELEASE SAVEPOINT ", "ROLLBACK TO SAVEPOINT ")
_NOT_TAKEN = object()
PIPELINE = "pipeline"
"""Under this name in ``Connection.info``, where there is one."""


class Reply(Protocol):
    """What of a cursor is looked at after a statement."""

    @property
    def rowcount(self) -> int:
        """How many rows the statement changed."""
        ...

    def fetchall(self) -> Sequence[Sequence[Any]]:
        """Every row."""
        ...

    def fetchone(self) -> Sequence[Any] | None:
        """The first row, or None."""
        ...


class Pipeline(Protocol):
    """Takes statements to the server by itself, several at once (:mod:`gateway.store.postgresql_pipeline`).

    Texts have ``$1`` for their first value. Each raises the driver's own errors, of any statement that waited.
    """

    @property
    def blamed(self) -> str:
        """The text of the statement whose error was raised last."""
        ...

    def later(self, sql: str, values: Sequence[Any]) -> bool:
        """Take the statement with the next one that is asked; False when it must be run by other means."""
        ...

    def ask(self, sql: str, values: Sequence[Any]) -> Reply | None:
        """Run what waits and this statement; None when it must be run by other means."""
        ...

    def flush(self) -> None:
        """Run what waits."""
        ...

    def drop(self) -> None:
        """Let go of what waits."""
        ...


class Form(Protocol):
    """A statement as one dialect has it."""

    @property
    def sql(self) -> str:
        """The text as the driver's cursor takes it."""
        ...

    @property
    def numbered(self) -> str:
        """The text as a pipeline takes it."""
        ...

    def parameters(self, bound: list[Any]) -> Any:
        """The values as the driver's cursor takes them."""
        ...


class Text:
    """A text without parameters, in the manner of a statement."""

    __slots__ = ("sql",)

    def __init__(self, sql: str) -> None:
        self.sql = sql

    @property
    def numbered(self) -> str:
        return self.sql

    def parameters(self, _bound: list[Any]) -> Any:
        return ()


def run_text(connection: Connection, sql: str, *, later: bool = False) -> None:
    """Run a text that begins a transaction, or begins or ends a savepoint, with the errors of SQLAlchemy.

    ``later``: as :meth:`gateway.store.prepared.Prepared.later`. Raises ValueError for any other: what a text writes,
    the audit log would not know.
    """
    if not sql.startswith(_CONTROL):
        raise ValueError("only BEGIN, SAVEPOINT, RELEASE and ROLLBACK TO are run as texts")
    pipeline: Pipeline | None = connection.info.get(PIPELINE) if later else None
    if pipeline is None or not guarded(connection, pipeline, lambda: pipeline.later(sql, ())):
        run_statement(connection, Text(sql), [], _nothing)


def run_waiting(connection: Connection) -> None:
    """Run the statements that were to run later, before something is run by other means."""
    pipeline: Pipeline | None = connection.info.get(PIPELINE)
    if pipeline is not None:
        guarded(connection, pipeline, pipeline.flush)


def drop_waiting(connection: Connection) -> None:
    """Let go of the statements that were to run later, because the unit that they belong to is undone."""
    pipeline: Pipeline | None = connection.info.get(PIPELINE)
    if pipeline is not None:
        pipeline.drop()


def guarded(connection: Connection, pipeline: Pipeline, send: Callable[[], Any]) -> Any:
    """Let a pipeline send, with the errors of SQLAlchemy."""
    try:
        return send()
    except BaseException as exc:
        if isinstance(exc, connection.dialect.loaded_dbapi.Error) or not isinstance(exc, Exception):
            fail(connection, exc, pipeline.blamed, None, None, None)
        raise


def run_statement(connection: Connection, form: Form, bound: list[Any], fetch: Callable[[Reply], Any]) -> Any:
    """Run a statement and return what ``fetch`` takes from it, with the errors of SQLAlchemy."""
    pipeline: Pipeline | None = connection.info.get(PIPELINE)
    if pipeline is not None:

        def ask() -> Any:
            reply = pipeline.ask(form.numbered, bound)
            return _NOT_TAKEN if reply is None else fetch(reply)

        answer = guarded(connection, pipeline, ask)
        if answer is not _NOT_TAKEN:
            return answer
        run_waiting(connection)
    driver = connection.connection
    cursor: DBAPICursor | None = None
    sql = form.sql
    try:
        cursor = driver.cursor()
        cursor.execute(sql, form.parameters(bound))
        found = fetch(cursor)
        cursor.close()
    except Exception as exc:
        if isinstance(exc, connection.dialect.loaded_dbapi.Error):
            fail(connection, exc, sql, None, cursor, None)
        # The driver found out by itself, before the database was asked: such an error stays what it is.
        if cursor is not None:
            cursor.close()
        raise
    except BaseException as exc:
        # The thread is told to end in the middle of a statement: nobody knows how the connection stands.
        if cursor is not None:
            # An open one would keep SQLite's lock beyond the end of the connection.
            cursor.close()
        fail(connection, exc, sql, None, None, None)
        raise
    return found


def _nothing(_cursor: Reply) -> None:
    """What BEGIN gives back."""
