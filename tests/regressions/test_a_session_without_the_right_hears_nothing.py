"""Who lost the right to read a mailbox hears nothing new of it, whatever he sends, not even beside a BAD."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.core.errors import StoreError
from gateway.inbox.rights_in_force import FRESH_SECONDS
from gateway.ports import Account, UnitOfWork
from tests.unit.imap.imap_harness import Bench, bench, plain_message


async def grant(here: Bench, rights: str) -> None:
    practice = here.practice
    account_id, mailbox_id = practice.account.id, practice.inbox_id
    await practice.store.write(lambda unit: unit.accounts.grant(account_id, "INBOX", mailbox_id, rights))
    await asyncio.sleep(FRESH_SECONDS * 1.5)


async def colleague(here: Bench) -> Account:
    """Somebody else who reads the same mailbox, so that this process takes over what is new in it."""

    def work(unit: UnitOfWork) -> Account:
        account_id = unit.accounts.add("colleague", "x", here.practice.clock.now())
        unit.accounts.grant(account_id, "INBOX", here.practice.inbox_id, "lrsw")
        return Account(account_id, "colleague", "x")

    return await here.practice.store.write(work)


@pytest.mark.parametrize("command", ["NONSENSE", "LOGIN a b", "SELECT", "CLOSE now", "LOGOUT now", "UID"])
async def test_a_command_that_is_wrong_brings_no_news(tmp_path: Path, command: str) -> None:
    async with bench(tmp_path, contents=[plain_message(1)]) as here, here.selected() as client:
        other = await colleague(here)
        await grant(here, "")
        await here.practice.file(plain_message(2))
        await here.inbox.open(other, "INBOX")
        answer = await client.cmd(command)
        assert len(answer) == 1, answer
        assert answer[0].startswith(b"BAD")


async def test_a_command_that_is_wrong_still_brings_news_later_to_who_may_have_them(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=[plain_message(1)]) as here, here.selected() as client:
        await here.practice.file(plain_message(2))
        await client.cmd("NONSENSE")
        assert b"* 2 EXISTS" in await client.cmd("NOOP")


async def test_an_idle_whose_rights_cannot_be_looked_at_is_told_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(tmp_path, contents=[plain_message(1)]) as here, here.selected() as client:
        other = await colleague(here)
        looked, in_force = asyncio.Event(), here.inbox.in_force
        await client.send(b"i IDLE\r\n")
        assert (await client.response()).startswith(b"+")

        async def fails(_grant: object) -> None:
            looked.set()
            raise StoreError("no answer")

        monkeypatch.setattr(here.inbox, "in_force", fails)
        await here.practice.file(plain_message(2), hint=False)
        await here.inbox.open(other, "INBOX")
        here.practice.hub.changed(here.practice.inbox_id)
        await asyncio.wait_for(looked.wait(), 10)
        await asyncio.sleep(0.05)
        monkeypatch.setattr(here.inbox, "in_force", in_force)
        await grant(here, "")
        await client.send(b"DONE\r\n")
        assert await client.until(b"i") == [b"i OK IDLE completed"]
