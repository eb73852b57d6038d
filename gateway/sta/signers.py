"""Every SignerInfo of a message, in any order (AS-50; S/MIME rules 6, 7 and 25).

One good signer is enough, and bad ones beside it are reported, not fatal: old and new certificates of a sender may
both sign. Signer certificates come from the message itself (AS-51), or are configured anchors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from gateway.core.errors import RejectionError
from gateway.core.verdict import Reason
from gateway.sta.algorithm_policy import DEFAULT_POLICY, AlgorithmPolicy
from gateway.sta.certificates import Certificate
from gateway.sta.cms.identifiers import IssuerAndSerial
from gateway.sta.cms.signature import ContentDigests, SignatureFacts, verify_signer
from gateway.sta.cms.signed import SignedData
from gateway.sta.cms.signer_info import SignerInfo

MAX_CERTIFICATES_PER_SIGNER = 8
"""Several certificates may share one key identifier; each is tried, up to here."""


class Signature(NamedTuple):
    """One SignerInfo with one certificate and the outcome: ``facts`` when it verified, else ``fault``."""

    position: int
    """1 for the first SignerInfo."""
    certificate: Certificate | None
    facts: SignatureFacts | None
    fault: RejectionError | None


def examine_signers(
    signatures: SignedData,
    content: memoryview | bytes,
    certificates: Sequence[Certificate],
    policy: AlgorithmPolicy = DEFAULT_POLICY,
    *,
    others: Sequence[Certificate] = (),
) -> list[Signature]:
    """Verify every SignerInfo over the content with the certificates that match it. Never raises.

    A renewed certificate often keeps its key, and with it the identifier: a SignerInfo that several certificates
    verify is returned once with each, because only what comes after can tell which of them is in date and trusted.
    ``others`` (there may be thousands) are looked at for a signer that none of the certificates verifies.
    """
    digests = ContentDigests(content)
    found: list[Signature] = []
    for position, signer in enumerate(signatures.signers, 1):
        matching = _matching(signer, certificates, others)
        found += _examine(position, signer, digests, signatures.econtent_type, matching, policy)
    return found


def _matching(
    signer: SignerInfo, certificates: Sequence[Certificate], others: Sequence[Certificate]
) -> Iterator[Certificate | None]:
    """The certificates that the signer names; None stands between those at hand and the others."""
    for certificate in certificates:
        if signer.matches(certificate.der):
            yield certificate
    yield None
    named = signer.identifier
    serial = named.serial if isinstance(named, IssuerAndSerial) else None
    for certificate in others:
        # The serial number is at hand; with it nearly all of them are passed over without being read.
        if serial in (None, certificate.serial) and certificate not in certificates and signer.matches(certificate.der):
            yield certificate


def _examine(  # noqa: PLR0917 - all of them are one step of one examination
    position: int,
    signer: SignerInfo,
    digests: ContentDigests,
    econtent_type: str,
    matching: Iterator[Certificate | None],
    policy: AlgorithmPolicy,
) -> list[Signature]:
    verified: list[Signature] = []
    failed: Signature | None = None
    for certificate in islice(matching, MAX_CERTIFICATES_PER_SIGNER + 1):
        if certificate is None:
            if verified:
                break
            continue
        try:
            facts = verify_signer(signer, certificate.der, digests, econtent_type, policy)
        except RejectionError as fault:
            # A traceback would keep the whole content in memory as long as the fault.
            failed = failed or Signature(position, certificate, None, fault.with_traceback(None))
        else:
            verified.append(Signature(position, certificate, facts, None))
    if verified:
        return verified
    if failed is not None:
        return [failed]
    absent = RejectionError(Reason.BAD_SIGNATURE, "the signer's certificate is not in the message")
    return [Signature(position, None, None, signer.defect or absent)]
