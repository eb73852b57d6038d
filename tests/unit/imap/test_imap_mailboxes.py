"""LIST, STATUS, SELECT, rights: EP-21, EP-23, EP-25, the no-delete rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.imap.mailbox_names import decode_mailbox_name, encode_mailbox_name, matches
from gateway.ports import UnitOfWork
from tests.unit.imap.imap_harness import MULTIPART, bench, plain_message

NESTED = b"Shared/L&AOQ-bs"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ('LIST "" ""', [b'LIST (\\Noselect) "/" ""']),
        (
            'LIST "" *',
            [
                b'LIST (\\HasNoChildren) "/" INBOX',
                b'LIST (\\Noselect \\HasChildren) "/" Shared',
                b'LIST (\\HasNoChildren) "/" ' + NESTED,
            ],
        ),
        ('LIST "" %', [b'LIST (\\HasNoChildren) "/" INBOX', b'LIST (\\Noselect \\HasChildren) "/" Shared']),
        ('LIST "" inbox', [b'LIST (\\HasNoChildren) "/" INBOX']),
        ('LIST "" iN%', [b'LIST (\\HasNoChildren) "/" INBOX']),
        ("LIST Shared/ %", [b'LIST (\\HasNoChildren) "/" ' + NESTED]),
        ('LIST "" Trash', []),
        ('LIST "" "In box"', []),
        (
            'LSUB "" *',
            [
                b'LSUB (\\HasNoChildren) "/" INBOX',
                b'LSUB (\\HasNoChildren) "/" ' + NESTED,
            ],
        ),
        (
            'LIST (SUBSCRIBED) "" "*" RETURN (SPECIAL-USE)',
            [b'LIST (\\Subscribed \\HasNoChildren) "/" INBOX', b'LIST (\\Subscribed \\HasNoChildren) "/" ' + NESTED],
        ),
        (
            'LIST (SUBSCRIBED RECURSIVEMATCH) "" "%"',
            [
                b'LIST (\\Subscribed \\HasNoChildren) "/" INBOX',
                b'LIST (\\NonExistent \\HasChildren) "/" Shared ("CHILDINFO" ("SUBSCRIBED"))',
            ],
        ),
        ('LIST (SPECIAL-USE) "" "*"', []),
        (
            'LIST "" (INBOX Shared/*) RETURN (CHILDREN SUBSCRIBED)',
            [b'LIST (\\Subscribed \\HasNoChildren) "/" INBOX', b'LIST (\\Subscribed \\HasNoChildren) "/" ' + NESTED],
        ),
        (
            'LIST "" INBOX RETURN (STATUS (MESSAGES UNSEEN))',
            [b'LIST (\\HasNoChildren) "/" INBOX', b"STATUS INBOX (MESSAGES 2 UNSEEN 2)"],
        ),
        ("NAMESPACE", [b'NAMESPACE (("" "/")) NIL NIL']),
        ("STATUS inbox (MESSAGES RECENT UIDNEXT UNSEEN)", [b"STATUS INBOX (MESSAGES 2 RECENT 0 UIDNEXT 3 UNSEEN 2)"]),
        (b"STATUS " + NESTED + b" (MESSAGES)", [b"STATUS " + NESTED + b" (MESSAGES 0)"]),
        ("STATUS INBOX (SIZE)", [b"STATUS INBOX (SIZE %d)" % (len(MULTIPART) + len(plain_message(2)))]),
        ("SUBSCRIBE INBOX", []),
        ("UNSUBSCRIBE INBOX", []),
        ("MYRIGHTS Inbox", [b"MYRIGHTS INBOX lrsw"]),
        ("ENABLE UTF8=ACCEPT X-NOTHING", [b"ENABLED"]),
        ("ENABLE CONDSTORE", [b"ENABLED CONDSTORE"]),
    ],
)
async def test_answers(tmp_path: Path, command: str | bytes, expected: list[bytes]) -> None:
    async with bench(tmp_path, contents=[MULTIPART, plain_message(2)]) as here, here.client() as client:
        await client.login()
        assert await client.ok(command) == [b"* " + line for line in expected]


async def test_select_says_what_imap_md_4_1_says(tmp_path: Path) -> None:
    """READ-WRITE, PERMANENTFLAGS without \\Deleted; the name of INBOX in any case (EP-25)."""
    async with bench(tmp_path, contents=[MULTIPART, plain_message(2)]) as here, here.client() as client:
        await client.login()
        *untagged, answer = await client.cmd("SELECT iNbOx")
        assert answer.startswith(b"OK [READ-WRITE]")
        text = b"\n".join(untagged)
        assert b"* OK [PERMANENTFLAGS (\\Seen \\Answered \\Flagged $Forwarded $MDNSent $DirectReviewed \\*)]" in text
        assert b"* 2 EXISTS" in untagged
        assert b"* 0 RECENT" in untagged
        for code in (b"[UNSEEN 1]", b"[UIDVALIDITY ", b"[UIDNEXT 3]", b"[HIGHESTMODSEQ "):
            assert b"* OK " + code in text
        *untagged, answer = await client.cmd("EXAMINE INBOX")
        assert answer.startswith(b"OK [READ-ONLY]")
        assert b"* OK [PERMANENTFLAGS ()]" in b"\n".join(untagged)
        await client.ok("FETCH 1 BODY[]")
        assert await here.practice.flags() == set()
        assert await here.practice.audit("message.read") == [("front.desk", "m00001")]
        assert (await client.cmd("STORE 1 +FLAGS (\\Seen)"))[-1].startswith(b"NO")


async def test_a_failed_select_leaves_the_mailbox(tmp_path: Path) -> None:
    """RFC 3501 6.3.1."""
    async with bench(tmp_path, contents=[MULTIPART]) as here, here.selected() as client:
        assert (await client.cmd("SELECT Trash"))[-1].startswith(b"NO [NONEXISTENT]")
        assert (await client.cmd("FETCH 1 FLAGS"))[-1].startswith(b"BAD")
        await client.ok("SELECT INBOX")
        await client.ok("UNSELECT")
        assert (await client.cmd("CHECK"))[-1].startswith(b"BAD")


async def test_uids_are_stable(tmp_path: Path) -> None:
    """EP-23: over sessions, arrivals, attempts to delete, and a restart of the server."""

    async def listing() -> tuple[list[bytes], list[bytes]]:
        async with here.client() as client:
            await client.login()
            validity = [line for line in await client.ok("SELECT INBOX") if b"UIDVALIDITY" in line]
            return validity, await client.ok("UID SEARCH ALL")

    async with bench(tmp_path, contents=[plain_message(1), plain_message(2)]) as here:
        validity, uids = await listing()
        assert uids == [b"* SEARCH 1 2"]
        async with here.selected() as client:
            await client.ok("STORE 1 +FLAGS (\\Deleted)")
            await client.ok("EXPUNGE")
        await here.practice.file(plain_message(3))
        assert await listing() == (validity, [b"* SEARCH 1 2 3"])


async def test_rights_of_the_grant_count(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=[plain_message(1)]) as here:
        practice = here.practice

        def grant(unit: UnitOfWork) -> None:
            unit.accounts.grant(practice.account.id, "Reading", practice.inbox_id, "lr")
            unit.accounts.grant(practice.account.id, "Seeing", practice.inbox_id, "lrs")
            unit.accounts.grant(practice.account.id, "Listed", practice.inbox_id, "l")

        await practice.store.write(grant)
        async with here.client() as client:
            await client.login()
            assert await client.ok("MYRIGHTS Seeing") == [b"* MYRIGHTS Seeing lrs"]
            assert (await client.cmd("SELECT Listed"))[-1].startswith(b"NO [NOPERM]")
            assert b'* LIST (\\HasNoChildren) "/" Listed' in await client.ok('LIST "" * RETURN (STATUS (MESSAGES))')
            assert (await client.cmd("SELECT Reading"))[-1].startswith(b"OK [READ-ONLY]")
            await client.ok("FETCH 1 BODY[]")
            assert await practice.flags() == set()
            assert (await client.cmd("SELECT Seeing"))[-1].startswith(b"OK [READ-WRITE]")
            assert await client.ok("STORE 1 +FLAGS (\\Flagged \\Seen $Word)") == [b"* 1 FETCH (UID 1 FLAGS (\\Seen))"]
            assert await practice.flags() == {"\\Seen"}


async def test_a_folder_of_somebody_else_does_not_exist(tmp_path: Path) -> None:
    async with bench(tmp_path) as here:
        at = here.practice.clock.now()
        await here.practice.store.write(lambda unit: unit.mailboxes.create("Other", at, []))
        async with here.client() as client:
            await client.login()
            for command in (
                "SELECT Other",
                "STATUS Other (MESSAGES)",
                "MYRIGHTS Other",
                "SUBSCRIBE Other",
                "SELECT desk",
            ):
                assert (await client.cmd(command))[-1] == b"NO [NONEXISTENT] No such mailbox or message", command


@pytest.mark.parametrize(
    "command",
    [
        "CREATE Trash",
        "CREATE INBOX/x (USE (\\Trash))",
        "DELETE INBOX",
        "RENAME INBOX Old",
        "APPEND INBOX {3}",
        "APPEND INBOX (\\Seen) {3+}\r\nabc",
        "LISTRIGHTS INBOX someone",
        "SETACL INBOX someone lrswt",
        "DELETEACL INBOX someone",
    ],
)
async def test_nothing_can_be_made_or_removed(tmp_path: Path, command: str) -> None:
    """The no-delete rules; Thunderbird's CREATE "Trash" gets a NO and it goes on."""
    async with bench(tmp_path, contents=[MULTIPART]) as here, here.client() as client:
        await client.login()
        before = await client.ok('LIST "" *')
        assert (await client.cmd(command))[-1].startswith(b"NO [NOPERM]")
        assert await client.ok('LIST "" *') == before
        assert await client.ok("STATUS INBOX (MESSAGES)") == [b"* STATUS INBOX (MESSAGES 1)"]


@pytest.mark.parametrize(
    "name", ["INBOX", "Läbs", "a&b", "&", "日本語/x", "a\x01b", "😀", "é&é", "", "~peter/mail/台北"]
)
def test_modified_utf7_comes_back(name: str) -> None:
    assert decode_mailbox_name(encode_mailbox_name(name)) == name


def test_modified_utf7_of_the_rfc() -> None:
    assert encode_mailbox_name("~peter/mail/台北/日本語") == b"~peter/mail/&U,BTFw-/&ZeVnLIqe-"


@pytest.mark.parametrize(
    "name", [b"&", b"&x", b"a&AGE-", b"&AOQ", b"\xc3\xa4", b"&2D0-", b"&&-", b"&AOQ--&AOQ-", b"x" * 1001]
)
def test_other_spellings_are_refused(name: bytes) -> None:
    """Two spellings must never mean one mailbox."""
    if name == b"&AOQ--&AOQ-":
        assert decode_mailbox_name(name) == "ä-ä"
        return
    with pytest.raises(ValueError):
        decode_mailbox_name(name)


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("*", "a/b", True),
        ("%", "a/b", False),
        ("%/%", "a/b", True),
        ("a%", "a/b", False),
        ("a*b", "a/x/b", True),
        ("*b", "a/x", False),
        ("inbox", "INBOX", True),
        ("Inbox", "inbox/x", False),
        ("A", "a", False),
        ("", "a", False),
        ("a", "ab", False),
    ],
)
def test_patterns(pattern: str, name: str, expected: bool) -> None:
    assert matches(pattern, name) is expected


def test_a_hostile_pattern_takes_no_time() -> None:
    assert not matches("*a%" * 300, "a" * 200 + "b/")
