"""The one way out: fetching a URL that an attacker's certificate names (AS-66, AS-75; S/MIME rule 17).

Guarantees: only http and https; a host is resolved first and only its addresses within the operator's allowed
ranges are used, and the connection goes to exactly the checked address (no second resolution, so no rebinding);
redirects are followed a few times and checked the same way; size, time and the number of requests are capped for
each message. With no allowed range nothing is resolved and nothing is sent. No proxy, cookie or credential of the
environment is used.

Failure modes: :class:`FetchError` with a short cause, never anything else.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from urllib.parse import SplitResult, urljoin, urlsplit

MAX_REPLY_BYTES = 10 * 1024 * 1024
MAX_REDIRECTS = 3
MAX_REQUESTS_PER_MESSAGE = 12
MAX_REQUESTS_PER_HOST = 6
MAX_URL_CHARS = 2_048
SECONDS_PER_MESSAGE = 3.0
SECONDS_PER_REQUEST = 2.0
ISSUER_SHARE = 0.6
_CHUNK_BYTES = 65_536
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class FetchError(Exception):
    """The URL was not fetched; the text says why, without the URL."""


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Where fetching may go, and its limits. Stateless: each message opens a session with a budget of its own."""

    allowed: tuple[Network, ...] = ()
    seconds_per_message: float = SECONDS_PER_MESSAGE
    seconds_per_request: float = SECONDS_PER_REQUEST
    max_bytes: int = MAX_REPLY_BYTES

    @classmethod
    def within(cls, cidrs: Iterable[str], *, seconds_per_message: float = SECONDS_PER_MESSAGE) -> Fetcher:
        """A fetcher for these address ranges; one request may use two thirds of a message's time.

        Raises:
            ValueError: one is not an address range.
        """
        networks = tuple(ipaddress.ip_network(cidr.strip(), strict=False) for cidr in cidrs)
        return cls(networks, seconds_per_message, seconds_per_message * 2 / 3)

    def session(self) -> FetchSession:
        """Begin the budget of one message."""
        return FetchSession(self, time.monotonic() + self.seconds_per_message, self.seconds_per_request)


@dataclass
class FetchSession:
    """The requests made for one message. Not shared between threads."""

    fetcher: Fetcher
    deadline: float
    seconds_per_request: float
    max_requests: int = MAX_REQUESTS_PER_MESSAGE
    requests: int = 0
    hosts: Counter[str] = field(default_factory=Counter)

    @property
    def enabled(self) -> bool:
        """Whether anything may be fetched at all."""
        return bool(self.fetcher.allowed)

    def share(self) -> FetchSession:
        """A budget of its own within this one's time: less of it, and half as many requests.

        Issuers are fetched from a share, because a signer whom nobody trusts names those URLs: what it spends must
        leave enough to learn that a trusted signer has been revoked.
        """
        now = time.monotonic()
        deadline = now + max(self.deadline - now, 0.0) * ISSUER_SHARE
        return FetchSession(self.fetcher, deadline, self.seconds_per_request * ISSUER_SHARE, self.max_requests // 2)

    def get(self, url: str) -> bytes:
        """Fetch the body of the URL.

        Raises:
            FetchError: not allowed, unreachable, too large, too slow, or not a 200 reply.
        """
        return self._follow("GET", url, None, "")

    def post(self, url: str, body: bytes, content_type: str) -> bytes:
        """Send a body (an OCSP request) and return the reply's.

        Raises:
            FetchError: as :meth:`get`.
        """
        return self._follow("POST", url, body, content_type)

    def _follow(self, method: str, url: str, body: bytes | None, content_type: str) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            parts = self._checked(url)
            reply = self._exchange(method, parts, body, content_type)
            if isinstance(reply, bytes):
                return reply
            url = urljoin(url, reply.location)
        raise FetchError("too many redirects")

    def _checked(self, url: str) -> SplitResult:
        if not self.enabled:
            raise FetchError("fetching is off: no address range is allowed")
        if len(url) > MAX_URL_CHARS or not url.isascii() or any(ord(c) <= 0x20 or ord(c) == 0x7F for c in url):
            raise FetchError("the URL is not well formed")
        try:
            parts = urlsplit(url)
            _ = parts.port
        except ValueError:
            raise FetchError("the URL is not well formed") from None
        if parts.scheme not in {"http", "https"}:
            raise FetchError("only http and https are fetched")
        if not parts.hostname or parts.username is not None:
            raise FetchError("the URL is not well formed")
        self.requests += 1
        self.hosts[parts.hostname] += 1
        if self.requests > self.max_requests or self.hosts[parts.hostname] > MAX_REQUESTS_PER_HOST:
            raise FetchError("too many fetches for one message")
        return parts

    def _exchange(self, method: str, parts: SplitResult, body: bytes | None, content_type: str) -> bytes | _Redirect:
        remaining = min(self.deadline - time.monotonic(), self.seconds_per_request)
        if remaining <= 0:
            raise FetchError("the time for fetching is used up")
        # A name server or a peer that drips bytes can outlast any socket timeout. The exchange therefore runs in a
        # daemon thread, and nobody waits for it longer than what is left of the budget.
        exchange = _Exchange(self.fetcher, method, parts, body, content_type, time.monotonic() + remaining)
        threading.Thread(target=exchange.run, name="sta-fetch", daemon=True).start()
        try:
            outcome = exchange.outcome.get(timeout=remaining)
        except Empty:
            exchange.abandon()
            raise FetchError("the server did not answer in time") from None
        if isinstance(outcome, Exception):
            raise FetchError(str(outcome) if isinstance(outcome, FetchError) else type(outcome).__name__) from None
        return outcome


@dataclass(frozen=True, slots=True)
class _Redirect:
    location: str


@dataclass
class _Exchange:
    fetcher: Fetcher
    method: str
    parts: SplitResult
    body: bytes | None
    content_type: str
    deadline: float
    outcome: SimpleQueue[bytes | _Redirect | Exception] = field(default_factory=SimpleQueue)
    connection: http.client.HTTPConnection | None = None

    def run(self) -> None:
        try:
            self.outcome.put(self._run())
        except Exception as exc:  # noqa: BLE001 - whatever a hostile server causes is a failed fetch
            self.outcome.put(exc)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close the connection, so that a thread that nobody waits for ends."""
        if self.connection is not None:
            self.connection.close()

    def _run(self) -> bytes | _Redirect:
        host = self.parts.hostname or ""
        secure = self.parts.scheme == "https"
        port = self.parts.port or (443 if secure else 80)
        address = self._resolve(host, port)
        connection: http.client.HTTPConnection = (
            _PinnedHTTPSConnection(host, port, address, self._remaining())
            if secure
            else _PinnedHTTPConnection(host, port, address, self._remaining())
        )
        self.connection = connection
        path = (self.parts.path or "/") + (f"?{self.parts.query}" if self.parts.query else "")
        headers = {"User-Agent": "direct-gateway", "Accept-Encoding": "identity", "Connection": "close"}
        if self.body is not None:
            headers["Content-Type"] = self.content_type
        connection.request(self.method, path, body=self.body, headers=headers)
        response = connection.getresponse()
        if response.status in _REDIRECTS:
            location = response.headers.get("Location")
            if not location:
                raise FetchError("a redirect without a target")
            return _Redirect(location)
        if response.status != http.client.OK:
            raise FetchError(f"the server answered {response.status}")
        return self._read(response)

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        received = bytearray()
        while chunk := response.read1(_CHUNK_BYTES):
            received += chunk
            if len(received) > self.fetcher.max_bytes:
                raise FetchError("the reply is too large")
            self._remaining()
        return bytes(received)

    def _remaining(self) -> float:
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            raise FetchError("the server did not answer in time")
        return remaining

    def _resolve(self, host: str, port: int) -> Address:
        """The first address of the host within the allowed ranges."""
        try:
            candidates: list[str] = [str(ipaddress.ip_address(host))]
        except ValueError:
            try:
                found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError):
                raise FetchError("the host cannot be resolved") from None
            candidates = [str(entry[4][0]).partition("%")[0] for entry in found]
        for text in candidates:
            address = ipaddress.ip_address(text)
            # ::ffff:127.0.0.1 is 127.0.0.1 on the wire, so that is what has to be allowed.
            mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
            plain: Address = mapped or address
            if any(plain.version == network.version and plain in network for network in self.fetcher.allowed):
                return plain
        raise FetchError("the host is outside the allowed address ranges")


class _PinnedHTTPConnection(http.client.HTTPConnection):
    """A connection to an address that was checked; the host name is only sent, never resolved again."""

    def __init__(self, host: str, port: int, address: Address, timeout: float) -> None:
        super().__init__(host, port, timeout=timeout)
        self._address = str(address)

    def connect(self) -> None:
        self.sock = socket.create_connection((self._address, self.port), self.timeout)


class _PinnedHTTPSConnection(http.client.HTTPSConnection):
    """The same over TLS; the server's certificate is checked for the host name."""

    def __init__(self, host: str, port: int, address: Address, timeout: float) -> None:
        self._tls = ssl.create_default_context()
        super().__init__(host, port, timeout=timeout, context=self._tls)
        self._address = str(address)

    def connect(self) -> None:
        plain = socket.create_connection((self._address, self.port), self.timeout)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)
