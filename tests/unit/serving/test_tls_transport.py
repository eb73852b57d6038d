"""TLS between a connection and its socket: what was sent arrives, whole and in order, and the end is said."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.serving.connection import Connection, ConnectionClosedError
from gateway.serving.tls_transport import TLSTransport
from tests.unit.imap.imap_harness import tls_contexts

MEGABYTES = bytes(range(256)) * 16_384
Serve = Callable[[Connection], Awaitable[None]]


class Served:
    """A server of one kind of session, and what became of the sessions."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self.port = 0
        self.errors: list[BaseException] = []
        self.ended = asyncio.Event()

    async def _run(self, connection: Connection) -> None:
        try:
            await connection.start_tls(tls_contexts()[0])
            await self._serve(connection)
            await connection.close()
        except Exception as error:
            self.errors.append(error)
            connection.abort()
        finally:
            self.ended.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks: set[asyncio.Task[None]] = set()

        def accepted(connection: Connection) -> None:
            tasks.add(asyncio.get_running_loop().create_task(self._run(connection)))

        server = await asyncio.get_running_loop().create_server(lambda: Connection(accepted, 65_536), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            await asyncio.gather(*tasks)

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=tls_contexts()[1], server_hostname="localhost", limit=1 << 26
        )


async def test_many_octets_go_both_ways() -> None:
    async def echo(connection: Connection) -> None:
        got = await connection.read_large(len(MEGABYTES))
        await connection.send_large(got)

    served = Served(echo)
    async with served.running(), asyncio.timeout(30):
        reader, writer = await served.open()
        writer.write(MEGABYTES)
        assert await reader.readexactly(len(MEGABYTES)) == MEGABYTES
        assert await reader.read() == b"", "close_notify is the end of the stream, and no error"
        writer.close()
    assert served.errors == []


async def test_the_last_answer_arrives_although_the_client_sends_on() -> None:
    async def one_line(connection: Connection) -> None:
        assert await connection.read_line() == b"LOGOUT"
        connection.queue(b"BYE\r\n")

    served = Served(one_line)
    async with served.running(), asyncio.timeout(30):
        reader, writer = await served.open()
        writer.write(b"LOGOUT\r\n" + b"more\r\n" * 20_000)
        assert await reader.read() == b"BYE\r\n"
        writer.close()
    assert served.errors == []


async def test_what_comes_with_the_end_of_the_handshake_is_read() -> None:
    lines: list[bytes] = []

    async def keep(connection: Connection) -> None:
        lines.extend([await connection.read_line(), await connection.read_line()])

    served = Served(keep)
    async with served.running(), asyncio.timeout(30):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = tls_contexts()[1].wrap_bio(incoming, outgoing, server_hostname="localhost")
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        writer.write(outgoing.read())
        while True:
            incoming.write(await reader.read(65_536))
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
        client.write(b"first\r\nsecond\r\n")
        # The last message of the handshake and the first octets of the session in one packet.
        writer.write(outgoing.read())
        await served.ended.wait()
        writer.close()
    assert (lines, served.errors) == ([b"first", b"second"], [])


async def test_who_speaks_no_tls_is_turned_away() -> None:
    async def never(connection: Connection) -> None:
        raise AssertionError("there is no session without a handshake")

    served = Served(never)
    async with served.running(), asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"a LOGIN ann secret\r\n" * 10)
        assert b"BYE" not in await reader.read()
        writer.close()
    assert [type(error) for error in served.errors] == [ConnectionClosedError]


@pytest.mark.parametrize("after_handshake", [True, False])
async def test_a_client_that_goes_away_ends_its_session(after_handshake: bool) -> None:
    async def wait(connection: Connection) -> None:
        await connection.read_line()

    served = Served(wait)
    async with served.running(), asyncio.timeout(30):
        _, writer = await (served.open() if after_handshake else asyncio.open_connection("127.0.0.1", served.port))
        writer.transport.abort()
        await served.ended.wait()
    assert [type(error) for error in served.errors] == [ConnectionClosedError]


async def test_nothing_is_delivered_after_a_broken_record() -> None:
    lines: list[bytes] = []

    async def keep(connection: Connection) -> None:
        while True:
            lines.append(await connection.read_line())

    served = Served(keep)
    async with served.running(), asyncio.timeout(30):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = tls_contexts()[1].wrap_bio(incoming, outgoing, server_hostname="localhost")
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                incoming.write(await reader.read(65_536))
        client.write(b"good\r\n")
        whole = outgoing.read()
        client.write(b"altered\r\n")
        record = bytearray(outgoing.read())
        record[-1] ^= 1
        client.write(b"after it\r\n")
        writer.write(whole + record + outgoing.read())
        await served.ended.wait()
        writer.close()
    assert lines == [b"good"]
    assert [type(error) for error in served.errors] == [ConnectionClosedError]


async def test_a_connection_that_waits_holds_little() -> None:
    waiting = asyncio.Event()

    async def wait(connection: Connection) -> None:
        waiting.set()
        await connection.read_line()

    import tracemalloc

    served = Served(wait)
    async with served.running(), asyncio.timeout(30):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = tls_contexts()[1].wrap_bio(incoming, outgoing, server_hostname="localhost")
        tracemalloc.start()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            while True:
                try:
                    client.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    writer.write(outgoing.read())
                    incoming.write(await reader.read(65_536))
            writer.write(outgoing.read())
            await waiting.wait()
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # Both ends are in it, with the reader of the client; a single buffer of asyncio's TLS has 262,144.
        assert held < 131_072
        client.write(b"x\r\n")
        writer.write(outgoing.read())
        await served.ended.wait()
        writer.close()


async def test_who_does_not_read_holds_his_writer_up_and_loses_nothing() -> None:
    """What does not fit the socket is held, the writer waits, and all of it comes once the peer reads."""
    sent = asyncio.Event()

    async def much(connection: Connection) -> None:
        for _ in range(8):
            await connection.send_large(MEGABYTES)
        sent.set()

    served = Served(much)
    async with served.running(), asyncio.timeout(60):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", served.port, ssl=tls_contexts()[1], server_hostname="localhost", limit=65_536
        )
        await asyncio.sleep(0.3)
        assert not sent.is_set(), "32 MiB do not fit between the two"
        got = bytearray()
        while piece := await reader.read(1 << 20):
            got += piece
        assert got == MEGABYTES * 8
        writer.close()
    assert served.errors == []


async def test_what_waits_to_be_sent_goes_before_the_end() -> None:
    async def much(connection: Connection) -> None:
        await connection.read_line()
        connection.queue(MEGABYTES * 4)
        # Closed while most of it is not sent yet.

    served = Served(much)
    async with served.running(), asyncio.timeout(60):
        reader, writer = await served.open()
        writer.write(b"go\r\n")
        assert await reader.read() == MEGABYTES * 4
        writer.close()
    assert served.errors == []


async def test_who_says_that_he_is_done_and_does_not_read_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    readable = TLSTransport._readable

    def counted(transport: TLSTransport) -> None:
        told.append(1)
        readable(transport)

    monkeypatch.setattr(TLSTransport, "_readable", counted)

    async def much(connection: Connection) -> None:
        assert await connection.read_line() == b"GO"
        # More than what the kernel takes on both sides.
        await connection.send_large(MEGABYTES * 8)

    served = Served(much)
    client = tls_contexts()[1].wrap_bio(incoming := ssl.MemoryBIO(), outgoing := ssl.MemoryBIO(), False, "localhost")
    loop = asyncio.get_running_loop()
    async with served.running(), asyncio.timeout(30):
        with socket.socket() as peer:
            peer.setblocking(False)
            await loop.sock_connect(peer, ("127.0.0.1", served.port))
            while True:
                try:
                    client.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    await loop.sock_sendall(peer, outgoing.read())
                    incoming.write(await loop.sock_recv(peer, 65_536))
            client.write(b"GO\r\n")
            await loop.sock_sendall(peer, outgoing.read())
            await asyncio.sleep(0.2)
            peer.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0.2)
            assert len(told) < 100, "the end of the stream can be read for ever, and is looked at once"
            assert not served.ended.is_set()
        await served.ended.wait()
    assert [type(error) for error in served.errors] == [ConnectionClosedError]


async def test_a_paused_reader_takes_up_where_it_was() -> None:
    """More than the input buffer holds, while nobody reads: the peer is held up, and nothing is lost or moved."""
    lines = [b"%06d" % number + b"x" * 900 for number in range(2_000)]

    async def slowly(connection: Connection) -> None:
        await asyncio.sleep(0.2)
        for line in lines:
            assert await connection.read_line() == line
        connection.queue(b"all\r\n")

    served = Served(slowly)
    async with served.running(), asyncio.timeout(60):
        reader, writer = await served.open()
        writer.write(b"".join(line + b"\r\n" for line in lines))
        assert await reader.read() == b"all\r\n"
        writer.close()
    assert served.errors == []


async def test_the_socket_has_one_owner_and_is_closed_with_the_session() -> None:
    async def one(connection: Connection) -> None:
        await connection.read_line()

    served = Served(one)
    async with served.running(), asyncio.timeout(30):
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(20):
            served.ended.clear()
            reader, writer = await served.open()
            writer.write(b"x\r\n")
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
            await served.ended.wait()
        await asyncio.sleep(0.05)
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2
    assert served.errors == []
