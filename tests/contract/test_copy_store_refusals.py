"""``copy-store``: what it refuses, and what it finds in a copy before it calls it one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from gateway.core.errors import ConfigurationError, GatewayError, StoreError, TamperedError
from gateway.settings import StoreSettings
from gateway.store import copying, copying_rows
from gateway.store.audit_verify import Witnesses
from gateway.store.copying import copy_store
from gateway.store.copying_marker import UNFINISHED
from gateway.store.copying_report import Copying
from gateway.store.copying_rows import DifferenceError
from gateway.store.opening import open_database
from tests.support.copies import (
    contents,
    copy,
    filled,
    new_place,
    opened,
    raw,
    require_same,
    running,
    unfinished,
)
from tests.support.postgresql import shared_cluster
from tests.support.store_samples import NOW

# --- what is refused ---


@pytest.mark.parametrize("other", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_a_target_with_something_else_in_it_is_refused_and_left_alone(other: str, tmp_path: Path) -> None:
    source, target = filled("sqlite", tmp_path), new_place(other, tmp_path)
    with opened(target, tmp_path) as store:
        store.write_blocking(lambda tx: tx.audit.add(NOW, "somebody", "test", ""))
    before = contents(target)
    for dry_run in (True, False):
        with pytest.raises(ConfigurationError, match=r"^--to: .*is in use \(its table audit_event"):
            copy(source, target, dry_run=dry_run)
    assert contents(target) == before


@pytest.mark.parametrize("other", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_an_unfinished_copy_of_another_store_is_refused(other: str, tmp_path: Path) -> None:
    source, target = filled("sqlite", tmp_path), new_place(other, tmp_path)
    with opened(source, tmp_path) as store:
        store.write_blocking(lambda tx: tx.audit.add(NOW, "a", "test", "of this one alone"))
    unfinished(source, target)
    before = contents(target)
    with pytest.raises(ConfigurationError, match="unfinished copy of another store: event main/"):
        copy(filled("sqlite", tmp_path), target)
    assert contents(target) == before


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_store_is_not_copied_into_itself(kind: str, tmp_path: Path) -> None:
    source = filled(kind, tmp_path)
    with pytest.raises(ConfigurationError, match="are the same store"):
        copy(source, source)
    opened(source, tmp_path).close()


@pytest.mark.parametrize(
    ("one", "other"),
    [("sqlite", "postgresql"), pytest.param("postgresql", "sqlite", marks=pytest.mark.slow)],
)
def test_a_gateway_on_either_side_is_refused(one: str, other: str, tmp_path: Path) -> None:
    source, target = filled(one, tmp_path), new_place(other, tmp_path)
    with running(source), pytest.raises(ConfigurationError, match=r"^--from: .*stop "):
        copy(source, target)
    with running(target), pytest.raises(ConfigurationError, match=r"^--to: .*stop "):
        copy(source, target)
    # The mark did not stay.
    if Path(target.url.removeprefix("sqlite:///")).exists() or other == "postgresql":
        opened(target, tmp_path, daemon=True).close()
    assert copy(source, target).state == "complete"


@pytest.mark.parametrize("one", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_nobody_writes_to_the_source_meanwhile(one: str, tmp_path: Path) -> None:
    source, target = filled(one, tmp_path), new_place("sqlite", tmp_path)
    tried: list[Exception] = []

    def try_to_write(_what: str, _table: str, _done: int, _total: int) -> None:
        if not tried:
            database = open_database(source, daemon=False)
            try:
                with database.writer.connect() as connection:
                    driver: Any = connection.connection.dbapi_connection
                    if one == "sqlite":
                        driver.execute("PRAGMA busy_timeout = 100")
                    connection.begin()
                    database.begin_group(connection)
            except Exception as exc:
                tried.append(exc)
            finally:
                database.close()

    copy(source, target, progress=try_to_write)
    assert len(tried) == 1
    assert "locked" in str(tried[0]) or "55P03" in str(tried[0])


def test_a_source_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    source = StoreSettings(url=f"sqlite:///{tmp_path}/nothing/gateway.db")
    with pytest.raises(ConfigurationError, match=r"^--from: there is no database"):
        copy(source, new_place("sqlite", tmp_path))
    assert not (tmp_path / "nothing").exists()


def test_a_source_whose_log_does_not_hold_is_not_copied(tmp_path: Path) -> None:
    source, target = filled("sqlite", tmp_path), new_place("sqlite", tmp_path)
    raw(source, "DROP TRIGGER link_no_update", "UPDATE link SET actor = 'nobody'")
    with opened(source, tmp_path):
        pass  # Puts the guard back.
    with pytest.raises(TamperedError, match=r"log of the source does not hold: .*link"):
        copy(source, target)
    with opened(target, tmp_path):
        pass  # Empty, and no copy.


def test_signatures_of_heads_are_looked_at(tmp_path: Path) -> None:
    def refuse(_head: Any) -> None:
        raise TamperedError("not our key")

    source, target = filled("sqlite", tmp_path), new_place("sqlite", tmp_path)
    with pytest.raises(TamperedError, match="not our key"):
        copy_store(Copying(source, target, Witnesses(refuse), "cli:test"))


# --- the proof ---


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM job WHERE id = 5", "rows of job are missing"),
        ("UPDATE mailbox_counter SET uid_next = 3", "mailbox_counter .* differs"),
        ("INSERT INTO fetch_place VALUES ('zz', 'zz', 1, '2026-01-01T00:00:00.000000Z')", "zz/zz is not in the source"),
        ("INSERT INTO bundle_version VALUES ('zz', 1, '2026-01-01T00:00:00.000000Z', '', x'00')", "zz/1 is not in"),
    ],
)
def test_a_copy_that_differs_is_not_finished(
    statement: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = filled("sqlite", tmp_path), new_place("sqlite", tmp_path)
    real = copying.carry_counters

    def meanwhile(database: Any, wanted: Any) -> None:
        real(database, wanted)
        with database.writer.connect() as connection, connection.begin():
            connection.execute(text(statement))

    monkeypatch.setattr(copying, "carry_counters", meanwhile)
    with pytest.raises(DifferenceError, match=said):
        copy(source, target)
    with pytest.raises(ConfigurationError, match="unfinished"):
        opened(target, tmp_path)


def test_a_table_that_was_left_out_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = filled("sqlite", tmp_path), new_place("sqlite", tmp_path)
    real = copying_rows.add
    monkeypatch.setattr(
        copying, "add", lambda d, table, rows, told: 0 if table.name == "link_receipt" else real(d, table, rows, told)
    )
    with pytest.raises(DifferenceError, match="rows of link_receipt are missing"):
        copy(source, target)


def test_a_counter_that_stayed_behind_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = filled("sqlite", tmp_path), new_place("postgresql", tmp_path)
    monkeypatch.setattr(copying, "carry_counters", lambda *_: None)
    with pytest.raises(DifferenceError, match="counter of"):
        copy(source, target)


def test_a_guard_that_was_taken_off_the_copy_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = filled("sqlite", tmp_path), new_place("sqlite", tmp_path)
    unfinished(source, target)
    raw(target, "DROP TRIGGER link_no_update")
    with pytest.raises(TamperedError, match="guard link_no_update"):
        copy(source, target)


# --- values that the other database cannot keep ---


def test_a_text_with_a_zero_is_named_and_not_shown(tmp_path: Path) -> None:
    source, target = filled("sqlite", tmp_path), new_place("postgresql", tmp_path)
    raw(source, "UPDATE fetch_status SET error = 'secret' || char(0) || 'x' WHERE account = '0'")
    with pytest.raises(StoreError, match=r"cannot keep a value of the source.*table fetch_status") as caught:
        copy(source, target)
    assert "secret" not in str(caught.value)


def test_a_number_that_is_too_large_is_named(tmp_path: Path) -> None:
    source, target = filled("sqlite", tmp_path), new_place("postgresql", tmp_path)
    raw(source, "UPDATE job SET attempt = 2147483648 WHERE id = 5")
    with pytest.raises(GatewayError, match=r"cannot keep a value of the source.*table job"):
        copy(source, target)


# --- PostgreSQL: roles ---


WRITER = "gateway_writer"


@pytest.mark.slow
def test_a_role_without_rights_copies_into_tables_of_another(tmp_path: Path) -> None:
    """Its counters can be drawn from, and not be set."""
    cluster = shared_cluster()
    if not cluster.sql(f"SELECT 1 FROM pg_roles WHERE rolname = '{WRITER}'"):  # noqa: S608 - our own name
        cluster.sql(f"CREATE ROLE {WRITER} LOGIN")
    source, target = filled("sqlite", tmp_path), cluster.settings(url=cluster.url(WRITER))
    with pytest.raises(ConfigurationError, match=r"--to: .*--owner-url"):
        copy(source, target)
    report = copy(source, target, owner_url=cluster.url())
    assert report.state == "complete"
    require_same(source, target)
    owner = cluster.sql(f"SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = '{target.schema}'", "gateway")  # noqa: S608 - our own name
    assert owner == [("gateway_owner",)]
    back = new_place("sqlite", tmp_path)
    assert copy(target, back).state == "complete"
    with opened(target, tmp_path) as store:
        assert store.weaknesses() == []
        assert store.write_blocking(lambda tx: tx.accounts.add("next", "hash", NOW)) == 70_004


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    source = filled("sqlite", tmp_path)
    for kind in ("sqlite", "postgresql"):
        target = new_place(kind, tmp_path)
        report = copy(source, target, dry_run=True)
        assert (report.state, report.resumed) == ("dry run", False)
        assert report.rows == sum(len(r) for n, r in contents(source).items() if n != "schema_version")
        if kind == "sqlite":
            assert not Path(target.url.removeprefix("sqlite:///")).exists()
        unfinished(source, target)
        assert copy(source, target, dry_run=True).resumed
        with pytest.raises(ConfigurationError, match=UNFINISHED):
            opened(target, tmp_path)
