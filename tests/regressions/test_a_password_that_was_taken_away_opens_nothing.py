"""A login that waited its turn was judged by the account as it had been before the wait.

The turns of an address are many, and each begins with a delay. So a password that was stolen, and then changed by its
owner, still let the thief in, as long as he had asked before the change.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from argon2 import PasswordHasher

from gateway.accounts.login_delay import LoginDelay
from gateway.accounts.service import Accounts
from tests.support.store_samples import SteadyClock, open_store

PEER = "192.0.2.7"


async def test_a_password_that_was_taken_away_opens_nothing(tmp_path: Path) -> None:
    waits, go = asyncio.Event(), asyncio.Event()

    async def sleep(_seconds: float) -> None:
        waits.set()
        await go.wait()

    with open_store(tmp_path) as store:
        delay = LoginDelay(asyncio.get_running_loop().time, sleep)
        hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
        accounts = Accounts(store, SteadyClock(), delay=delay, hasher=hasher)
        try:
            await accounts.add("alice", b"stolen", [])
            # Two wrong guesses: from now on this address waits before anything is checked.
            for guess in (b"a", b"b"):
                delay.failed(PEER, "somebody", guess)
            thief = asyncio.ensure_future(accounts.authenticate("alice", b"stolen", PEER))
            await asyncio.wait_for(waits.wait(), 10)
            await accounts.set_password("alice", b"changed")
            go.set()
            assert await asyncio.wait_for(thief, 10) is None
            assert await accounts.authenticate("alice", b"changed", PEER) is not None
        finally:
            go.set()
            accounts.close()
