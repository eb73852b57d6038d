"""Whether a recipient's certificate may be used by a sender: the other direction of trust (AS-12, AS-68, AS-72, AS-77).

The certificate must bind to the recipient by its subject alternative name, be meant for encryption, and lead to one of
the anchors that the sender trusts for sending, with nothing on the way revoked. An unknown revocation status is judged
by the rule for sending, which is apart from the one for receiving. The answer comes as a :class:`RecipientTrust`, the
same value as for receiving, with what it rests on in the evidence.

Failure modes: the reason and its detail in the answer. Only an address that is none raises (:class:`InputError`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from gateway.core.address import normalise, parse_address
from gateway.core.errors import RejectionError
from gateway.core.trust import Direction
from gateway.core.verdict import Reason, RecipientTrust
from gateway.sta.certificates import Certificate
from gateway.sta.evidence import Evidence
from gateway.sta.fetching.fetcher import Fetcher
from gateway.sta.identity import Mailbox, binding
from gateway.sta.paths.certificate_rules import check_encryption_leaf
from gateway.sta.paths.path_cache import PathCache
from gateway.sta.paths.path_validation import ChainAlgorithms
from gateway.sta.revocation.revocation import RevocationCheck, RevocationSource
from gateway.sta.trust import TrustExamination
from gateway.sta.trust_anchors.anchors import AnchorStore
from gateway.sta.trust_policy import TrustPolicy


@dataclass
class RecipientCertificates:
    """Judges certificates of recipients. ``judge`` must be called in a thread without a running event loop."""

    anchors: AnchorStore
    revocation: RevocationSource = field(default_factory=RevocationSource)
    fetcher: Fetcher = field(default_factory=Fetcher)
    policy: TrustPolicy = field(default_factory=TrustPolicy)
    paths: PathCache = field(default_factory=PathCache)

    def judge(
        self,
        certificate: Certificate,
        recipient: str,
        sender: str,
        at: datetime,
        *,
        others: Sequence[Certificate] = (),
        evidence: Evidence | None = None,
    ) -> RecipientTrust:
        """Whether the sender may encrypt to the certificate, as of the (aware) moment.

        ``others`` are certificates that were found with it: candidates for issuers, not trusted.

        Raises:
            InputError: recipient or sender is not a Direct address.
        """
        mailbox = Mailbox(recipient, parse_address(recipient))
        owner = normalise(sender)
        kept = evidence if evidence is not None else Evidence(policy_version=self.policy.version)
        try:
            self._check_fitness(certificate, mailbox, kept)
        except RejectionError as fault:
            return RecipientTrust(mailbox.normalised, fault.reason, fault.detail)
        check = RevocationCheck(
            self.revocation,
            self.fetcher.session(),
            at,
            hard=Direction.OUTBOUND in self.policy.hard_revocation,
            own_certificates=others,
            algorithms=ChainAlgorithms(self.policy.algorithms),
        )
        examination = TrustExamination(at, check, others, kept, self.policy, Direction.OUTBOUND, self.paths)
        trusted = self.anchors.anchors_for(owner, Direction.OUTBOUND)
        return examination.decide(mailbox.normalised, [certificate], trusted)

    def _check_fitness(self, certificate: Certificate, recipient: Mailbox, evidence: Evidence) -> None:
        if binding(certificate, recipient) is None:
            raise RejectionError(Reason.BINDING_MISMATCH, "the certificate is not that of the recipient")
        evidence.passed("binding", "the recipient's certificate")
        check_encryption_leaf(certificate, self.policy.algorithms)
        evidence.passed("key usage", "the recipient's certificate")
