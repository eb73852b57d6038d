"""The one way out: fetching a URL that somebody else's certificate names (AS-66, AS-75; S/MIME rule 17).

Guarantees: only http and https; where it may lead is decided on the resolved address (``fetch_addresses``), and the
connection goes to exactly that address (``fetch_exchange``); redirects are few and judged the same way; size, time and
the number of requests are bounded for each message, and requests to one host across all messages (``fetch_gate``).
When nothing is permitted, nothing is resolved and nothing is sent.

Failure modes: :class:`FetchError` with a short cause, never anything else.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from queue import Empty
from urllib.parse import SplitResult, urljoin, urlsplit

from gateway.sta.fetching.fetch_addresses import AddressRule, Network
from gateway.sta.fetching.fetch_exchange import Exchange, Redirect, Request
from gateway.sta.fetching.fetch_gate import FetchError, FetchGate

__all__ = ["FetchError", "FetchSession", "Fetcher"]

MAX_REPLY_BYTES = 10 * 1024 * 1024
MAX_REDIRECTS = 3
MAX_REQUESTS_PER_MESSAGE = 12
MAX_REQUESTS_PER_HOST = 6
MAX_URL_CHARS = 2_048
SECONDS_PER_MESSAGE = 3.0
SECONDS_PER_REQUEST = 2.0
ISSUER_SHARE = 0.6
FAIR_SHARE = 0.25
"""A request that was given less than this part of the time of a request says nothing of the server by being late."""
MODES = frozenset({"public", "listed", "off"})


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Where fetching may go, and its limits. Each message opens a session with a budget of its own."""

    allowed: tuple[Network, ...] = ()
    seconds_per_message: float = SECONDS_PER_MESSAGE
    seconds_per_request: float = SECONDS_PER_REQUEST
    max_bytes: int = MAX_REPLY_BYTES
    public: bool = False
    schemes: frozenset[str] = frozenset({"http", "https"})
    """A redirect stays within them as well."""
    gate: FetchGate = field(default_factory=FetchGate, compare=False, repr=False)

    @classmethod
    def within(cls, cidrs: Iterable[str], *, seconds_per_message: float = SECONDS_PER_MESSAGE) -> Fetcher:
        """A fetcher for these address ranges alone; one request may use two thirds of a message's time.

        Raises:
            ValueError: one is not an address range.
        """
        return cls.configured("listed", cidrs, seconds_per_message=seconds_per_message)

    @classmethod
    def configured(
        cls, mode: str, cidrs: Iterable[str] = (), *, seconds_per_message: float = SECONDS_PER_MESSAGE
    ) -> Fetcher:
        """A fetcher in one of the modes of the setting ``trust.fetch``.

        ``public``: any address that is public, and these ranges; ``listed``: these ranges alone; ``off``: nothing.

        Raises:
            ValueError: another mode, or one of the ranges is no address range.
        """
        if mode not in MODES:
            raise ValueError(f"{mode!r} is no mode of fetching: public, listed or off")
        networks = tuple(ipaddress.ip_network(cidr.strip(), strict=False) for cidr in cidrs)
        if mode == "off":
            networks = ()
        return cls(networks, seconds_per_message, seconds_per_message * 2 / 3, public=mode == "public")

    @property
    def rule(self) -> AddressRule:
        """Where fetching may go."""
        return AddressRule(self.allowed, self.public)

    def session(self) -> FetchSession:
        """Begin the budget of one message."""
        return FetchSession(self, time.monotonic() + self.seconds_per_message, self.seconds_per_request)


@dataclass
class _Spent:
    """What a budget has used up; a part of a budget spends from the same."""

    max_requests: int
    requests: int = 0
    hosts: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))


@dataclass
class FetchSession:
    """The requests made for one message. Not shared between threads."""

    fetcher: Fetcher
    deadline: float
    seconds_per_request: float
    spent: _Spent = field(default_factory=lambda: _Spent(MAX_REQUESTS_PER_MESSAGE))
    stranger: bool = False
    """Whether the URLs come from certificates that no path has proven."""

    @property
    def enabled(self) -> bool:
        """Whether anything may be fetched at all."""
        return self.fetcher.rule.permits_anything

    @property
    def remaining(self) -> float:
        """Seconds that are left; never negative."""
        return max(self.deadline - time.monotonic(), 0.0)

    def share(self) -> FetchSession:
        """A budget of its own within this one's time: less of it, and half as many requests.

        Issuers are fetched from a share, because a signer whom nobody trusts names those URLs: what it spends must
        leave enough to learn that a trusted signer has been revoked.
        """
        return FetchSession(
            self.fetcher,
            time.monotonic() + self.remaining * ISSUER_SHARE,
            self.seconds_per_request * ISSUER_SHARE,
            _Spent(self.spent.max_requests // 2),
            stranger=True,
        )

    def part(self, parts: int) -> FetchSession:
        """One of so many equal parts of the time that is left: one slow certificate must not cost the next its turn."""
        seconds = self.remaining / max(parts, 1)
        return replace(
            self,
            deadline=time.monotonic() + seconds,
            seconds_per_request=min(self.seconds_per_request, seconds * 2 / 3 if parts > 1 else seconds),
        )

    def get(self, url: str, max_bytes: int | None = None) -> bytes:
        """Fetch the body of the URL.

        Raises:
            FetchError: not allowed, unreachable, too large, too slow, or not a 200 reply.
        """
        return self._follow("GET", url, None, "", max_bytes)

    def post(self, url: str, body: bytes, content_type: str, max_bytes: int | None = None) -> bytes:
        """Send a body (an OCSP request) and return the reply's.

        Raises:
            FetchError: as :meth:`get`.
        """
        return self._follow("POST", url, body, content_type, max_bytes)

    def _follow(self, method: str, url: str, body: bytes | None, content_type: str, max_bytes: int | None) -> bytes:
        cap = min(max_bytes or self.fetcher.max_bytes, self.fetcher.max_bytes)
        for _ in range(MAX_REDIRECTS + 1):
            parts = self._checked(url)
            allotted = min(self.remaining, self.seconds_per_request)
            if allotted <= 0:
                raise FetchError("the time for fetching is used up", remember=False)
            request = Request(method, parts, body, content_type, cap, time.monotonic() + allotted)
            reply = self._exchange(request, allotted)
            if isinstance(reply, bytes):
                return reply
            try:
                url = urljoin(url, reply.location)
            except ValueError:
                raise FetchError("the URL is not well formed") from None
        raise FetchError("too many redirects")

    def _checked(self, url: str) -> SplitResult:
        if not self.enabled:
            raise FetchError("fetching is off: no address range is allowed", remember=False)
        if len(url) > MAX_URL_CHARS or not url.isascii() or any(ord(c) <= 0x20 or ord(c) == 0x7F for c in url):
            raise FetchError("the URL is not well formed")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise FetchError("the URL is not well formed") from None
        if parts.scheme not in self.fetcher.schemes:
            raise FetchError(f"only {' and '.join(sorted(self.fetcher.schemes))} may be fetched here")
        # A zone ("%eth0") names an interface of this machine, a back slash is read differently by different programs.
        if not parts.hostname or port == 0 or any(c in parts.netloc for c in "@%\\"):
            raise FetchError("the URL is not well formed")
        self.spent.requests += 1
        self.spent.hosts[parts.hostname] += 1
        if self.spent.requests > self.spent.max_requests or self.spent.hosts[parts.hostname] > MAX_REQUESTS_PER_HOST:
            raise FetchError("too many fetches for one message", remember=False)
        return parts

    def _exchange(self, request: Request, allotted: float) -> bytes | Redirect:
        # A name server or a peer that drips bytes can outlast any socket timeout. The exchange therefore runs in a
        # daemon thread, and nobody waits for it longer than what is left of the budget.
        gate = self.fetcher.gate
        gate.begin_exchange(stranger=self.stranger)
        began, outcome = time.monotonic(), None
        exchange = Exchange(self.fetcher.rule, gate, self.stranger, request)
        try:
            threading.Thread(target=exchange.run, name="sta-fetch", daemon=True).start()
        except RuntimeError:
            gate.end_exchange(stranger=self.stranger)
            raise FetchError("no thread could be started", remember=False) from None
        try:
            outcome = exchange.outcome.get(timeout=allotted)
        except Empty:
            exchange.abandon()
            if self.stranger and exchange.address is not None:
                gate.note_slow(exchange.address)
            fair = allotted >= self.fetcher.seconds_per_request * FAIR_SHARE
            raise FetchError("the server did not answer in time", remember=fair) from None
        finally:
            if self.stranger:
                gate.note_wait(time.monotonic() - began, answered=isinstance(outcome, bytes))
        if isinstance(outcome, FetchError):
            raise outcome
        return outcome
