"""Who sent it, and is the signer that person? (AS-2, AS-4..AS-9, AS-52; vectors i01 to i11)"""

from __future__ import annotations

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import RejectionError
from gateway.core.mime.headers import scan_headers
from gateway.core.verdict import Reason
from gateway.sta.identity import binding, named_recipients, optional_sender_field, the_sender
from tests.unit.sta.trust_world import World, certificate_of


def _from(value: bytes) -> str:
    return the_sender(scan_headers(b"From: " + value + b"\r\n\r\n")).normalised


@pytest.mark.parametrize(
    "value",
    [
        b"jane@d.example",
        b"  Jane@D.example  ",
        b"<jane@d.example>",
        b'"Dr. Jane, M.D." <jane@d.example>',
        b'"quoted \\" mark" <jane@d.example>',
        b"Jane Doe <jane@d.example>",
        b"Dr. Jane Doe <jane@d.example>",
        b"=?utf-8?q?J=C3=A4ne?= <jane@d.example>",
        "J\u00e4ne <jane@d.example>".encode(),
        b"jane@d.example (Jane (the) Doe)",
        b"(note) Jane <jane@d.example> (more)",
        b"Jane Doe\r\n <jane@d.example>",
        b'"<eve@evil.example>" <jane@d.example>',
    ],
)
def test_one_well_formed_address_is_the_sender(value: bytes) -> None:
    assert _from(value) == "jane@d.example"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"Jane Doe",
        b"jane@d.example, eve@evil.example",
        b"Jane <jane@d.example>, Eve <eve@evil.example>",
        b"friends: jane@d.example;",
        b"undisclosed-recipients:;",
        b"<@evil.example:jane@d.example>",
        b"jane@d.example(comment)@evil.example",
        b"jane(comment)@d.example",
        b"jane @d.example",
        b"jane@ d.example",
        b"jane@d.example <eve@evil.example>",
        b"jane@d.example\r\n <eve@evil.example>",
        b"jane@d.example eve@evil.example",
        b"<jane@d.example> eve@evil.example",
        b"<jane@d.example><eve@evil.example>",
        b"Jane <<jane@d.example>>",
        b"Jane <jane@d.example",
        b"jane@d.example>",
        b'"jane"@d.example',
        b'"jane@d.example',
        b"jane@d.example (open",
        b"jane@d.example\x00@evil.example",
        b"jane@d.example\x0b",
        b"jane\rX: y@d.example",
        b"jane@d.example\xe2\x80\xae",
        b"jane@d.example\xff",
        b"jane@[192.0.2.1]",
        b"jane@localhost",
        b"jane@d..example",
        b"=?utf-8?q?jane=40d=2Eexample?=",
        b"jane@d.example;",
        b"jane@@d.example",
        b"@d.example",
        b"jane\\@d.example",
    ],
)
def test_what_two_programs_could_read_differently_is_refused(value: bytes) -> None:
    with pytest.raises(RejectionError) as caught:
        _from(value)
    assert caught.value.reason is Reason.MALFORMED


def test_two_from_fields_or_none_are_refused() -> None:
    for raw in (b"From: a@d.example\r\nFrom: a@d.example\r\n\r\n", b"X: y\r\n\r\n"):
        with pytest.raises(RejectionError):
            the_sender(scan_headers(raw))


def test_the_sender_field_is_read_as_strictly() -> None:
    assert optional_sender_field(scan_headers(b"X: y\r\n\r\n")) is None
    found = optional_sender_field(scan_headers(b"Sender: Desk <desk@d.example>\r\n\r\n"))
    assert found is not None
    assert found.normalised == "desk@d.example"
    for raw in (b"Sender: a@d.example\r\nSender: b@d.example\r\n\r\n", b"Sender: a@d.example, b@d.example\r\n\r\n"):
        with pytest.raises(RejectionError):
            optional_sender_field(scan_headers(raw))


def test_recipients_come_from_to_and_cc_alone_and_groups_count() -> None:
    raw = (
        b'To: A <a@d.example>, "x, y" <b@d.example>,\r\n\tteam: c@d.example, D <d@d.example>; , broken, A@D.example\r\n'
        b"Cc: e@d.example (note, with comma), \r\nBcc: hidden@d.example\r\n\r\n"
    )
    assert named_recipients(scan_headers(raw)) == tuple(f"{one}@d.example" for one in "abcde")


def test_an_unreadable_to_names_nobody() -> None:
    assert named_recipients(scan_headers(b"To: a@d.example\x00, b@d.example\r\nCc: c@d.example\r\n\r\n")) == (
        "c@d.example",
    )


@given(st.binary(max_size=200))
def test_any_bytes_in_from_and_to_raise_nothing_but_rejections(value: bytes) -> None:
    headers = scan_headers(
        b"From: " + value.replace(b"\n", b"") + b"\r\nTo: " + value.replace(b"\n", b"") + b"\r\n\r\n"
    )
    named_recipients(headers)
    try:
        sender = the_sender(headers)
    except RejectionError:
        return
    assert sender.normalised.count("@") == 1


@pytest.mark.parametrize(
    ("names", "sender", "bound"),
    [
        ([x509.RFC822Name("jane@d.example")], b"jane@d.example", "jane@d.example"),
        ([x509.RFC822Name("JANE@d.EXAMPLE")], b"Jane@D.example", "jane@d.example"),
        ([x509.DNSName("D.example")], b"jane@d.example", "d.example"),
        ([x509.RFC822Name("x@d.example"), x509.RFC822Name("jane@d.example")], b"jane@d.example", "jane@d.example"),
        ([x509.DNSName("example.org")], b"jane@d.example.org", None),
        ([x509.DNSName("sub.d.example")], b"jane@d.example", None),
        ([x509.DNSName("*.example")], b"jane@d.example", None),
        ([x509.DNSName("*.d.example")], b"jane@d.example", None),
        ([x509.DNSName("d.example.")], b"jane@d.example", None),
        ([x509.RFC822Name("d.example")], b"jane@d.example", None),
        ([x509.DNSName("jane@d.example")], b"jane@d.example", None),
        ([x509.RFC822Name("janet@d.example")], b"jane@d.example", None),
        ([x509.RFC822Name("ja\x00ne@d.example")], b"jane@d.example", None),
        ([x509.RFC822Name("jane@d.example\x00.evil.example")], b"jane@d.example", None),
        ([x509.UniformResourceIdentifier("mailto:jane@d.example")], b"jane@d.example", None),
        ([x509.RFC822Name("jack@d.example")], "jac\u212a@d.example".encode(), None),
        ([], b"jane@d.example", None),
    ],
)
def test_the_binding_is_by_alternative_name_alone_and_exact(
    world: World, names: list[x509.GeneralName], sender: bytes, bound: str | None
) -> None:
    """AS-5..AS-9, AS-52. A KELVIN SIGN, which folds to k, is not the k of an ASCII rfc822Name."""
    certificate = certificate_of(world.community.issue(names, subject="jane@d.example"))
    assert binding(certificate, the_sender(scan_headers(b"From: " + sender + b"\r\n\r\n"))) == bound


def test_an_issuer_s_alternative_name_binds_nobody(world: World) -> None:
    issuer = x509.IssuerAlternativeName([x509.RFC822Name("jane@d.example")])
    certificate = certificate_of(world.community.issue((), extra=[(issuer, False)]))
    assert binding(certificate, the_sender(scan_headers(b"From: jane@d.example\r\n\r\n"))) is None


def test_an_smtputf8_mailbox_binds_an_address_beyond_ascii(world: World) -> None:
    """RFC 8398."""
    value = "\u00e4rztin@d.example"
    encoded = value.encode()
    other = x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.9"), bytes([0x0C, len(encoded)]) + encoded)
    certificate = certificate_of(world.community.issue([other]))
    assert binding(certificate, the_sender(scan_headers(b"From: " + encoded + b"\r\n\r\n"))) == value
