"""Certificates of test correspondents, made with ``cryptography`` alone: nothing of the gateway's own code.

RSA keys are slow to make, so one process makes a few and certificates share them; a certificate's serial and
names are what tells correspondents apart.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_serials = itertools.count(1_000)
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@cache
def rsa_key(slot: int, bits: int = 2048) -> rsa.RSAPrivateKey:
    """One of a few RSA keys; the same slot gives the same key."""
    del slot
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def ec_key(slot: int) -> ec.EllipticCurvePrivateKey:
    """One of a few P-256 keys."""
    del slot
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class Identity:
    """A certificate with its private key, as PEM."""

    certificate: x509.Certificate
    key: Key

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """Write ``NAME.cert.pem`` and ``NAME.key.pem``; return both paths."""
        directory.mkdir(parents=True, exist_ok=True)
        certificate, key = directory / f"{name}.cert.pem", directory / f"{name}.key.pem"
        certificate.write_bytes(self.certificate_pem)
        key.write_bytes(self.key_pem)
        key.chmod(0o600)
        return certificate, key


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test Community"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


@dataclass(frozen=True)
class Authority:
    """A certification authority for tests."""

    identity: Identity

    @classmethod
    def root(cls, common_name: str, slot: int = 0) -> Authority:
        key = rsa_key(100 + slot)
        return cls(Identity(_ca_certificate(common_name, key, _name(common_name), key), key))

    def intermediate(self, common_name: str, slot: int = 0) -> Authority:
        key = rsa_key(200 + slot)
        certificate = _ca_certificate(common_name, key, self.identity.certificate.subject, self.identity.key)
        return Authority(Identity(certificate, key))

    @property
    def pem(self) -> bytes:
        return self.identity.certificate_pem

    def issue(
        self,
        *,
        address: str | None = None,
        domain: str | None = None,
        key: Key | None = None,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        digital_signature: bool = True,
        email_protection: bool = True,
        common_name: str | None = None,
        slot: int = 0,
    ) -> Identity:
        """Issue an address-bound (``address``) or domain-bound (``domain``) end-entity certificate."""
        now = datetime.now(UTC)
        leaf_key = key or rsa_key(slot)
        name: x509.GeneralName = x509.RFC822Name(address) if address else x509.DNSName(domain or "")
        usages = [ExtendedKeyUsageOID.EMAIL_PROTECTION if email_protection else ExtendedKeyUsageOID.SERVER_AUTH]
        rsa_leaf = isinstance(leaf_key, rsa.RSAPrivateKey)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(common_name or address or domain or ""))
            .issuer_name(self.identity.certificate.subject)
            .public_key(leaf_key.public_key())
            .serial_number(next(_serials))
            .not_valid_before(not_before or now - timedelta(days=1))
            .not_valid_after(not_after or now + timedelta(days=365))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([name]), critical=False)
            .add_extension(_key_usage(digital_signature, rsa_leaf), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(leaf_key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.identity.key.public_key()), critical=False
            )
        )
        return Identity(builder.sign(self.identity.key, hashes.SHA256()), leaf_key)

    def crl(self, revoked: list[Identity]) -> bytes:
        """A signed CRL (PEM) that lists those certificates."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.identity.certificate.subject)
            .last_update(now - timedelta(hours=1))
            .next_update(now + timedelta(days=7))
            .add_extension(x509.CRLNumber(next(_serials)), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.identity.key.public_key()), critical=False
            )
        )
        for identity in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(identity.certificate.serial_number)
                .revocation_date(now - timedelta(hours=2))
                .build()
            )
        return builder.sign(self.identity.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _key_usage(digital_signature: bool, key_encipherment: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=key_encipherment,
        data_encipherment=False,
        key_agreement=not key_encipherment,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _ca_certificate(common_name: str, key: rsa.RSAPrivateKey, issuer: x509.Name, issuer_key: Key) -> x509.Certificate:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(next(_serials))
        .not_valid_before(now - timedelta(days=30))
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(False, False, False, False, False, True, True, False, False),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
