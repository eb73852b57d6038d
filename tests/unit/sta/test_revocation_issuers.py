"""Issuers that a certificate names by AIA caIssuers: forms, how long they are kept, what may go wrong (AS-66)."""

from __future__ import annotations

import time
from datetime import datetime

import pytest
from asn1crypto import cms as asn1_cms
from asn1crypto import parser as asn1_parser
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from gateway.sta.certificates import Certificate
from gateway.sta.fetching.authority_access import fetch_issuers
from gateway.sta.revocation.revocation import RevocationSource
from tests.support.pki import Identity
from tests.unit.sta.conftest import Web
from tests.unit.sta.revocation_world import HOUR, loopback
from tests.unit.sta.trust_world import CA, NOW, World, certificate_of, issuers_at


@pytest.fixture
def below(world: World, web: Web) -> tuple[CA, Identity]:
    authority = world.community.below("Below", 54)
    return authority, authority.issue(extra=[(issuers_at(web.url("/issuers")), False)])


def _fetch(signer: Identity, source: RevocationSource, at: datetime = NOW) -> tuple[list[Certificate], list[str]]:
    notes: list[str] = []
    session = loopback().session().share()
    return fetch_issuers(certificate_of(signer), session, notes, source.cache, at), notes


@pytest.mark.parametrize("form", ["der", "der with line end", "pem", "p7c", "p7c in pem", "p7c in ber"])
def test_issuers_come_in_every_form(below: tuple[CA, Identity], world: World, web: Web, form: str) -> None:
    authority, signer = below
    both = [world.stranger.identity.certificate, authority.identity.certificate]
    p7c = pkcs7.serialize_certificates(both, Encoding.DER)
    web.replies["/issuers"] = {
        "der": authority.certificate.der,
        "der with line end": authority.certificate.der + b"\r\n",
        "pem": authority.identity.certificate_pem,
        "p7c": p7c,
        "p7c in pem": pkcs7.serialize_certificates(both, Encoding.PEM),
        "p7c in ber": _indefinite(p7c),
    }[form]
    found, notes = _fetch(signer, RevocationSource())
    assert found[0] == authority.certificate, "the one that bears the issuer's name comes first"
    assert notes == []


def _indefinite(p7c: bytes) -> bytes:
    """The same bundle with indefinite lengths, as Java writes it."""

    def contents(der: bytes) -> bytes:
        return bytes(asn1_parser.parse(der)[4])

    def wrap(tag: int, inside: bytes) -> bytes:
        return bytes([tag, 0x80]) + inside + b"\x00\x00"

    outer = contents(p7c)
    oid = asn1_parser.parse(outer)
    explicit = outer[len(oid[3]) + len(oid[4]) + len(oid[5]) :]
    signed = contents(explicit)
    body = contents(signed)
    return wrap(0x30, outer[: -len(explicit)] + wrap(0xA0, wrap(0x30, body)))


def test_fetched_issuers_are_kept_for_a_day_and_not_beyond_their_end(
    below: tuple[CA, Identity], world: World, web: Web
) -> None:
    authority, signer = below
    web.replies["/issuers"] = authority.certificate.der
    source = RevocationSource()
    for at in (NOW, NOW + 23 * HOUR, NOW + 25 * HOUR):
        assert _fetch(signer, source, at)[0] == [authority.certificate]
    assert len(web.asked) == 2
    brief = world.community.below("Brief", 55, ends=NOW + HOUR)
    leaf = brief.issue(extra=[(issuers_at(web.url("/brief")), False)])
    web.replies["/brief"] = brief.certificate.der
    web.asked.clear()
    for at in (NOW, NOW + 2 * HOUR):
        _fetch(leaf, source, at)
    assert len(web.asked) == 2


def test_an_issuer_in_whose_place_another_came_is_not_hidden_for_a_day(
    below: tuple[CA, Identity], world: World, web: Web
) -> None:
    authority, signer = below
    impostor = CA.root("Below", 67)
    source = RevocationSource()
    web.replies["/issuers"] = impostor.certificate.der
    _fetch(signer, source)
    web.replies["/issuers"] = authority.certificate.der
    assert _fetch(signer, source)[0] == [authority.certificate]


def test_a_place_without_issuers_is_asked_once_a_minute_and_the_cause_is_noted(
    below: tuple[CA, Identity], web: Web
) -> None:
    _, signer = below
    source = RevocationSource()
    assert _fetch(signer, source) == ([], ["an issuer was not fetched: the server answered 404"])
    found, [note] = _fetch(signer, source)
    assert (found, "a moment ago" in note) == ([], True)
    assert web.asked == ["/issuers"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x30\x80",
        b"<html>moved</html>",
        b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n" * 30_000,
        b"\x30\x84\x7f\xff\xff\xff" + b"\x30\x00" * 400_000,
    ],
    ids=["nothing", "cut short", "a page", "bad base64", "markers", "a bomb"],
)
def test_what_is_no_issuer_costs_no_time(below: tuple[CA, Identity], web: Web, body: bytes) -> None:
    _, signer = below
    web.replies["/issuers"] = body
    began = time.process_time()
    found, [note] = _fetch(signer, RevocationSource())
    assert (found, note) == ([], "an issuer was not fetched: what was fetched is no certificate")
    assert time.process_time() - began < 1


def test_a_bundle_of_tiny_elements_costs_no_time(below: tuple[CA, Identity], web: Web) -> None:
    """A megabyte of empty sequences where certificates should be."""
    _, signer = below
    empty = asn1_cms.ContentInfo(
        {
            "content_type": "signed_data",
            "content": {
                "version": "v1",
                "digest_algorithms": [],
                "encap_content_info": {"content_type": "data"},
                "signer_infos": [],
            },
        }
    )
    inside = bytes(asn1_parser.parse(empty["content"].untag().dump())[4])
    tail = b"\x31\x00"
    assert inside.endswith(tail)
    members = b"\x30\x00" * 450_000
    certificates = b"\xa0\x83" + len(members).to_bytes(3, "big") + members
    body = b"\x30\x80\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02\xa0\x80\x30\x80"
    body += inside[: -len(tail)] + certificates + tail + b"\x00\x00" * 3
    web.replies["/issuers"] = body
    began = time.process_time()
    found, _ = _fetch(signer, RevocationSource())
    assert found == []
    assert time.process_time() - began < 1
