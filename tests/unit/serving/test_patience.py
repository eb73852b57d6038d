"""A session waits for its client as long as it may, and is then told so; with one timer for all its commands."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from gateway.serving.patience import Patience


async def test_who_waits_too_long_gets_a_timeout_and_may_wait_again() -> None:
    patience = Patience()
    for _ in range(2):
        with pytest.raises(TimeoutError):
            async with patience.seconds(0.01):
                await asyncio.sleep(30)
    async with patience.seconds(30):
        await asyncio.sleep(0)
    patience.close()


async def test_a_client_that_speaks_in_time_moves_the_moment() -> None:
    patience, loop = Patience(), asyncio.get_running_loop()
    began = loop.time()
    while loop.time() < began + 0.2:
        async with patience.seconds(0.1):
            await asyncio.sleep(0.02)
    with pytest.raises(TimeoutError):
        async with patience.seconds(0.1):
            await asyncio.sleep(30)
    assert loop.time() - began < 5
    patience.close()


async def test_a_shorter_wait_is_not_held_up_by_a_longer_one_before() -> None:
    patience, loop = Patience(), asyncio.get_running_loop()
    async with patience.seconds(600):
        await asyncio.sleep(0)
    began = loop.time()
    with pytest.raises(TimeoutError):
        async with patience.until(began + 0.01):
            await asyncio.sleep(30)
    assert loop.time() - began < 5
    patience.close()


async def test_nothing_happens_between_the_waits() -> None:
    patience = Patience()
    async with patience.seconds(0.01):
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    assert asyncio.current_task() is not None
    patience.close()


async def test_a_cancellation_from_outside_stays_one() -> None:
    patience = Patience()

    async def wait() -> None:
        async with patience.seconds(30):
            await asyncio.sleep(30)

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    patience.close()


async def test_an_outer_timeout_that_comes_first_is_the_one_that_is_raised() -> None:
    patience = Patience()

    async def wait() -> None:
        async with patience.seconds(30):
            await asyncio.sleep(30)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await wait()
    async with patience.seconds(30):
        await asyncio.sleep(0)
    patience.close()


async def test_closed_it_is_held_by_nothing() -> None:
    class Watched(Patience):
        """As it is, but for references that do not count."""

    patience = Watched()
    async with patience.seconds(600):
        await asyncio.sleep(0)
    patience.close()
    gone = weakref.ref(patience)
    del patience
    gc.collect()
    assert gone() is None
