"""Trust, decided per recipient: whose anchors stand behind the signer (AS-56..58, AS-65..73).

One examination serves a whole message: recipients with the same anchors share one decision, the way up from a signer
is searched once for all of them, and what was learned about a path (its signatures, its revocation) is not asked
twice, whoever's anchors it leads to. What holds beyond the message is remembered in a :class:`PathCache`, and the
evidence says when it was judged.

What was fetched for a message that is refused is a stranger's choice, and little of it is kept with the message.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from gateway.core.errors import RejectionError
from gateway.core.trust import Direction
from gateway.core.verdict import Check, Reason, RecipientTrust, RevocationAnswer
from gateway.sta import hints
from gateway.sta.certificates import Certificate
from gateway.sta.evidence import Evidence
from gateway.sta.fetching.authority_access import fetch_issuers
from gateway.sta.fetching.fetcher import FetchSession
from gateway.sta.paths.path_building import Path, PathSearch, SignatureChecks
from gateway.sta.paths.path_cache import AcceptedPath, PathCache, PathKey, carried_digest, holds_until
from gateway.sta.paths.path_validation import ChainAlgorithms, validate_path
from gateway.sta.revocation.findings import Finding
from gateway.sta.revocation.revocation import RevocationCheck
from gateway.sta.trust_anchors.anchors import Anchors, TrustAnchor
from gateway.sta.trust_policy import TrustPolicy

MAX_FETCHED_BYTES_OF_REFUSED = 16 * 1024
"""Of fetched certificates that the evidence holds although nothing was accepted by them; those nearest the signer."""
_MOST_SPECIFIC = (Reason.REVOKED, Reason.EXPIRED, Reason.KEY_USAGE, Reason.WEAK_ALGORITHM, Reason.UNTRUSTED)
"""Which fault is told when several apply: one on a path that does lead to an anchor says more than no path."""


def most_specific(faults: Sequence[RejectionError]) -> RejectionError:
    """The fault to tell; ``faults`` must not be empty."""
    return min(faults, key=_rank)


def _rank(fault: RejectionError) -> int:
    return _MOST_SPECIFIC.index(fault.reason) if fault.reason in _MOST_SPECIFIC else -1


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a signer is not trusted, and what an operator can do about it."""

    fault: RejectionError
    hint: str = ""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What was found of one path: the refusal, or what the evidence says of an accepted one."""

    refusal: Refusal | None
    checks: tuple[Check, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass
class TrustExamination:
    """The trust decisions of one message.

    ``untrusted`` are the certificates that the message carries. ``direction`` is that of the traffic, which says by
    which rule an unknown revocation status is judged; whose anchors count is said with each decision.
    """

    at: datetime
    revocation: RevocationCheck
    untrusted: Sequence[Certificate]
    evidence: Evidence
    policy: TrustPolicy = field(default_factory=TrustPolicy)
    direction: Direction = Direction.INBOUND
    paths: PathCache = field(default_factory=PathCache)
    decisions: dict[tuple[str, str], Path | Refusal] = field(default_factory=dict)
    """By the digest of the signer and the name of the set of anchors."""
    fetch_notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._fetched: dict[Certificate, None] = {}
        self._outcomes: dict[Path, _Outcome] = {}
        self._recorded: set[Path] = set()
        self._searches: dict[Certificate, PathSearch] = {}
        self._led_nowhere: dict[Certificate, Refusal] = {}
        self._signature_checks: SignatureChecks = {}
        self._room = MAX_FETCHED_BYTES_OF_REFUSED
        self._carried = carried_digest(self.untrusted)
        self._hinted: RejectionError | None = None

    # What a path that is remembered does without is made when it is asked for.

    @cached_property
    def issuer_session(self) -> FetchSession:
        """A share of the fetch budget: fetching issuers must not use up what revocation needs."""
        return self.revocation.session.share()

    @cached_property
    def _algorithms(self) -> ChainAlgorithms:
        return ChainAlgorithms(self.policy.algorithms)

    @cached_property
    def _at_hand(self) -> frozenset[Certificate]:
        return frozenset(self.untrusted)

    def decide(self, recipient: str, signers: Sequence[Certificate], anchors: Iterable[TrustAnchor]) -> RecipientTrust:
        """Whether the recipient's anchors accept one of the signers; the first that they accept counts.

        Everything that it rests on goes into the evidence; the hint there is that of the most specific fault.
        """
        trusted = anchors if isinstance(anchors, Anchors) else Anchors(anchors)
        self.evidence.anchor_sets.setdefault(trusted.name, trusted.as_set)
        refusals: list[Refusal] = []
        for signer in signers:
            key = (signer.sha256, trusted.name)
            if key not in self.decisions:
                self.decisions[key] = self._remembered(signer, trusted) or self._decide(signer, trusted)
            decision = self.decisions[key]
            if not isinstance(decision, Refusal):
                chain = tuple(c.sha256 for c in decision)
                anchor = trusted.find(chain[-1])
                sources = anchor.sources if anchor is not None else ()
                return RecipientTrust(recipient, Reason.OK, "", chain[-1], sources, chain, trusted.name)
            refusals.append(decision)
        told = min(refusals, key=lambda refusal: _rank(refusal.fault))
        self._hint(told)
        return RecipientTrust(recipient, told.fault.reason, told.fault.detail, anchor_set=trusted.name)

    def chain_of(self, signer: Certificate) -> Path:
        """An accepted path of the signer, or the empty one."""
        accepted = (
            path
            for (leaf, _), path in self.decisions.items()
            if leaf == signer.sha256 and not isinstance(path, Refusal)
        )
        return next(accepted, ())

    def _hint(self, refusal: Refusal) -> None:
        if self._hinted is None or _rank(refusal.fault) < _rank(self._hinted):
            self._hinted = refusal.fault
            self.evidence.hint = refusal.hint

    # --- what is remembered beyond the message ---

    def _key(self, signer: Certificate, anchors: Anchors) -> PathKey | None:
        """The key of the cache; None for a message with revocation lists of its own, which must not use it."""
        if self.revocation.own_crls:
            return None
        policy, hard = self.policy.version, self.revocation.hard
        return PathKey(signer.sha256, self._carried, anchors.name, self.direction, policy, hard)

    def _remembered(self, signer: Certificate, anchors: Anchors) -> Path | None:
        key = self._key(signer, anchors)
        known = self.paths.get(key, self.at) if key is not None else None
        if known is None:
            return None
        path = known.path(signer, self.untrusted, anchors)
        if path is not None and path not in self._recorded:
            self._record(path, known.answers, known.data)
            self._accept(path, known.checks)
            self.evidence.noted("path", f"path and revocation as validated at {known.judged_at.isoformat()}")
        return path

    def _remember(self, path: Path, anchors: Anchors, outcome: _Outcome) -> None:
        key = self._key(path[0], anchors)
        if key is None:
            return
        accepted = AcceptedPath(
            chain_sha256=tuple(c.sha256 for c in path),
            fetched=tuple(c for c in path if c in self._fetched),
            checks=outcome.checks,
            answers=tuple(f.answer for f in outcome.findings),
            data=tuple(dict.fromkeys(data for f in outcome.findings for data in f.data)),
            judged_at=self.at,
            valid_until=holds_until(path, outcome.findings, self.at),
        )
        self.paths.put(key, accepted)

    # --- deciding ---

    def _decide(self, signer: Certificate, anchors: Anchors) -> Path | Refusal:
        if not anchors:
            fault = RejectionError(Reason.UNTRUSTED, "the recipient has no trust anchor")
            return Refusal(fault, hints.NO_ANCHORS)
        search = self._search(signer)
        paths = search.paths(anchors.by_subject)
        if not paths:
            if signer not in self._led_nowhere:
                self._led_nowhere[signer] = self._no_path(search.topmost())
            return self._led_nowhere[signer]
        refusals: list[Refusal] = []
        for path in paths:
            if path not in self._outcomes:
                self._outcomes[path] = self._examine(path)
            outcome = self._outcomes[path]
            if path not in self._recorded:
                data = [data for f in outcome.findings for data in f.data]
                self._record(path, [f.answer for f in outcome.findings], data)
                if outcome.refusal is None:
                    self._accept(path, outcome.checks)
                else:
                    self._keep_some(path)
            if outcome.refusal is None:
                self._remember(path, anchors, outcome)
                return path
            refusals.append(outcome.refusal)
        told = min(refusals, key=lambda refusal: _rank(refusal.fault))
        self.evidence.failed("path", told.fault.detail)
        return told

    def _search(self, signer: Certificate) -> PathSearch:
        if signer not in self._searches:
            known = self._signature_checks
            self._searches[signer] = PathSearch(signer, self.untrusted, self.at, self._fetch_issuers, known)
        return self._searches[signer]

    def _record(self, path: Path, answers: Iterable[RevocationAnswer], data: Iterable[bytes]) -> None:
        """Put what the judgement of a path rests on into the evidence, once."""
        self._recorded.add(path)
        evidence = self.evidence
        evidence.revocation += [answer for answer in answers if answer not in evidence.revocation]
        evidence.revocation_data.update(dict.fromkeys(data))

    def _accept(self, path: Path, checks: Iterable[Check]) -> None:
        self.evidence.checks += checks
        self.evidence.certificates.update(dict.fromkeys(c.der for c in path))

    def _keep_some(self, trail: Path) -> None:
        """Keep the certificates of a way that proves nothing: those at hand, and fetched ones while there is room."""
        kept = self.evidence.certificates
        has_room = True
        for certificate in trail:
            if certificate in self._fetched and certificate not in self._at_hand and certificate.der not in kept:
                has_room = has_room and len(certificate.der) <= self._room
                if not has_room:
                    continue
                self._room -= len(certificate.der)
            kept.setdefault(certificate.der)

    def _no_path(self, trail: Path) -> Refusal:
        self._keep_some(trail)
        causes = "".join(f"; {note}" for note in dict.fromkeys(self.fetch_notes))
        fault = RejectionError(Reason.UNTRUSTED, f"no path leads from the signer to a trust anchor{causes}")
        return Refusal(fault, hints.missing_anchor(trail, may_fetch=self.issuer_session.enabled))

    def _fetch_issuers(self, certificate: Certificate) -> list[Certificate]:
        if not self.issuer_session.enabled:
            return []
        source = self.revocation.source
        found = fetch_issuers(certificate, self.issuer_session, self.fetch_notes, source.cache, self.at)
        self._fetched.update(dict.fromkeys(found))
        return found

    def _examine(self, path: Path) -> _Outcome:
        """Validate the path and judge the revocation of the whole of it (AS-55)."""
        try:
            validate_path(path, self.at, self._algorithms)
        except RejectionError as fault:
            return _Outcome(Refusal(fault, hints.of_path(path, fault, self.at, self._algorithms)))
        findings = tuple(self.revocation.check(path))
        refusal = self._refused_by(path, findings)
        checks = [Check("path", "passed", f"{len(path)} certificates to a trust anchor")]
        checks += [Check("revocation", "passed", self._told(f, path)) for f in findings if f.status == "good"]
        passed_by = "status unknown, passed by policy"
        checks += [
            Check("revocation", "noted", f"{passed_by}: {self._told(f, path)}")
            for f in findings
            if f.status == "unknown"
        ]
        return _Outcome(refusal, tuple(checks), findings)

    def _refused_by(self, path: Path, findings: Sequence[Finding]) -> Refusal | None:
        """A revoked certificate refuses always, one of unknown status where the policy is hard (AS-70)."""
        for finding in findings:
            if finding.status == "revoked":
                fault = RejectionError(Reason.REVOKED, f"{self._whose(finding, path)} was {finding.detail}")
                return Refusal(fault, hints.revoked(finding, path))
        for finding in findings:
            if finding.status != "good" and self.revocation.hard:
                cause = f"the revocation status is unknown ({self._told(finding, path)})"
                return Refusal(RejectionError(Reason.UNTRUSTED, cause), hints.unknown_status(finding, path))
        return None

    def _told(self, finding: Finding, path: Path) -> str:
        return f"{self._whose(finding, path)}: {finding.detail}"

    def _whose(self, finding: Finding, path: Path) -> str:
        if finding.certificate != path[0]:
            return "a certificate of the path"
        return "the signer's certificate" if self.direction is Direction.INBOUND else "the recipient's certificate"
