"""Private keys in files, behind the KeyRing port.

A folder holds ``NAME.cert.pem`` with ``NAME.key.pem`` or ``NAME.p12`` beside it, or ``NAME.p12`` alone. Keys are
bound to addresses and domains by the certificate's SAN alone (AS-5..7), wildcards are ignored (AS-9), several keys
for one name are kept and offered newest first (AS-14). A certificate that has expired still decrypts: mail may
arrive late.

Guarantees: key material stays inside :class:`FileKey`; no error text or warning holds any.

Failure modes: :class:`ConfigurationError` that names the file and the mend. What is doubtful but usable becomes a
sentence in ``KeyRing.warnings``.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, x25519
from cryptography.hazmat.primitives.serialization import pkcs12

from gateway.core.address import normalise, parse_address, parse_domain
from gateway.core.errors import ConfigurationError, InputError, RefusedError

_T = TypeVar("_T")
_CERTIFICATE_SUFFIX = ".cert.pem"
_KEY_SUFFIX = ".key.pem"
_PKCS12_SUFFIXES = (".p12", ".pfx")
_MAX_FILE_BYTES = 1_048_576
_MIN_RSA_BITS = 2048
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),  # noqa: S303 - collisions do not matter in OAEP, and AS-36 asks for it
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | x25519.X25519PrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class FileKey:
    """One private key with its certificate: implements :class:`gateway.ports.KeyOps`."""

    certificate: bytes
    names: tuple[str, ...]
    chain: tuple[bytes, ...]
    """DER of the certificates that stood behind the leaf in its file."""
    not_before: datetime
    source: str
    """Name of the file, for messages to the operator."""
    _key: PrivateKey

    def __repr__(self) -> str:
        return f"FileKey({self.source!r})"

    def decrypt_rsa_pkcs1v15(self, encrypted_key: bytes) -> bytes:
        """Return the key hidden with RSAES-PKCS1-v1_5.

        Raises:
            RefusedError: this is no RSA key.
            ValueError: the length is wrong. Wrong padding yields random bytes (implicit rejection), not an error.
        """
        return self._rsa().decrypt(encrypted_key, padding.PKCS1v15())

    def decrypt_rsa_oaep(self, encrypted_key: bytes, *, digest: str, mgf_digest: str, label: bytes) -> bytes:
        """Return the key hidden with RSAES-OAEP.

        Raises:
            RefusedError: this is no RSA key.
            KeyError, ValueError: an unknown digest, or it cannot be decrypted.
        """
        mode = padding.OAEP(padding.MGF1(_HASHES[mgf_digest]), _HASHES[digest], label or None)
        return self._rsa().decrypt(encrypted_key, mode)

    def agree(self, peer_public_key: bytes) -> bytes:
        """Return the shared secret of ECDH (RFC 5753) or X25519 (RFC 7748).

        Raises:
            RefusedError: this key cannot agree, or the peer's key is of another kind or curve.
            ValueError: the peer's key is no point on the curve.
        """
        peer = serialization.load_der_public_key(peer_public_key)
        key = self._key
        if isinstance(key, x25519.X25519PrivateKey) and isinstance(peer, x25519.X25519PublicKey):
            return key.exchange(peer)
        if (
            isinstance(key, ec.EllipticCurvePrivateKey)
            and isinstance(peer, ec.EllipticCurvePublicKey)
            and key.curve.name == peer.curve.name
        ):
            return key.exchange(ec.ECDH(), peer)
        raise RefusedError("this key cannot agree on a secret with that one")

    def _rsa(self) -> rsa.RSAPrivateKey:
        if not isinstance(self._key, rsa.RSAPrivateKey):
            raise RefusedError("this key is no RSA key")
        return self._key


class KeyRing:
    """All private keys of this gateway: implements :class:`gateway.ports.KeyRing`. Immutable once made."""

    __slots__ = ("_by_name", "_keys", "warnings")

    def __init__(self, keys: Sequence[FileKey], warnings: Sequence[str] = ()) -> None:
        newest_first = sorted(keys, key=lambda key: key.not_before, reverse=True)
        self._keys = tuple({key.certificate: key for key in newest_first}.values())
        self.warnings = tuple(warnings)
        self._by_name: dict[str, tuple[FileKey, ...]] = {}
        for key in self._keys:
            for name in key.names:
                self._by_name[name] = (*self._by_name.get(name, ()), key)

    def keys_for(self, recipients: Sequence[str]) -> Sequence[FileKey]:
        """Return the keys bound to any of the addresses, then those bound to exactly their domains.

        Newest first within each; what is no Direct address has no key.
        """
        addresses: list[str] = []
        domains: list[str] = []
        for recipient in recipients:
            try:
                address = parse_address(recipient)
            except InputError:
                continue
            addresses.append(str(address))
            domains.append(address.domain)
        wanted = dict.fromkeys((*addresses, *domains))
        by_address = [key for key in self._keys if any(name in wanted and "@" in name for name in key.names)]
        by_domain = [key for key in self._keys if any(name in wanted and "@" not in name for name in key.names)]
        return tuple({key.certificate: key for key in (*by_address, *by_domain)}.values())

    def names(self) -> frozenset[str]:
        """Return every address and domain that has a key."""
        return frozenset(self._by_name)

    @property
    def keys(self) -> tuple[FileKey, ...]:
        """Every key, newest first, also those whose certificate binds no name."""
        return self._keys


def load_key_ring(directory: Path, password: bytes | None = None) -> KeyRing:
    """Read every identity in a folder (not in its sub-folders).

    ``password`` opens encrypted key files; those that are not encrypted are read without.

    Raises:
        ConfigurationError: the folder is missing, a key has no certificate or a certificate no key, they do not
            belong together, the password is wrong, or a file cannot be read.
    """
    if not directory.is_dir():
        raise ConfigurationError(f"no folder of keys at {directory}; make it, or run: direct-gateway init")
    try:
        files = {path.name: path for path in sorted(directory.iterdir()) if path.is_file()}
    except OSError as error:
        raise ConfigurationError(f"cannot read the folder {directory}: {error.strerror}") from None
    keys: list[FileKey] = []
    warnings: list[str] = []
    for name, path in files.items():
        if name.endswith(_CERTIFICATE_SUFFIX):
            stem = name.removesuffix(_CERTIFICATE_SUFFIX)
            beside = stem + _KEY_SUFFIX
            if beside not in files:
                if any(stem + suffix in files for suffix in _PKCS12_SUFFIXES):
                    continue  # The PKCS #12 file brings the key, and the certificate again.
                raise ConfigurationError(f"{path} has no key beside it; put its private key into {beside}")
            keys.append(_from_pem(path, files[beside], password, warnings))
        elif name.endswith(_KEY_SUFFIX):
            beside = name.removesuffix(_KEY_SUFFIX) + _CERTIFICATE_SUFFIX
            if beside not in files:
                raise ConfigurationError(f"{path} has no certificate beside it; put the certificate into {beside}")
        elif name.lower().endswith(_PKCS12_SUFFIXES):
            keys.append(_from_pkcs12(path, password, warnings))
    return KeyRing(keys, warnings)


def _read(path: Path, warnings: list[str], *, secret: bool) -> bytes:
    try:
        with path.open("rb") as file:
            mode = path.stat().st_mode
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigurationError(f"{path} is too large to be a key or a certificate")
    if secret and mode & (stat.S_IRGRP | stat.S_IROTH):
        warnings.append(f"{path} can be read by others; run: chmod 600 {path}")
    return data


def _from_pem(certificate_path: Path, key_path: Path, password: bytes | None, warnings: list[str]) -> FileKey:
    text = _read(certificate_path, warnings, secret=False)
    try:
        leaf, *chain = x509.load_pem_x509_certificates(text)
    except ValueError:
        raise ConfigurationError(f"{certificate_path} holds no readable PEM certificate") from None
    key = _private_key(key_path, _read(key_path, warnings, secret=True), password)
    return _identity(leaf, chain, key, (certificate_path, key_path), warnings)


def _private_key(path: Path, data: bytes, password: bytes | None) -> PrivateKey:
    try:
        try:
            key = serialization.load_pem_private_key(data, password)
        except TypeError:
            if password is None:
                raise ConfigurationError(f"{path} is encrypted; set trust.key_password_file") from None
            key = serialization.load_pem_private_key(data, None)
    except (ValueError, UnsupportedAlgorithm):
        hint = "; is the password right?" if b"ENCRYPTED" in data else ""
        raise ConfigurationError(f"{path} holds no readable PEM private key{hint}") from None
    return _supported(key, path)


def _supported(key: object, path: Path) -> PrivateKey:
    if isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | x25519.X25519PrivateKey):
        return key
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key
    raise ConfigurationError(f"{path} holds a key that is neither RSA, EC, X25519 nor Ed25519; make one of those")


def _from_pkcs12(path: Path, password: bytes | None, warnings: list[str]) -> FileKey:
    data = _read(path, warnings, secret=True)
    for attempt in dict.fromkeys((password, None, b"")):
        try:
            key, leaf, chain = pkcs12.load_key_and_certificates(data, attempt)
        except (ValueError, UnsupportedAlgorithm):
            continue
        if key is None or leaf is None:
            raise ConfigurationError(f"{path} must hold a private key together with its certificate")
        return _identity(leaf, chain, _supported(key, path), (path, path), warnings)
    raise ConfigurationError(
        f"{path} cannot be opened; is it PKCS#12 and the password in trust.key_password_file right?"
    )


def _identity(
    leaf: x509.Certificate,
    chain: Sequence[x509.Certificate],
    key: PrivateKey,
    paths: tuple[Path, Path],
    warnings: list[str],
) -> FileKey:
    certificate_path, key_path = paths
    if _public_bytes(_guard(leaf.public_key, certificate_path)) != _public_bytes(key.public_key()):
        raise ConfigurationError(
            f"the key in {key_path} does not belong to the (first) certificate in {certificate_path}"
        )
    names = _names(leaf, certificate_path, warnings)
    if not names:
        warnings.append(f"{certificate_path} names no address or domain in its SAN; it will not be used")
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < _MIN_RSA_BITS:
        warnings.append(f"the RSA key in {key_path} is below {_MIN_RSA_BITS} bits; messages to it are refused")
    return FileKey(
        leaf.public_bytes(serialization.Encoding.DER),
        names,
        tuple(certificate.public_bytes(serialization.Encoding.DER) for certificate in chain),
        leaf.not_valid_before_utc,
        certificate_path.name,
        key,
    )


def _names(leaf: x509.Certificate, path: Path, warnings: list[str]) -> tuple[str, ...]:
    """Return the names that the SAN binds, normalised; subject names bind nothing (AS-7)."""
    extensions = _guard(lambda: leaf.extensions, path)
    try:
        san = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    names: dict[str, None] = {}
    for kind, read in ((x509.RFC822Name, normalise), (x509.DNSName, parse_domain)):
        for value in san.get_values_for_type(kind):
            try:
                names[read(str(value))] = None
            except InputError:
                warnings.append(f"a name in the SAN of {path} is no Direct address or domain and is ignored")
    return tuple(names)


def _public_bytes(key: object) -> bytes:
    if not hasattr(key, "public_bytes"):
        return b""
    encoded: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _guard(read: Callable[[], _T], path: Path) -> _T:
    """Read something of a certificate; what the library cannot read becomes an error that names the file."""
    try:
        return read()
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(f"{path} cannot be read in full; is the certificate damaged?") from None
