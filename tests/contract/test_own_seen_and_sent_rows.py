r"""``\Seen`` of one account, and the mailboxes of sent mail, on every store."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest

from gateway.core.errors import ConflictError, NotFoundError
from gateway.core.lifecycle import State
from gateway.core.message import Envelope, Inbound, MemoryBody, Source
from gateway.ports import Store, UnitOfWork
from gateway.store import seen
from gateway.store.ids import new_id
from tests.support.store_samples import ALICE, NOW, accepted, inbound, indexed
from tests.support.stores import STORES

SEEN = "\\Seen"
CONTENT = b"From: Front Desk <desk@direct.practice.example>\r\nSubject: Answer\r\n\r\nHello\r\n"


@pytest.fixture(params=sorted(STORES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    with STORES[request.param](tmp_path) as opened:
        yield opened


def filed(tx: UnitOfWork, mailbox_id: int, number: int) -> int:
    content = b"Subject: %d\r\n\r\nx\r\n" % number
    message_id = new_id(NOW)
    tx.messages.add_raw(message_id, NOW, inbound(b"raw %d" % number))
    tx.messages.set_state(message_id, State.RECEIVED, NOW)
    judgement = accepted(content=content)
    tx.messages.add_verdict(message_id, NOW, judgement)
    tx.messages.add_content(message_id, judgement)
    tx.messages.set_state(message_id, State.UNWRAPPED, NOW)
    uid = tx.mailboxes.add(mailbox_id, message_id, judgement.content_sha256, indexed(content), NOW)
    assert uid is not None
    return uid


async def made(store: Store, messages: int = 3) -> tuple[int, int, int]:
    """A mailbox with messages, and two accounts."""

    def work(tx: UnitOfWork) -> tuple[int, int, int]:
        mailbox_id = tx.mailboxes.create("INBOX", NOW, [ALICE])
        for number in range(messages):
            filed(tx, mailbox_id, number)
        return mailbox_id, tx.accounts.add("ann", "h", NOW), tx.accounts.add("bob", "h", NOW)

    return await store.write(work)


async def flags_of(
    store: Store, mailbox_id: int, who: int | None = None, since: int = 0
) -> dict[int, tuple[frozenset[str], int]]:
    """Flags and MODSEQ by UID, as the account sees them."""
    columns = await store.read(lambda tx: tx.mailboxes.flags(mailbox_id, since, seen_by=who))
    return {
        uid: (flags, modseq) for uid, flags, modseq in zip(columns.uids, columns.flags, columns.modseqs, strict=True)
    }


async def set_flags(store: Store, mailbox_id: int, uid: int, flags: frozenset[str], who: int | None) -> int:
    return await store.write(lambda tx: tx.mailboxes.set_flags(mailbox_id, {uid: flags}, seen_by=who))


async def test_what_one_account_reads_is_unread_for_the_other_and_in_the_shared_flags(store: Store) -> None:
    mailbox_id, ann, bob = await made(store)
    before = await store.read(lambda tx: tx.mailboxes.get(mailbox_id).highest_modseq)
    modseq = await store.write(lambda tx: tx.mailboxes.set_flags(mailbox_id, {2: frozenset({SEEN})}, seen_by=ann))
    assert modseq == before + 1

    of_ann, of_bob, shared = [await flags_of(store, mailbox_id, who) for who in (ann, bob, None)]
    assert of_ann[2] == (frozenset({SEEN}), modseq)
    assert of_bob == shared
    assert of_bob[2][0] == frozenset()
    # Only she is told that something changed; the counter is one for all.
    assert await flags_of(store, mailbox_id, ann, before) == {2: of_ann[2]}
    assert await flags_of(store, mailbox_id, bob, before) == {}
    assert await flags_of(store, mailbox_id, None, before) == {}
    assert await store.read(lambda tx: tx.mailboxes.get(mailbox_id).highest_modseq) == modseq


async def test_other_flags_stay_shared_and_one_change_of_both_has_one_modseq(store: Store) -> None:
    mailbox_id, ann, bob = await made(store)
    wanted = frozenset({SEEN, "\\Flagged", "+odd"})
    modseq = await store.write(lambda tx: tx.mailboxes.set_flags(mailbox_id, {1: wanted}, seen_by=ann))
    assert (await flags_of(store, mailbox_id, ann))[1] == (wanted, modseq)
    of_bob = await flags_of(store, mailbox_id, bob)
    assert of_bob[1] == (frozenset({"\\Flagged", "+odd"}), modseq)


async def test_a_shared_mark_holds_until_somebody_takes_it_away_for_himself(store: Store) -> None:
    mailbox_id, ann, bob = await made(store)
    await store.write(lambda tx: tx.mailboxes.set_flags(mailbox_id, {1: frozenset({SEEN})}))
    assert SEEN in (await flags_of(store, mailbox_id, ann))[1][0]
    unread = await store.write(lambda tx: tx.mailboxes.set_flags(mailbox_id, {1: frozenset()}, seen_by=ann))
    assert (await flags_of(store, mailbox_id, ann))[1] == (frozenset(), unread)
    for who in (bob, None):
        assert SEEN in (await flags_of(store, mailbox_id, who))[1][0]


async def test_what_changes_nothing_moves_no_modseq_and_unknown_uids_are_passed_over(store: Store) -> None:
    mailbox_id, ann, _ = await made(store)
    await store.write(lambda tx: tx.mailboxes.set_flags(mailbox_id, {1: frozenset({SEEN})}, seen_by=ann))
    before = await store.read(lambda tx: tx.mailboxes.get(mailbox_id).highest_modseq)
    again = {1: frozenset({SEEN}), 99: frozenset({SEEN})}
    assert await store.write(lambda tx: tx.mailboxes.set_flags(mailbox_id, again, seen_by=ann)) == before
    assert await store.read(lambda tx: tx.mailboxes.get(mailbox_id).highest_modseq) == before


@pytest.mark.parametrize("seed", range(3))
async def test_any_history_is_read_as_it_was_written(store: Store, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Against a model, whole and as news, over pages of few rows."""
    monkeypatch.setattr(seen, "PAGE_ROWS", 4)
    chance = random.Random(seed)
    mailbox_id, ann, bob = await made(store, messages=11)
    shared = {uid: set[str]() for uid in range(1, 12)}
    own: dict[tuple[int, int], bool] = {}
    stops = [await store.read(lambda tx: tx.mailboxes.get(mailbox_id).highest_modseq)]
    looks = []
    for _ in range(25):
        who, uid = chance.choice([ann, bob, None]), chance.randrange(1, 12)
        flags = frozenset(flag for flag in (SEEN, "\\Flagged", "Word") if chance.random() < 0.5)
        stop = await set_flags(store, mailbox_id, uid, flags, who)
        if who is None:
            shared[uid] = set(flags)
        else:
            shared[uid] = set(flags - {SEEN}) | (shared[uid] & {SEEN})
            if (SEEN in flags) != own.get((who, uid), SEEN in shared[uid]):
                own[who, uid] = SEEN in flags
        stops.append(stop)
        looks.append(await flags_of(store, mailbox_id, ann))
        expected = {
            uid: (flags - {SEEN}) | ({SEEN} if own.get((ann, uid), SEEN in flags) else set())
            for uid, flags in shared.items()
        }
        assert {uid: flags for uid, (flags, _) in looks[-1].items()} == expected
    for (earlier, later), since in zip(pairwise(looks), stops[1:], strict=False):
        changed = {uid for uid in later if later[uid] != earlier[uid]}
        news = await flags_of(store, mailbox_id, ann, since)
        # Whatever looks otherwise afterwards is among the news.
        assert changed <= set(news)
    assert await flags_of(store, mailbox_id, ann, stops[-1]) == {}


async def test_a_change_of_the_setting_tells_clients_and_loses_nothing(store: Store) -> None:
    mailbox_id, ann, _ = await made(store)
    assert await store.write(lambda tx: tx.mailboxes.use_seen("shared", NOW)) is None
    assert await store.write(lambda tx: tx.mailboxes.use_seen("per_user", NOW)) == []
    await store.write(lambda tx: tx.mailboxes.set_flags(mailbox_id, {3: frozenset({SEEN})}, seen_by=ann))
    before = await store.read(lambda tx: tx.mailboxes.get(mailbox_id).highest_modseq)
    assert await store.write(lambda tx: tx.mailboxes.use_seen("shared", NOW)) == [mailbox_id]
    # Message 3 looks otherwise to her now: asked for changes, the store must name it.
    assert set(await flags_of(store, mailbox_id, None, before)) == {3}
    assert await store.read(lambda tx: tx.mailboxes.get(mailbox_id).highest_modseq) == before + 1
    assert await store.write(lambda tx: tx.mailboxes.use_seen("shared", NOW)) is None
    assert await store.write(lambda tx: tx.mailboxes.use_seen("per_user", NOW)) == [mailbox_id]
    found = await flags_of(store, mailbox_id, ann, before + 1)
    assert found == {3: (frozenset({SEEN}), before + 2)}


# --- sent mail ---


def keep(tx: UnitOfWork, mailbox_id: int, account_id: int, content: bytes = CONTENT) -> tuple[str, int | None]:
    message_id = new_id(NOW)
    raw = MemoryBody(content)
    tx.messages.add_raw(message_id, NOW, Inbound(raw, Envelope(None, ()), Source.MAIL_CLIENT))
    tx.messages.set_state(message_id, State.KEPT, NOW)
    tx.kept.add(message_id, account_id, sender="desk@x.example", subject="Answer", rfc822_message_id="<1@x>")
    return message_id, tx.mailboxes.add(mailbox_id, message_id, raw.sha256, indexed(content), NOW)


async def test_each_inbox_has_one_sent(store: Store) -> None:
    inbox, _, _ = await made(store)
    sent = await store.write(lambda tx: tx.kept.make_sent(inbox, NOW))
    assert await store.write(lambda tx: tx.kept.make_sent(inbox, NOW)) == sent
    assert await store.read(lambda tx: (tx.kept.sent_of(inbox), tx.kept.inbox_of(sent))) == (sent, inbox)
    assert await store.read(lambda tx: (tx.kept.sent_of(sent), tx.kept.inbox_of(inbox))) == (None, None)
    assert await store.read(lambda tx: tx.mailboxes.get(sent).name) == "Sent/INBOX"
    with pytest.raises(NotFoundError):
        await store.write(lambda tx: tx.kept.make_sent(9_999, NOW))


async def test_a_folder_of_sent_mail_says_so(store: Store) -> None:
    inbox, ann, _ = await made(store)

    def work(tx: UnitOfWork) -> None:
        tx.accounts.grant(ann, "INBOX", inbox, "lrsw")
        tx.accounts.grant(ann, "Sent", tx.kept.make_sent(inbox, NOW), "lrswi")

    await store.write(work)
    folders = await store.read(lambda tx: tx.accounts.folders(ann))
    assert {folder.name: folder.special_use for folder in folders} == {"INBOX": "", "Sent": "\\Sent"}


async def test_who_lacks_a_sent_and_who_had_one(store: Store) -> None:
    inbox, ann, bob = await made(store)

    def grants(tx: UnitOfWork) -> None:
        for account_id in (ann, bob):
            tx.accounts.grant(account_id, "INBOX", inbox, "lr")
        sent = tx.kept.make_sent(inbox, NOW)
        tx.accounts.grant(ann, "Sent", sent, "lr")
        tx.accounts.grant(ann, "Sent", sent, "")

    await store.write(grants)
    # What an operator took away is not given again.
    assert [(one.account_id, one.inbox_id, one.rights) for one in await store.read(lambda tx: tx.kept.lacking())] == [
        (bob, inbox, "lr")
    ]
    await store.write(lambda tx: tx.accounts.grant(bob, "INBOX", inbox, ""))
    assert await store.read(lambda tx: tx.kept.lacking()) == []


async def test_a_kept_message_is_read_as_it_came_and_is_nobodys_verified_content(store: Store) -> None:
    inbox, ann, _ = await made(store, messages=0)
    sent = await store.write(lambda tx: tx.kept.make_sent(inbox, NOW))
    message_id, uid = await store.write(lambda tx: keep(tx, sent, ann))
    assert uid == 1
    assert await store.read(lambda tx: tx.mailboxes.contents(sent, [1])) == {1: CONTENT}
    assert await store.read(lambda tx: tx.mailboxes.search_text(sent, "hello", headers=False, body=True)) == {1}
    with pytest.raises(NotFoundError):
        await store.read(lambda tx: tx.messages.content(message_id))
    assert await store.read(lambda tx: tx.messages.facts(message_id).sender) is None
    kept = await store.read(lambda tx: tx.kept.get(message_id))
    assert kept is not None
    assert (kept.login, kept.subject) == ("ann", "Answer")
    [line] = await store.read(lambda tx: tx.messages.newest())
    assert (line.state, line.sender, line.claimed_sender) == (State.KEPT, "", "desk@x.example")
    assert (line.subject, line.message_id, line.reason) == ("Answer", "<1@x>", "")
    assert await store.read(lambda tx: tx.quarantine.refused()) == []
    assert await store.read(lambda tx: tx.kept.find(sent, MemoryBody(CONTENT).sha256)) == 1


async def test_the_same_bytes_are_in_a_sent_once(store: Store) -> None:
    inbox, ann, _ = await made(store)
    sent = await store.write(lambda tx: tx.kept.make_sent(inbox, NOW))
    await store.write(lambda tx: keep(tx, sent, ann))
    assert (await store.write(lambda tx: keep(tx, sent, ann)))[1] is None


async def test_a_kept_message_moves_nowhere_and_delays_no_delivery(store: Store) -> None:
    """The same bytes that come by SMTP are no duplicate of what a mail client put here."""
    inbox, ann, _ = await made(store, messages=0)
    sent = await store.write(lambda tx: tx.kept.make_sent(inbox, NOW))
    message_id, _ = await store.write(lambda tx: keep(tx, sent, ann))
    for there in State:

        def work(tx: UnitOfWork, there: State = there) -> None:
            tx.messages.set_state(message_id, there, NOW)

        with pytest.raises(ConflictError):
            await store.write(work)
    assert await store.read(lambda tx: tx.messages.find_transport_duplicate(inbound(CONTENT), ALICE)) is None
