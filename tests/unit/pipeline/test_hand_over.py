"""The hand-over in memory: bounded, once, only what was committed, and never damaged."""

from __future__ import annotations

import hashlib
import itertools
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import StoreError
from gateway.core.message import MemoryBody, Source
from gateway.pipeline.accept import Accept
from gateway.pipeline.hand_over import HandOver
from gateway.ports import RawMessage, UnitOfWork
from gateway.store.sql_store import SQLStore
from tests.support.store_samples import ALICE, BOB, NOW, SENDER, SteadyClock, inbound, open_store


def raw(name: str, body: bytes = b"body") -> RawMessage:
    return RawMessage(name, NOW, Source.SMTP, "", SENDER, (ALICE,), hashlib.sha256(body).hexdigest(), body)


def test_each_message_is_handed_out_once() -> None:
    hand_over = HandOver()
    hand_over.offer(raw("a"))
    hand_over.offer(raw("a"))
    assert hand_over.take("a") == raw("a")
    assert hand_over.take("a") is None
    assert hand_over.held_bytes == 0


def test_the_oldest_goes_when_there_is_no_room_and_a_large_one_is_not_held() -> None:
    hand_over = HandOver(most_bytes=10, one_bytes=5)
    for name in "abc":
        hand_over.offer(raw(name))
    hand_over.offer(raw("large", b"123456"))
    assert hand_over.held_bytes == 8
    assert [hand_over.take(name) is None for name in ("a", "b", "c", "large")] == [True, False, False, True]
    assert hand_over.held_bytes == 0


def test_damaged_bytes_are_not_handed_out() -> None:
    hand_over = HandOver()
    hand_over.offer(replace(raw("a"), body=b"bodx"))
    assert hand_over.take("a") is None
    assert hand_over.held_bytes == 0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLStore]:
    with open_store(tmp_path) as opened:
        yield opened


def accepting(store: SQLStore, hand_over: HandOver) -> Accept:
    numbers = itertools.count(1)
    return Accept(store, SteadyClock(), lambda: f"{next(numbers):026d}", lambda: None, hand_over=hand_over)


def _raw(message_id: str, tx: UnitOfWork) -> RawMessage:
    return tx.messages.raw(message_id)


async def test_what_is_handed_over_is_what_the_store_would_give(store: SQLStore) -> None:
    hand_over = HandOver()
    accept = accepting(store, hand_over)
    first = await accept(inbound(b"raw", ALICE.upper()))
    second = await accept(inbound(b"raw", ALICE, BOB, mail_from=None))
    third = await accept(inbound(b"raw", ALICE, BOB))
    for message_id in (first, second, third):
        stored = await store.read(partial(_raw, message_id))
        assert hand_over.take(message_id) == stored
    # The third is for the one recipient who has not had it.
    assert stored.recipients == (BOB,)


async def test_a_duplicate_hands_nothing_over(store: SQLStore) -> None:
    hand_over = HandOver()
    accept = accepting(store, hand_over)
    message_id = await accept(inbound(b"raw", ALICE))
    hand_over.take(message_id)
    assert await accept(inbound(b"raw", ALICE)) == message_id
    assert hand_over.held_bytes == 0


async def test_nothing_is_handed_over_before_the_commit(store: SQLStore, monkeypatch: pytest.MonkeyPatch) -> None:
    hand_over = HandOver()
    dialect = store._writer_engine.dialect
    held: list[int] = []

    def fail(_: Any) -> None:
        held.append(hand_over.held_bytes)
        error = sqlite3.OperationalError("x")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(dialect, "do_commit", fail)
        with pytest.raises(StoreError):
            await accepting(store, hand_over)(inbound(b"raw", ALICE))
    assert held == [0]
    assert hand_over.held_bytes == 0


async def test_what_the_store_would_give_back_otherwise_is_not_handed_over(store: SQLStore) -> None:
    class OnDisk:
        def __init__(self, data: bytes) -> None:
            self._body = MemoryBody(data)
            self.size_bytes = self._body.size_bytes
            self.sha256 = self._body.sha256
            self.parts = self._body.parts

    hand_over = HandOver(one_bytes=10)
    accept = accepting(store, hand_over)
    for message in (
        replace(inbound(), raw=OnDisk(b"raw")),
        inbound(b"raw", mail_from="dr\udcff@partner.example"),
        inbound(b"longer than ten"),
    ):
        await accept(message)
        assert hand_over.held_bytes == 0
