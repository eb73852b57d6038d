"""Direct Context: every form of the part, and each way to be malformed by its own name."""

from base64 import encodebytes
from binascii import b2a_qp, b2a_uu
from datetime import date

import pytest

from gateway.core.claims import (
    Claim,
    Disagreement,
    Evidence,
    Identifier,
    PersonName,
    PostalAddress,
    Source,
    Strength,
    contradictions,
)
from tests.unit.evidence.evidence_messages import codes, message, of_message, part

HEADER = b"X-Direct-Context: <ctx@hobo.lab>\r\n"
CONTEXT = (
    b"version: 1.1\r\nid: <2142848@direct.example.com>\r\n"
    b"patient-id: 2.16.840.1.113883.19.999999:123456;\r\n 2.16.840.1.113883.19.888888:75774\r\n"
    b"type: radiology/report\r\npurpose: research\r\n"
    b"patient: givenName=John; surname=Doe; middleName=Jacob; dateOfBirth=1961\r\n -12-31; gender=M; "
    b"socialSecurityNumber=123-45-6789; telephoneNumber=(555) 723-1544; streetAddress=1 Main St; postalCode=12345; "
    b"directAddress=John.Doe@direct.john-doe.net; localityName=Albany; stateOrProvinceName=NY; country=US\r\n"
)
EXPECTED = Claim(
    Source.DIRECT_CONTEXT,
    Strength.SENDER,
    "2",
    names=(PersonName("Doe", ("John",), "Jacob"),),
    birth_date=date(1961, 12, 31),
    sex="male",
    identifiers=(
        Identifier("123456", "2.16.840.1.113883.19.999999"),
        Identifier("75774", "2.16.840.1.113883.19.888888"),
    ),
    phones=("(555) 723-1544",),
    direct_addresses=("john.doe@direct.john-doe.net",),
    addresses=(PostalAddress(("1 Main St",), "Albany", "NY", "12345", "US"),),
)


def _uuencoded(data: bytes) -> bytes:
    lines = b"".join(b2a_uu(data[at : at + 45]) for at in range(0, len(data), 45))
    return b"begin 0644 metadata.txt\r\n" + lines.replace(b"\n", b"\r\n") + b"`\r\nend\r\n"


def _context(data: bytes, encoding: str = "8bit", *, header: bytes = HEADER) -> Evidence:
    return of_message(
        part(data, "text/plain", filename="metadata.txt", encoding=encoding, content_id="ctx@hobo.lab"), header=header
    )


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [
        ("7bit", bytes),
        ("8bit", bytes),
        ("binary", bytes),
        ("quoted-printable", lambda data: b2a_qp(data, istext=True)),
        ("BASE64", encodebytes),
        ("x-uuencode", _uuencoded),
        ("uuencode", _uuencoded),
    ],
)
def test_every_transfer_encoding_gives_the_same_claim(encoding: str, encode: object) -> None:
    assert callable(encode)
    found = _context(encode(CONTEXT), encoding)
    assert codes(found) == []
    assert found.claims == (EXPECTED,)


def test_a_social_security_number_is_nowhere() -> None:
    assert "6789" not in repr(_context(CONTEXT))


def test_the_adt_extension_and_line_ends_of_unix_are_read() -> None:
    adt = CONTEXT.replace(b"\r\n", b"\n") + (
        b"creation-time: 20210416080510.1245-4000\nformat-code: dt-org:dsm:adt-en:1.0\ntype-code: 2.16:lncct-notif-01\n"
    )
    found = _context(adt)
    assert found.claims == (EXPECTED,)
    assert found.problems == ()


def test_without_the_header_field_the_part_is_a_text_like_any_other() -> None:
    assert _context(CONTEXT, header=b"").claims == ()


@pytest.mark.parametrize(
    ("old", "new", "code", "hides"),
    [
        (b"version: 1.1\r\n", b"", "context_version_missing", False),
        (b"version: 1.1", b"version: 2.7", "context_version_unknown", True),
        (b"id: <2142848@direct.example.com>\r\n", b"", "context_id_missing", False),
        (b"radiology/report", b"bad/report", "context_type_unknown", False),
        (b"givenName=John", b"Name=John", "context_element_unknown", True),
        (b"givenName=John", b"John", "context_element_unknown", True),
        (b"surname=Doe", b"surname=Doe; surname=Roe", "context_element_repeated", True),
        (b"-12-31", b"-13-31", "context_birth_date_unreadable", True),
        (b"gender=M", b"gender=Q", "context_gender_unknown", True),
        (b"John.Doe@direct.john-doe.net", b"John Doe", "context_direct_address_unreadable", True),
        (b":123456;", b" 123456;", "context_patient_id_unreadable", True),
        (b"purpose: research", b"no colon in this line", "context_line_unreadable", True),
    ],
)
def test_what_is_malformed_has_a_name_and_the_rest_is_read(old: bytes, new: bytes, code: str, hides: bool) -> None:
    assert CONTEXT.count(old) == 1
    found = _context(CONTEXT.replace(old, new))
    assert codes(found) == [code]
    assert found.is_complete is not hides
    (claim,) = found.claims
    assert claim.names[0].family == "Doe"


def test_a_part_that_is_not_there_and_one_that_holds_nothing() -> None:
    assert codes(of_message(header=HEADER)) == ["context_part_missing"]
    assert codes(_context(b"\r\n")) == ["context_unreadable"]
    assert codes(_context(b"x: " + b"y" * 70_000)) == ["context_too_large"]


def test_two_parts_of_that_name_are_both_read() -> None:
    other = CONTEXT.replace(b"Doe", b"Roe")
    parts = [part(data, "text/plain", encoding="8bit", content_id="ctx@hobo.lab") for data in (CONTEXT, other)]
    found = of_message(*parts, header=HEADER)
    assert codes(found) == ["context_part_ambiguous"]
    assert [one.field for one in contradictions(found.claims)] == [Disagreement.FAMILY]


def test_two_patient_lines_are_two_patients() -> None:
    found = _context(CONTEXT + b"patient: givenName=Jane; surname=Doe\r\n")
    assert [claim.ordinal for claim in found.claims] == [1, 2]
    assert Disagreement.SEVERAL_PATIENTS in [one.field for one in contradictions(found.claims)]


def test_a_patients_direct_address_may_be_an_identifier() -> None:
    found = _context(CONTEXT.replace(b":123456;", b":123456; 1.3.6.1.4.1.41179.2.4:jd@direct.other.test;"))
    assert found.claims[0].direct_addresses == ("john.doe@direct.john-doe.net", "jd@direct.other.test")
    assert found.claims[0].identifiers == EXPECTED.identifiers


def test_the_context_of_an_attached_message_is_a_weaker_word() -> None:
    inner = message(part(CONTEXT, "text/plain", encoding="8bit", content_id="ctx@hobo.lab"), header=HEADER)
    found = of_message(b"Content-Type: message/rfc822\r\n\r\n" + inner.replace(b"edge", b"inner"))
    (claim,) = found.claims
    assert (claim.strength, claim.names) == (Strength.AUTHOR, EXPECTED.names)
