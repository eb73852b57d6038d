"""What every store promises of POP3 listings (:class:`gateway.ports.POP3Rows`): EP-29, EP-30."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.core.errors import ConflictError
from gateway.ports import Store, UnitOfWork
from gateway.store.ids import new_id
from tests.support.store_samples import ALICE, BOB, NOW, accepted, inbound, indexed
from tests.support.stores import STORES

COUNT = 12


@pytest.fixture(params=sorted(STORES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    with STORES[request.param](tmp_path) as opened:
        await opened.write(_fill)
        yield opened


def _fill(tx: UnitOfWork) -> None:
    """Two accounts (1 and 2) and two mailboxes (1 and 2) with the same messages, UIDs 1 to COUNT."""
    for name, address in (("one", ALICE), ("two", BOB)):
        mailbox = tx.mailboxes.create(name, NOW, [address])
        tx.accounts.grant(tx.accounts.add(name, "hash", NOW), "INBOX", mailbox, "lrs")
    for number in range(COUNT):
        content = b"Subject: %d\r\n\r\nHello\r\n" % number
        message_id = new_id(NOW)
        tx.messages.add_raw(message_id, NOW, inbound(b"From: x\r\n\r\n%d" % number))
        tx.messages.add_content(message_id, accepted(content=content))
        digest = tx.messages.content(message_id).content_sha256
        for mailbox in (1, 2):
            assert tx.mailboxes.add(mailbox, message_id, digest, indexed(content), NOW) == number + 1


async def hide(store: Store, *uids: int, account: int = 1, mailbox: int = 1) -> int:
    return await store.write(lambda tx: tx.pop3.hide(account, mailbox, uids, NOW))


async def hidden(store: Store, account: int = 1, mailbox: int = 1) -> list[tuple[int, int]]:
    return await store.read(lambda tx: tx.pop3.hidden(account, mailbox))


async def restore(store: Store, account: int = 1) -> int:
    return await store.write(lambda tx: tx.pop3.restore(account, NOW, "operator"))


async def test_what_is_hidden_is_kept_in_runs_and_once(store: Store) -> None:
    assert await hidden(store) == []
    assert await hide(store) == 0
    assert await hide(store, 7, 5, 6, 9, 5) == 4
    assert await hidden(store) == [(5, 7), (9, 9)]
    assert await hide(store, *range(1, COUNT + 1)) == COUNT - 4
    assert await hidden(store) == [(1, 4), (5, 7), (8, 8), (9, 9), (10, 12)]
    assert await hide(store, *range(1, COUNT + 1)) == 0


async def test_accounts_and_mailboxes_know_nothing_of_each_other(store: Store) -> None:
    await hide(store, 1)
    await hide(store, 2, mailbox=2)
    await hide(store, 3, account=2)
    assert await hidden(store) == [(1, 1)]
    assert await hidden(store, mailbox=2) == [(2, 2)]
    assert await hidden(store, account=2) == [(3, 3)]
    assert await hidden(store, account=2, mailbox=2) == []
    assert await restore(store) == 2
    assert await hidden(store) == await hidden(store, mailbox=2) == []
    assert await hidden(store, account=2) == [(3, 3)]


async def test_after_a_restore_the_same_can_be_hidden_again(store: Store) -> None:
    assert await restore(store) == 0
    for _ in range(3):
        assert await hide(store, 1, 2) == 2
        assert await hide(store, 2, 3) == 1
        assert await hidden(store) == [(1, 2), (3, 3)]
        assert await restore(store) == 3
        assert await restore(store) == 0
        assert await hidden(store) == []


async def test_a_message_that_is_not_there_cannot_be_hidden(store: Store) -> None:
    """The database itself sees to it, and what stood beside it in the unit is not kept either."""
    with pytest.raises(ConflictError):
        await hide(store, 1, COUNT + 1)
    assert await hidden(store) == []
