"""EnvelopedData and AuthEnvelopedData made from primitives, each part replaceable, for what no stack will make.

Independent of the gateway's reader and writer: a mistake that both shared would not show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, x25519
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from tests.support.der_forge import NULL, algorithm, integer, octets, oid, seq, tlv
from tests.support.forge_names import (
    AUTH_ENVELOPED_DATA,
    CBC,
    CCM,
    CHACHA,
    DATA,
    DIGEST_OIDS,
    ENVELOPED_DATA,
    GCM,
    HASHES,
    HKDFS,
    MGF1,
    OAEP,
    P_SPECIFIED,
    RSA,
    WRAP,
    X963,
    issuer_and_serial,
    key_identifier,
)
from tests.support.pki import Identity


@dataclass(frozen=True)
class Encrypted:
    """Encrypted content with its AlgorithmIdentifier; ``tag`` of an AEAD."""

    algorithm: bytes
    content: bytes
    tag: bytes | None = None
    attributes: bytes = b""
    """The authenticated attributes as elements of a SET."""


def cbc(key: bytes, plain: bytes, *, pad: bool = True, iv: bytes = bytes(range(16))) -> Encrypted:
    if pad:
        size = 16 - len(plain) % 16
        plain += bytes((size,)) * size
    context = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return Encrypted(algorithm(CBC[len(key)], octets(iv)), context.update(plain) + context.finalize())


def gcm(
    key: bytes, plain: bytes, *, tag_bytes: int = 16, attributes: bytes = b"", nonce: bytes = bytes(12)
) -> Encrypted:
    sealed = AESGCM(key).encrypt(nonce, plain, tlv(0x31, attributes) if attributes else b"")
    parameters = seq(octets(nonce), integer(tag_bytes))
    return Encrypted(algorithm(GCM[len(key)], parameters), sealed[:-16], sealed[-16:][:tag_bytes], attributes)


def ccm(key: bytes, plain: bytes) -> Encrypted:
    sealed = AESCCM(key).encrypt(bytes(12), plain, b"")
    return Encrypted(algorithm(CCM[len(key)], seq(octets(bytes(12)), integer(16))), sealed[:-16], sealed[-16:])


def chacha(key: bytes, plain: bytes) -> Encrypted:
    sealed = ChaCha20Poly1305(key).encrypt(bytes(12), plain, b"")
    return Encrypted(algorithm(CHACHA, octets(bytes(12))), sealed[:-16], sealed[-16:])


def ktri(certificate: x509.Certificate, wrapped: bytes, how: bytes, *, ski: bool = False) -> bytes:
    """KeyTransRecipientInfo."""
    rid = tlv(0x80, key_identifier(certificate)) if ski else issuer_and_serial(certificate)
    return seq(integer(2 if ski else 0), rid, how, octets(wrapped))


def v15(to: Identity, key: bytes, *, ski: bool = False) -> bytes:
    public: Any = to.certificate.public_key()
    return ktri(to.certificate, public.encrypt(key, padding.PKCS1v15()), algorithm(RSA, NULL), ski=ski)


def oaep_parameters(digest: str | None, mgf: str | None, label: bytes) -> bytes:
    """RSAES-OAEP-params; what is None is left out."""
    fields = b""
    if digest is not None:
        fields += tlv(0xA0, algorithm(DIGEST_OIDS[digest], NULL))
    if mgf is not None:
        fields += tlv(0xA1, algorithm(MGF1, algorithm(DIGEST_OIDS[mgf], NULL)))
    if label:
        fields += tlv(0xA2, algorithm(P_SPECIFIED, octets(label)))
    return seq(fields)


def oaep(
    to: Identity,
    key: bytes,
    digest: str = "sha256",
    mgf: str | None = None,
    label: bytes = b"",
    *,
    told: bytes | None = None,
) -> bytes:
    """An entry with OAEP; ``told`` replaces what the parameters say."""
    public: Any = to.certificate.public_key()
    mode = padding.OAEP(padding.MGF1(HASHES[mgf or digest]), HASHES[digest], label or None)
    parameters = oaep_parameters(digest, mgf or digest, label) if told is None else told
    return ktri(to.certificate, public.encrypt(key, mode), algorithm(OAEP, parameters))


def shared_info(wrap: bytes, size: int, ukm: bytes | None = None) -> bytes:
    """ECC-CMS-SharedInfo of RFC 5753."""
    entity = b"" if ukm is None else tlv(0xA0, octets(ukm))
    return seq(wrap, entity, tlv(0xA2, octets((size * 8).to_bytes(4, "big"))))


def kari(
    to: Identity,
    key: bytes,
    *,
    kdf: str = "sha256",
    wrap_bytes: int = 32,
    ukm: bytes | None = None,
    ski: bool = False,
    point: bytes | None = None,
    wrap_oid: str | None = None,
    originator: bytes | None = None,
    with_curve: bool = False,
) -> bytes:
    """KeyAgreeRecipientInfo for a key on a curve or X25519; ``point`` and ``originator`` replace the honest ones."""
    public: Any = to.certificate.public_key()
    wrap = algorithm(wrap_oid or WRAP[wrap_bytes])
    info = shared_info(wrap, wrap_bytes, ukm)
    if isinstance(public, x25519.X25519PublicKey):
        ephemeral: Any = x25519.X25519PrivateKey.generate()
        secret = ephemeral.exchange(public)
        own = ephemeral.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        curve = algorithm("1.3.101.110")
        scheme = HKDFS[kdf]
        wrapping = HKDF(HASHES[kdf], wrap_bytes, salt=None, info=info).derive(secret)
    else:
        ephemeral = ec.generate_private_key(public.curve)
        secret = ephemeral.exchange(ec.ECDH(), public)
        form = serialization.PublicFormat.UncompressedPoint
        own = ephemeral.public_key().public_bytes(serialization.Encoding.X962, form)
        named = {"secp256r1": "1.2.840.10045.3.1.7", "secp384r1": "1.3.132.0.34", "secp521r1": "1.3.132.0.35"}
        curve = algorithm("1.2.840.10045.2.1", *([oid(named[public.curve.name])] if with_curve else []))
        scheme = X963[kdf]
        wrapping = X963KDF(HASHES[kdf], wrap_bytes, sharedinfo=info).derive(secret)
    rid = tlv(0xA0, octets(key_identifier(to.certificate))) if ski else issuer_and_serial(to.certificate)
    from_ = tlv(0xA1, curve, tlv(0x03, b"\0" + (own if point is None else point))) if originator is None else originator
    return tlv(
        0xA1,
        integer(3),
        tlv(0xA0, from_),
        b"" if ukm is None else tlv(0xA1, octets(ukm)),
        algorithm(scheme, wrap),
        seq(seq(rid, octets(aes_key_wrap(wrapping, key)))),
    )


def enveloped(entries: Sequence[bytes], encrypted: Encrypted, *, content_type: str = DATA, version: int = 2) -> bytes:
    """EnvelopedData, or AuthEnvelopedData when there is a tag."""
    info = seq(oid(content_type), encrypted.algorithm, tlv(0x80, encrypted.content))
    recipients = tlv(0x31, *entries)
    if encrypted.tag is None:
        body, kind = seq(integer(version), recipients, info), ENVELOPED_DATA
    else:
        attributes = tlv(0xA1, encrypted.attributes) if encrypted.attributes else b""
        body, kind = seq(integer(0), recipients, info, attributes, octets(encrypted.tag)), AUTH_ENVELOPED_DATA
    return seq(oid(kind), tlv(0xA0, body))
