"""``copy-store`` between every two kinds of store: every table, every value, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert, text

from gateway.core.errors import ConfigurationError
from gateway.core.lifecycle import JobKind, State
from gateway.ports import UnitOfWork
from gateway.store.audit_rows_check import password_digest
from gateway.store.audit_verify import verify_store
from gateway.store.copying_rows import copied_tables
from gateway.store.id_counters import counters
from gateway.store.ids import new_id
from gateway.store.tables import audit_event, job, metadata
from tests.support.copies import (
    contents,
    copy,
    filled,
    kill_after,
    new_place,
    opened,
    raw,
    reading,
    require_same,
    unfinished,
)
from tests.support.odd_rows import SETS, WITNESSES, fill_with_odd_rows
from tests.support.store_samples import NOW, inbound

ALSO = [("postgresql", "sqlite"), ("sqlite", "sqlite"), ("postgresql", "postgresql")]
WAYS = [("sqlite", "postgresql"), *(pytest.param(*way, marks=pytest.mark.slow) for way in ALSO)]


# --- what is copied ---


@pytest.mark.parametrize(("one", "other"), [WAYS[0], ALSO[0], *WAYS[2:]])
def test_every_row_of_every_table_goes_over_as_it_is(one: str, other: str, tmp_path: Path) -> None:
    source, target = filled(one, tmp_path), new_place(other, tmp_path)
    before = contents(source)
    assert {name for name, rows in before.items() if not rows} == set(), "a table that nothing was put into"
    assert all(len(rows) >= SETS for name, rows in before.items() if name not in {"schema_version", *_OF_THE_TREE})
    report = copy(source, target)
    assert contents(source) == before
    after = contents(target)
    assert {table.name for table in report.tables} == set(metadata.tables) - {"schema_version"}
    for table in copied_tables():
        rows = [row for row in after[table.name] if table is not audit_event or row[4] != "store.copied"]
        assert rows == before[table.name], table.name
    told = {t.name: (t.rows, t.added) for t in report.tables}
    assert told == {name: (len(rows), len(rows)) for name, rows in before.items() if name != "schema_version"}
    [last] = [row for row in after["audit_event"] if row not in before["audit_event"]]
    assert (last[4], last[3]) == ("store.copied", "cli:test")
    assert verify_store(target, WITNESSES).findings == []


_OF_THE_TREE = {"audit_tree_span", "audit_tree_node", "audit_tree_head"}


@pytest.mark.parametrize(("one", "other"), WAYS)
def test_ids_go_on_after_the_last_one_that_was_given_out(one: str, other: str, tmp_path: Path) -> None:
    source, target = new_place(one, tmp_path), new_place(other, tmp_path)
    with opened(source, tmp_path) as store:
        fill_with_odd_rows(store)
        for _ in range(3):
            store.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.FILE, "gone"))
            raw(source, "DELETE FROM job WHERE subject = 'gone'")
    copy(source, target)
    with reading(source) as connection:
        wanted = counters(connection)
    assert wanted["job"] == 70_003 + 3 or one == "postgresql"
    with reading(target) as connection:
        assert {name: number for name, number in counters(connection).items() if number < wanted[name]} == {}
    with opened(target, tmp_path) as store:
        account = store.write_blocking(lambda tx: tx.accounts.add("next", "hash", NOW))
        mailbox = store.write_blocking(lambda tx: tx.mailboxes.create("next", NOW, []))
        store.write_blocking(lambda tx: tx.jobs.enqueue(JobKind.FILE, "next"))
    with reading(target) as connection:
        number = connection.execute(text("SELECT id FROM job WHERE subject = 'next'")).scalar_one()
    assert (account, int(getattr(mailbox, "id", mailbox))) == (wanted["account"] + 1, wanted["mailbox"] + 1)
    assert number == wanted["job"] + 1


def test_bodies_stay_sealed_and_who_has_the_keys_reads_therequire_same(tmp_path: Path) -> None:
    source, target = new_place("sqlite", tmp_path), new_place("postgresql", tmp_path)
    message_id, body = new_id(NOW), bytes(range(256)) * 20_000

    def work(tx: UnitOfWork) -> None:
        tx.messages.add_raw(message_id, NOW, inbound(body))
        tx.messages.set_state(message_id, State.RECEIVED, NOW)
        tx.jobs.enqueue(JobKind.UNWRAP, message_id)

    with opened(source, tmp_path) as store:
        store.write_blocking(work)
    copy(source, target)
    with opened(target, tmp_path) as store:
        assert store.read_blocking(lambda tx: tx.messages.raw(message_id)).body == body


def test_an_empty_store_is_copied(tmp_path: Path) -> None:
    source, target = new_place("sqlite", tmp_path), new_place("postgresql", tmp_path)
    opened(source, tmp_path).close()
    assert copy(source, target).rows == 0
    opened(target, tmp_path).close()


# --- resuming ---


@pytest.mark.parametrize(("one", "other"), WAYS)
def test_a_copy_that_was_cut_off_goes_on_and_is_opened_by_nobody_before(one: str, other: str, tmp_path: Path) -> None:
    source, target = filled(one, tmp_path), new_place(other, tmp_path)
    unfinished(source, target)
    there = sum(len(rows) for rows in contents(target).values())
    for daemon in (True, False):
        with pytest.raises(ConfigurationError, match="unfinished copy"):
            opened(target, tmp_path, daemon=daemon)
    with pytest.raises(ConfigurationError, match="run direct-gateway copy-store again"):
        verify_store(target, WITNESSES)
    report = copy(source, target)
    assert report.resumed
    # The mark, and the row of the schema.
    assert sum(table.added for table in report.tables) == report.rows - there + 2
    require_same(source, target)
    assert copy(source, target).state == "already complete"


@pytest.mark.parametrize(
    "batches", [7, *(pytest.param(batches, marks=pytest.mark.slow) for batches in (0, 1, 60, 500))]
)
def test_wherever_it_was_cut_off(batches: int, tmp_path: Path) -> None:
    source, target = filled("sqlite", tmp_path), new_place("sqlite", tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, batches)
        try:
            copy(source, target)
        except KeyboardInterrupt:
            assert batches < 500
    copy(source, target)
    require_same(source, target)


@pytest.mark.parametrize("other", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_a_source_that_was_worked_on_between_two_runs_is_copied_as_it_is_then(other: str, tmp_path: Path) -> None:
    """Rows in the middle of what was copied, changed and removed ones, a counter that went on."""
    source, target = filled("sqlite", tmp_path), new_place(other, tmp_path)
    unfinished(source, target, until=copied_tables()[-1].name)

    def changed(tx: Any) -> None:
        connection = tx.audit._connection
        tx.accounts.set_password_hash(70_001, "another")
        login = connection.execute(text("SELECT login FROM account WHERE id = 70001")).scalar_one()
        detail = {"account": 70_001, "hash_sha256": password_digest("another")}
        tx.audit.add(NOW, "cli:admin", "account.password_changed", login, detail)
        connection.execute(delete(job).where(job.c.id == 70_001))
        tx.jobs.enqueue(JobKind.FILE, "in between")
        tx.mailboxes.create("0 before the others", NOW, [])
        connection.execute(text("UPDATE mailbox_flag SET flags = 'changed $DirectVerified', modseq = 7 WHERE uid = 1"))

    with opened(source, tmp_path) as store:
        store.write_blocking(changed)
    report = copy(source, target)
    assert report.resumed
    require_same(source, target)


def test_a_source_that_grew_and_was_cut_off_again(tmp_path: Path) -> None:
    """What is there is no beginning of the source any more, also when nothing came since the last run."""
    source, target = filled("sqlite", tmp_path), new_place("sqlite", tmp_path)
    unfinished(source, target, until=copied_tables()[-1].name)
    table = metadata.tables["patient_version"]
    assert any(row for row in contents(target)[table.name]), "it must be copied by then"

    def work(tx: Any) -> None:
        # Its key is before all others of its table.
        tx.audit._connection.execute(insert(table).values(dict(_a_patient(tx), patient_id=" first")))

    with opened(source, tmp_path) as store:
        store.write_blocking(work)
    unfinished(source, target, 0)
    copy(source, target)
    require_same(source, target)


def _a_patient(tx: Any) -> dict[str, Any]:
    table = metadata.tables["patient_version"]
    return dict(tx.audit._connection.execute(table.select().limit(1)).mappings().one())
