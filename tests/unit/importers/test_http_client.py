"""The guarded HTTP client: what is read of an answer, whole or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress

import pytest

from gateway.core.errors import ImportFailedError
from gateway.importers.http_client import HTTPClient, Reply

Ask = Callable[..., Awaitable[Reply]]


@asynccontextmanager
async def serving(serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[Ask]:
    """A server that does this with each connection; at its end every connection is closed."""
    ended: list[asyncio.Task[None]] = []

    async def whole(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        ended.append(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await serve(reader, writer)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async with await asyncio.start_server(whole, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with ThreadPoolExecutor(1) as threads:
            yield HTTPClient(f"http://127.0.0.1:{port}/", ("127.0.0.1",), None, threads).request
        await asyncio.gather(*ended)


@asynccontextmanager
async def answering(answer: bytes, taken: list[bytes] | None = None) -> AsyncIterator[Ask]:
    """A server that reads one head, and what follows it, and answers with these bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        body = await reader.readexactly(int(length[0].split(b":")[1])) if length else b""
        if taken is not None:
            taken.append(head + body)
        writer.write(answer)
        await writer.drain()

    async with serving(serve) as ask:
        yield ask


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (OK + b"Content-Length: 3\r\n\r\nabc", b"abc"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", b"abc"),
        (OK + b"\r\nabc", b"abc"),
        (b"HTTP/1.1 103 Early\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 204 None\r\n\r\n", b""),
    ],
)
async def test_a_whole_answer(answer: bytes, body: bytes) -> None:
    async with answering(answer) as ask:
        assert (await ask("GET", "/x", {}, max_answer_bytes=3)).body == body
    async with answering(answer) as ask:
        assert (await ask("GET", "/x", {})).body == b"", "it was not asked for"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (OK + b"Content-Length: 3\r\n\r\nab", "bad_answer"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", "bad_answer"),
        (OK + b"Content-Length: 4\r\n\r\nabcd", "answer_too_large"),
        (OK + b"\r\n" + b"x" * 100_000, "answer_too_large"),
        (OK + b"X: " + b"x" * 20_000, "bad_answer"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 20, "bad_answer"),
        (b"SSH-2.0\r\n\r\n", "bad_answer"),
        (b"", "no_answer"),
        (OK, "no_answer"),
    ],
)
async def test_no_whole_answer(answer: bytes, reason: str) -> None:
    async with answering(answer) as ask:
        with pytest.raises(ImportFailedError) as caught:
            await ask("GET", "/x", {}, max_answer_bytes=3)
    assert caught.value.reason == reason


async def test_a_body_is_sent_whole_and_only_where_there_is_one() -> None:
    taken: list[bytes] = []
    body = bytes(range(256)) * 4_096
    async with answering(OK + b"\r\n", taken) as ask:
        await ask("PUT", "/x?y", {"a": "b"}, body)
        await ask("GET", "/", {})
        await ask("POST", "/", {})
    assert taken[0].endswith(body)
    assert taken[0].startswith(b"PUT /x?y HTTP/1.1\r\n")
    assert b"content-length" not in taken[1].lower()
    assert b"content-length: 0" in taken[2].lower()


async def test_an_answer_before_the_end_of_a_request_counts() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        while await reader.read(65_536):
            pass

    async with serving(serve) as ask:
        assert (await ask("POST", "/", {}, b"x" * 4_000_000, max_answer_bytes=9)).status == 413
