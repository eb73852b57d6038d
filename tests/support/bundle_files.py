"""Trust bundles as publishers make them, built with ``asn1crypto`` and ``cryptography``: nothing of our own reader."""

from __future__ import annotations

import base64
import hashlib
import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

from asn1crypto import cms as asn1_cms
from asn1crypto import core as asn1_core
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

from tests.support.pki import Identity, Key, ec_key, rsa_key

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
_serials = itertools.count(50_000)
_DIGESTS = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256()}  # noqa: S303 - a forbidden one is wanted


def certificate(
    subject: str,
    *,
    key: Key | None = None,
    is_ca: bool | None = True,
    begins: datetime = NOW - timedelta(days=100),
    ends: datetime = NOW + timedelta(days=1000),
    cert_sign: bool | None = None,
) -> Identity:
    """A self-signed certificate. ``is_ca`` None: without basic constraints."""
    key = key or ec_key(1)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(next(_serials))
        .not_valid_before(begins)
        .not_valid_after(ends)
    )
    if is_ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    if cert_sign is not None:
        usage = x509.KeyUsage(True, False, False, False, False, cert_sign, False, False, False)
        builder = builder.add_extension(usage, critical=True)
    return Identity(builder.sign(key, hashes.SHA256()), key)


@cache
def anchor(number: int) -> Identity:
    """One of any number of good anchors; the same number gives the same one."""
    return certificate(f"Anchor {number}")


def publisher(slot: int = 1) -> Identity:
    """Who signs bundles; the same slot gives the same one."""
    return _publisher(slot)


@cache
def _publisher(slot: int) -> Identity:
    return certificate(f"Publisher {slot}", key=rsa_key(600 + slot), is_ca=False)


def der(identity: Identity) -> bytes:
    """The certificate, DER."""
    return identity.certificate.public_bytes(serialization.Encoding.DER)


def ders(*identities: Identity) -> list[bytes]:
    """The certificates, DER."""
    return [der(one) for one in identities]


def pem(*identities: Identity) -> bytes:
    """The certificates in one PEM file."""
    return b"".join(one.certificate_pem for one in identities)


def p7b(*certificates: Identity | bytes, content: bytes | None = None) -> bytes:
    """A certs-only message, DER; ``content`` stands where the metadata stands."""
    members = [one if isinstance(one, bytes) else der(one) for one in certificates]
    inside = b"" if content is None else tlv(0xA0, tlv(0x04, content))
    encapsulated = tlv(0x30, bytes.fromhex("06092a864886f70d010701"), inside)
    # Neither sorted nor encoded again, as bundles are that are published.
    return _content_info(tlv(0x30, b"\x02\x01\x01", b"\x31\x00", encapsulated, tlv(0xA0, *members), b"\x31\x00"))


def tlv(tag: int, *content: bytes) -> bytes:
    """One DER element."""
    body = b"".join(content)
    size = len(body)
    if size < 0x80:
        return bytes([tag, size]) + body
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + body


def indefinite(tag: int, *content: bytes) -> bytes:
    """One BER element of indefinite length."""
    return bytes([tag, 0x80]) + b"".join(content) + b"\0\0"


def _content_info(signed_data: bytes) -> bytes:
    return tlv(0x30, bytes.fromhex("06092a864886f70d010702"), tlv(0xA0, signed_data))


def ber_p7b(*certificates: Identity) -> bytes:
    """A certs-only message as Bouncy Castle writes it: every length indefinite."""
    data = indefinite(0x30, bytes.fromhex("06092a864886f70d010701"))
    signed = indefinite(0x30, b"\x02\x01\x01", b"\x31\x00", data, indefinite(0xA0, *ders(*certificates)), b"\x31\x00")
    return indefinite(0x30, bytes.fromhex("06092a864886f70d010702"), indefinite(0xA0, signed))


@dataclass(frozen=True)
class Signing:
    """How a bundle is signed."""

    at: datetime | None = NOW - timedelta(hours=1)
    digest: str = "sha256"
    attributes: bool = True
    extra: tuple[Identity, ...] = ()
    """Certificates beside that of the signer."""


def p7m(content: bytes | None, *signers: Identity, how: Signing = Signing()) -> bytes:
    """A signed bundle, DER: SignedData around the content. None: a detached signature over nothing that is there."""
    infos = [_signer_info(content or b"", one, how) for one in signers]
    signed = asn1_cms.SignedData(
        {
            "version": "v1",
            "digest_algorithms": [{"algorithm": how.digest}],
            "encap_content_info": {"content_type": "data"}
            if content is None
            else {"content_type": "data", "content": content},
            "certificates": [asn1_x509.Certificate.load(one) for one in ders(*signers, *how.extra)],
            "signer_infos": infos,
        }
    )
    return bytes(asn1_cms.ContentInfo({"content_type": "signed_data", "content": signed}).dump())


def _signer_info(content: bytes, signer: Identity, how: Signing) -> asn1_cms.SignerInfo:
    loaded = asn1_x509.Certificate.load(der(signer))
    attributes = [
        {"type": "content_type", "values": ["data"]},
        {"type": "message_digest", "values": [hashlib.new(how.digest, content).digest()]},
    ]
    if how.at is not None:
        attributes.append({"type": "signing_time", "values": [asn1_cms.Time("utc_time", asn1_core.UTCTime(how.at))]})
    signed_attributes = asn1_cms.CMSAttributes(attributes)
    covered = signed_attributes.dump() if how.attributes else content
    is_rsa = isinstance(signer.key, rsa.RSAPrivateKey)
    values: dict[str, object] = {
        "version": "v1",
        "sid": {"issuer_and_serial_number": {"issuer": loaded.issuer, "serial_number": loaded.serial_number}},
        "digest_algorithm": {"algorithm": how.digest},
        "signature_algorithm": {"algorithm": "rsassa_pkcs1v15" if is_rsa else f"{how.digest}_ecdsa"},
        "signature": _sign(signer.key, covered, how.digest),
    }
    if how.attributes:
        values["signed_attrs"] = signed_attributes
    return asn1_cms.SignerInfo(values)


def _sign(key: Key, data: bytes, digest: str) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), _DIGESTS[digest])
    return key.sign(data, ec.ECDSA(_DIGESTS[digest]))


def armoured(data: bytes, label: str = "PKCS7") -> bytes:
    """The same as PEM."""
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label.encode(), base64.encodebytes(data), label.encode())


def metadata(**elements: str) -> bytes:
    """Metadata as the reference bundler writes it."""
    inside = "".join(f"<{name}>{text}</{name}>\r\n" for name, text in elements.items())
    return f'<?xml version="1.0" encoding="ISO-8859-1"?>\r\n<TrustBundle>{inside}</TrustBundle>'.encode("latin-1")
