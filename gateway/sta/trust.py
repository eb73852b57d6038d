"""Trust, decided per recipient: whose anchors stand behind the signer (AS-56..58, AS-65..71).

One examination serves a whole message: recipients with the same anchors share one decision, and what was learned
about a path (its signatures, its revocation) is not asked twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from gateway.core.errors import RejectionError
from gateway.core.verdict import Reason, RecipientTrust
from gateway.sta.authority_access import fetch_issuers
from gateway.sta.certificates import Certificate
from gateway.sta.evidence import Evidence
from gateway.sta.fetcher import FetchSession
from gateway.sta.path_building import Path, build_paths
from gateway.sta.path_validation import validate_path
from gateway.sta.revocation import RevocationCheck

_MOST_SPECIFIC = (Reason.REVOKED, Reason.EXPIRED, Reason.KEY_USAGE, Reason.WEAK_ALGORITHM, Reason.UNTRUSTED)
"""Which fault is told when several apply: one on a path that does lead to an anchor says more than no path."""


def most_specific(faults: Sequence[RejectionError]) -> RejectionError:
    """The fault to tell; ``faults`` must not be empty."""
    return min(faults, key=lambda f: _MOST_SPECIFIC.index(f.reason) if f.reason in _MOST_SPECIFIC else -1)


@dataclass
class TrustExamination:
    """The trust decisions of one message."""

    at: datetime
    revocation: RevocationCheck
    untrusted: Sequence[Certificate]
    evidence: Evidence
    decisions: dict[tuple[str, tuple[str, ...]], Path | RejectionError] = field(default_factory=dict)
    fetch_notes: list[str] = field(default_factory=list)
    issuer_session: FetchSession = field(init=False)
    """A share of the fetch budget: fetching issuers must not use up what revocation needs."""

    def __post_init__(self) -> None:
        self.issuer_session = self.revocation.session.share()

    def decide(self, recipient: str, signers: Sequence[Certificate], anchors: Sequence[Certificate]) -> RecipientTrust:
        """Whether the recipient's anchors accept one of the signers; the first that they accept counts."""
        faults: list[RejectionError] = []
        for signer in signers:
            key = (signer.sha256, tuple(sorted(anchor.sha256 for anchor in anchors)))
            if key not in self.decisions:
                self.decisions[key] = self._decide(signer, anchors)
            decision = self.decisions[key]
            if not isinstance(decision, RejectionError):
                chain = tuple(c.sha256 for c in decision)
                return RecipientTrust(recipient, Reason.OK, "", chain[-1], chain)
            faults.append(decision)
        told = most_specific(faults)
        return RecipientTrust(recipient, told.reason, told.detail)

    def chain_of(self, signer: Certificate) -> Path:
        """An accepted path of the signer, or the empty one."""
        accepted = (
            path
            for (leaf, _), path in self.decisions.items()
            if leaf == signer.sha256 and not isinstance(path, RejectionError)
        )
        return next(accepted, ())

    def _decide(self, signer: Certificate, anchors: Sequence[Certificate]) -> Path | RejectionError:
        if not anchors:
            return RejectionError(Reason.UNTRUSTED, "the recipient has no trust anchor")
        paths = build_paths(signer, anchors, self.untrusted, self.at, self._fetch_issuers)
        if not paths:
            causes = "".join(f"; {note}" for note in dict.fromkeys(self.fetch_notes))
            return RejectionError(Reason.UNTRUSTED, f"no path leads from the signer to a trust anchor{causes}")
        faults: list[RejectionError] = []
        for path in paths:
            try:
                validate_path(path, self.at)
                self.evidence.passed("path", f"{len(path)} certificates to a trust anchor")
                self._check_revocation(path)
            except RejectionError as fault:
                faults.append(fault)
            else:
                return path
        told = most_specific(faults)
        self.evidence.failed("path", told.detail)
        return told

    def _fetch_issuers(self, certificate: Certificate) -> list[Certificate]:
        if not self.issuer_session.enabled:
            return []
        source = self.revocation.source
        return fetch_issuers(certificate, self.issuer_session, self.fetch_notes, source.cache, self.at)

    def _check_revocation(self, path: Path) -> None:
        """Judge the whole chain (AS-55).

        Raises:
            RejectionError: REVOKED, or UNTRUSTED for an unknown status under the hard policy.
        """
        unknown: list[str] = []
        for finding in self.revocation.check(path):
            whose = "the signer's certificate" if finding.certificate == path[0] else "a certificate of the path"
            if finding.status == "revoked":
                raise RejectionError(Reason.REVOKED, f"{whose} was {finding.detail}")
            if finding.status == "unknown":
                unknown.append(f"{whose}: {finding.detail}")
            else:
                self.evidence.passed("revocation", f"{whose}: {finding.detail}")
        if unknown and self.revocation.hard:
            raise RejectionError(Reason.UNTRUSTED, f"the revocation status is unknown ({unknown[0]})")
        for cause in unknown:
            self.evidence.noted("revocation", f"status unknown, passed by policy: {cause}")
