"""One client used to hold nearly the whole budget of arriving mail with twenty slow connections, and others got 452.

A network may hold half of ``smtp.max_buffered_mib``, and room for one message of the largest size in any case (F18).
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from gateway.ingress.limits import MIB, ByteBudget, SMTPLimits
from tests.unit.ingress.smtp_harness import DOCTOR, SENDER, SETTINGS, Client, bench

SMALL = replace(SETTINGS, max_message_mib=1, max_buffered_mib=6, max_in_memory_mib=6)


async def _client(port: int, source: str) -> Client:
    client = Client(*await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0)))
    await client.ehlo()
    return client


async def test_a_greedy_network_meets_its_share_and_another_one_gets_through() -> None:
    async with bench(SMALL) as here:
        greedy = [await _client(here.listener.port, "127.0.0.2") for _ in range(8)]
        almost = b"x" * 998 + b"\r\n"
        for client in greedy:
            await client.begin()
            # Nearly a whole message, and then nothing more.
            await client.send(almost * 900)
        for _ in range(200):
            if here.listener.budget.free_for("127.0.0.2") < MIB:
                break
            await asyncio.sleep(0.02)
        assert here.listener.budget.free_bytes >= 3 * MIB
        assert here.listener.budget.free_for("127.0.0.2") < MIB
        late = await _client(here.listener.port, "127.0.0.2")
        refused = await late.cmd(f"MAIL FROM:<{SENDER}> SIZE={MIB}")
        assert refused.startswith("452 "), refused
        other = await _client(here.listener.port, "127.0.0.3")
        assert (await other.cmd(f"MAIL FROM:<{SENDER}> SIZE={MIB}")).startswith("250 ")
        assert (await other.cmd(f"RCPT TO:<{DOCTOR}>")).startswith("250 ")
        assert (await other.cmd("DATA")).startswith("354 ")
        await other.send(almost * 1000 + b".\r\n")
        assert (await other.reply()).startswith("250 ")
        for client in (*greedy, late, other):
            await client.close()
        for _ in range(200):
            if here.listener.budget.free_bytes == 6 * MIB:
                break
            await asyncio.sleep(0.02)
        assert here.listener.budget.free_bytes == 6 * MIB
        assert not here.listener.budget._by_network


def test_the_largest_message_always_fits_into_a_share() -> None:
    limits = SMTPLimits.of(replace(SETTINGS, max_message_mib=50, max_buffered_mib=64))
    budget = ByteBudget(limits.arriving_bytes, limits.arriving_share_bytes)
    assert budget.free_for("192.0.2.1") > 50 * MIB


def test_what_is_given_back_is_given_back_once() -> None:
    budget = ByteBudget(100, 50)
    first, second = budget.reservation("a"), budget.reservation("a")
    assert first.grow(30)
    assert not second.grow(30)
    assert second.grow(20)
    first.release()
    first.release()
    assert budget.free_bytes == 80
    assert budget.free_for("a") == 30
    second.release()
    assert budget.free_for("b") == 50
