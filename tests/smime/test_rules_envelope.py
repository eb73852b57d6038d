"""S/MIME rules 1, 12, 20, 21 and 22: what is opened, how deep, and with which parameters; nothing before its tag."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from gateway.core.verdict import Judgement, Reason
from tests.smime.clinic import SECRET, Clinic, KeyWatch
from tests.support.der_forge import NULL, Node, algorithm, octets, oid, read, seq, tlv
from tests.support.direct_messages import outer_message
from tests.support.forge_envelopes import (
    cbc,
    chacha,
    enveloped,
    gcm,
    kari,
    ktri,
    oaep,
    oaep_parameters,
    shared_info,
    v15,
)
from tests.support.forge_names import HASHES, HKDFS, MGF1, OAEP, WRAP, issuer_and_serial
from tests.support.forge_signatures import Signing
from tests.unit.sta.trust_world import RCPT, SENDER

# --- rule 1: the whole body or nothing ---


def test_rule_1_an_encrypted_part_of_a_larger_message_is_not_opened(clinic: Clinic) -> None:
    """e12: EFAIL's direct exfiltration. The key is not even asked."""
    part = clinic.sealed(clinic.signed())
    for kind in (b"multipart/mixed", b"multipart/related", b"multipart/alternative", b"message/rfc822"):
        watch = KeyWatch()
        head = b"From: " + SENDER.encode() + b"\r\nTo: " + RCPT.encode() + b"\r\nContent-Type: " + kind
        if kind.startswith(b"multipart"):
            raw = head + b'; boundary=o\r\n\r\n--o\r\nContent-Type: text/html\r\n\r\n<img src="\r\n--o\r\n' + part
            raw += b"\r\n--o--\r\n"
        else:
            raw = head + b"\r\n\r\n" + part
        assert clinic.judge(raw, watch=watch).reason is Reason.NOT_ENCRYPTED
        assert watch.asked.total() == 0


def test_rule_1_a_signed_part_of_what_was_decrypted_is_not_enough(clinic: Clinic) -> None:
    """m03, e11: beside the signed part anything could stand."""
    around = b"Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n\r\nplanted\r\n--o\r\n"
    assert clinic.judge(clinic.sealed(around + clinic.signed() + b"\r\n--o--\r\n")).reason is Reason.NOT_SIGNED


def test_rule_1_bytes_behind_the_structure_are_refused(clinic: Clinic) -> None:
    der = enveloped([v15(clinic.recipient(), SECRET)], cbc(SECRET, clinic.signed()))
    assert clinic.judge(outer_message(der + b"junk", SENDER, [RCPT])).reason is Reason.MALFORMED


# --- rule 12: layers ---


def test_rule_12_layers_are_bounded(clinic: Clinic) -> None:
    """e17: encrypted twice at most, four layers in all."""
    content = clinic.signed()
    twice = clinic.sealed(clinic.sealed(content))
    assert clinic.judge(twice).reason is Reason.OK
    assert clinic.judge(clinic.sealed(twice)).reason is Reason.RESOURCE_LIMIT
    deep = content
    for _ in range(12):
        deep = clinic.sealed(deep)
    watch = KeyWatch()
    assert clinic.judge(deep, watch=watch).reason is Reason.RESOURCE_LIMIT
    assert watch.asked.total() <= 4


# --- rule 20: points ---

P256_POINTS = {
    "infinity": b"\x00",
    "not on the curve": b"\x04" + bytes(31) + b"\x01" + bytes(31) + b"\x01",
    "all zero": b"\x04" + bytes(64),
    "of the other curve": b"\x04" + b"\x01" * 96,
    "compressed without a root": b"\x02" + bytes(31) + b"\x05",
    "cut short": b"\x04" + bytes(40),
    "coordinates beyond the field": b"\x04" + b"\xff" * 64,
    "unknown form": b"\x07" + bytes(64),
    "empty": b"",
}
X25519_SMALL_ORDER = {
    "zero": bytes(32),
    "one": b"\x01" + bytes(31),
    "order 8": bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    "order 8 again": bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    "p - 1": bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    "p": bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    "p + 1": bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    "cut short": bytes(31),
    "too long": bytes(33),
    "empty": b"",
}


@pytest.mark.parametrize("kind", ["p256", "p384"])
@pytest.mark.parametrize("name", P256_POINTS)
def test_rule_20_points_that_lie_on_no_curve_open_nothing(clinic: Clinic, kind: str, name: str) -> None:
    entry = kari(clinic.recipient(kind), SECRET, point=P256_POINTS[name])
    judgement = clinic.judge(clinic.sealed(clinic.signed(), [entry]), kind)
    assert judgement.reason in {Reason.CANNOT_DECRYPT, Reason.MALFORMED}
    assert judgement.content is None


@pytest.mark.parametrize("name", X25519_SMALL_ORDER)
def test_rule_20_an_all_zero_secret_is_no_secret(clinic: Clinic, name: str) -> None:
    """RFC 8418 section 2: who sends a point of small order knows the shared secret without any key."""
    entry = known_secret(clinic, X25519_SMALL_ORDER[name])
    judgement = clinic.judge(clinic.sealed(clinic.signed(), [entry]), "x25519")
    assert judgement.reason in {Reason.CANNOT_DECRYPT, Reason.MALFORMED}
    assert judgement.content is None


def known_secret(clinic: Clinic, point: bytes) -> bytes:
    """An entry that opens for whoever accepts a shared secret of zeros."""
    wrap = algorithm(WRAP[32])
    key = HKDF(HASHES["sha256"], 32, salt=None, info=shared_info(wrap, 32)).derive(bytes(32))
    return tlv(
        0xA1,
        b"\x02\x01\x03",
        tlv(0xA0, tlv(0xA1, algorithm("1.3.101.110"), tlv(0x03, b"\0" + point))),
        algorithm(HKDFS["sha256"], wrap),
        seq(seq(issuer_and_serial(clinic.recipient("x25519").certificate), octets(aes_key_wrap(key, SECRET)))),
    )


def test_rule_20_absent_and_odd_parameters_are_no_crash(clinic: Clinic) -> None:
    """e18 (CVE-2026-28389): the originator may name the curve, name it wrongly, or not name it."""
    to = clinic.recipient("p256")
    honest = kari(to, SECRET)
    content = clinic.signed()
    bare = algorithm("1.2.840.10045.2.1")
    for named in (
        bare,
        algorithm("1.2.840.10045.2.1", NULL),
        algorithm("1.2.840.10045.2.1", oid("1.2.840.10045.3.1.7")),
    ):
        entry = rebuilt(honest, bare, named)
        assert clinic.judge(clinic.sealed(content, [entry]), "p256").reason is Reason.OK
    scheme = algorithm("1.3.132.1.11.1", algorithm("2.16.840.1.101.3.4.1.45"))
    for told in (
        algorithm("1.3.132.1.11.1"),
        algorithm("1.3.132.1.11.1", NULL),
        algorithm("1.3.132.1.11.1", seq()),
        seq(),
    ):
        judgement = clinic.judge(clinic.sealed(content, [rebuilt(honest, scheme, told)]), "p256")
        assert judgement.reason in {Reason.CANNOT_DECRYPT, Reason.MALFORMED}, judgement.detail


def rebuilt(entry: bytes, old: bytes, new: bytes) -> bytes:
    """The entry with one element exchanged and all lengths made right."""
    root = read(entry)

    def exchange(node: Node) -> None:
        for at, child in enumerate(node.inside):
            if child.encode() == old:
                node.inside[at] = read(new)
            else:
                exchange(child)

    exchange(root)
    changed = root.encode()
    assert changed != entry or old == new
    return changed


# --- rule 21: OAEP parameters ---


@pytest.mark.parametrize(
    "told",
    [b"", NULL, seq(), oaep_parameters("sha1", None, b""), oaep_parameters(None, "sha1", b"")],
    ids=["absent", "null", "empty", "hash only", "mask only"],
)
def test_rule_21_absent_parameters_mean_sha1(clinic: Clinic, told: bytes) -> None:
    """RFC 4055 section 4.1: each field has its default."""
    content = clinic.signed()
    right = oaep(clinic.recipient(), SECRET, "sha1", told=told)
    assert clinic.judge(clinic.sealed(content, [right])).reason is Reason.OK
    wrong = oaep(clinic.recipient(), SECRET, "sha256", told=told)
    assert clinic.judge(clinic.sealed(content, [wrong])).reason is Reason.CANNOT_DECRYPT


@pytest.mark.parametrize("label", [b"", b"L", b"TCPA", bytes(1024)])
@pytest.mark.parametrize(("digest", "mask"), [("sha256", "sha1"), ("sha1", "sha256"), ("sha512", "sha384")])
def test_rule_21_hash_mask_and_label_are_independent(clinic: Clinic, digest: str, mask: str, label: bytes) -> None:
    entry = oaep(clinic.recipient(), SECRET, digest, mask, label)
    assert clinic.judge(clinic.sealed(clinic.signed(), [entry])).reason is Reason.OK


@pytest.mark.parametrize(
    "told",
    [
        tlv(0x04, b"x"),
        seq(tlv(0xA0, b"")),
        seq(tlv(0xA0, NULL)),
        seq(tlv(0xA1, algorithm(MGF1))),
        seq(tlv(0xA1, algorithm("2.16.840.1.101.3.4.2.11"))),
        seq(tlv(0xA2, algorithm("1.2.3.4", octets(b"x")))),
        seq(tlv(0xA2, algorithm("1.2.840.113549.1.1.9", octets(bytes(2000))))),
        seq(tlv(0xA5, NULL)),
        oid("1.2.3"),
    ],
)
def test_rule_21_odd_parameters_are_no_crash(clinic: Clinic, told: bytes) -> None:
    """e03 (CVE-2026-28390)."""
    public: Any = clinic.recipient().certificate.public_key()
    mode = padding.OAEP(padding.MGF1(HASHES["sha256"]), HASHES["sha256"], None)
    entry = ktri(clinic.recipient().certificate, public.encrypt(SECRET, mode), algorithm(OAEP, told))
    judgement = clinic.judge(clinic.sealed(clinic.signed(), [entry]))
    assert judgement.reason in {Reason.CANNOT_DECRYPT, Reason.MALFORMED, Reason.WEAK_ALGORITHM, Reason.RESOURCE_LIMIT}
    assert "could not be examined" not in judgement.detail


# --- rule 22: nothing before the tag ---


@pytest.mark.parametrize("size", [0, 4, 8, 11, 17])
def test_rule_22_a_tag_outside_12_to_16_bytes_is_refused(clinic: Clinic, size: int) -> None:
    """e05 (CVE-2026-12802): four bytes are guessed in an afternoon."""
    content = clinic.signed()
    sealed = gcm(SECRET, content, tag_bytes=min(size, 16))
    if size == 17:
        sealed = replace(gcm(SECRET, content), tag=bytes(17))
    judgement = clinic.judge(clinic.sealed(content, encrypted=sealed))
    assert judgement.reason in {Reason.WEAK_ALGORITHM, Reason.MALFORMED}


@pytest.mark.parametrize(("announced", "sent"), [(16, 12), (12, 16), (16, 15), (None, 16)])
def test_rule_22_the_tag_is_as_long_as_announced(clinic: Clinic, announced: int | None, sent: int) -> None:
    content = clinic.signed()
    sealed = gcm(SECRET, content)
    assert sealed.tag is not None
    size = b"" if announced is None else bytes((2, 1, announced))
    told = algorithm("2.16.840.1.101.3.4.1.46", seq(octets(bytes(12)), size))
    raw = clinic.sealed(content, encrypted=replace(sealed, algorithm=told, tag=sealed.tag[:sent]))
    assert clinic.judge(raw).reason is Reason.MALFORMED


def readers(run: Callable[[], Judgement], plain: bytes) -> set[str]:
    """The modules of the gateway one of whose functions was given that plaintext."""
    found: set[str] = set()

    def profile(frame: Any, event: str, _: Any) -> None:
        module = str(frame.f_globals.get("__name__"))
        if event == "call" and module.startswith("gateway."):
            for value in list(frame.f_locals.values()):
                if isinstance(value, bytes | bytearray | memoryview) and bytes(value[: len(plain)]) == plain:
                    found.add(module)

    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
    return found


@pytest.mark.parametrize("seal", [gcm, chacha])
def test_rule_22_no_plaintext_goes_on_before_the_tag_is_right(clinic: Clinic, seal: Any) -> None:
    """A message of several slices with a wrong tag: nothing but the reader of the CMS object sees what it decrypts."""
    content = clinic.signed(Signing(clinic.sender())) + b"\r\n" * (3 << 19)
    sealed = seal(SECRET, content)
    altered = replace(sealed, tag=bytes((sealed.tag[0] ^ 1,)) + sealed.tag[1:])
    wrong, right = clinic.sealed(content, encrypted=altered), clinic.sealed(content, encrypted=sealed)
    assert clinic.judge(wrong).reason is Reason.CANNOT_DECRYPT
    seen = readers(lambda: clinic.judge(wrong), content[:64])
    assert {module for module in seen if not module.startswith("gateway.sta.cms.")} == set()
    seen = readers(lambda: clinic.judge(right), content[:64])
    assert {module for module in seen if not module.startswith("gateway.sta.cms.")}, "else the watch proves nothing"
