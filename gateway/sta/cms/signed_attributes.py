"""The rules of signed attributes (RFC 5652 section 11, RFC 5035, RFC 6211; S/MIME rules 6 and 25).

Signed attributes are required: without them the encoding of a genuine signature's attributes can be replayed as
content (s02). contentType and messageDigest stand in them exactly once with exactly one value, signingTime and the
signing-certificate attributes at most once.

Failure modes: :class:`RejectionError` with ``BAD_SIGNATURE`` when a rule is broken.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from gateway.core.errors import RejectionError
from gateway.core.verdict import Reason
from gateway.sta.algorithm_policy import DIGESTS, SIGNATURES
from gateway.sta.cms.ber import (
    CONSTRUCTED,
    CONTEXT,
    INTEGER,
    OCTET_STRING,
    OID,
    SEQUENCE,
    Document,
    Element,
    dotted,
    short_value,
)
from gateway.sta.cms.identifiers import certificate_fields
from gateway.sta.cms.signer_info import Attribute, SignerInfo

CONTENT_TYPE = "1.2.840.113549.1.9.3"
MESSAGE_DIGEST = "1.2.840.113549.1.9.4"
SIGNING_TIME = "1.2.840.113549.1.9.5"
ALGORITHM_PROTECTION = "1.2.840.113549.1.9.52"
SIGNING_CERTIFICATE = "1.2.840.113549.1.9.16.2.12"
SIGNING_CERTIFICATE_V2 = "1.2.840.113549.1.9.16.2.47"
UTC_TIME = 0x17
GENERALIZED_TIME = 0x18
UNREADABLE_TIME = "the signing time cannot be read"
_TIME = re.compile(rb"(\d{2}|\d{4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})Z")


def bad_signature(detail: str) -> RejectionError:
    """Return the error for a signature that does not hold."""
    return RejectionError(Reason.BAD_SIGNATURE, detail)


Values = Mapping[str, bytes | None]
"""By type the value of each signed attribute; None when it does not stand exactly once with exactly one value."""


def values_of(attributes: Sequence[Attribute]) -> Values:
    """Put the attributes in order for the checks of this module."""
    found: dict[str, bytes | None] = {}
    for kind, values, _ in attributes:
        found[kind] = values[0] if len(values) == 1 and kind not in found else None
    return found


def _single(attributes: Values, oid: str, name: str) -> bytes | None:
    value = attributes.get(oid)
    if value is None and oid in attributes:
        raise bad_signature(f"the signed attribute {name} does not stand exactly once with one value")
    return value


def check_content_type(attributes: Values, econtent_type: str) -> None:
    """Check that the signed contentType is the type of the content (RFC 5652 11.1; s04, s07)."""
    value = _single(attributes, CONTENT_TYPE, "contentType")
    if value is None:
        raise bad_signature("the signed attribute contentType is missing")
    what = "the signed content type"
    content = short_value(value, OID)
    signed = Document(value).root().oid(what) if content is None else dotted(content, what)
    if signed != econtent_type:
        raise bad_signature("the signed content type is not that of the content")


def signed_digest(attributes: Values) -> bytes:
    """Return the value of messageDigest (RFC 5652 11.2; s03, s05, s06)."""
    value = _single(attributes, MESSAGE_DIGEST, "messageDigest")
    if value is None:
        raise bad_signature("the signed attribute messageDigest is missing")
    digest = short_value(value, OCTET_STRING)
    if digest is not None:
        return digest
    return bytes(Document(value).root().expect(OCTET_STRING, "the signed message digest").octets())


def signing_time(attributes: Values, notes: list[str]) -> datetime | None:
    """Return the sender's claim of when it signed; what cannot be read is noted, since nothing rests on it."""
    value = _single(attributes, SIGNING_TIME, "signingTime")
    if value is None:
        return None
    tag, content = value[0], short_value(value, value[0])
    if content is None:
        element = Document(value).root()
        tag, content = element.tag, bytes(element.content)
    match = _TIME.fullmatch(content) if tag in (UTC_TIME, GENERALIZED_TIME) else None
    if match is not None and len(match[1]) == (2 if tag == UTC_TIME else 4):
        year, month, day, hour, minute, second = map(int, match.groups())
        if tag == UTC_TIME:
            year += 2000 if year < 50 else 1900
        try:
            return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        except ValueError:
            pass
    notes.append(UNREADABLE_TIME)
    return None


def check_signing_certificate(attributes: Values, certificate: bytes, notes: list[str]) -> None:
    """Check that ESS signing-certificate attributes, where present, name that certificate (RFC 5035 section 5.4)."""
    for oid, name in ((SIGNING_CERTIFICATE_V2, "signingCertificateV2"), (SIGNING_CERTIFICATE, "signingCertificate")):
        value = _single(attributes, oid, name)
        if value is None:
            continue
        certificates = Document(value).root().expect(SEQUENCE, name).open().take(SEQUENCE, f"the list of {name}")
        first = certificates.open().take(SEQUENCE, f"the first entry of {name}").open()
        digest = "sha1" if oid == SIGNING_CERTIFICATE else "sha256"
        if oid == SIGNING_CERTIFICATE_V2 and (algorithm := first.optional(SEQUENCE)) is not None:
            dotted = algorithm.open().take(OID, f"the digest of {name}").oid(f"the digest of {name}")
            row = DIGESTS.get(dotted)
            digest = row.name if row is not None and row.name in hashlib.algorithms_guaranteed else ""
        expected = bytes(first.take(OCTET_STRING, f"the hash of {name}").octets())
        if not digest:
            notes.append(f"{name} uses an unknown digest and was not compared")
        # SHA-1 here is a second tie to the certificate whose key verifies the signature, not what trust rests on.
        elif not hmac.compare_digest(hashlib.new(digest, certificate, usedforsecurity=False).digest(), expected):
            raise bad_signature(f"{name} names another certificate")
        _check_issuer_serial(first.optional(SEQUENCE), certificate, name)


def _check_issuer_serial(element: Element | None, certificate: bytes, name: str) -> None:
    """The optional IssuerSerial repeats what the hash says already; only its serial number is compared."""
    if element is None:
        return
    fields = element.open()
    fields.take(SEQUENCE, f"the issuer of {name}")
    if fields.take(INTEGER, f"the serial of {name}").integer(f"the serial of {name}") != (
        certificate_fields(certificate).serial
    ):
        raise bad_signature(f"{name} names another serial number")


def check_algorithm_protection(signer: SignerInfo, attributes: Values) -> None:
    """Check that CMSAlgorithmProtection, where present, repeats the signer's algorithms (RFC 6211)."""
    value = _single(attributes, ALGORITHM_PROTECTION, "cmsAlgorithmProtection")
    if value is None or signer.digest is None or signer.signature_algorithm is None:
        return
    fields = Document(value).root().expect(SEQUENCE, "the algorithm protection").open()
    digest = fields.take(SEQUENCE, "the protected digest").open().take(OID, "the protected digest")
    signature = fields.optional(CONTEXT | CONSTRUCTED | 1)
    if signature is None or digest.oid("the protected digest") != signer.digest.oid:
        raise bad_signature("the digest algorithm was exchanged after signing")
    signed_with = signature.open().take(OID, "the protected signature algorithm").oid("the protected signature")
    if _family(signed_with) != _family(signer.signature_algorithm.oid):
        raise bad_signature("the signature algorithm was exchanged after signing")


def _family(oid: str) -> str:
    """Stacks write rsaEncryption in one place and sha256WithRSAEncryption in the other; the family must agree."""
    row = SIGNATURES.get(oid)
    return oid if row is None else row.family
