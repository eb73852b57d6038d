"""Unlinked and Linked as a mail client meets them: folders, UIDs, what moves, what is told (S33), reviews (S53)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.standing import ReviewState, Standing
from gateway.ports import Link, Patient, UnitOfWork
from tests.unit.imap.imap_harness import SETTINGS, Bench, RawClient, bench, plain_message

UNLINKED = Standing(decided=True)
ON_CHART = Standing(linked=True, decided=True)
WITH_VIEWS = replace(SETTINGS, views=True)


@pytest.fixture
async def clinic(tmp_path: Path) -> AsyncIterator[Bench]:
    """Four messages; the second one was linked when it came."""
    async with bench(tmp_path, WITH_VIEWS) as made:
        for number in (1, 2, 3, 4):
            standing = ON_CHART if number == 2 else UNLINKED
            await made.practice.file(plain_message(number, b"text of %d\r\n" % number), standing=standing)
        at = made.practice.clock.now()
        await made.practice.store.write(lambda tx: tx.patients.upsert([Patient("P1")], "test", at))
        yield made


async def put_on_chart(clinic: Bench, *numbers: int) -> None:
    """Link messages, as a command in another process does, and hint at it."""

    def work(tx: UnitOfWork) -> list[int]:
        at = clinic.practice.clock.now()
        for number in numbers:
            tx.links.add(Link(f"L{number}", f"m{number:05d}", "P1", "manual", "jane", "manual", at))
        return tx.standings.settle([f"m{number:05d}" for number in numbers])

    for mailbox_id in await clinic.practice.store.write(work):
        clinic.practice.hub.changed(mailbox_id)


async def lines(client: RawClient, command: str) -> list[str]:
    return [line.decode() for line in await client.ok(command)]


async def test_the_views_stand_beside_the_mailboxes(clinic: Bench) -> None:
    async with clinic.selected() as client:
        listed = await lines(client, 'LIST "" *')
        assert [line.rpartition('"/" ')[2] for line in listed] == [
            "INBOX", "Linked", "Shared", "Shared/L&AOQ-bs", "Shared/L&AOQ-bs/Linked", "Shared/L&AOQ-bs/Unlinked",
            "Unlinked",
        ]  # fmt: skip
        assert await lines(client, "STATUS Unlinked (MESSAGES UIDNEXT UNSEEN)") == [
            "* STATUS Unlinked (MESSAGES 3 UIDNEXT 4 UNSEEN 3)"
        ]
        assert await lines(client, "STATUS Linked (MESSAGES UIDNEXT UNSEEN)") == [
            "* STATUS Linked (MESSAGES 1 UIDNEXT 2 UNSEEN 1)"
        ]
        assert await lines(client, 'STATUS "Shared/L&AOQ-bs/Linked" (MESSAGES)') == [
            "* STATUS Shared/L&AOQ-bs/Linked (MESSAGES 0)"
        ]
        told = [await lines(client, f"STATUS {name} (SIZE)") for name in ("INBOX", "Linked", "Unlinked")]
        whole, linked, unlinked = (int(line.rpartition(" ")[2].rstrip(")")) for [line] in told)
        assert linked + unlinked == whole > 0


async def test_a_real_folder_of_that_name_comes_first(tmp_path: Path) -> None:
    async with bench(tmp_path, WITH_VIEWS) as made:
        practice, nested = made.practice, made.practice.nested_id
        await practice.store.write(lambda tx: tx.accounts.grant(practice.account.id, "Linked", nested, "lr"))
        folders = {folder.name: folder for folder in await made.inbox.folders(practice.account)}
        assert (folders["Linked"].view, folders["Linked"].mailbox_id) == ("", nested)
        assert (folders["Unlinked"].view, folders["Unlinked"].rights) == ("unlinked", "lrsw")


async def test_without_the_setting_there_are_none(tmp_path: Path) -> None:
    async with bench(tmp_path, SETTINGS) as made, made.selected() as client:
        assert (await client.cmd("SELECT Unlinked"))[-1].startswith(b"NO [NONEXISTENT]")


async def test_a_view_shows_the_messages_of_the_mailbox(clinic: Bench) -> None:
    async with clinic.selected("Unlinked") as client:
        found = await client.ok("FETCH 1:* (UID BODY.PEEK[] RFC822.SIZE ENVELOPE)")
        for number, line in zip((1, 3, 4), found, strict=True):
            assert b"text of %d\r\n" % number in line
            assert b"number %d" % number in line
        assert [line.split()[4] for line in found] == [b"1", b"2", b"3"], "UIDs of its own"
        assert await lines(client, "UID SEARCH BODY {9+}\r\ntext of 4") == ["* SEARCH 3"]
        assert await lines(client, 'SEARCH SUBJECT "number 2"') == ["* SEARCH"]
        assert await lines(client, 'SEARCH KEYWORD $DirectNeedsReview SUBJECT "number 3"') == ["* SEARCH 2"]
        # What is written down is about the mailbox, whichever way a message was looked at.
        looks = await clinic.practice.looks()
        assert looks == [("message.read", "mailbox/1", "1,3:4")]


async def test_what_is_seen_in_a_view_is_seen_in_the_mailbox(clinic: Bench) -> None:
    async with clinic.selected("Unlinked") as client, clinic.selected() as inbox:
        await client.ok("FETCH 2 BODY[TEXT]")
        assert "\\Seen" in await clinic.practice.flags(3)
        await client.ok("UID STORE 3 +FLAGS (\\Flagged urgent)")
        assert {"\\Flagged", "urgent"} <= await clinic.practice.flags(4)
        told = await lines(inbox, "NOOP")
        assert any(line.startswith("* 3 FETCH (UID 3 FLAGS (\\Seen") for line in told)
        assert any(line.startswith("* 4 FETCH (UID 4 FLAGS (\\Flagged") for line in told)
        assert await lines(client, "STATUS Unlinked (UNSEEN)") == ["* STATUS Unlinked (UNSEEN 2)"]
        assert await lines(client, "SEARCH UNSEEN") == ["* SEARCH 1 3"]
        await inbox.ok("STORE 1 +FLAGS.SILENT (\\Seen)")
        assert any(line.startswith("* 1 FETCH (UID 1 FLAGS (\\Seen") for line in await lines(client, "NOOP"))


async def test_a_linked_message_moves_and_whoever_idles_is_told(clinic: Bench) -> None:
    async with clinic.selected("Unlinked") as client, clinic.selected("Linked") as linked, clinic.selected() as inbox:
        for one in (client, linked, inbox):
            await one.send(b"i IDLE\r\n")
            assert (await one.response()).startswith(b"+")
        await put_on_chart(clinic, 3)
        assert await client.response() == b"* 2 EXPUNGE"
        assert await linked.response() == b"* 2 EXISTS"
        assert (await inbox.response()).startswith(b"* 3 FETCH (UID 3 FLAGS ($DirectLinked $DirectVerified)")
        for one in (client, linked, inbox):
            await one.send(b"DONE\r\n")
            while not (await one.response()).startswith(b"i OK"):
                pass
        found = await client.ok("UID FETCH 1:* (FLAGS)")
        assert [line.split()[4] for line in found] == [b"1", b"3"]
        assert (await lines(linked, "UID FETCH 2 (BODY.PEEK[TEXT])"))[0].endswith("text of 3\r\n)")


async def test_numbers_hold_while_messages_leave(clinic: Bench) -> None:
    """RFC 3501 7.4.1: a message that left is not announced while FETCH, STORE or SEARCH is answered."""
    async with clinic.selected("Unlinked") as client:
        await put_on_chart(clinic, 1, 4)
        found = await client.ok("FETCH 3 (BODY.PEEK[TEXT])")
        assert not any(b"EXPUNGE" in line for line in found)
        assert await lines(client, "NOOP") == ["* 3 EXPUNGE", "* 1 EXPUNGE"]
        assert b"text of 3" in (await client.ok("FETCH 1 (BODY.PEEK[TEXT])"))[0]
        assert await lines(client, "STATUS Unlinked (MESSAGES UIDNEXT)") == ["* STATUS Unlinked (MESSAGES 1 UIDNEXT 4)"]


async def test_a_client_that_comes_back_asks_what_vanished(clinic: Bench) -> None:
    async with clinic.client() as client:
        await client.login()
        await client.ok("ENABLE QRESYNC")
        found = await client.ok("SELECT Unlinked")
        [validity] = [line.split()[3].rstrip(b"]") for line in found if b"UIDVALIDITY" in line]
        [modseq] = [line.split()[3].rstrip(b"]") for line in found if b"HIGHESTMODSEQ" in line]
        await client.ok("UNSELECT")
        await put_on_chart(clinic, 1)
        again = await client.ok(f"SELECT Unlinked (QRESYNC ({validity.decode()} {modseq.decode()}))")
        assert b"* VANISHED (EARLIER) 1" in again
        assert any(b"2 EXISTS" in line for line in again)


async def test_nobody_but_the_gateway_says_verified_or_linked(clinic: Bench) -> None:
    async with clinic.selected() as client:
        permanent = next(line for line in await lines(client, "SELECT INBOX") if "PERMANENTFLAGS" in line)
        assert "$DirectReviewed" in permanent
        for keyword in ("$DirectVerified", "$DirectLinked", "$DirectNeedsReview"):
            assert keyword not in permanent
        for attempt in ("+FLAGS ($DirectLinked)", "+FLAGS.SILENT ($DIRECTLINKED)", "FLAGS ($directlinked \\Seen)"):
            answer = await lines(client, f"STORE 1 {attempt}")
            assert "$DirectLinked" not in answer[0], attempt
            assert "$DirectNeedsReview $DirectVerified" in answer[0], "the true flags are shown"
        for attempt in ("-FLAGS ($DirectVerified)", "FLAGS.SILENT ()", "-FLAGS ($directneedsreview $DirectVerified)"):
            await client.ok(f"STORE 1 {attempt}")
            assert {"$DirectVerified", "$DirectNeedsReview"} <= await clinic.practice.flags(1), attempt
        assert await lines(client, "STORE 2 FLAGS.SILENT (\\Seen)") == [
            "* 2 FETCH (UID 2 FLAGS (\\Seen $DirectLinked $DirectVerified))"
        ]
        assert await lines(client, "STORE 2 +FLAGS.SILENT (\\Flagged)") == []


async def test_a_review_is_kept_and_seen_by_all(clinic: Bench) -> None:
    practice = clinic.practice
    async with clinic.selected("Unlinked") as client, clinic.selected() as inbox:
        answer = await lines(client, "UID STORE 2 +FLAGS ($directreviewed)")
        assert answer == ["* 2 FETCH (UID 2 FLAGS ($DirectReviewed $DirectVerified))"]
        assert "* 3 FETCH (UID 3 FLAGS ($DirectReviewed $DirectVerified))" in await lines(inbox, "NOOP")
        assert await lines(inbox, "STATUS Unlinked (MESSAGES)") == ["* STATUS Unlinked (MESSAGES 3)"]
        # A program that replaces all flags has not heard of reviews; it takes none back.
        await inbox.ok("STORE 3 FLAGS (\\Seen)")
        assert "$DirectReviewed" in await practice.flags(3)
        await inbox.ok("STORE 3 -FLAGS ($DirectReviewed)")
        assert await practice.flags(3) == {"\\Seen", "$DirectVerified", "$DirectNeedsReview"}
        history = await practice.store.read(lambda tx: tx.reviews.for_message("m00003"))
        assert [(r.state, r.actor) for r in history] == [
            (ReviewState.REVIEWED, "front.desk"),
            (ReviewState.WITHDRAWN, "front.desk"),
        ]
        assert await practice.audit("message.reviewed") == [("front.desk", "m00003")] * 2


async def test_who_may_not_write_flags_reviews_nothing(clinic: Bench) -> None:
    practice = clinic.practice
    await practice.store.write(lambda tx: tx.accounts.grant(practice.account.id, "INBOX", practice.inbox_id, "lrs"))
    async with clinic.selected() as client:
        await client.ok("STORE 1:* +FLAGS ($DirectReviewed)")
        assert await practice.audit("message.reviewed") == []
        assert "$DirectReviewed" not in await practice.flags(1)
