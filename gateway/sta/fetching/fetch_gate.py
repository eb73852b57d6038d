"""What all fetches of one process share: so many at a time, so many to one host, whichever messages ask.

Purpose: a message has its own budget (``fetcher``), but a flood of messages has a flood of budgets. The gate keeps
them from becoming a flood of requests at somebody's host, and of threads here.

Guarantees: at most MAX_PER_HOST requests at a time and, over time, REQUESTS_PER_SECOND go to one address (an IPv6
network of 64 bits counts as one), and at most MAX_EXCHANGES threads exist. Certificates of proven paths and those of
strangers are counted apart, so that strangers cannot take away what revocation needs; the former wait for their turn,
the latter are turned away. A host that let a stranger's request wait until it was given up is not asked for strangers
again for SLOW_SECONDS. The time that strangers' requests take is charged to a common allowance, which grows slowly
again, unless the server sent what was asked for at once; when it is used up they are turned away until it has grown for
a while. So a flood of messages that name ever new hosts which do not answer, or whose name servers do not, takes a
small part of the workers' time. All state is bounded.

Failure modes: :class:`FetchError`, which is not remembered against the URL, because the cause is here.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from gateway.sta.fetching.fetch_addresses import Address

MAX_PER_HOST = 4
REQUESTS_PER_SECOND = 10.0
BURST = 60
MAX_EXCHANGES = 32
MAX_HOSTS = 4_096
SLOW_SECONDS = 60.0
QUICK_SECONDS = 0.25
"""A body that comes so soon is charged nothing: authorities answer in that time, and each is asked once a day."""
WAITING_ALLOWANCE = 2.0
"""Seconds that strangers' requests may take in a row; requests under way can run into a debt as deep."""
WAITING_REGAINED = 0.15
"""Seconds of it that come back in each second."""


class FetchError(Exception):
    """The URL was not fetched; the text says why, without the URL.

    ``remember`` tells whether the fault lies with the URL, so that asking again at once would only cost time.
    """

    def __init__(self, cause: str, *, remember: bool = True) -> None:
        super().__init__(cause)
        self.remember = remember


@dataclass
class _Host:
    active: int = 0
    tokens: float = BURST
    counted_at: float = 0.0
    slow_until: float = float("-inf")


@dataclass(eq=False)
class FetchGate:
    """Shared by all sessions of a fetcher, in all threads."""

    clock: Callable[[], float] = time.monotonic
    _hosts: OrderedDict[str, _Host] = field(default_factory=OrderedDict)
    _exchanges: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    _allowance: float = WAITING_ALLOWANCE
    _regained_at: float = 0.0
    _is_turning_away: bool = False
    _lock: threading.Condition = field(default_factory=threading.Condition)

    def begin_exchange(self, *, stranger: bool) -> None:
        """Count a thread in.

        Raises:
            FetchError: too many exist, or strangers have waited too long.
        """
        with self._lock:
            if stranger and self._is_used_up():
                raise FetchError("servers that do not answer have used up the time for unknown senders", remember=False)
            if self._exchanges[stranger] >= MAX_EXCHANGES:
                raise FetchError("too many fetches are under way", remember=False)
            self._exchanges[stranger] += 1

    def end_exchange(self, *, stranger: bool) -> None:
        """Count a thread out."""
        with self._lock:
            self._exchanges[stranger] -= 1

    def note_wait(self, seconds: float, *, answered: bool) -> None:
        """A request of a stranger took a worker so many seconds, and brought what was asked for or not."""
        if answered and seconds <= QUICK_SECONDS:
            return
        with self._lock:
            self._regain()
            self._allowance = max(self._allowance - seconds, -WAITING_ALLOWANCE)
            self._is_turning_away = self._is_turning_away or self._allowance <= 0

    def _is_used_up(self) -> bool:
        self._regain()
        if self._allowance >= WAITING_ALLOWANCE / 2:
            self._is_turning_away = False
        return self._is_turning_away

    def _regain(self) -> None:
        now = self.clock()
        self._allowance = min(WAITING_ALLOWANCE, self._allowance + (now - self._regained_at) * WAITING_REGAINED)
        self._regained_at = now

    @contextmanager
    def host(self, address: Address, *, stranger: bool, seconds: float = 0.0) -> Iterator[None]:
        """Hold one of the places at that host while a request runs; wait for it so many seconds at most.

        Raises:
            FetchError: the host is asked too often at the moment, or was too slow for strangers.
        """
        key = _key(address, stranger=stranger)
        with self._lock:
            host = self._enter(key)
            if host.slow_until > self.clock():
                raise FetchError("the host did not answer a moment ago", remember=False)
            self._wait(key, time.monotonic() + (0.0 if stranger else seconds))
            host = self._enter(key)
            host.active += 1
            host.tokens -= 1
        try:
            yield
        finally:
            with self._lock:
                host.active -= 1
                self._lock.notify_all()

    def _wait(self, key: str, give_up: float) -> None:
        while True:
            host = self._enter(key)
            if host.active < MAX_PER_HOST and host.tokens >= 1:
                return
            left = give_up - time.monotonic()
            if left <= 0:
                raise FetchError("the host is asked too often at the moment", remember=False)
            next_token = max(1 - host.tokens, 0.0) / REQUESTS_PER_SECOND
            self._lock.wait(min(left, next_token or left))

    def note_slow(self, address: Address) -> None:
        """A request of a stranger waited there until it was given up."""
        with self._lock:
            self._enter(_key(address, stranger=True)).slow_until = self.clock() + SLOW_SECONDS

    def _enter(self, key: str) -> _Host:
        now = self.clock()
        host = self._hosts.get(key)
        if host is None:
            self._forget_idle(now)
            host = self._hosts[key] = _Host(counted_at=now)
        host.tokens = min(BURST, host.tokens + (now - host.counted_at) * REQUESTS_PER_SECOND)
        host.counted_at = now
        self._hosts.move_to_end(key)
        return host

    def _forget_idle(self, now: float) -> None:
        """Make room: hosts that are not being asked and owe nothing go, the longest unasked first."""
        if len(self._hosts) < MAX_HOSTS:
            return
        for key, host in list(self._hosts.items())[: MAX_HOSTS // 4]:
            if not host.active and now - host.counted_at > BURST / REQUESTS_PER_SECOND:
                del self._hosts[key]
        if len(self._hosts) >= MAX_HOSTS:
            raise FetchError("too many hosts are asked at the moment", remember=False)


def _key(address: Address, *, stranger: bool) -> str:
    network = ipaddress.ip_network((address, 64 if address.version == 6 else 32), strict=False)
    return f"stranger {network}" if stranger else str(network)
