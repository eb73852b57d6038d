"""Samples for the CMS tests: identities, the openssl command, and CMS structures built with asn1crypto.

asn1crypto is independent of the gateway's reader and writer, so that a shared mistake shows.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import algos, cms, core
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from gateway.keys.development_pki import DevelopmentCA, Issued
from gateway.keys.file_key import FileKey

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
TEXT = b"Content-Type: text/plain\r\n\r\nThe patient is well.\r\n"


@cache
def authority() -> DevelopmentCA:
    return DevelopmentCA.create("Test CA", now=NOW)


def identity(name: str, key_type: str = "rsa2048") -> Issued:
    """The one identity of that name and kind of key; keys are slow to make."""
    return _identity(name, key_type)


@cache
def _identity(name: str, key_type: str) -> Issued:
    issue = authority().issue_address if "@" in name else authority().issue_domain
    return issue(name, key_type=key_type)


RECIPIENT = "nurse@clinic.example.org"
SENDER = "doctor@practice.example.com"


def file_key(issued: Issued) -> FileKey:
    certificate = x509.load_pem_x509_certificate(issued.certificate_pem)
    key: Any = serialization.load_pem_private_key(issued.key_pem, None)
    return FileKey(issued.certificate_der, (), (), certificate.not_valid_before_utc, "test", key)


class OpenSSL:
    """The openssl command in a scratch folder, with the identities it is given as files there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def file(self, name: str, data: bytes) -> str:
        (self.directory / name).write_bytes(data)
        return name

    def identity(self, issued: Issued, name: str) -> tuple[str, str]:
        return self.file(f"{name}.cert.pem", issued.certificate_pem), self.file(f"{name}.key.pem", issued.key_pem)

    def run(self, *arguments: str, data: bytes = b"") -> bytes:
        done = subprocess.run(
            ["openssl", *arguments], cwd=self.directory, input=data, capture_output=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout

    def encrypt(self, content: bytes, *arguments: str) -> bytes:
        return self.run("cms", "-encrypt", "-binary", "-outform", "DER", *arguments, data=content)

    def sign(self, content: bytes, issued: Issued, *arguments: str) -> bytes:
        certificate, key = self.identity(issued, "signer")
        return self.run(
            "cms",
            "-sign",
            "-binary",
            "-outform",
            "DER",
            "-signer",
            certificate,
            "-inkey",
            key,
            *arguments,
            data=content,
        )


def openssl_or_skip(directory: Path) -> OpenSSL:
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command is not here")
    return OpenSSL(directory)


def pkcs1v15_sha256(key: Any, data: bytes) -> bytes:
    assert isinstance(key, rsa.RSAPrivateKey)
    return key.sign(data, padding.PKCS1v15(), hashes.SHA256())


def ecdsa_sha256(key: Any, data: bytes) -> bytes:
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


def eddsa(key: Any, data: bytes) -> bytes:
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    return key.sign(data)


def attribute(oid: str, *values: Any) -> bytes:
    """One attribute in DER, with exactly these values."""
    encoded = b"".join(value.dump() for value in values)
    kind: bytes = core.ObjectIdentifier(oid).dump()
    return tlv(0x30, kind, tlv(0x31, encoded))


def tlv(tag: int, *parts: bytes) -> bytes:
    """One DER element, written down a second time for the tests."""
    body = b"".join(parts)
    if len(body) < 128:
        return bytes((tag, len(body))) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + body


def content_type_attribute(oid: str = "1.2.840.113549.1.7.1") -> bytes:
    return attribute("1.2.840.113549.1.9.3", core.ObjectIdentifier(oid))


def digest_attribute(content: bytes, digest: str = "sha256") -> bytes:
    return attribute("1.2.840.113549.1.9.4", core.OctetString(hashlib.new(digest, content).digest()))


@dataclass
class Forge:
    """Builds a detached SignedData, each part of which a test may replace."""

    content: bytes = TEXT
    signer: Issued = field(default_factory=lambda: identity(SENDER))
    digest: str = "sha256"
    attributes: Sequence[bytes] | None = None
    """In wire order; None for the usual two; an empty sequence leaves them out."""
    sign_sorted: bool = True
    sign: Callable[[Any, bytes], bytes] = pkcs1v15_sha256
    signature_algorithm: dict[str, Any] = field(default_factory=lambda: {"algorithm": "rsassa_pkcs1v15"})
    key_identifier: bool = False
    certificates: Sequence[bytes] | None = None
    econtent: bytes | None = None
    digest_algorithms: Sequence[str] | None = None
    unsigned: bool = False
    extra_signers: Sequence[bytes] = ()

    def signer_info(self) -> bytes:
        certificate = asn1_x509.Certificate.load(self.signer.certificate_der)
        key = serialization.load_pem_private_key(self.signer.key_pem, None)
        attributes = self.attributes
        if attributes is None:
            attributes = (content_type_attribute(), digest_attribute(self.content, self.digest))
        if attributes:
            ordered = sorted(attributes) if self.sign_sorted else list(attributes)
            signed = tlv(0x31, *ordered)
        else:
            signed = self.content
        if self.key_identifier:
            sid = tlv(0x80, certificate.key_identifier)
        else:
            sid = cms.IssuerAndSerialNumber(
                {"issuer": certificate.issuer, "serial_number": certificate.serial_number}
            ).dump()
        parts = [core.Integer(1).dump(), sid, algos.DigestAlgorithm({"algorithm": self.digest}).dump()]
        if attributes:
            parts.append(tlv(0xA0, *attributes))
        parts.append(algos.SignedDigestAlgorithm(self.signature_algorithm).dump())
        parts.append(core.OctetString(self.sign(key, signed)).dump())
        return tlv(0x30, *parts)

    def build(self) -> bytes:
        listed = self.digest_algorithms if self.digest_algorithms is not None else (self.digest,)
        digests = tlv(0x31, *(algos.DigestAlgorithm({"algorithm": name}).dump() for name in listed))
        econtent = b"" if self.econtent is None else tlv(0xA0, core.OctetString(self.econtent).dump())
        encapsulated = tlv(0x30, core.ObjectIdentifier("1.2.840.113549.1.7.1").dump(), econtent)
        certificates = (self.signer.certificate_der,) if self.certificates is None else self.certificates
        signers = () if self.unsigned else (self.signer_info(), *self.extra_signers)
        signed = tlv(
            0x30,
            core.Integer(1).dump(),
            digests,
            encapsulated,
            tlv(0xA0, *certificates) if certificates else b"",
            tlv(0x31, *signers),
        )
        return tlv(0x30, core.ObjectIdentifier("1.2.840.113549.1.7.2").dump(), tlv(0xA0, signed))


def indefinite(der: bytes, depth: int = 3) -> bytes:
    """The same structure with the outermost ``depth`` levels of constructed elements in indefinite form."""
    tag = der[0]
    if not tag & 0x20 or depth == 0:
        return der
    out = bytearray((tag, 0x80))
    for child in children(der):
        out += indefinite(child, depth - 1)
    return bytes(out) + b"\0\0"


def children(der: bytes) -> list[bytes]:
    """The elements inside a DER element."""
    start, end = _body(der, 0)
    found = []
    while start < end:
        _, stop = _body(der, start)
        found.append(der[start:stop])
        start = stop
    return found


def _body(der: bytes, pos: int) -> tuple[int, int]:
    length = der[pos + 1]
    pos += 2
    if length >= 0x80:
        size = length & 0x7F
        length = int.from_bytes(der[pos : pos + size], "big")
        pos += size
    return pos, pos + length
