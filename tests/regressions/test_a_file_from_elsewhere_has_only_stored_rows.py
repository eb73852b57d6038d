"""A small SQLite file could stand for tables without an end, and was read to see how many rows they have.

Views and plain virtual tables were refused in backups. A virtual table that is spelled with two blanks, and a column
that is computed, were not; and ``copy-store`` counted the rows of whatever its source held.
"""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from gateway.core.errors import ConfigurationError
from gateway.settings import StoreSettings
from gateway.store.backup.manifest import STORE_FILE
from gateway.store.files import database_path
from tests.support.backups import back_up, check
from tests.support.copies import copy, filled, new_place, opened
from tests.support.store_samples import NOW, inbound

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT"
MADE_UP = ["view job", "virtual table job", "computed column schema_version.at"]


def forge(file: Path, what: str) -> None:
    """Put something in the place of stored rows, as somebody does who writes the file himself."""
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA writable_schema=ON")
    columns = [row[1] for row in connection.execute("PRAGMA table_info(job)")]
    if what.startswith("computed"):
        sql = "CREATE TABLE schema_version (version INTEGER NOT NULL, release TEXT, at TEXT AS (zeroblob(900000000)))"
        connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'schema_version'", (sql,))
    else:
        connection.execute("DELETE FROM sqlite_master WHERE tbl_name = 'job'")
        view = f"CREATE VIEW job({', '.join(columns)}) AS {ENDLESS} {', '.join('x' for _ in columns)} FROM n"
        kind, sql = ("view", view) if what.startswith("view") else ("table", "CREATE  VIRTUAL TABLE job USING fts5(a)")
        row = (kind, "job", "job", 0, sql)
        connection.execute("INSERT INTO sqlite_master(type, name, tbl_name, rootpage, sql) VALUES (?, ?, ?, ?, ?)", row)
    connection.close()


@pytest.mark.parametrize("what", MADE_UP)
def test_nothing_of_such_a_backup_is_read(tmp_path: Path, what: str) -> None:
    source = new_place("sqlite", tmp_path)
    with opened(source, tmp_path) as store:
        store.write_blocking(lambda tx: tx.messages.add_raw(f"{1:026d}", NOW, inbound(b"a message")))
    made = back_up(source, tmp_path / "copy")
    forge(made.path / STORE_FILE, what)
    report = check(made.path)
    assert report.findings[-1] == f"store.db has a {what}, which is none of the gateway's: nothing of it was read"
    assert report.rows == 0


@pytest.mark.parametrize("what", MADE_UP)
@pytest.mark.parametrize("dry_run", [True, False])
def test_such_a_store_is_not_copied(tmp_path: Path, what: str, dry_run: bool) -> None:
    file, target = database_path(filled("sqlite", tmp_path).url), new_place("sqlite", tmp_path)
    forged = tmp_path / "forged.db"
    shutil.copy(file, forged)
    forge(forged, what)
    with pytest.raises(ConfigurationError, match=f"--from: the database has a {what}, which is none"):
        copy(StoreSettings(url=f"sqlite:///{forged}"), target, dry_run=dry_run)
    assert not database_path(target.url).exists()
