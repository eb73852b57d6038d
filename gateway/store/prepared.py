"""Statements that are built once, compiled once for each database, and then run on the driver's own cursor.

Why: to build a SELECT and have SQLAlchemy execute it costs about 130 microseconds of CPU on SQLite, to execute one
that was built before about 25, and what is here about 5, where the driver and SQLite need 2. On PostgreSQL the driver
alone needs 70, the server as much, and then there is the wait, so the statements of the one writer go there by a
pipeline of ours (:mod:`gateway.store.postgresql_pipeline`). Taking a message in, judging and filing it runs some forty
of them in one thread. For
statements that run now and then, a constant and ``connection.execute(CONSTANT, values)`` will do; so will it for ``IN``
with a list of any length, which cannot be compiled once.

How to use it: make a constant of the module, and run it over the connection of the unit of work::

    _STATE = Prepared(select(message_state.c.state).where(message_state.c.message_id == bindparam("message")).limit(1))
    _ADD = Prepared.into(message_state)                        # or into(job, "kind", "subject"): those columns only

    row = _STATE.first(connection, message=message_id)         # a named tuple, or None
    _ADD.run(connection, message_id=message_id, seq=1, ...)    # every parameter by name; returns the number of rows
    _ADD.later(connection, message_id=message_id, ...)         # the same, where nobody needs to know; see there

Values that stand in the statement itself (a limit, a fixed state) are constants of it. A name of a ``bindparam`` in the
SET of an UPDATE must not be that of a column, as SQLAlchemy demands. ``IN`` takes ``[bindparam("a"), bindparam("b")]``.

Guarantees

* The texts, the order of the parameters and the conversion of every value are SQLAlchemy's, for the dialect of the very
  engine that the connection belongs to: a statement cannot reach a database that it was not compiled for.
* A row that is added to an append-only table is noted for the audit log as any other (:mod:`gateway.store.facts`). Such
  an INSERT is only made by :meth:`Prepared.into`, which names every column; any other, also within a SELECT, is
  refused when the constant is made.
* Errors are SQLAlchemy's: the same classes, the same looks at whether the connection is lost, the same handlers.
  :mod:`gateway.store.database_errors` sees no difference.

What is missing on purpose: events before and after the cursor, echo, and streaming. Ask for a bounded number of rows.

Failure modes: ValueError when the constant is made of what is refused, TypeError for a parameter that is missing or
not the statement's: mistakes in the program. StatementError for a value that no column takes, DBAPIError for what the
database says.
"""

from __future__ import annotations

import re
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import CompoundSelect, Connection, Delete, Dialect, Insert, Select, Table, TextualSelect, Update
from sqlalchemy.sql import visitors
from sqlalchemy.sql.compiler import SQLCompiler

from gateway.store.facts import is_fact, wrote
from gateway.store.running import PIPELINE, Pipeline, Reply, fail, guarded, run_statement

_NAMED = re.compile(r"%\(([^)]+)\)s|%%")
Convert = Callable[[Any], Any]


class Prepared:
    """One statement. Make it once, as a constant of a module; any thread and any database may use it."""

    __slots__ = ("_columns", "_fact", "_forms", "_statement")

    def __init__(
        self, statement: Select[*tuple[Any, ...]] | CompoundSelect[*tuple[Any, ...]] | Insert | Update | Delete
    ) -> None:
        """An INSERT only from a SELECT, into a table that the audit log does not answer for. Raises ValueError."""
        if not isinstance(statement, Select | CompoundSelect | Insert | Update | Delete):
            raise ValueError(f"a {type(statement).__name__} cannot be prepared")  # noqa: TRY004 - as all that is refused
        for part in visitors.iterate(statement):
            if isinstance(part, TextualSelect):
                raise ValueError("nobody knows what a text writes, which the audit log must answer for")  # noqa: TRY004
            if isinstance(part, Insert) and (part is not statement or part.select is None or not _is_free(part.table)):
                raise ValueError("the audit log could not answer for such an INSERT: use Prepared.into")
        self._set(statement)

    def _set(self, statement: Any, columns: list[str] | None = None, fact: Table | None = None) -> None:
        self._statement = statement
        self._columns = columns
        self._fact = fact
        self._forms: WeakKeyDictionary[Dialect, _Form] = WeakKeyDictionary()

    @staticmethod
    def into(table: Table, *columns: str) -> PreparedInsert:
        """An INSERT of one row; see :class:`PreparedInsert`."""
        return PreparedInsert(table, *columns)

    # --- running it ---

    def run(self, connection: Connection, /, **values: Any) -> int:
        """Run it; returns how many rows it changed."""
        changed: int = self._execute(connection, values, _count)[1]
        return changed

    def later(self, connection: Connection, /, **values: Any) -> None:
        """Run it in its turn, before the unit ends. For what nobody needs the answer of: it costs no wait of its own.

        What goes wrong may be raised by a later statement of the unit, or at its end; the unit fails all the same. So
        it is not for a statement whose error somebody means to catch.
        """
        form = self._form(connection)
        pipeline: Pipeline | None = connection.info.get(PIPELINE)
        if pipeline is None or not connection.in_transaction():
            self._execute(connection, values, _count)
            return
        bound = form.bind(connection, values)
        if not guarded(connection, pipeline, lambda: pipeline.later(form.numbered, bound)):
            self._execute(connection, values, _count)
        elif self._fact is not None:
            wrote(connection, self._fact, values)

    def rows(self, connection: Connection, /, **values: Any) -> list[Any]:
        """The rows as named tuples."""
        form, found = self._execute(connection, values, _all)
        return form.read(found)

    def first(self, connection: Connection, /, **values: Any) -> Any:
        """The first row as a named tuple, or None."""
        form, found = self._execute(connection, values, _one)
        return form.read(found)[0] if found else None

    def scalar(self, connection: Connection, /, **values: Any) -> Any:
        """The first column of the first row; None when there is none."""
        form, found = self._execute(connection, values, _one)
        return form.first_column(found)[0] if found else None

    def scalars(self, connection: Connection, /, **values: Any) -> list[Any]:
        """The first column of every row."""
        form, found = self._execute(connection, values, _all)
        return form.first_column(found)

    def _execute(
        self, connection: Connection, values: Mapping[str, Any], fetch: Callable[[Reply], Any]
    ) -> tuple[_Form, Any]:
        form = self._form(connection)
        if not connection.in_transaction():
            # Also what says that the one there was is to be rolled back first.
            connection.begin()
        bound = form.bind(connection, values)
        result = run_statement(connection, form, bound, fetch)
        if self._fact is not None:
            wrote(connection, self._fact, values)
        return form, result

    def _form(self, connection: Connection) -> _Form:
        form = self._forms.get(connection.dialect)
        if form is None:
            form = self._forms[connection.dialect] = _Form(self._statement, self._columns, connection.dialect)
        return form


class PreparedInsert(Prepared):
    """An INSERT of one row whose columns are parameters. What goes into an append-only table is noted."""

    __slots__ = ()

    def __init__(self, table: Table, *columns: str) -> None:
        """``columns``: those that are not NULL; all, but an id that the database counts up, when none is named.

        Raises:
            ValueError: the audit log answers for the table, and not every column is a parameter.
        """
        every = [column.name for column in table.c if column is not table.autoincrement_column]
        if is_fact(table) and (len(every) < len(table.c) or set(columns or every) != set(every)):
            raise ValueError(f"the audit log could not answer for a row of {table.name}: name every column")
        # Without the last word SQLAlchemy adds a RETURNING that nobody reads.
        self._set(Insert(table).inline(), list(columns or every), table if is_fact(table) else None)


class _Form:
    """A statement as one dialect has it."""

    __slots__ = ("_keys", "_make", "_names", "_plan", "_positional", "_result", "numbered", "sql")

    def __init__(self, statement: Any, columns: list[str] | None, dialect: Dialect) -> None:
        compiled: SQLCompiler = statement.compile(dialect=dialect, column_keys=columns)
        self.sql = str(compiled)
        self._positional = compiled.positiontup is not None
        places: dict[str, tuple[str | None, Convert | None, Any]] = {}
        for bind, name in compiled.bind_names.items():
            if bind.expanding or bind.literal_execute:
                raise ValueError("a list of any length cannot be compiled once")
            convert = bind.type.dialect_impl(dialect).bind_processor(dialect)
            constant = None if bind.required else bind.effective_value
            if not bind.required and convert is not None:
                constant = convert(constant)
            places[name] = (name if bind.required else None, convert, constant)
        self._keys = list(places) if compiled.positiontup is None else compiled.positiontup
        self._plan = [places[key] for key in self._keys]
        self.numbered = "" if self._positional else _numbered(self.sql, self._keys)
        """The text as a pipeline takes it."""
        self._names = {name for name, _, _ in self._plan if name is not None}
        fields = list(statement.exported_columns)
        names = [_field(field) for field in fields]
        row: Any = namedtuple("Row", names, rename=True)  # type: ignore[misc]  # noqa: PYI024 - the names are known now
        self._make: Callable[[Sequence[Any]], Any] = row._make
        self._result = [field.type.dialect_impl(dialect).result_processor(dialect, None) for field in fields]

    def bind(self, connection: Connection, values: Mapping[str, Any]) -> list[Any]:
        """The values of the parameters, in the order of their places."""
        if values.keys() != self._names:
            wrong = sorted(self._names ^ values.keys())
            raise TypeError(f"parameters that are missing or not those of the statement: {', '.join(wrong)}")
        try:
            return [
                constant if name is None else values[name] if convert is None else convert(values[name])
                for name, convert, constant in self._plan
            ]
        except Exception as exc:
            fail(connection, exc, self.sql, None, None, None)
            raise

    def parameters(self, bound: list[Any]) -> Any:
        """What was bound, as the driver's cursor takes it."""
        return bound if self._positional else dict(zip(self._keys, bound, strict=True))

    def read(self, rows: Sequence[Sequence[Any]]) -> list[Any]:
        """The rows as named tuples, each value as its column's type has it."""
        make = self._make
        if not any(self._result):
            return [make(row) for row in rows]
        return [
            make([v if convert is None else convert(v) for v, convert in zip(row, self._result, strict=True)])
            for row in rows
        ]

    def first_column(self, rows: Sequence[Sequence[Any]]) -> list[Any]:
        """The first value of each row."""
        convert = self._result[0]
        return [row[0] if convert is None else convert(row[0]) for row in rows]


def _numbered(sql: str, keys: Sequence[str]) -> str:
    """A text with ``%(name)s`` for its parameters as one with ``$1``, by their places in ``keys``."""
    places = {key: f"${place}" for place, key in enumerate(keys, 1)}
    return _NAMED.sub(lambda found: "%" if found[1] is None else places[found[1]], sql)


def _all(cursor: Reply) -> Sequence[Any]:
    return cursor.fetchall()


def _one(cursor: Reply) -> Sequence[Any]:
    row = cursor.fetchone()
    return () if row is None else (row,)


def _count(cursor: Reply) -> int:
    return cursor.rowcount


def _field(column: Any) -> str:
    name = getattr(column, "name", None)
    return name if isinstance(name, str) else "_"


def _is_free(table: object) -> bool:
    """Whether the audit log does not answer for the rows of the table."""
    return isinstance(table, Table) and not is_fact(table)
