"""Certificates and other objects in files and replies: PEM, DER or BER, alone or in a certs-only CMS message.

In a folder, ``.pem .crt .cer .der .p7b .p7c`` are read, each in any of the forms. A PEM file may hold other things and
text between them.

Guarantees: linear time and bounded numbers, whatever the bytes are. A file that was cut short is refused, never read as
a smaller one. What is found is only cut out; it says nothing about trust.

Failure modes: ``ValueError`` for bytes in none of the forms (``RejectionError`` from :func:`read_certs_only`);
``ConfigurationError``, with the name, for files.
"""

from __future__ import annotations

import base64
import binascii
import re
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from gateway.core.errors import ConfigurationError, RejectionError
from gateway.sta.certificates import Certificate, CertificateError
from gateway.sta.cms.ber import CONSTRUCTED, CONTEXT, INTEGER, OCTET_STRING, OID, SEQUENCE, SET, Document
from gateway.sta.cms.content_info import SIGNED_DATA, open_content

CERTIFICATE_SUFFIXES = frozenset({".pem", ".crt", ".cer", ".der", ".p7b", ".p7c"})
CERTIFICATE_LABELS = frozenset({b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE"})
CMS_LABELS = frozenset({b"PKCS7", b"CMS", b"PKCS #7 SIGNED DATA"})
MAX_CERTIFICATE_FILE_BYTES = 16 * 1024 * 1024
MAX_CERTIFICATES = 4_096
"""In one CMS message."""
MAX_PEM_BLOCKS = 32_768
_MARK = re.compile(rb"-----(BEGIN|END) ([A-Z0-9 #]{1,40})-----")


class CertsOnly(NamedTuple):
    """What a certs-only CMS message holds."""

    certificates: list[bytes]
    """Each member as it stands, be it no certificate of the plain form."""
    content: bytes
    """Of the message, when that is an octet string; publishers of bundles put metadata there."""
    is_signed: bool
    """Whether somebody signed it after all."""


def read_certificates(path: Path) -> list[Certificate]:
    """Return the certificates of one file; none when its suffix is not that of a certificate file.

    Raises:
        ConfigurationError: unreadable, or in none of the forms.
    """
    if path.suffix.lower() not in CERTIFICATE_SUFFIXES:
        return []
    try:
        if path.stat().st_size > MAX_CERTIFICATE_FILE_BYTES:
            raise ConfigurationError(f"{path} is too large for a certificate file")
        data = path.read_bytes()
    except OSError as exc:
        raise ConfigurationError(f"cannot read {path}: {exc.strerror}") from exc
    try:
        return [Certificate(der) for der in certificate_ders(data)]
    except (CertificateError, ValueError) as exc:
        raise ConfigurationError(f"{path} holds no readable certificate: {exc}") from None


def is_passed_over(path: Path) -> bool:
    """Whether :func:`read_certificates` reads nothing of the file for its suffix, although it holds a certificate.

    Raises nothing: a file that cannot be read, or is damaged, is no certificate file under such a name.
    """
    if path.suffix.lower() in CERTIFICATE_SUFFIXES:
        return False
    try:
        if path.stat().st_size > MAX_CERTIFICATE_FILE_BYTES:
            return False
        return any(map(Certificate, certificate_ders(path.read_bytes())))
    except (OSError, ValueError):
        return False


def certificate_ders(data: bytes) -> list[bytes]:
    """Find certificates in a file, or in the answer to a caIssuers request (RFC 5280 4.2.2.1; AS-66).

    A PEM file that holds other things (a key, a CRL) and no certificate yields none.

    Raises:
        ValueError: none of the forms.
    """
    blocks = pem_blocks(data)
    if blocks is None:
        return _one_or_many(data)
    found: list[bytes] = []
    for label, der in blocks:
        if label in CERTIFICATE_LABELS:
            found.append(der)
        elif label in CMS_LABELS:
            found += _many(der)
    return found


def pem_blocks(data: bytes) -> list[tuple[bytes, bytes]] | None:
    """Label and decoded content of each PEM block; None when the data is not PEM at all.

    Raises:
        ValueError: a block has no end, or is not base64.
    """
    if data[:1] == b"\x30" or b"-----BEGIN " not in data:
        return None
    blocks: list[tuple[bytes, bytes]] = []
    begun: re.Match[bytes] | None = None
    for mark in _MARK.finditer(data):
        if (mark[1] == b"BEGIN") != (begun is None):
            raise ValueError("damaged PEM: a block has no end, or no beginning")
        if begun is None:
            begun = mark
            continue
        if len(blocks) >= MAX_PEM_BLOCKS:
            raise ValueError(f"more than {MAX_PEM_BLOCKS} PEM blocks")
        body = data[begun.end() : mark.start()]
        if begun[2] != mark[2]:
            raise ValueError("damaged PEM: a block ends as another began")
        begun = None
        # Encapsulated headers mark an encrypted key of the old form: not a certificate, nothing to decode.
        if b":" not in body:
            blocks.append((mark[2], _decoded(body)))
    if begun is not None:
        # What a broken transfer leaves; to skip it would take certificates away.
        raise ValueError("damaged PEM: a block has no end")
    return blocks


def read_certs_only(der: bytes, limit: int = MAX_CERTIFICATES + 1) -> CertsOnly:
    """Read a SignedData for the sake of its certificates (RFC 5652 section 5.1), of which at most ``limit`` are taken.

    Raises:
        RejectionError: it is no SignedData.
    """
    fields = open_content(der, SIGNED_DATA)[1].expect(SEQUENCE, "the bundle").open()
    fields.take(INTEGER, "the bundle's version")
    fields.take(SET, "the bundle's digest algorithms")
    encapsulated = fields.take(SEQUENCE, "the bundle's content").open()
    encapsulated.take(OID, "the bundle's content type")
    wrapper = encapsulated.optional(CONTEXT | CONSTRUCTED)
    encapsulated.finish("the bundle's content")
    members = fields.optional(CONTEXT | CONSTRUCTED)
    fields.optional(CONTEXT | CONSTRUCTED | 1)
    is_signed = fields.take(SET, "the bundle's signers").open().more
    fields.finish("the bundle")
    found = [] if members is None else [bytes(element.raw) for element in islice(members.open(), limit)]
    if wrapper is None:
        return CertsOnly(found, b"", is_signed)
    inside = wrapper.open()
    content = inside.next("the bundle's content")
    inside.finish("the bundle's content")
    is_plain = content.tag & ~CONSTRUCTED == OCTET_STRING
    return CertsOnly(found, bytes(content.octets()) if is_plain else b"", is_signed)


def is_cms(der: bytes) -> bool:
    """Whether it is a CMS message and no certificate: it begins with an object identifier, not with a body.

    Raises:
        RejectionError: it is neither.
    """
    return Document(der).root().expect(SEQUENCE, "a certificate or CMS message").open().peek() == OID


def _decoded(body: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(body.split()), validate=True)
    except binascii.Error:
        raise ValueError("damaged PEM") from None


def _one_or_many(data: bytes) -> list[bytes]:
    try:
        return _many(data) if is_cms(data) else [bytes(Document(data).root().raw)]
    except RejectionError as exc:
        raise ValueError(f"neither PEM nor DER: {exc.detail}") from None


def _many(der: bytes) -> list[bytes]:
    """The plain certificates of a CMS message, whoever signed it."""
    try:
        members = read_certs_only(der).certificates
    except RejectionError as exc:
        raise ValueError(f"the bundle cannot be read: {exc.detail}") from None
    if len(members) > MAX_CERTIFICATES:
        raise ValueError(f"the bundle holds more than {MAX_CERTIFICATES} certificates")
    found = [member for member in members if member[0] == SEQUENCE]
    if not found:
        raise ValueError("the bundle holds no certificate")
    return found
