"""Mailboxes that lose messages: what a session is told, and when."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.imap.mutable_harness import mutable_bench


@pytest.mark.parametrize("command", ["NOOP", "CHECK", "STATUS Other (MESSAGES)", "UID FETCH 1 FLAGS", "UID SEARCH ALL"])
async def test_what_left_is_announced_from_the_highest_number_down(command: str) -> None:
    """RFC 3501 7.4.1: each EXPUNGE renumbers what is above it, so the numbers sent must hold in their order."""
    async with mutable_bench(5) as here, here.selected() as client:
        await client.ok("CREATE Other")
        await here.drop(2, 4)
        untagged = await client.ok(command)
        assert [line for line in untagged if b"EXPUNGE" in line] == [b"* 4 EXPUNGE", b"* 2 EXPUNGE"]
        assert await client.ok("FETCH 1:* UID") == [b"* %d FETCH (UID %d)" % pair for pair in ((1, 1), (2, 3), (3, 5))]


@pytest.mark.parametrize("command", ["FETCH 1 FLAGS", "SEARCH ALL", "STORE 1 +FLAGS ($Word)"])
async def test_commands_with_numbers_are_never_answered_with_an_expunge(command: str) -> None:
    """RFC 3501 7.4.1: not while FETCH, STORE or SEARCH is answered; the numbers mean what they meant."""
    async with mutable_bench(3) as here, here.selected() as client:
        await here.drop(2)
        assert not any(b"EXPUNGE" in line for line in await client.ok(command))
        assert await client.ok("FETCH 3 UID") == [b"* 3 FETCH (UID 3)"]
        assert b"* 2 EXPUNGE" in await client.ok("NOOP")
        assert await client.ok("FETCH 2 UID") == [b"* 2 FETCH (UID 3)"]


async def test_arrivals_are_announced_while_an_expunge_waits() -> None:
    """RFC 3501 7.3.1: EXISTS counts what the client knows of, with those that it was not told to have left."""
    async with mutable_bench(3) as here, here.selected() as client:
        await here.drop(1)
        await here.add(4)
        assert b"* 4 EXISTS" in await client.ok("FETCH 2 FLAGS")
        assert b"* 1 EXPUNGE" in await client.ok("NOOP")
        assert await client.ok("FETCH * UID") == [b"* 3 FETCH (UID 4)"]


async def test_a_message_that_came_and_left_unseen_is_never_mentioned() -> None:
    async with mutable_bench(1) as here, here.selected() as client:
        uid = await here.add(2)
        await here.drop(uid)
        assert await client.ok("NOOP") == []
        await here.add(3)
        assert b"* 2 EXISTS" in await client.ok("NOOP")
        assert await client.ok("UID FETCH 1:* UID") == [b"* 1 FETCH (UID 1)", b"* 2 FETCH (UID 3)"]


async def test_idle_announces_what_leaves() -> None:
    """RFC 2177, EP-26."""
    async with mutable_bench(3) as here, here.selected() as client:
        await client.send(b"i IDLE\r\n")
        assert (await client.response()).startswith(b"+ ")
        await here.drop(1, 3)
        assert [await client.response() for _ in range(2)] == [b"* 3 EXPUNGE", b"* 1 EXPUNGE"]
        await client.send(b"DONE\r\n")
        assert await client.until(b"i") == [b"i OK IDLE completed"]


async def test_a_message_that_left_unannounced_is_still_shown() -> None:
    """RFC 2180 4.1.1: as if it were there, for a session that was not told."""
    async with mutable_bench(2) as here, here.selected() as client:
        await here.drop(1)
        (answer,) = await client.ok("FETCH 1 (UID FLAGS RFC822.SIZE BODY.PEEK[TEXT])")
        assert answer.startswith(b"* 1 FETCH (UID 1 FLAGS () RFC822.SIZE ")
        assert b"text\r\n" in answer


async def test_what_cannot_be_shown_any_more_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 2180 4.1.2, RFC 5530: EXPUNGEISSUED; a UID that is not there is no error."""
    async with mutable_bench(3) as here, here.selected() as client:
        await here.drop(1)
        contents = here.mutable.contents

        async def without(mailbox: object, uids: list[int], *, keep: bool = False) -> dict[int, bytes]:
            return await contents(mailbox, [uid for uid in uids if uid != 1], keep=keep)  # type: ignore[arg-type]

        monkeypatch.setattr(here.mutable, "contents", without)
        *untagged, last = await client.cmd("FETCH 1:2 BODY.PEEK[TEXT]")
        assert len(untagged) == 1
        assert untagged[0].startswith(b"* 2 FETCH ")
        assert last.startswith(b"OK [EXPUNGEISSUED]")
        assert (await client.cmd("FETCH 1 BODY.PEEK[TEXT]"))[-1].startswith(b"NO [EXPUNGEISSUED]")
        assert await client.cmd("UID FETCH 1 BODY.PEEK[TEXT]") == [b"* 1 EXPUNGE", b"OK UID FETCH completed"]


async def test_storing_flags_of_what_left() -> None:
    """RFC 2180 4.2: the others are stored; that some are not there is no error, and is said."""
    async with mutable_bench(3) as here, here.selected() as client:
        await here.drop(1)
        assert (await client.cmd("STORE 1 +FLAGS (\\Flagged)"))[-1].startswith(b"OK [EXPUNGEISSUED]")
        assert await client.cmd("STORE 1 +FLAGS.SILENT (\\Flagged)") == [b"OK STORE completed"]
        *untagged, last = await client.cmd("STORE 1:2 +FLAGS (\\Flagged)")
        assert untagged == [b"* 2 FETCH (UID 2 FLAGS (\\Flagged))"]
        assert last.startswith(b"OK [EXPUNGEISSUED]")
        assert (await here.grant()).mailbox.flags[0] == frozenset()


async def test_a_search_does_not_find_what_left() -> None:
    """Nor does it give anything another number."""
    async with mutable_bench(4) as here, here.selected() as client:
        await here.drop(1, 3)
        assert await client.ok("SEARCH ALL") == [b"* SEARCH 2 4"]
        assert await client.ok("SEARCH NOT 2") == [b"* SEARCH 4"]


async def test_status_counts_what_is_there() -> None:
    """RFC 3501 6.3.10, RFC 8438: MESSAGES, UNSEEN and SIZE without those that left; UIDNEXT stays."""
    async with mutable_bench(3) as here, here.client() as client:
        await client.login()
        (whole,) = await client.ok("STATUS INBOX (SIZE)")
        size = int(whole.split()[-1].strip(b")"))
        await here.drop(2)
        (answer,) = await client.ok("STATUS INBOX (MESSAGES UNSEEN UIDNEXT SIZE)")
        assert answer == b"* STATUS INBOX (MESSAGES 2 UNSEEN 2 UIDNEXT 4 SIZE %d)" % (size * 2 // 3)


async def test_select_counts_and_numbers_what_is_there() -> None:
    """RFC 3501 6.3.1."""
    async with mutable_bench(0) as here:
        for number in range(1, 5):
            await here.add(number, "INBOX", *(("\\Seen",) if number < 4 else ()))
        await here.drop(1, 2)
        async with here.client() as client:
            await client.login()
            untagged = await client.ok("SELECT INBOX")
            assert b"* 2 EXISTS" in untagged
            assert any(line.startswith(b"* OK [UNSEEN 2]") for line in untagged)
            assert await client.ok("FETCH 1:* UID") == [b"* 1 FETCH (UID 3)", b"* 2 FETCH (UID 4)"]


async def test_sets_across_gaps() -> None:
    """Numbers, UIDs and ``*`` where slots in between are empty; a number beyond the end is bad."""
    async with mutable_bench(9) as here:
        await here.drop(2, 3, 5, 9)
        async with here.selected() as client:

            async def uids(command: str) -> list[int]:
                return [int(line.split()[-1].strip(b")")) for line in await client.ok(command)]

            assert await uids("FETCH 1:* UID") == [1, 4, 6, 7, 8]
            assert await uids("FETCH 5,2:3,* UID") == [4, 6, 8]
            assert await uids("UID FETCH 2:5 UID") == [4]
            assert await uids("UID FETCH 9:* UID") == [8]
            assert await uids("UID FETCH 9,3 UID") == []
            assert await client.ok("SEARCH UID 5:*") == [b"* SEARCH 3 4 5"]
            assert (await client.cmd("FETCH 6 UID"))[-1].startswith(b"BAD")
            await here.drop(1, 4, 6, 7, 8)
            assert len(await client.ok("NOOP")) == 5
            assert await uids("UID FETCH 1:* UID") == []
            assert await uids("FETCH 1:* UID") == []


async def test_pipelined_commands_keep_their_numbers() -> None:
    """RFC 3501 5.5: commands sent at once, of which a later one names a number of before the EXPUNGE."""
    async with mutable_bench(3) as here, here.selected() as one, here.selected() as two:
        await two.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
        await one.ok("NOOP")
        await two.ok("EXPUNGE")
        await one.send(b"a FETCH 2 UID\r\nb SEARCH 3\r\nc NOOP\r\nd FETCH 2 UID\r\n")
        assert await one.until(b"a") == [b"* 2 FETCH (UID 2)", b"a OK FETCH completed"]
        assert await one.until(b"b") == [b"* SEARCH 3", b"b OK SEARCH completed"]
        assert await one.until(b"c") == [b"* 1 EXPUNGE", b"c OK NOOP completed"]
        assert await one.until(b"d") == [b"* 2 FETCH (UID 3)", b"d OK FETCH completed"]


async def test_many_idlers_hear_of_a_leaving() -> None:
    async with mutable_bench(2) as here, here.selected() as one, here.selected() as two:
        for client in (one, two):
            await client.send(b"i IDLE\r\n")
            await client.response()
        await here.drop(2)
        assert list(await asyncio.gather(one.response(), two.response())) == [b"* 2 EXPUNGE", b"* 2 EXPUNGE"]
