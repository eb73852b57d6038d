"""The listener of the ADT feed: MLLP on one port, plain or within TLS, for the peers that the settings allow.

Guarantees

* A peer that is not allowed is cut off before it is asked for TLS; the number of connections is bounded from the first
  packet, so that half-open handshakes cannot pile up.
* Messages of one connection are answered one after the other, in their order. At most one message and one read are held
  for each connection; a peer that sends without waiting is not read from until its earlier message is answered.
* Every wait has an end: for the handshake, for a message to begin, for it to be whole once it has begun, and for the
  peer to take the answer.
* :meth:`MLLPListener.close` ends within CLOSE_SECONDS, and what was committed is sent again by the peer and answered AA
  by whoever serves it next.

Failure modes: ListenError of :meth:`MLLPListener.start`; a broken frame ends its connection without an answer, because
nothing says which message it would be for.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from gateway.core.errors import ListenError
from gateway.hl7.mllp import FrameError, FrameReader, frame
from gateway.observability.log import get_log
from gateway.observability.os_errors import os_reason

BACKLOG = 64
READ_BYTES = 65_536
HANDSHAKE_SECONDS = 15.0
WRITE_SECONDS = 30.0
CLOSE_SECONDS = 5.0
END_SECONDS = 2.0

log = get_log("adt")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class MLLPLimits:
    """What a peer may take."""

    max_message_bytes: int
    max_connections: int
    idle_seconds: float
    """Between two messages."""
    message_seconds: float
    """From the first octet of a message to its last one."""


class MLLPListener:
    """A port for MLLP. ``answer`` gets each message and returns what is said to it; it raises nothing."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        answer: Callable[[bytes], Awaitable[bytes]],
        limits: MLLPLimits,
        allowed_peers: Sequence[str],
        tls: ssl.SSLContext | None,
    ) -> None:
        """``tls`` None: in the clear. ``allowed_peers``: networks in CIDR form; nobody else may connect."""
        self._host, self._wanted = host, port
        self._answer = answer
        self._limits = limits
        self._allowed = [ipaddress.ip_network(peer) for peer in allowed_peers]
        self._tls = tls
        self._sockets: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._sessions: set[asyncio.Task[None]] = set()
        self.port = 0
        """That is bound; 0 while none is."""

    async def start(self) -> None:
        """Open the port. Raises ListenError."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(self._host, self._wanted, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, kind, protocol, _, address in dict.fromkeys(found):
                # A name with two addresses and any free port has one port: that of the first address.
                bound = (address[0], self.port or address[1], *address[2:])
                self._sockets.append(_listening(family, kind, protocol, bound))
                self.port = self._sockets[-1].getsockname()[1]
        except OSError as error:
            self._close_sockets()
            raise ListenError("ADT", self._host, self._wanted, "adt.port", os_reason(error)) from error
        self._accepting = [loop.create_task(self._accept(one)) for one in self._sockets]

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, address = await loop.sock_accept(listening)
            except OSError as error:
                # No descriptor is left, or the peer has gone before it was accepted. The port stays open.
                log.warning("adt_accept_failed", exc=error)
                await asyncio.sleep(0.2)
                continue
            peer = str(address[0])
            refused = self._refusal(peer)
            if refused:
                log.warning("adt_connection_refused", reason=refused, peer=peer)
                accepted.close()
                continue
            task = loop.create_task(self._session(accepted, peer))
            self._sessions.add(task)
            task.add_done_callback(self._sessions.discard)

    def _refusal(self, peer: str) -> str:
        address = ipaddress.ip_address(peer.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if not any(address in network for network in self._allowed):
            return "not_allowed"
        return "limit" if len(self._sessions) >= self._limits.max_connections else ""

    async def _session(self, accepted: socket.socket, peer: str) -> None:
        writer: asyncio.StreamWriter | None = None
        try:
            accepted.setblocking(False)
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            reader, writer = await self._streams(accepted)
            await self._serve(reader, writer)
            await _end(writer)
        except FrameError as error:
            log.warning("adt_connection_ended", reason=error.reason, peer=peer)
        except TimeoutError:
            log.info("adt_connection_ended", reason="timeout", peer=peer)
        except (OSError, EOFError) as error:  # Includes ssl.SSLError, and a handshake that fails.
            log.info("adt_connection_ended", reason="tls" if isinstance(error, ssl.SSLError) else "gone", peer=peer)
        except Exception as error:  # noqa: BLE001 - the listener must outlive any single peer
            log.fault("adt_connection_fault", error)
        finally:
            if writer is None:
                accepted.close()
            else:
                writer.transport.abort()

    async def _streams(self, accepted: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=READ_BYTES, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol,
            accepted,
            ssl=self._tls,
            ssl_handshake_timeout=HANDSHAKE_SECONDS if self._tls else None,
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = FrameReader(self._limits.max_message_bytes)
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._limits.idle_seconds
        while True:
            message = frames.next()
            if message is None:
                within = frames.within
                async with asyncio.timeout_at(deadline):
                    octets = await reader.read(READ_BYTES)
                if not octets:
                    return
                frames.feed(octets)
                if frames.within and not within:
                    deadline = clock() + self._limits.message_seconds
                continue
            writer.write(frame(await self._answer(message)))
            async with asyncio.timeout(WRITE_SECONDS):
                await writer.drain()
            wait = self._limits.message_seconds if frames.within else self._limits.idle_seconds
            deadline = clock() + wait

    async def close(self) -> None:
        """Stop listening and end every connection; what is applied meanwhile the peer sends again."""
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        self._close_sockets()
        sessions = list(self._sessions)
        for task in sessions:
            task.cancel()
        if sessions:
            await asyncio.wait(sessions, timeout=CLOSE_SECONDS)

    def _close_sockets(self) -> None:
        for one in self._sockets:
            one.close()
        self._sockets.clear()
        self.port = 0


async def _end(writer: asyncio.StreamWriter) -> None:
    """Send what is left, and close. Whoever does not take it in time loses it."""
    with suppress(TimeoutError, OSError):
        async with asyncio.timeout(END_SECONDS):
            writer.close()
            await writer.wait_closed()


def _listening(family: int, kind: int, protocol: int, address: tuple[object, ...]) -> socket.socket:
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setblocking(False)
        made.bind(address)
        made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made
