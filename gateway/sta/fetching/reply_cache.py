"""What was fetched, kept for the next message; shared by worker threads (AS-70).

Guarantees: a reply is kept until the time that its loader gives (its own nextUpdate), but it is asked for anew after
MAX_AGE_SECONDS, because a list may be replaced early; when that fails the old one, still in force, serves on. A reply
that is older than the one that is kept never takes its place, and the kept one is asked for again soon. A fetch that
failed is not tried again for FAILURE_SECONDS, so that a thousand messages do not each wait for a dead server. Of
several messages that need the same reply at once one fetches and the others wait, each no longer than its own budget.
Entries, bytes and remembered failures are bounded, and what strangers' certificates name has a pool of its own, so that
they cannot drive out revocation data. What is past its time is still held until there is no room, for those who can use
it (``held``): a revocation is final.

A cache depends on nothing but what was fetched: neither on anchors nor on the operator's lists. It may outlive them.

Failure modes: :class:`FetchError`, as the loader raised it or because another one's fetch takes too long. Nothing here
judges a reply: a loader that is not sure of what it fetched returns no ``keep_until``.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from gateway.sta.fetching.fetch_gate import FetchError

MAX_AGE_SECONDS = 24 * 3600.0
FAILURE_SECONDS = 60.0
ROLLBACK_SECONDS = 10 * 60.0
"""When something older than what is kept was served, it is asked for again after so long."""
MAX_FAILURES = 1_024
"""Remembered in each pool."""

ISSUERS: Final = "issuers"
LISTS: Final = "lists"
OCSP: Final = "ocsp"
_POOLS: dict[str, tuple[str, int, int]] = {
    # purpose: pool, entries, bytes
    ISSUERS: ("stranger", 128, 8 * 1024 * 1024),
    LISTS: ("revocation", 512, 64 * 1024 * 1024),
    OCSP: ("revocation", 512, 64 * 1024 * 1024),
}

Key = tuple[str, str, bytes]
"""Purpose, URL and what was sent there. The purpose is part of it, because what a stranger's certificate names under
one must not be taken for, or block, what a trusted one names under another."""


def _never_older(_kept: Any) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Reply:
    """What a loader fetched. ``keep_until`` None: for those who wait for it now, not for later."""

    value: Any
    keep_until: datetime | None
    size: int
    is_rollback: Callable[[Any], bool] = _never_older
    """Whether it is older than the value that is kept."""


@dataclass(slots=True)
class _Entry:
    reply: Reply
    until: datetime
    stored_at: float


@dataclass(slots=True)
class _Flight:
    """A fetch that is under way."""

    done: threading.Event = field(default_factory=threading.Event)
    reply: Reply | None = None
    fault: FetchError | None = None


@dataclass(eq=False)
class ReplyCache:
    """Fetched replies by purpose, URL and request."""

    clock: Callable[[], float] = time.monotonic
    _entries: dict[str, OrderedDict[Key, _Entry]] = field(
        default_factory=lambda: {pool: OrderedDict() for pool, _, _ in _POOLS.values()}
    )
    _failures: dict[str, OrderedDict[Key, tuple[float, str]]] = field(
        default_factory=lambda: {pool: OrderedDict() for pool, _, _ in _POOLS.values()}
    )
    _flights: dict[Key, _Flight] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def obtain(self, key: Key, at: datetime, seconds: float, load: Callable[[], Reply]) -> Any:
        """The value under the key, from the cache or by ``load``; waits for another's fetch ``seconds`` at most.

        Raises:
            FetchError: it cannot be had; nothing that is still good at the moment is kept either.
        """
        give_up = time.monotonic() + seconds
        while True:
            with self._lock:
                entry = self._entry(key, at)
                if entry is not None and self.clock() - entry.stored_at < MAX_AGE_SECONDS:
                    return entry.reply.value
                fault = self._failure(key)
                flight = self._flights.get(key)
                if fault is None and flight is None:
                    mine = self._flights[key] = _Flight()
                    break
            if fault is None and flight is not None:
                if flight.done.wait(max(give_up - time.monotonic(), 0.0)):
                    if flight.reply is not None:
                        return flight.reply.value
                    # Whoever fetched may just have had no time left; then it is this one's turn.
                    fault = flight.fault if flight.fault is None or flight.fault.remember else None
                    if fault is None:
                        continue
                else:
                    fault = FetchError("another message waits for the same server", remember=False)
            if entry is not None:
                return entry.reply.value
            raise fault or FetchError("it cannot be had", remember=False)
        return self._lead(key, mine, entry, load)

    def keep(self, key: Key, reply: Reply) -> None:
        """Keep a reply of which one could be sure only later."""
        with self._lock:
            if self._rolled_back(key, reply) is None:
                self._store(key, reply)

    def held(self, key: Key) -> Any | None:
        """The value that is kept under the key, be it past its time; None when there is none."""
        with self._lock:
            entries = self._entries[_POOLS[key[0]][0]]
            entry = entries.get(key)
            if entry is None:
                return None
            entries.move_to_end(key)
            return entry.reply.value

    def _lead(self, key: Key, flight: _Flight, old: _Entry | None, load: Callable[[], Reply]) -> Any:
        try:
            flight.reply = load()
        except FetchError as exc:
            flight.fault = exc
            with self._lock:
                if exc.remember:
                    failures = self._failures[_POOLS[key[0]][0]]
                    failures[key] = (self.clock(), str(exc))
                    failures.move_to_end(key)
                    while len(failures) > MAX_FAILURES:
                        failures.popitem(last=False)
            if old is not None:
                return old.reply.value
            raise
        else:
            if flight.reply.keep_until is None and old is not None:
                # Something of doubt came in the place of what is known to be good and still in force.
                flight.reply = old.reply
                return old.reply.value
            with self._lock:
                self._failures[_POOLS[key[0]][0]].pop(key, None)
                kept = self._rolled_back(key, flight.reply)
                if kept is None:
                    self._store(key, flight.reply)
                else:
                    kept.stored_at = self.clock() - MAX_AGE_SECONDS + ROLLBACK_SECONDS
                    flight.reply = kept.reply
            return flight.reply.value
        finally:
            with self._lock:
                del self._flights[key]
            flight.done.set()

    def _entry(self, key: Key, at: datetime) -> _Entry | None:
        entries = self._entries[_POOLS[key[0]][0]]
        entry = entries.get(key)
        if entry is None or at > entry.until:
            return None
        entries.move_to_end(key)
        return entry

    def _failure(self, key: Key) -> FetchError | None:
        found = self._failures[_POOLS[key[0]][0]].get(key)
        if found is None or self.clock() - found[0] >= FAILURE_SECONDS:
            return None
        return FetchError(f"{found[1]} (a moment ago; not asked again yet)", remember=False)

    def _rolled_back(self, key: Key, reply: Reply) -> _Entry | None:
        """What is kept, be it past its time, when the reply is older than it."""
        kept = self._entries[_POOLS[key[0]][0]].get(key)
        return kept if kept is not None and reply.is_rollback(kept.reply.value) else None

    def _store(self, key: Key, reply: Reply) -> None:
        pool, most, room = _POOLS[key[0]]
        if reply.keep_until is None or reply.size > room // 4:
            return
        entries = self._entries[pool]
        # The comparison knows the message that asked, with all that it carried; that must not be kept along.
        entries[key] = _Entry(replace(reply, is_rollback=_never_older), reply.keep_until, self.clock())
        entries.move_to_end(key)
        while len(entries) > most or sum(e.reply.size for e in entries.values()) > room:
            entries.popitem(last=False)
