"""Delays for those who guess passwords: 2, 4, 8, then 15 seconds, by network address and by account.

The delay comes before a password is checked, so that a guess learns nothing sooner by being right. Distinct wrong
passwords count, not attempts: a mail client that repeats an old password does not lock its owner out. A success
takes back only the failures of the same address with the same login, so an attacker's own account clears nothing
but its own failures. IPv6 addresses count by /64.

Guarantees: bounded memory (passwords and logins are kept as keyed digests only); failures are forgotten
FORGET_AFTER_SECONDS after the latest one. State is per process and is lost at a restart.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from gateway.core.peers import peer_network

DELAYS_SECONDS = (0.0, 2.0, 4.0, 8.0, 15.0)
FORGET_AFTER_SECONDS = 900.0
MAX_ENTRIES = 10_000
_KEPT_FAILURES = 16

Monotonic = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]


class _Failures:
    """Distinct failures of one address or one account: what was tried, by whom (or for which login)."""

    __slots__ = ("expires", "seen")

    def __init__(self) -> None:
        self.seen: OrderedDict[bytes, bytes] = OrderedDict()
        self.expires = 0.0


class LoginDelay:
    """Failure counts of one process. Every method belongs on the event loop."""

    def __init__(self, monotonic: Monotonic, sleep: Sleep, *, max_entries: int = MAX_ENTRIES) -> None:
        self._monotonic = monotonic
        self._sleep = sleep
        self._max_entries = max_entries
        self._key = secrets.token_bytes(32)
        self._peers: OrderedDict[bytes, _Failures] = OrderedDict()
        self._logins: OrderedDict[bytes, _Failures] = OrderedDict()

    def peer_delay(self, peer: str) -> float:
        """Seconds that the next attempt from this address has to wait."""
        return self._delay(self._peers, self._peer(peer))

    def login_delay(self, login: str) -> float:
        """Seconds that the next attempt on this account has to wait."""
        return self._delay(self._logins, self._digest(b"login", login.encode()))

    async def wait(self, seconds: float) -> None:
        """Sleep, when there is anything to wait for."""
        if seconds > 0:
            await self._sleep(seconds)

    def failed(self, peer: str, login: str, password: bytes) -> None:
        """Count a wrong password; the same one again changes nothing but the time of the latest failure."""
        who, account = self._peer(peer), self._digest(b"login", login.encode())
        tried = self._digest(b"password", account, password)
        self._count(self._peers, who, tried, account)
        self._count(self._logins, account, tried, who)

    def succeeded(self, peer: str, login: str) -> None:
        """Take back what this address got wrong with this login."""
        who, account = self._peer(peer), self._digest(b"login", login.encode())
        self._forgive(self._peers, who, account)
        self._forgive(self._logins, account, who)

    def _delay(self, table: OrderedDict[bytes, _Failures], key: bytes) -> float:
        entry = table.get(key)
        if entry is None:
            return 0.0
        if entry.expires <= self._monotonic():
            del table[key]
            return 0.0
        return DELAYS_SECONDS[min(len(entry.seen), len(DELAYS_SECONDS) - 1)]

    def _count(self, table: OrderedDict[bytes, _Failures], key: bytes, tried: bytes, other: bytes) -> None:
        now = self._monotonic()
        entry = table.get(key)
        if entry is None or entry.expires <= now:
            entry = table[key] = _Failures()
        table.move_to_end(key)
        entry.expires = now + FORGET_AFTER_SECONDS
        entry.seen[tried] = other
        entry.seen.move_to_end(tried)
        if len(entry.seen) > _KEPT_FAILURES:
            entry.seen.popitem(last=False)
        if len(table) > self._max_entries:
            table.popitem(last=False)

    @staticmethod
    def _forgive(table: OrderedDict[bytes, _Failures], key: bytes, other: bytes) -> None:
        entry = table.get(key)
        if entry is None:
            return
        for tried in [tried for tried, by in entry.seen.items() if by == other]:
            del entry.seen[tried]
        if not entry.seen:
            del table[key]

    def _peer(self, peer: str) -> bytes:
        return self._digest(b"peer", peer_network(peer).encode())

    def _digest(self, kind: bytes, *pieces: bytes) -> bytes:
        digest = hashlib.blake2b(key=self._key, digest_size=16, person=kind)
        for piece in pieces:
            digest.update(len(piece).to_bytes(4, "big") + piece)
        return digest.digest()
