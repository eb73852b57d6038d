"""CREATE, DELETE, RENAME, APPEND, COPY, MOVE, EXPUNGE and CLOSE over the mailboxes of the conformance tests."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from gateway.imap.commands import COMMANDS
from tests.unit.imap.imap_harness import MULTIPART, RawClient, bench, plain_message
from tests.unit.imap.mutable_harness import enabled, mutable_bench

NONEXISTENT = b"NO [NONEXISTENT] No such mailbox or message"


async def names(client: RawClient, pattern: str = "*") -> list[bytes]:
    return [line.rpartition(b" ")[2] for line in await client.ok(f'LIST "" {pattern}') if b"\\Noselect" not in line]


async def append(client: RawClient, content: bytes, arguments: str = "INBOX") -> bytes:
    """APPEND as a client does that waits for leave; the tagged answer."""
    await client.send(b"a APPEND %s {%d}\r\n" % (arguments.encode(), len(content)))
    first = await client.response()
    if not first.startswith(b"+ "):
        return first.removeprefix(b"a ")
    await client.send(content + b"\r\n")
    return (await client.until(b"a"))[-1].removeprefix(b"a ")


# --- mailboxes ---


async def test_mailboxes_are_made_renamed_and_removed() -> None:
    """RFC 3501 6.3.3 to 6.3.5: those below a name go with it, and stay when it goes."""
    async with mutable_bench() as here, here.client() as client:
        await client.login()
        for name in ("Work", "Work/Open/2026", "Other/"):
            await client.ok(f"CREATE {name}")
        assert await names(client) == [b"INBOX", b"Other", b"Work", b"Work/Open/2026"]
        await client.ok("RENAME Work Done")
        assert await names(client) == [b"INBOX", b"Done", b"Done/Open/2026", b"Other"]
        await client.ok("DELETE Done")
        assert await names(client) == [b"INBOX", b"Done/Open/2026", b"Other"]
        assert (await client.cmd("SELECT Done"))[-1] == NONEXISTENT
        assert (await client.cmd("DELETE Done"))[-1] == NONEXISTENT


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("CREATE inbox", b"NO [ALREADYEXISTS]"),
        ("CREATE Work", b"NO [ALREADYEXISTS]"),
        ("CREATE Work/", b"NO [ALREADYEXISTS]"),
        ("CREATE a//b", b"NO [NOPERM]"),
        ("CREATE &bad", b"NO [NOPERM]"),
        ("CREATE Trash (USE (\\Trash))", b"NO [NOPERM]"),
        ("CREATE Trash (USE", b"BAD"),
        ("CREATE Trash more", b"BAD"),
        ("DELETE INBOX", b"NO [NOPERM]"),
        ("DELETE None", NONEXISTENT),
        ("RENAME None Some", NONEXISTENT),
        ("RENAME Work Inbox", b"NO [ALREADYEXISTS]"),
        ("RENAME Work Work/Below", b"NO [NOPERM]"),
        ("RENAME Work Play", b"NO [ALREADYEXISTS]"),
        ("SUBSCRIBE None", NONEXISTENT),
        ("SELECT &bad", NONEXISTENT),
        ("STATUS !#$&'+,-.0123456789:;<=>?@^_`|[} (MESSAGES)", NONEXISTENT),
    ],
)
async def test_changes_of_mailboxes_that_cannot_be(command: str, answer: bytes) -> None:
    async with mutable_bench() as here, here.client() as client:
        await client.login()
        for name in ("Work", "Work/New", "Play/New"):
            await client.ok(f"CREATE {name}")
        before = await names(client)
        assert (await client.cmd(command))[-1].startswith(answer)
        assert await names(client) == before


async def test_renaming_inbox_moves_its_messages() -> None:
    async with mutable_bench(2) as here, here.selected() as other, here.client() as client:
        await client.login()
        await client.ok("RENAME INBOX Old")
        assert await client.ok("STATUS INBOX (MESSAGES)") == [b"* STATUS INBOX (MESSAGES 0)"]
        assert await client.ok("STATUS Old (MESSAGES)") == [b"* STATUS Old (MESSAGES 2)"]
        assert await other.ok("NOOP") == [b"* 2 EXPUNGE", b"* 1 EXPUNGE"]


async def test_a_name_that_is_made_anew_has_another_uidvalidity() -> None:
    async with mutable_bench() as here, here.client() as client:
        await client.login()
        seen = set()
        for _ in range(3):
            await client.ok("CREATE Again")
            seen.add((await client.ok("STATUS Again (UIDVALIDITY)"))[0])
            await client.ok("DELETE Again")
        assert len(seen) == 3


async def test_a_session_keeps_what_it_sees_of_a_mailbox_that_is_deleted() -> None:
    async with mutable_bench() as here, here.client() as client:
        await client.login()
        await client.ok("CREATE Gone")
        assert (await append(client, MULTIPART, "Gone")).startswith(b"OK")
        await client.ok("SELECT Gone")
        await client.ok("DELETE Gone")
        assert b"* 1 FETCH (UID 1)" in await client.ok("FETCH 1 UID")


# --- messages that come in ---


async def test_what_is_appended_is_there_as_it_was_given() -> None:
    async with mutable_bench() as here, here.selected() as client, here.selected() as other:
        answer = await append(client, MULTIPART, 'INBOX (\\Seen \\draft \\Recent Word) " 2-Feb-2024 23:30:00 -0100"')
        validity = await here.uid_validity()
        assert answer == b"OK [APPENDUID %d 1] APPEND completed" % validity
        assert b"* 1 EXISTS" in await other.ok("NOOP")
        (response,) = await other.ok("FETCH 1 (FLAGS INTERNALDATE BODY.PEEK[])")
        assert b"(FLAGS (\\Seen \\Draft Word)" in response.replace(b" \\Recent", b"")
        assert b'INTERNALDATE " 3-Feb-2024 00:30:00 +0000"' in response
        assert response.endswith(MULTIPART + b")")


@pytest.mark.parametrize("name", [b"INBOX", b'"inbox"', b"{5}\r\nINBOX", b"{5+}\r\nINBOX"])
async def test_a_short_message_may_come_at_once(name: bytes) -> None:
    """LITERAL- (RFC 7888); the name of the mailbox may be a literal as well."""
    async with mutable_bench() as here, here.selected() as client:
        head, separator, rest = name.partition(b"\r\n")
        await client.send(b"a APPEND " + head)
        if head.endswith(b"{5}"):
            await client.send(b"\r\n")
            assert (await client.response()).startswith(b"+ ")
            separator = b""
        await client.send(separator + rest + b" {%d+}\r\n" % len(MULTIPART) + MULTIPART + b"\r\n")
        assert b"* 1 EXISTS" in await client.until(b"a")


async def test_a_large_message_comes_through_whole(tmp_path: Path) -> None:
    """More than a line and a literal of any other command may have."""
    content = b"Subject: large\r\n\r\n" + bytes(range(1, 256)) * 20_000
    async with mutable_bench() as here, here.selected() as client:
        assert (await append(client, content)).startswith(b"OK")
        (response,) = await client.ok("FETCH 1 BODY.PEEK[]")
        assert response.endswith(content + b")")


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (b"a APPEND INBOX {0}", b"a NO [CANNOT]"),
        (b"a APPEND INBOX {31457281}", b"a NO [TOOBIG]"),
        (b"a APPEND INBOX {99999999999999999999}", b"a BAD"),
        (b"a APPEND INBOX ~{10}", b"a BAD"),
        (b"a APPEND INBOX (\\Seen {10}", b"a BAD"),
        (b"a APPEND INBOX \\Seen {10}", b"a BAD"),
        (b'a APPEND INBOX "32-Feb-2024 23:30:00 +0000" {10}', b"a BAD"),
        (b'a APPEND INBOX "2-Feb-2024 23:30:00 +0000" {10}', b"a BAD"),
        (b'a APPEND INBOX "02-Feb-2024 23:30:00" {10}', b"a BAD"),
        (b'a APPEND INBOX "02-Feb-2024 23:61:00 +0000" {10}', b"a BAD"),
        (b'a APPEND INBOX "01-Jan-0001 00:00:00 +0100" {10}', b"a BAD"),
        (b"a APPEND (INBOX {70000}", b"a NO [TOOBIG]"),
        (b"a APPEND INBOX {10", b"a BAD"),
        (b"a APPEND INBOX {4097+}", b"* BYE [TOOBIG]"),
    ],
)
async def test_a_message_that_is_not_wanted_is_refused_before_it_is_sent(command: bytes, answer: bytes) -> None:
    async with mutable_bench() as here, here.selected() as client:
        await client.send(command + b"\r\n")
        assert (await client.response()).startswith(answer)
        if not answer.startswith(b"*"):
            assert await client.ok("STATUS INBOX (MESSAGES)") == [b"* STATUS INBOX (MESSAGES 0)"]


@pytest.mark.parametrize(
    ("after", "answer"),
    [(b" {3}", b"a BAD"), (b" more", b"a BAD"), (b" {3+}", b"* BYE [CANNOT] One message at a time")],
)
async def test_one_message_at_a_time(after: bytes, answer: bytes) -> None:
    """MULTIAPPEND is not offered. What a second message holds is never taken for commands."""
    async with mutable_bench() as here, here.selected() as client:
        await client.send(b"a APPEND INBOX {3}\r\n")
        assert (await client.response()).startswith(b"+ ")
        await client.send(b"abc" + after + b"\r\n")
        assert (await client.response()).startswith(answer)
        assert (await here.grant()).mailbox.present == 0


async def test_a_nul_is_no_character_of_a_message() -> None:
    async with mutable_bench() as here, here.selected() as client:
        assert (await append(client, b"Subject: x\r\n\r\n\x00")).startswith(b"BAD")
        assert (await client.cmd(b"APPEND INBOX {1+}\r\n\x00"))[-1].startswith(b"BAD")


async def test_a_mailbox_that_is_not_there_may_be_made() -> None:
    """RFC 3501 6.3.11: TRYCREATE, also for COPY and MOVE."""
    async with mutable_bench(1) as here, here.selected() as client:
        assert (await append(client, MULTIPART, "Sent")).startswith(b"NO [TRYCREATE]")
        for command in ("COPY 1 Sent", "UID COPY 1 Sent", "MOVE 1 Sent", "UID MOVE 1 Sent"):
            assert (await client.cmd(command))[-1].startswith(b"NO [TRYCREATE]"), command


async def test_a_connection_that_breaks_within_a_message_leaves_nothing() -> None:
    async with mutable_bench() as here:
        async with here.selected() as client:
            await client.send(b"a APPEND INBOX {100}\r\n")
            assert (await client.response()).startswith(b"+ ")
            await client.send(b"Subject: half")
        async with here.selected() as client:
            assert await client.ok("STATUS INBOX (MESSAGES)") == [b"* STATUS INBOX (MESSAGES 0)"]


async def test_messages_on_their_way_in_wait_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """All sessions together hold no more than the limit: the next is asked for its message when one is through."""
    monkeypatch.setattr("gateway.imap.session.MAX_APPENDING_BYTES", 1 << 20)
    content = b"Subject: x\r\n\r\n" + b"x" * (1 << 20)
    async with mutable_bench() as here, here.selected() as one, here.selected() as other:
        for client in (one, other):
            await client.send(b"a APPEND INBOX {%d}\r\n" % len(content))
        assert (await one.response()).startswith(b"+ ")
        waiting = asyncio.ensure_future(other.response())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await one.send(content + b"\r\n")
        assert (await one.until(b"a"))[-1].startswith(b"a OK")
        assert (await waiting).startswith(b"+ ")
        await other.send(content + b"\r\n")
        assert (await other.until(b"a"))[-1].startswith(b"a OK")


# --- messages that are copied or leave ---


async def test_copies_have_flags_and_date_and_are_told_by_uid() -> None:
    """RFC 4315: which UIDs they have there. The other session that looks at the target hears of them."""
    async with mutable_bench(5) as here, here.selected() as client, here.client() as other:
        await other.login()
        await other.ok("CREATE Copies")
        await other.ok("SELECT Copies")
        await client.ok("STORE 2 FLAGS (\\Flagged Word \\Deleted)")
        validity = await here.uid_validity("Copies")
        assert (await client.cmd("COPY 4:5,1:2 Copies"))[-1] == b"OK [COPYUID %d 1:2,4:5 1:4] COPY completed" % validity
        assert (await client.cmd("UID COPY 77 Copies"))[-1] == b"OK UID COPY completed"
        assert b"* 4 EXISTS" in await other.ok("NOOP")
        (copied,) = await other.ok("FETCH 2 (FLAGS INTERNALDATE)")
        (source,) = await client.ok("FETCH 2 (FLAGS INTERNALDATE)")
        assert copied.replace(b" \\Recent", b"") == source
        assert (await client.ok("STATUS INBOX (MESSAGES)")) == [b"* STATUS INBOX (MESSAGES 5)"]


async def test_what_is_moved_is_told_before_it_leaves() -> None:
    """RFC 6851 4.3; to the mailbox itself the message gets a new UID."""
    async with mutable_bench(3) as here, here.selected() as client, here.selected() as other:
        await client.ok("CREATE Done")
        validity, inbox = await here.uid_validity("Done"), await here.uid_validity()
        assert b" MOVE " in (await client.ok("CAPABILITY"))[0] + b" "
        assert await client.ok("MOVE 1:2 Done") == [
            b"* OK [COPYUID %d 1:2 1:2] Moved" % validity,
            b"* 2 EXPUNGE",
            b"* 1 EXPUNGE",
        ]
        assert await other.ok("NOOP") == [b"* 2 EXPUNGE", b"* 1 EXPUNGE"]
        moved, *news = await client.ok("UID MOVE 3 INBOX")
        assert moved == b"* OK [COPYUID %d 3 4] Moved" % inbox
        assert news[:2] == [b"* 1 EXPUNGE", b"* 1 EXISTS"]


async def test_expunge_renumbers_both_sessions() -> None:
    async with mutable_bench(6) as here, here.selected() as client, here.selected() as other:
        await client.ok("STORE 2,4:5 +FLAGS.SILENT (\\Deleted)")
        assert await client.ok("UID EXPUNGE 4:9") == [b"* 5 EXPUNGE", b"* 4 EXPUNGE"]
        assert await client.ok("EXPUNGE") == [b"* 2 EXPUNGE"]
        assert await client.ok("FETCH 1:3 UID") == [b"* %d FETCH (UID %d)" % pair for pair in ((1, 1), (2, 3), (3, 6))]
        # The other one still counts as before: nothing is told while numbers are on their way.
        assert b"* 6 FETCH (UID 6)" in await other.ok("FETCH 6 UID")
        news = await other.ok("NOOP")
        assert [line for line in news if b"EXPUNGE" in line] == [b"* 5 EXPUNGE", b"* 4 EXPUNGE", b"* 2 EXPUNGE"]
        assert await other.ok("FETCH 3 UID") == [b"* 3 FETCH (UID 6)"]


async def test_expunge_is_told_as_vanished_to_who_asked_for_it() -> None:
    """RFC 7162 3.2.10; and the tagged answer says how far the client has come now."""
    async with mutable_bench(4) as here, here.client() as client, here.client() as other:
        for one in (client, other):
            await one.login()
            await enabled(one)
        await client.ok("STORE 1,3 +FLAGS.SILENT (\\Deleted)")
        vanished, answer = await client.cmd("EXPUNGE")
        assert vanished == b"* VANISHED 1,3"
        assert answer == b"OK [HIGHESTMODSEQ %d] EXPUNGE completed" % await here.modseq()
        assert b"* VANISHED 1,3" in await other.ok("NOOP")


async def test_close_removes_untold_what_is_deleted_and_unselect_does_not() -> None:
    async with mutable_bench(3) as here, here.selected() as other:
        async with here.selected() as client:
            await client.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
            assert await client.ok("UNSELECT") == []
            assert (await here.grant()).mailbox.present == 3
            await client.ok("SELECT INBOX")
            assert await client.ok("CLOSE") == []
        assert b"* 1 EXPUNGE" in await other.ok("NOOP")


async def test_a_mailbox_open_for_reading_only_stays_as_it_is() -> None:
    async with mutable_bench(2) as here, here.selected() as other, here.client() as client:
        await client.login()
        await other.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
        await client.ok("EXAMINE INBOX")
        assert (await client.cmd("EXPUNGE"))[-1].startswith(b"OK")
        assert (await client.cmd("MOVE 1 INBOX"))[-1].startswith(b"NO [NOPERM]")
        await client.ok("CLOSE")
        assert (await here.grant()).mailbox.present == 2


# --- the rules of the gateway ---


async def test_the_gateways_own_mailboxes_offer_no_deletion(tmp_path: Path) -> None:
    """EP-29: rights, capabilities and PERMANENTFLAGS speak of none, whatever the test mailboxes allow."""
    async with bench(tmp_path, contents=[plain_message(1)]) as here, here.client() as client:
        await client.login()
        assert b"MOVE" not in (await client.ok("CAPABILITY"))[0].split()
        (rights,) = await client.ok("MYRIGHTS INBOX")
        assert re.search(rb" [texkp]*[texk]", rights.removeprefix(b"* MYRIGHTS INBOX")) is None
        selected = b"".join(await client.ok("SELECT INBOX"))
        permanent = selected.partition(b"[PERMANENTFLAGS (")[2].partition(b")]")[0].split()
        assert not {b"\\Deleted", b"\\Draft"} & set(permanent)
        await client.ok("STORE 1 +FLAGS (\\Deleted)")
        await client.ok("CLOSE")
        assert b"* 1 EXISTS" in await client.ok("SELECT INBOX")


async def test_no_message_is_asked_for_where_none_may_be_put(tmp_path: Path) -> None:
    """One refusal, one event, and no octet of the message crosses the network."""
    async with bench(tmp_path) as here, here.client() as client:
        await client.login()
        assert (await append(client, MULTIPART)).startswith(b"NO [NOPERM]")
        assert len(await here.practice.audit("mailbox.change_refused")) == 1
        assert (await client.cmd(b"APPEND INBOX {3+}\r\nabc"))[-1].startswith(b"NO [NOPERM]")
        assert len(await here.practice.audit("mailbox.change_refused")) == 2


def test_every_command_that_changes_something_asks_the_mailboxes() -> None:
    """None of them is answered by the engine alone."""
    changing = ("CREATE", "DELETE", "RENAME", "APPEND", "COPY", "UID COPY", "MOVE", "UID MOVE", "EXPUNGE", "CLOSE")
    assert {COMMANDS[name].handle.__module__ for name in changing} == {"gateway.imap.commands_change"}
