"""Reading and verifying SignedData (AS-26, AS-31, AS-32, AS-35, AS-38, AS-50, AS-53; the S/MIME rules)."""

from __future__ import annotations

import email
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import algos, core, tsp
from asn1crypto import cms as asn1_cms
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from gateway.core.errors import RejectionError
from gateway.core.verdict import Reason
from gateway.sta.algorithm_policy import AlgorithmPolicy
from gateway.sta.cms import signature as signature_module
from gateway.sta.cms.content_info import content_type
from gateway.sta.cms.signature import ContentDigests, SignatureFacts, verify_signer
from gateway.sta.cms.signed import SignedData, read_signed_data
from tests.unit.sta_cms.cms_samples import (
    NOW,
    SENDER,
    TEXT,
    Forge,
    OpenSSL,
    attribute,
    authority,
    children,
    content_type_attribute,
    digest_attribute,
    ecdsa_sha256,
    eddsa,
    identity,
    indefinite,
    tlv,
)
from tests.unit.sta_cms.test_enveloped import body_of

DATA = "1.2.840.113549.1.7.1"
CERT_V2 = "1.2.840.113549.1.9.16.2.47"
CERT_V1 = "1.2.840.113549.1.9.16.2.12"
SIGNING_TIME = "1.2.840.113549.1.9.5"
PROTECTION = "1.2.840.113549.1.9.52"


def verify(der: bytes, content: bytes = TEXT, policy: AlgorithmPolicy | None = None) -> SignatureFacts:
    signed = read_signed_data(der)
    (signer,) = signed.signers
    certificate = next(item for item in signed.certificates if signer.matches(item))
    return verify_signer(signer, certificate, content, signed.econtent_type, policy or AlgorithmPolicy())


def rejection(der: bytes, content: bytes = TEXT, policy: AlgorithmPolicy | None = None) -> RejectionError:
    with pytest.raises(RejectionError) as caught:
        verify(der, content, policy)
    return caught.value


def pem_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def usual() -> tuple[bytes, bytes]:
    return content_type_attribute(), digest_attribute(TEXT)


# --- what openssl makes ---


@pytest.mark.parametrize("options", [(), ("-keyid",), ("-stream",), ("-cades",), ("-keyid", "-cades", "-stream")])
@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
def test_rsa_signatures(openssl: OpenSSL, digest: str, options: tuple[str, ...]) -> None:
    facts = verify(openssl.sign(TEXT, identity(SENDER), "-md", digest, *options))
    assert facts.digest == digest
    assert facts.signature == f"rsa-pkcs1v15-{digest}"
    assert facts.notes == ()
    assert facts.signing_time is not None
    assert facts.signing_time.tzinfo is UTC


@pytest.mark.parametrize("salt", ["digest", "max", "auto", "0", "20"])
@pytest.mark.parametrize("digest", ["sha256", "sha512"])
def test_pss_with_any_salt(openssl: OpenSSL, digest: str, salt: str) -> None:
    options = ("-keyopt", "rsa_padding_mode:pss", "-keyopt", f"rsa_pss_saltlen:{salt}")
    facts = verify(openssl.sign(TEXT, identity(SENDER), "-md", digest, *options))
    assert facts.signature == f"rsa-pss-{digest}"


@pytest.mark.parametrize(("curve", "digest"), [("p256", "sha256"), ("p384", "sha384"), ("p256", "sha512")])
def test_ecdsa(openssl: OpenSSL, curve: str, digest: str) -> None:
    """AS-38."""
    facts = verify(openssl.sign(TEXT, identity(SENDER, curve), "-md", digest))
    assert facts.signature == f"ecdsa-{curve}-{digest}"


@pytest.mark.parametrize("options", [(), ("-stream",)], ids=["der", "ber"])
@pytest.mark.parametrize("content", [TEXT, TEXT * 20_000], ids=["small", "big"])
def test_opaque_content_is_returned_exactly(openssl: OpenSSL, content: bytes, options: tuple[str, ...]) -> None:
    der = openssl.sign(content, identity(SENDER), "-nodetach", *options)
    signed = read_signed_data(der)
    assert signed.econtent == content
    assert signed.econtent_type == DATA
    assert signed.econtent is not None
    verify(der, bytes(signed.econtent))


def test_detached_signature_has_no_content(openssl: OpenSSL) -> None:
    assert read_signed_data(openssl.sign(TEXT, identity(SENDER))).econtent is None


@pytest.mark.parametrize("digest", ["sha1", "md5", "sha224"])
def test_weak_digests_are_refused(openssl: OpenSSL, digest: str) -> None:
    """AS-32."""
    assert rejection(openssl.sign(TEXT, identity(SENDER), "-md", digest)).reason is Reason.WEAK_ALGORITHM


def test_signature_without_attributes_is_refused(openssl: OpenSSL) -> None:
    """s01: it would let signed attributes be replayed as content."""
    assert rejection(openssl.sign(TEXT, identity(SENDER), "-noattr")).reason is Reason.BAD_SIGNATURE


def test_two_signers_hash_the_content_once(openssl: OpenSSL, monkeypatch: pytest.MonkeyPatch) -> None:
    other = identity("other@practice.example.com")
    certificate, key = openssl.identity(other, "second")
    der = openssl.sign(TEXT, identity(SENDER), "-signer", certificate, "-inkey", key)
    signed = read_signed_data(der)
    assert len(signed.signers) == 2
    calls: list[bytes] = []

    def counting(content: bytes) -> Any:
        calls.append(content)
        return hashlib.sha256(content)

    monkeypatch.setitem(signature_module._DIGESTS, "sha256", counting)
    digests = ContentDigests(TEXT)
    for signer in signed.signers:
        (match,) = [item for item in signed.certificates if signer.matches(item)]
        verify_signer(signer, match, digests, signed.econtent_type)
    assert calls == [TEXT]


# --- content and key ---


def test_altered_content() -> None:
    """AS-53."""
    der = Forge().build()
    assert rejection(der, TEXT + b" ").reason is Reason.BAD_SIGNATURE
    assert rejection(der, b"").reason is Reason.BAD_SIGNATURE


def test_altered_signature() -> None:
    der = Forge().build()
    for position in (1, 100, 255):
        altered = bytearray(der)
        altered[-position] ^= 1
        assert rejection(bytes(altered)).reason is Reason.BAD_SIGNATURE


def test_certificate_that_is_not_named_is_not_used() -> None:
    signed = read_signed_data(Forge().build())
    with pytest.raises(RejectionError) as caught:
        verify_signer(signed.signers[0], identity("other@practice.example.com").certificate_der, TEXT, DATA)
    assert caught.value.reason is Reason.BAD_SIGNATURE
    same_key = authority().issue_address("other@practice.example.com", key_pem=identity(SENDER).key_pem)
    with pytest.raises(RejectionError, match="another certificate"):
        verify_signer(signed.signers[0], same_key.certificate_der, TEXT, DATA)


@pytest.mark.parametrize("key_identifier", [False, True])
def test_both_kinds_of_signer_identifier(key_identifier: bool) -> None:
    verify(Forge(key_identifier=key_identifier).build())


def test_ed25519() -> None:
    forge = Forge(
        signer=identity(SENDER, "ed25519"),
        digest="sha512",
        sign=eddsa,
        signature_algorithm={"algorithm": "ed25519"},
    )
    assert verify(forge.build()) == SignatureFacts("sha512", "ed25519", None, ())


def test_plain_ec_key_identifier_as_signature_algorithm() -> None:
    """Some stacks write id-ecPublicKey where ecdsa-with-SHA256 belongs."""
    forge = Forge(signer=identity(SENDER, "p256"), sign=ecdsa_sha256, signature_algorithm={"algorithm": "sha256_ecdsa"})
    kind, wrapper = children(forge.build())
    *head, signers = children(children(wrapper)[0])
    version, sid, digest, attributes, _, signature = children(children(signers)[0])
    plain = tlv(0x30, core.ObjectIdentifier("1.2.840.10045.2.1").dump())
    info = tlv(0x30, version, sid, digest, attributes, plain, signature)
    der = tlv(0x30, kind, tlv(0xA0, tlv(0x30, *head, tlv(0x31, info))))
    assert verify(der).signature == "ecdsa-p256-sha256"


@pytest.mark.parametrize("name", ["sha256_rsa", "rsassa_pkcs1v15"])
def test_rsa_signature_algorithm_in_both_spellings(name: str) -> None:
    verify(Forge(signature_algorithm={"algorithm": name}).build())


def test_key_of_another_kind_than_the_algorithm() -> None:
    forge = Forge(signer=identity(SENDER, "p256"), sign=ecdsa_sha256)
    assert rejection(forge.build()).reason is Reason.BAD_SIGNATURE


def test_small_rsa_key() -> None:
    """AS-35."""
    assert rejection(Forge(signer=identity(SENDER, "rsa1024")).build()).reason is Reason.WEAK_ALGORITHM


def test_small_rsa_exponent() -> None:
    """S/MIME rule 15."""
    issued = authority().issue_address(SENDER, key_pem=pem_of(rsa.generate_private_key(3, 2048)))
    assert rejection(Forge(signer=issued).build()).reason is Reason.WEAK_ALGORITHM


@pytest.mark.parametrize(
    ("modulus_bits", "exponent", "reason"),
    [
        (2048, 65538, Reason.WEAK_ALGORITHM),
        (2048, 2**64 + 1, Reason.RESOURCE_LIMIT),
        (8200, 65537, Reason.RESOURCE_LIMIT),
        (100_000, 65537, Reason.RESOURCE_LIMIT),
    ],
)
def test_rsa_keys_out_of_bounds_are_refused_before_use(modulus_bits: int, exponent: int, reason: Reason) -> None:
    """The key need not be a real one: nothing is computed with it."""
    own = identity(SENDER).certificate_der
    numbers = tlv(0x30, core.Integer(2 ** (modulus_bits - 1) + 1).dump(), core.Integer(exponent).dump())
    algorithm = tlv(0x30, core.ObjectIdentifier("1.2.840.113549.1.1.1").dump(), core.Null().dump())
    body, *rest = children(own)
    fields = children(body)
    fields[6] = tlv(0x30, algorithm, tlv(0x03, b"\0" + numbers))
    certificate = tlv(0x30, tlv(0x30, *fields), *rest)
    assert rejection(Forge(certificates=(certificate,)).build()).reason is reason


def test_other_curves_are_refused() -> None:
    forge = Forge(
        signer=authority().issue_address(SENDER, key_pem=pem_of(ec.generate_private_key(ec.SECP521R1()))),
        sign=ecdsa_sha256,
        signature_algorithm={"algorithm": "sha256_ecdsa"},
    )
    assert rejection(forge.build()).reason is Reason.WEAK_ALGORITHM


def test_certificate_that_may_not_sign() -> None:
    """AS-12: keyUsage without digitalSignature or nonRepudiation; checked once the signature holds."""
    encrypting = authority().issue_address(SENDER, key_usage=("key_encipherment",))
    assert rejection(Forge(signer=encrypting).build()).reason is Reason.KEY_USAGE
    for usage in (("content_commitment",), ("digital_signature",), ()):
        verify(Forge(signer=authority().issue_address(SENDER, key_usage=usage)).build())
    altered = Forge(signer=encrypting).build()
    assert rejection(altered, b"other").reason is Reason.BAD_SIGNATURE


# --- signed attributes ---


@pytest.mark.parametrize(
    "attributes",
    [
        (),
        (content_type_attribute(),),
        (digest_attribute(TEXT),),
        (*usual(), digest_attribute(TEXT)),
        (*usual(), digest_attribute(b"other")),
        (*usual(), content_type_attribute()),
        (content_type_attribute("1.2.840.113549.1.7.2"), digest_attribute(TEXT)),
        (
            content_type_attribute(),
            attribute(
                "1.2.840.113549.1.9.4",
                core.OctetString(hashlib.sha256(TEXT).digest()),
                core.OctetString(hashlib.sha256(b"other").digest()),
            ),
        ),
        (content_type_attribute(), attribute("1.2.840.113549.1.9.4")),
        (*usual(), attribute(SIGNING_TIME, core.UTCTime(NOW)), attribute(SIGNING_TIME, core.UTCTime(NOW))),
    ],
    ids=[
        "none",
        "no digest",
        "no content type",
        "digest twice",
        "two digests",
        "content type twice",
        "other content type",
        "digest with two values",
        "digest without value",
        "signing time twice",
    ],
)
def test_broken_attribute_rules(attributes: tuple[bytes, ...]) -> None:
    """s01 to s07."""
    assert rejection(Forge(attributes=attributes).build()).reason is Reason.BAD_SIGNATURE


def test_replayed_attributes_are_no_content() -> None:
    """s02: the attributes of a genuine signature as content, under the same signature value."""
    genuine = usual()
    as_content = tlv(0x31, *sorted(genuine))
    forge = Forge(content=as_content, attributes=())
    assert rejection(forge.build(), as_content).reason is Reason.BAD_SIGNATURE


def test_unsorted_attributes_are_sorted_before_verifying() -> None:
    """s08: RFC 5652 section 5.4."""
    wire = sorted(usual(), reverse=True)
    assert verify(Forge(attributes=wire).build()).notes == ()


def test_wire_order_is_a_noted_second_try() -> None:
    """s09."""
    der = Forge(attributes=sorted(usual(), reverse=True), sign_sorted=False).build()
    assert verify(der).notes == ("the signed attributes were signed in wire order, not in DER order",)
    strict = AlgorithmPolicy(signed_attributes_in_wire_order=False)
    assert rejection(der, policy=strict).reason is Reason.BAD_SIGNATURE


def test_attribute_count_is_bounded() -> None:
    """a07."""
    filler = [attribute(f"1.2.3.{number}", core.Integer(number)) for number in range(63)]
    assert rejection(Forge(attributes=(*usual(), *filler)).build()).reason is Reason.RESOURCE_LIMIT
    verify(Forge(attributes=(*usual(), *filler[:62])).build())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (core.UTCTime(NOW), NOW),
        (core.GeneralizedTime(NOW), NOW),
        (core.UTCTime(datetime(1999, 1, 2, 3, 4, 5, tzinfo=UTC)), datetime(1999, 1, 2, 3, 4, 5, tzinfo=UTC)),
    ],
)
def test_signing_time(value: Any, expected: datetime) -> None:
    facts = verify(Forge(attributes=(*usual(), attribute(SIGNING_TIME, value))).build())
    assert facts.signing_time == expected


@pytest.mark.parametrize("value", [tlv(0x17, b"261399999999Z"), tlv(0x17, b"soon"), tlv(0x04, b"261122120000Z")])
def test_unreadable_signing_time_is_noted(value: bytes) -> None:
    raw = tlv(0x30, core.ObjectIdentifier(SIGNING_TIME).dump(), tlv(0x31, value))
    facts = verify(Forge(attributes=(*usual(), raw)).build())
    assert facts.signing_time is None
    assert facts.notes == ("the signing time cannot be read",)


def ess_v2(certificate: bytes, digest: str = "sha256") -> bytes:
    entry = {"cert_hash": hashlib.new(digest, certificate).digest()}
    if digest != "sha256":
        entry["hash_algorithm"] = algos.DigestAlgorithm({"algorithm": digest})
    return attribute(CERT_V2, tsp.SigningCertificateV2({"certs": [tsp.ESSCertIDv2(entry)]}))


def ess_v1(certificate: bytes) -> bytes:
    entry = tsp.ESSCertID({"cert_hash": hashlib.sha1(certificate).digest()})  # noqa: S324
    return attribute(CERT_V1, tsp.SigningCertificate({"certs": [entry]}))


def test_signing_certificate_attributes() -> None:
    """S/MIME rule 25."""
    own = identity(SENDER).certificate_der
    other = identity("other@practice.example.com").certificate_der
    for good in (ess_v2(own), ess_v2(own, "sha512"), ess_v1(own)):
        assert verify(Forge(attributes=(*usual(), good)).build()).notes == ()
    for bad in (ess_v2(other), ess_v2(other, "sha512"), ess_v1(other)):
        assert rejection(Forge(attributes=(*usual(), bad)).build()).reason is Reason.BAD_SIGNATURE
    both = (*usual(), ess_v2(own), ess_v1(other))
    assert rejection(Forge(attributes=both).build()).reason is Reason.BAD_SIGNATURE


def protection(digest: str, signature: str) -> bytes:
    return attribute(
        PROTECTION,
        asn1_cms.CMSAlgorithmProtection(
            {
                "digest_algorithm": algos.DigestAlgorithm({"algorithm": digest}),
                "signature_algorithm": algos.SignedDigestAlgorithm({"algorithm": signature}),
            }
        ),
    )


def test_algorithm_protection() -> None:
    """RFC 6211, which Bouncy Castle writes."""
    for good in (protection("sha256", "rsassa_pkcs1v15"), protection("sha256", "sha256_rsa")):
        verify(Forge(attributes=(*usual(), good)).build())
    for bad in (protection("sha512", "rsassa_pkcs1v15"), protection("sha256", "rsassa_pss")):
        assert rejection(Forge(attributes=(*usual(), bad)).build()).reason is Reason.BAD_SIGNATURE


# --- algorithm parameters ---


def pss_forge(digest: str, mgf: str, salt: int) -> Forge:
    named: dict[str, hashes.HashAlgorithm] = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256()}  # noqa: S303

    def sign(key: Any, data: bytes) -> bytes:
        assert isinstance(key, rsa.RSAPrivateKey)
        return key.sign(data, padding.PSS(padding.MGF1(named[mgf]), salt), named[digest])

    parameters = {
        "hash_algorithm": {"algorithm": digest},
        "mask_gen_algorithm": {"algorithm": "mgf1", "parameters": {"algorithm": mgf}},
        "salt_length": salt,
    }
    return Forge(sign=sign, signature_algorithm={"algorithm": "rsassa_pss", "parameters": parameters})


def test_pss_parameters() -> None:
    verify(pss_forge("sha256", "sha256", 32).build())
    assert rejection(pss_forge("sha1", "sha1", 20).build()).reason is Reason.WEAK_ALGORITHM
    assert rejection(pss_forge("sha256", "sha1", 32).build()).reason is Reason.WEAK_ALGORITHM
    lying = pss_forge("sha256", "sha256", 32)
    lying.signature_algorithm["parameters"]["salt_length"] = 16
    assert rejection(lying.build()).reason is Reason.BAD_SIGNATURE
    lying.signature_algorithm["parameters"]["salt_length"] = 300
    assert rejection(lying.build()).reason is Reason.BAD_SIGNATURE
    lying.signature_algorithm["parameters"]["salt_length"] = 100_000
    assert rejection(lying.build()).reason is Reason.MALFORMED


def test_pss_key_identifier_in_the_certificate(openssl: OpenSSL) -> None:
    """A key restricted to PSS (RFC 4055 section 1.2) is read as well."""
    openssl.run("genpkey", "-algorithm", "rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "pss.key.pem")
    openssl.run(
        "req", "-x509", "-key", "pss.key.pem", "-out", "pss.cert.pem", "-subj", "/CN=x", "-days", "30", "-sha256",
        "-sigopt", "rsa_pss_saltlen:digest",
    )  # fmt: skip
    der = openssl.run(
        "cms", "-sign", "-binary", "-outform", "DER", "-signer", "pss.cert.pem", "-inkey", "pss.key.pem",
        "-md", "sha256", "-keyopt", "rsa_padding_mode:pss", data=TEXT,
    )  # fmt: skip
    assert verify(der).signature == "rsa-pss-sha256"


# --- structure ---


def test_indefinite_lengths_down_to_the_signer() -> None:
    der = Forge(econtent=TEXT).build()
    for depth in range(1, 5):
        assert read_signed_data(indefinite(der, depth)).econtent == TEXT
        verify(indefinite(der, depth))


def test_no_signers_is_read_as_such() -> None:
    """s10."""
    assert read_signed_data(Forge(unsigned=True).build()).signers == ()


def test_missing_entry_in_digest_algorithms_is_accepted() -> None:
    """s16."""
    signed = Forge(digest_algorithms=()).build()
    assert read_signed_data(signed).digest_algorithms == ()
    verify(signed)


def test_numbers_are_bounded() -> None:
    own = identity(SENDER).certificate_der
    assert len(read_signed_data(Forge(certificates=(own,) * 32).build()).certificates) == 32
    info = Forge().signer_info()
    assert len(read_signed_data(Forge(extra_signers=(info,) * 7).build()).signers) == 8
    huge = tlv(0x30, own, b"\0" * 70_000)
    for forge in (
        Forge(certificates=(own,) * 33),
        Forge(certificates=(own, huge)),
        Forge(extra_signers=(info,) * 8),
    ):
        with pytest.raises(RejectionError) as caught:
            read_signed_data(forge.build())
        assert caught.value.reason is Reason.RESOURCE_LIMIT


def test_other_kinds_of_certificates_and_lists_are_stepped_over() -> None:
    own = identity(SENDER).certificate_der
    attribute_certificate = tlv(0xA2, b"\x02\x01\x01")
    signed = read_signed_data(Forge(certificates=(attribute_certificate, own)).build())
    assert signed.certificates == (own,)


def test_an_unreadable_signer_does_not_hide_its_neighbour() -> None:
    """AS-50."""
    broken = tlv(0x30, core.Integer(1).dump(), tlv(0x80, b"key"), tlv(0x30, b""))
    signed = read_signed_data(Forge(extra_signers=(broken,)).build())
    good, bad = signed.signers
    own = identity(SENDER).certificate_der
    verify_signer(good, own, TEXT, DATA)
    assert not bad.matches(own)
    with pytest.raises(RejectionError) as caught:
        verify_signer(bad, own, TEXT, DATA)
    assert caught.value.reason is Reason.MALFORMED


def test_only_unreadable_signers_are_refused_at_once() -> None:
    """a09: a serial number of a megabyte."""
    own = identity(SENDER).certificate_der
    issuer = x509.load_der_x509_certificate(own).issuer.public_bytes()
    huge = tlv(0x30, core.Integer(1).dump(), tlv(0x30, issuer, tlv(0x02, b"\x01" * 1_000_000)))
    with pytest.raises(RejectionError) as caught:
        read_signed_data(Forge(unsigned=True).build().replace(tlv(0x31), tlv(0x31, huge)))
    assert caught.value.reason in (Reason.RESOURCE_LIMIT, Reason.MALFORMED)


def test_revocation_lists_in_the_message() -> None:
    crl = x509.load_pem_x509_crl(authority().crl([5])).public_bytes(serialization.Encoding.DER)
    kind, wrapper = children(Forge().build())
    version, digests, content, certificates, signers = children(children(wrapper)[0])
    other = tlv(0xA1, b"\x06\x01\x2a")
    crls = tlv(0xA1, crl, other)
    der = tlv(0x30, kind, tlv(0xA0, tlv(0x30, version, digests, content, certificates, crls, signers)))
    assert read_signed_data(der).crls == (crl,)
    verify(der)


def test_unsigned_attributes_are_ignored() -> None:
    info = Forge().signer_info()
    counter = tlv(0xA1, attribute("1.2.840.113549.1.9.6", core.Integer(1)))
    der = Forge(unsigned=True).build()
    kind, wrapper = children(der)
    *head, _ = children(children(wrapper)[0])
    with_counter = tlv(0x30, *children(info), counter)
    verify(tlv(0x30, kind, tlv(0xA0, tlv(0x30, *head, tlv(0x31, with_counter)))))


# --- published vectors ---

_SIGNERS = {
    "s00": ["ok"],
    "s01": [Reason.BAD_SIGNATURE],
    "s02": [Reason.BAD_SIGNATURE],
    "s03": [Reason.BAD_SIGNATURE],
    "s04": [Reason.BAD_SIGNATURE],
    "s05": [Reason.BAD_SIGNATURE],
    "s06": [Reason.BAD_SIGNATURE],
    "s07": [Reason.BAD_SIGNATURE],
    "s08": ["ok"],
    "s09": ["ok"],
    "s10": [],
    "s11": ["ok", "ok"],
    "s12": ["ok", Reason.BAD_SIGNATURE],
    "s13": ["ok", Reason.BAD_SIGNATURE],
    "s14": [Reason.BAD_SIGNATURE],
    "s15": ["ok"],
    "s16": ["ok"],
    "s17": [Reason.WEAK_ALGORITHM],
    "s18": [Reason.WEAK_ALGORITHM],
    "s19": ["no certificate"],
    "s20": ["ok"],
    "s21": ["ok"],
    "s22": ["ok"],
    "s23": ["ok"],
    "s24": ["ok"],
    "m01": [Reason.BAD_SIGNATURE],
    "m02": [Reason.BAD_SIGNATURE],
}


def _split(raw: bytes) -> tuple[bytes | None, bytes]:
    """Return the signed entity of a multipart/signed vector (None for an opaque one) and its CMS object."""
    message = email.message_from_bytes(raw)
    boundary = message.get_boundary()
    if boundary is None:
        return None, message.get_payload(decode=True)  # type: ignore[return-value]
    parts = raw.split(b"\r\n--" + boundary.encode())
    signature = email.message_from_bytes(parts[2][2:])
    return parts[1][2:], signature.get_payload(decode=True)  # type: ignore[return-value]


def _outcomes(content: bytes | None, signed: SignedData) -> list[object]:
    outcomes: list[object] = []
    for signer in signed.signers:
        matching = [item for item in signed.certificates if signer.matches(item)]
        if not matching:
            outcomes.append("no certificate")
            continue
        try:
            verified = content if content is not None else bytes(signed.econtent or b"")
            verify_signer(signer, matching[0], verified, signed.econtent_type)
            outcomes.append("ok")
        except RejectionError as error:
            outcomes.append(error.reason)
    return outcomes


def test_attack_vectors_on_signatures(attacks: Path) -> None:
    seen = set()
    for entry in json.loads((attacks / "manifest.json").read_text()):
        expected = _SIGNERS.get(entry["file"][:3])
        if expected is None:
            continue
        content, der = _split((attacks / entry["file"]).read_bytes())
        assert _outcomes(content, read_signed_data(der)) == expected, entry["file"]
        seen.add(entry["file"][:3])
    assert seen == set(_SIGNERS)


@pytest.mark.parametrize("name", ["a07_20k_signed_attrs.eml", "a09_huge_serial_cert_ref.eml"])
def test_attack_vectors_on_size(attacks: Path, name: str) -> None:
    with pytest.raises(RejectionError) as caught:
        read_signed_data(_split((attacks / name).read_bytes())[1])
    assert caught.value.reason is Reason.RESOURCE_LIMIT


def test_attack_vector_compressed_data(attacks: Path) -> None:
    assert content_type(body_of(attacks / "c01_compressed_bomb_300MB.eml")) == "compressed-data"


@pytest.mark.parametrize(
    ("name", "who", "outcome"),
    [
        ("signedByAliceRSAPSS", "alice", "rsa-pss-sha256"),
        ("signedByCarlosEd25519", "carlos", "ed25519"),
        ("signedByAliceRSA", "alice", Reason.BAD_SIGNATURE),  # without signed attributes
    ],
)
def test_published_examples(examples: Path, name: str, who: str, outcome: object) -> None:
    signed = read_signed_data((examples / "binary-files" / f"{name}.p7m").read_bytes())
    pem = (examples / "certs-and-keys" / f"lamps-{who}.crt").read_bytes()
    certificate = x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
    assert signed.econtent is not None
    (signer,) = signed.signers
    assert signer.matches(certificate)
    try:
        found: object = verify_signer(signer, certificate, signed.econtent, signed.econtent_type).signature
    except RejectionError as error:
        found = error.reason
    assert found == outcome
