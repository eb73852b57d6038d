"""The development keys and certificates of a practice, as files.

Two authorities that know nothing of each other: one issues the identities (its certificate becomes the first trust
anchor), the other the TLS certificate that the listeners show. Private keys have mode 0600, folders 0700.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from gateway.keys.development_pki import LEAF_LIFETIME, DevelopmentCA, Issued

MAX_NAME_BYTES = 200
ANCHOR_NAME = "development-ca.cert.pem"


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only this user may read."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(data)


def file_name(identity: str) -> str:
    """Return a file name for an address or a domain: never a path, never too long for a file system."""
    name = quote(identity, safe="@+")
    if len(name) <= MAX_NAME_BYTES:
        return name
    return name[: MAX_NAME_BYTES - 17] + "-" + hashlib.sha256(identity.encode()).hexdigest()[:16]


def write_identities(
    certs: Path, domain: str, addresses: Sequence[str], now: datetime, *, bind_to_domain: bool
) -> tuple[str, ...]:
    """Make the authority, an identity for each address (or one for the domain), the anchor and a revocation list.

    ``certs`` is an existing folder, which gets ``ca``, ``identities``, ``anchors`` and ``crls``. The certificates
    begin ``now`` (aware). Returns the file names of the identities, without ``.cert.pem``.
    """
    authority = DevelopmentCA.create(f"Development CA of {domain}", now=now)
    _folder(certs / "ca")
    write_private(certs / "ca" / "ca.key.pem", authority.key_pem)
    write_private(certs / "ca" / "ca.cert.pem", authority.certificate_pem)
    identities = _folder(certs / "identities")
    names = []
    for identity in [domain] if bind_to_domain else addresses:
        issued = authority.issue_domain(identity) if bind_to_domain else authority.issue_address(identity)
        name = file_name(identity)
        _write_pair(identities / f"{name}.cert.pem", identities / f"{name}.key.pem", issued)
        names.append(name)
    write_private(_folder(certs / "anchors") / ANCHOR_NAME, authority.certificate_pem)
    # As long as the certificates: nobody renews a development list every month, and a stale one says "unknown".
    crl = authority.crl(next_update=now + LEAF_LIFETIME)
    write_private(_folder(certs / "crls") / "development-ca.crl.pem", crl)
    return tuple(names)


def write_tls(certificate: Path, key: Path, host: str, domain: str, now: datetime) -> None:
    """Make a TLS certificate for the listeners, from an authority of its own whose key is thrown away.

    ``ca.pem`` beside the certificate is what a mail client must trust.
    """
    names = ["localhost", "127.0.0.1", "::1", socket.gethostname(), domain, host]
    usable = [name for name in dict.fromkeys(names) if name and name not in {"0.0.0.0", "::"} and name.isascii()]
    authority = DevelopmentCA.create(f"Development TLS CA of {domain or 'this gateway'}", now=now)
    certificate.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write_pair(certificate, key, authority.issue_tls(usable))
    write_private(certificate.parent / "ca.pem", authority.certificate_pem)


def _folder(path: Path) -> Path:
    path.mkdir(mode=0o700)
    return path


def _write_pair(certificate: Path, key: Path, issued: Issued) -> None:
    write_private(key, issued.key_pem)
    write_private(certificate, issued.certificate_pem)
