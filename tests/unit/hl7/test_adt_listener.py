"""The MLLP listener: who may connect, how much, how long, and what stays behind (HL7-6)."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import ListenError
from gateway.hl7.listener import MLLPLimits, MLLPListener
from gateway.hl7.mllp import frame
from tests.support.tls_files import make_authority

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def listening(
    *,
    allowed: tuple[str, ...] = ("127.0.0.1/32",),
    tls: ssl.SSLContext | None = None,
    answer_seconds: float = 0.0,
    **changes: float,
) -> AsyncIterator[MLLPListener]:
    async def answer(message: bytes) -> bytes:
        await asyncio.sleep(answer_seconds)
        return b"ACK " + message[:20]

    limits = MLLPLimits(
        max_message_bytes=int(changes.get("max_message_bytes", 1_000)),
        max_connections=int(changes.get("max_connections", 5)),
        idle_seconds=changes.get("idle_seconds", 20),
        message_seconds=changes.get("message_seconds", 20),
    )
    made = MLLPListener("127.0.0.1", 0, answer=answer, limits=limits, allowed_peers=allowed, tls=tls)
    await made.start()
    try:
        yield made
    finally:
        await made.close()


_opened: list[Streams] = []


@pytest.fixture(autouse=True)
async def closed() -> AsyncIterator[None]:
    """The ends of the tests' own connections are let go of within the loop that made them."""
    yield
    for _, writer in _opened:
        writer.transport.abort()
    _opened.clear()
    await asyncio.sleep(0.05)


async def connect(listener: MLLPListener, **options: Any) -> Streams:
    streams = await asyncio.open_connection("127.0.0.1", listener.port, **options)
    _opened.append(streams)
    return streams


async def ask(streams: Streams, message: bytes) -> bytes:
    streams[1].write(frame(message))
    return (await streams[0].readuntil(b"\x1c\r"))[1:-2]


async def ended(streams: Streams, seconds: float = 5) -> bool:
    async with asyncio.timeout(seconds):
        try:
            return await streams[0].read() == b""
        except ConnectionError:
            return True


async def test_messages_are_answered_in_order_also_when_they_come_together_and_in_pieces() -> None:
    async with listening() as listener:
        streams = await connect(listener)
        assert await ask(streams, b"one") == b"ACK one"
        streams[1].write(frame(b"two") + frame(b"three") + frame(b"four")[:4])
        assert await streams[0].readuntil(b"\x1c\r") == frame(b"ACK two")
        assert await streams[0].readuntil(b"\x1c\r") == frame(b"ACK three")
        for octet in frame(b"four")[4:]:
            streams[1].write(bytes([octet]))
            await asyncio.sleep(0)
        assert await streams[0].readuntil(b"\x1c\r") == frame(b"ACK four")
        # Half closed: the answer still comes.
        streams[1].write(frame(b"last"))
        streams[1].write_eof()
        assert await streams[0].read() == frame(b"ACK last")
        streams[1].close()


async def test_a_peer_that_is_not_allowed_is_cut_off_and_one_above_the_limit_too() -> None:
    async with listening(allowed=("10.0.0.0/8",)) as listener:
        assert await ended(await connect(listener))
    async with listening(max_connections=2) as listener:
        first, second = await connect(listener), await connect(listener)
        assert await ask(first, b"a") == b"ACK a"
        assert await ask(second, b"b") == b"ACK b"
        assert await ended(await connect(listener))
        first[1].close()
        await asyncio.sleep(0.1)
        assert await ask(await connect(listener), b"c") == b"ACK c"


@pytest.mark.parametrize(
    "octets", [b"GET / HTTP/1.1\r\n" * 10, b"\x0b" + b"a" * 2_000, b"\x0babc\x1cxx", b"\x0ba\x0bb\x1c\r", b"\x00" * 100]
)
async def test_what_is_no_frame_ends_the_connection_and_no_other_one(octets: bytes) -> None:
    async with listening() as listener:
        good, bad = await connect(listener), await connect(listener)
        bad[1].write(octets)
        assert await ended(bad)
        assert await ask(good, b"one") == b"ACK one"


async def test_a_silent_peer_and_a_slow_one_are_cut_off_in_time() -> None:
    async with listening(idle_seconds=0.2) as listener:
        began = time.monotonic()
        assert await ended(await connect(listener))
        assert time.monotonic() - began < 3
    async with listening(message_seconds=0.3) as listener:
        streams = await connect(listener)
        streams[1].write(b"\x0babc")
        for _ in range(20):
            await asyncio.sleep(0.05)
            if streams[0].at_eof():
                break
            streams[1].write(b"d")
        assert await ended(streams)


async def test_a_peer_that_never_reads_its_answers_holds_no_more_than_itself() -> None:
    async with listening(max_message_bytes=100_000) as listener:
        greedy = await connect(listener)
        greedy[1].transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(200):
            greedy[1].write(frame(b"x" * 1_000))
        good = await connect(listener)
        assert await ask(good, b"one") == b"ACK one"
        greedy[1].transport.abort()


async def test_random_octets_never_stop_the_listener() -> None:
    rng = random.Random(5)
    async with listening() as listener:
        for _ in range(40):
            streams = await connect(listener)
            streams[1].write(bytes(rng.choice(b"\x0b\x1c\rMSH|^~\\&\n\x00\xff") for _ in range(rng.randint(1, 400))))
            streams[1].close()
        await asyncio.sleep(0.1)
        assert await ask(await connect(listener), b"one") == b"ACK one"


async def test_close_ends_every_connection_soon_and_the_port_is_free() -> None:
    async with listening(answer_seconds=30) as listener:
        port = listener.port
        idle, busy = await connect(listener), await connect(listener)
        busy[1].write(frame(b"slow"))
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await listener.close()
        assert time.monotonic() - began < 3
        assert await ended(idle)
        assert await ended(busy)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))


async def test_a_port_that_is_taken_is_an_error_that_names_its_setting() -> None:
    async with listening() as listener:
        limits = MLLPLimits(1, 1, 1, 1)

        async def answer(message: bytes) -> bytes:
            return message

        other = MLLPListener("127.0.0.1", listener.port, answer=answer, limits=limits, allowed_peers=(), tls=None)
        with pytest.raises(ListenError, match=r"adt\.port"):
            await other.start()


async def test_mutual_tls_lets_only_certificates_of_the_authority_in(tmp_path: Path) -> None:
    ca, server, client = make_authority(tmp_path / "a")
    _, _, stranger = make_authority(tmp_path / "b", slot=1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*server)
    context.load_verify_locations(ca)
    context.verify_mode = ssl.CERT_REQUIRED

    async def tried(pair: tuple[Path, Path] | None) -> bytes:
        mine = ssl.create_default_context(cafile=str(ca))
        if pair:
            mine.load_cert_chain(*pair)
        async with asyncio.timeout(10):
            return await ask(await connect(listener, ssl=mine, server_hostname="localhost"), b"one")

    async with listening(tls=context) as listener:
        assert await tried(client) == b"ACK one"
        for pair in (None, stranger):
            with pytest.raises((OSError, asyncio.IncompleteReadError)):
                await tried(pair)
        plain = await connect(listener)
        plain[1].write(frame(b"in the clear"))
        assert b"ACK" not in await _read(plain)
        assert await tried(client) == b"ACK one"


async def _read(streams: Streams) -> bytes:
    try:
        async with asyncio.timeout(5):
            return await streams[0].read()
    except ConnectionError:
        return b""
