"""Trust anchors: who each local domain and address trusts (AS-56, AS-65, AS-72).

A folder holds certificates that every local domain trusts. A sub-folder named after a domain or an address
(in any case) holds those that it alone trusts, in addition. An anchor may be a root, an intermediate CA or,
when an operator places it here on purpose, the very certificate of a correspondent.

Files: ``.pem .crt .cer .der`` (PEM with one or many certificates, or DER) and ``.p7b .p7c`` (a certs-only CMS
message, DER or PEM). Other files are not read. What cannot be read stops the start with its name: an anchor that
silently does not count costs an afternoon. A sub-folder whose name is neither domain nor address is reported in
``warnings`` and trusts nobody.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from asn1crypto import cms as asn1_cms

from gateway.core.address import normalise, parse_domain
from gateway.core.errors import ConfigurationError, InputError
from gateway.sta.certificates import Certificate, CertificateError

CERTIFICATE_SUFFIXES = frozenset({".pem", ".crt", ".cer", ".der"})
BUNDLE_SUFFIXES = frozenset({".p7b", ".p7c"})
MAX_ANCHOR_FILE_BYTES = 16 * 1024 * 1024
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)
_CERTIFICATE_LABELS = frozenset({b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE"})


@dataclass(frozen=True)
class AnchorStore:
    """The anchors by who trusts them."""

    common: tuple[Certificate, ...] = ()
    own: Mapping[str, tuple[Certificate, ...]] = field(default_factory=dict)
    """By normalised domain or address."""
    warnings: tuple[str, ...] = ()

    def anchors_for(self, recipient: str) -> tuple[Certificate, ...]:
        """Every anchor that the (normalised) recipient trusts: the common ones, its domain's and its own."""
        domain = recipient.rpartition("@")[2]
        found = dict.fromkeys((*self.common, *self.own.get(domain, ()), *self.own.get(recipient, ())))
        return tuple(found)

    def all(self) -> tuple[Certificate, ...]:
        """Every anchor of anybody."""
        return tuple(dict.fromkeys((*self.common, *(c for own in self.own.values() for c in own))))


def load_anchors(directory: Path) -> AnchorStore:
    """Read the folder and its sub-folders.

    Raises:
        ConfigurationError: the folder or a certificate file cannot be read; the text names it.
    """
    try:
        entries = sorted(directory.iterdir())
    except OSError as exc:
        raise ConfigurationError(f"cannot read the anchors folder {directory}: {exc.strerror}") from exc
    own: dict[str, tuple[Certificate, ...]] = {}
    warnings: list[str] = []
    for entry in entries:
        if entry.name.startswith(".") or not entry.is_dir():
            continue
        owner = _owner(entry.name)
        if owner is None:
            warnings.append(f"{entry} is named after neither a domain nor an address; nobody trusts what is in it")
            continue
        own[owner] = own.get(owner, ()) + _read_folder(sorted(entry.iterdir()))
    return AnchorStore(_read_folder(entries), own, tuple(warnings))


def _owner(name: str) -> str | None:
    try:
        return normalise(name) if "@" in name else parse_domain(name)
    except InputError:
        return None


def _read_folder(entries: Iterable[Path]) -> tuple[Certificate, ...]:
    found: dict[Certificate, None] = {}
    for path in entries:
        if path.is_file() and not path.name.startswith("."):
            for certificate in read_certificates(path):
                found.setdefault(certificate)
    return tuple(found)


def read_certificates(path: Path) -> list[Certificate]:
    """Return the certificates of one file; none when its suffix is not that of a certificate file.

    Raises:
        ConfigurationError: unreadable, or not what its suffix says.
    """
    suffix = path.suffix.lower()
    if suffix not in CERTIFICATE_SUFFIXES | BUNDLE_SUFFIXES:
        return []
    try:
        if path.stat().st_size > MAX_ANCHOR_FILE_BYTES:
            raise ConfigurationError(f"{path} is too large for a certificate file")
        data = path.read_bytes()
    except OSError as exc:
        raise ConfigurationError(f"cannot read {path}: {exc.strerror}") from exc
    try:
        return [Certificate(der) for der in certificate_ders(data)]
    except (CertificateError, ValueError, TypeError) as exc:
        raise ConfigurationError(f"{path} holds no readable certificate: {exc}") from None


def certificate_ders(data: bytes) -> list[bytes]:
    """Find certificates in PEM, DER or a certs-only CMS message (also the reply to a caIssuers request).

    A PEM file that holds other things (a key, a CRL) and no certificate yields none.

    Raises:
        ValueError: none of these forms.
    """
    blocks = pem_blocks(data)
    if blocks:
        found: list[bytes] = []
        for label, der in blocks:
            if label in _CERTIFICATE_LABELS:
                found.append(der)
            elif label in {b"PKCS7", b"CMS"}:
                found.extend(_bundle(der))
        return found
    if b"-----BEGIN" in data[:4096]:
        raise ValueError("damaged PEM")
    try:
        Certificate(data)
    except CertificateError:
        return _bundle(data)
    return [data]


def pem_blocks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Label and decoded content of each PEM block.

    Raises:
        ValueError: a block is not base64.
    """
    blocks = []
    for label, body in _PEM.findall(data):
        if b":" in body:
            # Encapsulated headers mark an encrypted key of the old form: not a certificate, nothing to decode.
            continue
        try:
            blocks.append((label, base64.b64decode(b"".join(body.split()), validate=True)))
        except binascii.Error:
            raise ValueError("damaged PEM") from None
    return blocks


def _bundle(data: bytes) -> list[bytes]:
    try:
        content = asn1_cms.ContentInfo.load(data, strict=True)
        certificates = content["content"]["certificates"] if content["content_type"].native == "signed_data" else ()
        found = [bytes(choice.chosen.dump()) for choice in certificates if choice.name == "certificate"]
    except Exception as exc:  # noqa: BLE001 - asn1crypto raises many types on hostile input
        raise ValueError(f"neither PEM nor DER nor a certificate bundle ({type(exc).__name__})") from None
    if not found:
        raise ValueError("the bundle holds no certificate")
    return found
