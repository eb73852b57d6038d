"""Rights that an operator changes while a mailbox is selected hold at the next command. RFC 4314."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.core.errors import StoreError
from gateway.inbox.rights_in_force import FRESH_SECONDS, RightsInForce
from gateway.ports import Account, Folder
from tests.unit.imap.imap_harness import Bench, bench, plain_message

CONTENTS = [plain_message(number) for number in range(1, 4)]
TAKEN = b"NO [NOPERM] The right to read this mailbox was taken away"


async def grant(here: Bench, rights: str, folder: str = "INBOX") -> None:
    practice = here.practice
    account_id, mailbox_id = practice.account.id, practice.inbox_id
    await practice.store.write(lambda unit: unit.accounts.grant(account_id, folder, mailbox_id, rights))
    # Longer than a look is shared by the commands that follow each other.
    await asyncio.sleep(FRESH_SECONDS * 1.5)


@pytest.mark.parametrize(
    "command",
    [
        "FETCH 1 FLAGS",
        "FETCH 1:* BODY.PEEK[]",
        "UID FETCH 1:* ENVELOPE",
        "SEARCH ALL",
        "UID SEARCH TEXT number",
        r"STORE 1 +FLAGS (\Seen)",
        "CHECK",
        "EXPUNGE",
        "COPY 1 Trash",
    ],
)
async def test_a_mailbox_that_was_taken_away_answers_nothing(tmp_path: Path, command: str) -> None:
    async with bench(tmp_path, contents=CONTENTS) as here, here.selected() as client:
        await client.ok("FETCH 1 (FLAGS)")
        await grant(here, "")
        assert await client.cmd(command) == [TAKEN]
        assert await here.practice.flags() == set()


async def test_nothing_new_is_announced_in_it(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=CONTENTS) as here, here.selected() as client:
        await grant(here, "")
        await here.practice.file(plain_message(9))
        assert await client.cmd("NOOP") == [b"OK NOOP completed"]
        assert not [line for line in await client.ok('LIST "" "*"') if b"EXISTS" in line or b"INBOX" in line]


async def test_a_mailbox_that_was_given_this_moment_can_be_read(tmp_path: Path) -> None:
    """The look of a moment ago, which another session of the login has taken, is not asked."""
    async with bench(tmp_path, contents=CONTENTS) as here, here.selected() as client, here.client() as other:
        await other.login()
        account_id, nested_id = here.practice.account.id, here.practice.nested_id
        await client.ok("FETCH 1 FLAGS")
        await here.practice.store.write(lambda unit: unit.accounts.grant(account_id, "New", nested_id, "lr"))
        await other.ok("SELECT New")
        await other.ok("CHECK")


async def test_an_idling_session_is_told_nothing_more(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=CONTENTS) as here, here.selected() as client, here.selected() as other:
        for one in (client, other):
            await one.send(b"i IDLE\r\n")
            while not (await one.response()).startswith(b"+"):
                pass
        await here.practice.file(plain_message(8))
        assert b"4 EXISTS" in await client.response()
        await grant(here, "")
        await here.practice.file(plain_message(9))
        await client.send(b"DONE\r\n")
        answer = b"\n".join(await client.until(b"i"))
        assert b"EXISTS" not in answer
        assert b"i OK" in answer


async def test_another_mailbox_can_still_be_selected_and_the_one_again_when_it_is_given_back(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=CONTENTS) as here, here.selected() as client:
        await grant(here, "")
        assert (await client.cmd("SELECT INBOX"))[-1].startswith(b"NO [NONEXISTENT]")
        await client.ok("SELECT Shared/L&AOQ-bs")
        await client.ok("FETCH 1:* FLAGS")
        await grant(here, "lr")
        await client.ok("SELECT INBOX")
        assert len(await client.ok("FETCH 1:* FLAGS")) == 3


@pytest.mark.parametrize("command", ["UNSELECT", "CLOSE", "LOGOUT"])
async def test_it_can_be_left(tmp_path: Path, command: str) -> None:
    async with bench(tmp_path, contents=CONTENTS) as here, here.selected() as client:
        await grant(here, "")
        assert (await client.cmd(command))[-1].startswith(b"OK")


async def test_rights_to_change_that_were_taken_away_change_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=CONTENTS) as here, here.selected() as client:
        await grant(here, "lr")
        [shown] = await client.ok(r"STORE 1 +FLAGS (\Seen \Flagged Word)")
        assert b"Seen" not in shown
        assert b"Flagged" not in shown
        await client.ok("FETCH 1 BODY[]")
        assert await here.practice.flags() == set()


async def test_with_lr_alone_no_flag_can_be_set(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=CONTENTS) as here, here.client() as client:
        await grant(here, "lr")
        await client.login()
        *untagged, answer = await client.cmd("SELECT INBOX")
        assert answer.startswith(b"OK [READ-ONLY]")
        assert b"* OK [PERMANENTFLAGS ()] Flags that are kept" in untagged
        assert (await client.cmd(r"STORE 1 +FLAGS (\Seen)"))[-1].startswith(b"NO [NOPERM]")
        await client.ok("FETCH 1 BODY[]")
        assert await here.practice.flags() == set()


async def test_a_store_that_cannot_say_shows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(tmp_path, contents=CONTENTS) as here, here.selected() as client:

        async def fails(*_arguments: object) -> None:
            raise StoreError("the disk")

        monkeypatch.setattr(RightsInForce, "of", fails)
        [answer] = await client.cmd("FETCH 1 FLAGS")
        assert answer.startswith(b"NO [UNAVAILABLE]")


async def test_commands_in_a_row_share_a_look_and_later_ones_do_not() -> None:
    now, looks = 0.0, 0
    account, folder = Account(1, "ann", "x"), Folder("INBOX", 7, "lrs")
    known = [folder]

    async def folders(_account: Account) -> list[Folder]:
        nonlocal looks
        looks += 1
        return list(known)

    rights = RightsInForce(folders, monotonic=lambda: now)
    assert await rights.of(account, folder) == folder
    known[0] = Folder("INBOX", 7, "lr")
    assert await rights.of(account, folder) == folder
    assert looks == 1
    now = FRESH_SECONDS
    assert await rights.of(account, folder) == known[0]
    # Another mailbox under the name, another part of it, or one without the right to read: not what was selected.
    for other in (Folder("INBOX", 8, "lr"), Folder("INBOX", 7, "lr", view="linked"), Folder("INBOX", 7, "l")):
        now += FRESH_SECONDS
        known[0] = other
        assert await rights.of(account, folder) is None
