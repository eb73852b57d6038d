"""Whoever said MAIL, or STARTTLS and nothing more, had its slot for as long as it liked to say NOOP.

Only sessions without a transaction could lose a slot. Five addresses with a MAIL on each of their connections kept
everybody else out: a newcomer waited for five seconds and was sent away.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace

import pytest

from gateway.ingress import connection_gate
from tests.unit.ingress.smtp_harness import DOCTOR, SENDER, SETTINGS, Bench, Client, bench

FULL = replace(SETTINGS, max_connections=20, max_connections_per_peer=10)
Trick = Callable[[Client], Coroutine[None, None, None]]


@asynccontextmanager
async def connected(here: Bench, source: str) -> AsyncIterator[Client]:
    client = Client(*await asyncio.open_connection("127.0.0.1", here.listener.port, local_addr=(source, 0)))
    try:
        yield client
    finally:
        await client.close()


async def keeps_talking(client: Client) -> None:
    await client.ehlo()
    await client.cmd(f"MAIL FROM:<{SENDER}>")
    while True:
        await asyncio.sleep(0.2)
        if not await client.cmd("NOOP"):
            return


async def says_noop(client: Client) -> None:
    await client.ehlo()
    while await client.cmd("NOOP"):
        await asyncio.sleep(0.1)


async def says_mail_again(client: Client) -> None:
    await client.ehlo()
    while await client.cmd(f"MAIL FROM:<{SENDER}>"):
        await asyncio.sleep(0.2)
        await client.cmd("RSET")


async def spells_its_commands(client: Client) -> None:
    await client.ehlo()
    await client.cmd(f"MAIL FROM:<{SENDER}>")
    while True:
        for octet in b"NOOP" * 100:
            await client.send(bytes([octet]))
            await asyncio.sleep(0.2)


async def never_shakes_hands(client: Client) -> None:
    await client.ehlo()
    await client.cmd("STARTTLS")
    await client.reader.read()


async def crowd(here: Bench, trick: Trick, stack: AsyncExitStack) -> None:
    """All slots, of five addresses; who loses one takes the next."""

    async def one(source: str) -> None:
        while True:
            with suppress(OSError, AssertionError):
                async with connected(here, source) as client:
                    await trick(client)
            await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(one(f"127.0.0.{10 + number % 5}")) for number in range(30)]

    async def end() -> None:
        left = set(tasks)
        while left:
            # Again and again: asyncio.wait_for of Python 3.11 may swallow one.
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=0.1)

    stack.push_async_callback(end)
    while not here.listener._gate._counter.full:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)


@pytest.mark.parametrize("trick", [keeps_talking, says_noop, says_mail_again, spells_its_commands, never_shakes_hands])
async def test_a_newcomer_gets_its_message_through(trick: Trick, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_gate, "STALLED_AFTER_SECONDS", 0.8, raising=False)
    monkeypatch.setattr(connection_gate, "WAIT_SECONDS", 3.0)
    # Nobody gets as far as to see that it has no certificate.
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    async with bench(FULL, tls=tls) as here, AsyncExitStack() as stack, asyncio.timeout(60):
        await crowd(here, trick, stack)
        for _ in range(3):
            async with connected(here, "127.0.0.9") as sender:
                await sender.ehlo()
                assert (await sender.deliver(b"Subject: a\r\n\r\nb\r\n.\r\n")).startswith("250 2.0.0")
        assert len(here.accept.inbounds) == 3


async def test_a_message_that_arrives_keeps_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_gate, "STALLED_AFTER_SECONDS", 0.2, raising=False)
    monkeypatch.setattr(connection_gate, "WAIT_SECONDS", 1.0)
    async with bench(replace(SETTINGS, max_connections=1)) as here, here.client() as slow:
        await slow.ehlo()
        await slow.begin()
        await slow.send(b"Subject: a\r\n")
        async with connected(here, "127.0.0.9") as newcomer:
            assert (await newcomer.reply()).startswith("421 "), "there was no slot to be had"
        await slow.send(b"\r\nb\r\n.\r\n")
        assert (await slow.reply()).startswith("250 2.0.0")
        # And who has just sent one may send the next.
        assert (await slow.cmd(f"MAIL FROM:<{SENDER}>")).startswith("250 ")
        assert (await slow.cmd(f"RCPT TO:<{DOCTOR}>")).startswith("250 ")


async def test_handshakes_that_hang_take_little_memory() -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    async with bench(SETTINGS, tls=tls) as here, here.client() as client:
        await client.ehlo()
        await client.cmd("STARTTLS")
        [session] = here.listener._gate.sessions()
        protocol = session._tls_protocol
        assert protocol is not None
        # asyncio takes 256 KiB: with 500 connections that was most of what the whole gateway needs.
        held: bytearray = getattr(protocol, "_ssl_buffer")  # noqa: B009 - not in the stubs
        assert len(held) <= 65_536
