"""Identifiers, keys and certificates for messages that are made by hand: nothing of the gateway's own code."""

from __future__ import annotations

import base64
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, x25519

from tests.support.der_forge import integer, seq
from tests.support.pki import Identity

DATA = "1.2.840.113549.1.7.1"
SIGNED_DATA = "1.2.840.113549.1.7.2"
ENVELOPED_DATA = "1.2.840.113549.1.7.3"
AUTH_ENVELOPED_DATA = "1.2.840.113549.1.9.16.1.23"
RSA = "1.2.840.113549.1.1.1"
OAEP = "1.2.840.113549.1.1.7"
PSS = "1.2.840.113549.1.1.10"
MGF1 = "1.2.840.113549.1.1.8"
P_SPECIFIED = "1.2.840.113549.1.1.9"
CONTENT_TYPE = "1.2.840.113549.1.9.3"
MESSAGE_DIGEST = "1.2.840.113549.1.9.4"
HASHES: dict[str, Any] = {
    "sha1": hashes.SHA1(),  # noqa: S303 - forbidden ones are wanted
    "sha224": hashes.SHA224(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
    "sha3_256": hashes.SHA3_256(),
    "md5": hashes.MD5(),  # noqa: S303
}
DIGEST_OIDS = {
    "md5": "1.2.840.113549.2.5",
    "sha1": "1.3.14.3.2.26",
    "sha224": "2.16.840.1.101.3.4.2.4",
    "sha256": "2.16.840.1.101.3.4.2.1",
    "sha384": "2.16.840.1.101.3.4.2.2",
    "sha512": "2.16.840.1.101.3.4.2.3",
    "sha3_256": "2.16.840.1.101.3.4.2.8",
}
SIGNATURE_OIDS = {
    ("rsa", "sha1"): "1.2.840.113549.1.1.5",
    ("rsa", "md5"): "1.2.840.113549.1.1.4",
    ("rsa", "sha224"): "1.2.840.113549.1.1.14",
    ("rsa", "sha256"): "1.2.840.113549.1.1.11",
    ("rsa", "sha384"): "1.2.840.113549.1.1.12",
    ("rsa", "sha512"): "1.2.840.113549.1.1.13",
    ("rsa", "sha3_256"): "2.16.840.1.101.3.4.3.14",
    ("ec", "sha1"): "1.2.840.10045.4.1",
    ("ec", "sha224"): "1.2.840.10045.4.3.1",
    ("ec", "sha256"): "1.2.840.10045.4.3.2",
    ("ec", "sha384"): "1.2.840.10045.4.3.3",
    ("ec", "sha512"): "1.2.840.10045.4.3.4",
    ("ec", "sha3_256"): "2.16.840.1.101.3.4.3.10",
    ("dsa", "sha256"): "2.16.840.1.101.3.4.3.2",
}
CBC = {16: "2.16.840.1.101.3.4.1.2", 24: "2.16.840.1.101.3.4.1.22", 32: "2.16.840.1.101.3.4.1.42"}
GCM = {16: "2.16.840.1.101.3.4.1.6", 24: "2.16.840.1.101.3.4.1.26", 32: "2.16.840.1.101.3.4.1.46"}
CCM = {16: "2.16.840.1.101.3.4.1.7", 24: "2.16.840.1.101.3.4.1.27", 32: "2.16.840.1.101.3.4.1.47"}
WRAP = {16: "2.16.840.1.101.3.4.1.5", 24: "2.16.840.1.101.3.4.1.25", 32: "2.16.840.1.101.3.4.1.45"}
CHACHA = "1.2.840.113549.1.9.16.3.18"
X963 = {
    "sha1": "1.3.133.16.840.63.0.2",
    "sha224": "1.3.132.1.11.0",
    "sha256": "1.3.132.1.11.1",
    "sha384": "1.3.132.1.11.2",
    "sha512": "1.3.132.1.11.3",
}
HKDFS = {
    "sha256": "1.2.840.113549.1.9.16.3.19",
    "sha384": "1.2.840.113549.1.9.16.3.20",
    "sha512": "1.2.840.113549.1.9.16.3.21",
}


def der_of(identity: Identity) -> bytes:
    """The certificate."""
    return identity.certificate.public_bytes(serialization.Encoding.DER)


def issuer_and_serial(certificate: x509.Certificate) -> bytes:
    return seq(certificate.issuer.public_bytes(), integer(certificate.serial_number))


@cache
def other_key(kind: str) -> Any:
    """One key of a kind that ``tests.support.pki`` does not make."""
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind == "ed448":
        return ed448.Ed448PrivateKey.generate()
    if kind == "x25519":
        return x25519.X25519PrivateKey.generate()
    curves: dict[str, ec.EllipticCurve] = {
        "p256": ec.SECP256R1(),
        "p384": ec.SECP384R1(),
        "p521": ec.SECP521R1(),
        "brainpool": ec.BrainpoolP256R1(),
        "k256": ec.SECP256K1(),
        "p224": ec.SECP224R1(),
    }
    return ec.generate_private_key(curves[kind])


def key_identifier(certificate: x509.Certificate) -> bytes:
    """From the extension, else method 1 of RFC 5280 4.2.1.2."""
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        return x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest


def armour(der: bytes) -> bytes:
    return base64.encodebytes(der).replace(b"\n", b"\r\n")
