"""A backup goes into tables of its own schema only, also when they are empty.

The way back from a new release is the older one and a backup. Empty tables that the new one had made took the rows, and
said afterwards that they were of the new schema: the older release could not open what it had just restored, and the
new one would have taken rows that its upgrade had never seen.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.core.errors import ConfigurationError
from gateway.settings import StoreSettings
from gateway.store.backup.checking import read_backup
from gateway.store.backup.restoring import require_place
from gateway.store.opening import init_store
from gateway.store.sql_store import SQLStore
from tests.support.backups import back_up, put_back
from tests.support.body_keys import sealer_in
from tests.support.filled_store import fill
from tests.support.postgresql import shared_cluster
from tests.support.store_samples import settings_for


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    settings = settings_for(tmp_path)
    with SQLStore.open(settings, sealer_in(tmp_path)) as store:
        store.write_blocking(fill)
    return back_up(settings, tmp_path / "backup").path


@pytest.fixture
def place() -> StoreSettings:
    settings = shared_cluster().settings()
    init_store(settings, None)
    return settings


def test_empty_tables_of_another_release_are_refused(backup: Path, place: StoreSettings) -> None:
    newer = f"INSERT INTO {place.schema}.schema_version VALUES (99, '7.0', NULL)"  # noqa: S608 - our name
    shared_cluster().sql(newer, "gateway")
    with pytest.raises(ConfigurationError, match=r"schema 99, made by direct-gateway 7\.0"):
        require_place(place, read_backup(backup)[0])
    with pytest.raises(ConfigurationError, match="schema 99"):
        put_back(place, backup)
    assert shared_cluster().sql(f"SELECT count(*) FROM {place.schema}.raw_message", "gateway") == [(0,)]  # noqa: S608
