"""S/MIME rules 5, 6 and 25: content, attributes and certificates that do not belong together.

Most of these are made with the sender's own key, so that nothing but the rule stands between them and the inbox.
"""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from cryptography import x509

from gateway.core.verdict import Reason
from gateway.sta.trust_anchors.anchors import AnchorStore
from tests.smime.clinic import Clinic
from tests.support.der_forge import algorithm, integer, octets, oid, seq, set_of, tlv
from tests.support.forge_names import CONTENT_TYPE, DIGEST_OIDS, MESSAGE_DIGEST, der_of, issuer_and_serial
from tests.support.forge_signatures import Signed, Signing, attribute, multipart_signed, usual_attributes
from tests.unit.sta.trust_world import SENDER, certificate_of

CERT_V2 = "1.2.840.113549.1.9.16.2.47"


def judged(clinic: Clinic, *signers: Signing | bytes, **options: Any) -> Reason:
    judgement = clinic.judge(clinic.sealed(clinic.signed(*signers, **options)))
    assert "could not be examined" not in judgement.detail
    assert judgement.accepted == (judgement.content is not None)
    return judgement.reason


# --- rule 5 ---


def test_rule_5_a_detached_signature_brings_no_content_of_its_own(clinic: Clinic) -> None:
    """s14, s15 (CVE-2018-18509): whether it is the same content or other."""
    for other in (clinic.entity, b"Content-Type: text/plain\r\n\r\nother\r\n"):
        within = Signed(other, [Signing(clinic.sender())], opaque=True).der()
        raw = clinic.sealed(multipart_signed(clinic.entity, within))
        assert clinic.judge(raw).reason is Reason.MALFORMED


def test_rule_5_an_opaque_signature_has_content_and_it_is_data(clinic: Clinic) -> None:
    detached = Signed(clinic.entity, [Signing(clinic.sender())]).der()
    head = b"Content-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    assert clinic.judge(clinic.sealed(head + detached)).reason is Reason.MALFORMED
    for dotted in ("1.2.840.113549.1.7.2", "1.2.840.113549.1.9.16.1.4", "1.2.3"):
        signing = Signing(clinic.sender(), content_type=dotted)
        assert judged(clinic, signing, opaque=True, econtent_type=dotted) is not Reason.OK


# --- rule 6 ---


def test_rule_6_signed_attributes_are_required_and_cannot_be_replayed_as_content(clinic: Clinic) -> None:
    """s01, s02: the attributes of a genuine signature, sent as the content under the same signature value."""
    sender = clinic.sender()
    assert judged(clinic, Signing(sender, attributes=())) is Reason.BAD_SIGNATURE
    genuine = set_of(*usual_attributes(clinic.entity))
    replayed = Signed(genuine, [Signing(sender, attributes=())], opaque=True).entity()
    assert clinic.judge(clinic.sealed(replayed)).reason is Reason.BAD_SIGNATURE


def _attributes(clinic: Clinic) -> dict[str, list[bytes]]:
    content = clinic.entity
    kind, digest = usual_attributes(content)
    other = octets(hashlib.sha256(b"other").digest())
    own = octets(hashlib.sha256(content).digest())
    return {
        "no digest": [kind],
        "no content type": [digest],
        "digest twice": [kind, digest, digest],
        "another digest before": [attribute(MESSAGE_DIGEST, other), kind, digest],
        "another digest behind": [kind, digest, attribute(MESSAGE_DIGEST, other)],
        "two values of the digest": [kind, attribute(MESSAGE_DIGEST, own, other)],
        "the same value twice": [kind, attribute(MESSAGE_DIGEST, own, own)],
        "digest without a value": [kind, attribute(MESSAGE_DIGEST)],
        "digest of another length": [kind, attribute(MESSAGE_DIGEST, octets(hashlib.sha512(content).digest()))],
        "digest cut short": [kind, attribute(MESSAGE_DIGEST, octets(hashlib.sha256(content).digest()[:20]))],
        "empty digest": [kind, attribute(MESSAGE_DIGEST, octets(b""))],
        "content type twice": [kind, kind, digest],
        "another content type": [attribute(CONTENT_TYPE, oid("1.2.840.113549.1.7.2")), digest],
        "two content types": [attribute(CONTENT_TYPE, oid("1.2.840.113549.1.7.1"), oid("1.2.3")), digest],
        "an attribute of attributes": [attribute("1.2.3", kind, digest)],
    }


@pytest.mark.parametrize("order", ["sorted", "reversed"])
def test_rule_6_each_of_the_two_stands_once_with_one_value(clinic: Clinic, order: str) -> None:
    """s03 to s07."""
    for name, attributes in _attributes(clinic).items():
        wire = sorted(attributes, reverse=order == "reversed")
        assert judged(clinic, Signing(clinic.sender(), attributes=wire)) is Reason.BAD_SIGNATURE, name


def test_rule_6_attributes_are_sorted_before_they_are_checked_and_wire_order_is_noted(clinic: Clinic) -> None:
    """s08 is right by the RFC; s09 is wrong but harmless, and leaves a note."""
    unsorted = sorted(usual_attributes(clinic.entity), reverse=True)
    assert judged(clinic, Signing(clinic.sender(), attributes=unsorted)) is Reason.OK
    signing = Signing(clinic.sender())
    as_it_is = Signing(clinic.sender(), attributes=unsorted, sign=lambda _: signing._sign(tlv(0x31, *unsorted)))
    judgement = clinic.judge(clinic.sealed(clinic.signed(as_it_is)))
    assert judgement.reason is Reason.OK
    assert any("wire order" in check.detail for check in judgement.checks if check.outcome == "noted")


def test_rule_6_the_number_of_attributes_is_bounded(clinic: Clinic) -> None:
    """a07."""
    for number, reason in ((62, Reason.OK), (63, Reason.RESOURCE_LIMIT), (20_000, Reason.RESOURCE_LIMIT)):
        extra = [attribute(f"1.2.3.{n}", integer(n)) for n in range(number)]
        assert judged(clinic, Signing(clinic.sender(), extra=extra)) is reason


# --- rule 25: which certificate ---


def _names(certificate: bytes, digest: str = "sha256", **wrong: bytes) -> bytes:
    """signingCertificateV2 (RFC 5035)."""
    value = wrong.get("hash", hashlib.new(digest, certificate).digest())
    named = b"" if digest == "sha256" else algorithm(DIGEST_OIDS[digest])
    return attribute(CERT_V2, seq(seq(seq(named, octets(value)))))


def test_rule_25_signing_certificate_must_name_the_certificate_where_it_stands(clinic: Clinic) -> None:
    sender = clinic.sender()
    own, other = der_of(sender), der_of(clinic.world.community.issue("eve@direct.sender.example", slot=53))
    for digest in ("sha256", "sha384", "sha512"):
        assert judged(clinic, Signing(sender, extra=[_names(own, digest)])) is Reason.OK
        assert judged(clinic, Signing(sender, extra=[_names(other, digest)])) is Reason.BAD_SIGNATURE
    assert judged(clinic, Signing(sender, extra=[_names(own), _names(own)])) is Reason.BAD_SIGNATURE
    assert judged(clinic, Signing(sender, extra=[_names(own, hash=b"")])) is Reason.BAD_SIGNATURE


def test_rule_25_another_certificate_for_the_same_key_is_no_substitute(clinic: Clinic) -> None:
    """The sid picks the certificate; one that fits the key but not the sid is never used."""
    sender = clinic.sender()
    twin = clinic.world.community.issue("eve@direct.sender.example", key=sender.key)
    assert judged(clinic, Signing(sender), certificates=[der_of(twin)]) is Reason.BAD_SIGNATURE
    claims = Signing(sender, sid=issuer_and_serial(twin.certificate))
    judgement = clinic.judge(clinic.sealed(clinic.signed(claims, certificates=[der_of(twin), der_of(sender)])))
    assert judgement.reason is Reason.BINDING_MISMATCH
    named = Signing(sender, sid=issuer_and_serial(twin.certificate), extra=[_names(der_of(sender))])
    assert judged(clinic, named, certificates=[der_of(twin), der_of(sender)]) is Reason.BAD_SIGNATURE


def test_rule_25_several_certificates_under_one_identifier_are_each_tried(clinic: Clinic) -> None:
    """s20: a key identifier is anybody's choice. A forged twin hides neither the right one nor is it believed."""
    sender = clinic.world.community.issue(SENDER, slot=50, extra=[(_key_identifier(b"same"), False)])
    twin = clinic.world.stranger.issue(SENDER, slot=53, extra=[(_key_identifier(b"same"), False)])
    for order in ([sender, twin], [twin, sender]):
        certificates = [der_of(one) for one in order]
        assert judged(clinic, Signing(sender, ski=True), certificates=certificates) is Reason.OK
        assert judged(clinic, Signing(twin, ski=True), certificates=certificates) is Reason.UNTRUSTED


def _key_identifier(value: bytes) -> Any:
    return x509.SubjectKeyIdentifier(value)


def test_rule_25_a_missing_certificate_is_refused_unless_it_is_configured(clinic: Clinic) -> None:
    """s19: only an anchor of our own takes the place of the certificate that the message lacks."""
    assert judged(clinic, Signing(clinic.sender()), certificates=[]) is Reason.BAD_SIGNATURE
    anchors = AnchorStore((clinic.world.community.certificate, certificate_of(clinic.sender())))
    agent = clinic.world.agent(anchors=anchors, ring=clinic.world.ring())
    raw = clinic.sealed(clinic.signed(Signing(clinic.sender()), certificates=[]))
    assert clinic.world.judge(raw, agent).reason is Reason.OK
