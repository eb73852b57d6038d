"""Which certificates of recipients a sender may use (AS-12, AS-68, AS-72, AS-77)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.x509.oid import ExtendedKeyUsageOID

from gateway.core.errors import InputError
from gateway.core.trust import BOTH_DIRECTIONS, AnchorBundle, Direction
from gateway.core.verdict import Reason, RecipientTrust
from gateway.sta.algorithm_policy import AlgorithmPolicy
from gateway.sta.evidence import Evidence
from gateway.sta.outbound import RecipientCertificates
from gateway.sta.revocation.crls import RevocationList
from gateway.sta.revocation.revocation import RevocationSource
from gateway.sta.trust_anchors.anchors import AnchorStore
from gateway.sta.trust_policy import TrustPolicy
from tests.support.pki import Identity
from tests.unit.sta.trust_world import CA, NOW, World, certificate_of, usage

FAR = "jane@direct.sender.example"
ANN = "ann@direct.clinic.example"
SOFT = TrustPolicy()
HARD = TrustPolicy(hard_revocation=frozenset({Direction.OUTBOUND}))
ENCRYPTS, AGREES = usage(key_encipherment=True), usage(key_agreement=True)
SIGNS = usage(digital_signature=True)


def _judge(
    world: World,
    identity: Identity,
    *,
    recipient: str = FAR,
    sender: str = ANN,
    anchors: AnchorStore | None = None,
    crls: tuple[bytes, ...] = (),
    policy: TrustPolicy = SOFT,
    evidence: Evidence | None = None,
    others: tuple[CA, ...] = (),
) -> RecipientTrust:
    store = anchors if anchors is not None else AnchorStore((world.community.certificate,))
    judges = RecipientCertificates(store, RevocationSource([RevocationList(der) for der in crls]), policy=policy)
    found = [ca.certificate for ca in others]
    return judges.judge(certificate_of(identity), recipient, sender, NOW, others=found, evidence=evidence)


def test_a_fit_and_trusted_certificate_may_be_used_and_says_why(world: World) -> None:
    identity = world.community.issue(key_usage=ENCRYPTS)
    evidence = Evidence()
    answer = _judge(world, identity, crls=(world.community.crl(),), policy=HARD, evidence=evidence)
    assert (answer.reason, answer.recipient) == (Reason.OK, FAR)
    assert answer.anchor_sha256 == world.community.certificate.sha256
    assert answer.anchor_sources == ("folder",)
    assert [c.name for c in evidence.checks] == ["binding", "key usage", "path", "revocation"]
    assert [a.status for a in evidence.revocation] == ["good"]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (FAR, Reason.OK),
        ("direct.sender.example", Reason.OK),
        ("JANE@Direct.Sender.Example", Reason.OK),
        ("john@direct.sender.example", Reason.BINDING_MISMATCH),
        ("sender.example", Reason.BINDING_MISMATCH),
        ("*.sender.example", Reason.BINDING_MISMATCH),
        ([], Reason.BINDING_MISMATCH),
    ],
)
def test_the_certificate_must_be_that_of_the_recipient(world: World, names: Any, reason: Reason) -> None:
    assert _judge(world, world.community.issue(names)).reason is reason


_KEYS: dict[str, Any] = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "x25519": x25519.X25519PrivateKey.generate,
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "rsa1024": lambda: rsa.generate_private_key(65537, 1024),  # noqa: S505 - a forbidden one is wanted
    "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa3": lambda: rsa.generate_private_key(3, 2048),
}


@pytest.mark.parametrize(
    ("kind", "key_usage", "reason"),
    [
        ("rsa2048", None, Reason.OK),
        ("rsa2048", ENCRYPTS, Reason.OK),
        ("rsa2048", SIGNS, Reason.KEY_USAGE),
        ("rsa2048", AGREES, Reason.KEY_USAGE),
        ("rsa1024", ENCRYPTS, Reason.WEAK_ALGORITHM),
        ("rsa3", ENCRYPTS, Reason.WEAK_ALGORITHM),
        ("p256", AGREES, Reason.OK),
        ("p384", None, Reason.OK),
        ("p256", ENCRYPTS, Reason.KEY_USAGE),
        ("p521", AGREES, Reason.WEAK_ALGORITHM),
        ("x25519", AGREES, Reason.OK),
        ("ed25519", None, Reason.WEAK_ALGORITHM),
    ],
)
def test_the_key_must_be_one_to_encrypt_to(
    world: World, kind: str, key_usage: x509.KeyUsage | None, reason: Reason
) -> None:
    identity = world.community.issue(key=_KEYS[kind](), key_usage=key_usage)
    assert _judge(world, identity).reason is reason


def test_the_size_of_keys_that_the_operator_asks_for_counts(world: World) -> None:
    policy = TrustPolicy(AlgorithmPolicy(min_rsa_bits=3072))
    assert _judge(world, world.community.issue(), policy=policy).reason is Reason.WEAK_ALGORITHM


@pytest.mark.parametrize(
    ("purpose", "reason"),
    [
        (ExtendedKeyUsageOID.EMAIL_PROTECTION, Reason.OK),
        (ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE, Reason.OK),
        (ExtendedKeyUsageOID.SERVER_AUTH, Reason.KEY_USAGE),
    ],
)
def test_the_certificate_must_be_for_mail(world: World, purpose: x509.ObjectIdentifier, reason: Reason) -> None:
    assert _judge(world, world.community.issue(purposes=[purpose])).reason is reason


def test_an_authority_is_no_recipient(world: World) -> None:
    assert _judge(world, world.community.issue(is_ca=True)).reason is Reason.KEY_USAGE


def test_dates_and_untrusted_issuers_refuse(world: World) -> None:
    stale = world.community.issue(ends=NOW - timedelta(days=1))
    assert _judge(world, stale).reason is Reason.EXPIRED
    assert _judge(world, world.stranger.issue()).reason is Reason.UNTRUSTED
    below = world.community.below("Below", 54)
    assert _judge(world, below.issue()).reason is Reason.UNTRUSTED
    assert _judge(world, below.issue(), others=(below,)).reason is Reason.OK


def test_the_sender_s_outbound_anchors_count_and_nobody_else_s(world: World) -> None:
    """AS-72: what the clinic accepts mail from is not what it may send to."""
    identity = world.community.issue()
    der = (world.community.certificate.der,)

    def granted(owner: str, directions: frozenset[Direction]) -> AnchorStore:
        return AnchorStore().with_bundles([AnchorBundle("b", 1, (owner,), directions, der)])

    for owner, directions, reason in (
        (ANN, BOTH_DIRECTIONS, Reason.OK),
        (ANN, frozenset({Direction.OUTBOUND}), Reason.OK),
        ("direct.clinic.example", frozenset({Direction.OUTBOUND}), Reason.OK),
        (ANN, frozenset({Direction.INBOUND}), Reason.UNTRUSTED),
        ("bob@direct.clinic.example", BOTH_DIRECTIONS, Reason.UNTRUSTED),
        (FAR, BOTH_DIRECTIONS, Reason.UNTRUSTED),
    ):
        assert _judge(world, identity, anchors=granted(owner, directions)).reason is reason, (owner, directions)
    assert _judge(world, identity, sender=ANN.upper(), anchors=granted(ANN, BOTH_DIRECTIONS)).reason is Reason.OK


def test_revocation_counts_for_sending_by_its_own_rule(world: World) -> None:
    """AS-68, AS-70."""
    identity = world.community.issue()
    inbound_hard = TrustPolicy(hard_revocation=frozenset({Direction.INBOUND}))
    assert _judge(world, identity, crls=(world.community.crl([identity]),)).reason is Reason.REVOKED
    assert _judge(world, identity, policy=HARD).reason is Reason.UNTRUSTED
    assert _judge(world, identity, policy=inbound_hard).reason is Reason.OK
    assert _judge(world, identity, policy=HARD, crls=(world.community.crl(),)).reason is Reason.OK


def test_an_address_that_is_none_is_an_error_of_the_caller(world: World) -> None:
    for recipient, sender in (("nobody", ANN), (FAR, "nobody")):
        with pytest.raises(InputError):
            _judge(world, world.community.issue(), recipient=recipient, sender=sender)
