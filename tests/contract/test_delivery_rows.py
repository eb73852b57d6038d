"""What every store promises of the queues of the import hook (:class:`gateway.ports.DeliveryRows`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.core.errors import NotFoundError
from gateway.core.lifecycle import State
from gateway.ports import DeliveryAction, DeliveryState, Link, Store, UnitOfWork
from gateway.store.ids import new_id
from tests.support.store_samples import NOW, SteadyClock, inbound, patient
from tests.support.stores import STORES

LINKS = 5


@pytest.fixture
def clock() -> SteadyClock:
    return SteadyClock(NOW)


@pytest.fixture(params=sorted(STORES))
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: SteadyClock) -> AsyncIterator[Store]:
    with STORES[request.param](tmp_path, clock) as opened:
        await opened.write(_fill)
        yield opened


def _fill(tx: UnitOfWork) -> None:
    """Links L0 to L4, made in this order."""
    tx.patients.upsert([patient()], "csv", NOW)
    for number in range(LINKS):
        message_id = new_id(NOW)
        tx.messages.add_raw(message_id, NOW, inbound(b"From: x\r\n\r\n%d" % number))
        tx.messages.set_state(message_id, State.RECEIVED, NOW)
        at = NOW + timedelta(minutes=number)
        tx.links.add(Link(f"L{number}", message_id, "P1", "manual", "user", "manual", at))


async def test_orders_claims_and_answers(store: Store, clock: SteadyClock) -> None:
    assert await store.write(lambda tx: tx.deliveries.order("L0", ["a", "b", "a"])) == ["a", "b"]
    assert await store.write(lambda tx: tx.deliveries.order("L0", ["a", "b"])) == []
    assert await store.read(lambda tx: tx.deliveries.due(["a", "b", "c"])) == {"a", "b"}
    [held] = await store.write(lambda tx: tx.deliveries.claim("a", 60, 10))
    assert (held.link_id, held.target, held.action, held.attempt) == ("L0", "a", DeliveryAction.IMPORT, 1)
    assert await store.read(lambda tx: tx.deliveries.due(["a", "b"])) == {"b"}
    assert await store.write(lambda tx: tx.deliveries.fail(held, "busy", timedelta(seconds=30)))
    assert not await store.write(lambda tx: tx.deliveries.finish(held)), "it is not held any more"
    clock.time += timedelta(seconds=29)
    assert await store.write(lambda tx: tx.deliveries.claim("a", 60, 10)) == []
    clock.time += timedelta(seconds=1)
    [again] = await store.write(lambda tx: tx.deliveries.claim("a", 60, 10))
    assert (again.attempt, again.failures) == (2, 1)
    clock.time += timedelta(seconds=61)
    [later] = await store.write(lambda tx: tx.deliveries.claim("a", 60, 10))
    assert (later.attempt, later.lost) == (3, 1)
    assert not await store.write(lambda tx: tx.deliveries.fail(again, "late", None))
    await store.write(lambda tx: tx.links.add_receipt("L0", "a", "there", NOW))
    assert await store.write(lambda tx: tx.deliveries.finish(later))
    assert await store.write(lambda tx: tx.deliveries.order("L0", ["a"])) == [], "it has it"


async def test_parallel_claims_share_nothing(store: Store) -> None:
    for number in range(LINKS):
        await store.write(lambda tx, n=number: tx.deliveries.order(f"L{n}", ["a"]))  # type: ignore[misc]
    claims = [store.write(lambda tx: tx.deliveries.claim("a", 60, 2)) for _ in range(6)]
    found = [held.link_id for some in await asyncio.gather(*claims) for held in some]
    assert sorted(found) == [f"L{number}" for number in range(LINKS)]


async def test_parallel_orders_are_one(store: Store) -> None:
    orders = [store.write(lambda tx: tx.deliveries.order("L0", ["a"])) for _ in range(20)]
    assert sorted(await asyncio.gather(*orders)) == [[]] * 19 + [["a"]]


async def test_older_links_come_in_pages(store: Store) -> None:
    await store.write(lambda tx: tx.deliveries.order("L3", ["new"]))
    count, place = await store.write(lambda tx: tx.deliveries.order_missing("new", NOW + timedelta(minutes=1), None, 2))
    assert count == 2
    assert place is not None
    last = place
    assert await store.write(lambda tx: tx.deliveries.order_missing("new", None, last, 10)) == (1, None)
    held = await store.write(lambda tx: tx.deliveries.claim("new", 60, 10))
    assert sorted(one.link_id for one in held) == ["L1", "L2", "L3", "L4"]


async def test_lists_and_standings(store: Store) -> None:
    for number in range(3):
        await store.write(lambda tx, n=number: tx.deliveries.order(f"L{n}", ["a"]))  # type: ignore[misc]
    [first, *_] = await store.write(lambda tx: tx.deliveries.claim("a", 60, 3))
    assert await store.write(lambda tx: tx.deliveries.fail(first, "no", None))
    await store.write(lambda tx: tx.links.add_receipt("L4", "b", "there", NOW))
    await store.write(lambda tx: tx.deliveries.stop("z", "http_410", NOW))
    listed = await store.read(lambda tx: tx.deliveries.listed(limit=10))
    states = [(one.state, one.running) for one in listed]
    waiting = (DeliveryState.WAITING, True)
    assert states == [(DeliveryState.DEAD, False), waiting, waiting, (DeliveryState.DONE, False)]
    assert len(await store.read(lambda tx: tx.deliveries.listed(limit=2))) == 2
    standings = await store.read(lambda tx: tx.deliveries.standings())
    assert [(s.name, s.waiting, s.dead, s.stop_reason) for s in standings] == [("a", 2, 1, ""), ("z", 0, 0, "http_410")]
    assert await store.write(lambda tx: tx.deliveries.retry_dead("a")) == 1
    assert await store.write(lambda tx: tx.deliveries.retry_dead("a")) == 0
    assert [await store.write(lambda tx: tx.deliveries.start("z")) for _ in range(2)] == [True, False]
    assert await store.write(lambda tx: tx.deliveries.release()) == 2


async def test_a_retraction_waits_for_its_import(store: Store) -> None:
    await store.write(lambda tx: tx.deliveries.order("L0", ["a", "unsent"]))
    [held] = await store.write(lambda tx: tx.deliveries.claim("a", 60, 10))
    assert await store.write(lambda tx: tx.deliveries.order_retraction("L0", "olga", "wrong", NOW)) == ["a"]
    assert await store.read(lambda tx: tx.deliveries.due(["a", "unsent"])) == set()
    await store.write(lambda tx: tx.links.add_receipt("L0", "a", "there", NOW))
    assert await store.write(lambda tx: tx.deliveries.finish(held))
    [retraction] = await store.write(lambda tx: tx.deliveries.claim("a", 60, 10))
    assert (retraction.action, retraction.actor, retraction.reason) == (DeliveryAction.RETRACT, "olga", "wrong")
    for _ in range(2):
        await store.write(lambda tx: tx.deliveries.add_retraction(retraction, "gone", NOW))
    assert await store.read(lambda tx: tx.deliveries.retractions("L0")) == {"a": "gone"}
    with pytest.raises(NotFoundError):
        await store.write(lambda tx: tx.deliveries.order_retraction("absent", "olga", "wrong", NOW))
