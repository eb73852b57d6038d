"""Checks a backup by itself: reads everything again, and names what is not as it was.

What is found, and by what:

* a byte of any file that changed, a file that is missing, too short, or was put in: the digests of the manifest;
* a row that was altered, removed, exchanged or put in, also by somebody who made the file's digest anew: the digest of
  its table, and by its name the audit log, which answers for every row of the append-only tables;
* the same by somebody who made all of these anew: the signed head of the audit log, or a head that was kept elsewhere;
* a message that cannot be read: its body is opened with its key, where the keys are at hand, and compared with its
  digest; a body in a bucket is asked for there.

Nothing is written. Failure modes: InputError when it is no backup at all; ConfigurationError when another release must
look at it; KeyUnavailableError while the token with the keys is away.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, select
from sqlalchemy.exc import DBAPIError

from gateway.core.errors import ConfigurationError, GatewayError, InputError, KeyUnavailableError, StoreError
from gateway.ports import BodySealer
from gateway.store.audit_verify import MAX_FINDINGS, Witnesses, verify_snapshot
from gateway.store.backup.file import closed_file, file_digest
from gateway.store.backup.making import LOCK
from gateway.store.backup.manifest import MANIFEST, MAX_MANIFEST_BYTES, STORE_FILE, Manifest, read_manifest
from gateway.store.backup.progress import RowCount, Step, Tell, silent
from gateway.store.backup.snapshot import chain_ends, tree_of
from gateway.store.body_objects import ObjectParts, Objects
from gateway.store.body_parts import Kind
from gateway.store.guards import made_up_tables, strangers
from gateway.store.message_keys import KeyMemory
from gateway.store.sealed_bodies import SealedBodies
from gateway.store.table_rows import RowsDigest, all_tables, read_rows
from gateway.store.tables import SCHEMA_VERSION, body_object, message_content, message_index, raw_message

LEAST_BODIES = 100
"""So many messages are opened at least, where a part of them is asked for."""
_PAGE = 200


@dataclass(frozen=True, slots=True)
class Checks:
    """What a backup is held against besides itself."""

    witnesses: Witnesses
    """The keys that sign heads, and heads from elsewhere."""
    sealer: BodySealer | None = None
    """Opens bodies; None: none is opened."""
    share: float = 0.01
    """The part of all messages whose bodies are opened."""
    objects: Objects | None = None
    """The bucket; None: bodies that lie there are not looked at."""


@dataclass(slots=True)
class BackupReport:
    """What was looked at, and what was found."""

    manifest: Manifest | None = None
    rows: int = 0
    events: int = 0
    heads: int = 0
    messages_opened: int = 0
    missing_keys: list[str] = field(default_factory=list)
    """Keys that messages rest on and that are not at hand."""
    findings: list[str] = field(default_factory=list)
    more_findings: int = 0

    def found(self, what: str) -> None:
        """Note something that does not hold."""
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(what)
        else:
            self.more_findings += 1


def read_backup(path: Path) -> tuple[Manifest, str]:
    """The manifest of a backup, and its text.

    Raises:
        InputError: there is no backup, or its manifest was altered.
    """
    try:
        if (path / MANIFEST).exists() and not _is_plain(path / MANIFEST):
            raise InputError(f"{path} is no backup: its {MANIFEST} is no file")
        with (path / MANIFEST).open("rb") as file:
            data = file.read(MAX_MANIFEST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        inside = sorted(found.parent.name for found in path.glob(f"[!.]*/{MANIFEST}"))
        where = f"; the newest of those in it is {inside[-1]}" if inside else ""
        raise InputError(f"{path} is no backup: it has no {MANIFEST}{where}") from None
    except OSError as exc:
        raise InputError(f"cannot read {path / MANIFEST}: {exc.strerror}") from exc
    return read_manifest(data), data.decode("ascii")


def require_same_schema(manifest: Manifest) -> None:
    """Raises ConfigurationError: a backup of another schema is for the release that made it."""
    if manifest.schema != SCHEMA_VERSION:
        which = "newer" if manifest.schema > SCHEMA_VERSION else "older"
        raise ConfigurationError(
            f"the backup has schema {manifest.schema}, and this release knows {SCHEMA_VERSION}: use the {which} "
            f"release that made it ({manifest.program}) to check and to restore it"
        )


def check_backup(path: Path, checks: Checks, tell: Tell = silent) -> BackupReport:
    """Check everything. Raises as the module says."""
    report = BackupReport()
    try:
        report.manifest = manifest = read_backup(path)[0]
    except InputError as exc:
        if not (path / MANIFEST).is_file():
            raise
        report.found(str(exc))
        return report
    require_same_schema(manifest)
    _check_files(path, manifest, report, tell)
    if not _is_plain(path / STORE_FILE):
        return report
    try:
        with closed_file(path / STORE_FILE) as connection:
            if _has_strangers(connection, report):
                return report
            _check_tables(connection, manifest, report, tell)
            _check_log(connection, manifest, checks, report, tell)
            _check_bodies(connection, manifest, checks, report, tell)
    except (DBAPIError, sqlite3.Error, ValueError, TypeError):
        # A driver that meets a damaged schema may not even be able to say so in UTF-8.
        report.found(f"{STORE_FILE} is damaged: it cannot be read as a database")
    return report


def _is_plain(path: Path) -> bool:
    """Whether it is a file, and no link or pipe or device in the place of one: those lead away, or have no end."""
    return path.is_file() and not path.is_symlink()


def _has_strangers(connection: Connection, report: BackupReport) -> bool:
    """Whether there is anything but tables and our guards. It is not read: a view can be a table without an end."""
    found = made_up_tables(connection) or strangers(connection)
    for name in found:
        report.found(f"{STORE_FILE} has a {name}, which is none of the gateway's: nothing of it was read")
    return bool(found)


def _check_files(path: Path, manifest: Manifest, report: BackupReport, tell: Tell) -> None:
    before = 0
    for entry in manifest.files:

        def told(done: int, before: int = before) -> None:
            tell(Step("reading the files", before + done, manifest.bytes, "bytes"))

        try:
            if (path / entry.path).exists() and not _is_plain(path / entry.path):
                report.found(f"the file {entry.path} is no file: something else was put in its place")
                continue
            size, digest = file_digest(path / entry.path, told)
        except FileNotFoundError:
            report.found(f"the file {entry.path} is missing")
        except OSError as exc:
            report.found(f"the file {entry.path} cannot be read: {exc.strerror}")
        else:
            if size != entry.bytes:
                report.found(f"the file {entry.path} has {size} bytes, and had {entry.bytes} when it was made")
            elif digest != entry.sha256:
                report.found(f"the file {entry.path} was altered or damaged: it does not have its digest")
        before += entry.bytes
    known = {MANIFEST, LOCK, *(entry.path for entry in manifest.files)}
    for found in sorted(path.rglob("*")):
        name = found.relative_to(path).as_posix()
        if name not in known and (found.is_symlink() or not found.is_dir()):
            report.found(f"the file {name} is none of this backup: it was put there later")


def _check_tables(connection: Connection, manifest: Manifest, report: BackupReport, tell: Tell) -> None:
    entries = {entry.name: entry for entry in manifest.tables}
    count = RowCount("reading", manifest.rows, tell)
    for table in all_tables():
        entry, digest = entries.get(table.name), RowsDigest()
        if entry is None:
            report.found(f"the manifest names no table {table.name}")
            continue
        try:
            for row in count.passing(read_rows(connection, table)):
                digest.add(row)
        except StoreError as exc:
            report.found(str(exc))
        except DBAPIError:
            report.found(f"the table {table.name} cannot be read")
        else:
            if digest.rows != entry.rows:
                report.found(f"the table {table.name} has {digest.rows} rows, and had {entry.rows} when it was made")
            elif digest.hexdigest() != entry.sha256:
                report.found(f"a row of the table {table.name} is not what it was when the backup was made")
    report.rows = count.done
    count.tell()
    for name, _row, parent, _key in connection.exec_driver_sql("PRAGMA foreign_key_check").fetchmany(MAX_FINDINGS):
        report.found(f"a row of the table {name} refers to one of {parent} that is not there")


def _check_log(connection: Connection, manifest: Manifest, checks: Checks, report: BackupReport, tell: Tell) -> None:
    """The audit log with every row that it answers for, and its ends as the manifest has them."""
    own = () if manifest.head is None else (manifest.head,)
    witnesses = Witnesses(checks.witnesses.check_signature, (*checks.witnesses.against, *own))
    try:
        log = verify_snapshot(
            connection, witnesses, lambda done, total: tell(Step("verifying the log", done, total, "events"))
        )
    except (ConfigurationError, DBAPIError) as exc:
        report.found(
            f"the audit log cannot be verified: {exc if isinstance(exc, ConfigurationError) else 'unreadable'}"
        )
        return
    report.events, report.heads = log.events, log.heads
    for finding in log.findings:
        report.found(str(finding))
    report.more_findings += log.more_findings
    try:
        if chain_ends(connection) != manifest.chains:
            report.found("the audit log does not end where the manifest says")
        if tree_of(connection)[:2] != (manifest.tree_size, manifest.tree_root):
            report.found("the tree of the audit log is not the one of the manifest")
    except (DBAPIError, GatewayError, TypeError, ValueError):
        report.found("the end of the audit log cannot be read")


def _check_bodies(connection: Connection, manifest: Manifest, checks: Checks, report: BackupReport, tell: Tell) -> None:
    if checks.sealer is None:
        return
    at_hand = checks.sealer.keys.ids()
    report.missing_keys = [key.id for key in manifest.keys if key.messages and key.id not in at_hand]
    place = ObjectParts(connection, checks.objects, places=False, may_fetch=True)
    bodies = SealedBodies(connection, KeyMemory(checks.sealer), place)
    wanted = _chosen(manifest.messages, checks.share)
    position = 0
    for page in _pages(connection):
        chosen = [one for number, one in enumerate(page, position) if wanted(number)]
        position += len(page)
        kinds = _digests(connection, chosen, with_objects=checks.objects is not None)
        for message_id in chosen:
            _open(bodies, message_id, kinds[message_id], report)
        tell(Step("opening messages", position, manifest.messages, "messages"))


def _chosen(total: int, share: float) -> Callable[[int], bool]:
    """Which of so many messages are opened: others each time, and never fewer than LEAST_BODIES."""
    number = min(total, max(LEAST_BODIES, round(total * share))) if share > 0 else 0
    if number == total:
        return lambda _number: True
    chosen = frozenset(random.sample(range(total), number))
    return lambda one: one in chosen


def _pages(connection: Connection) -> Iterator[list[str]]:
    after = ""
    while True:
        query = select(raw_message.c.id).where(raw_message.c.id > after).order_by(raw_message.c.id).limit(_PAGE)
        page = list(connection.execute(query).scalars())
        yield page
        if len(page) < _PAGE:
            return
        after = page[-1]


def _digests(
    connection: Connection, message_ids: Sequence[str], *, with_objects: bool
) -> Mapping[str, dict[Kind, str | None]]:
    """Which bodies each message must have here, and the digest of each where one is known."""
    kinds: dict[str, dict[Kind, str | None]] = {one: {} for one in message_ids}
    for row in connection.execute(select(raw_message.c.id, raw_message.c.sha256).where(raw_message.c.id.in_(kinds))):
        kinds[row.id][Kind.RAW] = row.sha256
    content = select(message_content.c.message_id, message_content.c.content_sha256)
    for row in connection.execute(content.where(message_content.c.message_id.in_(kinds))):
        kinds[row.message_id][Kind.CONTENT] = row.content_sha256
    for found in connection.execute(
        select(message_index.c.message_id).where(message_index.c.message_id.in_(kinds))
    ).scalars():
        kinds[found][Kind.SEARCH] = None
    if not with_objects:
        placed = select(body_object.c.message_id, body_object.c.kind).where(body_object.c.message_id.in_(kinds))
        for row in connection.execute(placed):
            kinds[row.message_id].pop(Kind(row.kind), None)
    return kinds


def _open(bodies: SealedBodies, message_id: str, kinds: Mapping[Kind, str | None], report: BackupReport) -> None:
    try:
        for kind, digest in kinds.items():
            bodies.read(message_id, kind, digest)
    except KeyUnavailableError as exc:
        if not report.missing_keys:
            report.found(str(exc))
        return
    except (StoreError, DBAPIError, ValueError) as exc:
        report.found(str(exc) if isinstance(exc, StoreError) else f"the message {message_id} cannot be read")
        return
    report.messages_opened += bool(kinds)
