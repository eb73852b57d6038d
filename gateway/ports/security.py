"""What judges messages and holds private keys."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from gateway.core.message import Envelope
from gateway.core.verdict import Judgement


class SecurityAgent(Protocol):
    """The Security/Trust Agent."""

    def judge(self, raw: bytes, envelope: Envelope, at: datetime) -> Judgement:
        """Judge a message. Never raises for what the message holds; may take CPU and, for revocation, network time."""
        ...


class KeyOps(Protocol):
    """One private key, wherever it lives (a file, a token). Key material never crosses this port.

    A failed decryption raises any exception; the caller must not branch on it towards the outside
    (S/MIME rule 2): it goes on with a random key.
    """

    @property
    def certificate(self) -> bytes:
        """DER of the certificate that belongs to the key."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Normalised addresses (rfc822Name) and domains (dNSName) of the certificate's SAN."""
        ...

    def decrypt_rsa_pkcs1v15(self, encrypted_key: bytes) -> bytes: ...

    def decrypt_rsa_oaep(self, encrypted_key: bytes, *, digest: str, mgf_digest: str, label: bytes) -> bytes:
        """``digest`` names: sha1, sha256, sha384, sha512."""
        ...

    def agree(self, peer_public_key: bytes) -> bytes:
        """Raw ECDH or X25519 shared secret with the peer's key (DER SubjectPublicKeyInfo)."""
        ...


class KeyRing(Protocol):
    """All private keys of this gateway."""

    def keys_for(self, recipients: Sequence[str]) -> Sequence[KeyOps]:
        """Keys bound to any of the (normalised) addresses or to their domains, newest first (AS-14, AS-49)."""
        ...

    def names(self) -> frozenset[str]:
        """Every address and domain that has a key."""
        ...
