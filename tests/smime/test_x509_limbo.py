"""All 194 cases of x509-limbo: each comes out as it says, or stands in the table below with its reason.

Limbo is written for the certificates of web servers. What RFC 5280 says applies here word for word; what only the web
asks for (names of hosts, key identifiers, serverAuth) is another matter, and each such case is named. The purpose of
a leaf is left out of this test, because none of limbo's is for mail: it is a KEY_USAGE verdict of its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import pem

from gateway.core.errors import RejectionError
from gateway.core.verdict import Reason
from gateway.sta.certificates import Certificate, CertificateError, parse_many
from gateway.sta.fetching.fetcher import Fetcher
from gateway.sta.paths.certificate_rules import check_leaf
from gateway.sta.paths.path_validation import validate_path
from gateway.sta.revocation.crls import RevocationList
from gateway.sta.revocation.revocation import RevocationCheck, RevocationSource
from tests.support.paths import build_paths

DIFFERENT: dict[str, tuple[str, ...]] = {
    "key identifiers are hints for building paths; their absence, form or criticality proves nothing": (
        "rfc5280::aki::critical-aki",
        "rfc5280::aki::leaf-missing-aki",
        "rfc5280::aki::intermediate-missing-aki",
        "rfc5280::aki::cross-signed-root-missing-aki",
        "rfc5280::ski::critical-ski",
        "rfc5280::ski::root-missing-ski",
        "rfc5280::ski::intermediate-missing-ski",
        "webpki::aki::root-with-aki-missing-keyidentifier",
        "webpki::aki::root-with-aki-authoritycertissuer",
        "webpki::aki::root-with-aki-authoritycertserialnumber",
        "webpki::aki::root-with-aki-all-fields",
        "webpki::aki::root-with-aki-ski-mismatch",
    ),
    "an anchor is its name, its key and its limits (RFC 5280 6.1.1 d, RFC 5937): the operator put it there": (
        "rfc5280::ca-empty-subject",
        "rfc5280::root-missing-basic-constraints",
        "rfc5280::root-non-critical-basic-constraints",
        "rfc5280::nc::permitted-dns-match-noncritical",
        "webpki::eku::root-has-eku",
        "webpki::forbidden-rsa-not-divisible-by-8-in-root",
        "webpki::v1-cert",
    ),
    "an extension that should have been critical, or not, is honoured all the same": (
        "rfc5280::pc::ica-noncritical-pc",
        "rfc5280::san::noncritical-with-empty-subject",
        "rfc5280::ee-critical-aia-invalid",
        "webpki::eku::ee-critical-eku",
        "webpki::san::san-critical-with-nonempty-subject",
    ),
    "empty name constraints constrain nothing": (
        "webpki::nc::intermediate-permitted-excluded-subtrees-both-null",
        "webpki::nc::intermediate-permitted-excluded-subtrees-both-empty-sequences",
    ),
    "constraints of a leaf bind nobody below it": (
        "rfc5280::nc::not-allowed-in-ee-noncritical",
        "rfc5280::nc::not-allowed-in-ee-critical",
    ),
    "serial numbers of more than 20 octets exist and harm nobody": ("rfc5280::serial::too-long",),
    "the purpose of the leaf: a KEY_USAGE verdict for mail, left out here": (
        "rfc5280::eku::ee-wrong-eku",
        "rfc5280::eku::ee-eku-empty",
        "rfc5280::leaf-ku-keycertsign",
        "rfc5280::ca-as-leaf-wrong-san",
        "webpki::eku::ee-anyeku",
        "webpki::eku::ee-without-eku",
        "webpki::ee-basicconstraints-ca",
        "webpki::ca-as-leaf",
    ),
    "the key of the leaf is bounded where its signature is verified": (
        "webpki::forbidden-p192-leaf",
        "webpki::forbidden-dsa-leaf",
        "webpki::forbidden-weak-rsa-in-leaf",
        "webpki::forbidden-rsa-key-not-divisible-by-8-in-leaf",
    ),
    "names of hosts, wildcards and common names bind no Direct sender, whatever they say": (
        "cve::cve-2025-61727",
        "rfc5280::nc::nc-forbids-dnsname-wildcard-san",
        "rfc5280::nc::nc-permits-invalid-dns-san",
        "rfc5280::nc::nc-permits-invalid-email-san",
        "rfc5280::san::underscore-dns",
        "rfc5280::san::ip-in-dns",
        "webpki::cn::ipv4-hex-mismatch",
        "webpki::cn::ipv4-leading-zeros-mismatch",
        "webpki::cn::ipv6-uppercase-mismatch",
        "webpki::cn::ipv6-uncompressed-mismatch",
        "webpki::cn::ipv6-non-rfc5952-mismatch",
        "webpki::cn::punycode-not-in-san",
        "webpki::cn::utf8-vs-punycode-mismatch",
        "webpki::cn::not-in-san",
        "webpki::cn::case-mismatch",
        "webpki::san::mismatch-domain-san",
        "webpki::san::mismatch-subdomain-san",
        "webpki::san::mismatch-subdomain-apex-san",
        "webpki::san::mismatch-apex-subdomain-san",
        "webpki::san::public-suffix-wildcard-san",
        "webpki::san::public-suffix-multi-label-wildcard-san",
        "webpki::san::public-suffix-private-namespace-wildcard-san",
        "webpki::san::wildcard-embedded-leftmost-san",
        "webpki::san::wildcard-not-in-leftmost-san",
        "webpki::san::wildcard-match-across-labels-san",
        "webpki::san::wildcard-embedded-ulabel-san",
        "webpki::san::no-san",
        "webpki::san::san-wildcard-only",
        "webpki::san::san-wildcard-only-tld",
    ),
    "the depth that a caller asks for is no setting here; the limit is MAX_DEPTH": (
        "pathlen::max-chain-depth-0-exhausted",
        "pathlen::max-chain-depth-1-exhausted",
    ),
    "the number of a list is for those who compare lists; what it says of a certificate does not depend on it": (
        "crl::crlnumber-missing",
        "crl::crlnumber-critical",
    ),
}
STRICTER: dict[str, tuple[str, ...]] = {
    "the library cannot compare constraints on IP addresses and other names; such a path is refused, to be safe": (
        "rfc5280::nc::permitted-ipv4-match",
        "rfc5280::nc::permitted-ipv6-match",
        "rfc5280::nc::nc-forbids-othername-noop",
    ),
    "an intermediate for web servers issues no certificates for mail": ("webpki::cryptographydotio-chain",),
}


@pytest.fixture(scope="module")
def cases(limbo: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(limbo.read_text(encoding="utf-8"))["testcases"]
    return found


def _der(text: str) -> bytes:
    return bytes(pem.unarmor(text.encode())[2])


def _outcomes(case: dict[str, Any]) -> Iterator[str]:
    """Why each path of the case is refused; ``valid`` ends them."""
    leaf = Certificate(_der(case["peer_certificate"]))
    anchors = parse_many([_der(text) for text in case["trusted_certs"]], 64)
    others = parse_many([_der(text) for text in case["untrusted_intermediates"]], 64)
    moment = datetime.fromisoformat(case["validation_time"] or "2024-06-01T00:00:00+00:00")
    crls = [RevocationList(_der(text)) for text in case["crls"]]
    try:
        check_leaf(leaf)
    except RejectionError as fault:
        if fault.reason is not Reason.KEY_USAGE:
            yield fault.detail
            return
    for path in build_paths(leaf, anchors, others, moment):
        try:
            validate_path(path, moment)
        except RejectionError as fault:
            yield fault.detail
            continue
        # Hard where the case brings lists: a list that cannot be used must not count as one that says nothing.
        check = RevocationCheck(RevocationSource(crls), Fetcher().session(), moment, bool(crls), (), others)
        bad = [f.detail for f in check.check(path) if f.status == "revoked" or (crls and f.status != "good")]
        yield bad[0] if bad else "valid"


def _valid(case: dict[str, Any]) -> bool:
    try:
        return any(outcome == "valid" for outcome in _outcomes(case))
    except CertificateError:
        return False


def test_every_case_comes_out_as_it_says_or_stands_in_a_table(cases: list[dict[str, Any]]) -> None:
    assert len(cases) == 194
    accepted, refused = set(), set()
    for case in cases:
        began = time.process_time()
        valid = _valid(case)
        assert time.process_time() - began < 1, case["id"]
        if valid and case["expected_result"] == "FAILURE":
            accepted.add(case["id"])
        elif not valid and case["expected_result"] == "SUCCESS":
            refused.add(case["id"])
    assert accepted == {name for names in DIFFERENT.values() for name in names}
    assert refused == {name for names in STRICTER.values() for name in names}


def test_the_tables_name_each_case_once(cases: list[dict[str, Any]]) -> None:
    named = [name for table in (DIFFERENT, STRICTER) for names in table.values() for name in names]
    assert len(named) == len(set(named)) == 78
    assert set(named) <= {case["id"] for case in cases}
    expected = [case["expected_result"] for case in cases]
    assert (expected.count("SUCCESS"), expected.count("FAILURE")) == (49, 145)
