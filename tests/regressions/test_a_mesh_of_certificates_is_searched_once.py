"""A stranger's mesh of certificates costs a bounded search for each signer, however many recipients there are.

It was searched anew for each set of anchors, and the anchors were gone through one by one (S/MIME rule 16, AS-56).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from gateway.core.verdict import Reason
from gateway.sta.certificates import Certificate, signed_by
from gateway.sta.evidence import Evidence
from gateway.sta.fetching.fetcher import Fetcher
from gateway.sta.paths import path_building
from gateway.sta.paths.path_building import MAX_SIGNATURE_CHECKS, MAX_STEPS, BySubject
from gateway.sta.revocation.revocation import RevocationCheck, RevocationSource
from gateway.sta.trust import TrustExamination
from gateway.sta.trust_anchors.anchors import AnchorStore
from tests.support.pki import Key, ec_key
from tests.unit.sta.trust_world import CA, NOW, World, certificate_of, name

RECIPIENTS = [f"a{number}@d{number}.example" for number in range(50)]
SIGNERS = 8


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def _certified(subject: str, key: Key, issuer: str, issuer_key: Key, serial: int, *, is_ca: bool = True) -> Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(NOW.replace(year=NOW.year - 1))
        .not_valid_after(NOW.replace(year=NOW.year + 1))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    )
    return Certificate(builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.DER))


def _mesh() -> tuple[list[Certificate], list[Certificate]]:
    """Authorities of one name that certify each other, and signers below them."""
    keys = [ec_key(700 + number) for number in range(5)]
    pairs = [(a, b) for a in keys for b in keys if a is not b][:16]
    mesh = [_certified("Mesh", a, "Mesh", b, serial) for serial, (a, b) in enumerate(pairs, 1)]
    leaf_key = ec_key(710)
    leaves = [_certified(f"leaf {n}", leaf_key, "Mesh", keys[n % 5], 1000 + n, is_ca=False) for n in range(SIGNERS)]
    return mesh, leaves


def _examination(untrusted: Iterable[Certificate]) -> TrustExamination:
    check = RevocationCheck(RevocationSource(), Fetcher().session(), NOW)
    return TrustExamination(NOW, check, list(untrusted), Evidence())


def _crowd(number: int) -> list[Certificate]:
    """Many other anchors."""
    key = ec_key(720)
    return [_certified(f"Anchor {n}", key, f"Anchor {n}", key, n + 1) for n in range(number)]


def test_a_mesh_costs_the_same_for_one_recipient_and_for_fifty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it costs is counted: a time would also tell what else the machine and the garbage collector do."""
    done: Counter[str] = Counter()
    named = path_building._named

    def counted_check(subject: Certificate, issuer: Certificate) -> bool | None:
        done["checks"] += 1
        return signed_by(subject, issuer)

    def counted_look(subject: Certificate, pool: BySubject, at: datetime | None = None) -> list[Certificate]:
        done["looks"] += 1
        done["looked at"] += len(pool.get(subject.issuer_key, ()))
        return named(subject, pool, at)

    monkeypatch.setattr(path_building, "signed_by", counted_check)
    monkeypatch.setattr(path_building, "_named", counted_look)
    mesh, leaves = _mesh()
    store = AnchorStore(_crowd(300), {one: [CA.root(f"Own {one}", 1).certificate] for one in RECIPIENTS})
    for owner in RECIPIENTS:
        _ = store.anchors_for(owner).name
    spent: list[Counter[str]] = []
    for recipients in (RECIPIENTS[:1], RECIPIENTS):
        done.clear()
        examination = _examination([*mesh, *leaves])
        decisions = [examination.decide(one, leaves, store.anchors_for(one)) for one in recipients]
        assert {decision.reason for decision in decisions} == {Reason.UNTRUSTED}
        spent.append(Counter(done))
    one, fifty = spent
    assert 0 < one["checks"] <= SIGNERS * MAX_SIGNATURE_CHECKS
    assert 0 < one["looks"] <= SIGNERS * MAX_STEPS
    assert fifty == one


def test_the_good_signer_is_trusted_behind_seven_in_a_mesh(world: World) -> None:
    mesh, leaves = _mesh()
    signers = [*leaves[:-1], certificate_of(world.signer)]
    store = AnchorStore(
        [world.community.certificate], {one: [CA.root(f"Own {one}", 1).certificate] for one in RECIPIENTS}
    )
    examination = _examination([*mesh, *signers])
    for one in RECIPIENTS:
        assert examination.decide(one, signers, store.anchors_for(one)).reason is Reason.OK


def test_every_one_of_many_recipients_reaches_an_anchor_of_their_own(world: World) -> None:
    """Each recipient has another certificate of the same authority as the anchor; nobody comes too late."""
    below = world.community.below("Below", 54)
    leaf = certificate_of(below.issue())
    recipients = [f"a{number}@many.example" for number in range(120)]
    store = AnchorStore(own={one: [CA.root("Community CA", 1).certificate] for one in recipients})
    examination = _examination([below.certificate, leaf])
    for one in recipients:
        decision = examination.decide(one, [leaf], store.anchors_for(one))
        assert decision.reason is Reason.OK
        assert decision.anchor_sha256 == store.anchors_for(one)[0].certificate.sha256


def test_what_is_fetched_for_one_recipient_serves_the_next(world: World) -> None:
    """One recipient's anchor is the fetched issuer itself, the other's lies one more fetch above it."""
    from gateway.sta.paths.path_building import PathSearch, by_subject

    upper = world.community.below("Upper", 55)
    lower = upper.below("Lower", 54)
    leaf = certificate_of(lower.issue())
    asked: list[Certificate] = []

    def fetch(certificate: Certificate) -> list[Certificate]:
        asked.append(certificate)
        return [lower.certificate] if certificate == leaf else [upper.certificate]

    search = PathSearch(leaf, [], NOW, fetch)
    assert search.paths(by_subject([lower.certificate])) == [(leaf, lower.certificate)]
    assert asked == []
    assert search.paths(by_subject([upper.certificate])) == [(leaf, lower.certificate, upper.certificate)]
    assert asked == [leaf]
    root = world.community.certificate
    whole = [(leaf, lower.certificate, upper.certificate, root)]
    assert search.paths(by_subject([root])) == whole
    assert search.paths(by_subject([root])) == whole
    assert asked == [leaf, lower.certificate]
    assert search.paths(by_subject([lower.certificate])) == [(leaf, lower.certificate)]
