"""A UID that the first restored store gave out never comes again when a backup is restored a second time (EP-23).

The disk fails once more before the next backup, or the newer of two backups turns out to be the bad one. Had each
restore skipped the same number of UIDs, the second one would have begun where the first one had, and mail clients that
had fetched in between would have shown the wrong message under each of those UIDs, for ever. The same is true of
MODSEQ: a client would not have been told of the flags that are back to what they were.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from gateway.settings import StoreSettings
from gateway.store.backup.checking import read_backup
from gateway.store.backup.making import Contents, make_backup
from gateway.store.backup.manifest import manifest_digest
from gateway.store.backup.restoring import Restore, restore
from gateway.store.opening import init_store
from gateway.store.sql_store import SQLStore
from tests.support.body_keys import sealer_in
from tests.support.filled_store import fill
from tests.support.postgresql import ENGINES
from tests.support.store_samples import NOW
from tests.support.stores import SETTINGS

MONTH = timedelta(days=30)


def a_backup(settings: StoreSettings, path: Path, at: datetime) -> Path:
    return make_backup(settings, path, Contents("1.2.3", {}, ()), clock=lambda: at).path


def restored(backup: Path, folder: Path, engine: str, at: datetime) -> StoreSettings:
    folder.mkdir()
    settings = SETTINGS[engine](folder)
    if engine == "postgresql":
        init_store(settings, None)
    manifest, text = read_backup(backup)
    restore(settings, Restore(backup, manifest, manifest_digest(text), "cli:test", lambda: at))
    return settings


def next_uid_and_modseq(settings: StoreSettings, keys: Path) -> tuple[int, int]:
    with SQLStore.open(settings, sealer_in(keys)) as store:
        mailbox = store.read_blocking(lambda tx: tx.mailboxes.get(1))
    return mailbox.uid_next, mailbox.highest_modseq


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("age", [timedelta(0), timedelta(hours=20), 14 * MONTH])
def test_the_same_backup_is_restored_twice(tmp_path: Path, engine: str, age: timedelta) -> None:
    source = SETTINGS[engine](tmp_path)
    with SQLStore.open(source, sealer_in(tmp_path)) as store:
        store.write_blocking(fill)
    backup, first_at = a_backup(source, tmp_path / "backup", NOW), NOW + age
    first = restored(backup, tmp_path / "first", engine, first_at)
    # A minute of mail as fast as it can come in while the backup is young, and a day of busy mail when it is old.
    between, received = (timedelta(days=1), 500_000) if age > MONTH else (timedelta(minutes=1), 10_000)
    second = restored(backup, tmp_path / "second", engine, first_at + between)
    (uid, modseq), (uid_again, modseq_again) = (next_uid_and_modseq(one, tmp_path) for one in (first, second))
    assert uid_again >= uid + received
    assert modseq_again >= modseq + 100 * received
    assert uid_again < 1 << 31, "and there is room for more"


def test_an_older_backup_is_restored_after_a_newer_one(tmp_path: Path) -> None:
    source = SETTINGS["sqlite"](tmp_path)
    with SQLStore.open(source, sealer_in(tmp_path)) as store:
        store.write_blocking(fill)
    older = a_backup(source, tmp_path / "older", NOW)
    newer = a_backup(source, tmp_path / "newer", NOW + timedelta(days=7))
    failed = NOW + timedelta(days=8)
    first = restored(newer, tmp_path / "first", "sqlite", failed)
    second = restored(older, tmp_path / "second", "sqlite", failed + timedelta(hours=1))
    # What came in during the week between the backups, and in the hour after the first restore.
    week = 500_000 * 7
    assert next_uid_and_modseq(second, tmp_path)[0] >= next_uid_and_modseq(first, tmp_path)[0] + week


def test_a_clock_that_is_behind_the_backup_skips_as_ever(tmp_path: Path) -> None:
    source = SETTINGS["sqlite"](tmp_path)
    with SQLStore.open(source, sealer_in(tmp_path)) as store:
        store.write_blocking(fill)
    before = next_uid_and_modseq(source, tmp_path)[0]
    backup = a_backup(source, tmp_path / "backup", NOW)
    behind = restored(backup, tmp_path / "behind", "sqlite", NOW - MONTH)
    assert next_uid_and_modseq(behind, tmp_path)[0] >= before + (1 << 24)
