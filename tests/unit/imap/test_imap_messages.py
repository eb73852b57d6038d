"""FETCH, SEARCH, STORE and attempts to delete: EP-21, EP-24, EP-29, the no-delete rules."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.audit import AuditQuery
from gateway.core.errors import StoreError
from gateway.imap import fetch as fetch_module
from gateway.imap.responses import internal_date
from gateway.inbox import filed_details
from gateway.inbox import service as service_module
from gateway.inbox.flags import FlagAction, FlagChange
from gateway.serving.connection import SLICE_BYTES, Connection
from tests.unit.imap.imap_harness import MULTIPART, SETTINGS, RawClient, bench, plain_message

EVERYTHING = AuditQuery(limit=10_000)
ODD = [
    b"Subject: 8-bit\r\n\r\n\xff\xfe\xc3\xa4\r\n",
    b"Subject: bare LF\n\nline\nline\n",
    b"Subject: NUL\r\n\r\na\x00b\r\n",
    b"Subject: long\r\n\r\n" + b"x" * 200_000,
    b"Subject: bare CR\r\n\r\na\rb\r\r\n",
    b"Subject: brace\r\n\r\n{5}\r\na1 OK\r\n)\r\n",
    b"no header at all",
    b"\r\n\r\n",
    b"Subject: end without line end\r\n\r\nx",
    MULTIPART,
    b"Subject: big\r\n\r\n" + bytes(range(256)) * 20_000,
]


@pytest.mark.parametrize("item", ["BODY[]", "BODY.PEEK[]", "RFC822"])
async def test_bytes_are_what_was_filed(tmp_path: Path, item: str) -> None:
    """EP-24: every octet, whatever the message holds, alone and in one answer with others."""
    async with bench(tmp_path, contents=ODD) as here, here.selected() as client:
        responses = await client.ok(f"FETCH 1:* ({item})")
        label = item.replace(".PEEK", "").encode()
        for number, (content, response) in enumerate(zip(ODD, responses, strict=True), 1):
            start = b"* %d FETCH (%s {%d}\r\n" % (number, label, len(content))
            assert response.startswith(start)
            assert response[len(start) : len(start) + len(content)] == content
        assert await client.ok("NOOP") == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [("9", b""), ("2:9", b" 2 3"), ("9:*", b" 3"), ("8:9", b""), ("NOT 9", b" 1 2 3"), ("OR 9 1", b" 1")],
)
async def test_a_search_finds_no_message_under_a_number_that_there_is_not(
    tmp_path: Path, query: str, expected: bytes
) -> None:
    async with bench(tmp_path, contents=[plain_message(n) for n in range(3)]) as here, here.selected() as client:
        assert await client.ok(f"SEARCH {query}") == [b"* SEARCH" + expected]


async def test_partials_put_together_are_the_message(tmp_path: Path) -> None:
    content = ODD[-1]
    async with bench(tmp_path, contents=[content]) as here, here.selected() as client:
        collected, step = b"", 100_000
        for start in range(0, len(content) + step, step):
            (response,) = await client.ok(f"UID FETCH 1 BODY.PEEK[]<{start}.{step}>")
            head, _, rest = response.partition(b"\r\n")
            piece = rest[:-1]
            assert head == b"* 1 FETCH (UID 1 BODY[]<%d> {%d}" % (start, len(piece))
            collected += piece
        assert hashlib.sha256(collected).digest() == hashlib.sha256(content).digest()


HEADER = MULTIPART[: MULTIPART.index(b"\r\n\r\n") + 4]
ATTACHED = (
    b"Subject: outer\r\nContent-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nContent-Type: text/plain\r\n\r\nhi\r\n"
    b"--o\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\nFrom: x@y\r\n\r\ninner text\r\n--o--\r\n"
)


@pytest.mark.parametrize(
    ("number", "item", "label", "expected"),
    [
        (1, "BODY.PEEK[HEADER]", b"BODY[HEADER]", HEADER),
        (1, "RFC822.HEADER", b"RFC822.HEADER", HEADER),
        (1, "BODY.PEEK[TEXT]", b"BODY[TEXT]", MULTIPART[len(HEADER) :]),
        (1, "RFC822.TEXT", b"RFC822.TEXT", MULTIPART[len(HEADER) :]),
        (1, "BODY.PEEK[1]", b"BODY[1]", b"Please see the patient."),
        (1, "body.peek[2]", b"BODY[2]", b"PGE+PC9hPg=="),
        (1, "BODY.PEEK[2]<2.3>", b"BODY[2]<2>", b"E+P"),
        (1, "BODY.PEEK[2]<99.3>", b"BODY[2]<99>", b""),
        (1, "BODY.PEEK[1.MIME]", b"BODY[1.MIME]", b"Content-Type: text/plain; charset=utf-8\r\n\r\n"),
        (
            1,
            "BODY.PEEK[HEADER.FIELDS (Subject TO X-None)]",
            b"BODY[HEADER.FIELDS (Subject TO X-None)]",
            b"To: b@direct.example.org\r\nSubject: Referral\r\n\r\n",
        ),
        (
            1,
            'BODY.PEEK[HEADER.FIELDS.NOT ("Subject" To From Date MIME-Version Content-Type)]',
            b"BODY[HEADER.FIELDS.NOT (Subject To From Date MIME-Version Content-Type)]",
            b"Message-ID: <1@direct.example.net>\r\n\r\n",
        ),
        (1, "BODY.PEEK[3]", b"BODY[3]", None),
        (1, "BODY.PEEK[1.HEADER]", b"BODY[1.HEADER]", None),
        (1, "BODY.PEEK[3]<0.5>", b"BODY[3]<0>", None),
        (2, "BODY.PEEK[2.HEADER]", b"BODY[2.HEADER]", b"Subject: inner\r\nFrom: x@y\r\n\r\n"),
        (2, "BODY.PEEK[2.TEXT]", b"BODY[2.TEXT]", b"inner text"),
        (2, "BODY.PEEK[2.1]", b"BODY[2.1]", b"inner text"),
        (2, "BODY.PEEK[2.HEADER.FIELDS (from)]", b"BODY[2.HEADER.FIELDS (from)]", b"From: x@y\r\n\r\n"),
    ],
)
async def test_sections(tmp_path: Path, number: int, item: str, label: bytes, expected: bytes | None) -> None:
    """EP-21."""
    async with bench(tmp_path, contents=[MULTIPART, ATTACHED]) as here, here.selected() as client:
        (response,) = await client.ok(f"FETCH {number} ({item})")
        value = b"NIL" if expected is None else b"{%d}\r\n%s" % (len(expected), expected)
        flags = b" FLAGS (\\Seen)" if item == "RFC822.TEXT" else b""
        assert response == b"* %d FETCH (%s %s%s)" % (number, label, value, flags)


async def test_items_and_macros(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=[MULTIPART]) as here, here.selected() as client:
        fast = b'FLAGS () INTERNALDATE " 1-Mar-2024 12:00:02 +0000" RFC822.SIZE %d' % len(MULTIPART)
        assert await client.ok("FETCH 1 FAST") == [b"* 1 FETCH (" + fast + b")"]
        (everything,) = await client.ok("FETCH 1 ALL")
        assert everything.startswith(
            b"* 1 FETCH (" + fast + b' ENVELOPE ("Fri, 01 Mar 2024 10:00:00 +0000" "Referral" '
        )
        (full,) = await client.ok("FETCH 1 FULL")
        assert b' BODY (("text" "plain" ' in full
        (structure,) = await client.ok("UID FETCH 1:* BODYSTRUCTURE")
        assert structure.startswith(b'* 1 FETCH (UID 1 BODYSTRUCTURE (("text" "plain" ')
        assert b'("attachment" ("filename" "ccda.xml"))' in structure
        status, modseq = await client.ok("FETCH 1 (MODSEQ)")
        assert status.startswith(b"* OK [HIGHESTMODSEQ ")
        assert modseq.startswith(b"* 1 FETCH (MODSEQ (")


@pytest.mark.parametrize(
    "command", ["FETCH 4 FLAGS", "FETCH 1:9 FLAGS", "FETCH 0 FLAGS", "STORE 9 FLAGS ()", "COPY 4 INBOX"]
)
async def test_numbers_that_do_not_exist_are_bad(tmp_path: Path, command: str) -> None:
    async with bench(tmp_path, contents=[plain_message(n) for n in range(3)]) as here, here.selected() as client:
        assert (await client.cmd(command))[-1].startswith(b"BAD")


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ("1", [1]),
        ("*", [3]),
        ("2:*", [2, 3]),
        ("*:2", [2, 3]),
        ("3:1,2", [1, 2, 3]),
        ("3,1", [1, 3]),
        ("1:*,1:*,2", [1, 2, 3]),
    ],
)
async def test_sets(tmp_path: Path, ranges: str, expected: list[int]) -> None:
    async with bench(tmp_path, contents=[plain_message(n) for n in range(3)]) as here, here.selected() as client:
        wanted = [b"* %d FETCH (FLAGS ())" % number for number in expected]
        assert await client.ok(f"FETCH {ranges} FLAGS") == wanted
        assert len(await client.ok(f"UID FETCH {ranges} FLAGS")) == len(expected)


async def test_uid_sets_beyond_the_mailbox(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=[plain_message(1)]) as here, here.selected() as client:
        assert await client.ok("UID FETCH 7 FLAGS") == []
        assert await client.ok("UID FETCH 7:9 FLAGS") == []
        assert await client.ok("UID FETCH 7:* FLAGS") == [b"* 1 FETCH (UID 1 FLAGS ())"]
        assert await client.ok("UID STORE 7 +FLAGS (\\Seen)") == []
        await client.ok("SELECT Shared/L&AOQ-bs")
        assert await client.ok("FETCH 1:* FLAGS") == []
        assert await client.ok("UID FETCH 1:* FLAGS") == []
        assert await client.ok("SEARCH ALL") == [b"* SEARCH"]


async def test_reading_sets_seen_and_is_audited_before_it_is_shown(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=[MULTIPART, plain_message(2)]) as here, here.selected() as client:
        practice = here.practice
        (response,) = await client.ok("FETCH 1 BODY[1]")
        assert response.endswith(b" FLAGS (\\Seen))")
        assert await practice.flags(1) == {"\\Seen"}
        assert await practice.audit("message.read") == [("front.desk", "m00001")]
        # The same message again, and the pieces of another one, are one reading each for this session.
        (response,) = await client.ok("FETCH 1 (FLAGS BODY[1])")
        assert response.startswith(b"* 1 FETCH (FLAGS (\\Seen) BODY[1] ")
        for start in (0, 5, 10):
            await client.ok(f"FETCH 2 BODY[]<{start}.5>")
        assert await practice.audit("message.read") == [("front.desk", "m00001"), ("front.desk", "m00002")]


@pytest.mark.parametrize(
    ("command", "action"),
    [
        ("FETCH 1:* BODY.PEEK[]", "message.read"),
        ("FETCH 1:* BODY.PEEK[TEXT]", "message.read"),
        ("FETCH 1:* BODY.PEEK[1.MIME]", "message.read"),
        ("FETCH 1:* (UID BODY.PEEK[]<0.10>)", "message.read"),
        ("FETCH 1:* BODY.PEEK[HEADER.FIELDS (Subject)]", "message.listed"),
        ("FETCH 1:* RFC822.HEADER", "message.listed"),
        ("FETCH 1:* ENVELOPE", "message.listed"),
        ("FETCH 1:* BODYSTRUCTURE", "message.listed"),
    ],
)
async def test_a_look_with_peek_is_one_event_for_all_messages(tmp_path: Path, command: str, action: str) -> None:
    async with bench(tmp_path, contents=[MULTIPART, plain_message(2)]) as here, here.selected() as client:
        await client.ok("FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE)")
        assert await here.practice.looks() == []
        await client.ok(command)
        look = (action, "mailbox/1", "1:2")
        assert await here.practice.looks() == [look]
        await client.ok(command)
        await client.ok("FETCH 2 ENVELOPE")
        assert await here.practice.looks() == [look]
        assert await here.practice.flags(1) == set()
        # What came since is recorded; another session is another reader.
        await here.practice.file(plain_message(3))
        await client.ok("NOOP")
        await client.ok(command)
        assert await here.practice.looks() == [look, (action, "m00003", "")]
        async with here.selected() as other:
            await other.ok(command)
        assert (await here.practice.looks())[2:] == [(action, "mailbox/1", "1:3")]


async def test_whoever_listed_has_not_read(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=[plain_message(1)]) as here, here.selected() as client:
        await client.ok("FETCH 1 ENVELOPE")
        await client.ok("FETCH 1 BODY.PEEK[]")
        assert await here.practice.looks() == [("message.listed", "m00001", ""), ("message.read", "m00001", "")]


async def test_searches_changes_and_attempts_are_recorded(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=[plain_message(1), plain_message(2)]) as here, here.selected() as client:
        for command in ("SEARCH UNSEEN", "SEARCH ALL", "SEARCH TEXT secret", "SEARCH SUBJECT secret"):
            await client.ok(command)
        await client.ok("STORE 1:2 +FLAGS (\\Flagged DiagnosisWord)")
        await client.ok("STORE 1:2 +FLAGS (\\Flagged)")
        await client.ok("EXPUNGE")
        assert (await client.cmd("COPY 1 INBOX"))[-1].startswith(b"NO")
        assert (await client.cmd("DELETE INBOX"))[-1].startswith(b"NO")
        practice = here.practice
        # A search for flags is recorded once for a session, one for a text each time; never what was looked for.
        assert len(await practice.audit("message.searched")) == 3
        assert await practice.audit("message.flags") == [("front.desk", "mailbox/1")]
        assert await practice.audit("message.expunge_ignored") == [("front.desk", "mailbox/1")]
        assert await practice.audit("message.copy_refused") == [("front.desk", "m00001")]
        assert await practice.audit("mailbox.change_refused") == [("front.desk", "")]
        whole = await practice.store.read(lambda rows: "".join(event.detail for event in rows.audit.find(EVERYTHING)))
        assert "secret" not in whole
        assert "DiagnosisWord" not in whole


async def test_nothing_is_shown_when_the_reading_cannot_be_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(tmp_path, contents=[MULTIPART]) as here, here.selected() as client:

        async def full(*_args: object, **_options: object) -> None:
            raise StoreError("disk full")

        monkeypatch.setattr(here.practice.store, "write", full)
        for what in ("BODY[]", "BODY.PEEK[]", "ENVELOPE"):
            answer = await client.cmd(f"FETCH 1 {what}")
            assert answer == [b"NO [UNAVAILABLE] Temporary failure, please try again"]


async def test_large_mailboxes_come_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_module, "BATCH_MESSAGES", 3)
    monkeypatch.setattr(fetch_module, "BATCH_BYTES", 200)
    contents = [plain_message(number, b"x" * number * 10) for number in range(20)]
    async with bench(tmp_path, contents=contents) as here, here.selected() as client:
        responses = await client.ok("FETCH 1:* RFC822")
        for number, (content, response) in enumerate(zip(contents, responses, strict=True), 1):
            assert response == b"* %d FETCH (RFC822 {%d}\r\n%s FLAGS (\\Seen))" % (number, len(content), content)
        assert await client.ok("SEARCH UNSEEN") == [b"* SEARCH"]


async def test_sizes_and_dates_of_any_set_are_those_of_their_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read in pages, when they are first asked for."""
    monkeypatch.setattr(fetch_module, "BATCH_MESSAGES", 3)
    monkeypatch.setattr(fetch_module, "DETAILS_AHEAD", 4)
    monkeypatch.setattr(filed_details, "PAGE", 3)
    contents = [plain_message(number, b"x" * number) for number in range(14)]
    async with bench(tmp_path, contents=contents) as here:
        entries = await here.practice.entries()
        for ranges in ("14", "2,7,12", "5:9", "1:*", "13:*"):
            async with here.selected() as client:
                for response in await client.ok(f"UID FETCH {ranges} (INTERNALDATE RFC822.SIZE)"):
                    number = int(response.split()[1])
                    date = internal_date(entries[number - 1].internal_date)
                    size = len(contents[number - 1])
                    assert response == b"* %d FETCH (UID %d INTERNALDATE %s RFC822.SIZE %d)" % (
                        number, number, date, size,
                    )  # fmt: skip


async def test_flags_of_one_answer_are_of_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 7162: old flags with the MODSEQ of new ones would hide the change from the client for ever."""
    large = plain_message(1, b"x" * SLICE_BYTES)
    async with bench(tmp_path, contents=[large]) as here, here.selected() as client:
        grant = await here.inbox.open(here.practice.account, "INBOX")
        send_large = Connection.send_large

        async def slow(connection: Connection, content: bytes) -> None:
            await here.inbox.change_flags(grant, [1], FlagChange(FlagAction.ADD, frozenset({"\\Flagged"})))
            await send_large(connection, content)

        monkeypatch.setattr(Connection, "send_large", slow)
        before = grant.mailbox.highest_modseq
        *_, first, news = await client.ok("FETCH 1 (FLAGS BODY.PEEK[] MODSEQ)")
        assert first.startswith(b"* 1 FETCH (FLAGS () BODY[] {%d}" % len(large))
        assert first.endswith(b" MODSEQ (%d))" % before)
        assert news == b"* 1 FETCH (UID 1 FLAGS (\\Flagged) MODSEQ (%d))" % (before + 1)


# --- flags ---


SYSTEM = b"\\Answered \\Flagged \\Deleted \\Seen \\Draft"
GATEWAY_KEYWORDS = b"$DirectLinked $DirectNeedsReview $DirectReviewed $DirectVerified"


async def test_flags_persist_over_sessions(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=[plain_message(1)]) as here:
        async with here.selected() as client:
            assert await client.ok("STORE 1 +FLAGS (\\Seen $Forwarded NewWord)") == [
                b"* FLAGS (" + b" ".join([SYSTEM, GATEWAY_KEYWORDS, b"$Forwarded $MDNSent NewWord"]) + b")",
                b"* 1 FETCH (UID 1 FLAGS (\\Seen $Forwarded NewWord))",
            ]
            assert await client.ok("UID STORE 1 -FLAGS ($forwarded)") == [b"* 1 FETCH (UID 1 FLAGS (\\Seen NewWord))"]
            assert await client.ok("STORE 1 FLAGS \\Flagged newword") == [
                b"* 1 FETCH (UID 1 FLAGS (\\Flagged NewWord))"
            ]
            assert await client.ok("STORE 1 +FLAGS.SILENT (\\Answered)") == []
        async with here.selected() as client:
            assert await client.ok("FETCH 1 FLAGS") == [b"* 1 FETCH (FLAGS (\\Answered \\Flagged NewWord))"]


async def test_sessions_see_each_others_flags_and_lose_none(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=[plain_message(1)]) as here, here.selected() as one, here.selected() as two:

        async def add(client: RawClient, prefix: str) -> None:
            for number in range(10):
                await client.ok(f"STORE 1 +FLAGS.SILENT ({prefix}{number})")

        await asyncio.gather(add(one, "a"), add(two, "b"))
        assert await here.practice.flags() == {f"{prefix}{number}" for prefix in "ab" for number in range(10)}
        await one.ok("STORE 1 FLAGS.SILENT (\\Seen)")
        assert await two.ok("NOOP") == [b"* 1 FETCH (UID 1 FLAGS (\\Seen))"]
        assert await one.ok("NOOP") == []


async def test_too_many_keywords_are_refused(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=[plain_message(1)]) as here, here.selected() as client:
        assert (await client.cmd("STORE 1 +FLAGS (" + " ".join(f"k{n}" for n in range(70)) + ")"))[-1].startswith(b"NO")
        assert (await client.cmd("STORE 1 +FLAGS (" + "k" * 101 + ")"))[-1].startswith(b"NO")
        assert await here.practice.flags() == set()


# --- deletion, the no-delete rules ---


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("STORE 1 +FLAGS (\\Deleted)", b"(\\Flagged)"),
        ("STORE 1 +FLAGS.SILENT (\\Deleted)", b"(\\Flagged)"),
        ("UID STORE 1 +FLAGS.SILENT (\\deleted \\Seen)", b"(\\Flagged \\Seen)"),
        ("STORE 1 FLAGS (\\Deleted \\Seen)", b"(\\Seen)"),
        ("STORE 1 +FLAGS (\\Draft)", b"(\\Flagged)"),
        ("STORE 1 +FLAGS (\\Recent \\Unknown)", b"(\\Flagged)"),
    ],
)
async def test_deleted_is_ignored_and_the_true_flags_are_shown(tmp_path: Path, command: str, flags: bytes) -> None:
    """Also for .SILENT; and every ignored \\Deleted is in the audit log."""
    async with bench(tmp_path, contents=[plain_message(1)]) as here, here.selected() as client:
        await client.ok("STORE 1 FLAGS (\\Flagged)")
        assert await client.ok(command) == [b"* 1 FETCH (UID 1 FLAGS %s)" % flags]
        assert "\\Deleted" not in await here.practice.flags()
        audited = await here.practice.audit("message.delete_ignored")
        assert audited == ([("front.desk", "m00001")] if "eleted" in command else [])
        for expunge in ("EXPUNGE", "UID EXPUNGE 1"):
            assert await client.ok(expunge) == []
        assert await client.ok("SEARCH DELETED") == [b"* SEARCH"]
        assert await client.ok("CLOSE") == []
        assert b"* 1 EXISTS" in await client.ok("SELECT INBOX")


async def test_deleted_is_refused_when_the_site_wants_an_error(tmp_path: Path) -> None:
    """``deleted_flag = refuse``: NO when \\Deleted is the only flag (the Cyrus rule)."""
    settings = replace(SETTINGS, deleted_flag="refuse")
    async with bench(tmp_path, settings, contents=[plain_message(1)]) as here, here.selected() as client:
        for command in (
            "STORE 1 +FLAGS (\\Deleted)",
            "STORE 1 FLAGS.SILENT \\Deleted",
            "UID STORE 1 +FLAGS (\\DELETED)",
        ):
            answer = await client.cmd(command)
            assert answer[-1].startswith(b"NO [NOPERM]")
        assert len(await here.practice.audit("message.delete_ignored")) == 3
        assert await client.ok("STORE 1 +FLAGS (\\Deleted \\Seen)") == [b"* 1 FETCH (UID 1 FLAGS (\\Seen))"]
        assert await client.ok("STORE 1 -FLAGS (\\Deleted)") == [b"* 1 FETCH (UID 1 FLAGS (\\Seen))"]
        assert await client.ok("EXPUNGE") == []


@pytest.mark.parametrize("command", ["COPY 1 Trash", "UID COPY 1 INBOX", "MOVE 1 Trash", "UID MOVE 1 INBOX"])
async def test_copy_and_move_are_refused(tmp_path: Path, command: str) -> None:
    async with bench(tmp_path, contents=[plain_message(1)]) as here, here.selected() as client:
        assert (await client.cmd(command))[-1].startswith(b"NO [NOPERM]")
        assert len(await here.practice.entries()) == 1


async def test_deleting_a_whole_mailbox_is_audited_with_every_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "UNITS_OF_FLAG_CHANGES", 2)
    async with bench(tmp_path, contents=[plain_message(n) for n in range(5)]) as here, here.selected() as client:
        assert len(await client.ok("STORE 1:* +FLAGS (\\Deleted \\Seen)")) == 5
        assert await here.practice.audit("message.delete_ignored") == [("front.desk", "mailbox/1")]
        [event] = await here.practice.store.read(lambda rows: rows.audit.find(AuditQuery(subject="m00003", limit=1)))
        assert json.loads(event.detail)["uids"] in {"1:5", "1:2", "3:4"}
        assert await client.ok("SEARCH SEEN") == [b"* SEARCH 1 2 3 4 5"]


# --- CONDSTORE ---


async def test_condstore(tmp_path: Path) -> None:
    """RFC 7162."""
    async with bench(tmp_path, contents=[plain_message(n) for n in range(3)]) as here, here.selected() as client:
        assert b"* ENABLED CONDSTORE" in await client.ok("ENABLE CONDSTORE")
        (first,) = await client.ok("STORE 2 +FLAGS.SILENT (\\Seen)")
        assert first.startswith(b"* 2 FETCH (UID 2 MODSEQ (")
        modseq = int(first.partition(b"MODSEQ (")[2].partition(b")")[0])
        expected = b"* 2 FETCH (UID 2 FLAGS (\\Seen) MODSEQ (%d))" % modseq
        assert await client.ok(f"UID FETCH 1:* (FLAGS) (CHANGEDSINCE {modseq - 1})") == [expected]
        assert await client.ok(f"FETCH 1:* (FLAGS) (CHANGEDSINCE {modseq})") == []
        assert await client.ok(f"SEARCH MODSEQ {modseq}") == [b"* SEARCH 2 (MODSEQ %d)" % modseq]
        assert await client.ok(f'SEARCH MODSEQ "/flags/\\\\seen" all {modseq}') == [b"* SEARCH 2 (MODSEQ %d)" % modseq]
        *untagged, answer = await client.cmd(f"STORE 1:3 (UNCHANGEDSINCE {modseq - 1}) +FLAGS (\\Flagged)")
        assert answer.startswith(b"OK [MODIFIED 2]")
        assert len(untagged) == 2
        assert await here.practice.flags(2) == {"\\Seen"}
        assert await here.practice.flags(1) == {"\\Flagged"}
        assert await client.ok("STATUS INBOX (HIGHESTMODSEQ)") == [b"* STATUS INBOX (HIGHESTMODSEQ %d)" % (modseq + 1)]


# --- SEARCH ---

FIRST = (
    b"From: Alice <alice@direct.example.net>\r\nTo: b@direct.example.org\r\nCc: c@x.org\r\nSubject: First REPORT\r\n"
    b"Date: Mon, 05 Feb 2024 10:00:00 +0000\r\nX-Tag: yes\r\n\r\nblood pressure\r\n"
)
SECOND = (
    b"From: Bob <bob@direct.example.net>\r\nSubject: =?utf-8?q?M=C3=BCller?=\r\n"
    b"Date: Wed, 06 Mar 2024 10:00:00 +0000\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Transfer-Encoding: base64\r\n\r\nTGFib3JiZWZ1bmQ=\r\n"
)
THIRD = b"From: Alice <alice@direct.example.net>\r\nBcc: d@x.org\r\nSubject: third\r\n\r\n" + b"y" * 3_000
SEARCHABLE = [FIRST, SECOND, THIRD]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("ALL", [1, 2, 3]),
        ("UNSEEN", [2, 3]),
        ("SEEN", [1]),
        ("FLAGGED", [3]),
        ("UNFLAGGED", [1, 2]),
        ("ANSWERED", []),
        ("UNANSWERED", [1, 2, 3]),
        ("DELETED", []),
        ("UNDELETED UNDRAFT", [1, 2, 3]),
        ("DRAFT", []),
        ("NEW", []),
        ("OLD", [1, 2, 3]),
        ("RECENT", []),
        ("KEYWORD $FORWARDED", [3]),
        ("UNKEYWORD $Forwarded", [1, 2]),
        ("KEYWORD unheard", []),
        ("FROM alice", [1, 3]),
        ("TO B@DIRECT", [1]),
        ("CC c@x", [1]),
        ("BCC d@x", [3]),
        ('SUBJECT "first report"', [1]),
        ("SUBJECT x", []),
        ("HEADER X-Tag YES", [1]),
        ('HEADER X-Tag ""', [1]),
        ("BODY pressure", [1]),
        ("BODY laborbefund", [2]),
        ("BODY alice", []),
        ("TEXT alice", [1, 3]),
        ("TEXT laborbefund", [2]),
        ("LARGER 1000", [3]),
        ("SMALLER 1000", [1, 2]),
        ("BEFORE 2-Mar-2024", [1, 2, 3]),
        ("BEFORE 1-Mar-2024", []),
        ('ON "1-Mar-2024"', [1, 2, 3]),
        ("SINCE 02-Mar-2024", []),
        ("SENTBEFORE 1-Mar-2024", [1]),
        ("SENTON 06-mar-2024", [2]),
        ("SENTSINCE 5-Feb-2024", [1, 2]),
        ("2:3", [2, 3]),
        ("UID 1,3", [1, 3]),
        ("UID 9:*", [3]),
        ("NOT 2", [1, 3]),
        ("NOT NOT 2", [2]),
        ("OR FROM bob KEYWORD $Forwarded", [2, 3]),
        ("FROM alice UNSEEN", [3]),
        ("(FROM alice) (OR SEEN (FLAGGED 3))", [1, 3]),
        ("CHARSET UTF-8 SUBJECT {7+}\r\nmüller", [2]),
        ("SUBJECT {7+}\r\nMüller", [2]),
        ("CHARSET us-ascii SUBJECT third", [3]),
    ],
)
async def test_search(tmp_path: Path, query: str, expected: list[int]) -> None:
    """EP-21: every key of RFC 3501."""
    async with bench(tmp_path, contents=SEARCHABLE) as here, here.selected() as client:
        await client.ok("STORE 1 FLAGS (\\Seen)")
        await client.ok("STORE 3 FLAGS (\\Flagged $Forwarded)")
        wanted = b"* SEARCH" + b"".join(b" %d" % number for number in expected)
        assert await client.ok("SEARCH " + query) == [wanted]
        assert await client.ok("UID SEARCH " + query) == [wanted]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("RETURN () ALL", b"ALL 1:3"),
        ("RETURN (MIN MAX COUNT) ALL", b"MIN 1 MAX 3 COUNT 3"),
        ("RETURN (ALL) NOT 2", b"ALL 1,3"),
        ("RETURN (COUNT MIN) KEYWORD nothing", b"COUNT 0"),
    ],
)
async def test_esearch(tmp_path: Path, query: str, expected: bytes) -> None:
    """RFC 4731."""
    async with bench(tmp_path, contents=SEARCHABLE) as here, here.selected() as client:
        await client.send(f"x1 SEARCH {query}\r\nx2 UID SEARCH {query}\r\n".encode())
        assert (await client.until(b"x1"))[0] == b'* ESEARCH (TAG "x1") ' + expected
        assert (await client.until(b"x2"))[0] == b'* ESEARCH (TAG "x2") UID ' + expected


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("CHARSET KOI8-R ALL", b"NO [BADCHARSET (US-ASCII UTF-8)]"),
        ("", b"BAD"),
        ("BOGUS", b"BAD"),
        ("SUBJECT", b"BAD"),
        ("OR SEEN", b"BAD"),
        ("(SEEN", b"BAD"),
        ("()", b"BAD"),
        ("ON 31-Feb-2024", b"BAD"),
        ("SUBJECT {2+}\r\n\xff\xfe", b"BAD"),
        ("NOT " * 200 + "SEEN", b"BAD"),
        ("(" * 200 + "SEEN" + ")" * 200, b"BAD"),
        ("SEEN " * 600 + "SEEN", b"BAD"),
        (" ".join(f"TEXT a{n}" for n in range(60)), b"BAD"),
        ("RETURN (PARTIAL 1:10) ALL", b"BAD"),
        ("RETURN (SAVE", b"BAD"),
        ("EMAILID m@1", b"BAD"),
        ("1,$", b"BAD"),
        ("UID $,2", b"BAD"),
    ],
)
async def test_searches_that_are_refused(tmp_path: Path, query: str, answer: bytes) -> None:
    async with bench(tmp_path, contents=SEARCHABLE) as here, here.selected() as client:
        command = b"SEARCH " + query.encode("latin-1") if query else b"SEARCH"
        assert (await client.cmd(command))[-1].startswith(answer)
        await client.ok("NOOP")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SENTON 2-Mar-2024", b" 2 3 5"),
        ("SENTBEFORE 2-Mar-2024", b" 1"),
        ("SENTSINCE 2-Mar-2024", b" 2 3 4 5"),
        ("SENTON 3-Mar-2024", b" 4"),
        ("SENTBEFORE 31-Dec-9999", b" 1 2 3 4 5"),
        ("SENTSINCE 31-Dec-9999", b""),
    ],
)
async def test_the_day_of_a_message_is_the_one_it_was_written_on(tmp_path: Path, query: str, expected: bytes) -> None:
    """The first and the last second of a day; RFC 3501 6.4.4 disregards the zone. Who sent no date is in none."""
    dates = ["1 Mar 2024 23:59:59 +0000", "2 Mar 2024 00:00:00 +0000", "2 Mar 2024 23:59:59 +0000"]
    dates += ["3 Mar 2024 00:00:00 +0000", "2 Mar 2024 23:00:00 -0100", ""]
    contents = [b"Date: %s\r\n\r\n%d" % (date.encode(), number) for number, date in enumerate(dates)]
    async with bench(tmp_path, contents=contents) as here, here.selected() as client:
        assert await client.ok(f"SEARCH {query}") == [b"* SEARCH" + expected]
