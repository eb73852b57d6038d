"""Opening the database: rights, pragmas, schema, the daemon's lock, and what is refused."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from gateway.core.errors import ConfigurationError
from gateway.core.lifecycle import JobKind, State
from gateway.settings import StoreSettings
from gateway.store import sqlite_engine
from gateway.store.files import file_system_of, refuse_network_file_system
from gateway.store.ids import ALPHABET, new_id
from gateway.store.sql_store import SQLStore
from tests.support.body_keys import sealer_in
from tests.support.store_samples import NOW, inbound, open_store, settings_for

PROJECT = Path(__file__).resolve().parents[3]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_new_folders_and_files_are_for_this_user_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with SQLStore.open(
            StoreSettings(url=f"sqlite:///{tmp_path}/data/deep/g.db"), sealer_in(tmp_path), daemon=True
        ) as store:
            store.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.FILE, "m"))
            assert {mode(path) for path in store.path.parent.iterdir()} == {0o600}
            assert len(list(store.path.parent.iterdir())) == 4
    finally:
        os.umask(before)
    assert mode(tmp_path / "data") == mode(tmp_path / "data" / "deep") == 0o700


@pytest.mark.parametrize("engine", ["_writer_engine", "_reader_engine"])
def test_every_connection_has_the_pragmas(tmp_path: Path, engine: str) -> None:
    with open_store(tmp_path) as store, getattr(store, engine).connect() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "recursive_triggers", "trusted_schema")
        }
    assert found == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "recursive_triggers": 1,
        "trusted_schema": 0,
    }


def test_a_pragma_that_does_not_hold_keeps_the_store_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(tmp_path).close()
    monkeypatch.setattr(sqlite_engine, "PRAGMAS", (("synchronous", "NORMAL", 2),))
    with pytest.raises(ConfigurationError, match="committed mail would not be safe"):
        open_store(tmp_path)


def test_opening_again_finds_what_was_there(tmp_path: Path) -> None:
    def keep(store: SQLStore) -> str:
        message_id = new_id(NOW)
        store.write_blocking(lambda tx: tx.messages.add_raw(message_id, NOW, inbound()))
        store.write_blocking(lambda tx: tx.messages.set_state(message_id, State.RECEIVED, NOW))
        return message_id

    with open_store(tmp_path) as store:
        message_id = keep(store)
    with open_store(tmp_path) as store:
        assert store.read_blocking(lambda tx: tx.messages.state(message_id)) is State.RECEIVED


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    with sqlite3.connect(tmp_path / "gateway.db") as other:
        other.execute("INSERT INTO schema_version VALUES (99, '7.0', NULL)")
    other.close()
    told = r"schema 99, made by direct-gateway 7\.0, .* start direct-gateway 7\.0 or newer"
    with pytest.raises(ConfigurationError, match=told):
        open_store(tmp_path)


def test_an_older_schema_is_refused_in_clear_words_and_left_alone(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    with sqlite3.connect(tmp_path / "gateway.db") as other:
        for (name,) in other.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            other.execute(f"DROP TRIGGER {name}")
        other.execute("UPDATE schema_version SET version = 1")
    other.close()
    with pytest.raises(ConfigurationError, match=r"schema 1, .* cannot convert it"):
        open_store(tmp_path)


def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "gateway.db") as other:
        other.execute("CREATE TABLE theirs (x)")
    other.close()
    with pytest.raises(ConfigurationError, match="another program"):
        open_store(tmp_path)
    with sqlite3.connect(tmp_path / "gateway.db") as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]
    other.close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gateway.db").write_bytes(b"something else entirely" * 1000)
    with pytest.raises(ConfigurationError, match=r"store\.url"):
        open_store(tmp_path)


@pytest.mark.parametrize("url", ["sqlite:///", "sqlite:///:memory:", "mysql://x/y"])
def test_only_a_file_is_a_store(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"store\.url"):
        SQLStore.open(StoreSettings(url=url), sealer_in(tmp_path))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot make"):
        SQLStore.open(StoreSettings(url=f"sqlite:///{tmp_path}/file/g.db"), sealer_in(tmp_path))


def test_a_path_with_odd_characters_is_taken_as_it_is(tmp_path: Path) -> None:
    with SQLStore.open(StoreSettings(url=f"sqlite:///{tmp_path}/a b%20?x=1#y.db"), sealer_in(tmp_path)) as store:
        assert store.path.is_file()
    assert (tmp_path / "a b%20?x=1#y.db").is_file()


# --- the daemon's lock (F43) ---


def test_a_second_daemon_is_refused_and_a_tool_is_not(tmp_path: Path) -> None:
    with open_store(tmp_path, daemon=True) as daemon:
        with pytest.raises(ConfigurationError, match=f"process {os.getpid()}"):
            open_store(tmp_path, daemon=True)
        with open_store(tmp_path) as tool:
            tool.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.LINK, "m"))
        assert len(daemon.write_blocking(lambda tx: tx.jobs.claim(60, 10))) == 1
    open_store(tmp_path, daemon=True).close()


def test_a_daemon_of_another_process_is_seen_and_its_end_frees_the_lock(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom tests.support.store_samples import open_store\n"
        "store = open_store(Path(sys.argv[1]), daemon=True)\nprint('ready', flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        with pytest.raises(ConfigurationError, match=f"process {child.pid}"):
            open_store(tmp_path, daemon=True)
        child.kill()
    open_store(tmp_path, daemon=True).close()


def test_a_restarted_daemon_hands_out_at_once_what_the_killed_one_held(tmp_path: Path) -> None:
    """A kill between 250 and the inbox must not cost the rest of a five-minute lease."""
    with open_store(tmp_path, daemon=True) as store:
        store.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.UNWRAP, "m"))
        assert store.write_blocking(lambda tx: tx.jobs.claim(300, 10))
    with open_store(tmp_path) as tool:  # A tool beside a running daemon must not do that.
        assert tool.write_blocking(lambda tx: tx.jobs.claim(300, 10)) == []
    with open_store(tmp_path, daemon=True) as store:
        [job] = store.write_blocking(lambda tx: tx.jobs.claim(300, 10))
        assert (job.attempt, job.lost) == (2, 1)


# --- network file systems ---

MOUNTS = """\
22 1 0:20 / / rw,relatime - ext4 /dev/vda rw
30 22 0:30 / /srv rw,relatime - nfs4 server:/srv rw
31 30 0:31 / /srv/local\\040disk rw,relatime - ext4 /dev/vdb rw
32 22 0:32 / /mnt/x rw,relatime shared:1 - ext4 /dev/vdc rw
33 22 0:33 / /mnt/x rw,relatime shared:1 - cifs //server/x rw
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/var/lib/gateway", "ext4"),
        ("/srv/data", "nfs4"),
        ("/srv", "nfs4"),
        ("/srvother", "ext4"),
        ("/srv/local disk/data", "ext4"),
        ("/mnt/x", "cifs"),
    ],
)
def test_the_file_system_of_a_folder_is_found(tmp_path: Path, folder: str, kind: str) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert file_system_of(Path(folder), mounts) == kind
    if kind == "ext4":
        refuse_network_file_system(Path(folder), mounts)
    else:
        with pytest.raises(ConfigurationError, match=f"network file system \\({kind}\\)"):
            refuse_network_file_system(Path(folder), mounts)


def test_where_mounts_are_not_listed_nothing_is_refused(tmp_path: Path) -> None:
    refuse_network_file_system(tmp_path, tmp_path / "missing")


# --- ids ---


def test_ids_are_ordered_by_time_and_unguessable() -> None:
    ids = [new_id(NOW + timedelta(milliseconds=n)) for n in range(1000)]
    assert ids == sorted(ids)
    assert {len(i) for i in ids} == {26}
    assert set("".join(ids)) <= set(ALPHABET)
    assert len({i[10:] for i in ids}) == 1000


def test_an_id_needs_an_aware_time() -> None:
    with pytest.raises(ValueError, match="aware"):
        new_id(datetime(2026, 1, 1))


def test_a_naive_time_is_refused_by_the_store(tmp_path: Path) -> None:
    with open_store(tmp_path) as store, pytest.raises(ValueError, match="aware"):
        store.write_blocking(lambda tx: tx.accounts.add("login", "hash", datetime(2026, 1, 1)))


def test_settings_decide_the_size_of_a_group(tmp_path: Path) -> None:
    with SQLStore.open(settings_for(tmp_path), sealer_in(tmp_path)) as store:
        assert store._committer._max_units == 32
        assert store._committer._wait_seconds == 0.001
