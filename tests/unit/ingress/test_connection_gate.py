"""Rate limits by name, stress mode and eviction: F19, F20 and EP-9, each told once per window."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest

from gateway.ingress import connection_gate, rates
from gateway.ingress.rates import RateLimit
from gateway.observability.log import configure
from gateway.settings import LogSettings, SMTPSettings
from tests.unit.ingress.smtp_harness import DOCTOR, NURSE, SENDER, SETTINGS, Bench, Client, bench

MESSAGE = b"Subject: a\r\n\r\nb\r\n.\r\n"


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> io.StringIO:
    """What is logged from now on."""
    stream = io.StringIO()
    configure(LogSettings(), stream=stream)
    return stream


@asynccontextmanager
async def connected(here: Bench, source: str) -> AsyncIterator[Client]:
    """A client with a network of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", here.listener.port, local_addr=(source, 0))
    client = Client(reader, writer)
    try:
        yield client
    finally:
        await client.close()


def test_a_window_ends_and_the_next_is_fresh() -> None:
    rate = RateLimit(2, 60)
    assert [rate.allows("a", at) for at in (0, 1, 2, 59.9, 60, 61, 62)] == [True, True, False, False, True, True, False]
    assert rate.allows("b", 2)


def test_a_refusal_is_told_once_in_a_window() -> None:
    rate = RateLimit(1, 60)
    rate.allows("a", 0)
    assert [rate.first_refusal("a", at) for at in (1, 2, 61, 62)] == [True, False, True, False]


def test_zero_is_no_limit() -> None:
    rate = RateLimit(0, 60)
    assert all(rate.allows("a", 0) for _ in range(100_000))


def test_memory_for_networks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "MAX_NETWORKS", 100)
    rate = RateLimit(1, 60)
    for number in range(10_000):
        rate.allows(str(number), number / 1000)
    assert len(rate._windows) <= 100
    # What is over is forgotten first, and at once.
    rate.allows("new", 1000)
    assert list(rate._windows) == ["new"]


async def test_connections_per_minute(log: io.StringIO) -> None:
    async with bench(replace(SETTINGS, max_connections_per_minute_per_peer=3)) as here:
        replies = []
        for _ in range(6):
            async with here.client() as client:
                replies.append(await client.reply())
        assert [reply[:9] for reply in replies[3:]] == ["421 4.7.0"] * 3
        assert all(reply.startswith("220") for reply in replies[:3])
        # Another network is not touched by it.
        async with connected(here, "127.0.0.9") as other:
            assert (await other.reply()).startswith("220")
    assert log.getvalue().count("smtp_rate_limited") == 1
    assert "rule=connections_per_minute" in log.getvalue()


async def test_messages_per_minute(log: io.StringIO) -> None:
    async with bench(replace(SETTINGS, max_messages_per_minute_per_peer=2)) as here, here.client() as client:
        await client.ehlo()
        for _ in range(2):
            assert (await client.deliver(MESSAGE)).startswith("250")
        for _ in range(3):
            assert (await client.cmd(f"MAIL FROM:<{SENDER}>")).startswith("451 4.7.1")
        # No transaction was begun, and the session goes on.
        assert (await client.cmd(f"RCPT TO:<{DOCTOR}>")).startswith("503")
        assert (await client.cmd("NOOP")).startswith("250")
    assert log.getvalue().count("smtp_rate_limited") == 1


async def test_recipients_per_hour(log: io.StringIO) -> None:
    async with bench(replace(SETTINGS, max_recipients_per_hour_per_peer=2)) as here, here.client() as client:
        await client.ehlo()
        await client.cmd(f"MAIL FROM:<{SENDER}>")
        assert (await client.cmd(f"RCPT TO:<{DOCTOR}>")).startswith("250")
        # Guessing addresses counts as well.
        assert (await client.cmd("RCPT TO:<guess@direct.example.org>")).startswith("550 5.1.1")
        assert (await client.cmd(f"RCPT TO:<{NURSE}>")).startswith("450 4.7.1")
        # The message goes to whom was taken.
        assert (await client.cmd("DATA")).startswith("354")
        await client.send(MESSAGE)
        assert (await client.reply()).startswith("250")
        assert here.accept.inbounds[0].envelope.recipients == (DOCTOR,)
    assert log.getvalue().count("smtp_rate_limited") == 1


def stressed(here: Bench) -> bool:
    """Asked anew each time."""
    return here.listener.stressed


STRESSED = replace(
    SETTINGS, max_connections=10, max_connections_per_peer=10, command_timeout_seconds=60, stress_timeout_seconds=1
)


async def test_stress_shortens_silence_also_for_those_who_wait_already(log: io.StringIO) -> None:
    async with bench(STRESSED) as here, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(here.client()) for _ in range(8)]
        for client in clients:
            assert (await client.reply()).startswith("220")
        assert not stressed(here)
        clients.append(await stack.enter_async_context(here.client()))
        assert (await clients[-1].reply()).startswith("220")
        assert stressed(here)
        async with asyncio.timeout(5):
            ends = [await client.reply() for client in clients]
        assert all(end.startswith("421 4.4.2") for end in ends)
        for client in clients:
            await client.close()
        async with asyncio.timeout(5):
            while stressed(here):
                await asyncio.sleep(0.01)
        await here.still_serves()
    assert log.getvalue().count("smtp_stress_began") == 1


async def test_stress_ends_clients_that_only_talk() -> None:
    async with bench(replace(STRESSED, stress_timeout_seconds=30)) as here, AsyncExitStack() as stack:
        for _ in range(8):
            await (await stack.enter_async_context(here.client())).reply()
        async with here.client() as talker:
            await talker.reply()
            replies = [await talker.cmd("NOOP") for _ in range(11)]
            assert replies[-1].startswith("421 4.7.0")
            assert all(reply.startswith("250") for reply in replies[:10])


async def test_an_idle_connection_makes_room_for_a_newcomer(monkeypatch: pytest.MonkeyPatch, log: io.StringIO) -> None:
    monkeypatch.setattr(connection_gate, "EVICT_AFTER_SECONDS", 0.05)
    settings = replace(SETTINGS, max_connections=4, max_connections_per_peer=4)
    async with bench(settings) as here, AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(connected(here, "127.0.0.5")) for _ in range(4)]
        await crowd[0].ehlo()
        # The oldest has a transaction under way, and must not lose it.
        assert (await crowd[0].cmd(f"MAIL FROM:<{SENDER}>")).startswith("250")
        for client in crowd[1:]:
            assert (await client.reply()).startswith("220")
        await asyncio.sleep(0.1)
        async with connected(here, "127.0.0.6") as newcomer:
            await newcomer.ehlo()
            assert (await newcomer.deliver(MESSAGE)).startswith("250")
            assert (await crowd[1].reply()).startswith("421 4.3.2")
            # The crowd's own network gets no more room by it, and the transaction lives.
            async with connected(here, "127.0.0.5") as again:
                assert (await again.reply()).startswith("220")
                assert (await crowd[2].reply()).startswith("421 4.3.2")
            assert (await crowd[0].cmd(f"RCPT TO:<{DOCTOR}>")).startswith("250")
    assert "smtp_too_many_connections" not in log.getvalue()


async def test_a_crowd_keeps_out_nobody_of_its_own_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_gate, "EVICT_AFTER_SECONDS", 0.2)
    async with (
        bench(replace(SETTINGS, max_connections=10, max_connections_per_peer=3)) as here,
        AsyncExitStack() as stack,
    ):
        crowd = [await stack.enter_async_context(here.client()) for _ in range(3)]
        for client in crowd:
            assert (await client.reply()).startswith("220")
        # Nobody has been idle for long enough yet: the newcomer waits for its greeting, and is not sent away.
        async with here.client() as sender:
            await sender.ehlo()
            assert (await sender.deliver(MESSAGE)).startswith("250")
            assert (await crowd[0].reply()).startswith("421 4.3.2")
        for client in crowd[1:]:
            assert (await client.cmd("NOOP")).startswith("250")


async def test_what_is_said_while_waiting_is_served_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_gate, "EVICT_AFTER_SECONDS", 0.3)
    async with bench(replace(SETTINGS, max_connections=1)) as here, here.client() as first:
        await first.reply()
        async with here.client() as hasty:
            await hasty.send(b"EHLO hasty.example\r\nNOOP\r\n")
            replies = [await hasty.reply() for _ in range(3)]
        assert [reply[:3] for reply in replies] == ["220", "250", "250"]


async def test_a_slot_that_becomes_free_is_given_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_gate, "EVICT_AFTER_SECONDS", 60)
    monkeypatch.setattr(connection_gate, "WAIT_SECONDS", 60)
    async with bench(replace(SETTINGS, max_connections=1)) as here, here.client() as first:
        assert (await first.reply()).startswith("220")
        async with here.client() as second:
            greeting = asyncio.ensure_future(second.reply())
            await asyncio.wait([greeting], timeout=0.1)
            assert not greeting.done()
            # The first keeps its connection open after its goodbye; the slot is not its any more.
            assert (await first.cmd("QUIT")).startswith("221")
            async with asyncio.timeout(3):
                assert (await greeting).startswith("220")


async def test_whose_network_holds_the_least_is_let_in_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_gate, "EVICT_AFTER_SECONDS", 0.3)
    monkeypatch.setattr(connection_gate, "EVICTIONS_PER_LOOK", 1)
    monkeypatch.setattr(connection_gate, "SHORTEST_LOOK_SECONDS", 1)
    async with bench(replace(SETTINGS, max_connections=4)) as here, AsyncExitStack() as stack:
        for _ in range(4):
            await (await stack.enter_async_context(connected(here, "127.0.0.5"))).reply()
        other = await stack.enter_async_context(connected(here, "127.0.0.6"))
        flood = [await stack.enter_async_context(connected(here, "127.0.0.5")) for _ in range(20)]
        async with asyncio.timeout(5):
            assert (await other.reply()).startswith("220")
        waiting = [asyncio.ensure_future(one.reply()) for one in flood]
        done, pending = await asyncio.wait(waiting, timeout=0.1)
        assert not done
        for one in pending:
            one.cancel()


async def test_a_network_that_wants_more_than_its_slots_is_hurried() -> None:
    settings = replace(SETTINGS, max_connections=50, max_connections_per_peer=2, stress_timeout_seconds=1)
    async with bench(settings) as here, AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(here.client()) for _ in range(2)]
        for client in slow:
            await client.ehlo()
            await client.cmd(f"MAIL FROM:<{SENDER}>")
            await client.cmd(f"RCPT TO:<{DOCTOR}>")
            assert (await client.cmd("DATA")).startswith("354")
        async with connected(here, "127.0.0.9") as elsewhere, here.client() as sender:
            await elsewhere.reply()
            async with asyncio.timeout(4):
                await sender.ehlo()
            assert (await sender.deliver(MESSAGE)).startswith("250")
            assert {(await client.reply())[:9] for client in slow} == {"421 4.4.2"}
            assert (await elsewhere.cmd("NOOP")).startswith("250")
        assert not stressed(here)


async def test_the_end_of_the_listener_sends_away_who_waits() -> None:
    async with bench(replace(SETTINGS, max_connections=1)) as here, here.client() as first, here.client() as second:
        await first.cmd("NOOP")
        await asyncio.sleep(0.05)
        await here.listener.close(0)
        assert {(await first.reply())[:9], (await second.reply())[:9]} >= {"421 4.3.2"}
        assert here.listener._gate.connections() == []


async def test_a_flood_beyond_all_limits_is_dropped(monkeypatch: pytest.MonkeyPatch, log: io.StringIO) -> None:
    monkeypatch.setattr(connection_gate, "BESIDE_CONNECTIONS", 5)
    monkeypatch.setattr(connection_gate, "WAIT_SECONDS", 0.5)
    monkeypatch.setattr(connection_gate, "EVICT_AFTER_SECONDS", 60)
    settings: SMTPSettings = replace(SETTINGS, max_connections=5, max_connections_per_peer=5)
    async with bench(settings) as here, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(here.client()) for _ in range(15)]
        greetings = []
        for client in clients:
            try:
                greetings.append(await client.reply())
            except ConnectionError:
                greetings.append("")
        # The first have slots, the last have waited; those between made room, and were told why as well.
        assert [greeting[:3] for greeting in greetings] == ["220"] * 5 + ["421"] * 10
        assert len(here.listener._gate.connections()) <= 10
    assert here.listener._gate._counter.total == 0
    assert log.getvalue().count("smtp_too_many_connections") == 1
