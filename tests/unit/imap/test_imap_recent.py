r"""``\Recent`` (RFC 3501 2.3.2): a message is it in the first session that hears of it, and in no other."""

from __future__ import annotations

from pathlib import Path

from tests.unit.imap.imap_harness import bench, plain_message
from tests.unit.imap.mutable_harness import mutable_bench


async def test_the_first_session_that_is_told_has_it(tmp_path: Path) -> None:
    """7.3.2: EXISTS and RECENT together; the second session sees the message without it."""
    async with bench(tmp_path, contents=[plain_message(1)]) as here, here.selected() as one, here.selected() as two:
        await here.practice.file(plain_message(2))
        assert await one.ok("NOOP") == [b"* 2 EXISTS", b"* 1 RECENT"]
        assert await two.ok("NOOP") == [b"* 2 EXISTS", b"* 0 RECENT"]
        assert await one.ok("FETCH 1:2 FLAGS") == [b"* 1 FETCH (FLAGS ())", b"* 2 FETCH (FLAGS (\\Recent))"]
        assert await two.ok("FETCH 2 FLAGS") == [b"* 2 FETCH (FLAGS ())"]
        assert await one.ok("SEARCH RECENT") == await one.ok("SEARCH NEW") == [b"* SEARCH 2"]
        assert await one.ok("SEARCH OLD") == [b"* SEARCH 1"]
        assert await two.ok("SEARCH NEW") == [b"* SEARCH"]
        assert await one.ok("STORE 2 +FLAGS (\\Seen)") == [b"* 2 FETCH (UID 2 FLAGS (\\Seen \\Recent))"]
        assert await two.ok("NOOP") == [b"* 2 FETCH (UID 2 FLAGS (\\Seen))"]
        assert await one.ok("SEARCH NEW") == [b"* SEARCH"]


async def test_select_takes_it_and_examine_leaves_it(tmp_path: Path) -> None:
    """6.3.1, 6.3.2: a mailbox that is only examined loses nothing."""
    async with bench(tmp_path, contents=[plain_message(1)]) as here, here.client() as client:
        await client.login()
        assert b"* 0 RECENT" in await client.ok("SELECT INBOX")
        await client.ok("UNSELECT")
        await here.practice.file(plain_message(2))
        for _ in range(2):
            assert b"* 1 RECENT" in await client.ok("EXAMINE INBOX")
            assert await client.ok("FETCH 2 FLAGS") == [b"* 2 FETCH (FLAGS (\\Recent))"]
        assert b"* 1 RECENT" in await client.ok("SELECT INBOX")
        assert b"* 0 RECENT" in await client.ok("SELECT INBOX")


async def test_status_counts_it_and_leaves_it(tmp_path: Path) -> None:
    """6.3.10: also of the mailbox that is selected."""
    async with bench(tmp_path, contents=[plain_message(1)]) as here, here.client() as client:
        await client.login()
        for expected in (0, 1, 1):
            assert await client.ok("STATUS INBOX (RECENT)") == [b"* STATUS INBOX (RECENT %d)" % expected]
            if not expected:
                await here.practice.file(plain_message(2))
        await client.ok("SELECT INBOX")
        assert await client.ok("STATUS INBOX (RECENT)") == [b"* STATUS INBOX (RECENT 1)"]
        await client.ok("UNSELECT")
        assert await client.ok("STATUS INBOX (RECENT)") == [b"* STATUS INBOX (RECENT 0)"]


async def test_a_body_that_is_read_keeps_it(tmp_path: Path) -> None:
    """The flags that a FETCH without PEEK tells are those of this session."""
    async with bench(tmp_path) as here, here.selected() as client:
        await here.practice.file(plain_message(1))
        await client.ok("NOOP")
        (answer,) = await client.ok("FETCH 1 BODY[TEXT]")
        assert answer.endswith(b" FLAGS (\\Seen \\Recent))")


async def test_it_cannot_be_stored(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=[plain_message(1)]) as here, here.selected() as client:
        (answer,) = await client.ok("STORE 1 +FLAGS (\\Recent)")
        assert answer == b"* 1 FETCH (UID 1 FLAGS ())"
        assert await client.ok("SEARCH RECENT") == [b"* SEARCH"]


async def test_what_leaves_is_no_longer_counted() -> None:
    """7.3.2: the new count follows the EXPUNGE."""
    async with mutable_bench(1) as here, here.selected() as client:
        await here.add(2)
        await here.add(3)
        assert await client.ok("NOOP") == [b"* 3 EXISTS", b"* 2 RECENT"]
        await here.drop(2)
        assert await client.ok("NOOP") == [b"* 2 EXPUNGE", b"* 1 RECENT"]
        assert await client.ok("SEARCH RECENT") == [b"* SEARCH 2"]
