"""Messages on their way in have bounded room: one login has a part of it, and who stands still loses his place."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.ports import Account
from tests.unit.imap.imap_harness import RawClient, bench
from tests.unit.imap.mutable_harness import MutableBench, mutable_bench

MIB = 1 << 20
CONTENT = b"Subject: x\r\n\r\n" + b"x" * (MIB - 100)


async def begins(client: RawClient) -> asyncio.Task[bytes]:
    await client.send(b"a APPEND INBOX {%d}\r\n" % len(CONTENT))
    return asyncio.create_task(client.response())


def add_colleague(here: MutableBench) -> None:
    here.authenticator.accounts["colleague", "secret"] = Account(2, "colleague", "x")


async def test_the_uploads_of_one_login_leave_room_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.imap.session.MAX_APPENDING_BYTES", 4 * MIB)
    async with (
        mutable_bench() as here, here.selected() as one, here.selected() as two, here.selected() as three,
        here.selected() as four, here.selected() as five, here.client() as other,
    ):  # fmt: skip
        add_colleague(here)
        await other.ok("LOGIN colleague secret")
        mine = [await begins(client) for client in (one, two, three, four, five)]
        assert (await asyncio.wait_for(await begins(other), 10)).startswith(b"+ ")
        await other.send(CONTENT + b"\r\n")
        assert (await other.until(b"a"))[-1].startswith(b"a OK")
        assert (await mine[0]).startswith(b"+ ")
        assert not any(waiting.done() for waiting in mine[1:])
        await one.send(CONTENT + b"\r\n")
        assert (await one.until(b"a"))[-1].startswith(b"a OK")
        assert (await asyncio.wait_for(mine[1], 10)).startswith(b"+ ")
        for waiting in mine[2:]:
            waiting.cancel()


async def test_who_stands_still_gives_his_place_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.imap.session.MAX_APPENDING_BYTES", 2 * MIB)
    monkeypatch.setattr("gateway.imap.commands_change.STALL_SECONDS", 0.2)
    async with mutable_bench() as here, here.selected() as client, here.selected() as next_one:
        assert (await (await begins(client))).startswith(b"+ ")
        waiting = await begins(next_one)
        await client.send(CONTENT[:1000])
        assert (await asyncio.wait_for(waiting, 10)).startswith(b"+ ")
        assert (await client.response()).startswith(b"* BYE")
        await next_one.send(CONTENT + b"\r\n")
        assert (await next_one.until(b"a"))[-1].startswith(b"a OK")


@pytest.mark.parametrize("size", [0, 31 * MIB])
async def test_what_is_not_taken_for_its_size_is_written_down(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(tmp_path) as here, here.client() as client:
        await client.login()

        async def wanted(_account: object, _name: str) -> None:
            """As in a Sent into which the account may insert."""

        monkeypatch.setattr(here.inbox, "appendable", wanted)
        assert (await client.cmd(b"APPEND Sent {%d}" % size))[-1].startswith(b"NO [")
        assert await here.practice.audit("mailbox.change_refused") == [("front.desk", "")]
