"""A body of many parts is read a few rows at a time, and comes back whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.store import body_parts
from gateway.store.body_parts import Kind, TableParts
from gateway.store.message_keys import MessageKeys
from gateway.store.unit import SQLUnitOfWork
from gateway.store.unit_time import UnitTime
from tests.support.store_samples import NOW, inbound
from tests.support.stores import STORES

AT_ONCE = body_parts._ROWS_AT_ONCE
NUMBERS = (0, 1, 2, AT_ONCE - 1, AT_ONCE, AT_ONCE + 1, 2 * AT_ONCE, 2 * AT_ONCE + 3)


@pytest.mark.parametrize("kind", sorted(STORES))
def test_all_parts_come_back_in_their_order(kind: str, tmp_path: Path) -> None:
    bodies = {f"{number:026}": [b"%d/%d" % (n, number) for n in range(number)] for number in NUMBERS}
    with STORES[kind](tmp_path) as store, store._writer_engine.begin() as connection:
        rows = SQLUnitOfWork(connection, store._context, UnitTime(lambda: None))
        parts = TableParts(connection)
        for message_id, body in bodies.items():
            rows.messages.add_raw(message_id, NOW, inbound(message_id.encode()))
            parts.put(message_id, Kind.CONTENT, body)
            parts.put(message_id, Kind.SEARCH, [b"other"])
        for message_id, body in bodies.items():
            taken = [(found, list(sealed)) for found, sealed in parts.take([message_id], Kind.CONTENT)]
            assert taken == ([(message_id, body)] if body else [])
        together = {found: list(sealed) for found, sealed in parts.take(list(bodies), Kind.CONTENT)}
        assert together == {message_id: body for message_id, body in bodies.items() if body}


def test_one_key_is_found_as_many_are(tmp_path: Path) -> None:
    ids = [f"{number:026}" for number in range(3)]
    with STORES["sqlite"](tmp_path) as store, store._writer_engine.begin() as connection:
        rows = SQLUnitOfWork(connection, store._context, UnitTime(lambda: None))
        for message_id in ids:
            rows.messages.add_raw(message_id, NOW, inbound(message_id.encode()))
        keys = MessageKeys(connection, store._context.keys)
        together = keys.rows([*ids, "none"])
        assert sorted(together) == ids
        assert {message_id: keys.rows([message_id])[message_id] for message_id in ids} == together
        assert keys.rows(["none"]) == {}
