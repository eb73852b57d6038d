"""What was learned of the revocation of one certificate: the value that revocation checks hand to trust decisions.

A finding carries what the evidence keeps for ever (the answer and the very bytes it rests on) and how long it may be
relied on without asking again. It is a value; it judges nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from gateway.core.verdict import RevocationAnswer
from gateway.sta.certificates import Certificate

__all__ = ["Finding", "Proof", "finding", "unknown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The status of one certificate: ``good``, ``revoked`` or ``unknown``, with the cause and what it rests on."""

    certificate: Certificate
    status: str
    detail: str
    answer: RevocationAnswer
    data: tuple[bytes, ...] = ()
    """DER of the CRLs or of the OCSP response that were used; ``answer.data_sha256`` is of the first. Empty when the
    status is unknown."""
    valid_until: datetime | None = None
    """Until when the status may be relied on without asking again, counted from the moment judged: the nextUpdate of
    the data, or the date of a revocation that lies after the moment. None for unknown: ask again next time."""


@dataclass(frozen=True, slots=True)
class Proof:
    """One piece of revocation data that answered: a CRL or an OCSP response."""

    kind: str
    """``crl`` or ``ocsp``."""
    origin: str
    """``operator``, ``message`` or the URL."""
    der: bytes
    sha256: str
    """Of ``der``; computed once with a list, which may have ten million bytes and concern every message."""
    this_update: datetime
    next_update: datetime | None


def finding(
    certificate: Certificate,
    status: str,
    detail: str,
    proofs: Sequence[Proof],
    *,
    revoked_at: datetime | None = None,
    valid_until: datetime | None = None,
) -> Finding:
    """A finding that rests on data; the first proof is the one that decided, the others helped it to."""
    first = proofs[0]
    answer = RevocationAnswer(
        certificate.sha256,
        status,
        detail,
        first.kind,
        first.origin,
        first.this_update.isoformat(),
        first.next_update.isoformat() if first.next_update else "",
        revoked_at.isoformat() if revoked_at else "",
        first.sha256,
    )
    return Finding(
        certificate, status, detail, answer, tuple(dict.fromkeys(proof.der for proof in proofs)), valid_until
    )


def unknown(certificate: Certificate, detail: str) -> Finding:
    """A finding that nothing is known, and why."""
    return Finding(certificate, "unknown", detail, RevocationAnswer(certificate.sha256, "unknown", detail))
