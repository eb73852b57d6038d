"""Certificate revocation lists: from the operator's folder, from a message, from a distribution point.

A list of any size is held as its bytes and looked up in the parser's own code; nothing walks its entries in Python.
Nothing in a list counts before its signature has been checked against the certificate's issuer. Reading a
list raises nothing but ``InputError``, reading a folder nothing but ``ConfigurationError``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from asn1crypto import crl as asn1_crl
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pyhanko_certvalidator.policy_decl import AlgorithmUsagePolicy

from gateway.core.errors import ConfigurationError, InputError
from gateway.sta.anchors import pem_blocks
from gateway.sta.certificates import Certificate

CRL_SUFFIXES = frozenset({".crl", ".pem", ".der"})
MAX_CRL_BYTES = 10 * 1024 * 1024
MAX_MESSAGE_CRLS = 8
MAX_MESSAGE_CRL_BYTES = 1024 * 1024
_PARTIAL_MARKS = frozenset({"2.5.29.28", "2.5.29.27", "2.5.29.46"})
"""Issuing distribution point, delta CRL indicator, freshest CRL: such a list is not all there is to know."""
_PLAIN_CRITICAL = frozenset({"2.5.29.20", "2.5.29.35"})


class RevocationList:
    """A CRL from anywhere. Nothing in it counts before its signature is checked against its issuer."""

    def __init__(self, der: bytes) -> None:
        """Parse the outer structure.

        Raises:
            InputError: not a CRL, or larger than MAX_CRL_BYTES.
        """
        if len(der) > MAX_CRL_BYTES:
            raise InputError("the CRL is larger than the limit")
        self.der = der
        try:
            self.parsed = x509.load_der_x509_crl(der)
            self.asn1: Any = asn1_crl.CertificateList.load(der, strict=True)
            self.issuer_key = str(self.asn1.issuer.hashable)
            self.this_update = self.parsed.last_update_utc
            self.next_update = self.parsed.next_update_utc
            extensions = self.asn1["tbs_cert_list"]["crl_extensions"]
            self.extensions = {e["extn_id"].dotted: bool(e["critical"].native) for e in extensions}
        except Exception as exc:  # noqa: BLE001 - parsers raise many types on hostile input
            raise InputError(f"not a readable CRL ({type(exc).__name__})") from None

    @cached_property
    def is_complete(self) -> bool:
        """Whether it lists everything its issuer revoked: no partition, no delta, nothing critical unknown."""
        if _PARTIAL_MARKS & self.extensions.keys():
            return False
        return all(name in _PLAIN_CRITICAL for name, critical in self.extensions.items() if critical)

    def is_in_force(self, at: datetime) -> bool:
        """Whether the moment lies between thisUpdate and nextUpdate; a CRL without nextUpdate never is."""
        return self.next_update is not None and self.this_update <= at <= self.next_update

    def is_signed_by(self, issuer: Certificate) -> bool:
        """Whether the issuer's key made the signature."""
        try:
            key: Any = load_der_public_key(issuer.public_key_der)
            return bool(self.parsed.is_signature_valid(key))
        except Exception:  # noqa: BLE001 - a signature that cannot be checked is none
            return False

    def may_clear(self, issuer: Certificate, algorithms: AlgorithmUsagePolicy) -> bool:
        """Whether its silence counts: the issuer may sign lists, and did so by an allowed algorithm."""
        try:
            usage = issuer.asn1.key_usage_value
            if usage is not None and "crl_sign" not in usage.native:
                return False
            algorithm = self.asn1["signature_algorithm"]
            return bool(algorithms.signature_algorithm_allowed(algorithm, None, issuer.asn1.public_key))
        except Exception:  # noqa: BLE001 - what cannot be read clears nobody
            return False

    def entry(self, serial: int) -> tuple[datetime, str] | None:
        """Revocation date and reason of a serial number, or None."""
        found = self.parsed.get_revoked_certificate_by_serial_number(serial)
        if found is None:
            return None
        try:
            reason = found.extensions.get_extension_for_class(x509.CRLReason).value.reason.value
        except (x509.ExtensionNotFound, ValueError):
            reason = "unspecified"
        return found.revocation_date_utc, reason


def load_crls(directory: Path) -> tuple[RevocationList, ...]:
    """Read every CRL file of a folder (PEM with one or many, or DER).

    Raises:
        ConfigurationError: the folder or a CRL file cannot be read; the text names it.
    """
    try:
        entries = sorted(directory.iterdir())
    except OSError as exc:
        raise ConfigurationError(f"cannot read the CRL folder {directory}: {exc.strerror}") from exc
    found: list[RevocationList] = []
    for path in entries:
        if path.suffix.lower() not in CRL_SUFFIXES or path.name.startswith(".") or not path.is_file():
            continue
        try:
            found.extend(RevocationList(der) for der in crl_ders(path.read_bytes()))
        except OSError as exc:
            raise ConfigurationError(f"cannot read {path}: {exc.strerror}") from exc
        except (InputError, ValueError) as exc:
            raise ConfigurationError(f"{path} holds no readable CRL: {exc}") from None
    return tuple(found)


def crl_ders(data: bytes) -> list[bytes]:
    """Find CRLs in PEM or DER.

    Raises:
        ValueError: damaged PEM.
    """
    blocks = pem_blocks(data)
    if blocks or b"-----BEGIN" in data[:4096]:
        # A folder may hold the issuer's certificate beside its CRL; other PEM blocks are simply not CRLs.
        return [der for label, der in blocks if label == b"X509 CRL"]
    return [data]


def message_crls(ders: Sequence[bytes]) -> tuple[RevocationList, ...]:
    """The CRLs that a message carries, within bounds; unreadable ones are left out."""
    found: list[RevocationList] = []
    room = MAX_MESSAGE_CRL_BYTES
    for der in ders[:MAX_MESSAGE_CRLS]:
        room -= len(der)
        if room < 0:
            break
        try:
            found.append(RevocationList(bytes(der)))
        except InputError:
            continue
    return tuple(found)
