"""Which certificate a CMS structure means: issuerAndSerialNumber and subjectKeyIdentifier (RFC 5652 10.2.4, 5.3).

Names are compared as their exact encoding first. Stacks that encode the issuer anew (another string type, other
case or blanks) are met by a second comparison in the spirit of RFC 5280 7.1; the serial number must agree in any
case, and no trust follows from a match: it only picks the certificate that the signature is then checked with.

Failure modes: :class:`RejectionError` with ``MALFORMED`` or ``RESOURCE_LIMIT``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

from gateway.core.errors import RejectionError
from gateway.sta.cms.ber import (
    BIT_STRING,
    CONSTRUCTED,
    CONTEXT,
    INTEGER,
    OCTET_STRING,
    OID,
    SEQUENCE,
    SET,
    Document,
    Element,
    too_much,
)

MAX_CERTIFICATE_BYTES = 65_536
MAX_EXTENSIONS = 64
MAX_NAME_BYTES = 4096
MAX_NAME_ATTRIBUTES = 64
MAX_REMEMBERED_BYTES = 1024
"""Of an issuer with a serial number: larger ones are read each time."""
_SUBJECT_KEY_IDENTIFIER = "2.5.29.14"
_KEY_USAGE = "2.5.29.15"
_SINGLE_BYTE_STRINGS = {0x12, 0x13, 0x14, 0x16, 0x1A}  # Numeric, Printable, T61, IA5, Visible
_WIDE_STRINGS = {0x0C: "utf-8", 0x1E: "utf-16-be", 0x1C: "utf-32-be"}


@dataclass(frozen=True, slots=True)
class CertificateFields:
    """What matching and verifying need of a certificate. All values are encodings as they stand in it."""

    serial: int
    issuer: bytes
    public_key: bytes
    """SubjectPublicKeyInfo."""
    key_identifier: bytes
    """From the extension; else the SHA-1 of the key's bits (RFC 5280 4.2.1.2 method 1)."""
    key_usage: int | None
    """The KeyUsage bits, first bit (digitalSignature) most significant of 16; None when there is no extension."""


@dataclass(frozen=True, slots=True)
class IssuerAndSerial:
    """A certificate named by its issuer and serial number."""

    issuer: bytes
    serial: int

    def matches(self, certificate: CertificateFields) -> bool:
        """Whether the certificate is meant."""
        return self.serial == certificate.serial and (
            self.issuer == certificate.issuer or _same_name(self.issuer, certificate.issuer)
        )

    def __str__(self) -> str:
        return f"serial {self.serial:x}"


@dataclass(frozen=True, slots=True)
class KeyIdentifier:
    """A certificate named by its subject key identifier."""

    value: bytes

    def matches(self, certificate: CertificateFields) -> bool:
        """Whether the certificate is meant; several may share one key identifier."""
        return self.value == certificate.key_identifier

    def __str__(self) -> str:
        return f"key identifier {self.value.hex()}"


CertificateIdentifier = IssuerAndSerial | KeyIdentifier


def read_identifier(element: Element, what: str) -> CertificateIdentifier:
    """Read the CHOICE of issuerAndSerialNumber and [0] subjectKeyIdentifier (a sid or a rid)."""
    if element.tag in (CONTEXT, CONTEXT | CONSTRUCTED):
        return KeyIdentifier(key_identifier_value(element))
    return issuer_and_serial(element.expect(SEQUENCE, what))


def issuer_and_serial(element: Element) -> IssuerAndSerial:
    """Read an IssuerAndSerialNumber."""
    if element.end - element.start > MAX_REMEMBERED_BYTES:
        return _read_issuer_and_serial(element)
    return _remembered_issuer_and_serial(element.encoded)


@lru_cache(maxsize=512)
def _remembered_issuer_and_serial(encoded: bytes) -> IssuerAndSerial:
    """Our own certificates are named in every message, and correspondents write again."""
    return _read_issuer_and_serial(Document(encoded).root())


def _read_issuer_and_serial(element: Element) -> IssuerAndSerial:
    cursor = element.open()
    name = cursor.take(SEQUENCE, "an issuer name")
    if len(name.raw) > MAX_NAME_BYTES:
        raise too_much(f"an issuer name is longer than {MAX_NAME_BYTES} bytes")
    serial = cursor.take(INTEGER, "a serial number").integer("a serial number")
    cursor.finish("an issuerAndSerialNumber")
    return IssuerAndSerial(bytes(name.raw), serial)


def key_identifier_value(element: Element) -> bytes:
    """Return a key identifier of bounded size."""
    value = element.octets()
    if len(value) > 256:
        raise too_much("a key identifier is longer than 256 bytes")
    return bytes(value)


@lru_cache(maxsize=256)
def certificate_fields(certificate: bytes) -> CertificateFields:
    """Read a certificate's DER.

    Raises:
        RejectionError: MALFORMED or RESOURCE_LIMIT.
    """
    # The check also bounds what the cache can hold: a rejection is never cached.
    if len(certificate) > MAX_CERTIFICATE_BYTES:
        raise too_much(f"a certificate is longer than {MAX_CERTIFICATE_BYTES} bytes")
    outer = Document(certificate).root().expect(SEQUENCE, "a certificate").open()
    body = outer.take(SEQUENCE, "a certificate's body").open()
    body.optional(CONTEXT | CONSTRUCTED)  # version
    serial = body.take(INTEGER, "a certificate's serial number").integer("a certificate's serial number")
    body.take(SEQUENCE, "a certificate's signature algorithm")
    issuer = body.take(SEQUENCE, "a certificate's issuer")
    body.take(SEQUENCE, "a certificate's validity")
    body.take(SEQUENCE, "a certificate's subject")
    public_key = body.take(SEQUENCE, "a certificate's public key")
    key_bits = public_key.open()
    key_bits.take(SEQUENCE, "a public key's algorithm")
    bits = key_bits.take(BIT_STRING, "a public key's bits").bit_string()
    body.optional(CONTEXT | 1, CONTEXT | CONSTRUCTED | 1)
    body.optional(CONTEXT | 2, CONTEXT | CONSTRUCTED | 2)
    extensions = body.optional(CONTEXT | CONSTRUCTED | 3)
    identifier, usage = _extensions(extensions) if extensions else (None, None)
    if identifier is None:
        identifier = hashlib.sha1(bits, usedforsecurity=False).digest()
    return CertificateFields(serial, bytes(issuer.raw), bytes(public_key.raw), identifier, usage)


def _extensions(wrapper: Element) -> tuple[bytes | None, int | None]:
    identifier: bytes | None = None
    usage: int | None = None
    for count, extension in enumerate(wrapper.open().take(SEQUENCE, "a certificate's extensions").open()):
        if count >= MAX_EXTENSIONS:
            raise too_much(f"a certificate has more than {MAX_EXTENSIONS} extensions")
        fields = extension.expect(SEQUENCE, "an extension").open()
        name = fields.take(OID, "an extension's name").oid("an extension's name")
        fields.optional(0x01)
        value = fields.take(OCTET_STRING, "an extension's value")
        if name == _SUBJECT_KEY_IDENTIFIER:
            identifier = key_identifier_value(Document(value.content).root().expect(OCTET_STRING, "a key identifier"))
        elif name == _KEY_USAGE:
            bits = Document(value.content).root().expect(BIT_STRING, "a key usage").content
            usage = int.from_bytes(bytes(bits[1:3]).ljust(2, b"\0"), "big")
    return identifier, usage


@lru_cache(maxsize=256)
def _canonical_name(name: bytes) -> tuple[frozenset[tuple[str, str | bytes]], ...]:
    """Return a Name as comparable sets: strings case-folded with their blanks collapsed, all else as encoded."""
    result = []
    seen = 0
    for rdn in Document(name).root().expect(SEQUENCE, "a name").open():
        attributes: set[tuple[str, str | bytes]] = set()
        for attribute in rdn.expect(SET, "a relative name").open():
            seen += 1
            if seen > MAX_NAME_ATTRIBUTES:
                raise too_much(f"a name has more than {MAX_NAME_ATTRIBUTES} attributes")
            fields = attribute.expect(SEQUENCE, "a name attribute").open()
            kind = fields.take(OID, "a name attribute's type").oid("a name attribute's type")
            attributes.add((kind, _canonical_value(fields.next("a name attribute's value"))))
        result.append(frozenset(attributes))
    return tuple(result)


def _canonical_value(value: Element) -> str | bytes:
    try:
        if value.tag in _SINGLE_BYTE_STRINGS:
            text = bytes(value.content).decode("latin-1")
        elif value.tag in _WIDE_STRINGS:
            text = bytes(value.content).decode(_WIDE_STRINGS[value.tag])
        else:
            return bytes(value.raw)
    except UnicodeDecodeError:
        return bytes(value.raw)
    return " ".join(text.split()).casefold()


def _same_name(one: bytes, other: bytes) -> bool:
    try:
        return _canonical_name(one) == _canonical_name(other)
    except RejectionError:  # A name that cannot be read is nobody's.
        return False
