r"""``imap.seen``: the \Seen of a shared mailbox is everybody's, or each one's own. RFC 7162 holds for each session."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.inbox.service import Inbox
from gateway.ports import Account, UnitOfWork
from tests.unit.imap.imap_harness import SETTINGS, Bench, RawClient, bench, plain_message

CONTENTS = [plain_message(number) for number in range(1, 4)]
OWN = replace(SETTINGS, seen="per_user")


@asynccontextmanager
async def colleague(here: Bench) -> AsyncIterator[RawClient]:
    """Another account with the same INBOX selected."""
    practice = here.practice

    def work(unit: UnitOfWork) -> Account:
        known = unit.accounts.by_login("ann")
        if known is not None:
            return known
        account_id = unit.accounts.add("ann", "x", practice.clock.now())
        unit.accounts.grant(account_id, "INBOX", practice.inbox_id, "lrsw")
        return Account(account_id, "ann", "x")

    here.authenticator.accounts["ann", "secret"] = await practice.store.write(work)
    async with here.client() as client:
        await client.ok("LOGIN ann secret")
        yield client


async def unseen(client: RawClient) -> int:
    [line] = await client.ok("STATUS INBOX (UNSEEN)")
    return int(line.rpartition(b"UNSEEN ")[2].rstrip(b")"))


def modseq_of(line: bytes) -> int:
    found = re.search(rb"MODSEQ \(?(\d+)", line)
    assert found, line
    return int(found.group(1))


async def test_what_one_reads_stays_unread_for_the_other(tmp_path: Path) -> None:
    async with bench(tmp_path, OWN, CONTENTS) as here, here.selected() as mine, colleague(here) as hers:
        await hers.ok("SELECT INBOX")
        await mine.ok("FETCH 1 BODY[]")
        assert await mine.ok("SEARCH UNSEEN") == [b"* SEARCH 2 3"]
        assert await hers.ok("SEARCH UNSEEN") == [b"* SEARCH 1 2 3"]
        assert (await unseen(mine), await unseen(hers)) == (2, 3)
        assert b"* OK [UNSEEN 2] First unseen message" in await mine.ok("SELECT INBOX")
        assert b"* OK [UNSEEN 1] First unseen message" in await hers.ok("SELECT INBOX")
        await hers.ok(r"STORE 2 +FLAGS.SILENT (\Seen)")
        assert await mine.ok("SEARCH UNSEEN") == [b"* SEARCH 2 3"]


async def test_shared_is_the_default(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=CONTENTS) as here, here.selected() as mine, colleague(here) as hers:
        await mine.ok("FETCH 1 BODY[]")
        await hers.ok("SELECT INBOX")
        assert await hers.ok("SEARCH UNSEEN") == [b"* SEARCH 2 3"]


async def test_the_others_are_not_told_of_a_seen_and_are_told_of_other_flags(tmp_path: Path) -> None:
    async with bench(tmp_path, OWN, CONTENTS) as here, here.selected() as mine, colleague(here) as hers:
        await hers.ok("SELECT INBOX")
        await mine.ok(r"STORE 1 +FLAGS (\Seen)")
        assert await hers.ok("NOOP") == []
        await mine.ok(r"STORE 1 +FLAGS (\Flagged)")
        [told] = await hers.ok("NOOP")
        assert b"\\Flagged" in told
        assert b"\\Seen" not in told


async def test_two_sessions_of_one_account_share_its_seen(tmp_path: Path) -> None:
    async with bench(tmp_path, OWN, CONTENTS) as here, here.selected() as first, here.selected() as second:
        await first.ok(r"STORE 2 +FLAGS (\Seen)")
        [told] = await second.ok("NOOP")
        assert told.startswith(b"* 2 FETCH")
        assert b"\\Seen" in told


async def test_a_replace_of_all_flags_keeps_the_seen_of_the_other(tmp_path: Path) -> None:
    async with bench(tmp_path, OWN, CONTENTS) as here, here.selected() as mine, colleague(here) as hers:
        await hers.ok("SELECT INBOX")
        await hers.ok(r"STORE 1 +FLAGS (\Seen)")
        await mine.ok(r"STORE 1 FLAGS (\Answered)")
        await hers.ok("NOOP")
        assert await hers.ok("SEARCH SEEN ANSWERED") == [b"* SEARCH 1"]
        assert await mine.ok("SEARCH UNSEEN ANSWERED") == [b"* SEARCH 1"]


async def test_changed_since_and_unchanged_since_are_right_for_each(tmp_path: Path) -> None:
    async with bench(tmp_path, OWN, CONTENTS) as here, here.selected() as mine, colleague(here) as hers:
        await hers.ok("SELECT INBOX (CONDSTORE)")
        [line] = [one for one in await mine.ok("SELECT INBOX (CONDSTORE)") if b"HIGHESTMODSEQ" in one]
        start = int(re.findall(rb"HIGHESTMODSEQ (\d+)", line)[0])
        [stored] = await mine.ok(r"STORE 1 +FLAGS (\Seen)")
        assert modseq_of(stored) > start
        assert len(await mine.ok(f"FETCH 1:* (FLAGS) (CHANGEDSINCE {start})")) == 1
        assert await hers.ok(f"FETCH 1:* (FLAGS) (CHANGEDSINCE {start})") == []
        # Nothing that she is shown has changed since, so her conditional STORE succeeds; his own of before does not.
        await hers.ok(rf"STORE 1 (UNCHANGEDSINCE {start}) +FLAGS.SILENT (\Seen)")
        *_, answer = await mine.cmd(rf"STORE 1 (UNCHANGEDSINCE {start}) -FLAGS (\Seen)")
        assert answer.startswith(b"OK [MODIFIED 1]")
        assert modseq_of((await hers.ok("STATUS INBOX (HIGHESTMODSEQ)"))[-1]) == start + 2


async def test_a_change_of_the_setting_shows_itself_to_a_client_that_asks_for_changes(tmp_path: Path) -> None:
    """What clients remember under a MODSEQ must be corrected by what they then ask for."""
    async with bench(tmp_path, OWN, CONTENTS) as here:
        await here.inbox.prepare()
        async with here.selected() as mine, colleague(here) as hers:
            await hers.ok("SELECT INBOX")
            await mine.ok(r"STORE 1 +FLAGS (\Seen)")
            known = modseq_of((await mine.ok("STATUS INBOX (HIGHESTMODSEQ)"))[-1])
        practice = here.practice
        await Inbox(practice.store, practice.clock, practice.hub, SETTINGS).prepare()
        assert [row async for row in _changes(here, known, None)] == [1]
        assert await here.practice.flags() == set()
        await Inbox(practice.store, practice.clock, practice.hub, OWN).prepare()
        async with here.selected() as mine:
            assert await mine.ok("SEARCH SEEN") == [b"* SEARCH 1"]
        assert len(await practice.audit("imap.seen_changed")) == 3


async def _changes(here: Bench, since: int, seen_by: int | None) -> AsyncIterator[int]:
    mailbox_id = here.practice.inbox_id
    columns = await here.practice.store.read(lambda unit: unit.mailboxes.flags(mailbox_id, since, seen_by=seen_by))
    for uid in columns.uids:
        yield uid


@pytest.mark.parametrize("settings", [SETTINGS, OWN])
async def test_a_message_that_comes_is_unread_for_all(tmp_path: Path, settings: object) -> None:
    async with bench(tmp_path, settings, CONTENTS) as here, here.selected() as mine, colleague(here) as hers:  # type: ignore[arg-type]
        await hers.ok("SELECT INBOX")
        await here.practice.file(plain_message(9))
        for client in (mine, hers):
            await client.ok("NOOP")
            assert await client.ok("SEARCH UNSEEN UID 4") == [b"* SEARCH 4"]
