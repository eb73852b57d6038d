"""Seals message bodies with AES-256-GCM: implements :class:`gateway.ports.BodySealer`.

A sealed part is ``format (1 byte) || nonce (12) || ciphertext and tag``. The nonce is random for each part; a key seals
the few parts of one message, far below the 2**32 at which random nonces would begin to matter (NIST SP 800-38D 8.3).
What is authenticated beside the part: the format, the message id, the kind, the position and whether the part is the
last. So a part opens in its own place only. The id of the key-encryption key is not among it, on purpose: keys are
wrapped anew without touching a sealed row.

Failure modes: SealBrokenError without any detail, whatever is wrong with the bytes.
"""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.core.errors import SealBrokenError
from gateway.ports import KeyWrapper, PartName

KEY_BYTES = 32
_FORMAT = b"\x01"
_NONCE_BYTES = 12
_TAG_BYTES = 16
_DOMAIN = b"direct-gateway body part"
_BEGINNING, _EIGHT, _LAST, _MORE = (
    b"".join(len(field).to_bytes(2, "big") + field for field in (_DOMAIN, _FORMAT)),
    (8).to_bytes(2, "big"),
    (4).to_bytes(2, "big") + b"last",
    (4).to_bytes(2, "big") + b"more",
)
"""What stands in every name, put together once: a mailbox is opened message by message."""


class AESBodySealer:
    """Keys of messages and the cipher of their parts; the ring wraps the keys."""

    def __init__(self, keys: KeyWrapper) -> None:
        self._keys = keys

    @property
    def keys(self) -> KeyWrapper:
        """The ring of key-encryption keys."""
        return self._keys

    def new_key(self) -> bytes:
        """A random 256-bit key for one message."""
        return secrets.token_bytes(KEY_BYTES)

    def seal(self, key: bytes, name: PartName, part: bytes) -> bytes:
        """Encrypt a part, so that it opens under this key and this name only."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return b"".join((_FORMAT, nonce, AESGCM(key).encrypt(nonce, part, _bound(name))))

    def open(self, key: bytes, name: PartName, sealed: bytes) -> bytes:
        """The part again. Raises SealBrokenError: damaged, of another key, or not the part of that name."""
        if sealed[:1] != _FORMAT or len(sealed) < 1 + _NONCE_BYTES + _TAG_BYTES:
            raise SealBrokenError("a sealed part has a form that this release does not know")
        view = memoryview(sealed)
        try:
            return AESGCM(key).decrypt(view[1 : 1 + _NONCE_BYTES], view[1 + _NONCE_BYTES :], _bound(name))
        except InvalidTag:
            raise SealBrokenError("a sealed part does not open") from None


def _bound(name: PartName) -> bytes:
    """What is authenticated with a part; every field has its length before it, so that no two names agree."""
    message, kind = name.message_id.encode(), name.kind.encode()
    lengths = len(message).to_bytes(2, "big"), len(kind).to_bytes(2, "big")
    place = name.position.to_bytes(8, "big")
    return b"".join((_BEGINNING, lengths[0], message, lengths[1], kind, _EIGHT, place, _LAST if name.last else _MORE))
