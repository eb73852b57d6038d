"""What schema 6 makes of links and imports: what waited goes to the queues, and all that was kept stays (F35)."""

from __future__ import annotations

import itertools
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from gateway.charts.service import Charts
from gateway.core.lifecycle import JobKind
from gateway.ports import DeliveryState
from gateway.store.audit_verify import Witnesses, verify_store
from gateway.store.guards import unsound_guards
from gateway.store.sql_store import SQLStore
from gateway.store.upgrading import upgrade_store
from tests.support.body_keys import sealer_in
from tests.support.old_practice import old_practice
from tests.support.postgresql import ENGINES
from tests.support.store_samples import NOW, SteadyClock
from tests.unit.store.test_upgrading import OLD
from tests.unit.store.test_upgrading_from_schema_5 import asked, at_schema_5

FAR = "2199-01-01T00:00:00.000000Z"


def test_imports_that_waited_or_were_set_aside_are_tried_and_receipts_stay(tmp_path: Path) -> None:
    practice = old_practice(tmp_path)
    settings = practice.settings().store
    with closing(sqlite3.connect(settings.url.removeprefix("sqlite:///"))) as database, database:
        receipts = database.execute("SELECT link_id, importer, receipt, at FROM link_receipt ORDER BY 1, 2").fetchall()
        [acked, *_] = [row[0] for row in receipts]
        database.executemany(
            "INSERT INTO job (kind, subject, state, run_at, attempt, lost, last_error) VALUES (?, ?, ?, ?, 9, ?, ?)",
            [
                ("import", acked, "poison", FAR, 20, "OSError at folder.py:1"),
                ("import", "waits", "ready", FAR, 0, "OSError at folder.py:1"),
                ("unwrap", "other", "poison", FAR, 20, "ValueError at x.py:1"),
            ],
        )
    upgrade_store(settings, "cli:jane")
    with closing(sqlite3.connect(settings.url.removeprefix("sqlite:///"))) as database:
        after = database.execute("SELECT link_id, importer, receipt, at FROM link_receipt ORDER BY 1, 2").fetchall()
    assert after == receipts
    with SQLStore.open(settings, sealer_in(practice.settings().base_dir)) as store:
        claimed = store.write_blocking(lambda tx: tx.jobs.claim(60, 100, kinds=[JobKind.IMPORT]))
        assert sorted((job.subject, job.attempt, job.lost) for job in claimed) == sorted(
            [(acked, 1, 0), ("waits", 1, 0)]
        )
        troubled = store.read_blocking(lambda tx: tx.jobs.troubled())
        assert [(job.subject, job.set_aside) for job in troubled] == [("other", True)]
        # Who has given its receipt is not asked again; a target that is new gets the link that waited.
        importer = receipts[0][1]
        assert store.write_blocking(lambda tx: tx.deliveries.order(acked, [importer, "new"])) == ["new"]
        done = store.read_blocking(lambda tx: tx.deliveries.listed(state=DeliveryState.DONE, limit=100))
        assert (acked, importer, receipts[0][2]) in {(one.link_id, one.target, one.receipt) for one in done}


_LINKS = "SELECT id, message_id, patient_id, mode, actor, rule, linked_at FROM link ORDER BY id"


@pytest.mark.parametrize("engine", ENGINES)
async def test_links_of_before_stay_and_can_be_undone_and_made_again(engine: str, tmp_path: Path) -> None:
    practice = OLD[engine](tmp_path)
    at_schema_5(practice)
    settings = practice.settings().store
    before = asked(settings, _LINKS)
    assert before
    upgrade_store(settings, "cli:jane")
    assert asked(settings, _LINKS) == before
    assert {tuple(row) for row in asked(settings, "SELECT part, seq FROM link")} == {(None, None)}
    link_id, message, patient = before[0][:3]
    with SQLStore.open(settings, sealer_in(practice.settings().base_dir)) as store:
        with store._database.reader.connect() as connection:
            assert unsound_guards(connection) == []
        [old] = [one for one in store.read_blocking(lambda tx: tx.links.for_message(message)) if one.id == link_id]
        assert (old.patient_id, old.mode, old.actor, old.rule, old.part) == (*before[0][2:6], "")
        charts = Charts(store, SteadyClock(NOW), (f"NEW{n}" for n in itertools.count()).__next__)
        for _ in range(2):
            assert not (await charts.link(message, patient, actor="olga")).created
            [undone] = await charts.unlink_message(message, patient, actor="olga", reason="other Ann")
            assert undone.changed
            assert (await charts.link(message, patient, actor="olga")).created
        with pytest.raises(DBAPIError), store._database.writer.connect() as connection, connection.begin():
            connection.execute(text("UPDATE link SET patient_id = 'x'"))
    made = [row for row in asked(settings, "SELECT id, seq FROM link ORDER BY id") if row[0].startswith("NEW")]
    assert made == [("NEW1", 1), ("NEW3", 2)]
    report = verify_store(settings, Witnesses(check_signature=lambda _head: None))
    assert [str(finding) for finding in report.findings] == []
