"""What the algorithm matrix does not name is refused, with a reason of its own and the algorithm by its name.

Every message here is genuine: it would be accepted if the algorithm were allowed, so that the refusal is for the
algorithm and not for a mistake of the test (AS-32..35, AS-38, AS-93).
"""

from __future__ import annotations

import os
import zlib
from dataclasses import replace
from functools import cache
from typing import Any, cast

import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import RC2, TripleDES
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa
from cryptography.hazmat.primitives.ciphers import Cipher, modes

from gateway.core.errors import ConfigurationError
from gateway.core.trust import Direction
from gateway.core.verdict import Judgement, Reason
from gateway.sta.algorithm_policy import AlgorithmPolicy
from gateway.sta.trust_policy import TrustPolicy
from tests.smime.clinic import SECRET, Clinic
from tests.support.der_forge import NULL, algorithm, integer, octets, oid, seq, tlv
from tests.support.direct_messages import outer_message
from tests.support.forge_envelopes import Encrypted, cbc, ccm, gcm, kari, ktri, oaep, v15
from tests.support.forge_names import DIGEST_OIDS, PSS, SIGNATURE_OIDS, issuer_and_serial
from tests.support.forge_signatures import Signing, pss_parameters
from tests.support.pki import Key, rsa_key
from tests.unit.sta.trust_world import RCPT, SENDER


def refused(judgement: Judgement, *words: str) -> None:
    """Refused for its algorithm, which the detail names, and nothing got out."""
    assert judgement.reason is Reason.WEAK_ALGORITHM, (judgement.reason, judgement.detail)
    for word in words:
        assert word in judgement.detail.lower(), judgement.detail
    assert judgement.content is None


# --- signatures ---


@pytest.mark.parametrize(
    ("kind", "digest"),
    [("rsa", "md5"), *((kind, digest) for kind in ("rsa", "p256") for digest in ("sha1", "sha224", "sha3_256"))],
)
def test_digests(clinic: Clinic, kind: str, digest: str) -> None:
    signing = Signing(clinic.sender(kind), digest=digest)
    judgement = clinic.judge(clinic.sealed(clinic.signed(signing)))
    refused(judgement, digest.replace("_", "-"))


@pytest.mark.parametrize("digest", ["md5", "sha1", "sha224", "sha3_256"])
def test_a_strong_message_digest_does_not_hide_a_weak_one_of_the_signature(clinic: Clinic, digest: str) -> None:
    weak = Signing(clinic.sender(), digest=digest)
    named = algorithm(SIGNATURE_OIDS["rsa", digest], NULL)
    mixed = Signing(clinic.sender(), sign=weak._sign, signature_algorithm=named)
    refused(clinic.judge(clinic.sealed(clinic.signed(mixed))), digest.replace("_", "-"))


@pytest.mark.parametrize(("digest", "mask"), [("sha1", "sha1"), ("sha256", "sha1"), ("sha1", "sha256")])
def test_pss_with_sha1_anywhere(clinic: Clinic, digest: str, mask: str) -> None:
    named = algorithm(PSS, pss_parameters(digest, mask, 20))
    refused(clinic.judge(clinic.sealed(clinic.signed(Signing(clinic.sender(), signature_algorithm=named)))), "sha1")


def test_pss_without_parameters_means_sha1(clinic: Clinic) -> None:
    """RFC 4055 section 3.1: what is absent has its default."""
    for named in (algorithm(PSS), algorithm(PSS, NULL), algorithm(PSS, seq())):
        signing = Signing(clinic.sender(), pss=True, signature_algorithm=named)
        refused(clinic.judge(clinic.sealed(clinic.signed(signing))), "sha1")


def test_pss_with_another_mask_generation(clinic: Clinic) -> None:
    shake = seq(tlv(0xA0, algorithm(DIGEST_OIDS["sha256"])), tlv(0xA1, algorithm("2.16.840.1.101.3.4.2.11")))
    signing = Signing(clinic.sender(), signature_algorithm=algorithm(PSS, shake))
    refused(clinic.judge(clinic.sealed(clinic.signed(signing))), "mask")


@cache
def dsa_key() -> dsa.DSAPrivateKey:
    return dsa.generate_private_key(1024)  # noqa: S505 - a forbidden one is wanted


def test_dsa(clinic: Clinic) -> None:
    signer = clinic.world.community.issue(SENDER, key=cast("Key", dsa_key()))
    signing = Signing(
        signer,
        sign=lambda data: dsa_key().sign(data, hashes.SHA256()),
        signature_algorithm=algorithm(SIGNATURE_OIDS["dsa", "sha256"]),
    )
    refused(clinic.judge(clinic.sealed(clinic.signed(signing))), "dsa")


@pytest.mark.parametrize("bits", [1024, 1536, 2040])
def test_short_rsa_signatures(clinic: Clinic, bits: int) -> None:
    """AS-35."""
    signer = clinic.world.community.issue(SENDER, key=rsa_key(bits, bits))
    refused(clinic.judge(clinic.sealed(clinic.signed(Signing(signer)))), "rsa", str(bits), "2048")


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("p224", "secp224r1"),
        ("p521", "secp521r1"),
        ("k256", "secp256k1"),
        ("brainpool", "brainpool"),
        ("ed448", "ed448"),
    ],
)
def test_curves_that_the_matrix_does_not_name(clinic: Clinic, kind: str, word: str) -> None:
    digest = "sha512" if kind in {"p521", "ed448"} else "sha256"
    refused(clinic.judge(clinic.sealed(clinic.signed(Signing(clinic.sender(kind), digest=digest)))), word)


# --- how the key travels ---


@pytest.mark.parametrize("bits", [1024, 1536])
def test_a_short_rsa_key_of_our_own(clinic: Clinic, bits: int) -> None:
    short = clinic.world.clinic.issue(RCPT, key=rsa_key(bits, bits))
    agent = clinic.world.agent(ring=clinic.world.ring(short))
    raw = clinic.sealed(clinic.signed(), [v15(short, SECRET)])
    refused(clinic.world.judge(raw, agent), "rsa", "2048")


@pytest.mark.parametrize("kind", ["p224", "p521", "k256", "brainpool"])
def test_agreement_on_a_curve_that_the_matrix_does_not_name(clinic: Clinic, kind: str) -> None:
    raw = clinic.sealed(clinic.signed(), [kari(clinic.recipient(kind), SECRET)])
    refused(clinic.judge(raw, kind), "curve")


def test_oaep_with_sha224(clinic: Clinic) -> None:
    entry = oaep(clinic.recipient(), SECRET, "sha224")
    refused(clinic.judge(clinic.sealed(clinic.signed(), [entry])), "oaep", "sha224")
    mask = oaep(clinic.recipient(), SECRET, "sha256", "sha224")
    refused(clinic.judge(clinic.sealed(clinic.signed(), [mask])), "oaep", "sha224")


@pytest.mark.parametrize("kind", ["p256", "x25519"])
@pytest.mark.parametrize(
    ("wrap", "word"), [("1.2.840.113549.1.9.16.3.6", "3des"), ("1.2.840.113549.1.9.16.3.7", "rc2")]
)
def test_old_key_wraps(clinic: Clinic, kind: str, wrap: str, word: str) -> None:
    entry = kari(clinic.recipient(kind), SECRET, wrap_oid=wrap)
    refused(clinic.judge(clinic.sealed(clinic.signed(), [entry]), kind), word, "wrap")


def test_key_derivation_with_sha224(clinic: Clinic) -> None:
    entry = kari(clinic.recipient("p256"), SECRET, kdf="sha224")
    refused(clinic.judge(clinic.sealed(clinic.signed(), [entry]), "p256"), "sha224")


@pytest.mark.parametrize("named", ["issuer", "key identifier"])
def test_static_key_agreement(clinic: Clinic, named: str) -> None:
    """The originator names a certificate instead of bringing a key that is used once."""
    sender = clinic.sender("p256").certificate
    originator = issuer_and_serial(sender) if named == "issuer" else tlv(0x80, b"key identifier of 20")
    entry = kari(clinic.recipient("p256"), SECRET, originator=originator)
    refused(clinic.judge(clinic.sealed(clinic.signed(), [entry]), "p256"), "static")


def test_mqv(clinic: Clinic) -> None:
    honest = kari(clinic.recipient("p256"), SECRET)
    entry = honest.replace(oid("1.3.132.1.11.1"), oid("1.3.132.1.15.1"))
    assert entry != honest
    refused(clinic.judge(clinic.sealed(clinic.signed(), [entry]), "p256"), "mqv")


def test_a_password_or_a_shared_key_alone_opens_nothing(clinic: Clinic) -> None:
    """They are stepped over beside an entry of ours; alone they leave nobody here who could open the message."""
    shared = tlv(0xA2, integer(4), seq(octets(b"key id")), algorithm("2.16.840.1.101.3.4.1.45"), octets(bytes(40)))
    password = tlv(0xA3, integer(0), algorithm("1.2.840.113549.1.9.16.3.9"), octets(bytes(48)))
    other = tlv(0xA4, oid("1.2.840.113549.1.9.16.13.3"), seq())
    for entry in (shared, password, other):
        alone = clinic.judge(clinic.sealed(clinic.signed(), [entry]))
        assert alone.reason is Reason.CANNOT_DECRYPT
        beside = clinic.judge(clinic.sealed(clinic.signed(), [entry, v15(clinic.recipient(), SECRET)]))
        assert beside.reason is Reason.OK
        assert any("skipped" in check.detail for check in beside.checks)


def test_an_unknown_key_transport(clinic: Clinic) -> None:
    """RSA-KEM stands for what the matrix does not name."""
    to = clinic.recipient()
    raw = clinic.sealed(clinic.signed(), [ktri(to.certificate, bytes(256), algorithm("1.2.840.113549.1.9.16.3.14"))])
    refused(clinic.judge(raw), "key transport", "rsa-kem")


# --- the content ---


def triple_des(key: bytes, plain: bytes) -> Encrypted:
    size = 8 - len(plain) % 8
    context = Cipher(TripleDES(key), modes.CBC(bytes(8))).encryptor()
    sealed = context.update(plain + bytes((size,)) * size) + context.finalize()
    return Encrypted(algorithm("1.2.840.113549.3.7", octets(bytes(8))), sealed)


def rc2(key: bytes, plain: bytes) -> Encrypted:
    size = 8 - len(plain) % 8
    context = Cipher(RC2(key), modes.CBC(bytes(8))).encryptor()
    sealed = context.update(plain + bytes((size,)) * size) + context.finalize()
    return Encrypted(algorithm("1.2.840.113549.3.2", seq(integer(58), octets(bytes(8)))), sealed)


def single_des(key: bytes, plain: bytes) -> Encrypted:
    sealed = triple_des(key * 3, plain)
    return replace(sealed, algorithm=algorithm("1.3.14.3.2.7", octets(bytes(8))))


@pytest.mark.parametrize(
    ("encrypt", "size", "word"),
    [(triple_des, 24, "3des"), (rc2, 16, "rc2"), (single_des, 8, "des"), (ccm, 16, "ccm"), (ccm, 32, "ccm")],
)
def test_content_encryption(clinic: Clinic, encrypt: Any, size: int, word: str) -> None:
    """AS-34."""
    key = os.urandom(size)
    content = clinic.signed()
    refused(clinic.judge(clinic.sealed(content, [v15(clinic.recipient(), key)], encrypt(key, content))), word)


@pytest.mark.parametrize(
    ("dotted", "word"),
    [
        ("1.2.840.113549.3.4", "rc4"),
        ("1.2.392.200011.61.1.1.1.4", "1.2.392.200011.61.1.1.1.4"),
        ("2.16.840.1.101.3.4.1.1", "ecb"),
        ("2.16.840.1.101.3.4.1.4", "cfb"),
    ],
)
def test_content_encryption_that_is_only_named(clinic: Clinic, dotted: str, word: str) -> None:
    content = clinic.signed()
    named = replace(cbc(SECRET, content), algorithm=algorithm(dotted, octets(bytes(16))))
    refused(clinic.judge(clinic.sealed(content, encrypted=named)), word)


def in_enveloped_data(clinic: Clinic) -> bytes:
    content = clinic.signed()
    sealed = gcm(SECRET, content)
    assert sealed.tag is not None
    return clinic.sealed(content, encrypted=Encrypted(sealed.algorithm, sealed.content + sealed.tag))


def test_gcm_in_enveloped_data_is_off_by_default_and_a_flag(clinic: Clinic) -> None:
    """AS-93."""
    refused(clinic.judge(in_enveloped_data(clinic)), "gcm", "envelopeddata")
    agent = clinic.agent()
    agent.policy = TrustPolicy(AlgorithmPolicy(gcm_in_enveloped_data=True))
    judgement = clinic.world.judge(in_enveloped_data(clinic), agent)
    assert judgement.reason is Reason.OK
    assert "GCM" in judgement.policy_version, "the tolerance is written into the evidence"


def test_cbc_in_auth_enveloped_data_is_no_message(clinic: Clinic) -> None:
    content = clinic.signed()
    raw = clinic.sealed(content, encrypted=replace(cbc(SECRET, content), tag=bytes(16)))
    assert clinic.judge(raw).reason is Reason.MALFORMED


def compressed(content: bytes) -> bytes:
    """CompressedData (RFC 3274)."""
    info = seq(oid("1.2.840.113549.1.7.1"), tlv(0xA0, octets(zlib.compress(content))))
    body = seq(integer(0), algorithm("1.2.840.113549.1.9.16.3.8"), info)
    return seq(oid("1.2.840.113549.1.9.16.1.9"), tlv(0xA0, body))


def test_compressed_data_is_not_opened(clinic: Clinic) -> None:
    """S/MIME rule 13."""
    entity = outer_message(compressed(clinic.signed()), SENDER, [RCPT], smime_type="compressed-data")
    inside = entity[entity.index(b"MIME-Version") :]
    judgement = clinic.judge(clinic.sealed(inside))
    assert (judgement.reason, judgement.content) == (Reason.RESOURCE_LIMIT, None)
    assert "compressed" in judgement.detail
    assert clinic.judge(entity).reason is Reason.NOT_ENCRYPTED


# --- the floor ---


def test_no_setting_lowers_the_floor(clinic: Clinic) -> None:
    """AS-41: what is below it cannot be expressed; what tolerates or refuses more is written into each verdict."""
    for options in ({"min_rsa_bits": 2047}, {"min_rsa_bits": 0}, {"refused": frozenset({"sha-1"})}):
        with pytest.raises(ConfigurationError):
            AlgorithmPolicy(**options)
    settings: list[TrustPolicy] = [
        TrustPolicy(AlgorithmPolicy(gcm_in_enveloped_data=True)),
        TrustPolicy(AlgorithmPolicy(refused=frozenset({"aes-128-cbc"}))),
        TrustPolicy(hard_revocation=frozenset(Direction)),
    ]
    weak = clinic.sealed(clinic.signed(Signing(clinic.sender(), digest="sha1")))
    for policy in settings:
        agent = clinic.agent()
        agent.policy = policy
        judgement = clinic.world.judge(weak, agent)
        assert judgement.reason is Reason.WEAK_ALGORITHM
        assert judgement.policy_version == policy.version != TrustPolicy().version


def test_a_refused_row_is_refused_through_the_agent(clinic: Clinic) -> None:
    agent = clinic.agent()
    for name in ("aes-256-cbc", "rsa-pkcs1v15", "sha256"):
        agent.policy = TrustPolicy(AlgorithmPolicy(refused=frozenset({name})))
        refused(clinic.world.judge(clinic.sealed(clinic.signed()), agent), name)


def test_the_samples_of_this_file_are_genuine(clinic: Clinic) -> None:
    """Each refusal above is for the algorithm: the same message with an allowed one is accepted."""
    assert clinic.judge(clinic.sealed(clinic.signed())).reason is Reason.OK
    entry = kari(clinic.recipient("p256"), SECRET)
    assert clinic.judge(clinic.sealed(clinic.signed(), [entry]), "p256").reason is Reason.OK
