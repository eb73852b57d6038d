"""One message whose stored content was damaged ended ``link bulk``, every time, before the messages after it.

And nothing at all was shown of such a message by ``message show`` and ``link list``, which look into the content only
for documents that came before.
"""

from __future__ import annotations

import itertools
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.charts.bulk import BulkWish, LeftMessage
from gateway.charts.service import Charts
from gateway.core.errors import StoreUnavailableError
from gateway.core.lifecycle import State
from gateway.store.sql_store import SQLStore
from tests.contract.test_links_contract import put, says
from tests.support.store_samples import ALICE, NOW, SENDER, SteadyClock, patient
from tests.support.stores import STORES
from tests.unit.cli.clinic_harness import Clinic
from tests.unit.cli.conftest import clinic, practice_template

__all__ = ["clinic", "practice_template"]


def _lose(store: SQLStore, message_id: str) -> None:
    """Remove the stored content past the gateway."""
    with store._database.writer.connect() as connection, connection.begin():
        table = " ON body_part" if connection.dialect.name == "postgresql" else ""
        connection.exec_driver_sql(f"DROP TRIGGER body_part_no_delete{table}")
        where = f"message_id = '{message_id}' AND kind = 'content'"
        assert connection.exec_driver_sql(f"DELETE FROM body_part WHERE {where}").rowcount  # noqa: S608 - our own names


@pytest.mark.parametrize("engine", sorted(STORES))
async def test_it_is_left_to_a_person_and_the_others_are_linked(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with STORES[engine](tmp_path) as store:
        await store.write(lambda tx: tx.patients.upsert([patient(1)], "test", NOW))
        await store.write(lambda tx: tx.mailboxes.create("desk", NOW, [ALICE]))
        charts = Charts(store, SteadyClock(NOW), (f"L{n}" for n in itertools.count()).__next__, says)
        ids = [put(store, b"Subject: s\r\n\r\n%d" % number) for number in range(3)]
        _lose(store, ids[1])
        report = await charts.link_sender(BulkWish(SENDER, "P1", "rosa"))
        assert report.linked == (ids[0], ids[2])
        assert report.left == (LeftMessage(ids[1], "what is stored of it is damaged and cannot be read"),)

        def away(*_: object, **__: object) -> None:
            raise StoreUnavailableError("the bucket is away")

        # That is no message's fault: it ends, and is run again later.
        monkeypatch.setattr("gateway.store.messages.Messages.content", away)
        with pytest.raises(StoreUnavailableError):
            await charts.link_sender(BulkWish(SENDER, "P1", "rosa"))


@pytest.mark.parametrize("words", [("link", "list"), ("message", "show")])
def test_what_is_known_of_it_is_shown(
    words: tuple[str, ...], clinic: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    message = clinic.add_message(State.FILED)
    [path] = clinic.directory.rglob("*.db")
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DROP TRIGGER body_part_no_delete")
        lost = database.execute("DELETE FROM body_part WHERE message_id = ? AND kind = 'content'", (message,))
        assert lost.rowcount
    capsys.readouterr()
    assert clinic.run(*words, message) == 0
    told = capsys.readouterr()
    assert told.out
    assert "is not known: " in told.err
    assert "damaged" in told.err
