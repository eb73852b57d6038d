"""OCSP (AS-71; S/MIME rule 18): what an answer must be before anybody relies on it, and how long it is kept."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from datetime import timedelta
from http.server import BaseHTTPRequestHandler

import pytest
from asn1crypto import ocsp as asn1_ocsp
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from gateway.sta.fetching.fetcher import SECONDS_PER_REQUEST
from gateway.sta.paths.path_validation import DIRECT_ALGORITHMS
from gateway.sta.revocation.list_status import Question
from gateway.sta.revocation.ocsp_reply import MAX_AGE_WITHOUT_NEXT_UPDATE, OCSPError, read_answer
from tests.unit.sta.conftest import Web
from tests.unit.sta.revocation_world import DAY, HOUR, Answer, Scene, iso, send
from tests.unit.sta.trust_world import CA, NOW, World, crl_at, usage

MINUTE = timedelta(minutes=1)
REVOKED = ocsp.OCSPCertStatus.REVOKED


@pytest.fixture
def scene(world: World, web: Web) -> Scene:
    return Scene.build(world.community, web)


@pytest.mark.parametrize(
    "algorithm",
    [hashes.SHA1(), hashes.SHA256(), hashes.SHA384()],  # noqa: S303 - a CertID is an index
    ids=lambda a: a.name,
)
@pytest.mark.parametrize("by_name", [True, False])
def test_a_good_answer_is_believed_recorded_and_kept(
    scene: Scene, algorithm: hashes.HashAlgorithm, by_name: bool
) -> None:
    answer = scene.good.but(algorithm=algorithm, by_name=by_name)
    scene.serve(answer)
    finding = scene.ask()
    assert finding.status == "good", finding.detail
    der = scene.web.replies["/ocsp"]
    assert finding.data == (der,)
    assert isinstance(der, bytes)
    told = finding.answer
    assert (told.kind, told.origin, told.status) == ("ocsp", scene.web.url("/ocsp"), "good")
    assert (told.this_update, told.next_update) == (iso(NOW - HOUR), iso(NOW + HOUR))
    assert told.data_sha256 == hashlib.sha256(der).hexdigest()
    assert told.certificate_sha256 == scene.path[0].sha256
    assert finding.valid_until == NOW + HOUR
    assert scene.ask(NOW + HOUR).status == "good"
    assert scene.web.asked == ["/ocsp"], "kept until its nextUpdate"
    assert scene.ask(NOW + HOUR + MINUTE).status == "unknown"
    assert scene.web.asked == ["/ocsp", "/ocsp"], "and not beyond"


def test_a_revocation_is_recorded_with_its_date(scene: Scene) -> None:
    scene.serve(scene.good.but(status=REVOKED))
    finding = scene.ask(hard=False)
    assert finding.status == "revoked"
    assert finding.answer.revoked_at == iso(NOW - DAY)
    assert "keyCompromise" in finding.detail


def test_a_revocation_dated_later_leaves_the_certificate_good_until_then(scene: Scene) -> None:
    scene.serve(scene.good.but(status=REVOKED, revoked_at=NOW + 10 * MINUTE))
    finding = scene.ask()
    assert (finding.status, finding.valid_until) == ("good", NOW + 10 * MINUTE)
    assert scene.ask(NOW + 10 * MINUTE).status == "revoked"


def _other_serial(scene: Scene, _: World) -> Answer:
    return scene.good.but(certificate=scene.authority.issue(slot=53).certificate)


def _other_issuer(scene: Scene, world: World) -> Answer:
    """The same serial number under another name and key."""
    return scene.good.but(issuer=world.stranger.identity.certificate)


def _same_name_other_key(scene: Scene, _: World) -> Answer:
    namesake = CA.root("Community CA", 67)
    return scene.good.but(issuer=namesake.identity.certificate)


def _forged(scene: Scene, _: World) -> Answer:
    """Under the issuer's name, with another key."""
    return scene.good.but(by=CA.root("Community CA", 66).identity)


def _stranger_signs(scene: Scene, world: World) -> Answer:
    return scene.good.but(by=world.stranger.identity, enclosed=(world.stranger.identity.certificate,))


def _stale(scene: Scene, _: World) -> Answer:
    return scene.good.but(this_update=NOW - DAY, next_update=NOW - MINUTE)


def _future(scene: Scene, _: World) -> Answer:
    return scene.good.but(this_update=NOW + HOUR, next_update=NOW + 2 * HOUR)


def _stale_hold(scene: Scene, _: World) -> Answer:
    return _stale(scene, _).but(status=REVOKED, reason=x509.ReasonFlags.certificate_hold)


def _unknown_to_the_responder(scene: Scene, _: World) -> Answer:
    return scene.good.but(status=ocsp.OCSPCertStatus.UNKNOWN)


def _old_without_next_update(scene: Scene, _: World) -> Answer:
    return scene.good.but(this_update=NOW - MAX_AGE_WITHOUT_NEXT_UPDATE - MINUTE, next_update=None)


def _critical_extension(scene: Scene, _: World) -> Answer:
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00")
    return scene.good.but(extensions=((extension, True),))


def _unauthorized(_: Scene, __: World) -> bytes:
    return ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.UNAUTHORIZED).public_bytes(Encoding.DER)


def _try_later(_: Scene, __: World) -> bytes:
    return ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER).public_bytes(Encoding.DER)


def _empty(_: Scene, __: World) -> bytes:
    return b""


def _junk(_: Scene, __: World) -> bytes:
    return b"\x30\x82\x01\x00" + b"\xff" * 256


def _cut_short(scene: Scene, _: World) -> bytes:
    return scene.good.der[:-7]


def _followed_by_more(scene: Scene, _: World) -> bytes:
    return scene.good.der + b"\x00"


def _unsigned(scene: Scene, _: World) -> bytes:
    return _with_signature(scene.good.der, b"")


def _signature_of_zeros(scene: Scene, _: World) -> bytes:
    return _with_signature(scene.good.der, bytes(256))


def _no_entries(scene: Scene, _: World) -> bytes:
    whole = asn1_ocsp.OCSPResponse.load(scene.good.der)
    basic = whole["response_bytes"]["response"].parsed
    basic["tbs_response_data"]["responses"] = []
    whole["response_bytes"]["response"] = basic
    return bytes(whole.dump(force=True))


def _with_signature(der: bytes, signature: bytes) -> bytes:
    whole = asn1_ocsp.OCSPResponse.load(der)
    basic = whole["response_bytes"]["response"].parsed
    basic["signature"] = signature
    whole["response_bytes"]["response"] = basic
    return bytes(whole.dump(force=True))


BAD: list[tuple[Callable[[Scene, World], Answer | bytes], str]] = [
    (_other_serial, "for another certificate"),
    (_other_issuer, "for another certificate"),
    (_same_name_other_key, "for another certificate"),
    (_forged, "signature does not verify"),
    (_stranger_signs, "not appointed"),
    (_stale, "out of date"),
    (_future, "from the future"),
    (_stale_hold, "out of date"),
    (_unknown_to_the_responder, "does not know"),
    (_old_without_next_update, "too old"),
    (_critical_extension, "critical extension"),
    (_unauthorized, "unauthorized"),
    (_try_later, "try_later"),
    (_empty, "cannot be read"),
    (_junk, "cannot be read"),
    (_cut_short, "cannot be read"),
    (_followed_by_more, "cannot be read"),
    (_unsigned, "signature does not verify"),
    (_signature_of_zeros, "signature does not verify"),
    (_no_entries, "for another certificate"),
]


@pytest.mark.parametrize(("make", "cause"), BAD, ids=[make.__name__.strip("_") for make, _ in BAD])
def test_an_answer_that_proves_nothing_is_unknown_and_does_not_stay(
    scene: Scene, world: World, make: Callable[[Scene, World], Answer | bytes], cause: str
) -> None:
    scene.serve(make(scene, world))
    finding = scene.ask()
    assert finding.status == "unknown"
    assert cause in finding.detail
    assert finding.data == ()
    assert finding.valid_until is None
    assert (finding.answer.kind, finding.answer.data_sha256) == ("", "")
    scene.serve(scene.good)
    assert scene.ask().status == "good", "the next message asks again"
    scene.serve(make(scene, world))
    assert scene.ask().status == "good", "and the good answer is the one that is kept"
    assert len(scene.web.asked) == 2


@pytest.mark.slow
def test_a_busy_machine_has_no_bearing_on_these_tests(scene: Scene, world: World) -> None:
    """A responder that is held up for longer than the product waits gives the same finding as a quick one."""
    der = _forged(scene, world).der

    def late(request: BaseHTTPRequestHandler, _: bytes) -> None:
        time.sleep(SECONDS_PER_REQUEST + 0.2)
        send(request, der)

    scene.web.replies["/ocsp"] = late
    assert "signature does not verify" in scene.ask().detail
    scene.serve(scene.good)
    assert scene.ask().status == "good"


def test_every_single_byte_of_an_answer_counts(scene: Scene) -> None:
    """Whatever byte is changed, the certificate does not become good by it, and nothing else is raised."""
    der = scene.good.but(status=REVOKED, reason=x509.ReasonFlags.certificate_hold).der
    question = Question(scene.path, NOW, DIRECT_ALGORITHMS)
    assert read_answer(question, der).is_revoked
    for position in range(len(der)):
        for bit in (0x01, 0x80):
            broken = bytearray(der)
            broken[position] ^= bit
            try:
                answer = read_answer(question, bytes(broken))
            except OCSPError:
                continue
            assert answer.is_revoked, position


def test_a_final_revocation_is_proven_by_a_stale_answer_as_well(scene: Scene) -> None:
    """As by a stale list: nobody becomes good again by waiting."""
    scene.serve(
        scene.good.but(status=REVOKED, this_update=NOW - 9 * DAY, next_update=NOW - 8 * DAY, revoked_at=NOW - 10 * DAY)
    )
    assert scene.ask(hard=False).status == "revoked"


def test_an_answer_made_on_demand_a_moment_after_the_message_counts(scene: Scene) -> None:
    scene.serve(scene.good.but(this_update=NOW + timedelta(seconds=2)))
    assert scene.ask(NOW + timedelta(milliseconds=300)).status == "good"


def test_an_answer_without_next_update_is_kept_for_minutes_only(scene: Scene) -> None:
    scene.serve(scene.good.but(this_update=NOW, next_update=None))
    finding = scene.ask()
    assert finding.status == "good"
    assert finding.answer.next_update == ""
    assert finding.valid_until == NOW + 5 * MINUTE
    assert scene.ask(NOW + 4 * MINUTE).status == "good"
    assert len(scene.web.asked) == 1
    assert scene.ask(NOW + 6 * MINUTE).status == "good"
    assert len(scene.web.asked) == 2
    assert scene.ask(NOW + MAX_AGE_WITHOUT_NEXT_UPDATE + MINUTE).status == "unknown"


def test_of_several_entries_for_the_certificate_a_revocation_counts(scene: Scene) -> None:
    """RFC 6960 allows several entries; one that says revoked must not hide behind one that says good."""
    good = asn1_ocsp.OCSPResponse.load(scene.good.der)
    bad = asn1_ocsp.OCSPResponse.load(scene.good.but(status=REVOKED).der)
    for first, second in ((good, bad), (bad, good)):
        body = first["response_bytes"]["response"].parsed["tbs_response_data"].copy()
        entries = [first, second]
        body["responses"] = [
            e["response_bytes"]["response"].parsed["tbs_response_data"]["responses"][0] for e in entries
        ]
        scene.serve(_resigned(scene, first, body))
        scene.forget()
        assert scene.ask(hard=False).status == "revoked"


def _resigned(scene: Scene, whole: asn1_ocsp.OCSPResponse, body: asn1_ocsp.ResponseData) -> bytes:
    key = scene.authority.identity.key
    assert isinstance(key, rsa.RSAPrivateKey)
    whole = whole.copy()
    basic = whole["response_bytes"]["response"].parsed
    basic["tbs_response_data"] = body
    basic["signature"] = key.sign(body.dump(force=True), padding.PKCS1v15(), hashes.SHA256())
    whole["response_bytes"]["response"] = basic
    return bytes(whole.dump(force=True))


# --- delegated responders (RFC 6960 4.2.2.2) ---


def test_a_responder_appointed_by_the_issuer_may_answer(scene: Scene) -> None:
    responder = scene.responder()
    scene.serve(scene.good.but(by=responder, enclosed=(responder.certificate,)))
    assert scene.ask().status == "good"
    scene.forget()
    scene.serve(scene.good.but(by=responder, enclosed=(responder.certificate,), by_name=False, status=REVOKED))
    assert scene.ask().status == "revoked"


def test_a_responder_without_the_right_may_not(scene: Scene, world: World) -> None:
    other_authority = CA.root("Community CA", 67)
    below = world.community.below("Below", 54)
    cases = {
        "not for signing OCSP": scene.responder(purposes=[ExtendedKeyUsageOID.EMAIL_PROTECTION]),
        "not appointed": scene.responder(by=world.stranger),
        "not appointed by": scene.responder(by=other_authority),
        "not appointed by the": scene.responder(by=below),
        "is not valid": scene.responder(ends=NOW - HOUR),
        "not for signatures": scene.responder(extra=[(usage(key_encipherment=True), True)]),
    }
    for cause, responder in cases.items():
        scene.serve(scene.good.but(by=responder, enclosed=(responder.certificate,)))
        finding = scene.ask(hard=False)
        assert finding.status == "unknown", cause
        assert cause in finding.detail


def test_the_sender_cannot_answer_for_himself(scene: Scene) -> None:
    """Even with the extended key usage for it."""
    own = Scene.build(
        scene.authority,
        scene.web,
        purposes=[ExtendedKeyUsageOID.EMAIL_PROTECTION, ExtendedKeyUsageOID.OCSP_SIGNING],
    )
    own.serve(own.good.but(by=own.signer, enclosed=(own.signer.certificate,)))
    finding = own.ask(hard=False)
    assert finding.status == "unknown"
    assert "itself" in finding.detail


def test_a_responder_whose_certificate_is_not_enclosed_is_unknown(scene: Scene) -> None:
    scene.serve(scene.good.but(by=scene.responder()))
    assert "not at hand" in scene.ask().detail


def test_a_responder_without_nocheck_is_checked_itself(scene: Scene) -> None:
    """RFC 6960 4.2.2.2.1: revoked, it proves nothing; unknown, policy decides; good, its list is kept as evidence."""
    point = [(crl_at(scene.web.url("/r.crl")), False)]
    responder = scene.responder(no_check=False, extra=point)
    scene.serve(scene.good.but(by=responder, enclosed=(responder.certificate,)))
    assert scene.ask(hard=True).status == "unknown"
    assert scene.ask(hard=False).status == "good"
    scene.forget()
    scene.web.replies["/r.crl"] = scene.authority.crl([responder])
    finding = scene.ask(hard=False)
    assert finding.status == "unknown"
    assert "responder's certificate was revoked" in finding.detail
    scene.forget()
    crl = scene.authority.crl([])
    scene.web.replies["/r.crl"] = crl
    finding = scene.ask(hard=True)
    assert finding.status == "good"
    assert crl in finding.data
    assert finding.answer.kind == "ocsp"


def test_the_second_responder_is_asked_when_the_first_fails(scene: Scene, world: World) -> None:
    access = x509.AuthorityInformationAccess(
        [
            x509.AccessDescription(
                AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(scene.web.url(path))
            )
            for path in ("/dead", "/ocsp")
        ]
    )
    both = Scene(scene.authority, scene.web, world.community.issue(extra=[(access, False)]), scene.source)
    both.serve(both.good)
    assert both.ask().status == "good"
    assert both.web.asked == ["/dead", "/ocsp"]


def test_the_request_names_the_certificate_by_a_sha1_certid(scene: Scene) -> None:
    seen: list[ocsp.OCSPRequest] = []

    def answer(request: BaseHTTPRequestHandler, body: bytes) -> None:
        assert request.headers["Content-Type"] == "application/ocsp-request"
        seen.append(ocsp.load_der_ocsp_request(body))
        send(request, scene.good.der)

    scene.web.replies["/ocsp"] = answer
    assert scene.ask().status == "good"
    reference = (
        ocsp.OCSPRequestBuilder()
        .add_certificate(scene.signer.certificate, scene.authority.identity.certificate, hashes.SHA1())  # noqa: S303
        .build()
    )
    assert seen[0].public_bytes(Encoding.DER) == reference.public_bytes(Encoding.DER)


def test_an_answer_verified_for_one_authority_is_not_used_for_its_namesake(scene: Scene) -> None:
    """The same URL, the same serial number, the same name; another key."""
    scene.serve(scene.good)
    assert scene.ask().status == "good"
    namesake = CA.root("Community CA", 67)
    twin = Scene(namesake, scene.web, scene.signer, scene.source)
    finding = twin.ask()
    assert finding.status == "unknown"
    assert len(scene.web.asked) == 2
