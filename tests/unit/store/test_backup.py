"""Backups of stores on both databases: whole, of one moment, checked to the byte, restored into either."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, insert, select, update

from gateway.core.audit import AuditQuery
from gateway.core.errors import ConfigurationError, InputError, StoreError
from gateway.ports import UnitOfWork
from gateway.settings import StoreSettings
from gateway.store.audit_verify import verify_store
from gateway.store.backup import checking, making
from gateway.store.backup.after_restore import MODSEQS_SKIPPED, UIDS_SKIPPED
from gateway.store.backup.manifest import MANIFEST, STORE_FILE
from gateway.store.backup.progress import Step
from gateway.store.jobs_due import LEASED, READY
from gateway.store.made_anew import NOTE
from gateway.store.opening import init_store
from gateway.store.sql_store import SQLStore
from gateway.store.table_rows import Row, RowsDigest, all_tables, append_rows, key_of, read_rows
from gateway.store.tables import body_object, job, mailbox_counter, metadata
from tests.support.backups import PLAIN, back_up, check, cover_tracks, put_back
from tests.support.body_keys import sealer_in
from tests.support.filled_store import fill
from tests.support.postgresql import ENGINES
from tests.support.store_samples import NOW, inbound, keep_raw
from tests.support.stores import SETTINGS

CHANGED = {"mailbox_counter", "mailbox_flag", "job", "audit_event", "fetch_status"}
"""What a restore does not leave as it was."""


def filled(tx: UnitOfWork) -> None:
    """A row in every table, and none that refers to a bucket that is not there."""
    fill(tx)
    held: Any = tx.audit
    connection: Connection = held._connection
    message_id = connection.scalar(select(body_object.c.message_id))
    values = {"kind": "unwrap", "subject": message_id, "run_at": NOW, "attempt": 1, "lost": 0, "last_error": ""}
    leased = {"state": LEASED, "node": "gone", "lease_until": NOW + timedelta(days=1)}
    connection.execute(insert(job).values({**values, **leased}))
    for number in range(2, 10):
        connection.execute(insert(job).values({**values, "subject": f"s{number}", "state": READY}))
    connection.execute(job.delete().where(job.c.id > 1))
    tx.fetching.claim("upstream", "gone", 3600)


OF_THE_SAMPLE = ("the signed head number 1 does not hold", "account 1 is in no event")
"""What any check says of the sample itself: it is written without the rooms that sign and grant."""


def found(path: Path, keys: Path | None = None) -> list[str]:
    """What a check of the backup finds beyond what is wrong with the sample itself."""
    return [one for one in check(path, keys).findings if not one.startswith(OF_THE_SAMPLE)]


@pytest.fixture
def source(tmp_path: Path) -> StoreSettings:
    """A filled SQLite store; its keys are in ``tmp_path``."""
    return made(tmp_path, "sqlite")


def made(folder: Path, engine: str) -> StoreSettings:
    settings = SETTINGS[engine](folder)
    with SQLStore.open(settings, sealer_in(folder)) as store:
        store.write_blocking(filled)
    return settings


def empty(folder: Path, engine: str) -> StoreSettings:
    """A place for a restore, as an operator makes it."""
    folder.mkdir(exist_ok=True)
    settings = SETTINGS[engine](folder)
    if engine == "postgresql":
        init_store(settings, None)
    return settings


def rows_of(settings: StoreSettings, keys: Path) -> dict[str, list[Row]]:
    with SQLStore.open(settings, sealer_in(keys)) as store:
        held: Any = store
        with held._database.reader.begin() as connection:
            return {table.name: list(read_rows(connection, table)) for table in all_tables()}


# --- the way there and back ---


@pytest.mark.parametrize("into", ENGINES)
@pytest.mark.parametrize("out_of", ENGINES)
def test_every_row_goes_into_either_database(tmp_path: Path, out_of: str, into: str) -> None:
    settings = made(tmp_path, out_of)
    before = rows_of(settings, tmp_path)
    done = back_up(settings, tmp_path / "copy")
    report = check(done.path, tmp_path)
    # The sample's raw message is said to lie in a bucket too; the rest of it opens.
    assert found(done.path, tmp_path) == []
    assert (report.rows, report.messages_opened) == (sum(map(len, before.values())), 1)
    target = empty(tmp_path / "new", into)
    put_back(target, done.path)
    after = rows_of(target, tmp_path)
    own = {"schema_version"} if into == "postgresql" else set()
    for name in set(before) - CHANGED - own:
        assert after[name] == before[name], name
    assert after["audit_event"][:-1] == before["audit_event"]
    assert verify_store(target, PLAIN).findings == verify_store(settings, PLAIN).findings


@pytest.mark.parametrize("engine", ENGINES)
def test_what_clients_remember_of_the_lost_time_does_no_harm(tmp_path: Path, engine: str) -> None:
    """EP-23: a UID given out after the backup never comes again for another message."""
    settings = made(tmp_path, engine)
    before = rows_of(settings, tmp_path)
    target = empty(tmp_path / "new", engine)
    put_back(target, back_up(settings, tmp_path / "copy").path)
    after = rows_of(target, tmp_path)
    [(_, uid, modseq)], [(_, uid_before, modseq_before)] = after["mailbox_counter"], before["mailbox_counter"]
    assert uid >= uid_before + UIDS_SKIPPED  # type: ignore[operator]
    assert modseq >= modseq_before + MODSEQS_SKIPPED  # type: ignore[operator]
    assert {row[3] for row in after["mailbox_flag"]} == {modseq}
    assert after["mailbox"] == before["mailbox"]
    with SQLStore.open(target, sealer_in(tmp_path)) as store:
        held: Any = store
        with held._database.writer.begin() as connection:
            one = connection.execute(select(job)).one()
            assert (one.state, one.node, one.lease_until, one.attempt) == (READY, None, None, 1)
            values = {"kind": "file", "subject": "z", "run_at": NOW, "attempt": 0, "lost": 0, "last_error": ""}
            new = connection.execute(insert(job).values({**values, "state": READY})).inserted_primary_key[0]
            assert new > 9, "an id that was given out comes again"
        assert store.write_blocking(lambda tx: tx.fetching.claim("upstream", "me", 60))
        [event] = store.read_blocking(lambda tx: tx.audit.find(AuditQuery(action="store.restored")))
    assert (event.action, event.actor) == ("store.restored", "cli:test")


def test_uids_near_their_end_leave_room(source: StoreSettings, tmp_path: Path) -> None:
    last = 0xFFFF_FFFF
    with SQLStore.open(source, sealer_in(tmp_path)) as store:
        held: Any = store
        with held._database.writer.begin() as connection:
            connection.execute(update(mailbox_counter).values(uid_next=last - 100))
    target = empty(tmp_path / "new", "sqlite")
    put_back(target, back_up(source, tmp_path / "copy").path)
    [(_, uid, _)] = rows_of(target, tmp_path)["mailbox_counter"]
    assert uid == last - 50


# --- one moment ---


def _busy(settings: StoreSettings, keys: Path) -> tuple[SQLStore, Callable[[Step], None]]:
    """A store whose mail comes in while it is copied: a message at each step."""
    store = SQLStore.open(settings, sealer_in(keys))
    number = iter(range(1_000_000))

    def tell(step: Step) -> None:
        if step.what == "copying":
            one = next(number)
            store.write_blocking(lambda tx: _one_more(tx, one))

    return store, tell


def _one_more(tx: UnitOfWork, number: int) -> None:
    message_id = f"{number:026d}"
    tx.messages.add_raw(message_id, NOW, inbound(b"more %d" % number))
    tx.audit.add(NOW, "user", "test", message_id)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_backup_is_of_one_moment(tmp_path: Path, engine: str) -> None:
    settings = made(tmp_path, engine)
    store, tell = _busy(settings, tmp_path)
    with store:
        path = back_up(settings, tmp_path / "copy", tell).path
    assert len(rows_of(settings, tmp_path)["raw_message"]) > 10, "nothing came in meanwhile"
    assert found(path, tmp_path) == []
    report = check(path)
    assert report.manifest is not None
    assert report.manifest.messages == 1


def test_without_the_snapshot_the_check_finds_it(
    tmp_path: Path, source: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A seeded bug: each statement reads what is there by then."""

    @contextmanager
    def torn(settings: StoreSettings) -> Iterator[Connection]:
        engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(settings.url.removeprefix("sqlite:///")))
        with engine.connect() as connection:
            raw: Any = connection.connection.dbapi_connection
            raw.isolation_level = None
            yield connection

    monkeypatch.setattr(making, "snapshot", torn)
    store, tell = _busy(source, tmp_path)
    with store:
        path = back_up(source, tmp_path / "copy", tell).path
    assert found(path)


# --- damage ---


def test_every_flipped_byte_is_found(source: StoreSettings, tmp_path: Path) -> None:
    path = back_up(source, tmp_path / "copy").path
    missed = []
    for name, points in ((STORE_FILE, 40), (MANIFEST, 25), ("settings/gateway.toml", 2)):
        file = path / name
        whole = file.read_bytes()
        for position in range(0, len(whole), max(1, len(whole) // points)):
            damaged = bytearray(whole)
            damaged[position] ^= 0x10
            file.write_bytes(damaged)
            if not found(path):
                missed.append((name, position))
        file.write_bytes(whole)
    assert missed == []
    assert found(path) == []


def test_files_that_are_gone_cut_off_or_put_in(source: StoreSettings, tmp_path: Path) -> None:
    path = back_up(source, tmp_path / "copy").path
    (path / "settings" / "more.toml").write_text("x")
    assert "more.toml is none of this backup" in found(path)[0]
    (path / "settings" / "more.toml").unlink()
    (path / "settings" / "gateway.toml").unlink()
    assert found(path) == ["the file settings/gateway.toml is missing"]
    with (path / STORE_FILE).open("r+b") as file:
        file.truncate(20_000)
    assert any("20000 bytes" in finding for finding in found(path))
    (path / STORE_FILE).unlink()
    assert f"the file {STORE_FILE} is missing" in found(path)
    (path / MANIFEST).unlink()
    with pytest.raises(InputError, match="is no backup"):
        check(path)


FORGERIES = {
    "a row removed": ("DELETE FROM message_state", "message_state"),
    "a row altered": ("UPDATE raw_message SET peer = 'elsewhere'", "raw_message"),
    "a row put in": (
        "INSERT INTO mailbox_route SELECT 'eve@clinic.example', mailbox_id FROM mailbox_route LIMIT 1",
        "mailbox_route",
    ),
    "the end cut off": ("DELETE FROM audit_event WHERE seq > 200", "event main/201: it is missing"),
    "a body exchanged": (
        "UPDATE body_part SET sealed = CAST(x'00' || sealed AS BLOB) WHERE kind = 'content'",
        "body_part",
    ),
    "a key taken away": ("DELETE FROM wrapped_key", "its wrapped key is gone"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_the_log_answers_where_every_digest_was_made_anew(source: StoreSettings, tmp_path: Path, name: str) -> None:
    statement, told = FORGERIES[name]
    path = back_up(source, tmp_path / "copy").path
    cover_tracks(path, lambda connection: connection.execute(statement))
    findings = found(path)
    assert any(told in finding for finding in findings), findings


def test_a_table_that_changes_is_held_against_the_manifest(source: StoreSettings, tmp_path: Path) -> None:
    path = back_up(source, tmp_path / "copy").path
    connection = sqlite3.connect(path / STORE_FILE, isolation_level=None)
    connection.execute("UPDATE mailbox_flag SET flags = '\\Seen'")
    connection.close()
    assert any("the table mailbox_flag is not what it was" in finding for finding in found(path))


def test_a_wrong_key_for_a_message_is_found_where_keys_are_at_hand(tmp_path: Path) -> None:
    """Both tables are mutable, and every digest was made anew: only opening the bodies shows it."""
    settings = SETTINGS["sqlite"](tmp_path)
    with SQLStore.open(settings, sealer_in(tmp_path)) as store:
        for number in range(2):
            store.write_blocking(lambda tx, number=number: _one_more(tx, number))  # type: ignore[misc]
    path = back_up(settings, tmp_path / "copy").path
    cover_tracks(path, lambda c: c.execute("UPDATE wrapped_key SET wrapped = (SELECT max(wrapped) FROM wrapped_key)"))
    assert not any("does not open" in finding for finding in found(path))
    assert any("is damaged: its raw does not open" in finding for finding in found(path, tmp_path))


def test_a_damaged_store_gives_no_backup_and_is_named(source: StoreSettings, tmp_path: Path) -> None:
    file = Path(source.url.removeprefix("sqlite:///"))
    connection = sqlite3.connect(file, isolation_level=None)
    [page] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'message_index'").fetchone()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with file.open("r+b") as raw:
        raw.seek((page - 1) * 4096)
        raw.write(b"\xff" * 4096)
    with pytest.raises(StoreError, match="message_index is damaged"):
        back_up(source, tmp_path / "copy")
    assert not list(tmp_path.glob("*copy*"))


# --- places ---


def test_nothing_is_overwritten(source: StoreSettings, tmp_path: Path) -> None:
    path = back_up(source, tmp_path / "copy").path
    with pytest.raises(InputError, match="is there already"):
        back_up(source, path)
    with pytest.raises(InputError, match="there is no folder"):
        back_up(source, tmp_path / "not-mounted" / "copy")
    with pytest.raises(ConfigurationError, match="is there; a backup is restored into an empty place only"):
        put_back(source, path)


def test_a_wal_of_the_lost_database_is_not_played_into_the_restored_one(source: StoreSettings, tmp_path: Path) -> None:
    path = back_up(source, tmp_path / "copy").path
    target = empty(tmp_path / "new", "sqlite")
    left = tmp_path / "new" / "gateway.db-wal"
    left.write_bytes(b"what was not checkpointed")
    with pytest.raises(ConfigurationError, match=r"gateway\.db-wal is there"):
        put_back(target, path)
    assert not (tmp_path / "new" / "gateway.db").exists()


def test_a_postgresql_store_in_use_is_refused(tmp_path: Path) -> None:
    settings = made(tmp_path, "postgresql")
    path = back_up(settings, tmp_path / "copy").path
    before = rows_of(settings, tmp_path)
    with pytest.raises(ConfigurationError, match="is in use"):
        put_back(settings, path)
    assert rows_of(settings, tmp_path) == before
    with pytest.raises(ConfigurationError, match="store init"):
        put_back(SETTINGS["postgresql"](tmp_path), path)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_running_gateway_is_refused(source: StoreSettings, tmp_path: Path, engine: str) -> None:
    path = back_up(source, tmp_path / "copy").path
    target = empty(tmp_path / "new", engine)
    with (
        SQLStore.open(target, sealer_in(tmp_path), daemon=True),
        pytest.raises(ConfigurationError, match="a gateway runs on"),
    ):
        put_back(target, path)


def test_a_backup_that_changes_after_its_check_is_not_restored(source: StoreSettings, tmp_path: Path) -> None:
    path = back_up(source, tmp_path / "copy").path
    connection = sqlite3.connect(path / STORE_FILE, isolation_level=None)
    connection.execute("UPDATE mailbox_flag SET flags = '\\Seen'")
    connection.close()
    for engine in ENGINES:
        target = empty(tmp_path / engine, engine)
        with pytest.raises(StoreError, match="mailbox_flag of the backup is damaged"):
            put_back(target, path)
        if engine == "sqlite":
            assert not list((tmp_path / engine).glob("gateway.db*.restoring")), "an unfinished file was left"
            assert not (tmp_path / engine / "gateway.db").exists()
        else:
            assert not rows_of(target, tmp_path)["raw_message"]


def test_the_note_of_a_lost_database_goes_when_it_is_back(source: StoreSettings, tmp_path: Path) -> None:
    path = back_up(source, tmp_path / "copy").path
    target = empty(tmp_path / "new", "sqlite")
    (tmp_path / "new" / NOTE).write_text("it was gone")
    put_back(target, path)
    assert not (tmp_path / "new" / NOTE).exists()


def test_another_schema_is_for_another_release(
    source: StoreSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = back_up(source, tmp_path / "copy").path
    monkeypatch.setattr(checking, "SCHEMA_VERSION", 2)
    with pytest.raises(ConfigurationError, match=r"use the newer release that made it \(1\.2\.3\)"):
        check(path)


def test_what_a_killed_backup_left_is_swept(source: StoreSettings, tmp_path: Path) -> None:
    left = tmp_path / ".copy.unfinished"
    left.mkdir()
    (left / STORE_FILE).write_bytes(b"half")
    (left / "settings").mkdir()
    path = back_up(source, tmp_path / "copy").path
    assert not left.exists()
    assert sorted(one.name for one in path.iterdir()) == [MANIFEST, "settings", STORE_FILE]
    assert found(path) == []


def test_a_backup_is_read_from_a_medium_that_cannot_be_written(source: StoreSettings, tmp_path: Path) -> None:
    path = back_up(source, tmp_path / "copy").path
    before = {one: (one.stat().st_mtime_ns, one.stat().st_size) for one in path.rglob("*")}
    assert found(path, tmp_path) == []
    put_back(empty(tmp_path / "new", "sqlite"), path)
    assert {one: (one.stat().st_mtime_ns, one.stat().st_size) for one in path.rglob("*")} == before


async def test_one_message_of_all_is_opened_where_it_can_be(tmp_path: Path) -> None:
    settings = SETTINGS["sqlite"](tmp_path)
    with SQLStore.open(settings, sealer_in(tmp_path)) as store:
        for number in range(5):
            await keep_raw(store, b"message %d" % number)
    path = back_up(settings, tmp_path / "copy").path
    assert check(path, tmp_path, share=0.01).messages_opened == 5
    assert check(path, tmp_path, share=0).messages_opened == 0
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    report = check(path, stranger)
    assert report.messages_opened == 0
    assert len(report.missing_keys) == 1


# --- rows ---


def test_digests_tell_types_apart() -> None:
    def digest(*row: Any) -> str:
        made = RowsDigest()
        made.add(row)
        return made.hexdigest()

    assert len({digest(1), digest("1"), digest(b"1"), digest(None), digest("null"), digest(1, None)}) == 6


def test_rows_after_a_key_and_of_a_kind_that_is_none(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/x.db")
    table = metadata.tables["mailbox_route"]
    with engine.begin() as connection:
        table.create(connection)
        rows: list[Row] = [("a@x", 1), ("a@x", 2), ("b@x", 1)]
        append_rows(connection, table, rows)
        assert list(read_rows(connection, table, after=key_of(table, rows[0]), limit=1)) == [rows[1]]
        assert list(read_rows(connection, table, after=rows[2])) == []
        connection.exec_driver_sql("UPDATE mailbox_route SET mailbox_id = 1.5 WHERE address = 'b@x'")
        with pytest.raises(StoreError, match="mailbox_route holds a value of a kind"):
            list(read_rows(connection, table))
    engine.dispose()


def test_no_space_is_told_before_anything_is_written(
    source: StoreSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1 << 20))
    with pytest.raises(InputError, match="1 MiB free"):
        back_up(source, tmp_path / "copy")
    assert not list(tmp_path.glob("*copy*"))
