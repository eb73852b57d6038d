"""Building and validating paths: PKITS, x509-limbo's traps, and the bounds (AS-65; S/MIME rule 16)."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import pem
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from hypothesis import given, settings
from hypothesis import strategies as st
from pyhanko_certvalidator.policy_decl import AcceptAllAlgorithms, PKIXValidationParams

from gateway.core.errors import RejectionError
from gateway.core.verdict import Reason
from gateway.sta.certificates import Certificate, CertificateError, parse_many, signed_by
from gateway.sta.fetching.fetcher import Fetcher
from gateway.sta.paths.certificate_rules import check_leaf
from gateway.sta.paths.path_building import MAX_DEPTH, MAX_SIGNATURE_CHECKS, MAX_UNTRUSTED
from gateway.sta.paths.path_validation import PKIX_PARAMETERS, validate_path
from gateway.sta.revocation.crls import RevocationList
from gateway.sta.revocation.revocation import RevocationCheck, RevocationSource
from tests.support.paths import build_paths
from tests.support.pki import Identity, rsa_key
from tests.unit.sta.trust_world import CA, NOW, World, certificate_of, name

PKITS = "smime/pkits/pkgs/pyhanko-certvalidator/tests/fixtures/nist_pkits"
PKITS_MOMENT = datetime(2020, 1, 1, tzinfo=UTC)


def _pkits(folder: Path, case: dict[str, Any], *, hard: bool) -> str:
    """The outcome of one case: ``valid``, else why not."""

    def certificate(file: str) -> Certificate:
        return Certificate((folder / "certs" / file).read_bytes())

    leaf, root = certificate(case["cert"]), certificate("TrustAnchorRootCertificate.crt")
    others = [certificate(file) for file in case.get("other_certs", [])]
    crls = [
        RevocationList((folder / "crls" / f).read_bytes()) for f in [*case.get("crls", []), "TrustAnchorRootCRL.crl"]
    ]
    given_parameters: dict[str, Any] = {
        k: frozenset(v) if isinstance(v, list) else v for k, v in (case.get("params") or {}).items()
    }
    parameters = PKIXValidationParams(**given_parameters) if given_parameters else PKIX_PARAMETERS
    # PKITS of 2011 uses DSA and SHA-1 in places: this test alone lifts the floor of the algorithms.
    anything = AcceptAllAlgorithms()
    outcome = "no path"
    for path in build_paths(leaf, [root], others, PKITS_MOMENT):
        check = RevocationCheck(
            RevocationSource(crls), Fetcher().session(), PKITS_MOMENT, hard, (), others, algorithms=anything
        )
        try:
            validate_path(path, PKITS_MOMENT, anything, parameters)
        except RejectionError as fault:
            outcome = str(fault)
            continue
        bad = [
            f"{f.status}: {f.detail}"
            for f in check.check(path)
            if f.status == "revoked" or (hard and f.status != "good")
        ]
        if not bad:
            return "valid"
        outcome = bad[0]
    return outcome


@pytest.fixture(scope="module")
def pkits(shared_data: Path) -> Path:
    folder = shared_data / PKITS
    if not folder.is_dir():
        pytest.skip("the NIST PKITS fixtures are not here")
    return folder


def test_the_nist_suite_comes_out_right(pkits: Path) -> None:
    """All 246, with the hard policy: a valid path has a known good status all along."""
    cases = json.loads((pkits / "pkits.json").read_text(encoding="utf-8"))
    assert len(cases) == 246
    wrong = []
    for case in cases:
        outcome = _pkits(pkits, case, hard=True)
        if (outcome == "valid") != ("error" not in case):
            wrong.append(f"{case['name']}: {outcome}")
    assert wrong == []


def test_dsa_stays_forbidden_outside_the_nist_suite(pkits: Path) -> None:
    """Reading DSA keys is for that suite; the algorithms of Direct refuse them (AS-38)."""
    root = Certificate((pkits / "certs" / "TrustAnchorRootCertificate.crt").read_bytes())
    dsa = [Certificate((pkits / "certs" / f"{name}Cert.crt").read_bytes()) for name in DSA_AUTHORITIES]
    leaf = Certificate((pkits / "certs" / "ValidDSAParameterInheritanceTest5EE.crt").read_bytes())
    [path] = build_paths(leaf, [root], dsa, PKITS_MOMENT)
    with pytest.raises(RejectionError) as caught:
        validate_path(path, PKITS_MOMENT)
    assert caught.value.reason is Reason.WEAK_ALGORITHM
    crls = [RevocationList(file.read_bytes()) for file in (pkits / "crls").glob("DSA*.crl")]
    check = RevocationCheck(RevocationSource(crls), Fetcher().session(), PKITS_MOMENT)
    assert check.check(path[:3])[-1].status == "unknown"


DSA_AUTHORITIES = ("DSAParametersInheritedCA", "DSACA")


def test_the_soft_policy_accepts_nothing_that_is_known_to_be_revoked(pkits: Path) -> None:
    """Every PKITS case that is invalid only because of a revocation entry is refused by the soft policy as well."""
    cases = json.loads((pkits / "pkits.json").read_text(encoding="utf-8"))
    for case in cases:
        outcome = _pkits(pkits, case, hard=False)
        if "error" not in case:
            assert outcome == "valid", (case["name"], outcome)
        elif case["error"]["class"] == "RevokedError":
            assert outcome != "valid", case["name"]


def _limbo(shared_data: Path) -> list[dict[str, Any]]:
    file = shared_data / "smime" / "x509-limbo" / "limbo.json"
    if not file.is_file():
        pytest.skip("the x509-limbo cases are not here")
    found: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["testcases"]
    return found


def _der(text: str) -> bytes:
    return bytes(pem.unarmor(text.encode())[2])


def test_no_case_of_x509_limbo_explodes_or_raises(shared_data: Path) -> None:
    """The pathological ones cost a factorial builder 20 s and more, and this one milliseconds."""
    for case in _limbo(shared_data):
        began = time.process_time()
        try:
            leaf = Certificate(_der(case["peer_certificate"]))
        except CertificateError:
            continue
        anchors = parse_many([_der(text) for text in case["trusted_certs"]], 64)
        others = parse_many([_der(text) for text in case["untrusted_intermediates"]], 64)
        moment = datetime.fromisoformat(case["validation_time"] or "2024-06-01T00:00:00+00:00")
        for path in build_paths(leaf, anchors, others, moment):
            try:
                validate_path(path, moment)
            except RejectionError:
                continue
        assert time.process_time() - began < 5, case["id"]


def test_what_x509_limbo_forbids_is_refused_but_for_named_pedantry(shared_data: Path) -> None:
    """RFC 5280 path rules only; the key usage of leaves and the policy of the web have tests of their own."""
    accepted = set()
    for case in _limbo(shared_data):
        if case["expected_result"] != "FAILURE" or not case["id"].startswith(("rfc5280::", "pathlen::", "cve::")):
            continue
        try:
            leaf = Certificate(_der(case["peer_certificate"]))
        except CertificateError:
            continue
        anchors = parse_many([_der(text) for text in case["trusted_certs"]], 64)
        others = parse_many([_der(text) for text in case["untrusted_intermediates"]], 64)
        moment = datetime.fromisoformat(case["validation_time"] or "2024-06-01T00:00:00+00:00")
        for path in build_paths(leaf, anchors, others, moment):
            try:
                check_leaf(leaf)
            except RejectionError as fault:
                # Most of these leaves are for web servers.
                if fault.reason is not Reason.KEY_USAGE:
                    continue
            try:
                validate_path(path, moment)
            except RejectionError:
                continue
            accepted.add(case["id"].partition("::")[2])
            break
    assert accepted == TOLERATED


TOLERATED = {
    # Key identifiers are hints for building paths; their absence or criticality proves nothing (RFC 5280 4.2.1.1).
    "aki::critical-aki",
    "aki::leaf-missing-aki",
    "aki::intermediate-missing-aki",
    "aki::cross-signed-root-missing-aki",
    "ski::critical-ski",
    "ski::root-missing-ski",
    "ski::intermediate-missing-ski",
    # An anchor is its name, its key and its limits (RFC 5280 6.1.1 d, RFC 5937): the operator put it there.
    "ca-empty-subject",
    "root-missing-basic-constraints",
    "root-non-critical-basic-constraints",
    "nc::permitted-dns-match-noncritical",
    # An extension that should have been critical, or not, is honoured all the same.
    "pc::ica-noncritical-pc",
    "san::noncritical-with-empty-subject",
    "ee-critical-aia-invalid",
    # Rules for leaves: what matters of them for mail is a KEY_USAGE verdict, or binds nobody.
    "nc::not-allowed-in-ee-noncritical",
    "nc::not-allowed-in-ee-critical",
    "serial::too-long",
    "leaf-ku-keycertsign",
    "ca-as-leaf-wrong-san",
    "eku::ee-wrong-eku",
    "eku::ee-eku-empty",
    # Names that can bind no Direct sender: a wildcard, an address in a dNSName, a malformed address.
    "cve-2025-61727",
    "nc::nc-forbids-dnsname-wildcard-san",
    "nc::nc-permits-invalid-dns-san",
    "nc::nc-permits-invalid-email-san",
    "san::underscore-dns",
    "san::ip-in-dns",
    # The depth that a caller asks for is not a setting here; the limit is MAX_DEPTH.
    "max-chain-depth-0-exhausted",
    "max-chain-depth-1-exhausted",
}


# --- the builder's bounds ---


def _twin(ca: CA, slot: int, subject: str, issuer: Identity) -> Certificate:
    del ca
    key = rsa_key(slot)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(subject))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=9))
        .not_valid_after(NOW + timedelta(days=9))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    return certificate_of(Identity(builder.sign(issuer.key, hashes.SHA256()), key))


def test_same_named_certificates_that_sign_each_other_cost_a_bounded_number_of_checks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots = [70, 71, 72]
    keys = {slot: Identity(world.signer.certificate, rsa_key(slot)) for slot in slots}
    mesh = [_twin(world.community, a, "Mesh", keys[b]) for a in slots for b in slots for _ in range(3)]
    leaf = certificate_of(CA(Identity(_named("Mesh", rsa_key(70)), rsa_key(70))).issue())
    checks = 0

    def counting(subject: Certificate, issuer: Certificate) -> bool | None:
        nonlocal checks
        checks += 1
        return signed_by(subject, issuer)

    monkeypatch.setattr("gateway.sta.paths.path_building.signed_by", counting)
    began = time.process_time()
    assert build_paths(leaf, [world.stranger.certificate], mesh, NOW) == []
    assert checks <= MAX_SIGNATURE_CHECKS
    assert time.process_time() - began < 1


def _named(subject: str, key: Any) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(subject))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )


def test_a_path_may_not_be_deeper_than_the_limit(world: World) -> None:
    authorities = [world.community]
    for level in range(MAX_DEPTH):
        authorities.append(authorities[-1].below(f"Level {level}", 80 + level % 2))
    chain = [ca.certificate for ca in authorities[1:]]
    deepest = certificate_of(authorities[MAX_DEPTH - 2].issue())
    too_deep = certificate_of(authorities[MAX_DEPTH - 1].issue())
    anchors = [world.community.certificate]
    assert [len(path) for path in build_paths(deepest, anchors, chain, NOW)] == [MAX_DEPTH]
    assert build_paths(too_deep, anchors, chain, NOW) == []


def test_certificates_beyond_the_limit_are_not_looked_at(world: World) -> None:
    below = world.community.below("Below", 54)
    leaf = certificate_of(below.issue())
    crowd = [certificate_of(world.stranger.issue(subject="Below")) for _ in range(MAX_UNTRUSTED)]
    anchors = [world.community.certificate]
    assert build_paths(leaf, anchors, [below.certificate, *crowd], NOW)
    assert build_paths(leaf, anchors, [*crowd, below.certificate], NOW) == []


def test_a_fetched_issuer_is_not_crowded_out_and_fetches_are_few(world: World) -> None:
    below = world.community.below("Below", 54)
    leaf = certificate_of(below.issue())
    crowd = [certificate_of(world.stranger.issue(subject=f"crowd {n}")) for n in range(MAX_UNTRUSTED)]
    asked: list[Certificate] = []

    def fetch(certificate: Certificate) -> list[Certificate]:
        asked.append(certificate)
        return [below.certificate]

    assert build_paths(leaf, [world.community.certificate], crowd, NOW, fetch)
    assert asked == [leaf]


def test_an_issuer_in_date_is_tried_before_its_expired_predecessor(world: World) -> None:
    old = world.community.below("Below", 54, ends=NOW - timedelta(days=1))
    new = world.community.below("Below", 54)
    leaf = certificate_of(new.issue())
    first = build_paths(leaf, [world.community.certificate], [old.certificate, new.certificate], NOW)[0]
    assert first[1] == new.certificate
    validate_path(first, NOW)


def test_a_second_anchor_with_the_same_name_does_not_hide_the_right_one(world: World) -> None:
    impostor = CA.root("Community CA", 61)
    leaf = certificate_of(world.signer)
    [path] = build_paths(leaf, [impostor.certificate, world.community.certificate], [], NOW)
    assert path[-1] == world.community.certificate


# --- the form of certificates ---


def test_a_doubled_extension_and_a_serial_below_one_are_refused(world: World) -> None:
    """RFC 5280 4.2 and 4.1.2.2; the library accepts both."""
    leaf = certificate_of(world.signer)
    extensions = leaf.asn1["tbs_certificate"]["extensions"]
    doubled = leaf.asn1.copy()
    doubled["tbs_certificate"]["extensions"].append(extensions[0])
    negative = leaf.asn1.copy()
    negative["tbs_certificate"]["serial_number"] = -5
    for broken, cause in ((doubled, "twice"), (negative, "serial")):
        with pytest.raises(RejectionError, match=cause) as caught:
            check_leaf(Certificate(broken.dump(force=True)))
        assert caught.value.reason is Reason.UNTRUSTED


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_mutilated_certificate_raises_nothing_but_our_errors(data: st.DataObject) -> None:
    original = _PLAIN.der
    position = data.draw(st.integers(0, len(original) - 1))
    value = data.draw(st.integers(0, 255))
    broken = bytearray(original)
    broken[position] = value
    try:
        certificate = Certificate(bytes(broken))
        _ = certificate.names, certificate.as_signer(""), certificate.key_id, certificate.authority_key_id
        check_leaf(certificate)
        paths = build_paths(certificate, [_PLAIN_CA], [], NOW)
        for path in paths:
            validate_path(path, NOW)
    except (CertificateError, RejectionError):
        return
    assert not paths or certificate.asn1["tbs_certificate"].dump() == _PLAIN.asn1["tbs_certificate"].dump()


_CA = CA.root("Mutation CA", 1)
_PLAIN_CA = _CA.certificate
_PLAIN = certificate_of(_CA.issue(slot=50))
