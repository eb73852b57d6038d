"""Whoever stands on the way may serve again what was signed last week: a revocation that is known stays (AS-70)."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509 import ocsp

from gateway.sta.fetching.reply_cache import MAX_AGE_SECONDS, ROLLBACK_SECONDS, ReplyCache
from gateway.sta.revocation.revocation import RevocationSource
from tests.unit.sta.conftest import Web, web
from tests.unit.sta.revocation_world import DAY, HOUR, Scene, ask
from tests.unit.sta.trust_world import NOW, World, certificate_of, crl_at

__all__ = ["web"]


@pytest.fixture(scope="module")
def world() -> World:
    return World()


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def _number(value: int) -> tuple[tuple[x509.ExtensionType, bool], ...]:
    return ((x509.CRLNumber(value), False),)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source(clock: Clock) -> RevocationSource:
    found = RevocationSource()
    found.cache = ReplyCache(clock)
    return found


class Listed:
    """A sender whose list is served at ``/c.crl``."""

    def __init__(self, world: World, web: Web, source: RevocationSource, clock: Clock) -> None:
        self.signer = world.community.issue(extra=[(crl_at(web.url("/c.crl")), False)])
        self.path = (certificate_of(self.signer), world.community.certificate)
        self.world, self.web, self.source, self.clock = world, web, source, clock

    def serve(
        self, *, revoked: bool, begins: datetime, ends: datetime = NOW + 6 * DAY, number: int | None = None
    ) -> None:
        entries = [self.signer] if revoked else []
        extra = () if number is None else _number(number)
        self.web.replies["/c.crl"] = self.world.community.crl(entries, begins=begins, ends=ends, extra=extra)

    def status(self, at: datetime = NOW) -> str:
        return ask(self.source, self.path, at).status

    def tomorrow(self) -> None:
        self.clock.now += MAX_AGE_SECONDS


@pytest.fixture
def listed(world: World, web: Web, source: RevocationSource, clock: Clock) -> Listed:
    return Listed(world, web, source, clock)


def test_an_older_list_does_not_take_back_a_revocation(listed: Listed, web: Web, clock: Clock) -> None:
    listed.serve(revoked=True, begins=NOW - DAY)
    assert listed.status() == "revoked"
    listed.tomorrow()
    listed.serve(revoked=False, begins=NOW - 3 * DAY)
    assert listed.status() == "revoked"
    assert len(web.asked) == 2
    assert listed.status() == "revoked"
    assert len(web.asked) == 2, "not asked for each message"
    clock.now += ROLLBACK_SECONDS
    listed.serve(revoked=True, begins=NOW - HOUR)
    assert listed.status() == "revoked"
    assert len(web.asked) == 3, "but soon again"
    clock.now += MAX_AGE_SECONDS - 1
    assert listed.status() == "revoked"
    assert len(web.asked) == 3


def test_the_number_tells_older_lists_as_well(listed: Listed) -> None:
    listed.serve(revoked=True, begins=NOW - DAY, number=8)
    assert listed.status() == "revoked"
    listed.tomorrow()
    listed.serve(revoked=False, begins=NOW - DAY, number=7)
    assert listed.status() == "revoked"


def test_a_later_list_that_lifts_nothing_but_is_clean_counts(listed: Listed) -> None:
    """An authority that corrects itself is believed: later, and numbered higher."""
    listed.serve(revoked=True, begins=NOW - DAY, number=8)
    assert listed.status() == "revoked"
    listed.tomorrow()
    listed.serve(revoked=False, begins=NOW - HOUR, number=9)
    assert listed.status() == "good"


def test_an_authority_that_counts_anew_is_heard_when_the_kept_list_has_run_out(listed: Listed) -> None:
    listed.serve(revoked=False, begins=NOW - DAY, ends=NOW + DAY, number=900)
    assert listed.status() == "good"
    listed.serve(revoked=False, begins=NOW + DAY, number=1)
    assert listed.status(NOW + 2 * DAY) == "good"


def test_a_list_dated_in_the_future_does_not_lock_out_its_successors(listed: Listed) -> None:
    listed.serve(revoked=False, begins=NOW + 3000 * DAY, ends=NOW + 3010 * DAY)
    assert listed.status() == "unknown"
    listed.tomorrow()
    listed.serve(revoked=True, begins=NOW - HOUR)
    assert listed.status() == "revoked"


def test_an_older_list_that_is_served_after_the_later_one_ran_out_does_not_clear(listed: Listed) -> None:
    listed.serve(revoked=True, begins=NOW - DAY, ends=NOW + DAY)
    assert listed.status() == "revoked"
    listed.tomorrow()
    listed.serve(revoked=False, begins=NOW - 3 * DAY, ends=NOW + 20 * DAY)
    assert listed.status(NOW + 2 * DAY) == "revoked"


# --- OCSP ---


@pytest.fixture
def scene(world: World, web: Web, source: RevocationSource) -> Scene:
    scene = Scene.build(world.community, web)
    scene.source = source
    return scene


@pytest.mark.parametrize("earlier", [timedelta(0), timedelta(minutes=30)], ids=["equal", "older"])
def test_a_good_answer_that_is_not_newer_does_not_take_back_a_revocation(
    scene: Scene, clock: Clock, earlier: timedelta
) -> None:
    scene.serve(scene.good.but(status=ocsp.OCSPCertStatus.REVOKED, next_update=NOW + 6 * DAY))
    assert scene.ask().status == "revoked"
    clock.now += MAX_AGE_SECONDS
    scene.serve(scene.good.but(this_update=NOW - HOUR - earlier, next_update=NOW + 6 * DAY))
    assert scene.ask().status == "revoked"


def test_a_newer_good_answer_counts(scene: Scene, clock: Clock) -> None:
    scene.serve(scene.good.but(status=ocsp.OCSPCertStatus.REVOKED, next_update=NOW + 6 * DAY))
    assert scene.ask().status == "revoked"
    clock.now += MAX_AGE_SECONDS
    scene.serve(scene.good.but(this_update=NOW - timedelta(minutes=1), next_update=NOW + 6 * DAY))
    assert scene.ask().status == "good"


def test_a_hold_is_lifted_by_an_answer_of_the_same_time(scene: Scene, clock: Clock) -> None:
    hold = x509.ReasonFlags.certificate_hold
    scene.serve(scene.good.but(status=ocsp.OCSPCertStatus.REVOKED, reason=hold, next_update=NOW + 6 * DAY))
    assert scene.ask().status == "revoked"
    clock.now += MAX_AGE_SECONDS
    scene.serve(scene.good.but(next_update=NOW + 6 * DAY))
    assert scene.ask().status == "good"
