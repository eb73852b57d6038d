"""Revocation lists that speak of a certificate in roundabout ways, judged by the library (RFC 5280 6.3.3).

Lists with an issuer of their own, lists of some reasons only, names relative to the issuer's: pyhanko-certvalidator
decides on the fixed path. It walks entries in Python, so the number and the size of the lists are bounded.

Guarantees: the finding names the lists that the library found in scope, signed and in force, with all delta lists that
went with them. Whatever it raises on hostile data is ``unknown``.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from asn1crypto import crl as asn1_crl
from cryptography.exceptions import InvalidSignature
from pyhanko_certvalidator.errors import CRLNoMatchesError, CRLValidationError, RevokedError
from pyhanko_certvalidator.ltv.types import ValidationTimingParams
from pyhanko_certvalidator.path import ValidationPath
from pyhanko_certvalidator.policy_decl import (
    REQUIRE_REVINFO,
    AlgorithmUsagePolicy,
    CertRevTrustPolicy,
    RevocationCheckingPolicy,
)
from pyhanko_certvalidator.revinfo.archival import CRLContainer, RevinfoUsability, RevinfoUsabilityRating
from pyhanko_certvalidator.revinfo.validate_crl import verify_crl
from pyhanko_certvalidator.sig_validate import (
    DEFAULT_VALIDATION_CONTEXT,
    DefaultSignatureValidator,
    SignatureValidationContext,
)

from gateway.sta.certificates import Certificate
from gateway.sta.paths.path_validation import context, fixed_path
from gateway.sta.revocation.crls import CERTIFICATE_ISSUER, MESSAGE, RevocationList
from gateway.sta.revocation.findings import Finding, finding, unknown
from gateway.sta.revocation.list_status import Question

MAX_LIST_BYTES = 1024 * 1024
"""A larger list is refused as evidence here."""
MAX_LISTS = 16
MAX_PARSED_BYTES = 1024 * 1024
"""Of the lists that each thread keeps parsed; parsed they are many times as large."""
MAX_LIST_ISSUERS = 8
_SOFT = RevocationCheckingPolicy.from_legacy("soft-fail")


class _ParsedHere(threading.local):
    """The structures of the lists that the thread judged last: the library walks them, and parses them as it goes.

    Each thread has its own, because a second one would find them half parsed.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[int, asn1_crl.CertificateList]] = OrderedDict()

    def structure(self, one: RevocationList) -> asn1_crl.CertificateList:
        """The list for the library."""
        known = self._known.pop(one.sha256, None)
        found = known[1] if known is not None else asn1_crl.CertificateList.load(one.der, strict=True)
        self._known[one.sha256] = (len(one.der), found)
        while len(self._known) > 1 and sum(size for size, _ in self._known.values()) > MAX_PARSED_BYTES:
            self._known.popitem(last=False)
        return found


_parsed_here = _ParsedHere()


@dataclass(frozen=True)
class _Watched(CRLContainer):
    """A list that remembers that the library relied on it.

    It asks for the dates of a list after it has found the list's issuer, signature and scope in order, and before it
    looks for the certificate.
    """

    source: RevocationList | None = None
    used: list[RevocationList] = field(default_factory=list, compare=False)

    def usable_at(self, policy: CertRevTrustPolicy, timing_params: ValidationTimingParams) -> RevinfoUsability:
        usability = super().usable_at(policy, timing_params)
        if usability.rating is RevinfoUsabilityRating.OK and self.source is not None:
            self.used.append(self.source)
        return usability


class _AllowedSignatures(DefaultSignatureValidator):
    """Checks signatures by the algorithm policy as well, which the library does not ask about lists (AS-32, AS-38)."""

    def __init__(self, algorithms: AlgorithmUsagePolicy) -> None:
        self._algorithms = algorithms

    def validate_signature(
        self,
        signature: bytes,
        signed_data: bytes,
        public_key_info: Any,
        signature_algorithm: Any,
        context: SignatureValidationContext = DEFAULT_VALIDATION_CONTEXT,
    ) -> None:
        if not self._algorithms.signature_algorithm_allowed(signature_algorithm, None, public_key_info):
            raise InvalidSignature
        super().validate_signature(signature, signed_data, public_key_info, signature_algorithm, context)


def judge_indirect(
    question: Question, lists: Sequence[RevocationList], others: Sequence[Certificate], *, hard: bool
) -> Finding:
    """The status by these lists, whose issuers may be among ``others``."""
    certificate = question.certificate
    small = [c for c in dict.fromkeys(lists) if len(c.der) <= MAX_LIST_BYTES and _is_understood(c)]
    usable = [c for c in small if not c.is_delta or _has_base(c, small, question.at)][:MAX_LISTS]
    if not usable:
        return unknown(certificate, "")
    used: list[RevocationList] = []
    watched = [_Watched(_parsed_here.structure(c), c, used) for c in usable]
    issuers = [c for c in others if c not in question.path][:MAX_LIST_ISSUERS]
    try:
        asyncio.run(_ask(question, watched, issuers, REQUIRE_REVINFO if hard else _SOFT))
    except RevokedError as exc:
        revoked_at = exc.revocation_dt.astimezone(UTC)
        detail = f"revoked on {revoked_at:%Y-%m-%d} ({exc.reason.native})"
        proofs = _ordered(used, certificate, revoked=True)
        if not proofs:
            return unknown(certificate, "the revocation data cannot be attributed")
        until = proofs[0].next_update
        return finding(
            certificate, "revoked", detail, [c.proof for c in proofs], revoked_at=revoked_at, valid_until=until
        )
    except CRLNoMatchesError:
        return unknown(certificate, "no CRL at hand concerns the certificate")
    except CRLValidationError:
        return unknown(certificate, "the revocation data cannot be verified or is not in force")
    except Exception as exc:  # noqa: BLE001 - the library raises many types on hostile data
        return unknown(certificate, f"the revocation data cannot be read ({type(exc).__name__})")
    proofs = _ordered(used, certificate, revoked=False)
    if not proofs:
        return unknown(certificate, "the revocation data cannot be attributed")
    entries = [one.entry(certificate.serial) for one in proofs]
    ends = [entry[0] for entry in entries if entry is not None and entry[0] > question.at]
    ends += [one.next_update for one in proofs if one.next_update is not None]
    until = None if not ends or any(one.origin == MESSAGE for one in proofs) else min(ends)
    return finding(certificate, "good", "not on the CRL", [c.proof for c in proofs], valid_until=until)


async def _ask(
    question: Question, lists: list[_Watched], issuers: list[Certificate], rule: RevocationCheckingPolicy
) -> None:
    path = question.path
    # The library takes an entry dated exactly at the moment for one of later; here it counts.
    at = question.at + timedelta(microseconds=1)
    crls: list[Any] = list(lists)
    validation = context(path, at, question.algorithms, crls=crls, others=issuers, revocation=rule)
    validation.sig_validator = _AllowedSignatures(question.algorithms)
    whole = fixed_path(path)
    # What stands above the certificate was judged before it, so a CRL signed there needs no second judgement.
    prefix = ValidationPath(whole.trust_anchor, [], None)
    validation.record_validation(path[-1].asn1, prefix)  # type: ignore[no-untyped-call]
    for certificate in reversed(path[1:-1]):
        prefix = prefix.copy_and_append(certificate.asn1)
        validation.record_validation(certificate.asn1, prefix)  # type: ignore[no-untyped-call]
    await verify_crl(path[0].asn1, whole, validation)


def _is_understood(one: RevocationList) -> bool:
    """Whether it says how long it counts, for which the library would put a guess, and all its entries can be read.

    The library looks at the entries of the certificate alone (RFC 5280 5.3).
    """
    return (
        one.next_update is not None and one.unknown_entries is not None and one.unknown_entries <= {CERTIFICATE_ISSUER}
    )


def _has_base(delta: RevocationList, lists: Sequence[RevocationList], at: datetime) -> bool:
    """Whether the delta list is in force and goes with one of the lists; the library compares no numbers."""
    if not delta.is_in_force(at) or delta.base_number is None or delta.number is None:
        return False
    bases = [c for c in lists if not c.is_delta and c.issuer_key == delta.issuer_key and c.scope_der == delta.scope_der]
    return any(c.number is not None and delta.base_number <= c.number for c in bases)


def _ordered(used: Sequence[RevocationList], certificate: Certificate, *, revoked: bool) -> list[RevocationList]:
    """The lists relied on, the deciding one first: for a revocation the last one that names the certificate."""
    latest = list(dict.fromkeys(reversed(used)))
    if revoked:
        latest.sort(key=lambda one: one.entry(certificate.serial) is None)
    return latest
