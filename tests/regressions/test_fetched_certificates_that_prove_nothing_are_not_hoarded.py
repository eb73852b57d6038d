"""What a refused message made us fetch is not kept with it without bound.

A message of 3 KB led to 430 KB of certificates of a stranger's choice, kept for ever.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from gateway.core.verdict import Reason
from gateway.sta.evidence import Evidence
from gateway.sta.fetching.fetcher import Fetcher
from gateway.sta.revocation.revocation import RevocationCheck, RevocationSource
from gateway.sta.trust import MAX_FETCHED_BYTES_OF_REFUSED, TrustExamination
from gateway.sta.trust_anchors.anchors import AnchorStore
from tests.support.bundle_files import p7b
from tests.support.pki import Identity, rsa_key
from tests.support.web_sites import WebSite, web_site
from tests.unit.sta.trust_world import CA, NOW, RCPT, World, certificate_of, issuers_at, name

_PADDING = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x04\x82\xea\x60" + b"x" * 60_000)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture
def web() -> Iterator[WebSite]:
    with web_site() as site:
        yield site


def _padded(issuer: CA, subject: str, slot: int) -> CA:
    key = rsa_key(slot)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(issuer.identity.certificate.subject)
        .public_key(key.public_key())
        .serial_number(slot)
        .not_valid_before(NOW.replace(year=NOW.year - 1))
        .not_valid_after(NOW.replace(year=NOW.year + 1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_PADDING, critical=False)
    )
    return CA(Identity(builder.sign(issuer.identity.key, hashes.SHA256()), key))


def _kept(top: CA, trusted: CA, web: WebSite, *, levels: int = 5) -> tuple[Reason, int]:
    """The reason, and the bytes of certificates in the evidence of a message that carries its signer only."""
    chain = []
    for level in range(levels):
        top = _padded(top, f"Evil {level}", 60 + level)
        chain.append(top.identity)
    web.answers["/p7c"] = p7b(*chain)
    leaf = certificate_of(top.issue(extra=[(issuers_at(web.url("/p7c")), False)]))
    evidence = Evidence()
    check = RevocationCheck(RevocationSource(), Fetcher.within(["127.0.0.0/8"]).session(), NOW)
    anchors = AnchorStore([trusted.certificate]).anchors_for(RCPT)
    decision = TrustExamination(NOW, check, [leaf], evidence).decide(RCPT, [leaf], anchors)
    assert leaf.der in evidence.certificates
    return decision.reason, sum(map(len, evidence.certificates)) - len(leaf.der)


def test_of_a_chain_that_leads_nowhere_little_is_kept(world: World, web: WebSite) -> None:
    reason, kept = _kept(CA.root("Evil", 59), world.community, web)
    assert reason is Reason.UNTRUSTED
    assert kept <= MAX_FETCHED_BYTES_OF_REFUSED


def test_of_a_refused_chain_that_leads_to_an_anchor_little_is_kept(world: World, web: WebSite) -> None:
    """The holder of a genuine certificate plays the authority with it."""
    genuine = CA(world.community.issue("mallory@evil.example", slot=58))
    web.answers["/own"] = p7b(genuine.identity)
    between = _padded(genuine, "Evil", 60)
    reason, kept = _kept(between, world.community, web, levels=3)
    assert reason is Reason.UNTRUSTED
    assert kept <= MAX_FETCHED_BYTES_OF_REFUSED + len(world.community.certificate.der)


def test_of_an_ordinary_chain_the_way_up_is_kept(world: World, web: WebSite) -> None:
    """Whoever asks later which authority was missing still finds it."""
    below = world.stranger.below("Agency of Strangers", 54)
    web.answers["/p7c"] = p7b(below.identity)
    leaf = certificate_of(below.issue(extra=[(issuers_at(web.url("/p7c")), False)]))
    evidence = Evidence()
    check = RevocationCheck(RevocationSource(), Fetcher.within(["127.0.0.0/8"]).session(), NOW)
    anchors = AnchorStore([world.community.certificate]).anchors_for(RCPT)
    decision = TrustExamination(NOW, check, [leaf], evidence).decide(RCPT, [leaf], anchors)
    assert decision.reason is Reason.UNTRUSTED
    assert below.certificate.der in evidence.certificates


def test_of_an_accepted_message_the_whole_chain_is_kept(world: World, web: WebSite) -> None:
    first = _padded(world.community, "Large", 60)
    second = _padded(first, "Larger", 61)
    web.answers["/p7c"] = p7b(first.identity, second.identity)
    leaf = certificate_of(second.issue(extra=[(issuers_at(web.url("/p7c")), False)]))
    evidence = Evidence()
    check = RevocationCheck(RevocationSource(), Fetcher.within(["127.0.0.0/8"]).session(), NOW)
    anchors = AnchorStore([world.community.certificate]).anchors_for(RCPT)
    decision = TrustExamination(NOW, check, [leaf], evidence).decide(RCPT, [leaf], anchors)
    assert decision.reason is Reason.OK
    assert {first.certificate.der, second.certificate.der} <= set(evidence.certificates)
