"""An X.509 certificate as the Security/Trust Agent sees it: bytes from outside, read lazily and within bounds.

Guarantees: reading never raises anything but ``CertificateError``; nothing larger than MAX_CERTIFICATE_BYTES is
parsed; names are compared as RFC 5280 7.1 says (asn1crypto's prepared form), not byte by byte. Certificates come
from attackers: a value of this class says nothing about trust.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import Any

from asn1crypto import x509 as asn1_x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from gateway.core.verdict import Signer
from gateway.sta.hash_algorithms import HASHES

MAX_CERTIFICATE_BYTES = 65_536
MAX_REMEMBERED = 512
"""Certificates of messages that are kept read: correspondents write again."""
MAX_REMEMBERED_BYTES = 8_192
"""Larger ones are read each time, so that nobody fills the memory with them."""
MAX_PARSED = 256
"""Parsed structures that each thread keeps."""
_NAME_LABELS = {
    "2.5.4.3": "CN",
    "2.5.4.5": "SERIALNUMBER",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "0.9.2342.19200300.100.1.25": "DC",
    "1.2.840.113549.1.9.1": "emailAddress",
}
_SMTP_UTF8_MAILBOX = "1.3.6.1.5.5.7.8.9"


class CertificateError(ValueError):
    """A certificate cannot be read, or its form forbids using it."""


class _ParsedHere(threading.local):
    """The parsed structures of the thread that asks."""

    def __init__(self) -> None:
        self.known: OrderedDict[str, Any] = OrderedDict()


_parsed_here = _ParsedHere()


class Certificate:
    """One certificate. Equal when the DER is equal. Safe to share between threads."""

    __slots__ = ("__dict__", "der", "sha256")

    def __init__(self, der: bytes) -> None:
        """Parse the outer structure.

        Raises:
            CertificateError: too large, not a certificate, or trailing bytes.
        """
        if len(der) > MAX_CERTIFICATE_BYTES:
            raise CertificateError("the certificate is larger than the limit")
        self.der = der
        self._last_signer: Signer | None = None
        self.sha256 = hashlib.sha256(der).hexdigest()
        try:
            _ = self.subject_key, self.issuer_key, self.not_before, self.not_after, self.serial, self.public_key_der
        except Exception as exc:  # noqa: BLE001 - asn1crypto raises many types on hostile input
            raise CertificateError(f"the certificate cannot be read ({type(exc).__name__})") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Certificate) and other.der == self.der

    def __hash__(self) -> int:
        return hash(self.der)

    @property
    def asn1(self) -> Any:
        """The structure for ``asn1crypto`` and what builds on it.

        It is parsed while it is read, and a second thread would find it half parsed: each has its own.
        """
        known = _parsed_here.known
        found = known.get(self.sha256)
        if found is None:
            found = known[self.sha256] = asn1_x509.Certificate.load(self.der, strict=True)
            if len(known) > MAX_PARSED:
                known.popitem(last=False)
        else:
            known.move_to_end(self.sha256)
        return found

    @cached_property
    def subject_key(self) -> str:
        """The subject name in the form in which names are compared."""
        return str(self.asn1.subject.hashable)

    @cached_property
    def issuer_key(self) -> str:
        """The issuer name in the form in which names are compared."""
        return str(self.asn1.issuer.hashable)

    @cached_property
    def subject(self) -> str:
        """The subject name for people."""
        return display_name(self.asn1.subject)

    @cached_property
    def issuer(self) -> str:
        """The issuer name for people."""
        return display_name(self.asn1.issuer)

    @cached_property
    def serial(self) -> int:
        """The serial number; may be negative in a malformed certificate."""
        contents = self.asn1["tbs_certificate"]["serial_number"].contents
        if len(contents) > 64:
            raise CertificateError("the serial number is too long")
        return int.from_bytes(contents, "big", signed=True)

    @cached_property
    def not_before(self) -> datetime:
        """Start of validity, UTC."""
        return _utc(self.asn1["tbs_certificate"]["validity"]["not_before"].native)

    @cached_property
    def not_after(self) -> datetime:
        """End of validity, UTC."""
        return _utc(self.asn1["tbs_certificate"]["validity"]["not_after"].native)

    @cached_property
    def public_key_der(self) -> bytes:
        """DER SubjectPublicKeyInfo."""
        return bytes(self.asn1.public_key.dump())

    @cached_property
    def key_id(self) -> bytes | None:
        """The subject key identifier, when there is one."""
        return _safe(lambda: self.asn1.key_identifier)

    @cached_property
    def authority_key_id(self) -> bytes | None:
        """The authority key identifier, when there is one."""
        return _safe(lambda: self.asn1.authority_key_identifier)

    @cached_property
    def is_authority(self) -> bool:
        """Whether basicConstraints say that it is a certification authority's.

        Raises:
            Exception: the extension cannot be read; asn1crypto raises many types on hostile input.
        """
        constraints = self.asn1.basic_constraints_value
        return constraints is not None and bool(constraints["ca"].native)

    def is_valid_at(self, at: datetime) -> bool:
        """Whether the moment lies within the validity dates (AS-10)."""
        return self.not_before <= at <= self.not_after

    @cached_property
    def names(self) -> tuple[SubjectName, ...]:
        """The subject alternative names of the kinds that can bind a Direct sender (AS-5, AS-6, RFC 8398).

        Raises:
            CertificateError: the extension cannot be read.
        """
        try:
            return tuple(_alternative_names(self.asn1.subject_alt_name_value))
        except Exception as exc:  # noqa: BLE001
            raise CertificateError(f"the subject alternative name cannot be read ({type(exc).__name__})") from None

    def extension_ids(self) -> list[tuple[str, bool]]:
        """Dotted id and criticality of every extension, in order.

        Raises:
            CertificateError: the extensions cannot be read.
        """
        try:
            extensions = self.asn1["tbs_certificate"]["extensions"]
            return [(e["extn_id"].dotted, bool(e["critical"].native)) for e in extensions]
        except Exception as exc:  # noqa: BLE001
            raise CertificateError(f"the extensions cannot be read ({type(exc).__name__})") from None

    def as_signer(self, identity: str) -> Signer:
        """Describe the certificate for the evidence; ``identity`` is the SAN value that binds it."""
        known = self._last_signer
        if known is None or known.identity != identity:
            known = self._last_signer = self._described(identity)
        return known

    def _described(self, identity: str) -> Signer:
        return Signer(
            subject=self.subject,
            issuer=self.issuer,
            serial=f"{self.serial:x}",
            sha256=self.sha256,
            identity=identity,
            not_before=self.not_before.isoformat(),
            not_after=self.not_after.isoformat(),
        )


class SubjectName:
    """A subject alternative name: ``kind`` is ``rfc822``, ``dns`` or ``utf8`` (SmtpUTF8Mailbox)."""

    __slots__ = ("kind", "value")

    def __init__(self, kind: str, value: str) -> None:
        self.kind = kind
        self.value = value


@lru_cache(maxsize=MAX_REMEMBERED)
def _remembered(der: bytes) -> Certificate:
    return Certificate(der)


def parse_many(ders: tuple[bytes, ...] | list[bytes], limit: int) -> list[Certificate]:
    """Read at most ``limit`` different certificates; one that cannot be read is left out, the others count."""
    found: dict[bytes, Certificate] = {}
    for der in ders[: limit * 2]:
        if len(found) >= limit:
            break
        try:
            found.setdefault(der, _remembered(der) if len(der) <= MAX_REMEMBERED_BYTES else Certificate(der))
        except CertificateError:
            continue
    return list(found.values())


def signed_by(subject: Certificate, issuer: Certificate) -> bool | None:
    """Whether the issuer's key made the signature on the subject; None when this check cannot tell.

    None (a DSA key with inherited parameters, an exotic algorithm) leaves the answer to the full validation.
    """
    try:
        key = load_der_public_key(issuer.public_key_der)
        algorithm = subject.asn1["signature_algorithm"]
        name = algorithm.signature_algo
        signature = subject.asn1["signature_value"].native
        body = subject.asn1["tbs_certificate"].dump()
    except Exception:  # noqa: BLE001
        return None
    return _verify(key, name, algorithm, signature, body)


def _verify(key: object, name: str, algorithm: Any, signature: bytes, body: bytes) -> bool | None:
    try:
        if name == "rsassa_pkcs1v15" and isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, body, padding.PKCS1v15(), HASHES[algorithm.hash_algo])
        elif name == "ecdsa" and isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, body, ec.ECDSA(HASHES[algorithm.hash_algo]))
        elif name in {"ed25519", "ed448"} and isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
            key.verify(signature, body)
        else:
            return None
    except InvalidSignature:
        return False
    except (UnsupportedAlgorithm, KeyError, ValueError, TypeError):
        return None
    return True


def _utc(value: datetime) -> datetime:
    return value.astimezone(UTC)


def _safe(read: Any) -> bytes | None:
    try:
        value = read()
    except Exception:  # noqa: BLE001 - a key identifier is only a hint for building paths
        return None
    return value if isinstance(value, bytes) else None


def _alternative_names(general_names: Any) -> list[SubjectName]:
    found: list[SubjectName] = []
    for general in general_names or ():
        if general.name == "rfc822_name":
            # The raw contents are read because asn1crypto decodes punycode and repairs what it finds odd.
            found.append(SubjectName("rfc822", general.chosen.contents.decode("ascii", "replace")))
        elif general.name == "dns_name":
            found.append(SubjectName("dns", general.chosen.contents.decode("ascii", "replace")))
        elif general.name == "other_name" and general.chosen["type_id"].dotted == _SMTP_UTF8_MAILBOX:
            found.append(SubjectName("utf8", str(general.chosen["value"].native)))
    return found


def display_name(name: Any) -> str:
    """Write a name most specific part first, as RFC 4514 orders it; for people, never for comparison."""
    try:
        parts = [
            f"{_NAME_LABELS.get(item['type'].dotted, item['type'].dotted)}={item['value'].native}"
            for relative in name.chosen
            for item in relative
        ]
    except Exception:  # noqa: BLE001
        return "(unreadable name)"
    return ", ".join(reversed(parts))[:512]
