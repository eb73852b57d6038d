"""Writes SignedData and EnvelopedData, DER only (RFC 5652, RFC 8551 section 2; the algorithm matrix, send).

Guarantees: signed attributes always stand there, with contentType, signingTime, messageDigest, SMIMECapabilities
and signingCertificateV2; each content has a fresh AES-256 key and vector; RSA signers use PKCS#1 v1.5 with
SHA-256, EC signers ECDSA with the hash of their curve, Ed25519 signers SHA-512.

A signature is made through the :class:`gateway.ports.KeyOps` port, so the key may lie in a file or on a token and its
material never comes here.

Failure modes: :class:`InputError` for a key or certificate that cannot do its part; what the key raises (a token that
cannot be reached: :class:`KeyUnavailableError`) goes through.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from gateway.core.errors import InputError
from gateway.ports import KeyOps
from gateway.sta.algorithm_policy import ED25519, MGF1, RSA_BITS_FLOOR, RSA_ENCRYPTION, SIGNING_CURVES
from gateway.sta.cms.ber import BIT_STRING, SEQUENCE, Document
from gateway.sta.cms.content_info import DATA, ENVELOPED_DATA, SIGNED_DATA
from gateway.sta.cms.der import NULL, integer, octet_string, oid, sequence, set_of, tlv
from gateway.sta.cms.identifiers import certificate_fields
from gateway.sta.cms.signed_attributes import CONTENT_TYPE, MESSAGE_DIGEST, SIGNING_CERTIFICATE_V2, SIGNING_TIME

SMIME_CAPABILITIES = "1.2.840.113549.1.9.15"
_AES_256_CBC = "2.16.840.1.101.3.4.1.42"
_AES_128_CBC = "2.16.840.1.101.3.4.1.2"
_AES_256_WRAP = "2.16.840.1.101.3.4.1.45"
_RSAES_OAEP = "1.2.840.113549.1.1.7"
_ECDH_SHA256 = "1.3.132.1.11.1"
_SHA256 = "2.16.840.1.101.3.4.2.1"
_DIGEST_OIDS = {"sha256": _SHA256, "sha384": "2.16.840.1.101.3.4.2.2", "sha512": "2.16.840.1.101.3.4.2.3"}
_ECDSA_OIDS = {"sha256": "1.2.840.10045.4.3.2", "sha384": "1.2.840.10045.4.3.3"}
RSA_V15 = "rsa-pkcs1v15"
RSA_OAEP = "rsa-oaep-sha256"


@dataclass(frozen=True, slots=True)
class OutgoingSigner:
    """Who signs: a key with its certificate, how it signs, and the certificates sent along (AS-26, AS-28)."""

    key: KeyOps
    digest: str
    """sha256, sha384 or sha512."""
    algorithm: bytes
    """AlgorithmIdentifier of the signature, DER."""
    chain: tuple[bytes, ...] = ()
    """DER."""

    @classmethod
    def of(cls, key: KeyOps, chain: Sequence[bytes] = ()) -> OutgoingSigner:
        """Choose the algorithms by the kind of the certificate's key.

        Raises:
            InputError: the certificate cannot be read, or its key is of a kind, a size or a use that may not sign
                (AS-12).
        """
        try:
            public = x509.load_der_x509_certificate(key.certificate).public_key()
        except (ValueError, UnsupportedAlgorithm) as error:
            raise InputError("the signer's certificate cannot be read") from error
        if not isinstance(public, rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
            raise InputError("the signer's key must be RSA, EC or Ed25519")
        if not key.may_sign:
            raise InputError("the signer's certificate does not allow signatures; take the one for signing")
        if isinstance(public, ed25519.Ed25519PublicKey):
            return cls(key, "sha512", sequence(oid(ED25519)), tuple(chain))
        if isinstance(public, ec.EllipticCurvePublicKey):
            if public.curve.name not in SIGNING_CURVES:
                raise InputError("the signer's curve must be P-256 or P-384")
            digest = "sha384" if public.key_size > 256 else "sha256"
            return cls(key, digest, sequence(oid(_ECDSA_OIDS[digest])), tuple(chain))
        if public.key_size < RSA_BITS_FLOOR:
            raise InputError(f"the signer's RSA key is below {RSA_BITS_FLOOR} bits")
        return cls(key, "sha256", sequence(oid(RSA_ENCRYPTION), NULL), tuple(chain))

    @property
    def certificate(self) -> bytes:
        """DER of the signer's certificate."""
        return self.key.certificate

    def sign(self, signed: bytes) -> bytes:
        """Return the signature's value."""
        return self.key.sign(signed, digest=self.digest)


def _attribute(name: str, value: bytes) -> bytes:
    return sequence(oid(name), set_of([value]))


def _time(moment: datetime) -> bytes:
    utc = moment.astimezone(UTC)
    if 1950 <= utc.year < 2050:
        return tlv(0x17, utc.strftime("%y%m%d%H%M%SZ").encode())
    return tlv(0x18, utc.strftime("%Y%m%d%H%M%SZ").encode())


def _issuer_and_serial(certificate: bytes) -> bytes:
    fields = certificate_fields(certificate)
    return sequence(fields.issuer, integer(fields.serial))


def sign_detached(content: bytes, signer: OutgoingSigner, when: datetime) -> bytes:
    """Return a detached SignedData ContentInfo over the content (AS-25, AS-26). ``when`` is the signing time."""
    digest = sequence(oid(_DIGEST_OIDS[signer.digest]))
    fingerprint = octet_string(hashlib.sha256(signer.certificate).digest())
    capabilities = (sequence(oid(_AES_256_CBC)), sequence(oid(_AES_128_CBC)))
    attributes = (
        _attribute(CONTENT_TYPE, oid(DATA)),
        _attribute(SIGNING_TIME, _time(when)),
        _attribute(MESSAGE_DIGEST, octet_string(hashlib.new(signer.digest, content).digest())),
        _attribute(SMIME_CAPABILITIES, sequence(*capabilities)),
        _attribute(SIGNING_CERTIFICATE_V2, sequence(sequence(sequence(fingerprint)))),
    )
    info = sequence(
        integer(1),
        _issuer_and_serial(signer.certificate),
        digest,
        set_of(attributes, 0xA0),
        signer.algorithm,
        octet_string(signer.sign(set_of(attributes))),
    )
    certificates = dict.fromkeys((signer.certificate, *signer.chain))
    signed = sequence(integer(1), set_of([digest]), sequence(oid(DATA)), set_of(certificates, 0xA0), set_of([info]))
    return sequence(oid(SIGNED_DATA), tlv(0xA0, signed))


def encrypt(content: bytes, certificates: Sequence[bytes], key_transport: str = RSA_V15) -> bytes:
    """Return an EnvelopedData ContentInfo with AES-256-CBC for every certificate (DER) (AS-30, AS-33, AS-37).

    ``key_transport`` is for RSA recipients: ``rsa-pkcs1v15`` reaches every peer, ``rsa-oaep-sha256`` those known to
    read it. EC recipients get ECDH with the SHA-256 key derivation and AES-256 key wrap.

    Raises:
        InputError: no certificate, or one whose key cannot receive.
    """
    if not certificates:
        raise InputError("a message needs at least one recipient's certificate")
    key, vector = secrets.token_bytes(32), secrets.token_bytes(16)
    infos = [_recipient(certificate, key, key_transport) for certificate in dict.fromkeys(certificates)]
    agreement = any(info[0] == 0xA1 for info in infos)
    fill = 16 - len(content) % 16
    encryptor = Cipher(algorithms.AES(key), modes.CBC(vector)).encryptor()
    encrypted = b"".join((encryptor.update(content), encryptor.update(bytes((fill,)) * fill), encryptor.finalize()))
    encrypted_info = sequence(oid(DATA), sequence(oid(_AES_256_CBC), octet_string(vector)), tlv(0x80, encrypted))
    # Version 2 is due as soon as any entry is no plain issuerAndSerialNumber key transport (RFC 5652 section 6.1).
    enveloped = sequence(integer(2 if agreement else 0), set_of(infos), encrypted_info)
    return sequence(oid(ENVELOPED_DATA), tlv(0xA0, enveloped))


def _recipient(certificate: bytes, key: bytes, key_transport: str) -> bytes:
    try:
        public = x509.load_der_x509_certificate(certificate).public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InputError("a recipient's certificate cannot be read") from error
    if isinstance(public, rsa.RSAPublicKey) and public.key_size >= RSA_BITS_FLOOR:
        if key_transport == RSA_OAEP:
            digest = sequence(oid(_SHA256))
            parameters = sequence(tlv(0xA0, digest), tlv(0xA1, sequence(oid(MGF1), digest)))
            algorithm = sequence(oid(_RSAES_OAEP), parameters)
            wrapped = public.encrypt(key, padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None))
        elif key_transport == RSA_V15:
            algorithm = sequence(oid(RSA_ENCRYPTION), NULL)
            wrapped = public.encrypt(key, padding.PKCS1v15())
        else:
            raise InputError(f"unknown key transport {key_transport!r}")
        return sequence(integer(0), _issuer_and_serial(certificate), algorithm, octet_string(wrapped))
    if isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name in SIGNING_CURVES:
        return _agreement(certificate, public, key)
    raise InputError("a recipient's certificate has a key that cannot receive Direct messages")


def _agreement(certificate: bytes, public: ec.EllipticCurvePublicKey, key: bytes) -> bytes:
    """Return a KeyAgreeRecipientInfo with an ephemeral key (RFC 5753 section 3.1)."""
    ephemeral = ec.generate_private_key(public.curve)
    wrap = sequence(oid(_AES_256_WRAP))
    info = sequence(wrap, tlv(0xA2, octet_string((256).to_bytes(4, "big"))))
    derived = X963KDF(hashes.SHA256(), 32, sharedinfo=info).derive(ephemeral.exchange(ec.ECDH(), public))
    recipient = sequence(_issuer_and_serial(certificate), octet_string(aes_key_wrap(derived, key)))
    point = ephemeral.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    algorithm = Document(certificate_fields(certificate).public_key).root().open().take(SEQUENCE, "an algorithm").raw
    originator = tlv(0xA1, algorithm, tlv(BIT_STRING, b"\0", point))
    return tlv(0xA1, integer(3), tlv(0xA0, originator), sequence(oid(_ECDH_SHA256), wrap), sequence(recipient))
