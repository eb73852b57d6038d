"""The small event does what asyncio's does."""

from __future__ import annotations

import asyncio

import pytest

from gateway.observability.waking import SmallEvent


async def test_who_waits_is_woken_and_who_comes_later_does_not_wait() -> None:
    event = SmallEvent()
    waiting = [asyncio.ensure_future(event.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    assert not event.is_set()
    event.set()
    async with asyncio.timeout(5):
        await asyncio.gather(*waiting)
        await event.wait()
    assert event.is_set()


async def test_after_clearing_it_is_waited_for_anew() -> None:
    event = SmallEvent()
    event.set()
    event.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await event.wait()
    event.set()
    await event.wait()


async def test_one_who_is_cancelled_leaves_the_others_waiting() -> None:
    event = SmallEvent()
    gone, stays = asyncio.ensure_future(event.wait()), asyncio.ensure_future(event.wait())
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    assert not stays.done()
    event.set()
    async with asyncio.timeout(5):
        await stays


async def test_the_next_time_is_not_the_last_one() -> None:
    event = SmallEvent()
    event.set()
    coming = event.next()
    await asyncio.sleep(0)
    assert not coming.done()
    event.set()
    assert coming.done()
