"""SEARCHRES (RFC 5182): ``$`` stands for what the last SEARCH RETURN (SAVE) found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import StoreUnavailableError
from tests.unit.imap.imap_harness import RawClient, bench, plain_message
from tests.unit.imap.mutable_harness import mutable_bench


async def saved(client: RawClient) -> list[int]:
    """UIDs that ``$`` stands for."""
    return [int(line.split()[-1].strip(b")")) for line in await client.ok("UID FETCH $ UID")]


async def test_a_search_that_only_saves_says_nothing() -> None:
    """2.1: no ESEARCH answer; FETCH, STORE, SEARCH and COPY take ``$``, by number and by UID."""
    async with mutable_bench(5) as here, here.selected() as client:
        await client.ok("STORE 2,4 +FLAGS.SILENT (\\Flagged)")
        assert await client.cmd("SEARCH RETURN (SAVE) FLAGGED") == [b"OK SEARCH completed"]
        assert await client.ok("FETCH $ UID") == [b"* 2 FETCH (UID 2)", b"* 4 FETCH (UID 4)"]
        assert await saved(client) == [2, 4]
        assert await client.ok("SEARCH $") == [b"* SEARCH 2 4"]
        assert await client.ok("UID SEARCH UID $ NOT 2") == [b"* SEARCH 4"]
        assert await client.ok("SEARCH OR $ 1") == [b"* SEARCH 1 2 4"]
        await client.ok("STORE $ +FLAGS.SILENT (\\Seen)")
        assert await client.ok("SEARCH SEEN") == [b"* SEARCH 2 4"]
        await client.ok("CREATE Copies")
        assert (await client.cmd("COPY $ Copies"))[-1].startswith(b"OK [COPYUID ")
        assert (await client.cmd("UID COPY $ Copies"))[-1].startswith(b"OK [COPYUID ")
        assert await client.ok("STATUS Copies (MESSAGES)") == [b"* STATUS Copies (MESSAGES 4)"]


@pytest.mark.parametrize(
    ("options", "expected", "answer"),
    [
        ("SAVE MIN", [2], b" MIN 2"),
        ("SAVE MAX", [5], b" MAX 5"),
        ("MIN SAVE MAX", [2, 5], b" MIN 2 MAX 5"),
        ("SAVE COUNT", [2, 3, 5], b" COUNT 3"),
        ("SAVE MIN COUNT", [2, 3, 5], b" MIN 2 COUNT 3"),
        ("ALL SAVE", [2, 3, 5], b" ALL 2:3,5"),
        ("MIN MAX ALL COUNT SAVE", [2, 3, 5], b" MIN 2 MAX 5 ALL 2:3,5 COUNT 3"),
    ],
)
async def test_what_is_saved_depends_on_what_is_asked_for(options: str, expected: list[int], answer: bytes) -> None:
    """2.1, the table of interactions: with MIN or MAX alone only those, with ALL or COUNT everything."""
    async with mutable_bench(6) as here, here.selected() as client:
        (line,) = await client.ok(f"UID SEARCH RETURN ({options}) 2:3,5")
        assert line.startswith(b'* ESEARCH (TAG "t')
        assert line.split(b")", 1)[1] == b" UID" + answer
        assert await saved(client) == expected


async def test_nothing_found_saves_nothing() -> None:
    """2.1: commands with an empty ``$`` succeed and do nothing."""
    async with mutable_bench(3) as here, here.selected() as client:
        await client.ok("SEARCH RETURN (SAVE) ALL")
        (line,) = await client.ok("SEARCH RETURN (SAVE MIN) DELETED")
        assert line.endswith(b'")')
        for command in ("FETCH $ FLAGS", "UID FETCH $ FLAGS", "STORE $ +FLAGS (\\Seen)", "UID EXPUNGE $"):
            assert await client.ok(command) == []
        assert await client.ok("SEARCH $") == [b"* SEARCH"]


async def test_it_is_empty_at_first_and_after_every_select() -> None:
    """2.1: SELECT and EXAMINE reset it, a search without SAVE does not."""
    async with mutable_bench(2) as here, here.selected() as client:
        assert await client.ok("SEARCH $") == [b"* SEARCH"]
        await client.ok("SEARCH RETURN (SAVE) ALL")
        await client.ok("SEARCH 1")
        await client.ok("SEARCH RETURN (COUNT) 1")
        assert await saved(client) == [1, 2]
        await client.ok("EXAMINE INBOX")
        assert await saved(client) == []


async def test_a_refused_search_empties_it_and_a_bad_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2.1: NO leaves the empty sequence, BAD leaves what was there."""
    async with bench(tmp_path, contents=[plain_message(1)]) as here, here.selected() as client:
        await client.ok("SEARCH RETURN (SAVE) ALL")
        for command in ("SEARCH RETURN (SAVE) BOGUS", "SEARCH RETURN (SAVE BOGUS) ALL", "SEARCH RETURN (SAVE)"):
            assert (await client.cmd(command))[-1].startswith(b"BAD")
            assert await saved(client) == [1]
        assert (await client.cmd("SEARCH CHARSET X ALL"))[-1].startswith(b"NO [BADCHARSET")
        assert await saved(client) == [1]
        assert (await client.cmd("SEARCH RETURN (SAVE) CHARSET X ALL"))[-1].startswith(b"NO [BADCHARSET")
        assert await saved(client) == []
        await client.ok("SEARCH RETURN (SAVE) ALL")

        async def failing(*_: Any) -> Any:
            raise StoreUnavailableError("the store is away")

        with monkeypatch.context() as patch:
            patch.setattr(here.inbox, "search", failing)
            assert (await client.cmd("SEARCH RETURN (SAVE) TEXT x"))[-1].startswith(b"NO [UNAVAILABLE]")
        assert await saved(client) == []


async def test_messages_that_left_are_no_longer_in_it() -> None:
    """2.1: an EXPUNGE takes them out, and what is left has its new numbers."""
    async with mutable_bench(4) as here, here.selected() as client:
        await client.ok("SEARCH RETURN (SAVE) 2:4")
        await here.drop(1, 3)
        await client.ok("NOOP")
        assert await client.ok("FETCH $ UID") == [b"* 1 FETCH (UID 2)", b"* 2 FETCH (UID 4)"]
        await here.add(9)
        await client.ok("NOOP")
        assert await saved(client) == [2, 4]


async def test_uid_expunge_takes_it() -> None:
    """RFC 4315 and 5182 together: only what is both marked and saved."""
    async with mutable_bench(4) as here, here.selected() as client:
        await client.ok("STORE 1:3 +FLAGS.SILENT (\\Deleted)")
        await client.ok("SEARCH RETURN (SAVE) UID 3:4")
        assert b"* 3 EXPUNGE" in await client.ok("UID EXPUNGE $")
        assert await client.ok("UID SEARCH ALL") == [b"* SEARCH 1 2 4"]


async def test_pipelined_commands_see_what_the_one_before_saved() -> None:
    """2.2: a client sends SEARCH and FETCH at once."""
    async with mutable_bench(5) as here, here.selected() as client:
        await client.send(
            b"a SEARCH RETURN (SAVE) 1:4\r\nb SEARCH RETURN (SAVE) NOT 1 $\r\n"
            b"c FETCH $ UID\r\nd SEARCH RETURN (SAVE MAX) $\r\ne UID FETCH $ UID\r\n"
        )
        await client.until(b"b")
        assert await client.until(b"c") == [
            *(b"* %d FETCH (UID %d)" % (number, number) for number in (2, 3, 4)),
            b"c OK FETCH completed",
        ]
        await client.until(b"d")
        assert await client.until(b"e") == [b"* 4 FETCH (UID 4)", b"e OK UID FETCH completed"]


@pytest.mark.parametrize(
    "command", ["FETCH $,1 UID", "FETCH 1:$ UID", "FETCH $:2 UID", "UID FETCH $$ UID", "SEARCH $$"]
)
async def test_it_stands_alone(command: str) -> None:
    """RFC 5182 section 3: ``$`` is a whole sequence-set."""
    async with mutable_bench(2) as here, here.selected() as client:
        assert (await client.cmd(command))[-1].startswith(b"BAD")
