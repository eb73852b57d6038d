"""The Quarantine folder: reports for operators, and nobody else learns of it."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.core.lifecycle import State
from gateway.core.message import Envelope, Inbound, MemoryBody, Source
from gateway.core.verdict import Judgement, Reason
from gateway.imap.listener import IMAPListener
from gateway.inbox.indexer import Indexer
from gateway.inbox.quarantine_inbox import QuarantineInbox
from gateway.ports import UnitOfWork
from gateway.store.unit import SQLUnitOfWork
from tests.unit.imap.imap_harness import (
    LOGIN,
    PASSWORD,
    SETTINGS,
    Bench,
    FakeAuthenticator,
    Practice,
    plain_message,
    tls_contexts,
)

SECRET_SUBJECT = "Biopsy"


@asynccontextmanager
async def clinic(folder: Path, *, operator: bool = True) -> AsyncIterator[Bench]:
    """A listener over the production inbox; the account is an operator or not, ``ann`` never is."""
    practice = await Practice.create(folder)
    try:

        def accounts(unit: UnitOfWork) -> None:
            mailbox_id = unit.quarantine_folder.make(practice.clock.now())
            if operator:
                unit.accounts.grant(practice.account.id, "Quarantine", mailbox_id, "lr")

        await practice.store.write(accounts)
        inbox = QuarantineInbox(Indexer(), practice.store, practice.clock, practice.hub, SETTINGS)
        authenticator = FakeAuthenticator({(LOGIN, PASSWORD): practice.account})
        settings = SETTINGS
        listener = IMAPListener(settings, authenticator, inbox, tls_contexts()[0], starttls_port=0, tls_port=0)
        await listener.start()
        try:
            yield Bench(practice, authenticator, inbox, listener)
        finally:
            await listener.close()
    finally:
        practice.store.close()


async def refused(practice: Practice, name: str = "r1", reason: Reason = Reason.UNTRUSTED) -> str:
    message_id = f"refused-{name}"
    judgement = Judgement(reason, "no anchor", subject=SECRET_SUBJECT, hint="issued by CN=Nobody")

    def work(unit: UnitOfWork) -> None:
        at = practice.clock.now()
        envelope = Envelope("jane@phr.example", ("b@direct.example.org",))
        unit.messages.add_raw(message_id, at, Inbound(MemoryBody(b"sealed " + name.encode()), envelope, Source.SMTP))
        unit.messages.set_state(message_id, State.RECEIVED, at)
        unit.messages.add_verdict(message_id, at, judgement)
        unit.messages.set_state(message_id, State.REFUSED, at)

    await practice.store.write(work)
    return message_id


async def retry(practice: Practice, message_id: str) -> None:
    at = practice.clock.now()
    await practice.store.write(lambda unit: unit.messages.set_state(message_id, State.RECEIVED, at))


async def test_without_the_grant_there_is_no_such_folder(tmp_path: Path) -> None:
    async with clinic(tmp_path, operator=False) as here, here.client() as client:
        await refused(here.practice)
        await client.login()
        assert not [line for line in await client.ok('LIST "" "*"') if b"uarantine" in line]
        for command in ("SELECT", "EXAMINE", "MYRIGHTS", "GETACL", "SUBSCRIBE"):
            assert (await client.cmd(f"{command} Quarantine"))[-1].startswith(b"NO [NONEXISTENT]"), command
        assert (await client.cmd("STATUS Quarantine (MESSAGES)"))[-1].startswith(b"NO [NONEXISTENT]")


async def test_a_report_is_read_and_names_neither_subject_nor_content(tmp_path: Path) -> None:
    async with clinic(tmp_path) as here, here.client() as client:
        message_id = await refused(here.practice)
        await client.login()
        assert b'* LIST (\\HasNoChildren) "/" Quarantine' in await client.ok('LIST "" "*"')
        [line] = await client.ok("STATUS Quarantine (MESSAGES UNSEEN UIDNEXT SIZE)")
        assert b"MESSAGES 1 UNSEEN 1" in line
        *untagged, answer = await client.cmd("SELECT Quarantine")
        assert answer.startswith(b"OK [READ-ONLY]")
        assert b"* 1 EXISTS" in untagged
        [fetched] = await client.ok("FETCH 1 (UID FLAGS RFC822.SIZE INTERNALDATE ENVELOPE BODYSTRUCTURE BODY[])")
        text = fetched.decode()
        assert f"quarantine retry {message_id}" in text
        assert "jane@phr.example" in text
        assert "b@direct.example.org" in text
        assert SECRET_SUBJECT not in text
        assert "sealed r1" not in text
        size = re.search(r"RFC822.SIZE (\d+)", text)
        literal = re.search(r"BODY\[\] \{(\d+)\}", text)
        assert size is not None
        assert literal is not None
        assert size.group(1) == literal.group(1)
        assert f"RFC822.SIZE {size.group(1)}".encode() in (await client.ok("FETCH 1 RFC822.SIZE"))[0]
        [shown] = await client.ok("STATUS Quarantine (SIZE)")
        assert f"SIZE {size.group(1)})".encode() in shown


async def test_reading_is_in_the_audit_log_with_the_message(tmp_path: Path) -> None:
    async with clinic(tmp_path) as here, here.selected("Quarantine") as client:
        message_id = await refused(here.practice)
        await refused(here.practice, "r2")
        await client.ok("NOOP")
        await client.ok("FETCH 1 BODY.PEEK[]")
        assert await here.practice.audit("message.read") == [(LOGIN, message_id)]
        await client.ok("FETCH 1:2 ENVELOPE")

        def listed(unit: UnitOfWork) -> list[dict[str, object]]:
            assert isinstance(unit, SQLUnitOfWork)
            return [json.loads(row.detail) for row in unit.audit.events() if row.action == "message.listed"]

        assert [one.get("uid") for one in await here.practice.store.read(listed)] == [2]


async def test_a_report_goes_when_the_message_is_judged_again(tmp_path: Path) -> None:
    async with clinic(tmp_path) as here, here.selected("Quarantine") as client:
        first = await refused(here.practice)
        second = await refused(here.practice, "r2")
        assert b"* 2 EXISTS" in await client.ok("NOOP")
        await retry(here.practice, first)
        assert (await client.ok("NOOP"))[0] == b"* 1 EXPUNGE"
        [fetched] = await client.ok("FETCH 1 (UID BODY[])")
        assert b"UID 2" in fetched
        assert second.encode() in fetched
        await retry(here.practice, second)
        assert (await client.ok("NOOP"))[0] == b"* 1 EXPUNGE"
        assert await client.ok("UID FETCH 1:* (FLAGS)") == []
        [line] = await client.ok("STATUS Quarantine (MESSAGES UIDNEXT)")
        assert b"(MESSAGES 0 UIDNEXT 3)" in line
        assert b"* 0 EXISTS" in await client.ok("SELECT Quarantine")


async def test_a_client_that_comes_back_is_told_what_vanished(tmp_path: Path) -> None:
    """QRESYNC (RFC 7162)."""
    async with clinic(tmp_path) as here, here.client() as client:
        first = await refused(here.practice)
        await refused(here.practice, "r2")
        await client.login()
        await client.ok("ENABLE QRESYNC")
        text = b"\n".join(await client.ok("SELECT Quarantine"))
        found = [re.search(name + rb" (\d+)", text) for name in (b"UIDVALIDITY", b"HIGHESTMODSEQ")]
        validity, modseq = [int(one.group(1)) for one in found if one is not None]
        await client.ok("UNSELECT")
        await retry(here.practice, first)
        await refused(here.practice, "r3")
        answer = b"\n".join(await client.ok(f"SELECT Quarantine (QRESYNC ({validity} {modseq}))"))
        assert b"* VANISHED (EARLIER) 1" in answer
        assert b"UID 3" in answer
        assert b"UID 2 " not in answer


async def test_search_looks_into_the_reports(tmp_path: Path) -> None:
    async with clinic(tmp_path) as here, here.selected("Quarantine") as client:
        await refused(here.practice)
        await refused(here.practice, "r2", Reason.EXPIRED)
        gone = await refused(here.practice, "r3", Reason.EXPIRED)
        await retry(here.practice, gone)
        await client.ok("NOOP")
        assert await client.ok("UID SEARCH BODY jane@phr.example") == [b"* SEARCH 1 2"]
        assert await client.ok("UID SEARCH SUBJECT expired") == [b"* SEARCH 2"]
        assert await client.ok("UID SEARCH HEADER Auto-Submitted generated") == [b"* SEARCH 1 2"]
        assert await client.ok("UID SEARCH UNSEEN") == [b"* SEARCH 1 2"]
        assert await client.ok("UID SEARCH TEXT nowhere") == [b"* SEARCH"]


async def test_nothing_in_it_can_be_changed(tmp_path: Path) -> None:
    async with clinic(tmp_path) as here, here.selected("Quarantine") as client:
        await refused(here.practice)
        await client.ok("NOOP")
        for command in (r"STORE 1 +FLAGS (\Seen)", r"STORE 1 +FLAGS (\Deleted Word)", "COPY 1 INBOX"):
            assert (await client.cmd(command))[-1].startswith(b"NO [NOPERM]"), command
        await client.ok("EXPUNGE")
        [fetched] = await client.ok("FETCH 1 (BODY[] FLAGS)")
        assert b"\\Seen" not in fetched
        assert (await client.cmd("APPEND Quarantine {3+}\r\nabc"))[-1].startswith(b"NO [NOPERM]")


async def test_the_other_folders_are_what_they_were(tmp_path: Path) -> None:
    async with clinic(tmp_path) as here, here.client() as client:
        await here.practice.file(plain_message(1))
        await refused(here.practice)
        await client.login()
        assert b"* 1 EXISTS" in await client.ok("SELECT INBOX")
        [fetched] = await client.ok("FETCH 1 BODY[]")
        assert plain_message(1) in fetched
        assert await client.ok("SEARCH TEXT number") == [b"* SEARCH 1"]
