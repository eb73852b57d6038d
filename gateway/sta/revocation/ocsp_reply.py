"""Asks OCSP and verifies the answers (RFC 6960, RFC 5019; AS-71; S/MIME rule 18).

An answer is hostile until all of this holds: it is a successful basic response; one of its entries names exactly this
certificate (hash of the issuer's name, hash of its key, serial number); the issuer signed it, or a responder whose
certificate that same issuer made for signing OCSP, valid at the moment and valid as RFC 5280 asks; the algorithm is
allowed; nothing critical in it is unknown; and it is fresh at the moment. A final revocation dated at or before the
moment counts whatever the age of the answer, as it does in a list. Whether a responder without id-pkix-ocsp-nocheck
has itself been revoked is for the caller to ask.

Failure modes: :class:`OCSPError` with a short cause, nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from asn1crypto import ocsp as asn1_ocsp
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from gateway.core.errors import RejectionError
from gateway.sta.certificates import Certificate, parse_many, signed_by
from gateway.sta.paths.path_validation import validate_path
from gateway.sta.revocation.data_signatures import is_signed, working_public_key
from gateway.sta.revocation.findings import Finding, Proof, finding
from gateway.sta.revocation.list_status import MAX_CLOCK_SKEW, Question

MAX_REPLY_BYTES = 256 * 1024
MAX_ENTRIES = 64
MAX_RESPONDERS = 8
MAX_AGE_WITHOUT_NEXT_UPDATE = timedelta(hours=1)
"""An answer without nextUpdate says that there is always newer information; it counts when it is as young as this."""
KEEP_WITHOUT_NEXT_UPDATE = timedelta(minutes=5)
_UNDERSTOOD = frozenset({"1.3.6.1.5.5.7.48.1.2", "1.3.6.1.5.5.7.48.1.9"})
_OCSP_SIGNING = "1.3.6.1.5.5.7.3.9"
_DIGESTS = {"sha1": hashlib.sha1, "sha256": hashlib.sha256, "sha384": hashlib.sha384, "sha512": hashlib.sha512}


class OCSPError(Exception):
    """The answer proves nothing; the text says why."""


@dataclass(frozen=True, slots=True)
class OCSPAnswer:
    """A verified answer. ``responder`` is set when its certificate has to be checked for revocation."""

    der: bytes
    is_revoked: bool
    reason: str
    revoked_at: datetime | None
    this_update: datetime
    next_update: datetime | None
    signer: Certificate
    responder: Certificate | None

    @property
    def keep_until(self) -> datetime:
        """Until when it may be kept for others."""
        return self.next_update or self.this_update + KEEP_WITHOUT_NEXT_UPDATE

    def require_fresh(self, at: datetime) -> None:
        """Check the dates as of the moment (RFC 6960 3.2, items 5 and 6).

        Raises:
            OCSPError: not fresh. A final revocation needs no freshness.
        """
        if self.revoked_at is not None and self.revoked_at <= at and self.reason != "certificateHold":
            return
        if self.this_update > at + MAX_CLOCK_SKEW:
            raise OCSPError("the OCSP answer is from the future")
        if self.next_update is None:
            if at > self.this_update + MAX_AGE_WITHOUT_NEXT_UPDATE:
                raise OCSPError("the OCSP answer has no nextUpdate and is too old")
        elif not self.this_update <= self.next_update or at > self.next_update:
            raise OCSPError("the OCSP answer is out of date")
        if not self.signer.is_valid_at(at.replace(microsecond=0)):
            raise OCSPError("the OCSP responder's certificate is outside its validity dates")

    def proof(self, origin: str) -> Proof:
        """The answer as what a finding rests on."""
        return Proof("ocsp", origin, self.der, hashlib.sha256(self.der).hexdigest(), self.this_update, self.next_update)

    def finding(self, question: Question, proofs: Sequence[Proof], until: datetime) -> Finding:
        """What a fresh answer says at the moment, by these proofs, the first of which runs out then."""
        certificate = question.certificate
        if self.is_revoked and self.revoked_at is not None:
            if self.revoked_at <= question.at:
                detail = f"revoked on {self.revoked_at:%Y-%m-%d} ({self.reason}), says OCSP"
                return finding(certificate, "revoked", detail, proofs, revoked_at=self.revoked_at, valid_until=until)
            until = min(until, self.revoked_at)
        return finding(certificate, "good", "OCSP says good", proofs, valid_until=until)

    @property
    def is_final(self) -> bool:
        """Whether it says revoked for ever, and not on hold."""
        return self.is_revoked and self.reason != "certificateHold"

    def is_rollback(self, kept: OCSPAnswer, at: datetime) -> bool:
        """Whether it is older than the one that is kept, so that it must not take its place.

        Somebody on the way may serve what the responder said earlier. Of two answers of the same time a revocation
        counts. One that was dated in the future, as of the moment, is no measure.
        """
        if kept.this_update > at + MAX_CLOCK_SKEW:
            return False
        return self.this_update < kept.this_update or (
            self.this_update == kept.this_update and kept.is_final and not self.is_final
        )


def ocsp_request(question: Question) -> bytes:
    """The OCSP request for one certificate, DER (RFC 6960 4.1, RFC 5019 2.1.1)."""
    # RFC 5019 2.1.1: every responder understands a SHA-1 CertID, and it is an index, not a protection.
    request = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
        hashlib.sha1(question.certificate.asn1.issuer.dump(), usedforsecurity=False).digest(),
        hashlib.sha1(_key_bits(question.issuer), usedforsecurity=False).digest(),
        question.certificate.serial,
        hashes.SHA1(),  # noqa: S303
    )
    return request.build().public_bytes(Encoding.DER)


def read_answer(question: Question, der: bytes) -> OCSPAnswer:
    """Verify an answer, its dates included.

    Raises:
        OCSPError: it proves nothing of this certificate at this moment.
    """
    try:
        answer = _read(question, der)
    except (OCSPError, RejectionError):
        raise
    except Exception as exc:  # noqa: BLE001 - parsers raise many types on hostile input
        raise OCSPError(f"the OCSP answer cannot be read ({type(exc).__name__})") from None
    answer.require_fresh(question.at)
    return answer


def _read(question: Question, der: bytes) -> OCSPAnswer:
    if len(der) > MAX_REPLY_BYTES:
        raise OCSPError("the OCSP answer is too large")
    reply = ocsp.load_der_ocsp_response(der)
    if reply.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise OCSPError(f"the OCSP responder answered {reply.response_status.name.lower()}")
    basic = asn1_ocsp.OCSPResponse.load(der, strict=True).basic_ocsp_response
    whole = basic["tbs_response_data"]
    _refuse_unknown(whole["response_extensions"])
    entry, index = _entry(question, reply)
    _refuse_unknown(whole["responses"][index]["single_extensions"])
    if entry.certificate_status is ocsp.OCSPCertStatus.UNKNOWN:
        raise OCSPError("the OCSP responder does not know the certificate")
    signer = _signer(question, basic)
    reason = entry.revocation_reason.value if entry.revocation_reason else "unspecified"
    return OCSPAnswer(
        der,
        entry.certificate_status is ocsp.OCSPCertStatus.REVOKED,
        reason,
        entry.revocation_time_utc,
        entry.this_update_utc,
        entry.next_update_utc,
        signer,
        None if signer == question.issuer or _is_unchecked(signer) else signer,
    )


def _entry(question: Question, reply: ocsp.OCSPResponse) -> tuple[ocsp.OCSPSingleResponse, int]:
    """The entry for this certificate; of several a revocation, else the newest."""
    found: list[tuple[ocsp.OCSPSingleResponse, int]] = []
    for index, entry in enumerate(reply.responses):
        if index >= MAX_ENTRIES:
            raise OCSPError("the OCSP answer has too many entries")
        if _names(question, entry):
            found.append((entry, index))
    if not found:
        raise OCSPError("the OCSP answer is for another certificate")
    return max(
        found, key=lambda pair: (pair[0].certificate_status is ocsp.OCSPCertStatus.REVOKED, pair[0].this_update_utc)
    )


def _names(question: Question, entry: ocsp.OCSPSingleResponse) -> bool:
    """Whether the CertID is that of the certificate (RFC 6960 4.1.1), made with SHA-1 or one of SHA-2."""
    digest = _DIGESTS.get(entry.hash_algorithm.name)
    if digest is None or entry.serial_number != question.certificate.serial:
        return False
    # The name is hashed as it stands in the certificate; some responders take it from the issuer's.
    names = {question.certificate.asn1.issuer.dump(), question.issuer.asn1.subject.dump()}
    return entry.issuer_key_hash == digest(_key_bits(question.issuer)).digest() and any(
        entry.issuer_name_hash == digest(name).digest() for name in names
    )


def _signer(question: Question, basic: Any) -> Certificate:
    """Who signed the answer and may do so (RFC 6960 4.2.2.2)."""
    algorithm, who = basic["signature_algorithm"], basic["tbs_response_data"]["responder_id"]
    issuer = question.issuer
    candidates = [issuer] if _is_named(issuer, who) else []
    enclosed = [bytes(c.dump()) for c in list(basic["certs"] or ())[:MAX_RESPONDERS]]
    candidates += [c for c in parse_many(enclosed, MAX_RESPONDERS) if c != issuer and _is_named(c, who)]
    fault = OCSPError("the OCSP answer names a signer that is not at hand")
    for candidate in candidates:
        same_key = candidate.public_key_der == issuer.public_key_der and candidate.subject_key == issuer.subject_key
        key = question.issuer_public_key if same_key else working_public_key((candidate, *question.path[1:]))
        if not _made_by(key, basic):
            fault = OCSPError("the OCSP answer's signature does not verify")
            continue
        if not question.algorithms.signature_algorithm_allowed(algorithm, None, candidate.asn1.public_key):
            raise OCSPError("the OCSP answer is signed by an algorithm that is not allowed")
        if same_key:
            return issuer
        _require_authority(question, candidate)
        return candidate
    raise fault


def _require_authority(question: Question, responder: Certificate) -> None:
    """A responder acts for the issuer when that very issuer made its certificate, for this purpose."""
    if responder.issuer_key != question.issuer.subject_key or signed_by(responder, question.issuer) is False:
        raise OCSPError("the OCSP responder was not appointed by the certificate's issuer")
    if responder == question.certificate:
        raise OCSPError("the OCSP answer is signed by the certificate itself")
    extended = responder.asn1.extended_key_usage_value
    if extended is None or _OCSP_SIGNING not in {purpose.dotted for purpose in extended}:
        raise OCSPError("the OCSP responder's certificate is not for signing OCSP")
    usage = responder.asn1.key_usage_value
    if usage is not None and not {"digital_signature", "non_repudiation"} & set(usage.native):
        raise OCSPError("the OCSP responder's certificate is not for signatures")
    try:
        validate_path((responder, *question.path[1:]), question.at, question.algorithms)
    except RejectionError as exc:
        raise OCSPError(f"the OCSP responder's certificate is not valid ({exc.reason})") from None


def _made_by(public_key: bytes, basic: Any) -> bool:
    body = basic["tbs_response_data"].dump()
    return is_signed(public_key, basic["signature_algorithm"], basic["signature"].native, body) is True


def _is_named(certificate: Certificate, who: Any) -> bool:
    if who.name == "by_key":
        return bool(who.native == hashlib.sha1(_key_bits(certificate), usedforsecurity=False).digest())
    return str(who.chosen.hashable) == certificate.subject_key


def _key_bits(certificate: Certificate) -> bytes:
    """The key's bits without tag, length and the count of unused bits (RFC 6960 4.1.1)."""
    return bytes(certificate.asn1.public_key["public_key"].contents[1:])


def _is_unchecked(responder: Certificate) -> bool:
    """Whether the issuer asks for no check of this responder (id-pkix-ocsp-nocheck, RFC 6960 4.2.2.2.1)."""
    return any(name == x509.OCSPNoCheck.oid.dotted_string for name, _ in responder.extension_ids())


def _refuse_unknown(extensions: Iterable[Any]) -> None:
    if any(e["critical"].native and e["extn_id"].dotted not in _UNDERSTOOD for e in extensions or ()):
        raise OCSPError("the OCSP answer has a critical extension that is not understood")
