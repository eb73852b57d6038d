"""Delays for those who guess passwords: 2, 4, 8, then 15 seconds, by network address and by account.

The delay comes before a password is checked, so that a guess learns nothing sooner by being right. Distinct wrong
passwords count, not attempts: a mail client that repeats an old password does not lock its owner out. A success
takes back only the failures of the same address with the same login, so an attacker's own account clears nothing
but its own failures. IPv6 addresses count by /64.

An address with failures tries one password at a time, whatever the number of its connections: a hundred of them at
once would otherwise be a hundred guesses for one delay. Whoever logged in from there before waits the delay and not
the turns of others, so that one telephone with an old password does not close the office behind the same address.

Guarantees: bounded memory (passwords and logins are kept as keyed digests only); failures are forgotten
FORGET_AFTER_SECONDS after the latest one. State is per process and is lost at a restart.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from gateway.core.peers import peer_network

DELAYS_SECONDS = (0.0, 2.0, 4.0, 8.0, 15.0)
FORGET_AFTER_SECONDS = 900.0
WELCOME_SECONDS = 86_400.0
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


class _Turn:
    """Who is next of one address."""

    __slots__ = ("lock", "wanted")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.wanted = 0


class LoginDelay:
    """Failure counts of one process. Every method belongs on the event loop."""

    def __init__(self, monotonic: Monotonic, sleep: Sleep, *, max_entries: int = MAX_ENTRIES) -> None:
        self._monotonic = monotonic
        self._sleep = sleep
        self._max_entries = max_entries
        self._key = secrets.token_bytes(32)
        self._peers: OrderedDict[bytes, _Failures] = OrderedDict()
        self._logins: OrderedDict[bytes, _Failures] = OrderedDict()
        self._turns: dict[bytes, _Turn] = {}
        self._welcome: OrderedDict[bytes, float] = OrderedDict()
        """Until when an address and a login are known to belong together."""

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

    @asynccontextmanager
    async def turn(self, peer: str) -> AsyncIterator[None]:
        """For as long as the context lasts, nobody else from this address has a turn; it begins with the delay."""
        who = self._peer(peer)
        turn = self._turns.setdefault(who, _Turn())
        turn.wanted += 1
        try:
            async with turn.lock:
                await self.wait(self._delay(self._peers, who))
                yield
        finally:
            turn.wanted -= 1
            if not turn.wanted:
                del self._turns[who]

    def failed(self, peer: str, login: str, password: bytes) -> None:
        """Count a wrong password; the same one again changes nothing but the time of the latest failure."""
        who, account = self._peer(peer), self._digest(b"login", login.encode())
        tried = self._digest(b"password", account, password)
        self._count(self._peers, who, tried, account)
        self._count(self._logins, account, tried, who)

    def succeeded(self, peer: str, login: str) -> None:
        """Take back what this address got wrong with this login."""
        who, account = self._peer(peer), self._digest(b"login", login.encode())
        self._welcome[who + account] = self._monotonic() + WELCOME_SECONDS
        self._welcome.move_to_end(who + account)
        if len(self._welcome) > self._max_entries:
            self._welcome.popitem(last=False)
        self._forgive(self._peers, who, account)
        self._forgive(self._logins, account, who)

    def is_welcome(self, peer: str, login: str) -> bool:
        """Whether this login succeeded from this address within WELCOME_SECONDS."""
        until = self._welcome.get(self._peer(peer) + self._digest(b"login", login.encode()), 0.0)
        return self._monotonic() < until

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
