"""With which header fields a message is shown: decided when it is filed, by the setting of then, and never again."""

from __future__ import annotations

import email
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import NotFoundError, StoreError
from gateway.core.lifecycle import JobKind
from gateway.core.shown_message import without_fields
from gateway.inbox.indexer import Indexer
from gateway.pipeline.file import FileMessage, refile
from gateway.pipeline.onward import Onward
from gateway.store.audit_verify import Witnesses, verify_store
from tests.support.store_samples import (
    ALICE,
    BOB,
    NOW,
    SENDER,
    SteadyClock,
    accepted,
    inbound,
    open_store,
    patient,
    settings_for,
)
from tests.unit.pipeline.test_onward import Works

CONTENT = b"Direct-Gateway-Verdict: forged\r\nSubject: Referral\r\n\r\nHello\r\n"


@pytest.fixture
async def works(tmp_path: Path) -> AsyncIterator[Works]:
    clock = SteadyClock()
    with open_store(tmp_path, daemon=True, clock=clock) as store:
        made = Works(store, clock, hand_over=False)
        made.indexer = Indexer()
        made.agent.answer = lambda _, envelope: accepted(*envelope.recipients, content=CONTENT)
        yield made
        made.executor.shutdown()


def use(works: Works, *, on: bool, at_once: bool = True) -> None:
    """The setting, as of a start of the daemon."""
    works.file = FileMessage(works.store, works, works.clock, works.feed, verdict_headers=on)
    onward = Onward(works, works.link, works.feed, verdict_headers=on) if at_once else None
    works.unwrap._onward = onward


def shown(works: Works, mailbox: int) -> dict[int, bytes]:
    """The messages of a mailbox, each as large as clients are told, with a header that ends where they are told."""

    def work(tx: Any) -> dict[int, bytes]:
        entries = {entry.uid: entry for entry in tx.mailboxes.entries(mailbox)}
        contents: dict[int, bytes] = tx.mailboxes.contents(mailbox, list(entries))
        rows = tx.mailboxes.indexed(mailbox, list(entries))
        headers = tx.mailboxes.headers(mailbox, list(entries))
        for uid, content in contents.items():
            assert len(content) == entries[uid].size_bytes == rows[uid].size_bytes
            assert content[: rows[uid].header_end] == headers[uid]
        return contents

    return works.store.read_blocking(work)


def said(message: bytes) -> dict[str, str]:
    fields = email.message_from_bytes(message).items()
    return {name.removeprefix("Direct-Gateway-"): value.strip() for name, value in fields if name.startswith("Dir")}


def verified(works: Works, tmp_path: Path) -> list[str]:
    works.store.close()
    report = verify_store(settings_for(tmp_path), Witnesses(check_signature=lambda _head: None))
    return [str(finding) for finding in report.findings]


@pytest.mark.parametrize("at_once", [True, False])
async def test_off_nothing_is_written_and_the_verified_bytes_are_shown(works: Works, at_once: bool) -> None:
    mailbox = works.mailbox("alice", ALICE)
    use(works, on=False, at_once=at_once)
    await works.run(inbound())
    assert shown(works, mailbox) == {1: CONTENT}
    assert works.ask("SELECT * FROM shown_fields") == []


@pytest.mark.parametrize("at_once", [True, False])
async def test_on_the_fields_stand_in_front_and_what_came_is_kept(works: Works, at_once: bool, tmp_path: Path) -> None:
    mailbox = works.mailbox("alice", ALICE)
    use(works, on=True, at_once=at_once)
    message_id = await works.run(inbound())
    found = shown(works, mailbox)[1]
    assert found.endswith(without_fields(CONTENT))
    assert b"forged" not in found
    fields = said(found)
    assert (fields["Verdict"], fields["Sender"], fields["Message-Id"]) == ("accepted", SENDER, message_id)
    # Step by step the link is decided after the filing.
    assert fields["Link-At-Filing"] == ("unlinked" if at_once else "undecided")
    kept = works.store.read_blocking(lambda tx: tx.messages.content(message_id))
    assert kept.content == CONTENT
    search = works.store.read_blocking
    for name, needle, uids in (
        ("direct-gateway-verdict", "accepted", {1}),
        ("direct-gateway-verdict", "forged", set()),
    ):
        assert search(lambda tx, n=name, w=needle: tx.mailboxes.search_header(mailbox, n, w)) == uids  # type: ignore[misc]
    assert verified(works, tmp_path) == []


async def test_what_the_rule_links_is_told_as_linked_when_it_was_filed(works: Works, tmp_path: Path) -> None:
    works.store.write_blocking(lambda tx: tx.patients.upsert([patient()], "csv", NOW))
    mailbox = works.mailbox("alice", ALICE)
    use(works, on=True)
    await works.run(inbound())
    assert works.ask("SELECT count(*) FROM link") == [[1]]
    assert said(shown(works, mailbox)[1])["Link-At-Filing"] == "linked"
    assert verified(works, tmp_path) == []


async def test_each_copy_for_another_recipient_has_fields_of_its_own(works: Works, tmp_path: Path) -> None:
    alice, bob = works.mailbox("alice", ALICE), works.mailbox("bob", BOB)
    use(works, on=True)
    first = await works.run(inbound(b"From: x\r\n\r\none", ALICE))
    second = await works.run(inbound(b"From: x\r\n\r\ntwo", BOB))
    assert said(shown(works, alice)[1])["Message-Id"] == first
    assert said(shown(works, bob)[1])["Message-Id"] == second
    # And a copy that nobody is shown has none.
    await works.run(inbound(b"From: x\r\n\r\nthree", ALICE))
    assert works.ask("SELECT count(*) FROM shown_fields") == [[2]]
    assert verified(works, tmp_path) == []


@pytest.mark.parametrize("before", [True, False])
async def test_a_mailbox_that_takes_it_later_shows_it_as_the_first_one_does(
    works: Works, before: bool, tmp_path: Path
) -> None:
    alice = works.mailbox("alice", ALICE)
    use(works, on=before, at_once=False)
    message_id = await works.accept(inbound(b"From: x\r\n\r\nboth", ALICE, BOB))
    [job] = works.claim()
    await works.unwrap(job)
    [job] = works.claim()
    with pytest.raises(NotFoundError):
        await works.file(job)
    first = shown(works, alice)
    bob = works.mailbox("bob", BOB)
    use(works, on=not before)
    works.clock.advance(3_600)
    await refile(works.store, works.clock, message_id, "user")
    await works.work()
    assert shown(works, bob) == shown(works, alice) == first
    assert (b"Direct-Gateway-Message-Id" in first[1]) is before
    assert (first[1] == CONTENT) is not before
    assert verified(works, tmp_path) == []


async def test_what_no_mailbox_took_is_decided_when_one_does(works: Works) -> None:
    use(works, on=False, at_once=False)
    message_id = await works.accept(inbound())
    await works.unwrap(works.claim()[0])
    [job] = works.claim()
    with pytest.raises(NotFoundError):
        await works.file(job)
    alice = works.mailbox("alice", ALICE)
    use(works, on=True)
    works.clock.advance(3_600)
    await refile(works.store, works.clock, message_id, "user")
    await works.work()
    assert said(shown(works, alice)[1])["Message-Id"] == message_id


async def test_an_attempt_that_was_overtaken_files_nothing(works: Works) -> None:
    alice = works.mailbox("alice", ALICE)
    use(works, on=True, at_once=False)
    await works.accept(inbound())
    await works.unwrap(works.claim()[0])
    [job] = works.claim()
    assert job.kind is JobKind.FILE
    index = works.indexer
    overtaken: list[int] = []

    class Slow:
        def index(self, content: bytes) -> Any:
            if not overtaken:
                overtaken.append(1)
                # Somebody else, with the setting off, is faster.
                content_row = works.store.read_blocking(lambda tx: tx.messages.content(job.subject))
                works.store.write_blocking(
                    lambda tx: tx.mailboxes.add(
                        alice, job.subject, content_row.content_sha256, index.index(CONTENT), NOW
                    )
                )
            return index.index(content)

        def with_fields(self, indexed: Any, fields: bytes) -> Any:
            return index.with_fields(indexed, fields)

    works.indexer = Slow()
    with pytest.raises(StoreError, match="another attempt"):
        await works.file(job)
    assert works.ask("SELECT * FROM shown_fields") == []
    await works.file(job)
    assert shown(works, alice) == {1: CONTENT}


async def test_a_commit_that_fails_leaves_no_fields_behind(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = works.mailbox("alice", ALICE)
    use(works, on=True)
    broken = [1]
    real = works.link.carry_out

    def carry_out(*arguments: Any) -> bool:
        if broken:
            broken.pop()
            raise StoreError("the disk")
        return real(*arguments)

    monkeypatch.setattr(works.link, "carry_out", carry_out)
    await works.accept(inbound())
    [job] = works.claim()
    with pytest.raises(StoreError):
        await works.unwrap(job)
    assert works.ask("SELECT * FROM shown_fields") == works.ask("SELECT * FROM mailbox_message") == []
    works.clock.advance(3_600)
    await works.work()
    assert len(said(shown(works, alice)[1])) == 9
