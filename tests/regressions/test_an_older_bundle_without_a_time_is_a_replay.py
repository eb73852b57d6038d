"""A signed bundle that does not say when it was signed does not replace one that does (TB-3, TB-14).

Whoever kept a file that the publisher once signed without a time could bring withdrawn anchors back to life with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.bundles.update import Outcome
from tests.support.bundle_files import NOW, Signing, anchor, der, metadata, p7b, p7m, publisher
from tests.support.store_samples import open_store
from tests.unit.bundles.bundle_world import NAME, SETTING, WHO, BundleWorld, bundle, ders

SIGNED = replace(SETTING, signer=der(publisher()))
UNTIMED = Signing(at=None)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[BundleWorld]:
    with open_store(tmp_path) as store:
        yield BundleWorld(store)


async def test_a_content_without_a_time_counts_as_older_than_one_with_a_time(world: BundleWorld) -> None:
    world.publish(p7m(bundle(1), publisher(), how=Signing(at=NOW - timedelta(hours=1))))
    service = world.service()
    await service.add(SIGNED, WHO)
    world.publish(p7m(bundle(1, 2), publisher(), how=UNTIMED))
    result = await service.refresh(NAME, WHO)
    assert result.outcome is Outcome.FAILED
    assert "does not say when it was signed" in result.error
    assert "--accept-older" in result.error
    assert result.alarm
    assert await world.trusted() == ders(1)
    assert (await service.refresh(NAME, WHO, accept_older=True)).outcome is Outcome.APPLIED
    assert await world.trusted() == ders(1, 2)


async def test_a_publisher_who_never_tells_the_time_can_still_publish(world: BundleWorld) -> None:
    service = world.service()
    world.publish(p7m(bundle(1, 2), publisher(), how=UNTIMED))
    await service.add(SIGNED, WHO)
    for content, at in ((bundle(1), None), (bundle(1, 3), NOW)):
        world.publish(p7m(content, publisher(), how=Signing(at=at)))
        assert (await service.refresh(NAME, WHO)).outcome is Outcome.APPLIED


async def test_where_no_time_is_told_the_dates_of_the_metadata_may_not_go_missing(world: BundleWorld) -> None:
    dated = p7b(anchor(1), content=metadata(ValidFrom="2026-02-10T00:00:00Z"))
    service = world.service()
    world.publish(p7m(dated, publisher(), how=UNTIMED))
    await service.add(SIGNED, WHO)
    world.publish(p7m(bundle(1, 2), publisher(), how=UNTIMED))
    result = await service.refresh(NAME, WHO)
    assert (result.outcome, "from when it is valid" in result.error) == (Outcome.FAILED, True)
    world.publish(p7m(bundle(1, 2), publisher(), how=Signing(at=NOW)))
    assert (await service.refresh(NAME, WHO)).outcome is Outcome.APPLIED
