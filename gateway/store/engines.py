"""What a database engine must give to the generic store, and what the SQL dialects spell differently.

:mod:`gateway.store.sqlite_engine` and :mod:`gateway.store.postgresql_engine` implement :class:`Database`;
:mod:`gateway.store.opening` picks one. Nothing else in the store knows which of them is there.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import Boolean, ColumnElement, Connection, Engine, Executable, Table, UniqueConstraint
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from gateway.core.errors import ConfigurationError
from gateway.ports import Hints
from gateway.store.tables import metadata


class Database(Protocol):
    """One database, ready to be used."""

    @property
    def writer(self) -> Engine:
        """The engine of the one writer thread of this process; at most one connection."""
        ...

    @property
    def reader(self) -> Engine:
        """The engine of the readers: every transaction is one snapshot and refuses to write."""
        ...

    @property
    def shared(self) -> bool:
        """Whether other nodes may work on the same database."""
        ...

    @property
    def hints(self) -> Hints:
        """Hints to and from the other nodes."""
        ...

    def begin_group(self, connection: Connection) -> datetime | None:
        """Make this the only writer until the transaction ends; return :meth:`now` of the moment when it was.

        Raises:
            DBAPIError: the lock was not had; no unit has run, and the transaction is to be given up.
        """
        ...

    def now(self, connection: Connection) -> datetime | None:
        """What the database's own clock says; None where it has none but this machine's."""
        ...

    def begin_schema(self, connection: Connection) -> None:
        """Make what must be there before the first table."""
        ...

    def begin_upgrade(self, connection: Connection) -> None:
        """Make a transaction of the writer ready for revisions, which take longer than any unit of work."""
        ...

    def end_upgrade(self, connection: Connection) -> None:
        """Check what was not enforced while the revisions ran. Raises StoreError when it does not hold."""
        ...

    def in_transaction(self, connection: Connection) -> bool:
        """Whether the transaction is there and can still be committed, or rolled back to a savepoint."""
        ...

    def is_aborted(self, connection: Connection) -> bool:
        """Whether the transaction takes nothing but a rollback, to a savepoint or of all of it."""
        ...

    def before_commit(self, connection: Connection) -> None:
        """Raise StoreError when a COMMIT now would be answered as a success and commit nothing."""
        ...

    def after_commit(self, connection: Connection) -> None:
        """Raise StoreError when the COMMIT was answered as a success and is less durable than was asked for."""
        ...

    def free_bytes(self) -> int | None:
        """Bytes free for the database on this machine, or None when it is not on this machine."""
        ...

    def gateways(self) -> list[str]:
        """The daemons that run on this database now, in words for people (a process id, or the names of nodes)."""
        ...

    def weaknesses(self) -> list[str]:
        """What an operator should mend although mail is safe without it, in words for people."""
        ...

    def close(self) -> None:
        """Close every connection and let go of what keeps other daemons out. Safe to call twice."""
        ...


class holds_text(FunctionElement[bool]):  # noqa: N801 - it reads as an SQL function
    """``holds_text(column, needle)``: whether the text holds the needle, every character taken as it is."""

    type = Boolean()
    inherit_cache = True


@compiles(holds_text, "sqlite")
def _holds_text_sqlite(element: holds_text, compiler: SQLCompiler, **options: Any) -> str:
    text, needle = element.clauses
    return f"(instr({compiler.process(text, **options)}, {compiler.process(needle, **options)}) > 0)"


@compiles(holds_text, "postgresql")
def _holds_text_postgresql(element: holds_text, compiler: SQLCompiler, **options: Any) -> str:
    text, needle = element.clauses
    return f"(strpos({compiler.process(text, **options)}, {compiler.process(needle, **options)}) > 0)"


def has_text(column: ColumnElement[str], needle: str) -> ColumnElement[bool]:
    """Typed front of :class:`holds_text`."""
    return holds_text(column, needle)


def insert_absent(connection: Connection, table: Table) -> Executable:
    """Return an INSERT that leaves out rows whose key is there already, also when another writer brings them now."""
    name = connection.dialect.name
    if name == "sqlite":
        return sqlite_insert(table).on_conflict_do_nothing()
    if name == "postgresql":
        return postgresql_insert(table).on_conflict_do_nothing()
    raise ConfigurationError(f"there is no store on {name} yet")


# --- the guards of append-only tables ---

REFUSE = "gateway_refuse_change"
REFUSE_BODY = (
    " BEGIN RAISE EXCEPTION USING MESSAGE = 'append-only: ' || TG_TABLE_NAME, "
    "ERRCODE = 'integrity_constraint_violation'; END "
)
"""What every trigger of PostgreSQL runs."""


def append_only_preamble(dialect: str) -> tuple[str, ...]:
    """Return the statements that must come before the triggers of any table."""
    if dialect != "postgresql":
        return ()
    return (f"CREATE OR REPLACE FUNCTION {REFUSE}() RETURNS trigger LANGUAGE plpgsql AS $${REFUSE_BODY}$$",)


def append_only_triggers(table: str, dialect: str) -> dict[str, tuple[str, ...]]:
    """Return name and statements of the triggers that refuse UPDATE and DELETE (and TRUNCATE) on a table.

    SQLite: INSERT OR REPLACE deletes too, and fires the trigger for that only with ``recursive_triggers=ON``, which is
    a setting of each connection, and not of the file. So a third one refuses an INSERT whose key is there already.
    PostgreSQL: one for each statement, so that one that would hit no row is refused as well, and ALWAYS, so that
    ``session_replication_role = replica`` does not pass by them (finding 6).
    """
    if dialect == "sqlite":
        return _sqlite_triggers(metadata.tables[table])
    if dialect == "postgresql":
        return {
            (name := f"{table}_no_{verb.lower()}"): (
                f"CREATE OR REPLACE TRIGGER {name} BEFORE {verb} ON {table} EXECUTE FUNCTION {REFUSE}()",
                f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}",
            )
            for verb in ("UPDATE", "DELETE", "TRUNCATE")
        }
    raise ConfigurationError(f"there are no append-only triggers for {dialect} yet")


def _sqlite_triggers(table: Table) -> dict[str, tuple[str, ...]]:
    name = table.name
    refuse = f"BEGIN SELECT RAISE(ABORT, 'append-only: {name}'); END"
    whens = {"update": "BEFORE UPDATE", "delete": "BEFORE DELETE", "replace": "BEFORE INSERT"}
    tails = dict.fromkeys(whens, refuse)
    # ON CONFLICT DO NOTHING comes after the trigger, which must then leave the row out as quietly.
    refuse_again = "BEGIN SELECT RAISE(IGNORE); END" if table.info["by_digest"] else refuse
    tails["replace"] = f"WHEN {_is_there(table)} {refuse_again}"
    return {
        (trigger := f"{name}_no_{verb}"): (f"CREATE TRIGGER IF NOT EXISTS {trigger} {when} ON {name} {tails[verb]}",)
        for verb, when in whens.items()
    }


def _is_there(table: Table) -> str:
    """SQL: whether a row is there that REPLACE would remove to make room for the new one.

    Any unique key will do, and so will the row's own number, which SQLite sets to -1 when the statement names none.
    """
    keys = [[column.name for column in table.primary_key]]
    keys += [[c.name for c in u.columns] for u in table.constraints if isinstance(u, UniqueConstraint)]
    keys += [[c.name for c in index.columns] for index in table.indexes if index.unique]
    alternatives = sorted(" AND ".join(f"{column} = NEW.{column}" for column in key) for key in keys)
    there = f"EXISTS (SELECT 1 FROM {table.name} WHERE"  # noqa: S608 - our own names
    looks = [f"{there} {key})" for key in alternatives]
    return " OR ".join([*looks, f"NEW.rowid <> -1 AND {there} rowid = NEW.rowid)"])
