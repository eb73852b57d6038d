"""New mail is announced: EP-26."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gateway.core.errors import StoreError
from tests.unit.imap.imap_harness import Bench, RawClient, bench, plain_message


async def idle(client: RawClient) -> None:
    await client.send(b"i IDLE\r\n")
    assert (await client.response()).startswith(b"+ ")


async def test_idle_announces_a_new_message_at_once(tmp_path: Path) -> None:
    """EP-26."""
    async with bench(tmp_path, contents=[plain_message(1)]) as here, here.selected() as client:
        await idle(client)
        await here.practice.file(plain_message(2), hint=False)
        start = time.monotonic()
        here.practice.hub.changed(here.practice.inbox_id)
        assert await client.response() == b"* 2 EXISTS"
        assert time.monotonic() - start < 0.5
        assert await client.response() == b"* 1 RECENT"
        await here.practice.file(plain_message(3))
        assert [await client.response() for _ in range(2)] == [b"* 3 EXISTS", b"* 2 RECENT"]
        await client.send(b"DONE\r\n")
        assert await client.until(b"i") == [b"i OK IDLE completed"]
        assert await client.ok("UID FETCH 3 FLAGS") == [b"* 3 FETCH (UID 3 FLAGS (\\Recent))"]


async def test_idle_shows_what_was_committed_before_it_began(tmp_path: Path) -> None:
    async with bench(tmp_path) as here, here.selected() as client:
        await here.practice.file(plain_message(1))
        await client.send(b"i IDLE\r\n")
        assert [await client.response() for _ in range(3)] == [b"+ idling", b"* 1 EXISTS", b"* 1 RECENT"]


async def test_idle_shows_flags_of_other_sessions(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=[plain_message(1)]) as here, here.selected() as one, here.selected() as two:
        await idle(one)
        await two.ok("FETCH 1 BODY[]")
        assert await one.response() == b"* 1 FETCH (UID 1 FLAGS (\\Seen))"


async def test_noop_and_check_announce_and_other_commands_do_not_see_it_before(tmp_path: Path) -> None:
    """A number must not mean a message that the client was not told of."""
    async with bench(tmp_path, contents=[plain_message(1)]) as here, here.selected() as client:
        await here.practice.file(plain_message(2), hint=False)
        assert await client.ok("SEARCH ALL") == [b"* SEARCH 1"]
        assert await client.ok("UID FETCH 1:* (FLAGS)") == [b"* 1 FETCH (UID 1 FLAGS ())"]
        assert (await client.cmd("FETCH 2 FLAGS"))[-1].startswith(b"BAD")
        assert await client.ok("NOOP") == [b"* 2 EXISTS", b"* 1 RECENT"]
        assert await client.ok("SEARCH ALL") == [b"* SEARCH 1 2"]
        await here.practice.file(plain_message(3), hint=False)
        assert await client.ok("CHECK") == [b"* 3 EXISTS", b"* 2 RECENT"]


async def test_commits_of_another_process_are_noticed_by_polling(tmp_path: Path) -> None:
    async with bench(tmp_path) as here, here.selected() as client:
        await idle(client)
        await here.practice.hub.poll()
        await here.practice.file(plain_message(1), hint=False)
        await here.practice.hub.poll()
        assert await client.response() == b"* 1 EXISTS"


async def test_a_hundred_idlers_share_the_news(tmp_path: Path) -> None:
    async with bench(tmp_path) as here, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(here.selected()) for _ in range(50)]
        for client in clients:
            await idle(client)
        await here.practice.file(plain_message(1))
        for client in clients:
            assert await client.response() == b"* 1 EXISTS"


async def test_idle_without_a_mailbox_and_a_wrong_end(tmp_path: Path) -> None:
    async with bench(tmp_path) as here, here.client() as client:
        await client.login()
        await idle(client)
        await client.send(b"done\r\n")
        assert (await client.until(b"i"))[-1].startswith(b"i OK")
        await idle(client)
        await client.send(b"NOOP\r\n")
        assert (await client.until(b"i"))[-1].startswith(b"i BAD")
        assert await client.ok("NOOP") == []


async def test_idle_outlives_a_store_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(tmp_path) as here, here.selected() as client:
        await idle(client)
        failed = asyncio.Event()

        async def broken(_work: object) -> None:
            failed.set()
            raise StoreError("gone")

        with monkeypatch.context() as patch:
            patch.setattr(here.practice.store, "read", broken)
            await here.practice.file(plain_message(1))
            await failed.wait()
        await here.practice.file(plain_message(2))
        assert await client.response() == b"* 2 EXISTS"


async def test_a_client_that_goes_while_idling_leaves_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path) as here:
        async with here.selected() as client:
            await idle(client)
            assert here.practice.hub._watchers
        await _until_gone(here)
        assert not here.practice.hub._watchers


async def _until_gone(here: Bench) -> None:
    while here.listener.connections:
        await asyncio.sleep(0.01)
