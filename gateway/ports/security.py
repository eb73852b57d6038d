"""What judges messages, holds private keys, and seals what is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from gateway.core.message import Envelope
from gateway.core.verdict import Judgement


class SecurityAgent(Protocol):
    """The Security/Trust Agent."""

    def judge(self, raw: bytes, envelope: Envelope, at: datetime) -> Judgement:
        """Judge a message. Never raises for what the message holds; may take CPU and, for revocation, network time.

        Raises KeyUnavailableError when a key that may open it lies on a token that does not work now.
        """
        ...


class KeyOps(Protocol):
    """One private key, wherever it lives (a file, a token). Key material never crosses this port.

    A failed decryption raises any exception; the caller must not branch on it towards the outside
    (S/MIME rule 2): it goes on with a random key. KeyUnavailableError is the one exception with a meaning: the key's
    token cannot be reached, which no message is the cause of.
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

    def sign(self, data: bytes, *, digest: str) -> bytes:
        """Sign the data (not its digest): RSA PKCS#1 v1.5, ECDSA (DER form) or Ed25519 by the kind of key.

        ``digest`` names: sha256, sha384, sha512 (Ed25519 takes none of them). Raises RefusedError when the key or
        its certificate's key usage may not sign.
        """
        ...

    def recheck(self) -> bool:
        """Say whether it is worth while to try again what this key could not open.

        It is asked whenever a message could not be opened by any key, whatever the cause, so that neither the answer
        nor the time it takes tells anything about the message (S/MIME rule 2). False: the key lies in memory and would
        fail again. True: the key lies on a token that has just given a known answer rightly, so the failure may have
        been a passing one. Raises KeyUnavailableError when the token cannot do it: then nothing is known of the
        message.
        """
        ...

    @property
    def may_decrypt(self) -> bool:
        """Whether the certificate's key usage lets others encrypt to it (AS-12, AS-13)."""
        ...

    @property
    def may_sign(self) -> bool:
        """Whether the key can sign and its certificate's key usage allows it (AS-12, AS-13)."""
        ...


class KeyRing(Protocol):
    """All private keys of this gateway."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is doubtful but usable, for the operator."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What the operator should know and cannot mend: the limits of a token."""
        ...

    def keys_for(self, recipients: Sequence[str]) -> Sequence[KeyOps]:
        """Keys bound to any of the (normalised) addresses or to their domains, newest first (AS-14, AS-49)."""
        ...

    def signers_for(self, sender: str) -> Sequence[KeyOps]:
        """Keys that may sign for the (normalised) address: its own first, then its domain's, newest first (AS-13)."""
        ...

    def names(self) -> frozenset[str]:
        """Every address and domain that has a key."""
        ...


@dataclass(frozen=True, slots=True)
class PartName:
    """Which part of which body this is. A sealed part opens under its own name only."""

    message_id: str
    kind: str
    position: int
    """From 0."""
    last: bool
    """Whether the body ends with this part."""


class KeyWrapper(Protocol):
    """The ring of key-encryption keys (KEKs), wherever they live (a file, a token). Safe to use from several threads.

    A ring that cannot be read raises ConfigurationError, a token that does not answer KeyUnavailableError, from
    every method: the ring is read when it is first needed.
    """

    @property
    def current_id(self) -> str:
        """Id of the newest key of the ring."""
        ...

    def ids(self) -> tuple[str, ...]:
        """Ids of all keys of the ring, newest first."""
        ...

    def wrap(self, kek_id: str, key: bytes) -> bytes:
        """Encrypt a key under the KEK of that id. Raises KeyUnavailableError when the ring does not have it."""
        ...

    def unwrap(self, kek_id: str, wrapped: bytes) -> bytes:
        """The key again.

        Raises:
            KeyUnavailableError: the ring does not have that KEK, or its token does not work now.
            SealBrokenError: these bytes were not wrapped under it, or were damaged.
        """
        ...

    def reload(self) -> None:
        """Read the ring again; one that cannot be read leaves what is known in force and raises."""
        ...


class KeyKeeper(KeyWrapper, Protocol):
    """A ring whose keys can be changed, by the commands of the operator."""

    @property
    def place(self) -> str:
        """Where the keys are, in words for the operator."""
        ...

    def make_key(self, at: datetime) -> str:
        """Put a new key first into the ring; returns its id when it is on the disk or the token.

        Raises ConfigurationError when this ring can only be read; the text says what to do instead.
        """
        ...

    def remove_key(self, kek_id: str) -> bool:
        """Take a key out of the ring; False when it is not there, or only the token's own program can do that."""
        ...


class BodySealer(Protocol):
    """Seals bodies at rest, part by part. Each message has a key of its own, which is kept wrapped."""

    @property
    def keys(self) -> KeyWrapper: ...

    def new_key(self) -> bytes:
        """A random key for one message."""
        ...

    def seal(self, key: bytes, name: PartName, part: bytes) -> bytes:
        """Encrypt a part, so that it opens under this key and this name only."""
        ...

    def open(self, key: bytes, name: PartName, sealed: bytes) -> bytes:
        """The part again. Raises SealBrokenError: damaged, of another key, or not the part of that name."""
        ...
