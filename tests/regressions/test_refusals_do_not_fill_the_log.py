"""A client that was refused again and again wrote a line into the log each time, as fast as it could (F16, F38)."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from gateway.ingress.limits import TOLD_PER_MINUTE
from tests.unit.ingress.smtp_harness import SENDER, SETTINGS, bench

PATIENT = replace(SETTINGS, max_commands_without_mail=10_000)


async def test_refusals_of_one_network_are_told_so_often_and_then_once_more(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with bench(PATIENT) as here, here.client() as client:
        await client.ehlo()
        assert (await client.cmd(f"MAIL FROM:<{SENDER}>")).startswith("250 ")
        for number in range(TOLD_PER_MINUTE + 50):
            assert (await client.cmd(f"RCPT TO:<nobody{number}@direct.example.org>")).startswith("550 ")
        told = [record.getMessage() for record in caplog.records]
        assert sum("smtp_refused" in line for line in told) == TOLD_PER_MINUTE
        assert sum("smtp_rate_limited" in line for line in told) == 1
        await here.still_serves()
