"""What an operator can do about a refused message: which key, which anchor, which certificate, which list.

A hint names authorities, dates and digests. It names no person and nothing of the message: a correspondent's
certificate is called just that, because its subject is somebody's name.
"""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise

from asn1crypto import x509 as asn1_x509
from pyhanko_certvalidator.policy_decl import AlgorithmUsagePolicy

from gateway.core.errors import RejectionError
from gateway.core.verdict import Reason
from gateway.sta.certificates import Certificate, display_name
from gateway.sta.cms.identifiers import CertificateIdentifier, IssuerAndSerial
from gateway.sta.cms.wanted_recipients import wanted_recipients
from gateway.sta.fetching.authority_access import access_urls
from gateway.sta.mime.mime_entity import Entity, decode_body
from gateway.sta.paths.path_building import Path
from gateway.sta.revocation.findings import Finding

MAX_NAME_CHARS = 200
MAX_NAMED_RECIPIENTS = 4
_RENEW = "Its authority must renew it."
NO_ANCHORS = (
    "The recipient has no trust anchors. Put the certificates of the authorities that you trust into the folder of "
    "anchors, or add a trust bundle."
)


def missing_key(encrypted: Entity) -> str:
    """For a message that no key opens: the certificates that it was encrypted to."""
    try:
        der = decode_body(encrypted, what="the CMS body")
        wanted = wanted_recipients(der, MAX_NAMED_RECIPIENTS + 1)
    except RejectionError:
        return ""
    if not wanted:
        return ""
    named = "; ".join(_recipient(one) for one in wanted[:MAX_NAMED_RECIPIENTS])
    more = " and others" if len(wanted) > MAX_NAMED_RECIPIENTS else ""
    return (
        f"It is encrypted to the certificate with {named}{more}. Add the private key of one of them; or the sender "
        f"uses an old certificate of yours and must look up the new one."
    )


def _recipient(identifier: CertificateIdentifier) -> str:
    if isinstance(identifier, IssuerAndSerial):
        try:
            issuer = display_name(asn1_x509.Name.load(identifier.issuer, strict=True))
        except (ValueError, TypeError):
            issuer = "an authority without a readable name"
        return f"serial {identifier.serial:x} of {_shown(issuer)}"
    return _shown(str(identifier))


def missing_anchor(trail: Path, *, may_fetch: bool) -> str:
    """For a certificate from which no path leads to an anchor; ``trail`` is the way up as far as it leads."""
    top = trail[-1]
    if top.subject_key == top.issuer_key:
        whole = f"The chain ends at {_named(top, trail)}, which is not an anchor of the recipient. "
        return whole + "If you trust it, add it as an anchor or ask for a trust bundle that holds it."
    wanted = _shown(top.as_signer("").issuer)
    text = (
        f"The chain leads up to {_named(top, trail)}, issued by {wanted}, which is neither in the message nor an "
        f"anchor of the recipient. If you trust it, add the anchor {wanted} or ask for a trust bundle that holds it."
    )
    if access_urls(top, "ca_issuers") and not may_fetch:
        text += " The certificate says where that issuer can be fetched, but fetching is off."
    return text


def of_path(path: Path, fault: RejectionError, at: datetime, algorithms: AlgorithmUsagePolicy) -> str:
    """For a path that leads to an anchor and does not hold."""
    if fault.reason is Reason.EXPIRED:
        for certificate in reversed(path):
            if not certificate.is_valid_at(at):
                return _dates(certificate, path, at)
    if fault.reason is Reason.WEAK_ALGORITHM:
        for certificate, issuer in pairwise(path):
            if not _is_allowed(certificate, issuer, algorithms):
                return f"{_begun(certificate, path)} carries the signature that is not allowed. {_RENEW}"
    return ""


def revoked(finding: Finding, path: Path) -> str:
    """For a certificate that was revoked: when, and by which list or answer."""
    answer = finding.answer
    kind = {"crl": "revocation list", "ocsp": "OCSP answer"}.get(answer.kind, "revocation data")
    when = f" since {answer.revoked_at}" if answer.revoked_at else ""
    dated = f" of {answer.this_update}" if answer.this_update else ""
    origin = f" ({_shown(answer.origin)})" if answer.origin else ""
    by = _shown(finding.certificate.as_signer("").issuer)
    return f"{_begun(finding.certificate, path)} is revoked{when}, by the {kind}{dated} of {by}{origin}."


def unknown_status(finding: Finding, path: Path) -> str:
    """For a certificate whose status could not be learned, where that refuses."""
    by = _shown(finding.certificate.as_signer("").issuer)
    return (
        f"{_begun(finding.certificate, path)} has an unknown revocation status. Put the current revocation list of "
        f"{by} into the folder of lists, or let it be fetched."
    )


def _dates(certificate: Certificate, path: Path, at: datetime) -> str:
    what = _begun(certificate, path)
    if at < certificate.not_before:
        return f"{what} is not valid before {certificate.not_before.isoformat()}."
    told = f"{what} has been out of date since {certificate.not_after.isoformat()}. "
    if certificate == path[-1] and len(path) > 1:
        return told + "Replace the anchor by its successor, if you trust that."
    return told + ("The sender must renew it." if certificate == path[0] else _RENEW)


def _is_allowed(certificate: Certificate, issuer: Certificate, algorithms: AlgorithmUsagePolicy) -> bool:
    try:
        algorithm = certificate.asn1["signature_algorithm"]
        return bool(algorithms.signature_algorithm_allowed(algorithm, None, issuer.asn1.public_key))
    except Exception:  # noqa: BLE001 - asn1crypto raises many types; what cannot be read is not allowed
        return False


def _named(certificate: Certificate, path: Path) -> str:
    digest = f"SHA-256 {certificate.sha256[:16]}"
    if certificate == path[0]:
        return f"the correspondent's certificate ({digest})"
    return f"{_shown(certificate.as_signer('').subject)} ({digest})"


def _begun(certificate: Certificate, path: Path) -> str:
    text = _named(certificate, path)
    return text[0].upper() + text[1:] if certificate == path[0] else text


def _shown(name: str) -> str:
    """A name out of a stranger's certificate, fit to be shown on a terminal and in a page."""
    return "".join(c for c in name if c.isprintable())[:MAX_NAME_CHARS] or "an authority without a name"
