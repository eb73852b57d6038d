"""``audit verify`` holds the reports of the quarantine folder against what is refused."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.core.lifecycle import State
from gateway.ports import UnitOfWork
from gateway.store.audit_verify import verify_store
from gateway.store.ids import new_id
from tests.support.backups import PLAIN
from tests.support.store_samples import NOW, inbound, open_store, rejected, settings_for


def refused(tx: UnitOfWork) -> str:
    message_id = new_id(NOW)
    tx.messages.add_raw(message_id, NOW, inbound(b"raw " + message_id.encode()))
    tx.messages.set_state(message_id, State.RECEIVED, NOW)
    tx.messages.add_verdict(message_id, NOW, rejected())
    tx.messages.set_state(message_id, State.REFUSED, NOW)
    return message_id


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("INSERT INTO quarantine_exit VALUES (1, 99)", "is in the quarantine and has no report in its folder"),
        (
            "INSERT INTO quarantine_entry VALUES (9, '{other}', 1, '2026-03-01T12:00:00.000000Z', 99)",
            "has a report in the quarantine folder and is not in the quarantine",
        ),
    ],
)
def test_a_report_that_was_put_in_or_taken_out_past_the_gateway_is_told(
    tmp_path: Path, statement: str, told: str
) -> None:
    with open_store(tmp_path) as store:
        store.write_blocking(refused)
        store.write_blocking(lambda tx: tx.quarantine_folder.make(NOW))
        other = store.write_blocking(refused)
        store.write_blocking(lambda tx: tx.messages.set_state(other, State.RECEIVED, NOW))

    def findings() -> list[str]:
        whats = [one.what for one in verify_store(settings_for(tmp_path), PLAIN).findings]
        return [what for what in whats if "quarantine" in what]

    assert findings() == []
    with closing(sqlite3.connect(tmp_path / "gateway.db")) as database:
        database.execute(statement.format(other=other))
        database.commit()
    [found] = findings()
    assert told in found
