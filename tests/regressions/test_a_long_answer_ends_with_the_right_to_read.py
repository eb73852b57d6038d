"""A FETCH of a whole mailbox takes hours with a slow client: it ends when the right to read is taken away meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.inbox.rights_in_force import FRESH_SECONDS
from tests.unit.imap.imap_harness import bench, plain_message

MESSAGES = 8


async def test_what_is_left_of_an_answer_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.imap.fetch.BATCH_MESSAGES", 1)
    contents = [plain_message(number) for number in range(1, MESSAGES + 1)]
    async with bench(tmp_path, contents=contents) as here, here.selected() as client:
        practice, read = here.practice, here.inbox.contents

        async def slow(mailbox: Any, uids: Sequence[int], *, keep: bool = False) -> dict[int, bytes]:
            if 4 in uids:
                account_id, mailbox_id = practice.account.id, practice.inbox_id
                await practice.store.write(lambda unit: unit.accounts.grant(account_id, "INBOX", mailbox_id, ""))
                await asyncio.sleep(FRESH_SECONDS * 1.5)
            return await read(mailbox, uids, keep=keep)

        monkeypatch.setattr(here.inbox, "contents", slow)
        *answers, last = await client.cmd("FETCH 1:* BODY[]")
        assert last == b"NO [NOPERM] The right to read this mailbox was taken away"
        assert len([answer for answer in answers if b"Subject:" in answer]) <= 3
        assert "\\Seen" not in await practice.flags(MESSAGES)
