"""Backups for tests: of any kind of store, and as somebody leaves them who covers his tracks."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from gateway.observability.clock import SystemClock
from gateway.settings import StoreSettings
from gateway.store.audit_verify import Witnesses
from gateway.store.backup.checking import BackupReport, Checks, check_backup, read_backup
from gateway.store.backup.file import closed_file
from gateway.store.backup.making import Contents, Made, make_backup
from gateway.store.backup.manifest import MANIFEST, STORE_FILE, manifest_digest, manifest_text
from gateway.store.backup.progress import Tell, silent
from gateway.store.backup.restoring import Restore, restore
from gateway.store.table_rows import RowsDigest, all_tables, read_rows
from tests.support.body_keys import sealer_in

SETTINGS_FILES = {"gateway.toml": b"[store]\n", "certs/anchors/a.pem": b"-----BEGIN CERTIFICATE-----\n"}
PLAIN = Witnesses(lambda _head: None)


def back_up(settings: StoreSettings, target: Path, tell: Tell = silent) -> Made:
    contents = Contents("1.2.3", SETTINGS_FILES, ["certs/store/bodies.keys"])
    return make_backup(settings, target, contents, clock=SystemClock().now, tell=tell)


def check(path: Path, keys: Path | None = None, *, share: float = 1.0) -> BackupReport:
    """``keys``: the folder of the store, which has the ring."""
    return check_backup(path, Checks(PLAIN, None if keys is None else sealer_in(keys), share))


def put_back(settings: StoreSettings, path: Path) -> None:
    manifest, text = read_backup(path)
    restore(settings, Restore(path, manifest, manifest_digest(text), "cli:test", SystemClock().now))


def cover_tracks(path: Path, change: Callable[[sqlite3.Connection], object]) -> None:
    """Change the database of a backup, with its guards out of the way, and make every digest of the manifest anew."""
    file = path / STORE_FILE
    connection = sqlite3.connect(file, isolation_level=None)
    guards = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in guards:
        connection.execute(f"DROP TRIGGER {name}")
    change(connection)
    for _, sql in guards:
        connection.execute(sql)
    connection.close()
    manifest, _ = read_backup(path)
    entries = []
    with closed_file(file) as copy:
        for table, entry in zip(all_tables(), manifest.tables, strict=True):
            digest = RowsDigest()
            for row in read_rows(copy, table):
                digest.add(row)
            entries.append(replace(entry, rows=digest.rows, bytes=digest.bytes, sha256=digest.hexdigest()))
    data = file.read_bytes()
    files = tuple(
        replace(one, bytes=len(data), sha256=hashlib.sha256(data).hexdigest()) if one.path == STORE_FILE else one
        for one in manifest.files
    )
    (path / MANIFEST).write_text(manifest_text(replace(manifest, tables=tuple(entries), files=files)))
