"""CRLs and OCSP: from folders, from messages, from the network (AS-55, AS-66..71; S/MIME rules 17, 18)."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from asn1crypto import cms as asn1_cms
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509 import ocsp

from gateway.core.errors import ConfigurationError
from gateway.core.verdict import Judgement, Reason
from gateway.sta.fetching.fetcher import Fetcher
from gateway.sta.revocation.crls import load_crls
from gateway.sta.trust_anchors.anchors import AnchorStore
from tests.support.direct_messages import wrapped_entity
from tests.support.pki import Identity, rsa_key
from tests.unit.sta.conftest import Web
from tests.unit.sta.trust_world import CA, NOW, World, crl_at, issuers_at, notes, ocsp_at

LOOPBACK = Fetcher.within(["127.0.0.0/8"])
DAY = timedelta(days=1)


def unknown(judgement: Judgement) -> list[str]:
    return [note for note in notes(judgement, "revocation") if "unknown" in note]


def known_good(judgement: Judgement) -> bool:
    return any(c.name == "revocation" and c.outcome == "passed" for c in judgement.checks)


def test_a_signer_on_the_crl_is_revoked_and_one_that_is_not_is_known_good(world: World) -> None:
    raw = world.message()
    other = world.community.issue(slot=53)
    revoked = world.judge(raw, world.agent(crls=[world.community.crl([world.signer])]))
    assert revoked.reason is Reason.REVOKED
    assert revoked.content is None
    good = world.judge(raw, world.agent(crls=[world.community.crl([other])], hard=True))
    assert good.reason is Reason.OK
    assert known_good(good)


def test_revocation_counts_for_every_certificate_of_the_path(world: World) -> None:
    below = world.community.below("Below", 54)
    raw = world.message(signer=below.issue(), chain=[below])
    agent = world.agent(crls=[world.community.crl([below.identity]), below.crl()])
    assert world.judge(raw, agent).reason is Reason.REVOKED


@pytest.mark.parametrize(
    ("options", "soft", "hard"),
    [
        ({}, Reason.OK, Reason.OK),
        ({"begins": NOW - 9 * DAY, "ends": NOW - DAY}, Reason.OK, Reason.UNTRUSTED),
        ({"begins": NOW + DAY}, Reason.OK, Reason.UNTRUSTED),
        ({"key": rsa_key(66)}, Reason.OK, Reason.UNTRUSTED),
    ],
    ids=["in force", "stale", "from the future", "forged"],
)
def test_a_list_that_does_not_name_the_signer_proves_something_only_in_force_and_signed(
    world: World, options: dict[str, object], soft: Reason, hard: Reason
) -> None:
    """AS-69, AS-70."""
    crl = world.community.crl(**options)  # type: ignore[arg-type]
    judgement = world.judge(world.message(), world.agent(crls=[crl]))
    assert judgement.reason is soft
    assert known_good(judgement) is not bool(unknown(judgement))
    assert world.judge(world.message(), world.agent(crls=[crl], hard=True)).reason is hard


def test_a_forged_list_revokes_nobody(world: World) -> None:
    forged = world.community.crl([world.signer], key=rsa_key(66))
    assert world.judge(world.message(), world.agent(crls=[forged])).reason is Reason.OK


def test_a_list_of_another_issuer_revokes_nobody(world: World) -> None:
    """The serial is the same, the issuer is not."""
    namesake = CA.root("Elsewhere", 67)
    assert world.judge(world.message(), world.agent(crls=[namesake.crl([world.signer])])).reason is Reason.OK


def test_a_revocation_is_final_even_when_the_list_is_stale_but_a_hold_is_not(world: World) -> None:
    stale = {"begins": NOW - 20 * DAY, "ends": NOW - DAY, "revoked_at": NOW - 21 * DAY}
    final = world.community.crl([world.signer], **stale)  # type: ignore[arg-type]
    held = world.community.crl([world.signer], reason=x509.ReasonFlags.certificate_hold, **stale)  # type: ignore[arg-type]
    assert world.judge(world.message(), world.agent(crls=[final])).reason is Reason.REVOKED
    assert world.judge(world.message(), world.agent(crls=[held])).reason is Reason.OK
    in_force = world.community.crl([world.signer], reason=x509.ReasonFlags.certificate_hold)
    assert world.judge(world.message(), world.agent(crls=[in_force])).reason is Reason.REVOKED


def test_a_message_judged_as_of_before_the_revocation_was_good_then(world: World) -> None:
    agent = world.agent(crls=[world.community.crl([world.signer], revoked_at=NOW - 2 * DAY)])
    assert world.judge(world.message(), agent, at=NOW - 3 * DAY).reason is Reason.OK
    assert world.judge(world.message(), agent, at=NOW - 2 * DAY).reason is Reason.REVOKED


def test_the_newest_list_in_force_decides(world: World) -> None:
    """A hold that was lifted: an older list, still in force, must not bring it back."""
    old = world.community.crl([world.signer], begins=NOW - 3 * DAY, reason=x509.ReasonFlags.certificate_hold)
    new = world.community.crl([], begins=NOW - DAY)
    for crls in ([old, new], [new, old]):
        assert world.judge(world.message(), world.agent(crls=crls)).reason is Reason.OK


def test_an_issuer_without_the_right_to_sign_lists_can_revoke_but_not_clear(world: World) -> None:
    """Its key issued the certificate, so its word against it counts; its silence does not (RFC 5280 4.2.1.3)."""
    mute = CA.root("Mute CA", 68, crl_sign=False)
    signer = mute.issue()
    anchors = AnchorStore((mute.certificate,))
    listed = world.judge(world.message(signer=signer), world.agent(anchors=anchors, crls=[mute.crl([signer])]))
    assert listed.reason is Reason.REVOKED
    silent = world.judge(world.message(signer=signer), world.agent(anchors=anchors, crls=[mute.crl()]))
    assert (silent.reason, known_good(silent)) == (Reason.OK, False)


def test_a_list_in_the_message_itself_counts(world: World) -> None:
    def with_crl(crl: bytes) -> bytes:
        builder = pkcs7.PKCS7SignatureBuilder().set_data(wrapped_entity(world.inner()))
        der = builder.add_signer(world.signer.certificate, rsa_key(50), hashes.SHA256()).sign(
            serialization.Encoding.DER, [pkcs7.PKCS7Options.Binary]
        )
        info = asn1_cms.ContentInfo.load(der)
        info["content"]["crls"] = asn1_cms.RevocationInfoChoices([asn1_cms.CertificateList.load(crl)])
        head = b"Content-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: binary\r\n\r\n"
        return world.sealed(head + info.dump(force=True))

    good = world.judge(with_crl(world.community.crl()), world.agent(hard=True))
    assert good.reason is Reason.OK
    assert world.judge(with_crl(world.community.crl([world.signer]))).reason is Reason.REVOKED


def test_crl_files_are_read_in_pem_and_der_and_a_broken_one_is_named(world: World, tmp_path: Path) -> None:
    der = world.community.crl()
    (tmp_path / "a.crl").write_bytes(der)
    (tmp_path / "b.pem").write_bytes(
        x509.load_der_x509_crl(der).public_bytes(serialization.Encoding.PEM) * 2
        + world.community.identity.certificate_pem
    )
    (tmp_path / "README").write_bytes(b"nothing")
    assert len(load_crls(tmp_path)) == 3
    (tmp_path / "broken.crl").write_bytes(b"\x30\x03abc")
    with pytest.raises(ConfigurationError, match=r"broken\.crl"):
        load_crls(tmp_path)


def test_a_long_list_costs_no_seconds(world: World) -> None:
    """Fifty thousand entries; a walk in Python would take most of a second each time."""
    entries = [
        x509.RevokedCertificateBuilder().serial_number(10**9 + n).revocation_date(NOW - DAY).build()
        for n in range(50_000)
    ]
    builder = x509.CertificateRevocationListBuilder(
        world.community.identity.certificate.subject, NOW - DAY, NOW + DAY, [], entries
    )
    crl = builder.sign(world.community.identity.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    agent = world.agent(crls=[crl], hard=True)
    began = time.process_time()
    for _ in range(5):
        assert world.judge(world.message(), agent).reason is Reason.OK
    assert time.process_time() - began < 2


# --- fetching ---


def test_nothing_is_fetched_without_leave(world: World, web: Web) -> None:
    signer = world.community.issue(extra=[(crl_at(web.url("/c.crl")), False), (issuers_at(web.url("/i.cer")), False)])
    assert world.judge(world.message(signer=signer)).reason is Reason.OK
    elsewhere = world.agent(fetcher=Fetcher.within(["10.0.0.0/8"]))
    assert world.judge(world.message(signer=signer), elsewhere).reason is Reason.OK
    assert web.asked == []


def test_the_distribution_point_is_fetched_and_kept_until_its_next_update(world: World, web: Web) -> None:
    """AS-55, AS-70."""
    signer = world.community.issue(extra=[(crl_at(web.url("/c.crl")), False)])
    web.replies["/c.crl"] = world.community.crl([signer])
    agent = world.agent(fetcher=LOOPBACK)
    for _ in range(3):
        assert world.judge(world.message(signer=signer), agent).reason is Reason.REVOKED
    assert web.asked == ["/c.crl"]
    world.judge(world.message(signer=signer), agent, at=NOW + 7 * DAY)
    assert web.asked == ["/c.crl", "/c.crl"]


def test_an_unreachable_list_is_noted_by_the_soft_policy_and_refused_by_the_hard_one(world: World, web: Web) -> None:
    signer = world.community.issue(extra=[(crl_at(web.url("/missing.crl")), False)])
    soft = world.judge(world.message(signer=signer), world.agent(fetcher=LOOPBACK))
    assert soft.reason is Reason.OK
    assert any("the server answered 404" in note for note in unknown(soft))
    hard = world.judge(world.message(signer=signer), world.agent(fetcher=LOOPBACK, hard=True))
    assert hard.reason is Reason.UNTRUSTED


@pytest.mark.parametrize("form", ["der", "pem", "p7c"])
def test_a_missing_issuer_is_fetched_by_aia(world: World, web: Web, form: str) -> None:
    """AS-66."""
    below = world.community.below("Below", 54)
    signer = below.issue(extra=[(issuers_at(web.url("/issuers")), False)])
    certificates = [world.stranger.identity.certificate, below.identity.certificate]
    web.replies["/issuers"] = {
        "der": below.certificate.der,
        "pem": below.identity.certificate_pem,
        "p7c": pkcs7.serialize_certificates(certificates, serialization.Encoding.DER),
    }[form]
    raw = world.message(signer=signer)
    assert world.judge(raw).reason is Reason.UNTRUSTED
    judgement = world.judge(raw, world.agent(fetcher=LOOPBACK))
    assert judgement.reason is Reason.OK
    assert len(judgement.trust[0].chain_sha256) == 3


def test_two_missing_issuers_are_fetched_one_after_the_other(world: World, web: Web) -> None:
    upper = world.community.below("Upper", 54)
    lower = upper.below("Lower", 55, aia=web.url("/upper"))
    web.replies["/upper"], web.replies["/lower"] = upper.certificate.der, lower.certificate.der
    signer = lower.issue(extra=[(issuers_at(web.url("/lower")), False)])
    assert world.judge(world.message(signer=signer), world.agent(fetcher=LOOPBACK)).reason is Reason.OK


def test_an_aia_that_leads_nowhere_is_untrusted(world: World, web: Web) -> None:
    """AS-67."""
    below = world.community.below("Below", 54)
    for path, reply in (("/gone", None), ("/junk", b"not a certificate"), ("/wrong", world.stranger.certificate.der)):
        if reply is not None:
            web.replies[path] = reply
        signer = below.issue(extra=[(issuers_at(web.url(path)), False)])
        judgement = world.judge(world.message(signer=signer), world.agent(fetcher=LOOPBACK))
        assert judgement.reason is Reason.UNTRUSTED, path


def _responder(
    signer: Identity, issuer: CA, status: ocsp.OCSPCertStatus, key: Identity | None = None
) -> Callable[[BaseHTTPRequestHandler, bytes], None]:
    def answer(request: BaseHTTPRequestHandler, body: bytes) -> None:
        asked = ocsp.load_der_ocsp_request(body)
        assert asked.serial_number == signer.certificate.serial_number
        by = key or issuer.identity
        revoked = status is ocsp.OCSPCertStatus.REVOKED
        reply = (
            ocsp.OCSPResponseBuilder()
            .add_response(
                cert=signer.certificate,
                issuer=issuer.identity.certificate,
                algorithm=hashes.SHA1(),  # noqa: S303 - the CertID of RFC 5019
                cert_status=status,
                this_update=NOW - timedelta(hours=1),
                next_update=NOW + timedelta(hours=1),
                revocation_time=NOW - DAY if revoked else None,
                revocation_reason=x509.ReasonFlags.key_compromise if revoked else None,
            )
            .responder_id(ocsp.OCSPResponderEncoding.NAME, by.certificate)
            .sign(by.key, hashes.SHA256())
            .public_bytes(serialization.Encoding.DER)
        )
        request.send_response(200)
        request.send_header("Content-Length", str(len(reply)))
        request.end_headers()
        request.wfile.write(reply)

    return answer


@pytest.mark.parametrize(
    ("status", "forged", "reason"),
    [
        (ocsp.OCSPCertStatus.GOOD, False, Reason.OK),
        (ocsp.OCSPCertStatus.REVOKED, False, Reason.REVOKED),
        (ocsp.OCSPCertStatus.GOOD, True, Reason.UNTRUSTED),
        (ocsp.OCSPCertStatus.UNKNOWN, False, Reason.UNTRUSTED),
    ],
)
def test_ocsp_is_asked_when_no_list_knows(
    world: World, web: Web, status: ocsp.OCSPCertStatus, forged: bool, reason: Reason
) -> None:
    """AS-71; under the hard policy, so that ``good`` has to be believed to pass."""
    signer = world.community.issue(extra=[(ocsp_at(web.url("/ocsp")), False)])
    web.replies["/ocsp"] = _responder(signer, world.community, status, world.stranger.identity if forged else None)
    agent = world.agent(fetcher=LOOPBACK, hard=True)
    assert world.judge(world.message(signer=signer), agent).reason is reason
    assert web.asked == ["/ocsp"]


def test_a_message_full_of_urls_is_cut_off(world: World, web: Web) -> None:
    """Every certificate of a path may name URLs; one message has one budget."""
    points = x509.CRLDistributionPoints(
        [
            x509.DistributionPoint([x509.UniformResourceIdentifier(web.url(f"/{n}"))], None, None, None)
            for n in range(40)
        ]
    )
    signer = world.community.issue(extra=[(points, False)])
    assert world.judge(world.message(signer=signer), world.agent(fetcher=LOOPBACK)).reason is Reason.OK
    assert len(web.asked) <= 3
