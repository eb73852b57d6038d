"""How the writer answers, and whom it waits for: one wake-up for a group, and nobody waits who came alone."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import StoreSettings
from gateway.store.answers import Waiter, answer_all
from gateway.store.sql_store import SQLStore
from tests.support.body_keys import sealer_in
from tests.support.store_samples import open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLStore]:
    with open_store(tmp_path) as opened:
        yield opened


async def test_a_group_wakes_the_loop_once_and_answers_in_order(
    store: SQLStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, go = threading.Event(), threading.Event()

    def block(_: Any) -> None:
        entered.set()
        assert go.wait(10)

    blocker = store._submit(block)
    assert entered.wait(10)
    answered: list[int] = []

    def fail(_: Any) -> None:
        raise KeyError

    async def one(number: int) -> None:
        if number == 3:
            with pytest.raises(KeyError):
                await store.write(fail)
        else:
            assert await store.write(lambda _: number) == number
        answered.append(number)

    loop = asyncio.get_running_loop()
    woken = 0
    wake = loop.call_soon_threadsafe

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal woken
        woken += 1
        return wake(*arguments, **options)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    waiting = [asyncio.create_task(one(number)) for number in range(8)]
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(*waiting)
    blocker.result(10)
    assert answered == list(range(8))
    # Two, when the first of them came into the group of the blocker.
    assert woken in {1, 2}


async def test_whoever_stopped_waiting_keeps_nobody_from_the_answer(store: SQLStore) -> None:
    entered, go = threading.Event(), threading.Event()

    def block(_: Any) -> str:
        entered.set()
        assert go.wait(10)
        return "done"

    first = asyncio.create_task(store.write(block))
    await asyncio.to_thread(entered.wait, 10)
    written = threading.Event()
    second = asyncio.create_task(store.write(lambda _: written.set()))
    third = asyncio.create_task(store.write(lambda _: "third"))
    await asyncio.sleep(0)
    second.cancel()
    go.set()
    assert (await first, await third) == ("done", "third")
    assert second.cancelled()
    assert written.is_set(), "a commit that has begun is not cancelled"


def test_a_loop_that_is_closed_harms_nobody() -> None:
    gone = asyncio.new_event_loop()
    lost = Waiter(gone)
    gone.close()

    async def ask() -> int:
        waiter = Waiter()
        threading.Thread(target=answer_all, args=([(lost, 1, None), (waiter, 2, None)],)).start()
        async with asyncio.timeout(10):
            return int(await waiter.future)

    assert asyncio.run(ask()) == 2


def test_a_unit_that_comes_alone_waits_for_no_other(tmp_path: Path) -> None:
    """The waiting time of a group is for a busy gateway; a single message is not held up by it."""
    settings = StoreSettings(url=f"sqlite:///{tmp_path}/gateway.db", group_commit_wait_ms=5_000)
    with SQLStore.open(settings, sealer_in(tmp_path)) as store:
        begun = time.monotonic()
        for _ in range(5):
            store.write_blocking(lambda _: None)
        assert time.monotonic() - begun < 4


def test_while_several_write_the_next_ones_are_waited_for(tmp_path: Path) -> None:
    settings = StoreSettings(url=f"sqlite:///{tmp_path}/gateway.db", group_commit_wait_ms=60_000, group_commit_units=3)
    with SQLStore.open(settings, sealer_in(tmp_path)) as store:
        entered, go = threading.Event(), threading.Event()

        def block(_: Any) -> None:
            entered.set()
            assert go.wait(10)

        store._submit(block)
        assert entered.wait(10)
        busy = [store._submit(lambda _: None) for _ in range(3)]
        go.set()
        for future in busy:
            future.result(10)
        lonely = store._submit(lambda _: None)
        with pytest.raises(TimeoutError):
            lonely.result(0.2)
        # The group is full with these, and does not wait for its time.
        for future in [store._submit(lambda _: None) for _ in range(2)]:
            future.result(10)
        assert lonely.done()
