"""The revisions make what the tables say, on both databases, and none that was released changes any more."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from gateway.store import revisions as shipped
from gateway.store.engines import Database
from gateway.store.guards import restore_guards
from gateway.store.opening import open_database
from gateway.store.revisions import revisions, run
from gateway.store.schema import create_schema
from gateway.store.schema_versions import OLDEST_SCHEMA
from gateway.store.tables import SCHEMA_VERSION, metadata
from tests.support.next_release import REVISIONS
from tests.support.postgresql import ENGINES
from tests.support.stores import SETTINGS

RELEASED = {
    "columns.py": "1bb8bed2d49630da8fbe403e0d53663c9dadcc841eef66017bdc0fc76419bdf4",
    "r0003_messages_mailboxes_and_the_audit_log.py": "edca7b62d45dc4ef9b349dccd53a44db641d9c8840d17766dfd34a34c149aae4",
    "r0004_which_release_made_the_schema.py": "5ad9a2191b21dbbe910ce8bc6852cd6683496737d2a93e9f5bc9ce3655680a29",
    "r0005_what_mail_clients_see.py": "c9412320dd80179ae3bd5afc3972ae619edd979a2a371a8708ea473d994e90ac",
    "r0006_shown_fields_imports_and_merges.py": "78782ee46e258b58f2b057a9d756ef91d548cbaad681ae5e88fb5e797573732b",
}
"""SHA-256 of what a released revision consists of. A change of a table is a new revision, and a new line here."""

_POSTGRESQL = {
    "columns": """
        SELECT c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
               coalesce(co.collname, ''), coalesce(pg_get_expr(d.adbin, d.adrelid), ''), a.attidentity
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        LEFT JOIN pg_collation co ON co.oid = a.attcollation
        WHERE c.relkind IN ('r', 'S') AND a.attnum > 0 AND NOT a.attisdropped
          AND c.relnamespace = current_schema()::regnamespace ORDER BY 1, 2""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = current_schema()::regnamespace ORDER BY 1, 2""",
    "indexes": """
        SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema() ORDER BY 1, 2""",
    "triggers": """
        SELECT c.relname, t.tgname, pg_get_triggerdef(t.oid), t.tgenabled FROM pg_trigger t
        JOIN pg_class c ON c.oid = t.tgrelid
        WHERE NOT t.tgisinternal AND c.relnamespace = current_schema()::regnamespace ORDER BY 1, 2""",
}
_SQLITE = {
    "columns": """
        SELECT m.name, c.cid, c.name, c.type, c."notnull", c.dflt_value, c.pk, c.hidden
        FROM sqlite_master m, pragma_table_xinfo(m.name) c WHERE m.type = 'table' ORDER BY 1, 2""",
    "foreign keys": """
        SELECT m.name, f.* FROM sqlite_master m, pragma_foreign_key_list(m.name) f WHERE m.type = 'table'
        ORDER BY 1, f."table", f."from" """,
    "indexes": """
        SELECT m.name, CASE WHEN i.origin = 'c' THEN i.name END, i."unique", i.origin, i.partial, group_concat(x.name)
        FROM sqlite_master m, pragma_index_list(m.name) i, pragma_index_info(i.name) x WHERE m.type = 'table'
        GROUP BY m.name, i.name ORDER BY 1, 2, 6""",
    "triggers": "SELECT tbl_name, name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY 1, 2",
    "options": """
        SELECT name, sql LIKE '%AUTOINCREMENT%', sql LIKE '%WITHOUT ROWID%', sql LIKE '%CHECK%', sql LIKE '%STRICT%'
        FROM sqlite_master WHERE type = 'table' ORDER BY 1""",
}


def described(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that a schema is made of, in the words of the database itself."""
    queries = _SQLITE if connection.dialect.name == "sqlite" else _POSTGRESQL
    place = "" if connection.dialect.name == "sqlite" else connection.scalar(text("SELECT current_schema()"))
    return {
        name: [
            tuple(part.replace(f"{place}.", "") if place and isinstance(part, str) else part for part in row)
            for row in connection.execute(text(query))
        ]
        for name, query in queries.items()
    }


@contextlib.contextmanager
def empty(engine: str, folder: Path) -> Iterator[Database]:
    database = open_database(SETTINGS[engine](folder), daemon=False)
    try:
        yield database
    finally:
        database.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_the_revisions_make_what_the_tables_say(engine: str, tmp_path: Path) -> None:
    with empty(engine, tmp_path / "revisions") as database:
        create_schema(database)
        with database.reader.connect() as connection:
            made = described(connection)
    with empty(engine, tmp_path / "metadata") as database:
        with database.writer.connect() as connection, connection.begin():
            database.begin_schema(connection)
            metadata.create_all(connection)
            restore_guards(connection)
        with database.reader.connect() as connection:
            meant = described(connection)
    assert {name: len(rows) for name, rows in made.items()} == {name: len(rows) for name, rows in meant.items()}
    assert made == meant
    assert len(made["columns"]) > 150
    assert len(made["triggers"]) > 60


def test_the_comparison_sees_what_differs(tmp_path: Path) -> None:
    """A type, a default, an index, a key, a counter: each alone is found."""
    changes = (
        "ALTER TABLE link ADD COLUMN more TEXT",
        "CREATE INDEX more ON link (rule)",
        "DROP INDEX audit_event_at",
        "DROP TRIGGER link_no_update",
    )
    for number, change in enumerate(changes):
        with empty("sqlite", tmp_path / str(number)) as database:
            create_schema(database)
            with database.reader.connect() as connection:
                before = described(connection)
            with database.writer.connect() as connection, connection.begin():
                connection.exec_driver_sql(change)
            with database.reader.connect() as connection:
                assert described(connection) != before, change


@pytest.mark.parametrize("engine", ENGINES)
def test_a_new_database_says_which_release_made_it(engine: str, tmp_path: Path) -> None:
    with empty(engine, tmp_path) as database:
        create_schema(database)
        with database.reader.connect() as connection:
            [row] = connection.execute(text("SELECT version, release, at FROM schema_version")).all()
    assert (row.version, row.release) == (SCHEMA_VERSION, "0.1.0")
    assert row.at.startswith("20")


def test_a_released_revision_never_changes() -> None:
    home = Path(shipped.__file__).parent / "migrations"
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (home / "columns.py", *(home / "versions").glob("r*.py"))
    }
    assert found == RELEASED, "put a change of the tables into a new revision; see gateway/store/migrations/__init__.py"


def test_the_revisions_are_one_line_from_the_oldest_schema_to_this_release() -> None:
    found = revisions()
    assert [revision.version for revision in found] == list(range(OLDEST_SCHEMA, SCHEMA_VERSION + 1))
    assert [revision.version for revision in revisions(after=OLDEST_SCHEMA)] == list(
        range(OLDEST_SCHEMA + 1, SCHEMA_VERSION + 1)
    )
    for revision in found:
        assert revision.purpose.endswith("."), revision.version
        assert set(revision.rewrites) <= {table.name for table in metadata.sorted_tables}
        assert not hasattr(revision.module, "downgrade")


def test_no_column_of_an_answered_table_has_a_default() -> None:
    """A value that the database fills in is in no digest of the audit log."""
    found = [
        f"{table.name}.{column.name}"
        for table in metadata.sorted_tables
        if table.info.get("fact")
        for column in table.c
        if column.server_default is not None or column.default is not None or column.onupdate is not None
    ]
    assert found == []


def test_a_fork_of_the_revisions_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fork = (REVISIONS / "r0007_notes_and_a_language.py").read_text()
    for number in ("0007", "0008"):
        (tmp_path / f"r{number}_x.py").write_text(fork.replace('revision = "0007"', f'revision = "{number}"'))
    monkeypatch.setattr(shipped, "FOLDERS", [*shipped.FOLDERS, tmp_path])
    with pytest.raises(Exception, match="install direct-gateway again"):
        revisions()


def test_who_finds_the_right_schema_does_not_wait_for_alembic(tmp_path: Path) -> None:
    database = tmp_path / "gateway.db"
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from gateway.store.schema import create_schema\n"
        "from gateway.store.sqlite_engine import SQLiteDatabase\n"
        f"database = SQLiteDatabase(Path({str(database)!r}), readers=1, daemon=False)\n"
        "create_schema(database)\n"
        "print('alembic' in sys.modules)\n"
    )
    for expected in ("True", "False"):
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected


def test_a_revision_runs_in_the_transaction_of_its_caller(tmp_path: Path) -> None:
    with empty("sqlite", tmp_path) as database:
        with database.writer.connect() as connection:
            transaction = connection.begin()
            for revision in revisions():
                run(connection, revision)
            transaction.rollback()
        with database.reader.connect() as connection:
            assert described(connection)["columns"] == []
