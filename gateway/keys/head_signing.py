"""The gateway's Ed25519 key that signs tree heads of the audit log (RFC 8032), and the check of what it signed.

The private half is a PKCS#8 PEM file of mode 0600; the public half stands beside it (``NAME.pub.pem`` for
``NAME.key.pem``), to be copied to whoever keeps the heads. A key is made once. A gateway that has signed heads and has
lost its key does not make another in silence: whoever checks the heads would not know it.

Crash story: the public half is written first and the private one renamed into place last, each synced. A process that
is killed between the two leaves no private key, and the next attempt begins anew.

Failure modes: ConfigurationError that names the file and the mend. TamperedError for a signature that does not hold.
No error text holds key material.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import replace
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from gateway.core.errors import ConfigurationError, InputError, TamperedError
from gateway.core.tree_head import TreeHead, signed_bytes
from gateway.observability.folders import sync_folder

_MAX_FILE_BYTES = 16_384
_OPEN_BITS = stat.S_IRWXG | stat.S_IRWXO


class HeadVerifier:
    """The public half."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.key_id = hashlib.sha256(der).hexdigest()
        self.pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def check(self, head: TreeHead) -> None:
        """Check the signature.

        Raises:
            TamperedError: another key signed it, or it was altered.
        """
        if head.key_id != self.key_id:
            raise TamperedError(f"the head of {head.size} events is signed by another key ({head.key_id[:16]})")
        try:
            self._key.verify(head.signature, signed_bytes(head))
        except InvalidSignature:
            raise TamperedError(f"the signature of the head of {head.size} events does not hold") from None


class HeadSigner(HeadVerifier):
    """The private half."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        super().__init__(key.public_key())
        self._private = key

    def sign(self, head: TreeHead) -> TreeHead:
        """Return the head with this key's name and signature."""
        named = replace(head, key_id=self.key_id)
        return replace(named, signature=self._private.sign(signed_bytes(named)))


def public_file_of(path: Path) -> Path:
    """Where the public half stands."""
    return path.with_name(path.name.removesuffix(".pem").removesuffix(".key") + ".pub.pem")


def make_signing_key(path: Path) -> HeadSigner:
    """Make a key where there is none, with its public half beside it.

    Raises:
        ConfigurationError: the files cannot be written, or there is a key already.
    """
    signer = HeadSigner(Ed25519PrivateKey.generate())
    pem = signer._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())  # noqa: SLF001 - our own
    staged = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(public_file_of(path), signer.pem, 0o600)
        _write(staged, pem, 0o600)
        # A link and not a rename: it fails where another process has made a key in the meantime.
        os.link(staged, path)
        staged.unlink()
        sync_folder(path.parent)
    except FileExistsError as exc:
        staged.unlink(missing_ok=True)
        raise ConfigurationError(f"audit.signing_key_file: there is a key at {path} already") from exc
    except OSError as exc:
        raise ConfigurationError(f"audit.signing_key_file: cannot write {path}: {exc.strerror}") from exc
    return signer


def load_signing_key(path: Path) -> HeadSigner:
    """Read the private half.

    Raises:
        ConfigurationError: it is not there, cannot be read, is no Ed25519 key, or others may read it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_MAX_FILE_BYTES)
    except FileNotFoundError:
        raise ConfigurationError(
            f"audit.signing_key_file: there is no key {path}; put it back from your copy"
        ) from None
    except OSError as exc:
        raise ConfigurationError(f"audit.signing_key_file: cannot read {path}: {exc.strerror}") from exc
    if mode & _OPEN_BITS:
        raise ConfigurationError(f"audit.signing_key_file: other users may read {path}; mend it with: chmod 600 {path}")
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"audit.signing_key_file: {path} is no unencrypted Ed25519 private key (PKCS#8, PEM)")
    return HeadSigner(key)


def load_public_key(path: Path) -> HeadVerifier:
    """Read a public half.

    Raises:
        InputError: it cannot be read, or is no Ed25519 public key.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES)
    except OSError as exc:
        raise InputError(f"cannot read {path}: {exc.strerror}") from exc
    try:
        key = load_pem_public_key(data)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(f"{path} is no Ed25519 public key (PEM); print ours with: direct-gateway audit key")
    return HeadVerifier(key)


def _write(path: Path, data: bytes, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
