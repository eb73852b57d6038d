"""Hints: quick, coalescing, loss-tolerant, from any thread and any process. EP-26."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from gateway.core.errors import StoreError
from gateway.inbox.change_hub import ChangeHub
from tests.unit.imap.imap_harness import Practice, plain_message


async def waits(subscription_wait: asyncio.Future[None]) -> bool:
    for _ in range(5):
        await asyncio.sleep(0)
    return not subscription_wait.done()


async def test_a_hint_wakes_every_watcher_of_that_mailbox_once() -> None:
    hub = ChangeHub()
    hub.changed(1)  # Nobody watches: no more than a lost hint.
    with hub.subscribe(1) as one, hub.subscribe(1) as two, hub.subscribe(2) as other:
        for _ in range(5):
            hub.changed(1)
        await asyncio.wait_for(asyncio.gather(one.wait(), two.wait()), 1)
        again, elsewhere = asyncio.ensure_future(one.wait()), asyncio.ensure_future(other.wait())
        assert await waits(again)
        assert await waits(elsewhere)
        hub.changed(1)
        await asyncio.wait_for(again, 1)
        elsewhere.cancel()
    assert not hub._watchers


async def test_a_hint_from_another_thread() -> None:
    hub = ChangeHub()
    with hub.subscribe(1) as watcher:
        thread = threading.Thread(target=hub.changed, args=(1,))
        thread.start()
        await asyncio.wait_for(watcher.wait(), 5)
        thread.join()


async def test_polling_notices_other_processes(tmp_path: Path) -> None:
    practice = await Practice.create(tmp_path)
    try:
        hub = ChangeHub(practice.store, poll_interval_seconds=0.01)
        await hub.poll()  # Nobody watches, nothing is read.
        with hub.subscribe(practice.inbox_id) as watcher:
            runner = asyncio.ensure_future(hub.run())
            await asyncio.wait_for(watcher.wait(), 5)  # The first look.
            await practice.file(plain_message(1), hint=False)
            await asyncio.wait_for(watcher.wait(), 5)
            quiet = asyncio.ensure_future(watcher.wait())
            await asyncio.sleep(0.05)
            assert not quiet.done()
            quiet.cancel()
            runner.cancel()
            await asyncio.gather(runner, quiet, return_exceptions=True)
    finally:
        practice.store.close()


async def test_polling_outlives_a_store_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    practice = await Practice.create(tmp_path)
    try:
        hub = ChangeHub(practice.store, poll_interval_seconds=0.01)
        failed = asyncio.Event()

        async def broken(_work: object) -> None:
            failed.set()
            raise StoreError("gone")

        with hub.subscribe(practice.inbox_id) as watcher:
            with monkeypatch.context() as patch:
                patch.setattr(practice.store, "read", broken)
                runner = asyncio.ensure_future(hub.run())
                await asyncio.wait_for(failed.wait(), 5)
            await asyncio.wait_for(watcher.wait(), 5)
            runner.cancel()
            await asyncio.gather(runner, return_exceptions=True)
    finally:
        practice.store.close()


async def test_what_happened_here_is_told_to_the_others_and_what_they_tell_is_not_told_on() -> None:
    told: list[int] = []
    hub = ChangeHub(tell_others=told.append)
    hub.changed(7)  # Nobody watches here, but somebody may elsewhere.
    assert told == [7]
    with hub.subscribe(7) as one, hub.subscribe(8) as other:
        hub.heard(7)
        await asyncio.wait_for(one.wait(), 1)
        hub.look_again()
        await asyncio.wait_for(asyncio.gather(one.wait(), other.wait()), 1)
    assert told == [7]
