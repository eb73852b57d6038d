"""Chains as the world and as attackers build them: loops, twins, renewals, limits (AS-65, S/MIME rules 15, 16)."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from asn1crypto import core as asn1_core
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import RejectionError
from gateway.core.verdict import Reason, is_repaired_here
from gateway.sta.algorithm_policy import AlgorithmPolicy
from gateway.sta.certificates import Certificate, signed_by
from gateway.sta.evidence import Evidence
from gateway.sta.fetching.fetcher import Fetcher
from gateway.sta.paths.path_building import MAX_UNTRUSTED
from gateway.sta.paths.path_validation import ChainAlgorithms, validate_path
from gateway.sta.revocation.revocation import RevocationCheck, RevocationSource
from gateway.sta.trust import TrustExamination
from gateway.sta.trust_anchors.anchors import AnchorStore
from tests.support.paths import build_paths
from tests.support.pki import Identity, Key, ec_key, rsa_key
from tests.unit.sta.trust_world import CA, NOW, RCPT, World, certificate_of, crl_at, name, resigned_with_sha1, usage

_serials = itertools.count(500_000)
DAY = timedelta(days=1)
IN_DATE = (NOW - 30 * DAY, NOW + 30 * DAY)
EXPIRED = (NOW - 30 * DAY, NOW - DAY)


def _certify(
    subject: x509.Name | str,
    key: Key,
    issuer: x509.Name | str,
    issuer_key: Key,
    *,
    dates: tuple[datetime, datetime] = IN_DATE,
    is_ca: bool = True,
    path_length: int | None = None,
    extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> Certificate:
    """A certificate of anybody by anybody."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject) if isinstance(subject, str) else subject)
        .issuer_name(name(issuer) if isinstance(issuer, str) else issuer)
        .public_key(key.public_key())
        .serial_number(next(_serials))
        .not_valid_before(dates[0])
        .not_valid_after(dates[1])
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=path_length), critical=True)
    )
    for extension, critical in extra:
        builder = builder.add_extension(extension, critical=critical)
    return certificate_of(Identity(builder.sign(issuer_key, hashes.SHA256()), key))


def _leaf(issuer: x509.Name | str, issuer_key: Key, **options: Any) -> Certificate:
    return _certify("leaf", ec_key(99), issuer, issuer_key, is_ca=False, **options)


def _verdict(
    leaf: Certificate,
    anchors: Sequence[Certificate],
    chain: Sequence[Certificate] = (),
    policy: AlgorithmPolicy | None = None,
) -> Reason:
    """By the builder and the validator together, as the agent uses them."""
    reason = Reason.UNTRUSTED
    algorithms = ChainAlgorithms(policy) if policy is not None else ChainAlgorithms()
    for path in build_paths(leaf, anchors, chain, NOW):
        try:
            validate_path(path, NOW, algorithms)
        except RejectionError as fault:
            reason = fault.reason
        else:
            return Reason.OK
    return reason


# --- shapes ---


def test_a_ca_that_changed_its_key_links_the_new_one_to_the_old_by_a_self_issued_certificate() -> None:
    """RFC 5280 6.1: it does not count against the path length."""
    old, new = ec_key(1), ec_key(2)
    root = _certify("CA", old, "CA", old, path_length=0)
    link = _certify("CA", new, "CA", old)
    leaf = _leaf("CA", new)
    assert _verdict(leaf, [root], [link]) is Reason.OK
    assert _verdict(leaf, [root]) is Reason.UNTRUSTED
    assert _verdict(_leaf("CA", old), [_certify("CA", new, "CA", new)], [_certify("CA", old, "CA", new)]) is Reason.OK


def test_cross_certified_authorities_do_not_lead_in_circles() -> None:
    a, b, c, root_key = ec_key(1), ec_key(2), ec_key(3), ec_key(4)
    mesh = [_certify(x, kx, y, ky) for (x, kx), (y, ky) in itertools.permutations([("A", a), ("B", b), ("C", c)], 2)]
    root = _certify("Root", root_key, "Root", root_key)
    began = time.process_time()
    assert _verdict(_leaf("A", a), [root], mesh) is Reason.UNTRUSTED
    assert _verdict(_leaf("A", a), [root], [*mesh, _certify("C", c, "Root", root_key)]) is Reason.OK
    assert time.process_time() - began < 0.3


def test_sixteen_intermediates_of_one_name_are_seen_through_in_time(world: World) -> None:
    """S/MIME rule 16: all sign each other by name, one leads to the anchor, and it comes last."""
    keys = [ec_key(n) for n in range(1, MAX_UNTRUSTED + 1)]
    root_key = ec_key(40)
    root = _certify("Root", root_key, "Root", root_key)
    right = _certify("Twin", keys[0], "Root", root_key)
    crowd = [_certify("Twin", key, "Twin", keys[(n + 3) % len(keys)]) for n, key in enumerate(keys[1:], 1)]
    for signer, chain, expected in (
        (keys[0], [*crowd, right], Reason.OK),
        (keys[1], crowd, Reason.UNTRUSTED),
    ):
        leaf = _leaf("Twin", signer)
        began = time.process_time()
        check = RevocationCheck(RevocationSource(), Fetcher().session(), NOW)
        examination = TrustExamination(NOW, check, chain, Evidence())
        decision = examination.decide(RCPT, [leaf], AnchorStore((root, world.community.certificate)).anchors_for(RCPT))
        assert decision.reason is expected
        assert time.process_time() - began < 0.3


def test_many_recipients_with_their_own_anchors_do_not_multiply_the_signature_checks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was learned of two certificates is learned for everybody (S/MIME rule 16)."""
    keys = [ec_key(n) for n in range(1, 9)]
    crowd = [_certify("Twin", key, "Twin", keys[(n + 3) % 8]) for n, key in enumerate(keys)]
    own = {f"u{n}@clinic.example": (_certify(f"Root {n}", ec_key(50), f"Root {n}", ec_key(50)),) for n in range(50)}
    store = AnchorStore((), own)
    checks = 0

    def counting(subject: Certificate, issuer: Certificate) -> bool | None:
        nonlocal checks
        checks += 1
        return signed_by(subject, issuer)

    monkeypatch.setattr("gateway.sta.paths.path_building.signed_by", counting)
    check = RevocationCheck(RevocationSource(), Fetcher().session(), NOW)
    examination = TrustExamination(NOW, check, crowd, Evidence())
    leaf = _leaf("Twin", keys[0])
    for owner in own:
        assert examination.decide(owner, [leaf], store.anchors_for(owner)).reason is Reason.UNTRUSTED
    assert checks <= (len(crowd) + 1) * len(crowd)


def test_a_leaf_that_comes_twice_and_anchors_that_come_along_change_nothing(world: World) -> None:
    below = world.community.below("Below", 54)
    leaf = certificate_of(below.issue())
    chain = [leaf, below.certificate, leaf, world.community.certificate, below.certificate]
    assert _verdict(leaf, [world.community.certificate], chain) is Reason.OK
    [path] = build_paths(leaf, [world.community.certificate], chain, NOW)
    assert len(path) == 3


def test_a_renewed_root_with_the_same_key_is_trusted_beside_or_instead_of_the_old_one() -> None:
    key = ec_key(1)
    old, new = _certify("Root", key, "Root", key, dates=EXPIRED), _certify("Root", key, "Root", key)
    leaf = _leaf("Root", key)
    for anchors in ([new], [old, new], [new, old]):
        assert _verdict(leaf, anchors) is Reason.OK
    assert _verdict(leaf, [old]) is Reason.EXPIRED
    # A renewed root that nobody made an anchor is no way around an anchor that has run out.
    assert _verdict(leaf, [old], [new]) is Reason.EXPIRED


@pytest.mark.parametrize("order", [1, -1])
def test_an_expired_intermediate_does_not_hide_its_renewed_twin(order: int) -> None:
    root_key, key = ec_key(1), ec_key(2)
    root = _certify("Root", root_key, "Root", root_key)
    twins = [_certify("CA", key, "Root", root_key, dates=dates) for dates in (EXPIRED, IN_DATE)][::order]
    leaf = _leaf("CA", key)
    assert _verdict(leaf, [root], twins) is Reason.OK
    assert _verdict(leaf, [root], [c for c in twins if not c.is_valid_at(NOW)]) is Reason.EXPIRED


def test_many_dead_twins_further_up_do_not_use_up_the_paths() -> None:
    """Eight ways through authorities that have run out must not hide the ninth, which has not."""
    root_key, first, second = ec_key(1), ec_key(2), ec_key(3)
    root = _certify("Root", root_key, "Root", root_key)
    dead = [_certify("Upper", ec_key(10 + n), "Root", root_key, dates=EXPIRED) for n in range(3)]
    through_dead = [_certify("CA", first, "Upper", ec_key(10 + n)) for n in range(3) for _ in range(3)]
    alive = [_certify("CA", first, "Other", second), _certify("Other", second, "Root", root_key)]
    assert _verdict(_leaf("CA", first), [root], [*through_dead, *dead, *alive]) is Reason.OK


def test_an_expired_issuer_at_hand_does_not_keep_the_renewed_one_from_being_fetched() -> None:
    root_key, key = ec_key(1), ec_key(2)
    root = _certify("Root", root_key, "Root", root_key)
    old, new = (_certify("CA", key, "Root", root_key, dates=dates) for dates in (EXPIRED, IN_DATE))
    leaf, stale = _leaf("CA", key), _leaf("CA", key, dates=EXPIRED)
    asked: list[Certificate] = []

    def fetch(certificate: Certificate) -> list[Certificate]:
        asked.append(certificate)
        return [new]

    assert build_paths(leaf, [root], [old], NOW, fetch) == [(leaf, new, root)]
    assert asked == [leaf]
    assert build_paths(stale, [root], [old], NOW, fetch) == [(stale, old, root)]
    assert asked == [leaf], "for a leaf that has run out nothing is fetched"


def test_a_key_identifier_that_does_not_agree_is_a_hint_and_no_more() -> None:
    """RFC 5280 4.2.1.1: it helps to build a path and plays no part in its validation."""
    root_key, key = ec_key(1), ec_key(2)
    root = _certify("Root", root_key, "Root", root_key)
    ca = _certify("CA", key, "Root", root_key, extra=[(x509.SubjectKeyIdentifier(b"right"), False)])
    other = _certify("CA", ec_key(3), "Root", root_key, extra=[(x509.SubjectKeyIdentifier(b"wrong"), False)])
    leaf = _leaf("CA", key, extra=[(x509.AuthorityKeyIdentifier(b"wrong", None, None), False)])
    assert _verdict(leaf, [root], [other, ca]) is Reason.OK


# --- limits ---


def test_the_path_length_of_an_intermediate_and_of_an_anchor_counts() -> None:
    keys = [ec_key(n) for n in range(4)]
    for anchor_limit, limit, expected in (
        (None, None, Reason.OK),
        (1, 0, Reason.OK),
        (0, None, Reason.UNTRUSTED),
        (None, 0, Reason.OK),
    ):
        root = _certify("Root", keys[0], "Root", keys[0], path_length=anchor_limit)
        ca = _certify("CA", keys[1], "Root", keys[0], path_length=limit)
        assert _verdict(_leaf("CA", keys[1]), [root], [ca]) is expected
        below = _certify("Below", keys[2], "CA", keys[1])
        deeper = Reason.OK if anchor_limit is None and limit is None else Reason.UNTRUSTED
        assert _verdict(_leaf("Below", keys[2]), [root], [ca, below]) is deeper
        assert _verdict(_leaf("Below", keys[2]), [ca], [below]) is (Reason.OK if limit is None else Reason.UNTRUSTED)


def test_a_leaf_is_no_authority_wherever_it_stands(world: World) -> None:
    eve = world.community.issue("eve@evil.example")
    forged = certificate_of(CA(eve).issue(slot=61))
    assert _verdict(forged, [world.community.certificate], [certificate_of(eve)]) is Reason.UNTRUSTED
    no_sign = world.community.issue([], is_ca=True, key_usage=usage(digital_signature=True), subject="No", purposes=[])
    below = certificate_of(CA(no_sign).issue(slot=61))
    assert _verdict(below, [world.community.certificate], [certificate_of(no_sign)]) is Reason.UNTRUSTED


_UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.7"), b"\x05\x00")


@pytest.mark.parametrize(("critical", "expected"), [(True, Reason.UNTRUSTED), (False, Reason.OK)])
@pytest.mark.parametrize("where", ["leaf", "intermediate", "anchor"])
def test_a_critical_extension_that_nobody_knows_refuses(critical: bool, expected: Reason, where: str) -> None:
    root_key, key = ec_key(1), ec_key(2)
    extra = [(_UNKNOWN, critical)]
    root = _certify("Root", root_key, "Root", root_key, extra=extra if where == "anchor" else ())
    ca = _certify("CA", key, "Root", root_key, extra=extra if where == "intermediate" else ())
    assert _verdict(_leaf("CA", key, extra=extra if where == "leaf" else ()), [root], [ca]) is expected


def _constraints(
    permitted: Sequence[x509.GeneralName] = (), excluded: Sequence[x509.GeneralName] = ()
) -> list[tuple[x509.ExtensionType, bool]]:
    return [(x509.NameConstraints(list(permitted) or None, list(excluded) or None), True)]


def _organisation(text: str, common_name: str = "") -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, text)]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else parts)


@pytest.mark.parametrize("where", ["anchor", "intermediate"])
@pytest.mark.parametrize(
    ("extra", "subject", "names", "expected"),
    [
        (_constraints([x509.DNSName("sender.example")]), "leaf", ["direct.sender.example"], Reason.OK),
        (_constraints([x509.DNSName("sender.example")]), "leaf", ["direct.victim.example"], Reason.UNTRUSTED),
        (_constraints([x509.DNSName("sender.example")]), "leaf", ["evilsender.example"], Reason.UNTRUSTED),
        (_constraints((), [x509.DNSName("victim.example")]), "leaf", ["a.VICTIM.example"], Reason.UNTRUSTED),
        (
            _constraints([x509.DirectoryName(_organisation("Good"))]),
            _organisation("Good", "leaf"),
            ["direct.sender.example"],
            Reason.OK,
        ),
        (
            _constraints([x509.DirectoryName(_organisation("Good"))]),
            _organisation("Evil", "leaf"),
            ["direct.sender.example"],
            Reason.UNTRUSTED,
        ),
        (
            _constraints((), [x509.DirectoryName(_organisation("Evil"))]),
            _organisation("EVIL", "leaf"),
            ["direct.sender.example"],
            Reason.UNTRUSTED,
        ),
    ],
    ids=["dns", "dns not", "dns suffix", "dns excluded", "directory", "directory not", "directory excluded"],
)
def test_the_names_that_an_authority_may_certify_are_limited_wherever_the_limit_stands(
    where: str, extra: Any, subject: Any, names: list[str], expected: Reason
) -> None:
    """RFC 5280 4.2.1.10, and RFC 5937 for those of an anchor."""
    root_key, key = ec_key(1), ec_key(2)
    organisation = _organisation("Good") if "Good" in str(extra) else name("CA")
    root = _certify("Root", root_key, "Root", root_key, extra=extra if where == "anchor" else ())
    ca = _certify(organisation, key, "Root", root_key, extra=extra if where == "intermediate" else ())
    alternative = (x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), False)
    leaf = _certify(subject, ec_key(99), organisation, key, is_ca=False, extra=[alternative])
    assert _verdict(leaf, [root], [ca]) is expected


def test_the_purpose_of_every_intermediate_counts_and_that_of_an_anchor_is_the_operator_s_affair() -> None:
    root_key, key, lower = ec_key(1), ec_key(2), ec_key(3)
    web = [(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)]
    root = _certify("Root", root_key, "Root", root_key, extra=web)
    for extra, expected in ((web, Reason.UNTRUSTED), ([], Reason.OK)):
        ca = _certify("CA", key, "Root", root_key, extra=extra)
        below = _certify("Below", lower, "CA", key)
        assert _verdict(_leaf("Below", lower), [root], [below, ca]) is expected


def test_the_last_second_of_a_certificate_belongs_to_it(world: World) -> None:
    """RFC 5280 4.1.2.5: validity is written in whole seconds."""
    leaf = certificate_of(world.community.issue(ends=NOW))
    [path] = build_paths(leaf, [world.community.certificate], [], NOW)
    validate_path(path, NOW + timedelta(microseconds=999_999))
    with pytest.raises(RejectionError) as caught:
        validate_path(path, NOW + timedelta(seconds=1))
    assert caught.value.reason is Reason.EXPIRED


# --- algorithms of the chain (AS-31..41) ---


def test_the_algorithms_that_the_operator_refuses_are_refused_in_chains(world: World) -> None:
    rsa_leaf = certificate_of(world.signer)
    key = ec_key(1)
    ec_root = _certify("Root", key, "Root", key)
    ec_leaf = _leaf("Root", key)
    rsa_root = world.community.certificate
    for refused, leaf, root, expected in (
        ("rsa-pkcs1v15", rsa_leaf, rsa_root, Reason.WEAK_ALGORITHM),
        ("rsa-pkcs1v15", ec_leaf, ec_root, Reason.OK),
        ("ecdsa", ec_leaf, ec_root, Reason.WEAK_ALGORITHM),
        ("ecdsa", rsa_leaf, rsa_root, Reason.OK),
        ("sha256", rsa_leaf, rsa_root, Reason.WEAK_ALGORITHM),
        ("sha256", ec_leaf, ec_root, Reason.WEAK_ALGORITHM),
        ("sha384", rsa_leaf, rsa_root, Reason.OK),
        ("aes-128-cbc", rsa_leaf, rsa_root, Reason.OK),
    ):
        policy = AlgorithmPolicy(refused=frozenset({refused}))
        assert _verdict(leaf, [root], (), policy) is expected, (refused, leaf is ec_leaf)


def test_an_authority_s_key_must_be_as_large_as_the_operator_asks(world: World) -> None:
    large = CA(Identity(_self_signed(rsa_key(90, 3072)), rsa_key(90, 3072)))
    policy = AlgorithmPolicy(min_rsa_bits=3072)
    assert _verdict(certificate_of(large.issue(key=ec_key(1))), [large.certificate], (), policy) is Reason.OK
    assert _verdict(certificate_of(world.signer), [world.community.certificate], (), policy) is Reason.WEAK_ALGORITHM


def test_a_path_that_the_settings_alone_forbid_says_so(world: World) -> None:
    """Only then can a repair here mend the rejection."""
    path = (certificate_of(world.signer), world.community.certificate)
    for policy in (AlgorithmPolicy(min_rsa_bits=3072), AlgorithmPolicy(refused=frozenset({"rsa-pkcs1v15"}))):
        with pytest.raises(RejectionError) as caught:
            validate_path(path, NOW, ChainAlgorithms(policy))
        assert is_repaired_here(caught.value.reason, caught.value.detail), caught.value.detail
    weak = (certificate_of(resigned_with_sha1(world.signer, world.community.identity.key)), world.community.certificate)
    with pytest.raises(RejectionError) as caught:
        validate_path(weak, NOW, ChainAlgorithms(AlgorithmPolicy(min_rsa_bits=3072)))
    assert caught.value.reason is Reason.WEAK_ALGORITHM
    assert not is_repaired_here(caught.value.reason, caught.value.detail), caught.value.detail


def test_no_setting_lets_sha1_or_a_small_key_back_in(world: World) -> None:
    weak = certificate_of(resigned_with_sha1(world.signer, world.community.identity.key))
    assert _verdict(weak, [world.community.certificate], (), AlgorithmPolicy()) is Reason.WEAK_ALGORITHM
    small = rsa_key(91, 1024)
    root = CA(Identity(_self_signed(small), small))
    assert _verdict(certificate_of(root.issue()), [root.certificate]) is Reason.WEAK_ALGORITHM


def _self_signed(key: Any) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(name("Sized"))
        .issuer_name(name("Sized"))
        .public_key(key.public_key())
        .serial_number(next(_serials))
        .not_valid_before(IN_DATE[0])
        .not_valid_after(IN_DATE[1])
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    return builder.sign(key, hashes.SHA256())


def _with_exponent(ca: CA, exponent: int) -> Certificate:
    """The authority's certificate, its public exponent replaced; who checks a signature with it works for long."""
    raw = asn1_x509.Certificate.load(ca.certificate.der)
    key = raw["tbs_certificate"]["subject_public_key_info"]
    numbers = key["public_key"].parsed
    numbers["public_exponent"] = exponent
    key["public_key"] = asn1_core.ParsableOctetBitString(numbers.dump(force=True))
    body = raw["tbs_certificate"].dump(force=True)
    signer: Any = ca.identity.key
    raw["signature_value"] = asn1_core.OctetBitString(signer.sign(body, padding.PKCS1v15(), hashes.SHA256()))
    return Certificate(raw.dump(force=True))


def test_a_key_that_only_costs_time_is_not_tried(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """S/MIME rule 15: an exponent as long as the modulus makes one check cost a hundred."""
    monster = _with_exponent(world.stranger, (1 << 2000) + 1)
    tried: list[Certificate] = []

    def counting(subject: Certificate, issuer: Certificate) -> bool | None:
        tried.append(issuer)
        return signed_by(subject, issuer)

    monkeypatch.setattr("gateway.sta.paths.path_building.signed_by", counting)
    leaf = certificate_of(world.stranger.issue())
    assert build_paths(leaf, [world.community.certificate], [monster], NOW) == []
    assert monster not in tried
    assert build_paths(leaf, [world.stranger.certificate], [monster], NOW) != []


# --- any graph at all ---

NAMES = ("P", "Q", "R", "S")


@settings(max_examples=120, deadline=None)
@given(
    edges=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(0, 3), st.integers(0, 1), st.booleans()), max_size=9
    ),
    roots=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.booleans()), min_size=1, max_size=2),
    issuer=st.tuples(st.integers(0, 3), st.integers(0, 1)),
)
def test_in_any_small_graph_a_path_is_found_exactly_when_there_is_one(
    edges: list[tuple[int, int, int, int, bool]], roots: list[tuple[int, int, bool]], issuer: tuple[int, int]
) -> None:
    """Four names with two keys each, certified by each other in any way; an exhaustive search is the judge."""

    def key(who: int, which: int) -> Key:
        return ec_key(20 + 2 * who + which)

    chain = [
        _certify(NAMES[a], key(a, i), NAMES[b], key(b, j), dates=IN_DATE if good else EXPIRED)
        for a, i, b, j, good in edges
    ]
    anchors = [
        _certify(NAMES[a], key(a, i), NAMES[a], key(a, i), dates=IN_DATE if good else EXPIRED) for a, i, good in roots
    ]
    reached = {issuer}
    for _ in range(len(edges)):
        reached |= {(b, j) for a, i, b, j, good in edges if good and (a, i) in reached}
    expected = any(good and (a, i) in reached for a, i, good in roots)
    leaf = _leaf(NAMES[issuer[0]], key(*issuer))
    assert (_verdict(leaf, anchors, chain) is Reason.OK) is expected


def test_an_intermediate_that_is_the_anchor_needs_nothing_above_it(world: World) -> None:
    """AS-65: neither its issuer's dates nor its revocation matter, and it keeps its own dates."""
    dead = CA.root("Dead Root", 54, ends=NOW - DAY)
    agency = dead.below("Agency", 55, aia=None)
    leaf = certificate_of(agency.issue(extra=[(crl_at("http://nowhere.example/x.crl"), False)]))
    assert _verdict(leaf, [agency.certificate], [dead.certificate]) is Reason.OK
    assert _verdict(leaf, [dead.certificate], [agency.certificate]) is Reason.EXPIRED
