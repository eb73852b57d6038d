"""Every attempt to delete or to change what nobody may is in the audit log, also one that fails for another reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.imap.imap_harness import bench, plain_message


@pytest.mark.parametrize("command", [r"STORE 1 +FLAGS (\Deleted)", r"UID STORE 1 FLAGS.SILENT (\DELETED)"])
async def test_in_a_mailbox_that_is_open_for_reading_only(tmp_path: Path, command: str) -> None:
    async with bench(tmp_path, contents=[plain_message(1)]) as here, here.client() as client:
        await client.login()
        await client.ok("EXAMINE INBOX")
        assert (await client.cmd(command))[-1].startswith(b"NO [NOPERM]")
        assert await here.practice.audit("message.delete_ignored") == [("front.desk", "m00001")]


async def test_together_with_more_keywords_than_are_taken(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=[plain_message(1)]) as here, here.selected() as client:
        keywords = " ".join(f"k{number}" for number in range(65))
        assert (await client.cmd(rf"STORE 1 +FLAGS (\Deleted {keywords})"))[-1].startswith(b"NO")
        assert await here.practice.audit("message.delete_ignored") == [("front.desk", "m00001")]


@pytest.mark.parametrize("command", ["SETACL INBOX front.desk lrswipkxtea", "DELETEACL INBOX front.desk"])
async def test_a_change_of_rights(tmp_path: Path, command: str) -> None:
    async with bench(tmp_path) as here, here.client() as client:
        await client.login()
        assert (await client.cmd(command))[-1].startswith(b"NO [NOPERM]")
        assert await here.practice.audit("mailbox.change_refused") == [("front.desk", "")]
