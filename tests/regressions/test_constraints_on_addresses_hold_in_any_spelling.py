"""Name constraints on addresses hold in any spelling of the address, and no refusal quotes it (AS-4, AS-65)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from asn1crypto import core as asn1_core
from cryptography import x509

from gateway.core.errors import RejectionError
from gateway.core.verdict import Reason
from gateway.sta.paths.path_validation import validate_path
from tests.support.paths import build_paths
from tests.unit.sta.trust_world import CA, NOW, certificate_of, usage

_MAILBOX = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.9")
ROOT = CA.root("Root of Constraints", 63)


def _limited(
    permitted: Sequence[str] = (), excluded: Sequence[str] = (), kind: type[x509.GeneralName] = x509.RFC822Name
) -> CA:
    names = [[kind(one) for one in some] or None for some in (permitted, excluded)]  # type: ignore[call-arg]
    constraints = x509.NameConstraints(*names)
    signs = usage(key_cert_sign=True, crl_sign=True)
    extra = [(constraints, True)]
    return CA(ROOT.issue([], slot=64, is_ca=True, purposes=[], subject="Limited", extra=extra, key_usage=signs))


def _utf8(address: str) -> x509.OtherName:
    return x509.OtherName(_MAILBOX, asn1_core.UTF8String(address).dump())


def _detail(authority: CA, name: x509.GeneralName) -> str:
    """Empty when the certificate is accepted below the authority, both as an intermediate and as the anchor."""
    leaf = certificate_of(authority.issue([name], slot=65))
    told = []
    for anchor, chain in ((ROOT, [authority.certificate]), (authority, [])):
        [path] = build_paths(leaf, [anchor.certificate], chain, NOW)
        try:
            validate_path(path, NOW)
            told.append("")
        except RejectionError as fault:
            told.append(f"{fault.reason}: {fault.detail}")
    assert bool(told[0]) == bool(told[1]), told
    assert all(text.startswith(f"{Reason.UNTRUSTED}: ") for text in told if text)
    return told[0]


@pytest.mark.parametrize(
    ("permitted", "excluded", "address", "allowed"),
    [
        (["sender.example"], [], "jane@sender.example", True),
        (["sender.example"], [], "Jane@Sender.Example", True),
        (["sender.example"], [], "jane@sub.sender.example", False),
        ([".sender.example"], [], "jane@sub.sender.example", True),
        ([".sender.example"], [], "jane@sender.example", False),
        ([".sender.example"], [], "jane@evilsender.example", False),
        (["jane@sender.example"], [], "jane@sender.example", True),
        (["jane@sender.example"], [], "boss@sender.example", False),
        (["sender.example", "other.example"], [], "jane@other.example", True),
        ([], ["boss@sender.example"], "jane@sender.example", True),
        ([], ["boss@sender.example"], "boss@sender.example", False),
        ([], ["boss@sender.example"], "BOSS@sender.example", False),
        ([], ["sender.example"], "jane@SENDER.example", False),
        (["sender.example"], ["boss@sender.example"], "boss@sender.example", False),
    ],
)
@pytest.mark.parametrize("spelling", ["rfc822", "utf8"])
def test_an_address_is_compared_as_addresses_are(
    permitted: list[str], excluded: list[str], address: str, allowed: bool, spelling: str
) -> None:
    """RFC 5280 4.2.1.10 and, for SmtpUTF8Mailbox, RFC 9598 6."""
    name = x509.RFC822Name(address) if spelling == "rfc822" else _utf8(address)
    assert (_detail(_limited(permitted, excluded), name) == "") is allowed


def test_a_refused_address_is_not_quoted() -> None:
    detail = _detail(_limited(["sender.example"]), x509.RFC822Name("o'hara@victim.example"))
    assert "hara" not in detail
    assert "victim" not in detail


def test_a_constraint_on_addresses_says_nothing_of_domains() -> None:
    """RFC 5280 4.2.1.10: a name form that no constraint mentions is free."""
    assert _detail(_limited(["sender.example"]), x509.DNSName("direct.elsewhere.example")) == ""


@pytest.mark.parametrize(
    ("permitted", "excluded", "domain", "allowed"),
    [
        (["sender.example"], [], "direct.sender.example", True),
        (["sender.example"], [], "Direct.SENDER.example", True),
        (["sender.example"], [], "sender.example", True),
        (["sender.example"], [], "evilsender.example", False),
        ([], ["sender.example"], "direct.SENDER.example", False),
        ([], ["sender.example"], "evilsender.example", True),
        ([], [".sender.example"], "direct.sender.example", False),
        ([], [""], "direct.sender.example", False),
    ],
)
def test_a_domain_is_compared_as_domains_are(
    permitted: list[str], excluded: list[str], domain: str, allowed: bool
) -> None:
    """An empty dNSName excludes every domain: so an authority is kept from issuing for domains at all."""
    assert (_detail(_limited(permitted, excluded, x509.DNSName), x509.DNSName(domain)) == "") is allowed
