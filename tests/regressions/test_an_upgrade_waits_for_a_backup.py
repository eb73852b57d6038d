"""No upgrade begins while a backup is read from PostgreSQL, and no backup while an upgrade runs (F34, F35).

A revision may write a table anew. PostgreSQL then shows that table as *empty* to every snapshot from before: a backup
that had not come to it yet would have been made without the mail in it, and said to be whole.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.core.errors import ConfigurationError, StoreUnavailableError
from gateway.settings import StoreSettings
from gateway.store.backup.snapshot import snapshot
from gateway.store.opening import open_database
from gateway.store.sql_store import SQLStore
from gateway.store.table_rows import count_rows
from gateway.store.tables import raw_message
from gateway.store.upgrading import upgrade_store
from tests.support.backups import back_up
from tests.support.body_keys import sealer_in
from tests.support.filled_store import fill
from tests.support.postgresql import shared_cluster


@pytest.fixture
def settings(tmp_path: Path) -> StoreSettings:
    made = shared_cluster().settings()
    with SQLStore.open(made, sealer_in(tmp_path)) as store:
        store.write_blocking(fill)
    return made


def written_anew(settings: StoreSettings) -> None:
    """What a revision of a later release may do, in the manner of all of them."""
    database = open_database(settings, daemon=False, upgrading=True)
    try:
        with database.writer.begin() as connection:
            database.begin_upgrade(connection)
            connection.exec_driver_sql("ALTER TABLE raw_message ALTER COLUMN size_bytes TYPE numeric")
    finally:
        database.close()


def test_an_upgrade_is_refused_while_a_backup_is_made(settings: StoreSettings) -> None:
    with snapshot(settings) as rows:
        with pytest.raises(ConfigurationError, match="stop them first, on: main"):
            written_anew(settings)
        assert count_rows(rows, raw_message) == 1
    assert upgrade_store(settings, "cli:jane").steps == (), "the lock is free again"


def test_a_backup_is_refused_while_an_upgrade_runs(settings: StoreSettings, tmp_path: Path) -> None:
    database = open_database(settings, daemon=False, upgrading=True)
    try:
        with pytest.raises(StoreUnavailableError, match="being upgraded"):
            back_up(settings, tmp_path / "backup")
    finally:
        database.close()
    assert not (tmp_path / "backup").exists()
    with snapshot(settings) as rows:
        assert count_rows(rows, raw_message) == 1
