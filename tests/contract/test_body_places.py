"""What every place of bodies promises: the database, and a bucket with Object Lock, on every database."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.errors import StoreError
from gateway.core.lifecycle import State
from gateway.core.message import MemoryBody
from gateway.ports import IndexedMessage, PlacedBody, UnitOfWork
from gateway.store.ids import new_id
from gateway.store.sql_store import SQLStore
from tests.support.body_keys import sealer_in
from tests.support.s3_server import S3Server, s3_server
from tests.support.store_samples import ALICE, NOW, accepted, inbound, indexed, keep_raw
from tests.support.stores import SETTINGS

SIZES = (0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3_000_000)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture(params=[(place, engine) for place in ("database", "s3") for engine in sorted(SETTINGS)], ids="-".join)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SQLStore]:
    place, engine = request.param
    settings = replace(SETTINGS[engine](tmp_path), bodies=place)
    s3 = None
    if place == "s3":
        server: S3Server = request.getfixturevalue("server")
        s3 = server.settings(server.bucket())
    with SQLStore.open(settings, sealer_in(tmp_path), daemon=True, s3=s3) as opened:
        yield opened


async def keep_content(store: SQLStore, message_id: str, content: bytes) -> None:
    judgement = accepted(ALICE, content=content)
    placed = await store.place_content(message_id, content)

    def work(tx: UnitOfWork) -> None:
        tx.messages.add_verdict(message_id, NOW, judgement)
        tx.messages.add_content(message_id, judgement, placed)
        tx.messages.set_state(message_id, State.UNWRAPPED, NOW)

    await store.write(work)


async def test_bodies_come_back_byte_for_byte(store: SQLStore) -> None:
    for size in SIZES:
        raw, content = os.urandom(size), b"x" + os.urandom(size)
        message_id = await keep_raw(store, raw)
        await keep_content(store, message_id, content)
        assert (await store.read(lambda tx, m=message_id: tx.messages.raw(m))).body == raw  # type: ignore[misc]
        assert (await store.read(lambda tx, m=message_id: tx.messages.content(m))).content == content  # type: ignore[misc]


async def test_what_was_placed_is_named_by_its_own_message_and_body_only(store: SQLStore) -> None:
    if not store.places_bodies:
        pytest.skip("the database places nothing")
    message_id = new_id(NOW)
    placed = await store.place_raw(message_id, MemoryBody(b"raw"))
    assert placed is not None
    for wrong, raw in (
        (replace(placed, message_id=new_id(NOW)), b"raw"),
        (placed, b"another raw"),
        (replace(placed, kind="content"), b"raw"),
    ):
        with pytest.raises(StoreError, match="another body"):
            await store.write(lambda tx, w=wrong, r=raw: tx.messages.add_raw(message_id, NOW, inbound(r), w))  # type: ignore[misc]
    with pytest.raises(StoreError, match="not placed before its row"):
        await store.write(lambda tx: tx.messages.add_raw(message_id, NOW, inbound(b"raw")))


async def test_a_body_that_was_placed_is_not_taken_by_a_store_that_places_none(store: SQLStore) -> None:
    if store.places_bodies:
        pytest.skip("this one places them")
    raw = MemoryBody(b"raw")
    placed = PlacedBody(new_id(NOW), "raw", raw.sha256, bytes(32), "name", "1", "00" * 32, 3, NOW)
    assert await store.place_raw(placed.message_id, raw) is None
    with pytest.raises(StoreError, match="places none"):
        await store.write(lambda tx: tx.messages.add_raw(placed.message_id, NOW, inbound(b"raw"), placed))
    await store.write(lambda tx: tx.messages.add_raw(placed.message_id, NOW, inbound(b"raw")))


async def test_listing_reads_many_bodies(store: SQLStore) -> None:
    mailbox = await store.write(lambda tx: tx.mailboxes.create("inbox", NOW, [ALICE]))
    contents = {}
    for number in range(5):
        content = b"Subject: %d\r\n\r\nneedle %d\r\n" % (number, number)
        message_id = await keep_raw(store, b"raw %d" % number)
        await keep_content(store, message_id, content)
        digest = (await store.read(lambda tx, m=message_id: tx.messages.content(m))).content_sha256  # type: ignore[misc]
        index: IndexedMessage = indexed(content)
        uid = await store.write(
            lambda tx, m=message_id, d=digest, i=index: tx.mailboxes.add(mailbox, m, d, i, NOW)  # type: ignore[misc]
        )
        contents[uid] = content
    assert await store.read(lambda tx: tx.mailboxes.contents(mailbox, list(contents))) == contents
    assert await store.read(lambda tx: tx.mailboxes.search_text(mailbox, "needle 3", headers=False, body=True)) == {4}


async def test_a_unit_that_writes_never_waits_for_a_bucket(store: SQLStore) -> None:
    message_id = await keep_raw(store, b"raw")
    await keep_content(store, message_id, b"Subject: x\r\n\r\ny")
    content = await store.write(lambda tx: tx.messages.content(message_id, with_bytes=False))
    assert content.content == b""
    if store.places_bodies:
        with pytest.raises(StoreError, match="by a unit that writes"):
            await store.write(lambda tx: tx.messages.raw(message_id))
