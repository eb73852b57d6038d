"""What waited for an importer before schema 6 goes to the queues of the targets, and receipts stay (F35)."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from gateway.core.lifecycle import JobKind
from gateway.ports import DeliveryState
from gateway.store.sql_store import SQLStore
from gateway.store.upgrading import upgrade_store
from tests.support.body_keys import sealer_in
from tests.support.old_practice import old_practice

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
