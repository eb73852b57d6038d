"""Strangers who sign beside a revoked sender must not use up the fetches that show the revocation (AS-55, AS-75)."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID

from gateway.core.verdict import Reason
from gateway.sta.certificates import Certificate
from gateway.sta.evidence import Evidence
from gateway.sta.fetching.fetcher import Fetcher
from gateway.sta.revocation.revocation import RevocationCheck, RevocationSource
from gateway.sta.trust import TrustExamination
from gateway.sta.trust_anchors.anchors import AnchorStore
from tests.unit.sta.conftest import Web, web
from tests.unit.sta.trust_world import CA, NOW, RCPT, World, certificate_of, crl_at

__all__ = ["web"]
LOOPBACK = ["127.0.0.0/8"]


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def _stranger(site: Web, number: int) -> Certificate:
    """A signer whose certificate names as many places for its issuer as are asked."""
    urls = [site.url(f"/issuer-{number}-{n}") for n in range(3)]
    access = x509.AuthorityInformationAccess(
        [
            x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier(url))
            for url in urls
        ]
    )
    return certificate_of(CA.root(f"Nobody's CA {number}", 2).issue(extra=[(access, False)]))


def _check(source: RevocationSource) -> RevocationCheck:
    return RevocationCheck(source, Fetcher.within(LOOPBACK).session(), NOW)


def test_strangers_do_not_use_up_what_revocation_needs(world: World, web: Web) -> None:
    revoked = world.community.issue(extra=[(crl_at(web.url("/list.crl")), False)])
    web.replies["/list.crl"] = world.community.crl([revoked])
    signers = [_stranger(web, 1), _stranger(web, 2), certificate_of(revoked)]
    examination = TrustExamination(NOW, _check(RevocationSource()), (), Evidence())
    decision = examination.decide(RCPT, signers, AnchorStore((world.community.certificate,)).anchors_for(RCPT))
    assert "/list.crl" in web.asked
    assert decision.reason is Reason.REVOKED


def test_a_forged_list_does_not_stay_in_the_cache(world: World, web: Web) -> None:
    """Whoever once answered in the place of the distribution point must not hide the real list for years."""
    revoked = world.community.issue(extra=[(crl_at(web.url("/list.crl")), False)])
    path = (certificate_of(revoked), world.community.certificate)
    source = RevocationSource()
    stranger_key = world.stranger.identity.key
    web.replies["/list.crl"] = world.community.crl(key=stranger_key, ends=NOW + timedelta(days=3000))
    assert [f.status for f in _check(source).check(path)] == ["unknown"]
    web.replies["/list.crl"] = world.community.crl([revoked])
    assert [f.status for f in _check(source).check(path)] == ["revoked"]
    assert web.asked == ["/list.crl", "/list.crl"]
    assert [f.status for f in _check(source).check(path)] == ["revoked"]
    assert len(web.asked) == 2, "a list whose signature holds is kept"
