"""Bundles at work: added, refreshed, refused, compared, put out of force (TB-3, TB-8..11, TB-14)."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import multiprocessing
import os
import signal
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.bundles.service import TrustBundles
from gateway.bundles.sources import BAD_LOCATION
from gateway.bundles.update import STALE_AFTER, Outcome
from gateway.core.errors import BundleError, ConflictError, InputError, NotFoundError, StoreError
from gateway.core.trust import BundleSetting, Direction
from gateway.ports import UnitOfWork
from tests.support.bundle_files import NOW, Signing, anchor, certificate, der, metadata, p7b, p7m, publisher
from tests.support.store_samples import SteadyClock, open_store
from tests.unit.bundles.bundle_world import NAME, SETTING, WHO, BundleWorld, Publishers, bundle, ders

SIGNED = replace(SETTING, signer=der(publisher()))
DOWN = BundleError("not_fetched", "the server did not answer in time")


def signed(*numbers: int, hours_ago: float = 1, slot: int = 1) -> bytes:
    return p7m(bundle(*numbers), publisher(slot), how=Signing(at=NOW - timedelta(hours=hours_ago)))


# --- adding ---


async def test_adding_fetches_checks_and_puts_into_force_in_one_go(world: BundleWorld) -> None:
    world.publish(bundle(1, 2))
    setting = replace(SETTING, owners=("direct.clinic.example",), directions=frozenset({Direction.INBOUND}))
    result = await world.service().add(setting, WHO)
    assert (result.outcome, result.version, result.anchors, result.alarm) == (Outcome.APPLIED, 1, 2, "")
    [found] = await world.store.read(lambda tx: tx.bundles.in_force())
    assert (found.owners, found.directions) == (setting.owners, setting.directions)
    assert list(found.anchors) == ders(1, 2)
    status = await world.status()
    assert (status.last_attempt, status.last_success, status.error) == (NOW, NOW, "")
    assert await world.audited() == [("bundle.added", WHO), ("bundle.refreshed", WHO)]


@pytest.mark.parametrize("published", [DOWN, b"<html>", p7b(), p7b(certificate("leaf", is_ca=False))])
async def test_what_cannot_be_taken_over_is_not_added(world: BundleWorld, published: bytes | BundleError) -> None:
    world.publish(published)
    with pytest.raises(BundleError):
        await world.service().add(SETTING, WHO)
    assert await world.service().overview() == []
    assert await world.audited() == []


async def test_adding_without_fetching_stores_the_setting_only(world: BundleWorld) -> None:
    result = await world.service().add(SETTING, WHO, fetch=False)
    assert (result.outcome, result.version) == (Outcome.UNCHANGED, 0)
    assert world.publishers.asked == []
    assert await world.trusted() == []
    [found] = await world.service().overview()
    assert (found.setting, found.newest) == (SETTING, None)


async def test_a_name_is_given_once_and_changed_on_purpose(world: BundleWorld) -> None:
    service = await world.added(1)
    with pytest.raises(ConflictError, match="--change"):
        await service.add(SETTING, WHO)
    with pytest.raises(NotFoundError, match=NAME):
        await service.add(replace(SETTING, name="other"), WHO, instead_of=SETTING)
    world.publish(bundle(2), "https://new.example/p.p7b")
    await service.add(replace(SETTING, location="https://new.example/p.p7b", refresh_hours=1), WHO, instead_of=SETTING)
    assert await world.trusted() == ders(2)
    assert [action for action, _ in await world.audited()][2:] == ["bundle.changed", "bundle.refreshed"]


async def test_a_change_that_cannot_be_fetched_changes_nothing(world: BundleWorld) -> None:
    """Above all not the signer: what is in force must have been checked under the setting in force."""
    service = await world.added(1)
    with pytest.raises(BundleError, match="not signed"):
        await service.add(SIGNED, WHO, instead_of=SETTING)
    [found] = await service.overview()
    assert (found.setting, found.status.error) == (SETTING, "")
    assert await world.trusted() == ders(1)


async def test_a_change_counts_only_against_the_setting_it_was_made_from(world: BundleWorld) -> None:
    """Else it would bring back what somebody else has changed meanwhile: a signer that was dropped, say."""
    service = await world.added(1)
    await service.disable(NAME, WHO)
    with pytest.raises(ConflictError, match="changed meanwhile"):
        await service.add(replace(SETTING, refresh_hours=1), WHO, instead_of=SETTING)
    assert (await service.get(NAME)).setting == replace(SETTING, enabled=False)


async def test_a_disabled_bundle_that_is_changed_stays_out_of_force(world: BundleWorld) -> None:
    service = await world.added(1)
    await service.disable(NAME, WHO)
    before = (await service.get(NAME)).setting
    world.publish(bundle(1, 2))
    assert (await service.add(replace(before, refresh_hours=1), WHO, instead_of=before)).version == 2
    assert await world.trusted() == []


async def test_a_location_that_can_never_work_is_wrong_use(world: BundleWorld) -> None:
    world.publish(BundleError(BAD_LOCATION, "the host is outside"))
    with pytest.raises(InputError, match="outside"):
        await world.service().add(SETTING, WHO)
    assert await world.service().overview() == []


@pytest.mark.parametrize(("published", "is_signed"), [(bundle(1), False), (signed(1), True)])
async def test_whether_it_is_signed_is_known_without_a_signer(
    world: BundleWorld, published: bytes, is_signed: bool
) -> None:
    service = world.service()
    await service.add(SETTING, WHO, fetch=False)
    assert not await service.signed(NAME)
    world.publish(published)
    await service.refresh(NAME, WHO)
    assert await service.signed(NAME) is is_signed


@pytest.mark.parametrize(
    "setting",
    [
        replace(SETTING, name="Big"),
        replace(SETTING, name=""),
        replace(SETTING, name="-x"),
        replace(SETTING, name="a/b"),
        replace(SETTING, name="x" * 65),
        replace(SETTING, refresh_hours=-1),
        replace(SETTING, refresh_hours=10**6),
        replace(SETTING, directions=frozenset()),
        replace(SETTING, signer=b"no certificate"),
    ],
)
async def test_settings_out_of_bounds_are_refused(world: BundleWorld, setting: BundleSetting) -> None:
    with pytest.raises(InputError):
        await world.service().add(setting, WHO)


# --- refreshing ---


async def test_unchanged_content_changes_the_status_only(world: BundleWorld) -> None:
    """TB-10."""
    service = await world.added(1, 2)
    later = world.later(hours=1)
    result = await service.refresh(NAME, WHO)
    assert (result.outcome, result.version) == (Outcome.UNCHANGED, 1)
    status = await world.status()
    assert (status.last_attempt, status.last_success) == (later, later)
    assert len(await world.versions()) == 1
    assert len(await world.audited()) == 2


async def test_new_content_is_taken_over_as_a_whole(world: BundleWorld) -> None:
    """TB-9: what is gone from the bundle is not trusted any more, what is new is."""
    service = await world.added(1, 2, 3, 4, 5, 6)
    world.publish(bundle(7, 2, 3, 4, 5, 6))
    later = world.later(hours=1)
    result = await service.refresh(NAME, WHO)
    assert (result.outcome, result.version, result.alarm) == (Outcome.APPLIED, 2, "")
    assert result.diff is not None
    assert [one.subject for one in result.diff.added] == ["CN=Anchor 7"]
    assert [one.subject for one in result.diff.removed] == ["CN=Anchor 1"]
    assert len(result.diff.kept) == 5
    assert await world.trusted() == ders(7, 2, 3, 4, 5, 6)
    first, second = await world.versions()
    assert list(first.anchors) == ders(1, 2, 3, 4, 5, 6), "versions are kept for ever (TB-14)"
    assert second.at == later
    assert second.sha256 == hashlib.sha256(bundle(7, 2, 3, 4, 5, 6)).hexdigest()
    assert await world.store.read(lambda tx: tx.bundles.source(NAME, 2)) == bundle(7, 2, 3, 4, 5, 6)


@pytest.mark.parametrize(
    "published",
    [
        DOWN,
        b"",
        b"<html>moved</html>",
        bundle(1, 2, 3)[:-10],
        p7b(),
        p7b(certificate("past", ends=NOW - timedelta(days=2))),
        p7b(anchor(1), content=metadata(ValidTo="2026-02-01T00:00:00Z")),
    ],
)
async def test_a_failure_never_changes_the_last_good_content(
    world: BundleWorld, published: bytes | BundleError
) -> None:
    """TB-8."""
    service = await world.added(1, 2)
    before = await world.store.read(lambda tx: tx.bundles.revision())
    world.publish(published)
    later = world.later(hours=1)
    result = await service.refresh(NAME, WHO)
    assert (result.outcome, result.version) == (Outcome.FAILED, 1)
    assert result.error
    status = await world.status()
    assert (status.last_attempt, status.last_success, status.error) == (later, NOW, result.error)
    assert await world.trusted() == ders(1, 2)
    assert await world.store.read(lambda tx: tx.bundles.revision()) == before
    world.publish(bundle(1, 2))
    assert (await service.refresh(NAME, WHO)).outcome is Outcome.UNCHANGED
    assert (await world.status()).error == ""


async def test_a_bundle_that_is_suddenly_empty_raises_an_alarm_once_per_cause(world: BundleWorld) -> None:
    service = await world.added(1, 2)
    world.publish(p7b())
    assert "no anchor" in (await service.refresh(NAME, WHO)).alarm
    assert "no anchor" in await service.acknowledge(NAME, WHO)
    assert (await service.refresh(NAME, WHO)).alarm == ""
    assert (await world.status()).alarm == "", "a person has seen it"
    world.publish(DOWN)
    await service.refresh(NAME, WHO)
    world.publish(p7b())
    assert "no anchor" in (await service.refresh(NAME, WHO)).alarm
    actions = [action for action, _ in await world.audited()]
    assert actions.count("bundle.refresh_failed") == 3, "the same failure again is no news"
    assert await world.trusted() == ders(1, 2)


async def test_a_bundle_that_cannot_be_had_for_long_raises_an_alarm(world: BundleWorld) -> None:
    service = await world.added(1)
    world.publish(DOWN)
    world.later(seconds=STALE_AFTER.total_seconds())
    assert (await service.refresh(NAME, WHO)).alarm == ""
    world.later(seconds=1)
    alarm = (await service.refresh(NAME, WHO)).alarm
    assert "last successful refresh was on 2026-03-01" in alarm
    await service.acknowledge(NAME, WHO)
    world.later(days=1)
    assert (await service.refresh(NAME, WHO)).alarm == ""
    assert await world.trusted() == ders(1)


@pytest.mark.parametrize(("kept", "alarmed"), [(8, False), (7, True), (0, True)])
async def test_mass_loss_is_taken_over_and_raises_an_alarm(
    world: BundleWorld, kept: int, alarmed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """TB-9 with TB-14: more than 20 percent gone is trusted no longer at once, and a person is told."""
    service = await world.added(*range(10))
    left = [*range(10 - kept, 10), 99]
    world.publish(bundle(*left))
    with caplog.at_level(logging.INFO):
        result = await service.refresh(NAME, WHO)
    assert result.outcome is Outcome.APPLIED
    assert await world.trusted() == ders(*left)
    wanted = f"{10 - kept} of 10 anchors of version 1 are gone" if alarmed else ""
    assert result.alarm == wanted
    assert (await world.status()).alarm == (f"{wanted} (2026-03-01)" if alarmed else "")
    assert ("bundle_anchors_missing" in caplog.text) is alarmed


async def test_an_alarm_stays_until_a_person_has_acknowledged_it(world: BundleWorld) -> None:
    service = await world.added(1, 2)
    for number, numbers in enumerate(((1,), (1, 5), (6,))):
        world.later(hours=10 * number)
        world.publish(bundle(*numbers))
        await service.refresh(NAME, WHO)
    alarm = "1 of 2 anchors of version 1 is gone (2026-03-01); 2 of 2 anchors of version 3 are gone (2026-03-02)"
    assert (await world.status()).alarm == alarm
    assert await service.acknowledge(NAME, WHO) == alarm
    assert await service.acknowledge(NAME, WHO) == ""
    status = await world.status()
    assert (status.alarm, status.last_success) == ("", NOW + timedelta(hours=30))
    assert (await world.audited()).count(("bundle.acknowledged", WHO)) == 1


async def test_anchors_that_expired_meanwhile_are_no_loss(world: BundleWorld) -> None:
    soon = certificate("soon", ends=NOW + timedelta(hours=1))
    world.publish(p7b(soon, anchor(1)))
    service = world.service()
    await service.add(SETTING, WHO)
    world.later(hours=2)
    world.publish(bundle(1))
    result = await service.refresh(NAME, WHO)
    assert (result.outcome, result.alarm) == (Outcome.APPLIED, "")
    assert await world.trusted() == ders(1)


async def test_the_percentage_is_a_setting(world: BundleWorld) -> None:
    await world.added(*range(10))
    world.publish(bundle(*range(5, 10)))
    assert (await world.service(alarm_percent=50).refresh(NAME, WHO)).alarm == ""


# --- signatures (TB-3) and replay ---


async def test_a_configured_signer_must_have_signed_each_content(world: BundleWorld) -> None:
    world.publish(signed(1, 2))
    service = world.service()
    await service.add(SIGNED, WHO)
    for number, (bad, words) in enumerate(
        [(bundle(1, 2, 3), "not signed"), (signed(1, 2, 3, slot=2), "not by the configured signer")]
    ):
        world.publish(bad)
        result = await service.refresh(NAME, WHO)
        assert (result.outcome, words in result.error, words in result.alarm) == (Outcome.FAILED, True, True), number
    world.publish(signed(1, 2, 3, hours_ago=0.5))
    assert (await service.refresh(NAME, WHO)).outcome is Outcome.APPLIED
    assert await world.trusted() == ders(1, 2, 3)


async def test_an_older_signed_content_is_a_replay_and_refused(world: BundleWorld) -> None:
    """Else whoever kept an old file would bring a withdrawn anchor back to life."""
    service = world.service()
    world.publish(signed(1, 2, 3, hours_ago=10))
    await service.add(SIGNED, WHO)
    world.publish(signed(1, 2, hours_ago=5))
    await service.refresh(NAME, WHO)
    for old in (signed(1, 2, 3, hours_ago=10), signed(4, 5, hours_ago=5.5)):
        world.publish(old)
        result = await service.refresh(NAME, WHO)
        assert result.outcome is Outcome.FAILED
        assert "--accept-older" in result.error
        assert result.alarm
        assert await world.trusted() == ders(1, 2)
        with pytest.raises(BundleError, match="replayed"):
            await service.diff(NAME)
    assert (await service.refresh(NAME, WHO, accept_older=True)).outcome is Outcome.APPLIED
    assert await world.trusted() == ders(4, 5)


async def test_the_same_file_again_is_a_replay_even_without_a_time(world: BundleWorld) -> None:
    def untimed(*numbers: int) -> bytes:
        return p7m(bundle(*numbers), publisher(), how=Signing(at=None))

    service = world.service()
    world.publish(untimed(1, 2))
    await service.add(SIGNED, WHO)
    world.publish(untimed(1))
    assert (await service.refresh(NAME, WHO)).outcome is Outcome.APPLIED
    world.publish(untimed(1, 2))
    result = await service.refresh(NAME, WHO)
    assert (result.outcome, "equals version 1" in result.error) == (Outcome.FAILED, True)


async def test_an_earlier_validity_is_a_replay_as_well(world: BundleWorld) -> None:
    def valid_from(day: int, *numbers: int) -> bytes:
        text = metadata(ValidFrom=f"2026-02-{day:02d}T00:00:00Z")
        return p7m(p7b(*map(anchor, numbers), content=text), publisher(), how=Signing(at=None))

    service = world.service()
    world.publish(valid_from(10, 1))
    await service.add(SIGNED, WHO)
    world.publish(valid_from(9, 2))
    assert (await service.refresh(NAME, WHO)).outcome is Outcome.FAILED
    world.publish(valid_from(10, 3))
    assert (await service.refresh(NAME, WHO)).outcome is Outcome.APPLIED


async def test_an_older_unsigned_content_is_taken_over_with_an_alarm(world: BundleWorld) -> None:
    """Nothing but the web server vouches for it, and its owner may have set it back."""
    service = await world.added(1, 2)
    world.publish(bundle(1, 2, 3))
    await service.refresh(NAME, WHO)
    world.publish(bundle(1, 2))
    result = await service.refresh(NAME, WHO)
    assert result.outcome is Outcome.APPLIED
    assert "equals version 1" in result.alarm
    assert await world.trusted() == ders(1, 2)


async def test_after_a_change_of_signer_the_old_times_prove_nothing(world: BundleWorld) -> None:
    service = world.service()
    world.publish(signed(1, hours_ago=1))
    await service.add(SIGNED, WHO)
    world.publish(signed(1, 2, hours_ago=5, slot=2))
    changed = replace(SETTING, signer=der(publisher(2)))
    assert (await service.add(changed, WHO, instead_of=SIGNED)).outcome is Outcome.APPLIED


# --- difference ---


async def test_a_difference_changes_nothing(world: BundleWorld) -> None:
    service = await world.added(1, 2)
    before = (await world.audited(), await world.status(), await world.store.read(lambda tx: tx.bundles.revision()))
    world.publish(p7b(anchor(2), anchor(3), certificate("leaf", is_ca=False)))
    for diff in (await service.diff(NAME), await service.diff(NAME, p7b(anchor(2), anchor(3)))):
        assert ([m.sha256 for m in diff.added], diff.version, diff.changes) == (
            [hashlib.sha256(der(anchor(3))).hexdigest()],
            1,
            True,
        )
        assert [m.subject for m in diff.removed] == ["CN=Anchor 1"]
        assert [m.subject for m in diff.kept] == ["CN=Anchor 2"]
        assert diff.kept[0].not_after == anchor(2).certificate.not_valid_after_utc
    assert [one.subject for one in (await service.diff(NAME)).refused] == ["CN=leaf"]
    assert not (await service.diff(NAME, bundle(1, 2))).changes
    assert before == (
        await world.audited(),
        await world.status(),
        await world.store.read(lambda tx: tx.bundles.revision()),
    )


# --- disabling ---


async def test_a_disabled_bundle_trusts_nobody_and_is_not_refreshed(world: BundleWorld) -> None:
    service = await world.added(1)
    await service.disable(NAME, WHO)
    await service.disable(NAME, WHO)
    assert await world.trusted() == []
    assert len(await world.versions()) == 1, "nothing is deleted"
    with pytest.raises(ConflictError, match="enable"):
        await service.refresh(NAME, WHO)
    assert [action for action, _ in await world.audited()].count("bundle.disabled") == 1


async def test_enabling_fetches_first(world: BundleWorld) -> None:
    """The last version may hold what was withdrawn since."""
    service = await world.added(1, 2)
    await service.disable(NAME, WHO)
    world.publish(DOWN)
    with pytest.raises(BundleError):
        await service.enable(NAME, WHO)
    assert await world.trusted() == []
    world.publish(bundle(2))
    assert (await service.enable(NAME, WHO)).version == 2
    assert await world.trusted() == ders(2)
    await service.disable(NAME, WHO)
    world.publish(DOWN)
    await service.enable(NAME, WHO, fetch=False)
    assert await world.trusted() == ders(2)


@pytest.mark.parametrize("action", ["refresh", "disable", "enable", "acknowledge"])
async def test_an_unknown_name_is_answered_with_the_known_ones(world: BundleWorld, action: str) -> None:
    service = world.service()
    with pytest.raises(NotFoundError, match="none yet"):
        await getattr(service, action)("nobody", WHO)
    await world.added(1)
    with pytest.raises(NotFoundError, match="there are: partners"):
        await getattr(service, action)("nobody", WHO)


# --- several at once ---


async def test_a_slower_refresh_does_not_undo_a_faster_one(world: BundleWorld) -> None:
    """The slow one fetched before the publisher changed the file, and commits after the fast one."""
    service = await world.added(1, 2)
    go, entered = threading.Event(), threading.Event()

    def slow() -> bytes:
        entered.set()
        assert go.wait(10)
        return bundle(1, 2, 3)

    world.publish(slow)
    waiting = asyncio.create_task(service.refresh(NAME, "slow"))
    await asyncio.to_thread(entered.wait, 10)
    world.publish(bundle(2))
    assert (await world.service().refresh(NAME, "fast")).outcome is Outcome.APPLIED
    go.set()
    result = await waiting
    assert (result.outcome, result.version) == (Outcome.SUPERSEDED, 2)
    assert await world.trusted() == ders(2)


class Slow:
    """A publication that takes until the test lets it go; what ``published`` is then comes out, or is raised."""

    def __init__(self, published: bytes | BundleError) -> None:
        self.published = published
        self.entered, self.go = threading.Event(), threading.Event()

    def __call__(self) -> bytes:
        self.entered.set()
        assert self.go.wait(10)
        if isinstance(self.published, BundleError):
            raise self.published
        return self.published


SIGNED_LATER = replace(SIGNED, location="https://signed.example/p.p7m")


@pytest.mark.parametrize("published", [bundle(8, 9), DOWN])
@pytest.mark.parametrize("change", ["signer", "signer, not fetched", "disabled"])
async def test_a_change_of_setting_during_a_refresh_counts(
    world: BundleWorld, published: bytes | BundleError, change: str
) -> None:
    """What was fetched without a signer must not come into force under a setting with one, nor its error."""
    service = await world.added(1, 2)
    slow = Slow(published)
    world.publish(slow)
    waiting = asyncio.create_task(service.refresh(NAME, "slow"))
    await asyncio.to_thread(slow.entered.wait, 10)
    world.publish(signed(1, 2), SIGNED_LATER.location)
    if change == "disabled":
        await world.service().disable(NAME, WHO)
    else:
        await world.service().add(SIGNED_LATER, WHO, instead_of=SETTING, fetch="not" not in change)
    slow.go.set()
    assert (await waiting).outcome is Outcome.SUPERSEDED
    assert await world.trusted() == ([] if change == "disabled" else ders(1, 2))
    assert all(list(version.anchors) == ders(1, 2) for version in await world.versions())
    assert (await world.status()).error == ""


async def test_a_setting_does_not_come_into_force_with_a_content_that_was_overtaken(world: BundleWorld) -> None:
    service = await world.added(1, 2)
    slow = Slow(bundle(1, 2, 3))
    world.publish(slow, "https://new.example/")
    changed = replace(SETTING, location="https://new.example/")
    waiting = asyncio.create_task(service.add(changed, WHO, instead_of=SETTING))
    await asyncio.to_thread(slow.entered.wait, 10)
    world.publish(bundle(2))
    await world.service().refresh(NAME, "fast")
    slow.go.set()
    with pytest.raises(ConflictError, match="try again"):
        await waiting
    assert (await service.get(NAME)).setting == SETTING
    assert await world.trusted() == ders(2)


async def test_enabling_does_not_bring_back_a_setting_that_was_changed_meanwhile(world: BundleWorld) -> None:
    service = await world.added(1, 2)
    await service.disable(NAME, WHO)
    slow = Slow(bundle(1, 2))
    world.publish(slow)
    waiting = asyncio.create_task(service.enable(NAME, WHO))
    await asyncio.to_thread(slow.entered.wait, 10)
    await world.service().add(
        replace(SIGNED_LATER, enabled=False), WHO, instead_of=replace(SETTING, enabled=False), fetch=False
    )
    slow.go.set()
    with pytest.raises(ConflictError, match="try again"):
        await waiting
    assert (await service.get(NAME)).setting == replace(SIGNED_LATER, enabled=False)


async def test_two_services_apply_one_content_once(world: BundleWorld) -> None:
    await world.added(1, 2)
    barrier = threading.Barrier(2)

    def together() -> bytes:
        barrier.wait(10)
        return bundle(2, 3)

    world.publish(together)
    results = await asyncio.gather(*(world.service().refresh(NAME, f"node {n}") for n in range(2)))
    assert sorted(one.outcome.value for one in results) == ["applied", "superseded"]
    assert len(await world.versions()) == 2
    assert len([1 for action, _ in await world.audited() if action == "bundle.refreshed"]) == 2


async def test_a_claim_is_given_once(world: BundleWorld) -> None:
    await world.added(1)
    seen = await world.status()
    world.later(hours=25)
    claims = await asyncio.gather(*(world.service().claim(seen) for _ in range(5)))
    assert sorted(claims) == [False] * 4 + [True]
    assert (await world.status()).last_success == NOW


# --- crashes ---


async def test_a_commit_that_fails_leaves_the_last_good_whole(
    world: BundleWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await world.added(1, 2)
    before = (await world.audited(), await world.status())
    world.publish(bundle(3))

    def full(*_: object, **__: object) -> None:
        raise StoreError("no space is left for the store")

    with monkeypatch.context() as patch:
        patch.setattr("gateway.store.audit_log.AuditLog.add", full)
        with pytest.raises(StoreError):
            await service.refresh(NAME, WHO)
    assert await world.trusted() == ders(1, 2)
    assert before == (await world.audited(), await world.status())


def _dies(folder: str, when: str) -> None:
    """Refresh in a process of its own that is killed after the download, or within the transaction."""

    def kill(*_: object, **__: object) -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        return b""

    async def go() -> None:
        with open_store(Path(folder)) as store:
            publishers = Publishers({SETTING.location: bundle(7)})
            service = TrustBundles(store, SteadyClock(NOW), publishers)
            if when == "fetch":
                publishers.files[SETTING.location] = kill
                await service.refresh(NAME, WHO)

            def work(tx: UnitOfWork) -> None:
                tx.bundles.add_version(NAME, NOW, bundle(7), [der(anchor(7))])
                kill()

            await store.write(work)

    asyncio.run(go())


@pytest.mark.parametrize("when", ["fetch", "commit"])
def test_a_process_that_is_killed_leaves_the_last_good(tmp_path: Path, when: str) -> None:
    async def prepare() -> None:
        with open_store(tmp_path) as store:
            await BundleWorld(store).added(1, 2)

    asyncio.run(prepare())
    process = multiprocessing.get_context("spawn").Process(target=_dies, args=(str(tmp_path), when))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL

    async def look() -> None:
        with open_store(tmp_path) as store:
            world = BundleWorld(store)
            assert await world.trusted() == ders(1, 2)
            assert [one.version for one in await world.versions()] == [1]
            assert await world.audited()

    asyncio.run(look())
