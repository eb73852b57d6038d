"""Makes a backup of a store while mail comes in (F34).

Guarantees

* One snapshot: every message that was acknowledged before the backup began is in it, with all that belongs to it, and
  of whatever came later either all or nothing.
* It is read again from the disk before it gets its name, and each table must have the digest of the rows that were
  read from the store. A row of the store that cannot be read fails the backup, and is named: a backup that carries
  damage on unseen is worth less than none.
* The store's writer is not held up. Memory does not grow with the store.

Crash story: everything is made in a folder ``.NAME.unfinished`` beside its place. It is locked while it is being made,
synced, and renamed as the last step. Killed at any point, it leaves that folder, which no command takes for a backup;
the next backup to the same place removes it.

Failure modes: InputError when something is in the place, or the place is in another backup; StoreFullError when the
disk is full; StoreError when the store or what was written cannot be read. Nothing is left behind then.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, Table
from sqlalchemy.exc import DBAPIError, StatementError

from gateway.core.errors import InputError, StoreError, StoreFullError
from gateway.observability.folders import sync_folder
from gateway.settings import StoreSettings
from gateway.store.backup.file import closed_file, file_digest, new_file, sync_file
from gateway.store.backup.manifest import (
    MANIFEST,
    SETTINGS_FOLDER,
    STORE_FILE,
    FileEntry,
    Manifest,
    TableEntry,
    manifest_digest,
    manifest_text,
)
from gateway.store.backup.progress import RowCount, Step, Tell, silent
from gateway.store.backup.snapshot import (
    chain_ends,
    keys_needed,
    objects_named,
    snapshot,
    store_bytes,
    tree_of,
)
from gateway.store.database_errors import as_gateway_error, is_full
from gateway.store.id_counters import counters
from gateway.store.ids import new_id
from gateway.store.table_rows import Row, RowsDigest, all_tables, append_rows, count_rows, digested, read_rows
from gateway.store.tables import SCHEMA_VERSION

LOCK = ".lock"
"""A file of a backup that is being made. One that is there afterwards means nothing."""
_SPARE_BYTES = 64 << 20
"""Left on the disk beside what a backup is expected to need: it may be the disk of the store."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What goes into a backup besides the store."""

    program: str
    """Version of the program."""
    settings: Mapping[str, bytes]
    """Files by their path below ``settings/``."""
    left_out: Sequence[str]
    """Files that the operator must keep himself."""


@dataclass(frozen=True, slots=True)
class Made:
    """A backup that was made."""

    path: Path
    manifest: Manifest
    manifest_sha256: str


def make_backup(
    settings: StoreSettings,
    target: Path,
    contents: Contents,
    *,
    clock: Callable[[], datetime],
    tell: Tell = silent,
) -> Made:
    """Make the backup ``target``, a folder that is not there yet.

    Raises:
        InputError: it is there, or its folder is not or is a backup itself, or there is no space for it.
        StoreError: see the module.
        ConfigurationError, StoreUnavailableError: the store cannot be opened.
    """
    if target.exists() or target.is_symlink():
        raise InputError(f"{target} is there already; name a backup that is not, or an existing folder to put it in")
    _require_outside_of_backups(target)
    try:
        with _staging(target) as staging:
            manifest = _fill(settings, staging, contents, clock, tell)
            text = manifest_text(manifest)
            _write(staging / MANIFEST, text.encode("ascii"))
            sync_folder(staging)
            staging.rename(target)
            # Only now: without its lock the folder would be swept by another backup to the same place.
            (target / LOCK).unlink()
            sync_folder(target)
            sync_folder(target.parent)
    except OSError as exc:
        if exc.errno == errno.ENOSPC:
            raise StoreFullError(f"no space is left in {target.parent}: no backup was made") from exc
        raise InputError(f"the backup cannot be written to {target}: {exc.strerror}") from exc
    except DBAPIError as exc:
        raise _not_written(exc, target.parent) from exc
    return Made(target, manifest, manifest_digest(text))


def _require_outside_of_backups(target: Path) -> None:
    """A file more in a backup, and that one does not hold any more, and cannot be restored.

    Raises:
        InputError: the target lies in a backup.
    """
    for folder in target.resolve().parents:
        if (folder / MANIFEST).is_file() and (folder / STORE_FILE).is_file():
            raise InputError(
                f"{folder} is a backup itself, which would not hold any more with another one in it; "
                f"name a folder beside it"
            )


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """The folder in which the backup is made; gone when the context ends, unless it was renamed."""
    if not target.parent.is_dir():
        # A medium that is not mounted: a folder of that name would be on this very disk.
        raise InputError(f"there is no folder {target.parent}; mount it or make it first")
    staging = target.with_name(f".{target.name}.unfinished")
    handle = _lock(staging)
    ours = staging.stat().st_ino
    try:
        yield staging
    finally:
        with suppress(OSError):
            if staging.stat().st_ino == ours:
                shutil.rmtree(staging, ignore_errors=True)
        os.close(handle)


def _lock(staging: Path) -> int:
    """Make the folder anew and lock it. Raises InputError: another process makes this very backup."""
    try:
        staging.mkdir(mode=0o700)
    except FileExistsError:
        _sweep(staging)
        # A folder of our own in any case: whoever made the other one could change what lies in it.
        staging.mkdir(mode=0o700)
    return _locked(staging)


def _locked(staging: Path, folder: int | None = None) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    handle = os.open(staging / LOCK if folder is None else LOCK, flags, 0o600, dir_fd=folder)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise InputError(f"another backup to {staging} is being made now") from None
    return handle


def _sweep(staging: Path) -> None:
    """Remove what a backup that was killed has left; never what a link in its place leads to.

    Raises:
        InputError: another process makes this very backup, or what is there is no folder.
    """
    try:
        folder = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as exc:
        raise InputError(f"{staging} is in the way and is no folder that a backup has left: remove it") from exc
    try:
        handle = _locked(staging, folder)
        try:
            with os.scandir(folder) as entries:
                for entry in list(entries):
                    if entry.is_dir(follow_symlinks=False):
                        shutil.rmtree(entry.name, dir_fd=folder)
                    else:
                        os.unlink(entry.name, dir_fd=folder)
            staging.rmdir()
        finally:
            os.close(handle)
    finally:
        os.close(folder)


def _fill(
    settings: StoreSettings, staging: Path, contents: Contents, clock: Callable[[], datetime], tell: Tell
) -> Manifest:
    store = staging / STORE_FILE
    with snapshot(settings) as source:
        _require_space(staging, store_bytes(source))
        at = clock()
        size, root, head = tree_of(source)
        objects, objects_bytes = objects_named(source)
        manifest = Manifest(
            id=new_id(at),
            at=at,
            program=contents.program,
            schema=SCHEMA_VERSION,
            database=source.dialect.name,
            node=settings.node,
            tables=(),
            counters=counters(source),
            chains=chain_ends(source),
            tree_size=size,
            tree_root=root,
            head=head,
            keys=keys_needed(source),
            objects=objects,
            objects_bytes=objects_bytes,
            left_out=tuple(contents.left_out),
        )
        try:
            with new_file(store) as copy:
                manifest = replace(manifest, tables=_copy(source, copy, tell))
        except DBAPIError as exc:
            raise _not_written(exc, staging.parent) from exc
    _read_again(store, manifest, tell)
    files = [*_settings_files(staging, contents), _entry(staging, store, tell)]
    return replace(manifest, files=tuple(sorted(files, key=lambda file: file.path)))


def _not_written(error: DBAPIError, folder: Path) -> StoreError:
    if is_full(error):
        return StoreFullError(f"no space is left in {folder}: no backup was made")
    name = getattr(error.orig, "sqlite_errorname", None) or type(error.orig).__name__
    return StoreError(f"the backup cannot be written to {folder} ({name}): no backup was made")


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + _SPARE_BYTES:
        raise InputError(
            f"the backup needs about {needed >> 20} MiB and {_SPARE_BYTES >> 20} to spare, and {folder.parent} has "
            f"{free >> 20} MiB free; make space, or name a folder on another disk"
        )


def _copy(source: Connection, copy: Connection, tell: Tell) -> tuple[TableEntry, ...]:
    tables = all_tables()
    count = RowCount("copying", sum(count_rows(source, table) for table in tables), tell)
    entries = []
    for table in tables:
        digest = RowsDigest()
        append_rows(copy, table, count.passing(digested(_stored(source, table), digest)))
        entries.append(TableEntry(table.name, digest.rows, digest.bytes, digest.hexdigest()))
        count.tell()
    return tuple(entries)


def _stored(source: Connection, table: Table) -> Iterator[Row]:
    """The rows of the store. What goes wrong here is the store's, and not of the disk that the backup goes to."""
    try:
        yield from read_rows(source, table)
    except StatementError as exc:
        raise as_gateway_error(exc) from exc


def _read_again(store: Path, manifest: Manifest, tell: Tell) -> None:
    """See that what is on the disk is what was read from the store. Raises StoreError."""
    count = RowCount("reading again", manifest.rows, tell)
    with closed_file(store) as connection:
        for table, entry in zip(all_tables(), manifest.tables, strict=True):
            digest = RowsDigest()
            for row in count.passing(read_rows(connection, table)):
                digest.add(row)
            if digest.hexdigest() != entry.sha256:
                raise StoreError(
                    f"the table {table.name} was not written as it was read: the disk or the memory of this machine "
                    f"fails; no backup was made"
                )
    count.tell()


def _settings_files(staging: Path, contents: Contents) -> Iterator[FileEntry]:
    root = staging / SETTINGS_FOLDER
    folders: set[Path] = set()
    for name, data in contents.settings.items():
        path = root / name
        for folder in reversed([one for one in path.parents if one.is_relative_to(root)]):
            # One by one: a folder that is made on the way to another would be open to everybody.
            folder.mkdir(mode=0o700, exist_ok=True)
            folders.add(folder)
        _write(path, data)
        yield _entry(staging, path, silent)
    for folder in folders:
        sync_folder(folder)


def _write(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    sync_file(path)


def _entry(staging: Path, path: Path, tell: Tell) -> FileEntry:
    total = path.stat().st_size

    def told(done: int) -> None:
        tell(Step("reading the file", done, total, "bytes"))

    size, digest = file_digest(path, told)
    return FileEntry(path.relative_to(staging).as_posix(), size, digest)
