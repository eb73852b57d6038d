"""What is remembered of earlier messages never changes what a later one says."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from asn1crypto import cms

from gateway.core.errors import RejectionError
from gateway.core.verdict import Reason
from gateway.sta.cms import signed as module
from gateway.sta.cms.ber import ANY, INTEGER, OCTET_STRING, SEQUENCE, Document, Expected, short_value
from gateway.sta.cms.der import integer, octet_string, sequence, tlv
from gateway.sta.cms.signed import read_signed_data
from gateway.sta.cms.writing import OutgoingSigner, sign_detached
from tests.unit.sta_cms.cms_samples import SENDER, TEXT, file_key, identity

AT = datetime(2026, 1, 5, 12, tzinfo=UTC)
OTHER = "other@practice.example.com"


def forget() -> None:
    """Begin as after a start."""
    module._openings.clear()
    module._remembered_attribute.cache_clear()
    module._remembered_digest_algorithms.cache_clear()
    module._remembered_algorithm.cache_clear()


@pytest.fixture(autouse=True)
def _forgetful() -> Iterator[None]:
    forget()
    yield
    forget()


def message(content: bytes = TEXT, sender: str = SENDER, second: int = 0) -> bytes:
    """A detached signature."""
    return sign_detached(content, OutgoingSigner.of(file_key(identity(sender))), AT.replace(second=second))


def read(der: bytes) -> object:
    """All that is read, faults as text."""
    try:
        found = read_signed_data(der)
    except RejectionError as fault:
        return fault.reason, fault.detail
    return (*found[:5], *[(*signer[:5], str(signer.defect)) for signer in found.signers])


def read_afresh(der: bytes) -> object:
    """The same by a reader that has seen nothing before."""
    forget()
    return read(der)


def test_a_later_signature_of_the_same_sender_is_read_as_by_a_fresh_reader() -> None:
    first, second = message(), message(b"something else", second=30)
    assert len(first) == len(second)
    expected = read_afresh(second)
    forget()
    read(first)
    assert module._opening_of(second) is not None
    assert read(second) == expected
    assert read(second) != read(first)


def test_what_asn1crypto_reads_is_what_is_remembered() -> None:
    first, second = message(), message(b"more", second=7)
    read(first)
    found = read_signed_data(second)
    theirs = cms.ContentInfo.load(second)["content"]
    assert found.certificates == tuple(one.chosen.dump() for one in theirs["certificates"])
    assert found.digest_algorithms == tuple(one["algorithm"].dotted for one in theirs["digest_algorithms"])
    info = theirs["signer_infos"][0]
    assert found.signers[0].signature == info["signature"].native
    assert [a.raw for a in found.signers[0].signed_attributes or ()] == [a.dump() for a in info["signed_attrs"]]
    values = {a["type"].dotted: tuple(v.dump() for v in a["values"]) for a in info["signed_attrs"]}
    assert {a.oid: a.values for a in found.signers[0].signed_attributes or ()} == values


def test_another_sender_finds_nothing_of_the_first() -> None:
    first, other = message(), message(sender=OTHER)
    read(first)
    assert module._opening_of(other) is None
    found = read_signed_data(other)
    assert found.certificates == (identity(OTHER).certificate_der,)


def test_altered_bytes_are_read_as_by_a_fresh_reader_wherever_they_are() -> None:
    """Every octet of what precedes the signers, and many behind them; also octets put in and taken out."""
    plain = message()
    read(plain)
    (opening,) = (known.encoded for known in module._openings.values())
    noise = random.Random(11)
    places = [*range(len(opening)), *noise.sample(range(len(opening), len(plain)), 150)]
    for place in places:
        altered = bytearray(plain)
        altered[place] ^= 1 << noise.randrange(8)
        for der in (bytes(altered), bytes(altered[:place] + altered[place + 1 :]), plain + bytes(altered[:1])):
            expected = read_afresh(der)
            forget()
            read(plain)
            assert read(der) == expected, place
            assert read(plain) == read_afresh(plain)


@pytest.mark.parametrize("behind", [b"\r\n", b"\0\0"])
def test_what_is_padded_is_read_but_not_remembered(behind: bytes) -> None:
    plain = message()
    assert read(plain + behind) == read(plain)
    forget()
    read(plain + behind)
    assert not module._openings


def test_indefinite_lengths_are_read_but_not_remembered() -> None:
    """Where such an element ends is told by what comes behind, which is another thing in the next message."""
    plain = message()
    content = Document(plain).root().open()
    kind = content.next("the type").encoded
    inside = b"".join(bytes(one.raw) for one in content.next("the content").open().next("the data").open())
    streamed = b"\x30\x80" + kind + b"\xa0\x80\x30\x80" + inside + b"\0\0" * 3
    assert read(streamed) == read(plain)
    forget()
    read(streamed)
    assert not module._openings


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED_OPENINGS", 3)
    plain = message()
    for size in range(3):
        module._openings[size, b""] = module._Opening(b"x", "1.2", ((), (), ()))
    read(plain)
    assert len(module._openings) == 1
    monkeypatch.setattr(module, "MAX_REMEMBERED_OPENING_BYTES", 100)
    forget()
    read(plain)
    assert not module._openings


@pytest.mark.parametrize(
    "value",
    [
        tlv(0x31, octet_string(b"d" * 32), octet_string(b"e")),
        tlv(0x31),
        tlv(0x31, octet_string(b"d" * 200)),
        tlv(0x31, b"\x24\x80" + octet_string(b"d") + b"\0\0"),
        b"\x31\x80" + octet_string(b"d" * 32) + b"\0\0",
        tlv(0x31, b"\x04\x81\x01d"),
        tlv(0x31, octet_string(b"")),
        tlv(0x31, b"\0\0"),
        tlv(0x31, b"\0\x20" + b"d" * 32),
        tlv(0x31, b"\x1f\x20" + b"d" * 32),
        tlv(0x31, b"\x24\x20" + b"d" * 32),
        tlv(0x31, integer(1 << 100)),
        tlv(0x31, tlv(0x17, b"260105120000Z")),
        tlv(0x31, tlv(0x00, b"260105120000Z")),
        tlv(0x31, b"\x1f\x01\x00"),
        tlv(0x30, octet_string(b"d" * 32)),
        octet_string(b"d" * 32),
        tlv(0x31, octet_string(b"d" * 32))[:-1],
    ],
)
def test_odd_values_of_the_digest_are_read_as_of_any_attribute(value: bytes) -> None:
    """messageDigest in its usual form is taken apart without the walker: every other form goes to it."""
    name = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09"

    def parts(last: bytes) -> object:
        encoded = sequence(name + last, value)
        try:
            found = module._attribute(Document(encoded).root())
        except RejectionError as fault:
            return fault.reason, fault.detail
        return found.values, found.raw == encoded

    assert parts(b"\x04") == parts(b"\x09")


@pytest.mark.parametrize("value", [octet_string(b"d" * 32), tlv(0x17, b"260105120000Z"), octet_string(b"")])
@pytest.mark.parametrize("last", [4, 5])
def test_every_alteration_of_one_octet_is_read_as_the_walker_reads_it(value: bytes, last: int) -> None:
    plain = sequence(b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09" + bytes((last,)), tlv(0x31, value))
    for place in range(len(plain)):
        for octet in range(256):
            altered = plain[:place] + bytes((octet,)) + plain[place + 1 :]
            outcomes = []
            for reader in (module._attribute, module._read_attribute):
                try:
                    outcomes.append(str(reader(Document(altered).root())))
                except RejectionError as fault:
                    outcomes.append(str(fault))
            assert outcomes[0] == outcomes[1], (place, octet)


def test_elements_are_read_one_after_another() -> None:
    expected: Expected = ((INTEGER, "a number"), (ANY, "anything"), (OCTET_STRING, "text"))
    data = sequence(integer(5), sequence(integer(1)), octet_string(b"x" * 300))
    cursor = Document(data).root().open()
    number, anything, text = cursor.take_each(expected)
    assert (number.integer("n"), anything.tag, bytes(text.content)) == (5, SEQUENCE, b"x" * 300)
    assert not cursor.more
    assert [one.tag for one in Document(data).root().fields(expected, "all")] == [INTEGER, SEQUENCE, OCTET_STRING]
    streamed = b"\x30\x80" + integer(5) + b"\x30\x80" + integer(1) + b"\0\0" + octet_string(b"y") + b"\0\0"
    assert [one.tag for one in Document(streamed).root().fields(expected, "all")] == [INTEGER, SEQUENCE, OCTET_STRING]


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (sequence(integer(5)), "anything is missing"),
        (sequence(octet_string(b"x")), "a number is missing or of the wrong type"),
        (sequence(integer(5), integer(5), integer(5)), "text is missing or of the wrong type"),
        (sequence(integer(5), integer(5), octet_string(b""), integer(5)), "all holds more than it may"),
        (sequence(integer(5), b"\x02\x05abcd"), "ASN.1 element is longer than what holds it"),
        (sequence(integer(5), b"\0\0", octet_string(b"x")), "ASN.1 end-of-contents octets where an element must stand"),
        (tlv(0x10, integer(5)), "ASN.1 element must be constructed"),
    ],
)
def test_elements_that_are_not_the_expected_ones_are_named(data: bytes, detail: str) -> None:
    with pytest.raises(RejectionError) as caught:
        Document(data).root().fields(((INTEGER, "a number"), (ANY, "anything"), (OCTET_STRING, "text")), "all")
    assert (caught.value.reason, caught.value.detail) == (Reason.MALFORMED, detail)


def test_a_short_value_is_one_whole_primitive_element() -> None:
    assert short_value(octet_string(b"abc"), OCTET_STRING) == b"abc"
    assert short_value(octet_string(b""), OCTET_STRING) == b""
    for other in (b"", b"\x04", b"\x04\x02a", b"\x04\x01ab", integer(5), octet_string(b"x" * 128), b"\x04\x81\x01a"):
        assert short_value(other, OCTET_STRING) is None
