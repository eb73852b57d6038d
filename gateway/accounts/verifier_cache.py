"""Remembers for a while which password was right, so that a client that reconnects does not cost an Argon2 run.

A remembered password is a keyed digest under a key that lives in this process only. The stored hash is part of the
digest: when a password is changed, by this process or another, what was remembered no longer matches.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable

from gateway.ports import Account

REMEMBER_SECONDS = 600.0
MAX_REMEMBERED = 1_000


class VerifierCache:
    """Bounded, expiring; the least recently used is forgotten first."""

    def __init__(self, monotonic: Callable[[], float], *, max_entries: int = MAX_REMEMBERED) -> None:
        self._monotonic = monotonic
        self._max_entries = max_entries
        self._key = secrets.token_bytes(32)
        self._expires: OrderedDict[bytes, float] = OrderedDict()

    def remember(self, account: Account, password: bytes) -> None:
        """The password was just verified against the account's hash."""
        digest = self._digest(account, password)
        self._expires[digest] = self._monotonic() + REMEMBER_SECONDS
        self._expires.move_to_end(digest)
        if len(self._expires) > self._max_entries:
            self._expires.popitem(last=False)

    def knows(self, account: Account, password: bytes) -> bool:
        """Whether exactly this password was verified against exactly this hash a short while ago."""
        digest = self._digest(account, password)
        expires = self._expires.get(digest)
        if expires is None:
            return False
        if expires <= self._monotonic():
            del self._expires[digest]
            return False
        self._expires.move_to_end(digest)
        return True

    def clear(self) -> None:
        """Forget everything."""
        self._expires.clear()

    def _digest(self, account: Account, password: bytes) -> bytes:
        digest = hashlib.blake2b(key=self._key, digest_size=32)
        for piece in (str(account.id).encode(), account.password_hash.encode(), password):
            digest.update(len(piece).to_bytes(4, "big") + piece)
        return digest.digest()
