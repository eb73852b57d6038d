"""The background part: what is due, what is told, and that nothing stops it (TB-5, TB-7)."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from gateway.bundles.refresher import BundleRefresher, delay_until_due, due_at
from gateway.bundles.service import TrustBundles
from gateway.core.errors import BundleError, StoreError
from gateway.core.trust import AnchorBundle, BundleStatus
from tests.support.bundle_files import NOW
from tests.unit.bundles.bundle_world import NAME, SETTING, WHO, BundleWorld, bundle, ders

DOWN = BundleError("not_fetched", "down")
HOUR = timedelta(hours=1)


class Listener:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[list[tuple[str, int]]] = []
        self.fails = False

    def __call__(self, bundles: Sequence[AnchorBundle]) -> None:
        if self.fails:
            raise RuntimeError
        self.told.append([(one.name, one.version) for one in bundles])


def refresher(
    world: BundleWorld, listener: Callable[[Sequence[AnchorBundle]], None] | None = None, **options: Any
) -> BundleRefresher:
    service = options.pop("service", None) or world.service()
    jitter = options.pop("jitter", lambda: 1.0)
    return BundleRefresher(service, world.clock, listener or Listener(), jitter, **options)


async def once(part: BundleRefresher) -> None:
    await part.poll()
    await part.settled()


def asked(world: BundleWorld) -> int:
    return len(world.publishers.asked)


# --- when ---


@pytest.mark.parametrize(
    ("status", "failures", "delay"),
    [
        (BundleStatus(NAME, NOW, NOW), 0, 24 * HOUR),
        (BundleStatus(NAME, NOW, None, "down"), 1, HOUR / 12),
        (BundleStatus(NAME, NOW, NOW - HOUR, "down"), 2, HOUR / 6),
        (BundleStatus(NAME, NOW, NOW - HOUR, "down"), 9, HOUR),
        (BundleStatus(NAME, NOW, NOW - HOUR, "down"), 10_000, HOUR),
        (BundleStatus(NAME, NOW, NOW - HOUR), 0, HOUR / 12),
    ],
)
def test_the_schedule(status: BundleStatus, failures: int, delay: timedelta) -> None:
    """The last one is an attempt that a kill left without an end: soon again, not in a day."""
    assert delay_until_due(SETTING, status, failures) == delay


def test_by_hand_or_disabled_is_never_due() -> None:
    status = BundleStatus(NAME, NOW, NOW)
    for setting in (replace(SETTING, refresh_hours=0), replace(SETTING, enabled=False)):
        assert delay_until_due(setting, status, 0) is None
        assert due_at(setting, status) is None
    assert due_at(SETTING, status) == NOW + 24 * HOUR


async def test_a_bundle_is_refreshed_when_its_hours_have_passed(world: BundleWorld) -> None:
    await world.added(1)
    part = refresher(world)
    world.publish(bundle(2))
    world.later(hours=23)
    await once(part)
    assert asked(world) == 1
    world.later(hours=1)
    await once(part)
    assert await world.trusted() == ders(2)
    await once(part)
    assert asked(world) == 2
    assert ("bundle.refreshed", "gateway") in await world.audited()


async def test_a_new_bundle_is_fetched_at_once(world: BundleWorld) -> None:
    world.publish(bundle(1))
    await world.service().add(SETTING, WHO, fetch=False)
    await once(refresher(world))
    assert await world.trusted() == ders(1)


async def test_jitter_spreads_and_never_delays(world: BundleWorld) -> None:
    await world.added(1)
    part = refresher(world, jitter=lambda: 0.9)
    world.later(hours=21.5)
    await once(part)
    assert asked(world) == 1
    world.later(hours=0.2)
    await once(part)
    assert asked(world) == 2


async def test_a_failure_is_tried_again_ever_less_often_hourly_at_least(world: BundleWorld) -> None:
    await world.added(1)
    world.publish(DOWN)
    world.later(hours=24)
    part = refresher(world)
    tries: list[float] = []
    start = world.clock.time
    for _ in range(300):
        before = asked(world)
        await once(part)
        if asked(world) > before:
            tries.append((world.clock.time - start).total_seconds() / 60)
        world.later(minutes=1)
    assert [round(b - a) for a, b in itertools.pairwise(tries)] == [5, 10, 20, 40, 60, 60, 60]
    world.publish(bundle(1))
    world.later(hours=1)
    await once(part)
    assert (await world.status()).error == ""
    world.publish(DOWN)
    world.later(hours=24)
    await once(part)
    world.later(minutes=5)
    before = asked(world)
    await once(part)
    assert asked(world) == before + 1, "after a success the schedule begins anew"


async def test_a_clock_that_was_set_back_does_not_stop_the_refreshes(world: BundleWorld) -> None:
    await world.added(1)
    world.later(days=-30)
    await once(refresher(world))
    assert asked(world) == 2


async def test_disabled_and_manual_bundles_are_left_alone(world: BundleWorld) -> None:
    service = await world.added(1, refresh_hours=0)
    world.later(days=100)
    await once(refresher(world))
    await service.disable(NAME, WHO)
    await once(refresher(world))
    assert asked(world) == 1


async def test_one_of_several_nodes_refreshes(world: BundleWorld) -> None:
    await world.added(1)
    world.later(hours=25)
    nodes = [refresher(world) for _ in range(4)]
    await asyncio.gather(*(node.poll() for node in nodes))
    await asyncio.gather(*(node.settled() for node in nodes))
    assert asked(world) == 2


# --- telling ---


async def test_the_listener_is_told_at_the_start_and_of_each_change(world: BundleWorld) -> None:
    service = await world.added(1)
    listener = Listener()
    part = refresher(world, listener)
    await once(part)
    await once(part)
    assert listener.told == [[(NAME, 1)]]
    world.publish(bundle(2))
    await service.refresh(NAME, "cli:somebody")
    await once(part)
    await service.disable(NAME, WHO)
    await once(part)
    assert listener.told == [[(NAME, 1)], [(NAME, 2)], []]


async def test_an_acknowledged_alarm_is_no_change(world: BundleWorld) -> None:
    service = await world.added(1, 2)
    world.publish(bundle(1))
    await service.refresh(NAME, WHO)
    listener = Listener()
    part = refresher(world, listener)
    await once(part)
    await service.acknowledge(NAME, WHO)
    await once(part)
    assert len(listener.told) == 1


async def test_a_listener_that_fails_is_told_again(world: BundleWorld) -> None:
    await world.added(1)
    listener = Listener()
    listener.fails = True
    part = refresher(world, listener)
    await once(part)
    listener.fails = False
    await once(part)
    assert listener.told == [[(NAME, 1)]]


async def test_a_listener_that_fails_does_not_stop_the_refreshes(world: BundleWorld) -> None:
    await world.added(1)
    listener = Listener()
    listener.fails = True
    world.publish(bundle(2))
    world.later(hours=25)
    await once(refresher(world, listener))
    assert await world.trusted() == ders(2)


# --- surviving ---


async def test_one_bundle_that_hangs_or_breaks_holds_up_no_other(world: BundleWorld) -> None:
    go = threading.Event()

    def hangs() -> bytes:
        go.wait(30)
        return bundle(9)

    def breaks() -> bytes:
        raise RecursionError

    service = world.service()
    for name in ("hangs", "breaks", "works"):
        world.publish(bundle(1), f"https://{name}.example/")
        await service.add(replace(SETTING, name=name, location=f"https://{name}.example/"), WHO)
    world.publish(hangs, "https://hangs.example/")
    world.publish(breaks, "https://breaks.example/")
    world.publish(bundle(2), "https://works.example/")
    world.later(hours=25)
    part = refresher(world)
    begun = time.monotonic()
    await part.poll()
    assert time.monotonic() - begun < 5
    async with asyncio.timeout(10):
        while (await world.versions("works"))[-1].version != 2:
            await asyncio.sleep(0.01)
    world.later(minutes=10)
    await part.poll()
    await asyncio.sleep(0.05)
    assert world.publishers.asked.count("https://hangs.example/") == 2, "one that runs is not started again"
    go.set()
    async with asyncio.timeout(10):
        await part.settled()
    assert (await world.versions("hangs"))[-1].version == 2
    assert (await world.versions("breaks"))[-1].version == 1


class Failing(TrustBundles):
    """A service whose store fails when the test says so."""

    broken: frozenset[str] = frozenset()

    async def in_force(self, seen: int | None = None) -> tuple[int, Sequence[AnchorBundle] | None]:
        if "in_force" in self.broken:
            raise StoreError("the store failed")
        return await super().in_force(seen)

    async def claim(self, seen: BundleStatus) -> bool:
        if "claim" in self.broken:
            raise StoreError("no space is left for the store")
        return await super().claim(seen)


@pytest.mark.parametrize("broken", ["in_force", "claim"])
async def test_a_store_that_fails_for_a_while_is_survived(world: BundleWorld, broken: str) -> None:
    await world.added(1)
    world.publish(bundle(2))
    world.later(hours=25)
    service = Failing(world.store, world.clock, world.publishers)
    service.broken = frozenset({broken})
    listener = Listener()
    part = refresher(world, listener, service=service)
    await once(part)
    service.broken = frozenset()
    world.later(minutes=5)
    await once(part)
    await once(part)
    assert await world.trusted() == ders(2)
    assert listener.told[-1] == [(NAME, 2)]


async def test_run_polls_until_it_is_cancelled_and_leaves_downloads_behind(world: BundleWorld) -> None:
    """A slow server must not hold up the stop of the gateway."""
    go, entered = threading.Event(), threading.Event()

    def hangs() -> bytes:
        entered.set()
        go.wait(30)
        return bundle(9)

    service = await world.added(1)
    listener = Listener()
    part = refresher(world, listener, poll_seconds=0.01)
    task = asyncio.create_task(part.run())
    async with asyncio.timeout(10):
        while not listener.told:
            await asyncio.sleep(0.01)
        world.publish(bundle(2))
        await service.refresh(NAME, "cli:somebody")
        while len(listener.told) < 2:
            await asyncio.sleep(0.01)
    world.publish(hangs)
    world.later(hours=25)
    await asyncio.to_thread(entered.wait, 10)
    begun = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - begun < 5
    go.set()
    assert await world.trusted() == ders(2)
    assert isinstance((await world.status()).last_attempt, datetime)
