"""No journal of another database is played into a restored one.

SQLite takes a file for the journal of a database by its name alone. A rollback journal is left by a process that was
killed while it made its database; a WAL by a command that was started on the empty file of that name.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import ConfigurationError
from gateway.settings import StoreSettings
from gateway.store.backup import after_restore, restoring
from gateway.store.sql_store import SQLStore
from tests.support.backups import back_up, put_back
from tests.support.body_keys import sealer_in
from tests.support.filled_store import fill
from tests.support.store_samples import settings_for


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    settings = settings_for(tmp_path)
    with SQLStore.open(settings, sealer_in(tmp_path)) as store:
        store.write_blocking(fill)
    return back_up(settings, tmp_path / "backup").path


@pytest.fixture
def place(tmp_path: Path) -> StoreSettings:
    (tmp_path / "new").mkdir()
    return settings_for(tmp_path / "new")


def file_of(place: StoreSettings) -> Path:
    return Path(place.url.removeprefix("sqlite:///"))


def hot_journal(database: Path, folder: Path) -> bytes:
    """The rollback journal of a process that was killed in the middle of a transaction on its new database."""
    other = folder / "other.db"
    with closing(sqlite3.connect(other, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("CREATE TABLE t (x)")
        connection.execute("BEGIN")
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 4000) "
            "INSERT INTO t SELECT zeroblob(300) FROM n"
        )
        journal = other.with_name("other.db-journal").read_bytes()
    assert journal, database
    return journal


def test_a_rollback_journal_is_told_and_left_alone(backup: Path, place: StoreSettings, tmp_path: Path) -> None:
    journal = file_of(place).with_name("gateway.db-journal")
    journal.write_bytes(hot_journal(file_of(place), tmp_path))
    with pytest.raises(ConfigurationError, match=r"gateway\.db-journal is there"):
        put_back(place, backup)
    assert journal.exists()
    journal.unlink()
    put_back(place, backup)


def test_what_comes_while_it_is_restored_is_told(
    backup: Path, place: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty file of that name is no store, but a command that was started on it may make one of it."""
    file_of(place).touch()
    go_on: Any = after_restore.go_on

    def with_a_command_beside(*arguments: object) -> None:
        SQLStore.open(place, sealer_in(file_of(place).parent)).close()
        go_on(*arguments)

    monkeypatch.setattr(restoring, "go_on", with_a_command_beside)
    with pytest.raises(ConfigurationError, match="a backup is restored into an empty place only"):
        put_back(place, backup)
    with SQLStore.open(place, sealer_in(file_of(place).parent)) as store:
        assert store.read_blocking(lambda tx: tx.messages.newest()) == [], "it is the store of that command"
