"""Reads a trust bundle: a file of anchors as somebody publishes it (TB-1..4, TB-13, TB-15).

Forms: a certs-only CMS message (``.p7b``), PEM certificates, a single certificate; DER or BER, armoured as PEM or as
bare base64. Signed (``.p7m``): a SignedData whose content is one of these. The content of the unsigned message may
be metadata with validity dates, which are respected.

Guarantees

* The anchors of a signed bundle come from the signed content only. The certificates beside the signature are the
  publisher's own; whoever put his there would else be trusted.
* With a configured signer, one signature must verify with exactly that certificate, in date, by the algorithms of
  the matrix. Nothing about the certificate is looked up anywhere else: it is trusted because it was configured.
* A file that was cut short is refused, never read as a smaller bundle.
* A member that may not be an anchor is left out with its cause, and the others count (TB-15). A bundle of which
  nothing can be used is refused.
* Size and number are bounded; an anchor's own signature is not checked, because nothing rests on it.

Failure modes: :class:`BundleError`, and nothing else.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from datetime import datetime

from gateway.core.errors import BundleError, RejectionError
from gateway.sta.algorithm_policy import DEFAULT_POLICY, AlgorithmPolicy
from gateway.sta.certificates import Certificate, CertificateError
from gateway.sta.cms.ber import SEQUENCE, SET, Document
from gateway.sta.cms.content_info import DATA, SIGNED_DATA, open_content
from gateway.sta.cms.signature import ContentDigests, SignatureFacts, verify_signer
from gateway.sta.cms.signed import SignedData, read_signed_data
from gateway.sta.paths.certificate_rules import refused_as_anchor
from gateway.sta.trust_anchors.bundle_metadata import BundleMetadata, read_metadata
from gateway.sta.trust_anchors.certificate_files import (
    CERTIFICATE_LABELS,
    CMS_LABELS,
    is_cms,
    pem_blocks,
    read_certs_only,
)

MAX_BUNDLE_BYTES = 16 * 1024 * 1024
MAX_ANCHORS = 2_000
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class RefusedAnchor:
    """A member of a bundle that was left out. ``subject`` is empty when it cannot be read."""

    subject: str
    sha256: str
    cause: str


@dataclass(frozen=True, slots=True)
class BundleContent:
    """What a bundle holds. ``anchors`` is never empty; no certificate is there twice."""

    anchors: tuple[Certificate, ...]
    refused: tuple[RefusedAnchor, ...]
    signed: bool
    """Whether the file has a signature at all."""
    signature_checked: bool
    """Whether it was verified with the configured signer."""
    signing_time: datetime | None
    """When the verified signature says that it was made, UTC; None when nothing was verified or it does not say."""
    metadata: BundleMetadata


def read_bundle(
    data: bytes, signer: Certificate | None, at: datetime, policy: AlgorithmPolicy = DEFAULT_POLICY
) -> BundleContent:
    """Read a bundle as of the moment. Without ``signer`` a signature is stepped over and reported as not checked.

    Raises:
        BundleError: it must not be taken over; see the module's header.
    """
    if len(data) > MAX_BUNDLE_BYTES:
        raise BundleError("too_large", f"the bundle is larger than {MAX_BUNDLE_BYTES >> 20} MiB")
    try:
        return _read(_blocks(data), signer, at, policy)
    except RejectionError as exc:
        raise BundleError("unreadable", f"the bundle cannot be read: {exc.detail}") from exc


def _read(
    blocks: list[tuple[bool, bytes]], signer: Certificate | None, at: datetime, policy: AlgorithmPolicy
) -> BundleContent:
    outer = _signed_data(blocks)
    facts = None
    if signer is not None:
        if outer is None:
            raise BundleError("unsigned", "the bundle is not signed, but a signer is configured for it", alarming=True)
        facts = _verified(outer, signer, at, policy)
    if outer is not None:
        if outer.econtent is None:
            raise BundleError("unreadable", "the file is a signature without the bundle that it is about")
        blocks = _blocks(bytes(outer.econtent))
    certificates, beside = _unsigned(blocks)
    metadata = read_metadata(beside) or BundleMetadata()
    _check_dates(metadata, at)
    anchors, refused = _sorted_out(certificates, at, policy)
    if not anchors:
        cause = f"; the first of {len(refused)} is refused because {refused[0].cause}" if refused else ""
        raise BundleError("empty", f"the bundle holds no anchor that can be used{cause}", alarming=True)
    return BundleContent(
        anchors=anchors,
        refused=refused,
        signed=outer is not None,
        signature_checked=facts is not None,
        signing_time=None if facts is None else facts.signing_time,
        metadata=metadata,
    )


# --- forms ---


def _blocks(data: bytes) -> list[tuple[bool, bytes]]:
    """The objects of a file in order: whether each is a CMS message (or else a certificate), and its DER or BER."""
    if data[:1] == b"\x30":
        return [_binary(data)]
    text = data.removeprefix(_BYTE_ORDER_MARK).lstrip()
    if not text:
        raise BundleError("unreadable", "the file is empty", alarming=True)
    if b"-----BEGIN " in text:
        return _armoured(text)
    if text[:1] == b"<":
        raise BundleError("unreadable", "the file is a web page or other markup, not a trust bundle; check the URL")
    if text[:13].lower() in {b"mime-version:", b"content-type:"}:
        raise BundleError(
            "unreadable", "the file is a mail message; save the bundle itself (openssl cms -binary -outform DER)"
        )
    try:
        return [_binary(base64.b64decode(b"".join(text.split()), validate=True))]
    except binascii.Error:
        raise BundleError(
            "unreadable", "the file is no trust bundle (PKCS #7 or certificates, as DER, PEM or base64)"
        ) from None


def _binary(der: bytes) -> tuple[bool, bytes]:
    """The object alone: what a transfer put behind it (a line end, say) is dropped."""
    return is_cms(der), bytes(Document(der).root().raw)


def _armoured(text: bytes) -> list[tuple[bool, bytes]]:
    try:
        blocks = pem_blocks(text) or []
    except ValueError as exc:
        raise BundleError("unreadable", f"the bundle is {exc}") from None
    known = CERTIFICATE_LABELS | CMS_LABELS
    if len(blocks) < text.count(b"-----BEGIN ") or any(label not in known for label, _ in blocks):
        raise BundleError("unreadable", "the file holds PEM blocks other than certificates and PKCS7")
    return [(label in CMS_LABELS, der) for label, der in blocks]


def _signed_data(blocks: list[tuple[bool, bytes]]) -> SignedData | None:
    """The signed message that the file is, or None when nobody signed it."""
    if len(blocks) == 1 and blocks[0][0] and _has_signers(blocks[0][1]):
        return read_signed_data(blocks[0][1])
    return None


def _has_signers(der: bytes) -> bool:
    fields = open_content(der, SIGNED_DATA)[1].expect(SEQUENCE, "the signed data").open()
    last = None
    for element in fields:
        last = element
    return last is not None and last.tag == SET and last.open().more


def _unsigned(blocks: list[tuple[bool, bytes]]) -> tuple[list[bytes], bytes]:
    """The certificates of an unsigned file as they came, and what a CMS message carried beside them."""
    certificates: list[bytes] = []
    content = b""
    for is_message, der in blocks:
        if is_message:
            found = read_certs_only(der, MAX_ANCHORS + 1)
            if found.is_signed:
                text = "the bundle is signed twice over, or stands beside others; only one may be"
                raise BundleError("unreadable", text)
            certificates += found.certificates
            content = content or found.content
        else:
            certificates.append(der)
        if len(certificates) > MAX_ANCHORS:
            raise BundleError("too_large", f"the bundle holds more than {MAX_ANCHORS} certificates")
    return certificates, content


# --- the publisher ---


def _verified(outer: SignedData, signer: Certificate, at: datetime, policy: AlgorithmPolicy) -> SignatureFacts:
    """Verify that the configured signer signed (TB-3).

    Raises:
        BundleError: he did not, or not in a way that counts.
    """
    who = signer.as_signer("").subject
    if not signer.is_valid_at(at):
        raise BundleError(
            "signer_expired",
            f"the configured signer {who} is valid from {signer.not_before:%Y-%m-%d} to {signer.not_after:%Y-%m-%d} "
            f"only; configure the publisher's present certificate with --signer",
        )
    if outer.econtent is None or outer.econtent_type != DATA:
        raise BundleError("unreadable", "the signed file does not hold a bundle")
    digests = ContentDigests(outer.econtent)
    fault: RejectionError | None = None
    for one in outer.signers:
        if one.matches(signer.der):
            try:
                return verify_signer(one, signer.der, digests, outer.econtent_type, policy)
            except RejectionError as exc:
                fault = exc
    if fault is not None:
        text = f"the signature of {who} on the bundle does not hold: {fault.detail}"
        raise BundleError("bad_signature", text, alarming=True)
    raise BundleError("wrong_signer", f"the bundle is signed, but not by the configured signer {who}", alarming=True)


def _check_dates(metadata: BundleMetadata, at: datetime) -> None:
    if metadata.valid_from is not None and at < metadata.valid_from:
        raise BundleError("not_valid", f"the bundle is valid only from {metadata.valid_from:%Y-%m-%d %H:%MZ}")
    if metadata.valid_to is not None and at > metadata.valid_to:
        raise BundleError("not_valid", f"the bundle was valid only until {metadata.valid_to:%Y-%m-%d %H:%MZ}")


# --- the members ---


def _sorted_out(
    ders: list[bytes], at: datetime, policy: AlgorithmPolicy
) -> tuple[tuple[Certificate, ...], tuple[RefusedAnchor, ...]]:
    anchors: list[Certificate] = []
    refused: list[RefusedAnchor] = []
    for der in dict.fromkeys(ders):
        try:
            certificate = Certificate(der)
        except CertificateError as exc:
            refused.append(RefusedAnchor("", hashlib.sha256(der).hexdigest(), str(exc)))
            continue
        cause = refused_as_anchor(certificate, at, policy)
        if cause is None:
            anchors.append(certificate)
        else:
            refused.append(RefusedAnchor(certificate.as_signer("").subject, certificate.sha256, cause))
    return tuple(anchors), tuple(refused)
