"""What of a file anybody may have: certificates, revocation lists, certs-only CMS messages and public keys.

A name or a label is a promise of whoever made the file, and a private key may stand behind any of them: PKCS #12 in a
``.crt``, PKCS #8 in a ``.cer``, the printout of a key above a certificate. So everything is read as what it claims to
be, to its last byte, and what is not read is not given on.

Failure modes: none; whatever cannot be read is not public.
"""

from __future__ import annotations

import base64
import binascii
import re

from gateway.core.errors import InputError, RejectionError

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 #]{1,40})-----([A-Za-z0-9+/=\s]*)-----END \1-----")
_BEGIN = b"-----BEGIN "
_CERTIFICATES = frozenset({b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE"})
_LISTS = frozenset({b"X509 CRL", b"CRL"})
_BUNDLES = frozenset({b"PKCS7", b"CMS", b"PKCS #7 SIGNED DATA"})


def public_part(data: bytes) -> bytes | None:
    """The file as it is, or its PEM blocks without the text around them; None when anything in it is not public."""
    if data[:1] == b"\x30" or _BEGIN not in data:
        return data if _is_certificate(data) or _is_list(data) or _is_bundle(data) else None
    blocks = list(_BLOCK.finditer(data))
    if len(blocks) != data.count(_BEGIN) or not all(_is_public(block[1], block[2]) for block in blocks):
        return None
    if not _BLOCK.sub(b"", data).strip():
        return data
    # The text may be what openssl prints of a certificate, and may be what it prints of a private key.
    return b"".join(block[0] + b"\n" for block in blocks)


def _is_public(label: bytes, body: bytes) -> bool:
    try:
        der = base64.b64decode(b"".join(body.split()), validate=True)
    except binascii.Error:
        return False
    if label in _CERTIFICATES:
        return _is_certificate(der) or (label == b"TRUSTED CERTIFICATE" and _is_trusted_certificate(der))
    if label in _LISTS:
        return _is_list(der)
    if label in _BUNDLES:
        return _is_bundle(der)
    return label == b"PUBLIC KEY" and _is_public_key(der)


def _is_certificate(der: bytes) -> bool:
    from gateway.sta.certificates import Certificate, CertificateError  # noqa: PLC0415 - see gateway.cli.session

    try:
        Certificate(der)
    except CertificateError:
        return False
    return True


def _is_trusted_certificate(der: bytes) -> bool:
    """A certificate and what openssl adds: for which purposes it is trusted, and its name for people."""
    from gateway.sta.cms.ber import SEQUENCE, Document  # noqa: PLC0415 - see gateway.cli.session

    try:
        certificate = Document(der).element(0, len(der), 1).expect(SEQUENCE, "a certificate")
        Document(der[certificate.end :]).root().expect(SEQUENCE, "trust settings")
    except RejectionError:
        return False
    return _is_certificate(der[: certificate.end])


def _is_list(der: bytes) -> bool:
    from gateway.sta.revocation.crls import RevocationList  # noqa: PLC0415 - see gateway.cli.session

    try:
        RevocationList(der)
    except InputError:
        return False
    return True


def _is_bundle(der: bytes) -> bool:
    from gateway.sta.trust_anchors.certificate_files import read_certs_only  # noqa: PLC0415 - see gateway.cli.session

    try:
        members = read_certs_only(der).certificates
    except RejectionError:
        return False
    return bool(members) and all(map(_is_certificate, members))


def _is_public_key(der: bytes) -> bool:
    """A SubjectPublicKeyInfo (RFC 5280 section 4.1): a private key begins with a number instead."""
    from gateway.sta.cms.ber import BIT_STRING, SEQUENCE, Document  # noqa: PLC0415 - see gateway.cli.session

    try:
        fields = Document(der).root().expect(SEQUENCE, "a public key").open()
        fields.take(SEQUENCE, "a public key's algorithm")
        fields.take(BIT_STRING, "a public key's bits")
        fields.finish("a public key")
    except RejectionError:
        return False
    return True
