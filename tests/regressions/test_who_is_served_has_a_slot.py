"""A client that spoke in the very moment in which its slot was to be taken went on being served without a slot.

Sockets are read before timers fire. So what it said was there already when the slots were looked at, the session still
seemed to wait, and lost its slot; but the wait had its bytes, so nothing ended it. Such sessions counted for no limit,
and were the first to be dropped under a flood, in the middle of a message too.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gateway.ingress import connection_gate
from tests.unit.ingress.smtp_harness import DOCTOR, SENDER, SETTINGS, bench


async def test_who_is_served_has_a_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_gate, "EVICT_AFTER_SECONDS", 60)
    monkeypatch.setattr(connection_gate, "WAIT_SECONDS", 60)
    async with bench(replace(SETTINGS, max_connections=1)) as here, here.client() as sender, asyncio.timeout(20):
        await sender.ehlo()
        gate = here.listener._gate
        [session] = gate.sessions()
        async with here.client() as newcomer:
            while not gate._waiting:
                await asyncio.sleep(0.01)
            monkeypatch.setattr(connection_gate, "EVICT_AFTER_SECONDS", 0.0)
            gate._nobody_idle_until = 0.0
            # One turn of the event loop: first the socket, then the timer.
            session.data_received(b"MAIL FROM:<%s>\r\n" % SENDER.encode())
            gate._look_for_slots()
            assert (await sender.reply()).startswith("250 2.1.0")
            assert session in gate._counted
            # The transaction has its slot to the end, and then the newcomer gets one.
            assert (await sender.cmd(f"RCPT TO:<{DOCTOR}>")).startswith("250")
            assert (await sender.cmd("DATA")).startswith("354")
            await sender.send(b"Subject: a\r\n\r\nb\r\n.\r\n")
            assert (await sender.reply()).startswith("250 2.0.0")
            assert (await newcomer.reply()).startswith("220")
        assert len(here.accept.inbounds) == 1
