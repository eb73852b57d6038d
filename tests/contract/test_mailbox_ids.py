"""What every store promises of the ids of messages in a mailbox, and of who sees it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.core.lifecycle import State
from gateway.ports import Store, UnitOfWork
from tests.support.store_samples import NOW, SteadyClock, accepted, inbound, indexed
from tests.support.stores import STORES

IDS = [f"01J000000000000000000000{n:02d}" for n in range(3)]


@pytest.fixture(params=sorted(STORES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    with STORES[request.param](tmp_path, SteadyClock()) as opened:
        yield opened


def file_all(unit: UnitOfWork) -> tuple[int, int]:
    """Three messages in one mailbox, the last in another as well."""
    one, two = (unit.mailboxes.create(name, NOW, []) for name in ("one", "two"))
    for number, message_id in enumerate(IDS):
        content = b"Subject: %d\r\n\r\nx\r\n" % number
        unit.messages.add_raw(message_id, NOW, inbound(b"raw %d" % number))
        unit.messages.set_state(message_id, State.RECEIVED, NOW)
        unit.messages.add_content(message_id, accepted(content=content))
        for mailbox in (one, two) if number == 2 else (one,):
            unit.mailboxes.add(mailbox, message_id, hashlib.sha256(content).hexdigest(), indexed(content), NOW)
    return one, two


async def test_ids_and_uids_lead_to_each_other(store: Store) -> None:
    """RFC 8474: the EMAILID of a UID, and the UIDs of an EMAILID."""
    one, two = await store.write(file_all)

    def work(unit: UnitOfWork) -> None:
        rows = unit.mailboxes
        assert rows.message_ids(one, [3, 1, 9]) == {1: IDS[0], 3: IDS[2]}
        assert rows.message_ids(two, [1]) == {1: IDS[2]}
        assert rows.message_ids(two, []) == {}
        assert rows.uids_of(one, IDS[2]) == [3]
        assert rows.uids_of(two, IDS[2]) == [1]
        assert rows.uids_of(two, IDS[0]) == []
        assert rows.uids_of(two, "nobody's") == []

    await store.read(work)


async def test_who_sees_a_mailbox(store: Store) -> None:
    """RFC 4314: the newest grant of each folder counts; rights on two folders of it are joined; others do not."""

    def work(unit: UnitOfWork) -> tuple[int, int]:
        one, two = (unit.mailboxes.create(name, NOW, []) for name in ("one", "two"))
        front, doctor, gone = (unit.accounts.add(login, "x", NOW) for login in ("front", "Doctor", "gone"))
        unit.accounts.grant(front, "INBOX", one, "lr")
        unit.accounts.grant(front, "INBOX", one, "lrs")
        unit.accounts.grant(front, "Second", one, "lw")
        unit.accounts.grant(doctor, "INBOX", two, "lrsw")
        unit.accounts.grant(doctor, "Front", one, "l")
        unit.accounts.grant(gone, "INBOX", one, "lr")
        unit.accounts.grant(gone, "INBOX", one, "")
        unit.accounts.grant(gone, "Other", one, "lr")
        unit.accounts.grant(gone, "Other", two, "r")
        return one, two

    one, two = await store.write(work)
    assert await store.read(lambda unit: unit.accounts.granted_on(one)) == [("Doctor", "l"), ("front", "lrsw")]
    assert await store.read(lambda unit: unit.accounts.granted_on(two)) == [("Doctor", "lrsw"), ("gone", "r")]
