"""S/MIME rules 11, 13, 14, 16 and 24: structures that are meant to exhaust their reader.

Every limit is tested from both sides through the whole agent: what is just within is read, what is beyond is refused
with RESOURCE_LIMIT, soon and in little memory.
"""

from __future__ import annotations

import time
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gateway.core.verdict import Reason
from tests.smime.clinic import SECRET, Clinic
from tests.support.der_forge import algorithm, integer, octets, oid, seq, tlv
from tests.support.direct_messages import outer_message, wrapped_entity
from tests.support.forge_envelopes import cbc, enveloped, v15
from tests.support.forge_names import der_of
from tests.support.forge_signatures import Signed, Signing, attribute, opaque_entity
from tests.unit.sta.trust_world import CA, RCPT, SENDER


@contextmanager
def bounded(seconds: float = 1.0) -> Iterator[None]:
    """CPU time of what is inside."""
    began = time.process_time()
    yield
    assert time.process_time() - began < seconds


# --- rule 11 ---


def nested(depth: int, *, indefinite: bool) -> bytes:
    if indefinite:
        return b"\x30\x80" * depth + b"\0\0" * depth
    der = b""
    for _ in range(depth):
        der = tlv(0x30, der)
    return der


@pytest.mark.parametrize(
    ("depth", "indefinite"),
    [(17, False), (17, True), (1_000, False), (1_000, True), (5_000, False), (5_000, True), (100_000, True)],
)
def test_rule_11_depth(clinic: Clinic, depth: int, indefinite: bool) -> None:
    """a01, a02: at the top, as a recipient, within the signed data."""
    bomb = nested(depth, indefinite=indefinite)
    entry = v15(clinic.recipient(), SECRET)
    content = clinic.signed()
    places = [
        outer_message(bomb, SENDER, [RCPT]),
        outer_message(enveloped([bomb, entry], cbc(SECRET, content)), SENDER, [RCPT]),
        clinic.sealed(opaque_entity(bomb)),
        clinic.sealed(Signed(clinic.entity, [bomb]).entity()),
        clinic.sealed(Signed(clinic.entity, [Signing(clinic.sender())], certificates=[bomb]).entity()),
        clinic.sealed(clinic.signed(Signing(clinic.sender(), extra=[attribute("1.2.3", bomb)]))),
    ]
    for number, raw in enumerate(places):
        with bounded():
            judgement = clinic.judge(raw)
        allowed = {Reason.RESOURCE_LIMIT, Reason.MALFORMED, Reason.BAD_SIGNATURE}
        if number in {1, 5}:
            # What nobody has to read may be as deep as it likes, if it does no harm.
            allowed |= {Reason.OK}
        assert judgement.reason in allowed, (number, judgement.detail)
        assert judgement.detail != "the message exceeds a safety limit", "the stack ran out"


@pytest.mark.parametrize("size", [1_000, 10_000_000, 1 << 32, 1 << 63])
def test_rule_11_a_length_beyond_the_input_allocates_nothing(clinic: Clinic, size: int) -> None:
    """a03, a04."""
    octet_count = (size.bit_length() + 7) // 8
    head = bytes((0x30, 0x80 | octet_count)) + size.to_bytes(octet_count, "big")
    tracemalloc.start()
    try:
        judgement = clinic.judge(outer_message(head + b"\x06\x09", SENDER, [RCPT]))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert judgement.reason is Reason.MALFORMED
    assert peak < 4 << 20


@pytest.mark.parametrize("chunk", [1, 16, 63])
def test_rule_11_a_string_in_crumbs(clinic: Clinic, chunk: int) -> None:
    """a05: linear in time, and beyond 10,000 chunks they must be of a size."""
    body = cbc(SECRET, clinic.signed() + b"\r\n" * 400_000)
    pieces = b"".join(octets(body.content[at : at + chunk]) for at in range(0, len(body.content), chunk))
    info = seq(oid("1.2.840.113549.1.7.1"), body.algorithm, tlv(0xA0, pieces))
    der = seq(
        oid("1.2.840.113549.1.7.3"),
        tlv(0xA0, seq(integer(2), tlv(0x31, v15(clinic.recipient(), SECRET)), info)),
    )
    with bounded():
        assert clinic.judge(outer_message(der, SENDER, [RCPT])).reason is Reason.RESOURCE_LIMIT


def test_rule_11_usual_chunks_are_read(clinic: Clinic) -> None:
    body = cbc(SECRET, clinic.signed())
    pieces = b"".join(octets(body.content[at : at + 100]) for at in range(0, len(body.content), 100))
    info = seq(oid("1.2.840.113549.1.7.1"), body.algorithm, tlv(0xA0, pieces))
    der = seq(oid("1.2.840.113549.1.7.3"), tlv(0xA0, seq(integer(2), tlv(0x31, v15(clinic.recipient(), SECRET)), info)))
    assert clinic.judge(outer_message(der, SENDER, [RCPT])).reason is Reason.OK


@pytest.mark.parametrize(("recipients", "reason"), [(1_000, Reason.OK), (1_001, Reason.RESOURCE_LIMIT)])
def test_rule_11_recipients(clinic: Clinic, recipients: int, reason: Reason) -> None:
    """e16: ours may be the last of a thousand."""
    others = [v15(clinic.world.other, SECRET)] * (recipients - 1)
    raw = clinic.sealed(clinic.signed(), [*others, v15(clinic.recipient(), SECRET)])
    with bounded():
        assert clinic.judge(raw).reason is reason


@pytest.mark.parametrize(
    ("number", "reason"), [(32, Reason.OK), (33, Reason.RESOURCE_LIMIT), (20_000, Reason.RESOURCE_LIMIT)]
)
def test_rule_11_certificates(clinic: Clinic, number: int, reason: Reason) -> None:
    own = der_of(clinic.sender())
    with bounded():
        raw = clinic.sealed(clinic.signed(certificates=[own] * number))
        assert clinic.judge(raw).reason is reason


def test_rule_11_names_and_numbers(clinic: Clinic) -> None:
    """a09: a serial number of a megabyte, an object identifier of 65 bytes."""
    issuer = clinic.sender().certificate.issuer.public_bytes()
    huge = seq(issuer, tlv(0x02, b"\x01" * 1_000_000))
    with bounded():
        assert not clinic.judge(clinic.sealed(clinic.signed(Signing(clinic.sender(), sid=huge)))).accepted
    endless = tlv(0x06, b"\x2a" + b"\x81" * 100_000 + b"\x01")
    named = seq(endless)
    with bounded():
        judgement = clinic.judge(clinic.sealed(clinic.signed(Signing(clinic.sender(), signature_algorithm=named))))
    assert judgement.reason is Reason.RESOURCE_LIMIT


# --- rule 13 ---


def test_rule_13_a_decompression_bomb_is_not_lit(clinic: Clinic) -> None:
    """c01: 300 MB out of 300 KB."""
    bomb = zlib.compress(bytes(300_000_000), 9)
    info = seq(oid("1.2.840.113549.1.7.1"), tlv(0xA0, octets(bomb)))
    body = seq(integer(0), algorithm("1.2.840.113549.1.9.16.3.8"), info)
    der = seq(oid("1.2.840.113549.1.9.16.1.9"), tlv(0xA0, body))
    tracemalloc.start()
    try:
        reasons = [
            clinic.judge(outer_message(der, SENDER, [RCPT])).reason,
            clinic.judge(clinic.sealed(opaque_entity(der))).reason,
        ]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reasons == [Reason.NOT_ENCRYPTED, Reason.RESOURCE_LIMIT]
    assert peak < 20 << 20


# --- rule 14 ---


def multiparts(depth: int) -> bytes:
    heads = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(depth))
    ends = b"".join(b"\r\n--b%d--\r\n" % n for n in reversed(range(depth)))
    return heads + b"Content-Type: text/plain\r\n\r\nx\r\n" + ends


def parts(number: int) -> bytes:
    return b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * number + b"--b--\r\n"


def with_fields(body: bytes) -> bytes:
    return f"From: {SENDER}\r\nTo: {RCPT}\r\n".encode() + body


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (multiparts(19), Reason.OK),
        (multiparts(21), Reason.RESOURCE_LIMIT),
        (multiparts(3_000), Reason.RESOURCE_LIMIT),
        (parts(900), Reason.OK),
        (parts(1_001), Reason.RESOURCE_LIMIT),
        (parts(200_000), Reason.RESOURCE_LIMIT),
        (b"Content-Type: message/rfc822\r\n\r\n" * 3_000, Reason.RESOURCE_LIMIT),
        (b"X: " + b"a" * 60_000 + b"\r\n\r\nx\r\n", Reason.OK),
        (b"X: " + b"a" * 70_000 + b"\r\n\r\nx\r\n", Reason.RESOURCE_LIMIT),
        (b"X: y\r\n" * 500_000 + b"\r\nx\r\n", Reason.RESOURCE_LIMIT),
    ],
    ids=[
        "19 deep",
        "21 deep",
        "3000 deep",
        "900 parts",
        "1001 parts",
        "200000 parts",
        "3000 messages",
        "60 KB",
        "70 KB",
        "500000 fields",
    ],
)
def test_rule_14_the_mime_tree_is_bounded(clinic: Clinic, body: bytes, reason: Reason) -> None:
    """a08. Depth 20, 1000 parts, 64 KB of header: read within, refused beyond, in linear time."""
    raw = clinic.sealed(Signed(wrapped_entity(with_fields(body)), [Signing(clinic.sender())], opaque=True).entity())
    with bounded():
        judgement = clinic.judge(raw)
    assert judgement.reason is reason, judgement.detail


@pytest.mark.parametrize("line", [b"--b-\r\n", b"--bx\r\n", b"-", b"\r\n--", b"--b \t x\r\n"])
def test_rule_14_lines_that_almost_end_a_part_cost_no_more_than_others(clinic: Clinic, line: bytes) -> None:
    body = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n" + line * 200_000 + b"\r\n--b--\r\n"
    raw = clinic.sealed(Signed(wrapped_entity(with_fields(body)), [Signing(clinic.sender())], opaque=True).entity())
    with bounded():
        clinic.judge(raw)


# --- rule 16 ---


def test_rule_16_certificates_that_all_could_have_issued_each_other(clinic: Clinic) -> None:
    """Thirty of one name and few keys: a factorial builder never comes back. Counting is in test_path_validation.py."""
    keys = [CA.root("Mesh", slot) for slot in (70, 71, 72)]
    mesh = [issuer.below("Mesh", slot).identity for issuer in keys for slot in (70, 71, 72) for _ in range(3)]
    leaf = keys[0].issue(SENDER, slot=50)
    raw = clinic.sealed(clinic.signed(Signing(leaf), certificates=[der_of(leaf), *map(der_of, mesh)]))
    with bounded():
        assert clinic.judge(raw).reason is Reason.UNTRUSTED


# --- rule 24 ---


def test_rule_24_what_broke_libraries_before(clinic: Clinic) -> None:
    """The shapes behind CVE-2023-49083, CVE-2026-45447 and the AuthEnvelopedData overflow: absent, empty, doubled."""
    content = clinic.signed()
    entry = v15(clinic.recipient(), SECRET)
    good = cbc(SECRET, content)
    nothing = seq(oid("1.2.840.113549.1.7.2"))
    empty_content = seq(oid("1.2.840.113549.1.7.2"), tlv(0xA0))
    no_fields = seq(oid("1.2.840.113549.1.7.2"), tlv(0xA0, seq()))
    no_info = seq(oid("1.2.840.113549.1.7.3"), tlv(0xA0, seq(integer(0), tlv(0x31, entry))))
    no_content = seq(
        oid("1.2.840.113549.1.7.3"),
        tlv(0xA0, seq(integer(0), tlv(0x31, entry), seq(oid("1.2.840.113549.1.7.1"), good.algorithm))),
    )
    long_nonce = seq(octets(bytes(100_000)), integer(16))
    gcm_long = algorithm("2.16.840.1.101.3.4.1.46", long_nonce)
    info = seq(oid("1.2.840.113549.1.7.1"), gcm_long, tlv(0x80, b"x" * 32))
    overflow = seq(
        oid("1.2.840.113549.1.9.16.1.23"), tlv(0xA0, seq(integer(0), tlv(0x31, entry), info, octets(bytes(16))))
    )
    for der in (nothing, empty_content, no_fields, no_info, no_content, overflow, seq(), b"\x30\x00", b"\x05\x00"):
        for raw in (outer_message(der, SENDER, [RCPT]), clinic.sealed(opaque_entity(der))):
            judgement = clinic.judge(raw)
            assert not judgement.accepted
            assert "could not be examined" not in judgement.detail
    no_digests = Signed(clinic.entity, [Signing(clinic.sender())], digests=[])
    assert clinic.judge(clinic.sealed(no_digests.entity())).reason is Reason.OK
