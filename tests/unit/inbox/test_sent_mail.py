"""What a mail client puts into Sent: once, as it came, and nowhere else. EP-29, ON-10."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import RefusedError, StoreError
from gateway.core.lifecycle import State
from gateway.inbox.indexer import Indexer
from gateway.inbox.sent import SentMail
from gateway.inbox.service import Inbox
from gateway.ports import Account, PlacedBody, UnitOfWork
from gateway.settings import IMAPSettings
from gateway.store.unit import SQLUnitOfWork
from tests.unit.imap.imap_harness import Practice

LETTER = (
    b"From: Front Desk <b@direct.example.org>\r\nTo: a@direct.example.net\r\nSubject: =?utf-8?q?R=C3=A9sum=C3=A9?=\r\n"
    b"Message-ID: <77@direct.example.org>\r\n\r\nThe result is attached.\r\n"
)
WHEN = datetime(2024, 2, 29, 23, 59, tzinfo=UTC)
ELSEWHERE = "Messages come in as Direct messages only"


@pytest.fixture
async def practice(tmp_path: Path) -> AsyncIterator[Practice]:
    made = await Practice.create(tmp_path)
    try:
        yield made
    finally:
        made.store.close()


def inbox_of(practice: Practice, **settings: Any) -> Inbox:
    numbers = count(1)
    sent = SentMail(practice.store, practice.clock, practice.hub, Indexer(), lambda: f"sent{next(numbers):022d}")
    return Inbox(practice.store, practice.clock, practice.hub, replace(IMAPSettings(), **settings), sent)


@pytest.fixture
async def inbox(practice: Practice) -> Inbox:
    made = inbox_of(practice)
    await made.prepare()
    return made


async def events(practice: Practice, *actions: str) -> list[tuple[str, str, dict[str, Any]]]:
    def work(unit: UnitOfWork) -> list[tuple[str, str, dict[str, Any]]]:
        assert isinstance(unit, SQLUnitOfWork)
        return [(row.action, row.actor, json.loads(row.detail)) for row in unit.audit.events() if row.action in actions]

    return await practice.store.read(work)


async def test_preparing_gives_the_sent_of_the_inbox_and_does_so_once(practice: Practice, inbox: Inbox) -> None:
    await inbox.prepare()
    folders = {folder.name: folder for folder in await inbox.folders(practice.account)}
    assert folders["Sent"].special_use == "\\Sent"
    assert folders["Sent"].rights == "lrswi"
    assert len(await events(practice, "user.sent_given")) == 1


async def test_a_copy_is_kept_with_its_flags_and_date(practice: Practice, inbox: Inbox) -> None:
    asked = frozenset({"\\seen", "\\Answered", "$forwarded", "Mine", "\\Deleted", "\\Draft", "\\Recent"})
    validity, uid = await inbox.append(practice.account, "Sent", asked, WHEN, LETTER)
    grant = await inbox.open(practice.account, "Sent")
    mailbox = grant.mailbox
    assert (validity, uid) == (mailbox.uid_validity, mailbox.uids[0])
    assert mailbox.flags[0] == {"\\Seen", "\\Answered", "$Forwarded", "Mine"}
    await mailbox.details.need([0])
    assert mailbox.details.internal_date(0) == WHEN
    assert await inbox.contents(mailbox, [uid]) == {uid: LETTER}
    [(_, actor, detail)] = await events(practice, "message.kept")
    assert actor == practice.account.login
    assert (detail["uid"], detail["size_bytes"]) == (uid, len(LETTER))


async def test_it_is_no_received_message(practice: Practice, inbox: Inbox) -> None:
    await inbox.append(practice.account, "Sent", frozenset(), None, LETTER)
    [line] = await practice.store.read(lambda unit: unit.messages.newest())
    assert (line.state, line.sender, line.claimed_sender) == (State.KEPT, "", "b@direct.example.org")
    assert (line.subject, line.message_id) == ("Résumé", "<77@direct.example.org>")
    assert await practice.store.read(lambda unit: unit.messages.verdict(line.id)) is None
    assert await practice.store.read(lambda unit: unit.jobs.claim(60, 10)) == []
    for folder in await inbox.folders(practice.account):
        held = (await inbox.open(practice.account, folder.name)).mailbox.present
        assert held == (1 if folder.name == "Sent" else 0)
    mailbox = (await inbox.open(practice.account, "Sent")).mailbox
    assert mailbox.flags[0] == frozenset()


async def test_the_keywords_of_the_gateway_cannot_be_given(practice: Practice, inbox: Inbox) -> None:
    asked = frozenset({"$directverified", "$DirectLinked", "$DirectNeedsReview", "$DirectReviewed", "Other"})
    await inbox.append(practice.account, "Sent", asked, None, LETTER)
    assert (await inbox.open(practice.account, "Sent")).mailbox.flags[0] == {"Other"}


async def test_keywords_beyond_the_limits_do_not_lose_the_message(practice: Practice, inbox: Inbox) -> None:
    asked = frozenset({f"word{number}" for number in range(1_000)} | {"\\Seen"})
    await inbox.append(practice.account, "Sent", asked, None, LETTER)
    assert (await inbox.open(practice.account, "Sent")).mailbox.flags[0] == {"\\Seen"}


async def test_the_same_bytes_at_the_same_moment_are_one_message(practice: Practice, inbox: Inbox) -> None:
    answers = await asyncio.gather(
        *(inbox.append(practice.account, "Sent", frozenset(), None, LETTER) for _ in range(20))
    )
    assert len(set(answers)) == 1
    assert len(await practice.store.read(lambda unit: unit.messages.newest())) == 1
    assert len(await events(practice, "message.kept")) == 1
    assert len(await events(practice, "message.kept_again")) == 19


async def test_a_repeat_changes_no_flag_and_another_message_gets_the_next_uid(practice: Practice, inbox: Inbox) -> None:
    first = await inbox.append(practice.account, "Sent", frozenset({"\\Seen"}), WHEN, LETTER)
    assert await inbox.append(practice.account, "Sent", frozenset({"\\Flagged"}), None, LETTER) == first
    mailbox = (await inbox.open(practice.account, "Sent")).mailbox
    assert mailbox.flags[0] == {"\\Seen"}
    assert (await inbox.append(practice.account, "Sent", frozenset(), None, LETTER + b"x"))[1] == first[1] + 1


async def test_after_a_restart_a_repeat_is_known(practice: Practice, inbox: Inbox) -> None:
    """A client that saw no answer sends it again, to a daemon that was started anew."""
    first = await inbox.append(practice.account, "Sent", frozenset(), None, LETTER)
    again = inbox_of(practice)
    await again.prepare()
    assert await again.append(practice.account, "Sent", frozenset(), None, LETTER) == first


@pytest.mark.parametrize(
    "content", [b"\xff\x00\x01", b"\r\n", b"no header at all", b"Subject: \xe4\n\nbare\nlines", b":" * 70_000]
)
async def test_garbage_is_kept_as_it_is_and_shown(practice: Practice, inbox: Inbox, content: bytes) -> None:
    _, uid = await inbox.append(practice.account, "Sent", frozenset(), None, content)
    mailbox = (await inbox.open(practice.account, "Sent")).mailbox
    assert await inbox.contents(mailbox, [uid]) == {uid: content}
    assert (await inbox.indexed(mailbox, [uid]))[uid].size_bytes == len(content)


@pytest.mark.parametrize("name", ["INBOX", "inbox", "Shared/Läbs", "Trash", "sent", ""])
async def test_elsewhere_is_refused_with_what_to_do_and_written_down(
    practice: Practice, inbox: Inbox, name: str
) -> None:
    for attempt in (
        lambda: inbox.appendable(practice.account, name),
        lambda: inbox.append(practice.account, name, frozenset(), None, LETTER),
    ):
        with pytest.raises(RefusedError, match=ELSEWHERE):
            await attempt()
    assert len(await events(practice, "mailbox.change_refused")) == 2
    assert await practice.store.read(lambda unit: unit.messages.newest()) == []


async def test_without_the_right_it_is_refused(practice: Practice, inbox: Inbox) -> None:
    sent = await inbox.folder(practice.account, "Sent")
    account_id = practice.account.id
    await practice.store.write(lambda unit: unit.accounts.grant(account_id, "Sent", sent.mailbox_id, "lrsw"))
    with pytest.raises(RefusedError, match="the right i"):
        await inbox.append(practice.account, "Sent", frozenset(), None, LETTER)
    await practice.store.write(lambda unit: unit.accounts.grant(account_id, "Sent", sent.mailbox_id, "lri"))
    with pytest.raises(RefusedError, match="empty"):
        await inbox.append(practice.account, "Sent", frozenset(), None, b"")
    # Flags that the rights do not reach are passed over (RFC 4314 section 4).
    await inbox.append(practice.account, "Sent", frozenset({"\\Seen", "Word"}), None, LETTER)
    assert (await inbox.open(practice.account, "Sent")).mailbox.flags[0] == frozenset()


async def test_seen_that_is_given_is_the_senders_own_where_each_has_his(practice: Practice) -> None:
    inbox = inbox_of(practice, seen="per_user")
    await inbox.prepare()

    def colleague(unit: UnitOfWork) -> Account:
        account_id = unit.accounts.add("other", "x", practice.clock.now())
        unit.accounts.grant(account_id, "INBOX", practice.inbox_id, "lr")
        return Account(account_id, "other", "x")

    other = await practice.store.write(colleague)
    await inbox.prepare()
    await inbox.append(practice.account, "Sent", frozenset({"\\Seen", "\\Flagged"}), None, LETTER)
    mine, theirs = [(await inbox.open(who, "Sent")).mailbox for who in (practice.account, other)]
    assert mine.flags[0] == {"\\Seen", "\\Flagged"}
    assert theirs.flags[0] == {"\\Flagged"}
    with pytest.raises(RefusedError, match="the right i"):
        await inbox.append(other, "Sent", frozenset(), None, LETTER)


async def test_a_commit_that_fails_keeps_nothing(
    practice: Practice, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_arguments: object, **_more: object) -> None:
        raise StoreError("the disk")

    with monkeypatch.context() as patched:
        patched.setattr("gateway.store.audit_log.AuditLog.add", fails)
        with pytest.raises(StoreError):
            await inbox.append(practice.account, "Sent", frozenset(), None, LETTER)
    assert await practice.store.read(lambda unit: unit.messages.newest()) == []
    assert (await inbox.open(practice.account, "Sent")).mailbox.uid_next == 1


async def test_a_session_that_has_sent_selected_is_woken(practice: Practice, inbox: Inbox) -> None:
    grant = await inbox.open(practice.account, "Sent")
    with practice.hub.subscribe(grant.mailbox.id) as subscription:
        await inbox.append(practice.account, "Sent", frozenset(), None, LETTER)
        await asyncio.wait_for(subscription.wait(), 5)


class PlacingStore:
    """A store whose bodies lie elsewhere: what is placed for a message is counted."""

    places_bodies = True

    def __init__(self, practice: Practice) -> None:
        self._store = practice.store
        self.read, self.write, self.version = practice.store.read, practice.store.write, practice.store.version
        self.placed: list[str] = []

    async def place_raw(self, message_id: str, _raw: object) -> PlacedBody | None:
        self.placed.append(message_id)
        return None

    async def place_content(self, _message_id: str, _content: bytes) -> PlacedBody | None:
        raise AssertionError("there is no verified content")


async def test_bodies_are_placed_before_the_rows_and_not_for_a_repeat(practice: Practice, inbox: Inbox) -> None:
    store = PlacingStore(practice)
    inbox.sent = SentMail(store, practice.clock, practice.hub, Indexer(), lambda: "m" * 26)
    for _ in range(2):
        await inbox.append(practice.account, "Sent", frozenset(), None, LETTER)
    assert store.placed == ["m" * 26]
