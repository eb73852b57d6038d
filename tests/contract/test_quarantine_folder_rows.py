"""The quarantine as a mailbox, on every store: what is refused has one report, under a UID that never comes back."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.core.lifecycle import State
from gateway.core.verdict import Reason
from gateway.ports import Store, UnitOfWork
from gateway.store.ids import new_id
from tests.support.store_samples import ALICE, BOB, NOW, SENDER, inbound, rejected
from tests.support.stores import STORES


@pytest.fixture(params=sorted(STORES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    with STORES[request.param](tmp_path) as opened:
        yield opened


def received(tx: UnitOfWork) -> str:
    message_id = new_id(NOW)
    tx.messages.add_raw(message_id, NOW, inbound(b"raw " + message_id.encode(), ALICE, BOB))
    tx.messages.set_state(message_id, State.RECEIVED, NOW)
    return message_id


def refuse(tx: UnitOfWork, message_id: str, reason: Reason = Reason.UNTRUSTED) -> str:
    tx.messages.add_verdict(message_id, NOW, rejected(reason))
    tx.messages.set_state(message_id, State.REFUSED, NOW + timedelta(minutes=1))
    return message_id


async def present(store: Store) -> dict[int, str]:
    def work(tx: UnitOfWork) -> dict[int, str]:
        gone = {uid for _, uid in tx.quarantine_folder.exits()}
        return {one.uid: one.message_id for one in tx.quarantine_folder.entries() if one.uid not in gone}

    return await store.read(work)


async def test_nothing_is_kept_of_it_until_somebody_is_given_it(store: Store) -> None:
    first = await store.write(lambda tx: refuse(tx, received(tx)))
    assert await store.read(lambda tx: (tx.quarantine_folder.mailbox(), tx.quarantine_folder.entries())) == (None, [])
    made = await store.write(lambda tx: tx.quarantine_folder.make(NOW))
    assert await store.write(lambda tx: tx.quarantine_folder.make(NOW)) == made
    assert await present(store) == {1: first}


async def test_a_message_leaves_when_it_is_judged_again_and_enters_under_a_new_uid(store: Store) -> None:
    made = await store.write(lambda tx: tx.quarantine_folder.make(NOW))
    one, two = [await store.write(lambda tx: refuse(tx, received(tx))) for _ in range(2)]
    assert await present(store) == {1: one, 2: two}
    before = await store.read(lambda tx: tx.mailboxes.get(made).highest_modseq)
    await store.write(lambda tx: tx.messages.set_state(one, State.RECEIVED, NOW))
    assert await present(store) == {2: two}
    assert await store.read(lambda tx: tx.quarantine_folder.exits(before)) == [(before + 1, 1)]
    await store.write(lambda tx: refuse(tx, one, Reason.EXPIRED))
    assert await present(store) == {2: two, 3: one}
    mailbox = await store.read(lambda tx: tx.mailboxes.get(made))
    assert (mailbox.uid_next, mailbox.highest_modseq) == (4, before + 2)
    # What was reported once says the same for ever, whatever was judged since.
    reported = await store.read(lambda tx: tx.quarantine_folder.reported([1, 3, 99]))
    assert {uid: line.reason for uid, line in reported.items()} == {1: Reason.UNTRUSTED, 3: Reason.EXPIRED}
    assert reported[1].recipients == (ALICE, BOB)
    assert (reported[1].claimed_sender, reported[1].detail, reported[1].hint) == (
        SENDER,
        "no anchor",
        "CN=issuer is unknown",
    )


async def test_who_refuses_nothing_leaves_nothing(store: Store) -> None:
    await store.write(lambda tx: tx.quarantine_folder.make(NOW))

    def undone(tx: UnitOfWork) -> None:
        refuse(tx, received(tx))
        raise LookupError

    with pytest.raises(LookupError):
        await store.write(undone)
    assert await present(store) == {}


@pytest.mark.parametrize("seed", range(2))
async def test_it_holds_what_the_quarantine_holds(store: Store, seed: int) -> None:
    chance = random.Random(seed)
    await store.write(lambda tx: tx.quarantine_folder.make(NOW))
    refused, waiting = list[str](), list[str]()
    for _ in range(30):
        if refused and chance.random() < 0.4:
            again = refused.pop(chance.randrange(len(refused)))

            def retry(tx: UnitOfWork, message_id: str = again) -> None:
                tx.messages.set_state(message_id, State.RECEIVED, NOW)

            await store.write(retry)
            waiting.append(again)
        elif waiting and chance.random() < 0.5:
            back = waiting.pop()

            def once_more(tx: UnitOfWork, message_id: str = back) -> str:
                return refuse(tx, message_id)

            refused.append(await store.write(once_more))
        else:
            refused.append(await store.write(lambda tx: refuse(tx, received(tx))))
        assert sorted((await present(store)).values()) == sorted(refused)
        listed = await store.read(lambda tx: tx.quarantine.ids())
        assert sorted(listed) == sorted(refused)


async def test_the_folder_of_it_says_what_it_is(store: Store) -> None:
    def work(tx: UnitOfWork) -> int:
        account_id = tx.accounts.add("it", "h", NOW)
        tx.accounts.grant(account_id, "Quarantine", tx.quarantine_folder.make(NOW), "lr")
        tx.accounts.grant(account_id, "INBOX", tx.mailboxes.create("INBOX", NOW, [ALICE]), "lr")
        return account_id

    account_id = await store.write(work)
    folders = await store.read(lambda tx: tx.accounts.folders(account_id))
    assert {folder.name: folder.view for folder in folders} == {"Quarantine": "quarantine", "INBOX": ""}
