"""Reads private keys from a folder (not from its sub-folders).

The folder holds ``NAME.cert.pem`` with ``NAME.key.pem`` or ``NAME.p12`` beside it, or ``NAME.p12`` alone. A key file
is PKCS#8 or the older form of OpenSSL, encrypted or not; a ``.p12`` (or ``.pfx``) is PKCS#12. ``NAME.cert.pem`` with
``NAME.pkcs11`` beside it is a certificate whose key lies on a token: it is returned for
:mod:`gateway.keys.token_identities` to find the key.

Guarantees: no error text or warning holds key material or a password. What is doubtful but usable becomes a sentence
in the warnings.

Failure modes: :class:`ConfigurationError` that names the file and the mend.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12

from gateway.core.errors import ConfigurationError
from gateway.keys.certificate_facts import CertificateFacts, read_facts
from gateway.keys.file_key import FileKey, PrivateKey, is_key_of, load_private_key, make_file_key

_CERTIFICATE_SUFFIX = ".cert.pem"
_KEY_SUFFIX = ".key.pem"
_REFERENCE_SUFFIX = ".pkcs11"
_PKCS12_SUFFIXES = (".p12", ".pfx")
_MAX_FILE_BYTES = 1_048_576
_MIN_RSA_BITS = 2048


@dataclass(frozen=True, slots=True)
class TokenReference:
    """A certificate in a file whose key lies on a token, and the text that says which key it is."""

    leaf: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    source: str
    text: str


@dataclass(frozen=True, slots=True)
class KeyFolder:
    """All that a folder holds."""

    keys: tuple[FileKey, ...]
    on_token: tuple[TokenReference, ...]
    warnings: tuple[str, ...]


def read_key_folder(directory: Path, password: bytes | None = None) -> KeyFolder:
    """Read every identity in a folder.

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
    reader = _Reader(password, files)
    for name in files:
        reader.take(name)
    return KeyFolder(tuple(reader.keys), tuple(reader.on_token), tuple(reader.warnings))


class _Reader:
    """One pass over the files of a folder."""

    def __init__(self, password: bytes | None, files: dict[str, Path]) -> None:
        self._password = password
        self._files = files
        self.keys: list[FileKey] = []
        self.on_token: list[TokenReference] = []
        self.warnings: list[str] = []

    def take(self, name: str) -> None:
        path = self._files[name]
        if name.endswith(_CERTIFICATE_SUFFIX):
            self._certificate(path, name.removesuffix(_CERTIFICATE_SUFFIX))
        elif name.lower().endswith(_PKCS12_SUFFIXES):
            self.keys.append(self._from_pkcs12(path))
        else:
            for suffix in (_KEY_SUFFIX, _REFERENCE_SUFFIX):
                beside = name.removesuffix(suffix) + _CERTIFICATE_SUFFIX
                if name.endswith(suffix) and beside not in self._files:
                    raise ConfigurationError(f"{path} has no certificate beside it; put the certificate into {beside}")

    def _certificate(self, path: Path, stem: str) -> None:
        if (key := self._files.get(stem + _KEY_SUFFIX)) is not None:
            self.keys.append(self._from_pem(path, key))
        elif (reference := self._files.get(stem + _REFERENCE_SUFFIX)) is not None:
            leaf, *chain = self._certificates(path)
            text = self._read(reference, secret=False).decode("ascii", "replace")
            self.on_token.append(TokenReference(leaf, tuple(chain), path.name, text))
        elif not any(stem + suffix in self._files for suffix in _PKCS12_SUFFIXES):
            raise ConfigurationError(
                f"{path} has no key beside it; put its private key into {stem}{_KEY_SUFFIX}, or, when the key is on a "
                f"token, one line like pkcs11:object=LABEL or pkcs11:id=%A1 into {stem}{_REFERENCE_SUFFIX}"
            )
        # With a PKCS #12 file beside it there is nothing to do: that brings the key, and the certificate again.

    def _read(self, path: Path, *, secret: bool) -> bytes:
        try:
            with path.open("rb") as file:
                mode = path.stat().st_mode
                data = file.read(_MAX_FILE_BYTES + 1)
        except OSError as error:
            raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
        if len(data) > _MAX_FILE_BYTES:
            raise ConfigurationError(f"{path} is too large to be a key or a certificate")
        if secret and mode & (stat.S_IRGRP | stat.S_IROTH):
            self.warnings.append(f"{path} can be read by others; run: chmod 600 {path}")
        return data

    def _certificates(self, path: Path) -> list[x509.Certificate]:
        try:
            return x509.load_pem_x509_certificates(self._read(path, secret=False))
        except ValueError:
            raise ConfigurationError(f"{path} holds no readable PEM certificate") from None

    def _from_pem(self, certificate_path: Path, key_path: Path) -> FileKey:
        leaf, *chain = self._certificates(certificate_path)
        key = _private_key(key_path, self._read(key_path, secret=True), self._password)
        return self._identity(leaf, chain, key, (certificate_path, key_path))

    def _from_pkcs12(self, path: Path) -> FileKey:
        data = self._read(path, secret=True)
        obsolete = False
        for attempt in dict.fromkeys((self._password, None, b"")):
            try:
                key, leaf, chain = pkcs12.load_key_and_certificates(data, attempt)
            except UnsupportedAlgorithm:
                obsolete = True
                continue
            except ValueError:
                continue
            certificates = [*([] if leaf is None else [leaf]), *chain]
            if key is None or not certificates:
                raise ConfigurationError(f"{path} must hold a private key together with its certificate")
            private = _supported(key, path)
            # Not every program marks the leaf or puts it first; the one of the key's own public key is it.
            certificates.sort(key=lambda one: not _is_of(one, private))
            return self._identity(certificates[0], certificates[1:], private, (path, path))
        if obsolete:
            raise ConfigurationError(_how_to_convert(path))
        raise ConfigurationError(
            f"{path} cannot be opened; is it PKCS#12 and the password in trust.key_password_file right?"
        )

    def _identity(
        self, leaf: x509.Certificate, chain: Sequence[x509.Certificate], key: PrivateKey, paths: tuple[Path, Path]
    ) -> FileKey:
        certificate_path, key_path = paths
        facts = read_facts(leaf, str(certificate_path))
        if not is_key_of(facts, key):
            raise ConfigurationError(
                f"the key in {key_path} does not belong to the (first) certificate in {certificate_path}, or is damaged"
            )
        self.warnings += doubts(facts, str(certificate_path))
        return make_file_key(leaf, key, chain=chain, source=certificate_path.name)


def doubts(facts: CertificateFacts, source: str) -> list[str]:
    """What an operator should know of a certificate that has a key here."""
    found = [f"a name in the SAN of {source} is no Direct address or domain and is ignored"] * facts.unusable_names
    if not facts.names:
        found.append(f"{source} names no address or domain in its SAN; it will not be used")
    if isinstance(facts.public_key, rsa.RSAPublicKey) and facts.public_key.key_size < _MIN_RSA_BITS:
        found.append(f"the RSA key of {source} is below {_MIN_RSA_BITS} bits; messages to it are refused")
    return found


def _is_of(certificate: x509.Certificate, key: PrivateKey) -> bool:
    try:
        return certificate.public_key() == key.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return False  # An authority's certificate of a kind that is not known here.


def _private_key(path: Path, data: bytes, password: bytes | None) -> PrivateKey:
    try:
        try:
            key = load_private_key(data, password)
        except TypeError:
            if password is None:
                raise ConfigurationError(f"{path} is encrypted; set trust.key_password_file") from None
            key = load_private_key(data, None)
    except (ValueError, UnsupportedAlgorithm):
        hint = "; is the password right?" if b"ENCRYPTED" in data else ""
        raise ConfigurationError(f"{path} holds no readable PEM private key{hint}") from None
    return _supported(key, path)


def _supported(key: object, path: Path) -> PrivateKey:
    if isinstance(key, PrivateKey):
        return key
    raise ConfigurationError(f"{path} holds a key that is neither RSA, EC, X25519 nor Ed25519; make one of those")


def _how_to_convert(path: Path) -> str:
    return (
        f"{path} is protected with an algorithm that is no longer supported; write it anew: openssl pkcs12 -legacy "
        f"-in {path.name} -out between.pem; openssl pkcs12 -export -in between.pem -out new.p12"
    )
