"""Every SignerInfo of a message, in any order (AS-50; S/MIME rules 6, 7 and 25).

One good signer is enough, and bad ones beside it are reported, not fatal: old and new certificates of a sender may
both sign. Signer certificates come from the message itself (AS-51), or are configured anchors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.core.errors import RejectionError
from gateway.core.verdict import Reason
from gateway.sta.certificates import Certificate
from gateway.sta.cms.signature import ContentDigests, SignatureFacts, verify_signer
from gateway.sta.cms.signed import SignedData, SignerInfo

MAX_CERTIFICATES_PER_SIGNER = 4
"""Several certificates may share one key identifier; each is tried, up to here."""


@dataclass(frozen=True, slots=True)
class Signature:
    """One SignerInfo with its outcome: ``facts`` when it verified, else ``fault``."""

    position: int
    """1 for the first SignerInfo."""
    certificate: Certificate | None
    facts: SignatureFacts | None
    fault: RejectionError | None


def examine_signers(
    signatures: SignedData, content: memoryview | bytes, certificates: Sequence[Certificate]
) -> list[Signature]:
    """Verify every SignerInfo over the content with the certificates that match it. Never raises."""
    digests = ContentDigests(content)
    return [
        _examine(position, signer, digests, signatures.econtent_type, certificates)
        for position, signer in enumerate(signatures.signers, 1)
    ]


def _examine(
    position: int, signer: SignerInfo, digests: ContentDigests, econtent_type: str, certificates: Sequence[Certificate]
) -> Signature:
    matching = [c for c in certificates if signer.matches(c.der)][:MAX_CERTIFICATES_PER_SIGNER]
    failed: Signature | None = None
    for certificate in matching:
        try:
            facts = verify_signer(signer, certificate.der, digests, econtent_type)
        except RejectionError as fault:
            failed = failed or Signature(position, certificate, None, fault)
        else:
            return Signature(position, certificate, facts, None)
    if failed is not None:
        return failed
    absent = RejectionError(Reason.BAD_SIGNATURE, "the signer's certificate is not in the message")
    return Signature(position, None, None, signer.defect or absent)
