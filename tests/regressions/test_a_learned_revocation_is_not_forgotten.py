"""A revocation is final: neither a dead server, nor a nextUpdate, nor a reload takes it back (AS-55, AS-70)."""

from __future__ import annotations

from datetime import datetime

import pytest
from cryptography import x509
from cryptography.x509 import ocsp

from gateway.sta.fetching.reply_cache import FAILURE_SECONDS, ReplyCache
from gateway.sta.revocation.findings import Finding
from gateway.sta.revocation.revocation import RevocationSource
from tests.unit.sta.conftest import Web, web
from tests.unit.sta.revocation_world import DAY, Scene, ask
from tests.unit.sta.trust_world import NOW, World, certificate_of, crl_at

__all__ = ["web"]


@pytest.fixture(scope="module")
def world() -> World:
    return World()


class Point:
    """A sender whose list is served at ``/c.crl``, and what a gateway knows that has asked there."""

    def __init__(self, world: World, web: Web) -> None:
        self.signer = world.community.issue(extra=[(crl_at(web.url("/c.crl")), False)])
        self.now = 0.0
        self.source = RevocationSource(cache=ReplyCache(lambda: self.now))
        self.path = (certificate_of(self.signer), world.community.certificate)

    def ask(self, at: datetime = NOW) -> Finding:
        return ask(self.source, self.path, at)


@pytest.mark.parametrize("served", [None, b"<html>gone</html>"], ids=["nothing", "no-list"])
def test_a_list_past_its_time_still_revokes_when_no_other_is_to_be_had(
    world: World, web: Web, served: bytes | None
) -> None:
    point = Point(world, web)
    web.replies["/c.crl"] = world.community.crl([point.signer], ends=NOW + 6 * DAY)
    assert point.ask().status == "revoked"
    del web.replies["/c.crl"]
    if served is not None:
        web.replies["/c.crl"] = served
    point.now += 7 * 86_400
    for _ in range(2):
        late = point.ask(NOW + 7 * DAY)
        assert late.status == "revoked"
        assert late.answer.origin == web.url("/c.crl")
    assert len(web.asked) == 2, "the dead server is not asked for each message"


def test_a_list_past_its_time_clears_nobody_and_holds_nobody(world: World, web: Web) -> None:
    for revoked, reason, before in (
        ([], None, "good"),
        (None, x509.ReasonFlags.certificate_hold, "revoked"),
    ):
        point = Point(world, web)
        entries = [point.signer] if revoked is None else []
        web.replies["/c.crl"] = world.community.crl(entries, ends=NOW + 6 * DAY, reason=reason)
        assert point.ask().status == before
        del web.replies["/c.crl"]
        point.now += 7 * 86_400
        late = point.ask(NOW + 7 * DAY)
        assert late.status == "unknown"
        assert "the server answered 404" in late.detail


def test_a_newer_list_in_force_is_believed_before_the_one_that_ran_out(world: World, web: Web) -> None:
    point = Point(world, web)
    web.replies["/c.crl"] = world.community.crl([point.signer], ends=NOW + DAY)
    assert point.ask().status == "revoked"
    point.now += 2 * 86_400
    web.replies["/c.crl"] = world.community.crl(begins=NOW + DAY, ends=NOW + 6 * DAY)
    assert point.ask(NOW + 2 * DAY).status == "good"


def test_a_forgery_in_the_place_of_the_list_does_not_hide_what_was_learned(world: World, web: Web) -> None:
    point = Point(world, web)
    web.replies["/c.crl"] = world.community.crl([point.signer], ends=NOW + DAY)
    assert point.ask().status == "revoked"
    point.now += 2 * 86_400
    forger = world.stranger.identity.key
    web.replies["/c.crl"] = world.community.crl(begins=NOW + DAY, ends=NOW + 6 * DAY, key=forger)
    assert point.ask(NOW + 2 * DAY).status == "revoked"


@pytest.mark.parametrize("served", [None, b"no answer at all"], ids=["nothing", "no-answer"])
def test_an_answer_past_its_time_still_revokes(world: World, web: Web, served: bytes | None) -> None:
    scene = Scene.build(world.community, web)
    scene.serve(scene.good.but(status=ocsp.OCSPCertStatus.REVOKED))
    assert scene.ask().status == "revoked"
    del web.replies["/ocsp"]
    if served is not None:
        scene.serve(served)
    assert scene.ask(NOW + 7 * DAY).status == "revoked"


def test_an_answer_past_its_time_clears_nobody(world: World, web: Web) -> None:
    scene = Scene.build(world.community, web)
    scene.serve(scene.good)
    assert scene.ask().status == "good"
    del web.replies["/ocsp"]
    assert scene.ask(NOW + 7 * DAY).status == "unknown"


def test_what_was_learned_is_carried_over_a_reload_of_the_lists(world: World, web: Web) -> None:
    point = Point(world, web)
    web.replies["/c.crl"] = world.community.crl([point.signer])
    assert point.ask().status == "revoked"
    del web.replies["/c.crl"]
    point.source = point.source.with_crls([])
    assert point.ask().status == "revoked"
    point.now += FAILURE_SECONDS
    point.source = RevocationSource(())
    assert point.ask().status == "unknown", "a new cache knows nothing"


def test_two_keys_of_one_authority_at_one_url_are_kept_apart(world: World, web: Web) -> None:
    """After it changed its key: the list that the new key signed says nothing of what the old one issued."""
    renewed = type(world.community).root("Community CA", 61)
    old = Point(world, web)
    new = renewed.issue(extra=[(crl_at(web.url("/c.crl")), False)])
    web.replies["/c.crl"] = renewed.crl([new])
    path = (certificate_of(new), renewed.certificate)
    assert ask(old.source, path).status == "revoked"
    web.replies["/c.crl"] = world.community.crl([old.signer])
    assert old.ask().status == "revoked"
    assert ask(old.source, path).status == "revoked"
    assert len(web.asked) == 2
