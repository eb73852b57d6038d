"""One HTTP request and its reply, in a thread that nobody has to wait for (AS-75; S/MIME rule 17).

Guarantees: the host is resolved once, its addresses are judged, and the connection goes to exactly a judged address.
The host name is only sent (and, over TLS, compared with the server's certificate), never resolved again, so a name
server that changes its mind gains nothing. Size and time are bounded. A body comes as it was sent, compressed or not;
nothing is expanded. No proxy, cookie or credential of the environment is used.

Failure modes: :class:`FetchError`, in the outcome.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import ipaddress
import socket
import ssl
import time
from dataclasses import dataclass, field
from functools import cache
from queue import SimpleQueue
from typing import Any, cast
from urllib.parse import SplitResult

from gateway.sta.fetching.fetch_addresses import Address, AddressRule, as_on_the_wire
from gateway.sta.fetching.fetch_gate import FetchError, FetchGate

MAX_ADDRESSES = 4
"""Of a host's permitted addresses so many are tried, because one of two families is often unreachable."""
MAX_REDIRECT_CHARS = 2_048
MAX_HEADER_BYTES = 256 * 1024
"""Beyond the body so many bytes are read of a reply: status lines, headers and the framing of chunks."""
_CHUNK_BYTES = 65_536
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Redirect:
    """The server says: ask there."""

    location: str


@dataclass(frozen=True, slots=True)
class Request:
    """What to send and how much may come back."""

    method: str
    parts: SplitResult
    body: bytes | None
    content_type: str
    max_bytes: int
    deadline: float
    """On the monotonic clock."""


@dataclass
class Exchange:
    """Runs in a thread of its own and leaves its outcome in a queue: the body, a redirect or why not."""

    rule: AddressRule
    gate: FetchGate
    stranger: bool
    request: Request
    outcome: SimpleQueue[bytes | Redirect | FetchError] = field(default_factory=SimpleQueue)
    address: Address | None = None
    """Where it is connecting or connected to."""
    _connection: PinnedConnection | None = None
    _abandoned: bool = False

    def run(self) -> None:
        """Make the request. Raises nothing; the gate counted this thread in, and it counts itself out."""
        try:
            self.outcome.put(self._run())
        except FetchError as exc:
            self.outcome.put(exc)
        except Exception as exc:  # noqa: BLE001 - whatever a hostile server causes is a failed fetch
            self.outcome.put(FetchError(_cause(exc)))
        finally:
            self._abandoned = True
            if self._connection is not None:
                self._connection.hang_up()
            self.gate.end_exchange(stranger=self.stranger)

    def abandon(self) -> None:
        """Break the connection, so that this thread ends when nobody waits for it any longer."""
        self._abandoned = True
        if self._connection is not None:
            self._connection.break_off()

    def _run(self) -> bytes | Redirect:
        parts = self.request.parts
        port = parts.port or (443 if parts.scheme == "https" else 80)
        failed: Exception | None = None
        for address in self._addresses(parts.hostname or "", port):
            self.address = address
            with self.gate.host(address, stranger=self.stranger, seconds=seconds_until(self.request.deadline)):
                try:
                    connection = self._connect(address, port)
                except OSError as exc:
                    failed = exc
                    if self._connection is not None:
                        self._connection.hang_up()
                    continue
                return self._converse(connection)
        raise FetchError(_cause(failed) if failed else "the host has no address")

    def _addresses(self, host: str, port: int) -> list[Address]:
        """The host's addresses that may be connected to."""
        try:
            candidates = [ipaddress.ip_address(host)]
        except ValueError:
            try:
                found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError):
                raise FetchError("the host cannot be resolved") from None
            candidates = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
        plain = list(dict.fromkeys(map(as_on_the_wire, candidates)))
        refusals = [self.rule.refusal(address, port) for address in plain]
        permitted = [address for address, refusal in zip(plain, refusals, strict=True) if refusal is None]
        if not permitted:
            raise FetchError(next(iter(filter(None, refusals)), "the host cannot be resolved"))
        return permitted[:MAX_ADDRESSES]

    def _connect(self, address: Address, port: int) -> PinnedConnection:
        connection = PinnedConnection(address, port, self.request)
        self._connection = connection
        if self._abandoned:
            raise FetchError("the server did not answer in time")
        connection.connect()
        if self._abandoned:
            raise FetchError("the server did not answer in time")
        return connection

    def _converse(self, connection: PinnedConnection) -> bytes | Redirect:
        request = self.request
        path = (request.parts.path or "/") + (f"?{request.parts.query}" if request.parts.query else "")
        headers = {"User-Agent": "direct-gateway", "Accept-Encoding": "identity", "Connection": "close"}
        if request.body is not None:
            headers["Content-Type"] = request.content_type
        connection.request(request.method, path, body=request.body, headers=headers)
        with connection.getresponse() as response:
            return self._outcome(response)

    def _outcome(self, response: http.client.HTTPResponse) -> bytes | Redirect:
        if response.status in _REDIRECTS:
            location = response.headers.get("Location") or ""
            if not location or len(location) > MAX_REDIRECT_CHARS:
                raise FetchError("a redirect without a target")
            return Redirect(location)
        if response.status != http.client.OK:
            raise FetchError(f"the server answered {response.status}")
        if response.length is not None and response.length > self.request.max_bytes:
            raise FetchError("the reply is too large")
        return self._read(response)

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        received = bytearray()
        while chunk := response.read1(_CHUNK_BYTES):
            received += chunk
            if len(received) > self.request.max_bytes:
                raise FetchError("the reply is too large")
        if response.length:
            raise FetchError("the reply was cut short")
        return bytes(received)


class PinnedConnection(http.client.HTTPConnection):
    """A connection to an address that was judged, with or without TLS; the host name is never resolved."""

    def __init__(self, address: Address, port: int, request: Request) -> None:
        super().__init__(request.parts.hostname or "", port)
        self._address = str(address)
        self._request = request
        self._secure = request.parts.scheme == "https"
        self._open: socket.socket | None = None
        if self._secure:
            self.default_port = 443

    def connect(self) -> None:
        """Connect, and over TLS check the server's certificate for the host name."""
        timeout = seconds_until(self._request.deadline)
        self._open = socket.create_connection((self._address, self.port), timeout)
        if self._secure:
            # The handshake is a step of its own, so that it can be broken off as well.
            tls = _tls().wrap_socket(self._open, server_hostname=self.host, do_handshake_on_connect=False)
            self._open = tls
            tls.do_handshake()
        self.sock = cast(Any, _Wire(self._open, self._request))

    def break_off(self) -> None:
        """Wake the thread that waits in the connection; for another thread to call.

        Closing would leave a thread that waits for the next byte waiting, and is that thread's own business.
        """
        if self._open is not None:
            with contextlib.suppress(OSError, ValueError):
                socket.socket.shutdown(self._open, socket.SHUT_RDWR)

    def hang_up(self) -> None:
        """Close the socket. ``close``, which the library calls before the body has been read, leaves it open."""
        self.close()
        if self._open is not None:
            self._open.close()


class _Wire:
    """What the HTTP library needs of a socket, with one deadline and one cap for everything that is read.

    The library reads headers and interim responses for as long as they come.
    """

    def __init__(self, wire: socket.socket, request: Request) -> None:
        self._wire = wire
        self._deadline = request.deadline
        self._room = request.max_bytes + MAX_HEADER_BYTES

    def sendall(self, data: bytes) -> None:
        self._wire.settimeout(seconds_until(self._deadline))
        self._wire.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        del mode
        return io.BufferedReader(_Reader(self))

    def receive(self, buffer: memoryview) -> int:
        self._wire.settimeout(seconds_until(self._deadline))
        received = self._wire.recv_into(buffer)
        self._room -= received
        if self._room < 0:
            raise FetchError("the reply is too large")
        return received

    def close(self) -> None:
        """Close nothing: the connection closes the socket when the reply has been read."""


class _Reader(io.RawIOBase):
    def __init__(self, wire: _Wire) -> None:
        self._wire = wire

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._wire.receive(memoryview(buffer).cast("B"))


def seconds_until(deadline: float) -> float:
    """The time that is left.

    Raises:
        TimeoutError: none.
    """
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError
    return remaining


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _cause(exc: Exception) -> str:
    """What happened, in words without host or path (the standard library's texts may name both)."""
    if isinstance(exc, TimeoutError):
        return "the server did not answer in time"
    if isinstance(exc, ConnectionRefusedError):
        return "the server refused the connection"
    if isinstance(exc, ssl.SSLCertVerificationError):
        # What follows the comma of a mismatch is the name that was asked for.
        reason = exc.verify_message.partition(",")[0]
        return f"TLS with the server failed: the certificate of the server does not pass: {reason}"
    if isinstance(exc, ssl.SSLError):
        return "TLS with the server failed"
    if isinstance(exc, http.client.HTTPException):
        return f"the server does not speak HTTP ({type(exc).__name__})"
    return f"the connection failed ({type(exc).__name__})"
