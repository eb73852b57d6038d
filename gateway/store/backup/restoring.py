"""Restores a backup into an empty store, on SQLite or on PostgreSQL, whatever it was made from.

Guarantees

* Nothing is overwritten: the SQLite file must not be there, the tables of PostgreSQL must be empty, no gateway may run.
* What is in the store afterwards is what was backed up: each table is read again and must have the digest of the
  manifest before anything is made visible. Whoever calls this has checked the backup itself.
* The store is there whole or not at all.
* What others may still remember of the time after the backup does no harm (:mod:`gateway.store.backup.after_restore`).

Crash story. SQLite: everything is made in ``NAME.restoring`` beside its place, under the lock that keeps daemons out,
synced, and renamed as the last step; killed before, it leaves that file, which the next restore removes. PostgreSQL:
all of it is one transaction, which is the only writer; killed before its COMMIT it leaves nothing.

Failure modes: ConfigurationError when the place is not empty or in use; StoreFullError; StoreError when what was
written is not what was read.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, StatementError

from gateway.core.errors import ConfigurationError, StoreError
from gateway.observability.folders import sync_folder
from gateway.settings import POSTGRESQL_PREFIXES, StoreSettings
from gateway.store.audit_log import AuditLog
from gateway.store.backup.after_restore import go_on, skipped_uids
from gateway.store.backup.file import closed_file, new_file
from gateway.store.backup.manifest import STORE_FILE, Manifest
from gateway.store.backup.progress import RowCount, Tell, silent
from gateway.store.backup.snapshot import be_patient
from gateway.store.database_errors import as_gateway_error
from gateway.store.files import FileLock, database_path, refuse_network_file_system, running_daemon
from gateway.store.made_anew import NOTE, UNFINISHED_RESTORE
from gateway.store.opening import missing_tables, open_database
from gateway.store.schema_versions import found_schema, refuse_other
from gateway.store.table_rows import RowsDigest, all_tables, append_rows, count_rows, digested, read_rows
from gateway.store.tables import schema_version

RESTORED = "store.restored"
_SPARE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Restore:
    """What is to be restored, and who does it."""

    path: Path
    """The backup."""
    manifest: Manifest
    manifest_sha256: str
    actor: str
    clock: Callable[[], datetime]


def place_of(settings: StoreSettings) -> str:
    """The place that a restore fills, for people."""
    if settings.url.startswith(POSTGRESQL_PREFIXES):
        return f"the schema {settings.schema} of the PostgreSQL database of store.url"
    return str(database_path(settings.url))


def require_place(settings: StoreSettings, manifest: Manifest) -> None:
    """See that the backup can go where the settings say. Writes nothing.

    Raises:
        ConfigurationError: a store is there already, a gateway runs on it, or there is no space; says what to do.
        StoreUnavailableError: the database does not answer now.
    """
    if not settings.url.startswith(POSTGRESQL_PREFIXES):
        path = database_path(settings.url)
        if (pid := running_daemon(path)) is not None:
            raise ConfigurationError(f"store.url: a gateway runs on {path} (process {pid}); stop it first")
        _require_file(path, manifest)
        return
    if missing := missing_tables(settings):
        raise ConfigurationError(f"store.url: {missing}; then restore again")
    database = open_database(settings, daemon=False)
    try:
        if running := database.gateways():
            raise ConfigurationError(
                f"store.url: a gateway runs on this database ({', '.join(running)}); stop it first"
            )
        with database.reader.begin() as connection:
            _require_empty(connection, settings)
    except StatementError as exc:
        raise as_gateway_error(exc) from exc
    finally:
        database.close()


def restore(settings: StoreSettings, what: Restore, tell: Tell = silent) -> None:
    """Restore a backup that was checked. Raises as :func:`require_place`, and as the module says."""
    require_place(settings, what.manifest)
    try:
        if settings.url.startswith(POSTGRESQL_PREFIXES):
            _into_postgresql(settings, what, tell)
        else:
            _into_file(database_path(settings.url), settings, what, tell)
    except StatementError as exc:
        raise as_gateway_error(exc) from exc


# --- SQLite ---


def _require_file(path: Path, manifest: Manifest) -> None:
    _require_nothing_there(path)
    folder = next(one for one in path.absolute().parents if one.is_dir())
    refuse_network_file_system(folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigurationError(f"store.url: {folder} cannot be written to by this user")
    needed = next((file.bytes for file in manifest.files if file.path == STORE_FILE), 0) + _SPARE_BYTES
    unfinished = path.with_name(path.name + UNFINISHED_RESTORE)
    free = shutil.disk_usage(folder).free + (unfinished.stat().st_size if unfinished.is_file() else 0)
    if free < needed:
        raise ConfigurationError(f"store.url: {folder} has {free >> 20} MiB free; {needed >> 20} MiB are needed")


def _require_nothing_there(path: Path) -> None:
    beside = [path.with_name(path.name + ending) for ending in ("-wal", "-shm", "-journal")]
    for found in (path, *beside):
        if found.is_symlink() or (found.exists() and (found != path or not path.is_file() or path.stat().st_size)):
            # A WAL or a journal that is left beside would be played into the restored database.
            raise ConfigurationError(
                f"store.url: {found} is there; a backup is restored into an empty place only. Move it away, and what "
                f"lies beside it ({', '.join(one.name for one in beside)}), but keep it: mail that came after the "
                f"backup may be in it"
            )


def _into_file(path: Path, settings: StoreSettings, what: Restore, tell: Tell) -> None:
    made = path.with_name(path.name + UNFINISHED_RESTORE)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(path):
            # Again, now that no daemon can begin.
            _require_file(path, what.manifest)
            made.unlink(missing_ok=True)
            try:
                with new_file(made) as connection:
                    _fill(connection, settings, what, tell)
                # Once more: a command may have made a store of an empty file.
                _require_nothing_there(path)
                made.rename(path)
            except BaseException:
                made.unlink(missing_ok=True)
                raise
            sync_folder(path.parent)
            sync_folder(path.parent.parent)
            # What stood in the place of a database that was gone is told no more: it is back.
            path.with_name(NOTE).unlink(missing_ok=True)
    except OSError as exc:
        raise StoreError(f"{path} cannot be written: {exc.strerror}; nothing was restored") from exc


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    lock = FileLock(path)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


# --- PostgreSQL ---


def _into_postgresql(settings: StoreSettings, what: Restore, tell: Tell) -> None:
    # No daemon of any node can begin meanwhile, and no command writes.
    database = open_database(settings, daemon=False, upgrading=True)
    try:
        with database.writer.connect() as connection:
            transaction = connection.begin()
            database.begin_group(connection)
            be_patient(connection)
            _require_empty(connection, settings)
            _fill(connection, settings, what, tell)
            database.before_commit(connection)
            transaction.commit()
            database.after_commit(connection)
    finally:
        database.close()


def _require_empty(connection: Connection, settings: StoreSettings) -> None:
    found = found_schema(connection)
    if found is not None:
        # Rows of one schema in tables that call themselves of another are a store that no release can trust.
        refuse_other(found)
    for table in all_tables():
        if table is not schema_version and count_rows(connection, table):
            raise ConfigurationError(
                f"store.url: the schema {settings.schema} is in use (it has rows in {table.name}); a backup is "
                f"restored into an empty one only: name another in store.schema, and run direct-gateway store init"
            )


# --- both ---


def _fill(connection: Connection, settings: StoreSettings, what: Restore, tell: Tell) -> None:
    manifest = what.manifest
    with closed_file(what.path / STORE_FILE) as source:
        _load(source, connection, manifest, tell)
    _read_again(connection, manifest, tell)
    at = what.clock()
    age = at - manifest.at
    go_on(connection, manifest.counters, age)
    detail: dict[str, Any] = {
        "made_at": manifest.at.isoformat(timespec="seconds"),
        "manifest_sha256": what.manifest_sha256,
        "messages": manifest.messages,
        "tree_size": manifest.tree_size,
        "uids_skipped": skipped_uids(age),
    }
    AuditLog(connection, settings.node).add(at, what.actor, RESTORED, manifest.id, detail)


def _load(source: Connection, target: Connection, manifest: Manifest, tell: Tell) -> None:
    """Add the rows, each table checked as it passes: the backup may have changed since it was checked."""
    count = RowCount("restoring", manifest.rows, tell)
    for entry in manifest.tables:
        table, digest = _table(entry.name), RowsDigest()
        rows = count.passing(digested(_saved(source, entry.name), digest))
        if table is schema_version and count_rows(target, table):
            # The owner of the tables has said which schema they have.
            for _ in rows:
                pass
        else:
            append_rows(target, table, rows)
        if digest.hexdigest() != entry.sha256:
            raise StoreError(f"the table {entry.name} of the backup is damaged; run: direct-gateway backup verify")
        count.tell()


def _saved(source: Connection, name: str) -> Iterator[Any]:
    """The rows of the backup. What goes wrong here is the backup's, and not of the place that it goes to."""
    try:
        yield from read_rows(source, _table(name))
    except DBAPIError as exc:
        raise StoreError(f"the table {name} of the backup is damaged; run: direct-gateway backup verify") from exc


def _read_again(connection: Connection, manifest: Manifest, tell: Tell) -> None:
    count = RowCount("reading again", manifest.rows, tell)
    for entry in manifest.tables:
        table, digest = _table(entry.name), RowsDigest()
        for row in count.passing(read_rows(connection, table)):
            digest.add(row)
        if table is not schema_version and digest.hexdigest() != entry.sha256:
            raise StoreError(f"the table {entry.name} was not written as it was read; nothing was restored")
    count.tell()


def _table(name: str) -> Any:
    for table in all_tables():
        if table.name == name:
            return table
    raise StoreError(f"the backup has a table {name[:64]} that this release does not know")
