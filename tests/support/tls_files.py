"""A small authority for TLS on both sides: files of it, of a server ``localhost`` and of a client."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from tests.support.pki import Authority, Identity, ec_key

Pair = tuple[Path, Path]
"""Certificate and key."""


def make_authority(folder: Path, slot: int = 0) -> tuple[Path, Pair, Pair]:
    """The authority's certificate, and the files of a server and of a client."""
    authority = Authority.root(f"TLS {folder.name} {slot}", slot=slot)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "ca.pem"
    path.write_bytes(authority.pem)
    server = _issue(authority, "localhost", ExtendedKeyUsageOID.SERVER_AUTH, 81).write(folder, "server")
    client = _issue(authority, "engine", ExtendedKeyUsageOID.CLIENT_AUTH, 82).write(folder, "client")
    return path, server, client


def _issue(authority: Authority, name: str, usage: ObjectIdentifier, slot: int) -> Identity:
    key, today = ec_key(slot), datetime.now(UTC)
    issuer = authority.identity
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()),
            critical=False,
        )
    )
    return Identity(builder.sign(issuer.key, hashes.SHA256()), key)
