"""Verifies one SignerInfo against one certificate (RFC 5652 section 5.6; S/MIME rules 5, 6, 15, 23, 25).

Guarantees: the signature is computed by the library only, over the DER encoding of the signed attributes; the
attributes bind the digest of exactly the bytes given. SHA-1, MD5, SHA-224, DSA and RSA below 2048 bits are refused
whatever the message says. Several signers with one digest hash the content once (:class:`ContentDigests`).

Nothing here says whether the certificate is to be trusted: path, dates, revocation and binding come after.

Failure modes: :class:`RejectionError` with ``BAD_SIGNATURE``, ``WEAK_ALGORITHM``, ``KEY_USAGE``, ``MALFORMED`` or
``RESOURCE_LIMIT``; nothing else escapes.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from gateway.core.errors import RejectionError
from gateway.core.verdict import Reason
from gateway.sta.algorithm_policy import (
    DEFAULT_POLICY,
    DIGESTS,
    MGF1,
    RSA_ENCRYPTION,
    RSASSA_PSS,
    SIGNING_CURVES,
    Algorithm,
    AlgorithmPolicy,
    Role,
    weak,
)
from gateway.sta.cms.ber import BIT_STRING, INTEGER, OID, SEQUENCE, SET, Document, Element, malformed
from gateway.sta.cms.der import NULL, oid, sequence, set_of, tlv
from gateway.sta.cms.identifiers import certificate_fields
from gateway.sta.cms.rsa_bounds import check_rsa_public_key, public_key_algorithm
from gateway.sta.cms.signed import AlgorithmIdentifier, Attribute, SignerInfo
from gateway.sta.cms.signed_attributes import (
    bad_signature,
    check_algorithm_protection,
    check_content_type,
    check_signing_certificate,
    signed_digest,
    signing_time,
)

_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
_PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
_MAX_SALT_BYTES = 512
_DIGITAL_SIGNATURE_OR_NON_REPUDIATION = 0xC000


@dataclass(frozen=True, slots=True)
class SignatureFacts:
    """What was verified, for the evidence. ``signing_time`` is the sender's claim, in UTC."""

    digest: str
    signature: str
    signing_time: datetime | None
    notes: tuple[str, ...]


class ContentDigests:
    """The digests of one content, each computed once."""

    __slots__ = ("_content", "_known")

    def __init__(self, content: bytes | bytearray | memoryview) -> None:
        self._content = content
        self._known: dict[str, bytes] = {}

    def digest(self, name: str) -> bytes:
        """Return the digest of that name (sha256, sha384, sha512)."""
        if name not in self._known:
            self._known[name] = hashlib.new(name, self._content).digest()
        return self._known[name]


@dataclass(frozen=True, slots=True)
class _Scheme:
    """How a signature is computed: the row of the matrix, the hash, and for PSS its parameters."""

    row: Algorithm
    digest: str
    mgf_digest: str = ""
    salt_bytes: int = 0


def verify_signer(
    signer: SignerInfo,
    certificate: bytes,
    content: bytes | bytearray | memoryview | ContentDigests,
    econtent_type: str,
    policy: AlgorithmPolicy = DEFAULT_POLICY,
) -> SignatureFacts:
    """Verify that the certificate's key signed the content, which is of that (dotted) type.

    The certificate must be one that ``signer.matches``; that is checked again.

    Raises:
        RejectionError: the signature does not hold; see the module's header.
    """
    if signer.defect is not None:
        raise signer.defect
    if signer.digest is None or signer.signature_algorithm is None:
        raise malformed("the signer names no algorithm")
    if not signer.matches(certificate):
        raise bad_signature("the signer is identified by another certificate")
    notes: list[str] = []
    digest = policy.require(Role.DIGEST, signer.digest.oid).name
    scheme = _scheme(signer.signature_algorithm, digest, policy, notes)
    attributes = signer.signed_attributes
    if attributes is None:
        raise bad_signature("the signature has no signed attributes")
    check_content_type(attributes, econtent_type)
    claimed = signed_digest(attributes)
    check_signing_certificate(attributes, certificate, notes)
    check_algorithm_protection(signer, attributes)
    when = signing_time(attributes, notes)
    digests = content if isinstance(content, ContentDigests) else ContentDigests(content)
    if not hmac.compare_digest(digests.digest(digest), claimed):
        raise bad_signature("the content is not what was signed (its digest differs)")
    name, unsorted = _verify_attributes(
        attributes,
        signer.signature,
        _public_key(certificate, policy),
        scheme,
        wire_order=policy.signed_attributes_in_wire_order,
    )
    if unsorted:
        notes.append("the signed attributes were signed in wire order, not in DER order")
    usage = certificate_fields(certificate).key_usage
    if usage is not None and not usage & _DIGITAL_SIGNATURE_OR_NON_REPUDIATION:
        raise RejectionError(Reason.KEY_USAGE, "the signer's certificate is not meant for signatures")
    return SignatureFacts(digest, name, when, tuple(notes))


def _scheme(identifier: AlgorithmIdentifier, digest: str, policy: AlgorithmPolicy, notes: list[str]) -> _Scheme:
    row = policy.require(Role.SIGNATURE, identifier.oid)
    if row.family == "rsa-pss":
        scheme = _pss(identifier.parameters, row, policy)
    elif row.family == "ed25519":
        # RFC 8419 section 3 asks for SHA-512; another allowed digest is no weaker than the rest of the matrix.
        if digest != "sha512":
            notes.append(f"Ed25519 with {digest} instead of sha512")
        return _Scheme(row, digest)
    else:
        scheme = _Scheme(row, policy.require_digest(row.digest or digest, "signature digest"))
    if scheme.digest != digest:
        notes.append(f"the signature uses {scheme.digest}, the message digest {digest}")
    return scheme


def _pss(encoded: bytes, row: Algorithm, policy: AlgorithmPolicy) -> _Scheme:
    """Read RSASSA-PSS-params (RFC 4055 section 3.1); what is absent has its default, SHA-1, which is refused."""
    digest = mgf_digest = "sha1"
    salt = 20
    trailer = 1
    if encoded:
        parameters = Document(encoded).root().expect(SEQUENCE, "the PSS parameters").open()
        if (found := parameters.optional(0xA0)) is not None:
            digest = _digest_name(found.open().take(SEQUENCE, "the PSS digest"))
        if (found := parameters.optional(0xA1)) is not None:
            mgf = found.open().take(SEQUENCE, "the PSS mask generation").open()
            if mgf.take(OID, "the PSS mask generation").oid("the PSS mask generation") != MGF1:
                raise weak("the PSS mask generation is not allowed")
            if mgf.more:
                mgf_digest = _digest_name(mgf.take(SEQUENCE, "the PSS mask digest"))
        if (found := parameters.optional(0xA2)) is not None:
            salt = found.open().take(INTEGER, "the PSS salt length").integer("the PSS salt length")
        if (found := parameters.optional(0xA3)) is not None:
            trailer = found.open().take(INTEGER, "the PSS trailer").integer("the PSS trailer")
    if not 0 <= salt <= _MAX_SALT_BYTES or trailer != 1:
        raise malformed("the PSS parameters are out of bounds")
    digest = policy.require_digest(digest, "PSS digest")
    return _Scheme(row, digest, policy.require_digest(mgf_digest, "PSS mask digest"), salt)


def _digest_name(algorithm: Element) -> str:
    row = DIGESTS.get(algorithm.open().take(OID, "a digest").oid("a digest"))
    return "" if row is None else row.name


def _verify_attributes(
    attributes: Sequence[Attribute], signature: bytes, key: _PublicKey, scheme: _Scheme, *, wire_order: bool
) -> tuple[str, bool]:
    """Verify the signature over the attributes, sorted as DER asks; with ``wire_order`` also as they came.

    Returns the name of the algorithm and whether only the second try succeeded.
    """
    sorted_set = set_of(attribute.raw for attribute in attributes)
    as_received = tlv(SET, *(attribute.raw for attribute in attributes))
    tries = (sorted_set, as_received) if wire_order and sorted_set != as_received else (sorted_set,)
    for encoded in tries:
        try:
            return _verify(key, signature, encoded, scheme), encoded is as_received
        except (InvalidSignature, ValueError, UnsupportedAlgorithm):
            continue
    raise bad_signature("the signature is wrong")


def _public_key(certificate: bytes, policy: AlgorithmPolicy) -> _PublicKey:
    check_rsa_public_key(certificate, policy)
    encoded = certificate_fields(certificate).public_key
    if public_key_algorithm(certificate) == RSASSA_PSS:
        # The library reads plain RSA keys; the key's own PSS parameters only restrict what the message names.
        fields = Document(encoded).root().open()
        fields.next("a public key's algorithm")
        bits = fields.take(BIT_STRING, "a public key's bits").raw
        encoded = sequence(sequence(oid(RSA_ENCRYPTION), NULL), bits)
    try:
        key = load_der_public_key(encoded)
    except UnsupportedAlgorithm:
        raise weak("the signer's key is of a kind that is not allowed") from None
    except (ValueError, TypeError):
        raise malformed("the signer's public key cannot be read") from None
    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name not in SIGNING_CURVES:
            raise weak(f"the signer's curve {key.curve.name} is not allowed")
        return key
    if isinstance(key, rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
        return key
    raise weak("the signer's key is of a kind that is not allowed")


def _verify(key: _PublicKey, signature: bytes, signed: bytes, scheme: _Scheme) -> str:
    """Return the name of the signature algorithm; raises InvalidSignature."""
    family = scheme.row.family
    if family == "ed25519" and isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature, signed)
        return family
    if family == "ecdsa" and isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, signed, ec.ECDSA(_HASHES[scheme.digest]))
        return f"ecdsa-{SIGNING_CURVES[key.curve.name]}-{scheme.digest}"
    if family == "rsa-pkcs1v15" and isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, signed, padding.PKCS1v15(), _HASHES[scheme.digest])
        return f"{family}-{scheme.digest}"
    if family == "rsa-pss" and isinstance(key, rsa.RSAPublicKey):
        mode = padding.PSS(padding.MGF1(_HASHES[scheme.mgf_digest]), scheme.salt_bytes)
        key.verify(signature, signed, mode, _HASHES[scheme.digest])
        return f"{family}-{scheme.digest}"
    raise bad_signature("the signer's key does not fit the signature algorithm")
