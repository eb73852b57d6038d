"""A link was undone while a target was away: the target got the message all the same when it came back.

Only what was never attempted was let go. An import that had failed was tried on by the schedule, so a document that
everybody knew to be somebody else's came onto the chart after the undo, for a moment or, with a target that cannot take
back, for good. One that had been set aside, or was refused after the undo, stayed a dead letter that no command could
send or remove: health warned of it for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.core.errors import ImporterGoneError, ImportFailedError, ImportRefusedError, NotFoundError
from gateway.ports import DeliveryState, ImportRequest, UnitOfWork
from gateway.readiness import import_doubts
from gateway.store.sql_store import SQLStore
from tests.unit.pipeline.link_harness import START, audit, store
from tests.unit.pipeline.test_import_deliveries import SCHEDULE, Recorder, deliveries, later, listed, ordered

__all__ = ["store"]


def undo(tx: UnitOfWork) -> list[str]:
    return tx.deliveries.order_retraction("auto-1", "olga", "wrong", START)


def away(reason: str) -> ImportFailedError:
    return ImportFailedError("not now", reason=reason)


@pytest.mark.parametrize("reason", ["unreachable", "unknown_host", "http_503", "exit_75", "ack_ae"])
async def test_a_target_that_did_not_take_it_gets_the_retraction_alone(store: SQLStore, reason: str) -> None:
    importer = Recorder("recorder", away(reason))
    await ordered(store, "recorder")
    await deliveries(store, importer).drain()
    assert store.write_blocking(undo) == ["recorder"]
    later(SCHEDULE[0])
    await deliveries(store, importer).drain()
    assert (len(importer.calls), len(importer.retractions)) == (1, 1)


@pytest.mark.parametrize("reason", ["timeout", "connection_lost", "http_504", "signal_9", "disk"])
async def test_one_that_may_still_be_at_it_is_asked_for_its_answer_first(store: SQLStore, reason: str) -> None:
    importer = Recorder("recorder", away(reason))
    await ordered(store, "recorder")
    await deliveries(store, importer).drain()
    store.write_blocking(undo)
    assert await deliveries(store, importer).drain() == 0
    later(SCHEDULE[0])
    await deliveries(store, importer).drain()
    assert (len(importer.calls), len(importer.retractions)) == (2, 1)


@pytest.mark.parametrize("killed", [True, False])
async def test_an_attempt_that_was_cut_short_may_have_arrived(store: SQLStore, killed: bool) -> None:
    importer = Recorder("recorder", away("unreachable"))
    await ordered(store, "recorder")
    await deliveries(store, importer).drain()
    later(SCHEDULE[0])
    [held] = store.write_blocking(lambda tx: tx.deliveries.claim("recorder", 60, 1))
    store.write_blocking(lambda tx: tx.deliveries.release() if killed else tx.deliveries.hand_back(held))
    store.write_blocking(undo)
    await deliveries(store, importer).drain()
    assert (len(importer.calls), len(importer.retractions)) == (2, 1)


@pytest.mark.parametrize("answer", [away("unreachable"), ImportRefusedError("no", reason="bad")])
async def test_an_import_that_fails_after_the_undo_is_let_go(store: SQLStore, answer: Exception) -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    class Slow(Recorder):
        async def import_message(self, request: ImportRequest) -> str:
            asked.set()
            await go.wait()
            return await super().import_message(request)

    importer = Slow("recorder", answer)
    await ordered(store, "recorder")
    drained = asyncio.create_task(deliveries(store, importer).drain())
    await asked.wait()
    assert await store.write(undo) == ["recorder"]
    go.set()
    await drained
    later(SCHEDULE[0])
    await deliveries(store, importer).drain()
    assert (len(importer.calls), len(importer.retractions)) == (1, 1)
    assert listed(store, state=DeliveryState.DEAD) == listed(store, state=DeliveryState.WAITING) == []
    assert "import.set_aside" not in [action for action, _ in audit(store)]


async def test_a_dead_letter_of_a_link_that_was_undone_is_gone(store: SQLStore) -> None:
    importer = Recorder("recorder", ImportRefusedError("no", reason="bad"))
    await ordered(store, "recorder")
    await deliveries(store, importer).drain()
    [dead] = listed(store, state=DeliveryState.DEAD)
    number: Any = dead.id
    assert store.write_blocking(undo) == ["recorder"]
    with pytest.raises(NotFoundError):
        store.write_blocking(lambda tx: tx.deliveries.retry(number))
    await deliveries(store, importer).drain()
    assert (len(importer.calls), len(importer.retractions)) == (1, 1)
    assert import_doubts(store.read_blocking(lambda tx: tx.deliveries.standings())) is None


async def test_a_target_that_is_stopped_is_asked_for_nothing_but_the_retraction(store: SQLStore) -> None:
    importer = Recorder("recorder", ImporterGoneError("gone", reason="http_410"))
    await ordered(store, "recorder")
    await deliveries(store, importer).drain()
    assert store.write_blocking(undo) == ["recorder"]
    store.write_blocking(lambda tx: tx.deliveries.start("recorder"))
    await deliveries(store, importer).drain()
    assert len(importer.retractions) == 1
