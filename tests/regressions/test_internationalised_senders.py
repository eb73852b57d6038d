"""A sender in a domain beyond ASCII was refused, although the certificate had it as the DNS has it (RFC 9598)."""

from __future__ import annotations

import unicodedata

import pytest
from asn1crypto import core as asn1_core
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.address import normalise
from gateway.core.errors import InputError, RejectionError
from gateway.core.message import Envelope
from gateway.core.mime.headers import scan_headers
from gateway.core.verdict import Reason
from gateway.sta.domain_names import in_a_labels, parse_any_address
from gateway.sta.identity import Mailbox, binding, named_recipients, the_sender
from gateway.sta.paths.path_validation import validate_path
from gateway.sta.routing import comparable
from tests.support.paths import build_paths
from tests.unit.sta.trust_world import CA, NOW, RCPT, World, certificate_of, usage

A_LABEL = "xn--mnchen-3ya.example"
U_LABEL = "m\u00fcnchen.example"
KELVIN = "\u212a"


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def sender(address: str) -> Mailbox:
    return the_sender(scan_headers(b"From: " + address.encode() + b"\r\n\r\n"))


def utf8(address: str) -> x509.OtherName:
    return x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.9"), asn1_core.UTF8String(address).dump())


def bound(world: World, name: x509.GeneralName, address: str) -> str | None:
    return binding(certificate_of(world.community.issue([name])), sender(address))


@pytest.mark.parametrize("domain", [U_LABEL, "M\u00dcNCHEN.Example", A_LABEL, A_LABEL.upper()])
def test_a_domain_is_compared_in_one_form(world: World, domain: str) -> None:
    assert sender(f"Jane@{domain}").normalised == f"jane@{A_LABEL}"
    assert bound(world, x509.DNSName(A_LABEL), f"jane@{domain}") == A_LABEL
    assert bound(world, x509.RFC822Name(f"jane@{A_LABEL}"), f"jane@{domain}") == f"jane@{A_LABEL}"
    assert bound(world, x509.DNSName(f"*.{A_LABEL}"), f"jane@x.{domain}") is None
    assert bound(world, x509.DNSName(A_LABEL), f"jane@x.{domain}") is None
    assert bound(world, x509.DNSName("munchen.example"), f"jane@{domain}") is None


@pytest.mark.parametrize("written", [U_LABEL, A_LABEL])
@pytest.mark.parametrize("certified", [U_LABEL, A_LABEL])
def test_an_smtputf8_mailbox_binds_however_its_domain_is_written(world: World, written: str, certified: str) -> None:
    """RFC 9598 section 3 has A-labels; certificates after RFC 8398 have U-labels."""
    local = "\u00e4rztin"
    assert bound(world, utf8(f"{local}@{certified}"), f"{local}@{written}") == f"{local}@{A_LABEL}"
    assert bound(world, utf8(f"{local}@{certified}"), f"arztin@{written}") is None
    assert bound(world, utf8(f"{local}@x.{certified}"), f"{local}@{written}") is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("stra\u00dfe.example", "strasse.example"),
        ("fa\u00df.example", "fass.example"),
        ("\u03b2\u03cc\u03bb\u03bf\u03c2.example", "\u03b2\u03cc\u03bb\u03bf\u03c3.example"),
        ("\u0430pple.example", "apple.example"),
    ],
)
def test_domains_of_different_people_stay_apart(one: str, other: str) -> None:
    """Sharp s and final sigma are letters of their own (IDNA 2008, not 2003); a Cyrillic a is none of ASCII."""
    assert in_a_labels(one) != in_a_labels(other)


@pytest.mark.parametrize(
    "domain",
    [
        f"{KELVIN}linic.example",
        "\uff43linic.example",
        "clinic\u3002example",
        "clinic\uff0eexample.org",
        unicodedata.normalize("NFD", U_LABEL),
        "cl\u00adinic.example",
        "cl\u200binic.example",
        "\u2488com.example",
        "\u0301linic.example",
        "-m\u00fcnchen.example",
        "ab--\u00fc.example",
        "m\u00fc nchen.example",
        "\u00fc" * 60 + ".example",
        "\u05d0a\u0661.example",
        "\U0001f600.example",
        "m\u00fcnchen..example",
        "m\u00fcnchen",
    ],
)
def test_what_programs_read_differently_is_no_address(domain: str) -> None:
    with pytest.raises(RejectionError) as refused:
        sender(f"jane@{domain}")
    assert refused.value.reason is Reason.MALFORMED
    assert domain not in refused.value.detail
    assert comparable(f"jane@{domain}").startswith("\x00")
    assert named_recipients(scan_headers(f"To: jane@{domain}\r\n\r\n".encode())) == ()


def test_no_letter_beyond_ascii_becomes_one_of_ascii(world: World) -> None:
    """Somebody else's KELVIN SIGN must bind, and be filed under, nobody's k."""
    assert normalise(f"jac{KELVIN}@d.example") == f"jac{KELVIN}@d.example"
    assert normalise("\u00c4RZTIN@d.example") == "\u00e4rztin@d.example"
    assert bound(world, utf8(f"jac{KELVIN}@d.example"), "jack@d.example") is None
    assert bound(world, utf8("jack@d.example"), f"jac{KELVIN}@d.example") is None
    assert bound(world, utf8(f"jac{KELVIN}@d.example"), f"jac{KELVIN}@d.example") is not None


@given(st.characters(min_codepoint=0x80, exclude_categories=["Cs"]))
def test_folding_never_leads_to_ascii(char: str) -> None:
    assert not any(c.isascii() for c in normalise(f"x.{char}@d.example").partition("@")[0][2:])


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=80))
def test_any_text_is_an_address_of_ascii_labels_or_none(text: str) -> None:
    try:
        domain = parse_any_address(f"jane@{text}").domain
    except InputError:
        return
    assert domain.isascii()
    assert parse_any_address(f"jane@{domain}").domain == domain


def test_a_constraint_on_a_domain_holds_for_its_other_spelling() -> None:
    root = CA.root("Root of Names", 63)
    constraints = x509.NameConstraints(None, [x509.RFC822Name(A_LABEL)])
    signs = usage(key_cert_sign=True, crl_sign=True)
    limited = CA(
        root.issue([], slot=64, is_ca=True, purposes=[], subject="L", extra=[(constraints, True)], key_usage=signs)
    )
    for domain, is_excluded in ((A_LABEL, True), (U_LABEL, True), ("z\u00fcrich.example", False)):
        leaf = certificate_of(limited.issue([utf8(f"\u00e4rztin@{domain}")], slot=65))
        [path] = build_paths(leaf, [root.certificate], [limited.certificate], NOW)
        if is_excluded:
            with pytest.raises(RejectionError):
                validate_path(path, NOW)
        else:
            validate_path(path, NOW)


@pytest.mark.parametrize("reverse_path", [f"jane@{U_LABEL}", f"jane@{A_LABEL}"])
@pytest.mark.parametrize("from_domain", [U_LABEL, A_LABEL])
def test_a_whole_message_from_such_a_domain_is_accepted(world: World, reverse_path: str, from_domain: str) -> None:
    signer = world.community.issue([x509.DNSName(A_LABEL)])
    # As RFC 6532 has it: UTF-8 in the field itself. The maker of the message would write an encoded word.
    inner = world.inner(sender=f"jane@{A_LABEL}").replace(A_LABEL.encode(), from_domain.encode())
    raw = world.message(inner, signer=signer)
    judgement = world.agent().judge(raw, Envelope(reverse_path, (RCPT,)), NOW)
    assert (judgement.reason, judgement.sender) == (Reason.OK, f"jane@{A_LABEL}"), judgement.detail
    forged = world.agent().judge(raw, Envelope("jane@munchen.example", (RCPT,)), NOW)
    assert forged.reason is Reason.ROUTING_TAMPER
