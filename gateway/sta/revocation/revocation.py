"""Whether the certificates of a path have been revoked: CRLs and OCSP (AS-55, AS-66..71; S/MIME rules 17 and 18).

Sources, in this order: the operator's CRL files; where fetching is allowed, what the certificate's distribution points
(delta lists included) and then its OCSP responder offer; last the message's own CRLs. The message's may always revoke,
but they clear only when nothing else can be had, because their choice is the sender's.

What is evidence: only data whose signature verifies. A CRL past its nextUpdate still proves a revocation (except a
hold), because a revocation is final, and so does one of an issuer without the cRLSign bit, whose key it is all the
same. ``good`` needs data in force at the moment that is signed as RFC 5280 or RFC 6960 asks. All else is ``unknown``,
with its cause, and policy decides. ``list_status``, ``indirect_lists`` and ``ocsp_reply`` judge; here it is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from pyhanko_certvalidator.policy_decl import AlgorithmUsagePolicy

from gateway.core.errors import RejectionError
from gateway.sta.certificates import Certificate
from gateway.sta.fetching.authority_access import MAX_URLS, access_urls, distribution_points, freshest_points
from gateway.sta.fetching.fetcher import FetchError, FetchSession
from gateway.sta.fetching.reply_cache import OCSP, Key, Reply, ReplyCache
from gateway.sta.paths.path_building import Path
from gateway.sta.paths.path_validation import DIRECT_ALGORITHMS
from gateway.sta.revocation.crls import MESSAGE, RevocationList, load_crls
from gateway.sta.revocation.fetch_lists import ListFetch
from gateway.sta.revocation.findings import Finding, Proof, unknown
from gateway.sta.revocation.indirect_lists import judge_indirect
from gateway.sta.revocation.list_status import Question, is_current, judge_lists, of_issuer
from gateway.sta.revocation.ocsp_reply import MAX_REPLY_BYTES, OCSPAnswer, OCSPError, ocsp_request, read_answer

__all__ = ["Finding", "RevocationCheck", "RevocationSource", "load_crls"]

MAX_DELTA_URLS = 2
MAX_RESPONDER_URLS = 2


class RevocationSource:
    """Where revocation data comes from: the operator's CRLs, and a cache of what was fetched.

    ``answers`` are OCSP responses with their origins, kept as evidence of an earlier judgement: they are read, and
    verified, as if the responder had just given them. ``cache`` may have been filled before, under other lists and
    anchors, on which it does not depend: what was learned of a revocation is not forgotten by a reload.
    """

    def __init__(
        self,
        crls: Iterable[RevocationList] = (),
        answers: Iterable[tuple[bytes, str]] = (),
        cache: ReplyCache | None = None,
    ) -> None:
        self.answers = tuple(answers)
        self._by_issuer: dict[str, list[RevocationList]] = {}
        self._scoped: list[RevocationList] = []
        for one in crls:
            self._by_issuer.setdefault(one.issuer_key, []).append(one)
            if one.is_scoped:
                self._scoped.append(one)
        self.cache = ReplyCache() if cache is None else cache

    def with_crls(self, crls: Iterable[RevocationList]) -> RevocationSource:
        """The same source with other lists of the operator's."""
        return RevocationSource(crls, self.answers, cache=self.cache)

    def by_issuer(self, issuer_key: str) -> list[RevocationList]:
        """The operator's CRLs of that issuer."""
        return self._by_issuer.get(issuer_key, [])

    def scoped(self) -> list[RevocationList]:
        """The operator's CRLs with a scope of their own: any of them may concern any issuer's certificates."""
        return self._scoped


@dataclass
class RevocationCheck:
    """The check of one message: its own CRLs and certificates, its fetch budget, the moment and the policy."""

    source: RevocationSource
    session: FetchSession
    at: datetime
    hard: bool = False
    own_crls: Sequence[RevocationList] = ()
    own_certificates: Sequence[Certificate] = ()
    algorithms: AlgorithmUsagePolicy = DIRECT_ALGORITHMS
    known: dict[tuple[str, ...], Finding] = field(default_factory=dict)

    def check(self, path: Path) -> list[Finding]:
        """The status of every certificate of the path but the anchor, from the anchor's side to the leaf.

        Stops at the first revoked one: what it issued means nothing. Must run in a thread without an event loop.
        """
        findings: list[Finding] = []
        for index in range(len(path) - 2, -1, -1):
            key = tuple(c.sha256 for c in path[index:])
            if key not in self.known:
                question = Question(path[index:], self.at, self.algorithms)
                # Each certificate has its part of the time, so that a slow list above does not hide the leaf's.
                self.known[key] = _Inquiry(self, question, self.session.part(index + 1)).finding()
            findings.append(self.known[key])
            if findings[-1].status == "revoked":
                break
        return findings


@dataclass
class _Inquiry:
    """The inquiry into one certificate."""

    check: RevocationCheck
    question: Question
    session: FetchSession
    causes: list[str] = field(default_factory=list)
    lists: ListFetch = field(init=False)

    def __post_init__(self) -> None:
        self.lists = ListFetch(self.question, self.session, self.check.source.cache, self.causes)

    def finding(self) -> Finding:
        """The status, from the first source that knows."""
        return (
            self._told(self._by_operator)
            or self._told(self._by_kept_answer)
            or self._told(self._by_distribution_points)
            or self._told(self._by_responder)
            or self._told(self._by_message)
            or unknown(self.question.certificate, "; ".join(dict.fromkeys(self.causes)) or "no revocation data")
        )

    def _told(self, ask: Callable[[], Finding | None]) -> Finding | None:
        found = ask()
        if found is not None and found.status == "unknown":
            if found.detail:
                self.causes.append(found.detail)
            return None
        return found

    # --- lists ---

    def _by_operator(self) -> Finding | None:
        local = self.check.source.by_issuer(self.question.certificate.issuer_key)
        return self._by_lists([*local, *self._message_lists()], self._near(local))

    def _by_distribution_points(self) -> Finding | None:
        lists: list[RevocationList] = []
        last: Finding | None = None
        if not self.session.enabled:
            return None
        for url in distribution_points(self.question.certificate)[:MAX_URLS]:
            new = self.lists.at(url)
            if not new:
                continue
            lists += new
            last = self._by_lists(lists, self._near(lists))
            if last.status != "unknown":
                return last
        return last

    def _by_message(self) -> Finding | None:
        own = list(self.check.own_crls)
        if not own:
            return None
        found = judge_lists(self.question, own, by_message=True)
        if found.status == "unknown":
            indirect = self._indirect([*own, *self._near(own)])
            return indirect if indirect.status != "unknown" else found
        return found

    def _message_lists(self) -> list[RevocationList]:
        return [c for c in self.check.own_crls if c.issuer_key == self.question.certificate.issuer_key]

    def _by_lists(self, lists: Sequence[RevocationList], near: Sequence[RevocationList]) -> Finding:
        """By the issuer's own lists, with their delta lists; by the library where those say nothing."""
        with_deltas = [*lists, *self._deltas(lists)]
        found = judge_lists(self.question, with_deltas)
        if found.status != "unknown":
            return found
        indirect = self._indirect([c for c in dict.fromkeys([*with_deltas, *near]) if c.origin != MESSAGE])
        if indirect.status == "unknown":
            return unknown(self.question.certificate, "; ".join(filter(None, [found.detail, indirect.detail])))
        self.lists.keep(indirect)
        return indirect

    def _indirect(self, lists: Sequence[RevocationList]) -> Finding:
        return judge_indirect(self.question, lists, self.check.own_certificates, hard=self.check.hard)

    def _near(self, lists: Sequence[RevocationList]) -> list[RevocationList]:
        """What may be needed beside the lists: one may have an issuer of its own, judged by anybody's near the path."""
        names = dict.fromkeys(c.issuer_key for c in (*self.question.path, *self.check.own_certificates))
        named = [c for name in names for c in self.check.source.by_issuer(name)]
        return [*lists, *named, *self.check.source.scoped()]

    # --- fetching ---

    def _deltas(self, lists: Sequence[RevocationList]) -> list[RevocationList]:
        """The delta lists that the certificate or a list in force names (RFC 5280 4.2.1.15, 5.2.6)."""
        if not self.session.enabled:
            return []
        bases = [c for c in of_issuer(self.question, lists) if not c.is_delta and is_current(c, self.question.at)]
        if not bases:
            return []
        urls = [*freshest_points(self.question.certificate.asn1), *bases[0].freshest_urls]
        return [one for url in list(dict.fromkeys(urls))[:MAX_DELTA_URLS] for one in self.lists.at(url)]

    # --- OCSP ---

    def _by_kept_answer(self) -> Finding | None:
        """By an answer of the evidence; those about other certificates are passed over."""
        for der, origin in self.check.source.answers:
            try:
                return self._by_answer(origin, read_answer(self.question, der))
            except (OCSPError, RejectionError):
                continue
        return None

    def _by_responder(self) -> Finding | None:
        if not self.session.enabled:
            return None
        for url in access_urls(self.question.certificate, "ocsp")[:MAX_RESPONDER_URLS]:
            request = ocsp_request(self.question)
            # The issuer's certificate is part of the key, because the answer was verified against it.
            key = (OCSP, url, request + bytes.fromhex(self.question.issuer.sha256))
            try:
                answer = self._ask(key, request)
                answer.require_fresh(self.question.at)
                return self._by_answer(url, answer)
            except FetchError as exc:
                self.causes.append(f"OCSP was not asked: {exc}")
            except OCSPError as exc:
                self.causes.append(str(exc))
            if (found := self._by_held_answer(key)) is not None:
                return found
        return None

    def _by_held_answer(self, key: Key) -> Finding | None:
        """By what was answered before, when that is a final revocation: it does not run out."""
        held = self.check.source.cache.held(key)
        try:
            if isinstance(held, OCSPAnswer) and held.is_final:
                held.require_fresh(self.question.at)
                return self._by_answer(key[1], held)
        except OCSPError as exc:
            self.causes.append(str(exc))
        return None

    def _ask(self, key: Key, request: bytes) -> OCSPAnswer:
        """An answer whose signature is verified, from the cache or fresh.

        Raises:
            FetchError: nobody answered.
            OCSPError: what was answered proves nothing; it is not kept.
        """

        def load() -> Reply:
            body = self.session.post(key[1], request, "application/ocsp-request", MAX_REPLY_BYTES)
            try:
                new = read_answer(self.question, body)
            except (OCSPError, RejectionError) as exc:
                return Reply(exc, None, 0)
            return Reply(new, new.keep_until, len(body), lambda kept: new.is_rollback(kept, self.question.at))

        answer = self.check.source.cache.obtain(key, self.question.at, self.session.remaining, load)
        if isinstance(answer, OCSPAnswer):
            return answer
        raise OCSPError(str(answer))

    def _by_answer(self, url: str, answer: OCSPAnswer) -> Finding:
        proofs = [answer.proof(url)]
        ends = [answer.keep_until]
        if answer.responder is not None:
            responder = self._responder(answer.responder)
            proofs += responder
            ends += [one.next_update for one in responder if one.next_update is not None]
        return answer.finding(self.question, proofs, min(ends))

    def _responder(self, responder: Certificate) -> list[Proof]:
        """What clears a responder of the issuer's, who may have been revoked itself (RFC 6960 4.2.2.2.1).

        Raises:
            OCSPError: it was revoked, or that is unknown under the hard policy.
        """
        question = Question((responder, *self.question.path[1:]), self.question.at, self.question.algorithms)
        lists = [*self.check.source.by_issuer(responder.issuer_key), *self._message_lists()]
        found = judge_lists(question, lists)
        if found.status == "unknown":
            for url in distribution_points(responder)[:1]:
                lists += self.lists.at(url)
            found = judge_lists(question, lists)
        if found.status == "revoked":
            raise OCSPError("the OCSP responder's certificate was revoked")
        if found.status == "unknown" and self.check.hard:
            raise OCSPError("the OCSP responder's own revocation status is unknown")
        return [one.proof for one in lists if one.der in found.data]
