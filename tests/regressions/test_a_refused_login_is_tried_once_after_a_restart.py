"""A restart used to ask a server twice that refuses the login: an old request, long answered, was taken for a new one.

Accounts get locked by wrong passwords, so there must be no second try.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.core.fetch_settings import FetchSettings
from gateway.core.fetching import FetchState, LoginRefusedError
from gateway.ingress.fetch_account import AccountFetcher
from gateway.ingress.fetch_intake import Surroundings
from gateway.ingress.fetch_service import FetchService
from gateway.ingress.upstream import Upstream
from gateway.observability.clock import SystemClock
from gateway.pipeline.accept import Accept
from gateway.pipeline.byte_gate import ByteGate
from tests.unit.ingress.fetch_harness import Desk, desk_in


async def _tries(desk: Desk, *, ask: bool = False) -> int:
    """How often a process that starts now asks the server; with ``ask``, somebody asks it for a look meanwhile."""
    tries = 0

    async def refusing(_account: FetchSettings) -> Upstream:
        nonlocal tries
        tries += 1
        raise LoginRefusedError("the server does not take the login")

    clock = SystemClock()
    around = Surroundings(desk.store, clock, Accept(desk.store, clock, str, lambda: None), ByteGate(), lambda _: True)
    service = FetchService([desk.account], around, owner="main", jitter=lambda: 1.0)
    service._fetchers = {"upstream": AccountFetcher(desk.account, around, lambda: 1.0, refusing)}
    running = asyncio.ensure_future(service.run())
    await asyncio.sleep(0.5)
    if ask:
        await desk.store.write(lambda rows: rows.fetching.ask("upstream"))
        await asyncio.sleep(0.5)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return tries


@pytest.mark.parametrize("answered", [True, False], ids=["answered", "still waiting"])
async def test_one_try_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answered: bool) -> None:
    monkeypatch.setattr("gateway.ingress.fetch_service.ASK_SECONDS", 0.01)
    with desk_in(tmp_path, 1) as desk:
        await desk.store.write(lambda rows: [rows.fetching.ask("upstream") for _ in range(3)])
        if answered:
            await desk.store.write(lambda rows: rows.fetching.set_status("upstream", answered=3))
        assert await _tries(desk) == 1
        assert (desk.status.state, desk.status.answered) == (FetchState.LOGIN_REFUSED, 3)
        assert await _tries(desk) == 1
        assert await _tries(desk, ask=True) == 2, "who asks is answered"
        assert desk.status.answered == 4
