"""A development PKI: what ``direct-gateway init`` makes, and what tests need.

A :class:`DevelopmentCA` issues Direct certificates as the Applicability Statement wants them (one SAN, AS-5..9;
keyUsage and emailProtection, AS-12), TLS certificates from a CA of its own, intermediate CAs and revocation lists.
The options that make *bad* certificates (dates, names, digests) exist for tests.

Not for production: nothing here identifies anybody. A trust community issues the certificates of real practices.

Failure modes: :class:`InputError` for a name that is no address or domain, ValueError for a CA that cannot sign.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypedDict, Unpack

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from gateway.core.address import normalise, parse_domain
from gateway.core.errors import InputError

BACKDATE = timedelta(minutes=10)
"""New certificates are valid from a little earlier, so that a peer with a slow clock takes them."""
CA_LIFETIME = timedelta(days=3650)
LEAF_LIFETIME = timedelta(days=825)
CRL_LIFETIME = timedelta(days=30)
RSA_KEY_USAGE = ("digital_signature", "key_encipherment")
AGREEMENT_KEY_USAGE = ("digital_signature", "key_agreement")
_KEY_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)
_DIGESTS: dict[str, hashes.SHA256 | hashes.SHA384 | hashes.SHA512] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with its key, PEM. ``key_pem`` is unencrypted PKCS#8: write it with mode 0600."""

    certificate_pem: bytes
    key_pem: bytes

    def __repr__(self) -> str:
        return f"Issued(serial={self.serial:x})"

    @property
    def serial(self) -> int:
        """Serial number, for :meth:`DevelopmentCA.crl`."""
        return x509.load_pem_x509_certificate(self.certificate_pem).serial_number

    @property
    def certificate_der(self) -> bytes:
        """The certificate in DER."""
        return x509.load_pem_x509_certificate(self.certificate_pem).public_bytes(serialization.Encoding.DER)


class LeafOptions(TypedDict, total=False):
    """How a leaf deviates from the default. An empty sequence leaves an extension out."""

    not_before: datetime
    not_after: datetime
    key_type: str
    """``rsa2048`` (the default), ``rsa3072``, ``rsa4096``, ``rsa1024``, ``p256``, ``p384`` or ``ed25519``."""
    key_usage: Sequence[str]
    """Names as in x509.KeyUsage."""
    extended_key_usage: Sequence[x509.ObjectIdentifier]
    san: Sequence[x509.GeneralName]
    """Names in place of the one that is issued."""
    common_name: str
    crl_url: str
    aia_url: str
    digest: str
    """``sha256`` (the default), ``sha384`` or ``sha512``."""
    key_pem: bytes
    """Use this key instead of a new one."""


class DevelopmentCA:
    """A certificate authority whose key lies in memory."""

    def __init__(self, certificate: x509.Certificate, key: PrivateKey, now: datetime) -> None:
        self._certificate = certificate
        self._key = key
        self._now = now

    @classmethod
    def create(cls, common_name: str, *, now: datetime, key_type: str = "rsa2048") -> DevelopmentCA:
        """Make a new self-signed CA, valid from about ``now`` (aware) for ten years."""
        key = _new_key(key_type)
        name = _name(common_name)
        builder = _ca_builder(name, key, now, path_length=None).issuer_name(name)
        builder = builder.add_extension(_issuer_key_identifier(key), critical=False)
        certificate = builder.sign(key, _digest(key, "sha256"))
        return cls(certificate, key, now)

    @classmethod
    def load(cls, certificate_pem: bytes, key_pem: bytes, *, now: datetime) -> DevelopmentCA:
        """Read a CA made before. ``now`` is when what it issues from here on begins.

        Raises:
            InputError: the PEM texts cannot be read or do not belong together.
        """
        try:
            certificate = x509.load_pem_x509_certificate(certificate_pem)
            key = _load_key(key_pem)
        except (ValueError, TypeError) as error:
            raise InputError("the development CA cannot be read") from error
        if certificate.public_key() != key.public_key():
            raise InputError("the key of the development CA does not belong to its certificate")
        return cls(certificate, key, now)

    @property
    def certificate_pem(self) -> bytes:
        """The CA's own certificate: the trust anchor."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def certificate_der(self) -> bytes:
        """The same in DER."""
        return self._certificate.public_bytes(serialization.Encoding.DER)

    @property
    def key_pem(self) -> bytes:
        """The CA's private key, unencrypted PKCS#8."""
        return _key_pem(self._key)

    def at(self, now: datetime) -> DevelopmentCA:
        """Return the same CA at another time."""
        return DevelopmentCA(self._certificate, self._key, now)

    def intermediate(
        self, common_name: str, *, key_type: str = "rsa2048", path_length: int | None = 0, aia_url: str | None = None
    ) -> DevelopmentCA:
        """Issue a CA below this one."""
        key = _new_key(key_type)
        builder = _ca_builder(_name(common_name), key, self._now, path_length=path_length)
        builder = builder.issuer_name(self._certificate.subject)
        builder = builder.add_extension(_issuer_key_identifier(self._key), critical=False)
        if aia_url:
            builder = builder.add_extension(_aia(aia_url), critical=False)
        return DevelopmentCA(builder.sign(self._key, _digest(self._key, "sha256")), key, self._now)

    def issue_address(self, address: str, **options: Unpack[LeafOptions]) -> Issued:
        """Issue a Direct certificate bound to one address (AS-5).

        Raises:
            InputError: not a Direct address.
        """
        name = normalise(address)
        return self._issue(name, [x509.RFC822Name(name)], ExtendedKeyUsageOID.EMAIL_PROTECTION, options)

    def issue_domain(self, domain: str, **options: Unpack[LeafOptions]) -> Issued:
        """Issue a Direct certificate bound to one domain (AS-6).

        Raises:
            InputError: not a domain.
        """
        name = parse_domain(domain)
        return self._issue(name, [x509.DNSName(name)], ExtendedKeyUsageOID.EMAIL_PROTECTION, options)

    def issue_tls(self, hosts: Sequence[str], **options: Unpack[LeafOptions]) -> Issued:
        """Issue a TLS server certificate for host names and IP addresses; let a CA of its own do it.

        Raises:
            InputError: no host is given.
        """
        if not hosts:
            raise InputError("a TLS certificate needs at least one host name or IP address")
        names = [_host(host) for host in hosts]
        return self._issue(hosts[0], names, ExtendedKeyUsageOID.SERVER_AUTH, options)

    def crl(self, revoked: Sequence[int] = (), *, number: int = 1, next_update: datetime | None = None) -> bytes:
        """Return a revocation list (PEM) that names those serial numbers."""
        until = next_update or self._now + CRL_LIFETIME
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(min(self._now, until) - BACKDATE)
            .next_update(until)
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(_issuer_key_identifier(self._key), critical=False)
        )
        for serial in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(self._now - BACKDATE)
            builder = builder.add_revoked_certificate(entry.build())
        crl = builder.sign(self._key, _digest(self._key, "sha256"))
        return crl.public_bytes(serialization.Encoding.PEM)

    def _issue(
        self, subject: str, names: Sequence[x509.GeneralName], purpose: x509.ObjectIdentifier, options: LeafOptions
    ) -> Issued:
        key = _load_key(options["key_pem"]) if "key_pem" in options else _new_key(options.get("key_type", "rsa2048"))
        not_before = options.get("not_before", self._now - BACKDATE)
        rsa_key = isinstance(key, rsa.RSAPrivateKey)
        usages = options.get("key_usage", RSA_KEY_USAGE if rsa_key else AGREEMENT_KEY_USAGE)
        purposes = options.get("extended_key_usage", (purpose,))
        san = options.get("san", names)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(options.get("common_name", subject)))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(not_before)
            .not_valid_after(options.get("not_after", max(not_before, self._now) + LEAF_LIFETIME))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(_issuer_key_identifier(self._key), critical=False)
        )
        if usages:
            builder = builder.add_extension(_key_usage(usages), critical=True)
        if purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        if san:
            builder = builder.add_extension(x509.SubjectAlternativeName(san), critical=False)
        if "crl_url" in options:
            builder = builder.add_extension(_crl_points(options["crl_url"]), critical=False)
        if "aia_url" in options:
            builder = builder.add_extension(_aia(options["aia_url"]), critical=False)
        certificate = builder.sign(self._key, _digest(self._key, options.get("digest", "sha256")))
        return Issued(certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key))


def _new_key(key_type: str) -> PrivateKey:
    if key_type == "p256":
        return ec.generate_private_key(ec.SECP256R1())
    if key_type == "p384":
        return ec.generate_private_key(ec.SECP384R1())
    if key_type == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if key_type.startswith("rsa") and key_type[3:].isdigit():
        return rsa.generate_private_key(65537, int(key_type[3:]))
    raise ValueError(f"unknown kind of key {key_type!r}")


def _load_key(key_pem: bytes) -> PrivateKey:
    key = serialization.load_pem_private_key(key_pem, None)
    if isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        return key
    raise ValueError("this kind of key cannot sign")


def _key_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _digest(key: PrivateKey, name: str) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else _DIGESTS[name]


def _name(common_name: str) -> x509.Name:
    # X.520 bounds a common name at 64 characters; the SAN, which is what binds, has the whole of it.
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Development PKI"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64]),
        ]
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_usage(usages: Sequence[str]) -> x509.KeyUsage:
    return x509.KeyUsage(**{name: name in usages for name in _KEY_USAGES})


def _issuer_key_identifier(key: PrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _aia(url: str) -> x509.AuthorityInformationAccess:
    access = x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier(url))
    return x509.AuthorityInformationAccess([access])


def _crl_points(url: str) -> x509.CRLDistributionPoints:
    point = x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None)
    return x509.CRLDistributionPoints([point])


def _ca_builder(
    subject: x509.Name, key: PrivateKey, now: datetime, *, path_length: int | None
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_key_usage(("key_cert_sign", "crl_sign")), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
