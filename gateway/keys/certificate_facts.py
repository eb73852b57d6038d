"""What a certificate says about its key: the names it binds, when it is valid, what it may be used for.

Keys are bound to addresses and domains by the SAN alone (AS-5..7), wildcards are ignored (AS-9). A keyUsage extension
decides what the key is for (AS-12, RFC 5280 section 4.2.1.3); a certificate without one may do all that its kind of
key can. Peers may use one certificate for signing and another for encryption (AS-13).

Failure modes: :class:`ConfigurationError` that names the source, for a certificate that cannot be read in full.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.core.address import normalise, parse_domain
from gateway.core.errors import ConfigurationError, InputError

_T = TypeVar("_T")
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | x25519.X25519PublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What the key ring needs to know of one certificate. Times are aware and in UTC."""

    der: bytes
    names: tuple[str, ...]
    """Normalised addresses (rfc822Name), then domains (dNSName)."""
    unusable_names: int
    """How many names of those two kinds are no Direct address or domain and were left out."""
    not_before: datetime
    not_after: datetime
    may_sign: bool
    may_decrypt: bool
    public_key: PublicKey

    @property
    def public_key_der(self) -> bytes:
        """The DER SubjectPublicKeyInfo, to compare keys by."""
        return self.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def valid_at(self, moment: datetime) -> bool:
        """Whether the (aware) moment lies within the certificate's validity, both ends included."""
        return self.not_before <= moment <= self.not_after


def read_facts(certificate: x509.Certificate, source: str) -> CertificateFacts:
    """Read a certificate; ``source`` (a file, an object of a token) stands in the error text.

    Raises:
        ConfigurationError: it is damaged, or its key is of a kind that Direct does not use.
    """
    key = _guard(certificate.public_key, source)
    if not isinstance(key, PublicKey):
        raise ConfigurationError(f"{source} has a key that is neither RSA, EC, X25519 nor Ed25519; make one of those")
    extensions = _guard(lambda: certificate.extensions, source)
    names, unusable = _names(extensions)
    may_sign, may_decrypt = _uses(key, extensions)
    return CertificateFacts(
        certificate.public_bytes(Encoding.DER),
        names,
        unusable,
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        may_sign,
        may_decrypt,
        key,
    )


def _names(extensions: x509.Extensions) -> tuple[tuple[str, ...], int]:
    """Return the names that the SAN binds, normalised; subject names bind nothing (AS-7)."""
    try:
        san = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (), 0
    names: dict[str, None] = {}
    unusable = 0
    for kind, read in ((x509.RFC822Name, normalise), (x509.DNSName, parse_domain)):
        for value in san.get_values_for_type(kind):
            try:
                names[read(str(value))] = None
            except InputError:
                unusable += 1
    return tuple(names), unusable


def _uses(key: PublicKey, extensions: x509.Extensions) -> tuple[bool, bool]:
    """Return whether the key may sign, and whether others may encrypt to it."""
    can_sign = not isinstance(key, x25519.X25519PublicKey)
    can_decrypt = not isinstance(key, ed25519.Ed25519PublicKey)
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return can_sign, can_decrypt
    encrypts = usage.key_encipherment if isinstance(key, rsa.RSAPublicKey) else usage.key_agreement
    signs = usage.digital_signature or usage.content_commitment
    return can_sign and signs, can_decrypt and encrypts


def _guard(read: Callable[[], _T], source: str) -> _T:
    try:
        return read()
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(f"{source} cannot be read in full; is the certificate damaged?") from None
