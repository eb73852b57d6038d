"""A private key on a PKCS#11 token. It never leaves the token; what leaves is a signature or a decrypted key.

What the token does: RSAES-PKCS1-v1_5 and RSAES-OAEP decryption, ECDH on P-256 and P-384 (the raw secret, CKD_NULL),
RSA PKCS#1 v1.5 and ECDSA signatures. Hashing for ECDSA, key derivation and key unwrap are done here. OAEP goes to the
token as a whole, with the digest, the mask's digest and the label that the message names: unpadding it here would need
code that runs in constant time, which Python cannot promise. A token that knows only some digests (SoftHSM 2.6: SHA-1
without a label) cannot open messages with the others; that is said when the keys are loaded.

Decryption and failure (S/MIME rule 2): whatever the token says about a ciphertext is an exception without a meaning,
and the caller goes on with a random key. :class:`KeyUnavailableError` is raised only where no message is the cause:
the session is gone and cannot be opened anew, or the token fails a known answer (:meth:`TokenKey.recheck`). The known
answer is asked for whenever a message could not be opened, for whatever cause, so neither its outcome nor its time
depends on the padding.

Failure modes: see each operation.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from gateway.core.errors import KeyUnavailableError, RefusedError
from gateway.keys.certificate_facts import CertificateFacts
from gateway.keys.file_key import OAEP_HASHES
from gateway.keys.token_connection import KeyReference, TokenConnection, TokenOperationError
from gateway.keys.token_login import pkcs11_library

CURVES = {"secp256r1": 32, "secp384r1": 48}
"""Bytes of a coordinate, and so of the shared secret and of each half of a signature."""
_DIGEST_INFO = {
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}
"""What stands before the digest in an RSA PKCS#1 v1.5 signature (RFC 8017 section 9.2, note 1)."""
_KNOWN_ANSWER_BYTES = 32


@dataclass(frozen=True, slots=True)
class KnownAnswer:
    """A question to the key whose answer we know, to see whether the token works."""

    ask: Callable[[TokenKey], bytes]
    answer: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class TokenKey:
    """One private key on a token with its certificate: implements :class:`gateway.ports.KeyOps`."""

    facts: CertificateFacts
    chain: tuple[bytes, ...]
    """DER of the certificates above the leaf, from its file."""
    source: str
    """For messages to the operator."""
    connection: TokenConnection
    reference: KeyReference
    token_decrypts: bool
    """Whether the token lets the key decrypt (CKA_DECRYPT) or agree (CKA_DERIVE)."""
    token_signs: bool
    """Whether the token lets the key sign (CKA_SIGN)."""
    known_answer: KnownAnswer | None = field(default=None, repr=False, compare=False)
    """None: the key was never seen to decrypt, and nothing can be asked of it."""

    def __repr__(self) -> str:
        return f"TokenKey({self.source!r})"

    @property
    def certificate(self) -> bytes:
        """DER of the certificate."""
        return self.facts.der

    @property
    def names(self) -> tuple[str, ...]:
        """Normalised addresses and domains of the certificate's SAN."""
        return self.facts.names

    @property
    def not_before(self) -> datetime:
        """Start of the certificate's validity."""
        return self.facts.not_before

    @property
    def not_after(self) -> datetime:
        """End of the certificate's validity."""
        return self.facts.not_after

    @property
    def may_decrypt(self) -> bool:
        """Whether certificate and token let others encrypt to the key (AS-12, AS-13)."""
        return self.facts.may_decrypt and self.token_decrypts

    @property
    def may_sign(self) -> bool:
        """Whether certificate and token let the key sign (AS-12, AS-13)."""
        return self.facts.may_sign and self.token_signs

    def decrypt_rsa_pkcs1v15(self, encrypted_key: bytes) -> bytes:
        """Return the key hidden with RSAES-PKCS1-v1_5.

        Raises:
            RefusedError: this is no RSA key.
            TokenOperationError: the token says no. Whether it says so of wrong padding, or yields random bytes, is the
                token's choice; the caller must treat all alike.
            KeyUnavailableError: the token cannot be reached.
        """
        self._require(rsa.RSAPublicKey)
        mechanism = pkcs11_library().Mechanism.RSA_PKCS
        return self.connection.run(self.reference, lambda key: bytes(key.decrypt(encrypted_key, mechanism=mechanism)))

    def decrypt_rsa_oaep(self, encrypted_key: bytes, *, digest: str, mgf_digest: str, label: bytes) -> bytes:
        """Return the key hidden with RSAES-OAEP.

        Raises:
            RefusedError: this is no RSA key.
            KeyError: an unknown digest.
            TokenOperationError: the token says no, or does not know the digest.
            KeyUnavailableError: the token cannot be reached.
        """
        self._require(rsa.RSAPublicKey)
        pkcs11 = pkcs11_library()
        mechanism, mgf = _oaep_names(digest)[0], _oaep_names(mgf_digest)[1]
        parameters = (pkcs11.Mechanism[mechanism], pkcs11.MGF[mgf], label or None)

        def decrypt(key: Any) -> bytes:
            oaep = pkcs11.Mechanism.RSA_PKCS_OAEP
            return bytes(key.decrypt(encrypted_key, mechanism=oaep, mechanism_param=parameters))

        return self.connection.run(self.reference, decrypt)

    def agree(self, peer_public_key: bytes) -> bytes:
        """Return the shared secret of ECDH (RFC 5753), of the length of the curve's field.

        Raises:
            RefusedError: this key cannot agree, or the peer's is of another kind or curve.
            ValueError: the peer's key is no point on the curve (found here, before the token sees it).
            TokenOperationError: the token says no.
            KeyUnavailableError: the token cannot be reached.
        """
        own = self.facts.public_key
        peer = serialization.load_der_public_key(peer_public_key)
        if (
            not isinstance(own, ec.EllipticCurvePublicKey)
            or not isinstance(peer, ec.EllipticCurvePublicKey)
            or own.curve.name != peer.curve.name
        ):
            raise RefusedError("this key cannot agree on a secret with that one")
        size = CURVES[own.curve.name]
        point = peer.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
        return self.connection.run(self.reference, lambda key: _derive(key, point, size))

    def sign(self, data: bytes, *, digest: str) -> bytes:
        """Sign the data: RSA PKCS#1 v1.5, or ECDSA in DER form, by the kind of key.

        Raises:
            RefusedError: the key, its certificate or the token does not allow it, or the digest is none that may be
                used.
            KeyUnavailableError: the token cannot be reached, or does not sign now.
        """
        if not self.may_sign:
            raise RefusedError("this key may not sign: its certificate or its token forbids it")
        if digest not in _DIGEST_INFO:
            raise RefusedError(f"signing with {digest} is not allowed")
        return self._signed(data, digest)

    def _signed(self, data: bytes, digest: str) -> bytes:
        hashed = hashlib.new(digest, data).digest()
        mechanism, what = "ECDSA", hashed
        if isinstance(self.facts.public_key, rsa.RSAPublicKey):
            mechanism, what = "RSA_PKCS", _DIGEST_INFO[digest] + hashed
        try:
            raw = self._steadily(lambda: self._sign_raw(mechanism, what))
        except TokenOperationError:
            raise RefusedError("this key may not sign: its token does not do it with a key of this kind") from None
        if mechanism == "RSA_PKCS":
            return raw
        half = len(raw) // 2
        return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))

    def proves_itself(self) -> bool:
        """Whether the key signs what its certificate verifies, be the certificate for signing or not.

        Raises:
            RefusedError: the token never signs with a key of this kind.
            KeyUnavailableError: the token cannot be reached, or does not sign now.
        """
        data = secrets.token_bytes(_KNOWN_ANSWER_BYTES)
        signature = self._signed(data, "sha256")
        public = self.facts.public_key
        try:
            if isinstance(public, rsa.RSAPublicKey):
                public.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
            elif isinstance(public, ec.EllipticCurvePublicKey):
                public.verify(signature, data, ec.ECDSA(hashes.SHA256()))
            else:
                return False
        except InvalidSignature:
            return False
        return True

    def recheck(self) -> bool:
        """See :meth:`gateway.ports.KeyOps.recheck`: ask the token the known answer.

        Raises:
            KeyUnavailableError: the token cannot be reached, or gives another answer.
        """
        if self.known_answer is None:
            return False
        answer = self.known_answer
        try:
            right = self._steadily(lambda: answer.ask(self)) == answer.answer
        except TokenOperationError as error:
            raise KeyUnavailableError(f"the token {self.connection.label!r} no longer does that ({error})") from None
        if not right:
            raise KeyUnavailableError(f"the token {self.connection.label!r} decrypts wrongly")
        return True

    def _sign_raw(self, mechanism: str, data: bytes) -> bytes:
        number = pkcs11_library().Mechanism[mechanism]
        return self.connection.run(self.reference, lambda key: bytes(key.sign(data, mechanism=number)))

    def _steadily(self, operation: Callable[[], bytes]) -> bytes:
        """Do what must succeed, since its input is ours: when it fails, once more on a token opened from the start.

        Raises:
            KeyUnavailableError: it fails again.
            TokenOperationError: the token says that it never does this.
        """
        try:
            return operation()
        except TokenOperationError as error:
            if error.unsupported:
                raise
            self.connection.reset()
        try:
            return operation()
        except TokenOperationError as error:
            raise KeyUnavailableError(f"the token {self.connection.label!r} does not work now ({error})") from None

    def _require(self, kind: type[object]) -> None:
        if not isinstance(self.facts.public_key, kind) or not self.token_decrypts:
            raise RefusedError("this key cannot decrypt so")


def known_answers(facts: CertificateFacts) -> list[KnownAnswer]:
    """Make questions to a private key with nothing but its certificate; the most usual way of decryption first."""
    public = facts.public_key
    if isinstance(public, rsa.RSAPublicKey):
        secret = secrets.token_bytes(_KNOWN_ANSWER_BYTES)
        plain = public.encrypt(secret, padding.PKCS1v15())
        oaep = [oaep_answer(public, digest, b"") for digest in ("sha1", "sha256")]
        return [KnownAnswer(lambda key: key.decrypt_rsa_pkcs1v15(plain), secret), *oaep]
    if isinstance(public, ec.EllipticCurvePublicKey):
        peer = ec.generate_private_key(public.curve)
        spki = peer.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return [KnownAnswer(lambda key: key.agree(spki), peer.exchange(ec.ECDH(), public))]
    return []


def oaep_answer(public: rsa.RSAPublicKey, digest: str, label: bytes) -> KnownAnswer:
    """Make a question with OAEP, with one digest for both uses."""
    secret = secrets.token_bytes(_KNOWN_ANSWER_BYTES)
    algorithm = OAEP_HASHES[digest]
    sealed = public.encrypt(secret, padding.OAEP(padding.MGF1(algorithm), algorithm, label or None))
    return KnownAnswer(lambda key: key.decrypt_rsa_oaep(sealed, digest=digest, mgf_digest=digest, label=label), secret)


def _derive(key: Any, point: bytes, size: int) -> bytes:
    pkcs11 = pkcs11_library()
    attribute = pkcs11.Attribute
    secret = key.derive_key(
        pkcs11.KeyType.GENERIC_SECRET,
        size * 8,
        mechanism=pkcs11.Mechanism.ECDH1_DERIVE,
        mechanism_param=(pkcs11.KDF.NULL, None, point),
        template={attribute.TOKEN: False, attribute.SENSITIVE: False, attribute.EXTRACTABLE: True},
    )
    try:
        value = bytes(secret[attribute.VALUE])
    finally:
        secret.destroy()
    # Some tokens leave leading zeros out, which would change the derived key (SEC 1 section 2.3.5 keeps them).
    return value.rjust(size, b"\0")


def _oaep_names(digest: str) -> tuple[str, str]:
    return {
        "sha1": ("SHA_1", "SHA1"),
        "sha256": ("SHA256", "SHA256"),
        "sha384": ("SHA384", "SHA384"),
        "sha512": ("SHA512", "SHA512"),
    }[digest]
