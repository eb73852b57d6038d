"""Whether the guards of the append-only tables (triggers) stand as they were made, and putting them back.

A guard that is gone, was switched off, or was made anew with another text under its old name is *unsound*. It is put
back at the next start, and that is an event of the audit log (``guards.restored``): somebody who takes a guard away
for a moment leaves a trace, unless he puts it back himself, which is what the chain and its heads are for.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, text

from gateway.store.engines import REFUSE, REFUSE_BODY, append_only_preamble, append_only_triggers
from gateway.store.tables import APPEND_ONLY, metadata

_FOUND = {
    "sqlite": "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'",
    # ALWAYS: one that was only disabled for a while must not pass for one that holds.
    "postgresql": (
        # And of the right table and kind, without a condition, with the function as it was made: a guard of the same
        # name that lets through is none.
        "SELECT t.tgname, '' FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid "
        "WHERE NOT t.tgisinternal AND t.tgenabled = 'A' AND c.relnamespace = current_schema()::regnamespace "
        "AND t.tgqual IS NULL AND t.tgattr = ''::int2vector AND p.pronamespace = c.relnamespace "
        "AND p.proname = :function AND p.prosrc = :body "
        "AND (t.tgname, t.tgtype) IN ((c.relname || '_no_delete', 10), (c.relname || '_no_update', 18), "
        "(c.relname || '_no_truncate', 34))"
    ),
}

_ALL_OF_THEM = {
    "sqlite": "SELECT type, name FROM sqlite_master WHERE type IN ('trigger', 'view') ORDER BY type, name",
    "postgresql": (
        "SELECT 'trigger', t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid "
        "WHERE NOT t.tgisinternal AND c.relnamespace = current_schema()::regnamespace "
        "UNION ALL SELECT 'view', viewname FROM pg_views WHERE schemaname = current_schema() "
        "UNION ALL SELECT 'rule', rulename FROM pg_rules WHERE schemaname = current_schema() "
        "UNION ALL SELECT 'policy', policyname FROM pg_policies WHERE schemaname = current_schema()"
    ),
}


def strangers(connection: Connection) -> list[str]:
    """Kind and name of every trigger and view (on PostgreSQL also rule and policy) that this program did not make.

    A trigger of somebody else acts whenever the gateway writes, in the gateway's own transaction: it can remove the
    job of a message, or give its content a key that he knows.
    """
    ours = {name for name, _ in _guards(connection.dialect.name)}
    found = connection.execute(text(_ALL_OF_THEM[connection.dialect.name]))
    return [f"{kind} {name}" for kind, name in found if kind != "trigger" or name not in ours]


def made_up_tables(connection: Connection) -> list[str]:
    """Kind and name of what stands in a SQLite file as a table, or in one, and is no stored row.

    A file that comes from elsewhere must not be read before this was asked: a view, a virtual table and a column that
    is computed have no end, or values without one, and a small file may hold them. What the file itself says of its
    kinds is not believed where SQLite reads something else.
    """
    made_up = (
        "SELECT CASE type WHEN 'view' THEN 'view' ELSE 'virtual table' END, name FROM sqlite_master "
        "WHERE type = 'view' OR type = 'table' AND substr(sql, 1, 13) <> 'CREATE TABLE ' ORDER BY name"
    )
    found = [f"{kind} {name}" for kind, name in connection.exec_driver_sql(made_up)]
    if found:
        # To ask for the columns of one would open it.
        return found
    computed = "SELECT name FROM pragma_table_xinfo(:table) WHERE hidden <> 0 ORDER BY cid"
    for table in metadata.sorted_tables:
        names = connection.execute(text(computed), {"table": table.name}).scalars()
        found += [f"computed column {table.name}.{name}" for name in names]
    return found


def guarded_tables(connection: Connection) -> set[str]:
    """The tables of the database that have our guard against UPDATE, of this release or of another."""
    found = connection.execute(text(_ALL_OF_THEM[connection.dialect.name]))
    names = [name for kind, name in found if kind == "trigger"]
    return {name.removesuffix("_no_update") for name in names if name.endswith("_no_update")}


def unsound_guards(connection: Connection) -> list[str]:
    """Names of the guards that are missing, switched off or altered, in the order of the tables."""
    dialect = connection.dialect.name
    asked = {"function": REFUSE, "body": REFUSE_BODY} if dialect == "postgresql" else {}
    rows = connection.execute(text(_FOUND[dialect]), asked)
    found: dict[str, str] = {name: sql for name, sql in rows}  # noqa: C416 - rows
    return [
        name
        for name, statements in _guards(dialect)
        if name not in found or (dialect == "sqlite" and found[name] != _as_kept(statements[0]))
    ]


def restore_guards(connection: Connection) -> list[str]:
    """Make every guard that is unsound, and return the names."""
    unsound = unsound_guards(connection)
    if not unsound:
        return []
    dialect = connection.dialect.name
    for statement in append_only_preamble(dialect):
        connection.exec_driver_sql(statement)
    wanted = dict(_guards(dialect))
    for name in unsound:
        if dialect == "sqlite":
            connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name}")
        for statement in wanted[name]:
            connection.exec_driver_sql(statement)
    return unsound


def _guards(dialect: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for table in APPEND_ONLY:
        yield from append_only_triggers(table.name, dialect).items()


def _as_kept(statement: str) -> str:
    """The text of a trigger as SQLite keeps it."""
    return statement.replace("CREATE TRIGGER IF NOT EXISTS ", "CREATE TRIGGER ", 1)
