"""Judging a stored message again: as of then, from the evidence kept with it, or with what is in force today.

*As of then* uses the moment of the newest verdict, and from its evidence the anchors of each recipient, the
certificates and the revocation data; nothing is fetched. So the answer stays the same when anchors have been taken
away, lists replaced, servers shut down and certificates expired. Two things are not kept with a message and are
today's: the private keys (a key that was missing then may be there now) and the rules. The rules are compared by their
version. A message that was refused before anybody's trust was asked has no anchors in its evidence; today's stand in
for them, with the revocation lists of today's folder as far as they tell of then, and the notes say so.

*As of another moment* judges as if the message came at that moment and met the keys, anchors, bundles, lists and rules
of today; what certificates name is fetched as configured.

Guarantees: nothing is stored or delivered here. Failure modes: ConfigurationError for keys, anchors or lists that
cannot be read; ConflictError for a message that was never judged; StoreError for evidence damaged on the disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.agents import build_agent, load_keys, read_crls, trust_policy
from gateway.core.errors import ConflictError, InputError, StoreError
from gateway.core.lifecycle import State
from gateway.core.message import Envelope
from gateway.core.trust import AnchorBundle
from gateway.core.verdict import AnchorSet, Judgement
from gateway.ports import RawMessage, UnitOfWork
from gateway.settings import TrustSettings
from gateway.sta.agent import SecurityTrustAgent
from gateway.sta.certificates import CertificateError, parse_many
from gateway.sta.fetching.fetcher import Fetcher
from gateway.sta.revocation.crls import RevocationList
from gateway.sta.revocation.revocation import RevocationSource
from gateway.sta.trust_anchors.anchor_folder import load_anchors
from gateway.sta.trust_anchors.anchors import AnchorStore

KEYS_OF_TODAY = "the private keys are today's: one that was missing then may be there now"
ANCHORS_OF_TODAY = (
    "the verdict holds no anchors, because it was reached before anybody's trust was asked; today's were used, and "
    "today's folder of revocation lists"
)
NO_LIST_TELLS = (
    "no list at hand tells whether a certificate had been revoked by then (revocation status unknown), and nothing was "
    "fetched; '--as-of now' asks again"
)


@dataclass(frozen=True, slots=True)
class Case:
    """A stored message with the evidence of its newest verdict: all that judging it again needs of the store."""

    message: RawMessage
    verdict: dict[str, Any]
    judged_at: datetime
    certificates: tuple[bytes, ...]
    revocation_data: Mapping[str, bytes]
    """By SHA-256."""
    anchor_sets: Mapping[str, AnchorSet]
    """By recipient."""
    bundles: tuple[AnchorBundle, ...]
    """In force today."""


@dataclass(frozen=True, slots=True)
class Rejudgement:
    """What judging again said."""

    as_of: datetime
    judgement: Judgement
    notes: tuple[str, ...]
    """For people: what could not be as it was then."""
    is_provisional: bool = False
    """Accepted although nobody ever asked whether a certificate of it was revoked: no reason to have it delivered."""


def load_case(tx: UnitOfWork, message_id: str) -> Case:
    """Read a message and the evidence of its newest verdict.

    Raises:
        NotFoundError: there is no such message. ConflictError: it has not been judged yet.
        StoreError: the message or its evidence is damaged.
    """
    messages = tx.messages
    message = messages.raw(message_id)
    verdict = messages.verdict(message_id)
    if verdict is None and messages.state(message_id) is State.KEPT:
        raise ConflictError("the message is a mail client's copy of what was sent; such a one is never judged")
    if verdict is None:
        raise ConflictError("the message has not been judged yet; there is nothing to compare with")
    return Case(
        message,
        verdict,
        messages.judged_at(message_id),
        tuple(messages.certificate(sha256) for sha256 in verdict["certificates"]),
        {sha256: messages.revocation_data(sha256) for sha256 in verdict["revocation_data"]},
        {t["recipient"]: messages.anchor_set(t["anchor_set"]) for t in verdict["trust"] if t["anchor_set"]},
        tuple(tx.bundles.in_force()),
    )


def judge_as_of_then(settings: TrustSettings, case: Case) -> Rejudgement:
    """Judge as of the newest verdict. Must run in a thread without a running event loop."""
    policy = trust_policy(settings)
    notes = [KEYS_OF_TODAY]
    recorded = case.verdict["policy_version"]
    # There is none for a message whose examination failed.
    if recorded and recorded != policy.version:
        notes.append(f"the rules have changed: then {recorded}, today {policy.version}")
    try:
        anchors = AnchorStore.of_sets(case.anchor_sets)
    except CertificateError:
        raise StoreError("an anchor of the evidence is damaged") from None
    lists: Sequence[RevocationList] = ()
    if not case.anchor_sets:
        anchors = load_anchors(settings.anchors_dir).with_bundles(case.bundles)
        lists = read_crls(settings)
        notes.append(ANCHORS_OF_TODAY)
    agent = SecurityTrustAgent(
        load_keys(settings),
        anchors,
        _revocation_source(case, lists),
        Fetcher.configured("off"),
        policy,
        known=tuple(parse_many(case.certificates, len(case.certificates))),
    )
    judgement = _judge(agent, case, case.judged_at)
    is_known = all(answer.status == "good" for answer in judgement.revocation)
    is_provisional = judgement.accepted and not case.anchor_sets and not is_known
    if is_provisional:
        notes.append(NO_LIST_TELLS)
    return Rejudgement(case.judged_at, judgement, tuple(notes), is_provisional)


def judge_as_of(settings: TrustSettings, case: Case, moment: datetime) -> Rejudgement:
    """Judge as if it came at that moment and met what is in force today; as :func:`judge_as_of_then` otherwise."""
    return Rejudgement(moment, _judge(build_agent(settings, case.bundles), case, moment), ())


def _judge(agent: SecurityTrustAgent, case: Case, at: datetime) -> Judgement:
    return agent.judge(case.message.body, Envelope(case.message.mail_from, case.message.recipients), at)


def _revocation_source(case: Case, others: Sequence[RevocationList]) -> RevocationSource:
    """The lists and answers of the evidence, each under the name of where it came from then, and other lists."""
    origins = {answer["data_sha256"]: answer["origin"] for answer in case.verdict["revocation"]}
    lists = list(others)
    answers: list[tuple[bytes, str]] = []
    for sha256, der in case.revocation_data.items():
        origin = origins.get(sha256) or "evidence"
        try:
            lists.append(RevocationList(der, origin))
        except InputError:
            answers.append((der, origin))
    return RevocationSource(lists, answers)
