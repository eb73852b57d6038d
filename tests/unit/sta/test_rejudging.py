"""A stored message judged again as of then gives the same answer, whatever has become of the world (promise 3, AS-55).

The messages are judged by the real agent with the real store between; then everything that a verdict rests on is taken
away: the anchors, the lists, the servers, and the validity of the certificates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp

from gateway.core.errors import ConflictError, NotFoundError
from gateway.core.lifecycle import State
from gateway.core.message import Envelope, Inbound, MemoryBody, Source
from gateway.core.trust import BundleSetting, Direction
from gateway.core.verdict import Judgement, Reason
from gateway.ports import UnitOfWork
from gateway.rejudging import (
    ANCHORS_OF_TODAY,
    KEYS_OF_TODAY,
    Rejudgement,
    judge_as_of,
    judge_as_of_then,
    load_case,
)
from gateway.settings import TrustSettings
from gateway.sta.agent import SecurityTrustAgent
from gateway.sta.fetching.fetcher import Fetcher
from gateway.sta.trust_anchors.anchors import AnchorStore
from gateway.store.ids import new_id
from gateway.store.sql_store import SQLStore
from tests.support.pki import Identity
from tests.support.store_samples import open_store
from tests.unit.sta.conftest import Web
from tests.unit.sta.trust_world import CA, NOW, OTHER, RCPT, SENDER, World, crl_at, issuers_at, ocsp_at

LOOPBACK = Fetcher.within(["127.0.0.0/8"])
DAY = timedelta(days=1)


@dataclass
class Archive:
    """A store, and the folders of today: a gateway whose anchors and lists are all gone."""

    store: SQLStore
    folder: Path
    world: World
    options: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("identities", "anchors", "crls"):
            (self.folder / name).mkdir()
        self.world.rcpt.write(self.folder / "identities", "rcpt")
        self.world.other.write(self.folder / "identities", "other")

    @property
    def settings(self) -> TrustSettings:
        return TrustSettings(
            identities_dir=self.folder / "identities",
            anchors_dir=self.folder / "anchors",
            crls_dir=self.folder / "crls",
            fetch="off",
            **self.options,  # type: ignore[arg-type]
        )

    def trust(self, *authorities: CA, only: str = "") -> None:
        """An anchor of today."""
        folder = self.folder / "anchors" / only
        folder.mkdir(exist_ok=True)
        for number, authority in enumerate(authorities):
            (folder / f"{number}.pem").write_bytes(authority.identity.certificate_pem)

    def keep(
        self,
        raw: bytes,
        agent: SecurityTrustAgent,
        *,
        rcpt: tuple[str, ...] = (RCPT,),
        mail_from: str | None = SENDER,
        at: datetime = NOW,
    ) -> tuple[str, Judgement]:
        """Judge as the daemon does, and keep the message with its verdict."""
        envelope = Envelope(mail_from, rcpt)
        judgement = agent.judge(raw, envelope, at)

        def work(tx: UnitOfWork) -> str:
            message_id = new_id(at)
            tx.messages.add_raw(message_id, at, Inbound(MemoryBody(raw), envelope, Source.SMTP))
            tx.messages.set_state(message_id, State.RECEIVED, at)
            tx.messages.add_verdict(message_id, at, judgement)
            return message_id

        return self.store.write_blocking(work), judgement

    def as_of_then(self, message_id: str) -> Rejudgement:
        return judge_as_of_then(self.settings, self.store.read_blocking(lambda tx: load_case(tx, message_id)))

    def as_of(self, message_id: str, moment: datetime) -> Rejudgement:
        return judge_as_of(self.settings, self.store.read_blocking(lambda tx: load_case(tx, message_id)), moment)


@pytest.fixture
def archive(tmp_path: Path, world: World) -> Iterator[Archive]:
    (tmp_path / "store").mkdir()
    with open_store(tmp_path / "store") as store:
        yield Archive(store, tmp_path, world)


Scene = Callable[[World], tuple[bytes, SecurityTrustAgent]]


def accepted(world: World) -> tuple[bytes, SecurityTrustAgent]:
    return world.message(), world.agent(crls=[world.community.crl()], hard=False)


def accepted_through_an_intermediate(world: World) -> tuple[bytes, SecurityTrustAgent]:
    below = world.community.below("Below", 54)
    return world.message(signer=below.issue(), chain=[below]), world.agent(crls=[world.community.crl(), below.crl()])


def accepted_by_a_correspondents_own_certificate(world: World) -> tuple[bytes, SecurityTrustAgent]:
    """The certificate itself is the anchor."""
    signer = world.stranger.issue()
    anchors = AnchorStore((CA(signer).certificate,))
    return world.message(signer=signer), world.agent(anchors=anchors)


def soon_expired(world: World) -> tuple[bytes, SecurityTrustAgent]:
    return world.message(signer=world.community.issue(ends=NOW + timedelta(hours=1))), world.agent()


def untrusted(world: World) -> tuple[bytes, SecurityTrustAgent]:
    return world.message(signer=world.stranger.issue()), world.agent()


def untrusted_correspondent_of_another(world: World) -> tuple[bytes, SecurityTrustAgent]:
    signer = world.stranger.issue()
    anchors = AnchorStore((world.community.certificate,), {OTHER: (CA(signer).certificate,)})
    return world.message(signer=signer), world.agent(anchors=anchors)


def without_any_anchor(world: World) -> tuple[bytes, SecurityTrustAgent]:
    return world.message(), world.agent(anchors=AnchorStore())


def revoked(world: World) -> tuple[bytes, SecurityTrustAgent]:
    return world.message(), world.agent(crls=[world.community.crl([world.signer])])


def revoked_above(world: World) -> tuple[bytes, SecurityTrustAgent]:
    below = world.community.below("Below", 54)
    agent = world.agent(crls=[world.community.crl([below.identity]), below.crl()])
    return world.message(signer=below.issue(), chain=[below]), agent


def expired(world: World) -> tuple[bytes, SecurityTrustAgent]:
    return world.message(signer=world.community.issue(ends=NOW - DAY)), world.agent()


def forged(world: World) -> tuple[bytes, SecurityTrustAgent]:
    return world.message(signer=world.community.issue("eve@direct.sender.example")), world.agent()


def undecipherable(world: World) -> tuple[bytes, SecurityTrustAgent]:
    return world.message(to=[world.stranger.issue(RCPT, slot=58)]), world.agent()


def ordinary(world: World) -> tuple[bytes, SecurityTrustAgent]:
    return world.inner(), world.agent()


SCENES: dict[str, tuple[Scene, Reason]] = {
    "accepted": (accepted, Reason.OK),
    "accepted through an intermediate": (accepted_through_an_intermediate, Reason.OK),
    "accepted by its own certificate": (accepted_by_a_correspondents_own_certificate, Reason.OK),
    "expired later": (soon_expired, Reason.OK),
    "untrusted": (untrusted, Reason.UNTRUSTED),
    "trusted by another only": (untrusted_correspondent_of_another, Reason.UNTRUSTED),
    "without any anchor": (without_any_anchor, Reason.UNTRUSTED),
    "revoked": (revoked, Reason.REVOKED),
    "revoked above": (revoked_above, Reason.REVOKED),
    "expired": (expired, Reason.EXPIRED),
    "forged": (forged, Reason.BINDING_MISMATCH),
    "undecipherable": (undecipherable, Reason.CANNOT_DECRYPT),
    "ordinary": (ordinary, Reason.NOT_ENCRYPTED),
}


def same(then: Judgement, again: Judgement) -> None:
    """Everything that counts is equal, the evidence of the trust included."""
    assert (again.reason, again.detail, again.delivered_to) == (then.reason, then.detail, then.delivered_to)
    assert (again.content, again.sender, again.signer) == (then.content, then.sender, then.signer)
    assert again.trust == then.trust
    assert again.anchor_sets.keys() == then.anchor_sets.keys()
    assert sorted((a.certificate_sha256, a.status, a.data_sha256) for a in again.revocation) == sorted(
        (a.certificate_sha256, a.status, a.data_sha256) for a in then.revocation
    )


@pytest.mark.parametrize("scene", SCENES)
def test_as_of_then_the_answer_is_the_same_when_everything_is_gone(archive: Archive, world: World, scene: str) -> None:
    make, reason = SCENES[scene]
    raw, agent = make(world)
    message_id, then = archive.keep(raw, agent)
    assert then.reason is reason
    found = archive.as_of_then(message_id)
    assert found.as_of == NOW
    same(then, found.judgement)
    assert (ANCHORS_OF_TODAY in found.notes) == (not then.anchor_sets)


def test_as_of_then_each_recipient_has_the_anchors_of_then(archive: Archive, world: World) -> None:
    anchors = AnchorStore(own={RCPT: (world.community.certificate,), OTHER: (world.stranger.certificate,)})
    raw = world.message(world.inner(to=[RCPT, OTHER]), to=[world.rcpt, world.other])
    message_id, then = archive.keep(raw, world.agent(anchors=anchors), rcpt=(RCPT, OTHER))
    assert then.delivered_to == (RCPT,)
    archive.trust(world.community, world.stranger)
    same(then, archive.as_of_then(message_id).judgement)


def test_as_of_then_a_new_anchor_does_not_count_and_as_of_now_it_does(archive: Archive, world: World) -> None:
    raw, agent = untrusted(world)
    message_id, _ = archive.keep(raw, agent)
    archive.trust(world.stranger)
    assert archive.as_of_then(message_id).judgement.reason is Reason.UNTRUSTED
    assert archive.as_of(message_id, NOW + DAY).judgement.reason is Reason.OK


def test_as_of_then_a_later_revocation_does_not_count_and_as_of_now_it_does(archive: Archive, world: World) -> None:
    raw, agent = accepted(world)
    message_id, _ = archive.keep(raw, agent)
    archive.trust(world.community)
    crl = world.community.crl([world.signer], begins=NOW + DAY, ends=NOW + 9 * DAY, revoked_at=NOW + DAY)
    (archive.folder / "crls" / "new.crl").write_bytes(crl)
    assert archive.as_of_then(message_id).judgement.reason is Reason.OK
    assert archive.as_of(message_id, NOW + timedelta(hours=1)).judgement.reason is Reason.OK
    assert archive.as_of(message_id, NOW + 2 * DAY).judgement.reason is Reason.REVOKED


def test_as_of_a_moment_after_its_validity_a_certificate_has_expired(archive: Archive, world: World) -> None:
    raw, agent = accepted(world)
    message_id, _ = archive.keep(raw, agent)
    archive.trust(world.community)
    assert archive.as_of(message_id, NOW + 2000 * DAY).judgement.reason is Reason.EXPIRED
    assert archive.as_of(message_id, NOW + DAY).judgement.reason is Reason.OK


def test_as_of_now_the_bundles_in_force_count(archive: Archive, world: World) -> None:
    raw, agent = untrusted(world)
    message_id, _ = archive.keep(raw, agent)
    assert archive.as_of(message_id, NOW).judgement.reason is Reason.UNTRUSTED

    def add(tx: UnitOfWork) -> None:
        tx.bundles.set(BundleSetting("partners", "/b.p7b", None, (), frozenset(Direction), 0), NOW)
        tx.bundles.add_version("partners", NOW, b"file", [world.stranger.certificate.der])

    archive.store.write_blocking(add)
    found = archive.as_of(message_id, NOW).judgement
    assert found.reason is Reason.OK
    assert found.trust[0].anchor_sources == ("bundle partners version 1",)
    assert archive.as_of_then(message_id).judgement.reason is Reason.UNTRUSTED


def test_a_key_that_was_missing_then_is_told_as_the_one_thing_of_today(archive: Archive, world: World) -> None:
    new = world.clinic.issue(RCPT, slot=59)
    raw = world.message(to=[new])
    message_id, then = archive.keep(raw, world.agent())
    assert then.reason is Reason.CANNOT_DECRYPT
    new.write(archive.folder / "identities", "new")
    archive.trust(world.community)
    found = archive.as_of_then(message_id)
    assert found.judgement.reason is Reason.OK
    assert KEYS_OF_TODAY in found.notes
    assert ANCHORS_OF_TODAY in found.notes


def test_a_change_of_the_rules_is_told(archive: Archive, world: World) -> None:
    raw, agent = accepted(world)
    message_id, then = archive.keep(raw, agent)
    archive.options["refuse_algorithms"] = ("aes-128-cbc",)
    notes = archive.as_of_then(message_id).notes
    assert any(then.policy_version in note and "refuses aes-128-cbc" in note for note in notes)


def test_the_hard_policy_of_today_finds_the_lists_of_then(archive: Archive, world: World) -> None:
    raw, _ = accepted(world)
    message_id, then = archive.keep(raw, world.agent(crls=[world.community.crl()], hard=True))
    assert then.reason is Reason.OK
    archive.options["revocation_inbound"] = "hard"
    same(then, archive.as_of_then(message_id).judgement)


# --- what had been fetched ---


def test_a_list_that_had_been_fetched_is_used_again_without_fetching(archive: Archive, world: World, web: Web) -> None:
    signer = world.community.issue(extra=[(crl_at(web.url("/ca.crl")), False)])
    for revoked_ones, reason in (([], Reason.OK), ([signer], Reason.REVOKED)):
        web.replies["/ca.crl"] = world.community.crl(revoked_ones)
        message_id, then = archive.keep(world.message(signer=signer), world.agent(fetcher=LOOPBACK, hard=True))
        assert then.reason is reason
        web.asked.clear()
        web.replies.clear()
        archive.options["revocation_inbound"] = "hard"
        found = archive.as_of_then(message_id).judgement
        same(then, found)
        assert [a.origin for a in found.revocation] == [web.url("/ca.crl")]
        assert web.asked == []


def test_an_issuer_that_had_been_fetched_is_used_again_without_fetching(
    archive: Archive, world: World, web: Web
) -> None:
    below = world.community.below("Below", 55)
    web.replies["/below.cer"] = below.certificate.der
    signer = below.issue(extra=[(issuers_at(web.url("/below.cer")), False)])
    crl = world.community.crl([below.identity])
    for crls, reason in (((), Reason.OK), ((crl,), Reason.REVOKED)):
        agent = world.agent(fetcher=LOOPBACK, crls=crls)
        message_id, then = archive.keep(world.message(signer=signer), agent)
        assert then.reason is reason
        web.asked.clear()
        same(then, archive.as_of_then(message_id).judgement)
        assert web.asked == []


def test_an_ocsp_answer_is_used_again_without_asking(archive: Archive, world: World, web: Web) -> None:
    """AS-71: under the hard policy, so that the answer has to be believed to pass."""
    signer = world.community.issue(extra=[(ocsp_at(web.url("/ocsp")), False)])
    for is_revoked, reason in ((False, Reason.OK), (True, Reason.REVOKED)):
        web.replies["/ocsp"] = _ocsp(signer, world.community, is_revoked=is_revoked)
        message_id, then = archive.keep(world.message(signer=signer), world.agent(fetcher=LOOPBACK, hard=True))
        assert then.reason is reason
        assert [a.kind for a in then.revocation] == ["ocsp"]
        web.asked.clear()
        web.replies.clear()
        archive.options["revocation_inbound"] = "hard"
        found = archive.as_of_then(message_id).judgement
        same(then, found)
        assert [(a.kind, a.origin) for a in found.revocation] == [("ocsp", web.url("/ocsp"))]
        assert web.asked == []


def test_a_forged_answer_among_the_evidence_proves_nothing(archive: Archive, world: World, web: Web) -> None:
    signer = world.community.issue(extra=[(ocsp_at(web.url("/ocsp")), False)])
    web.replies["/ocsp"] = _ocsp(signer, world.community, is_revoked=False)
    raw = world.message(signer=signer)
    message_id, _ = archive.keep(raw, world.agent(fetcher=LOOPBACK, hard=True))
    case = archive.store.read_blocking(lambda tx: load_case(tx, message_id))
    [(digest, der)] = case.revocation_data.items()
    object.__setattr__(case, "revocation_data", {digest: der[:-4] + bytes(4)})
    archive.options["revocation_inbound"] = "hard"
    assert judge_as_of_then(archive.settings, case).judgement.reason is Reason.UNTRUSTED


def _ocsp(signer: Identity, issuer: CA, *, is_revoked: bool) -> bytes:
    status = ocsp.OCSPCertStatus.REVOKED if is_revoked else ocsp.OCSPCertStatus.GOOD
    return (
        ocsp.OCSPResponseBuilder()
        .add_response(
            cert=signer.certificate,
            issuer=issuer.identity.certificate,
            algorithm=hashes.SHA1(),  # noqa: S303 - the CertID of RFC 5019
            cert_status=status,
            this_update=NOW - timedelta(hours=1),
            next_update=NOW + timedelta(hours=1),
            revocation_time=NOW - DAY if is_revoked else None,
            revocation_reason=x509.ReasonFlags.key_compromise if is_revoked else None,
        )
        .responder_id(ocsp.OCSPResponderEncoding.NAME, issuer.identity.certificate)
        .sign(issuer.identity.key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )


def test_a_message_that_was_never_judged_cannot_be_judged_again(archive: Archive) -> None:
    def work(tx: UnitOfWork) -> str:
        message_id = new_id(NOW)
        tx.messages.add_raw(message_id, NOW, Inbound(MemoryBody(b"x"), Envelope(SENDER, (RCPT,)), Source.SMTP))
        tx.messages.set_state(message_id, State.RECEIVED, NOW)
        return message_id

    message_id = archive.store.write_blocking(work)
    with pytest.raises(ConflictError, match="has not been judged yet"):
        archive.as_of_then(message_id)
    with pytest.raises(NotFoundError):
        archive.as_of_then("nobody")
