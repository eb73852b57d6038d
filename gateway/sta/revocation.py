"""Whether the certificates of a path have been revoked: CRLs and OCSP (AS-55, AS-66..71; S/MIME rules 17 and 18).

Sources, in this order: the operator's CRL files, the message's own CRLs, and, within the allowed address ranges
only, what the certificate's distribution points and OCSP responder offer. A complete CRL signed by the issuer
itself is read here (a set of serial numbers, whatever its size); everything else (indirect, partitioned and delta
CRLs, CRLs with their own issuer, OCSP) is judged by pyhanko-certvalidator on the fixed path.

What is evidence: only data whose signature verifies. ``revoked`` needs an entry dated at or before the moment
judged; a CRL past its nextUpdate still proves that (except a hold), because a revocation is final, and so does one
of an issuer without the cRLSign bit, whose key it is all the same. ``good`` needs data in force at the moment that
is signed as RFC 5280 asks. All else is ``unknown``, with its cause, and policy decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from asn1crypto import ocsp as asn1_ocsp
from pyhanko_certvalidator.errors import (
    CRLNoMatchesError,
    CRLValidationError,
    OCSPNoMatchesError,
    OCSPValidationError,
    RevokedError,
)
from pyhanko_certvalidator.path import ValidationPath
from pyhanko_certvalidator.policy_decl import (
    REQUIRE_REVINFO,
    AlgorithmUsagePolicy,
    RevocationCheckingPolicy,
)
from pyhanko_certvalidator.revinfo.validate_crl import verify_crl
from pyhanko_certvalidator.revinfo.validate_ocsp import verify_ocsp_response

from gateway.core.errors import InputError
from gateway.sta.authority_access import MAX_URLS, ReplyCache, access_urls, distribution_points, ocsp_request
from gateway.sta.certificates import Certificate
from gateway.sta.crls import RevocationList, crl_ders, load_crls
from gateway.sta.fetcher import FetchError, FetchSession
from gateway.sta.path_building import Path
from gateway.sta.path_validation import DIRECT_ALGORITHMS, context, fixed_path

__all__ = ["Finding", "RevocationCheck", "RevocationSource", "load_crls"]

MAX_PARTIAL_CRL_BYTES = 1024 * 1024
"""A CRL that is not complete is walked entry by entry; beyond this size that is refused as evidence."""
MAX_PARTIAL_CRLS = 16
MAX_CRL_ISSUERS = 8
_SOFT = RevocationCheckingPolicy.from_legacy("soft-fail")


@dataclass(frozen=True, slots=True)
class Finding:
    """The status of one certificate: ``good``, ``revoked`` or ``unknown``, with the cause."""

    certificate: Certificate
    status: str
    detail: str


class RevocationSource:
    """Where revocation data comes from: the operator's CRLs, and a cache of what was fetched."""

    def __init__(self, crls: Iterable[RevocationList] = ()) -> None:
        self._by_issuer: dict[str, list[RevocationList]] = {}
        self._partial: list[RevocationList] = []
        for one in crls:
            self._by_issuer.setdefault(one.issuer_key, []).append(one)
            if not one.is_complete:
                self._partial.append(one)
        self.cache = ReplyCache()

    def by_issuer(self, issuer_key: str) -> list[RevocationList]:
        """The operator's CRLs of that issuer."""
        return self._by_issuer.get(issuer_key, [])

    def others(self) -> list[RevocationList]:
        """The operator's CRLs that are not complete: any of them may concern any issuer's certificates."""
        return self._partial


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
                self.known[key] = self._status(path, index)
            findings.append(self.known[key])
            if findings[-1].status == "revoked":
                break
        return findings

    def _status(self, path: Path, index: int) -> Finding:
        certificate, issuer = path[index], path[index + 1]
        crls = [*self.source.by_issuer(certificate.issuer_key)]
        crls += [c for c in self.own_crls if c.issuer_key == certificate.issuer_key]
        finding = self._from_complete(certificate, issuer, crls)
        if finding.status != "unknown":
            return finding
        partial = self._from_library(path[index:], crls, [])
        if partial.status != "unknown":
            return partial
        causes = [finding.detail, partial.detail]
        if self.session.enabled:
            fetched = self._fetched(path, index)
            if fetched.status != "unknown":
                return fetched
            causes.append(fetched.detail)
        return Finding(certificate, "unknown", "; ".join(dict.fromkeys(filter(None, causes))) or "no revocation data")

    def _fetched(self, path: Path, index: int) -> Finding:
        """Ask the certificate's own distribution points, then its OCSP responder."""
        certificate, issuer = path[index], path[index + 1]
        crls, causes = self._fetch_crls(certificate, issuer)
        finding = self._from_complete(certificate, issuer, crls)
        if finding.status == "unknown" and crls:
            finding = self._from_library(path[index:], crls, [])
        if finding.status == "unknown":
            replies, more = self._fetch_ocsp(certificate, issuer)
            causes += more
            if replies:
                finding = self._from_library(path[index:], [], replies)
        if finding.status != "unknown":
            return finding
        return Finding(certificate, "unknown", "; ".join(dict.fromkeys([*causes, finding.detail])))

    def _from_complete(self, certificate: Certificate, issuer: Certificate, crls: Sequence[RevocationList]) -> Finding:
        """Decide by complete CRLs of the issuer itself; the newest one in force outweighs older ones."""
        usable = [c for c in crls if c.is_complete and c.is_signed_by(issuer)]
        usable.sort(key=lambda c: c.this_update, reverse=True)
        in_force = next((c for c in usable if c.is_in_force(self.at)), None)
        for one in [in_force] if in_force else usable:
            entry = one.entry(certificate.serial)
            if entry is None or entry[1] == "removeFromCRL":
                if one is in_force and one.may_clear(issuer, self.algorithms):
                    return Finding(certificate, "good", f"not on the CRL of {one.this_update:%Y-%m-%d}")
                continue
            revoked_at, reason = entry
            if revoked_at > self.at:
                return Finding(certificate, "good", f"revoked only later, on {revoked_at:%Y-%m-%d}")
            if one is in_force or reason != "certificateHold":
                return Finding(certificate, "revoked", f"revoked on {revoked_at:%Y-%m-%d} ({reason})")
        if in_force is not None:
            return Finding(certificate, "unknown", "the CRL is not signed as a CRL must be")
        if usable:
            return Finding(certificate, "unknown", "the CRL is not in force at this time")
        if any(c.is_complete for c in crls):
            return Finding(certificate, "unknown", "a CRL at hand is not signed by the certificate's issuer")
        return Finding(certificate, "unknown", "no CRL at hand")

    def _from_library(self, path: Path, crls: Sequence[RevocationList], ocsps: list[Any]) -> Finding:
        """Decide by the whole of RFC 5280 6.3 and RFC 6960 with small CRLs and OCSP replies."""
        certificate = path[0]
        # A CRL may have an issuer of its own, whose certificate is judged by further CRLs: of anybody near the path.
        names = dict.fromkeys(c.issuer_key for c in (*path, *self.own_certificates))
        near = [c for name in names for c in self.source.by_issuer(name)]
        small = list(dict.fromkeys([*crls, *self.own_crls, *near, *self.source.others()]))
        usable = [c.asn1 for c in small if len(c.der) <= MAX_PARTIAL_CRL_BYTES][:MAX_PARTIAL_CRLS]
        if not usable and not ocsps:
            return Finding(certificate, "unknown", "")
        issuers = [c for c in self.own_certificates if c not in path][:MAX_CRL_ISSUERS]
        rule = REQUIRE_REVINFO if self.hard else _SOFT
        try:
            verdict = asyncio.run(self._ask(path, usable, ocsps, issuers, rule))
        except RevokedError as exc:
            return Finding(certificate, "revoked", f"revoked on {exc.revocation_dt:%Y-%m-%d} ({exc.reason.native})")
        except (CRLNoMatchesError, OCSPNoMatchesError):
            return Finding(certificate, "unknown", "no CRL at hand concerns the certificate")
        except (CRLValidationError, OCSPValidationError):
            return Finding(certificate, "unknown", "the revocation data cannot be verified or is not in force")
        except Exception as exc:  # noqa: BLE001 - the library raises many types on hostile data
            return Finding(certificate, "unknown", f"the revocation data cannot be read ({type(exc).__name__})")
        return Finding(certificate, "good", verdict)

    async def _ask(
        self, path: Path, crls: list[Any], ocsps: list[Any], issuers: list[Certificate], rule: RevocationCheckingPolicy
    ) -> str:
        validation = context(path, self.at, self.algorithms, crls=crls, ocsps=ocsps, others=issuers, revocation=rule)
        whole = fixed_path(path)
        # What stands above the certificate was judged before it, so a CRL signed there needs no second judgement.
        prefix = ValidationPath(whole.trust_anchor, [], None)
        validation.record_validation(path[-1].asn1, prefix)  # type: ignore[no-untyped-call]
        for certificate in reversed(path[1:-1]):
            prefix = prefix.copy_and_append(certificate.asn1)
            validation.record_validation(certificate.asn1, prefix)  # type: ignore[no-untyped-call]
        if ocsps:
            await verify_ocsp_response(path[0].asn1, whole, validation)
            return "OCSP says good"
        await verify_crl(path[0].asn1, whole, validation)
        return "not on the CRL"

    def _fetch_crls(self, certificate: Certificate, issuer: Certificate) -> tuple[list[RevocationList], list[str]]:
        found: list[RevocationList] = []
        causes: list[str] = []
        for url in distribution_points(certificate)[:MAX_URLS]:
            cached = self.source.cache.get((url, b""), self.at)
            if cached is not None:
                found.append(cached)
                continue
            try:
                body = self.session.get(url)
                one = next(iter([RevocationList(der) for der in crl_ders(body)]), None)
            except FetchError as exc:
                causes.append(f"the CRL was not fetched: {exc}")
                continue
            except (InputError, ValueError):
                causes.append("what was fetched is not a CRL")
                continue
            if one is None:
                causes.append("what was fetched is not a CRL")
                continue
            # A forgery put in its place on the way would else hide the real list until a nextUpdate of its own.
            if one.next_update is not None and one.is_signed_by(issuer):
                self.source.cache.put((url, b""), one.next_update, one)
            found.append(one)
        return found, causes

    def _fetch_ocsp(self, certificate: Certificate, issuer: Certificate) -> tuple[list[Any], list[str]]:
        urls = access_urls(certificate, "ocsp")[:1]
        if not urls:
            return [], []
        try:
            request = ocsp_request(certificate, issuer)
            reply = self.source.cache.get((urls[0], request), self.at)
            if reply is None:
                reply = asn1_ocsp.OCSPResponse.load(
                    self.session.post(urls[0], request, "application/ocsp-request"), strict=True
                )
                until = reply.basic_ocsp_response["tbs_response_data"]["responses"][0]["next_update"].native
                if until is not None:
                    self.source.cache.put((urls[0], request), until.astimezone(UTC), reply)
        except FetchError as exc:
            return [], [f"OCSP was not asked: {exc}"]
        except Exception as exc:  # noqa: BLE001 - an OCSP reply is hostile input
            return [], [f"the OCSP reply cannot be read ({type(exc).__name__})"]
        return [reply], []
