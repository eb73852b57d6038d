"""What the health of a gateway says of its trust bundles: alarms and failed refreshes, in words (TB-8, TB-14)."""

from __future__ import annotations

from dataclasses import replace

from gateway.bundles.doubts import MAX_NAMED, doubts_about
from gateway.core.errors import BundleError
from gateway.core.trust import BundleSetting, BundleStatus
from tests.unit.bundles.bundle_world import NAME, SETTING, WHO, BundleWorld, bundle

HOST = "bundles.example"


async def test_all_is_well(world: BundleWorld) -> None:
    assert await doubts_about(world.service()) is None
    assert await doubts_about(await world.added(1, 2)) is None


async def test_a_failed_refresh_is_told_until_one_succeeds(world: BundleWorld) -> None:
    service = await world.added(1, 2)
    world.publish(BundleError("unreachable", f"the server {HOST} did not answer"))
    world.later(hours=1)
    await service.refresh(NAME, WHO)
    told = await doubts_about(service)
    assert told is not None
    assert f"bundle {NAME} could not be refreshed" in told
    assert "stays in force" in told
    assert "direct-gateway bundle list" in told
    assert HOST not in told
    world.publish(bundle(1, 2))
    await service.refresh(NAME, WHO)
    assert await doubts_about(service) is None


async def test_an_alarm_is_told_until_it_is_acknowledged(world: BundleWorld) -> None:
    service = await world.added(1, 2, 3)
    world.publish(bundle(1))
    await service.refresh(NAME, WHO)
    told = await doubts_about(service)
    assert told is not None
    assert f"bundle {NAME} has an alarm" in told
    assert f"direct-gateway bundle acknowledge {NAME}" in told
    await service.acknowledge(NAME, WHO)
    assert await doubts_about(service) is None


async def test_a_bundle_that_was_never_fetched_is_told_and_a_disabled_one_is_not(world: BundleWorld) -> None:
    service = world.service()
    await service.add(SETTING, WHO, fetch=False)
    told = await doubts_about(service)
    assert told is not None
    assert "was never fetched" in told
    await service.disable(NAME, WHO)
    assert await doubts_about(service) is None


async def test_many_are_told_in_few_words(world: BundleWorld) -> None:
    def fill(tx: object) -> None:
        for number in range(MAX_NAMED + 2):
            setting: BundleSetting = replace(SETTING, name=f"b{number}")
            tx.bundles.set(setting, world.clock.now())  # type: ignore[attr-defined]
            tx.bundles.set_status(BundleStatus(setting.name, alarm="odd"))  # type: ignore[attr-defined]

    await world.store.write(fill)
    told = await doubts_about(world.service())
    assert told is not None
    assert "and 2 more" in told
