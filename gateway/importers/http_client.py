"""HTTP requests to one server that the settings allow, and to no other.

The guarded fetcher of the trust room (:mod:`gateway.sta.fetching`) follows URLs that strangers wrote, by GET. This is
its counterpart for an address that the operator wrote: an EHR stands on the practice's own network as a rule, so that
what may be reached is a list and not "whatever is public".

Guarantees

* The host is resolved once for each request, every address is held against the list, and the connection goes to an
  address that was held against it (no second look at the name, so no rebinding). Addresses that are nobody's server
  (link-local, among them the metadata services of clouds, multicast, unspecified) are reached by a listed network only,
  and so is the loopback unless the URL itself names it.
* No redirect is followed, no proxy, cookie or credential of the environment is used.
* TLS 1.2 or newer, certificate and host name checked, whatever the environment says.
* What is read of an answer is bounded: 16 KiB of head, and of the body what the caller says, as a rule nothing.

Failure modes: :class:`ImportFailedError` with a reason code; its text names no address.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import h11

from gateway.core.errors import ImportFailedError
from gateway.core.fetching import is_loopback

MAX_HEAD_BYTES = 16_384
_MAX_INFORMATIONAL = 8
_READ_BYTES = 65_536
_WRITE_BYTES = 262_144
_EVENTS_AT_ONCE = 256
"""Of a body in small chunks, until others may run again: what has come is read without a pause."""
_CLOSE_SECONDS = 2.0
_MAX_RETRY_AFTER_SECONDS = 7 * 86400


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    """Empty where it was not asked for."""


class HTTPClient:
    """Asks the server of one URL; a connection for each request."""

    def __init__(self, url: str, allow: Sequence[str], ca_file: Path | None, threads: ThreadPoolExecutor) -> None:
        """``url`` and ``allow`` as checked by :mod:`gateway.core.import_settings`; ``threads`` look names up."""
        parts = urlsplit(url)
        self._tls = parts.scheme == "https"
        self._host = (parts.hostname or "").lower()
        self._port = parts.port or (443 if self._tls else 80)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.host_header = host if parts.port is None else f"{host}:{parts.port}"
        networks = [item for item in allow if "/" in item or _is_address(item)]
        self._networks = [ipaddress.ip_network(item) for item in networks]
        self._hosts = frozenset(allow) - frozenset(networks)
        self._ca_file = ca_file
        self._threads = threads

    @property
    def target(self) -> str:
        """Path and query of the URL."""
        return self._target

    async def request(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes = b"", *, max_answer_bytes: int = 0
    ) -> Reply:
        """Send a request and return the answer. The caller bounds the time.

        Args:
            method: as ``POST``.
            target: path and query.
            headers: besides ``host``, ``content-length`` and ``connection``.
            body: sent when it is not empty, or the method is POST.
            max_answer_bytes: of the body of the answer; 0: it is not read.

        Raises:
            ImportFailedError: it could not be reached, or did not answer in HTTP, or with more than it may.
        """
        fields = {"host": self.host_header, "connection": "close", **headers}
        if body or method == "POST":
            fields["content-length"] = str(len(body))
        head = h11.Request(method=method, target=target, headers=list(fields.items()))
        reader, writer = await self._connect()
        try:
            machine = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
            await _send(machine, writer, head, body)
            reply = await _head(machine, reader)
            return replace(reply, body=await _body(machine, reader, max_answer_bytes)) if max_answer_bytes else reply
        except (OSError, asyncio.IncompleteReadError) as exc:
            raise ImportFailedError("the connection was lost", reason="connection_lost") from exc
        except (h11.RemoteProtocolError, ValueError) as exc:
            raise ImportFailedError("the answer is not HTTP", reason="bad_answer") from exc
        finally:
            await _close(writer)

    async def reach(self) -> None:
        """Connect, check the certificate, and go away without a word. Raises ImportFailedError."""
        _, writer = await self._connect()
        await _close(writer)

    # --- the connection ---

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        # Of our own threads: a name server that hangs must not take those that mail needs.
        context = await loop.run_in_executor(self._threads, self._context) if self._tls else None
        addresses = await self._addresses()
        failure: Exception | None = None
        for address in addresses:
            try:
                return await asyncio.open_connection(
                    address,
                    self._port,
                    ssl=context,
                    server_hostname=self._host if context else None,
                    limit=MAX_HEAD_BYTES,
                )
            except ssl.SSLCertVerificationError as exc:
                raise ImportFailedError("its certificate is not to be trusted", reason="bad_certificate") from exc
            except ssl.SSLError as exc:
                raise ImportFailedError("TLS failed", reason="tls_failed") from exc
            except OSError as exc:
                failure = exc
        raise ImportFailedError("it cannot be reached", reason="unreachable") from failure

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            if self._ca_file is None:
                context.load_default_certs()
            else:
                context.load_verify_locations(self._ca_file)
        except (OSError, ssl.SSLError) as exc:
            raise ImportFailedError("ca_file cannot be read", reason="bad_ca_file") from exc
        return context

    async def _addresses(self) -> list[str]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(
                self._threads, lambda: socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            )
        except (OSError, UnicodeError) as exc:
            raise ImportFailedError("its name cannot be resolved", reason="unknown_host") from exc
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        allowed = [address for address in addresses if self._allowed(address)]
        if not allowed:
            raise ImportFailedError("where its name leads is not in the list of allowed places", reason="not_allowed")
        return allowed

    def _allowed(self, text: str) -> bool:
        address = ipaddress.ip_address(text.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        address = mapped or address
        if any(address in network for network in self._networks):
            return True
        if self._host not in self._hosts:
            return False
        if address.is_loopback:
            return is_loopback(self._host)
        return not (address.is_link_local or address.is_multicast or address.is_unspecified or address.is_reserved)


# --- the exchange ---


async def _send(machine: h11.Connection, writer: asyncio.StreamWriter, head: h11.Request, body: bytes) -> None:
    writer.write(machine.send(head) or b"")
    # A server may answer before it has read everything; then its answer counts.
    with suppress(ConnectionError):
        for begin in range(0, len(body), _WRITE_BYTES):
            writer.write(machine.send(h11.Data(data=body[begin : begin + _WRITE_BYTES])) or b"")
            await writer.drain()
        writer.write(machine.send(h11.EndOfMessage()) or b"")
        await writer.drain()


async def _head(machine: h11.Connection, reader: asyncio.StreamReader) -> Reply:
    informational = 0
    while True:
        event = await _event(machine, reader)
        if isinstance(event, h11.InformationalResponse) and informational < _MAX_INFORMATIONAL:
            informational += 1
        elif isinstance(event, h11.Response):
            names = {name.decode("ascii"): value.decode("latin-1") for name, value in event.headers}
            return Reply(event.status_code, names)
        elif isinstance(event, h11.ConnectionClosed):
            raise ImportFailedError("it closed without an answer", reason="no_answer")
        else:
            raise ImportFailedError("the answer is not HTTP", reason="bad_answer")


async def _body(machine: h11.Connection, reader: asyncio.StreamReader, max_bytes: int) -> bytes:
    pieces: list[bytes] = []
    left = max_bytes
    while isinstance(event := await _event(machine, reader), h11.Data):
        left -= len(event.data)
        if left < 0:
            raise ImportFailedError("the answer is larger than it may be", reason="answer_too_large")
        pieces.append(bytes(event.data))
        if len(pieces) % _EVENTS_AT_ONCE == 0:
            await asyncio.sleep(0)
    if not isinstance(event, h11.EndOfMessage):
        raise ImportFailedError("the answer is not HTTP", reason="bad_answer")
    return b"".join(pieces)


async def _event(machine: h11.Connection, reader: asyncio.StreamReader) -> object:
    while (event := machine.next_event()) is h11.NEED_DATA:
        data = await reader.read(_READ_BYTES)
        if not data and machine.their_state is h11.SEND_RESPONSE:
            raise ImportFailedError("it closed without an answer", reason="no_answer")
        machine.receive_data(data)
    return event


def retry_after(text: str, now: datetime) -> float | None:
    """Seconds of a ``Retry-After`` (RFC 9110 section 10.2.3), or None when there is none that can be read."""
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) <= 9:
        return min(float(text), _MAX_RETRY_AFTER_SECONDS)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return min(max(0.0, (aware - now).total_seconds()), _MAX_RETRY_AFTER_SECONDS)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    # Whoever does not close his side is not waited for.
    with suppress(OSError, TimeoutError, ssl.SSLError):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await writer.wait_closed()
    if writer.transport is not None:
        writer.transport.abort()
