"""Reads SignedData (RFC 5652 section 5) into values; verifies nothing (that is ``signature.py``).

Guarantees: certificates, revocation lists and signers are bounded in number; content stays a slice of the input
where it lies in one piece. A SignerInfo that cannot be read does not hide its neighbours (AS-50): it is kept with
its defect, which verifying it raises. When all of them are defective, the first defect is raised at once.

Failure modes: :class:`RejectionError` with ``MALFORMED`` or ``RESOURCE_LIMIT``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from gateway.core.errors import RejectionError
from gateway.sta.cms.ber import (
    CONSTRUCTED,
    CONTEXT,
    INTEGER,
    NULL,
    OCTET_STRING,
    OID,
    SEQUENCE,
    SET,
    Buffer,
    Element,
    malformed,
    too_much,
)
from gateway.sta.cms.content_info import SIGNED_DATA, open_content
from gateway.sta.cms.identifiers import (
    MAX_CERTIFICATE_BYTES,
    CertificateIdentifier,
    certificate_fields,
    read_identifier,
)

MAX_CERTIFICATES = 32
MAX_REVOCATION_LISTS = 32
MAX_DIGEST_ALGORITHMS = 32
MAX_SIGNERS = 8
MAX_SIGNED_ATTRIBUTES = 64
MAX_SIGNED_ATTRIBUTE_BYTES = 262_144
MAX_SIGNATURE_BYTES = 2048


@dataclass(frozen=True, slots=True)
class AlgorithmIdentifier:
    """An algorithm and its parameters as encoded, empty when they are absent or NULL."""

    oid: str
    parameters: bytes


@dataclass(frozen=True, slots=True)
class Attribute:
    """One signed attribute: its type, its values and itself as encoded on the wire."""

    oid: str
    values: tuple[bytes, ...]
    raw: bytes


@dataclass(frozen=True, slots=True)
class SignerInfo:
    """One signature. ``signed_attributes`` is None when the message has none."""

    identifier: CertificateIdentifier | None
    digest: AlgorithmIdentifier | None
    signed_attributes: tuple[Attribute, ...] | None
    signature_algorithm: AlgorithmIdentifier | None
    signature: bytes
    defect: RejectionError | None = None
    """Why this SignerInfo cannot be read; then only ``identifier`` may be set."""

    def matches(self, certificate: bytes) -> bool:
        """Whether the sid names that certificate (DER). Never raises: an unreadable certificate does not match."""
        if self.identifier is None:
            return False
        try:
            return self.identifier.matches(certificate_fields(certificate))
        except RejectionError:
            return False

    def __str__(self) -> str:
        return f"signer with {self.identifier}" if self.identifier else "unreadable signer"


@dataclass(frozen=True, slots=True)
class SignedData:
    """A SignedData as read. ``econtent`` is None when the signature is detached."""

    econtent_type: str
    econtent: bytes | memoryview | None
    certificates: tuple[bytes, ...]
    crls: tuple[bytes, ...]
    digest_algorithms: tuple[str, ...]
    signers: tuple[SignerInfo, ...]


def read_signed_data(der: Buffer) -> SignedData:
    """Read a SignedData ContentInfo, BER or DER. No signer at all is a value, not an error (s10).

    Raises:
        RejectionError: MALFORMED or RESOURCE_LIMIT.
    """
    fields = open_content(der, SIGNED_DATA)[1].expect(SEQUENCE, "the signed data").open()
    fields.take(INTEGER, "the version")
    digests = _bounded(fields.take(SET, "the digest algorithms"), MAX_DIGEST_ALGORITHMS, "digest algorithms")
    encapsulated = fields.take(SEQUENCE, "the encapsulated content").open()
    econtent_type = encapsulated.take(OID, "the content type").oid("the content type")
    wrapper = encapsulated.optional(CONTEXT | CONSTRUCTED)
    econtent = None if wrapper is None else _econtent(wrapper)
    encapsulated.finish("the encapsulated content")
    certificates = fields.optional(CONTEXT | CONSTRUCTED)
    crls = fields.optional(CONTEXT | CONSTRUCTED | 1)
    infos = _bounded(fields.take(SET, "the signers"), MAX_SIGNERS, "signers")
    fields.finish("the signed data")
    signers = tuple(map(_signer, infos))
    if signers and all(signer.defect for signer in signers):
        raise signers[0].defect or malformed("the signer")
    embedded = _plain_structures(certificates, MAX_CERTIFICATES, "certificates")
    if any(len(certificate) > MAX_CERTIFICATE_BYTES for certificate in embedded):
        raise too_much(f"a certificate is longer than {MAX_CERTIFICATE_BYTES} bytes")
    return SignedData(
        econtent_type,
        econtent,
        embedded,
        _plain_structures(crls, MAX_REVOCATION_LISTS, "revocation lists"),
        tuple(_algorithm(element).oid for element in digests),
        signers,
    )


def _bounded(container: Element, limit: int, what: str) -> list[Element]:
    elements = list(islice(container.open(), limit + 1))
    if len(elements) > limit:
        raise too_much(f"the message has more than {limit} {what}")
    return elements


def _econtent(wrapper: Element) -> memoryview | bytes:
    inside = wrapper.open()
    content = inside.next("the signed content")
    inside.finish("the signed content")
    if content.tag & ~CONSTRUCTED != OCTET_STRING:
        raise malformed("the signed content is no OCTET STRING")
    return content.octets()


def _plain_structures(container: Element | None, limit: int, what: str) -> tuple[bytes, ...]:
    """Return the X.509 members of a CertificateSet or RevocationInfoChoices; other kinds are stepped over."""
    if container is None:
        return ()
    return tuple(bytes(element.raw) for element in _bounded(container, limit, what) if element.tag == SEQUENCE)


def _algorithm(element: Element) -> AlgorithmIdentifier:
    fields = element.expect(SEQUENCE, "an algorithm").open()
    oid = fields.take(OID, "an algorithm").oid("an algorithm")
    if fields.peek() in (-1, NULL):
        return AlgorithmIdentifier(oid, b"")
    parameters = fields.next("an algorithm's parameters")
    if len(parameters.raw) > 4096:
        raise too_much("an algorithm's parameters are longer than 4096 bytes")
    return AlgorithmIdentifier(oid, bytes(parameters.raw))


def _signer(element: Element) -> SignerInfo:
    identifier: CertificateIdentifier | None = None
    try:
        fields = element.expect(SEQUENCE, "a signer").open()
        fields.take(INTEGER, "a signer's version")
        identifier = read_identifier(fields, "a signer's identifier")
        digest = _algorithm(fields.next("a signer's digest algorithm"))
        attributes = fields.optional(CONTEXT | CONSTRUCTED)
        signed_attributes = None if attributes is None else _attributes(attributes)
        signature_algorithm = _algorithm(fields.next("a signature algorithm"))
        signature = fields.next("a signature")
        if signature.tag & ~CONSTRUCTED != OCTET_STRING:
            raise malformed("a signature is of the wrong type")
        if signature.body_end - signature.body > MAX_SIGNATURE_BYTES:
            raise too_much(f"a signature is longer than {MAX_SIGNATURE_BYTES} bytes")
        value = bytes(signature.octets())
        fields.optional(CONTEXT | CONSTRUCTED | 1)
        fields.finish("a signer")
    except RejectionError as error:
        return SignerInfo(identifier, None, None, None, b"", error)
    return SignerInfo(identifier, digest, signed_attributes, signature_algorithm, value)


def _attributes(container: Element) -> tuple[Attribute, ...]:
    if container.body_end - container.body > MAX_SIGNED_ATTRIBUTE_BYTES:
        raise too_much(f"signed attributes are longer than {MAX_SIGNED_ATTRIBUTE_BYTES} bytes")
    result = []
    for element in _bounded(container, MAX_SIGNED_ATTRIBUTES, "signed attributes"):
        fields = element.expect(SEQUENCE, "a signed attribute").open()
        oid = fields.take(OID, "a signed attribute's type").oid("a signed attribute's type")
        values = fields.take(SET, "a signed attribute's values")
        fields.finish("a signed attribute")
        listed = _bounded(values, MAX_SIGNED_ATTRIBUTES, "values of one attribute")
        result.append(Attribute(oid, tuple(bytes(value.raw) for value in listed), bytes(element.raw)))
    return tuple(result)
