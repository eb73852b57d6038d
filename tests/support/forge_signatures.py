"""SignedData made from primitives, each part replaceable: attributes, algorithms, signatures, certificates.

Independent of the gateway's reader and writer: a mistake that both shared would not show.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed448, padding, rsa

from tests.support.der_forge import NULL, algorithm, integer, octets, oid, seq, set_of, tlv
from tests.support.forge_names import (
    CONTENT_TYPE,
    DATA,
    DIGEST_OIDS,
    HASHES,
    MESSAGE_DIGEST,
    MGF1,
    PSS,
    SIGNATURE_OIDS,
    SIGNED_DATA,
    armour,
    der_of,
    issuer_and_serial,
    key_identifier,
)
from tests.support.pki import Identity


def attribute(dotted: str, *values: bytes) -> bytes:
    return seq(oid(dotted), tlv(0x31, *values))


def usual_attributes(content: bytes, digest: str = "sha256", content_type: str = DATA) -> list[bytes]:
    """contentType and messageDigest."""
    value = hashlib.new(digest, content).digest()
    return [attribute(CONTENT_TYPE, oid(content_type)), attribute(MESSAGE_DIGEST, octets(value))]


def pss_parameters(digest: str, mgf: str, salt: int) -> bytes:
    return seq(
        tlv(0xA0, algorithm(DIGEST_OIDS[digest], NULL)),
        tlv(0xA1, algorithm(MGF1, algorithm(DIGEST_OIDS[mgf], NULL))),
        tlv(0xA2, integer(salt)),
    )


@dataclass
class Signing:
    """One SignerInfo to be; each part of it can be replaced."""

    by: Identity
    digest: str = "sha256"
    pss: bool = False
    salt: int | None = None
    attributes: Sequence[bytes] | None = None
    """In wire order; None for the usual two, an empty sequence for none at all."""
    extra: Sequence[bytes] = ()
    sign: Callable[[bytes], bytes] | None = None
    signature_algorithm: bytes | None = None
    ski: bool = False
    sid: bytes | None = None
    content_type: str = DATA

    def info(self, content: bytes) -> bytes:
        """The SignerInfo over the content."""
        attributes = self.attributes
        if attributes is None:
            attributes = sorted([*usual_attributes(content, self.digest, self.content_type), *self.extra])
        signed = set_of(*attributes) if attributes else content
        certificate = self.by.certificate
        sid = self.sid
        if sid is None:
            sid = tlv(0x80, key_identifier(certificate)) if self.ski else issuer_and_serial(certificate)
        return seq(
            integer(3 if self.ski else 1),
            sid,
            algorithm(DIGEST_OIDS[self.digest]),
            tlv(0xA0, *attributes) if attributes else b"",
            self.signature_algorithm or self._algorithm(),
            octets((self.sign or self._sign)(signed)),
        )

    def _algorithm(self) -> bytes:
        key: Any = self.by.key
        if self.pss:
            return algorithm(PSS, pss_parameters(self.digest, self.digest, self._salt()))
        if isinstance(key, rsa.RSAPrivateKey):
            return algorithm(SIGNATURE_OIDS["rsa", self.digest], NULL)
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return algorithm(SIGNATURE_OIDS["ec", self.digest])
        return algorithm("1.3.101.113" if isinstance(key, ed448.Ed448PrivateKey) else "1.3.101.112")

    def _salt(self) -> int:
        return HASHES[self.digest].digest_size if self.salt is None else self.salt

    def _sign(self, data: bytes) -> bytes:
        key: Any = self.by.key
        named = HASHES[self.digest]
        if self.pss:
            return key.sign(data, padding.PSS(padding.MGF1(named), self._salt()), named)  # type: ignore[no-any-return]
        if isinstance(key, rsa.RSAPrivateKey):
            return key.sign(data, padding.PKCS1v15(), named)
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return key.sign(data, ec.ECDSA(named))
        return key.sign(data)  # type: ignore[no-any-return]


@dataclass
class Signed:
    """A SignedData to be."""

    content: bytes
    signers: Sequence[Signing | bytes] = field(default_factory=list)
    """Ready SignerInfos may stand among them."""
    certificates: Sequence[bytes] | None = None
    """None: those of the signers."""
    opaque: bool = False
    crls: Sequence[bytes] = ()
    econtent_type: str = DATA
    digests: Sequence[str] | None = None
    """The digestAlgorithms; None: those of the signers."""

    def der(self) -> bytes:
        """The ContentInfo."""
        specs = [one for one in self.signers if isinstance(one, Signing)]
        infos = [one.info(self.content) if isinstance(one, Signing) else one for one in self.signers]
        certificates = self.certificates
        if certificates is None:
            certificates = list(dict.fromkeys(der_of(one.by) for one in specs))
        named = [one.digest for one in specs] if self.digests is None else self.digests
        digests = dict.fromkeys(algorithm(DIGEST_OIDS[one]) for one in named)
        body = seq(
            integer(1),
            tlv(0x31, *digests),
            seq(oid(self.econtent_type), tlv(0xA0, octets(self.content)) if self.opaque else b""),
            tlv(0xA0, *certificates) if certificates else b"",
            tlv(0xA1, *self.crls) if self.crls else b"",
            tlv(0x31, *infos),
        )
        return seq(oid(SIGNED_DATA), tlv(0xA0, body))

    def entity(self) -> bytes:
        """The MIME entity: multipart/signed, or application/pkcs7-mime when opaque."""
        return opaque_entity(self.der()) if self.opaque else multipart_signed(self.content, self.der())


BOUNDARY = b"=_forge_boundary_7"


def multipart_signed(content: bytes, signature: bytes) -> bytes:
    return (
        b'Content-Type: multipart/signed; protocol="application/pkcs7-signature"; micalg=sha-256;\r\n boundary="'
        + BOUNDARY
        + b'"\r\n\r\n--'
        + BOUNDARY
        + b"\r\n"
        + content
        + b"\r\n--"
        + BOUNDARY
        + b"\r\nContent-Type: application/pkcs7-signature; name=smime.p7s\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + armour(signature)
        + b"--"
        + BOUNDARY
        + b"--\r\n"
    )


def opaque_entity(der: bytes) -> bytes:
    head = b"Content-Type: application/pkcs7-mime; smime-type=signed-data; name=smime.p7m\r\n"
    return head + b"Content-Transfer-Encoding: base64\r\n\r\n" + armour(der)
