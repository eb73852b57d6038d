"""A private key that lies in the memory of this process: read from a file, or made by a test.

Guarantees: key material never leaves the object; neither its representation nor any error text holds any.

Failure modes: see each operation. A failed decryption raises, and its caller goes on with a random key (S/MIME
rule 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, x25519

from gateway.core.errors import ConfigurationError, InputError, RefusedError
from gateway.keys.certificate_facts import CertificateFacts, read_facts

OAEP_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),  # noqa: S303 - collisions do not matter in OAEP, and AS-36 asks for it
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
_SIGNATURE_HASHES: dict[str, hashes.SHA256 | hashes.SHA384 | hashes.SHA512] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
_PKCS1_V15 = padding.PKCS1v15()
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
    facts: CertificateFacts = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Read once: what a key may be used for is the certificate's to say, however the object was made.
        certificate = x509.load_der_x509_certificate(self.certificate)
        object.__setattr__(self, "facts", read_facts(certificate, self.source))

    def __repr__(self) -> str:
        return f"FileKey({self.source!r})"

    @property
    def not_after(self) -> datetime:
        """End of the certificate's validity."""
        return self.facts.not_after

    @property
    def may_decrypt(self) -> bool:
        """Whether the certificate lets others encrypt to the key (AS-12, AS-13)."""
        return self.facts.may_decrypt

    @property
    def may_sign(self) -> bool:
        """Whether the key can sign and its certificate allows it (AS-12, AS-13)."""
        return self.facts.may_sign

    def decrypt_rsa_pkcs1v15(self, encrypted_key: bytes) -> bytes:
        """Return the key hidden with RSAES-PKCS1-v1_5.

        Raises:
            RefusedError: this is no RSA key.
            ValueError: the length is wrong. Wrong padding yields random bytes (implicit rejection), not an error.
        """
        return self._rsa().decrypt(encrypted_key, _PKCS1_V15)

    def decrypt_rsa_oaep(self, encrypted_key: bytes, *, digest: str, mgf_digest: str, label: bytes) -> bytes:
        """Return the key hidden with RSAES-OAEP.

        Raises:
            RefusedError: this is no RSA key.
            KeyError, ValueError: an unknown digest, or it cannot be decrypted.
        """
        mode = padding.OAEP(padding.MGF1(OAEP_HASHES[mgf_digest]), OAEP_HASHES[digest], label or None)
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

    def sign(self, data: bytes, *, digest: str) -> bytes:
        """Sign the data: RSA PKCS#1 v1.5, ECDSA (DER form) or Ed25519, by the kind of key.

        Raises:
            RefusedError: the key cannot sign, its certificate forbids it (AS-12), or the digest is none that may be
                used. Ed25519 hashes by itself and looks at no digest (RFC 8032).
        """
        if not self.may_sign:
            raise RefusedError("this key may not sign: its kind or its certificate's key usage forbids it")
        key = self._key
        if isinstance(key, ed25519.Ed25519PrivateKey):
            return key.sign(data)
        algorithm = _SIGNATURE_HASHES.get(digest)
        if algorithm is None:
            raise RefusedError(f"signing with {digest} is not allowed")
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return key.sign(data, ec.ECDSA(algorithm))
        return self._rsa().sign(data, padding.PKCS1v15(), algorithm)

    def recheck(self) -> bool:
        """Say that a key in memory would fail again: see :meth:`gateway.ports.KeyOps.recheck`."""
        return False

    def _rsa(self) -> rsa.RSAPrivateKey:
        if not isinstance(self._key, rsa.RSAPrivateKey):
            raise RefusedError("this key is no RSA key")
        return self._key


def make_file_key(
    certificate: x509.Certificate, key: PrivateKey, *, chain: Sequence[x509.Certificate] = (), source: str
) -> FileKey:
    """Put a certificate, its key and the certificates above it together. Whether they fit is the caller's to know.

    Raises:
        ConfigurationError: the certificate cannot be read in full.
    """
    facts = read_facts(certificate, source)
    above = tuple(issuer.public_bytes(serialization.Encoding.DER) for issuer in chain)
    return FileKey(facts.der, facts.names, above, facts.not_before, source, key)


def file_key_from_pem(certificate_pem: bytes, key_pem: bytes, *, source: str = "a PEM text") -> FileKey:
    """Read one identity from PEM texts: the leaf first, the certificates above it after it; the key is not encrypted.

    Raises:
        InputError: unreadable, of a kind that is not used, or the two do not belong together.
    """
    try:
        leaf, *chain = x509.load_pem_x509_certificates(certificate_pem)
        key = load_private_key(key_pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InputError(f"the certificate or the key of {source} cannot be read") from None
    if not isinstance(key, PrivateKey):
        raise InputError(f"the key of {source} is neither RSA, EC, X25519 nor Ed25519")
    try:
        made = make_file_key(leaf, key, chain=chain, source=source)
    except ConfigurationError as error:
        raise InputError(str(error)) from None
    if not is_key_of(made.facts, key):
        raise InputError(f"the key of {source} does not belong to its certificate, or is damaged")
    return made


def load_private_key(pem: bytes, password: bytes | None) -> object:
    """Read a private key without the library's own examination of RSA keys, which takes it 36 ms for each.

    With ten thousand identities that would be six minutes at every start. :func:`is_key_of` shows in half a
    millisecond what matters: that the key does what its certificate promises.

    Raises:
        ValueError, TypeError, UnsupportedAlgorithm: as the library does.
    """
    return serialization.load_pem_private_key(pem, password, unsafe_skip_rsa_key_validation=True)


def is_key_of(facts: CertificateFacts, key: PrivateKey) -> bool:
    """Whether the key is the certificate's; an RSA key must sign once what the certificate verifies."""
    public = facts.public_key
    if public != key.public_key():
        return False
    if not isinstance(key, rsa.RSAPrivateKey) or not isinstance(public, rsa.RSAPublicKey):
        return True
    try:
        public.verify(key.sign(b"", padding.PKCS1v15(), hashes.SHA256()), b"", padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, InternalError, ValueError):
        return False
    return True
