"""What every store promises of trust bundles (:class:`gateway.ports.BundleRows`): TB-8, TB-9, TB-14."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.core.errors import ConflictError, NotFoundError
from gateway.core.trust import (
    BOTH_DIRECTIONS,
    AnchorBundle,
    BundleRecord,
    BundleSetting,
    BundleStatus,
    BundleVersion,
    Direction,
)
from gateway.ports import Store, UnitOfWork
from tests.support.store_samples import NOW, accepted, inbound
from tests.support.stores import STORES

SETTING = BundleSetting(
    name="partners",
    location="https://bundles.example/partners.p7b",
    signer=b"signer",
    owners=("direct.clinic.example", "ann@direct.clinic.example"),
    directions=frozenset({Direction.INBOUND}),
    refresh_hours=24,
)
OPEN = BundleSetting("open", "/srv/open.p7b", None, (), BOTH_DIRECTIONS, 0)
LATER = NOW + timedelta(hours=1)


@pytest.fixture(params=sorted(STORES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    with STORES[request.param](tmp_path) as opened:
        yield opened


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def test_the_history_counts_what_each_version_held(store: Store) -> None:
    def fill(tx: UnitOfWork) -> None:
        tx.bundles.set(SETTING, NOW)
        tx.bundles.add_version(SETTING.name, NOW, b"first", [b"one", b"two"])
        tx.bundles.add_version(SETTING.name, LATER, b"second", [])
        tx.bundles.add_version("other", LATER, b"third", [b"one"])

    await store.write(fill)
    assert await store.read(lambda tx: tx.bundles.history(SETTING.name)) == [
        BundleRecord(1, NOW, sha256(b"first"), 2),
        BundleRecord(2, LATER, sha256(b"second"), 0),
    ]
    assert await store.read(lambda tx: tx.bundles.history("nobody")) == []


async def test_an_empty_store_has_no_bundle(store: Store) -> None:
    def look(tx: UnitOfWork) -> tuple[object, ...]:
        rows = tx.bundles
        return rows.settings(), rows.in_force(), rows.newest_version("x"), rows.versions("x"), rows.digests("x")

    assert await store.read(look) == ([], [], None, [], [])
    assert await store.read(lambda tx: tx.bundles.status("x")) == BundleStatus("x")
    assert await store.read(lambda tx: tx.bundles.revision()) == 0


async def test_the_newest_setting_of_a_name_counts_and_comes_back_as_it_was(store: Store) -> None:
    changed = replace(SETTING, owners=(), signer=None, directions=BOTH_DIRECTIONS, refresh_hours=0)

    def work(tx: UnitOfWork) -> None:
        tx.bundles.set(SETTING, NOW)
        tx.bundles.set(OPEN, NOW)
        assert tx.bundles.settings() == [OPEN, SETTING]
        tx.bundles.set(changed, LATER)

    await store.write(work)
    assert await store.read(lambda tx: tx.bundles.settings()) == [OPEN, changed]


async def test_versions_are_counted_up_and_keep_file_anchors_and_order(store: Store) -> None:
    first = await store.write(lambda tx: tx.bundles.add_version("partners", NOW, b"file 1", [b"c", b"a", b"b"]))
    second = await store.write(lambda tx: tx.bundles.add_version("partners", LATER, b"file 2", [b"b", b"d"]))
    other = await store.write(lambda tx: tx.bundles.add_version("open", LATER, b"file 2", [b"d"]))
    assert first == BundleVersion("partners", 1, NOW, sha256(b"file 1"), (b"c", b"a", b"b"))
    assert second == BundleVersion("partners", 2, LATER, sha256(b"file 2"), (b"b", b"d"))
    assert other.version == 1

    def look(tx: UnitOfWork) -> tuple[object, ...]:
        rows = tx.bundles
        return rows.versions("partners"), rows.newest_version("partners"), rows.newest_version("open")

    assert await store.read(look) == ([first, second], second, other)
    assert await store.read(lambda tx: tx.bundles.digests("partners")) == [sha256(b"file 1"), sha256(b"file 2")]
    assert await store.read(lambda tx: tx.bundles.source("partners", 1)) == b"file 1"
    with pytest.raises(NotFoundError):
        await store.read(lambda tx: tx.bundles.source("partners", 3))


async def test_anchors_are_certificates_of_the_evidence(store: Store) -> None:
    """A certificate that the evidence has already is kept once, and found by its digest."""

    def work(tx: UnitOfWork) -> None:
        tx.messages.add_raw("M1", NOW, inbound())
        tx.messages.add_verdict("M1", NOW, replace(accepted(), certificates=(b"known",), trust=(), revocation=()))
        tx.bundles.add_version("partners", NOW, b"file", [b"known", b"new"])

    await store.write(work)
    for der in (b"known", b"new"):
        assert await store.read(lambda tx, der=der: tx.messages.certificate(sha256(der))) == der  # type: ignore[misc]


async def test_many_anchors_fit(store: Store) -> None:
    anchors = [b"anchor %d" % number for number in range(2_000)]
    await store.write(lambda tx: tx.bundles.add_version("big", NOW, b"file", anchors))
    more = [*anchors[1:], b"anchor x"]
    version = await store.write(lambda tx: tx.bundles.add_version("big", NOW, b"file 2", more))
    assert list(version.anchors) == more
    assert await store.read(lambda tx: tx.bundles.newest_version("big")) == version


async def test_an_anchor_is_in_a_version_once(store: Store) -> None:
    with pytest.raises(ConflictError):
        await store.write(lambda tx: tx.bundles.add_version("partners", NOW, b"file", [b"a", b"a"]))
    assert await store.read(lambda tx: tx.bundles.versions("partners")) == []


async def test_in_force_is_the_newest_version_of_each_enabled_bundle(store: Store) -> None:
    def work(tx: UnitOfWork) -> None:
        for setting in (SETTING, OPEN, replace(OPEN, name="empty"), replace(OPEN, name="off", enabled=False)):
            tx.bundles.set(setting, NOW)
        for name in ("partners", "open", "off"):
            tx.bundles.add_version(name, NOW, b"old", [b"gone"])
        tx.bundles.add_version("partners", NOW, b"new", [b"a", b"b"])

    await store.write(work)
    assert await store.read(lambda tx: tx.bundles.in_force()) == [
        AnchorBundle("open", 1, (), BOTH_DIRECTIONS, (b"gone",)),
        AnchorBundle("partners", 2, SETTING.owners, SETTING.directions, (b"a", b"b")),
    ]
    await store.write(lambda tx: tx.bundles.set(replace(OPEN, enabled=False), LATER))
    assert [one.name for one in await store.read(lambda tx: tx.bundles.in_force())] == ["partners"]


async def test_the_revision_grows_with_settings_and_versions_and_with_nothing_else(store: Store) -> None:
    async def revision() -> int:
        return await store.read(lambda tx: tx.bundles.revision())

    seen = [await revision()]
    await store.write(lambda tx: tx.bundles.set(SETTING, NOW))
    seen.append(await revision())
    await store.write(lambda tx: tx.bundles.add_version("partners", NOW, b"file", [b"a"]))
    seen.append(await revision())
    await store.write(lambda tx: tx.bundles.set(replace(SETTING, enabled=False), NOW))
    seen.append(await revision())
    assert seen == sorted(set(seen))
    await store.write(lambda tx: tx.bundles.set_status(BundleStatus("partners", NOW, NOW)))
    assert await revision() == seen[-1]


async def test_the_status_is_replaced_as_a_whole(store: Store) -> None:
    full = BundleStatus("partners", LATER, NOW, "unreachable", "half is gone")
    await store.write(lambda tx: tx.bundles.set_status(full))
    assert await store.read(lambda tx: tx.bundles.status("partners")) == full
    await store.write(lambda tx: tx.bundles.set_status(BundleStatus("partners", LATER)))
    assert await store.read(lambda tx: tx.bundles.status("partners")) == BundleStatus("partners", LATER)
    assert await store.read(lambda tx: tx.bundles.status("open")) == BundleStatus("open")


async def test_a_version_that_is_undone_leaves_nothing(store: Store) -> None:
    def work(tx: UnitOfWork) -> None:
        tx.bundles.set(SETTING, NOW)
        tx.bundles.add_version("partners", NOW, b"file", [b"a"])
        raise LookupError

    with pytest.raises(LookupError):
        await store.write(work)
    assert await store.read(lambda tx: (tx.bundles.settings(), tx.bundles.versions("partners"))) == ([], [])


async def test_versions_of_many_writers_are_all_kept(store: Store) -> None:
    await asyncio.gather(
        *(
            store.write(lambda tx, n=n: tx.bundles.add_version("partners", NOW, b"%d" % n, [b"a%d" % n]))  # type: ignore[misc]
            for n in range(20)
        )
    )
    assert [one.version for one in await store.read(lambda tx: tx.bundles.versions("partners"))] == list(range(1, 21))
