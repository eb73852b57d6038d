"""QRESYNC (RFC 7162 section 3.2): what a client that was away is told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.imap.imap_harness import bench, plain_message
from tests.unit.imap.mutable_harness import enabled, mutable_bench


def about_messages(untagged: list[bytes]) -> list[bytes]:
    return [line for line in untagged if b" FETCH " in line or b"VANISHED" in line]


async def test_select_tells_what_vanished_and_what_changed() -> None:
    """3.2.5.1: VANISHED (EARLIER) and FETCH with UID and MODSEQ come with the SELECT."""
    async with mutable_bench(6) as here:
        since = await here.modseq()
        await here.drop(2, 3, 6)
        changed = await here.modseq()
        async with here.selected() as other:
            await other.ok("UID STORE 4 +FLAGS (\\Answered)")
        async with here.client() as client:
            await client.login()
            untagged = await enabled(client, f"SELECT INBOX (QRESYNC ({await here.uid_validity()} {since}))")
            assert about_messages(untagged) == [
                b"* VANISHED (EARLIER) 2:3,6",
                b"* 2 FETCH (UID 4 FLAGS (\\Answered) MODSEQ (%d))" % (changed + 1),
            ]
            assert b"* 3 EXISTS" in untagged
            assert await client.ok("NOOP") == []


async def test_the_known_uids_narrow_the_answer() -> None:
    """3.2.5.2: only what the client says it knows, and the numbers beside UIDs are allowed."""
    async with mutable_bench(8) as here:
        since, validity = await here.modseq(), await here.uid_validity()
        await here.drop(2, 3, 6)
        async with here.selected() as other:
            await other.ok("UID STORE 1,8 +FLAGS (\\Answered)")
        async with here.client() as client:
            await client.login()
            await client.ok("ENABLE QRESYNC")
            for known in ("3:7", "3:7 (1:3 1,4:5)", "7:3"):
                untagged = await client.ok(f"SELECT INBOX (CONDSTORE QRESYNC ({validity} {since} {known}))")
                assert about_messages(untagged) == [b"* VANISHED (EARLIER) 3,6"]
            untagged = await client.ok(f"SELECT INBOX (QRESYNC ({validity} {since} (1:3 1,4:5)))")
            assert about_messages(untagged)[0] == b"* VANISHED (EARLIER) 2:3,6"


async def test_another_uidvalidity_makes_a_plain_select() -> None:
    """3.2.5: what the client knows is then of another mailbox."""
    async with mutable_bench(3) as here, here.client() as client:
        await here.drop(1)
        await client.login()
        await client.ok("ENABLE QRESYNC")
        validity = await here.uid_validity()
        untagged = await client.ok(f"SELECT INBOX (QRESYNC ({validity + 1} 1))")
        assert about_messages(untagged) == []
        assert b"* 2 EXISTS" in untagged


@pytest.mark.parametrize(
    "parameters",
    [
        "(QRESYNC)",
        "(QRESYNC (1))",
        "(QRESYNC (0 1))",
        "(QRESYNC (1 0))",
        "(QRESYNC (1 9223372036854775808))",
        "(QRESYNC (1 1 *))",
        "(QRESYNC (1 1 1:*))",
        "(QRESYNC (1 1 $))",
        "(QRESYNC (1 1 1:2 (1:2 1:3)))",
        "(QRESYNC (1 1 (1:2)))",
        "(QRESYNC (1 1 1:2 ()))",
        "(QRESYNC (1 1) QRESYNC (1 1))",
        "(QRESYNC (1 1)",
        "(X-UNKNOWN)",
        "()",
        " (CONDSTORE)",
    ],
)
async def test_parameters_that_are_not_those_of_the_rfc_are_bad(parameters: str) -> None:
    """RFC 7162 section 7; the mailbox that was selected stays so."""
    async with mutable_bench(1) as here, here.client() as client:
        await client.login()
        await enabled(client)
        assert (await client.cmd(f"SELECT INBOX {parameters}"))[-1].startswith(b"BAD")
        await client.ok("FETCH 1 FLAGS")


async def test_it_must_be_enabled_first() -> None:
    """3.2.5, 3.2.6: BAD without ENABLE QRESYNC; CONDSTORE alone is not enough."""
    async with mutable_bench(1) as here, here.selected() as client:
        validity = await here.uid_validity()
        await client.ok("ENABLE CONDSTORE")
        assert (await client.cmd(f"SELECT INBOX (QRESYNC ({validity} 1))"))[-1].startswith(b"BAD")
        assert (await client.cmd("UID FETCH 1:* FLAGS (CHANGEDSINCE 1 VANISHED)"))[-1].startswith(b"BAD")
        assert await client.ok("ENABLE QRESYNC") == [b"* ENABLED QRESYNC"]
        await client.ok("UID FETCH 1:* FLAGS (CHANGEDSINCE 1 VANISHED)")


async def test_enable_answers_and_implies_condstore() -> None:
    """RFC 5161 3.2, RFC 7162 3.2.3."""
    async with mutable_bench(1) as here, here.client() as client:
        await client.login()
        assert await client.ok("ENABLE QRESYNC CONDSTORE") == [b"* ENABLED CONDSTORE QRESYNC"]
        assert await client.ok("ENABLE QRESYNC") == [b"* ENABLED"]
        await client.ok("SELECT INBOX")
        (answer,) = await client.ok("STORE 1 +FLAGS (\\Seen)")
        assert answer == b"* 1 FETCH (UID 1 FLAGS (\\Seen) MODSEQ (%d))" % await here.modseq()


async def test_uid_fetch_with_vanished() -> None:
    """3.2.6: VANISHED (EARLIER) before the FETCH answers, for the UIDs that are asked for."""
    async with mutable_bench(9) as here, here.client() as client:
        await client.login()
        since = await here.modseq()
        await here.drop(2, 5, 9)
        await enabled(client)
        modseq = await here.modseq()
        await client.ok("UID STORE 3 +FLAGS (\\Flagged)")
        assert await client.ok(f"UID FETCH 1:* (FLAGS) (CHANGEDSINCE {since} VANISHED)") == [
            b"* VANISHED (EARLIER) 2,5,9",
            b"* 2 FETCH (UID 3 FLAGS (\\Flagged) MODSEQ (%d))" % (modseq + 1),
        ]
        (answer,) = await client.ok(f"UID FETCH 4:6 (UID) (VANISHED CHANGEDSINCE {since})")
        assert answer == b"* VANISHED (EARLIER) 5"
        assert await client.ok(f"UID FETCH 4:6 (UID) (CHANGEDSINCE {modseq} VANISHED)") == []


@pytest.mark.parametrize(
    "command",
    [
        "FETCH 1:* FLAGS (CHANGEDSINCE 1 VANISHED)",
        "UID FETCH 1:* FLAGS (VANISHED)",
        "UID FETCH 1:* FLAGS (CHANGEDSINCE 1 VANISHED VANISHED)",
        "UID FETCH 1:* FLAGS (CHANGEDSINCE 1 CHANGEDSINCE 1)",
        "UID FETCH 1:* FLAGS ()",
        "UID FETCH 1:* FLAGS (CHANGEDSINCE)",
    ],
)
async def test_modifiers_that_are_bad(command: str) -> None:
    """3.2.6: only with UID FETCH and only with CHANGEDSINCE."""
    async with mutable_bench(1) as here, here.client() as client:
        await client.login()
        await enabled(client)
        assert (await client.cmd(command))[-1].startswith(b"BAD")


async def test_what_this_session_still_knows_of_is_told_as_news_and_not_as_earlier() -> None:
    """3.2.10: EARLIER does not count down the client's numbers, so a message it has must not be in it alone."""
    async with mutable_bench(3) as here, here.client() as client:
        await client.login()
        await enabled(client)
        since = await here.modseq()
        await here.drop(1)
        assert await client.ok(f"UID FETCH 1:* (UID) (CHANGEDSINCE {since} VANISHED)") == [b"* VANISHED 1"]
        assert await client.ok("FETCH 1:* UID") == [b"* 1 FETCH (UID 2)", b"* 2 FETCH (UID 3)"]


async def test_vanished_takes_the_place_of_expunge() -> None:
    """3.2.10: for this session, and for others EXPUNGE as before; the answer says how far this brings the client."""
    async with mutable_bench(5) as here, here.client() as client, here.selected() as other:
        await client.login()
        await enabled(client)
        await client.ok("STORE 2:3,5 +FLAGS.SILENT (\\Deleted)")
        *untagged, last = await client.cmd("EXPUNGE")
        assert untagged == [b"* VANISHED 2:3,5"]
        assert last.startswith(b"OK [HIGHESTMODSEQ %d]" % await here.modseq())
        assert [line for line in await other.ok("NOOP") if b"EXPUNGE" in line] == [
            b"* 5 EXPUNGE",
            b"* 3 EXPUNGE",
            b"* 2 EXPUNGE",
        ]
        assert not any(b"VANISHED" in line for line in await other.ok("NOOP"))


async def test_vanished_waits_like_expunge() -> None:
    """3.2.10.2: not while FETCH, STORE or SEARCH is answered."""
    async with mutable_bench(3) as here, here.client() as client:
        await client.login()
        await enabled(client)
        await here.drop(2)
        for command in ("FETCH 1 FLAGS", "SEARCH ALL", "STORE 1 +FLAGS.SILENT (\\Seen)"):
            assert not any(b"VANISHED" in line for line in await client.ok(command))
        assert await client.ok("UID SEARCH ALL") == [b"* SEARCH 1 3", b"* VANISHED 2"]


async def test_many_uids_come_in_bounded_lines() -> None:
    async with mutable_bench() as here:
        for number in range(1, 12_001):
            await here.add(number % 7)
        since = await here.modseq()
        await here.drop(*range(1, 12_001, 2))
        async with here.client() as client:
            await client.login()
            untagged = await enabled(client, f"SELECT INBOX (QRESYNC ({await here.uid_validity()} {since}))")
            lines = [line for line in untagged if b"VANISHED" in line]
            assert len(lines) == 2
            numbers = ",".join(line.split()[-1].decode() for line in lines).split(",")
            assert [int(number) for number in numbers] == list(range(1, 12_001, 2))


async def test_closed_is_said_when_another_mailbox_is_entered() -> None:
    """3.2.11: before the answers about the new one, also when it cannot be entered; not without one before."""
    async with mutable_bench(1) as here, here.client() as client:
        await client.login()
        assert not any(b"CLOSED" in line for line in await client.ok("SELECT INBOX"))
        assert (await client.ok("EXAMINE INBOX"))[0].startswith(b"* OK [CLOSED]")
        *untagged, last = await client.cmd("SELECT Nowhere")
        assert untagged[0].startswith(b"* OK [CLOSED]")
        assert last.startswith(b"NO")
        assert not any(b"CLOSED" in line for line in await client.ok("SELECT INBOX"))
        await client.ok("UNSELECT")
        assert not any(b"CLOSED" in line for line in await client.ok("SELECT INBOX"))


async def test_a_mailbox_that_keeps_everything_has_nothing_vanished(tmp_path: Path) -> None:
    """EP-23: flags that changed are told, and no UID is ever gone; NOMODSEQ is never said."""
    async with bench(tmp_path, contents=[plain_message(n) for n in range(3)]) as here, here.client() as client:
        await client.login()
        first = await client.ok("SELECT INBOX")
        assert not any(b"NOMODSEQ" in line for line in first)
        validity = next(int(line.split()[3].strip(b"]")) for line in first if b"UIDVALIDITY" in line)
        since = next(int(line.split()[3].strip(b"]")) for line in first if b"HIGHESTMODSEQ" in line)
        await client.ok("STORE 2 +FLAGS (\\Flagged)")
        await here.practice.file(plain_message(4))
        untagged = await enabled(client, f"SELECT INBOX (QRESYNC ({validity} {since}))")
        assert [line.split(b" MODSEQ")[0] for line in about_messages(untagged)] == [
            b"* 2 FETCH (UID 2 FLAGS (\\Flagged)",
            b"* 4 FETCH (UID 4 FLAGS (\\Recent)",
        ]
        assert await client.ok("UID FETCH 1:9 (UID) (CHANGEDSINCE 1000 VANISHED)") == []
