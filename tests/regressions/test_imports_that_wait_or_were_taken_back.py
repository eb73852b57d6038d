"""What deliveries to importers did wrong: a link that was taken back was sent again, others were asked for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from gateway.core.errors import (
    ImportRefusedError,
    KeyUnavailableError,
    NotFoundError,
    StoreError,
    StoreUnavailableError,
)
from gateway.pipeline import deliver
from gateway.pipeline.byte_gate import ByteGate
from gateway.pipeline.message_view import view_message
from gateway.ports import DeliveryState, ImportRequest, Link, Patient, UnitOfWork
from gateway.store.sql_store import SQLStore
from tests.unit.pipeline.link_harness import START, Frozen, add_patients, audit, filed, leases, store
from tests.unit.pipeline.test_import_deliveries import SCHEDULE, Recorder, deliveries, later, listed, ordered, receipts

__all__ = ["store"]


async def _for_a_second(store: SQLStore, importer: Recorder, begun: Callable[[], bool]) -> None:
    """Of its work, from the moment that it has begun."""
    task = asyncio.create_task(deliveries(store, importer).run())
    async with asyncio.timeout(20):
        while not begun():
            await asyncio.sleep(0.01)
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_refused_import_is_not_sent_once_its_link_was_taken_back(store: SQLStore) -> None:
    importer = Recorder("recorder", ImportRefusedError("no", reason="bad"))
    await ordered(store, "recorder")
    await deliveries(store, importer).drain()
    (refused,) = listed(store, state=DeliveryState.DEAD)
    assert refused.id is not None
    number = refused.id
    store.write_blocking(lambda tx: tx.deliveries.order_retraction("auto-1", "olga", "wrong", START))
    with pytest.raises(NotFoundError):
        store.write_blocking(lambda tx: tx.deliveries.retry(number))
    assert store.write_blocking(lambda tx: tx.deliveries.retry_dead("recorder")) == 0
    await deliveries(store, importer).drain()
    assert store.write_blocking(lambda tx: tx.deliveries.retry_dead("recorder")) == 0
    await deliveries(store, importer).drain()
    assert (len(importer.calls), len(importer.retractions), receipts(store)) == (1, 1, {})


@pytest.mark.parametrize(
    "error", [StoreUnavailableError("the bucket is away"), KeyUnavailableError("the token is away")]
)
async def test_what_cannot_be_read_now_is_not_asked_for_without_a_pause(
    store: SQLStore, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    importer, asked = Recorder("recorder"), []
    await ordered(store, "recorder")

    def away(*_: Any, **__: Any) -> ImportRequest:
        asked.append(1)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(deliver, "request_for", away)
        await _for_a_second(store, importer, begun=lambda: bool(asked))
    assert 1 <= len(asked) <= 4
    (waiting,) = listed(store)
    assert (waiting.state, waiting.failures) == (DeliveryState.WAITING, 0), "it says nothing against the link"
    await deliveries(store, importer).drain()
    assert len(importer.calls) == 1


async def test_what_is_damaged_is_set_aside_in_the_end(store: SQLStore, monkeypatch: pytest.MonkeyPatch) -> None:
    importer = Recorder("recorder")
    await ordered(store, "recorder")

    def damaged(*_: Any, **__: Any) -> ImportRequest:
        raise StoreError("the stored bytes are damaged")

    monkeypatch.setattr(deliver, "request_for", damaged)
    for delay in (*SCHEDULE, 0.0):
        await deliveries(store, importer).drain()
        later(delay)
    assert [(d.state, d.error, d.failures) for d in listed(store)] == [(DeliveryState.DEAD, "fault_here", 3)]
    assert [action for action, _ in audit(store) if action == "import.set_aside"] == ["import.set_aside"]


async def test_a_cancellation_of_the_importers_own_is_a_failure(store: SQLStore) -> None:
    class Cancels(Recorder):
        async def import_message(self, request: ImportRequest) -> str:
            self.calls.append(request)
            raise asyncio.CancelledError

    importer = Cancels("recorder")
    await ordered(store, "recorder")
    await _for_a_second(store, importer, begun=lambda: bool(importer.calls))
    assert len(importer.calls) == 1
    assert [(d.failures, d.error) for d in listed(store)] == [(1, "raised_cancellederror")]


async def test_an_importer_that_will_not_end_does_not_hold_up_the_stop(
    store: SQLStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go = asyncio.Event()

    class Hangs(Recorder):
        async def import_message(self, request: ImportRequest) -> str:
            self.calls.append(request)
            while not let_go.is_set():
                try:
                    await let_go.wait()
                except asyncio.CancelledError:
                    continue
            return "late"

        async def close(self) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(deliver, "STOP_SECONDS", 0.05)
    monkeypatch.setattr(deliver, "_CLOSE_SECONDS", 0.05)
    importer = Hangs("recorder")
    await ordered(store, "recorder")
    runner = deliveries(store, importer)
    task = asyncio.create_task(runner.run())
    while not importer.calls:
        await asyncio.sleep(0.01)
    task.cancel()
    ended, _ = await asyncio.wait({task}, timeout=20)
    let_go.set()
    if left := runner._running():
        await asyncio.wait(left, timeout=20)
    assert ended


async def test_a_clock_that_is_set_back_puts_no_import_off(store: SQLStore) -> None:
    importer = Recorder("recorder")
    await ordered(store, "recorder")
    leases.time = START - timedelta(days=3)
    assert await deliveries(store, importer).drain() == 0
    assert store.write_blocking(lambda tx: tx.deliveries.clock_went_back(timedelta(days=3))) == 1
    assert await deliveries(store, importer).drain() == 1


async def test_nor_does_one_that_is_set_back_while_the_gateway_is_stopped(store: SQLStore) -> None:
    importer = Recorder("recorder")
    await ordered(store, "recorder")
    leases.time = START - timedelta(days=3)
    store.write_blocking(lambda tx: tx.deliveries.release())
    assert await deliveries(store, importer).drain() == 1


def _order(link: Link, rows: UnitOfWork) -> None:
    rows.links.add(link)
    rows.deliveries.order(link.id, ["recorder"])


async def test_large_messages_that_wait_for_one_another_are_asked_for_once(
    store: SQLStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last of them waited so long that its lease ended, and the same target was asked twice at the same time."""
    monkeypatch.setattr(deliver, "LEASE_SECONDS", 0.5)
    monkeypatch.setattr(deliver, "GATE_SECONDS", 0.1)

    class Slow(Recorder):
        async def import_message(self, request: ImportRequest) -> str:
            receipt = await super().import_message(request)
            await asyncio.sleep(0.4)
            later(0.8)
            return receipt

    add_patients(store, Patient("p1", family="Lee"))
    for number in range(3):
        link = Link(f"L{number}", filed(store, f"M{number}"), "p1", "manual", "olga", "", START)
        store.write_blocking(partial(_order, link))
    importer = Slow("recorder")
    target = deliver.Target(importer, SCHEDULE, timeout_seconds=1.0, at_once=3)
    runner = deliver.Deliveries(store, Frozen(), [target], view_message, poll_seconds=0.01)
    # Each as large as all that may be inside.
    runner._lanes["recorder"].gate = ByteGate(small_bytes=0, at_once_bytes=1)
    await runner.drain()
    assert sorted(request.link.id for request in importer.calls) == ["L0", "L1", "L2"]
    assert [d.state for d in listed(store)] == [DeliveryState.DONE] * 3
