"""Notes every row that a unit of work adds to an append-only table, so that the audit log can answer for it.

The chain of the audit log protects the log. What makes it protect the mail is that each event lists the rows that
were written with it, each with a digest (``audit_event.rows``, :func:`gateway.core.audit.row_digest`). That must not
depend on whoever writes a repository: the rows are noted where the INSERT has been executed, by SQLAlchemy or by
:mod:`gateway.store.prepared`, from the values that went to the database, whatever module they came from. So a new table
is covered on the day when it is made.

The mutable tables (jobs, flags, counters) are not noted; neither are the log itself and the tables of its tree.

Failure modes: ValueError for an INSERT into an append-only table whose values the program does not know itself (an
SQL expression): such a row could not be vouched for, so it is not written. It is a mistake in the program, found by
its tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, CursorResult, Engine, Insert, Table, event

from gateway.core.audit import Row, row_digest
from gateway.store.tables import clean

_KEY = "facts"


class Facts:
    """The rows of one unit of work that no event lists yet."""

    __slots__ = ("_rows",)

    def __init__(self) -> None:
        self._rows: list[Row] = []

    def note(self, table: Table, values: Mapping[str, Any]) -> None:
        """Remember a row."""
        self._rows.append(fact(table, values))

    def take(self) -> list[Row]:
        """Return what was noted since the last time."""
        rows, self._rows = self._rows, []
        return rows

    def waiting(self) -> tuple[Row, ...]:
        """What the next :meth:`take` returns."""
        return tuple(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def fact(table: Table, values: Mapping[str, Any]) -> Row:
    """Return a row as the log lists it. ``values`` by column name, as given to the database or as read from it."""
    known = {name: clean(value) if isinstance(value, str) else value for name, value in values.items()}
    key = tuple([known[name] for name in _key_of(table)])
    return table.name, key, row_digest(table.name, known)


@cache
def _key_of(table: Table) -> tuple[str, ...]:
    return tuple(column.name for column in table.primary_key)


def begin(connection: Connection) -> Facts:
    """Note from now on what is added over this connection. What an earlier unit left behind is forgotten."""
    facts = Facts()
    connection.info[_KEY] = facts
    return facts


def is_fact(table: Table) -> bool:
    """Whether the log answers for the rows of the table."""
    return bool(table.info.get("fact"))


def wrote(connection: Connection, table: Table, values: Mapping[str, Any]) -> None:
    """Note a row that was added by other means than SQLAlchemy's. ``values``: all columns, as given to the database."""
    facts = connection.info.get(_KEY)
    if facts is not None:
        facts.note(table, values)


def _executed(
    connection: Connection,
    statement: Any,
    _many: Sequence[Mapping[str, Any]],
    _one: Mapping[str, Any],
    _options: Mapping[str, Any],
    result: CursorResult[Any],
) -> None:
    if not isinstance(statement, Insert) or not isinstance(statement.table, Table) or not is_fact(statement.table):
        return
    facts = connection.info.get(_KEY)
    if facts is None:
        return
    for parameters in result.context.compiled_parameters:
        facts.note(statement.table, _values(statement.table, parameters, result))


def _values(table: Table, parameters: Mapping[str, Any], result: CursorResult[Any]) -> dict[str, Any]:
    values = {column.name: parameters[column.name] for column in table.c if column.name in parameters}
    for column in table.c:
        if column.name in values:
            continue
        if column.primary_key:
            # Counted up by the database, which has told it.
            told = result.context.inserted_primary_key_rows
            assert told is not None  # noqa: S101 - set for every INSERT
            values[column.name] = told[0][list(table.primary_key).index(column)]
            if values[column.name] is None:
                raise ValueError(f"the audit log cannot answer for a row of {table.name}: its key is not known")
        elif not column.nullable:
            raise ValueError(
                f"the audit log cannot answer for a row of {table.name}: {column.name} is not a plain value"
            )
    return values


# On the class: every engine that this program will ever make is watched, on whatever database.
event.listen(Engine, "after_execute", _executed)
