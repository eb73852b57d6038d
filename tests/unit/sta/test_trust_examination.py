"""What the evidence keeps of a decision about trust, and what an operator is told to do (AS-55..58, AS-73, TB-17)."""

from __future__ import annotations

from datetime import timedelta

from cryptography import x509

from gateway.core.trust import BOTH_DIRECTIONS, AnchorBundle, Direction
from gateway.core.verdict import Reason
from gateway.sta.algorithm_policy import AlgorithmPolicy
from gateway.sta.certificates import Certificate
from gateway.sta.evidence import Evidence
from gateway.sta.fetching.fetcher import Fetcher
from gateway.sta.paths.path_building import MAX_PATHS
from gateway.sta.revocation.crls import RevocationList
from gateway.sta.revocation.revocation import RevocationCheck, RevocationSource
from gateway.sta.trust import TrustExamination
from gateway.sta.trust_anchors.anchors import AnchorStore
from gateway.sta.trust_policy import TrustPolicy
from tests.support.pki import Identity
from tests.unit.sta.conftest import Web
from tests.unit.sta.trust_world import (
    CA,
    NOW,
    OTHER,
    RCPT,
    SENDER,
    World,
    certificate_of,
    issuers_at,
    resigned_with_sha1,
)


def _hint(
    signer: Identity | Certificate,
    *anchors: CA,
    chain: tuple[CA, ...] = (),
    crls: tuple[bytes, ...] = (),
    hard: bool = False,
    reason: Reason = Reason.UNTRUSTED,
    policy: TrustPolicy | None = None,
) -> str:
    source = RevocationSource([RevocationList(der) for der in crls])
    check = RevocationCheck(source, Fetcher().session(), NOW, hard)
    evidence = Evidence()
    carried = [ca.certificate for ca in chain]
    examination = TrustExamination(NOW, check, carried, evidence, policy or TrustPolicy())
    leaf = signer if isinstance(signer, Certificate) else certificate_of(signer)
    store = AnchorStore(ca.certificate for ca in anchors)
    decision = examination.decide(RCPT, [leaf], store.anchors_for(RCPT))
    assert decision.reason is reason, decision
    assert SENDER not in evidence.hint
    assert "leaf" not in evidence.hint, "the subject of the sender's certificate is a person"
    return evidence.hint


# --- hints ---


def test_without_anchors_the_operator_is_told_where_they_go(world: World) -> None:
    assert "folder of anchors" in _hint(world.signer)


def test_the_root_that_is_no_anchor_is_named(world: World) -> None:
    below = world.stranger.below("Agency of Strangers", 54)
    hint = _hint(below.issue(), world.community, chain=(below, world.stranger))
    assert "CN=Stranger CA" in hint
    assert world.stranger.certificate.sha256[:16] in hint
    assert "add it as an anchor" in hint


def test_the_issuer_that_is_missing_is_named(world: World) -> None:
    below = world.stranger.below("Agency of Strangers", 54)
    hint = _hint(below.issue(), world.community)
    assert "add the anchor CN=Agency of Strangers" in hint
    hint = _hint(below.issue(), world.community, chain=(below,))
    assert "add the anchor CN=Stranger CA" in hint
    assert below.certificate.sha256[:16] in hint
    assert "trust bundle" in hint


def test_a_same_named_certificate_that_did_not_sign_is_not_taken_for_the_issuer(world: World) -> None:
    impostor = CA.root("Agency of Strangers", 61)
    below = world.stranger.below("Agency of Strangers", 54)
    hint = _hint(below.issue(), world.community, chain=(impostor,))
    assert impostor.certificate.sha256[:16] not in hint
    assert "add the anchor CN=Agency of Strangers" in hint


def test_an_issuer_that_could_be_fetched_is_said_to_be(world: World) -> None:
    extra = [(issuers_at("http://ca.example/issuer.p7c"), False)]
    assert "fetching is off" in _hint(world.stranger.issue(extra=extra), world.community)


def test_the_certificate_that_has_run_out_is_named_and_since_when(world: World) -> None:
    yesterday = NOW - timedelta(days=1)
    old = world.community.below("Old Agency", 54, ends=yesterday)
    for hint in (
        _hint(world.community.issue(ends=yesterday), world.community, reason=Reason.EXPIRED),
        _hint(old.issue(), world.community, chain=(old,), reason=Reason.EXPIRED),
        _hint(
            CA.root("Old Root", 55, ends=yesterday).issue(),
            CA.root("Old Root", 55, ends=yesterday),
            reason=Reason.EXPIRED,
        ),
    ):
        assert f"since {yesterday.isoformat()}" in hint
    assert "CN=Old Agency" in _hint(old.issue(), world.community, chain=(old,), reason=Reason.EXPIRED)
    tomorrow = NOW + timedelta(days=1)
    hint = _hint(world.community.issue(begins=tomorrow), world.community, reason=Reason.EXPIRED)
    assert f"not valid before {tomorrow.isoformat()}" in hint


def test_a_revocation_is_told_with_its_date_and_its_list(world: World) -> None:
    signer = world.community.issue()
    crl = world.community.crl([signer], revoked_at=NOW - timedelta(days=2), begins=NOW - timedelta(days=1))
    hint = _hint(signer, world.community, crls=(crl,), reason=Reason.REVOKED)
    assert f"since {(NOW - timedelta(days=2)).isoformat()}" in hint
    assert f"revocation list of {(NOW - timedelta(days=1)).isoformat()}" in hint
    assert "CN=Community CA (operator)" in hint


def test_an_unknown_status_under_the_hard_rule_names_the_list_that_is_missing(world: World) -> None:
    hint = _hint(world.signer, world.community, hard=True)
    assert "revocation list of CN=Community CA" in hint


def test_the_weak_link_is_named(world: World) -> None:
    below = world.community.below("Weak Agency", 54)
    weak = CA(resigned_with_sha1(below.identity, world.community.identity.key))
    hint = _hint(weak.issue(), world.community, chain=(weak,), reason=Reason.WEAK_ALGORITHM)
    assert "CN=Weak Agency" in hint
    refusing = TrustPolicy(AlgorithmPolicy(refused=frozenset({"rsa-pkcs1v15"})))
    assert _hint(world.signer, world.community, reason=Reason.WEAK_ALGORITHM, policy=refusing)


def test_a_name_out_of_a_certificate_cannot_move_the_cursor(world: World) -> None:
    evil = CA.root("Evil\x1b[2J\nCA\u202e", 54)
    hint = _hint(evil.issue(), world.community, chain=(evil,))
    assert all(c.isprintable() for c in hint)
    assert "Evil" in hint


def test_of_several_faults_the_hint_is_that_of_the_one_that_is_told(world: World) -> None:
    signers = [certificate_of(world.stranger.issue()), certificate_of(world.community.issue(ends=NOW - timedelta(1)))]
    check = RevocationCheck(RevocationSource(), Fetcher().session(), NOW)
    evidence = Evidence()
    examination = TrustExamination(NOW, check, (), evidence)
    store = AnchorStore((), {RCPT: (world.community.certificate,)})
    for recipient, reason in ((OTHER, Reason.UNTRUSTED), (RCPT, Reason.EXPIRED), (OTHER, Reason.UNTRUSTED)):
        assert examination.decide(recipient, signers, store.anchors_for(recipient)).reason is reason
    assert "since" in evidence.hint


def test_a_hint_comes_with_a_rejection_and_never_with_an_acceptance(world: World) -> None:
    anchors = AnchorStore((), {OTHER: (world.community.certificate,)})
    raw = world.message(world.inner(to=[RCPT, OTHER]), to=[world.rcpt, world.other])
    assert world.judge(raw, world.agent(anchors=anchors), rcpt=(RCPT, OTHER)).hint == ""
    refused = world.judge(world.message(), world.agent(anchors=anchors))
    assert refused.reason is Reason.UNTRUSTED
    assert "anchors" in refused.hint


# --- what is kept ---


def test_a_judgement_says_which_anchor_from_where_out_of_which_set(world: World) -> None:
    bundle = AnchorBundle("agency", 3, (RCPT,), BOTH_DIRECTIONS, (world.community.certificate.der,))
    store = AnchorStore((world.stranger.certificate,)).with_bundles([bundle])
    raw = world.message(world.inner(to=[RCPT, OTHER]), to=[world.rcpt, world.other])
    judgement = world.judge(raw, world.agent(anchors=store), rcpt=(RCPT, OTHER))
    good, bad = judgement.trust
    assert (good.reason, good.anchor_sources) == (Reason.OK, ("bundle agency version 3",))
    assert good.anchor_sha256 == world.community.certificate.sha256
    assert (bad.reason, bad.anchor_sources) == (Reason.UNTRUSTED, ())
    for trust in judgement.trust:
        anchors = store.anchors_for(trust.recipient)
        assert trust.anchor_set == anchors.name
        assert judgement.anchor_sets[trust.anchor_set] == anchors.as_set
    assert len(judgement.anchor_sets) == 2


def test_the_answers_of_a_refusal_are_kept_as_well(world: World) -> None:
    revoked = world.community.issue()
    crl = world.community.crl([revoked])
    judgement = world.judge(world.message(signer=revoked), world.agent(crls=[crl]))
    assert judgement.reason is Reason.REVOKED
    assert [(a.certificate_sha256, a.status) for a in judgement.revocation] == [
        (certificate_of(revoked).sha256, "revoked")
    ]
    assert judgement.revocation_data == (crl,)
    assert judgement.anchor_sets


def test_an_issuer_that_was_fetched_is_kept(world: World, web: Web) -> None:
    """So that the message can be judged again when the issuer's server is gone."""
    below = world.community.below("Below", 54)
    web.replies["/below.der"] = below.certificate.der
    signer = below.issue(extra=[(issuers_at(web.url("/below.der")), False)])
    agent = world.agent(fetcher=Fetcher.within(["127.0.0.0/8"]))
    raw = world.message(signer=signer)
    for expected in (1, 1):
        judgement = world.judge(raw, agent)
        assert judgement.reason is Reason.OK
        assert below.certificate.der in judgement.certificates
        assert len(web.asked) == expected, "the second time it is remembered"


# --- notifications (AS-73) ---


def _report(world: World) -> bytes:
    fields = world.inner(attachment=None)
    head = fields[: fields.index(b"Content-Type")]
    return head + b"Content-Type: multipart/report; report-type=disposition-notification; boundary=r\r\n\r\n--r--\r\n"


def test_a_notification_may_rest_on_the_anchors_for_sending_and_a_message_may_not(world: World) -> None:
    """AS-73: the answer to what was sent is not lost where trust goes out only."""
    bundle = AnchorBundle("b", 1, (), frozenset({Direction.OUTBOUND}), (world.community.certificate.der,))
    store = AnchorStore().with_bundles([bundle])
    assert world.judge(world.message(_report(world)), world.agent(anchors=store)).reason is Reason.OK
    assert world.judge(world.message(), world.agent(anchors=store)).reason is Reason.UNTRUSTED


# --- bounds ---


def test_many_renewed_anchors_of_one_name_cost_no_more_than_the_bound(world: World) -> None:
    """Each renewal of a root with the same key makes another path; the first that holds is taken."""
    old = [CA.root("Community CA", 1, ends=NOW - timedelta(days=n)) for n in range(1, 3 * MAX_PATHS)]
    store = AnchorStore([*(ca.certificate for ca in old), world.community.certificate])
    check = RevocationCheck(RevocationSource(), Fetcher().session(), NOW)
    decision = TrustExamination(NOW, check, (), Evidence()).decide(
        RCPT, [certificate_of(world.signer)], store.anchors_for(RCPT)
    )
    assert (decision.reason, decision.anchor_sha256) == (Reason.OK, world.community.certificate.sha256)


def test_the_subject_alternative_name_of_the_leaf_is_no_hint(world: World) -> None:
    """An issuer alternative name or an odd leaf must not bring an address into what operators see."""
    signer = world.stranger.issue(extra=[(x509.IssuerAlternativeName([x509.RFC822Name("eve@evil.example")]), False)])
    assert "eve" not in _hint(signer, world.community)
