"""A real practice of schema 3, as the release of that time left it: ``tests/data/practice_of_schema_3.tar.xz``.

Two senders who are trusted, one who is not, a rotated body key, a linked patient, flags, signed heads. It was made with
the daemon of that release and is never made anew: what is tested is that this very database can be brought up to date.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Boolean, Connection, Table, insert, inspect, text
from sqlalchemy import MetaData as Reflected

from gateway.settings import Settings, load
from gateway.store.engines import append_only_preamble, append_only_triggers
from gateway.store.opening import open_database
from gateway.store.revisions import revisions, run
from gateway.store.sql_store import SQLStore
from gateway.store.tables import APPEND_ONLY, metadata
from tests.support.body_keys import sealer_in
from tests.support.postgresql import Cluster

ARCHIVE = Path(__file__).resolve().parents[1] / "data" / "practice_of_schema_3.tar.xz"


@dataclass
class OldPractice:
    """The practice in a folder: settings, keys, what its mailbox held."""

    folder: Path
    uids: dict[int, str]
    """SHA-256 of each message that IMAP showed, by UID."""
    raw_sha256: list[str]
    """Of what arrived."""

    @property
    def config(self) -> Path:
        return self.folder / "gateway.toml"

    @property
    def head(self) -> Path:
        """A signed head that was kept elsewhere."""
        return self.folder / "head.json"

    def settings(self) -> Settings:
        return load(self.config)

    def found(self) -> tuple[dict[int, str], list[str]]:
        """What is in the mailbox and what arrived, as a release that is up to date reads it from the bodies."""
        with SQLStore.open(self.settings().store, sealer_in(self.folder)) as store:
            return store.read_blocking(_contents)


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _contents(rows: Any) -> tuple[dict[int, str], list[str]]:
    placed = rows.messages._connection.execute(text("SELECT uid, message_id FROM mailbox_message")).all()
    shown = {row.uid: _sha256(rows.messages.content(row.message_id).content) for row in placed}
    ids = rows.messages._connection.execute(text("SELECT id FROM raw_message")).scalars().all()
    return shown, sorted(_sha256(rows.messages.raw(one).body) for one in ids)


def old_practice(folder: Path) -> OldPractice:
    """Unpack it: on SQLite."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    (folder / "certs" / "audit").mkdir(parents=True)
    (folder / "heads.pub.pem").rename(folder / "certs" / "audit" / "heads.pub.pem")
    (folder / "bodies.keys").chmod(0o600)
    (folder / "gateway.toml").write_text(
        '[store]\nurl = "sqlite:///gateway.db"\nkey_file = "bodies.keys"\n'
        '[audit]\nsigning_key_file = "certs/audit/heads.key.pem"\n'
    )
    expected = json.loads((folder / "expected.json").read_text())
    return OldPractice(folder, {int(uid): sha for uid, sha in expected["uids"].items()}, expected["raw_sha256"])


def old_practice_on_postgresql(folder: Path, cluster: Cluster) -> OldPractice:
    """The same, in a schema of PostgreSQL that the revision of that time made."""
    made = old_practice(folder)
    settings = cluster.settings()
    made.config.write_text(
        f'[store]\nurl = "{settings.url}"\nschema = "{settings.schema}"\nkey_file = "bodies.keys"\n'
        'frozen_after_seconds = 2\n[audit]\nsigning_key_file = "certs/audit/heads.key.pem"\n'
    )
    database = open_database(settings, daemon=False)
    try:
        with database.writer.connect() as connection, connection.begin():
            database.begin_schema(connection)
            for revision in revisions(until=3):
                run(connection, revision)
            with contextlib.closing(sqlite3.connect(folder / "gateway.db")) as source:
                _copy(source, connection)
    finally:
        database.close()
    (folder / "gateway.db").unlink()
    return made


def _copy(source: sqlite3.Connection, connection: Connection) -> None:
    source.row_factory = sqlite3.Row
    names = inspect(connection).get_table_names()
    for name in [table.name for table in metadata.sorted_tables if table.name in names]:
        table = Table(name, Reflected(), autoload_with=connection)
        flags = {column.name for column in table.c if isinstance(column.type, Boolean)}
        rows = [dict(row) for row in source.execute(f'SELECT * FROM "{name}"')]  # noqa: S608 - our names
        for row in rows:
            row.update({flag: bool(row[flag]) for flag in flags})
        if rows:
            connection.execute(insert(table), rows)
        if "id" in table.c and table.c.id.autoincrement is True:
            counter = f"pg_get_serial_sequence('{name}', 'id')"
            newest = f"coalesce((SELECT max(id) FROM {name}), 0)"  # noqa: S608 - our names
            connection.exec_driver_sql(f"SELECT setval({counter}, {newest} + 1, false)")
    for statement in append_only_preamble("postgresql"):
        connection.exec_driver_sql(statement)
    for guarded in [table.name for table in APPEND_ONLY if table.name in names]:
        for statements in append_only_triggers(guarded, "postgresql").values():
            for statement in statements:
                connection.exec_driver_sql(statement)
