"""A bundle file that has not changed is judged again: its members may have become fit, or unfit (TB-10, TB-15).

A member that was left out by a wrong clock or by a rule that was relaxed since never came in. And what a content
changes is found out before the transaction, which keeps everybody else waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.bundles.update import Outcome
from gateway.sta.algorithm_policy import AlgorithmPolicy
from gateway.sta.certificates import Certificate
from tests.support.bundle_files import NOW, anchor, certificate, der, p7b
from tests.support.pki import rsa_key
from tests.support.store_samples import open_store
from tests.unit.bundles.bundle_world import NAME, SETTING, WHO, BundleWorld, bundle


@pytest.fixture
def world(tmp_path: Path) -> Iterator[BundleWorld]:
    with open_store(tmp_path) as store:
        yield BundleWorld(store)


async def test_a_member_that_a_wrong_clock_left_out_comes_in(world: BundleWorld) -> None:
    soon = certificate("Soon", ends=NOW + timedelta(days=30))
    lasting = certificate("Lasting", ends=NOW + timedelta(days=9000))
    world.publish(p7b(soon, lasting))
    service = world.service()
    world.later(days=400)
    assert (await service.add(SETTING, WHO)).anchors == 1
    world.clock.time = NOW
    result = await service.refresh(NAME, WHO)
    assert (result.outcome, result.version, result.anchors, result.alarm) == (Outcome.APPLIED, 2, 2, "")
    assert result.diff is not None
    assert [one.subject for one in result.diff.added] == ["CN=Soon"]
    assert await world.trusted() == [der(soon), der(lasting)]


async def test_a_member_that_a_relaxed_rule_lets_in_comes_in(world: BundleWorld) -> None:
    small = certificate("Small", key=rsa_key(1))
    world.publish(p7b(anchor(1), small))
    await world.service(policy=AlgorithmPolicy(min_rsa_bits=3072)).add(SETTING, WHO)
    assert await world.trusted() == [der(anchor(1))]
    assert (await world.service().refresh(NAME, WHO)).outcome is Outcome.APPLIED
    assert await world.trusted() == [der(anchor(1)), der(small)]


async def test_a_member_that_has_run_out_goes_without_an_alarm(world: BundleWorld) -> None:
    world.publish(p7b(certificate("Soon", ends=NOW + timedelta(days=30)), anchor(1)))
    service = world.service()
    await service.add(SETTING, WHO)
    world.later(days=31)
    result = await service.refresh(NAME, WHO)
    assert (result.outcome, result.alarm) == (Outcome.APPLIED, "")
    assert await world.trusted() == [der(anchor(1))]


async def test_when_neither_file_nor_members_differ_only_the_status_is_written(world: BundleWorld) -> None:
    service = world.service()
    world.publish(p7b(certificate("Past", ends=NOW - timedelta(days=1)), anchor(1)))
    await service.add(SETTING, WHO)
    audited = await world.audited()
    for _ in range(3):
        later = world.later(hours=24)
        assert (await service.refresh(NAME, WHO)).outcome is Outcome.UNCHANGED
        assert (await world.status()).last_success == later
    assert len(await world.versions()) == 1
    assert await world.audited() == audited


async def test_certificates_are_read_outside_of_the_transaction(
    world: BundleWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two thousand anchors take a second, and every other writer would wait for it."""
    inside = [False]
    write = world.store.write

    async def watched(work: Callable[[Any], Any]) -> Any:
        def marked(tx: Any) -> Any:
            inside[0] = True
            try:
                return work(tx)
            finally:
                inside[0] = False

        return await write(marked)

    read: list[bool] = []
    parse = Certificate.__init__

    def noticed(self: Certificate, der: bytes) -> None:
        read.append(inside[0])
        parse(self, der)

    monkeypatch.setattr(world.store, "write", watched)
    monkeypatch.setattr(Certificate, "__init__", noticed)
    service = await world.added(1, 2, 3)
    world.publish(bundle(2, 3, 4))
    assert (await service.refresh(NAME, WHO)).outcome is Outcome.APPLIED
    assert read
    assert not any(read)
