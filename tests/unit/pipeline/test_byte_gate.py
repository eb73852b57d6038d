"""Large messages go one after another, small ones pass by; nobody starves and nothing leaks."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from gateway.pipeline.byte_gate import ByteGate


class Track:
    def __init__(self, gate: ByteGate) -> None:
        self.gate = gate
        self.inside: list[str] = []
        self.order: list[str] = []

    async def step(self, name: str, size: int, hold: asyncio.Event) -> None:
        async with self.gate.hold(size):
            self.inside.append(name)
            self.order.append(name)
            await hold.wait()
            self.inside.remove(name)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_large_ones_wait_and_small_ones_pass() -> None:
    track, go = Track(ByteGate(small_bytes=10, at_once_bytes=100)), asyncio.Event()
    told: list[int] = []
    track.gate.on_wait(lambda: told.append(track.gate.waiting))
    async with asyncio.TaskGroup() as group:
        for name, size in (("a", 500), ("b", 90), ("c", 11), ("small", 10)):
            group.create_task(track.step(name, size, go))
            await settle()
        assert track.inside == ["a", "small"]
        assert track.gate.waiting == 2
        assert told == [1, 2]
        go.set()
    assert track.order == ["a", "small", "b", "c"]
    assert track.gate.waiting == 0
    assert track.gate._inside == 0


async def test_as_many_as_fit_are_inside_and_the_first_in_line_is_not_overtaken() -> None:
    track, go = Track(ByteGate(small_bytes=10, at_once_bytes=100)), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for name, size in (("a", 40), ("b", 40), ("c", 30), ("d", 20)):
            group.create_task(track.step(name, size, go))
            await settle()
        # "d" would fit beside "a" and "b", but "c" came first.
        assert track.inside == ["a", "b"]
        go.set()
    assert track.order == ["a", "b", "c", "d"]


@pytest.mark.parametrize("admitted", [False, True])
async def test_a_waiter_that_is_cancelled_takes_no_room(*, admitted: bool) -> None:
    track, go = Track(ByteGate(small_bytes=10, at_once_bytes=100)), asyncio.Event()
    first = asyncio.create_task(track.step("a", 100, go))
    await settle()
    second = asyncio.create_task(track.step("b", 100, asyncio.Event()))
    await settle()
    third = asyncio.create_task(track.step("c", 100, go))
    await settle()
    if admitted:
        # Let in and cancelled in the same turn of the loop.
        go.set()
        while track.gate.waiting == 2:
            await asyncio.sleep(0)
    second.cancel()
    go.set()
    with suppress(asyncio.CancelledError):
        await second
    async with asyncio.timeout(5):
        await asyncio.gather(first, third)
    assert track.order[-1] == "c"
    assert track.gate._inside == 0


async def test_a_step_that_fails_gives_its_room_back() -> None:
    gate = ByteGate(small_bytes=10, at_once_bytes=100)
    with pytest.raises(ValueError, match="step"):
        async with gate.hold(1000):
            raise ValueError("step")
    async with asyncio.timeout(1), gate.hold(1000):
        pass
