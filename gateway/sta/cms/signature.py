"""Verifies one SignerInfo against one certificate (RFC 5652 section 5.6; S/MIME rules 5, 6, 15, 23, 25).

Guarantees: the signature is computed by the library only, over the DER encoding of the signed attributes; the
attributes bind the digest of exactly the bytes given. SHA-1, MD5, SHA-224, DSA and RSA below 2048 bits are refused
whatever the message says. Several signers with one digest hash the content once (:class:`ContentDigests`).

What the signers of one form have in common (:class:`SignerForm`) is checked once for a certificate, a content type and
a policy, and found again by all four; digest, time and signature are checked in each message.

Nothing here says whether the certificate is to be trusted: path, dates, revocation and binding come after.

Failure modes: :class:`RejectionError` with ``BAD_SIGNATURE``, ``WEAK_ALGORITHM``, ``KEY_USAGE``, ``MALFORMED`` or
``RESOURCE_LIMIT``; nothing else escapes.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from gateway.core.errors import RejectionError
from gateway.core.verdict import Reason
from gateway.sta.algorithm_policy import (
    DEFAULT_POLICY,
    DIGESTS,
    RSA_ENCRYPTION,
    RSASSA_PSS,
    SIGNING_CURVES,
    AlgorithmPolicy,
    weak,
)
from gateway.sta.cms.ber import BIT_STRING, SEQUENCE, SET, Document, malformed
from gateway.sta.cms.der import NULL, oid, sequence, tlv
from gateway.sta.cms.identifiers import certificate_fields
from gateway.sta.cms.rsa_bounds import check_rsa_public_key, public_key_algorithm
from gateway.sta.cms.signature_scheme import Scheme, read_pss, schemes_of
from gateway.sta.cms.signed_attributes import (
    MESSAGE_DIGEST,
    SIGNING_TIME,
    UNREADABLE_TIME,
    Values,
    bad_signature,
    check_algorithm_protection,
    check_content_type,
    check_signing_certificate,
    signed_digest,
    signing_time,
    values_of,
)
from gateway.sta.cms.signer_info import Attribute, SignerForm, SignerInfo
from gateway.sta.hash_algorithms import HASHES

_DIGESTS = {"sha256": hashlib.sha256, "sha384": hashlib.sha384, "sha512": hashlib.sha512}
_HASHES = {row.name: HASHES[row.name] for row in DIGESTS.values() if row.allowed}
_PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
_PKCS1_V15 = padding.PKCS1v15()
_DIGITAL_SIGNATURE_OR_NON_REPUDIATION = 0xC000


class SignatureFacts(NamedTuple):
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
            self._known[name] = _DIGESTS[name](self._content).digest()
        return self._known[name]


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
    form = signer.form
    settled = None if form is None else _settled(form, certificate, econtent_type, policy)
    if form is None or settled is None:
        said, key = _what_it_says(signer, certificate, econtent_type, policy), None
    else:
        said, key = _what_is_new(settled, form.new_values(signer))
    digests = content if isinstance(content, ContentDigests) else ContentDigests(content)
    if not hmac.compare_digest(digests.digest(said.digest), said.claimed):
        raise bad_signature("the content is not what was signed (its digest differs)")
    name, unsorted = _verify_attributes(
        signer.signed_attributes or (),
        signer.signature,
        key or _fit_key(certificate, said.scheme, policy),
        said.scheme,
        wire_order=policy.signed_attributes_in_wire_order,
    )
    notes = said.notes
    if unsorted:
        notes = (*notes, "the signed attributes were signed in wire order, not in DER order")
    if key is None:
        _check_usage(certificate)
    return SignatureFacts(said.digest, name, said.when, notes)


class _Said(NamedTuple):
    """What a signer says of itself, which agrees with the certificate and the content's type."""

    digest: str
    scheme: Scheme
    claimed: bytes
    """The digest that it signed."""
    when: datetime | None
    notes: tuple[str, ...]


def _what_it_says(signer: SignerInfo, certificate: bytes, econtent_type: str, policy: AlgorithmPolicy) -> _Said:
    """Check all that needs neither the content nor the key.

    Raises:
        RejectionError: as :func:`verify_signer`.
    """
    if signer.defect is not None:
        raise signer.defect
    if signer.digest is None or signer.signature_algorithm is None:
        raise malformed("the signer names no algorithm")
    if not signer.matches(certificate):
        raise bad_signature("the signer is identified by another certificate")
    digest, scheme, noted = schemes_of(signer.digest.oid, signer.signature_algorithm, policy)
    notes = list(noted)
    if signer.signed_attributes is None:
        raise bad_signature("the signature has no signed attributes")
    values = values_of(signer.signed_attributes)
    check_content_type(values, econtent_type)
    claimed = signed_digest(values)
    check_signing_certificate(values, certificate, notes)
    check_algorithm_protection(signer, values)
    when = signing_time(values, notes)
    return _Said(digest, scheme, claimed, when, tuple(notes))


@lru_cache(maxsize=256)
def _settled(
    form: SignerForm, certificate: bytes, econtent_type: str, policy: AlgorithmPolicy
) -> tuple[_Said, _PublicKey] | None:
    """What the signers of that form have in common, and the key, when all of it holds; then only the rest is checked.

    It depends on nothing else. None when anything in it does not hold: each message is then told what, in the order
    of the checks.
    """
    first = form.signer
    values = values_of(first.signed_attributes or ())
    new = form.new_values(first)
    if MESSAGE_DIGEST not in new or (SIGNING_TIME in values and SIGNING_TIME not in new):
        return None
    try:
        said = _what_it_says(first, certificate, econtent_type, policy)
        key = _fit_key(certificate, said.scheme, policy)
        _check_usage(certificate)
        common = [note for note in said.notes if note != UNREADABLE_TIME]
    except RejectionError:
        return None
    return said._replace(claimed=b"", when=None, notes=tuple(common)), key


def _what_is_new(settled: tuple[_Said, _PublicKey], values: Values) -> tuple[_Said, _PublicKey]:
    """Add what the one signer says to what is common to its form."""
    (digest, scheme, _, _, common), key = settled
    notes: list[str] = []
    claimed, when = signed_digest(values), signing_time(values, notes)
    return _Said(digest, scheme, claimed, when, (*common, *notes) if notes else common), key


def _fit_key(certificate: bytes, scheme: Scheme, policy: AlgorithmPolicy) -> _PublicKey:
    key = _public_key(certificate, policy)
    _check_restriction(certificate, scheme, policy)
    return key


def _check_usage(certificate: bytes) -> None:
    usage = certificate_fields(certificate).key_usage
    if usage is not None and not usage & _DIGITAL_SIGNATURE_OR_NON_REPUDIATION:
        raise RejectionError(Reason.KEY_USAGE, "the signer's certificate is not meant for signatures")


def _verify_attributes(
    attributes: Sequence[Attribute], signature: bytes, key: _PublicKey, scheme: Scheme, *, wire_order: bool
) -> tuple[str, bool]:
    """Verify the signature over the attributes, sorted as DER asks; with ``wire_order`` also as they came.

    Returns the name of the algorithm and whether only the second try succeeded.
    """
    as_received = [attribute[2] for attribute in attributes]
    in_order = sorted(as_received)
    for encodings in (in_order, as_received) if wire_order and in_order != as_received else (in_order,):
        try:
            return _verify(key, signature, tlv(SET, *encodings), scheme), encodings is as_received
        except (InvalidSignature, ValueError, UnsupportedAlgorithm):
            continue
    raise bad_signature("the signature is wrong")


def _public_key(certificate: bytes, policy: AlgorithmPolicy) -> _PublicKey:
    # The policy is asked before the library looks at the key.
    check_rsa_public_key(certificate, policy)
    return _loaded_key(certificate)


def _check_restriction(certificate: bytes, scheme: Scheme, policy: AlgorithmPolicy) -> None:
    """Check that the signature keeps to what the key itself is restricted to (RFC 4055 sections 1.2 and 3.3).

    A key under id-RSASSA-PSS signs nothing but PSS, and with its parameters, where it has some, no weaker than they.
    """
    if public_key_algorithm(certificate) != RSASSA_PSS:
        return
    algorithm = Document(certificate_fields(certificate).public_key).root().open().next("a public key's algorithm")
    fields = algorithm.open()
    fields.next("a public key's algorithm")
    allowed = (
        read_pss(bytes(fields.next("PSS parameters").raw), scheme.row, policy) if fields.peek() == SEQUENCE else None
    )
    if scheme.row.family != "rsa-pss" or (
        allowed is not None
        and (
            (scheme.digest, scheme.mgf_digest) != (allowed.digest, allowed.mgf_digest)
            or scheme.salt_bytes < allowed.salt_bytes
        )
    ):
        raise bad_signature("the signer's key is restricted to PSS with other parameters")


@lru_cache(maxsize=256)
def _loaded_key(certificate: bytes) -> _PublicKey:
    encoded = certificate_fields(certificate).public_key
    if public_key_algorithm(certificate) == RSASSA_PSS:
        # The library reads plain RSA keys; what the key restricts itself to has been checked.
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


def _verify(key: _PublicKey, signature: bytes, signed: bytes, scheme: Scheme) -> str:
    """Return the name of the signature algorithm; raises InvalidSignature."""
    family = scheme.row.family
    if family == "ed25519" and isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature, signed)
        return family
    if family == "ecdsa" and isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, signed, ec.ECDSA(_HASHES[scheme.digest]))
        return f"ecdsa-{SIGNING_CURVES[key.curve.name]}-{scheme.digest}"
    if family == "rsa-pkcs1v15" and isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, signed, _PKCS1_V15, _HASHES[scheme.digest])
        return f"{family}-{scheme.digest}"
    if family == "rsa-pss" and isinstance(key, rsa.RSAPublicKey):
        mode = padding.PSS(padding.MGF1(_HASHES[scheme.mgf_digest]), scheme.salt_bytes)
        key.verify(signature, signed, mode, _HASHES[scheme.digest])
        return f"{family}-{scheme.digest}"
    raise bad_signature("the signer's key does not fit the signature algorithm")
