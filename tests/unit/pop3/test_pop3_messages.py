"""Commands about messages: STAT, LIST, UIDL, RETR, TOP, DELE, RSET, QUIT. EP-29, EP-30, ON-10."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import StoreError
from gateway.inbox.maildrops import restore_listing
from gateway.ports import UnitOfWork
from tests.unit.imap.imap_harness import MULTIPART
from tests.unit.pop3.pop3_harness import Bench, RawClient, bench, plain_message

DOTS = plain_message(2, b".\r\n..\r\n...three\r\n.one\r\n\r\n.")
CONTENTS = [MULTIPART, DOTS, plain_message(3, b"\xff\x00 8 bits and NUL\r\n")]


def ended(content: bytes) -> bytes:
    return content if content.endswith(b"\r\n") else content + b"\r\n"


# --- the cases of EP-30 ---


async def test_ep30_stat(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=CONTENTS) as here, here.logged_in() as client:
        total = sum(map(len, CONTENTS))
        assert await client.ok("STAT") == b"3 %d" % total
        await client.ok("DELE 2")
        assert await client.ok("STAT") == b"2 %d" % (total - len(DOTS))


async def test_ep30_list(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=CONTENTS) as here, here.logged_in() as client:
        sizes = [b"%d %d" % (number, len(content)) for number, content in enumerate(CONTENTS, 1)]
        assert await client.ok("LIST 2") == sizes[1]
        assert await client.lines("LIST") == sizes
        await client.ok("DELE 2")
        assert await client.lines("list") == [sizes[0], sizes[2]]
        assert await client.err("LIST 2") == b"The message is marked as deleted"


async def test_ep30_list_of_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path) as here, here.logged_in() as client:
        assert await client.ok("STAT") == b"0 0"
        assert await client.raw_lines("LIST") == b""
        assert await client.raw_lines("UIDL") == b""


async def test_ep30_retr(tmp_path: Path) -> None:
    """The bytes are those that were verified."""
    async with bench(tmp_path, contents=CONTENTS) as here, here.logged_in() as client:
        for number, content in enumerate(CONTENTS, 1):
            assert await client.message(f"RETR {number}") == ended(content)
        await client.ok("DELE 1")
        assert await client.err("RETR 1") == b"The message is marked as deleted"


async def test_ep30_rset(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=CONTENTS) as here:
        async with here.logged_in() as client:
            before = await client.ok("STAT")
            await client.ok("DELE 1")
            await client.ok("DELE 3")
            assert await client.ok("RSET") == b"3 messages"
            assert await client.ok("STAT") == before
            await client.ok("QUIT")
        assert len(await here.uidls()) == 3


async def test_ep30_noop_and_quit_after_login(tmp_path: Path) -> None:
    async with bench(tmp_path) as here, here.logged_in() as client:
        assert await client.ok("NOOP") == b"Done"
        assert {b"USER", b"SASL PLAIN", b"EXPIRE NEVER"} <= set(await client.lines("CAPA"))
        assert await client.ok("QUIT") == b"Goodbye"
        assert await client.closed()


# --- TOP and UIDL ---


async def test_top(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=CONTENTS) as here, here.logged_in() as client:
        header = b"From: a@direct.example.net\r\nSubject: number 2\r\n\r\n"
        assert await client.message("TOP 2 0") == header
        assert await client.message("TOP 2 2") == header + b".\r\n..\r\n"
        assert await client.message("TOP 2 1000") == DOTS + b"\r\n"


async def test_unique_ids_stay_and_are_never_used_again(tmp_path: Path) -> None:
    """RFC 1939 section 7: printable, at most 70 octets; the same later, when messages came or were hidden."""
    async with bench(tmp_path, contents=CONTENTS) as here:
        first = await here.uidls()
        assert len(set(first)) == 3
        assert all(1 <= len(unique) <= 70 and unique.isascii() and b" " not in unique for unique in first)
        async with here.logged_in() as client:
            assert await client.ok("UIDL 2") == b"2 " + first[1]
            await client.ok("DELE 2")
            assert [line.split()[1] for line in await client.lines("UIDL")] == [first[0], first[2]]
            await client.ok("QUIT")
        await here.practice.file(plain_message(4))
        later = await here.uidls()
        assert later[:2] == [first[0], first[2]]
        assert later[2] not in first


async def test_messages_of_two_folders_have_different_unique_ids(tmp_path: Path) -> None:
    """Mailboxes made in one second have one UIDVALIDITY; a client that is given another must not pass over its mail."""
    async with bench(tmp_path, contents=[plain_message(1)]) as here:
        practice = here.practice
        first = await here.uidls()
        await practice.file(plain_message(2), practice.nested_id)
        await practice.store.write(
            lambda unit: unit.accounts.grant(practice.account.id, "INBOX", practice.nested_id, "lrsw")
        )
        assert not set(first) & set(await here.uidls())


async def test_a_session_sees_the_messages_of_its_login(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=CONTENTS) as here, here.logged_in() as client:
        before = await client.ok("STAT")
        await here.practice.file(plain_message(4))
        async with here.logged_in() as other:
            assert (await other.ok("STAT")).startswith(b"4 ")
        assert await client.ok("STAT") == before
        assert len(await client.lines("UIDL")) == 3
        await client.err("RETR 4")


# --- what is deleted ---


async def test_what_is_deleted_leaves_this_listing_and_nothing_else(tmp_path: Path) -> None:
    """EP-29: the message is in the store, in the mailbox, and in the listing of everybody else."""
    async with bench(tmp_path, contents=CONTENTS) as here:
        practice = here.practice

        def add(unit: UnitOfWork) -> Any:
            account_id = unit.accounts.add("other", "x", practice.clock.now())
            unit.accounts.grant(account_id, "INBOX", practice.inbox_id, "lrsw")
            return unit.accounts.by_login("other")

        here.authenticator.accounts["other", "x"] = await practice.store.write(add)
        entries = await practice.entries()
        async with here.logged_in() as client:
            await client.ok("DELE 1")
            await client.ok("DELE 2")
            assert await client.err("DELE 2") == b"The message is marked as deleted"
            await client.ok("QUIT")
        assert len(await here.uidls()) == 1
        assert await practice.entries() == entries
        async with here.client() as other:
            await other.login("other", "x")
            assert (await other.ok("STAT")).startswith(b"3 ")
            assert await other.message("RETR 2") == ended(DOTS)
        async with here.logged_in() as client:
            assert await client.message("RETR 1") == CONTENTS[2]


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_without_quit_nothing_is_hidden(tmp_path: Path, end: str) -> None:
    """RFC 1939 section 6: only QUIT enters the UPDATE state."""
    async with bench(tmp_path, contents=CONTENTS) as here:
        async with here.logged_in() as client:
            await client.ok("DELE 1")
            if end == "abort":
                client.writer.transport.abort()
        while here.listener.connections:
            await asyncio.sleep(0.01)
        assert len(await here.uidls()) == 3


async def test_every_attempt_is_audited_once_a_session(tmp_path: Path) -> None:
    """ON-10: also one that is taken back, before its answer; QUIT names what left the listing."""
    async with bench(tmp_path, contents=CONTENTS) as here:
        async with here.logged_in() as client:
            await client.ok("DELE 1")
            assert len(await here.events("message.delete_ignored")) == 1
            await client.ok("RSET")
            await client.ok("DELE 1")
            await client.ok("DELE 3")
            await client.ok("QUIT")
        attempts = await here.events("message.delete_ignored")
        assert [(subject, detail["protocol"], detail["uid"]) for _, subject, detail in attempts] == [
            ("m00001", "pop3", 1), ("m00003", "pop3", 3)
        ]  # fmt: skip
        ((_, subject, detail),) = await here.events("message.hidden")
        assert subject == f"mailbox/{here.practice.inbox_id}"
        assert (detail["uids"], detail["hidden"], detail["protocol"]) == ("1,3", 2, "pop3")


async def test_two_sessions_hide_the_same_message_once(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=CONTENTS) as here:
        async with here.logged_in() as first, here.logged_in() as second:
            await first.ok("DELE 1")
            await second.ok("DELE 1")
            await second.ok("DELE 2")
            await first.ok("QUIT")
            await second.ok("QUIT")
        practice = here.practice
        runs = await practice.store.read(lambda unit: unit.pop3.hidden(practice.account.id, practice.inbox_id))
        assert runs == [(1, 1), (2, 2)]
        assert [detail["hidden"] for _, _, detail in await here.events("message.hidden")] == [1, 1]


async def test_restore_shows_everything_again(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=CONTENTS) as here:
        practice = here.practice

        async def delete(*numbers: int) -> None:
            async with here.logged_in() as client:
                for number in numbers:
                    await client.ok(f"DELE {number}")
                await client.ok("QUIT")

        before = await here.uidls()
        await delete(1, 2, 3)
        assert await here.uidls() == []
        restored = await restore_listing(practice.store, practice.clock, practice.account.login.upper(), "cli:op")
        assert restored == 3
        assert await here.uidls() == before
        # The same again: what was hidden in an earlier round counts no more, and nothing is in the way.
        await delete(2)
        assert await here.uidls() == [before[0], before[2]]
        assert await restore_listing(practice.store, practice.clock, practice.account.login, "cli:op") == 1
        assert await restore_listing(practice.store, practice.clock, practice.account.login, "cli:op") == 0
        assert await here.uidls() == before
        events = await here.events("pop3.restored")
        assert [detail["messages"] for _, _, detail in events] == [3, 1, 0]


async def _no_write(_work: Any, *, urgent: bool = False) -> Any:
    raise StoreError("disk")


async def test_a_quit_that_cannot_be_kept_says_so_and_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 1939 section 6: -ERR, and the session is over all the same."""
    async with bench(tmp_path, contents=CONTENTS) as here:
        async with here.logged_in() as client:
            await client.ok("DELE 1")
            monkeypatch.setattr(here.practice.store, "write", _no_write)
            assert await client.err("QUIT") == b"[SYS/TEMP] No message was removed, please try again"
            assert await client.closed()
        monkeypatch.undo()
        assert len(await here.uidls()) == 3


# --- what is read ---


async def test_retr_is_recorded_before_the_first_byte_and_marks_seen(tmp_path: Path) -> None:
    r"""ON-10, once a session; \Seen as Dovecot does, and TOP and LIST leave it alone."""
    async with bench(tmp_path, contents=CONTENTS) as here:
        async with here.logged_in() as client:
            await client.lines("LIST")
            await client.lines("UIDL")
            assert await here.events("message.read", "message.listed") == []
            await client.message("TOP 1 0")
            await client.message("TOP 1 0")
            assert await here.practice.flags(1) == set()
            await client.message("RETR 2")
            await client.message("RETR 2")
            await client.message("TOP 2 0")
            await client.message("TOP 3 5")
        looks = await here.events("message.read", "message.listed", "message.flags")
        assert [(action, subject, detail["protocol"]) for action, subject, detail in looks] == [
            ("message.listed", "m00001", "pop3"),
            ("message.read", "m00002", "pop3"),
            ("message.read", "m00003", "pop3"),
        ]
        assert [detail.get("peek") for _, _, detail in looks] == [True, None, True]
        assert await here.practice.flags(2) == {"\\Seen"}
        assert await here.practice.flags(3) == set()


async def test_without_the_right_to_seen_it_stays_unread(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=CONTENTS) as here:
        practice = here.practice
        await practice.store.write(
            lambda unit: unit.accounts.grant(practice.account.id, "INBOX", practice.inbox_id, "lr")
        )
        async with here.logged_in() as client:
            await client.message("RETR 1")
        assert await practice.flags(1) == set()
        assert len(await here.events("message.read")) == 1


async def test_without_the_right_to_read_there_is_no_maildrop(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=CONTENTS) as here, here.client() as client:
        practice = here.practice
        await practice.store.write(
            lambda unit: unit.accounts.grant(practice.account.id, "INBOX", practice.inbox_id, "l")
        )
        await client.ok(f"USER {practice.account.login}")
        with pytest.raises(AssertionError, match=r"\[SYS/PERM\] This login has no folder"):
            await client.login()


async def test_rights_that_are_taken_away_hold_at_once(tmp_path: Path) -> None:
    """As over IMAP: the session may end, and take back what it marked, but sees nothing any more."""
    async with bench(tmp_path, contents=CONTENTS) as here, here.logged_in() as client:
        practice = here.practice

        async def allow(rights: str) -> None:
            await practice.store.write(
                lambda unit: unit.accounts.grant(practice.account.id, "INBOX", practice.inbox_id, rights)
            )
            await asyncio.sleep(0.03)

        await client.ok("DELE 3")
        await allow("lr")
        await client.message("RETR 1")
        assert await practice.flags(1) == set()
        await allow("")
        for command in ("STAT", "LIST", "LIST 1", "UIDL", "RETR 1", "TOP 1 0", "DELE 1"):
            assert await client.err(command) == b"[SYS/PERM] The right to read these messages was taken away"
        await client.ok("NOOP")
        await client.ok("RSET")
        await client.ok("QUIT")
        assert len(await here.events("message.read")) == 1


async def test_what_cannot_be_recorded_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(tmp_path, contents=CONTENTS) as here, here.logged_in() as client:
        monkeypatch.setattr(here.practice.store, "write", _no_write)
        for command in ("RETR 1", "TOP 1 0", "DELE 1"):
            assert await client.err(command) == b"[SYS/TEMP] Temporary failure, please try again"
        monkeypatch.undo()
        assert await client.message("RETR 1") == MULTIPART


# --- size ---


async def _many(here: Bench, count: int) -> None:
    """Put rows of so many messages in, as one message of the store each would take minutes."""
    practice = here.practice
    for number in range(count):
        await practice.file(plain_message(number), hint=False)


async def _listing(client: RawClient, command: str) -> list[bytes]:
    return [line.split()[1] for line in await client.lines(command)]


async def test_listings_of_more_than_a_portion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.inbox.maildrops.AT_ONCE", 7)
    async with bench(tmp_path) as here:
        await _many(here, 40)
        async with here.logged_in() as client:
            uids = await _listing(client, "UIDL")
            sizes = await _listing(client, "LIST")
            assert [int(size) for size in sizes] == [len(plain_message(number)) for number in range(40)]
            assert len(set(uids)) == 40
            for number in (1, 7, 8, 9, 20, 40):
                await client.ok(f"DELE {number}")
            await client.ok("QUIT")
        async with here.logged_in() as client:
            left = [uid for number, uid in enumerate(uids, 1) if number not in {1, 7, 8, 9, 20, 40}]
            assert await _listing(client, "UIDL") == left
            assert await client.message("RETR 2") == plain_message(2)
            assert await client.message("RETR 34") == plain_message(38)
        practice = here.practice
        runs = await practice.store.read(lambda unit: unit.pop3.hidden(practice.account.id, practice.inbox_id))
        assert runs == [(1, 1), (7, 9), (20, 20), (40, 40)]
